"""RabbitMQ, consuming: behaviours R-13 to R-21 of the sheet, with what it expects of them in numbers."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import pytest

from tests.conformance.builders import Story
from tests.conformance.rabbitmq import (
    HOP,
    QUORUM,
    Driven,
    at,
    at_once,
    books,
    deliveries,
    rabbit,
)

Z = 3.2905  # two-sided 99.9 % of the normal distribution
PER_MESSAGE = 10e-6  # seconds that a classic queue's process takes for an enqueue or a delivery
SERIES_42 = {"series": "4.2"}
QUORUM_42 = {**QUORUM, **SERIES_42}
APART = 0.002  # seconds by which links to consumers differ


def apart(consumers: int) -> dict[str, Any]:
    """A network whose delays tell which consumer got a delivery."""
    return {
        "delay": HOP,
        "links": {f"orders -> billing.{i}": {"delay": i * APART} for i in range(1, consumers + 1)},
    }


def takers(told: Story) -> list[tuple[int, int]]:
    """(message, consumer) of every delivery that arrived, in the order of sending: on links of `apart`."""
    arrival = {event.copy: event.time for event in told.events("delivered")}
    sent = [event for event in told.events("sent") if event.copy in arrival]
    return [(event.message, round((arrival[event.copy] - event.time) / APART)) for event in sent]


def taken_by(told: Story) -> list[int]:
    """The consumer of every delivery that arrived, in the order of sending."""
    return [taker for _, taker in takers(told)]


# -- requeue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "order"),
    [
        ({}, [0, 1, 2, 3]),
        (QUORUM, [2, 0, 1, 3]),
        ({**QUORUM, "delivery_limit": None}, [3, 2, 0, 1]),
    ],
    ids=["classic", "quorum", "quorum without a limit"],
)
def test_R13_requeue_goes_to_the_original_position_or_before_the_fresh_or_to_the_tail(
    channel: dict[str, Any], order: list[int]
) -> None:
    world = Driven(
        channel=channel, producer=at_once(4), service={"prefetch": 3, "service_time": 1e3}, messages=4
    )
    world.run(until=1.0)
    (consumer,) = world.queue.consumers
    world.queue.detach(consumer)  # basic.cancel: it keeps what it has, and nobody else is there
    for copy in (2, 0, 1):
        consumer.nack(copy, requeue=True)
    world.run(until=2.0)
    consumer.prefetch = consumer.credit = 4
    world.queue.attach(consumer)
    assert world.sent(since=0.0)[:3] == [0, 1, 2]
    assert world.sent(since=2.0) == order


@pytest.mark.parametrize("negative_ack", ["nack", "reject"])
@pytest.mark.parametrize("channel", [{}, {"queue_type": "quorum", "delivery_limit": 1000}], ids=["CQ", "QQ"])
def test_R13_what_is_requeued_is_marked_as_redelivered_and_counted_as_requeued(
    channel: dict[str, Any], negative_ack: str
) -> None:
    told = rabbit(
        channel=channel,
        service={"failures": {"transient": 0.5}, "negative_ack": negative_ack, "prefetch": 2},
        messages=40,
    )
    copies = [event.copy for event in told.events("sent")]
    failed = len(copies) - 40
    assert failed > 10 and told["requeued"] == told["redelivered"] == failed
    assert sum(copy < 0 for copy in copies) == failed
    assert {e.cause for e in told.events("requeue")} == {"handler_failed"}
    assert told.places() == ["unique"] * 40 and told["duplicates"] == 0


@pytest.mark.parametrize("prefetch", [1, 4])
def test_R13_a_handler_that_always_requeues_loops_at_prefetch_over_time_to_fail_and_round_trip(
    prefetch: int,
) -> None:
    told = rabbit(
        service={"failures": {"poison": 1.0}, "prefetch": prefetch, "slots": prefetch},
        producer=at_once(prefetch),
        messages=prefetch,
        drain_limit=10,
    )
    period = 0.01 + 2 * HOP
    assert len(told.events("sent")) / 10 == pytest.approx(prefetch / period, rel=prefetch * 2e-3)
    assert told["in_flight"] == prefetch and told["lost"] == 0


def test_R13_what_was_synced_before_it_came_back_is_on_the_disk_still() -> None:
    # Written back by 31 s; the consumer's crash at 40 s returns them, and nobody writes them again.
    told = rabbit(
        producer=at(1.0, 1.1, 1.2, 60.0),
        service={"service_time": 100.0, "prefetch": 3},
        faults=[
            {"crash": "billing", "at": 40.0, "lasting": 1.0},
            {"machine_crash": "orders", "at": 50.0, "lasting": 1.0},
            {"crash": "billing", "at": 50.0, "lasting": 1.0},
        ],
        messages=4,
    )
    assert told["requeued"] >= 3
    assert told.causes == {}
    assert told.places() == ["unique"] * 4


# -- the channel ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "crash"), [({}, 0.4025), (QUORUM, 0.4037)], ids=["CQ", "QQ"])
def test_R14_exactly_the_unacked_return_in_the_order_of_delivery_and_acks_in_flight_are_void(
    channel: dict[str, Any], crash: float
) -> None:
    # Message i is processed at about 0.2 + i / 10; the ack of 2 is on its way when the process dies.
    told = rabbit(
        channel=channel,
        producer=at_once(8),
        service={"prefetch": 4, "service_time": 0.1},
        faults=[{"crash": "billing.1", "at": crash, "lasting": 0.05}],
        duration=2,
    )
    processed = told.order("processed")
    assert processed[:3] == [0, 1, 2]
    assert told.order("sent") == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
    assert told["requeued"] == 4 and told.times("requeue")[0] == pytest.approx(crash + HOP, abs=0.002)
    assert told.causes == {("duplicate", "channel_lost"): 1} and told.anomalies[
        ("duplicate", "channel_lost")
    ] == [("billing", 2)]


def test_R14_only_the_channel_that_ended_gives_its_deliveries_back() -> None:
    told = rabbit(
        producer=at_once(6),
        service={"consumers": 2, "service_time": 1.0, "prefetch": 3},
        network=apart(2),
        faults=[{"crash": "billing.1", "at": 0.5, "lasting": 5}],
        duration=10,
    )
    assert takers(told)[:6] == [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1), (5, 2)]
    assert [e.message for e in told.events("requeue")] == [0, 2, 4]
    assert told.times("requeue") == [0.501] * 3
    assert [taker for message, taker in takers(told)[6:]] == [2] * 3


def test_R14_the_old_consumer_works_on_its_copies_while_others_repeat_them() -> None:
    told = rabbit(
        producer=at_once(3),
        service={
            "consumers": 2,
            "service_time": 10.0,
            "prefetch": 3,
            "heartbeat": 1.0,
            "consumer_priorities": [1, 0],
        },
        network=apart(2),
        faults=[{"partition": "billing.1 <-> orders", "at": 0.5, "lasting": 100}],
        duration=101,
    )
    # All three went to the first; cut off, it processes them all the same, and its acks reach nobody.
    assert takers(told) == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
    assert told.causes == {("duplicate", "channel_lost"): 3}


def test_R14_a_consumer_that_is_back_before_it_was_missed_gets_what_its_old_channel_held() -> None:
    # given that the power fails at a consumer with message 2 in hand and at its node, which leads the queue
    off = [{"machine_crash": host, "at": 0.35, "lasting": 0.2} for host in ("billing", "orders.1")]
    told = rabbit(QUORUM, {"messages": 3}, {"service_time": 0.1}, faults=off, duration=5.0)
    # then it subscribes again before there is a leader, which learns then that this is another channel
    assert told.order("sent") == [0, 1, 2, 2] and told["unique"] == 3
    assert told.causes == {}


# -- a crash between effect and ack ----------------------------------------------------------------------------

CRASHES = {"crash": "billing.1", "mtbf": 1.0, "mttr": 0.01}


def test_R15_the_chance_of_a_duplicate_is_that_of_a_crash_between_effect_and_receipt_of_the_ack() -> None:
    # The ack is on its way for w = 0.1 s, and the consumer's process dies once a second.
    w, n = 0.1, 1500
    told = rabbit(
        producer=at_once(n),
        service={"prefetch": 1, "service_time": 0},
        network={"delay": HOP, "links": {"billing.1 -> orders": {"delay": w}}},
        faults=[CRASHES],
        duration=1000,
    )
    assert told["unique"] == n and told["in_flight"] == 0
    p = 1 - math.exp(-w / CRASHES["mtbf"])  # type: ignore[operator]
    spread = math.sqrt(p * (1 - p) / told["processed"])
    assert abs(told["duplicates"] / told["processed"] - p) < Z * spread
    assert {cause for _, cause in told.causes} <= {"channel_lost", "consumer_crashed_before_ack"}


def test_R15_an_idempotent_consumer_makes_effects_single_and_not_deliveries() -> None:
    told = rabbit(
        producer=at_once(200),
        service={"prefetch": 1, "service_time": 0, "idempotence": {"store": "transaction"}},
        network={"delay": HOP, "links": {"billing.1 -> orders": {"delay": 0.1}}},
        faults=[CRASHES],
        duration=100,
    )
    assert told["duplicates"] > 5
    assert told["effects"] == 200 and told["duplicate_effects"] == 0


def test_R15_redelivered_says_maybe_and_its_absence_never_seen() -> None:
    told = rabbit(
        producer=at_once(100),
        service={"prefetch": 10, "service_time": 0.02},
        faults=[{"crash": "billing.1", "every": 0.5, "lasting": 0.1}],
        duration=20,
    )
    processed: set[int] = set()
    first, again = 0, 0
    for event in told.events("processed"):
        if event.copy >= 0:
            first += 1
            assert event.message not in processed  # not marked: nobody has seen it
        elif event.message not in processed:
            again += 1  # marked, and yet it is the first time
        processed.add(event.message)
    assert first > 10 and again > 10


# -- a dead peer -----------------------------------------------------------------------------------------------


def test_R16_a_process_that_dies_resets_and_its_deliveries_return_after_one_delay() -> None:
    told = rabbit(
        producer=at(0.1),
        service={"service_time": 10.0},
        faults=[{"crash": "billing.1", "at": 1.0, "lasting": 1.0}],
        duration=30,
    )
    assert told.times("requeue") == [1.0 + HOP]


def detection(
    heartbeat: float | None, at: float, producer: dict[str, Any], service: dict[str, Any], seed: int
) -> float:
    """Seconds from a silent cut until the broker takes the consumer's deliveries back."""
    told = rabbit(
        producer=producer,
        service={"heartbeat": heartbeat, **service},
        faults=[{"partition": "billing.1 <-> orders", "at": at, "lasting": 1e4}],
        duration=at + 1500,
        seed=seed,
    )
    returned = told.times("requeue")
    return returned[0] - at if returned and returned[0] < at + 1500 else math.inf


BUSY = (at(*[0.5 * i for i in range(1, 250)]), {"service_time": 0.01})  # an ack every half second
IDLE = (at(0.1), {"service_time": 1e5})  # one delivery in hand, and nothing to say


def test_R16_a_silent_consumer_is_noticed_after_90_to_180_seconds_135_in_the_mean_if_idle() -> None:
    phases = 40
    found = [detection(60.0, 60 + 60 * (i + 0.5) / phases, *IDLE, seed=i) for i in range(phases)]
    assert min(found) >= 90 and max(found) <= 180
    assert min(found) < 110 and max(found) > 160  # and they use that range
    # The cut is spread evenly over the samples; the beats have a phase of their own: U(0, 30) s, then U(0, 60) s.
    spread = math.sqrt(30**2 / 12 + 60**2 / 12)
    assert abs(sum(found) / phases - 135) < Z * spread / math.sqrt(phases)


def test_R16_under_traffic_it_takes_120_to_180_seconds_150_in_the_mean() -> None:
    phases = 12
    found = [detection(60.0, 60 + 60 * (i + 0.5) / phases, *BUSY, seed=i) for i in range(phases)]
    assert min(found) >= 120 and max(found) <= 181
    assert sum(found) / phases == pytest.approx(150, abs=1)


def test_R16_a_shorter_heartbeat_shortens_it_in_proportion() -> None:
    found = [detection(6.0, 60 + 6 * (i + 0.5) / 10, *IDLE, seed=i) for i in range(10)]
    assert min(found) >= 9 and max(found) <= 18


def test_R16_without_heartbeats_tcp_gives_up_after_924_seconds_or_an_idle_receiver_never_learns() -> None:
    # The first delivery into the cut leaves 0.25 s after it began, and is sent again for 924.6 s.
    assert detection(None, 60.25, *BUSY, seed=1) == pytest.approx(924.6 + 0.25, abs=0.01)
    assert detection(None, 60.25, *IDLE, seed=1) == math.inf


# -- the acknowledgement timeout -------------------------------------------------------------------------------


def returned_after(told: Story, message: int = 0) -> list[float]:
    """How long after each sending the message was taken back (s)."""
    sent, back = told.times("sent", message), told.times("requeue", message)
    return [b - s for s, b in zip(sent, back, strict=False)]


@pytest.mark.parametrize("at_", [0.1, 20.0, 50.0])
def test_R17_a_delivery_of_a_quorum_queue_unacked_for_half_an_hour_returns_within_the_next_minute(
    at_: float,
) -> None:
    told = rabbit(
        channel=QUORUM, producer=at(at_), service={"service_time": 5000}, messages=1, drain_limit=6000
    )
    first = returned_after(told)[0]
    assert 1800 <= first <= 1860
    assert first == pytest.approx(1860 - at_, abs=0.1)  # looked for once a minute since the channel opened


@pytest.mark.parametrize(
    ("channel", "times_out"),
    [({}, False), (SERIES_42, True), (QUORUM, True), (QUORUM_42, True)],
    ids=["CQ 4.3", "CQ 4.2", "QQ 4.3", "QQ 4.2"],
)
def test_R17_classic_queues_have_it_in_series_42_only(channel: dict[str, Any], times_out: bool) -> None:
    told = rabbit(
        channel={**channel, "consumer_timeout": 60},
        service={"service_time": 150},
        producer=at(0.1),
        messages=1,
    )
    assert (told["requeued"] > 0) is times_out
    assert {e.cause for e in told.events("requeue")} == ({"ack_timeout"} if times_out else set())


@pytest.mark.parametrize(
    ("channel", "is_endless"), [(QUORUM, True), (QUORUM_42, False)], ids=["4.3", "4.2 counts timeouts"]
)
def test_R17_work_above_the_timeout_is_done_again_and_again(
    channel: dict[str, Any], is_endless: bool
) -> None:
    told = rabbit(
        channel={**channel, "consumer_timeout": 60, "delivery_limit": 3},
        service={"service_time": 150},
        producer=at(0.1),
        messages=1,
        drain_limit=3000,
    )
    if is_endless:
        assert told["processed"] == pytest.approx(3000 / 150, abs=2)  # one after another, none of them acked
        assert told["in_flight"] == 0 and told["duplicates"] == told["processed"] - 1
    else:
        assert len(told.events("sent")) == 4
        assert told["processed"] == 4
    assert {cause for _, cause in told.causes} == {"ack_timeout"}


def test_R17_all_that_the_consumer_holds_returns_in_order_and_it_subscribes_again() -> None:
    told = rabbit(
        channel={**QUORUM, "consumer_timeout": 60},
        service={"service_time": 100_000, "prefetch": 3},
        producer=at_once(4),
        messages=4,
        drain_limit=130,
    )
    assert told.order("sent") == [0, 1, 2, 0, 1, 2]
    assert told.times("sent")[3] - told.times("requeue")[0] == pytest.approx(5.0, abs=0.01)


def stuck(channel: dict[str, Any], *times: float, until: float) -> Story:
    """A handler is stuck on each message that comes before `until` (s), and others take 30 s; R-17 looks at 120 s."""
    return rabbit(
        channel={**channel, "consumer_timeout": 60},
        producer=at(*times),
        service={"slots": 9, "prefetch": 3, "service_time": 30},
        faults=[{"slow": "billing.1", "at": 0, "lasting": until, "factor": 1000}],
        duration=240,
        drain_limit=1,
    )


@pytest.mark.parametrize(
    ("channel", "sent"), [(QUORUM, [2, 1, 1]), (QUORUM_42, [2, 2, 2])], ids=["4.3", "4.2 closes the channel"]
)
def test_R17_only_what_is_overdue_returns(channel: dict[str, Any], sent: list[int]) -> None:
    told = stuck(channel, 1, 100, 119.9, until=50)
    # then the others are acked on the channel that goes on, though their consumer was cancelled meanwhile
    assert deliveries(told) == sent
    assert told["unique"] == 3 and told["in_flight"] == 0
    assert told.times("sent", 0)[1] == pytest.approx(125.02, abs=0.01)  # when it has subscribed again


def test_R17_a_consumer_that_was_cancelled_has_no_part_in_the_window_of_the_next() -> None:
    # given that messages 0 and 1 are overdue at 120 and 180 s: the second delivery is the cancelled consumer's
    told = stuck(QUORUM, 1, 70, 130, 131, 132, 190, 191, 192, until=75)
    assert [round(time) for time in told.times("requeue")] == [120, 180]
    # then the present one, which is not cancelled for it, has 0, 2 and 3 in its window of three, and later 1, 5 and 6
    first = {message: round(told.times("sent", message)[0]) for message in range(2, 8)}
    assert first == {2: 130, 3: 131, 4: 155, 5: 190, 6: 191, 7: 210}
    assert [round(told.times("sent", message)[1]) for message in (0, 1)] == [125, 180]


def test_R17_what_a_cancelled_consumer_kept_returns_with_its_node() -> None:
    told = rabbit(
        channel={**QUORUM, "consumer_timeout": 60, "consumer_disconnected_timeout": 10},
        producer=at(1, 100),
        service={"slots": 2, "service_time": 1000, "node": 2},
        faults=[{"crash": "orders.2", "at": 122, "lasting": 300}],
        duration=200,
        drain_limit=1,
    )
    back = {event.message: (event.time, event.cause) for event in told.events("requeue")}
    assert back[0] == (pytest.approx(120.02, abs=0.01), "ack_timeout")
    assert back[1] == (pytest.approx(132.0, abs=0.01), "channel_lost")


# -- the prefetch window ---------------------------------------------------------------------------------------


def processing_rate(told: Story) -> float:
    """Messages per second between the first and the last processing."""
    times = told.times("processed")
    return (len(times) - 1) / (times[-1] - times[0])


def windowed(prefetch: int | None, channel: dict[str, Any]) -> float:
    """Messages per second of a consumer with t_p = 1 ms and r = 10 ms that has a backlog."""
    return processing_rate(
        rabbit(
            channel=channel,
            producer=at_once(1500),
            service={"prefetch": prefetch, "service_time": 0.001},
            network={"delay": HOP, "links": {"billing.1 <-> orders": {"delay": 0.005}}},
            messages=1500,
        )
    )


@pytest.mark.parametrize(
    ("prefetch", "rate"), [(1, 90.9), (5, 454.5), (11, 1000.0), (50, 1000.0), (None, 1000.0)]
)
def test_R18_a_sequential_consumer_is_as_fast_as_its_window_allows(prefetch: int | None, rate: float) -> None:
    assert windowed(prefetch, {}) == pytest.approx(rate, rel=4e-3)


@pytest.mark.parametrize("prefetch", [1, 5])
def test_R18_a_quorum_queue_s_credit_returns_when_the_ack_is_committed(prefetch: int) -> None:
    # The leader's fsync takes 1 ms, a follower's 1 ms more than a round trip of 0.2 ms.
    found = windowed(prefetch, QUORUM)
    t_commit = 0.001 + 0.0002
    assert prefetch / (0.011 + t_commit + 0.001) * 0.99 < found < prefetch / (0.011 + t_commit) * 1.001
    if prefetch == 1:  # nothing else is in the log, so no ack waits for a sync under way
        assert found == pytest.approx(1 / (0.011 + t_commit), rel=5e-3)


def test_R18_no_consumer_holds_more_than_its_window() -> None:
    told = rabbit(
        producer=at_once(30), service={"prefetch": 3, "service_time": {"exponential": 0.05}}, messages=30
    )
    acked = [(round(time + HOP, 6), -1) for time in told.times("processed")]
    steps = sorted([*acked, *((time, 1) for time in told.times("sent"))])
    assert max(accumulate(step for _, step in steps)) == 3


# -- dispatch --------------------------------------------------------------------------------------------------


def test_R19_consumers_are_served_in_turn_and_skipped_while_they_are_full() -> None:
    told = rabbit(service={"consumers": 3}, network=apart(3), messages=7)
    assert taken_by(told) == [1, 2, 3, 1, 2, 3, 1]
    told = rabbit(
        producer={"messages": 7},
        service={"consumers": 3, "prefetch": 1, "service_time": 0.16},
        faults=[{"slow": "billing.2", "at": 0.0, "factor": 100}],
        network=apart(3),
        duration=2,
    )
    assert taken_by(told) == [1, 2, 3, 1, 3, 1, 3]


@pytest.mark.parametrize("channel", [{}, QUORUM], ids=["CQ", "QQ"])
def test_R19_a_higher_x_priority_comes_first_and_lower_ones_while_it_is_full(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel=channel,
        service={"consumers": 3, "consumer_priorities": [0, 0, 5], "prefetch": 2, "service_time": 10},
        producer=at(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        network=apart(3),
        messages=6,
    )
    assert taken_by(told)[:2] == [3, 3]
    assert sorted(taken_by(told)[2:4]) == [1, 2] and sorted(taken_by(told)) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("prefetch", "lasts"), [(None, 50.0), (1, 1000 / 110)])
def test_R19_unlimited_prefetch_deals_the_backlog_out_evenly_whatever_the_speeds(
    prefetch: int | None, lasts: float
) -> None:
    told = rabbit(
        producer=at_once(1000),
        service={"consumers": 2, "prefetch": prefetch, "service_time": 0.01},
        faults=[{"slow": "billing.2", "at": 0.0, "factor": 10}],
        network={"delay": 1e-6},
        duration=60,
    )
    assert told.times("processed")[-1] - 0.1 == pytest.approx(lasts, rel=5e-3)
    waiting = told["backlog_max"]
    assert waiting > 900 if prefetch else waiting < 30  # else it sits in the memory of the clients


# -- single active consumer, exclusive -------------------------------------------------------------------------

SINGLE = {"single_active_consumer": True}


def active(told: Story, since: float = 0.0) -> set[int]:
    """Consumers that were sent something from then on (s)."""
    late = {event.copy for event in told.events("sent") if event.time >= since}
    arrival = {event.copy: event.time for event in told.events("delivered") if event.copy in late}
    return {round((arrival[e.copy] - e.time) / APART) for e in told.events("sent") if e.copy in arrival}


@pytest.mark.parametrize("channel", [SINGLE, {**QUORUM, **SINGLE}], ids=["CQ", "QQ"])
def test_R20_one_of_several_gets_all_and_the_next_takes_over_when_its_channel_ends(
    channel: dict[str, Any],
) -> None:
    told = rabbit(
        producer={"messages": 20},
        channel=channel,
        service={"consumers": 3},
        faults=[{"crash": "billing.1", "at": 1.05, "lasting": 0.5}],
        network=apart(3),
        duration=4,
    )
    first = [
        taker for event, taker in zip(told.events("sent"), taken_by(told), strict=True) if event.time < 1.05
    ]
    rest = [
        taker for event, taker in zip(told.events("sent"), taken_by(told), strict=True) if event.time > 1.05
    ]
    assert {*first} == {1} and {*rest} == {2}  # the first one comes back behind the others
    assert told.places() == ["unique"] * 20


def test_R20_the_gap_is_the_detection_and_the_overlap_at_most_the_window() -> None:
    heartbeat, cut, prefetch = 2.0, 1.05, 4
    told = rabbit(
        producer={"messages": 30},
        channel=SINGLE,
        service={"consumers": 2, "prefetch": prefetch, "service_time": 0.5, "heartbeat": heartbeat},
        faults=[{"partition": "billing.1 <-> orders", "at": cut, "lasting": 50}],
        network=apart(2),
        duration=52,
    )
    takeover = told.times("requeue")[0]
    assert 1.5 * heartbeat <= takeover - cut <= 3 * heartbeat
    assert not [time for time in told.times("sent") if cut + HOP < time < takeover]
    assert active(told, since=takeover) == {2}
    assert 1 <= told["duplicates"] <= prefetch  # what the first one went on working on
    assert told["lost"] == 0


def test_R20_a_single_active_consumer_of_a_quorum_queue_gives_way_to_a_higher_priority_after_a_drain() -> (
    None
):
    told = rabbit(
        producer={"messages": 20},
        channel={**QUORUM, **SINGLE},
        service={"consumers": 2, "prefetch": 3, "service_time": 0.25, "consumer_priorities": [0, 1]},
        faults=[{"crash": "billing.2", "at": 0.0, "lasting": 1.0}],  # it comes when the first one is at work
        network=apart(2),
        duration=8,
    )
    taken = taken_by(told)
    assert taken == sorted(taken) and {*taken} == {1, 2}
    handover = told.events("sent")[taken.index(2)]
    before = {event.message for event, taker in zip(told.events("sent"), taken, strict=True) if taker == 1}
    assert handover.time > 1.0
    assert before == {
        e.message for e in told.events("processed") if e.time < handover.time
    }  # nothing in its hands
    assert told["duplicates"] == 0


def test_R20_an_exclusive_queue_refuses_a_second_consumer_and_nobody_takes_over() -> None:
    told = rabbit(
        producer={"messages": 15},
        channel={"exclusive": True},
        service={"consumers": 2, "service_time": 0.15},
        faults=[
            {"crash": "billing.2", "at": 0.5, "lasting": 0.1},  # the refused one: no loss
            {"crash": "billing.1", "at": 1.05, "lasting": 0.5},
        ],
        network=apart(2),
        duration=4,
    )
    assert {*taken_by(told)} == {1}
    assert (
        told["unique"] == 6 and told["lost"] == 9
    )  # 6 processed by 1.05 s; the queue is gone, with its contents
    assert {cause for _, cause in told.causes} == {"queue_deleted", "unroutable"}


# -- order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [{}, QUORUM], ids=["CQ", "QQ"])
def test_R21_one_channel_one_queue_one_consumer_and_no_return_keep_the_order(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel=channel,
        producer={"arrivals": "500/s"},
        service={"service_time": {"exponential": 0.001}, "prefetch": 20},
        network={"delay": {"exponential": 0.005}},
        messages=1000,
    )
    assert told.order("started") == list(range(1000))
    assert told["out_of_order"] == 0


@pytest.mark.parametrize("channel", [{}, {**QUORUM, "delivery_limit": 1000}], ids=["CQ", "QQ"])
def test_R21_a_returned_message_is_overtaken_by_at_most_the_rest_of_the_window(
    channel: dict[str, Any],
) -> None:
    prefetch = 5
    told = rabbit(
        channel=channel,
        producer=at_once(300),
        service={
            "failures": {"transient": 0.02},
            "prefetch": prefetch,
            "slots": prefetch,
            "service_time": 0.01,
        },
        network={"delay": 1e-6} if not channel else {"delay": HOP},
        messages=300,
    )
    overtaken = late(told)
    assert len(overtaken) > 2
    assert 0 < max(overtaken.values()) <= prefetch - 1


def late(told: Story) -> dict[int, int]:
    """How many later messages were processed before each message that was returned."""
    order = told.order("processed")
    returned = {event.message for event in told.events("requeue")}
    return {m: sum(other > m for other in order[: order.index(m)]) for m in returned}


def test_R21_competing_consumers_finish_and_start_out_of_order() -> None:
    told = rabbit(
        producer={"arrivals": "500/s"},
        service={"consumers": 4, "service_time": {"exponential": 0.005}, "prefetch": 5},
        messages=500,
    )
    assert told["out_of_order"] > 50
    assert {anomaly for anomaly, _ in told.anomalies} == {"reordered"}


def test_R21_several_channels_interleave_and_keep_the_order_of_each() -> None:
    told = rabbit(
        producer={"arrivals": "200/s", "instances": 2},
        network={"delay": HOP, "links": {"shop.2 -> orders": {"delay": 0.05}}},
        messages=100,
    )
    messages = books(told)
    order = told.order("processed")
    assert order != sorted(order)  # across the channels
    for number in (0, 1):
        own = [message for message in order if messages.producer[message] == number]
        assert own == sorted(own) and len(own) == 100
    assert told["out_of_order"] == 0 and deliveries(told) == [1] * 200
