"""The producer: an accumulator of batches per partition, and requests to the leaders (K-08 to K-20)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.causes import (
    ACCUMULATOR_LOST,
    BUFFER_FULL,
    DELIVERY_TIMEOUT,
    NOT_ENOUGH_REPLICAS,
    RETRIED,
    SOCKET_CUT,
    TOO_LARGE,
)
from sim.brokers.kafka.cluster import NOT_ENOUGH, NOT_ENOUGH_AFTER, OK, Broker, Partition
from sim.brokers.kafka.log import Batch
from sim.brokers.kafka.partitioner import partition_of
from sim.brokers.kafka.settings import ProducerClient
from sim.connection import Connection
from sim.network import Hop
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Kafka


@dataclass(eq=False, slots=True)
class Pending:
    """A batch in the producer: in the accumulator, in flight, or waiting to be sent again."""

    partition: Partition
    created: float
    copies: list[int] = field(default_factory=list)
    size: int = 0
    sequence: int = -1
    attempts: int = 0
    not_before: float = 0.0
    is_in_doubt: bool = False  # an answer may have been lost: it may be in the log
    error: str = ""


class Producer:
    """A producing application's client library."""

    def __init__(self, kafka: Kafka, sender: Sender, settings: ProducerClient) -> None:
        self.kafka, self.world, self.sender, self.settings = kafka, kafka.world, sender, settings
        self.messages, self.host = kafka.messages, sender.host
        self.is_ready = True
        self.wants_answers = settings.acks != "0"
        self.is_idempotent = is_idempotent(settings)
        self._linger, self._batch_size = settings.linger, settings.batch_size
        self._lanes: dict[Broker, Lane] = {}
        self._jitter = kafka.world.uniforms(f"{sender.host.name}.{kafka.name}.backoff")
        self._key_partitions: dict[str, int] = {}
        self._start_empty()
        for broker in kafka.brokers:
            self._lanes[broker] = Lane(self, broker)
        self.host.residents.append(self)

    def _start_empty(self) -> None:
        """A new process: a new producer id, an empty accumulator (K-16, K-17)."""
        self.producer_id = self.kafka.new_producer_id()
        self.queues: dict[Partition, deque[Pending]] = {p: deque() for p in self.kafka.partitions}
        self.sequences: dict[Partition, int] = {}
        self.buffered = 0
        self.unsent: dict[int, list[int]] = {}  # acks=0: requests in sockets, by number
        self._sticky = 0
        self._sticky_bytes = 0
        self._waiting: deque[tuple[int, float]] = deque()  # send() blocks: the buffer is full
        self._in_flight: dict[Partition, int] = {}
        self._looking: dict[Partition, None] = {}

    # -- send() ------------------------------------------------------------------------------------------------

    def publish(self, copy: int) -> None:
        """send(): the record joins its partition's batch; the thread that sends takes it from there."""
        size = self.messages.size_of(copy)
        if size > self.settings.max_request_size:
            self.messages.died(copy, TOO_LARGE)
            self.sender.returned(copy)
            return
        if self.buffered + size > self.settings.buffer_memory:
            self._waiting.append((copy, self.world.now))  # K-19
            self.host.call_later(self.settings.max_block, self._blocked_too_long, copy)
            return
        self._accept(copy, size)

    def _accept(self, copy: int, size: int) -> None:
        partition = self.kafka.partitions[self._partition_of(copy, size)]
        self.buffered += size
        self.kafka.scope(copy, partition)
        queue = self.queues[partition]
        batch = queue[-1] if queue else None
        if batch is None or batch.attempts or batch.sequence >= 0 or batch.size + size > self._batch_size:
            batch = Pending(partition, self.world.now)
            queue.append(batch)
            if self._linger and size < self._batch_size:
                self.host.call_later(self._linger, self._drain, partition)
        batch.copies.append(copy)
        batch.size += size
        if not self._linger or batch.size >= self._batch_size or len(queue) > 1:
            self._drain(partition)

    def _partition_of(self, copy: int, size: int) -> int:
        """K-02: by key; K-03: without one, stick to a partition until batch.size bytes went there."""
        count = len(self.kafka.partitions)
        if count == 1:
            return 0
        if self.messages.keys is not None:
            key = self.messages.key_of(copy)
            number = self._key_partitions.get(key)
            if number is None:
                number = self._key_partitions[key] = partition_of(key, count)
            return number
        number = self._sticky
        self._sticky_bytes += size
        if self._sticky_bytes >= self._batch_size:
            self._sticky, self._sticky_bytes = (number + 1) % count, 0
        return number

    def _blocked_too_long(self, copy: int) -> None:
        for entry in self._waiting:
            if entry[0] == copy:
                self._waiting.remove(entry)
                self.messages.died(copy, BUFFER_FULL)
                self.sender.returned(copy)
                return

    # -- the thread that sends ---------------------------------------------------------------------------------

    def _drain(self, partition: Partition) -> None:
        """Send what is due for a partition, as far as requests in flight allow."""
        lane = self._lane_of(partition)
        if lane is not None:
            lane.pump()
            if not lane.is_open and self.queues[partition] and partition not in self._looking:
                self._looking[partition] = None
                self.host.call_later(self.settings.retry_backoff, self._look_again, partition)

    def _look_again(self, partition: Partition) -> None:
        """Another may lead meanwhile; or the connection to this one is there."""
        self._looking.pop(partition, None)
        batch = self.queues[partition][0] if self.queues[partition] else None
        if batch is not None and self.world.now >= batch.created + self.settings.delivery_timeout:
            self.queues[partition].popleft()
            self._give_up(batch)
        self._drain(partition)

    def _lane_of(self, partition: Partition) -> Lane | None:
        leader = self.kafka.leader_known(partition)
        if leader is None:
            self.host.call_later(self.settings.retry_backoff, self._drain, partition)
            return None
        return self._lanes[leader]

    def due(self, leader: Broker) -> Pending | None:
        """The next batch that may be sent to that broker: full, lingered long enough, or behind one that is."""
        now = self.world.now
        for partition, queue in self.queues.items():
            if not queue or self.kafka.leader_known(partition) is not leader:
                continue
            batch = queue[0]
            if now < batch.not_before or self.is_muted(partition, batch):
                continue
            if (
                len(queue) > 1
                or batch.attempts
                or batch.size >= self._batch_size
                or now - batch.created >= self._linger
            ):
                return batch
        return None

    def is_muted(self, partition: Partition, batch: Pending) -> bool:
        """With one request in flight a partition waits for its answer, so that retries keep the order (K-14)."""
        return self.settings.max_in_flight_requests_per_connection == 1 and bool(
            self._in_flight.get(partition)
        )

    def taken(self, batch: Pending) -> None:
        """A batch is sent now."""
        queue = self.queues[batch.partition]
        queue.popleft()
        self._in_flight[batch.partition] = self._in_flight.get(batch.partition, 0) + 1
        if self.is_idempotent and batch.sequence < 0:
            batch.sequence = self.sequences.get(batch.partition, 0)
            self.sequences[batch.partition] = batch.sequence + len(batch.copies)
        if batch.attempts and not self.is_idempotent:
            batch.copies = [self.messages.copy(copy, RETRIED) for copy in batch.copies]
        batch.attempts += 1

    # -- answers -----------------------------------------------------------------------------------------------

    def answered(self, batch: Pending, error: str) -> None:
        """A produce response for one batch."""
        self._in_flight[batch.partition] -= 1
        if error == OK:
            self._release(batch)
            for copy in batch.copies:
                self.sender.confirmed(copy)
            return
        batch.error = error
        if error == NOT_ENOUGH_AFTER:
            batch.is_in_doubt = True
        self.retry(batch)

    def retry(self, batch: Pending) -> None:
        """K-13, K-15, K-18: send it again after the back-off, until delivery.timeout.ms is over."""
        settings = self.settings
        backoff = min(settings.retry_backoff * 2.0 ** min(batch.attempts - 1, 20), settings.retry_backoff_max)
        backoff *= 0.8 + 0.4 * self._jitter()
        is_late = self.world.now + backoff >= batch.created + settings.delivery_timeout
        if is_late or batch.attempts > settings.retries:
            self._give_up(batch)
            return
        queue = self.queues[batch.partition]
        at = 0
        if self.is_idempotent:  # back in the order of sequences
            while at < len(queue) and 0 <= queue[at].sequence < batch.sequence:
                at += 1
        queue.insert(at, batch)
        batch.not_before = self.world.now + backoff
        self.host.call_later(backoff, self._drain, batch.partition)

    def _give_up(self, batch: Pending) -> None:
        cause = NOT_ENOUGH_REPLICAS if batch.error == NOT_ENOUGH else DELIVERY_TIMEOUT
        for copy in batch.copies:
            self.messages.died(
                copy, cause
            )  # it may be in the log all the same (K-18): then this was not its end
            self.sender.returned(copy)
        self._release(batch)

    def _release(self, batch: Pending) -> None:
        """K-19: its memory is free again."""
        self.buffered -= batch.size
        while self._waiting:
            copy, _ = self._waiting[0]
            size = self.messages.size_of(copy)
            if self.buffered + size > self.settings.buffer_memory:
                return
            self._waiting.popleft()
            self._accept(copy, size)

    # -- failure -----------------------------------------------------------------------------------------------

    def holdings(self) -> Any:
        """Copies that it would still send."""
        for queue in self.queues.values():
            for batch in queue:
                yield from batch.copies
        for lane in self._lanes.values():
            for batch in lane.in_flight.values():
                yield from batch.copies
        for copies in self.unsent.values():
            yield from copies
        for copy, _ in self._waiting:
            yield copy

    def crashed(self, kind: str) -> None:
        """K-17: the accumulator dies with the process, and what was in flight is in doubt."""
        for copy in self.holdings():
            self.messages.died(copy, ACCUMULATOR_LOST)
        for lane in self._lanes.values():
            lane.in_flight.clear()
        self._start_empty()

    def restarted(self) -> None:
        """A new session."""


class Lane:
    """The producer's connection to one broker, with up to max.in.flight.requests.per.connection on it."""

    def __init__(self, producer: Producer, broker: Broker) -> None:
        self.producer, self.broker, self.world = producer, broker, producer.world
        self.in_flight: dict[int, Pending] = {}
        self._number = 0
        self._limit = producer.settings.max_in_flight_requests_per_connection
        self.is_open = False
        kafka, settings = producer.kafka, producer.settings
        there = Hop("publish", dropped=self._dropped, broken=SOCKET_CUT)
        self.connection: Connection = kafka.client_connection(
            producer.host, broker, there, Hop("confirm"), settings, opened=self._opened, broken=self._broken
        )

    def _opened(self) -> None:
        self.is_open = True
        self.pump()

    def pump(self) -> None:
        """Send what is due."""
        producer = self.producer
        while self.is_open and len(self.in_flight) < self._limit:
            batch = producer.due(self.broker)
            if batch is None:
                return
            producer.taken(batch)
            self._send(batch)

    def _send(self, batch: Pending) -> None:
        producer = self.producer
        self._number = number = self._number + 1
        settings = producer.settings
        size = int(batch.size * settings.compression_ratio)
        sent = Batch(
            list(batch.copies),
            size,
            producer.producer_id if producer.is_idempotent else -1,
            0,
            batch.sequence,
        )
        if producer.wants_answers:
            self.in_flight[number] = batch
            self.producer.host.call_later(settings.request_timeout, self._timed_out, number)
        else:
            producer.unsent[number] = batch.copies  # K-08: done when it is written to the socket
            producer._in_flight[batch.partition] -= 1
            producer._release(batch)
        self.connection.there.send(self._arrives, number, batch.partition, sent)

    def _arrives(self, number: int, partition: Partition, batch: Batch) -> None:
        """At the broker."""
        producer = self.producer
        if not producer.wants_answers:
            producer.unsent.pop(number, None)
        self.broker.produce(partition, batch, producer.settings.acks, partial(self._answer, number, batch))

    def _answer(self, number: int, batch: Batch, error: str, offset: int, at: float) -> None:
        if self.producer.wants_answers:
            self.connection.back.send_at(max(at, self.world.now), self._answered, number, error)
        elif error != OK:
            for copy in batch.copies:
                self.producer.messages.died(copy, SOCKET_CUT)

    def _answered(self, number: int, error: str) -> None:
        batch = self.in_flight.pop(number, None)
        if batch is not None:
            self.producer.answered(batch, error)
        self.pump()

    def _timed_out(self, number: int) -> None:
        """No answer for request.timeout.ms: the connection is closed, and everything on it is sent again."""
        if number in self.in_flight:
            self.connection.broken(self.producer.host)

    def _broken(self) -> None:
        """K-13: what was in flight may be in the log or not."""
        self.is_open = False
        lost, self.in_flight = list(self.in_flight.values()), {}
        for batch in reversed(lost):
            batch.is_in_doubt = True
            self.producer._in_flight[batch.partition] -= 1
            self.producer.retry(batch)

    def _dropped(self, number: int, cause: int) -> None:
        for copy in self.producer.unsent.pop(number, ()):
            self.producer.messages.died(copy, cause)


def is_idempotent(settings: ProducerClient) -> bool:
    """Whether producer ids are used: as asked, or where acks, retries and in-flight allow it (section 2)."""
    is_possible = (
        settings.acks == "all"
        and settings.retries > 0
        and settings.max_in_flight_requests_per_connection <= 5
    )
    return is_possible if settings.enable_idempotence is None else settings.enable_idempotence
