"""Parts of Kafka's producer by themselves: the hash of keys, the choice without one, sequence numbers."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sim.brokers.kafka.partitioner import murmur2, next_partition, partition_of
from sim.brokers.kafka.producer import ProducerBatch
from sim.brokers.kafka.sequences import Sequences


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # signed, as in the tests of Kafka's own Utils.murmur2
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_has_the_published_values(key: str, expected: int):
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF
    assert partition_of(key, 7) == (expected & 0x7FFFFFFF) % 7


@pytest.mark.parametrize(("before", "after", "share"), [(4, 8, 1 / 2), (4, 12, 2 / 3), (4, 5, 4 / 5)])
def test_K02_a_topic_that_grows_moves_its_keys(before: int, after: int, share: float):
    n = 5000
    moved = sum(partition_of(f"key {i}", before) != partition_of(f"key {i}", after) for i in range(n))
    assert abs(moved / n - share) < 4 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(
    ("queued", "weights"),
    [
        ([0, 0, 0], [1, 1, 1]),
        ([5, 5], [1, 1]),
        ([0, 3, 1], [4, 1, 3]),  # longest + 1 - length
        ([2, None, 0], [1, 0, 3]),  # nobody leads the second
        ([None, None], [1, 1]),
    ],
)
def test_K03_who_is_slow_gets_less(queued: list[int | None], weights: list[int]):
    total = sum(weights)
    counts = Counter(next_partition(queued, (i + 0.5) / total) for i in range(total))
    assert [counts[i] for i in range(len(queued))] == weights
    assert next_partition(queued, 1 - 2**-53) == max(i for i, w in enumerate(weights) if w)


def sent(sequences: Sequences, *counts: int) -> list[ProducerBatch]:
    """Batches of so many records that were given their numbers."""
    batches = [ProducerBatch(list(range(count)), 1) for count in counts]
    for batch in batches:
        sequences.number(batch, 7)
    return batches


def test_K15_numbers_follow_on():
    sequences = Sequences()
    one, two, three = sent(sequences, 3, 1, 2)
    assert [b.sequence for b in (one, two, three)] == [0, 3, 4] and sequences.next == 6
    assert [sequences.may_send(b) for b in (one, two, three)] == [True, False, False]  # again: the oldest
    assert sequences.may_send(ProducerBatch([0], 1))
    sequences.written(one)
    assert sequences.acked == 3 and sequences.may_send(two) and not sequences.may_send(three)


def test_K15_a_batch_before_its_time_waits_for_its_turn():
    sequences = Sequences()
    _, two = sent(sequences, 3, 1)
    assert not sequences.out_of_order(two)
    assert (two.epoch, two.sequence) == (0, 3)


def test_K15_what_the_leader_has_lost_gets_new_numbers():
    sequences = Sequences()
    one, two, three = sent(sequences, 3, 1, 2)
    sequences.written(one)
    assert sequences.out_of_order(two)
    assert [(b.epoch, b.sequence) for b in (two, three)] == [(1, 0), (1, 1)]
    assert (sequences.epoch, sequences.next, sequences.acked) == (1, 3, 0)


@pytest.mark.parametrize("is_in_the_log", [True, False])
def test_K15_nothing_new_is_sent_until_it_is_known_what_became_of_a_batch_given_up(is_in_the_log: bool):
    sequences = Sequences()
    one, two = sent(sequences, 3, 1)
    fresh = ProducerBatch([0], 1)
    sequences.given_up(one)
    assert sequences.may_send(two) and not sequences.may_send(fresh)
    if is_in_the_log:
        sequences.written(two)
        assert (sequences.epoch, sequences.next) == (0, 4)
    else:
        assert sequences.out_of_order(two)
        assert (two.epoch, two.sequence) == (1, 0)
    assert sequences.may_send(fresh)


def test_K15_a_late_answer_tells_what_became_of_it():
    sequences = Sequences()
    one, two = sent(sequences, 3, 1)
    sequences.given_up(two)
    sequences.written(two)  # the answer comes all the same, before that to the first
    sequences.written(one)
    assert (sequences.epoch, sequences.unresolved) == (0, None)


def test_K15_a_batch_given_up_with_nothing_behind_it_begins_a_new_epoch():
    sequences = Sequences()
    (one,) = sent(sequences, 3)
    sequences.given_up(one)
    (two,) = sent(sequences, 1)
    assert (two.epoch, two.sequence) == (1, 0)
    sequences.written(one)  # of an epoch that is over
    assert sequences.acked == 0
