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
from sim.brokers.kafka.causes import COMMITTED_EARLY, NEVER_SEEN, NOT_COMMITTED, POLL_EXCEEDED, REVOKED
from sim.brokers.kafka.cluster import REQUEST, Broker, Leadership, Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.connection import Connection
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Kafka
    from sim.brokers.kafka.group import Group
    from sim.consuming import Worker

METADATA = 0.1  # seconds between looks for a leader (retry.backoff.ms)

Record = tuple[Partition, int, int]  # partition, offset, copy


class Consumer:
    """A member of a group: the client library of one of a service's processes."""

    def __init__(self, kafka: Kafka, worker: Worker, group: Group, settings: ConsumerClient) -> None:
        self.kafka, self.world, self.worker, self.group, self.settings = (
            kafka,
            kafka.world,
            worker,
            group,
            settings,
        )
        self.host, self.pairs, self.name = worker.host, group.pairs, worker.host.name
        self.commits_first = worker.settles_first
        worker.settles_first = (
            False  # what comes first here is the commit of a poll, not the answer to a record
        )
        self._sessions: dict[Broker, FetchSession] = {}
        self._start_empty()
        for broker in kafka.brokers:
            self._sessions[broker] = FetchSession(self, broker)
        self.coordinator = kafka.coordinator_link(self)
        self.host.residents.append(self)

    def _start_empty(self) -> None:
        self.generation = -1
        self.assigned: dict[Partition, None] = {}
        self.fetch_from: dict[Partition, int] = {}
        self.position: dict[Partition, int] = {}
        self.committed: dict[Partition, int] = {}
        self.epochs: dict[Partition, int] = {}  # leader epochs of the records last fetched
        self.buffer: deque[Record] = deque()  # fetched, not polled
        self.batch: deque[Record] = deque()  # polled, not handed to a handler yet
        self.at_work: dict[int, Record] = {}  # at handlers, by the copy that was delivered
        self.done: dict[Partition, int] = {}  # offsets below were processed since the last commit
        self._processed = 0
        self._is_polling = False
        self._is_joined = False
        self._has_to_rejoin = False
        self._is_committing = False
        self._is_looking = False
        self._next_auto_commit = 0.0
        self._polls = 0

    def call(self, handler: Callable[..., Any], *args: Any) -> None:
        """At the coordinator: tell this member something."""
        self.coordinator.tell(handler, *args)

    # -- membership --------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The coordinator can be reached."""
        if not self._is_joined:
            self._join()

    def _join(self) -> None:
        self._is_polling = False
        self.coordinator.ask(self.group.join, self, self._told_assignment)

    def told_to_rejoin(self) -> None:
        """K-34: a heartbeat's answer says that the group rebalances: the next poll() joins again."""
        self._has_to_rejoin = True
        if not self.at_work and not self.batch and not self._is_committing:
            self._poll()

    def _told_assignment(self, generation: int, partitions: list[Partition]) -> None:
        self.call(self._assigned, generation, list(partitions))

    def _assigned(self, generation: int, partitions: list[Partition]) -> None:
        self._is_joined, self._has_to_rejoin = True, False
        self.generation = generation
        kept = [p for p in partitions if p in self.assigned]
        self._drop([p for p in self.assigned if p not in kept])
        self.assigned = dict.fromkeys(partitions)
        new = [p for p in partitions if p not in kept]
        if new:
            self.coordinator.ask(self._offsets_asked, new)
        self._next_auto_commit = self.world.now + self.settings.auto_commit_interval
        self._fetch_all()
        self._poll()

    def _drop(self, partitions: list[Partition]) -> None:
        gone = dict.fromkeys(partitions)
        for partition in partitions:
            self.fetch_from.pop(partition, None)
            self.position.pop(partition, None)
            self.epochs.pop(partition, None)
            self.done.pop(partition, None)
            self.assigned.pop(partition, None)
        self.buffer = deque(record for record in self.buffer if record[0] not in gone)
        self.batch = deque(record for record in self.batch if record[0] not in gone)

    def _offsets_asked(self, partitions: list[Partition]) -> None:
        """At the coordinator: OffsetFetch."""
        self.call(self._offsets_told, {p: self.group.valid_offset(p) for p in partitions})

    def _offsets_told(self, offsets: dict[Partition, int | None]) -> None:
        """K-40: start from the committed offset, or from where auto.offset.reset says."""
        for partition, offset in offsets.items():
            if partition in self.assigned:
                if offset is None:
                    offset = self._reset(partition)
                self.fetch_from[partition] = self.position[partition] = self.committed[partition] = offset
        self._fetch_all()

    def _reset(self, partition: Partition) -> int:
        log = self.kafka.log_of(partition)
        if self.settings.auto_offset_reset == "earliest":
            return log.start
        self.kafka.skipped(self.group, partition, log.start, log.end, NEVER_SEEN)
        return log.end

    # -- poll() ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """The application's thread calls poll()."""
        if not self.host.is_running or not self._is_joined or self._is_committing:
            return
        if self._has_to_rejoin:
            self._rejoin()
            return
        settings = self.settings
        if settings.enable_auto_commit and self.world.now >= self._next_auto_commit:
            self._next_auto_commit = self.world.now + settings.auto_commit_interval
            self._commit(self._returned(), then=None)  # K-36: what the polls before this one returned
        if not self.buffer:
            self._is_polling = True
            return
        self._is_polling = False
        self._polls += 1
        for _ in range(min(settings.max_poll_records, len(self.buffer))):
            record = self.buffer.popleft()
            self.batch.append(record)
            self.position[record[0]] = record[1] + 1
        self._fetch_all()
        if self.commits_first and not settings.enable_auto_commit:  # K-38
            self._commit(self._returned(), then=self._hand_over)
            return
        self._watch_poll_interval(self._polls)
        self._hand_over()
        if settings.hands_off:
            self.host.call_later(0.0, self._poll)  # K-37: poll goes on, whatever the workers do

    def _returned(self) -> dict[Partition, int]:
        return {p: offset for p, offset in self.position.items() if offset != self.committed.get(p)}

    def _hand_over(self) -> None:
        while self.batch and (len(self.at_work) < self.worker.slots or self.settings.hands_off):
            partition, offset, copy = self.batch.popleft()
            group = self.group
            if offset < group.delivered_to.get(partition, 0):
                copy = self.pairs.requeue(copy, group.cause_of_rewind.get(partition, NOT_COMMITTED))
                self.pairs.stored(copy)
                self.pairs.sent(copy)
                self.pairs.delivered(copy)
            else:
                group.delivered_to[partition] = offset + 1
            self.at_work[copy] = (partition, offset, copy)
            self.worker.on_delivery(Delivery(self, copy, copy))

    def settle(self, tag: int, outcome: str) -> None:
        """A handler is done with a record. One that failed is tried again: the partition waits for it (K-07)."""
        record = self.at_work.get(tag)
        if record is None:
            return
        if outcome != "ok":
            self.host.call_later(0.0, self._again, tag)
            return
        del self.at_work[tag]
        partition, offset, _ = record
        if partition in self.assigned:
            self.done[partition] = max(self.done.get(partition, 0), offset + 1)
        self._processed += 1
        every = self.settings.commit_every
        if every is not None and not self.settings.enable_auto_commit and self._processed % every == 0:
            self._commit(dict(self.done), then=self._go_on)  # K-39
        else:
            self._go_on()

    def _again(self, tag: int) -> None:
        if tag in self.at_work:
            self.worker.on_delivery(Delivery(self, tag, tag))

    def _go_on(self) -> None:
        if self.batch:
            self._hand_over()
        elif not self.at_work and not self.settings.hands_off:
            if self._commits_per_poll() and self.done:
                self._commit(dict(self.done), then=self._poll)
            else:
                self._poll()

    def _commits_per_poll(self) -> bool:
        settings = self.settings
        return not settings.enable_auto_commit and not self.commits_first

    def _watch_poll_interval(self, poll: int) -> None:
        self.host.call_later(self.settings.max_poll_interval, self._poll_exceeded, poll)

    def _poll_exceeded(self, poll: int) -> None:
        """K-35: the application has not polled for too long: the member leaves by itself."""
        if poll != self._polls or not self._is_joined or (not self.at_work and not self.batch):
            return
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = POLL_EXCEEDED
        self.coordinator.ask(self.group.leave, self)
        self._drop(list(self.assigned))
        self._is_joined = False
        self.generation = -1
        self._has_to_rejoin = True
        self._is_joined = True  # it joins again with its next poll()

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

    def _commit(self, offsets: dict[Partition, int], then: Callable[[], Any] | None) -> None:
        """OffsetCommit; commitSync blocks the thread until the answer (`then`), an automatic one does not."""
        if not offsets:
            if then is not None:
                then()
            return
        if then is not None:
            self._is_committing = True
        self.coordinator.ask(
            self.group.commit, self, self.generation, offsets, partial(self._committed, offsets, then)
        )

    def _committed(self, offsets: dict[Partition, int], then: Callable[[], Any] | None, error: str) -> None:
        self.call(self._commit_told, offsets, then, error)

    def _commit_told(self, offsets: dict[Partition, int], then: Callable[[], Any] | None, error: str) -> None:
        if then is not None:
            self._is_committing = False
        if error == "NONE":
            self.committed.update(offsets)
            for partition, offset in offsets.items():
                if self.done.get(partition, 0) <= offset:
                    self.done.pop(partition, None)
        else:
            self._has_to_rejoin = True  # CommitFailed: the group has gone on without this member
        if then is not None:
            then()

    # -- fetching ----------------------------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        """Ask the leaders for what is not buffered; look again in a while for those that cannot be reached."""
        wanted: dict[Broker, None] = {}
        is_complete = True
        for partition in self.assigned:
            leader = self.kafka.leader_known(partition)
            if leader is not None and partition in self.fetch_from:
                wanted[leader] = None
            is_complete &= leader is not None
        for leader in wanted:
            self._sessions[leader].fetch()
            is_complete &= self._sessions[leader].is_open
        if not is_complete and not self._is_looking:
            self._is_looking = True
            self.world.in_background(METADATA, self._look_again, self.host.epoch)

    def _look_again(self, epoch: int) -> None:
        if epoch == self.host.epoch:
            self._is_looking = False
            self._fetch_all()

    def diverged(self, partition: Partition, offset: int) -> None:
        """KIP-320: the log was truncated below what was read; go on from where it diverges."""
        if partition in self.fetch_from:
            self.buffer = deque(record for record in self.buffer if record[0] is not partition)
            self.fetch_from[partition] = self.position[partition] = offset
            self.epochs.pop(partition, None)

    def fetched(self, partition: Partition, start: int, records: list[int], epoch: int) -> None:
        """Records of a fetch response, the last one of that leader epoch."""
        if self.fetch_from.get(partition) != start:
            return  # the partition was revoked meanwhile, or its position moved
        self.epochs[partition] = epoch
        for i, copy in enumerate(records):
            if copy >= -(1 << 39):
                self.pairs.delivered(copy)
                self.buffer.append((partition, start + i, copy))
        self.fetch_from[partition] = start + len(records)
        if self._is_polling and self.buffer:
            self._poll()

    # -- failure -----------------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """K-33, K-38: positions are gone. What was committed and not processed is lost."""
        for partition, offset, copy in [*self.batch, *self.at_work.values()]:
            if offset < self.group.committed.get(partition, 0):
                self.pairs.died(copy, COMMITTED_EARLY)
        for partition in self.assigned:
            self.group.cause_of_rewind[partition] = NOT_COMMITTED
        for session in self._sessions.values():
            session.forget()
        self._start_empty()

    def restarted(self) -> None:
        """A new member, once it reaches the coordinator."""


class FetchSession:
    """The consumer's fetches from one broker: one at a time, which waits there until there is something (K-43)."""

    def __init__(self, consumer: Consumer, broker: Broker) -> None:
        self.consumer, self.broker, self.world = consumer, broker, consumer.world
        self._number = 0
        self._is_under_way = False
        self._asked: dict[Partition, tuple[int, int]] = {}
        self._is_waiting = False
        self.is_open = False
        self.connection: Connection = consumer.kafka.client_connection(
            consumer.host,
            broker,
            Hop("ack"),
            Hop("delivery"),
            consumer.settings,
            opened=self._opened,
            broken=self._broken,
            server_broken=self._gone,
        )

    def _opened(self) -> None:
        self.is_open = True
        self.fetch()

    def _broken(self) -> None:
        self.is_open = self._is_under_way = False
        self.consumer._fetch_all()

    def forget(self) -> None:
        """The process has died."""
        self.is_open = self._is_under_way = False

    def fetch(self) -> None:
        """Send a fetch for all partitions led there that are not buffered."""
        consumer = self.consumer
        if not self.is_open:
            return
        buffered = {record[0] for record in consumer.buffer} if consumer.buffer else ()
        asked = {
            partition: (offset, consumer.epochs.get(partition, -1))
            for partition, offset in consumer.fetch_from.items()
            if partition not in buffered and consumer.kafka.leader_known(partition) is self.broker
        }
        if not asked or (self._is_under_way and asked == self._asked):
            return
        self._number += 1
        self._is_under_way = True
        self._asked = asked
        self.connection.there.send(self._arrives, 0, self._number, asked)

    # -- at the broker -----------------------------------------------------------------------------------------

    def _gone(self) -> None:
        self._stop_waiting()

    def _arrives(self, _control: int, number: int, asked: dict[Partition, tuple[int, int]]) -> None:
        self._stop_waiting()
        self._at_broker, self._at_broker_number = asked, number
        self._is_waiting = True
        if not self._answer():
            for partition in asked:
                leadership = self.broker.leads.get(partition)
                if leadership is not None:
                    leadership.readers[self] = None

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            for partition in self._at_broker:
                leadership = self.broker.leads.get(partition)
                if leadership is not None:
                    leadership.readers.pop(self, None)

    def wake(self, leadership: Leadership) -> None:
        """Records were committed, or the broker leads no more."""
        if self._is_waiting:
            self._answer()

    def _answer(self) -> bool:
        consumer = self.consumer
        found: list[tuple[Partition, int, list[int], int]] = []
        is_lost = False
        for partition, (offset, epoch) in self._at_broker.items():
            leadership = self.broker.leads.get(partition)
            if leadership is None:
                is_lost = True
                continue
            limit = leadership.high_watermark
            if consumer.settings.isolation_level == "read_committed":
                limit = leadership.log.last_stable(limit)
            log = leadership.log
            agreed = min(offset, log.end_of_epoch(epoch)) if epoch >= 0 else offset
            if agreed < offset:
                found.append((partition, -2, [], agreed))
            elif offset < log.start or offset > log.end:
                found.append((partition, -1, [], -1))
            elif offset < limit:
                records = log.read(offset, limit, consumer.settings)
                found.append((partition, offset, records, log.epoch_at(offset + len(records) - 1)))
        if not found and not is_lost:
            return False
        self._stop_waiting()
        at = self.broker.work(REQUEST)
        for _, _, copies, _ in found:
            for copy in copies:
                consumer.pairs.sent(copy)
        self.connection.back.send_at(at, self._received, 0, self._at_broker_number, found, is_lost)
        return True

    # -- at the consumer ---------------------------------------------------------------------------------------

    def _received(self, _control: int, number: int, found: list[Any], is_lost: bool) -> None:
        if number != self._number:
            return
        self._is_under_way = False
        for partition, start, records, epoch in found:
            if start == -2:
                self.consumer.diverged(partition, epoch)
            elif start == -1:
                self.consumer._offsets_told({partition: None})  # K-40: out of range
            else:
                self.consumer.fetched(partition, start, records, epoch)
        if is_lost:
            self.consumer.host.call_later(
                0.1, self.consumer._fetch_all
            )  # refresh metadata, then ask the new leader
        self.fetch()
