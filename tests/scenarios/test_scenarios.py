"""Every shipped scenario: its claims hold, each claim can fail, its anomalies are explained, its faults act."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from sim.experiment import broken, run
from sim.metrics import PLACES
from sim.result import Result
from sim.scenario import load
from sim.scenario.index import is_published, load_index

NAMES = [entry["name"] for entry in load_index() if not is_published(entry)]
CLAIMS = [(name, number) for name in NAMES for number in range(len(load(name).claims))]


@cache
def result_of(name: str) -> Result:
    return run(load(name), jobs=1)


def test_the_scenarios_of_the_first_lectures_are_there() -> None:
    assert set(NAMES) >= {
        "delivery-guarantees",
        "point-to-point",
        "publish-subscribe",
        "load-levelling",
        "backpressure",
        "retry-storm",
        "poison-message",
        "guarantee-by-pattern",
        "sync-vs-async",
        "pop-then-process",
    }


@pytest.mark.parametrize("name", NAMES)
def test_its_claims_hold(name: str) -> None:
    verdicts = result_of(name).claims
    assert verdicts, "a scenario without a claim asks nothing"
    assert [f"{v.claim.statement}: {v.observed}" for v in verdicts if not v.holds] == []


@pytest.mark.parametrize(("name", "number"), CLAIMS)
def test_a_claim_can_fail(name: str, number: int) -> None:
    scenario = load(name)
    claim = scenario.claims[number]
    assert claim.broken_by, f"{claim.statement} has no broken_by"
    verdict = broken(scenario, claim)
    assert not verdict.holds, f"{claim.statement} still holds under {claim.broken_by}: {verdict.observed}"


@pytest.mark.parametrize("name", NAMES)
def test_every_anomaly_has_a_cause(name: str) -> None:
    for row in result_of(name).rows:
        for outcome in row.outcomes:
            explained = dict.fromkeys(("duplicate", *PLACES[2:], "reordered"), 0)
            for cause in outcome.causes:
                explained[cause["anomaly"]] += cause["count"]
            figures = outcome.figures
            assert explained.pop("duplicate") == figures["duplicates"]
            assert explained.pop("reordered") == figures["out_of_order"]
            assert explained == {place: figures[place] for place in PLACES[2:]}


@pytest.mark.parametrize("name", NAMES)
def test_its_faults_act(name: str) -> None:
    assert [outcome.inert for row in result_of(name).rows for outcome in row.outcomes if outcome.inert] == []


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_what_the_student_should_be_able_to_answer(name: str) -> None:
    scenario = load(name)
    assert scenario.question.endswith("?")
    assert Path(f"scenarios/{name}.yaml").is_file()
