"""The consumer: the poll loop of an application's thread, with a thread beside it that sends heartbeats.

`poll()` returns up to max.poll.records; the application processes them; the next poll() may commit what the last one
returned. *Position* (what poll() returns next) is in this memory, *committed* is in the coordinator's log. How it
becomes a member of its group is in `membership.py`, how it gets its records in `subscription.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED, OK, Delivery
from sim.brokers.kafka.causes import (
    COMMITTED_EARLY,
    NOT_COMMITTED,
    POLL_EXCEEDED,
    TRANSACTION_ABORTED,
)
from sim.brokers.kafka.cluster import Sessions
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.group import (
    ILLEGAL_GENERATION,
    REBALANCE_IN_PROGRESS,
    STALE_MEMBER_EPOCH,
    UNKNOWN_MEMBER,
    intervals,
)
from sim.brokers.kafka.log import ABORT, FENCED
from sim.brokers.kafka.log import OK as NO_ERROR
from sim.brokers.kafka.membership import ClassicMembership, ConsumerMembership, Membership
from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.brokers.kafka.subscription import Record, Subscription
from sim.brokers.kafka.transactions import TransactionManager

if TYPE_CHECKING:
    from sim.brokers.kafka.group import Group
    from sim.brokers.kafka.topic import Topic
    from sim.consuming import Worker


class Consumer(Subscription):
    """A member of a group: the client library of one of a service's processes."""

    def __init__(self, topic: Topic, worker: Worker, group: Group, settings: ConsumerClient) -> None:
        super().__init__(topic, worker.host, group, settings)
        self.worker, self.name = worker, worker.host.name
        self.commits_first = worker.settles_first and not settings.enable_auto_commit
        # What comes first here is the commit of a poll, not the answer to a record.
        worker.settles_first = False
        # Without automatic commits: all of a poll at once before the next one (None), or so many records.
        commits_after = not (settings.enable_auto_commit or self.commits_first)
        self._commit_every = settings.commit_every if commits_after else None
        self._commits_polls = commits_after and settings.commit_every is None
        is_classic = settings.group_protocol == "classic"
        self.membership: Membership = (ClassicMembership if is_classic else ConsumerMembership)(self, group)
        self._start_empty()
        self.coordinator = CoordinatorLink(
            topic.cluster.offsets,
            self.host,
            settings,
            Sessions(*intervals(settings)),
            connected=self._connected,
            silent=lambda: group.silent(self),
        )
        self.world.call_later(0.0, self._begin)
        group.clients.append(self)
        self.host.residents.append(self)
        self.output: TransactionManager | None = None
        if settings.transactional or (settings.transactional is None and self._publishes_here(worker)):
            self.output = self._output_in_transactions(worker)
        self.commits_before_revocation = (
            settings.enable_auto_commit or settings.commits_when_revoked or self.output is not None
        )

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
        self.batch: deque[Record] = deque()  # polled, not handed to a handler yet
        self.at_work: dict[int, tuple[Partition | None, int]] = {}  # at handlers: where a copy is from
        self.done: Positions = {}  # offsets below were processed, unless they are still at work
        self.has_raised = False
        self._is_begun = False
        self._processed = 0
        self._is_polling = False  # the thread is inside poll()
        self._is_closed = False
        self._is_blocked = False  # it waits for a commit
        self._resumes_poll = False  # and does so inside poll()
        self._in_poll: deque[Callable[[], Any]] = deque()
        self._owes_commit = False
        self._has_to_abort = False  # the open transaction has output of records that are another's by now
        self._next_auto_commit = 0.0
        self._is_auto_commit_due = False
        self._polled_at = 0.0
        self._is_watched = False

    def _connected(self) -> None:
        """The coordinator can be reached (again)."""
        self.membership.connected()

    def _begin(self) -> None:
        """The application subscribes, and calls poll() for the first time."""
        if self._is_begun or not self.host.is_up:
            return
        self._is_begun = self._is_polling = True
        self._next_auto_commit = self.world.now + self.settings.auto_commit_interval
        self.membership.start()

    # -- partitions come and go --------------------------------------------------------------------------------

    def in_poll(self, function: Callable[..., Any], *args: Any) -> None:
        """Do something as soon as the application's thread is inside poll()."""
        self._in_poll.append(partial(function, *args))
        if self._is_polling:
            self._poll()

    def before_revocation(self, then: Callable[[], Any]) -> None:
        """K-34: what there is to commit before partitions go, and then go on."""
        offsets: Positions = {}
        if self.settings.enable_auto_commit:
            offsets = self._returned()
        elif self.commits_before_revocation:
            offsets = self._finished()
        self._commit(offsets, then=then)

    def give_up(self, partitions: list[Partition], cause: int) -> None:
        """These partitions are another's: forget what was fetched of them; what was polled will be processed."""
        gone = self.forget(partitions)
        for partition in partitions:
            self.group.cause_of_rewind[partition] = cause
            self.done.pop(partition, None)
        self.batch = deque((None, n, copy) if p in gone else (p, n, copy) for p, n, copy in self.batch)
        for copy, (partition_of, offset) in self.at_work.items():
            if partition_of in gone:
                self.at_work[copy] = (None, offset)
        self.fetch_all()  # what was buffered of it keeps no other partition waiting

    def raise_error(self) -> None:
        """The application stops, and whoever starts it again sees it stop again."""
        if not self.has_raised:
            self.has_raised = True
            self.in_poll(self.close)

    def grown(self, partition: Partition) -> None:
        """The topic has one more partition, which the group may have to share out."""
        self.membership.grown()

    # -- poll() ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """The application's thread calls poll(), or something happens inside it."""
        if self._is_blocked or not self._is_begun:
            return
        self._is_polling = False
        self._polled_at = now = self.world.now
        while self._in_poll:
            self._in_poll.popleft()()
            if self._is_blocked or not self._is_begun:
                self._resumes_poll = True
                return
        settings = self.settings
        if settings.enable_auto_commit:
            if now >= self._next_auto_commit:
                self._next_auto_commit = now + settings.auto_commit_interval
                self._commit(self._returned(), then=None)  # K-36: what the polls before this one returned
        elif settings.hands_off or self._owes_commit:
            self._commit_between_polls()
        if not self.buffer and not self.kept:
            self._is_polling = True
            if settings.enable_auto_commit and not self._is_auto_commit_due and self._returned():
                self._is_auto_commit_due = True
                self.host.call_at(self._next_auto_commit, self._auto_commit_is_due)
            return
        self._take(settings.max_poll_records)
        if not self.batch:
            self._poll()  # there were markers only
            return
        if not self._is_watched:
            self._watch_poll_interval()
        if self.commits_first:
            self._commit(self._returned(), then=self._begin_batch)  # K-38
        elif settings.hands_off:
            self._begin_batch()
        else:
            self._hand_over()

    def _begin_batch(self) -> None:
        """What was polled goes to handlers; to a pool of them all at once, and poll() goes on (K-37)."""
        self._hand_over()
        if self.settings.hands_off:
            self.host.call_later(0.0, self._poll)

    def look_at_buffer(self) -> None:
        """The thread waits in poll(): there may be something for it."""
        if self._is_polling and self.buffer:
            self._poll()

    def _auto_commit_is_due(self) -> None:
        self._is_auto_commit_due = False
        if self._is_polling:
            self._poll()

    def _commit_between_polls(self) -> None:
        if self.settings.commit_every is None or self._owes_commit:
            self._owes_commit = False
            self._commit(self._finished(), then=None)

    def _take(self, limit: int) -> None:
        """Take up to `limit` records out of the buffer, and fetch more of what is empty now."""
        buffer, batch, kept = self.buffer, self.batch, self.kept
        has_room = False
        aside = []
        while buffer and limit > 0:
            part = buffer[0]
            partition, first, records = part.partition, part.taken, part.records
            if kept and partition in kept:
                aside.append(buffer.popleft())
                continue
            offset, last = part.start + first, len(records)
            if first or limit < last:
                last = min(last, first + limit)
                records = records[first:last]
            for copy in records:
                if copy > ABORT:  # else a marker, or what compaction or an abort has taken away
                    batch.append((partition, offset, copy))
                    limit -= 1
                offset += 1
            self.position[partition] = offset
            self.polled_epochs[partition] = part.epoch
            part.taken = last
            if last == len(part.records):
                buffer.popleft()
                del self.buffered[partition]
                has_room = True
        if kept:
            buffer.extendleft(reversed(aside))
            for partition, (records_kept, end) in kept.items():
                batch.extend(records_kept)
                self.position[partition] = end
            kept.clear()
        if has_room:
            self.fetch_all()

    def _hand_over(self) -> None:
        batch, at_work, worker = self.batch, self.at_work, self.worker
        limit = worker.slots if not self.settings.hands_off else len(batch) + len(at_work)
        while batch and len(at_work) < limit:
            partition, offset, copy = batch.popleft()
            at_work[copy] = (partition, offset)
            worker.on_delivery(Delivery(self, copy, copy))
        if not batch and not at_work:
            self._go_on()  # the commit before them has failed

    def settle(self, tag: int, outcome: str) -> None:
        """A handler is done with a record. One that failed is tried again: its partition waits for it (K-07)."""
        if tag not in self.at_work:
            return
        if outcome != OK and not self.commits_first:
            self._try_again(tag)
            return
        if outcome != OK:
            self.pairs.died(tag, HANDLER_FAILED)  # its offset is committed
        partition, offset = self.at_work.pop(tag)
        if partition is None:
            self._has_to_abort = self.output is not None
        elif offset >= self.done.get(partition, 0):
            self.done[partition] = offset + 1
        if self._commit_every is not None:
            self._processed += 1
            if self._processed % self._commit_every == 0 and not self._is_blocked:
                self._commit(self._finished(), then=None if self.settings.hands_off else self._go_on)  # K-39
                return
        self._go_on()

    def _try_again(self, tag: int) -> None:
        """Of one thread's partition, what was polled waits for the next poll(), as if it had sought back to it."""
        partition, offset = self.at_work[tag]
        if self.worker.slots > 1 or self.settings.hands_off:
            self.host.call_later(0.0, self._again, tag)
            return
        del self.at_work[tag]
        if partition is not None:
            rest = [record for record in self.batch if record[0] is partition]
            self.batch = deque(record for record in self.batch if record[0] is not partition)
            self._keep(partition, [(partition, offset, tag), *rest])
            self.fetch_all()  # what is buffered of it keeps no other partition waiting
        self.host.call_later(0.0, self._go_on)

    def _keep(self, partition: Partition, records: list[Record]) -> None:
        self.kept[partition] = (records, self.position[partition])
        self.position[partition] = records[0][1]

    def _again(self, tag: int) -> None:
        if tag in self.at_work:
            self.worker.on_delivery(Delivery(self, tag, tag))

    def _go_on(self) -> None:
        if self._is_blocked or self._is_polling or self.settings.hands_off:
            return
        if self.batch:
            self._hand_over()
        elif self.at_work:
            return
        elif self._has_to_abort:
            self._abort(then=self._poll)
        elif self._commits_polls:
            self._commit(self._finished(), then=self._poll)
        else:
            self._poll()

    def _returned(self) -> Positions:
        """What poll() has returned and is not committed."""
        return {p: offset for p, offset in self.position.items() if offset != self.committed.get(p)}

    def _finished(self) -> Positions:
        """Offsets below which all is processed, and is not committed."""
        if not self.done:
            return {}
        ends = dict(self.done)
        for partition, offset in self.at_work.values():
            if partition in ends and offset < ends[partition]:
                ends[partition] = offset
        return {p: offset for p, offset in ends.items() if offset > self.committed.get(p, -1)}

    # -- max.poll.interval.ms ----------------------------------------------------------------------------------

    def _watch_poll_interval(self) -> None:
        self._is_watched = True
        due = max(self.world.now, self._polled_at + self.settings.max_poll_interval)
        self.host.call_at(due, self._check_poll_interval)

    def _check_poll_interval(self) -> None:
        """K-35: the application has not polled for too long: the member leaves by itself, and the work goes on."""
        self._is_watched = False
        if self._is_polling or not self._is_begun:
            return
        if self.world.now < self._polled_at + self.settings.max_poll_interval:
            self._watch_poll_interval()
            return
        if self.membership.member is None:
            return
        self.membership.leave()
        self._in_poll.clear()
        if self.output is not None and not self._is_blocked:  # else a commit is under way, to be refused
            self._has_to_abort = True
        self.give_up(list(self.assigned), POLL_EXCEEDED)
        self.in_poll(self.membership.join_again)

    # -- commits -----------------------------------------------------------------------------------------------

    def _commit(self, offsets: Positions, then: Callable[[], Any] | None) -> None:
        """OffsetCommit; commitSync blocks the thread until the answer (`then`), an automatic one does not."""
        if not offsets:
            if then is not None:
                then()
            return
        if then is not None:
            self._is_blocked = True
        self._ask_to_commit(offsets, then)

    def _ask_to_commit(self, offsets: Positions, then: Callable[[], Any] | None) -> None:
        offsets = {p: offset for p, offset in offsets.items() if p in self.assigned}
        told = partial(self._commit_told, offsets, then)
        with_epochs = {p: (offset, self.polled_epochs.get(p, -1)) for p, offset in offsets.items()}
        membership = self.membership
        if self._has_to_abort:
            self._abort(then=partial(told, UNKNOWN_MEMBER))
        elif membership.member is None:
            told(UNKNOWN_MEMBER)  # CommitFailed, without asking: it has left
        elif not offsets:
            told(NO_ERROR)
        elif self.output is not None:
            self.output.commit((self.group, membership.epoch, membership.member, with_epochs), told)
        else:
            self.coordinator.ask(
                self.group.commit, membership.member, membership.epoch, with_epochs, then=told
            )

    def _abort(self, then: Callable[[], Any]) -> None:
        """sendOffsetsToTransaction() would raise CommitFailed: abortTransaction(), which blocks the thread."""
        assert self.output is not None
        self._has_to_abort, self._is_blocked = False, True

        def aborted(_error: str) -> None:
            self._is_blocked = False
            then()

        self.output.abort(aborted)

    def _commit_told(self, offsets: Positions, then: Callable[[], Any] | None, error: str) -> None:
        if error == STALE_MEMBER_EPOCH and self.output is None:
            # It is told its epoch meanwhile.
            self.host.call_later(RETRY_BACKOFF, self._ask_to_commit, offsets, then)
            return
        if then is not None:
            self._is_blocked = False
        if error == NO_ERROR:
            for partition, offset in offsets.items():
                if partition in self.assigned:
                    self.committed[partition] = offset
                    if self.done.get(partition, offset + 1) <= offset:
                        del self.done[partition]
        else:
            self._commit_failed(error)
        if then is not None:
            then()
        if self._resumes_poll and not self._is_blocked:
            self._resumes_poll = False
            self._poll()

    def _commit_failed(self, error: str) -> None:
        if self.output is not None:
            self._begin_again(error)
        elif error == REBALANCE_IN_PROGRESS or (error == ILLEGAL_GENERATION and self.membership.is_joining):
            self._owes_commit = True  # it may be tried again when the rebalance is over
            if self.commits_first:
                self._put_back()
        else:
            self.membership.refused(error)
            if self.commits_first:  # K-38: commitSync() raises, and what was polled is not processed
                for _, _, copy in self.batch:
                    self.pairs.died(copy, COMMITTED_EARLY)  # its end, if only the answer was lost
                self.batch.clear()

    def _put_back(self) -> None:
        """What was polled and could not be committed first waits for the next poll()."""
        batch, self.batch = self.batch, deque()
        for partition in dict.fromkeys(record[0] for record in batch):
            if partition is not None:
                self._keep(partition, [record for record in batch if record[0] is partition])

    def _begin_again(self, error: str) -> None:
        """The transaction was aborted: read its input again, unless it is another's now."""
        partitions = list(self.assigned)
        self.give_up(partitions, TRANSACTION_ABORTED)
        if error in ("ABORTED", FENCED, STALE_MEMBER_EPOCH, REBALANCE_IN_PROGRESS):
            self.take_over(partitions)
        else:
            self.membership.refused(error)

    def stopping(self, done: Callable[[], Any]) -> None:
        """The process is told to end: what was polled is processed, and the next thing is close()."""
        if self._is_closed or not self._is_begun:
            done()
        else:
            self.in_poll(self.close, done)

    def close(self, done: Callable[[], Any] = lambda: None) -> None:
        """K-33: commit, as before a rebalance, and leave the group at once; `done()` when that is heard of."""
        self.before_revocation(partial(self._leave, done))

    def _leave(self, done: Callable[[], Any]) -> None:
        self._is_closed = self._is_blocked = True  # nobody polls any more
        self._in_poll.clear()
        if self.membership.member is None:
            done()
        else:
            self.membership.leave(then=done)
        self.give_up(list(self.assigned), NOT_COMMITTED)

    # -- failure -----------------------------------------------------------------------------------------------

    def held(self) -> Iterator[int]:
        """Copies that were polled and that no handler has."""
        for _, _, copy in self.batch:
            yield copy
        for records, _ in self.kept.values():
            yield from (copy for _, _, copy in records)

    def crashed(self, kind: str) -> None:
        """K-33, K-38: positions are gone. What was committed and not processed is lost."""
        for copy in [*self.held(), *self.at_work]:
            self.pairs.died(copy, COMMITTED_EARLY)  # its end, if its offset is committed, or about to be
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = NOT_COMMITTED
        for session in self.sessions.values():
            session.forget()
        self.coordinator.forget()
        self.membership.crashed()
        has_raised = self.has_raised
        self._start_empty()
        self.start_empty()
        self.has_raised = has_raised

    def restarted(self) -> None:
        """Another member."""
        self.has_raised = False
        self.metadata.start_empty()
        self._begin()
