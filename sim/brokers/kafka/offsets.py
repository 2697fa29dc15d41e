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
    """The offsets that each group has committed, with the leader epoch of the last record below each (KIP-320)."""

    def __init__(self, topic: InternalTopic) -> None:
        self.topic = topic
        self._of: dict[str, Positions] = {}
        self._epochs: dict[str, Positions] = {}
        self._records: list[tuple[str, Positions, Positions]] = []  # what the numbers in the log stand for
        topic.on_led = self._read

    def commit(self, group: str, offsets: Positions, answer: Callable[[str], Any]) -> None:
        """OffsetCommit: it counts, and is answered, when the record is committed."""
        epochs = {p: p.log().epoch_at(offset - 1) for p, offset in offsets.items()}
        self._records.append((group, offsets, epochs))

        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                self._apply(group, offsets, epochs)
            answer(error)

        self.topic.write(len(self._records) - 1, told)

    def of(self, group: str, partition: Partition) -> int | None:
        """What a group committed, or where the log has diverged below that; None if there is nothing."""
        offset = self._of.get(group, {}).get(partition)
        if offset is None:
            return None
        return partition.log().agreed_end(offset, self._epochs[group].get(partition, -1))

    def _apply(self, group: str, offsets: Positions, epochs: Positions) -> None:
        self._of.setdefault(group, {}).update(offsets)
        self._epochs.setdefault(group, {}).update(epochs)

    def _read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was committed."""
        self._of.clear()
        self._epochs.clear()
        for number in broker.logs[self.topic.partition].records:
            self._apply(*self._records[number])
