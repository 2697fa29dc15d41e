"""The log: K-01, K-28, K-29, K-41, K-42, and what a broker's settings say of producers, flushes and offsets.

`tests.conformance.kafka` says what happens when where nothing else is said: message i is sent at 5 + 0.1 (i + 1) s and
appended 1 ms later; records are 1 KiB.
"""

from __future__ import annotations

from typing import Any

import pytest

from sim.brokers.kafka import cluster
from sim.brokers.kafka.log import ABORT
from tests.conformance.builders import Story
from tests.conformance.kafka import HOP, RF3, Driven, at, kafka, outcomes, told_after
from tests.conformance.test_kafka_replication import ACKS_1, down, driven_world, every, world

WRITE_BACK = 30.0  # seconds
KIB = 1024
NOBODY_READS = down("billing", 4.0, 100.0)


# -- K-01 ----------------------------------------------------------------------------------------------------------


def test_K01_offsets_are_dense_and_in_the_order_of_appends() -> None:
    driven = driven_world(producer=every(0.01, 5.0, 7.0))
    driven.run(10.0)
    log = driven.partition.log()
    assert log.start == 0 and log.end == 200
    assert log.records.tolist() == driven.sent(0.0) == list(range(200))
    assert list(log.times) == sorted(log.times)


def test_K01_a_transaction_takes_one_more_offset_in_each_partition_that_it_touched() -> None:
    # given transactions of 100 ms, with two records each
    producer = {"transactional": True, "transaction_interval": 0.1, **every(0.05, 5.0, 10.0)}
    driven = driven_world(producer=producer, service={"isolation_level": "read_committed"})
    driven.run(20.0)
    log = driven.partition.log()
    markers = [copy for copy in log.records if copy <= ABORT]
    assert log.end == 100 + len(markers) and 25 <= len(markers) <= 100
    assert driven.sent(0.0) == list(range(100))


# -- K-28, K-29: what the disk has ---------------------------------------------------------------------------------


def power_loss(at_time: float, kind: str = "machine_crash", **settings: Any) -> Story:
    """One replica, ten records per second from 5 to 105 s, nobody who reads, and a crash."""
    producer = {"acks": "all", **every(0.1, 5.0, 105.0)}
    faults = [NOBODY_READS, down("orders", at_time, 5.0, kind)]
    return world({}, producer, faults=faults, **settings)


def test_K28_a_process_that_is_killed_loses_nothing() -> None:
    told = power_loss(60.0, "crash")
    assert told["lost"] == 0 and told["unique"] == 1000


@pytest.mark.parametrize("at_time", [20.0, 34.9, 36.0, 60.0, 77.7])
def test_K28_a_machine_that_loses_power_loses_what_was_not_written_back(at_time: float) -> None:
    told = power_loss(at_time)
    lost = [i for i, place in enumerate(told.places()) if place == "lost"]
    # then at most 30 s of records, the last before the crash, though each was confirmed with acks=all
    assert 0 < len(lost) <= 10 * WRITE_BACK + 1 and lost == list(range(lost[0], lost[-1] + 1))
    assert told.causes["lost", "unflushed"] == told["lost_confirmed"] == len(lost)
    # and all of what came before the last time that the log was written back is there: each 30 s, from the first on
    age = (at_time - 5.0) % WRITE_BACK
    assert len(lost) == pytest.approx(10 * age, abs=2)


def test_K28_the_operating_system_writes_back_also_after_the_process_has_died() -> None:
    faults = [NOBODY_READS, down("orders", 8.0, 50.0), down("orders", 50.0, 20.0, "machine_crash")]
    told = world({}, {"acks": "all", **at(5.1, 5.2, 5.3)}, faults=faults)
    assert told["lost"] == 0 and told["unique"] == 3


def test_K28_a_lost_disk_takes_everything() -> None:
    told = power_loss(60.0, "disk_loss")
    assert told.causes["lost", "disk_lost"] == told["lost_confirmed"] == pytest.approx(550, abs=2)


@pytest.mark.parametrize(
    "away, lost", [(("orders.1", "orders.2", "orders.3"), 5), (("orders.1", "orders.2"), 0)]
)
def test_K29_replicas_that_lose_power_at_once_are_one_copy(away: tuple[str, ...], lost: int) -> None:
    faults = [NOBODY_READS, *(down(host, 10.0, 20.0, "machine_crash") for host in away)]
    told = world(RF3, {"acks": "all"}, faults=faults)
    assert told["lost_confirmed"] == lost and told["unique"] == 5 - lost
    assert told.causes == ({("lost", "unflushed"): lost} if lost else {})


@pytest.mark.parametrize("settings", [{"flush_messages": 1}, {"flush_interval": 0.05}])
def test_flushes_that_are_asked_for_save_what_they_flush(settings: dict[str, Any]) -> None:
    # given that each of five records is flushed before, or 50 ms after, it is confirmed
    faults = [NOBODY_READS, down("orders", 5.58, 10.0, "machine_crash")]
    told = world(settings, {"acks": "1"}, faults=faults)
    assert told["lost"] == 0 and told["unique"] == 5


def test_flush_messages_costs_a_flush_for_each_batch() -> None:
    # given a disk that needs 20 ms, and records that come every 10 ms
    producer = {"acks": "1", "linger": 0.0, **every(0.01, 5.0, 5.1)}
    told = kafka({"flush_messages": 1, "fsync": "20 ms"}, producer, messages=10)
    # then a batch waits for its own flush, and those behind it in the log wait for it
    waits = told_after(told)
    assert waits[0] == pytest.approx(2 * HOP + 0.020, abs=0.001)
    assert sorted(waits) == waits and waits[-1] > 2 * waits[0]


def test_K08_what_waits_for_a_flush_dies_with_the_broker_and_with_acks_0_nobody_else_knows() -> None:
    # Record 0 is flushed from 5.101 to 5.121 s, record 1 comes at 5.111 and waits for that; the broker dies at 5.115 s.
    told = kafka(
        {"flush_messages": 1, "fsync": "20 ms"},
        producer={"acks": "0", **at(5.1, 5.11, 30.0)},
        faults=[{"machine_crash": "orders", "at": 5.115, "lasting": "1 s"}],
        messages=3,
    )
    # and the last goes into a connection that is over, of which its producer has not heard
    assert told.anomalies == {("lost", "socket_cut"): [("billing", 1), ("billing", 2)]}


def test_what_waits_for_a_flush_takes_its_work_once() -> None:
    # given batches of three producers at one instant, a flush of 20 ms each, and 15 ms of work for a request
    channel = {"flush_messages": 1, "fsync": "20 ms", "cpu_per_request": "15 ms"}
    producers = {"one": {}, "two": {}, "three": {}}
    told = world(channel, {"acks": "1", **at(5.1)}, producers=producers, messages=3, faults=[NOBODY_READS])
    # then the second is looked at when the first is on the disk, and each is there 20 ms after the one before
    assert sorted(told_after(told)) == pytest.approx([2 * HOP + 0.020 * (i + 1) for i in range(3)], abs=1e-4)


def test_flush_messages_of_several_records_flushes_when_so_many_have_come() -> None:
    driven = driven_world(channel={"flush_messages": 3})
    flushed = []
    for i in range(5):
        driven.run(5.1 + 0.1 * i + 0.05)
        flushed.append(driven.partition.log().flushed)
    assert flushed == [0, 0, 3, 3, 3]


def test_followers_flush_too() -> None:
    faults = [NOBODY_READS, *(down(f"orders.{i}", 5.58, 10.0, "machine_crash") for i in (1, 2, 3))]
    told = world({**RF3, "flush_messages": 1}, {"acks": "all"}, faults=faults)
    assert told["lost"] == 0 and told["unique"] == 5


def test_an_fsync_that_fails_saves_nothing_and_no_later_one_does() -> None:
    # given that the write-back at 35 s fails
    faults = [
        {"fsync_failure": "orders", "at": 30.0, "lasting": 10.0},
        down("orders", 90.0, 5.0, "machine_crash"),
    ]
    told = world({}, {"acks": "all", **at(5.1, 5.2, 50.0)}, faults=[NOBODY_READS, *faults])
    # then the records of before, and what comes behind them, are not on the disk at 80 s either
    assert told["lost_confirmed"] == 3 and told.causes == {("lost", "unflushed"): 3}


def test_a_failed_flush_that_was_asked_for_is_told_to_the_producer() -> None:
    fault = {"fsync_failure": "orders", "at": 5.15, "lasting": 0.2}
    told = world({"flush_messages": 1}, {"acks": "all", "retries": 0}, faults=[fault])
    assert outcomes(told) == ["confirmed", "failed", "failed", "confirmed", "confirmed"]
    assert told["unique"] == 5, "it is in the log all the same"


def test_a_full_segment_is_flushed() -> None:
    driven = driven_world(channel={"segment_bytes": 2 * KIB})
    driven.run(6.0)
    log = driven.partition.log()
    assert log.segments == [0, 2, 4] and log.flushed == 4 and log.end == 5


# -- K-41: retention -----------------------------------------------------------------------------------------------

CHECK = 10.0
SHORT: dict[str, Any] = {"log_retention_check_interval": CHECK, "segment_bytes": 10 * KIB}


def test_K41_segments_that_are_too_old_go_at_the_next_check_and_are_expired_for_who_had_not_read() -> None:
    # given a record per second and segments of ten, and a consumer that is away for a minute
    channel = {**SHORT, "retention": 20.0}
    producer = {"acks": "1", **every(1.0, 5.0, 105.0)}
    told = world(channel, producer, faults=[down("billing", 4.0, 61.0)], drain_limit=5.0)
    places = told.places()
    expired = places.index("unique")
    # then it jumps to the start of the log: what had come 20 s before the last check, by whole segments
    assert places == ["expired"] * expired + ["unique"] * (100 - expired)
    assert told.causes == {("expired", "retention"): expired}
    assert expired % 10 == 0 and 65.0 - 20.0 - CHECK - 10.0 - 5.0 <= expired <= 65.0 - 20.0 - 5.0


def test_K41_what_was_read_may_go() -> None:
    channel = {**SHORT, "retention": 20.0}
    driven = driven_world(channel=channel, producer={"acks": "1", **every(1.0, 5.0, 105.0)})
    driven.run(105.5)
    log = driven.partition.log()
    assert log.start in (70, 80) and log.end == 100 and log.segments[0] == log.start
    assert driven.sent(0.0) == list(range(100))


def test_K41_the_active_segment_goes_too_when_all_of_it_is_too_old() -> None:
    driven = driven_world(channel={"retention": 20.0, "log_retention_check_interval": CHECK})
    driven.run(29.9)
    assert driven.partition.log().start == 0
    driven.run(30.1)  # the last of them came at 5.5 s: it is 20 s old at 25.5 s
    assert driven.partition.log().start == driven.partition.log().end == 5


def test_K41_a_log_that_is_too_long_loses_its_oldest_segments() -> None:
    channel = {**SHORT, "retention": None, "retention_bytes": 25 * KIB}
    producer = {"acks": "1", **every(0.1, 5.0, 15.0)}
    told = world(channel, producer, faults=[down("billing", 4.0, 30.0)], drain_limit=5.0)
    # then as many whole segments stay as are needed for 25 records: three of ten
    assert told.places() == ["expired"] * 70 + ["unique"] * 30
    assert told.causes == {("expired", "retention"): 70}


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_K41_the_first_loss_comes_when_the_lag_is_older_than_retention(share: float) -> None:
    # given a consumer that reads `share` of what comes: its lag grows by 1 - share s per second
    rate, retention = 20.0, 20.0
    channel = {**SHORT, "segment_bytes": 20 * KIB, "retention": retention}
    until = 5.0 + 1.5 * retention / (1 - share) + 30.0
    told = kafka(
        channel,
        {"acks": "1", **every(1 / rate, 5.0, until)},
        {"service_time": 1 / (share * rate), "max_poll_records": 1, "max_partition_fetch_bytes": KIB},
        duration=until,
        drain_limit=1.0,
    )
    assert ("expired", "retention") in told.causes
    first = told.places().index("expired")
    # then after T s, when the next record is T - first / rate s old: at retention/(1 - what is read of what comes), by
    # a segment of 1 s and a check of 10 s
    seconds = told.pairs().processed_at[first - 1] - 5.0
    read = first / (rate * seconds)
    assert (retention - 1.5) / (1 - read) <= seconds <= (retention + CHECK + 1.5) / (1 - read)
    assert read == pytest.approx(share, rel=0.1)


def test_K41_a_follower_deletes_by_itself_and_a_new_leader_starts_where_the_old_one_did() -> None:
    channel = {**RF3, **SHORT, "retention": 20.0}
    producer = {"acks": "all", **every(1.0, 5.0, 65.0)}
    driven = driven_world(channel=channel, producer=producer, faults=[down("orders.1", 61.0, 300.0)])
    driven.run(60.9)
    assert len({broker.logs[driven.partition].start for broker in driven.cluster.brokers}) == 1
    driven.run(90.0)
    leader = driven.partition.leader
    assert leader is not driven.cluster.brokers[0] and leader.logs[driven.partition].start >= 40


def test_K41_a_replica_that_was_away_starts_where_the_leader_does() -> None:
    channel = {**RF3, **SHORT, "retention": 20.0}
    producer = {"acks": "all", **every(1.0, 5.0, 125.0)}
    driven = driven_world(channel=channel, producer=producer, faults=[down("orders.3", 20.0, 80.0)])
    driven.run(130.0)
    logs = [broker.logs[driven.partition] for broker in driven.cluster.brokers]
    assert logs[0].start == logs[2].start > 20 and logs[0].records == logs[2].records
    assert driven.cluster.brokers[2] in driven.partition.isr


def test_K41_the_backlog_is_what_is_left() -> None:
    channel = {**SHORT, "retention": None, "retention_bytes": 25 * KIB}
    producer = {"acks": "1", **every(0.1, 5.0, 15.0)}
    told = world(channel, producer, faults=[down("billing", 4.0, 30.0)], drain_limit=5.0)
    steps = told.pairs().queue_steps
    assert sum(1 for _, step in steps if step < 0) >= 70, "what was deleted unread has left the backlog"


def test_retention_does_not_keep_a_run_going() -> None:
    ended_at = [kafka({"retention": age}).run.ended_at for age in (None, 1000.0)]
    assert ended_at[0] == ended_at[1]


# -- K-42: compaction ----------------------------------------------------------------------------------------------

COMPACT: dict[str, Any] = {"cleanup_policy": "compact", "segment_bytes": 10 * KIB}


def keyed(keys: int, count: int = 100) -> dict[str, Any]:
    """Settings of a producer: keys by chance."""
    return {"acks": "1", "keys": {"number": keys}, **every(0.1, 5.0, 5.0 + 0.1 * count)}


@pytest.mark.parametrize("keys", [1, 3, 20])
def test_K42_of_the_clean_part_the_last_record_of_each_key_is_left(keys: int) -> None:
    driven = driven_world(channel=COMPACT, producer=keyed(keys), service={"service_time": 0.0})
    written = driven.broker.messages
    driven.run(40.0)
    log = driven.partition.log()
    left = [copy for copy in log.records[: log.cleaned] if copy > ABORT]
    names = [written.key_of(copy) for copy in left]
    # then there are as many survivors as distinct keys, in the order that they had
    assert log.cleaned >= 40 and len(names) == len(set(names)) == len(
        {written.key_of(i) for i in range(log.cleaned)}
    )
    assert left == sorted(left)
    for i in range(log.cleaned):
        later = [j for j in range(i + 1, log.cleaned) if written.key_of(j) == written.key_of(i)]
        assert (i in left) == (not later)
    # and the active segment is as it was; who was there read everything
    assert log.records[log.segments[-1] :].tolist() == list(range(log.segments[-1], 100))
    assert driven.sent(0.0) == list(range(100))


def test_K42_who_comes_late_sees_the_last_value_of_each_key_and_not_every_update() -> None:
    told = world(COMPACT, keyed(3), faults=[down("billing", 4.0, 36.0)])
    gone = told.causes["expired", "compacted"]
    assert told["expired"] == gone >= 37 and told["unique"] == 100 - gone and told["lost"] == 0
    processed = told.order("processed")
    assert processed == sorted(processed)
    messages = told.run.ledger.channels["orders"]
    assert {messages.key_of(i) for i in processed} == {messages.key_of(i) for i in range(100)}


def test_K42_a_log_is_cleaned_when_enough_of_it_is_dirty() -> None:
    # given keys that do not repeat: nothing can go, so that each segment adds to what is clean
    ratios = {}
    for ratio in (0.1, 0.9):
        producer = {"acks": "1", "keys": {"number": 10_000}, **every(0.1, 5.0, 45.0)}
        driven = driven_world(channel={**COMPACT, "min_cleanable_dirty_ratio": ratio}, producer=producer)
        driven.run(60.0)
        ratios[ratio] = driven.partition.log().cleaned
    # then at 0.9 the log is cleaned once: when all of it is dirty
    assert ratios[0.1] > ratios[0.9] > 0
    assert ratios[0.9] <= 100


def test_K42_replicas_compact_each_for_itself_and_agree_on_what_is_left() -> None:
    driven = driven_world(channel={**RF3, **COMPACT}, producer=keyed(3))
    driven.run(60.0)
    logs = [broker.logs[driven.partition] for broker in driven.cluster.brokers]
    assert logs[0].cleaned > 0 and logs[0].records == logs[1].records == logs[2].records


# -- producers, offsets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expiration, copies", [(86_400.0, 1), (1.0, 2)])
def test_a_producer_that_was_idle_for_too_long_is_not_known_any_more(expiration: float, copies: int) -> None:
    # given an idempotent producer whose first answer is lost, and that tries again after 2 s
    fault = {"partition": "orders -> shop", "at": 5.05, "lasting": 5.0}
    producer = {"acks": "all", "request_timeout": 2.0, "delivery_timeout": 20.0, **at(5.1)}
    told = world({"producer_id_expiration": expiration}, producer, faults=[fault])
    # then the log remembers the batch, or it is there twice
    assert told["unique"] == 1 and told["duplicates"] == copies - 1
    assert told.causes == ({("duplicate", "retried_after_append"): 1} if copies == 2 else {})


@pytest.mark.parametrize("retention, duplicates", [(60.0, 5), (6000.0, 0)])
def test_K40_offsets_of_a_group_without_members_expire(retention: float, duplicates: int) -> None:
    # given a group that is away from 100 s on; the coordinator looks at 600 s
    fault = down("billing", 100.0, 600.0)
    told = world({"offsets_retention": retention}, {"acks": "1"}, faults=[fault], duration=900.0)
    assert told["unique"] == 5 and told["duplicates"] == duplicates


def test_internal_topics_stay_short() -> None:
    # given 6000 commits
    driven = Driven(
        channel=RF3,
        producer={"acks": "1", **every(0.02, 5.0, 125.0)},
        service={"service_time": 0.0, "commit_every": 1},
        duration=200.0,
    )
    driven.run(190.0)
    topic, offsets = driven.cluster.offsets, driven.cluster.committed
    logs = [broker.logs[topic.partition] for broker in driven.cluster.brokers]
    assert logs[0].end > 5000 and all(len(log.records) < 4000 for log in logs)
    assert len(offsets._records) <= len(logs[0].records)
    # and a new coordinator knows what was committed
    before = offsets.agreed("billing", driven.partition)
    offsets.read(driven.cluster.brokers[1])
    assert offsets.agreed("billing", driven.partition) == before == 6000


def test_what_was_compacted_away_counts_until_all_disks_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    # given offsets of a group that commits no more, and that are compacted away behind those of another
    monkeypatch.setattr(cluster, "COMPACTS_AT", 20)
    driven = driven_world(
        channel={**RF3, "write_back": 1.0},
        producer={**ACKS_1, **every(0.1, 5.0, 25.0)},
        service={"commit_every": 1},
        faults=[down(f"orders.{i}", 60.0, 5.0, "disk_loss") for i in (1, 2, 3)],
    )
    driven.run(4.0)
    topic, offsets, answers = driven.cluster.offsets, driven.cluster.committed, []
    offsets.commit("others", {driven.partition: (3, 0)}, answers.append)
    driven.run(50.0)
    assert answers == ["NONE"] and all(b.logs[topic.partition].start > 100 for b in driven.cluster.brokers)
    # then another coordinator knows it, too
    offsets.read(driven.cluster.brokers[1])
    assert offsets.at("others", driven.partition) == (3, 0)
    # and nobody does when no disk is left
    driven.run(100.0)
    assert topic.coordinator is not None
    assert offsets.at("others", driven.partition) is None
