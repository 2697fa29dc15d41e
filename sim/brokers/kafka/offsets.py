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


class CommittedOffsets:
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320).

    `watchers` are told when another broker coordinates.
    """

    def __init__(self, topic: InternalTopic) -> None:
        self.topic = topic
        self.watchers: list[Callable[[], Any]] = []
        self._of: dict[str, dict[Partition, tuple[int, int]]] = {}
        # What the numbers in the log stand for; a tombstone has no offsets.
        self._records: list[tuple[str, dict[Partition, tuple[int, int]] | None]] = []
        topic.on_led = self._read

    def commit(self, group: str, offsets: Positions, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        self._write(
            group, {p: (offset, p.log().epoch_at(offset - 1)) for p, offset in offsets.items()}, answer
        )

    def forget(self, group: str) -> None:
        """Its offsets have expired (K-40)."""
        self._write(group, None, lambda error: None)

    def _write(
        self, group: str, offsets: dict[Partition, tuple[int, int]] | None, answer: Callable[[str], Any]
    ) -> None:
        self._records.append((group, offsets))

        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                self._apply(group, offsets)
            answer(error)

        self.topic.write(len(self._records) - 1, told)

    def at(self, group: str, partition: Partition) -> tuple[int, int] | None:
        """OffsetFetch: the offset that a group has committed, and that epoch; None if there is none."""
        return self._of.get(group, {}).get(partition)

    def of(self, group: str, partition: Partition) -> int | None:
        """For the books: the same offset, or where the log has diverged below it."""
        found = self.at(group, partition)
        return None if found is None else partition.log().agreed_end(*found)

    def _apply(self, group: str, offsets: dict[Partition, tuple[int, int]] | None) -> None:
        if offsets is None:
            self._of.pop(group, None)
        else:
            self._of.setdefault(group, {}).update(offsets)

    def _read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was committed."""
        self._of.clear()
        for number in broker.logs[self.topic.partition].records:
            self._apply(*self._records[number])
        for watcher in self.watchers:
            watcher()
