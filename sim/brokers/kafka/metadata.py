"""What a client knows of who leads which partition: as old as the last answer to its question (K-23, K-31)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.replication import NO_COPY, Partition, Topic
from sim.connection import Connection
from sim.host import Host

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker

RETRY_BACKOFF = 0.1  # seconds until something is asked, or tried, again (retry.backoff.ms)


class Metadata:
    """A client's cache of leaders.

    It is asked for anew when something went wrong and, after `max_age` s (metadata.max.age.ms), before the next use.
    Any broker that the client is connected to may answer with what it knows itself; a higher leader epoch wins.
    `changed()` is called when a leader has changed, and `grown(partition)` when there is one more partition (K-02).
    """

    def __init__(
        self,
        host: Host,
        topic: Topic,
        connections: Mapping[Broker, Connection],
        max_age: float,
        changed: Callable[[], Any],
        grown: Callable[[Partition], Any] = lambda partition: None,
    ) -> None:
        self.host, self.world, self._topic = host, host.world, topic
        self.connections, self.max_age, self._changed, self._grown = connections, max_age, changed, grown
        self.partitions = list(topic.partitions)
        self.leaders: dict[Partition, Broker | None] = {p: p.leader for p in self.partitions}
        self.knows_all = None not in self.leaders.values()
        self._epochs: dict[Partition, int] = {p: p.epoch for p in self.partitions}
        self._is_asking = False
        self._is_under_way = False  # a question is, and nobody else need be asked
        self._turn = 0
        self.expires_at = max_age

    def start_empty(self) -> None:
        """A new process asks before it does anything else; what it learns then is what its first broker knows."""
        self._is_asking = self._is_under_way = False
        self.expires_at = self.world.now + self.max_age
        self._grow(self._topic.partitions)  # until it knows how many there are, nothing is sent
        self.leaders = dict.fromkeys(self.partitions)
        self.knows_all = False
        self._epochs = dict.fromkeys(self.partitions, -1)
        self.refresh()

    def _grow(self, partitions: Iterable[Partition]) -> None:
        """Partitions that there are, in order: some may be new."""
        for partition in partitions:
            if partition.number == len(self.partitions):
                self.partitions.append(partition)
                self._grown(partition)

    def ask_for(self, partitions: list[Partition]) -> None:
        """The client has to do with these partitions: ask who leads those that it has not heard of."""
        unknown = [partition for partition in partitions if partition not in self.leaders]
        if unknown:
            self.leaders.update(dict.fromkeys(unknown))
            self.knows_all = False
            self.refresh()

    def learn(self, partition: Partition, epoch: int, leader: Broker | None) -> None:
        """Somebody says who leads (in an error, KIP-951)."""
        if epoch > self._epochs.get(partition, -1):
            self._epochs[partition] = epoch
            self.leaders[partition] = leader
            self.knows_all = None not in self.leaders.values()
            self._changed()

    def refresh(self) -> None:
        """Ask a broker, each time the next one that can be reached; once more after a back-off if none can."""
        if not self._is_asking:
            self._is_asking = True
            self._ask()

    def can_ask(self) -> None:
        """A broker can be reached: what waits to be asked is asked at once, before anything else is sent."""
        if self._is_asking and not self._is_under_way:
            self._ask()

    def _ask(self) -> None:
        if not self._is_asking or self._is_under_way:
            return
        open_ones = [(b, c) for b, c in self.connections.items() if c.is_established]
        if not open_ones:
            self.host.call_later(RETRY_BACKOFF, self._ask)
            return
        self._is_under_way = True
        self._turn += 1
        broker, connection = open_ones[self._turn % len(open_ones)]
        connection.there.send(self._asked, NO_COPY, broker, connection)
        self.host.call_later(10 * RETRY_BACKOFF, self._no_answer, self._turn)

    def _asked(self, _copy: int, broker: Broker, connection: Connection) -> None:
        """At the broker."""
        known = {p: broker.metadata[p] for p in self._topic.partitions if p in broker.metadata}
        connection.back.send_at(broker.work(broker.request_time), self._answered, NO_COPY, known)

    def _answered(self, _copy: int, known: dict[Partition, tuple[int, Broker | None]]) -> None:
        self._is_asking = self._is_under_way = False
        self.expires_at = self.world.now + self.max_age
        for partition, (epoch, leader) in known.items():
            self.learn(partition, epoch, leader)
        self._grow(known)
        if not self.knows_all:
            self.host.call_later(RETRY_BACKOFF, self.refresh)

    def _no_answer(self, turn: int) -> None:
        if self._is_under_way and turn == self._turn:
            self._is_under_way = False
            self._ask()  # somebody else, then
