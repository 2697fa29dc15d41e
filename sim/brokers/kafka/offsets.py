"""Committed offsets: records of `__consumer_offsets`, which whoever leads that partition reads (K-33, K-40)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.log import OK
from sim.brokers.kafka.replication import Partition

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import InternalTopic

Positions = dict[Partition, int]
Committed = dict[Partition, tuple[int, int]]  # offsets, with the leader epoch of the last record below each


class CommittedOffsets:
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320).

    `watchers` are told when another broker coordinates. What all replicas have for good is kept as what it comes to.
    """

    def __init__(self, topic: InternalTopic) -> None:
        self.topic = topic
        self.watchers: list[Callable[[], Any]] = []
        self.ever: dict[tuple[str, Partition], None] = {}  # for the books: who had an offset once
        self._of: dict[str, Committed] = {}
        # What the numbers in the logs stand for, and what those before them come to; a tombstone has no offsets.
        self._records: dict[int, tuple[str, Committed | None]] = {}
        self._base: dict[str, Committed] = {}
        self._number = 0
        topic.on_led, topic.on_compacted = self._read, self._compacted

    def commit(self, group: str, offsets: Positions, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        for partition in offsets:
            self.ever[group, partition] = None
        self._write(group, {p: (offset, _epoch_below(p, offset)) for p, offset in offsets.items()}, answer)

    def forget(self, group: str) -> None:
        """Its offsets have expired (K-40)."""
        self._write(group, None, lambda error: None)

    def _write(self, group: str, offsets: Committed | None, answer: Callable[[str], Any]) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                _apply(self._of, group, offsets)
            answer(error)

        self._number += 1
        self._records[self._number] = group, offsets
        self.topic.write(self._number, told)

    def at(self, group: str, partition: Partition) -> tuple[int, int] | None:
        """OffsetFetch: the offset that a group has committed, and that epoch; None if there is none."""
        return self._of.get(group, {}).get(partition)

    def of(self, group: str, partition: Partition) -> int | None:
        """For the books: the same offset, or where the log has diverged below it."""
        found = self.at(group, partition)
        return None if found is None else partition.log().agreed_end(*found)

    def _compacted(self, numbers: list[int]) -> None:
        """The log begins later: remember what these records came to, and of the others those that some log has."""
        for number in numbers:
            _apply(self._base, *self._records[number])
        gone = dict.fromkeys(numbers)
        logs = [broker.logs[self.topic.partition] for broker in self.topic.partition.replicas]
        left = dict.fromkeys(n for log in logs for n in log.records if n not in gone)
        self._records = {n: self._records[n] for n in left}

    def _read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was committed."""
        log = broker.logs[self.topic.partition]
        if log.start == 0:
            self._base = {}  # nothing was compacted away, or the disk was lost with it
        self._of = {group: dict(offsets) for group, offsets in self._base.items()}
        for number in log.records:
            _apply(self._of, *self._records[number])
        for watcher in self.watchers:
            watcher()


def _epoch_below(partition: Partition, offset: int) -> int:
    """The leader epoch of the record before an offset; the first of all if that record is gone with the log's disk."""
    return max(partition.log().epoch_at(offset - 1), 0) if offset else -1


def _apply(of: dict[str, Committed], group: str, offsets: Committed | None) -> None:
    if offsets is None:
        of.pop(group, None)
    else:
        of.setdefault(group, {}).update(offsets)
