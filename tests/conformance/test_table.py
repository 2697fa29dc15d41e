"""Every behaviour has a test or a reason why it has none, and the page that says so is up to date."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sim.scenario.errors import ScenarioError
from sim.verify import semantics
from sim.verify.semantics import FOLDER, INDEX, Behaviour, Test, outcomes_of
from tests.conformance import table

ANEW = "run python -m tests.conformance.table"

YAML = """\
system: pigeon
title: Pigeons
sources: >
  a book
behaviours:
  - id: Q-01
    title: A pigeon
    claim: It flies.
    source: the book
  - id: Q-02
    title: Two pigeons
    claim: Both fly.
    source: the book
    left_out: not written yet
"""
TESTS = """\
import pytest

def helper(): ...

@pytest.mark.parametrize("n", [1, 2])
def test_Q01_it_flies(n): assert n

def test_Q01_it_lands(): assert False

def test_q01_not_this_one(): ...

def test_Z01_of_a_sheet_that_has_no_file(): ...

class Test_Q01_nor_this: ...
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with two behaviours and some tests."""
    (tmp_path / "behaviours").mkdir()
    (tmp_path / "tests" / "conformance").mkdir(parents=True)
    (tmp_path / "behaviours" / "pigeon.yaml").write_text(YAML)
    (tmp_path / "tests" / "conformance" / "test_pigeon.py").write_text(TESTS)
    return tmp_path


def behaviours(checkout: Path) -> dict[str, Any]:
    return table.behaviours(checkout / "behaviours", table.carriers(checkout / "tests", checkout))


# -- what ships ----------------------------------------------------------------------------------------------------


def test_every_behaviour_has_a_test_or_a_reason_and_the_index_is_up_to_date() -> None:
    expected = table.fresh(table.known_outcomes(INDEX))  # raises for a behaviour that has neither
    assert json.loads(INDEX.read_text(encoding="utf-8")) == expected, ANEW


def test_the_index_says_of_every_test_that_it_passed() -> None:
    """A page of behaviours that were not run tells nobody anything."""
    systems = json.loads(INDEX.read_text(encoding="utf-8")).values()
    tests = [test for system in systems for behaviour in system["behaviours"] for test in behaviour["tests"]]
    others = [test["name"] for test in tests if test["outcome"] != "passed"]
    assert others == [], "run python -m tests.conformance.table --run"


def test_the_page_of_behaviours_is_up_to_date() -> None:
    systems = table.fresh(table.known_outcomes(INDEX))
    expected = table.page(systems, semantics.load(INDEX)[1])
    assert table.PAGE.read_text(encoding="utf-8") == expected, ANEW


def test_no_test_failed_when_the_page_was_written() -> None:
    assert [b.id for b in semantics.load(INDEX)[1] if b.status == "failed"] == []


@pytest.mark.parametrize(("name", "letter", "number"), [("network", "N", 20), ("rabbitmq", "R", 40)])
def test_the_sheets_are_there_in_full(name: str, letter: str, number: int) -> None:
    ids = [behaviour.id for behaviour in semantics.load(INDEX)[1] if behaviour.system == name]
    assert ids == [f"{letter}-{i:02}" for i in range(1, number + 1)]


# -- how it is made ------------------------------------------------------------------------------------------------


def test_tests_are_found_by_their_names(checkout: Path) -> None:
    found = table.carriers(checkout / "tests", checkout)
    file = "tests/conformance/test_pigeon.py"
    assert [test.key for test in found["Q-01"]] == [
        f"{file}::test_Q01_it_flies",
        f"{file}::test_Q01_it_lands",
    ]
    assert set(found) == {"Q-01", "Z-01"}
    assert list(table.test_names(ast.parse("def test_a(): ...\ndef b(): ..."))) == ["test_a"]


def test_a_behaviour_has_its_tests_or_its_reason(checkout: Path) -> None:
    first, second = behaviours(checkout)["pigeon"]["behaviours"]
    assert ([test["name"] for test in first["tests"]], first["left_out"]) == (
        ["test_Q01_it_flies", "test_Q01_it_lands"],
        "",
    )
    assert (second["tests"], second["left_out"]) == ([], "not written yet")


def test_a_reason_is_dropped_when_the_test_is_written_and_kept_when_it_is_about_a_part(
    checkout: Path,
) -> None:
    tests = checkout / "tests" / "conformance" / "test_pigeon.py"
    tests.write_text(TESTS + "\ndef test_Q02_both(): ...\n")
    assert behaviours(checkout)["pigeon"]["behaviours"][1]["left_out"] == ""
    file = checkout / "behaviours" / "pigeon.yaml"
    file.write_text(YAML.replace("not written yet", "a third pigeon is not modelled"))
    assert behaviours(checkout)["pigeon"]["behaviours"][1]["left_out"] == "a third pigeon is not modelled"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    left_out: not written yet\n", "", "Q-02 has neither a test nor a reason why it is left out"),
        ("Q-02", "Q2", "expected an id such as R-07, found 'Q2'"),
        ("Q-02", "Q-01", "found Q-01 twice"),
        ("left_out", "leftout", "Q-02: unknown field 'leftout'"),
        ("claim: Both fly.", "claim: ''", "Q-02: expected a text as claim, found ''"),
        ("system: pigeon", "system: dove", "expected the system pigeon, found dove"),
        ("id: Q-01", "id: Q-03", "test_pigeon.py::test_Q01_it_flies: there is no behaviour Q-01"),
    ],
)
def test_a_bad_file_is_told(checkout: Path, old: str, new: str, message: str) -> None:
    text = YAML.replace(old, new)
    if new == "id: Q-03":  # which then needs a reason of its own
        text = text.replace(
            "    source: the book\n  - id: Q-02", "    source: x\n    left_out: x\n  - id: Q-02"
        )
    (checkout / "behaviours" / "pigeon.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:
        behaviours(checkout)
    assert message in str(caught.value)


def test_outcomes_are_the_worst_of_the_parameters() -> None:
    report = ElementTree.fromstring(
        "<testsuite>"
        '<testcase file="a.py" name="test_one[1]"/>'
        '<testcase file="a.py" name="test_one[2]"><failure/></testcase>'
        '<testcase file="a.py" name="test_two"/>'
        '<testcase file="a.py" name="test_three"><skipped/></testcase>'
        '<testcase file="b.py" name="test_two"><error/></testcase>'
        "</testsuite>"
    )
    assert outcomes_of(report.iter("testcase")) == {
        "a.py::test_one": "failed",
        "a.py::test_two": "passed",
        "a.py::test_three": "skipped",
        "b.py::test_two": "failed",
    }


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], "left out"),
        (["passed", "passed"], "passed"),
        (["passed", "failed"], "failed"),
        (["passed", "not run"], "not run"),
        (["skipped"], "not run"),
    ],
)
def test_the_status_of_a_behaviour(outcomes: list[str], status: str) -> None:
    tests = tuple(Test("a.py", f"test_{i}", outcome) for i, outcome in enumerate(outcomes))
    assert Behaviour("pigeon", "Q-01", "t", "c", "s", "", tests).status == status


def test_tests_are_run_and_their_outcomes_are_known_by_their_keys(checkout: Path) -> None:
    keys = [test.key for test in table.carriers(checkout / "tests", checkout)["Q-01"]]
    outcomes = semantics.run_tests(checkout, keys)
    assert outcomes == {keys[0]: "passed", keys[1]: "failed"}
    systems = table.with_known_outcomes(behaviours(checkout), outcomes)
    (checkout / "index.json").write_text(table.index_text(systems))
    titles, found = semantics.load(checkout / "index.json")
    assert titles == {"pigeon": "Pigeons"}
    assert [behaviour.status for behaviour in found] == ["failed", "left out"]
    assert table.known_outcomes(checkout / "index.json") == outcomes
    page = table.page(systems, found)
    assert "2 behaviours: 1 failed, 1 left out. Sources: a book" in page
    first = (
        "| Q-01 | **A pigeon.** It flies. | the book | `test_Q01_it_flies`<br>`test_Q01_it_lands` | failed |"
    )
    assert first in page.splitlines()
    assert "| Q-02 | **Two pigeons.** Both fly. | the book |  | left out: not written yet |" in page


def test_a_test_that_is_not_there_cannot_be_run(checkout: Path) -> None:
    with pytest.raises(ScenarioError, match="--run: pytest cannot run the tests"):
        semantics.run_tests(checkout, ["tests/conformance/test_pigeon.py::test_Q99"])


def test_the_folder_of_behaviours_ships_with_the_package() -> None:
    assert FOLDER.parent.name == "sim" and INDEX.is_file()
