"""A log by itself: truncation, agreement, what it knows of producers and transactions, pieces for followers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.brokers.kafka.cleaner import cleanable, compact, deletable
from sim.brokers.kafka.log import ABORT, COMMIT, FENCED, HOLE, OK, OUT_OF_ORDER, Batch, Log, LogConfig


def batch(*copies: int, sequence: int = -1, epoch: int = 0, is_transactional: bool = False) -> Batch:
    """A batch of producer 7, or of none, with 10 bytes for each record."""
    producer = 7 if sequence >= 0 else -1
    return Batch(list(copies), 10 * len(copies), producer, epoch, sequence, is_transactional)


DEFAULT = LogConfig()


def filled(*epochs: int, config: LogConfig = DEFAULT) -> Log:
    """A log with one record for each leader epoch that is named; record i is i, and appended at i s."""
    log = Log(config)
    for i, epoch in enumerate(epochs):
        log.append(batch(i), epoch, float(i))
    return log


def test_the_memory_of_a_record_is_24_bytes() -> None:
    log = filled(*[0] * 100)
    columns = (log.records, log.bytes, log.times, log.owners)
    assert sum(column.itemsize * len(column) for column in columns) == 24 * 100


# -- epochs --------------------------------------------------------------------------------------------------------


def test_a_follower_that_has_less_agrees() -> None:
    leader = filled(0, 0, 1, 1)
    assert leader.diverges(3, 1) is None and leader.diverges(2, 0) is None and leader.diverges(0, -1) is None
    assert leader.agreement(filled(0, 0, 1)) == 3 and leader.agreement(Log()) == 0


def test_records_of_an_epoch_that_the_leader_does_not_know_are_cut_off() -> None:
    leader, follower = filled(0, 0, 2, 2), filled(0, 0, 1, 1, 1)
    assert leader.diverges(5, 1) == (0, 2) and leader.agreement(follower) == 2


def test_several_divergences_are_found_one_by_one() -> None:
    # given logs that share epoch 1 only, up to offset 5, with later epochs on both sides
    leader, follower = filled(1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4), filled(1, 1, 1, 1, 1, 3, 3, 3, 3, 3)
    assert leader.agreement(follower) == 5 == follower.agreement(leader)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_replicas_agree_on_what_they_share(data: st.DataObject) -> None:
    # given a common history, and what two leaders appended after it, each in epochs of its own
    common = sorted(data.draw(st.lists(st.integers(0, 3), max_size=6)))
    mine = [4 + 2 * e for e in sorted(data.draw(st.lists(st.integers(0, 3), max_size=6)))]
    others = [5 + 2 * e for e in sorted(data.draw(st.lists(st.integers(0, 3), max_size=6)))]
    leader, follower = filled(*common, *mine), filled(*common, *others)
    assert leader.agreement(follower) == len(common)
    # when the follower cuts off the rest, and takes over what it lacks
    gone = follower.truncate(leader.agreement(follower))
    assert len(gone) == len(others)
    if follower.end < leader.end:
        follower.extend(leader.copy_of(follower.end, leader.end))
    # then it is the same log
    assert follower.records == leader.records and follower.epochs == leader.epochs


def test_agreed_end_of_a_consumer() -> None:
    assert filled(0, 0, 2).agreed_end(3, 0) == 2
    assert filled(0, 0, 2).agreed_end(2, 0) == 2
    assert filled(0, 0, 2).agreed_end(3, -1) == 3


# -- producers -----------------------------------------------------------------------------------------------------


def test_a_repeated_batch_is_known_and_a_gap_is_refused() -> None:
    log = Log()
    for i in range(7):
        log.append(batch(i, sequence=i), 0, 0.0)
    assert log.check(batch(7, sequence=7), 0.0) == (OK, None)
    assert [log.check(batch(i, sequence=i), 0.0) for i in range(2, 7)] == [(OK, i) for i in range(2, 7)]
    assert log.check(batch(1, sequence=1), 0.0) == (OUT_OF_ORDER, None), "five batches are remembered"
    assert log.check(batch(8, sequence=8), 0.0) == (OUT_OF_ORDER, None)


def test_an_epoch_begins_with_sequence_0_and_fences_those_before() -> None:
    log = Log()
    log.append(batch(0, sequence=0, epoch=1), 0, 0.0)
    assert log.check(batch(1, sequence=1, epoch=0), 0.0) == (FENCED, None)
    assert log.check(batch(1, sequence=0, epoch=2), 0.0) == (OK, None)
    assert log.check(batch(1, sequence=1, epoch=2), 0.0) == (OUT_OF_ORDER, None)


def test_what_was_cut_off_may_be_appended_again() -> None:
    log = Log()
    for i in range(4):
        log.append(batch(i, sequence=i), 0, 0.0)
    assert log.truncate(2) == [2, 3]
    assert log.check(batch(2, sequence=2), 0.0) == (OK, None)
    assert log.check(batch(3, sequence=3), 0.0) == (OUT_OF_ORDER, None)
    assert log.truncate(2) == [] == log.truncate(10)


def test_a_producer_is_forgotten_unless_its_transaction_is_open() -> None:
    config = LogConfig(producer_id_expiration=10.0)
    for is_transactional in (False, True):
        log = Log(config)
        log.append(batch(0, sequence=0, is_transactional=is_transactional), 0, 0.0)
        known = (OK, 0) if is_transactional else (OK, None)
        assert log.check(batch(0, sequence=0), 10.0) == (OK, 0)
        assert log.check(batch(0, sequence=0), 10.1) == known


# -- transactions --------------------------------------------------------------------------------------------------


def transaction(log: Log, first: int, outcome: int) -> None:
    """Two records of producer 7 with one of somebody else between them, and the marker at their end."""
    sequence = 2 * (first // 10)
    log.append(batch(first, sequence=sequence, is_transactional=True), 0, 0.0)
    log.append(batch(first + 1), 0, 0.0)
    log.append(batch(first + 2, sequence=sequence + 1, is_transactional=True), 0, 0.0)
    log.append(Batch([outcome], 78, 7, 0, control=outcome), 0, 0.0)


def test_an_open_transaction_holds_the_last_stable_offset_and_an_abort_leaves_holes() -> None:
    log = Log()
    transaction(log, 0, COMMIT)
    transaction(log, 10, ABORT)
    log.append(batch(20, sequence=4, is_transactional=True), 0, 0.0)
    assert log.last_stable(log.end) == 8
    records = log.read(0, log.end)
    assert records == [0, 1, 2, COMMIT, 10, 11, 12, ABORT, 20]
    assert log.without_aborted(0, records) == [0, 1, 2, COMMIT, HOLE, 11, HOLE, ABORT, 20]


@pytest.mark.parametrize("end", range(9))
def test_a_transaction_whose_marker_is_cut_off_is_open_again(end: int) -> None:
    log = Log()
    transaction(log, 0, COMMIT)
    transaction(log, 10, ABORT)
    log.truncate(end)
    fresh = [HOLE if 4 <= i < 7 and i != 5 and end == 8 else copy for i, copy in enumerate(log.records)]
    assert log.without_aborted(0, log.read(0, end)) == fresh
    first = 0 if 0 < end < 4 else 4 if 4 < end < 8 else None  # markers are at 3 and at 7
    assert log.ongoing == ({} if first is None else {7: first})
    assert log.last_stable(end) == (end if first is None else first)


@settings(max_examples=200, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from([ABORT, COMMIT]), max_size=5),
    cuts=st.lists(st.integers(1, 20), max_size=5),
)
def test_a_follower_that_fetches_piece_by_piece_knows_what_the_leader_knows(
    outcomes: list[int], cuts: list[int]
) -> None:
    leader, follower = Log(), Log()
    for i, outcome in enumerate(outcomes):
        transaction(leader, 10 * i, outcome)
        if i < len(cuts) and follower.end < leader.end:
            follower.extend(leader.copy_of(follower.end, leader.end))
    if follower.end < leader.end:
        follower.extend(leader.copy_of(follower.end, leader.end))
    assert follower.records == leader.records and follower.bytes == leader.bytes
    assert follower.ends == leader.ends and follower.ongoing == leader.ongoing
    assert follower.without_aborted(0, follower.read(0, follower.end)) == leader.without_aborted(
        0, leader.read(0, leader.end)
    )
    assert {n: list(s.batches) for n, s in follower.producers.items()} == {
        n: list(s.batches) for n, s in leader.producers.items()
    }


def test_a_piece_that_ends_early_does_not_know_later_batches() -> None:
    leader, follower = Log(), Log()
    for i in range(4):
        leader.append(batch(i, sequence=i), 0, 0.0)
    assert leader.end_within(0, 25) == 2 and leader.end_within(0, 5) == 1 and leader.end_within(1, 100) == 4
    follower.extend(leader.copy_of(0, 2))
    assert follower.check(batch(2, sequence=2), 0.0) == (OK, None)


@pytest.mark.parametrize("end", range(1, 9))
def test_a_piece_that_ends_early_leaves_open_what_ends_later(end: int) -> None:
    leader, follower = Log(), Log()
    transaction(leader, 0, COMMIT)
    transaction(leader, 10, ABORT)
    follower.extend(leader.copy_of(0, end))
    leader.truncate(end)
    assert (follower.ongoing, follower.ends) == (leader.ongoing, leader.ends)


def test_what_retention_deletes_takes_the_ends_of_transactions_with_it() -> None:
    log = Log()
    transaction(log, 0, ABORT)
    transaction(log, 10, ABORT)
    log.drop_before(5)
    assert [end.marker for end in log.ends] == [7]
    assert log.without_aborted(5, log.read(5, 8)) == [11, HOLE, ABORT]


# -- segments, retention, compaction -------------------------------------------------------------------------------


def test_segments_end_by_size_or_by_time() -> None:
    assert filled(*[0] * 7, config=LogConfig(segment_bytes=30)).segments == [0, 3, 6]
    assert filled(*[0] * 7, config=LogConfig(segment_time=2.5)).segments == [0, 3, 6]


def test_a_follower_has_the_segments_of_its_leader() -> None:
    leader, follower = filled(*[0] * 8, config=LogConfig(segment_bytes=30)), Log(LogConfig(segment_bytes=30))
    for end in (1, 3, 4, 8):
        follower.extend(leader.copy_of(follower.end, end))
    assert follower.segments == leader.segments == [0, 3, 6]
    follower.resume()
    for log in (leader, follower):
        log.append(batch(8), 0, 8.0)
        log.append(batch(9), 0, 9.0)
    assert follower.segments == leader.segments == [0, 3, 6, 9]


def test_retention_takes_whole_segments_below_the_high_watermark() -> None:
    log = filled(*[0] * 9, config=LogConfig(segment_bytes=30, retention=10.0))
    assert deletable(log, 12.0, 9) == 0  # the newest of the first segment is exactly 10 s old
    assert deletable(log, 12.5, 9) == 3 and deletable(log, 15.5, 9) == 6 and deletable(log, 15.5, 5) == 3
    assert deletable(log, 100.0, 9) == 9, "the active segment, too"
    assert log.drop_before(6) == list(range(6)) and (log.start, log.end, log.segments) == (6, 9, [6])


def test_retention_by_size_leaves_at_least_what_it_says() -> None:
    log = filled(*[0] * 9, config=LogConfig(segment_bytes=30, retention_bytes=45))
    assert deletable(log, 0.0, 9) == 3  # 90 - 30 >= 45, and 60 - 30 is not
    assert deletable(filled(0, 0, config=LogConfig(retention_bytes=0)), 0.0, 2) == 2


@settings(max_examples=200, deadline=None)
@given(
    keys=st.lists(st.integers(0, 4), min_size=1, max_size=40), ends=st.lists(st.integers(0, 40), max_size=4)
)
def test_compaction_leaves_the_last_of_each_key_in_place(keys: list[int], ends: list[int]) -> None:
    log = filled(*[0] * len(keys))
    for end in sorted(min(end, len(keys)) for end in ends):
        compact(log, end, keys.__getitem__)
        left = [copy for copy in log.records[:end] if copy != HOLE]
        assert left == [i for i in range(end) if keys[i] not in keys[i + 1 : end]]
        assert log.records[end:].tolist() == list(range(end, len(keys)))
        assert sum(log.bytes) == 10 * (len(keys) - end + len(left))


def test_compaction_waits_for_enough_dirt_below_the_high_watermark() -> None:
    log = filled(
        *[0] * 9, config=LogConfig(segment_bytes=30, is_compacted=True, min_cleanable_dirty_ratio=0.5)
    )
    assert cleanable(log, 9) == 6 and cleanable(log, 4) == 4 and cleanable(log, 0) is None
    compact(log, 3, lambda copy: copy)
    assert cleanable(log, 9) is None, "half is not more than half"


def test_compaction_stops_at_an_open_transaction() -> None:
    log = filled(0, 0, 0, config=LogConfig(segment_bytes=30, is_compacted=True))
    log.append(batch(3, sequence=0, is_transactional=True), 0, 3.0)
    for i in range(4, 9):
        log.append(batch(i), 0, float(i))
    assert log.segments == [0, 3, 6] and cleanable(log, 9) == 3


def test_compaction_keeps_the_value_before_an_aborted_one() -> None:
    log = filled(0)
    log.append(batch(1, sequence=0, is_transactional=True), 0, 1.0)
    log.append(Batch([ABORT], 78, 7, 0, control=ABORT), 0, 2.0)
    assert compact(log, 3, lambda copy: 0) == [HOLE, 1, HOLE]
    assert log.read(0, 3) == [0, HOLE, ABORT]


def test_what_comes_in_the_place_of_what_was_cut_off_is_not_flushed() -> None:
    log = filled(0, 0, 0, 0)
    log.written_back(4, True)
    log.truncate(2)
    log.append(batch(4, 5, 6), 1, 4.0)
    assert log.flushed == 2


def test_a_failed_fsync_marks_what_no_later_one_writes() -> None:
    log = filled(0, 0, 0)
    log.written_back(1, True)
    log.written_back(3, False)
    log.written_back(3, True)
    assert log.flushed == 1 and log.unwritable == 1
    log.truncate(1)
    assert log.unwritable == math.inf
