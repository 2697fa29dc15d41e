"""One broker: its machine and logs, the partitions that it leads, and those that it follows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.causes import DISK_LOST, RETENTION, UNFLUSHED
from sim.brokers.kafka.cleaner import Cleaner
from sim.brokers.kafka.log import Batch, Log, Piece
from sim.brokers.kafka.replication import (
    NO_COPY,
    NOT_ENOUGH,
    NOT_LEADER,
    OK,
    Answer,
    Fetcher,
    Leadership,
    Partition,
)
from sim.connection import Connection
from sim.storage import Disk

if TYPE_CHECKING:
    from sim.brokers.kafka.cluster import Cluster


class Broker:
    """A broker. What it leads dies with its process; its logs are in the page cache, and on its disk after a while.

    `metadata` is what it last heard from the controller: leader and leader epoch of every partition. Clients ask it.
    """

    def __init__(self, cluster: Cluster, name: str, group: str, number: int) -> None:
        self.cluster, self.world, self.name, self.number = cluster, cluster.world, name, number
        self.host = cluster.sim.network.host(name, group)
        self.disk = Disk(self.host, cluster.settings.fsync)
        self.logs: dict[Partition, Log] = {}
        self.high_watermarks: dict[Partition, int] = {}  # checkpointed: survives the process
        self.metadata: dict[Partition, tuple[int, Broker | None]] = {}
        self.leads: dict[Partition, Leadership] = {}
        self.fetchers: dict[Broker, Fetcher] = {}
        settings = cluster.settings
        self.request_time, self._append_time = settings.cpu_per_request, settings.append_time
        self._time_per_byte = (settings.cpu_per_kib + settings.append_time_per_kib) / 1024
        self.busy = self._wire_busy = 0.0
        self.counts_bytes = (
            cluster.settings.broker_bandwidth is not None or cluster.sim.config.network.bandwidth is not None
        )
        self.controller_link: Connection
        self.is_serving = True  # its process listens: not before the controller has unfenced it
        self.cleaner = Cleaner(self)
        self._power_cuts = 0
        self.host.residents.append(self)

    def __repr__(self) -> str:
        return f"<broker {self.name}>"

    # -- work --------------------------------------------------------------------------------------------------

    def work(self, seconds: float) -> float:
        """Spend CPU time behind what the broker has to do already; returns when it is done (s)."""
        now = self.world.now
        self.busy = done = (self.busy if self.busy > now else now) + seconds * self.host.slowness
        return done

    def transmit(self, at: float, size: int) -> float:
        """Put that many bytes on the wire from `at` (s) on; returns when the last of them has left."""
        bandwidth = self.cluster.settings.broker_bandwidth
        if bandwidth is None:
            return at
        self._wire_busy = max(self._wire_busy, at) + size / bandwidth
        return self._wire_busy

    def open_log(self, partition: Partition) -> None:
        """It has a replica of that partition from now on."""
        log = self.logs[partition] = Log(partition.topic.log_config)
        log.on_roll = partial(self.sync, log)  # a segment that is full is flushed

    def wrote(self, partition: Partition, log: Log) -> None:
        """K-28: a log is dirty; the operating system writes it back after a while, whether the process lives or not."""
        log.is_dirty = True
        self.world.in_background(log.config.write_back, self._write_back, log, self._power_cuts)
        self.cleaner.watch(partition)

    def _write_back(self, log: Log, power_cuts: int) -> None:
        if power_cuts == self._power_cuts:
            log.is_dirty = False
            self.sync(log)

    def sync(self, log: Log, then: Callable[[bool], Any] = lambda is_ok: None) -> None:
        """Flush a log, as far as it goes now; the process hears `then(is_ok)`."""
        self.disk.fsync(partial(log.written_back, log.end), then)

    # -- what clients and followers ask ------------------------------------------------------------------------

    def produce(
        self, partition: Partition, batch: Batch, acks: str, answer: Answer, is_further: bool = False
    ) -> None:
        """A producer's batch arrives; `answer(error, offset, at)` is called when it is decided.

        `is_further`: it is not the first of its request, which bears what the handling of that takes.
        """
        leadership = self.leads.get(partition)
        if leadership is not None and leadership.is_flushing:
            leadership.held.append(partial(self._go_on, partition, batch, acks, answer, is_further))
            return
        request = 0.0 if is_further else self.request_time
        at = self.work(request + self._append_time + self._time_per_byte * batch.size)
        if leadership is None:
            answer(NOT_LEADER, -1, at)
            return
        if acks == "all" and len(leadership.isr) < partition.topic.min_insync_replicas:
            answer(NOT_ENOUGH, -1, at)  # K-11: before the append
            return
        if batch.producer >= 0 and not batch.control:
            error, known = leadership.log.check(batch, self.world.now)
            if error != OK:
                answer(error, -1, at)
                return
            if known is not None:  # K-15: a batch that is here already
                leadership.answer_when_safe(known, len(batch.copies), acks, answer, at)
                return
        offset = leadership.append(batch)
        if leadership.is_flushing:
            answer_later = partial(
                leadership.answer_when_flushed, offset, len(batch.copies), acks, answer, at
            )
            leadership.held.appendleft(answer_later)
        elif acks != "all" or leadership.high_watermark > offset:
            answer(OK, offset, at)
        else:
            leadership.answer_when_safe(offset, len(batch.copies), acks, answer, at)

    def _go_on(
        self,
        partition: Partition,
        batch: Batch,
        acks: str,
        answer: Answer,
        is_further: bool,
        is_ok: bool | None,
    ) -> None:
        """The log is free for a batch that came during a flush; None: the process is over before that."""
        if is_ok is not None:
            self.produce(partition, batch, acks, answer, is_further)
        elif acks == "0":
            answer(NOT_LEADER, -1, self.world.now)  # K-08: nobody else will miss it

    def replicate(
        self, partition: Partition, end: int, told: Piece | tuple[int, int], high_watermark: int
    ) -> None:
        """The leader's answer to a fetch from `end` on: what comes there, or where to cut this log off (K-24)."""
        log = self.logs[partition]
        if end != log.end:
            return  # it answers a question that is not asked any more
        if isinstance(told, Piece):
            if told.start > end:
                log.restart_at(told.start)
            log.extend(told)
            if told.log_start > log.start:  # what the leader has let go goes here, too
                start, gone = log.start, log.drop_before(told.log_start)
                partition.topic.vanished(partition, start, gone, RETENTION)
            if not log.is_dirty:
                self.wrote(partition, log)
        else:
            cause = partition.cause_of_cut(log)
            gone = log.truncate(min(told[1], log.end_of_epoch(told[0])))
            partition.topic.vanished(partition, log.end, gone, cause)
            high_watermark = min(high_watermark, self.high_watermarks.get(partition, 0))
        self.high_watermarks[partition] = min(high_watermark, log.end)

    # -- the controller's word ---------------------------------------------------------------------------------

    def to_controller(self, handler: Callable[..., Any], *args: Any) -> None:
        """Send something to the controller."""
        self.controller_link.there.send(_hand_over, NO_COPY, handler, args)

    def from_controller(self, handler: Callable[..., Any], *args: Any) -> None:
        """At the controller: send something to this broker."""
        self.controller_link.back.send(_hand_over, NO_COPY, handler, args)

    def unfenced(self) -> None:
        """The controller has its registration: from now on it takes requests, and leads and follows as it is told."""
        self.is_serving = True

    def told(self, partition: Partition, leader: Broker | None, epoch: int, isr: list[Broker]) -> None:
        """A partition has a leader, as of an epoch (K-23, K-24)."""
        if not self.is_serving:
            return  # it was said to the process before
        is_news = partition not in self.metadata
        self.metadata[partition] = (epoch, leader)
        if is_news:
            partition.topic.known_to(self)
        if partition not in self.logs:
            return
        leadership = self.leads.get(partition)
        if leader is self and leadership is not None and leadership.epoch == epoch:
            leadership.told_isr(isr)
            return
        if leadership is not None:
            del self.leads[partition]
            leadership.over()
        for fetcher in self.fetchers.values():
            fetcher.unfollow(partition)
        if leader is self:
            self.leads[partition] = Leadership(self, partition, epoch, isr)
            partition.topic.led_by(partition, self)
            for replica in partition.replicas:
                if replica is not self:
                    replica.fetcher_to(self).led(partition)
        elif leader is not None:
            self.fetcher_to(leader).follow(partition)

    def told_of_more(self, said: list[tuple[Partition, Broker | None, int, list[Broker]]]) -> None:
        """Partitions were added to a topic (K-02)."""
        for state in said:
            self.told(*state)

    def fetcher_to(self, leader: Broker) -> Fetcher:
        """The thread that fetches from that broker."""
        if leader not in self.fetchers:
            self.fetchers[leader] = Fetcher(self, leader)
        return self.fetchers[leader]

    # -- failure -----------------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """K-28: the logs are as long as before; a machine loses what was not written back, a disk everything."""
        for leadership in self.leads.values():
            leadership.died()
        self.leads.clear()
        self.is_serving = False
        self._power_cuts += kind != "process"
        for fetcher in self.fetchers.values():
            fetcher.forget()
        for other in self.cluster.brokers:
            if self in other.fetchers:
                other.fetchers[self].forgotten()
        for partition, log in self.logs.items():
            if kind != "process":
                log.is_dirty = False
                first = max(log.flushed, log.start) if kind == "machine" else log.start
                gone = log.truncate(log.flushed) if kind == "machine" else log.wipe()
                self.high_watermarks[partition] = min(self.high_watermarks.get(partition, 0), log.end)
                self.host.touched += len(gone)
                cause = UNFLUSHED if kind == "machine" else DISK_LOST
                partition.topic.vanished(partition, first, gone, cause)
        self.cluster.controller.stopped(self, kind)

    def restarted(self) -> None:
        """It registers with the controller, which tells it what to follow."""
        for partition, log in self.logs.items():
            if log.end > log.flushed and not log.is_dirty:
                self.wrote(partition, log)

    def stopping(self, done: Callable[[], Any]) -> None:
        """Controlled shutdown (K-23): the controller moves what it leads, and it flushes its logs, before it ends."""
        for log in self.logs.values():
            self.sync(log)
        self.to_controller(self.cluster.controller.wants_to_stop, self, done)


def _hand_over(_copy: int, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
    handler(*args)
