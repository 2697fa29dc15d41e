"""Transactions: the coordinator, which decides and writes markers, and the client's part of it (K-45 to K-49).

A transaction's records are in the logs at once. What they are worth the markers say, one in each partition: commit or
abort. Offsets that a consumer sends into the transaction count with its commit. An epoch for each session of a
transactional id fences the sessions before it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.log import ABORT, COMMIT, FENCED, OK, Batch
from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.offsets import Committed
from sim.brokers.kafka.replication import NO_COPY, NOT_LEADER, Leadership, Partition

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import Cluster
    from sim.brokers.kafka.group import Group
    from sim.brokers.kafka.producer import Producer

SCAN = 10.0  # seconds between looks for transactions that have run out of time
MARKER_BYTES = 78

Answer = Callable[..., Any]


@dataclass(eq=False, slots=True)
class Transaction:
    """What the coordinator knows of a transactional id. `timeout` and `began` in s."""

    producer_id: int
    epoch: int = -1
    timeout: float = 60.0
    began: float | None = None  # None while no transaction is open
    outcome: int = 0  # COMMIT or ABORT, once it is decided and until all markers are written
    # As which leadership each partition has its marker.
    partitions: dict[Partition, Leadership | None] = field(default_factory=dict)
    offsets: dict[Group, Committed] = field(default_factory=dict)
    then: list[Callable[[], Any]] = field(default_factory=list)


class TransactionCoordinator:
    """Its state is in the log of `__transaction_state`: while that has no leader, nothing is decided."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.world, self.topic = cluster, cluster.world, cluster.transactions
        self._of: dict[str, Transaction] = {}
        self._is_scanning = False
        self._number = 0
        self._unwritten: dict[int, Callable[[], Any]] = {}  # what goes on when the log has it
        self.topic.on_led = self._led

    def init(self, name: str, timeout: float, answer: Answer) -> None:
        """InitProducerId: a new session; one that is older is fenced, and its transaction aborted (K-47)."""
        transaction = self._of.get(name)
        if transaction is None:
            transaction = self._of[name] = Transaction(self.cluster.new_producer_id())
        transaction.timeout = timeout

        def begin() -> None:
            transaction.epoch += 1
            self._write(lambda: answer(transaction.producer_id, transaction.epoch))

        if transaction.outcome:
            transaction.then.append(begin)
        elif transaction.began is not None:
            transaction.epoch += 1
            transaction.then.append(begin)
            self._decide(transaction, ABORT)
        else:
            begin()

    def add_partition(self, name: str, epoch: int, partition: Partition, answer: Answer) -> None:
        """AddPartitionsToTxn: before the first write to each partition. It waits for the markers of the last one."""
        transaction = self._of[name]
        if epoch != transaction.epoch:
            answer(FENCED)
        elif transaction.outcome:
            transaction.then.append(lambda: self.add_partition(name, epoch, partition, answer))
        else:
            self._begin(transaction)
            transaction.partitions[partition] = None
            self._write(lambda: answer(OK))

    def add_offsets(
        self,
        name: str,
        epoch: int,
        group: Group,
        generation: int,
        member: Any,
        offsets: Committed,
        answer: Answer,
    ) -> None:
        """AddOffsetsToTxn and TxnOffsetCommit; the group refuses a member of an old generation (KIP-447)."""
        transaction = self._of[name]
        if epoch != transaction.epoch:
            answer(FENCED)
        elif transaction.outcome:
            transaction.then.append(
                lambda: self.add_offsets(name, epoch, group, generation, member, offsets, answer)
            )
        else:
            error = group.refusal(member, generation)
            if error is None:
                self._begin(transaction)
                transaction.offsets.setdefault(group, {}).update(offsets)
            self._write(lambda: answer(error or OK))

    def end(self, name: str, epoch: int, outcome: int, answer: Answer) -> None:
        """EndTxn: decided, and answered, when the decision is in the log; the markers follow."""
        transaction = self._of[name]
        if epoch != transaction.epoch:
            answer(FENCED)
        elif transaction.began is None or transaction.outcome:
            answer(OK)  # there was nothing to decide, or it is decided already
        else:
            if outcome == ABORT:
                transaction.epoch += 1  # what is on its way yet will be refused (KIP-890)
            self._decide(transaction, outcome, lambda: answer(OK))

    def _begin(self, transaction: Transaction) -> None:
        if transaction.began is None:
            transaction.began = self.world.now
            if not self._is_scanning:
                self._is_scanning = True
                self.topic.call_later(SCAN - self.world.now % SCAN, self._scan)

    def _scan(self) -> None:
        """K-46: a transaction that is open for too long is aborted, and its producer fenced."""
        self._is_scanning = False
        for transaction in self._of.values():
            began = math.inf if transaction.began is None or transaction.outcome else transaction.began
            if self.world.now >= began + transaction.timeout:
                transaction.epoch += 1
                self._decide(transaction, ABORT)
        if any(t.began is not None for t in self._of.values()):
            self._is_scanning = True
            self.topic.call_later(SCAN, self._scan)

    # -- the two phases ----------------------------------------------------------------------------------------

    def _write(self, then: Callable[[], Any]) -> None:
        """Write the state to the log, and go on when it is committed there."""
        self._number += 1
        self._unwritten[self._number] = then
        self._append(self._number)

    def _append(self, number: int) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error != OK:
                self.topic.call_later(RETRY_BACKOFF, self._append, number)
            elif number in self._unwritten:
                self._unwritten.pop(number)()

        if number in self._unwritten:
            self.topic.write(0, told)

    def _led(self, _broker: Broker) -> None:
        """A new coordinator writes what the one before had no answer for."""
        for number in list(self._unwritten):
            self._append(number)

    def _decide(
        self, transaction: Transaction, outcome: int, decided: Callable[[], Any] = lambda: None
    ) -> None:
        """PrepareCommit or PrepareAbort; from now on there is no way back."""
        transaction.outcome = outcome

        def prepared() -> None:
            decided()
            if outcome == ABORT:
                transaction.offsets.clear()
            for group in list(transaction.offsets):
                self._commit_offsets(transaction, group)
            for partition in list(transaction.partitions):
                self._mark(transaction, partition)
            self._complete_if_marked(transaction)

        self._write(prepared)

    def _commit_offsets(self, transaction: Transaction, group: Group) -> None:
        """The marker in `__consumer_offsets`: the offsets count from now on. Again and again until it is written."""
        offsets = transaction.offsets.get(group)
        if offsets is None or transaction.outcome != COMMIT:
            return

        def told(error: str) -> None:
            if error == OK and transaction.offsets.get(group) is offsets:
                del transaction.offsets[group]
                self._complete_if_marked(transaction)

        self.topic.call_later(10 * RETRY_BACKOFF, self._commit_offsets, transaction, group)
        group.offsets.commit(group.name, offsets, told)

    def holds(self, group: Group, partitions: list[Partition]) -> bool:
        """Whether a transaction that is not over has offsets of these partitions in it."""
        return any(p in t.offsets.get(group, ()) for t in self._of.values() for p in partitions)

    def _mark(self, transaction: Transaction, partition: Partition) -> None:
        """Send a marker to the partition's leader; again and again until it is written."""
        if partition not in transaction.partitions or not transaction.outcome:
            return
        coordinator, leader = self.topic.coordinator, partition.leader
        self.topic.call_later(10 * RETRY_BACKOFF, self._mark, transaction, partition)
        if coordinator is None or leader is None:
            return
        if coordinator is leader:
            self._write_marker(NO_COPY, transaction, partition)
            return
        link = self.cluster.link(coordinator, leader)
        if link.is_established:
            link.there.send(self._write_marker, NO_COPY, transaction, partition)

    def _write_marker(self, _copy: int, transaction: Transaction, partition: Partition) -> None:
        """At the leader. An abort is marked also where nothing is: what comes late will be refused (KIP-890)."""
        leader = partition.leader
        leadership = None if leader is None else leader.leads.get(partition)
        if leader is None or leadership is None or not transaction.outcome:
            return
        if transaction.partitions.get(partition, leadership) is leadership:
            return  # it is in the log already, and not committed yet

        def written(error: str, _offset: int, _at: float) -> None:
            if transaction.partitions.get(partition) is not leadership:
                return
            if error == OK:
                del transaction.partitions[partition]
                self._complete_if_marked(transaction)
            else:
                transaction.partitions[partition] = None

        log, producer = leadership.log, transaction.producer_id
        is_marked = transaction.outcome == COMMIT or log.knows(producer, transaction.epoch)
        transaction.partitions[partition] = leadership
        if producer in log.ongoing or not is_marked:
            marker = Batch(
                [transaction.outcome],
                MARKER_BYTES,
                transaction.producer_id,
                transaction.epoch,
                control=transaction.outcome,
            )
            leader.produce(partition, marker, "all", written)
        elif leadership.high_watermark >= leadership.start:
            written(OK, -1, self.world.now)
        else:
            written(NOT_LEADER, -1, self.world.now)  # a leader before this one wrote it: not yet committed

    def _complete_if_marked(self, transaction: Transaction) -> None:
        if transaction.outcome and not (transaction.partitions or transaction.offsets):
            transaction.outcome, transaction.began = 0, None
            then, transaction.then = transaction.then, []
            for function in then:
                function()


class TransactionManager:
    """The client's part: one transaction after the other, each with the records that were sent since the last.

    With an `interval` (s) the application commits so long after it began each; without one, `commit` is called.
    """

    def __init__(self, producer: Producer, name: str, timeout: float, interval: float | None) -> None:
        self.producer, self.host, self.world = producer, producer.host, producer.world
        self.name, self.timeout, self.interval = name, timeout, interval
        cluster = producer.topic.cluster
        self.coordinator = cluster.transaction_coordinator
        cluster.enable_transactions()
        self.link = CoordinatorLink(cluster.transactions, self.host, producer.settings)
        self.host.residents.append(self)
        self._start_empty()
        producer.world.call_later(0.0, self._init, self.host.epoch)

    def _start_empty(self) -> None:
        self.is_ready = False  # a session is open, and no transaction is about to end
        self._is_failed = False
        self._is_beginning = True  # a session is being opened
        self._ends: Callable[[], Any] | None = None  # what ends this one, once all is written
        self._then: Callable[[str], Any] | None = None  # who waits for that end
        self._number = 0
        self._is_open = False
        self._added: dict[Partition, bool] = {}  # partitions of this transaction: whether that was confirmed
        self._copies: list[int] = []  # records of this transaction that are in the logs
        self._held: deque[int] = deque()  # send() waits until the next transaction can begin
        self._waits: Callable[[], Any] | None = None  # and so does commit()

    def _init(self, epoch: int) -> None:
        self._is_beginning = True
        if epoch == self.host.epoch and self.host.is_up:
            self.link.ask(self.coordinator.init, self.name, self.timeout, then=self._initialised)

    def _initialised(self, producer_id: int, epoch: int) -> None:
        producer = self.producer
        producer.begin_session(producer_id, epoch)
        self._next()

    def _next(self) -> None:
        """Another transaction may begin."""
        self.is_ready, self._is_open, self._is_failed = True, False, False
        self._is_beginning = False
        self._number += 1
        self._added.clear()
        self._copies = []
        while self._held and self.is_ready:
            self.producer.publish(self._held.popleft())
        if self._waits is not None:
            waits, self._waits = self._waits, None
            waits()

    # -- records -----------------------------------------------------------------------------------------------

    def takes(self, copy: int) -> bool:
        """Whether a record may join the transaction now; else it is kept for the next one."""
        if not self.is_ready:
            self._held.append(copy)
            return False
        if self._is_failed:  # send() raises; what became of it the application hears with the abort
            self._copies.append(copy)
            self.producer.messages.aborted(copy)
            return False
        if not self._is_open:
            self._is_open = True
            if self.interval is not None:
                self.host.call_later(self.interval, self._interval_over, self._number)
        return True

    def _interval_over(self, number: int) -> None:
        if number == self._number and self.is_ready:
            self.commit(None, lambda error: None)

    def may_send(self, partition: Partition) -> bool:
        """Whether the coordinator knows that the transaction writes to a partition; if not, tell it."""
        if partition not in self._added:
            self._added[partition] = False
            epoch = self.producer.epoch
            self.link.ask(
                self.coordinator.add_partition,
                self.name,
                epoch,
                partition,
                then=lambda error: self._partition_added(partition, error),
            )
        return self._added[partition]

    def _partition_added(self, partition: Partition, error: str) -> None:
        if error == FENCED:
            self.fenced()
        else:
            self._added[partition] = True
            self.producer.pump_to(partition)

    def written(self, copies: list[int]) -> None:
        """Records of this transaction were acknowledged."""
        self._copies += copies
        self.end_if_flushed()

    def failed(self) -> None:
        """A record could not be written: the transaction cannot be committed."""
        self._is_failed = True
        self.producer.clear()
        self.end_if_flushed()

    # -- the end -----------------------------------------------------------------------------------------------

    def commit(self, offsets: tuple[Group, int, Any, Committed] | None, then: Callable[[str], Any]) -> None:
        """commitTransaction(), after sendOffsetsToTransaction(): flush, then end it; `then(error)` is told."""
        if not self.is_ready:
            self._waits = lambda: self.commit(offsets, then)
            return
        self.is_ready, self._then = False, then
        if offsets is None:
            self._ends = lambda: self._end(COMMIT)
        else:
            self._ends = lambda: self._send_offsets(offsets)
        self.producer.flush()
        self.end_if_flushed()

    def abort(self, then: Callable[[str], Any]) -> None:
        """abortTransaction()."""
        if not self.is_ready:
            self._waits = lambda: self.abort(then)
            return
        self.is_ready, self._then = False, then
        self._is_failed = True
        self.producer.clear()
        self._end(ABORT)

    def end_if_flushed(self) -> None:
        """End the transaction if somebody wants that, and nothing is unanswered."""
        if self._ends is not None and not self.producer.has_unanswered():
            ends, self._ends = self._ends, None
            ends()

    def _send_offsets(self, offsets: tuple[Group, int, Any, Committed]) -> None:
        group, generation, member, positions = offsets

        def told(error: str) -> None:
            if error == FENCED:
                self.fenced()
            elif error != OK:
                self._end(ABORT, error)
            else:
                self._end(COMMIT)

        self.link.ask(
            self.coordinator.add_offsets,
            self.name,
            self.producer.epoch,
            group,
            generation,
            member,
            positions,
            then=told,
        )

    def _end(self, outcome: int, because: str = "ABORTED") -> None:
        """EndTxn; who waits for it hears of the commit, or why there is none."""
        if self._is_failed:
            outcome = ABORT

        def told(error: str) -> None:
            if error == FENCED:
                self.fenced()
                return
            then, self._then = self._then, None
            self._settle(outcome)
            if outcome == ABORT:
                self._init(self.host.epoch)  # a new epoch: sequences begin anew (KIP-360)
            else:
                self._next()
            if then is not None:
                then(OK if outcome == COMMIT else because)

        self.link.ask(self.coordinator.end, self.name, self.producer.epoch, outcome, then=told)

    def _settle(self, outcome: int) -> None:
        """The application hears how it ended."""
        sender = self.producer.sender
        for copy in self._copies:
            if outcome != COMMIT:
                self.producer.refuse(copy)
            elif sender.resend is None:
                sender.messages.confirmed(copy)
            else:
                sender.confirmed(copy)

    def fenced(self) -> None:
        """ProducerFenced: a newer session has taken the id over; this one can only begin anew."""
        if self._is_beginning:
            return
        self.is_ready, self._ends = False, None
        then, self._then = self._then, None
        self.producer.clear()
        for copy in self._copies:
            self.producer.refuse(copy)
        self._copies = []
        self._is_open = False
        self.link.forget()
        self._init(self.host.epoch)
        if then is not None:
            then(FENCED)

    # -- failure -----------------------------------------------------------------------------------------------

    def held(self) -> list[int]:
        """Copies that it would still send."""
        return list(self._held)

    def crashed(self, kind: str) -> None:
        """The transaction stays open until another session, or its timeout, aborts it."""
        self.link.forget()
        self._start_empty()

    def restarted(self) -> None:
        """A new session of the same transactional id."""
        self._init(self.host.epoch)
