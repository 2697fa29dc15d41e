"""What all kinds of groups have in common: members and their sessions, committed offsets, and the books.

A group's coordinator is whoever leads `__consumer_offsets`; while that partition has no leader, nobody joins or
commits. Members and offsets are in its log, so they outlive the broker; a new coordinator gives every member a whole
session's time to be heard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from sim.brokers.kafka.causes import NO_OFFSET, NOT_COMMITTED
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.log import ABORT, OK
from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.offsets import Committed, Positions
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.kafka.topic import Topic

UNKNOWN_MEMBER = "UNKNOWN_MEMBER_ID"
ILLEGAL_GENERATION = "ILLEGAL_GENERATION"
REBALANCE_IN_PROGRESS = "REBALANCE_IN_PROGRESS"
STALE_MEMBER_EPOCH = "STALE_MEMBER_EPOCH"

Answer = Callable[..., Any]


class Client(Protocol):
    """What a group needs to know of a consumer."""

    name: str
    settings: ConsumerClient
    coordinator: CoordinatorLink


class Member:
    """A consumer's stay in its group, under one member id: a process that starts again is another member.

    Heartbeats are reckoned from `since` (s). `epoch` is the generation, or the member epoch, that it was last told
    of; `owned` are the partitions that it says it has.
    """

    __slots__ = ("client", "epoch", "has_left", "name", "owned", "since")

    def __init__(self, client: Any, number: int) -> None:
        self.client = client
        self.name = f"{client.name}-{number}"
        self.since = 0.0
        self.epoch = -1
        self.owned: list[Partition] = []
        self.has_left = False

    def __repr__(self) -> str:
        return f"<member {self.name}>"


class Group:
    """A group: one per consuming service."""

    def __init__(self, topic: Topic, pairs: Pairs, settings: ConsumerClient) -> None:
        self.topic, self.world, self.pairs, self.name = topic, topic.world, pairs, pairs.name
        self.settings = settings
        self.cluster = topic.cluster
        self.coordinator = self.cluster.offsets
        self.offsets = self.cluster.committed
        self.offsets.watchers.append(self._coordinator_moved)
        self.heartbeat_interval, self.session_timeout = intervals(settings)
        self.clients: list[Any] = []
        self.members: dict[Member, None] = {}
        self._silent: dict[Member, int] = {}
        self._has_news: dict[Member, None] = {}
        self._number = self._empty = 0
        # For the books: offsets below these were sent to, or arrived at, some member; and why any are read again.
        self.sent_to: Positions = {}
        self.delivered_to: Positions = {}
        self.cause_of_rewind: dict[Partition, int] = {}
        # Records that members had, and that a later leader may bring back (K-27).
        self.cut: dict[int, None] = {}

    def new_member(self, client: Any) -> Member:
        """A member id for a process that has begun (KIP-394)."""
        self._number += 1
        return Member(client, self._number)

    # -- what the kinds of groups do each in their own way -----------------------------------------------------

    def leave(self, member: Member, answer: Answer) -> None:
        """A member leaves at once: close(), or max.poll.interval.ms is over (K-33, K-35)."""
        raise NotImplementedError

    def tell_news(self, member: Member) -> None:
        """A heartbeat of a member has come: tell it what it has to know."""
        raise NotImplementedError

    def refusal(self, member: Member, epoch: int) -> str | None:
        """Why a member may not commit; None if it may."""
        raise NotImplementedError

    def look_at_partitions(self) -> None:
        """The coordinator may know of more partitions than its members have."""

    def assigned_to(self, member: Member) -> list[Partition]:
        """Partitions that are a member's, as far as the coordinator knows."""
        raise NotImplementedError

    def known_partitions(self) -> list[Partition]:
        """Partitions of the topic, as far as the coordinator has heard of them."""
        broker = self.coordinator.coordinator
        return [p for p in self.topic.partitions if broker is None or p in broker.metadata]

    # -- sessions ----------------------------------------------------------------------------------------------

    def silent(self, client: Any) -> None:
        """A client's connection to the coordinator is over: who is not heard of again has left (K-33)."""
        for member in self.members:
            if member.client is client and member not in self._silent:
                self.expect(member, client.coordinator.heard_at())

    def expect(self, member: Member, heard_at: float) -> None:
        """The session ends session.timeout.ms after the last heartbeat (s)."""
        self._number += 1
        self._silent[member] = self._number
        wait = max(0.0, heard_at + self.session_timeout - self.world.now)
        self.coordinator.call_later(wait, self._session_over, member, self._number)

    def heard(self, member: Member) -> None:
        """A member's heartbeats come (again)."""
        self._silent.pop(member, None)

    def _session_over(self, member: Member, number: int) -> None:
        if self._silent.get(member) == number:
            self.blame(member, NOT_COMMITTED)
            self.leave(member, lambda *_: None)

    def blame(self, member: Member, cause: int) -> None:
        """Why others will read again what a member has not committed."""
        for partition in self.assigned_to(member):
            self.cause_of_rewind[partition] = cause

    def forget(self, member: Member) -> None:
        """It is no member any more."""
        member.has_left = True
        self.members.pop(member, None)
        self._silent.pop(member, None)
        if not self.members:
            self._empty += 1
            self.world.in_background(
                self.cluster.settings.offsets_retention, self._expire_offsets, self._empty
            )

    def _expire_offsets(self, number: int) -> None:
        """K-40: offsets.retention.minutes without members."""
        if number == self._empty and not self.members:
            self.offsets.forget(self.name)

    def _coordinator_moved(self) -> None:
        """A new coordinator: who is not heard has a whole session's time, and what others were told may be lost."""
        for member in list(self.members):
            if self.is_beating(member):
                self.heard(member)
            else:
                self.expect(member, self.world.now)
            self.tell_again(member)
        self.look_at_partitions()

    def tell_again(self, member: Member) -> None:
        """There is something that a member has to know: it learns it with its next heartbeat that comes."""
        if member not in self._has_news:
            self._has_news[member] = None
            self.coordinator.call_later(self.next_heartbeat(member), self._beaten, member)

    def _beaten(self, member: Member) -> None:
        del self._has_news[member]
        if member not in self.members:
            return
        if self.is_beating(member):
            self.tell_news(member)
        else:
            self.tell_again(member)

    def is_beating(self, member: Member) -> bool:
        """Whether heartbeats come from a member: from the process that it is, and over a way that is open."""
        return member.client.membership.member is member and member.client.coordinator.is_audible()

    def next_heartbeat(self, member: Member) -> float:
        """How long it is until a member's next heartbeat (s)."""
        beat, gone = self.heartbeat_interval, self.world.now - member.since
        return math.ceil(gone / beat + 1e-9) * beat - gone

    def keep(self) -> None:
        """Write down who is a member, and what is whose."""
        self.offsets.keep(self.name)

    def when_kept(
        self, then: Callable[[], Any], otherwise: Callable[[str], Any] = lambda error: None
    ) -> None:
        """Go on when all that was written is committed; `otherwise` this coordinator was deposed before that.

        So whoever is given a partition never reads an offset that is about to be replaced.
        """
        self.coordinator.settle(lambda error, _offset, _at: then() if error == OK else otherwise(error))

    # -- offsets -----------------------------------------------------------------------------------------------

    def commit(self, member: Member, epoch: int, offsets: Committed, answer: Answer) -> None:
        """OffsetCommit: refused from a member that the group has gone on without (K-35)."""
        error = self.refusal(member, epoch)
        if error is not None:
            answer(error)
        else:
            self.offsets.commit(self.name, offsets, answer)

    def fetch_offsets(self, partitions: list[Partition], answer: Answer) -> None:
        """OffsetFetch. What a transaction may be about to commit is not known yet (UNSTABLE_OFFSET_COMMIT)."""
        if self.cluster.transaction_coordinator.holds(self, partitions):
            self.coordinator.call_later(RETRY_BACKOFF, self.fetch_offsets, partitions, answer)
            return
        answer({p: self.offsets.at(self.name, p) for p in partitions})

    def committed(self, partition: Partition) -> int | None:
        """For the books: the committed offset; None if there is none."""
        return self.offsets.agreed(self.name, partition)

    # -- the books ---------------------------------------------------------------------------------------------

    def unread(self, partition: Partition) -> Iterator[int]:
        """Records that it would still be given."""
        log = partition.log()
        start = self.committed(partition)
        if start is None or start < log.start:  # out of range is as good as none (K-41)
            if self.clients and all(client.has_raised for client in self.clients):
                self._give_up(partition)
                return
            clients = [c for c in self.clients if partition in c.position]
            positions = [log.agreed_end(c.position[partition], c.epochs.get(partition, -1)) for c in clients]
            start = min(positions, default=log.start)
        start = max(log.start, start)
        for copy in log.without_aborted(start, log.read(start, log.end)):
            if copy > ABORT:
                yield copy

    def held(self) -> Iterator[int]:
        """Records that clients have polled and not begun to process."""
        for client in self.clients:
            yield from client.held()

    def _give_up(self, partition: Partition) -> None:
        """K-40: all consumers have stopped for want of an offset; only an operator can set one."""
        log = partition.log()
        for copy in log.read(log.start, log.end):
            if copy > ABORT:
                self.pairs.died(copy, NO_OFFSET)

    def redelivered(self, partition: Partition, copy: int) -> int:
        """A record arrives at a member once more; returns the copy that this makes."""
        return self.pairs.requeue(copy, self.cause_of_rewind.get(partition, NOT_COMMITTED))

    def reads_from(self, partition: Partition, offset: int) -> None:
        """A member goes on from there: what was sent before that waits again, or what waited is passed over."""
        sent_to, log = self.sent_to.get(partition, 0), partition.log()
        first, last = sorted((max(sent_to, log.start), max(offset, log.start)))
        if first < last:
            copies = [copy for copy in log.read(first, min(last, log.end)) if copy > ABORT]
            step = 1 if offset < sent_to else -1
            self.pairs.queue_steps += [(self.world.now, step)] * len(copies)
        self.sent_to[partition] = offset

    def truncated(self, partition: Partition, end: int, epoch: int) -> None:
        """A new leader, of that epoch, whose log ends there: what lies at these offsets from now on was never sent."""
        self.note_cut(partition, end, self.delivered_to.get(partition, 0))
        for mark in (self.sent_to, self.delivered_to):
            if mark.get(partition, 0) > end:
                mark[partition] = end

    def note_cut(self, partition: Partition, end: int, below: int) -> None:
        """Of offsets from `end` to before `below`, which members had, another replica has something yet."""
        for replica in partition.replicas:
            log = replica.logs[partition]
            for copy in log.read(max(end, log.start), min(below, log.end)):
                if copy > ABORT:
                    self.cut[copy] = None


def intervals(settings: ConsumerClient) -> tuple[float, float]:
    """Heartbeat interval and session timeout (s): the client's own, or those of its group (KIP-848, KIP-932)."""
    if settings.group_protocol == "classic":
        return settings.heartbeat_interval, settings.session_timeout
    return settings.consumer_heartbeat_interval, settings.consumer_session_timeout
