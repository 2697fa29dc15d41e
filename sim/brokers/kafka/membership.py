"""A consumer's part in its group: how it joins, what it does when partitions move, and how it leaves.

What concerns the application's thread (giving up partitions, taking new ones over) happens inside its poll().
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sim.brokers.kafka.causes import NOT_COMMITTED, REVOKED
from sim.brokers.kafka.group import ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER, Member
from sim.brokers.kafka.log import OK
from sim.brokers.kafka.replication import Partition

if TYPE_CHECKING:
    from sim.brokers.kafka.consumer import Consumer


class Membership(Protocol):
    """What the poll loop needs of it. `member` is None while the consumer has left; `epoch` goes with commits."""

    member: Member | None
    epoch: int
    is_joining: bool

    def start(self) -> None:
        """A process begins: join."""

    def connected(self) -> None:
        """The coordinator can be reached (again)."""

    def refused(self, error: str) -> None:
        """CommitFailed: the group has gone on without this member."""

    def leave(self, then: Callable[[], Any] = lambda: None) -> None:
        """close(), or max.poll.interval.ms is over."""

    def join_again(self) -> None:
        """poll() is called after that."""

    def grown(self) -> None:
        """The topic has more partitions, as the member knows by now."""

    def crashed(self) -> None:
        """The process is gone."""


class ClassicMembership:
    """A member of a `ClassicGroup`: JoinGroup, SyncGroup, and Heartbeats by a thread beside the application's."""

    def __init__(self, consumer: Consumer, group: Any) -> None:
        self.consumer, self.group, self.settings = consumer, group, consumer.settings
        self.is_cooperative = self.settings.partition_assignment_strategy == "cooperative-sticky"
        self.crashed()

    def crashed(self) -> None:
        """The process is gone."""
        self.member: Member | None = None
        self.epoch = -1
        self.is_joining = False
        self._has_to_rejoin = False

    def start(self) -> None:
        """A process begins."""
        self.member = self.group.new_member(self.consumer)
        self._join()

    def _join(self) -> None:
        if self.member is None:
            return  # it has left meanwhile
        self.is_joining, self._has_to_rejoin = True, False
        owned = list(self.consumer.assigned)
        self.consumer.coordinator.ask(
            self.group.join, self.member, owned, then=partial(self._joined, self.member)
        )

    def _joined(self, member: Member, error: str, generation: int) -> None:
        if member is not self.member:
            return
        if error != OK:
            self.is_joining = False
            self.refused(error)
        else:
            self.consumer.coordinator.ask(
                self.group.sync, member, generation, then=partial(self._synced, member, generation)
            )

    def _synced(self, member: Member, generation: int, error: str, partitions: list[Partition]) -> None:
        if member is not self.member:
            return
        self.is_joining = False
        if error == OK:
            self.epoch = generation
            self.consumer.in_poll(self._assigned, member, partitions)
            self.grown()
        else:
            self.told(member, error)

    def _assigned(self, member: Member, partitions: list[Partition]) -> None:
        """In poll(): what is left out goes to others in a second rebalance, what is new is taken over."""
        if member is not self.member:
            return
        revoked = [p for p in self.consumer.assigned if p not in partitions]
        self.consumer.take_over([p for p in partitions if p not in self.consumer.assigned])
        if revoked:
            self.consumer.before_revocation(partial(self._revoked, revoked))

    def _revoked(self, partitions: list[Partition]) -> None:
        self.consumer.give_up(partitions, REVOKED)
        self._join()

    def told(self, member: Member, error: str) -> None:
        """The answer to a heartbeat."""
        if member is not self.member or self.is_joining or self._has_to_rejoin:
            return
        if error == REBALANCE_IN_PROGRESS:
            self._has_to_rejoin = True
            self.consumer.in_poll(self._rejoin, member)
        elif error != OK:
            self.refused(error)

    def grown(self) -> None:
        """K-02: the member that has assigned looks whether that were all partitions, and if not, all join again."""
        is_short = self.group.assigned_of < len(self.consumer.metadata.partitions)
        if self.member is not None and self.member is self.group.leader and is_short:
            self.told(self.member, REBALANCE_IN_PROGRESS)

    def _rejoin(self, member: Member) -> None:
        """K-34: the next poll() joins again; eager members give up everything before that."""
        if member is self.member:
            self.consumer.before_revocation(self._give_up_and_join)

    def _give_up_and_join(self) -> None:
        if not self.is_cooperative:
            self.consumer.give_up(list(self.consumer.assigned), REVOKED)
        self._join()

    def refused(self, error: str) -> None:
        """Another session of the group has begun; who is unknown there gets a new member id."""
        if self.member is None:
            return  # it has left, and will join again
        if error in (UNKNOWN_MEMBER, ILLEGAL_GENERATION) and not self._has_to_rejoin and not self.is_joining:
            self._has_to_rejoin = True
            self.consumer.in_poll(self._begin_again, error)

    def _begin_again(self, error: str) -> None:
        self.consumer.give_up(list(self.consumer.assigned), NOT_COMMITTED)
        if error == UNKNOWN_MEMBER:
            self.start()
        else:
            self._join()

    def connected(self) -> None:
        """A heartbeat tells what happened meanwhile."""
        if self.member is not None and not self.is_joining:
            self.consumer.coordinator.ask(self.group.heartbeat, self.member, self.epoch, then=self.told)

    def leave(self, then: Callable[[], Any] = lambda: None) -> None:
        """K-33, K-35: at once; a static member only stops its heartbeats."""
        if self.settings.group_instance_id:
            self.consumer.coordinator.ask(self.group.stop_beating, self.member, then=then)
        else:
            self.consumer.coordinator.ask(self.group.leave, self.member, then=then)
        self.crashed()

    def join_again(self) -> None:
        """poll() is called after that."""
        self.start()


class ConsumerMembership:
    """A member of a `ConsumerGroup` (KIP-848): heartbeats say what is its own, and what it has given up."""

    def __init__(self, consumer: Consumer, group: Any) -> None:
        self.consumer, self.group, self.settings = consumer, group, consumer.settings
        self.crashed()

    def crashed(self) -> None:
        """The process is gone."""
        self.member: Member | None = None
        self.epoch = 0
        self.is_joining = False
        self._target: list[Partition] = []
        self._is_lost = False

    def start(self) -> None:
        """A process begins."""
        self.member = self.group.new_member(self.consumer)
        self.epoch, self.is_joining, self._is_lost = 0, True, False
        self._beat()

    def _beat(self) -> None:
        owned = list(self.consumer.assigned)
        self.consumer.coordinator.ask(self.group.heartbeat, self.member, self.epoch, owned, then=self.told)

    def told(self, member: Member, epoch: int, partitions: list[Partition]) -> None:
        """The answer to a heartbeat: the member's epoch and its share as of now."""
        if member is not self.member:
            return
        if epoch < 0:
            self.refused(UNKNOWN_MEMBER)
            return
        self.epoch, self.is_joining, self._target = epoch, False, partitions
        if self._revoked() and self.consumer.commits_before_revocation:
            self.consumer.in_poll(self._revoke, member)
        else:
            self._reconcile(member)

    def _revoked(self) -> list[Partition]:
        return [p for p in self.consumer.assigned if p not in self._target]

    def _revoke(self, member: Member) -> None:
        """In poll(): commit, and then give up."""
        if member is self.member and self._revoked():
            self.consumer.before_revocation(partial(self._reconcile, member))

    def _reconcile(self, member: Member) -> None:
        """Without anything to commit first, what is at work goes on while the next owner may begin."""
        if member is not self.member:
            return
        revoked = self._revoked()
        new = [p for p in self._target if p not in self.consumer.assigned]
        if revoked:
            self.consumer.give_up(revoked, REVOKED)
        self.consumer.take_over(new)
        if revoked or new:
            self._beat()

    def refused(self, error: str) -> None:
        """The coordinator knows this member no more."""
        if error == UNKNOWN_MEMBER and not self._is_lost and self.member is not None:
            self._is_lost = True
            self.consumer.in_poll(self._begin_again)

    def _begin_again(self) -> None:
        self.consumer.give_up(list(self.consumer.assigned), NOT_COMMITTED)
        self.start()

    def grown(self) -> None:
        """K-02: the coordinator hears of it by itself."""

    def connected(self) -> None:
        """A heartbeat tells what happened meanwhile."""
        if self.member is not None and not self.is_joining:
            self._beat()

    def leave(self, then: Callable[[], Any] = lambda: None) -> None:
        """A heartbeat with epoch -1."""
        self.consumer.coordinator.ask(self.group.leave, self.member, then=then)
        self.crashed()

    def join_again(self) -> None:
        """poll() is called after that."""
        self.start()
