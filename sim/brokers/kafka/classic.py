"""The classic protocol's coordinator: join, sync, generations (K-33, K-34, K-44).

In a rebalance all members join again. The leader, who is the first that came to the group and is still there, assigns;
the others learn their share with SyncGroup.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.assignors import cooperative_sticky, range_
from sim.brokers.kafka.group import (
    ILLEGAL_GENERATION,
    REBALANCE_IN_PROGRESS,
    UNKNOWN_MEMBER,
    Answer,
    Group,
    Member,
)
from sim.brokers.kafka.log import OK
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.kafka.topic import Topic


class State(Enum):
    """Where a rebalance stands."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"  # members join
    COMPLETING = "CompletingRebalance"  # the leader assigns
    STABLE = "Stable"


class ClassicGroup(Group):
    """A group whose members agree on who reads what, all together."""

    def __init__(self, topic: Topic, pairs: Pairs, settings: ConsumerClient) -> None:
        super().__init__(topic, pairs, settings)
        self.state = State.EMPTY
        self.generation = 0
        self.assignment: dict[Member, list[Partition]] = {}
        self._joining: dict[Member, Answer] = {}
        self._syncing: dict[Member, Answer] = {}
        self.leader: Member | None = None
        self.assigned_of = 0  # how many partitions were shared out
        self._static: dict[Any, Member] = {}  # by client, which stands for its group.instance.id
        self._rebalance = 0
        self._waits_for_others = False
        self._has_newcomers = False

    def assigned_to(self, member: Member) -> list[Partition]:
        """Its share of the last assignment."""
        return self.assignment.get(member, [])

    # -- joining -----------------------------------------------------------------------------------------------

    def join(self, member: Member, owned: list[Partition], answer: Answer) -> None:
        """JoinGroup: a member (again) wants its share, and says what it has; answered when all have joined."""
        if member.has_left:
            answer(UNKNOWN_MEMBER, -1)
            return
        is_replacement = self._replaces(member)
        is_new = member not in self.members
        is_unchanged = not is_new and (is_replacement or owned == member.owned)
        self.members[member] = None
        self.leader = self.leader or member
        self.heard(member)
        member.since, member.owned = self.world.now, owned
        if self.state is State.STABLE and is_unchanged and member is not self.leader:
            answer(OK, self.generation)  # K-44: nothing has changed
            return
        if self.state is State.STABLE and is_replacement:
            answer(OK, self.generation)
            return
        self._joining[member] = answer
        if self.state is State.EMPTY:
            self._begin_from_empty()
        elif self.state is not State.PREPARING:
            self._prepare()
        else:
            self._has_newcomers |= is_new
            self._complete_if_all()

    def _replaces(self, member: Member) -> bool:
        """K-44: a static member that starts again takes the place of the one it was."""
        if not self.settings.group_instance_id:
            return False
        before = self._static.get(member.client)
        self._static[member.client] = member
        if before is None or before is member or before not in self.members:
            return False
        self.members = {member if m is before else m: None for m in self.members}
        self._silent.pop(before, None)
        self._joining.pop(before, None)
        self._syncing.pop(before, None)
        self.assignment = {member if m is before else m: share for m, share in self.assignment.items()}
        if self.leader is before:
            self.leader = member
        return True

    def _begin_from_empty(self) -> None:
        """group.initial.rebalance.delay.ms: the first member of an empty group waits for others."""
        self.state = State.PREPARING
        self._waits_for_others, self._has_newcomers = True, False
        self._rebalance += 1
        self.coordinator.call_later(
            self.cluster.settings.group_initial_rebalance_delay,
            self._waited,
            self._rebalance,
            self.settings.max_poll_interval,
        )

    def _waited(self, number: int, remaining: float) -> None:
        """A group that is new waits again if others have come meanwhile, max.poll.interval.ms at most."""
        if number != self._rebalance:
            return
        delay = self.cluster.settings.group_initial_rebalance_delay
        remaining = max(remaining - delay, 0.0)
        if self._has_newcomers and self.generation == 0 and remaining > 0:
            self._has_newcomers = False
            self.coordinator.call_later(min(delay, remaining), self._waited, number, remaining)
            return
        self._waits_for_others = False
        self._complete()

    def _prepare(self) -> None:
        """A rebalance begins: members learn of it with their next heartbeat."""
        self.state = State.PREPARING
        syncing, self._syncing = self._syncing, {}
        for answer in syncing.values():
            answer(REBALANCE_IN_PROGRESS, [])
        for member in self.members:
            self.tell_again(member)
        self._rebalance += 1
        self.coordinator.call_later(self.settings.max_poll_interval, self._time_is_up, self._rebalance)
        self._complete_if_all()

    def tell_news(self, member: Member) -> None:
        """A rebalance is going on."""
        if self.state is State.PREPARING and member not in self._joining:
            member.client.coordinator.tell(member.client.membership.told, member, REBALANCE_IN_PROGRESS)

    def _time_is_up(self, number: int) -> None:
        """Who has not joined within max.poll.interval.ms is out, and learns it with its next heartbeat."""
        if self.state is not State.PREPARING or number != self._rebalance:
            return
        for member in [m for m in self.members if m not in self._joining]:
            self._remove(member)
            member.client.coordinator.tell(member.client.membership.told, member, UNKNOWN_MEMBER)
        self._complete()

    def _complete_if_all(self) -> None:
        if not self._waits_for_others and all(member in self._joining for member in self.members):
            self._complete()

    def _complete(self) -> None:
        """A new generation: all who have joined learn it, and its leader assigns."""
        self.generation += 1
        self._rebalance += 1
        joined, self._joining = self._joining, {}
        if not self.members:
            self.state = State.EMPTY
            return
        self.state = State.COMPLETING
        if self.leader not in joined:
            self.leader = next(iter(joined))
        for answer in joined.values():
            answer(OK, self.generation)

    def sync(self, member: Member, generation: int, answer: Answer) -> None:
        """SyncGroup: answered with the member's share, as soon as the leader has assigned."""
        error = self._stranger(member, generation)
        if error is None and self.state is State.PREPARING:
            error = REBALANCE_IN_PROGRESS
        if error is not None:
            answer(error, [])
            return
        self._syncing[member] = answer
        if self.state is State.STABLE:
            self._tell_shares()
        elif member is self.leader:
            self._assign()
            self.keep()
            self.when_kept(
                partial(self._assigned, generation), otherwise=partial(self._not_assigned, generation)
            )

    def _assign(self) -> None:
        """The leader's work: range, or cooperative-sticky if that is what the members ask for.

        It goes by the partitions that the leader knows of (K-02).
        """
        assert self.leader is not None
        members, partitions = list(self.members), self.leader.client.metadata.partitions
        self.assigned_of = len(partitions)
        if self.settings.partition_assignment_strategy == "cooperative-sticky":
            owned = {m: m.owned for m in members}
            self.assignment = cooperative_sticky(members, partitions, owned)
        else:
            self.assignment = range_(members, partitions)

    def _assigned(self, generation: int) -> None:
        if self.state is State.COMPLETING and generation == self.generation:
            self.state = State.STABLE
            self._tell_shares()

    def _not_assigned(self, generation: int, error: str) -> None:
        """The members ask the next coordinator."""
        if generation == self.generation:
            syncing, self._syncing = self._syncing, {}
            for answer in syncing.values():
                answer(error, [])

    def _tell_shares(self) -> None:
        syncing, self._syncing = self._syncing, {}
        for member, answer in syncing.items():
            member.since, member.epoch = self.world.now, self.generation
            answer(OK, self.assignment.get(member, []))

    # -- heartbeats, leaving -----------------------------------------------------------------------------------

    def _stranger(self, member: Member, generation: int) -> str | None:
        if member not in self.members:
            return UNKNOWN_MEMBER
        return ILLEGAL_GENERATION if generation != self.generation else None

    def heartbeat(self, member: Member, generation: int, answer: Answer) -> None:
        """Heartbeat: what a member that was out of reach has to know."""
        error = self._stranger(member, generation)
        if member in self.members:
            self.heard(member)
        if error is None and self.state is State.PREPARING:
            error = REBALANCE_IN_PROGRESS
        answer(member, error or OK)

    def leave(self, member: Member, answer: Answer) -> None:
        """LeaveGroup."""
        if member in self.members:
            self._remove(member)
            if not self.members:
                self._rebalance += 1
                self._waits_for_others = False
                self.generation += 1
                self.state = State.EMPTY
            elif self.state is State.PREPARING:
                self._complete_if_all()
            else:
                self._prepare()
        answer()

    def stop_beating(self, member: Member, answer: Answer) -> None:
        """A static member does not leave: its session runs out (KIP-345)."""
        if member in self.members:
            self.expect(member, self.world.now)
        answer()

    def _remove(self, member: Member) -> None:
        self._joining.pop(member, None)
        self._syncing.pop(member, None)
        self.assignment.pop(member, None)
        self.forget(member)
        if self.leader is member:
            self.leader = next(iter(self.members), None)

    def refusal(self, member: Member, epoch: int) -> str | None:
        """Why a member may not commit; None if it may."""
        error = self._stranger(member, epoch)
        if error is None and self.state is State.COMPLETING:
            error = REBALANCE_IN_PROGRESS
        return error
