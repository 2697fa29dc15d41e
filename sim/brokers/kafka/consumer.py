"""The consumer: the poll loop of an application's thread, with a thread beside it that sends heartbeats.

`poll()` returns up to max.poll.records; the application processes them; the next poll() may commit what the last one
returned. *Position* (what poll() returns next) is in this memory, *committed* is in the coordinator's log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.apps import Delivery
from sim.brokers.kafka.causes import (
    COMMITTED_EARLY,
    NEVER_SEEN,
    NOT_COMMITTED,
    POLL_EXCEEDED,
    RETENTION,
    REVOKED,
    TRANSACTION_ABORTED,
)
from sim.brokers.kafka.cluster import Sessions
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.fetching import DIVERGED, NOT_LEADER, Fetched, FetchSession
from sim.brokers.kafka.log import ABORT, FENCED, OK
from sim.brokers.kafka.metadata import RETRY_BACKOFF, Metadata
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.brokers.kafka.transactions import TransactionManager

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.group import Group
    from sim.brokers.kafka.topic import Topic
    from sim.consuming import Worker

Record = tuple[Partition, int, int]  # partition, offset, copy


class Consumer:
    """A member of a group: the client library of one of a service's processes."""

    def __init__(self, topic: Topic, worker: Worker, group: Group, settings: ConsumerClient) -> None:
        self.topic, self.world, self.worker, self.group, self.settings = (
            topic,
            topic.world,
            worker,
            group,
            settings,
        )
        self.host, self.pairs, self.name = worker.host, group.pairs, worker.host.name
        self.commits_first = worker.settles_first and not settings.enable_auto_commit
        worker.settles_first = (
            False  # what comes first here is the commit of a poll, not the answer to a record
        )
        self._start_empty()
        self.sessions = {broker: FetchSession(self, broker) for broker in topic.cluster.brokers}
        self.metadata = Metadata(
            self.host,
            topic.partitions,
            {broker: session.connection for broker, session in self.sessions.items()},
            settings.metadata_max_age,
            self.fetch_all,
        )
        self.coordinator = CoordinatorLink(
            topic.cluster.offsets,
            self.host,
            settings,
            Sessions(settings.heartbeat_interval, settings.session_timeout),
            connected=self._connected,
            heard=lambda: group.heard(self),
            silent=lambda: group.silent(self),
        )
        self.host.residents.append(self)
        self.output: TransactionManager | None = None
        if settings.transactional or (settings.transactional is None and self._publishes_here(worker)):
            self.output = self._output_in_transactions(worker)

    def _publishes_here(self, worker: Worker) -> bool:
        """Whether what the service publishes goes to a topic of the same cluster."""
        client: Any = None if worker.sender is None else worker.sender.client
        return getattr(getattr(client, "topic", None), "cluster", None) is self.topic.cluster

    def _output_in_transactions(self, worker: Worker) -> TransactionManager:
        """K-45: what the service publishes and its offsets are committed together."""
        sender = worker.sender
        assert sender is not None
        sender.resend = None  # the transaction is what is tried again
        producer: Any = sender.client
        producer.use_transactions(self.name, self.settings.transaction_timeout, None)
        manager: TransactionManager = producer.transactions
        return manager

    def _start_empty(self) -> None:
        self.generation = -1
        self.assigned: dict[Partition, None] = {}
        self.fetch_from: Positions = {}
        self.position: Positions = {}
        self.committed: Positions = {}
        self.epochs: dict[Partition, int] = {}  # leader epochs of the records last fetched
        self.buffer: deque[Fetched] = deque()  # fetched, not polled
        self.buffered: dict[Partition, None] = {}
        self.batch: deque[Record] = deque()  # polled, not handed to a handler yet
        self.at_work: dict[int, tuple[Partition, int]] = {}  # at handlers: where a copy is from
        self.done: Positions = {}  # offsets below were processed since the last commit
        self._processed = 0
        self._is_polling = False
        self._is_joined = False
        self._has_to_rejoin = False
        self._is_committing = False
        self._next_auto_commit = 0.0
        self._polls = 0
        self._polled_at = 0.0
        self._is_watched = False

    def tell(self, handler: Callable[..., Any], *args: Any) -> None:
        """At the coordinator: tell this member something."""
        self.coordinator.tell(handler, *args)

    # -- membership --------------------------------------------------------------------------------------------

    def _connected(self) -> None:
        """The coordinator can be reached."""
        if not self._is_joined:
            self._join()

    def _join(self) -> None:
        self._is_polling = False
        self.coordinator.ask(self.group.join, self, then=self._assigned)

    def told_to_rejoin(self) -> None:
        """K-34: a heartbeat's answer says that the group rebalances: the next poll() joins again."""
        self._has_to_rejoin = True
        if not self.at_work and not self.batch and not self._is_committing:
            self._poll()

    def _assigned(self, generation: int, partitions: list[Partition]) -> None:
        self._is_joined, self._has_to_rejoin = True, False
        self.generation = generation
        kept = [p for p in partitions if p in self.assigned]
        self._drop([p for p in self.assigned if p not in kept])
        self.assigned = dict.fromkeys(partitions)
        new = [p for p in partitions if p not in kept]
        if new:
            self.coordinator.ask(self.group.fetch_offsets, new, then=self._offsets_told)
        self._next_auto_commit = self.world.now + self.settings.auto_commit_interval
        self.fetch_all()
        self._poll()

    def _drop(self, partitions: list[Partition]) -> None:
        """These partitions are another's: forget what was fetched of them."""
        gone = dict.fromkeys(partitions)
        for partition in partitions:
            self.fetch_from.pop(partition, None)
            self.position.pop(partition, None)
            self.epochs.pop(partition, None)
            self.done.pop(partition, None)
            self.assigned.pop(partition, None)
            self.buffered.pop(partition, None)
        self.buffer = deque(part for part in self.buffer if part.partition not in gone)
        self.batch = deque(record for record in self.batch if record[0] not in gone)

    def _offsets_told(self, offsets: dict[Partition, int | None]) -> None:
        """K-40: start from the committed offset, or from where auto.offset.reset says."""
        for partition, offset in offsets.items():
            if partition in self.assigned:
                if offset is None:
                    offset = self._reset(partition, 0, NEVER_SEEN)
                self.fetch_from[partition] = self.position[partition] = self.committed[partition] = offset
                self.group.reads_from(partition, offset)
        self.fetch_all()

    def _reset(self, partition: Partition, read_before: int, cause: int) -> int:
        """K-40: where to start without a valid offset. Of what is skipped the books hear why."""
        log = partition.log()
        if self.settings.auto_offset_reset == "earliest":
            return log.start
        for copy in log.read(max(log.start, read_before), log.end):
            if copy > ABORT:
                self.pairs.died(copy, cause)
        return log.end

    # -- poll() ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """The application's thread calls poll()."""
        if not self._is_joined or self._is_committing or not self.host.is_running:
            return
        if self._has_to_rejoin:
            self._rejoin()
            return
        settings = self.settings
        self._polls += 1
        self._polled_at = now = self.world.now
        if settings.enable_auto_commit and now >= self._next_auto_commit:
            self._next_auto_commit = now + settings.auto_commit_interval
            self._commit(self._returned(), then=None)  # K-36: what the polls before this one returned
        self._is_polling = not self.buffer
        if not self.buffer:
            return
        self._take(settings.max_poll_records)
        if self.commits_first:  # K-38
            self._commit(self._returned(), then=self._hand_over)
            return
        if not self._is_watched:
            self._watch_poll_interval()
        self._hand_over()
        if settings.hands_off:
            self.host.call_later(0.0, self._poll)  # K-37: poll goes on, whatever the workers do

    def _take(self, limit: int) -> None:
        """Take up to `limit` records out of the buffer, and fetch more of what is empty now."""
        buffer, batch = self.buffer, self.batch
        has_room = False
        while buffer and limit > 0:
            part = buffer[0]
            partition, first = part.partition, part.taken
            records = part.records
            last = min(len(records), first + limit)
            offset = part.start + first
            for i in range(first, last):
                copy = records[i]
                if copy > ABORT:  # else a marker, or what compaction or an abort has taken away
                    batch.append((partition, offset, copy))
                    limit -= 1
                offset += 1
            self.position[partition] = offset
            part.taken = last
            if last == len(records):
                buffer.popleft()
                del self.buffered[partition]
                has_room = True
        if has_room:
            self.fetch_all()

    def _returned(self) -> Positions:
        return {p: offset for p, offset in self.position.items() if offset != self.committed.get(p)}

    def _hand_over(self) -> None:
        batch, at_work, group = self.batch, self.at_work, self.group
        limit = self.worker.slots if not self.settings.hands_off else len(batch) + len(at_work)
        while batch and len(at_work) < limit:
            partition, offset, copy = batch.popleft()
            if offset < group.delivered_to.get(partition, 0):
                copy = group.redelivered(partition, copy)
            else:
                group.delivered_to[partition] = offset + 1
            at_work[copy] = (partition, offset)
            self.worker.on_delivery(Delivery(self, copy, copy))
        if not batch and not at_work:
            self._go_on()

    def settle(self, tag: int, outcome: str) -> None:
        """A handler is done with a record. One that failed is tried again: the partition waits for it (K-07)."""
        record = self.at_work.get(tag)
        if record is None:
            return
        if outcome != "ok":
            self.host.call_later(0.0, self._again, tag)
            return
        del self.at_work[tag]
        partition, offset = record
        if partition in self.assigned and offset >= self.done.get(partition, 0):
            self.done[partition] = offset + 1
        settings = self.settings
        if settings.commit_every is not None and not settings.enable_auto_commit and not self.commits_first:
            self._processed += 1
            if self._processed % settings.commit_every == 0:
                self._commit(dict(self.done), then=self._go_on)  # K-39
                return
        self._go_on()

    def _again(self, tag: int) -> None:
        if tag in self.at_work:
            self.worker.on_delivery(Delivery(self, tag, tag))

    def _go_on(self) -> None:
        if self.batch:
            self._hand_over()
        elif not self.at_work and not self.settings.hands_off:
            if self.done and not self.settings.enable_auto_commit and not self.commits_first:
                self._commit(dict(self.done), then=self._poll)
            else:
                self._poll()

    def _watch_poll_interval(self) -> None:
        self._is_watched = True
        due = max(self.world.now, self._polled_at + self.settings.max_poll_interval)
        self.host.call_at(due, self._check_poll_interval)

    def _check_poll_interval(self) -> None:
        """K-35: the application has not polled for too long: the member leaves by itself."""
        self._is_watched = False
        if not (self.at_work or self.batch):
            return
        if self.world.now < self._polled_at + self.settings.max_poll_interval:
            self._watch_poll_interval()
            return
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = POLL_EXCEEDED
        self.coordinator.ask(self.group.leave, self)
        self._drop(list(self.assigned))
        self.generation = -1
        self._has_to_rejoin = True  # it joins again with its next poll()

    def _rejoin(self) -> None:
        """K-34: give up everything (eager), after committing what was returned (auto commit), and join again."""
        if self.settings.enable_auto_commit and self._returned():
            self._commit(self._returned(), then=self._join_again)
        else:
            self._join_again()

    def _join_again(self) -> None:
        is_cooperative = self.settings.partition_assignment_strategy == "cooperative-sticky"
        if not is_cooperative:
            for partition in self.assigned:
                self.group.cause_of_rewind[partition] = REVOKED
            self._drop(list(self.assigned))
        self._has_to_rejoin = False
        self._join()

    # -- commits -----------------------------------------------------------------------------------------------

    def _commit(self, offsets: Positions, then: Callable[[], Any] | None) -> None:
        """OffsetCommit; commitSync blocks the thread until the answer (`then`), an automatic one does not."""
        if not offsets:
            if then is not None:
                then()
            return
        if then is not None:
            self._is_committing = True
        told = partial(self._commit_told, offsets, then)
        if self.output is not None:
            self.output.commit((self.group, self.generation, self, offsets), told)
            return
        self.coordinator.ask(self.group.commit, self, self.generation, offsets, then=told)

    def _commit_told(self, offsets: Positions, then: Callable[[], Any] | None, error: str) -> None:
        if then is not None:
            self._is_committing = False
        if error == NOT_LEADER:  # the coordinator has moved
            self._commit(offsets, then)
            return
        if error == OK:
            self.committed.update(offsets)
            for partition, offset in offsets.items():
                if self.done.get(partition, 0) <= offset:
                    self.done.pop(partition, None)
        elif self.output is not None:
            self._begin_again(error)
        else:
            self._has_to_rejoin = True  # CommitFailed: the group has gone on without this member
            if self.commits_first:
                self.batch.clear()  # K-38: commitSync() raises, and what was polled is not processed
        if then is not None:
            then()

    def _begin_again(self, error: str) -> None:
        """The transaction was aborted: read its input again, unless it is another's now."""
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = TRANSACTION_ABORTED
        partitions = list(self.assigned)
        self._drop(partitions)
        if error in ("ABORTED", FENCED):
            self.assigned = dict.fromkeys(partitions)
            self.coordinator.ask(self.group.fetch_offsets, partitions, then=self._offsets_told)
        else:
            self._has_to_rejoin = True

    # -- fetching ----------------------------------------------------------------------------------------------

    def fetch_all(self) -> None:
        """Ask the leaders for what is not buffered."""
        metadata = self.metadata
        if self.world.now >= metadata.expires_at:
            metadata.refresh()
        for session in self.sessions.values():
            session.fetch()

    def positions_to_fetch(self, broker: Broker) -> dict[Partition, tuple[int, int]]:
        """Offset, and leader epoch of the record before it, of each partition to ask a broker for."""
        leaders, buffered, epochs = self.metadata.leaders, self.buffered, self.epochs
        return {
            partition: (offset, epochs.get(partition, -1))
            for partition, offset in self.fetch_from.items()
            if partition not in buffered and leaders[partition] is broker
        }

    def fetched(self, part: Fetched) -> None:
        """Records of a fetch response."""
        partition = part.partition
        if self.fetch_from.get(partition) != part.start:
            return  # the partition was revoked meanwhile, or its position moved
        self.epochs[partition] = part.epoch
        delivered = self.pairs.delivered
        for copy in part.records:
            if copy > ABORT:
                delivered(copy)
        self.buffer.append(part)
        self.buffered[partition] = None
        self.fetch_from[partition] = part.start + len(part.records)

    def look_at_buffer(self) -> None:
        """The thread waits in poll(): there may be something for it."""
        if self._is_polling and self.buffer:
            self._poll()

    def fetch_failed(self, part: Fetched) -> None:
        """A partition in a fetch response could not be read."""
        partition = part.partition
        if part.error == NOT_LEADER:
            self.host.call_later(RETRY_BACKOFF, self.metadata.refresh)
            self.host.call_later(RETRY_BACKOFF, self.fetch_all)
        elif self.fetch_from.get(partition) is not None:
            if part.error == DIVERGED:
                offset = part.start
            else:  # K-40, K-41
                offset = self._reset(partition, self.position[partition], RETENTION)
            self.fetch_from[partition] = self.position[partition] = offset
            self.group.reads_from(partition, offset)
            self.epochs.pop(partition, None)

    # -- failure -----------------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """K-33, K-38: positions are gone. What was committed and not processed is lost."""
        held = [*(copy for _, _, copy in self.batch), *self.at_work]
        for copy in held:
            self.pairs.died(copy, COMMITTED_EARLY)  # its end, if its offset is committed, or about to be
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = NOT_COMMITTED
        for session in self.sessions.values():
            session.forget()
        self.coordinator.forget()
        self._start_empty()

    def restarted(self) -> None:
        """A new member, once it reaches the coordinator."""
        self.metadata.start_empty()
