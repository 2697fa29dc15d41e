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
Commit = tuple[str, Positions | None, Positions]  # a group, offsets, and their epochs; None: forget them all

CHECK_INTERVAL = 600.0  # seconds


class CommittedOffsets:
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320)."""

    def __init__(self, topic: InternalTopic, retention: float) -> None:
        self.topic, self.world, self.retention = topic, topic.world, retention
        self._of: dict[str, Positions] = {}
        self._epochs: dict[str, Positions] = {}
        self._records: dict[int, Commit] = {}  # what the numbers in the logs stand for
        self._number = 0
        self._base: dict[str, tuple[Positions, Positions]] = {}  # what those before them come to
        self._empty_since: dict[str, float] = {}
        topic.on_led = self._read
        topic.on_compacted = self._compacted

    def commit(self, group: str, offsets: Positions, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        epochs = {p: p.log().epoch_at(offset - 1) for p, offset in offsets.items()}
        self._write((group, offsets, epochs), answer)

    def _write(self, record: Commit, answer: Callable[[str], Any]) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                _apply(self._of, self._epochs, record)
            answer(error)

        self._number += 1
        self._records[self._number] = record
        self.topic.write(self._number, told)

    def of(self, group: str, partition: Partition) -> int | None:
        """What a group committed, or where the log has diverged below that; None if there is nothing."""
        offset = self._of.get(group, {}).get(partition)
        if offset is None:
            return None
        return partition.log().agreed_end(offset, self._epochs[group].get(partition, -1))

    # -- expiry ------------------------------------------------------------------------------------------------

    def left_alone(self, group: str) -> None:
        """A group has no members any more: offsets.retention.minutes begin."""
        self._empty_since[group] = self.world.now

    def used_again(self, group: str) -> None:
        """K-40: a group has a member again. After more than offsets.retention.minutes its offsets are gone.

        The coordinator looks every 10 min (offsets.retention.check.interval.ms).
        """
        since = self._empty_since.pop(group, None)
        if since is None or group not in self._of:
            return
        looked_at = self.world.now // CHECK_INTERVAL * CHECK_INTERVAL
        if looked_at >= since + self.retention:
            _apply(self._of, self._epochs, (group, None, {}))  # as of then
            self._write((group, None, {}), lambda error: None)

    # -- the log -----------------------------------------------------------------------------------------------

    def _compacted(self, numbers: list[int]) -> None:
        """The log begins later: remember what these records came to, and only those that some log has yet."""
        for number in numbers:
            group, offsets, epochs = self._records[number]
            if offsets is None:
                self._base.pop(group, None)
            else:
                known = self._base.setdefault(group, ({}, {}))
                known[0].update(offsets)
                known[1].update(epochs)
        logs = [broker.logs[self.topic.partition] for broker in self.topic.partition.replicas]
        gone = dict.fromkeys(numbers)
        left = dict.fromkeys(n for log in logs for n in log.records if n not in gone)
        self._records = {n: self._records[n] for n in left}

    def _read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was committed."""
        log = broker.logs[self.topic.partition]
        if log.start == 0:
            self._base = {}  # nothing was compacted away, or the disk was lost with it
        self._of = {group: dict(offsets) for group, (offsets, _) in self._base.items()}
        self._epochs = {group: dict(epochs) for group, (_, epochs) in self._base.items()}
        for number in log.records:
            _apply(self._of, self._epochs, self._records[number])


def _apply(of: dict[str, Positions], epochs_of: dict[str, Positions], record: Commit) -> None:
    group, offsets, epochs = record
    if offsets is None:
        of.pop(group, None)
        epochs_of.pop(group, None)
    else:
        of.setdefault(group, {}).update(offsets)
        epochs_of.setdefault(group, {}).update(epochs)
