"""Quorum queues: a Raft group; what is confirmed, delivered or forgotten is first on the disks of a majority.

Every change of the queue's state is a command in a replicated log: a publish, a subscription, an acknowledgement, a
return. Channels keep what they have sent until it is applied, and send it again to a new leader; a command has a
number, so it is applied once. The state itself is the same on every member that has applied as much, hence it is kept
here once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.brokers.rabbitmq.causes import ACK_TIMEOUT, CHANNEL_LOST, DISK_LOSS, SOCKET_CUT
from sim.brokers.rabbitmq.queue import MessageQueue
from sim.brokers.rabbitmq.ready import QuorumReady, Ready
from sim.brokers.rabbitmq.replication import Command, ReplicatedLog
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.channels import ConsumerChannel, PublisherChannel
    from sim.brokers.rabbitmq.node import Node

DEFAULT_PRIORITY = 4  # of 0 to 31
LOW_WATER = 0.8  # of max_length, until which a queue that was full refuses
COUNTING = {  # what raises the delivery count, by series
    "4.3": ("channel", "reject"),
    "4.2": ("channel", "reject", "nack", "timeout"),
}


class QuorumQueue(MessageQueue):
    """A quorum queue (R-25 to R-29)."""

    per_message = 15e-6  # seconds of the leader per command (sheet, section 4)
    unlimited_prefetch = 2000
    nacks_when_down = False
    takes_commands = True
    acks_at_once = True
    times_out_from = "4.3"

    def __init__(self, broker: Broker, node: Node, pairs: Pairs, binding: str | None, name: str = "") -> None:
        super().__init__(broker, node, pairs, binding, name)
        settings = self.settings
        first = broker.nodes.index(node)
        members = [*broker.nodes[first:], *broker.nodes[:first]][: settings.initial_group_size]
        self.log = ReplicatedLog(
            broker.mesh,
            f"{broker.name}.{self.name}",
            members,
            fsync=True,
            apply=self._apply,
            on_leader=self._leader_changed,
            on_lost=self._lost,
            snapshot_size=lambda: len(self.ready) + len(self.unacked),
        )
        self.per_delivery = 0.0  # part of the command that brings it about
        self.has_leader = True
        self._number = 0
        self._outbox: dict[int, tuple[Node | None, Command]] = {}  # submitted and not applied, by number
        self._publishing: dict[int, int] = {}  # numbers of publishes that are not applied, by copy
        self._counts: dict[int, int] = {}  # delivery counts by message
        self._held: dict[int, int] = {}  # returns that wait for their delayed retry
        self._disconnected: dict[ConsumerChannel, float] = {}  # until when their deliveries wait (s)
        self._is_refusing = False

    def _new_ready(self) -> Ready:
        return QuorumReady(self.settings.delivery_limit is None, self.settings.series == "4.2")

    def priority_of(self, copy: int) -> int:
        """R-36: 0 to 31, 4 where none is set."""
        return min(self.broker.priority_of(copy, default=DEFAULT_PRIORITY), 31)

    # -- commands ----------------------------------------------------------------------------------------------

    def _submit(self, node: Node, what: str, *args: Any) -> int:
        """A channel on a node submits a command: it keeps it until it is applied, whoever leads."""
        number = self._keep(node, what, *args)
        self._forward(number)
        return number

    def _keep(self, node: Node, what: str, *args: Any) -> int:
        self._number = number = self._number + 1
        self._outbox[number] = (node, (number, what, args))
        return number

    def _forward(self, number: int) -> None:
        node = self._outbox[number][0]
        if node is not None and self.has_leader:
            self.broker.send(node, self.node, self._propose, number)

    def _propose(self, number: int) -> None:
        entry = self._outbox.get(number)
        if entry is not None and self.log.leader is self.node:
            self.log.propose(entry[1])

    def _apply(self, command: Command) -> None:
        """R-25: a command is committed: a majority has it on disk."""
        number, what, args = command
        if self._outbox.pop(number, None) is None:
            return  # sent again to another leader, and applied already
        now = self.world.now
        self.busy = (self.busy if self.busy > now else now) + self.per_message
        getattr(self, f"_apply_{what}")(*args)

    def _leader_changed(self, leader: Node | None) -> None:
        """R-26: channels on live nodes send again what was not applied, and ask again for what they did not hear."""
        self.has_leader = leader is not None
        if leader is None:
            return
        if leader is not self.node:
            self.node.queues.remove(self)
            leader.queues.append(self)
            self.node = leader
        self.busy = self.world.now
        for node in self.broker.nodes:
            self._greet(node)
            self._look_for(node, self.broker.mesh.trusts(leader, node))
        self._drop_orphans()
        for consumer, due in list(self._disconnected.items()):
            self._overdue(consumer, due)
        if self.dead_letters is not None:
            self.dead_letters.start_again()
        self._head_watched = -1.0
        self._watch_head()

    def _greet(self, node: Node) -> None:
        """R-26: the leader has just been elected, or connected to that node: what got lost between them is resent."""
        in_log = {command[0] for command in self.log.uncommitted()}
        for number, (sender, _) in list(self._outbox.items()):
            if sender is node and number not in in_log:
                self._forward(number)
        for channel in node.channels:
            self.broker.send(self.node, node, channel.leader_changed, self)

    def _drop_orphans(self) -> None:
        """Commands that died with their channel's node, before they reached the log: nobody speaks for them."""
        in_log = {command[0] for command in self.log.uncommitted()}
        for number, (node, command) in list(self._outbox.items()):
            if node is None and number not in in_log:
                del self._outbox[number]
                if command[1] == "put":
                    self._publishing.pop(command[2][0], None)

    def node_crashed(self, node: Node) -> None:
        """Commands that a dead node had not handed over are its own to lose."""
        for number, (sender, command) in list(self._outbox.items()):
            if sender is node:
                self._outbox[number] = (None, command)
                if command[1] == "put":
                    self.pairs.died(command[2][0], SOCKET_CUT)

    # -- a message comes in ------------------------------------------------------------------------------------

    def offer(self, copy: int, channel: PublisherChannel, at: float) -> None:
        """R-25, R-37: a publish is a command; the channel waits for the majority."""
        if self._is_refusing:
            self.refuse(copy, channel, at)
            return
        channel.wait_for(copy, self)
        self._publishing[copy] = number = self._keep(channel.node, "put", copy, channel)
        channel.node.host.call_at(at, self._forward, number)

    def enqueue(self, copy: int, channel: PublisherChannel | None, at: float) -> None:
        """A dead letter from another queue: within the cluster, without a channel."""
        self._publishing[copy] = self._submit(self.node, "put", copy, channel)

    def _apply_put(self, copy: int, channel: PublisherChannel | None) -> None:
        self._publishing.pop(copy, None)
        self.put(copy)
        if channel is not None:
            self._answer(copy, channel)
        if self._is_bounded and self.settings.overflow != "drop-head":
            self._is_refusing = self.is_over(0)

    def _answer(self, copy: int, channel: PublisherChannel) -> None:
        if channel.node is not self.node:
            wait = self.busy - self.world.now  # until the leader has come so far
            self.broker.send(self.node, channel.node, self._relay, copy, channel, wait)
        elif copy in channel.pending:  # else it has ended meanwhile
            channel.took(copy, self.busy, self)

    def _relay(self, copy: int, channel: PublisherChannel, wait: float) -> None:
        if copy in channel.pending:  # else it has ended, or has heard that from a new leader
            channel.took(copy, self.world.now + wait, self)

    def is_pending(self, copy: int) -> bool:
        """Whether a publish is not applied yet."""
        return copy in self._publishing

    def _drop_heads(self) -> None:
        if self.settings.overflow == "drop-head":
            super()._drop_heads()

    # -- from channels -----------------------------------------------------------------------------------------

    def tell(self, node: Node, what: str, *args: Any) -> None:
        """What a channel says is a command, too: subscribe, ack, return."""
        self._submit(node, what, *args)

    def _apply_attach(self, consumer: ConsumerChannel) -> None:
        if consumer in self.consumers:
            # it is back before it was missed, and its channel before died with its node.
            self._apply_left(consumer, [], CHANNEL_LOST, "channel")
        if consumer.is_open:
            self.attach(consumer)

    def _apply_acked(self, consumer: ConsumerChannel, *copies: int) -> None:
        for copy in copies:
            self.acked(consumer, copy)

    def acked(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-18: the message is removed, and the consumer's credit comes back, when the ack is committed."""
        if self.unacked.pop(copy, None) is not None:
            self._counts.pop(self.messages.message_of(copy), None)
            self.forget(copy)
            consumer.released(copy)
            self._dispatch_or_relax()

    def _apply_rejected(self, consumer: ConsumerChannel, copy: int) -> None:
        if self.unacked.pop(copy, None) is not None:
            consumer.released(copy)
            self.bury(copy, "rejected")
            self._dispatch_or_relax()

    def _apply_returned(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """R-13, R-29: before all fresh messages in the order of return, or delivered too often."""
        settings = self.settings
        counts = how in COUNTING[settings.series]
        for copy in copies:
            held = self.unacked.pop(copy, None)
            if held is None:
                continue
            consumer.released(copy)
            message = self.messages.message_of(copy)
            count = self._counts.get(message, 0)
            if counts:
                count = self._counts[message] = count + 1
            if counts and settings.delivery_limit is not None and count > settings.delivery_limit >= 0:
                del self._counts[message]
                self.bury(copy, "delivery_limit")
            elif self._is_delayed(counts):
                wait = min(settings.delayed_retry_min * max(1, count), settings.delayed_retry_max)
                self._held[copy] = held[1]
                self.world.call_later(wait, self._retry, copy, cause)
            else:
                self.put_back(copy, held[1], cause)
        self._dispatch_or_relax()

    def _apply_timed_out(
        self, consumer: ConsumerChannel, copies: list[int], kept: dict[int, None], is_cancelled: bool
    ) -> None:
        """R-17: overdue deliveries return. To a consumer that is cancelled nothing is on its way any more."""
        if is_cancelled:
            self.detach(consumer)
            known = kept | dict.fromkeys(copies)
            copies += [c for c, (owner, _) in self.unacked.items() if owner is consumer and c not in known]
        self._apply_returned(consumer, copies, ACK_TIMEOUT, "timeout")

    def _is_delayed(self, counts: bool) -> bool:
        kind = self.settings.delayed_retry_type
        return kind == "all" or (kind == "failed" and counts) or (kind == "returned" and not counts)

    def _retry(self, copy: int, cause: int) -> None:
        if copy in self._held:
            self.put_back(copy, self._held.pop(copy), cause)
            if self.has_leader:
                self.dispatch()

    def _apply_left(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        self._disconnected.pop(consumer, None)
        self.detach(consumer)
        known = dict.fromkeys(copies)
        others = [
            copy for copy, (owner, _) in self.unacked.items() if owner is consumer and copy not in known
        ]
        self._apply_returned(consumer, [*copies, *others], cause, how)
        consumer.credit = consumer.prefetch

    def _dispatch_or_relax(self) -> None:
        if self.settings.single_active_consumer:
            self._hand_over()
        self.dispatch()
        if self._is_bounded:
            self._drop_heads()
        self.relax()

    def relax(self) -> None:
        """R-35: the queue takes messages again once it is well below its limit."""
        if self._is_refusing:
            self._is_refusing = self.is_over(0, share=LOW_WATER)

    def _leave(self, copy: int, reason: str) -> None:
        super()._leave(copy, reason)
        self.relax()

    # -- consumers on nodes that the leader does not hear (R-26) -----------------------------------------------

    def contact(self, peer: Node, is_there: bool) -> None:
        """The leader's node is connected to another, or not any more."""
        if is_there and self.has_leader:
            self._greet(peer)
        elif not is_there:
            self._drop_orphans()
        self._look_for(peer, is_there)

    def suspicion(self, peer: Node, is_suspected: bool) -> None:
        """The failure detector of the leader's node suspects another, or no longer."""
        self._look_for(peer, not is_suspected)

    def _look_for(self, node: Node, is_there: bool) -> None:
        """What a consumer holds through a node that is gone returns after a while (in 4.2 at once), or when the node
        is back without it. A consumer that is still there goes on."""
        wait = 0.0 if self.settings.series == "4.2" else self.settings.consumer_disconnected_timeout
        for consumer in [c for c in self.consumers if c.node is node]:
            if is_there and consumer.is_open:
                if self._disconnected.pop(consumer, None) is not None:
                    self.may_send(consumer)
            elif is_there or consumer not in self._disconnected:
                self._wait_for(consumer, 0.0 if is_there else wait)
        if self.has_leader:
            self.dispatch()

    def consumer_node_lost(self, consumer: ConsumerChannel, copies: list[int], kind: str) -> None:
        """Of a consumer that was cancelled, and had deliveries still (R-17), the leader learns otherwise."""
        if consumer not in self.consumers and copies:
            self._wait_for(consumer, self.settings.consumer_disconnected_timeout)

    def _wait_for(self, consumer: ConsumerChannel, wait: float) -> None:
        due = self._disconnected[consumer] = self.world.now + wait
        if consumer in self.free:
            self.free.remove(consumer)
        self.world.call_at(due, self._overdue, consumer, due)

    def _overdue(self, consumer: ConsumerChannel, due: float) -> None:
        if self.has_leader and self._disconnected.get(consumer) == due <= self.world.now:
            self._submit(self.node, "gone", consumer)

    def _apply_gone(self, consumer: ConsumerChannel) -> None:
        if consumer not in self._disconnected:
            return  # it is back
        if consumer.is_open:
            self._disconnected[consumer] = math.inf
            copies = [copy for copy, (owner, _) in self.unacked.items() if owner is consumer]
            self._apply_returned(consumer, copies, CHANNEL_LOST, "channel")
        else:
            self._apply_left(consumer, [], CHANNEL_LOST, "channel")

    def _is_served(self, consumer: ConsumerChannel) -> bool:
        is_there = consumer not in self._disconnected and super()._is_served(consumer)
        return is_there and (not self.settings.single_active_consumer or self._successor() is None)

    # -- a single active consumer ------------------------------------------------------------------------------

    def attach(self, consumer: ConsumerChannel) -> None:
        """R-20: a single active consumer gives way to one of a higher priority."""
        super().attach(consumer)
        if self.settings.single_active_consumer:
            self._hand_over()

    def detach(self, consumer: ConsumerChannel) -> None:
        """R-20: the highest priority takes over."""
        super().detach(consumer)
        if self.settings.single_active_consumer:
            self._hand_over()

    def _successor(self) -> ConsumerChannel | None:
        """Whom the active consumer has to give way to."""
        waiting = [consumer for consumer in self.consumers[1:] if consumer not in self._disconnected]
        best = max(waiting, key=lambda consumer: consumer.priority, default=None)
        return best if best is not None and best.priority > self.consumers[0].priority else None

    def _hand_over(self) -> None:
        """R-20: the active consumer gets no more, and its successor takes over once it has nothing in hand."""
        successor = self._successor()
        if successor is None:
            return
        active = self.consumers[0]
        if active in self.free:
            self.free.remove(active)
        if active.credit == active.prefetch:
            self.consumers.remove(successor)
            self.consumers.insert(0, successor)
            self.may_send(successor)
            self.dispatch()

    # -- books -------------------------------------------------------------------------------------------------

    def holdings(self) -> Iterator[int]:
        """Copies that would still be delivered."""
        yield from super().holdings()
        yield from self._held
        for _, command in self._outbox.values():
            if command[1] == "put":
                yield command[2][0]

    # -- failure -----------------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """R-22: the log has what a majority had on disk; a leader's crash costs nothing but time."""
        self.node.host.touched += len(self.ready) + len(self.unacked)

    def restarted(self) -> None:
        """The log is caught up by the leader."""

    def _lost(self, commands: list[Command] | None) -> None:
        """R-22: a majority of disks is lost, and with it the queue's contents."""
        for _, copy in self.ready:
            self.pairs.unready(copy)
        for copy in [*(copy for _, copy in self.ready), *self.unacked, *self._held]:
            self.pairs.died(copy, DISK_LOSS)
        self.ready.clear()
        self.unacked.clear()
        self._held.clear()
        self.free = deque(consumer for consumer in self.consumers if self._is_served(consumer))
        for consumer in self.consumers:
            consumer.credit = consumer.prefetch
