"""A consumer's fetches from one broker: one at a time, which waits there until there is something (K-43)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.brokers.kafka.log import ABORT, Log
from sim.brokers.kafka.replication import NO_COPY, NOT_LEADER, Leadership, Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.connection import Connection
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.subscription import Subscription

OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
DIVERGED = "OFFSET_DIVERGED"  # KIP-320: the log was truncated below what was read
LISTED = "ListOffsets"  # not an error: where auto.offset.reset begins

RESET = -1  # in the place of an offset: ask where to begin

Positions = dict[Partition, tuple[int, int]]  # offset, and leader epoch of the record before it


@dataclass(slots=True)
class Fetched:
    """Records of one partition in a fetch response, from offset `start` on; `error` stands for what else it may say.

    `epoch` is the leader epoch of the last one; with DIVERGED and LISTED `start` is where to go on, and `epoch` that of
    the record before it.
    """

    partition: Partition
    start: int
    records: list[int]
    epoch: int
    error: str = ""
    taken: int = 0  # how many of them poll() has returned


class FetchSession:
    """Fetches of the partitions that one broker leads.

    While one is under way there is no other. One that waits at the broker in vain for fetch.max.wait.ms comes back
    empty and is sent again: that is reckoned with, not sent (`fetches` counts it).
    """

    def __init__(self, consumer: Subscription, broker: Broker) -> None:
        self.consumer, self.broker, self.world = consumer, broker, consumer.world
        self.is_open = False
        self._is_under_way = False
        self._is_retry_due = False
        self._number = 0
        self._sent_at = 0.0
        self._asked: Positions = {}
        self._count = 0
        # at the broker
        self._waits_for: Positions = {}
        self._waiting_number = 0
        self._arrived_at = 0.0
        self._deadline = 0  # the fetch for which a timer runs
        self._response_size = 0
        settings: ConsumerClient = consumer.settings
        self._limit, self._limit_of_all = settings.max_partition_fetch_bytes, settings.fetch_max_bytes
        self._max_wait, self._min_bytes = settings.fetch_max_wait, settings.fetch_min_bytes
        self._isolation = settings.isolation_level
        self._is_committed_only = self._isolation == "read_committed"
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
        self.fetch()

    def _broken(self) -> None:
        self._over()
        self.is_open = False
        self.consumer.metadata.refresh()
        self.consumer.fetch_all()

    def _connect_failed(self) -> None:
        """Perhaps another leads by now (K-23)."""
        if self.consumer.positions_to_fetch(self.broker):
            self.consumer.metadata.refresh()

    def forget(self) -> None:
        """The process has died."""
        self._over()
        self.is_open = False

    @property
    def fetches(self) -> int:
        """How many fetches were sent until now."""
        return self._count + self._turns()

    def _turns(self) -> int:
        """How often the one that is under way came back empty."""
        return self._turn(self._sent_at) if self._is_under_way else 0

    def _over(self) -> None:
        self._count += self._turns()
        self._is_under_way = False

    def fetch(self) -> None:
        """Send a fetch for all partitions led there, unless something of them is buffered (KAFKA-17182)."""
        if not self.is_open:
            return
        asked = self.consumer.positions_to_fetch(self.broker)
        if not asked:
            return
        if self._is_under_way:
            if not self._is_retry_due and any(self._asked.get(p) != at for p, at in asked.items()):
                self._is_retry_due = True
                due = self._sent_at + self._max_wait * (self._turns() + 1)
                self.consumer.host.call_at(max(due, self.world.now), self._came_back_empty, self._number)
            return
        self._number += 1
        self._count += 1
        self._is_under_way, self._sent_at, self._asked = True, self.world.now, asked
        self.connection.there.send(self._arrives, NO_COPY, self._number, asked)

    def _came_back_empty(self, number: int) -> None:
        """The fetch that was under way when other partitions came: it does not keep them from being asked for."""
        self._is_retry_due = False
        if number == self._number and self._is_under_way:
            self._over()
        self.fetch()

    # -- at the broker -----------------------------------------------------------------------------------------

    def _arrives(self, _copy: int, number: int, asked: Positions) -> None:
        if self._waits_for:
            self._stop_waiting()
        self._waiting_number, self._arrived_at = number, self.world.now
        self._waits_for = asked
        if not self._answer(self._min_bytes):
            leads = self.broker.leads
            for partition in asked:
                if partition in leads:
                    leads[partition].readers[self] = None
            if self._min_bytes > 1:
                self._wait_for_more()

    def _wait_for_more(self) -> None:
        """There is something, but less than fetch.min.bytes: until fetch.max.wait.ms are over."""
        if self._deadline or not self._has(1):
            return
        self._deadline = self._waiting_number
        due = self._arrived_at + self._max_wait * (self._turn(self._arrived_at) + 1)
        self.broker.host.call_at(max(due, self.world.now), self._waited_enough, self._deadline)

    def _turn(self, since: float) -> int:
        return int((self.world.now - since) / self._max_wait)

    def _waited_enough(self, number: int) -> None:
        """Whatever there is will do."""
        if number == self._deadline:
            self._deadline = 0
            if self._waits_for:
                self._answer(1)

    def _stop_waiting(self) -> None:
        leads = self.broker.leads
        for partition in self._waits_for:
            if partition in leads:
                leads[partition].readers.pop(self, None)
        self._waits_for = {}
        self._deadline = 0

    def wake(self) -> None:
        """Records were committed, or the broker leads no more."""
        if self._waits_for and not self._answer(self._min_bytes) and self._min_bytes > 1:
            self._wait_for_more()

    def _answer(self, minimum: int) -> bool:
        """Answer the fetch that waits, if there is anything to tell, of `minimum` bytes at least."""
        if minimum > 1 and not self._has(minimum):
            return False
        broker, asked = self.broker, self._waits_for
        if broker.counts_bytes or self._limit * len(asked) > self._limit_of_all:
            found = self._read_within_limits()
        else:
            found, self._response_size = [], 0
            for partition, (offset, epoch) in asked.items():
                part = self._read(partition, offset, epoch, self._limit)
                if part is not None:
                    found.append(part)
        if not found:
            return False
        self._stop_waiting()
        at = broker.work(broker.request_time)
        if broker.counts_bytes:
            at = broker.transmit(at, self._response_size)
        for part in found:
            if part.records:
                self._sent(part)
        send_at = self.connection.back.send_at
        send_at(at, self._received, NO_COPY, self._waiting_number, found)
        return True

    def _read_within_limits(self) -> list[Fetched]:
        """The same where bytes count: on the wire, or because fetch.max.bytes may not suffice for all partitions."""
        found, size, left = [], 0, self._limit_of_all
        for partition, (offset, epoch) in self._waits_for.items():
            part = self._read(partition, offset, epoch, min(self._limit, left))
            if part is None:
                continue
            found.append(part)
            if part.records:
                part_size = self.broker.leads[partition].log.size(part.start, len(part.records))
                size += part_size
                left -= part_size
                if left <= 0:
                    break
        self._response_size = size
        return found

    def _has(self, minimum: int) -> bool:
        """Whether there are that many bytes to read, or something else to tell."""
        size = 0
        for partition, (offset, epoch) in self._waits_for.items():
            leadership = self.broker.leads.get(partition)
            if leadership is None:
                return True
            log, end = leadership.log, leadership.readable_end(self._isolation)
            if not log.start <= offset <= log.end or (epoch != log.last_epoch and epoch >= 0):
                return True
            size += log.size(offset, max(0, end - offset))
        return size >= minimum

    def _sent(self, part: Fetched) -> None:
        """For the books: records leave for a consumer. Those that did before have been waiting again."""
        pairs, sent_to, cut = self.consumer.pairs, self.consumer.group.sent_to, self.consumer.group.cut
        first, offset = sent_to.get(part.partition, 0), part.start
        for copy in part.records:
            if copy > ABORT:
                if offset < first or copy in cut:
                    pairs.stored(copy)
                pairs.sent(copy)
            offset += 1
        if offset > first:
            sent_to[part.partition] = offset

    def _read(self, partition: Partition, offset: int, epoch: int, limit: int) -> Fetched | None:
        """What a partition has for the consumer from that offset on."""
        leadership: Leadership | None = self.broker.leads.get(partition)
        if leadership is None:
            return Fetched(partition, offset, [], -1, NOT_LEADER)
        log, end = leadership.log, leadership.high_watermark
        if self._is_committed_only:
            end = leadership.readable_end(self._isolation)
        epochs = log.epochs
        if not (epochs and epoch == epochs[-1][0] and log.start <= offset <= end):
            obstacle = self._obstacle(partition, log, offset, epoch, end)
            if obstacle is not None:
                return obstacle
        if offset >= end:
            return None
        records = log.read(offset, end, limit)
        if self._is_committed_only and log.has_aborts:
            records = log.without_aborted(offset, records)
        last = offset + len(records) - 1
        epoch, since = log.epochs[-1]
        return Fetched(partition, offset, records, epoch if last >= since else log.epoch_at(last))

    def _obstacle(self, partition: Partition, log: Log, offset: int, epoch: int, end: int) -> Fetched | None:
        """What keeps the consumer from reading on at that offset, if anything does."""
        if offset == RESET:
            is_latest = self.consumer.settings.auto_offset_reset == "latest"
            start = end if is_latest else log.start
            return Fetched(partition, start, [], log.epoch_at(start - 1), LISTED)
        if epoch != log.last_epoch or offset > log.end:
            agreed = log.agreed_end(offset, epoch)
            if agreed < offset:
                return Fetched(partition, agreed, [], log.epoch_at(agreed - 1), DIVERGED)
        if not log.start <= offset <= log.end:
            return Fetched(partition, offset, [], -1, OUT_OF_RANGE)
        return None

    # -- at the consumer ---------------------------------------------------------------------------------------

    def _received(self, _copy: int, number: int, found: list[Fetched]) -> None:
        if number != self._number:
            return
        if self._is_under_way:
            self._count += int((self.world.now - self._sent_at) / self._max_wait)  # as in `_over`
            self._is_under_way = False
        consumer = self.consumer
        for part in found:
            if part.error:
                consumer.fetch_failed(part)
            else:
                consumer.fetched(part)
        consumer.look_at_buffer()
        if not self._is_under_way:
            self.fetch()
