"""A consumer's fetches from one broker: one at a time, which waits there until there is something (K-43)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.log import ABORT
from sim.brokers.kafka.replication import NO_COPY, Leadership, Partition
from sim.connection import Connection
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.consumer import Consumer

OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
DIVERGED = "OFFSET_DIVERGED"  # KIP-320: the log was truncated below what was read
NOT_LEADER = "NOT_LEADER_OR_FOLLOWER"


@dataclass(slots=True)
class Fetched:
    """Records of one partition in a fetch response, from offset `start` on; `error` stands for what else it may say.

    `epoch` is the leader epoch of the last one; with DIVERGED `start` is where to go on.
    """

    partition: Partition
    start: int
    records: list[int]
    epoch: int
    error: str = ""
    taken: int = 0  # how many of them poll() has returned


class FetchSession:
    """Fetches of the partitions that one broker leads."""

    def __init__(self, consumer: Consumer, broker: Broker) -> None:
        self.consumer, self.broker, self.world = consumer, broker, consumer.world
        self.is_open = False
        self._is_under_way = False
        self._number = 0
        self._asked: dict[Partition, tuple[int, int]] = {}  # offset, and leader epoch of the record before it
        # at the broker
        self._waits_for: dict[Partition, tuple[int, int]] = {}
        self._waiting_number = 0
        self._deadline = 0
        self._response_size = 0
        settings = consumer.settings
        self._limit = settings.max_partition_fetch_bytes
        self._isolation = settings.isolation_level
        self._waits_for_bytes = settings.fetch_min_bytes > 1
        self.connection: Connection = consumer.topic.cluster.client_connection(
            consumer.host,
            broker,
            Hop("ack"),
            Hop("delivery", size_of=lambda _: self._response_size),
            settings,
            client_opened=self._opened,
            client_broken=self._broken,
            server_broken=self._stop_waiting,
        )

    def _opened(self) -> None:
        self.is_open = True
        self.fetch()

    def _broken(self) -> None:
        self.is_open = self._is_under_way = False
        self.consumer.metadata.refresh()
        self.consumer.fetch_all()

    def forget(self) -> None:
        """The process has died."""
        self.is_open = self._is_under_way = False

    def fetch(self) -> None:
        """Send a fetch for all partitions led there that are not buffered."""
        if not self.is_open:
            return
        asked = self.consumer.positions_to_fetch(self.broker)
        if not asked or (self._is_under_way and asked == self._asked):
            return
        self._number += 1
        self._is_under_way = True
        self._asked = asked
        self.connection.there.send(self._arrives, NO_COPY, self._number, asked)

    # -- at the broker -----------------------------------------------------------------------------------------

    def _arrives(self, _copy: int, number: int, asked: dict[Partition, tuple[int, int]]) -> None:
        if self._waits_for:
            self._stop_waiting()
        self._waiting_number = number
        self._waits_for = asked
        if self._waits_for_bytes:
            self._deadline += 1
            wait = self.consumer.settings.fetch_max_wait
            self.broker.host.call_later(wait, self._waited_enough, self._deadline)
        if not self._answer():
            for partition in asked:
                leadership = self.broker.leads.get(partition)
                if leadership is not None:
                    leadership.readers[self] = None

    def _waited_enough(self, deadline: int) -> None:
        """fetch.max.wait.ms is over: whatever there is will do."""
        if deadline == self._deadline and self._waits_for:
            self._answer(minimum=1)

    def _stop_waiting(self) -> None:
        for partition in self._waits_for:
            leadership = self.broker.leads.get(partition)
            if leadership is not None:
                leadership.readers.pop(self, None)
        self._waits_for = {}

    def wake(self) -> None:
        """Records were committed, or the broker leads no more."""
        if self._waits_for:
            self._answer()

    def _answer(self, minimum: int | None = None) -> bool:
        """Answer the fetch that waits, if there is anything to tell."""
        found = []
        size = records = 0
        for partition, (offset, epoch) in self._waits_for.items():
            part = self._read(partition, offset, epoch)
            if part is not None:
                found.append(part)
                records += len(part.records)
                if part.error:
                    minimum = 0
        if not found:
            return False
        if self._waits_for_bytes or self.broker.counts_bytes:
            size = sum(
                self.broker.leads[f.partition].log.size(f.start, len(f.records)) for f in found if f.records
            )
            if size < (self.consumer.settings.fetch_min_bytes if minimum is None else minimum):
                return False
        self._stop_waiting()
        self._deadline += 1
        self._response_size = size
        broker = self.broker
        at = broker.transmit(broker.work(broker.request_time), size)
        sent, sent_to = self.consumer.pairs.sent, self.consumer.group.sent_to
        for part in found:
            start, before = part.start, sent_to.get(part.partition, 0)
            for copy in part.records if start >= before else part.records[before - start :]:
                if copy > ABORT:
                    sent(copy)
            sent_to[part.partition] = max(before, start + len(part.records))
        self.connection.back.send_at(at, self._received, NO_COPY, self._waiting_number, found)
        return True

    def _read(self, partition: Partition, offset: int, epoch: int) -> Fetched | None:
        """What a partition has for the consumer from that offset on."""
        leadership: Leadership | None = self.broker.leads.get(partition)
        if leadership is None:
            return Fetched(partition, offset, [], -1, NOT_LEADER)
        log = leadership.log
        if epoch != log.last_epoch:
            agreed = log.agreed_end(offset, epoch)
            if agreed < offset:
                return Fetched(partition, agreed, [], -1, DIVERGED)
        end = leadership.readable_end(self._isolation)
        if log.start <= offset < end:
            records = log.read(offset, end, self._limit)
            if self._isolation == "read_committed" and log.has_transactions:
                records = log.without_aborted(offset, records)
            return Fetched(partition, offset, records, log.epoch_at(offset + len(records) - 1))
        if offset < log.start or offset > log.end:
            return Fetched(partition, offset, [], -1, OUT_OF_RANGE)
        return None

    # -- at the consumer ---------------------------------------------------------------------------------------

    def _received(self, _copy: int, number: int, found: list[Fetched]) -> None:
        if number != self._number:
            return
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


__all__: list[Any] = ["DIVERGED", "NOT_LEADER", "OUT_OF_RANGE", "FetchSession", "Fetched"]
