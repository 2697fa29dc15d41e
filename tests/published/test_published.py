"""Published measurements: how lines are judged, what a list of deviations may say, and that the shipped ones agree."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sim.experiment import broken, run
from sim.scenario import Scenario, ScenarioError
from sim.scenario import index as scenario_index
from sim.scenario.published import Published, PublishedLine, Tolerance
from sim.verify import published
from sim.verify.published import Deviation, Judged, Report, cases, deviations, judge
from tests.published.test_kafka_cases import CASES as KAFKA
from tests.published.test_rabbitmq_cases import QUICK as RABBITMQ

# -- judging, without a simulation ---------------------------------------------------------------------------------


def line(**changes: Any) -> PublishedLine:
    fields: dict[str, Any] = {
        "figure": "wait",
        "value": 100.0,
        "unit": "ms",
        "predicted": "latency_mean",
        "where": "prefetch == 26",
        "tolerance": Tolerance("5%", "relative", 0.05),
        "is_input": False,
    }
    return PublishedLine(**fields | changes)


def case(*lines: PublishedLine) -> Any:
    about = Published("P-04", "S", "U", 2012, "measured", "A", lines)
    return SimpleNamespace(name="published/p04", published=about)


def row(prefetch: int, *latencies: float | None) -> Any:
    """A row whose replications have that mean latency (s)."""
    return SimpleNamespace(
        params={"services.worker.prefetch": prefetch},
        config={"channels": {"queue": {"system": "textbook"}}},
        outcomes=[SimpleNamespace(figures={"latency_mean": latency, "lost": 0}) for latency in latencies],
    )


ROWS = [row(1, 9.0, 9.0), row(26, 0.101, 0.103)]


def test_a_line_is_judged_in_its_own_row_and_unit() -> None:
    (found,) = judge(case(line()), ROWS)
    assert (found.verdict, found.published, found.unit) == ("ok", 100, "ms")
    assert found.predicted == pytest.approx(102)
    assert found.half_width == pytest.approx(12.706, rel=1e-3)  # of two values 2 ms apart
    assert (found.allowed, found.deviation, found.system) == ((95, 105), "+2.0%", "textbook")


def test_an_input_is_shown_and_not_judged() -> None:
    (far_off,) = judge(case(line(value=1.0, is_input=True, tolerance=None)), ROWS)
    assert (far_off.verdict, far_off.predicted) == ("input", pytest.approx(102))
    (given,) = judge(case(line(is_input=True, tolerance=None, predicted=None)), ROWS)
    assert (given.verdict, given.predicted, given.deviation) == ("input", None, "–")


def test_what_misses_is_a_fault_unless_it_is_explained() -> None:
    missing = case(line(value=90.0))
    assert judge(missing, ROWS)[0].verdict == "MISSED"
    (found,) = judge(missing, ROWS, [Deviation("P-04", "wait", "their clock was wrong")])
    assert (found.verdict, found.note) == ("explained", "their clock was wrong")
    others = [Deviation("P-05", "wait", "x"), Deviation("P-04", "another", "x")]
    assert judge(missing, ROWS, others)[0].verdict == "MISSED"


def test_nothing_to_measure_is_a_miss_that_says_so() -> None:
    (found,) = judge(case(line()), [row(26, None)])
    assert (found.verdict, found.predicted) == ("MISSED", None)
    assert found.note == "nothing to compare: latency_mean is null"


def test_a_single_run_has_no_interval() -> None:
    assert judge(case(line()), [row(26, 0.1)])[0].half_width is None


@pytest.mark.parametrize(
    ("value", "predicted", "tolerance", "text"),
    [
        (100, 101.26, "2%", "+1.3%"),
        (100, 99.99, "2%", "0%"),
        (100, 132.5, "factor 1.6", "× 1.32"),
        (100, 2000, "2%", "× 20"),
        (0, 0.25, "exact", "+0.25"),
        (100, None, "2%", "–"),
    ],
)
def test_how_a_deviation_is_told(value: float, predicted: float | None, tolerance: str, text: str) -> None:
    assert judged(published=value, predicted=predicted, tolerance=tolerance).deviation == text


def judged(**changes: Any) -> Judged:
    fields: dict[str, Any] = {"case": "P-04", "scenario": "published/p04", "system": "textbook"}
    fields |= {"figure": "wait", "unit": "ms", "published": 100.0, "predicted": 101.0, "half_width": None}
    fields |= {"tolerance": "2%", "allowed": (98.0, 102.0), "verdict": "ok"}
    return Judged(**fields | changes)


def test_a_report_counts_and_knows_what_missed() -> None:
    lines = (judged(), judged(verdict="input"), judged(verdict="explained"))
    assert not Report((), lines).has_missed
    report = Report((), (*lines, judged(verdict="MISSED", predicted=None)))
    assert report.has_missed
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["verdicts"] == {"ok": 1, "input": 1, "explained": 1, "MISSED": 1}
    assert plain["lines"][0]["deviation"] == pytest.approx(0.01)
    assert plain["lines"][3]["deviation"] is None
    assert plain["lines"][0]["allowed"] == [98.0, 102.0]


# -- the list of deviations ----------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read a list of deviations from a text."""
    (tmp_path / "published").mkdir()
    monkeypatch.setattr(published, "scenarios_folder", lambda: tmp_path)

    def read(text: str) -> list[Deviation]:
        (tmp_path / "published" / "deviations.yaml").write_text(text)
        return deviations([case(line())])

    return read


def test_a_list_is_read(listed: Any) -> None:
    assert listed("- {case: P-04, line: wait, reason: their clock}\n") == [
        Deviation("P-04", "wait", "their clock")
    ]
    assert listed("") == listed("[]") == []


def test_there_may_be_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "scenarios_folder", lambda: tmp_path)
    assert deviations([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", ": expected a list of deviations, found 3"),
        ("- wait", ":1: 0: expected a mapping (case, line, reason), found 'wait'"),
        ("- {case: P-04, lin: wait, reason: x}", ":1: 0: unknown field 'lin'; did you mean 'line'?"),
        ("- {case: P-04, line: wait}", ":1: 0: expected a text as reason, found nothing"),
        (
            "- {case: P-05, line: wait, reason: x}",
            ":1: 0: no published case is named 'P-05'; did you mean 'P-04'?",
        ),
        ("- {case: P-04, line: wayt, reason: x}", ":1: 0: P-04 has no line 'wayt'; did you mean 'wait'?"),
    ],
)
def test_a_bad_list_is_told_in_one_line(listed: Any, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        listed(text)
    assert str(caught.value) == f"{tmp_path / 'published' / 'deviations.yaml'}{message}"


def test_a_published_scenario_without_its_block_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    file = tmp_path / "published" / "p01-x.yaml"
    file.write_text(
        "title: T\nquestion: Q?\nmessages: 1\nchannels: {q: {}}\nproducers: {p: {}}\nservices: {s: {}}\n"
    )
    for module in (scenario_index, published):
        monkeypatch.setattr(module, "scenarios_folder", lambda: tmp_path)
    with pytest.raises(ScenarioError, match=r"p01-x\.yaml: 'published' is missing"):
        cases()


def test_a_case_that_is_not_in_the_index_yet_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "published").mkdir()
    scenario_index.write_index(tmp_path)
    (tmp_path / "published" / "deviations.yaml").touch()
    for module in (scenario_index, published):
        monkeypatch.setattr(module, "scenarios_folder", lambda: tmp_path)
    assert cases() == []
    (tmp_path / "published" / "p01-x.yaml").touch()
    with pytest.raises(ScenarioError, match=r"p01-x\.yaml: not in the index of scenarios yet; `make index`"):
        cases()


# -- what ships ----------------------------------------------------------------------------------------------------

SHIPPED = cases()
WITH_CLAIMS = [(scenario, claim) for scenario in SHIPPED for claim in scenario.claims]


def test_files_are_named_after_their_cases() -> None:
    for scenario in SHIPPED:
        assert scenario.published is not None
        number = scenario.published.case.replace("-", "").lower()
        assert scenario.name.startswith(f"published/{number}-")


def test_no_line_of_a_case_is_there_twice() -> None:
    lines = [(s.published.case, entry.figure) for s in SHIPPED if s.published for entry in s.published.lines]
    assert len(set(lines)) == len(lines)


def test_every_shipped_line_agrees_or_is_explained() -> None:
    """Here those of cases that have no test of their own."""
    rest = [s.published.case for s in SHIPPED if s.published and s.published.case not in (*KAFKA, *RABBITMQ)]
    report = published.verify(rest, jobs=1)
    assert len(report.cases) == len(rest) > 0
    missed = [
        f"{one.case} {one.figure}: {one.published} {one.unit}, predicted {one.predicted} {one.note}"
        for one in report.lines
        if one.verdict == "MISSED"
    ]
    assert missed == []
    assert report.stale == ()


@pytest.mark.parametrize("scenario", [s for s in SHIPPED if s.claims], ids=lambda scenario: scenario.name)
def test_its_claims_hold(scenario: Scenario) -> None:
    assert [verdict.observed for verdict in run(scenario, jobs=1).claims if not verdict.holds] == []


@pytest.mark.parametrize(("scenario", "claim"), WITH_CLAIMS, ids=lambda part: getattr(part, "name", "claim"))
def test_a_claim_can_fail(scenario: Scenario, claim: Any) -> None:
    verdict = broken(scenario, claim, jobs=1)
    assert not verdict.holds, f"{claim.statement} still holds under {claim.broken_by}: {verdict.observed}"
