"""The coordinator of the new protocol (KIP-848): it assigns itself, and tells each member alone what to do (K-34).

A member first gives up what is no longer its own; what it has given up goes to the next with that one's heartbeat.
Nobody waits for all.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sim.brokers.kafka.assignors import sticky
from sim.brokers.kafka.group import STALE_MEMBER_EPOCH, UNKNOWN_MEMBER, Answer, Group, Member
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.kafka.topic import Topic


class ConsumerGroup(Group):
    """A group with a target assignment that its members reach one by one."""

    def __init__(self, topic: Topic, pairs: Pairs, settings: ConsumerClient) -> None:
        super().__init__(topic, pairs, settings)
        self.epoch = 0
        self.target: dict[Member, list[Partition]] = {}
        self.owner: dict[Partition, Member] = {}
        self._partitions: list[Partition] = []  # what is shared out

    def assigned_to(self, member: Member) -> list[Partition]:
        """What it was given and has not given up."""
        return [p for p, owner in self.owner.items() if owner is member]

    def heartbeat(self, member: Member, epoch: int, owned: list[Partition], answer: Answer) -> None:
        """ConsumerGroupHeartbeat: a member joins (epoch 0), or says what it has given up by now."""
        if member.has_left:
            answer(member, -1, [])
            return
        if member not in self.members:
            self.members[member] = None
            self._retarget()
        self.heard(member)
        member.since = self.world.now
        if epoch == member.epoch:
            given_up = [
                p for p in self.assigned_to(member) if p not in owned and p not in self.target[member]
            ]
            self._free(given_up)
        self.when_kept(partial(answer, member, *self._reconcile(member)), otherwise=answer)

    def _reconcile(self, member: Member) -> tuple[int, list[Partition]]:
        """Its epoch and share for now: less if it has to give up something, more as soon as that is free."""
        target = self.target[member]
        if all(p in target for p in self.assigned_to(member)):
            free = [p for p in target if p not in self.owner]
            self.owner |= dict.fromkeys(free, member)
            if free or member.epoch != self.epoch:
                member.epoch = self.epoch
                self.keep()
        return member.epoch, [p for p in target if self.owner.get(p) is member]

    def _retarget(self) -> None:
        """A new group epoch; the uniform assignor moves as little as it can."""
        self.epoch += 1
        self._partitions = self.known_partitions()
        self.target = sticky(list(self.members), self._partitions, self.target)
        self.keep()
        for member in self.members:
            self.tell_again(member)

    def look_at_partitions(self) -> None:
        """K-02: what was added is shared out."""
        if self.members and self.known_partitions() != self._partitions:
            self._retarget()

    def _free(self, partitions: list[Partition]) -> None:
        """Partitions are given up, and may be taken by those who shall have them."""
        for partition in partitions:
            del self.owner[partition]
        if partitions:
            self.keep()
        for member, target in self.target.items():
            if any(p in target for p in partitions):
                self.tell_again(member)

    def tell_news(self, member: Member) -> None:
        """Its epoch and share."""
        client = member.client
        share = self._reconcile(member)
        self.when_kept(partial(client.coordinator.tell, client.membership.told, member, *share))

    def leave(self, member: Member, answer: Answer) -> None:
        """A heartbeat with epoch -1, or none for a session's time."""
        if member in self.members:
            given_up = self.assigned_to(member)
            self.target.pop(member)
            self.forget(member)
            self._retarget()
            self._free(given_up)
        answer()

    def refusal(self, member: Member, epoch: int) -> str | None:
        """Why a member may not commit; None if it may."""
        if member not in self.members:
            return UNKNOWN_MEMBER
        return STALE_MEMBER_EPOCH if epoch != member.epoch else None
