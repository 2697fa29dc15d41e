"""The behaviours of each system, where each is laid down, and the tests that carry it.

`sim/behaviours/SYSTEM.yaml` has them in our own words; `index.json` beside it, which ships, has them with their tests
and how those ended when they last ran. `python -m tests.conformance.table` writes the index in a checkout; there
`msgsim verify semantics --run` runs the tests anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from sim.scenario.errors import ScenarioError, found, nearest_or_all

FOLDER = Path(__file__).resolve().parents[1] / "behaviours"
INDEX = FOLDER / "index.json"
CHECKOUT = FOLDER.parents[1]

PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"
Status = Literal["passed", "failed", "not run", "left out"]


@dataclass(frozen=True)
class Test:
    """A test that carries a behaviour: its file in the checkout, its name, and how it ended when it last ran."""

    __test__ = False  # it is not one of pytest's

    file: str
    name: str
    outcome: str = NOT_RUN

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.file}::{self.name}"


@dataclass(frozen=True)
class Behaviour:
    """What a system does: claim and source. `left_out`: why there is no test of it, or of a part of it."""

    system: str
    id: str
    title: str
    claim: str
    source: str
    left_out: str
    tests: tuple[Test, ...]

    @property
    def status(self) -> Status:
        """Failed if one of its tests is, passed if all are."""
        outcomes = {test.outcome for test in self.tests}
        if not outcomes:
            return "left out"
        if FAILED in outcomes:
            return "failed"
        return "passed" if outcomes == {PASSED} else "not run"


@dataclass(frozen=True)
class Report:
    """The behaviours that were asked for, and the titles of their systems."""

    behaviours: tuple[Behaviour, ...]
    titles: Mapping[str, str]

    @property
    def has_missed(self) -> bool:
        """Whether a test of a behaviour failed."""
        return any(behaviour.status == "failed" for behaviour in self.behaviours)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        counts: dict[str, int] = {"passed": 0, "failed": 0, "not run": 0, "left out": 0}
        for behaviour in self.behaviours:
            counts[behaviour.status] += 1
        return {
            "behaviours": [
                vars(behaviour)
                | {"status": behaviour.status, "tests": [vars(test) for test in behaviour.tests]}
                for behaviour in self.behaviours
            ],
            "statuses": counts,
        }


def verify(names: Sequence[str] = (), *, run: bool = False) -> Report:
    """The behaviours of those systems or ids (all if none is named); with `run` their tests are run anew.

    Raises ScenarioError for a name that is neither, and where there are no tests to run.
    """
    titles, behaviours = load(INDEX)
    chosen = _chosen(behaviours, list(titles), names)
    if run:
        keys = list(dict.fromkeys(test.key for behaviour in chosen for test in behaviour.tests))
        outcomes = run_tests(CHECKOUT, keys)
        chosen = [with_outcomes(behaviour, outcomes) for behaviour in chosen]
    return Report(tuple(chosen), titles)


def load(index: Path) -> tuple[dict[str, str], list[Behaviour]]:
    """The titles of the systems, and all behaviours, from an index. Raises ScenarioError."""
    try:
        systems = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"{index}: cannot be read: {error}; `python -m tests.conformance.table` writes it"
        ) from None
    behaviours = [
        Behaviour(
            system=name,
            **{field: entry[field] for field in ("id", "title", "claim", "source", "left_out")},
            tests=tuple(Test(**test) for test in entry["tests"]),
        )
        for name, system in systems.items()
        for entry in system["behaviours"]
    ]
    return {name: system["title"] for name, system in systems.items()}, behaviours


def _chosen(behaviours: Sequence[Behaviour], systems: Sequence[str], names: Sequence[str]) -> list[Behaviour]:
    known = [*systems, *(behaviour.id for behaviour in behaviours)]
    wanted = {name.lower() for name in names}
    for name in names:
        if name.lower() not in {one.lower() for one in known}:
            hint = nearest_or_all(name.upper(), known)
            hint = hint if "did you mean" in hint else nearest_or_all(name.lower(), systems)
            raise ScenarioError(f"no system or behaviour is named {found(name)}{hint}")
    return [one for one in behaviours if not names or {one.system, one.id.lower()} & wanted]


def with_outcomes(behaviour: Behaviour, outcomes: Mapping[str, str]) -> Behaviour:
    """A behaviour with other outcomes of its tests; what has none was not run."""
    tests = tuple(Test(test.file, test.name, outcomes.get(test.key, NOT_RUN)) for test in behaviour.tests)
    return Behaviour(**{**vars(behaviour), "tests": tests})


def run_tests(root: Path, keys: Sequence[str]) -> dict[str, str]:
    """Run tests of a checkout by their keys; how each ended, all its parameters together.

    Raises ScenarioError if there are no tests here, or pytest cannot run them.
    """
    if not keys:
        return {}
    if not (root / "tests" / "conformance").is_dir():
        raise ScenarioError("--run: expected a checkout with its tests, found an installed package")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(
            [*command, "-o", "junit_family=xunit1", *keys], cwd=root, capture_output=True, text=True
        )
        if not report.is_file() or done.returncode not in (0, 1):
            lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
            why = next((line for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
            raise ScenarioError(f"--run: pytest cannot run the tests: {why}")
        return outcomes_of(ElementTree.parse(report).iter("testcase"))


def outcomes_of(cases: Iterable[ElementTree.Element]) -> dict[str, str]:
    """How each test ended, by its key, from the cases of a JUnit report: the worst of its parameters."""
    order = [PASSED, SKIPPED, FAILED]
    ended: dict[str, str] = {}
    for case in cases:
        key = f"{case.get('file')}::{str(case.get('name')).partition('[')[0]}"
        kinds = {child.tag for child in case}
        outcome = FAILED if kinds & {"failure", "error"} else SKIPPED if "skipped" in kinds else PASSED
        ended[key] = max(ended.get(key, PASSED), outcome, key=order.index)
    return ended
