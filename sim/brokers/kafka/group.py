"""The coordinator of a consumer group: members, generations, assignments, committed offsets (K-33, K-34, K-40, K-44).

Its state is in the log of `__consumer_offsets`, so it outlives the broker that holds it; while that partition has no
leader, nobody joins or commits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.causes import NOT_COMMITTED
from sim.brokers.kafka.coordinator import RETRY_BACKOFF
from sim.brokers.kafka.log import ABORT
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import Partition
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.kafka.consumer import Consumer
    from sim.brokers.kafka.topic import Topic

Assignment = dict["Consumer", list[Partition]]


class Group:
    """A consumer group: one per consuming service."""

    def __init__(self, topic: Topic, pairs: Pairs) -> None:
        self.topic, self.world, self.pairs, self.name = topic, topic.world, pairs, pairs.name
        self.cluster = topic.cluster
        self.coordinator = self.cluster.offsets
        self.offsets = self.cluster.committed
        self.members: dict[Consumer, float] = {}  # since when (s): heartbeats are reckoned from there
        self.generation = 0
        self.assignment: Assignment = {}
        self.delivered_to: dict[Partition, int] = {}  # offsets below were handed to some member before
        self.sent_to: dict[Partition, int] = {}  # and below these sent to some member: others wait (the lag)
        self.cause_of_rewind: dict[Partition, int] = {}
        self._joining: dict[Consumer, Callable[[int, list[Partition]], Any]] = {}
        self._is_rebalancing = False
        self._silent: dict[Consumer, int] = {}
        self._number = 0
        self._was_empty = True
        self._waits_for_others = False

    # -- joining -----------------------------------------------------------------------------------------------

    def join(self, member: Consumer, answer: Callable[[int, list[Partition]], Any]) -> None:
        """JoinGroup: a member (again) wants its share; it is answered when all have joined."""
        self._silent.pop(member, None)
        is_static = member.settings.group_instance_id and member in self.members
        if is_static and member in self.assignment and not self._is_rebalancing:
            answer(self.generation, self.assignment[member])  # K-44
            return
        is_known = member in self.members
        self.members[member] = self.world.now
        self._joining[member] = answer
        if self._was_empty and not self._is_rebalancing:
            self._was_empty = False
            self.offsets.used_again(self.name)
            self._is_rebalancing = True
            self._waits_for_others = True
            delay = self.cluster.settings.group_initial_rebalance_delay
            self.coordinator.call_later(delay, self._waited_for_others)
        elif not self._is_rebalancing:
            self._begin(known=is_known)
        else:
            self._complete_if_all()

    def _begin(self, known: bool = False) -> None:
        """Members learn of the rebalance with their next heartbeat."""
        self._is_rebalancing = True
        for member, since in self.members.items():
            if member not in self._joining:
                beat = member.settings.heartbeat_interval
                wait = math.ceil((self.world.now - since) / beat + 1e-9) * beat - (self.world.now - since)
                self.coordinator.call_later(wait, self._tell_to_rejoin, member)
        limit = max((m.settings.max_poll_interval for m in self.members), default=0.0)
        self._number += 1
        self.coordinator.call_later(limit, self._time_is_up, self._number)
        self._complete_if_all()

    def _tell_to_rejoin(self, member: Consumer) -> None:
        if self._is_rebalancing and member in self.members and member not in self._joining:
            member.tell(member.told_to_rejoin)

    def _time_is_up(self, number: int) -> None:
        """Who has not joined within max.poll.interval.ms is out."""
        if self._is_rebalancing and number == self._number:
            for member in list(self.members):
                if member not in self._joining:
                    self._remove(member)
            self._complete()

    def _waited_for_others(self) -> None:
        """group.initial.rebalance.delay.ms is over."""
        self._waits_for_others = False
        self._complete_if_all()

    def _complete_if_all(self) -> None:
        if self._waits_for_others:
            return
        if self._is_rebalancing and all(member in self._joining for member in self.members):
            self._complete()

    def _complete(self) -> None:
        """A new generation: assign, and answer everybody."""
        if not self._is_rebalancing:
            return
        self._is_rebalancing = False
        self.generation += 1
        joined, self._joining = self._joining, {}
        self.assignment = assign(list(self.members), self.topic.partitions, self.assignment)
        for member, answer in joined.items():
            answer(self.generation, self.assignment.get(member, []))

    # -- leaving -----------------------------------------------------------------------------------------------

    def leave(self, member: Consumer, answer: Callable[[], Any] = lambda: None) -> None:
        """LeaveGroup: at once (K-35, close())."""
        if member in self.members:
            self._remove(member)
            self._after_leaving()
        answer()

    def _remove(self, member: Consumer) -> None:
        self.members.pop(member, None)
        self._joining.pop(member, None)
        self.assignment.pop(member, None)
        self._silent.pop(member, None)

    def _after_leaving(self) -> None:
        if not self.members:
            self._was_empty = True
            self.offsets.left_alone(self.name)
            self._is_rebalancing = False
            self.generation += 1
        elif self._is_rebalancing:
            self._complete_if_all()
        else:
            self._begin()

    def silent(self, member: Consumer) -> None:
        """K-33: no heartbeat comes any more; the session ends session.timeout.ms after the last."""
        since = self.members.get(member)
        if since is None:
            return
        settings = member.settings
        if member.coordinator.is_silent():
            self.leave(member)  # nothing was heard until the session ended
            return
        last = (
            since
            + math.floor((self.world.now - since) / settings.heartbeat_interval) * settings.heartbeat_interval
        )
        self._number += 1
        self._silent[member] = self._number
        wait = max(0.0, last + settings.session_timeout - self.world.now)
        self.coordinator.call_later(wait, self._session_over, member, self._number)

    def heard(self, member: Consumer) -> None:
        """Its heartbeats come again."""
        self._silent.pop(member, None)

    def _session_over(self, member: Consumer, number: int) -> None:
        if self._silent.get(member) == number:
            self.leave(member)

    # -- offsets -----------------------------------------------------------------------------------------------

    def commit(
        self,
        member: Consumer,
        generation: int,
        offsets: Positions,
        answer: Callable[[str], Any],
    ) -> None:
        """OffsetCommit: refused from a member of an old generation (K-35)."""
        error = self.refusal(member, generation)
        if error is not None:
            answer(error)
        else:
            self.offsets.commit(self.name, offsets, answer)

    def fetch_offsets(self, partitions: list[Partition], answer: Callable[..., Any]) -> None:
        """OffsetFetch. What a transaction may be about to commit is not known yet (UNSTABLE_OFFSET_COMMIT)."""
        if self.cluster.transaction_coordinator.holds(self, partitions):
            self.coordinator.call_later(RETRY_BACKOFF, self.fetch_offsets, partitions, answer)
            return
        answer({p: self.committed(p) for p in partitions})

    def refusal(self, member: Consumer, generation: int) -> str | None:
        """Why a member may not commit; None if it may."""
        if generation != self.generation and (member not in self.members or not self._is_rebalancing):
            return "ILLEGAL_GENERATION"
        return None if member in self.members else "UNKNOWN_MEMBER_ID"

    def committed(self, partition: Partition) -> int | None:
        """The committed offset; None if there is none."""
        return self.offsets.of(self.name, partition)

    def unread(self, partition: Partition) -> list[int]:
        """Records that it would still be given."""
        log = partition.log()
        start = max(log.start, self.committed(partition) or 0)
        return [copy for copy in log.without_aborted(start, log.read(start, log.end)) if copy > ABORT]

    def redelivered(self, partition: Partition, copy: int) -> int:
        """A record is handed to a member once more; returns the copy that this makes."""
        copy = self.pairs.requeue(copy, self.cause_of_rewind.get(partition, NOT_COMMITTED))
        self.pairs.stored(copy)
        self.pairs.sent(copy)
        self.pairs.delivered(copy)
        return copy

    def reads_from(self, partition: Partition, offset: int) -> None:
        """A member goes on from there: what was sent before that waits again, or what waited is passed over."""
        sent_to = self.sent_to.get(partition, 0)
        log = partition.log()
        first, last = sorted((max(sent_to, log.start), max(offset, log.start)))
        copies = [copy for copy in log.read(first, last) if copy > ABORT]
        step = 1 if offset < sent_to else -1
        self.pairs.queue_steps += [(self.world.now, step)] * len(copies)
        self.sent_to[partition] = offset

    def truncated(self, partition: Partition, end: int) -> None:
        """What lies at these offsets from now on was never delivered."""
        self.sent_to[partition] = min(self.sent_to.get(partition, 0), end)
        if self.delivered_to.get(partition, 0) > end:
            self.delivered_to[partition] = end


def assign(members: list[Consumer], partitions: list[Partition], before: Assignment) -> Assignment:
    """Range, or cooperative-sticky where all members ask for it (K-34)."""
    if not members:
        return {}
    if all(m.settings.partition_assignment_strategy == "cooperative-sticky" for m in members):
        return sticky(members, partitions, before)
    ordered = sorted(members, key=lambda m: m.name)
    share, more = divmod(len(partitions), len(ordered))
    result: Assignment = {}
    start = 0
    for i, member in enumerate(ordered):
        count = share + (i < more)
        result[member] = partitions[start : start + count]
        start += count
    return result


def sticky(members: list[Consumer], partitions: list[Partition], before: Assignment) -> Assignment:
    """Everybody keeps what he has, as far as the shares are equal."""
    share, more = divmod(len(partitions), len(members))
    result: Assignment = {m: [] for m in members}
    taken: dict[Partition, None] = {}
    allowed_more = more
    for member in sorted(members, key=lambda m: (-len(before.get(m, [])), m.name)):
        keep = [p for p in before.get(member, []) if p not in taken]
        limit = share
        if len(keep) > share and allowed_more > 0:
            limit, allowed_more = share + 1, allowed_more - 1
        result[member] = keep[:limit]
        taken.update(dict.fromkeys(result[member]))
    free = [p for p in partitions if p not in taken]
    for partition in free:
        member = min(sorted(members, key=lambda m: m.name), key=lambda m: len(result[m]))
        result[member].append(partition)
    return result
