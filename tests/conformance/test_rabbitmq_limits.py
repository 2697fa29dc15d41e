"""RabbitMQ, expiry, dead letters, limits, priority, back-pressure: behaviours R-30 to R-38 of the sheet."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any

import pytest

from sim.brokers.rabbitmq.classic import ClassicQueue
from sim.ledger import Messages
from sim.simulation import simulate
from sim.stats import mean_ci
from sim.theory import priority_mm1
from tests.conformance.builders import Story
from tests.conformance.rabbitmq import HOP, QUORUM, Driven, at, at_once, books, outcomes, rabbit, scenario

NOBODY = {"crash": "billing", "at": 0}  # no consumer until arrivals end
CQ_AND_QQ = pytest.mark.parametrize("channel", [{}, QUORUM], ids=["CQ", "QQ"])
NO_DELAY = {"delay": 1e-7}


def ages(told: Story, what: str) -> list[float]:
    """How long after they were first stored messages had an event of that kind (s)."""
    born: dict[int, float] = {}
    for event in told.events("stored"):
        born.setdefault(event.message, event.time)
    return [round(event.time - born[event.message], 6) for event in told.events(what)]


def length_at(told: Story, time: float) -> int:
    """Ready messages then."""
    steps = {"stored": 1, "sent": -1, "unready": -1}
    return sum(steps.get(event.what, 0) for event in told.trace if event.time <= time)


# -- TTL -------------------------------------------------------------------------------------------------------


@CQ_AND_QQ
def test_R30_without_a_consumer_each_leaves_at_age_ttl_and_rate_times_ttl_are_there(
    channel: dict[str, Any],
) -> None:
    told = rabbit(channel={**channel, "message_ttl": 1.0}, faults=[NOBODY], duration=4.95)
    gone = ages(told, "unready")
    assert len(gone) >= 39 and gone == pytest.approx([1.0] * len(gone), abs=1e-4)
    assert [length_at(told, time) for time in (2.05, 3.05, 4.05)] == [10, 10, 10]
    assert told["expired"] == len(gone) and {cause for _, cause in told.causes} == {"ttl"}


@CQ_AND_QQ
def test_R30_an_expired_message_is_never_delivered(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel={**channel, "message_ttl": 0.5},
        producer={"arrivals": "50/s"},
        service={"prefetch": 1, "service_time": {"exponential": 0.03}},
        messages=300,
    )
    assert told["expired"] > 20
    assert max(ages(told, "sent")) <= 0.5 + 1e-9
    assert told["expired"] + told["unique"] == 300 and told["duplicates"] == 0


@CQ_AND_QQ
def test_R30_a_message_expires_at_the_head_only_and_waits_and_counts_behind_a_longer_one(
    channel: dict[str, Any],
) -> None:
    told = rabbit(
        channel=channel,
        producers={"slow": {"expiration": 5, **at(0.1)}, "fast": {"expiration": 1, **at(0.2, 7)}},
        faults=[NOBODY],
        duration=10,
    )
    gone = told.times("unready")
    assert gone == pytest.approx([5.1, 5.1, 8.0], abs=0.01)  # the second at age 4.9, the third at 1.0
    assert length_at(told, 5.0) == 2


@pytest.mark.parametrize(("own", "age"), [(1, 1.0), (3, 2.0)])
def test_R30_the_lower_ttl_wins(own: int, age: float) -> None:
    told = rabbit(
        channel={"message_ttl": 2}, producer={"expiration": own, **at(0.1)}, faults=[NOBODY], duration=5
    )
    assert ages(told, "unready") == [age]


@CQ_AND_QQ
def test_R30_requeueing_keeps_the_expiry_and_what_is_unacked_does_not_expire(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel={**channel, "message_ttl": 2},
        producer=at(0.1),
        service={"failures": {"poison": 1.0}, "prefetch": 1, "service_time": 0.8},
        messages=1,
    )
    # Handlers fail at ages of about 0.8, 1.6 and 2.4; at 2.0 the third is at work.
    assert len(told.events("sent")) == 3
    (death,) = ages(told, "unready")
    assert death == pytest.approx(2.4, abs=0.02)
    assert told.places() == ["expired"]


@CQ_AND_QQ
def test_R30_a_ttl_of_zero_means_now_or_never(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel={**channel, "message_ttl": 0}, service={"prefetch": 1, "service_time": 0.25}, messages=9
    )
    assert told.order("processed") == [0, 3, 6]
    assert told["expired"] == 6 and set(ages(told, "unready")) == {0.0}


@CQ_AND_QQ
@pytest.mark.parametrize(("expires", "is_deleted"), [(3.0, True), (3.3, False)])
def test_R30_a_queue_that_nobody_uses_is_deleted_with_its_contents(
    channel: dict[str, Any], expires: float, is_deleted: bool
) -> None:
    told = rabbit(
        channel={**channel, "expires": expires, "dead_letter_exchange": "parking"},
        faults=[{"crash": "billing", "at": 0, "lasting": 3.1}],
        duration=6,
    )
    if is_deleted:
        assert told.causes == {("lost", "queue_deleted"): 29, ("lost", "unroutable"): told["published"] - 29}
        assert told["dead_lettered"] == 0
    else:
        assert told["unique"] == told["published"]


def test_R30_a_queue_with_a_consumer_does_not_expire_and_the_time_begins_when_it_leaves() -> None:
    told = rabbit(
        channel={"expires": 1.0}, faults=[{"crash": "billing", "at": 3.05, "lasting": 10}], duration=6
    )
    assert told["unique"] == 30
    deleted = [event.time for event in told.events("died") if event.cause == "queue_deleted"]
    assert len(deleted) == 10 and set(deleted) == {3.05 + HOP + 1.0}


# -- a delay queue ---------------------------------------------------------------------------------------------

DELAY = {"is_delay_queue": True}


def released(told: Story) -> dict[int, float]:
    """How long after its creation each message was sent to the consumer (s)."""
    created = books(told).created
    return {event.message: round(event.time - created[event.message], 3) for event in told.events("sent")}


@CQ_AND_QQ
def test_R31_ttls_of_60_and_1_second_sent_together_come_out_together_after_60(
    channel: dict[str, Any],
) -> None:
    told = rabbit(
        channel={**channel, **DELAY},
        producers={"long": {"expiration": 60, **at(0.1)}, "short": {"expiration": 1, **at(0.1001)}},
    )
    assert [*released(told).values()] == pytest.approx([60, 60], abs=0.01)


def test_R31_a_message_comes_out_with_the_last_of_those_before_it() -> None:
    ttls = {"a": 5.0, "b": 2.0, "c": 8.0}
    times = {"a": [0.1, 1.3, 9.0], "b": [0.4, 2.0, 3.5, 12.0], "c": [0.9, 6.0]}
    told = rabbit(
        channel=DELAY, producers={name: {"expiration": ttls[name], **at(*times[name])} for name in ttls}
    )
    sent = sorted((time, ttls[name]) for name in ttls for time in times[name])
    out = accumulate((time + ttl for time, ttl in sent), max)
    assert [event.time for event in told.events("sent")] == pytest.approx([*out], abs=0.01)


@CQ_AND_QQ
def test_R31_with_one_delay_per_queue_the_error_is_nil(channel: dict[str, Any]) -> None:
    told = rabbit(channel={**channel, **DELAY}, producer={"expiration": 2}, messages=20)
    assert [*released(told).values()] == pytest.approx([2.0] * 20, abs=0.005)


def test_R31_a_delayed_message_has_no_ttl_left_where_it_arrives() -> None:
    told = rabbit(
        channel=DELAY,
        producer={"expiration": 0.5},
        faults=[{"crash": "billing", "at": 0, "lasting": 5}],
        duration=6,
    )
    assert told["unique"] == told["published"] and told["lost"] == 0


# -- dead-lettering --------------------------------------------------------------------------------------------

FAILING = {"failures": {"poison": 1.0}}
WAYS = {  # reason: settings of the channel, of the service, faults, and how many of 40 messages die
    "rejected": ({}, {**FAILING, "requeue": False}, [], 40),
    "expired": ({"message_ttl": 0.05}, {}, [NOBODY], 40),
    "overflow": ({"max_length": 10}, {}, [NOBODY], 30),
    "delivery_limit": ({**QUORUM, "delivery_limit": 1}, {**FAILING, "negative_ack": "reject"}, [], 40),
}
LOST_BY = {
    "rejected": "rejected",
    "expired": "ttl",
    "overflow": "overflow_head",
    "delivery_limit": "delivery_limit",
}


def dying(reason: str, **channel: Any) -> Story:
    """Forty messages, of which some die of that reason."""
    own, service, faults, _ = WAYS[reason]
    return rabbit(channel={**own, **channel}, service=service, faults=faults, duration=4.08)


@pytest.mark.parametrize("reason", WAYS)
def test_R32_every_death_arrives_while_all_is_up(reason: str) -> None:
    told = dying(reason, dead_letter_exchange="parking")
    assert told.causes == {("dead_lettered", f"parked_{reason}"): WAYS[reason][3]}


@pytest.mark.parametrize("reason", WAYS)
def test_R32_without_an_exchange_the_message_is_lost_or_expired(reason: str) -> None:
    told = dying(reason)
    anomaly = "expired" if reason == "expired" else "lost"
    assert told.causes == {(anomaly, LOST_BY[reason]): WAYS[reason][3]}


@pytest.mark.parametrize("reason", WAYS)
def test_R32_an_exchange_that_was_never_declared_loses_all(reason: str) -> None:
    told = dying(reason, dead_letter_exchange="missing")
    assert told.causes == {("lost", "dlx_lost"): WAYS[reason][3]}


def target_down(**channel: Any) -> Story:
    """Ten messages a second are rejected; the node of the target is down from 1.05 to 3.05 s."""
    return rabbit(
        channel={"nodes": 3, "dead_letter_exchange": "parking", "dead_letter_node": 2, **channel},
        service={**FAILING, "requeue": False},
        faults=[{"crash": "orders.2", "at": 1.05, "lasting": 2}],
        duration=6.02,
        drain_limit=1000,
    )


@CQ_AND_QQ
def test_R32_at_most_once_loses_what_dies_while_the_target_is_down(channel: dict[str, Any]) -> None:
    told = target_down(**channel)
    assert told["lost"] == pytest.approx(20, abs=1 + 2)  # and the nodes take a moment to connect again
    assert told["dead_lettered"] == 60 - told["lost"]
    assert {cause for _, cause in told.causes} == {"dlx_lost", "parked_rejected"}


# -- x-death ---------------------------------------------------------------------------------------------------


@CQ_AND_QQ
@pytest.mark.parametrize("rounds", [1, 3])
def test_R33_a_retry_loop_ends_when_the_consumer_has_counted_its_rounds(
    channel: dict[str, Any], rounds: int
) -> None:
    told = rabbit(
        channel={**channel, "dead_letter_exchange": "retry", "retry_ttl": 2, "retry_rounds": rounds},
        producer=at(0.1),
        service={**FAILING, "requeue": False},
    )
    sent = told.times("sent")
    assert len(sent) == rounds + 1
    assert [b - a for a, b in pairwise(sent)] == pytest.approx([2.01] * rounds, abs=0.01)
    assert told.causes == {("dead_lettered", "parked_retries_spent"): 1}


def test_R33_nobody_else_ends_it_and_the_header_counts() -> None:
    world = Driven(
        channel={"dead_letter_exchange": "retry", "retry_ttl": 1},
        producer=at(0.1),
        service={**FAILING, "requeue": False},
        messages=1,
    )
    world.run(until=30.5)
    n = len(world.sent(since=0))
    assert n == 31 or n == 30
    deaths = world.queue.dead_letters.deaths[0]
    assert deaths == {("billing", "rejected"): n, ("billing.wait", "expired"): n - 1}
    assert [queue for queue, _ in deaths] == ["billing.wait", "billing"]  # the newest is the last


@CQ_AND_QQ
def test_R33_a_cycle_without_any_rejection_is_dropped_on_its_first_return(channel: dict[str, Any]) -> None:
    told = rabbit(
        channel={**channel, "message_ttl": 1, "dead_letter_exchange": "retry", "retry_ttl": 1},
        producer=at(0.1),
        faults=[NOBODY],
        duration=10,
    )
    assert told.causes == {("lost", "dlx_lost"): 1}
    assert told.times("unready") == pytest.approx(
        [1.1, 2.1], abs=0.01
    )  # expired here, expired there, and gone
    assert len(told.events("stored")) == 2


# -- at least once ---------------------------------------------------------------------------------------------

SAFE = {**QUORUM, "overflow": "reject-publish", "dead_letter_strategy": "at-least-once"}


def test_R34_nothing_is_lost_while_the_target_is_down_and_the_source_keeps_it() -> None:
    told = target_down(**SAFE)
    assert told["lost"] == 0 and told["dead_lettered"] == 60
    parked = [event.time for event in told.events("dead_letter")]
    assert not [time for time in parked if 1.06 < time < 3.05]
    late = [time for time in parked if time > 7]
    assert len(late) == pytest.approx(20, abs=3)
    assert min(late) >= 180 and max(late) <= 3.05 + 360


@pytest.mark.parametrize("missing", [{"overflow": "drop-head"}, {"queue_type": "classic"}])
def test_R34_it_falls_back_to_at_most_once_without_reject_publish_or_a_quorum_queue(
    missing: dict[str, Any],
) -> None:
    assert target_down(**SAFE)["lost"] == 0
    assert target_down(**{**SAFE, **missing})["lost"] > 15


def test_R34_at_most_32_are_on_their_way_to_the_target() -> None:
    n, delay = 400, 0.05
    told = rabbit(
        channel={**SAFE, "dead_letter_exchange": "parking", "dead_letter_node": 2, "node_delay": delay},
        # What is before them expires last, so they all die at one instant.
        producers={"long": {"expiration": 30, **at(0.1)}, "shop": {"expiration": 1, **at_once(n, at=0.5)}},
        faults=[NOBODY],
        duration=100,
        drain_limit=100,
    )
    times = [event.time for event in told.events("dead_letter")]
    assert len(times) == n + 1
    assert n / (times[-1] - times[0]) == pytest.approx(32 / (2 * delay), rel=0.1)


def test_R34_a_confirm_that_does_not_come_makes_a_duplicate_at_the_target_after_180_to_360_seconds() -> None:
    told = rabbit(
        # Each queue has one member: here the source, there the target.
        channel={**SAFE, "nodes": 2, "initial_group_size": 1, "dead_letter_node": 2, "node_delay": 0.02}
        | {"dead_letter_exchange": "retry", "retry_ttl": 1, "retry_rounds": 1},
        producer=at(10.0),
        service={**FAILING, "requeue": False},
        # The dead letter reaches the target at 10.035, which would confirm it at 10.036.
        faults=[{"partition": "orders.1 <-> orders.2", "at": 10.0355, "lasting": 70}],
        duration=500,
    )
    (copy,) = [event for event in told.events("copy") if event.cause == "dlx_retry"]
    assert 10 + 180 <= copy.time <= 10.1 + 360
    assert len(told.events("stored")) == 1 + 2 + 2  # at the queue, twice at the target, and both come back
    assert len(told.events("sent")) == 3 and told["lost"] == 0


def test_R34_what_is_kept_counts_to_the_maximal_length() -> None:
    told = rabbit(
        channel={**SAFE, "dead_letter_exchange": "parking", "dead_letter_node": 2, "max_length": 40},
        producer={"resend": {"timeout": None, "attempts": 1}},
        service={**FAILING, "requeue": False},
        faults=[{"crash": "orders.2", "at": 0.05, "lasting": 20}],
        duration=10,
        drain_limit=1000,
    )
    # Ten a second die at once, so the queue itself is empty; 40 and one are kept when it begins to refuse.
    assert told["dead_lettered"] == pytest.approx(41, abs=2)
    assert told["rejected"] + told["lost"] == told["published"] - told["dead_lettered"]


# -- the length limit ------------------------------------------------------------------------------------------

L, RATE, MU = 50, 200.0, 100.0
OVERLOAD: dict[str, Any] = {
    "producer": {"arrivals": {"deterministic": f"{RATE}/s"}, "resend": {"timeout": None, "attempts": 1}},
    "service": {"prefetch": 1, "service_time": 1 / MU - 2 * HOP},
    "messages": 4000,
}


@CQ_AND_QQ
@pytest.mark.parametrize(
    ("overflow", "cause", "wait"),
    [("drop-head", "overflow_head", L / RATE), ("reject-publish", "overflow_new", L / MU)],
)
def test_R35_overload_loses_one_minus_mu_over_lambda_and_survivors_wait_for_what_is_before_or_behind_them(
    channel: dict[str, Any], overflow: str, cause: str, wait: float
) -> None:
    told = rabbit(channel={**channel, "max_length": L, "overflow": overflow}, **OVERLOAD)
    mu = (
        MU if not channel else 1 / (1 / MU + 0.0012)
    )  # a quorum queue's credit waits for the commit of the ack
    loss = told["lost"] / 4000
    assert loss == pytest.approx(1 - mu / RATE, abs=0.02)
    assert {name for _, name in told.causes} == {cause}
    if not channel:
        assert told["queue_wait_mean"] == pytest.approx(wait, rel=0.03)
    if overflow == "drop-head":
        assert told["lost_confirmed"] == told["lost"] and told["confirmed"] == 4000
    else:
        assert told["lost_confirmed"] == 0 and told["failed"] == told["lost"]


def test_R35_drop_head_drops_the_oldest_and_reject_publish_the_newest_and_unacked_do_not_count() -> None:
    full = {"service": {"prefetch": 2, "service_time": 50}, "producer": {"resend": None}, "messages": 10}
    told = rabbit(channel={"max_length": 3}, **full)
    assert [place == "lost" for place in told.places()] == [False] * 2 + [True] * 5 + [False] * 3
    told = rabbit(channel={"max_length": 3, "overflow": "reject-publish"}, **full)
    assert [place == "lost" for place in told.places()] == [False] * 5 + [True] * 5
    assert outcomes(told) == ["in_doubt"] * 10  # without confirms nobody hears of it


def test_R35_bytes_are_limited_as_well() -> None:
    told = rabbit(
        channel={"max_length_bytes": 3500}, producer={"size": "1000 B"}, faults=[NOBODY], duration=1.02
    )
    assert told["published"] == 10 and told["lost"] == 7


@pytest.mark.parametrize("overflow", ["drop-head", "reject-publish"])
@pytest.mark.parametrize(
    "channel",
    [{}, {"max_priority": 3}, QUORUM, {**QUORUM, "series": "4.2"}],
    ids=["CQ", "priority", "QQ", "4.2"],
)
def test_R35_the_bytes_of_ready_messages_are_known_whatever_happens(
    channel: dict[str, Any], overflow: str
) -> None:
    world = Driven(
        channel={**channel, "exchange": "fanout", "max_length_bytes": 20_000, "overflow": overflow},
        producer={
            "arrivals": "100/s",
            "size": {"uniform": [100, 1900]},
            "keys": {"values": ["a", "b"]},
            "priorities": {"a": 2},
        },
        service={
            "consumers": 2,
            "prefetch": 5,
            "service_time": {"exponential": 0.03},
            "recovery_interval": 0.1,
        },
        faults=[
            {"crash": "billing.1", "at": 0.5, "every": 0.7, "lasting": 0.1},
            {"crash": "orders", "at": 3, "lasting": 0.2},
        ],
        duration=6,
    )
    seen = []
    for k in range(1, 61):
        world.run(until=k / 10)
        seen.append(sum(world.broker.messages.size_of(copy) for _, copy in world.queue.ready))
        assert world.queue.ready.bytes == seen[-1]
    assert max(seen) > 15_000


def test_R35_a_long_queue_costs_no_more_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    size_of = Messages.size_of
    monkeypatch.setattr(Messages, "size_of", lambda self, copy: asked.append(copy) or size_of(self, copy))
    for n in (200, 400):
        asked.clear()
        rabbit(channel={"max_length_bytes": 10_000_000}, producer=at_once(n), faults=[NOBODY], messages=n)
        assert len(asked) <= 12 * n


def test_R35_reject_publish_dlx_refuses_and_dead_letters() -> None:
    told = rabbit(
        channel={"max_length": 3, "overflow": "reject-publish-dlx", "dead_letter_exchange": "parking"},
        producer={"resend": {"timeout": None, "attempts": 1}},
        faults=[NOBODY],
        duration=1.02,
    )
    assert told.causes == {("dead_lettered", "parked_overflow"): 7}
    assert outcomes(told) == ["confirmed"] * 3 + ["failed"] * 7


def test_R35_what_returns_to_a_full_classic_queue_pushes_the_oldest_out() -> None:
    told = rabbit(
        channel={"max_length": 3},
        producer=at(0.1, 0.2, 0.3, 0.4, 0.5),
        service={"prefetch": 2, "service_time": 1e3},
        faults=[{"crash": "billing", "at": 1.0}],
        duration=2.0,
    )
    assert [event.message for event in told.events("unready")] == [0, 1]


def test_R35_a_quorum_queue_overshoots_by_what_is_in_flight_and_refuses_until_four_fifths() -> None:
    told = rabbit(
        channel={**QUORUM, "max_length": 20, "overflow": "reject-publish"},
        producer={"arrivals": {"deterministic": "5000/s"}, "resend": {"timeout": None, "attempts": 1}},
        service={"prefetch": 1, "service_time": 0.01},
        messages=8000,
    )
    depth, peak, lows, was = 0, 0, [], 0.0
    for event in told.trace:
        if event.what == "stored":
            if event.time - was > 0.02:  # a pause: it has refused, and begins to take again
                lows.append(depth)
            was = event.time
        depth += {"stored": 1, "sent": -1, "unready": -1}.get(event.what, 0)
        peak = max(peak, depth if event.time > 0.9 else 0)  # when what had waited for the connection is gone
    # A commit takes up to two syncs, or 2.4 ms, at 5000 messages a second.
    assert 20 + 1 + 5000 * 0.001 < peak <= 20 + 1 + 5000 * 0.0025
    assert len(lows) >= 2 and set(lows) <= {15, 16}


@pytest.mark.parametrize("strategy", ["ttl", "ack"])
def test_R35_a_quorum_queue_that_refuses_takes_messages_again_however_it_was_emptied(strategy: str) -> None:
    told = rabbit(
        channel={
            **QUORUM,
            "max_length": 5,
            "overflow": "reject-publish",
            **({"message_ttl": 1.0} if strategy == "ttl" else {}),
        },
        producer={"resend": {"timeout": None, "attempts": 1}},
        service={"service_time": 0.01, "prefetch": 1},
        faults=[NOBODY if strategy == "ttl" else {**NOBODY, "lasting": 2.0}],
        duration=6.0,
    )
    assert [time for time in told.times("stored") if time > 4.0]


# -- priority --------------------------------------------------------------------------------------------------


def test_R36_the_waits_of_two_classes_are_those_of_a_non_preemptive_queue() -> None:
    # lambda = (0.3, 0.5), mu = 1, prefetch 1: W_q = 1.143 and 5.714.
    n, classes = 4000, ("urgent", "plain")
    config = scenario(
        channel={"max_priority": 4, "exchange": "fanout"},
        producer={
            "arrivals": "0.8/s",
            "keys": {"values": [*classes], "weights": [0.3, 0.5]},
            "priorities": {"urgent": 3},
        },
        service={"prefetch": 1, "service_time": {"exponential": 1.0}},
        network=NO_DELAY,
        messages=n,
    )
    waits: dict[str, list[float]] = {key: [] for key in classes}
    for replication in range(8):
        messages = simulate(config.points()[0].config, 1, replication).ledger.channels["orders"]
        pairs = messages.subscriptions["billing"]
        for key in classes:
            chosen = [i for i in range(200, n) if messages.key_of(i) == key]
            waits[key].append(math.fsum(pairs.sent_at[i] - pairs.stored_at[i] for i in chosen) / len(chosen))
    expected = [queue.W_q for queue in priority_mm1((0.3, 0.5), 1)]
    assert expected == pytest.approx([1.143, 5.714], abs=1e-3)
    for key, theory, width in zip(classes, expected, (0.15, 1.5), strict=True):
        found = mean_ci(waits[key], 0.99)
        assert found.low <= theory <= found.high and found.half_width < width


def by_priority(
    channel: dict[str, Any], priorities: dict[str, int], keys: list[str], **settings: Any
) -> list[str]:
    """The order in which a backlog of one message per key is delivered."""
    told = rabbit(
        channel={"exchange": "fanout", **channel},
        producers={
            f"p{i}": {"keys": {"values": [key]}, "priorities": priorities, **at(0.1 + i / 100)}
            for i, key in enumerate(keys)
        },
        service={"prefetch": 1, **settings},
        faults=[{"crash": "billing", "at": 0, "lasting": 2}],
        duration=20,
    )
    return [books(told).key_of(message) for message in told.order("processed")]


def test_R36_a_classic_queue_serves_higher_ones_first_with_default_0_and_a_cap_and_in_order_within() -> None:
    order = by_priority(
        {"max_priority": 4},
        {"one": 1, "three": 3, "four": 4, "nine": 9},
        ["none", "one", "nine", "three", "none", "four", "one"],
    )
    assert order == ["nine", "four", "three", "one", "one", "none", "none"]
    assert by_priority({}, {"three": 3}, ["none", "three"]) == ["none", "three"]  # not a priority queue


def test_R36_a_quorum_queue_serves_0_to_31_strictly_with_default_4_and_returned_ones_first() -> None:
    keys = ["zero", "none", "five", "top", "thirty", "none", "zero"]
    priorities = {"zero": 0, "five": 5, "thirty": 30, "top": 200}
    order = by_priority(QUORUM, priorities, keys)
    assert order == ["top", "thirty", "five", "none", "none", "zero", "zero"]


def test_R36_a_quorum_queue_of_series_42_serves_two_classes_two_to_one() -> None:
    keys = ["low"] * 3 + ["high"] * 6
    order = by_priority({**QUORUM, "series": "4.2"}, {"low": 4, "high": 5}, keys)
    assert order.count("high") == 6
    assert [order[:3].count("high"), order[3:6].count("high"), order[6:].count("high")] == [2, 2, 2]


def test_R36_returned_messages_of_a_quorum_queue_come_before_higher_priorities() -> None:
    world = Driven(
        channel={**QUORUM, "exchange": "fanout"},
        producers={
            "a": {"keys": {"values": ["low"]}, "priorities": {"low": 1}, **at(0.1, 0.11)},
            "b": {"keys": {"values": ["top"]}, "priorities": {"top": 9}, **at(0.3, 0.31)},
        },
        service={"prefetch": 2, "service_time": 1e3},
    )
    world.run(until=1.0)
    (consumer,) = world.queue.consumers
    world.queue.detach(consumer)
    for copy in (1, 0):
        consumer.nack(copy, requeue=True)
    world.run(until=2.0)
    consumer.prefetch = consumer.credit = 4
    world.queue.attach(consumer)
    assert world.sent(since=2.0) == [1, 0, 2, 3]


@pytest.mark.parametrize("channel", [{"max_priority": 2}, QUORUM], ids=["CQ", "QQ"])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_R36_what_is_prefetched_is_not_overtaken(channel: dict[str, Any], prefetch: int) -> None:
    t_p = 0.1
    told = rabbit(
        channel={"exchange": "fanout", **channel},
        producers={
            "bulk": {"keys": {"values": ["bulk"]}, **at_once(60)},
            "vip": {"keys": {"values": ["vip"]}, "priorities": {"vip": 9}, **at(1.03, 2.08, 3.51)},
        },
        service={"prefetch": prefetch, "service_time": t_p},
        messages=60,
    )
    messages, pairs = books(told), told.pairs()
    urgent = [i for i in range(len(messages)) if messages.key_of(i) == "vip"]
    waits = [pairs.started_at[i] - pairs.stored_at[i] for i in urgent]
    slack = 0.006  # hops, and the commit of acks
    assert len(waits) == 3 and max(waits) <= t_p + (prefetch - 1) * t_p + slack
    assert min(waits) >= (prefetch - 1) * t_p  # behind all that was prefetched


def test_R36_drop_head_ignores_priority() -> None:
    told = rabbit(
        channel={"max_priority": 4, "max_length": 3, "exchange": "fanout"},
        producers={
            "vip": {"keys": {"values": ["vip"]}, "priorities": {"vip": 4}, **at(0.2, 0.4)},
            "bulk": {"keys": {"values": ["bulk"]}, **at(0.1, 0.3, 0.5)},
        },
        faults=[NOBODY],
        duration=2.0,
    )
    assert [place == "lost" for place in told.places()] == [True, True, False, False, False]


def test_R36_low_priorities_starve_where_high_ones_are_too_many() -> None:
    told = rabbit(
        channel={"max_priority": 2, "exchange": "fanout"},
        producers={
            "vip": {
                "keys": {"values": ["vip"]},
                "priorities": {"vip": 2},
                "arrivals": {"deterministic": "110/s"},
                "resend": None,
            },
            "bulk": {"keys": {"values": ["bulk"]}, "arrivals": {"deterministic": "10/s"}, "resend": None},
        },
        service={"prefetch": 1, "service_time": 0.01},
        network=NO_DELAY,
        duration=10,
        drain_limit=0.1,
    )
    messages, pairs = books(told), told.pairs()
    served = [messages.key_of(event.message) for event in told.events("processed") if 1 < event.time <= 10]
    assert served.count("bulk") == 0 and served.count("vip") == pytest.approx(900, abs=2)
    assert pairs.name == "billing"


# -- flow control ----------------------------------------------------------------------------------------------


def test_R37_a_fast_publisher_is_held_back_by_400_credits_and_its_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    per_message = 0.001
    monkeypatch.setattr(ClassicQueue, "per_message", per_message)
    world = Driven(
        producer={"arrivals": {"deterministic": "5000/s"}},
        service={"service_time": 0},
        faults=[NOBODY],
        duration=3,
    )
    mailbox, sockets = [], []
    for k in range(1, 200):
        world.run(until=0.1 + k / 100)
        queue, publisher = world.queue, world.broker.publishers[0]
        mailbox.append((queue.busy - world.sim.world.now) / per_message)
        sockets.append(len(publisher.requests.held_copies()))
    assert 390 < max(mailbox) <= 400 + 2 and min(mailbox[50:]) >= 199  # and never idle
    assert 150 < max(sockets) <= 200_000 / 1024 + 2
    stored = sum(event.what == "stored" for event in world.trace)
    handled = (world.sim.world.now - 0.02) / per_message  # since the connection can be used
    assert handled - 2 <= stored <= handled + 400 + 10
    source = world.sim.sources[0]
    assert len(source.sender.waiting) > 5000  # the rest


def test_R37_a_consumer_on_another_connection_does_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    told = rabbit(
        producer={"arrivals": {"deterministic": "5000/s"}}, service={"service_time": 0}, messages=3000
    )
    times = told.times("processed")
    assert max(b - a for a, b in pairwise(times)) < 0.5
    assert told["unique"] == 3000
    assert len(times) / (times[-1] - times[0]) == pytest.approx(
        500, rel=0.05
    )  # an enqueue and a delivery each


def test_R37_a_quorum_queue_commits_at_most_its_window_per_commit() -> None:
    sync = 0.01
    world = Driven(
        channel={**QUORUM, "fsync": sync},
        producer={"arrivals": {"deterministic": "60000/s"}},
        faults=[NOBODY],
        duration=2,
    )
    world.run(until=0.3)
    (channel,) = [c for c in world.broker.nodes[0].channels if c.client is world.broker.publishers[0]]
    pending = []
    for k in range(100):
        world.run(until=0.3 + k / 1000)
        pending.append(len(channel.pending))
    assert 32 <= max(pending) <= 432
    stored = [event.time for event in world.trace if event.what == "stored" and event.time > 0.2]
    rate = len(stored) / (stored[-1] - stored[0])
    t_commit = sync + 0.0002
    assert 32 / (t_commit + sync) <= rate <= 432 / t_commit
    # From 32 on the channel grants no credit, and its reader has up to 400: half of that waits for the next sync.
    # Before a sync the channel spends 10 us on each of a batch, after it the leader 15 us.
    batch = rate * sync
    assert rate == pytest.approx(432 / (t_commit + sync + batch * 25e-6), rel=0.1)


# -- alarms ----------------------------------------------------------------------------------------------------

MEMORY = {"memory": "1 MB"}  # 0.6 of it: 585 messages of 1 KiB
FLOOD = {"arrivals": {"deterministic": "400/s"}}


def quiet(told: Story) -> list[float]:
    """How long nothing was stored, where that is more than a second (s)."""
    times = told.times("stored")
    return [b - a for a, b in pairwise(times) if b - a > 0.9]


@CQ_AND_QQ
def test_R38_publishers_stop_for_the_alarm_and_pure_consumers_go_on_and_nothing_is_lost(
    channel: dict[str, Any],
) -> None:
    told = rabbit(
        channel={**channel, **MEMORY},
        producer=FLOOD,
        service={"service_time": 0.005, "prefetch": 10},
        messages=3000,
    )
    assert quiet(told) and told["unique"] == 3000 and told["lost"] == 0
    done = told.times("processed")
    assert max(b - a for a, b in pairwise(done)) < 0.1
    # Looked at once a second, the mark may be passed by what comes in a second.
    stored = told.times("stored")
    first = next(a for a, b in pairwise(stored) if b - a > 0.9)
    assert 585 < length_at(told, first) + 10 <= 585 + 400 + 20


def test_R38_a_short_disk_is_an_alarm_too_and_none_where_there_is_room() -> None:
    settings = {"producer": FLOOD, "service": {"service_time": 0.005, "prefetch": 10}, "messages": 3000}
    assert quiet(rabbit(channel={"disk": "50.6 MB"}, **settings))
    assert not quiet(rabbit(channel={"disk": "55 MB", "memory": "100 MB"}, **settings))


@pytest.mark.parametrize("size", ["1024 B", {"uniform": [24, 2024]}])
def test_R38_the_log_of_a_stream_needs_disk_until_retention_drops_it(size: Any) -> None:
    def told(**channel: Any) -> Story:
        return rabbit(
            channel={"queue_type": "stream", **channel},
            producer={**FLOOD, "size": size},
            service={"service_time": 0.001, "prefetch": 100, "offset": "first"},
            messages=3000,
            drain_limit=60,
        )

    # given room for 585 messages of 1 KiB, all of which are read: the alarm goes on all the same
    full = told(disk="50.6 MB")
    assert 585 < full["unique"] == len(full.times("stored")) <= 585 + 400 + 20
    # but not if no more than 300 KiB are kept, and memory is not needed
    assert told(disk="50.6 MB", max_length_bytes="200 kB", max_segment_size_bytes="100 kB")["unique"] == 3000
    assert told(memory="1 MB")["unique"] == 3000


def test_R38_one_short_node_stops_the_publishers_of_all() -> None:
    told = rabbit(
        channel={"nodes": 2, "queue_node": 2, **MEMORY},
        producer={**FLOOD, "node": 1},
        service={"service_time": 0.005, "prefetch": 10, "node": 2},
        messages=3000,
    )
    assert quiet(told) and told["unique"] == 3000


def test_R38_a_client_that_gives_up_loses() -> None:
    told = rabbit(
        channel=MEMORY,
        producer={**FLOOD, "resend": {"timeout": 1.0, "attempts": 1}},
        service={"service_time": 0.005, "prefetch": 10},
        messages=3000,
    )
    assert told["lost"] + told["in_doubt"] > 100


@pytest.mark.parametrize("prefetch", [10, 50])
def test_R38_acks_on_a_connection_that_publishes_are_not_read_and_the_queue_stands_still(
    prefetch: int,
) -> None:
    told = rabbit(
        channel=MEMORY,
        producer=FLOOD,
        service={"service_time": 0.005, "prefetch": prefetch, "publishes_too": True},
        messages=3000,
        drain_limit=300,
    )
    blocked = told.times("stored")[-1]  # nothing comes in after that
    done = [time for time in told.times("processed") if time > blocked + 1]
    assert len(done) <= prefetch  # what was prefetched, and no more
    assert told["in_flight"] > 2000 and told["lost"] == 0
    free = rabbit(
        channel=MEMORY, producer=FLOOD, service={"service_time": 0.005, "prefetch": prefetch}, messages=3000
    )
    assert free["in_flight"] == 0


def test_R38_without_a_window_the_consumer_drains_the_queue_and_the_alarm_stays() -> None:
    told = rabbit(
        channel=MEMORY,
        producer=FLOOD,
        service={"service_time": 0.005, "publishes_too": True},
        messages=3000,
        drain_limit=300,
    )
    assert told["in_flight"] > 1000 and told["backlog_max"] < 50  # unacked messages need memory as well
