"""Brokers, the replication between them, and the controller that says who leads.

A partition's leader takes all writes into its log in the page cache. Followers fetch from it like consumers; the next
fetch of a follower tells the leader how far its log goes, and what all of the ISR have is committed: below the high
watermark. Nobody waits for a disk (K-28).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.causes import DISK_LOST, UNCLEAN_ELECTION, UNFLUSHED, UNREPLICATED
from sim.brokers.kafka.log import Batch, Log
from sim.connection import Connection
from sim.network import Hop
from sim.storage import Disk

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Kafka

CONTROL = 0
REQUEST, PER_KIB = 50e-6, 10e-6  # seconds of a broker's CPU per request, and per KiB of it (sheet, section 4)
APPEND, APPEND_PER_KIB = 5e-6, 1e-6  # seconds of an append to the page cache

OK = "NONE"
NOT_LEADER = "NOT_LEADER_OR_FOLLOWER"
NOT_ENOUGH = "NOT_ENOUGH_REPLICAS"
NOT_ENOUGH_AFTER = "NOT_ENOUGH_REPLICAS_AFTER_APPEND"
OUT_OF_ORDER = "OUT_OF_ORDER_SEQUENCE_NUMBER"
FENCED = "INVALID_PRODUCER_EPOCH"


class Partition:
    """What the controller says of a partition: replicas in order of preference, leader, epoch, ISR, ELR (K-30)."""

    def __init__(self, topic: str, number: int, replicas: list[Broker]) -> None:
        self.topic, self.number, self.replicas = topic, number, replicas
        self.leader: Broker | None = replicas[0]
        self.epoch = 0
        self.isr = list(replicas)
        self.elr: list[Broker] = []

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.number}>"


@dataclass(slots=True)
class Follower:
    """What a leader knows of a follower (K-10, K-21)."""

    end: int = 0
    caught_up_at: float = 0.0
    fetcher: Fetcher | None = None


class Leadership:
    """What a broker that leads a partition knows, or believes to know: it dies with its process."""

    def __init__(self, broker: Broker, partition: Partition, epoch: int, isr: list[Broker]) -> None:
        self.broker, self.partition, self.epoch, self.isr = broker, partition, epoch, list(isr)
        self.log = broker.logs[partition]
        self.high_watermark = min(broker.high_watermarks.get(partition, self.log.start), self.log.end)
        now = broker.world.now
        self.followers = {
            replica: Follower(0, now) for replica in partition.replicas if replica is not broker
        }
        self.waiting: deque[tuple[int, Callable[[str], Any]]] = deque()  # acks=all: up to which offset
        self.readers: dict[Any, None] = {}  # consumers' fetches that wait for records
        self._is_check_due = False
        self._asked: list[Broker] | None = None  # an ISR that the controller was asked for
        if len(self.followers) == 0:
            self.advance()

    # -- writes ------------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> int:
        """Append a batch, and tell whoever waits for records."""
        offset = self.log.append(batch, self.epoch, self.broker.world.now)
        self.broker.wrote(self.log)
        self.broker.kafka.appended(self.partition, batch, offset)
        if self.followers:
            for follower in self.followers.values():
                if follower.fetcher is not None:
                    follower.fetcher.wake()
            self._check_later()
            if len(self.isr) == 1:
                self.advance()
        else:
            self.advance()
        return offset

    def advance(self) -> None:
        """K-10: the high watermark is the smallest end of the ISR, as the leader knows them."""
        ends = [self.followers[r].end for r in self.isr if r is not self.broker and r in self.followers]
        mark = min([self.log.end, *ends])
        if mark <= self.high_watermark:
            return
        self.high_watermark = self.broker.high_watermarks[self.partition] = mark
        minimum = self.partition_minimum()
        while self.waiting and self.waiting[0][0] <= mark:
            _, answer = self.waiting.popleft()
            answer(OK if len(self.isr) >= minimum else NOT_ENOUGH_AFTER)
        for reader in list(self.readers):
            reader.wake(self)

    def partition_minimum(self) -> int:
        """min.insync.replicas."""
        return self.broker.kafka.minimum_of(self.partition)

    # -- followers ---------------------------------------------------------------------------------------------

    def fetched_by(self, replica: Broker, end: int) -> None:
        """A follower's fetch says that it has everything below `end`."""
        follower = self.followers.get(replica)
        if follower is None:
            return
        follower.end = end
        if end >= self.log.end:
            follower.caught_up_at = self.broker.world.now
        if replica in self.isr:
            self.advance()
        elif end >= self.high_watermark and self._asked is None:
            self.ask_for([*self.isr, replica])

    def _check_later(self) -> None:
        """K-21: followers are looked at every half of replica.lag.time.max.ms, while one of them is behind."""
        if not self._is_check_due:
            self._is_check_due = True
            half = self.broker.kafka.settings.replica_lag_time_max / 2
            due = (self.broker.world.now // half + 1) * half
            self.broker.world.call_at(due, self._check, self.broker.host.epoch)

    def _check(self, epoch: int) -> None:
        self._is_check_due = False
        broker = self.broker
        if epoch != broker.host.epoch or broker.leads.get(self.partition) is not self:
            return
        now, limit = broker.world.now, broker.kafka.settings.replica_lag_time_max
        behind = [r for r, f in self.followers.items() if f.end < self.log.end]
        slow = [r for r in behind if r in self.isr and now - self.followers[r].caught_up_at > limit]
        if slow:
            self.ask_for([r for r in self.isr if r not in slow])
        if any(r in self.isr for r in behind):
            self._check_later()

    def ask_for(self, isr: list[Broker]) -> None:
        """AlterPartition: the controller decides on the ISR; without it nothing changes (K-31, K-32)."""
        self._asked = isr
        controller = self.broker.kafka.controller
        self.broker.to_controller(controller.alter, self.partition, self.epoch, isr, self.broker)

    def told_isr(self, epoch: int, isr: list[Broker]) -> None:
        """The controller's word."""
        self._asked = None
        if epoch == self.epoch:
            self.isr = list(isr)
            for replica in isr:
                if replica in self.followers and self.followers[replica].end >= self.log.end:
                    self.followers[replica].caught_up_at = self.broker.world.now
            self.advance()


class Broker:
    """One broker: its machine, its logs, the partitions it leads and those it follows."""

    def __init__(self, kafka: Kafka, name: str, group: str, number: int) -> None:
        self.kafka, self.world, self.name, self.number = kafka, kafka.world, name, number
        self.host = kafka.sim.network.host(name, group)
        self.disk = Disk(self.host, kafka.settings.fsync)
        self.logs: dict[Partition, Log] = {}
        self.high_watermarks: dict[Partition, int] = {}  # checkpointed: survives the process
        self.leads: dict[Partition, Leadership] = {}
        self.fetchers: dict[Broker, Fetcher] = {}
        self.busy = 0.0
        self.is_registered = True
        self._dirty: dict[Log, None] = {}
        self._is_write_back_due = False
        self.controller_link: Connection | None = None
        self.host.residents.append(self)

    def __repr__(self) -> str:
        return f"<broker {self.name}>"

    # -- work --------------------------------------------------------------------------------------------------

    def work(self, seconds: float) -> float:
        """Spend CPU time behind what the broker has to do already; returns when it is done (s)."""
        now = self.world.now
        self.busy = done = (self.busy if self.busy > now else now) + seconds * self.host.slowness
        return done

    def wrote(self, log: Log) -> None:
        """K-28: the operating system writes dirty pages back; with flush.messages the log is synced before that."""
        self._dirty[log] = None
        settings = self.kafka.settings
        if settings.flush_messages is not None and log.end - log.flushed >= settings.flush_messages:
            self._sync([log])
        if not self._is_write_back_due:
            self._is_write_back_due = True
            interval = min(settings.write_back, settings.flush_interval or math.inf)
            self.host.call_later(interval, self._write_back)

    def _write_back(self) -> None:
        self._is_write_back_due = False
        dirty, self._dirty = list(self._dirty), {}
        self._sync(dirty)

    def _sync(self, logs: list[Log]) -> None:
        ends = [(log, log.end) for log in logs]

        def flushed(is_ok: bool) -> None:
            if is_ok:
                for log, end in ends:
                    log.flushed = max(log.flushed, min(end, log.end))

        self.disk.fsync(flushed, lambda is_ok: None)

    # -- produce -----------------------------------------------------------------------------------------------

    def produce(
        self, partition: Partition, batch: Batch, acks: str, answer: Callable[[str, int, float], Any]
    ) -> None:
        """A producer's batch arrives; `answer(error, offset, at)` is called when it may leave."""
        kib = batch.size / 1024
        at = self.work(REQUEST + PER_KIB * kib + APPEND + APPEND_PER_KIB * kib)
        leadership = self.leads.get(partition)
        if leadership is None:
            answer(NOT_LEADER, -1, at)
            return
        if acks == "all" and len(leadership.isr) < leadership.partition_minimum():
            answer(NOT_ENOUGH, -1, at)  # K-11: before the append
            return
        log = leadership.log
        if batch.sequence >= 0:
            error, known = self._check_sequence(log, batch)
            if error is not None:
                answer(error, -1, at)
                return
            if known is not None:  # K-15: a batch that is here already
                self._answer_when_safe(leadership, known, len(batch.copies), acks, answer, at)
                return
        offset = leadership.append(batch)
        self._answer_when_safe(leadership, offset, len(batch.copies), acks, answer, at)

    def _check_sequence(self, log: Log, batch: Batch) -> tuple[str | None, int | None]:
        state = log.producers.get(batch.producer)
        if state is None:
            return (None, None) if batch.sequence == 0 or not log.producers else (None, None)
        if batch.epoch < state.epoch:
            return FENCED, None
        if batch.epoch > state.epoch:
            return None, None
        known = state.offset_of(batch.sequence, len(batch.copies))
        if known is not None:
            return None, known
        if batch.sequence != state.next_sequence:
            return OUT_OF_ORDER, None
        return None, None

    def _answer_when_safe(
        self,
        leadership: Leadership,
        offset: int,
        count: int,
        acks: str,
        answer: Callable[[str, int, float], Any],
        at: float,
    ) -> None:
        end = offset + count
        if acks != "all" or leadership.high_watermark >= end:
            answer(OK, offset, at)
        else:
            leadership.waiting.append((end, lambda error: answer(error, offset, self.world.now)))

    # -- the controller's word ---------------------------------------------------------------------------------

    def to_controller(self, handler: Callable[..., Any], *args: Any) -> None:
        """Send something to the controller."""
        assert self.controller_link is not None
        self.controller_link.there.send(_hand_over, CONTROL, handler, args)

    def told(self, partition: Partition, leader: Broker | None, epoch: int, isr: list[Broker]) -> None:
        """A partition has a leader, as of an epoch (K-23, K-24)."""
        if partition not in self.logs:
            return
        if leader is self:
            if partition in self.leads and self.leads[partition].epoch == epoch:
                self.leads[partition].told_isr(epoch, isr)
                return
            self._stop_following(partition)
            self.resign(partition)
            self.leads[partition] = Leadership(self, partition, epoch, isr)
            self.leads[partition].advance()
            self.kafka.leads_now(self, partition)
        else:
            self.resign(partition)
            self._stop_following(partition)
            if leader is not None:
                self.fetcher_to(leader).follow(partition)

    def resign(self, partition: Partition) -> None:
        """It leads no more: who waits is told so."""
        leadership = self.leads.pop(partition, None)
        if leadership is not None:
            for _, answer in leadership.waiting:
                answer(NOT_LEADER)
            for reader in list(leadership.readers):
                reader.wake(leadership)

    def fetcher_to(self, leader: Broker) -> Fetcher:
        """The thread that fetches from that broker."""
        if leader not in self.fetchers:
            self.fetchers[leader] = Fetcher(self, leader)
        return self.fetchers[leader]

    def _stop_following(self, partition: Partition) -> None:
        for fetcher in self.fetchers.values():
            fetcher.unfollow(partition)

    # -- failure -----------------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """K-28: the logs are as long as before; a machine loses what was not written back, a disk everything."""
        self.leads.clear()
        self._dirty.clear()
        self._is_write_back_due = False
        for fetcher in self.fetchers.values():
            fetcher.forget()
        if kind != "process":
            for partition, log in self.logs.items():
                gone = log.truncate(log.flushed if kind == "machine" else 0)
                self.high_watermarks[partition] = min(self.high_watermarks.get(partition, 0), log.end)
                self.host.touched += len(gone)
                self.kafka.cut_off(partition, gone, UNFLUSHED if kind == "machine" else DISK_LOST)
        self.kafka.broker_crashed(self, kind)

    def restarted(self) -> None:
        """It registers with the controller, which tells it what to follow."""
        for log in self.logs.values():
            if log.end > log.flushed:
                self.wrote(log)


def _hand_over(_control: int, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
    handler(*args)


class Fetcher:
    """A follower's thread that fetches from one leader, for all partitions that it follows there (K-10).

    A fetch that finds nothing waits at the leader; here it waits without ticking (replica.fetch.wait.max.ms).
    """

    def __init__(self, broker: Broker, leader: Broker) -> None:
        self.broker, self.leader, self.world = broker, leader, broker.world
        self.partitions: dict[Partition, None] = {}
        self.is_waiting = False  # a fetch lies at the leader
        self._is_under_way = False
        self._waited_for: dict[Partition, int] = {}
        self._number = 0
        hop = Hop("replication")
        self.connection = broker.kafka.between(
            broker, leader, hop, opened=self._opened, broken=self._broken, server_broken=self._gone
        )

    def follow(self, partition: Partition) -> None:
        """Fetch that partition, too."""
        self.partitions[partition] = None
        if self.connection.is_established and not self._is_under_way:
            self._fetch()
        elif self.is_waiting:
            self._fetch()  # a new session: the leader forgets the fetch that waits

    def unfollow(self, partition: Partition) -> None:
        """Fetch that partition no more."""
        self.partitions.pop(partition, None)

    def forget(self) -> None:
        """The process has died."""
        self.partitions.clear()
        self._is_under_way = self.is_waiting = False

    def _opened(self) -> None:
        self._is_under_way = False
        if self.partitions:
            self._fetch()

    def _broken(self) -> None:
        self._is_under_way = False

    def _gone(self) -> None:
        """At the leader: the follower's connection is over."""
        self.is_waiting = False

    def _fetch(self) -> None:
        self._number += 1
        self._is_under_way = True
        asked = {}
        for partition in self.partitions:
            log = self.broker.logs[partition]
            asked[partition] = (log.end, log.epochs[-1][0] if log.epochs else -1)
        self.connection.there.send(self._arrives, CONTROL, self._number, asked)

    # -- at the leader -----------------------------------------------------------------------------------------

    def _arrives(self, _control: int, number: int, asked: dict[Partition, tuple[int, int]]) -> None:
        self._asked, self._asked_number = asked, number
        self.is_waiting = True
        for partition in asked:
            leadership = self.leader.leads.get(partition)
            if leadership is not None:
                leadership.followers[self.broker].fetcher = self
        if not self._answer():
            for partition, (end, _) in asked.items():
                leadership = self.leader.leads.get(partition)
                if leadership is not None:
                    leadership.fetched_by(self.broker, end)

    def wake(self) -> None:
        """Records have come: what waits is answered."""
        if self.is_waiting:
            self.is_waiting = False
            self.leader.host.call_at(self.leader.work(0.0), self._wake)

    def _wake(self) -> None:
        self.is_waiting = True
        self._answer()

    def _answer(self) -> bool:
        """Answer the fetch that waits, if there is anything to tell."""
        found: list[tuple[Partition, int, Any, int, list[tuple[int, int]] | None, int]] = []
        size = 0
        for partition, (end, last_epoch) in self._asked.items():
            leadership = self.leader.leads.get(partition)
            if leadership is None:
                continue
            log = leadership.log
            agreed = (
                min(end, log.end_of_epoch(last_epoch))
                if last_epoch >= 0
                else min(end, log.start if end < log.start else end)
            )
            if agreed < end:
                found.append((partition, agreed, None, leadership.high_watermark, None, 0))  # K-24: truncate
                continue
            leadership.fetched_by(self.broker, end)
            if end < log.end:
                found.append((partition, max(end, log.start), log, leadership.high_watermark, None, log.end))
                size += 1
        if not found:
            return False
        self.is_waiting = False
        at = self.leader.work(REQUEST)
        parcels = [
            (partition, start, None if log is None else log.copy_of(start, stop), mark)
            for partition, start, log, mark, _, stop in found
        ]
        self.connection.back.send_at(at, self._received, CONTROL, self._asked_number, parcels)
        return True

    # -- at the follower ---------------------------------------------------------------------------------------

    def _received(self, _control: int, number: int, parcels: list[Any]) -> None:
        if number != self._number:
            return
        self._is_under_way = False
        for partition, start, piece, mark in parcels:
            if partition not in self.partitions:
                continue
            log = self.broker.logs[partition]
            if piece is None:
                gone = log.truncate(start)
                self.broker.high_watermarks[partition] = min(
                    self.broker.high_watermarks.get(partition, 0), log.end
                )
                self.broker.host.touched += 0
                self.broker.kafka.cut_off(partition, gone, self.broker.kafka.cause_of_truncation(partition))
            else:
                if log.end < start:
                    log.restart_at(start)
                log.extend(piece)
                self.broker.wrote(log)
                self.broker.high_watermarks[partition] = min(mark, log.end)
        if self.partitions:
            self._fetch()


@dataclass
class Registration:
    """What the controller knows of a broker."""

    is_alive: bool = True
    is_clean: bool = True  # its last stop, if any, did not cost it its page cache
    incarnation: int = 0  # of its process
    generation: int = field(default=0)  # of its connection


class Controller:
    """The controller quorum, as one process on a host of its own: registrations, leaders, ISRs (K-23, K-26, K-32)."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka, self.world = kafka, kafka.world
        self.host = kafka.sim.network.host(f"{kafka.name}.controller")
        self.partitions: list[Partition] = []
        self.brokers: dict[Broker, Registration] = {}
        self._elected_until = 0.0
        self._is_rebalance_due = False
        self.host.residents.append(self)

    def register(self, broker: Broker) -> None:
        """A broker of the cluster; both keep a connection, over which it sends its heartbeats."""
        self.brokers[broker] = Registration()
        broker.controller_link = self.kafka.between(
            broker,
            self,
            Hop("controller"),
            opened=lambda: self._opened(broker),
            broken=lambda: None,
            server_broken=lambda: self._silent(broker),
            server_opened=lambda: self._heard(broker),
        )

    def crashed(self, kind: str) -> None:
        """K-32: nobody elects and nobody changes an ISR; what there is goes on. Its metadata log is durable."""

    def restarted(self) -> None:
        """It goes on with what its log says; brokers connect again by themselves."""

    # -- sessions ----------------------------------------------------------------------------------------------

    def _opened(self, broker: Broker) -> None:
        """At the broker: connected; it registers again."""

    def _heard(self, broker: Broker) -> None:
        """A broker is (again) connected: it is unfenced, and told what it leads and follows."""
        registration = self.brokers[broker]
        registration.generation += 1
        if registration.incarnation != broker.host.epoch:
            registration.incarnation = broker.host.epoch
            self._fence(broker)  # a new process registers: the old one is over
        was_alive, registration.is_alive = registration.is_alive, True
        if not registration.is_clean:
            self._after_unclean_shutdown(broker)
            registration.is_clean = True
        for partition in self.partitions:
            if partition.leader is None or (partition.leader is broker and not was_alive):
                self._elect(partition)
        for partition in self.partitions:
            if broker in partition.replicas:
                self._tell(broker, partition)
        self._rebalance_later()

    def _after_unclean_shutdown(self, broker: Broker) -> None:
        """K-30: with ELR a broker that lost its page cache is not taken for in sync (KIP-966)."""
        for partition in self.partitions:
            if broker in partition.replicas and self.kafka.minimum_of(partition) >= 2:
                others = [r for r in partition.isr if r is not broker]
                if others or partition.elr:
                    partition.isr = others
                    partition.elr = [r for r in partition.elr if r is not broker]
                    if partition.leader is broker:
                        partition.leader = None

    def _silent(self, broker: Broker) -> None:
        """The connection is gone. The session ends broker.session.timeout.ms after the last heartbeat."""
        registration = self.brokers[broker]
        settings = self.kafka.settings
        link = broker.controller_link
        assert link is not None
        if (
            link.there.cuts
            or not broker.host.is_machine_up
            or (broker.host.is_up and not broker.host.is_running)
        ):
            self._session_over(broker, registration.generation)  # it was silent until its session ended
            return
        beat = settings.broker_heartbeat_interval
        phase = beat * (broker.number + 1) / (len(self.brokers) + 1)
        last = phase + math.floor((self.world.now - phase) / beat) * beat
        due = max(self.world.now, last + settings.broker_session_timeout)
        self.host.call_at(due, self._session_over, broker, registration.generation)

    def _session_over(self, broker: Broker, generation: int) -> None:
        """The broker is fenced: others lead what it led."""
        registration = self.brokers[broker]
        if registration.generation == generation and registration.is_alive:
            self._fence(broker)

    def _fence(self, broker: Broker) -> None:
        registration = self.brokers[broker]
        if not registration.is_alive:
            return
        registration.is_alive = False
        for partition in self.partitions:
            if broker in partition.isr and len(partition.isr) > 1:
                partition.isr.remove(broker)
                if (
                    len(partition.isr) < self.kafka.minimum_of(partition)
                    and self.kafka.minimum_of(partition) >= 2
                ):
                    partition.elr.append(broker)
                partition.epoch += partition.leader is not broker
                if partition.leader is not broker:
                    self._publish(partition)
            if partition.leader is broker:
                self._elect(partition)

    # -- elections ---------------------------------------------------------------------------------------------

    def _elect(self, partition: Partition) -> None:
        """K-23, K-26, K-27: an ISR member leads; without one the partition waits, or somebody else does."""
        alive = [r for r in partition.replicas if self.brokers[r].is_alive]
        chosen = next((r for r in alive if r in partition.isr), None)
        if chosen is None:
            chosen = next((r for r in alive if r in partition.elr), None)
            if chosen is not None:
                partition.isr = [chosen]
        if chosen is None and alive and self.kafka.settings.unclean_leader_election_enable:
            chosen = alive[0]
            partition.isr = [chosen]
            self.kafka.was_unclean[partition] = True
        partition.leader = chosen
        partition.elr = [r for r in partition.elr if r not in partition.isr]
        partition.epoch += 1
        # One after the other: the last of many partitions waits for all others.
        self._elected_until = max(self._elected_until, self.world.now) + self.kafka.settings.election_time
        self.host.call_at(self._elected_until, self._publish, partition)

    def _publish(self, partition: Partition) -> None:
        for replica in partition.replicas:
            self._tell(replica, partition)

    def _tell(self, broker: Broker, partition: Partition) -> None:
        link = broker.controller_link
        assert link is not None
        args = (partition, partition.leader, partition.epoch, list(partition.isr))
        link.back.send(_hand_over, CONTROL, broker.told, args)

    def alter(self, partition: Partition, epoch: int, isr: list[Broker], leader: Broker) -> None:
        """AlterPartition of a leader: granted if it still leads, and all members are alive."""
        if partition.leader is not leader or epoch != partition.epoch:
            self._tell(leader, partition)
            return
        gone = [r for r in partition.isr if r not in isr]
        partition.isr = [r for r in isr if self.brokers[r].is_alive]
        minimum = self.kafka.minimum_of(partition)
        if minimum >= 2 and len(partition.isr) < minimum:
            partition.elr += [r for r in gone if r not in partition.elr]
        partition.elr = [r for r in partition.elr if r not in partition.isr and len(partition.isr) < minimum]
        self._tell(leader, partition)
        self._rebalance_later()

    # -- preferred leaders -------------------------------------------------------------------------------------

    def _rebalance_later(self) -> None:
        """auto.leader.rebalance.enable: looks every 300 s, while somebody else than the preferred one leads."""
        settings = self.kafka.settings
        if not settings.auto_leader_rebalance_enable or self._is_rebalance_due:
            return
        if any(p.leader is not p.replicas[0] for p in self.partitions):
            self._is_rebalance_due = True
            interval = settings.leader_imbalance_check_interval
            wait = (self.world.now // interval + 1) * interval - self.world.now
            self.world.in_background(wait, self._rebalance)

    def _rebalance(self) -> None:
        self._is_rebalance_due = False
        if self.host.is_up:
            for partition in self.partitions:
                first = partition.replicas[0]
                if partition.leader is not first and first in partition.isr and self.brokers[first].is_alive:
                    partition.leader = first
                    partition.epoch += 1
                    self._publish(partition)
        self._rebalance_later()


__all__ = ["UNCLEAN_ELECTION", "UNREPLICATED", "Broker", "Controller", "Leadership", "Partition"]
