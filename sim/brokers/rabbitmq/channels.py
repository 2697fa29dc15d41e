"""Channels: the broker's side of a client's connection. A channel is the unit of life (sheet, section 1).

Each channel is one process: it handles what it is given in order, and `busy` is when it is done (s).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED
from sim.brokers.rabbitmq.causes import (
    ACK_TIMEOUT,
    AUTO_ACK_CRASH,
    CHANNEL_LOST,
    REPUBLISHED_AFTER_NACK,
    RETURNED_UNROUTABLE,
    UNROUTABLE,
)
from sim.kernel import Timeouts

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.client import Consumer, Publisher
    from sim.brokers.rabbitmq.node import Node
    from sim.brokers.rabbitmq.queue import MessageQueue

PER_MESSAGE = 10e-6  # seconds of reader, channel and routing per message, plus its bytes at 1 GB/s
BYTES_PER_SECOND = 1e9  # of the same
LOOK = 60.0  # seconds between looks for deliveries that are overdue


class Socket:
    """The broker's end of a connection, which it may stop to read."""

    client: Any
    requests: Any  # the stream from the client

    def __init__(self) -> None:
        self._stopped: dict[str, None] = {}  # why it is not read

    def stop_reading(self, reason: str) -> None:
        """The socket is not read while there is a reason for it (R-37, R-38)."""
        if not self._stopped:
            self.requests.pause_reading()
        self._stopped[reason] = None

    def read_again(self, reason: str) -> None:
        """A reason not to read the socket is over."""
        if reason in self._stopped:
            del self._stopped[reason]
            if not self._stopped:
                self.requests.resume_reading()
                self.client.can_write()

    @property
    def is_stopped(self) -> bool:
        """Whether the socket is not read."""
        return bool(self._stopped)

    def read_all_again(self) -> None:
        """The connection has ended; the next one is read."""
        for reason in list(self._stopped):
            self.read_again(reason)


class PublisherChannel(Socket):
    """A channel that publishes: it routes, waits for the queues, and confirms (R-05, R-07)."""

    def __init__(self, client: Publisher, node: Node) -> None:
        super().__init__()
        self.client, self.node, self.broker, self.world = client, node, node.broker, node.broker.world
        self.confirms = client.wants_confirms
        settings = client.settings
        self.is_persistent = settings.delivery_mode == "persistent"
        self.mandatory = settings.mandatory
        self.answers: Any = None  # the stream to the client
        self.busy = 0.0
        self.waiting: dict[int, list[Any]] = {}  # fan-outs: queues to come, until when, did one refuse
        self.pending: dict[int, MessageQueue] = {}  # with a queue elsewhere, or in a log
        self._open_transaction: list[int] = []
        self._is_transactional = settings.transaction is not None
        self._credit, self._regrant = self.broker.settings.credit_flow_default_credit
        self._credits: dict[MessageQueue, Credits] = {}
        self._start_empty()
        node.channels.append(self)

    def _start_empty(self) -> None:
        self._reader_credit = self._credit  # what the reader may still pass on to the channel
        self._handled = self._deferred = 0  # passed on since the last grant; granted, and held back
        self._taken: deque[float] = deque()  # when a replicated queue is done with what it has applied
        self._is_grant_due = False

    # -- a message comes in ------------------------------------------------------------------------------------

    def publish(self, copy: int) -> None:
        """basic.publish arrives."""
        now = self.world.now
        at = (self.busy if self.busy > now else now) + PER_MESSAGE
        if self.broker.has_sizes:
            at += self.broker.messages.size_of(copy) / BYTES_PER_SECOND
        self.busy = at
        if self._is_transactional:
            self._open_transaction.append(copy)  # effects appear at the commit
        elif (only_queue := self.broker.only_queue) is not None:
            only_queue.offer(copy, self, at)
        else:
            self._route(copy, at)

    def _route(self, copy: int, at: float) -> None:
        queues = self.broker.route(copy)
        if not queues:
            self._unroutable(copy, at)
            return
        if len(queues) > 1:
            self.waiting[copy] = [dict.fromkeys(queues), 0.0, False]
        for queue in queues:
            queue.offer(copy, self, at)

    def commit(self, _control: int, copies: list[int]) -> None:
        """R-10: tx.commit: everything since the last one takes effect, queue by queue."""
        self.busy = max(self.busy, self.world.now)
        for copy in self._open_transaction:
            self._route(copy, self.busy)
        self._open_transaction = []

    def _unroutable(self, copy: int, at: float) -> None:
        """R-03: dropped and confirmed; returned and then confirmed if it is mandatory; or to the alternate exchange.
        Without any exchange the channel is closed."""
        messages, broker = self.broker.messages, self.broker
        if broker.settings.exchange == "missing":  # 404
            messages.died(copy, UNROUTABLE)
            self.closed()
            self.answers.send_at(at, self.client.channel_closed, copy)
            return
        if broker.settings.alternate_exchange:
            broker.park_unroutable(copy)
        elif self.mandatory:
            messages.died(copy, RETURNED_UNROUTABLE)
            self.answers.send_at(at, self.client.returned, copy)
        else:
            messages.died(copy, UNROUTABLE)
        if self.confirms:
            self.answers.send_at(at, self.client.confirmed, copy)

    # -- answers of queues -------------------------------------------------------------------------------------

    def took(self, copy: int, at: float, queue: MessageQueue) -> None:
        """A queue has the message, as safe as its type makes it before a confirm."""
        if self.waiting or self.pending:
            self._answered(copy, at, queue, is_refused=False)
        elif self.confirms:
            send_at = self.answers.send_at  # as a local: see `World.call_later`
            send_at(at, self.client.confirmed, copy)

    def refused(self, copy: int, at: float, queue: MessageQueue) -> None:
        """A queue refuses the message."""
        self._answered(copy, at, queue, is_refused=True)

    def _answered(self, copy: int, at: float, queue: MessageQueue, is_refused: bool) -> None:
        """R-05, R-07: a fan-out is answered with the last of its queues; one refusal is enough for a nack, and the
        others keep the message."""
        state = self.waiting.get(copy)
        if state is not None:
            to_come = state[0]
            if queue not in to_come:
                return
            del to_come[queue]
            state[1], state[2] = at, is_refused = max(at, state[1]), is_refused or state[2]
            if to_come:
                return
            del self.waiting[copy]
        pending = self.pending.pop(copy, None)
        if pending is not None and not pending.nacks_when_down:
            if at > self.world.now:
                self._taken.append(at)
            if self._deferred:
                self._grant(pending)
        if self.confirms and is_refused:
            self.broker.messages.not_heard(copy, REPUBLISHED_AFTER_NACK)
            self.answers.send_at(at, self.client.nacked, copy)
        elif self.confirms:
            self.answers.send_at(at, self.client.confirmed, copy)

    def _waits_for(self, copy: int) -> list[MessageQueue]:
        """The queues that have not answered a pending publish."""
        return list(self.waiting[copy][0]) if copy in self.waiting else [self.pending[copy]]

    # -- queues on other nodes ---------------------------------------------------------------------------------

    def node_lost(self, node: Node) -> None:
        """R-24: the node of a classic queue is down or out of reach: what waits for it is nacked."""
        for copy in list(self.pending):
            for queue in self._waits_for(copy):
                if queue.node is node and queue.nacks_when_down:
                    self.refused(copy, self.world.now, queue)

    def leader_changed(self, queue: MessageQueue) -> None:
        """R-26: a replicated queue has a new leader, which tells what the old one had applied and could not tell."""
        if self.node.host.is_up:
            for copy in list(self.pending):
                if queue in self._waits_for(copy) and not queue.is_pending(copy):
                    self.took(copy, self.world.now, queue)

    # -- flow control ------------------------------------------------------------------------------------------

    def wait_for(self, copy: int, queue: MessageQueue) -> None:
        """R-37: a replicated queue has not committed this yet. From 32 on (stream: 256) the channel grants its reader
        no more credit, and the socket is read until the reader has spent what it has."""
        is_known = copy in self.pending
        self.pending[copy] = queue
        if is_known:
            return  # a fan-out
        self._reader_credit -= 1
        self._handled += 1
        if self._handled == self._regrant:
            self._handled = 0
            self._deferred += self._regrant
            self._grant(queue)
        if self._reader_credit <= 0:
            self.stop_reading("uncommitted")

    def _grant(self, queue: MessageQueue) -> None:
        """R-37: what was held back goes to the reader as soon as few enough publishes are with the queue."""
        taken, now = self._taken, self.world.now
        while taken and taken[0] <= now:
            taken.popleft()
        excess = len(self.pending) + len(taken) - queue.soft_limit
        if excess < 0:
            self._reader_credit += self._deferred
            self._deferred = 0
            self.read_again("uncommitted")
        elif excess < len(taken) and not self._is_grant_due:
            self._is_grant_due = True
            self.node.host.call_at(taken[excess], self._grant_due, queue)

    def _grant_due(self, queue: MessageQueue) -> None:
        self._is_grant_due = False
        if self._deferred:
            self._grant(queue)

    def spend(self, queue: MessageQueue) -> None:
        """R-37: a credit per message on the hop to the queue; 200 come back when it has handled 200."""
        credits = self._credits.get(queue)
        if credits is None:
            credits = self._credits[queue] = Credits(self._credit, self._regrant)
        due = credits.spend(self.world.now, queue.busy)
        if due is not None:
            self.stop_reading("flow")
            self.node.host.call_at(due, self.read_again, "flow")

    # -- the end -----------------------------------------------------------------------------------------------

    def closed(self) -> None:
        """The channel has ended, and nobody hears of what it waits for; messages on their way to queues go on."""
        for queue in self.node.queues:
            queue.publisher_left(self)
        self.waiting.clear()
        self.pending.clear()
        self._open_transaction.clear()
        self._credits.clear()
        self._start_empty()
        self.read_all_again()


class Credits:
    """Credit flow on one hop (R-37): `grants` are the times when further credits arrive."""

    def __init__(self, credit: int, regrant: int) -> None:
        self.left, self.regrant = credit, regrant
        self.spent = 0
        self.grants: deque[float] = deque()

    def spend(self, now: float, handled: float) -> float | None:
        """Spend one on a message that will be handled at `handled` (s); when the last is gone, until when."""
        self.left -= 1
        self.spent += 1
        if self.spent == self.regrant:
            self.spent = 0
            self.grants.append(handled)
        if self.left > 0:
            return None
        while self.grants and self.grants[0] <= now:
            self.grants.popleft()
            self.left += self.regrant
        return None if self.left > 0 else self.grants[0]


class RemoteChannel:
    """What a queue on another node knows of a channel: its answers go back through the nodes' connection."""

    def __init__(self, channel: PublisherChannel, queue: MessageQueue) -> None:
        self.channel, self.queue = channel, queue
        self.confirms, self.is_persistent = channel.confirms, channel.is_persistent
        self.client = channel.client

    def took(self, copy: int, at: float, queue: MessageQueue) -> None:
        """The queue has the message."""
        self._answer(self.channel.took, copy, at)

    def refused(self, copy: int, at: float, queue: MessageQueue) -> None:
        """The queue refuses it."""
        self._answer(self.channel.refused, copy, at)

    def _answer(self, handler: Any, copy: int, at: float) -> None:
        channel = self.channel
        wait = max(0.0, at - channel.world.now)  # until the queue has come so far
        channel.broker.send(self.queue.node, channel.node, self._relay, handler, copy, wait)

    def _relay(self, handler: Any, copy: int, wait: float) -> None:
        if copy in self.channel.pending:  # else it has ended meanwhile
            handler(copy, self.channel.world.now + wait, self.queue)


class ConsumerChannel(Socket):
    """A channel that consumes: the window of its deliveries (R-18), which belong to it until they are acked."""

    def __init__(self, queue: MessageQueue, client: Consumer, node: Node, priority: int) -> None:
        super().__init__()
        self.queue, self.client, self.node, self.priority = queue, client, node, priority
        self.broker, self.world = node.broker, node.broker.world
        self.settings = settings = client.settings
        self.is_auto = settings.ack == "auto"
        limit = settings.prefetch or queue.unlimited_prefetch
        self.prefetch = math.inf if self.is_auto else limit
        self.is_open = False
        self.credit = self.prefetch
        self.deliveries: Any = None
        self._hand_over, self._acks_by_command = client.deliver, queue.takes_commands
        self.unacked: Timeouts[int]
        self._timeout = queue.consumer_timeout or math.inf
        self._opened_at = 0.0
        self._start_empty()
        node.channels.append(self)

    def _start_empty(self) -> None:
        self.unacked = Timeouts(self.node.host, self._timeout, self._timed_out)
        self._overdue: dict[int, None] = {}  # unacked for consumer_timeout, and nobody has looked since
        self._answered: dict[int, None] = {}  # answered, and the queue has not dealt with it yet
        self._resent: set[int] = set()  # asked for again: the first sending may still come
        self._former: dict[int, None] = {}  # held since before the consumer was cancelled

    # -- deliveries --------------------------------------------------------------------------------------------

    def consume(self, _control: int) -> None:
        """basic.consume arrives. While the node of a classic queue is out of reach it fails (R-24)."""
        if self.queue.nacks_when_down and not self.broker.knows_up(self.node, self.queue.node):
            self.client.cancelled_by_broker()
            return
        self.is_open = True
        if not self._former:
            self._opened_at = self.world.now
        self.queue.tell(self.node, "attach", self)

    def deliver(self, copy: int, at: float) -> None:
        """basic.deliver, which leaves at `at` (s). With auto ack the message is forgotten now (R-12)."""
        if self.is_auto:
            self.queue.unacked.pop(copy, None)
            self.queue.forget(copy)
        else:
            self.credit -= 1
        if self.node is not self.queue.node:
            wait = max(0.0, at - self.world.now)  # until the queue has come so far
            self.broker.send(self.queue.node, self.node, self.forward, copy, wait, dropped=self._dropped)
        elif not self.is_open:
            self._dropped(copy)  # it has left, and the queue will know
        else:
            if not self.is_auto:
                self.unacked.add(copy)
            send_at = self.deliveries.send_at  # as a local: see `World.call_later`
            send_at(at, self._hand_over, copy, copy)

    def forward(self, copy: int, wait: float = 0.0) -> None:
        """From a queue on another node, on to the consumer after a wait (s)."""
        if not self.is_open:
            self._dropped(copy)
            return
        if copy in self._resent:
            self._resent.remove(copy)
            return
        if not self.is_auto:
            self.unacked.add(copy)
        self.deliveries.send_at(self.world.now + wait, self.client.deliver, copy, copy)

    def _dropped(self, copy: int, wait: float = 0.0) -> None:
        self.client.delivery_dropped(copy, AUTO_ACK_CRASH)

    def leader_changed(self, queue: MessageQueue) -> None:
        """R-26: what an old leader had sent and did not arrive is asked for again."""
        if queue is self.queue and self.is_open and not self.is_auto:
            for copy, (owner, _) in list(queue.unacked.items()):
                is_here = copy in self.unacked or copy in self._overdue or copy in self._answered
                if owner is self and not is_here:
                    self.forward(copy)
                    self._resent.add(copy)

    # -- answers -----------------------------------------------------------------------------------------------

    def ack(self, copy: int) -> None:
        """basic.ack arrives. One for a delivery of an earlier channel is not known here (R-11)."""
        if self.unacked.remove(copy) or self._was_overdue(copy):
            queue = self.queue
            if queue.node is self.node and not self._acks_by_command:
                queue.acked(self, copy)
            else:
                self._answered[copy] = None
                queue.tell(self.node, "acked", self, copy)

    def ack_all_to(self, copy: int) -> None:
        """basic.ack with multiple: all deliveries up to that one (R-11)."""
        if copy not in self.unacked and copy not in self._overdue:
            return
        copies = [*self._overdue, *self.unacked]
        del copies[copies.index(copy) + 1 :]
        if not self.queue.acks_at_once:
            for earlier in copies:
                self.ack(earlier)
            return
        for earlier in copies:
            if not self.unacked.remove(earlier):
                self._was_overdue(earlier)
            self._answered[earlier] = None
        self.queue.tell(self.node, "acked", self, *copies)

    def nack(self, copy: int, requeue: bool) -> None:
        """basic.nack or basic.reject arrives."""
        if not self.unacked.remove(copy) and not self._was_overdue(copy):
            return
        self._answered[copy] = None
        if requeue:
            how = self.settings.negative_ack
            self.queue.tell(self.node, "returned", self, [copy], HANDLER_FAILED, how)
        else:
            self.queue.tell(self.node, "rejected", self, copy)

    def released(self, copy: int) -> None:
        """At the queue: a delivery is over; the window has room for another."""
        if self._answered:
            self._answered.pop(copy, None)
        if self._former and self._former.pop(copy, 0) is None:
            return  # not of this consumer's window
        if not self.is_auto:
            self.credit += 1
            if self.credit == 1 and self.is_open:
                self.queue.may_send(self)

    def _was_overdue(self, copy: int) -> bool:
        """Whether an answer is for an overdue delivery, which is overdue no more."""
        return self._overdue.pop(copy, 0) is None

    def _timed_out(self, copy: int) -> None:
        """R-17: unacked for consumer_timeout: the next look, once a minute, will find it."""
        if not self._overdue:
            looks = math.ceil((self.world.now - self._opened_at) / LOOK)
            due = max(self._opened_at + looks * LOOK, self.world.now)
            self.node.host.call_at(due, self._look, self._opened_at)
        self._overdue[copy] = None

    def _look(self, opened_at: float) -> None:
        """R-17: the channel is closed (4.2); or overdue deliveries return, and the consumer is cancelled."""
        if not self._overdue or opened_at != self._opened_at or not (self.is_open or self._former):
            return
        if self.queue.settings.series == "4.2":
            self._end(ACK_TIMEOUT, "timeout")
            self.client.cancelled_by_broker()
        else:
            self._return_overdue()

    def _return_overdue(self) -> None:
        """R-17: the channel goes on, and so do deliveries that are not overdue; an ack of one that was is void. A
        consumer that was cancelled before is not cancelled again."""
        overdue, self._overdue = self._overdue, {}
        kept = dict.fromkeys([*self.unacked, *self._answered])
        is_cancelled = self.is_open and any(copy not in self._former for copy in overdue)
        self._answered |= overdue
        if is_cancelled:
            self.is_open = False
            self._former = {c: None for c, (owner, _) in self.queue.unacked.items() if owner is self}
            self.client.cancelled_by_broker(keeps=True)
        self.queue.tell(self.node, "timed_out", self, list(overdue), kept, is_cancelled)

    # -- the end -----------------------------------------------------------------------------------------------

    def node_lost(self, node: Node) -> None:
        """R-24: the node of a classic queue is down or out of reach: basic.cancel, and what is unacked is void."""
        if node is self.queue.node and self.queue.nacks_when_down and self.is_open:
            self.is_open = False
            self.unacked.clear()
            self._overdue.clear()
            self.credit = self.prefetch
            self.client.cancelled_by_broker()

    def closed(self) -> None:
        """R-14: the channel has ended: exactly its unacked deliveries return, in the order of delivery."""
        if self.is_open or self.unacked:
            is_owner = self in self.queue.consumers  # not one that was refused
            self._end(CHANNEL_LOST, "channel")
            if self.queue.settings.exclusive and is_owner:
                self.queue.delete()

    def _end(self, cause: int, how: str) -> None:
        self.is_open = False
        self.read_all_again()
        copies = [*self._overdue, *self.unacked.clear()]
        self._overdue.clear()
        self._former.clear()
        self._give_all_back()
        self.queue.tell(self.node, "left", self, copies, cause, how)

    def _give_all_back(self) -> None:
        """What it was sent is the queue's to return, also if the same client has a channel again before that."""
        self._answered |= {copy: None for copy, (owner, _) in self.queue.unacked.items() if owner is self}

    def node_died(self, kind: str) -> None:
        """The node of the channel has crashed. A queue elsewhere learns of it in its time (R-14, R-26)."""
        copies = [*self._overdue, *self.unacked.clear()]
        self.is_open = False
        self._start_empty()
        self._give_all_back()
        self.queue.consumer_node_lost(self, copies, kind)
