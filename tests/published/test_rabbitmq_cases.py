"""The published cases of RabbitMQ that take seconds, and what the model spends on a message, which they calibrate."""

from __future__ import annotations

import pytest

from sim.scenario.index import scenarios_folder
from sim.verify import published
from tests.conformance.rabbitmq import QUORUM, rabbit

QUICK = {  # how many lines of each are predicted right, and how many were given
    "P-03": (3, 0),
    "P-04": (4, 0),
    "P-05": (4, 0),
    "P-09": (5, 2),  # and one is explained
    "P-12": (1, 2),  # and one is explained
    "P-13": (5, 2),
    "P-17": (9, 0),
}


@pytest.mark.parametrize("case", QUICK)
def test_a_quick_case_is_reproduced(case: str) -> None:
    report = published.verify([case], jobs=1)
    told = [f"{one.figure}: {one.published} {one.unit}, predicted {one.predicted}" for one in report.lines]
    assert not report.has_missed, told
    assert (report.count("ok"), report.count("input")) == QUICK[case], told
    assert all(about["system"] == "rabbitmq" for about in report.cases)
    for one in report.lines:  # an input is what the model was fitted to
        if one.verdict == "input":
            assert one.predicted == pytest.approx(one.published, rel=0.01)


def test_each_file_says_how_its_inputs_fix_its_constants() -> None:
    for name in ("p09-quorum-in-flight", "p12-confirm-window-littles-law", "p13-confirm-strategies"):
        text = (scenarios_folder() / "published" / f"{name}.yaml").read_text(encoding="utf-8")
        comment = text[: text.index("title:")]
        assert all(constant in comment for constant in ("cpu_per_message", "from")), name


# -- the constants -------------------------------------------------------------------------------------------------


def rate(times: list[float]) -> float:
    """Events per second, from the first to the last."""
    return (len(times) - 1) / (times[-1] - times[0])


@pytest.mark.parametrize(
    ("channel", "pieces"),
    [({}, 2), (QUORUM, 2)],  # an enqueue and a delivery; of a quorum queue a publish and an ack
    ids=["classic", "quorum"],
)
def test_a_queue_spends_its_cpu_on_each_message(channel: dict[str, object], pieces: int) -> None:
    told = rabbit(
        channel={**channel, "cpu_per_message": "1 ms"},
        producer={"arrivals": {"closed_loop": {"window": 50}}, "messages": 1000},
        service={"service_time": 0, "prefetch": 100},
        duration=60,
    )
    assert rate(told.times("processed")[200:]) == pytest.approx(1000 / pieces, rel=0.03)


def test_a_quorum_queue_that_is_slower_than_its_publisher_holds_no_more_than_the_credits() -> None:
    """What waits for the queue's process counts as much as what waits for the disks: consumers are not starved."""
    told = rabbit(
        channel={**QUORUM, "cpu_per_message": "0.1 ms"},
        producer={"arrivals": {"closed_loop": {"window": 5000}}, "messages": 10_000},
        service={"service_time": 0, "prefetch": 1000},
        duration=60,
    )
    assert rate(told.times("processed")[1000:]) == pytest.approx(1 / 0.2e-3, rel=0.05)
    assert told["backlog_max"] <= 2000


def test_an_ack_of_many_is_one_command_of_a_quorum_queue() -> None:
    told = rabbit(
        channel={**QUORUM, "cpu_per_message": "1 ms"},
        producer={"arrivals": {"closed_loop": {"window": 200}}, "messages": 2000},
        service={"service_time": 0, "prefetch": 200, "ack_every": 100},
        duration=60,
    )
    assert told["unique"] == 2000 and told["duplicates"] == 0
    assert rate(told.times("processed")[400:]) == pytest.approx(1000, rel=0.1)  # else it were 500


def test_a_publishers_thread_spends_its_cpu_on_each_publish() -> None:
    told = rabbit(
        producer={
            "arrivals": {"batches": {"arrivals": {"trace": [1]}, "size": 500}},
            "cpu_per_message": "2 ms",
        },
        service={"service_time": 0},
        messages=500,
    )
    assert rate(told.times("stored")) == pytest.approx(500, rel=0.01)
    assert told["unique"] == 500


@pytest.mark.parametrize("credits", [[400, 200], [2000, 1000]])
def test_credits_bound_what_a_quorum_queue_commits_at_once(credits: list[int]) -> None:
    """A channel grants its reader nothing from 32 uncommitted publishes on, and the reader has its credit."""
    told = rabbit(
        channel={**QUORUM, "fsync": "50 ms", "credit_flow_default_credit": credits, "cpu_per_message": 0},
        producer={"arrivals": {"closed_loop": {"window": 10_000}}, "size": "5 B", "messages": 12_000},
        service={"service_time": 0, "prefetch": 20_000},
        duration=60,
    )
    at_once = [told.times("stored").count(time) for time in set(told.times("stored"))]
    assert 0.9 * credits[0] / 2 <= max(at_once) <= credits[0] + 32


def test_credits_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="credit_flow_default_credit has a credit and what comes back"):
        rabbit(channel={"credit_flow_default_credit": [200, 400]})
