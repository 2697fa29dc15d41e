"""Partitions: what the controller says of them, what a leader knows of them, and the followers that fetch from it.

A partition's leader takes all writes into its log in the page cache. Followers fetch from it like consumers; the next
fetch of a follower tells the leader how far its log goes, and what all of the ISR have is committed: below the high
watermark. Nobody waits for a disk (K-28).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sim.brokers.kafka.causes import UNCLEAN_ELECTION, UNREPLICATED
from sim.brokers.kafka.log import Batch, Log, LogConfig, Piece
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker

NO_COPY = 0  # in the place of a copy, for what a connection carries that is no message
FETCH_MAX_BYTES = (
    1_048_576  # replica.fetch.max.bytes: where bandwidth counts, a follower gets no more at once
)

OK = "NONE"
NOT_LEADER = "NOT_LEADER_OR_FOLLOWER"
NOT_ENOUGH = "NOT_ENOUGH_REPLICAS"
NOT_ENOUGH_AFTER = (
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND"  # of before KIP-966: the high watermark stands still instead
)
STORAGE_ERROR = "KAFKA_STORAGE_ERROR"

Answer = Callable[[str, int, float], Any]  # error, offset of the first record, when it may leave (s)


class Topic(Protocol):
    """What a partition needs of its topic: its settings, and its books."""

    name: str
    min_insync_replicas: int
    unclean_leader_election_enable: bool
    log_config: LogConfig
    partitions: list[Partition]

    def appended(self, partition: Partition, batch: Batch, offset: int) -> None:
        """The leader has appended a batch."""

    def copies_of(self, copies: list[int]) -> list[int]:
        """Further copies of records that are appended once more."""

    def key_of(self, copy: int) -> int:
        """The key of a record, as a number."""

    def vanished(self, partition: Partition, start: int, records: list[int], cause: int) -> None:
        """Records, from offset `start` on, are gone from one replica's log; negative ones are there still."""

    def led_by(self, partition: Partition, broker: Broker) -> None:
        """A broker leads the partition from now on."""

    def known_to(self, broker: Broker) -> None:
        """A broker has heard of one more partition of the topic."""


class Partition:
    """What the controller says of a partition: replicas in order of preference, leader, epoch, ISR, ELR (K-30)."""

    def __init__(self, topic: Topic, number: int, replicas: list[Broker]) -> None:
        self.topic, self.number, self.replicas = topic, number, replicas
        self.leader: Broker | None = replicas[0]
        self.epoch = 0
        self.isr = list(replicas)
        self.elr: list[Broker] = []
        self.unclean_epochs: list[int] = []  # leader epochs that began with a replica from outside the ISR
        for broker in replicas:
            broker.open_log(self)

    def __repr__(self) -> str:
        return f"<{self.topic.name}-{self.number}>"

    def log(self) -> Log:
        """The leader's log, or the longest one while there is no leader."""
        if self.leader is not None:
            return self.leader.logs[self]
        return max((broker.logs[self] for broker in self.replicas), key=lambda log: log.end)

    def cause_of_cut(self, log: Log) -> int:
        """Why a replica loses the end of its log to another leader's (K-24, K-27)."""
        is_unclean = any(epoch > log.last_epoch for epoch in self.unclean_epochs)
        return UNCLEAN_ELECTION if is_unclean else UNREPLICATED

    def is_held(self, offset: int, copy: int) -> bool:
        """Whether any replica has a record."""
        return any(broker.logs[self].has(offset, copy) for broker in self.replicas)


@dataclass(slots=True)
class Follower:
    """What a leader knows of a follower (K-10, K-21). `since` (s) it is judged.

    `incarnation`: which of its broker's processes has fetched; -1 while none has.
    """

    end: int = 0
    since: float = 0.0
    fetcher: Fetcher | None = None
    incarnation: int = -1

    def caught_up_at(self, log: Log) -> float:
        """When it had all that there was (s): until the next record came, unless it had stopped fetching before."""
        at = self.end - log.start
        if self.fetcher is None or not 0 <= at < len(log.times):
            return self.since
        return max(self.since, min(log.times[at], self.fetcher.heard_until))


class Leadership:
    """What a broker that leads a partition knows, or believes to know: it dies with its process."""

    def __init__(self, broker: Broker, partition: Partition, epoch: int, isr: list[Broker]) -> None:
        self.broker, self.partition, self.epoch, self.isr = broker, partition, epoch, list(isr)
        self.world, self.topic = broker.world, partition.topic
        self.log = broker.logs[partition]
        self.log.resume()
        self.start = self.log.end
        self.high_watermark = min(max(broker.high_watermarks.get(partition, 0), self.log.start), self.start)
        now = broker.world.now
        self.followers = {r: Follower(0, now) for r in partition.replicas if r is not broker}
        self.waiting: deque[tuple[int, int, Answer]] = deque()  # acks=all: until it is committed
        self.readers: dict[Any, None] = {}  # consumers' fetches that wait for records
        self._is_check_due = self._looks_again = False
        self._asked: list[Broker] | None = None  # an ISR that the controller was asked for
        self._counted: list[Follower] = []  # those that the high watermark waits for
        self._flush_messages = self.log.config.flush_messages
        self.is_flushing = False
        # What waits for the flush that is under way, and hears whether it worked, or None if the process is over.
        self.held: deque[Callable[[bool | None], Any]] = deque()
        self._isr_changed()

    # -- writes ------------------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> int:
        """Append a batch, and tell whoever waits for records; returns the offset of its first record."""
        log = self.log
        if batch.offset >= 0 and batch.sequence >= 0:  # it was appended before, and its sequence is forgotten
            batch.copies = self.topic.copies_of(batch.copies)
        offset = log.append(batch, self.epoch, self.world.now)
        if not log.is_dirty:
            self.broker.wrote(self.partition, log)
        if self._flush_messages is not None and log.has_to_flush():
            self.is_flushing = True
            self.broker.sync(log, self._flushed)
        self.topic.appended(self.partition, batch, offset)
        for follower in self.followers.values():
            if follower.fetcher is not None:
                follower.fetcher.wake(self.partition)
            if not self._is_check_due:
                self._check_later()
        if len(self.isr) == 1:
            self.advance()
        return offset

    def _flushed(self, is_ok: bool) -> None:
        """flush.messages: the batch is on the disk, and the log is free for the next one.

        After a failed fsync the producer is told so. (A broker of Kafka stops then if it has no other disk.)
        """
        self.is_flushing = False
        while self.held and not self.is_flushing:
            self.held.popleft()(is_ok)

    def answer_when_flushed(
        self, offset: int, count: int, acks: str, answer: Answer, at: float, is_ok: bool | None
    ) -> None:
        """Answer a write that has waited for the disk."""
        at = max(at, self.world.now)
        if is_ok:
            self.answer_when_safe(offset, count, acks, answer, at)
        elif is_ok is not None:
            answer(STORAGE_ERROR, offset, at)

    def answer_when_safe(self, offset: int, count: int, acks: str, answer: Answer, at: float) -> None:
        """Answer a write: at once, or for acks=all when everybody in the ISR has it (K-10)."""
        end = offset + count
        if acks != "all" or self.high_watermark >= end:
            answer(OK, offset, at)
        else:
            self.waiting.append((end, offset, answer))

    def advance(self) -> None:
        """K-10: the high watermark is the smallest end of the ISR, as the leader knows them.

        With less than min.insync.replicas it stands still (KIP-966), and so do the answers to acks=all.
        """
        if len(self.isr) < self.topic.min_insync_replicas:
            return
        mark = self.log.end
        for follower in self._counted:
            if follower.end < mark:
                mark = follower.end
        if mark <= self.high_watermark:
            return
        self.high_watermark = self.broker.high_watermarks[self.partition] = mark
        waiting = self.waiting
        while waiting and waiting[0][0] <= mark:
            _, offset, answer = waiting.popleft()
            answer(OK, offset, self.world.now)
        if self.readers:
            for reader in list(self.readers):  # as in `wake_readers`
                reader.wake()

    def wake_readers(self) -> None:
        """Consumers' fetches that wait may have something to read now."""
        for reader in list(self.readers):
            reader.wake()

    def readable_end(self, isolation_level: str) -> int:
        """K-25, K-46: the offset before which consumers may read: the high watermark, or the LSO."""
        if isolation_level == "read_committed" and self.log.ongoing:
            return self.log.last_stable(self.high_watermark)
        return self.high_watermark

    # -- followers ---------------------------------------------------------------------------------------------

    def fetched_by(self, replica: Broker, end: int, incarnation: int) -> None:
        """A follower's fetch says that it has everything below `end`."""
        follower = self.followers.get(replica)
        if follower is None:
            return
        is_news, follower.end, follower.incarnation = end != follower.end, end, incarnation
        if replica in self.isr:
            if is_news:
                self.advance()
        elif end >= self.high_watermark and end >= self.start and self._asked is None:
            self.ask_for([*self.isr, replica])
        elif is_news and self._asked is not None:
            self.advance()

    def _check_later(self) -> None:
        """K-21: followers are looked at every half of replica.lag.time.max.ms, while one of them is behind."""
        self._is_check_due = True
        half = self.broker.cluster.settings.replica_lag_time_max / 2
        due = (self.world.now // half + 1) * half
        self.world.in_background(due - self.world.now, self._check, self.broker.host.epoch)

    def _check(self, epoch: int) -> None:
        self._is_check_due = False
        broker = self.broker
        if epoch != broker.host.epoch or broker.leads.get(self.partition) is not self:
            return
        now, limit = self.world.now, broker.cluster.settings.replica_lag_time_max
        behind = [r for r, f in self.followers.items() if f.end < self.log.end and r in self.isr]
        slow = [r for r in behind if now - self.followers[r].caught_up_at(self.log) > limit]
        if slow and broker.host.is_running:
            self.ask_for([r for r in self.isr if r not in slow])
        if behind:
            self._check_later()

    def ask_for(self, isr: list[Broker]) -> None:
        """AlterPartition: the controller decides on the ISR; without it nothing changes (K-31, K-32)."""
        self._asked = isr
        self._isr_changed()
        controller, me = self.broker.cluster.controller, self.broker
        incarnations = {r: self.followers[r].incarnation for r in isr if r is not me}
        me.to_controller(controller.alter, self.partition, self.epoch, isr, me, incarnations)

    def told_isr(self, isr: list[Broker]) -> None:
        """The controller's word."""
        self._asked = None
        for replica in isr:
            if replica not in self.isr and replica is not self.broker:
                self.followers[replica].since = self.world.now
        self.isr = list(isr)
        self._isr_changed()
        if not self._looks_again and len(self.isr) <= len(self.followers):
            self._looks_again = True
            wait = self.broker.cluster.settings.replica_fetch_wait_max
            self.world.in_background(wait, self._fetched_in_vain)

    def _fetched_in_vain(self) -> None:
        """Fetches that waited for nothing were sent again: who is not in the ISR may be so with what it has."""
        self._looks_again = False
        if self.broker.leads.get(self.partition) is self:
            for replica, follower in self.followers.items():
                is_heard = follower.fetcher is not None and follower.fetcher.heard_until == math.inf
                if is_heard and replica not in self.isr:
                    self.fetched_by(replica, follower.end, follower.incarnation)

    def _isr_changed(self) -> None:
        """Who may be in the ISR counts already, so that no member ever lacks what is committed (KIP-497)."""
        members = dict.fromkeys([*self.isr, *(self._asked or ())])
        self._counted = [self.followers[r] for r in members if r is not self.broker]
        self.advance()

    def died(self) -> None:
        """The process is over, and takes with it what it had not got round to."""
        while self.held:
            self.held.popleft()(None)

    def over(self) -> None:
        """Another leads: who waits is told so."""
        self.is_flushing = False
        while self.held:
            self.held.popleft()(True)
        waiting, self.waiting = self.waiting, deque()
        for _, offset, answer in waiting:
            answer(NOT_LEADER, offset, self.world.now)
        self.wake_readers()


# Of a fetch response: the end that the follower had named, and what comes there; or the last epoch that both may have,
# and where that ends at the leader (`Log.diverges`); and the high watermark.
Parcel = tuple[Partition, int, Piece | tuple[int, int], int]


class Fetcher:
    """A follower's thread that fetches from one leader, for all partitions that it follows there (K-10).

    Within a fetch session only what has changed is asked for again (KIP-227). A fetch that finds nothing waits at the
    leader; here it waits without ticking (replica.fetch.wait.max.ms).
    """

    def __init__(self, broker: Broker, leader: Broker) -> None:
        self.broker, self.leader, self.world = broker, leader, broker.world
        self.partitions: dict[Partition, None] = {}
        self._changed: dict[Partition, None] = {}  # what the next fetch has to mention
        # at the leader
        self._incarnation = 0  # of the follower's process
        self._session: dict[Partition, tuple[int, int]] = {}  # end, and last epoch, of the follower's log
        self._news: dict[Partition, None] = {}  # partitions of which it has something to tell
        self._is_waiting = False  # a fetch lies there
        self._is_woken = False
        self._response_size = 0
        self.connection = broker.cluster.between(
            broker,
            leader,
            Hop("replication", size_of=lambda _: self._response_size),
            opened=self._opened,
            server_broken=self.forgotten,
        )

    def follow(self, partition: Partition) -> None:
        """Fetch that partition, too."""
        self.partitions[partition] = self._changed[partition] = None
        if self.connection.is_established:
            self._fetch()  # the leader forgets the fetch that waits

    def unfollow(self, partition: Partition) -> None:
        """Fetch that partition no more."""
        self.partitions.pop(partition, None)
        self._changed.pop(partition, None)

    def forget(self) -> None:
        """The process has died."""
        self.partitions.clear()
        self._changed.clear()

    def _opened(self) -> None:
        self.forgotten()  # the leader has a new session, also if its process died with the old one
        self._changed = dict.fromkeys(self.partitions)
        if self.partitions:
            self._fetch()

    def _fetch(self) -> None:
        logs = self.broker.logs
        asked = {p: (logs[p].end, logs[p].last_epoch) for p in self._changed}
        self._changed.clear()
        self.connection.there.send(self._arrives, NO_COPY, self.broker.host.epoch, asked)

    # -- at the leader -----------------------------------------------------------------------------------------

    @property
    def heard_until(self) -> float:
        """Until when the leader has heard of the follower (s): infinity while it does."""
        return self.connection.server_silent_since

    def forgotten(self) -> None:
        """The fetch session is over, with the follower's connection or with the leader's process."""
        self._is_waiting = self._is_woken = False
        self._session.clear()
        self._news.clear()

    def _arrives(self, _copy: int, incarnation: int, asked: dict[Partition, tuple[int, int]]) -> None:
        self._session |= asked
        self._incarnation = incarnation
        self._is_waiting = True
        for partition in asked:
            self._heard(partition)
        if self._news:
            self._answer()

    def led(self, partition: Partition) -> None:
        """The broker leads that partition from now on: a fetch may have come before that."""
        if partition in self._session:
            self._heard(partition)
            self.wake(partition)

    def _heard(self, partition: Partition) -> None:
        """K-10: what the follower's position tells the leader."""
        leadership = self.leader.leads.get(partition)
        if leadership is None or self.broker not in leadership.followers:
            return
        leadership.followers[self.broker].fetcher = self
        end, last_epoch = self._session[partition]
        log = leadership.log
        if (log.last_epoch == last_epoch and end <= log.end) or log.diverges(end, last_epoch) is None:
            leadership.fetched_by(self.broker, end, self._incarnation)
            if end < log.end:
                self._news[partition] = None
            else:
                self._news.pop(partition, None)
        else:
            self._news[partition] = None

    def wake(self, partition: Partition) -> None:
        """Records have come: a fetch that waits is answered, when the broker gets round to it."""
        self._news[partition] = None
        if self._is_waiting and not self._is_woken:
            self._is_woken = True
            self.leader.host.call_at(self.leader.work(0.0), self._woken)

    def _woken(self) -> None:
        self._is_woken = False
        if self._is_waiting:
            self._answer()

    def _answer(self) -> None:
        """Answer the fetch that waits, if there is anything to tell."""
        parcels: list[Parcel] = []
        leader, size = self.leader, 0
        for partition in self._news:
            leadership = leader.leads.get(partition)
            if leadership is None or partition not in self._session:
                continue
            log, mark = leadership.log, leadership.high_watermark
            end, last_epoch = self._session[partition]
            is_here = last_epoch == log.last_epoch and end <= log.end
            told = None if is_here else log.diverges(end, last_epoch)
            if told is not None:
                parcels.append((partition, end, told, mark))
            elif end < log.end:
                first, stop = max(end, log.start), log.end
                if leader.counts_bytes:
                    stop = log.end_within(first, FETCH_MAX_BYTES)
                piece = log.copy_of(first, stop)
                if leader.counts_bytes:
                    size += sum(piece.bytes)
                parcels.append((partition, end, piece, mark))
                self._session[partition] = (stop, log.epoch_at(stop - 1))  # so it will be when it has got it
        self._news.clear()
        if parcels:
            self._is_waiting = False
            self._response_size = size
            at = leader.transmit(leader.work(leader.request_time), size)
            self.connection.back.send_at(at, self._received, NO_COPY, parcels)

    # -- at the follower ---------------------------------------------------------------------------------------

    def _received(self, _copy: int, parcels: list[Parcel]) -> None:
        for partition, end, told, mark in parcels:
            if partition in self.partitions:
                self.broker.replicate(partition, end, told, mark)
                self._changed[partition] = None
        logs = self.broker.logs
        full = [log for partition, *_ in parcels if (log := logs[partition]).has_to_flush()]
        if not full:
            self._go_on(True)
            return
        for log in full[:-1]:
            self.broker.sync(log)
        self.broker.sync(full[-1], self._go_on)  # flush.messages: the thread waits for the disk

    def _go_on(self, _is_ok: bool) -> None:
        if self.partitions and self.connection.is_established:
            self._fetch()
