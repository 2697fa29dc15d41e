"""Which test carries which behaviour: the index that `msgsim verify semantics` shows, and docs/conformance.md.

    python -m tests.conformance.table          write both; tests keep the outcome that is known of them
    python -m tests.conformance.table --run    run the tests first (`--run R-07 N-13`: only those of these ids)

A behaviour is in `sim/behaviours/SYSTEM.yaml`; a test carries it by its name: `test_R07_...` is one of R-07. Tests are
found by parsing the source, so that looking costs nothing.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sim.verify.semantics import CHECKOUT, FOLDER, INDEX, NOT_RUN, Behaviour, Test, load, run_tests

TESTS = CHECKOUT / "tests"
PAGE = CHECKOUT / "docs" / "conformance.md"
NOT_WRITTEN = "not written yet"
FIELDS = {"id", "title", "claim", "source", "left_out"}
_ID = re.compile(r"([A-Z]{1,3})-(\d{2})")
_TEST = re.compile(r"test_([A-Z]{1,3})(\d{2})_")

INTRODUCTION = """\
# Conformance

What each system does, where that is laid down, and the tests that carry it. The claims are in our words; the source is
the authority. A test is named after its behaviour (`test_R07_...` carries R-07), and *passed* is how all tests of the
behaviour ended when they last ran for this page. What has no test is listed with the reason.

`python -m tests.conformance.table --run` writes this page, and a test says when it is out of date. `msgsim verify
semantics` prints the same in a terminal, and with `--run` runs the tests anew.
"""


# -- what there is -------------------------------------------------------------------------------------------------


def carriers(folder: Path, root: Path) -> dict[str, list[Test]]:
    """The tests under a folder that carry a behaviour, by its id, in the order of their files."""
    found: dict[str, list[Test]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for name in test_names(ast.parse(file.read_text(encoding="utf-8"))):
            if match := _TEST.match(name):
                test = Test(file.relative_to(root).as_posix(), name)
                found.setdefault(f"{match[1]}-{match[2]}", []).append(test)
    return found


def test_names(tree: ast.Module) -> Iterator[str]:
    """The names of the tests that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


test_names.__test__ = False  # type: ignore[attr-defined]


def behaviours(folder: Path, tests: Mapping[str, list[Test]]) -> dict[str, Any]:
    """Every system of the folder with its behaviours and their tests, as the index has them.

    Raises ValueError for a file that is not as it should be, and for a test of a behaviour that is not there.
    """
    systems: dict[str, Any] = {}
    known: list[str] = []
    for file in sorted(folder.glob("*.yaml")):
        text = YAML(typ="safe", pure=True).load(file)
        entries = [entry(file, raw, tests) for raw in text["behaviours"]]
        if text["system"] != file.stem:
            raise ValueError(f"{file}: expected the system {file.stem}, found {text['system']}")
        known += [one["id"] for one in entries]
        systems[text["system"]] = {
            "title": text["title"],
            "sources": " ".join(text["sources"].split()),
            "behaviours": entries,
        }
    if len(set(known)) != len(known):
        raise ValueError(f"{folder}: expected ids that differ, found {max(known, key=known.count)} twice")
    letters = {one.partition("-")[0] for one in known}
    for one, carrying in tests.items():
        if one.partition("-")[0] in letters and one not in known:
            raise ValueError(f"{carrying[0].key}: there is no behaviour {one}")
    return systems


def entry(file: Path, raw: Mapping[str, Any], tests: Mapping[str, list[Test]]) -> dict[str, Any]:
    """One behaviour with its tests. Raises ValueError."""
    one = str(raw.get("id"))
    if not _ID.fullmatch(one):
        raise ValueError(f"{file}: expected an id such as R-07, found {one!r}")
    if unknown := set(raw) - FIELDS:
        raise ValueError(f"{file}: {one}: unknown field {min(unknown)!r}")
    for field in sorted(FIELDS - {"left_out"}):
        if not isinstance(raw.get(field), str) or not raw[field].strip():
            raise ValueError(f"{file}: {one}: expected a text as {field}, found {raw.get(field)!r}")
    carrying = tests.get(one, [])
    left_out = " ".join(str(raw.get("left_out", "")).split())
    if not carrying and not left_out:
        raise ValueError(f"{file}: {one} has neither a test nor a reason why it is left out")
    fields = {field: " ".join(raw[field].split()) for field in ("id", "title", "claim", "source")}
    return {
        **fields,
        "left_out": "" if carrying and left_out == NOT_WRITTEN else left_out,
        "tests": [vars(test) for test in carrying],
    }


def with_known_outcomes(systems: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The index with the outcomes that are known, by the keys of the tests."""
    return {
        name: {
            **system,
            "behaviours": [
                {**one, "tests": [{**t, "outcome": known.get(Test(**t).key, NOT_RUN)} for t in one["tests"]]}
                for one in system["behaviours"]
            ],
        }
        for name, system in systems.items()
    }


def known_outcomes(index: Path) -> dict[str, str]:
    """How tests ended when they last ran, by the index; none if there is no index."""
    if not index.is_file():
        return {}
    return {test.key: test.outcome for behaviour in load(index)[1] for test in behaviour.tests}


# -- what is written -----------------------------------------------------------------------------------------------


def index_text(systems: Mapping[str, Any]) -> str:
    return json.dumps(systems, indent=1, ensure_ascii=False) + "\n"


def page(systems: Mapping[str, Any], found: Sequence[Behaviour]) -> str:
    """The page: a table for each system."""
    lines = [INTRODUCTION]
    for name, system in systems.items():
        mine = [behaviour for behaviour in found if behaviour.system == name]
        counts = {
            status: sum(b.status == status for b in mine)
            for status in ("passed", "failed", "not run", "left out")
        }
        listing = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        lines += [
            f"## {system['title']}",
            "",
            f"{len(mine)} behaviours: {listing}. Sources: {system['sources']}",
            "",
        ]
        lines += ["| id | claim | source | tests | status |", "| - " * 5 + "|", *map(row, mine), ""]
    return "\n".join(lines).rstrip() + "\n"


def row(behaviour: Behaviour) -> str:
    tests = "<br>".join(f"`{test.name}`" for test in behaviour.tests)
    status = behaviour.status + (f": {behaviour.left_out}" if behaviour.left_out else "")
    claim = f"**{behaviour.title}.** {behaviour.claim}"
    return f"| {behaviour.id} | {claim} | {behaviour.source} | {tests} | {status} |"


def fresh(known: Mapping[str, str]) -> dict[str, Any]:
    """The index as it should be, from the behaviours, the tests, and the outcomes that are known."""
    return with_known_outcomes(behaviours(FOLDER, carriers(TESTS, CHECKOUT)), known)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.table", description=__doc__)
    parser.add_argument("--run", nargs="*", metavar="ID", help="run the tests (of these ids) first")
    options = parser.parse_args(words)
    known = known_outcomes(INDEX)
    try:
        if options.run is not None:
            tests = carriers(TESTS, CHECKOUT)
            ids = {one["id"] for system in fresh(known).values() for one in system["behaviours"]}
            wanted = ids & set(options.run) if options.run else ids
            known |= run_tests(CHECKOUT, [test.key for one in sorted(wanted) for test in tests.get(one, [])])
        systems = fresh(known)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    INDEX.write_text(index_text(systems), encoding="utf-8")
    found = load(INDEX)[1]
    PAGE.write_text(page(systems, found), encoding="utf-8")
    print(f"{PAGE.relative_to(CHECKOUT)} and {INDEX.relative_to(CHECKOUT)} are written")
    return 1 if any(behaviour.status == "failed" for behaviour in found) else 0


if __name__ == "__main__":
    sys.exit(main())
