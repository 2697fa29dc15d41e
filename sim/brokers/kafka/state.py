"""What a coordinator knows: the records of an internal topic, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import InternalTopic

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class TopicState(Generic[K, V, R]):
    """State of type `V` by key `K`, made of records `R`. Whoever leads the topic's partition has it from its log.

    The log holds numbers; here is what they stand for. Records that all replicas have for good are compacted away, and
    what they come to is kept.
    """

    def __init__(self, topic: InternalTopic) -> None:
        self.topic = topic
        self.of: dict[K, V] = {}
        self._records: dict[int, R] = {}
        self._base: dict[K, V] = {}  # what the records before those come to
        self._number = 0
        topic.on_led, topic.on_compacted = self.read, self._compacted

    def apply(self, of: dict[K, V], record: R) -> bool:
        """Let a record count in a state; says whether it does."""
        raise NotImplementedError

    def copied(self, value: V) -> V:
        """The same, to go on with."""
        raise NotImplementedError

    def next_number(self) -> int:
        """A number for one more record."""
        self._number += 1
        return self._number

    def note(self, number: int, record: R) -> int:
        """What a number stands for that is about to be written; returns the number."""
        self._records[number] = record
        return number

    def read(self, broker: Broker) -> None:
        """A new coordinator: what its log has is what was written."""
        log = broker.logs[self.topic.partition]
        if log.start == 0:
            self._base = {}  # nothing was compacted away, or the disk was lost with it
        self.of = {key: self.copied(value) for key, value in self._base.items()}
        for number in log.records:
            self.apply(self.of, self._records[number])

    def _compacted(self, numbers: list[int]) -> None:
        """The log begins later: remember what these records came to, and of the others those that some log has."""
        for number in numbers:
            self.apply(self._base, self._records[number])
        gone = dict.fromkeys(numbers)
        logs = [broker.logs[self.topic.partition] for broker in self.topic.partition.replicas]
        left = dict.fromkeys(n for log in logs for n in log.records if n not in gone)
        self._records = {n: self._records[n] for n in left}
