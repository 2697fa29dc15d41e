"""The producer: an accumulator of batches per partition, and requests to the leaders (K-08 to K-20).

`send()` only adds a record to its partition's batch; a second thread sends what is full, or has lingered long enough.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.apps import PRODUCER_CRASHED
from sim.brokers.kafka.causes import (
    ACCUMULATOR_LOST,
    BUFFER_FULL,
    DELIVERY_TIMEOUT,
    NOT_ENOUGH_REPLICAS,
    RETRIED,
    SENT_AGAIN,
    TOO_LARGE,
)
from sim.brokers.kafka.lane import Lane, OneWayLane
from sim.brokers.kafka.log import FENCED, OK, OUT_OF_ORDER, Batch
from sim.brokers.kafka.metadata import Metadata
from sim.brokers.kafka.partitioner import next_partition, partition_of
from sim.brokers.kafka.replication import NOT_ENOUGH, NOT_LEADER, Partition
from sim.brokers.kafka.sequences import Sequences
from sim.brokers.kafka.settings import ProducerClient, is_idempotent
from sim.brokers.kafka.transactions import TransactionManager
from sim.ledger import USUAL_SIZE
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.topic import Topic


@dataclass(eq=False, slots=True)
class ProducerBatch(Batch):
    """A batch in the producer: in the accumulator, in flight, or waiting to be sent again. Times in s.

    `memory` are the bytes of buffer.memory that it takes, full or not. `was_appended`: some leader has, or may have,
    put it into its log; only the books ask.
    """

    partition: Partition = None  # type: ignore[assignment]
    memory: int = 0
    created: float = 0.0
    sent: float = 0.0
    sent_to: Broker | None = None
    attempts: int = 0
    not_before: float = 0.0
    error: str = ""
    was_appended: bool = False
    is_over: bool = False  # it was given up; an answer that comes yet tells nobody anything


class Producer:
    """A producing application's client library."""

    def __init__(self, topic: Topic, sender: Sender, settings: ProducerClient) -> None:
        self.topic, self.world, self.sender, self.settings = topic, topic.world, sender, settings
        self.messages, self.host = topic.messages, sender.host
        self.is_ready = True
        wants_answers = settings.acks != "0"
        if not wants_answers:
            sender.resend = None  # nobody will ever tell it anything
        rule = sender.resend
        self._is_final = rule is None or (rule.timeout is None and rule.attempts is None)
        self.is_idempotent = is_idempotent(settings)
        self.transactions: TransactionManager | None = None
        self._is_one_at_a_time = settings.max_in_flight_requests_per_connection == 1
        self._is_free = not (self.is_idempotent or self._is_one_at_a_time)  # no batch waits for another
        self._linger, self._batch_size = settings.linger, settings.batch_size
        self._ratio, self._memory = settings.compression_ratio, settings.buffer_memory
        self._largest = min(settings.max_request_size, settings.buffer_memory)
        self._lone_partition = topic.partitions[0] if len(topic.partitions) == 1 else None
        name = f"{sender.host.name}.{topic.name}"
        self._jitter = topic.world.uniforms(f"{name}.retries")
        self._chance = topic.world.uniforms(f"{name}.partitioner")
        app = topic.sim.config.producers.get(self.host.group)
        self._has_keys = app is not None and app.app.keys is not None
        self._key_partitions: dict[str, Partition] = {}
        lane = Lane if wants_answers else OneWayLane
        self.lanes = {broker: lane(self, broker) for broker in topic.cluster.brokers}
        self.metadata = Metadata(
            self.host,
            topic,
            {broker: lane.connection for broker, lane in self.lanes.items()},
            settings.metadata_max_age,
            self.pump,
            self._grown,
        )
        self._start_empty()
        self.host.residents.append(self)
        if settings.transactional:
            self.use_transactions(
                sender.host.name, settings.transaction_timeout, settings.transaction_interval
            )

    def _start_empty(self) -> None:
        """A new process: a new producer id, an empty accumulator (K-16, K-17)."""
        partitions = self.metadata.partitions
        self.queues: dict[Partition, deque[ProducerBatch]] = {p: deque() for p in partitions}
        self.waiting: dict[Partition, None] = {}  # partitions whose queues are not empty
        self.in_flight: dict[Partition, int] = dict.fromkeys(partitions, 0)
        self.begin_session(self.topic.cluster.new_producer_id() if self.is_idempotent else -1, 0)
        self.buffered = 0  # bytes of buffer.memory
        self._sticky = int(self._chance() * len(partitions))
        self._sticky_bytes = 0
        self._blocked: deque[int] = deque()  # copies whose send() waits for memory, or for the send() before
        self._blocked_since = math.inf  # since when the first of them does
        self._is_unblocking = False
        self.look_at = math.inf
        self._linger_until = -1.0  # what was created before that does not linger any more: flush()

    def begin_session(self, producer_id: int, epoch: int) -> None:
        """InitProducerId: sequences begin with 0."""
        self.producer_id, self.epoch = producer_id, epoch
        self.sequences = {partition: Sequences(epoch) for partition in self.metadata.partitions}

    def _grown(self, partition: Partition) -> None:
        """K-02: one more partition. Keys go elsewhere from now on, whatever of theirs still waits where they went."""
        self.queues[partition] = deque()
        self.in_flight[partition] = 0
        self.sequences[partition] = Sequences(self.epoch)
        self._lone_partition = None
        self._key_partitions.clear()

    def use_transactions(self, transactional_id: str, timeout: float, interval: float | None) -> None:
        """Write in transactions: committed every `interval` s, or by whoever calls `transactions.commit` (None)."""
        self.is_idempotent, self._is_free = True, False
        self.transactions = TransactionManager(self, transactional_id, timeout, interval)

    # -- send() ------------------------------------------------------------------------------------------------

    def publish(self, copy: int) -> None:
        """send(): the record joins its partition's batch. One thread sends: when it blocks, so do those after it."""
        messages = self.messages
        size = USUAL_SIZE if messages.sizes is None else messages.size_of(copy)
        if size > self._largest:
            messages.died(copy, TOO_LARGE)
            self.sender.returned(copy)
            return
        if self.transactions is not None and not self.transactions.takes(copy):
            return
        if self._blocked:
            self._blocked.append(copy)
        elif not self._append(copy, size):
            self._blocked.append(copy)
            self._block()

    def _append(self, copy: int, size: int) -> bool:
        """Put a record into a batch; False if there is no memory for the new one that it needs (K-19)."""
        if self._ratio != 1.0:
            size = max(1, int(size * self._ratio))
        partition, full = self._lone_partition or self._partition_of(copy), self._batch_size
        queue = self.queues[partition]
        batch = queue[-1] if queue else None
        if batch is not None and not batch.attempts and batch.size + size <= full:
            batch.copies.append(copy)
            batch.size += size
            is_due = batch.size >= full
        else:
            memory = size if size > full else full
            if self.buffered + memory > self._memory:
                return False
            self.buffered += memory
            new = ProducerBatch([copy], size)
            new.partition, new.memory, new.created = partition, memory, self.world.now
            is_due = size >= full or not self._linger
            if is_due and batch is None and self._is_free and self._send_at_once(new):
                is_due = False
            else:
                queue.append(new)
                self.waiting[partition] = None
                if self.look_at == math.inf:
                    self.look_before(self.world.now + self.settings.delivery_timeout)
                if not is_due:
                    self.host.call_later(self._linger, self.pump_to, partition)
                    is_due = batch is not None  # the one before is closed, then
        if self._lone_partition is None:
            self.messages.scoped(copy, partition.number)
            self._sticky_bytes += size
        if is_due:
            self.pump_to(partition)
        return True

    def _send_at_once(self, batch: ProducerBatch) -> bool:
        """The way of most where batches are of one record: nothing waits, and the leader's connection has room."""
        leader, now = self.metadata.leaders[batch.partition], self.world.now
        if self.waiting or leader is None or now >= self.metadata.expires_at:
            return False
        lane = self.lanes[leader]
        if not lane.has_room():
            return False
        self.in_flight[batch.partition] += 1
        batch.attempts, batch.sent, batch.sent_to = 1, now, leader
        lane.request([batch])
        return True

    def _partition_of(self, copy: int) -> Partition:
        """K-02: by key. K-03: without one, where the last went, until batch.size bytes did and a batch is full."""
        partitions = self.metadata.partitions
        if self._has_keys:
            key = self.messages.key_of(copy)
            partition = self._key_partitions.get(key)
            if partition is None:
                partition = self._key_partitions[key] = partitions[partition_of(key, len(partitions))]
            return partition
        if self._sticky_bytes >= self._batch_size:
            queue = self.queues[partitions[self._sticky]]
            is_full = not queue or queue[-1].size >= self._batch_size
            if is_full or self._sticky_bytes >= 2 * self._batch_size:
                if not self.waiting and self.metadata.knows_all:
                    chance = self._chance
                    self._sticky = int(chance() * len(partitions))  # all weigh the same
                else:
                    leaders = self.metadata.leaders
                    queued = [None if leaders[p] is None else len(self.queues[p]) for p in partitions]
                    self._sticky = next_partition(queued, self._chance())
                self._sticky_bytes = 0
        return partitions[self._sticky]

    def _block(self) -> None:
        """K-19: the first send() in line waits for memory, for max.block.ms; all that wait send at once, though."""
        self._blocked_since = now = self.world.now
        self.host.call_later(self.settings.max_block, self._blocked_too_long, now)
        self.pump()

    def _blocked_too_long(self, since: float) -> None:
        """K-19: max.block.ms is over for the first in line; only now the application calls send() again."""
        if since != self._blocked_since:
            return
        copy = self._blocked.popleft()
        self._blocked_since = math.inf
        self._report_failure(copy, BUFFER_FULL)
        self._unblock()

    def _unblock(self) -> None:
        """K-19: memory may be free again."""
        if self._is_unblocking:
            return  # what is sent frees more: the loop below goes on
        self._is_unblocking = True
        while self._blocked:
            copy = self._blocked.popleft()
            since, self._blocked_since = self._blocked_since, math.inf
            if not self._append(copy, self.messages.size_of(copy)):
                self._blocked.appendleft(copy)
                self._blocked_since, taken = since, self.buffered
                if since == math.inf:
                    self._block()
                if self.buffered == taken:
                    break
        self._is_unblocking = False

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
        """The next request to that broker: nothing until a batch is due, then the first one of each partition."""
        now, leaders = self.world.now, self.metadata.leaders
        partitions: list[Partition] = []
        is_due = False
        for partition in self.waiting:
            if leaders[partition] is leader:
                queue = self.queues[partition]
                batch = queue[0]
                is_rested = now >= batch.not_before or batch.sent_to is not leader  # KIP-951
                if is_rested and (self._is_free or self._may_send(partition, batch)):
                    partitions.append(partition)
                    is_due = is_due or self._is_due(queue)
        return self._take(partitions, leader) if is_due else []

    def _is_due(self, queue: deque[ProducerBatch]) -> bool:
        """K-20: a batch is due when it is full, old enough or sent again; all are when somebody waits for memory."""
        batch = queue[0]
        return (
            len(queue) > 1
            or batch.size >= self._batch_size
            or self.world.now >= batch.created + self._linger
            or batch.attempts > 0
            or batch.created <= self._linger_until
            or bool(self._blocked)
        )

    def _may_send(self, partition: Partition, batch: ProducerBatch) -> bool:
        if self._is_one_at_a_time and self.in_flight[partition]:
            return False  # K-14: one after the other, so that a retry keeps the order
        if self.is_idempotent and not self.sequences[partition].may_send(batch):
            return False
        return self.transactions is None or self.transactions.may_send(partition)

    def _take(self, partitions: list[Partition], leader: Broker) -> list[ProducerBatch]:
        """Take batches out of their queues, up to max.request.size; partitions take turns."""
        if len(partitions) == 1:
            return [self._take_one(partitions[0], leader)]
        batches: list[ProducerBatch] = []
        size = 0
        for partition in partitions:
            size += self.queues[partition][0].size
            if batches and size > self.settings.max_request_size:
                break
            batches.append(self._take_one(partition, leader))
        return batches

    def _take_one(self, partition: Partition, leader: Broker) -> ProducerBatch:
        queue = self.queues[partition]
        batch = queue.popleft()
        del self.waiting[partition]
        if queue:
            self.waiting[partition] = None  # behind the others
        self.in_flight[partition] += 1
        if self.is_idempotent:
            if batch.sequence < 0:
                self.sequences[partition].number(batch, self.producer_id)
                batch.is_transactional = self.transactions is not None
        elif batch.attempts:
            cause = RETRIED if batch.was_appended else SENT_AGAIN
            batch.copies = [self.messages.copy(copy, cause) for copy in batch.copies]
        batch.attempts += 1
        batch.sent, batch.sent_to = self.world.now, leader
        return batch

    def flush(self) -> None:
        """Send everything now, whatever has lingered."""
        self._linger_until = self.world.now
        self.pump()

    def has_unanswered(self) -> bool:
        """Whether batches are queued or in flight."""
        return bool(self.waiting or self._blocked) or any(self.in_flight.values())

    def clear(self) -> None:
        """Forget what was not written: its transaction is aborted."""
        batches, blocked = self.batches(), list(self._blocked)
        for queue in self.queues.values():
            queue.clear()
        self.waiting.clear()
        self._blocked.clear()
        self._blocked_since = math.inf
        for batch in batches:
            self._abort(batch)
        for copy in blocked:
            self.messages.aborted(copy)
            self.refuse(copy)

    def _abort(self, batch: ProducerBatch) -> None:
        batch.is_over = True
        self.buffered -= batch.memory
        for copy in batch.copies:
            self.messages.aborted(copy)
            self.refuse(copy)

    # -- answers -----------------------------------------------------------------------------------------------

    def answered(self, batch: ProducerBatch, error: str) -> None:
        """The answer to one batch of a request."""
        partition = batch.partition
        self.in_flight[partition] -= 1
        if error == OK:
            if self.is_idempotent:
                self.sequences[partition].written(batch)
            if not batch.is_over:
                self.buffered -= batch.memory
                if self._blocked:
                    self._unblock()
                if self.transactions is None:
                    confirmed = self.sender.confirmed
                    for copy in batch.copies:
                        confirmed(copy)
                else:
                    self.transactions.written(batch.copies)
        elif error == FENCED and self.transactions is not None:
            self.transactions.fenced()
            if not batch.is_over:
                self._abort(batch)
        else:
            batch.error = error
            if error == NOT_LEADER:
                self.metadata.refresh()
            if not batch.is_over:
                self._failed(batch, error)
        if batch.is_over and self.transactions is not None:
            self.transactions.end_if_flushed()

    def written(self, batches: list[ProducerBatch]) -> None:
        """K-08: with acks=0 batches are over when they are in the socket."""
        for batch in batches:
            self.in_flight[batch.partition] -= 1
            self.buffered -= batch.memory
        if self._blocked:
            self._unblock()

    def not_answered(self, batch: ProducerBatch) -> None:
        """K-13: the connection is over without an answer."""
        self.in_flight[batch.partition] -= 1
        batch.was_appended = True  # for all that is known
        if not batch.is_over:
            self._failed(batch)
        elif self.transactions is not None:
            self.transactions.end_if_flushed()

    def _failed(self, batch: ProducerBatch, error: str = "") -> None:
        """K-13, K-15, K-18: send it again after the back-off, until delivery.timeout.ms is over.

        `error` is that of the last attempt; "" has had no answer.
        """
        settings = self.settings
        is_lasting = False
        if error in (OUT_OF_ORDER, FENCED) and self.is_idempotent:
            is_lasting = self.sequences[batch.partition].out_of_order(batch)
        if (
            self.world.now >= batch.created + settings.delivery_timeout
            or batch.attempts > settings.retries
            or (is_lasting and self.transactions is not None)  # which ends with it
        ):
            self.give_up(batch)
            return
        queue = self.queues[batch.partition]
        at = 0
        if self.is_idempotent:  # back in the order of sequences
            while at < len(queue) and 0 <= queue[at].sequence < batch.sequence:
                at += 1
        queue.insert(at, batch)
        self.waiting[batch.partition] = None
        backoff = min(settings.retry_backoff * 2.0 ** min(batch.attempts - 1, 20), settings.retry_backoff_max)
        backoff = min(backoff * (0.8 + 0.4 * self._jitter()), settings.retry_backoff_max)
        batch.not_before = self.world.now + backoff
        self.host.call_later(backoff, self.pump_to, batch.partition)

    def give_up(self, batch: ProducerBatch) -> None:
        """K-18: it is reported as failed, and may be in the log all the same (then this was not its end)."""
        cause = NOT_ENOUGH_REPLICAS if batch.error == NOT_ENOUGH else DELIVERY_TIMEOUT
        batch.is_over = True
        self.buffered -= batch.memory
        if batch.sequence >= 0:
            self.sequences[batch.partition].given_up(batch)
        if self.transactions is not None:
            self.transactions.failed()
            for copy in batch.copies:
                self.messages.aborted(copy)
                self.refuse(copy)
            return
        for copy in batch.copies:
            self._report_failure(copy, cause)
        self._unblock()
        self.pump_to(batch.partition)

    def _report_failure(self, copy: int, cause: int) -> None:
        """The callback of send(): an application that tries again by itself sends a new record (K-16)."""
        self.messages.died(copy, cause)
        if self._is_final:
            self.sender.returned(copy)
        else:
            self.refuse(copy)

    def refuse(self, copy: int) -> None:
        """The application hears that what it sent is not stored; the library may have sent a copy of that since."""
        message = self.messages.message_of(copy)
        self.sender.refused(self.sender.resent.get(message, message))

    # -- timeouts ----------------------------------------------------------------------------------------------

    def look_before(self, due: float) -> None:
        """Look at the timeouts at `due` (s) at the latest."""
        if due < self.look_at:
            self.look_at = due
            self.host.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        if due != self.look_at:
            return  # it was done sooner
        self.look_at = math.inf
        now, timeout = self.world.now, self.settings.delivery_timeout
        for partition, queue in self.queues.items():
            while queue and now >= queue[0].created + timeout:
                batch = queue.popleft()
                if not queue:
                    del self.waiting[partition]
                self.give_up(batch)
        for lane in self.lanes.values():
            lane.give_up_overdue()
        queued = [self.queues[partition][0].created + timeout for partition in self.waiting]
        next_due = min([*queued, *(lane.due() for lane in self.lanes.values())])
        if next_due < math.inf:
            self.look_before(max(now, next_due))

    # -- failure -----------------------------------------------------------------------------------------------

    def batches(self) -> list[ProducerBatch]:
        """What it has in its memory: in queues, in flight, in sockets."""
        found = [batch for queue in self.queues.values() for batch in queue]
        for lane in self.lanes.values():
            found += lane.batches()
        return found

    def holdings(self) -> list[int]:
        """Copies that it would still send."""
        held = [copy for batch in self.batches() for copy in batch.copies]
        return held + [*self._blocked, *(self.transactions.held() if self.transactions is not None else [])]

    def crashed(self, kind: str) -> None:
        """K-17: the accumulator dies with the process, and what was in flight is in doubt."""
        self.host.touched += len(self.holdings())
        for copy in self.holdings():  # in a send() that had not returned, if it stays at that
            self.messages.died(copy, PRODUCER_CRASHED)
        for batch in self.batches():
            for copy in batch.copies:
                self.messages.died(copy, ACCUMULATOR_LOST)  # what is in a socket may have another end yet
                if self.transactions is not None:
                    self.messages.aborted(copy)  # its transaction will be
        for lane in self.lanes.values():
            lane.crashed()
        self._start_empty()

    def restarted(self) -> None:
        """A new session."""
        self.metadata.start_empty()
