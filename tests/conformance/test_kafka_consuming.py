"""Apache Kafka, consuming: behaviours K-04 to K-07, K-36 to K-40 and K-43, with what the sheet expects in numbers."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from sim.brokers.kafka.offsets import CommittedOffsets
from tests.conformance.builders import Story
from tests.conformance.kafka import HOP, START, STEP, Driven, at, at_once, books, deliveries, kafka

FORMED = 3.0  # seconds: group.initial.rebalance.delay.ms of one member
KEYS = {"number": 64}
TWO = {"partitions": 2}
REQUEST = 50e-6  # seconds of CPU


def by_partition(told: Story) -> dict[int, list[int]]:
    """Messages of each partition."""
    scopes = books(told).scopes
    assert scopes is not None
    found: dict[int, list[int]] = {}
    for message in range(len(books(told))):
        found.setdefault(scopes[message], []).append(message)
    return found


# -- K-04 to K-07: partitions and groups ----------------------------------------------------------------------------


def test_K04_order_holds_within_a_partition_and_not_across() -> None:
    told = kafka(
        channel=TWO,
        producer={**at_once(40), "keys": {"values": ["a", "b", "c", "d"], "weights": [6, 2, 1, 1]}},
        service={"consumers": 2},
        messages=40,
    )
    started = told.order("started")
    sizes = [len(messages) for messages in by_partition(told).values()]
    assert len(sizes) == 2 and sizes[0] != sizes[1]  # so their lags differ
    assert told["out_of_order"] == 0 and told["unique"] == 40
    assert started != sorted(started)
    for messages in by_partition(told).values():
        assert [m for m in started if m in messages] == messages


def test_K05_members_beyond_the_partitions_are_idle() -> None:
    world = Driven(channel=TWO, service={"consumers": 5})
    world.run(until=10.0)
    group = world.broker.groups[0]
    assert sorted(len(client.assigned) for client in group.clients) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("consumers", [1, 2, 3])
def test_K05_throughput_is_that_of_partitions_or_members_whichever_are_fewer(consumers: int) -> None:
    told = kafka(
        channel=TWO,
        producer={**at_once(400, at=7.0), "keys": KEYS},
        service={"consumers": consumers},
        messages=400,
    )
    took = max(told.times("processed")) - min(told.times("started"))
    longest = max(len(messages) for messages in by_partition(told).values())
    alone = 400 * 0.010
    assert took == pytest.approx(alone if consumers == 1 else longest * 0.010, rel=0.02)


def test_K05_a_hot_key_caps_the_group() -> None:
    told = kafka(
        channel={"partitions": 4},
        producer={
            **at_once(300, at=16.0),
            "keys": {"values": ["hot", "b", "c", "d"], "weights": [7, 1, 1, 1]},
        },
        service={"consumers": 4},
        messages=300,
    )
    hottest = max(len(messages) for messages in by_partition(told).values())
    assert hottest > 0.6 * 300
    took = max(told.times("processed")) - min(told.times("started"))
    assert took == pytest.approx(hottest * 0.010, rel=0.05)  # 1/(s t_p) records per second


def test_K06_every_group_sees_every_record() -> None:
    told = kafka(services={"billing": {}, "shipping": {}, "audit": {"consumers": 2}})
    assert told["expected"] == 3 * told["published"] == told["unique"]
    assert [told.order("processed", name) for name in ("billing", "shipping")] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("consumers", [1, 2])
def test_K07_a_record_that_always_fails_stops_its_partition_only(consumers: int) -> None:
    told = kafka(
        channel={"partitions": 4},
        producer={"keys": KEYS},
        service={"consumers": consumers, "failures": {"poison": 0.04}},
        messages=80,
        drain_limit="30 s",
        seed=1,
    )
    done = {m for m, place in enumerate(told.places()) if place == "unique"}
    stuck = [messages for messages in by_partition(told).values() if not done.issuperset(messages)]
    assert 0 < len(stuck) < 4  # those that have a poison record
    for messages in stuck:
        behind = [m for m in messages if m not in done]
        assert behind == messages[messages.index(behind[0]) :] and len(behind) > 1  # all that lies behind it
        assert deliveries(told)[behind[0]] == 1  # it is tried again, not fetched again
        assert len(told.events("started", behind[0])) > 100
    assert told["in_flight"] == 80 - len(done) == sum(m not in done for messages in stuck for m in messages)
    assert told["duplicates"] == told["out_of_order"] == 0


def test_K07_a_record_that_fails_now_and_then_keeps_its_place() -> None:
    told = kafka(service={"failures": {"transient": 0.3}}, messages=50)
    assert told.order("processed") == list(range(50)) and told["duplicates"] == 0
    assert len(told.events("started")) > 55


def test_K07_a_handler_that_skips_loses_the_record() -> None:
    told = kafka(service={"failures": {"poison": 1.0}, "on_failure": "discard"})
    assert told["lost"] == 5 and told.causes == {("lost", "handler_failed"): 5}


# -- K-36 to K-39: when offsets are committed -----------------------------------------------------------------------


def crashed(at: float, messages: int = 100, **service: Any) -> Story:
    """A consumer that crashes then, and starts again at once."""
    return kafka(
        service=service, messages=messages, faults=[{"crash": "billing.1", "at": at, "lasting": "100 ms"}]
    )


def test_K36_auto_commit_redelivers_what_was_polled_since_the_last() -> None:
    """Polls come with the records, every STEP: the first at or after FORMED + 5 s commits, then every 5 s."""
    told = crashed(12.35, enable_auto_commit=True)
    again = told["requeued"]
    last_commit = 5.0 + 5.0
    processed = sum(time < 12.35 for time in told.times("processed"))
    since = sum(last_commit <= time < 12.35 for time in told.times("processed"))
    assert since - 2 <= told["duplicates"] <= since + 2 and again == told["duplicates"]
    assert told["lost"] == 0 and told["unique"] == 100 and processed > 60
    assert told.causes == {("duplicate", "offset_not_committed"): told["duplicates"]}


def test_K36_in_the_mean_half_an_interval_is_redelivered() -> None:
    counts = [
        crashed(10.05 + phase, enable_auto_commit=True)["duplicates"] for phase in (0.5, 1.5, 2.5, 3.5, 4.5)
    ]
    assert max(counts) <= 5.0 / STEP
    assert sum(counts) / len(counts) == pytest.approx(2.5 / STEP, abs=2)  # lambda * 2.5 s


def test_K36_an_idle_consumer_commits_as_well() -> None:
    world = Driven(service={"enable_auto_commit": True}, messages=5)
    world.run(until=20.0)
    assert world.broker.groups[0].committed(world.partition) == 5


def test_K37_handed_to_a_pool_records_are_committed_before_they_are_processed() -> None:
    told = crashed(12.35, enable_auto_commit=True, hands_off=True, service_time="200 ms")
    finished = sum(time < 12.35 for time in told.times("processed"))
    committed = sum(time < 10.0 for time in told.times("delivered"))
    assert told["lost"] == pytest.approx(committed - finished, abs=2) and told["lost"] > 10
    assert told.causes[("lost", "committed_early")] == told["lost"]
    handed = sum(time < 12.35 for time in told.times("delivered"))
    assert told["lost"] <= handed - finished


def test_K37_a_pool_that_commits_what_is_done_loses_nothing() -> None:
    told = crashed(12.35, hands_off=True, service_time="200 ms", slots=4)
    assert told["lost"] == 0 and told["unique"] == 100


BATCH = {**at_once(12, at=START)}


def batch(at: float, **service: Any) -> Story:
    """Twelve records in one batch, which a consumer polls at once; it crashes at that time."""
    return kafka(
        producer=BATCH | {"linger": "5 ms"},
        service=service,
        duration="150 s",
        faults=[{"crash": "billing.1", "at": at, "lasting": "100 ms"}],
    )


@pytest.mark.parametrize("finished", [2, 6, 11])
def test_K38_committed_first_the_rest_of_the_poll_is_lost(finished: int) -> None:
    whole = batch(100.0, settle="before")
    crash = whole.times("processed")[finished - 1] + 0.005
    told = batch(crash, settle="before")
    assert told["unique"] == finished and told["lost"] == 12 - finished
    assert told["duplicates"] == 0 and told.causes == {("lost", "committed_early"): 12 - finished}


def test_K38_the_commit_comes_one_round_trip_before_the_first() -> None:
    first, after = (batch(100.0, settle=settle).times("started")[0] for settle in ("before", "after"))
    assert first - after == pytest.approx(2 * HOP, abs=0.001)


def test_K38_a_failed_handler_is_not_asked_again() -> None:
    told = kafka(service={"settle": "before", "failures": {"poison": 1.0}})
    assert told["lost"] == 5 and told.causes == {("lost", "handler_failed"): 5}


@pytest.mark.parametrize("finished", [2, 6, 11])
def test_K39_committed_after_the_whole_part_comes_again(finished: int) -> None:
    whole = batch(100.0)
    crash = whole.times("processed")[finished - 1] + 0.005
    told = batch(crash)
    assert told["unique"] == 12 and told["lost"] == 0
    assert told["duplicates"] == finished
    assert told.causes == {("duplicate", "offset_not_committed"): finished}


def test_K39_a_commit_per_record_leaves_one_at_most_and_costs_a_round_trip_each() -> None:
    whole = batch(100.0, commit_every=1)
    times = whole.times("processed")
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps == pytest.approx([0.010 + 2 * HOP] * 11, abs=0.0005)
    for phase in (0.0003, 0.0015, 0.005):
        told = batch(times[9] + phase, commit_every=1)
        assert told["duplicates"] <= 1 and told["lost"] == 0
    assert batch(times[9] + 0.0003, commit_every=1)["duplicates"] == 1  # the commit had not arrived


def test_K39_every_so_many_records_across_polls() -> None:
    """A commit after each ten records, whatever polls they came in: what came since is redelivered."""
    told = crashed(START + STEP * 37 + 0.05, commit_every=10)
    assert told["duplicates"] == 7 and told["lost"] == 0


def test_K39_several_threads_commit_no_further_than_all_have_come() -> None:
    told = kafka(
        producer=at_once(60),
        service={"slots": 4, "commit_every": 1, "service_time": {"uniform": ["1 ms", "50 ms"]}},
        duration="60 s",
        faults=[{"crash": "billing.1", "at": START + 0.2, "lasting": "1 s"}],
    )
    assert told["lost"] == 0 and told["unique"] == 60


# -- K-40: without a valid offset -----------------------------------------------------------------------------------


def early(**service: Any) -> Story:
    """Records from 0.05 s on, long before the group has formed."""
    times = [0.05 + STEP * i for i in range(60)]
    return kafka(producer=at(*times), service=service, messages=60)


def test_K40_latest_misses_what_came_before_the_first_fetch() -> None:
    told = early(auto_offset_reset="latest")
    joined = FORMED + 0.010
    missed = math.ceil((joined - 0.05) / STEP)  # lambda * the start's delay
    assert told["lost"] == pytest.approx(missed, abs=1)
    assert told.places()[: told["lost"]] == ["lost"] * told["lost"]
    assert told.causes == {("lost", "offset_reset_latest"): told["lost"]}
    assert told["in_flight"] == 0


def test_K40_earliest_reads_all() -> None:
    told = early(auto_offset_reset="earliest")
    assert told["unique"] == 60 and told.order("processed") == list(range(60))


def test_K40_none_raises_and_nothing_is_read() -> None:
    told = early(auto_offset_reset="none", consumers=2)
    assert told["lost"] == 60 and told["delivered"] == 0
    assert told.causes == {("lost", "offset_reset_none"): 60}


def test_K40_offsets_expire_without_members(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    forget = CommittedOffsets.forget
    monkeypatch.setattr(
        CommittedOffsets, "forget", lambda self, group: (forgotten.append(group), forget(self, group))
    )

    def returning(reset: str, retention: str) -> Story:
        return kafka(
            channel={"offsets_retention": retention},
            producer=at(5.0, 5.1, 5.2, 20.0, 60.0),
            service={"auto_offset_reset": reset},
            faults=[{"stop": "billing.1", "at": "10 s", "lasting": "40 s"}],
        )

    kept = returning("earliest", "7 d")
    assert kept["unique"] == 5 and kept["duplicates"] == 0 and not forgotten
    again = returning("earliest", "20 s")
    assert forgotten == ["billing"]
    assert again.causes == {("duplicate", "offset_reset_earliest"): 3}
    missed = returning("latest", "20 s")
    assert missed.causes == {("lost", "offset_reset_latest"): 1} and missed.places()[3] == "lost"


@pytest.mark.parametrize("away", [(), (35.0,)], ids=["once", "twice"])
def test_K40_offsets_expire_so_long_after_the_last_member_has_left(away: tuple[float, ...]) -> None:
    # given offsets.retention.minutes of 20 s, and a group that has no members from 20 s to 30 s, or again from 35 s on
    world = Driven(
        channel={"offsets_retention": 20.0},
        faults=[
            {"stop": "billing.1", "at": 20.0, "lasting": "10 s"},
            *({"stop": "billing.1", "at": time, "lasting": "100 s"} for time in away),
        ],
        duration="200 s",
    )
    group = world.broker.groups[0]
    world.run(until=54.9)
    assert group.committed(world.partition) == 5  # 40 s, which is 20 s after it left first, has passed
    world.run(until=55.1)
    assert group.committed(world.partition) == (None if away else 5)


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_K40_a_log_that_was_cut_off_is_read_on_from_where_it_diverged(reset: str) -> None:
    """KIP-320: the disk of the only replica is lost; what comes at its offsets then is read, whatever the reset."""
    times = [START + STEP * i for i in range(60)]
    told = kafka(
        channel={"nodes": 3, "offsets_replication_factor": 3},
        producer=at(*times, 40.0),
        service={"auto_offset_reset": reset, "enable_auto_commit": True},
        messages=61,
        faults=[{"disk_loss": "orders.1", "at": START + 2.05, "lasting": "1 s"}],
    )
    after = [m for m in range(61) if books(told).created[m] > START + 2.05]
    assert {told.places()[m] for m in after} == {"unique"}
    assert told["duplicates"] == 0 and set(told.causes) <= {("lost", "disk_lost")}


# -- K-43: fetching -------------------------------------------------------------------------------------------------


def test_K43_an_idle_fetch_comes_back_twice_a_second() -> None:
    world = Driven(producer=at(500.0), messages=1)
    world.run(until=10.0)
    (session,) = world.broker.groups[0].clients[0].sessions.values()
    before = session.fetches
    world.run(until=110.0)
    assert session.fetches - before == pytest.approx(200, abs=1)


def test_K43_the_first_record_wakes_the_fetch() -> None:
    told = kafka()
    waited = [b - a for a, b in zip(told.times("stored"), told.times("delivered"), strict=True)]
    assert waited == pytest.approx([HOP] * 5, abs=4 * REQUEST)


@pytest.mark.parametrize(("step", "latency"), [(0.02, 0.02 * 9), (0.2, 0.5)])
def test_K43_fetch_min_bytes_waits_for_so_much_and_not_for_longer_than_the_longest_wait(
    step: float, latency: float
) -> None:
    """b/(lambda size), 500 ms at most: ten records of 1 KiB."""
    count = 100
    told = kafka(
        producer=at(*(6.0 + step * i for i in range(count))),
        service={"fetch_min_bytes": 10 * 1024, "service_time": "10 us"},
        messages=count,
    )
    waits = [b - a for a, b in zip(told.times("stored"), told.times("delivered"), strict=True)]
    assert 0.6 * latency < max(waits[:-10]) <= latency + 0.01  # the last ones wait for what does not come
    assert max(waits) <= 0.5 + 0.01


def test_K43_limits_of_a_partition_and_of_a_fetch() -> None:
    for limits, most in (
        ({"max_partition_fetch_bytes": 3 * 1024}, 3),
        ({"fetch_max_bytes": 4 * 1024}, 4),
        ({"max_partition_fetch_bytes": 100}, 1),
    ):
        told = kafka(producer=at_once(30) | {"linger": "5 ms"}, service=limits, messages=30)
        together = Counter(told.times("delivered"))
        assert max(together.values()) == most and told.order("processed") == list(range(30))


def test_K43_partitions_take_turns_under_a_limit_of_the_fetch() -> None:
    told = kafka(
        channel={"partitions": 3},
        producer={**at_once(90), "keys": KEYS, "linger": "5 ms"},
        service={"fetch_max_bytes": 5 * 1024, "service_time": "1 ms"},
        messages=90,
    )
    where = {m: partition for partition, messages in by_partition(told).items() for m in messages}
    turns = [where[m] for m in told.order("delivered")]
    assert len(set(turns[:15])) == 3  # five each, and not one partition to its end
    assert told["unique"] == 90


def test_K43_a_poll_returns_so_many_records_at_most() -> None:
    told = kafka(
        producer=at_once(50) | {"linger": "5 ms"},
        service={"max_poll_records": 7, "settle": "after"},
        duration="60 s",
        faults=[{"crash": "billing.1", "at": START + 0.305, "lasting": "100 ms"}],
    )
    assert 0 < told["duplicates"] <= 7  # what is committed poll by poll comes again from the last one only
