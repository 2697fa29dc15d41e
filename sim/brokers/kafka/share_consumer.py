"""The consumer of a share group (K-50): poll, process, acknowledge each record; the answers leave with a poll."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.apps import FAILED, HANDLER_FAILED, LATER, OK, Delivery
from sim.brokers.kafka.causes import COMMITTED_EARLY
from sim.brokers.kafka.cluster import Sessions
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.group import Member, intervals
from sim.brokers.kafka.metadata import RETRY_BACKOFF, Metadata
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import NO_COPY, Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.brokers.kafka.share import ACCEPT, REJECT, RELEASE, ShareGroup
from sim.connection import Connection
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.topic import Topic
    from sim.consuming import Worker

REJECTED = "rejected"
KINDS = {OK: ACCEPT, FAILED: RELEASE, LATER: RELEASE, REJECTED: REJECT}

Record = tuple[Partition, int, int]  # partition, offset, copy
Acks = dict[Partition, list[tuple[int, str]]]


class ShareConsumer:
    """A member of a share group: the client library of one of a service's processes. It is its own membership."""

    has_raised = False

    def __init__(self, topic: Topic, worker: Worker, group: Any, settings: ConsumerClient) -> None:
        assert isinstance(group, ShareGroup)
        self.topic, self.world, self.worker, self.group, self.settings = (
            topic,
            topic.world,
            worker,
            group,
            settings,
        )
        self.host, self.pairs, self.name = worker.host, group.pairs, worker.host.name
        self.accepts_first, worker.settles_first = worker.settles_first, False
        worker.discards_as = REJECTED
        self.position: Positions = {}  # it has none
        self.membership = self
        self._start_empty()
        self.sessions = {broker: ShareSession(self, broker) for broker in topic.cluster.brokers}
        self.metadata = Metadata(
            self.host,
            topic,
            {broker: session.connection for broker, session in self.sessions.items()},
            settings.metadata_max_age,
            self.fetch_all,
        )
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

    def _start_empty(self) -> None:
        self.member: Member | None = None
        self.assigned: list[Partition] = []
        self.buffer: deque[Record] = deque()  # acquired, not polled
        self.batch: deque[Record] = deque()  # polled, not handed to a handler yet
        self.at_work: dict[int, tuple[Partition, int]] = {}
        self.acks: Acks = {}
        self._settled = 0
        self._awaited = 0
        self._is_polling = True
        self._done: Callable[[], Any] | None = None  # the process is told to end, and wants to hear of it

    # -- membership --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.host.is_up and self.member is None and self._done is None:
            self.member = self.group.new_member(self)
            self._beat()

    def _connected(self) -> None:
        if self.member is not None:
            self._beat()

    def _beat(self) -> None:
        self.coordinator.ask(self.group.heartbeat, self.member, then=self.told)

    def told(self, member: Member, partitions: list[Partition] | None) -> None:
        """The answer to a heartbeat: what to fetch from; None means that the group has gone on without it."""
        if member is not self.member:
            return
        if partitions is None:
            self.member = None
            self._begin()
            return
        self.assigned = partitions
        self.metadata.ask_for(partitions)
        self.fetch_all()

    # -- poll() ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Acknowledge what the last poll returned, and take what is there."""
        if self._done is not None:
            self._close(self._done)
            return
        self._is_polling = not self.buffer
        if not self.buffer:
            self.fetch_all()
            return
        self._send_acks(lambda: None)
        for _ in range(min(len(self.buffer), self.settings.max_poll_records)):
            self.batch.append(self.buffer.popleft())
        if self.accepts_first:
            for partition, offset, _ in self.batch:
                self.acks.setdefault(partition, []).append((offset, ACCEPT))
            self._send_acks(self._hand_over)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, at_work, slots = self.batch, self.at_work, self.worker.slots
        while batch and len(at_work) < slots:
            partition, offset, copy = batch.popleft()
            at_work[copy] = (partition, offset)
            self.worker.on_delivery(Delivery(self, copy, copy))

    def settle(self, tag: int, outcome: str) -> None:
        """A handler is done with a record."""
        record = self.at_work.pop(tag, None)
        if record is None:
            return
        partition, offset = record
        if self.accepts_first:
            if outcome != OK:
                self.pairs.died(tag, HANDLER_FAILED)
        else:
            self.acks.setdefault(partition, []).append((offset, KINDS[outcome]))
            self._settled += 1
            every = self.settings.commit_every
            if every is not None and self._settled % every == 0:
                self._send_acks(lambda: None)
        if self.batch or self.at_work:
            self._hand_over()
        else:
            self.host.call_later(0.0, self._poll)

    def fetch_all(self) -> None:
        """Ask the leaders of all partitions, while the thread waits in poll()."""
        if not self._is_polling or self.buffer or self.member is None:
            return
        if self.world.now >= self.metadata.expires_at:
            self.metadata.refresh()
        for session in self.sessions.values():
            session.fetch()
        self._send_acks(lambda: None)  # to those that lead nothing of it any more

    def partitions_at(self, broker: Broker) -> list[Partition]:
        """Assigned partitions that it leads."""
        leaders = self.metadata.leaders
        return [p for p in self.assigned if leaders[p] is broker]

    def acks_for(self, broker: Broker) -> Acks:
        """Take the acknowledgements for what it leads."""
        leaders = self.metadata.leaders
        taken = {p: answers for p, answers in self.acks.items() if leaders[p] is broker}
        for partition in taken:
            del self.acks[partition]
        return taken

    def _send_acks(self, then: Callable[[], Any], member: Member | None = None) -> None:
        """ShareAcknowledge; `then()` when they are written."""
        sessions = [
            s for s in self.sessions.values() if any(self.metadata.leaders[p] is s.broker for p in self.acks)
        ]
        self._awaited = len(sessions)
        for session in sessions:
            session.acknowledge(partial(self._acknowledged, then), member or self.member)
        if not sessions:
            then()

    def _acknowledged(self, then: Callable[[], Any]) -> None:
        self._awaited -= 1
        if not self._awaited:
            then()

    def fetched(self, records: list[Record]) -> None:
        """Records that were acquired."""
        for _, _, copy in records:
            self.pairs.delivered(copy)
        self.buffer.extend(records)
        if self._is_polling and self.buffer:
            self._poll()

    def moved(self) -> None:
        """A partition is led by another broker."""
        self.host.call_later(RETRY_BACKOFF, self.metadata.refresh)
        self.host.call_later(RETRY_BACKOFF, self.fetch_all)

    # -- the end -----------------------------------------------------------------------------------------------

    def stopping(self, done: Callable[[], Any]) -> None:
        """The process is told to end: what was polled is processed, and the next thing is close()."""
        self._done = done
        if self._is_polling:
            self._close(done)

    def _close(self, done: Callable[[], Any]) -> None:
        """Acknowledge, release what nobody has looked at, and leave."""
        self._is_polling = False
        for partition, offset, _ in self.buffer:
            self.acks.setdefault(partition, []).append((offset, RELEASE))
        self.buffer.clear()
        member, self.member = self.member, None
        if member is None:
            done()
            return
        self._send_acks(partial(self.coordinator.ask, self.group.leave, member, then=done), member)

    # -- failure -----------------------------------------------------------------------------------------------

    def held(self) -> Iterator[int]:
        """Copies that were acquired and that no handler has."""
        for records in (self.batch, self.buffer):
            yield from (copy for _, _, copy in records)

    def crashed(self, kind: str) -> None:
        """What it has acquired stays locked until that is over."""
        if self.accepts_first:
            for copy in [*(copy for _, _, copy in self.batch), *self.at_work]:
                self.pairs.died(copy, COMMITTED_EARLY)
        for session in self.sessions.values():
            session.forget()
        self.coordinator.forget()
        self._start_empty()

    def restarted(self) -> None:
        """Another member."""
        self.metadata.start_empty()
        self._begin()


class ShareSession:
    """Requests to one broker: a fetch with acknowledgements, which waits there until there is something to acquire."""

    def __init__(self, consumer: ShareConsumer, broker: Broker) -> None:
        self.consumer, self.broker, self.group = consumer, broker, consumer.group
        self.is_open = False
        self._is_under_way = False
        self._number = 0
        self._asked: list[Partition] = []
        self._then: dict[int, Callable[[], Any]] = {}
        # at the broker
        self._waits_for: list[Partition] = []
        self._waiting: tuple[int, Member]
        self._turn = 0
        self._response_size = 0
        settings = consumer.settings
        self.connection: Connection = consumer.topic.cluster.client_connection(
            consumer.host,
            broker,
            Hop("ack"),
            Hop("delivery", size_of=lambda _: self._response_size),
            settings,
            client_opened=self._opened,
            client_broken=self._broken,
            server_broken=self._stop_waiting,
            connect_failed=self._connect_failed,
        )

    def _opened(self) -> None:
        self.is_open = True
        self.consumer.fetch_all()

    def _broken(self) -> None:
        self.forget_all_but_answers()
        self.consumer.metadata.refresh()
        then, self._then = self._then, {}
        for function in then.values():
            function()  # whether they arrived nobody knows: the lock decides

    def _connect_failed(self) -> None:
        """Perhaps another leads by now (K-23)."""
        if self.consumer.partitions_at(self.broker):
            self.consumer.metadata.refresh()

    def forget_all_but_answers(self) -> None:
        """The connection is over."""
        self.is_open = self._is_under_way = False

    def forget(self) -> None:
        """The process has died."""
        self.forget_all_but_answers()
        self._then.clear()

    def fetch(self) -> None:
        """ShareFetch, with the acknowledgements that there are."""
        partitions = self.consumer.partitions_at(self.broker)
        if not self.is_open or not partitions or (self._is_under_way and partitions == self._asked):
            return
        self._is_under_way, self._asked = True, partitions
        self._send(self.consumer.member, partitions, is_sync=False)

    def acknowledge(self, then: Callable[[], Any], member: Member | None) -> None:
        """ShareAcknowledge."""
        if not self.is_open:
            self.consumer.acks_for(self.broker)
            then()  # they are lost
            return
        self._then[self._number + 1] = then
        self._send(member, [], is_sync=True)

    def _send(self, member: Member | None, partitions: list[Partition], is_sync: bool) -> None:
        self._number += 1
        acks = self.consumer.acks_for(self.broker)
        self.connection.there.send(self._arrives, NO_COPY, self._number, member, acks, partitions, is_sync)

    # -- at the broker -----------------------------------------------------------------------------------------

    def _arrives(
        self, _copy: int, number: int, member: Member, acks: Acks, partitions: list[Partition], is_sync: bool
    ) -> None:
        if partitions:
            self._stop_waiting()
        found = {p: self.group.led_by(self.broker, p) for p in acks}
        unwritten = len(acks) + 1

        def written() -> None:
            nonlocal unwritten
            unwritten -= 1
            if is_sync and not unwritten:
                at = self.broker.work(self.broker.request_time)
                self.connection.back.send_at(at, self._acknowledged, NO_COPY, number)

        for partition, share_partition in found.items():
            if share_partition is not None:
                share_partition.acknowledge(member, acks[partition], written)
            else:
                written()
        written()
        if partitions:
            self._waiting, self._waits_for = (number, member), partitions
            if not self._answer():
                self._wait(partitions)

    def _wait(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            found = self.group.led_by(self.broker, partition)
            if found is not None:
                found.waiting[self] = found.leadership.readers[self] = None

    def _stop_waiting(self) -> None:
        for partition in self._waits_for:
            found = self.group.partitions.get(partition)
            if found is not None:
                found.waiting.pop(self, None)
                found.leadership.readers.pop(self, None)
        self._waits_for = []

    def wake(self) -> None:
        """There may be something to acquire, or the broker leads no more."""
        if self._waits_for:
            self._answer()

    def _answer(self) -> bool:
        """Answer the fetch that waits, if there is anything to tell; begin with another partition each time."""
        number, member = self._waiting
        partitions, limit = self._waits_for, self.consumer.settings.max_poll_records
        records: list[Record] = []
        has_moved = False
        self._turn += 1
        size = 0
        for i in range(len(partitions)):
            partition = partitions[(self._turn + i) % len(partitions)]
            found = self.group.led_by(self.broker, partition)
            if found is None:
                has_moved = True
                continue
            taken = found.acquire(member, limit - len(records)) if len(records) < limit else []
            records += [(partition, offset, copy) for offset, copy in taken]
            if taken and self.broker.counts_bytes:
                size += sum(found.log.size(offset, 1) for offset, _ in taken)
        if not records and not has_moved:
            return False
        self._stop_waiting()
        self._response_size = size
        at = self.broker.transmit(self.broker.work(self.broker.request_time), size)
        self.connection.back.send_at(at, self._received, NO_COPY, number, records, has_moved)
        return True

    # -- at the consumer ---------------------------------------------------------------------------------------

    def _received(self, _copy: int, number: int, records: list[Record], has_moved: bool) -> None:
        self._is_under_way = False
        self.consumer.fetched(records)
        if has_moved:
            self.consumer.moved()

    def _acknowledged(self, _copy: int, number: int) -> None:
        then = self._then.pop(number, None)
        if then is not None:
            then()
