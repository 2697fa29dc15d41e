"""The producer: an accumulator of batches per partition, and requests to the leaders (K-08 to K-20).

`send()` only adds a record to its partition's batch; a second thread sends what is full, or has lingered long enough.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sim.brokers.kafka.causes import (
    ACCUMULATOR_LOST,
    BUFFER_FULL,
    DELIVERY_TIMEOUT,
    NOT_ENOUGH_REPLICAS,
    RETRIED,
    SOCKET_CUT,
    TOO_LARGE,
)
from sim.brokers.kafka.log import FENCED, OK, Batch
from sim.brokers.kafka.metadata import Metadata
from sim.brokers.kafka.partitioner import partition_of
from sim.brokers.kafka.replication import NOT_ENOUGH, NOT_LEADER, Partition
from sim.brokers.kafka.settings import ProducerClient
from sim.brokers.kafka.transactions import TransactionManager
from sim.connection import Connection
from sim.network import Hop
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.topic import Topic


@dataclass(eq=False, slots=True)
class ProducerBatch(Batch):
    """A batch in the producer: in the accumulator, in flight, or waiting to be sent again. Times in s."""

    partition: Partition = None  # type: ignore[assignment]
    created: float = 0.0
    sent: float = 0.0
    attempts: int = 0
    not_before: float = 0.0
    error: str = ""
    is_over: bool = False  # it was given up; an answer that comes yet tells nobody anything


class Producer:
    """A producing application's client library."""

    def __init__(self, topic: Topic, sender: Sender, settings: ProducerClient) -> None:
        self.topic, self.world, self.sender, self.settings = topic, topic.world, sender, settings
        self.messages, self.host = topic.messages, sender.host
        self.is_ready = True
        self.wants_answers = settings.acks != "0"
        if not self.wants_answers:
            sender.resend = None  # nobody will ever tell it anything
        self.is_idempotent = is_idempotent(settings)
        self.transactions: TransactionManager | None = None
        self._linger, self._batch_size = settings.linger, settings.batch_size
        self._lone_partition = topic.partitions[0] if len(topic.partitions) == 1 else None
        self._jitter = topic.world.uniforms(f"{sender.host.name}.{topic.name}.retries")
        self._key_partitions: dict[str, Partition] = {}
        self._start_empty()
        self.lanes = {broker: Lane(self, broker) for broker in topic.cluster.brokers}
        self.metadata = Metadata(
            self.host,
            topic.partitions,
            {broker: lane.connection for broker, lane in self.lanes.items()},
            settings.metadata_max_age,
            self.pump,
        )
        self.host.residents.append(self)
        if settings.transactional:
            self.use_transactions(
                sender.host.name, settings.transaction_timeout, settings.transaction_interval
            )

    def _start_empty(self) -> None:
        """A new process: a new producer id, an empty accumulator (K-16, K-17)."""
        self.producer_id = self.topic.cluster.new_producer_id() if self.is_idempotent else -1
        self.epoch = 0
        self.queues: dict[Partition, deque[ProducerBatch]] = {p: deque() for p in self.topic.partitions}
        self.in_flight: dict[Partition, int] = dict.fromkeys(self.topic.partitions, 0)
        self.sequences: dict[Partition, int] = dict.fromkeys(self.topic.partitions, 0)
        self.queued = 0  # batches in the queues
        self.buffered = 0
        self._stuck: dict[Partition, None] = {}  # a batch was given up: sequences begin anew (KIP-360)
        self._sticky = 0
        self._sticky_bytes = 0
        self._blocked: deque[tuple[int, float]] = deque()  # copies whose send() blocks, and since when
        self._is_watching = False
        self._linger_until = -1.0  # what was created before that does not linger any more: flush()

    def use_transactions(self, transactional_id: str, timeout: float, interval: float | None) -> None:
        """Write in transactions: committed every `interval` s, or by whoever calls `transactions.commit` (None)."""
        self.is_idempotent = True
        self.transactions = TransactionManager(self, transactional_id, timeout, interval)

    # -- send() ------------------------------------------------------------------------------------------------

    def publish(self, copy: int) -> None:
        """send(): the record joins its partition's batch, unless the buffer is full (K-19)."""
        size = self.messages.size_of(copy)
        if size > self.settings.max_request_size:
            self.messages.died(copy, TOO_LARGE)
            self.sender.returned(copy)
            return
        if self.settings.compression_ratio != 1.0:
            size = max(1, int(size * self.settings.compression_ratio))
        if self.transactions is not None and not self.transactions.takes(copy):
            return
        if self._blocked or self.buffered + size > self.settings.buffer_memory:
            self._blocked.append((copy, self.world.now))
            self.host.call_later(self.settings.max_block, self._blocked_too_long)
            return
        self._accept(copy, size)

    def _accept(self, copy: int, size: int) -> None:
        partition = self._lone_partition
        if partition is None:
            partition = self._partition_of(copy, size)
            self.messages.scoped(copy, partition.number)
        self.buffered += size
        queue = self.queues[partition]
        if queue:
            batch = queue[-1]
            if not batch.attempts and batch.sequence < 0 and batch.size + size <= self._batch_size:
                batch.copies.append(copy)
                batch.size += size
                if batch.size >= self._batch_size:
                    self.pump_to(partition)
                return
        queue.append(ProducerBatch([copy], size, partition=partition, created=self.world.now))
        self.queued += 1
        if not self._is_watching:
            self._watch()
        if self._linger and size < self._batch_size:
            self.host.call_later(self._linger, self.pump_to, partition)
            if len(queue) == 1:
                return
        self.pump_to(partition)

    def _partition_of(self, copy: int, size: int) -> Partition:
        """K-02: by key; K-03: without one, stick to a partition until batch.size bytes went there."""
        partitions = self.topic.partitions
        if self.messages.keys is not None:
            key = self.messages.key_of(copy)
            partition = self._key_partitions.get(key)
            if partition is None:
                partition = self._key_partitions[key] = partitions[partition_of(key, len(partitions))]
            return partition
        number = self._sticky
        self._sticky_bytes += size
        if self._sticky_bytes >= self._batch_size:
            self._sticky, self._sticky_bytes = (number + 1) % len(partitions), 0
        return partitions[number]

    def _blocked_too_long(self) -> None:
        """K-19: max.block.ms is over for the first in line."""
        while self._blocked and self.world.now >= self._blocked[0][1] + self.settings.max_block - 1e-9:
            copy, _ = self._blocked.popleft()
            self.messages.died(copy, BUFFER_FULL)
            self.sender.returned(copy)

    # -- the thread that sends ---------------------------------------------------------------------------------

    def pump_to(self, partition: Partition) -> None:
        """Send what is due for a partition, as far as its leader is known and requests in flight allow."""
        metadata = self.metadata
        leader = metadata.leaders[partition]
        if leader is None or self.world.now >= metadata.expires_at:
            metadata.refresh()
        if leader is not None:
            self.lanes[leader].pump()

    def pump(self) -> None:
        """Send what is due, to everybody."""
        for lane in self.lanes.values():
            lane.pump()

    def drain(self, leader: Broker) -> list[ProducerBatch]:
        """The batches of the next request to that broker, one of a partition: full, old enough, or in a queue."""
        now, leaders = self.world.now, self.metadata.leaders
        batches = []
        for partition, queue in self.queues.items():
            if queue and leaders[partition] is leader:
                batch = queue[0]
                is_due = (
                    len(queue) > 1
                    or batch.size >= self._batch_size
                    or now >= batch.created + self._linger
                    or batch.created <= self._linger_until
                    or batch.attempts
                )
                if is_due and now >= batch.not_before and self._may_send(partition, batch):
                    queue.popleft()
                    self.queued -= 1
                    self._taken(partition, batch)
                    batches.append(batch)
        return batches

    def _may_send(self, partition: Partition, batch: ProducerBatch) -> bool:
        if self.settings.max_in_flight_requests_per_connection == 1 and self.in_flight[partition]:
            return False  # K-14: one after the other, so that a retry keeps the order
        if partition in self._stuck:
            if self.in_flight[partition]:
                return False
            self._begin_sequences_anew(partition)
        return self.transactions is None or self.transactions.may_send(partition)

    def _begin_sequences_anew(self, partition: Partition) -> None:
        """KIP-360: nobody knows whether the batch that was given up is in the log: a new epoch forgets it."""
        del self._stuck[partition]
        self.epoch += 1
        self.sequences[partition] = 0
        for batch in self.queues[partition]:
            batch.sequence = -1

    def _taken(self, partition: Partition, batch: ProducerBatch) -> None:
        self.in_flight[partition] += 1
        if self.is_idempotent:
            if batch.sequence < 0:
                batch.producer, batch.epoch = self.producer_id, self.epoch
                batch.sequence = self.sequences[partition]
                batch.is_transactional = self.transactions is not None
                self.sequences[partition] += len(batch.copies)
        elif batch.attempts:
            batch.copies = [self.messages.copy(copy, RETRIED) for copy in batch.copies]
        batch.attempts += 1
        batch.sent = self.world.now

    def flush(self) -> None:
        """Send everything now, whatever has lingered."""
        self._linger_until = self.world.now
        self.pump()

    def has_unanswered(self) -> bool:
        """Whether batches are queued or in flight."""
        return any(self.queues.values()) or any(self.in_flight.values())

    def clear(self) -> None:
        """Forget what was not written: its transaction is aborted."""
        for batch in self.batches():
            batch.is_over = True
            self.buffered -= batch.size
            for copy in batch.copies:
                self.messages.aborted(copy)
                self.sender.refused(copy)
        for queue in self.queues.values():
            queue.clear()
        self.queued = 0

    # -- answers -----------------------------------------------------------------------------------------------

    def answered(self, batch: ProducerBatch, error: str) -> None:
        """The answer to one batch of a request."""
        self.in_flight[batch.partition] -= 1
        if batch.is_over:
            return
        if error == OK:
            self.buffered -= batch.size
            if self._blocked:
                self._unblock()
            if self.transactions is not None:
                self.transactions.written(batch.copies)
                return
            confirmed = self.sender.confirmed
            for copy in batch.copies:
                confirmed(copy)
        elif error == FENCED and self.transactions is not None:
            self.transactions.fenced()
        else:
            batch.error = error
            if error == NOT_LEADER:
                self.metadata.refresh()
            self.retry(batch)

    def retry(self, batch: ProducerBatch) -> None:
        """K-13, K-15, K-18: send it again after the back-off, until delivery.timeout.ms is over."""
        settings = self.settings
        backoff = min(settings.retry_backoff * 2.0 ** min(batch.attempts - 1, 20), settings.retry_backoff_max)
        backoff *= 0.8 + 0.4 * self._jitter()
        if (
            self.world.now + backoff >= batch.created + settings.delivery_timeout
            or batch.attempts > settings.retries
        ):
            self._give_up(batch)
            return
        queue = self.queues[batch.partition]
        at = 0
        if self.is_idempotent:  # back in the order of sequences
            while at < len(queue) and 0 <= queue[at].sequence < batch.sequence:
                at += 1
        queue.insert(at, batch)
        self.queued += 1
        batch.not_before = self.world.now + backoff
        self.host.call_later(backoff, self.pump_to, batch.partition)

    def _give_up(self, batch: ProducerBatch) -> None:
        """K-18: it is reported as failed, and may be in the log all the same (then this was not its end)."""
        cause = NOT_ENOUGH_REPLICAS if batch.error == NOT_ENOUGH else DELIVERY_TIMEOUT
        batch.is_over = True
        if batch.sequence >= 0:
            self._stuck[batch.partition] = None
        for copy in batch.copies:
            self.messages.died(copy, cause)
            self.sender.returned(copy)
        self.buffered -= batch.size
        if self.transactions is not None:
            self.transactions.failed()
        self._unblock()

    def _unblock(self) -> None:
        """K-19: memory is free again."""
        while self._blocked:
            copy, _ = self._blocked[0]
            size = self.messages.size_of(copy)
            if self.buffered + size > self.settings.buffer_memory:
                return
            self._blocked.popleft()
            self._accept(copy, size)

    def _watch(self) -> None:
        """Look at the timeouts when the oldest batch could be the first to reach one."""
        settings = self.settings
        now = self.world.now
        due = [
            *(queue[0].created + settings.delivery_timeout for queue in self.queues.values() if queue),
            *(lane.timeout() for lane in self.lanes.values() if lane.in_flight),
        ]
        self._is_watching = bool(due)
        if due:
            self.host.call_at(max(now, min(due)), self._look)

    def _look(self) -> None:
        now, settings = self.world.now, self.settings
        for queue in self.queues.values():
            while queue and now >= queue[0].created + settings.delivery_timeout:
                self.queued -= 1
                self._give_up(queue.popleft())
        for lane in self.lanes.values():
            lane.give_up_overdue()
        self._watch()

    # -- failure -----------------------------------------------------------------------------------------------

    def batches(self) -> list[ProducerBatch]:
        """What it has in its memory: in queues, in flight, in sockets."""
        found = [batch for queue in self.queues.values() for batch in queue]
        for lane in self.lanes.values():
            found += [batch for request in lane.in_flight.values() for batch in request if not batch.is_over]
            found += [batch for request in lane.unsent.values() for batch in request]
        return found

    def holdings(self) -> list[int]:
        """Copies that it would still send."""
        held = [copy for batch in self.batches() for copy in batch.copies]
        held += [copy for copy, _ in self._blocked]
        return held + (self.transactions.held() if self.transactions is not None else [])

    def crashed(self, kind: str) -> None:
        """K-17: the accumulator dies with the process, and what was in flight is in doubt."""
        held = self.holdings()
        self.host.touched += len(held)
        for copy in held:
            self.messages.died(copy, ACCUMULATOR_LOST)
        if self.transactions is not None:
            for batch in self.batches():
                for copy in batch.copies:
                    self.messages.aborted(copy)  # its transaction will be
        for lane in self.lanes.values():
            lane.in_flight.clear()
            lane.unsent.clear()
        self._start_empty()

    def restarted(self) -> None:
        """A new session."""
        self.metadata.start_empty()


class Lane:
    """The producer's connection to one broker, with up to max.in.flight.requests.per.connection on it."""

    def __init__(self, producer: Producer, broker: Broker) -> None:
        self.producer, self.broker, self.world = producer, broker, producer.world
        self.in_flight: dict[int, list[ProducerBatch]] = {}
        self.unsent: dict[int, list[ProducerBatch]] = {}  # acks=0: requests in the socket, by number
        self.is_open = False
        self._number = 0
        self._acks = producer.settings.acks
        self._limit = producer.settings.max_in_flight_requests_per_connection
        self.connection: Connection = producer.topic.cluster.client_connection(
            producer.host,
            broker,
            Hop("publish", dropped=self._dropped, broken=SOCKET_CUT, size_of=self._size_of),
            Hop("confirm"),
            producer.settings,
            client_opened=self._opened,
            client_broken=self._broken,
        )

    def _opened(self) -> None:
        self.is_open = True
        self.pump()

    def pump(self) -> None:
        """Send what is due."""
        producer = self.producer
        while producer.queued and self.is_open and len(self.in_flight) < self._limit:
            batches = producer.drain(self.broker)
            if not batches:
                return
            self._number = number = self._number + 1
            if producer.wants_answers:
                self.in_flight[number] = batches
                if not producer._is_watching:
                    producer._watch()
            else:
                self._done_when_written(number, batches)
            self.connection.there.send(self._arrives, number, batches)

    def _done_when_written(self, number: int, batches: list[ProducerBatch]) -> None:
        """K-08: with acks=0 a request is over when it is written to the socket."""
        producer = self.producer
        self.unsent[number] = batches
        for batch in batches:
            producer.in_flight[batch.partition] -= 1
            producer.buffered -= batch.size
        producer._unblock()

    def _size_of(self, number: int) -> int:
        batches = self.in_flight.get(number) or self.unsent.get(number, [])
        return sum(batch.size for batch in batches)

    # -- at the broker -----------------------------------------------------------------------------------------

    def _arrives(self, number: int, batches: list[ProducerBatch]) -> None:
        produce, acks = self.broker.produce, self._acks
        if not self.producer.wants_answers:
            self.unsent.pop(number, None)
            for batch in batches:
                produce(batch.partition, batch, acks, partial(self._not_answered, batch))
        elif len(batches) == 1:
            produce(batches[0].partition, batches[0], acks, partial(self._answer, number))
        else:
            response = Response(self, number, len(batches))
            for i, batch in enumerate(batches):
                produce(batch.partition, batch, acks, partial(response.add, i))

    def _answer(self, number: int, error: str, _offset: int, at: float) -> None:
        self.connection.back.send_at(at, self._answered, number, error)

    def _not_answered(self, batch: ProducerBatch, error: str, _offset: int, at: float) -> None:
        """K-08: of an error nobody is told; the broker closes the connection, so that the metadata is renewed."""
        if error != OK:
            for copy in batch.copies:
                self.producer.messages.died(copy, SOCKET_CUT)
            self.broker.host.call_at(at, self.connection.broken, self.broker.host)

    # -- at the producer ---------------------------------------------------------------------------------------

    def _answered(self, number: int, error: str) -> None:
        batches = self.in_flight.pop(number, None)
        if batches is not None:
            self.producer.answered(batches[0], error)
            self.pump()

    def answered_each(self, number: int, errors: list[str]) -> None:
        """The response to a request of several batches."""
        for batch, error in zip(self.in_flight.pop(number, []), errors, strict=False):
            self.producer.answered(batch, error)
        self.pump()

    def timeout(self) -> float:
        """When the oldest request has waited for request.timeout.ms, or its batch for delivery.timeout.ms (s)."""
        settings = self.producer.settings
        batch = next(iter(self.in_flight.values()))[0]
        due = batch.sent + settings.request_timeout
        return due if batch.is_over else min(due, batch.created + settings.delivery_timeout)

    def give_up_overdue(self) -> None:
        """No answer for request.timeout.ms: the connection is closed, and everything on it is sent again."""
        now, settings, producer = self.world.now, self.producer.settings, self.producer
        for batches in self.in_flight.values():
            for batch in batches:
                if not batch.is_over and now >= batch.created + settings.delivery_timeout:
                    producer._give_up(batch)
        if self.in_flight and now >= next(iter(self.in_flight.values()))[0].sent + settings.request_timeout:
            self.connection.broken(producer.host)

    def _broken(self) -> None:
        """K-13: what was in flight may be in the log or not."""
        self.is_open = False
        lost, self.in_flight = [batch for request in self.in_flight.values() for batch in request], {}
        for batch in reversed(lost):
            self.producer.in_flight[batch.partition] -= 1
            if not batch.is_over:
                self.producer.retry(batch)
        self.producer.metadata.refresh()

    def _dropped(self, number: int, cause: int) -> None:
        for batch in self.unsent.pop(number, ()):
            for copy in batch.copies:
                self.producer.messages.died(copy, cause)


class Response:
    """At the broker: the answer to a request of several batches, which leaves when all of them are decided."""

    def __init__(self, lane: Lane, number: int, count: int) -> None:
        self.lane, self.number, self.left = lane, number, count
        self.errors = [OK] * count

    def add(self, i: int, error: str, _offset: int, at: float) -> None:
        """The i-th batch is decided."""
        self.errors[i] = error
        self.left -= 1
        if not self.left:
            self.lane.connection.back.send_at(at, self.lane.answered_each, self.number, self.errors)


def is_idempotent(settings: ProducerClient) -> bool:
    """Whether producer ids are used: as asked, or where acks, retries and in-flight allow it (section 2)."""
    is_possible = (
        settings.acks == "all"
        and settings.retries > 0
        and settings.max_in_flight_requests_per_connection <= 5
    )
    if settings.transactional:
        return True
    return is_possible if settings.enable_idempotence is None else settings.enable_idempotence
