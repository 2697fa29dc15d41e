"""From replications to figures, tables and JSON."""

import json
import math

import pytest

from sim.claims import judge
from sim.result import Result, aggregate, make_row, outcome_dict

from .fakes import Claim, Point, Scenario, config, outcome


def result(*rows, claims=()):
    """A result of rows (params, outcomes), judged."""
    scenario = Scenario(claims=tuple(claims))
    points = tuple(Point(params, config(0.0), {}) for params, _ in rows)
    made = tuple(
        make_row(p, {"network": {}}, outcomes) for p, (_, outcomes) in zip(points, rows, strict=True)
    )
    verdicts = tuple(judge(claim, made) for claim in claims)
    return Result(scenario, 7, len(rows[0][1]), made, verdicts, points)


def test_means_and_intervals_by_hand():
    figures = aggregate(
        [{"lost": 2, "latency_p50": 0.1}, {"lost": 4, "latency_p50": 0.1}, {"lost": 9, "latency_p50": 0.1}]
    )
    assert list(figures) == ["lost", "lost_ci95", "latency_p50", "latency_p50_ci95"]
    assert figures["lost"] == 5.0
    # s^2 = (9 + 1 + 16) / 2 = 13. Student's t with 2 degrees of freedom: (2p - 1) / sqrt(2p (1 - p))
    assert figures["lost_ci95"] == pytest.approx(
        0.95 / math.sqrt(2 * 0.975 * 0.025) * math.sqrt(13 / 3), rel=1e-9
    )
    assert figures["latency_p50"] == pytest.approx(0.1, rel=1e-15)
    assert figures["latency_p50_ci95"] == pytest.approx(0.0, abs=1e-15)


def test_one_replication_stays_as_it_is():
    figures = aggregate([{"lost": 2, "latency_p50": 0.1, "cost": None}])
    assert figures == {"lost": 2, "latency_p50": 0.1, "cost": None}
    assert isinstance(figures["lost"], int)


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_a_figure_that_is_null_somewhere_is_null(nothing):
    figures = aggregate([{"latency_p50": 0.1}, {"latency_p50": nothing}])
    assert figures == {"latency_p50": None, "latency_p50_ci95": None}


def test_causes_still_add_up_to_the_figures():
    outcomes = []
    for first, second in ((1, 0), (5, 7), (0, 4)):
        causes = [
            {"anomaly": "lost", "cause": name, "behaviour": "N-01", "count": count}
            for name, count in (("packet_lost", first), ("crash", second))
            if count
        ]
        outcomes.append(outcome(lost=first + second, causes=causes))
    row = result(({}, outcomes)).rows[0]
    assert [(c["cause"], c["count"]) for c in row.causes] == [("crash", 11 / 3), ("packet_lost", 2.0)]
    assert sum(c["count"] for c in row.causes) == pytest.approx(row.metrics["lost"], abs=1e-9)


def test_the_same_cause_of_two_systems_is_one_line():
    cause = {"anomaly": "lost", "cause": "crash", "behaviour": "N-01"}
    row = result(({}, [outcome(lost=5, causes=[cause | {"count": 2}, cause | {"count": 3}])])).rows[0]
    assert row.causes == [cause | {"count": 5}]


def test_tables():
    made = result(
        ({"network.loss": 0.0}, [outcome(), outcome()]),
        ({"network.loss": 0.05}, [outcome(lost=4), outcome(lost=6)]),
    )
    assert list(made.summary["network.loss"]) == [0.0, 0.05]
    assert list(made.summary["lost"]) == [0.0, 5.0]
    assert made.summary["lost_ci95"][1] == pytest.approx(
        12.706204736174698
    )  # tan(0.475 pi): with 1 degree of freedom
    assert list(made.by["row"]) == [0, 1] and list(made.by["channel"]) == ["orders"] * 2
    assert list(made.by["lost"]) == [0.0, 5.0]
    assert list(made.causes.columns) == ["row", "anomaly", "cause", "behaviour", "count"]
    assert made.causes.to_dict("records") == [
        {"row": 1, "anomaly": "lost", "cause": "packet_lost", "behaviour": "N-01", "count": 5.0}
    ]
    assert list(made.series["row"]) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert list(made.series["replication"]) == [0, 0, 1, 1] * 2
    assert list(made.series["backlog"]) == [0.0, 2.0] * 4
    assert made.config == [{"network": {}}] * 2


def test_a_result_without_causes_has_an_empty_table_of_them():
    assert list(result(({}, [outcome()])).causes.columns) == ["row", "anomaly", "cause", "behaviour", "count"]


def test_json_has_the_agreed_shape():
    made = result(
        ({"network.loss": 0.05}, [outcome(lost=4, latency=math.nan)]),
        claims=[Claim("lost < 5"), Claim("duplicates > 0", refuted=True), Claim("lost == 0")],
    )
    text = json.dumps(made.to_json(), allow_nan=False)
    assert json.loads(text) == {
        "scenario": "lossy",
        "seed": 7,
        "rows": [
            {
                "params": {"network.loss": 0.05},
                "metrics": {"published": 100, "lost": 4, "duplicates": 0, "latency_p50": None},
                "causes": [{"anomaly": "lost", "cause": "packet_lost", "count": 4}],
            }
        ],
        "claims": [
            {"claim": "lost < 5", "holds": True, "observed": "lost = 4", "refuted": False},
            {"claim": "duplicates > 0", "holds": True, "observed": "duplicates = 0: false", "refuted": True},
            {"claim": "lost == 0", "holds": False, "observed": "lost = 4: false", "refuted": False},
        ],
    }


def test_faults_that_touched_nothing_in_any_replication_are_inert():
    crash, slow = "crash of orders", "slow of billing"
    made = result(
        ({"n": 1}, [outcome(inert=[crash, slow]), outcome(inert=[crash])]),
        ({"n": 2}, [outcome(inert=[crash]), outcome(inert=[crash])]),
        ({"n": 3}, [outcome(inert=[slow]), outcome(inert=[slow])]),
    )
    assert made.inert == {crash: [0, 1], slow: [2]}


def test_an_outcome_survives_json_to_the_last_bit():
    before = outcome(lost=3, latency=0.1 + 0.2)
    after = outcome_dict(before)
    assert after["figures"] == before.figures
    assert isinstance(after["figures"]["lost"], int)
    assert outcome_dict(type(before)(**after)) == after
