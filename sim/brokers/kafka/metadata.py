"""What a client knows of who leads which partition: as old as the last answer to its question (K-23, K-31)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.replication import NO_COPY, Partition
from sim.connection import Connection
from sim.host import Host

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker

RETRY_BACKOFF = 0.1  # seconds until something is asked, or tried, again (retry.backoff.ms)


class Metadata:
    """A client's cache of leaders.

    It is asked for anew when something went wrong and, after `max_age` s (metadata.max.age.ms), before the next use.
    Any broker that the client is connected to may answer with what it knows itself; a higher leader epoch wins.
    `changed()` is called when a leader has changed.
    """

    def __init__(
        self,
        host: Host,
        partitions: list[Partition],
        connections: Mapping[Broker, Connection],
        max_age: float,
        changed: Callable[[], Any],
    ) -> None:
        self.host, self.world = host, host.world
        self.connections, self.max_age, self._changed = connections, max_age, changed
        self.leaders: dict[Partition, Broker | None] = {p: p.leader for p in partitions}
        self.knows_all = None not in self.leaders.values()
        self._epochs: dict[Partition, int] = {p: p.epoch for p in partitions}
        self._is_asking = False
        self._is_under_way = False  # a question is, and nobody else need be asked
        self._turn = 0
        self.expires_at = max_age

    def start_empty(self) -> None:
        """A new process asks before it does anything else; what it learns then is what its first broker knows."""
        self._is_asking = self._is_under_way = False
        self.expires_at = self.world.now + self.max_age
        self.leaders = dict.fromkeys(self.leaders)
        self.knows_all = False
        self._epochs = dict.fromkeys(self._epochs, -1)
        self.refresh()

    def learn(self, partition: Partition, epoch: int, leader: Broker | None) -> None:
        """Somebody says who leads (in an error, KIP-951)."""
        if epoch > self._epochs[partition]:
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
        known = {p: broker.metadata[p] for p in self.leaders if p in broker.metadata}
        connection.back.send_at(broker.work(broker.request_time), self._answered, NO_COPY, known)

    def _answered(self, _copy: int, known: dict[Partition, tuple[int, Broker | None]]) -> None:
        self._is_asking = self._is_under_way = False
        self.expires_at = self.world.now + self.max_age
        for partition, (epoch, leader) in known.items():
            self.learn(partition, epoch, leader)
        if not self.knows_all:
            self.host.call_later(RETRY_BACKOFF, self.refresh)

    def _no_answer(self, turn: int) -> None:
        if self._is_under_way and turn == self._turn:
            self._is_under_way = False
            self._ask()  # somebody else, then
