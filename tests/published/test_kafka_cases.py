"""The published cases of Kafka, and the mechanisms that they rest on."""

from __future__ import annotations

from typing import Any

import pytest

from sim.scenario import load
from sim.scenario.index import scenarios_folder
from sim.simulation import Simulation
from sim.verify import published
from tests.conformance.kafka import kafka

REQUEST = 50e-6  # seconds of a broker's CPU per request (sheet, section 4)

CASES = {  # how many lines of each are predicted right, how many were given, and how many miss for a reason
    "P-25": (1, 1, 1),
    "P-29": (15, 2, 1),
    "P-32": (4, 0, 0),
    "P-33": (1, 0, 1),
    "P-39": (4, 1, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_reproduced(case: str) -> None:
    report = published.verify([case], jobs=1)
    told = [f"{one.figure}: {one.published} {one.unit}, predicted {one.predicted}" for one in report.lines]
    assert not report.has_missed, told
    assert not report.stale, report.stale
    assert tuple(map(report.count, ("ok", "input", "explained"))) == CASES[case], told
    assert all(about["system"] == "kafka" for about in report.cases)
    for one in report.lines:  # an input is what the model was fitted to
        if one.verdict == "input":
            assert one.predicted == pytest.approx(one.published, rel=0.02)


@pytest.mark.parametrize(
    "name", ["p25-replication-throughput", "p29-closed-loop-senders", "p39-backlog-drain"]
)
def test_each_file_says_how_its_inputs_fix_its_constants(name: str) -> None:
    text = (scenarios_folder() / "published" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = text[: text.index("title:")]
    assert "fitted" in comment and " from " in comment


def test_p32_the_replicas_truncate_what_the_new_leader_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only by what the consumer misses: eight records at A, and three at B."""
    point = load("published/p32-unclean-truncation").points()[0]
    world = Simulation(point.config, 1, 0)
    topic: Any = world.part("orders")
    (partition,) = topic.partitions
    cut: list[tuple[str, int]] = []
    for broker in partition.replicas:
        log = broker.logs[partition]

        def truncate(end: int, name: str = broker.name, log: Any = log) -> Any:
            gone = type(log).truncate(log, end)
            cut.extend([(name, len(gone))] if gone else [])
            return gone

        monkeypatch.setattr(log, "truncate", truncate)
    world.run()
    assert sorted(cut) == [("orders.1", 8), ("orders.2", 3)]


def test_a_request_of_many_batches_is_handled_once() -> None:
    """One partition or eight: a request costs its handling once, and each batch its append."""
    busy = {}
    for partitions in (1, 8):
        told = kafka(
            channel={"partitions": partitions},
            producer={
                "arrivals": {"batches": {"arrivals": {"trace": [5]}, "size": 200}},
                "keys": {"number": 200},
                "linger": 0.05,
                "size": 1,
                "batch_size": 10_000,
            },
            messages=200,
            network={"delay": 0.001},
        )
        times = sorted(told.times("confirmed"))
        busy[partitions] = times[0] - 5.05 - 0.002
    assert 0 < busy[8] - busy[1] < 2 * REQUEST  # (a consumer's fetch that waits is answered in between)
