"""A producer's connections: requests to one broker, how the broker reads them, and answers (K-08, K-13, K-14)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sim.brokers.kafka.causes import SOCKET_CUT
from sim.brokers.kafka.log import OK
from sim.brokers.kafka.replication import NO_COPY, NOT_LEADER, Partition
from sim.connection import Connection
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.producer import Producer, ProducerBatch

SEND_BUFFER = 131_072  # bytes that a socket takes before the application has to wait (send.buffer.bytes)

Leaders = Mapping[Partition, tuple[int, "Broker | None"]]
NOTHING_NEW: Leaders = {}


class Lane:
    """The connection to one broker, with up to max.in.flight.requests.per.connection on it.

    A broker reads one request of a connection at a time, and the next when it has answered that one: with acks=all
    what is in flight hides the network's delay, not the followers'.
    """

    def __init__(self, producer: Producer, broker: Broker) -> None:
        self.producer, self.broker, self.world = producer, broker, producer.world
        self.in_flight: dict[int, list[ProducerBatch]] = {}
        self.is_open = False
        self._number = 0
        self._acks = producer.settings.acks
        self._timeout = producer.settings.request_timeout
        self._limit = producer.settings.max_in_flight_requests_per_connection
        # at the broker
        self._unread: deque[tuple[int, list[ProducerBatch]]] = deque()
        self._is_muted = False  # a request is being served
        self._arrived = self._before = 0  # the last request that came, and the last of connections before
        self.connection: Connection = producer.topic.cluster.client_connection(
            producer.host,
            broker,
            Hop("publish", dropped=self._dropped, broken=SOCKET_CUT, size_of=self._size_of),
            Hop("confirm"),
            producer.settings,
            client_broken=self._broken,
            server_opened=self._accepted,
            server_broken=self._unread.clear,
            connect_failed=self._not_connected,
        )

    def _greeted(self, _copy: int) -> None:
        """ApiVersions: a broker that stands still takes connections, and answers nothing."""
        self.is_open = True
        self.producer.metadata.can_ask()
        self.pump()

    def _not_connected(self) -> None:
        if self.producer.waiting:
            self.producer.metadata.refresh()  # somebody else may lead meanwhile

    def pump(self) -> None:
        """Send what is due."""
        producer = self.producer
        while producer.waiting and self.has_room():
            batches = producer.drain(self.broker)
            if not batches:
                return
            self.request(batches)

    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return self.is_open and len(self.in_flight) < self._limit

    def request(self, batches: list[ProducerBatch]) -> None:
        """Send a request with these batches, one of a partition."""
        self._number = number = self._number + 1
        self.in_flight[number] = batches
        due = self.world.now + self._timeout
        if due < self.producer.look_at:
            self.producer.look_before(due)
        send = self.connection.there.send
        send(self._arrives, number, batches)

    def _size_of(self, number: int) -> int:
        return sum(batch.size for batch in self.in_flight.get(number, ()))

    def _dropped(self, number: int, cause: int) -> None:
        """A request is gone with its connection, of which the producer hears elsewhere."""

    # -- at the broker -----------------------------------------------------------------------------------------

    def _accepted(self) -> None:
        self._unread.clear()
        self._is_muted = False
        self._before = self._arrived
        self.connection.back.send(self._greeted, NO_COPY)

    def _arrives(self, number: int, batches: list[ProducerBatch]) -> None:
        self._arrived = number
        if self._is_muted:
            self._unread.append((number, batches))
        else:
            self._is_muted = True
            self._serve(number, batches)

    def _serve(self, number: int, batches: list[ProducerBatch]) -> None:
        produce, acks = self.broker.produce, self._acks
        if len(batches) == 1:
            batch = batches[0]
            answer = self._answer
            produce(batch.partition, batch, acks, partial(answer, number, batch))
        else:
            response = Response(self, number, batches)
            for i, batch in enumerate(batches):
                produce(batch.partition, batch, acks, partial(response.add, i), is_further=i > 0)

    def _answer(self, number: int, batch: ProducerBatch, error: str, offset: int, at: float) -> None:
        batch.was_appended |= offset >= 0
        known = NOTHING_NEW if error != NOT_LEADER else self.known([batch.partition])
        self.reply(number, (error,), known, at)

    def known(self, partitions: Sequence[Partition]) -> Leaders:
        """KIP-951: who leads, as far as the broker knows."""
        metadata = self.broker.metadata
        return {partition: metadata[partition] for partition in partitions if partition in metadata}

    def reply(self, number: int, errors: Sequence[str], leaders: Leaders, at: float) -> None:
        """Answer a request at `at` (s), and read the next one then."""
        if number <= self._before:
            return  # nobody is there any more
        send_at = self.connection.back.send_at
        send_at(at, self._answered, number, errors, leaders)
        if self._unread:
            self.broker.host.call_at(at, self._read_next, self._before)
        else:
            self._is_muted = False

    def _read_next(self, before: int) -> None:
        if before != self._before:
            return
        if self._unread:
            self._serve(*self._unread.popleft())
        else:
            self._is_muted = False

    # -- at the producer ---------------------------------------------------------------------------------------

    def _answered(self, number: int, errors: Sequence[str], leaders: Leaders) -> None:
        batches = self.in_flight.pop(number, None)
        if batches is None:
            return
        producer = self.producer
        if len(batches) == 1:
            producer.answered(batches[0], errors[0])
        else:
            for batch, error in zip(batches, errors, strict=True):
                producer.answered(batch, error)
        if leaders:
            for partition, (epoch, leader) in leaders.items():
                producer.metadata.learn(partition, epoch, leader)
        if producer.waiting:
            self.pump()

    def due(self) -> float:
        """When something on it will have waited for too long (s)."""
        if not self.in_flight:
            return math.inf
        settings = self.producer.settings
        oldest = next(iter(self.in_flight.values()))[0].sent + settings.request_timeout
        living = (b.created for request in self.in_flight.values() for b in request if not b.is_over)
        return min(oldest, min(living, default=math.inf) + settings.delivery_timeout)

    def give_up_overdue(self) -> None:
        """No answer for request.timeout.ms: the connection is closed, and everything on it is sent again."""
        now, settings, producer = self.world.now, self.producer.settings, self.producer
        for batches in list(self.in_flight.values()):
            for batch in batches:
                if not batch.is_over and now >= batch.created + settings.delivery_timeout:
                    producer.give_up(batch)
        if self.in_flight and now >= next(iter(self.in_flight.values()))[0].sent + settings.request_timeout:
            self.connection.broken(producer.host)

    def _broken(self) -> None:
        """K-13: what was in flight may be in the log or not."""
        self.is_open = False
        lost, self.in_flight = [batch for request in self.in_flight.values() for batch in request], {}
        for batch in reversed(lost):
            self.producer.not_answered(batch)
        self.producer.metadata.refresh()

    def batches(self) -> list[ProducerBatch]:
        """What the producer would still send."""
        return [batch for request in self.in_flight.values() for batch in request if not batch.is_over]

    def crashed(self) -> None:
        """The producer's process is gone."""
        self.is_open = False
        self.in_flight.clear()


class OneWayLane(Lane):
    """The connection of a producer with acks=0 (K-08): a request is over when it is written to the socket.

    The socket takes send.buffer.bytes; when the network does not take them off it, writing waits, and for
    request.timeout.ms at most. `in_socket` are the requests in it, or on the wire.
    """

    def __init__(self, producer: Producer, broker: Broker) -> None:
        self.in_socket: dict[int, list[ProducerBatch]] = {}
        self._bytes = 0
        self._full_since = math.inf
        self._is_closing = False  # at the broker
        super().__init__(producer, broker)

    def pump(self) -> None:
        """Write what is due, as far as the socket takes it."""
        producer = self.producer
        while producer.waiting and self.is_open:
            if self._bytes >= SEND_BUFFER:
                if self._full_since == math.inf:
                    self._full_since = self.world.now
                    producer.look_before(self.due())
                return
            batches = producer.drain(self.broker)
            if not batches:
                return
            self.request(batches)

    def has_room(self) -> bool:
        """Whether the socket takes a request at once."""
        return self.is_open and self._bytes < SEND_BUFFER

    def request(self, batches: list[ProducerBatch]) -> None:
        """Write a request to the socket."""
        self._number = number = self._number + 1
        self.in_socket[number] = batches
        self._bytes += self._size_of(number)
        self.connection.there.send(self._arrives, number, batches)
        self.producer.written(batches)

    def _size_of(self, number: int) -> int:
        return sum(batch.size for batch in self.in_socket.get(number, ()))

    def _leaves(self, number: int) -> list[ProducerBatch]:
        self._bytes -= self._size_of(number)
        self._full_since = math.inf
        return self.in_socket.pop(number, [])

    def _arrives(self, number: int, batches: list[ProducerBatch]) -> None:
        self._arrived = number
        was_full = self._full_since < math.inf
        self._leaves(number)
        if self._is_closing:
            self._lost(batches)
            return
        for batch in batches:
            self.broker.produce(batch.partition, batch, self._acks, partial(self._decided, number, batch))
        if was_full:
            self.producer.host.tell(self.pump)

    def _decided(self, number: int, batch: ProducerBatch, error: str, _offset: int, at: float) -> None:
        """An error cannot be answered: the broker closes the connection, so that the producer notices something."""
        if error == OK:
            return
        self._lost([batch])
        self.broker.host.call_at(at, self._close, number)

    def _lost(self, batches: list[ProducerBatch]) -> None:
        for batch in batches:
            for copy in batch.copies:
                self.producer.messages.died(copy, SOCKET_CUT)

    def _close(self, number: int) -> None:
        """What it has said before arrives first: a question of metadata may have come before the batch."""
        if number > self._before and not self._is_closing:
            self._is_closing = True
            self.connection.back.send(self._closed, NO_COPY)

    def _closed(self, _copy: int) -> None:
        self.connection.broken(self.producer.host)

    def _accepted(self) -> None:
        self._is_closing = False
        super()._accepted()

    def _dropped(self, number: int, cause: int) -> None:
        for batch in self._leaves(number):
            for copy in batch.copies:
                self.producer.messages.died(copy, cause)

    def due(self) -> float:
        """When what waits for the socket will have waited for too long (s)."""
        return self._full_since + self.producer.settings.request_timeout

    def give_up_overdue(self) -> None:
        """The socket took nothing for request.timeout.ms: it is closed."""
        if self.world.now >= self.due():
            self._full_since = math.inf
            self.connection.broken(self.producer.host)

    def batches(self) -> list[ProducerBatch]:
        """What may still reach the broker."""
        return [batch for request in self.in_socket.values() for batch in request]

    def crashed(self) -> None:
        """The producer's process is gone, and what is in its socket, if it does not arrive all the same."""
        self.is_open = False
        for batch in self.batches():
            for copy in batch.copies:
                self.producer.messages.died(copy, SOCKET_CUT)
        self.in_socket.clear()
        self._bytes, self._full_since = 0, math.inf


class Response:
    """At the broker: the answer to a request of several batches, which leaves when all of them are decided."""

    def __init__(self, lane: Lane, number: int, batches: list[ProducerBatch]) -> None:
        self.lane, self.number, self.batches, self.left = lane, number, batches, len(batches)
        self.errors = [OK] * len(batches)
        self.at = 0.0

    def add(self, i: int, error: str, offset: int, at: float) -> None:
        """The i-th batch is decided."""
        self.errors[i] = error
        self.batches[i].was_appended |= offset >= 0
        self.left -= 1
        self.at = max(self.at, at)
        if not self.left:
            pairs = zip(self.batches, self.errors, strict=True)
            leaders = self.lane.known([batch.partition for batch, error in pairs if error == NOT_LEADER])
            self.lane.reply(self.number, self.errors, leaders, self.at)
