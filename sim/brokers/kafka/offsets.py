"""Committed offsets: records of `__consumer_offsets`, which whoever leads that partition reads (K-33, K-40)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.log import OK
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.state import TopicState

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import InternalTopic

Positions = dict[Partition, int]
Committed = dict[Partition, tuple[int, int]]  # offsets, with the leader epoch of the last record below each
# Of a group: without offsets it is what the coordinator keeps of its members, and a tombstone has None.
Commit = tuple[str, Committed | None]


class CommittedOffsets(TopicState[str, Committed, Commit]):
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320).

    `watchers` are told when another broker coordinates.
    """

    def __init__(self, topic: InternalTopic) -> None:
        super().__init__(topic)
        self.watchers: list[Callable[[], Any]] = []
        self.ever: dict[tuple[str, Partition], None] = {}  # for the books: who had an offset once

    def apply(self, of: dict[str, Committed], record: Commit) -> bool:
        """Of two commits of a partition the later counts."""
        group, offsets = record
        if offsets is None:
            of.pop(group, None)
        else:
            of.setdefault(group, {}).update(offsets)
        return True

    def copied(self, value: Committed) -> Committed:
        """The same, to go on with."""
        return dict(value)

    def commit(self, group: str, offsets: Committed, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        for partition in offsets:
            self.ever[group, partition] = None
        self._write((group, offsets), answer)

    def keep(self, group: str) -> None:
        """The coordinator writes down who the members are, and what is whose."""
        self._write((group, {}), lambda error: None)

    def forget(self, group: str) -> None:
        """Its offsets have expired (K-40)."""
        self._write((group, None), lambda error: None)

    def _write(self, record: Commit, answer: Callable[[str], Any]) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                self.apply(self.of, record)
            answer(error)

        self.topic.write(self.note(self.next_number(), record), told)

    def at(self, group: str, partition: Partition) -> tuple[int, int] | None:
        """OffsetFetch: the offset that a group has committed, and that epoch; None if there is none."""
        return self.of.get(group, {}).get(partition)

    def agreed(self, group: str, partition: Partition) -> int | None:
        """For the books: the same offset, or where the log has diverged below it."""
        found = self.at(group, partition)
        return None if found is None else partition.log().agreed_end(*found)

    def read(self, broker: Broker) -> None:
        """A new coordinator."""
        super().read(broker)
        for watcher in self.watchers:
            watcher()
