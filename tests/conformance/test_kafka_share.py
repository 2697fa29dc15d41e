"""Apache Kafka, share groups: behaviour K-50 of the sheet (KIP-932), with what it expects of it in numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sim.brokers.kafka.share import Snapshot, Written
from sim.scenario import ScenarioError
from tests.conformance.builders import Story
from tests.conformance.kafka import HOP, RF3, START, STEP, Driven, at, at_once, books, deliveries, kafka

LOCK, LIMIT = 30.0, 5
ROUND_TRIP = 2 * HOP + 0.001


def share(**settings: Any) -> Story:
    """A world whose services are share groups."""
    service = {"group_protocol": "share", **settings.pop("service", {})}
    return kafka(service=service, **settings)


def bulk(count: int, time: float = START) -> dict[str, Any]:
    """So many records in one batch."""
    return at_once(count, at=time) | {"linger": "5 ms", "batch_size": 1_000_000}


def share_partition(world: Driven) -> Any:
    """What the leader knows."""
    return world.broker.groups[0].partitions[world.partition]


def test_K50_records_are_delivered_and_accepted_once_each() -> None:
    told = share(channel={"partitions": 3}, service={"consumers": 2}, messages=100)
    assert told["unique"] == 100 == told["delivered"] and told.causes.keys() <= {("reordered", "overtaken")}


def test_K50_members_may_exceed_partitions() -> None:
    """C > P scales: here four members of one partition, each with a part of the records."""

    def took(consumers: int) -> float:
        told = share(
            producer=bulk(400, time=12.0),
            service={"consumers": consumers, "max_poll_records": 10},
            messages=400,
        )
        assert told["unique"] == 400 and told["duplicates"] == 0
        return max(told.times("processed")) - min(told.times("started"))

    alone = took(1)
    assert alone == pytest.approx(400 * 0.010 + 40 * ROUND_TRIP, rel=0.05)
    for consumers in (2, 4):
        assert took(consumers) == pytest.approx(alone / consumers, rel=0.1)


def test_K50_order_is_not_kept() -> None:
    told = share(
        producer=bulk(100),
        service={"consumers": 3, "max_poll_records": 5, "failures": {"transient": 0.1}},
        messages=100,
    )
    assert told["out_of_order"] > 0 and told["unique"] + told["dead_lettered"] == 100


@pytest.mark.parametrize("kind", ["crash", "machine_crash"])
def test_K50_after_a_crash_the_lock_decides_when_another_gets_the_record(kind: str) -> None:
    told = share(
        service={"consumers": 2, "service_time": "2 s"},
        producer=at(START),
        duration="100 s",
        faults=[
            {kind: "billing.1", "at": START + 1.0, "lasting": "80 s"},
            {kind: "billing.2", "at": START + 1.0, "lasting": "5 s"},
        ],
    )
    first, second = told.times("sent", 0)
    assert second - first == pytest.approx(LOCK, abs=0.001)
    assert told["unique"] == 1 and told["duplicates"] == 0  # it was not finished


def test_K50_without_the_lock_that_long_it_comes_sooner() -> None:
    told = share(
        service={"service_time": "2 s", "share_record_lock_duration": "7 s"},
        producer=at(START),
        duration="100 s",
        faults=[{"crash": "billing.1", "at": START + 1.0, "lasting": "1 s"}],
    )
    first, second = told.times("sent", 0)
    assert second - first == pytest.approx(7.0, abs=0.001)


def test_K50_processed_and_not_acknowledged_is_processed_again() -> None:
    """Answers leave with the next poll: what was processed before the crash is a duplicate."""
    told = share(
        producer=bulk(10),
        duration="100 s",
        faults=[{"crash": "billing.1", "at": START + 0.065, "lasting": "1 s"}],
    )
    finished = sum(t < START + 0.065 for t in told.times("processed"))
    assert finished >= 4
    assert told.causes[("duplicate", "acquisition_lock_expired")] == finished == told["duplicates"]
    sooner = share(
        producer=bulk(10),
        service={"commit_every": 1},
        duration="100 s",
        faults=[{"crash": "billing.1", "at": START + 0.065, "lasting": "1 s"}],
    )
    assert sooner["duplicates"] <= 1


@pytest.mark.parametrize("limit", [5, 2])
def test_K50_delivered_five_times_and_archived(limit: int) -> None:
    told = share(
        service={"failures": {"poison": 1.0}, "share_delivery_count_limit": limit},
        producer=at(START),
        messages=1,
    )
    assert deliveries(told) == [limit]
    assert told["dead_lettered"] == 1 and told.causes == {("dead_lettered", "archived"): 1}


def test_K50_locks_that_run_out_count_as_deliveries_too() -> None:
    told = share(
        producer=at(START),
        service={"service_time": "8 s", "share_record_lock_duration": "5 s", "consumers": 6},
        messages=1,
    )
    assert deliveries(told) == [LIMIT]
    assert told["unique"] == 1 and told["duplicates"] == LIMIT - 1
    assert told.causes[("duplicate", "acquisition_lock_expired")] == LIMIT - 1


def test_K50_the_next_leader_knows_how_often_a_record_was_delivered() -> None:
    # given a record whose handler fails after a second each time, and a leader that is stopped amid the third
    told = share(
        channel={**RF3, "offsets_replication_factor": 3},
        producer=at(START),
        service={"service_time": "1 s", "failures": {"poison": 1.0}},
        duration="100 s",
        faults=[{"stop": "orders.1", "at": START + 2.5, "lasting": "80 s"}],
    )
    # then that delivery, which is in the leader's memory alone, is the only one that does not count
    assert deliveries(told) == [LIMIT + 1]
    assert told["dead_lettered"] == 1


def test_K50_an_accepted_record_has_no_lock() -> None:
    # given that the second record is accepted behind the first, whose lock runs out and who is worked on again
    told = share(
        service={
            "consumers": 2,
            "service_time": "2 s",
            "share_record_lock_duration": "5 s",
            "max_poll_records": 1,
        },
        producer=at(START, START + STEP),
        duration="100 s",
        faults=[{"crash": "billing.1", "at": START + 1.0, "lasting": "80 s"}],
    )
    # then the second does not come again when its lock would have run out
    assert deliveries(told) == [2, 1] and told["unique"] == 2


def test_K50_rejected_is_archived_at_once() -> None:
    told = share(
        service={"failures": {"poison": 1.0}, "on_failure": "discard"}, producer=at(START), messages=1
    )
    assert deliveries(told) == [1] and told.causes == {("dead_lettered", "archived"): 1}


def test_K50_the_start_offset_goes_past_archived_records() -> None:
    # given three times as many records as may be in flight, all of them rejected
    told = share(
        service={
            "failures": {"poison": 1.0},
            "on_failure": "discard",
            "share_partition_max_record_locks": 10,
        },
        producer=bulk(30),
        messages=30,
    )
    assert told["dead_lettered"] == 30 and deliveries(told) == [1] * 30


def test_K50_a_failed_record_holds_nobody_up() -> None:
    told = share(service={"failures": {"poison": 0.1}, "max_poll_records": 1}, messages=60)
    parked = [m for m, place in enumerate(told.places()) if place == "dead_lettered"]
    assert 0 < len(parked) < 20 and told["unique"] == 60 - len(parked)
    assert {deliveries(told)[m] for m in parked} == {LIMIT}
    waits = told.facts["billing"].processed - told.facts["billing"].created
    assert max(w for m, w in enumerate(waits) if m not in parked) < 1.0


def long_poll(**service: Any) -> Story:
    """500 records at 0.1 s take 50 s."""
    return share(
        producer=bulk(500),
        service={"service_time": "100 ms", "consumers": 2, **service},
        messages=500,
        drain_limit="600 s",
    )


def test_K50_a_poll_longer_than_the_lock_is_processed_as_often_as_it_may_be() -> None:
    """Its answers leave when it is over: all locks have run out by then, and so for the next."""
    told = long_poll()
    assert told["unique"] == 500
    assert told["duplicates"] == pytest.approx((LIMIT - 1) * 500, rel=0.01)
    assert told.causes[("duplicate", "acquisition_lock_expired")] == told["duplicates"]


def test_K50_answered_one_by_one_only_what_comes_after_the_lock_is_done_twice() -> None:
    told = long_poll(commit_every=1)
    assert told["unique"] == 500 and told["duplicates"] == pytest.approx(500 - LOCK / 0.1, abs=5)
    assert long_poll(max_poll_records=100)["duplicates"] == 0


def test_K50_so_many_records_of_a_partition_are_in_flight_at_most() -> None:
    world = Driven(
        producer=bulk(200, time=12.0),
        service={
            "group_protocol": "share",
            "consumers": 4,
            "service_time": "10 s",
            "share_partition_max_record_locks": 60,
        },
        messages=200,
    )
    world.run(until=13.0)
    found = share_partition(world)
    assert found.end - found.start == 60 == len(world.sent(since=0.0))


def test_K50_a_new_group_begins_at_the_end_or_at_the_start() -> None:
    def early(reset: str) -> Story:
        return share(producer=at(0.0, 0.0001, 0.0002, 2.0, 3.0), service={"auto_offset_reset": reset})

    assert early("earliest")["unique"] == 5
    missed = early("latest")
    assert missed.causes == {("lost", "offset_reset_latest"): missed["lost"]} and missed["unique"] >= 2


def test_K50_what_a_disk_takes_is_lost_where_retention_has_moved_the_log() -> None:
    """Offsets of what is gone begin where the log did: below the start offset lie others."""
    told = kafka(
        channel={"retention": 3.0, "segment_time": 0.5, "log_retention_check_interval": 0.5},
        service={"group_protocol": "share", "service_time": 0.12, "max_poll_records": 20},
        faults=[
            {"crash": "billing.1", "at": 11.0, "lasting": 5.0},
            {"disk_loss": "orders", "at": 11.5, "lasting": 1.0},
        ],
        messages=65,
    )
    done = told["unique"]  # one after the other since 5.1 s
    assert done == pytest.approx((11.0 - 5.1) / 0.12, abs=1)
    assert told.causes == {("lost", "disk_lost"): 65 - done}


def test_K50_what_was_accepted_survives_the_leader_and_what_was_locked_does_not() -> None:
    told = share(
        channel={**RF3, "offsets_replication_factor": 3},
        producer=bulk(100) | {"acks": "all"},
        service={"max_poll_records": 10, "service_time": "50 ms"},
        duration="100 s",
        faults=[{"crash": "orders.1", "at": START + 2.27, "lasting": "50 s"}],
    )
    assert told["unique"] == 100 and told["lost"] == 0
    processed = sum(t < START + 2.27 for t in told.times("processed"))
    again = told["duplicates"]
    assert processed > 30 and again <= 10  # those of one poll, not those that were accepted before
    assert told.causes.get(("duplicate", "share_leader_moved"), 0) == again


def test_K50_a_member_that_closes_releases_what_it_has_not_looked_at() -> None:
    told = share(
        channel={"partitions": 2},
        producer=bulk(40) | {"keys": {"number": 64}},
        service={"consumers": 2, "max_poll_records": 5, "service_time": "100 ms"},
        duration="100 s",
        faults=[{"stop": "billing.1", "at": START + 0.73, "lasting": "90 s"}],
    )
    assert told["unique"] == 40 and told["duplicates"] == 0
    assert max(told.times("processed")) < START + 6.0  # nobody waited for a lock
    assert len(books(told)) == 40


def test_K50_what_a_closing_member_has_fetched_beside_its_poll_is_released_and_not_accepted() -> None:
    # given two brokers, of which each answers with five records: a poll takes five
    told = share(
        channel={"nodes": 2, "partitions": 2},
        producer=bulk(40) | {"keys": {"number": 64}},
        service={"max_poll_records": 5, "service_time": "100 ms"},
        duration="100 s",
        faults=[{"stop": "billing.1", "at": START + 0.23, "lasting": "5 s"}],
    )
    # then the next process works on all that this one has not begun, before any lock would run out
    assert told["unique"] == 40 and told["lost"] == told["duplicates"] == 0
    assert max(told.times("processed")) < START + 5.23 + 40 * 0.1 + 0.5


def test_K50_settled_before_nothing_begins_until_that_is_written() -> None:
    told = share(service={"settle": "before"})
    waits = [told.times("started", i)[0] - told.times("delivered", i)[0] for i in range(5)]
    assert waits == pytest.approx([2 * HOP] * 5, abs=0.001)


def test_K50_partitions_take_turns() -> None:
    told = share(
        channel={"partitions": 2},
        producer=bulk(40) | {"keys": {"values": ["c", "d"]}},  # murmur2: of partition 0, and of 1
        service={"max_poll_records": 1},
        messages=40,
    )
    turns = [books(told).key_of(message) for message in told.order("delivered")]
    assert len(set(turns)) == 2
    assert all(turns[i] != turns[i + 1] for i in range(1, 30))  # at first there is a batch of one alone


def test_K50_a_fetch_takes_so_many_of_all_partitions_together() -> None:
    told = share(
        channel={"partitions": 3},
        producer=bulk(50) | {"keys": {"number": 64}},
        service={"max_poll_records": 11},
        messages=50,
    )
    assert max(Counter(told.times("delivered")).values()) == 11


def test_K50_what_a_replaced_leader_writes_does_not_count() -> None:
    key: Any = ("billing", None)
    snapshot = Snapshot()
    assert snapshot.apply(Written(key, 1, 0, {0: ("Acknowledged", 1)}))
    assert snapshot.apply(Written(key, 2, 0, {1: ("Available", 1)}))
    assert not snapshot.apply(Written(key, 1, 2, {1: ("Archived", 5)}))
    assert snapshot.start == 0 and snapshot.states == {0: ("Acknowledged", 1), 1: ("Available", 1)}


def test_K50_a_consumer_follows_a_leader_that_goes_on_as_a_follower() -> None:
    # given a preferred leader that was away, and gets leadership back at 60 s from a broker that is well
    told = share(
        channel={**RF3, "leader_imbalance_check_interval": 30.0},
        producer=at(70.0),
        duration="100 s",
        faults=[{"crash": "orders.1", "at": 20.0, "lasting": "20 s"}],
    )
    assert told["unique"] == 1
    assert told.times("delivered", 0)[0] < 70.0 + 10 * HOP


def test_K50_settled_before_a_crash_loses_the_poll() -> None:
    told = share(
        producer=bulk(10),
        service={"settle": "before"},
        duration="100 s",
        faults=[{"crash": "billing.1", "at": START + 0.065, "lasting": "1 s"}],
    )
    assert told["duplicates"] == 0 and told["lost"] == 10 - told["unique"] > 0
    assert told.causes == {("lost", "committed_early"): told["lost"]}


def test_K50_read_committed_leaves_out_what_was_aborted() -> None:
    told = share(
        channel={"nodes": 3, "replication_factor": 3},
        producer={"transactional": True, "transaction_interval": "1 s"},
        service={"isolation_level": "read_committed"},
        messages=40,
        faults=[{"crash": "shop", "at": START + 2.45, "lasting": "1 s"}],
    )
    assert told["aborted"] > 0 and told["phantom"] == 0
    assert told["in_flight"] == 0


def test_K50_a_share_group_has_no_offsets_to_speak_of() -> None:
    for setting in ({"auto_offset_reset": "none"}, {"transactional": True}, {"hands_off": True}):
        with pytest.raises(ScenarioError, match="share group"):
            share(service=setting)


def test_K50_what_was_compacted_away_while_a_member_had_it_does_not_come_again() -> None:
    # given a member that works for a minute on each record of one key, and a leader that dies meanwhile
    told = kafka(
        channel={**RF3, "cleanup_policy": "compact", "segment_bytes": 1024},
        producer={"keys": {"values": ["a"]}},
        service={"group_protocol": "share", "service_time": 60.0, "share_record_lock_duration": 100.0},
        faults=[{"crash": "orders.leader", "at": 30.0, "lasting": 20.0}],
        duration=400.0,
    )
    assert told["in_flight"] == 0
    assert told.pairs().processings[0] == 1


def test_K41_retention_may_pass_what_the_group_has_come_to() -> None:
    """Two of the first records are taken; the consumer is away until all are gone, and goes on with the last."""
    told = share(
        channel={"retention": 10.0, "segment_bytes": 1024, "log_retention_check_interval": 5.0},
        producer=at(*(6.0 + 0.1 * i for i in range(10)), 40.0),
        service={"isolation_level": "read_committed", "auto_offset_reset": "earliest", "max_poll_records": 1},
        faults=[{"crash": "billing", "at": 6.15, "lasting": "28 s"}],
        messages=11,
    )
    assert told.places() == ["unique"] * 2 + ["expired"] * 8 + ["unique"]
    assert set(told.causes) == {("expired", "retention")}
