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
Known = dict[Partition, tuple[int, int]]  # offset, and leader epoch of the last record below it
Commit = tuple[str, Known | None]  # of a group; None: forget all of it

CHECK_INTERVAL = 600.0  # seconds (offsets.retention.check.interval.ms)


class CommittedOffsets:
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320).

    `watchers` are told when another broker coordinates.
    """

    def __init__(self, topic: InternalTopic, retention: float) -> None:
        self.topic, self.world, self.retention = topic, topic.world, retention
        self.watchers: list[Callable[[], Any]] = []
        self._of: dict[str, Known] = {}
        self._records: dict[int, Commit] = {}  # what the numbers in the logs stand for
        self._number = 0
        self._base: dict[str, Known] = {}  # what those before them come to
        self._empty_since: dict[str, float] = {}
        topic.on_led = self._read
        topic.on_compacted = self._compacted

    def commit(self, group: str, offsets: Positions, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        self._write((group, {p: (n, _epoch_below(p, n)) for p, n in offsets.items()}), answer)

    def _write(self, record: Commit, answer: Callable[[str], Any]) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                _apply(self._of, record)
            answer(error)

        self._number += 1
        self._records[self._number] = record
        self.topic.write(self._number, told)

    def at(self, group: str, partition: Partition) -> tuple[int, int] | None:
        """OffsetFetch: the offset that a group has committed, and that epoch; None if there is none."""
        return self._of.get(group, {}).get(partition)

    def of(self, group: str, partition: Partition) -> int | None:
        """For the books: the same offset, or where the log has diverged below it."""
        found = self.at(group, partition)
        return None if found is None else partition.log().agreed_end(*found)

    # -- expiry ------------------------------------------------------------------------------------------------

    def left_alone(self, group: str) -> None:
        """A group has no members any more: offsets.retention.minutes begin."""
        self._empty_since[group] = self.world.now

    def used_again(self, group: str) -> None:
        """K-40: a group has a member again. After more than offsets.retention.minutes its offsets are gone.

        The coordinator looks every 10 min.
        """
        since = self._empty_since.pop(group, None)
        if since is None or group not in self._of:
            return
        looked_at = self.world.now // CHECK_INTERVAL * CHECK_INTERVAL
        if looked_at >= since + self.retention:
            _apply(self._of, (group, None))  # as of then
            self._write((group, None), lambda error: None)

    # -- the log -----------------------------------------------------------------------------------------------

    def _compacted(self, numbers: list[int]) -> None:
        """The log begins later: remember what these records came to, and only those that some log has yet."""
        for number in numbers:
            _apply(self._base, self._records[number])
        logs = [broker.logs[self.topic.partition] for broker in self.topic.partition.replicas]
        gone = dict.fromkeys(numbers)
        left = dict.fromkeys(n for log in logs for n in log.records if n not in gone)
        self._records = {n: self._records[n] for n in left}

    def _read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was committed."""
        log = broker.logs[self.topic.partition]
        if log.start == 0:
            self._base = {}  # nothing was compacted away, or the disk was lost with it
        self._of = {group: dict(known) for group, known in self._base.items()}
        for number in log.records:
            _apply(self._of, self._records[number])
        for watcher in self.watchers:
            watcher()


def _epoch_below(partition: Partition, offset: int) -> int:
    """The leader epoch of the record before an offset; the first of all if that record is gone with the log's disk."""
    return max(partition.log().epoch_at(offset - 1), 0) if offset else -1


def _apply(of: dict[str, Known], record: Commit) -> None:
    group, offsets = record
    if offsets is None:
        of.pop(group, None)
    else:
        of.setdefault(group, {}).update(offsets)
