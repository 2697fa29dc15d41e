"""What all queues have in common: ready messages, consumers in turn, unacked deliveries, expiry, limits, dead letters.

A queue is one process on one node that takes its inputs in order. Its outputs leave when it has come so far: `busy` is
when it is done with what it has been given (s), which saves an event per input.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.brokers.rabbitmq.causes import (
    CHANNEL_LOST,
    DELIVERY_LIMIT,
    OVERFLOW_HEAD,
    OVERFLOW_NEW,
    QUEUE_DELETED,
    REJECTED,
    TTL,
)
from sim.brokers.rabbitmq.ready import ByPriority, Entry, InPublishOrder, Ready, Weighed
from sim.brokers.rabbitmq.routing import takes
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.channels import ConsumerChannel, PublisherChannel
    from sim.brokers.rabbitmq.dead_letters import DeadLetters
    from sim.brokers.rabbitmq.node import Node

WITHOUT_DLX = {
    "rejected": REJECTED,
    "expired": TTL,
    "maxlen": OVERFLOW_HEAD,
    "refused": OVERFLOW_NEW,
    "delivery_limit": DELIVERY_LIMIT,
}


class MessageQueue:
    """The state of a queue, and what happens to it; when it happens is up to the type of queue."""

    per_message = 10e-6  # seconds of its process per enqueue or delivery (sheet, section 4)
    unlimited_prefetch: float = math.inf  # what no limit means
    nacks_when_down = True  # a channel gives up on a queue whose node is gone
    times_out_from = "4.2"  # the last series in which the acknowledgement timeout is for this type
    soft_limit = 32  # quorum_commands_soft_limit: uncommitted publishes of a channel
    takes_commands = False  # whether what channels say is a command in a log, also on its own node
    acks_at_once = False  # whether an ack of several is one message to it
    is_offered = True  # whether messages are routed to it

    def __init__(self, broker: Broker, node: Node, pairs: Pairs, binding: str | None, name: str = "") -> None:
        self.broker, self.world, self.node, self.pairs = broker, broker.world, node, pairs
        self.settings = settings = broker.settings
        cpu = settings.cpu_per_message  # constants of its own, since they are read for every message
        self.per_message = self.per_delivery = cpu if cpu is not None else self.per_message
        self.name = name or pairs.name
        self.messages = pairs.messages
        self.takes = takes(settings.exchange, pairs.name, binding)
        self.ready: Ready = self._new_ready()
        if settings.max_length_bytes is not None:
            self.ready = self._weighed = Weighed(self.ready, self.messages.size_of)
        self.consumers: list[ConsumerChannel] = []
        self.free: deque[ConsumerChannel] = deque()  # consumers that may be sent something, in turn
        self.unacked: dict[int, tuple[ConsumerChannel, int]] = {}
        self.busy = 0.0
        self.is_deleted = False
        self.ttl = settings.message_ttl
        self.dead_letters: DeadLetters | None = None
        is_timed = settings.series <= self.times_out_from
        self.consumer_timeout = settings.consumer_timeout if is_timed else None
        self._is_bounded = settings.max_length is not None or settings.max_length_bytes is not None
        self.expires_at: dict[int, float] | None = None  # by copy; None while nothing here expires
        self._head_watched = -1.0
        self._position = 0
        self._has_priorities = False
        self._unused_since = 0.0
        node.queues.append(self)

    def _new_ready(self) -> Ready:
        if self.settings.max_priority is not None:
            return ByPriority()
        return InPublishOrder()

    # -- from channels, which may be on other nodes ------------------------------------------------------------

    def offer(self, copy: int, channel: PublisherChannel, at: float) -> None:
        """A channel has routed a message here, at `at` (s)."""
        raise NotImplementedError

    def tell(self, node: Node, what: str, *args: Any) -> None:
        """A channel on a node has something to say: a method of this queue and its arguments."""
        self.broker.send(node, self.node, getattr(self, what), *args)

    def is_pending(self, copy: int) -> bool:
        """Whether a publish was handed over and has not taken effect."""
        return False

    def publisher_left(self, channel: PublisherChannel) -> None:
        """A publisher's channel on the queue's node has ended: nobody hears its confirms any more."""

    # -- a message comes in ------------------------------------------------------------------------------------

    def enqueue(self, copy: int, channel: PublisherChannel | None, at: float) -> None:
        """A channel hands over a message at `at` (s). The queue answers `channel.took` or `channel.refused`."""
        raise NotImplementedError

    def put(self, copy: int) -> None:
        """The message is in the queue."""
        self.pairs.stored(copy)
        self._position = position = self._position + 1
        self.ready.put((position, copy), self.priority_of(copy))
        if self.broker.has_ttl:
            self._set_expiry(copy)
        if self.free:
            self.dispatch()
        if self._is_bounded:
            self._drop_heads()

    def priority_of(self, copy: int) -> int:
        """R-36: the priority of the message, at most `max_priority`; 0 where none is set."""
        if self.settings.max_priority is None:
            return 0
        return min(self.broker.priority_of(copy, default=0), self.settings.max_priority)

    def refuses(self, copy: int) -> bool:
        """R-35: whether one more message is one too many, and refused."""
        return self.settings.overflow != "drop-head" and not self.free and self.is_over(1, copy)

    def is_over(self, more: int, copy: int | None = None, share: float = 1.0) -> bool:
        """Whether ready messages, with so many more, exceed that share of the limits (unacked ones do not count)."""
        settings = self.settings
        if settings.max_length is not None and self.length() + more > share * settings.max_length:
            return True
        if settings.max_length_bytes is None:
            return False
        extra = self.messages.size_of(copy) if copy is not None else 0
        return self._weighed.bytes + extra > share * settings.max_length_bytes

    def length(self) -> int:
        """What counts to `max_length`: ready messages, and those that wait for a dead-letter target (R-34)."""
        kept = len(self.dead_letters) if self.dead_letters is not None else 0
        return len(self.ready) + kept

    def relax(self) -> None:
        """R-35: a queue that refuses may have come to where it takes messages again."""

    def refuse(self, copy: int, channel: PublisherChannel | None, at: float) -> None:
        """R-35: refuse a new message, and dead-letter it if the policy says so."""
        if self.settings.overflow == "reject-publish-dlx" and self.dead_letters is not None:
            self.dead_letters.take(copy, "maxlen")
        else:
            self.pairs.died(copy, OVERFLOW_NEW)
        if channel is not None:
            channel.refused(copy, at, self)

    def _drop_heads(self) -> None:
        while len(self.ready) and self.is_over(0):
            entry = self.ready.pop_oldest()
            self._leave(entry[1], "maxlen")
        if self.expires_at:
            self._watch_head()

    # -- a message goes out ------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """R-19: send ready messages to consumers with room, in turn; higher x-priority first."""
        ready, free, now = self.ready, self.free, self.world.now
        while free and ready.n:
            position, copy = ready.pop()
            if self.expires_at and self.expires_at.get(copy, now) < now:
                self._leave(copy, "expired")
            else:
                self._send(copy, position)
        if self.expires_at:
            self._watch_head()

    def _send(self, copy: int, position: int) -> None:
        """To the consumer whose turn it is."""
        free, now = self.free, self.world.now
        consumer = self._most_urgent() if self._has_priorities else free.popleft()
        self.busy = busy = (self.busy if self.busy > now else now) + self.per_delivery
        self.pairs.sent(copy)
        self.unacked[copy] = (consumer, position)
        consumer.deliver(copy, busy)
        if consumer.credit > 0:
            free.append(consumer)

    def _most_urgent(self) -> ConsumerChannel:
        best = max(self.free, key=lambda consumer: consumer.priority)
        self.free.remove(best)
        return best

    def acked(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-11: the consumer is done with a delivery."""
        raise NotImplementedError

    def forget(self, copy: int) -> None:
        """The message is done with."""
        if self.expires_at:
            self.expires_at.pop(copy, None)
        if self.pairs.unheard:
            self.pairs.unheard.pop(copy, None)

    # -- a message comes back ----------------------------------------------------------------------------------

    def returned(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """Deliveries come back, in that order. `how`: "nack", "reject", "channel" (it ended) or "timeout"."""
        raise NotImplementedError

    def rejected(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-32: the consumer does not want the message any more."""
        raise NotImplementedError

    def put_back(self, copy: int, position: int, cause: int) -> int:
        """R-13: a delivery is ready again, as a further copy that is marked as redelivered."""
        again = self.pairs.requeue(copy, cause)
        self.pairs.stored(again)
        if self.expires_at is not None and copy in self.expires_at:  # requeue keeps the expiry
            self.expires_at[again] = self.expires_at.pop(copy)
        self.ready.put_back((position, again), self.priority_of(copy))
        return again

    # -- age ---------------------------------------------------------------------------------------------------

    def _set_expiry(self, copy: int) -> None:
        """R-30: the lower one of the queue's and the message's TTL counts."""
        own = None if self._has_died_before(copy) else self.broker.expiration_of(copy)
        ttl = own if self.ttl is None else self.ttl if own is None else min(own, self.ttl)
        if ttl is not None:
            if self.expires_at is None:
                self.expires_at = {}
            self.expires_at[copy] = self.world.now + ttl
            self._watch_head()

    def _has_died_before(self, copy: int) -> bool:
        """R-33: a dead letter has no TTL of its own any more."""
        dead_letters = self.dead_letters
        return dead_letters is not None and self.messages.message_of(copy) in dead_letters.deaths

    def _watch_head(self) -> None:
        """R-30: messages expire at the head only; one timer, for the head."""
        head = self.ready.head()
        if head is None or self.expires_at is None:
            return
        due = self.expires_at.get(head[1])
        if due is not None and due != self._head_watched:
            self._head_watched = due
            self.node.host.call_at(max(due, self.world.now), self._head_due, due)

    def _head_due(self, due: float) -> None:
        if due != self._head_watched:
            return
        self._head_watched = -1.0
        now = self.world.now
        while (
            (head := self.ready.head()) and self.expires_at and self.expires_at.get(head[1], now + 1) <= now
        ):
            self.ready.pop()
            self._leave(head[1], "expired")
        self._watch_head()

    # -- the end of a message ----------------------------------------------------------------------------------

    def _leave(self, copy: int, reason: str) -> None:
        """A ready message leaves the queue unprocessed."""
        self.pairs.unready(copy)
        self.bury(copy, reason)

    def bury(self, copy: int, reason: str) -> None:
        """R-32: a message dies here: to the dead-letter exchange, or for good."""
        self.forget(copy)
        if self.dead_letters is not None:
            self.dead_letters.take(copy, reason)
        else:
            self.pairs.died(copy, WITHOUT_DLX[reason])

    def delete(self) -> None:
        """R-30: the queue is gone, with its contents; they are not dead-lettered."""
        if self.is_deleted:
            return
        self.is_deleted = True
        for _, copy in self.ready:
            self.pairs.unready(copy)
            self.pairs.died(copy, QUEUE_DELETED)
        for copy in self.unacked:
            self.pairs.died(copy, QUEUE_DELETED)
        self.ready.clear()
        self.unacked.clear()
        self.free.clear()

    # -- consumers ---------------------------------------------------------------------------------------------

    def attach(self, consumer: ConsumerChannel) -> None:
        """A consumer subscribes (basic.consume)."""
        if self.is_deleted or consumer in self.consumers:
            return
        if self.settings.exclusive and self.consumers:
            return  # refused
        consumer.credit = consumer.prefetch
        self.consumers.append(consumer)
        self._has_priorities = any(c.priority for c in self.consumers)
        self.may_send(consumer)
        self.dispatch()

    def may_send(self, consumer: ConsumerChannel) -> None:
        """A consumer has room again."""
        if consumer.credit > 0 and consumer not in self.free and self._is_served(consumer):
            self.free.append(consumer)

    def _is_served(self, consumer: ConsumerChannel) -> bool:
        """R-20: with a single active consumer, only the first of them is."""
        if not self.settings.single_active_consumer:
            return consumer in self.consumers
        return bool(self.consumers) and consumer is self.consumers[0]

    def detach(self, consumer: ConsumerChannel) -> None:
        """A consumer is gone; the next one takes over from a single active one."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        if consumer in self.free:
            self.free.remove(consumer)
        self._has_priorities = any(c.priority for c in self.consumers)
        if self.consumers and self.settings.single_active_consumer:
            self.may_send(self.consumers[0])
            self.dispatch()
        if not self.consumers:
            self.unused()

    def left(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """R-14: a consumer's channel has ended. Its deliveries return, also those that it never had in hand."""
        self.detach(consumer)
        known = dict.fromkeys(copies)
        others = [
            copy for copy, (owner, _) in self.unacked.items() if owner is consumer and copy not in known
        ]
        self.returned(consumer, [*copies, *others], cause, how)
        consumer.credit = consumer.prefetch

    def unused(self) -> None:
        """R-30: `expires` after its last use a queue is deleted."""
        if self.settings.expires is not None:
            self._unused_since = self.world.now
            self.node.host.call_later(self.settings.expires, self._expire, self._unused_since)

    def _expire(self, since: float) -> None:
        if not self.consumers and since == self._unused_since:
            self.delete()

    def consumer_node_lost(self, consumer: ConsumerChannel, copies: list[int], kind: str) -> None:
        """The node of a consumer's channel has crashed, which a queue elsewhere does not know yet (see `contact`)."""

    def contact(self, peer: Node, is_there: bool) -> None:
        """R-14, R-28: the queue's node is connected to another, or not any more: then the channels there are gone."""
        if not is_there:
            for consumer in [c for c in self.consumers if c.node is peer]:
                self.left(consumer, [], CHANNEL_LOST, "channel")

    def suspicion(self, peer: Node, is_suspected: bool) -> None:
        """The failure detector of the queue's node suspects another, or no longer (R-26)."""

    # -- books -------------------------------------------------------------------------------------------------

    def holdings(self) -> Iterator[int]:
        """Copies that would still be delivered."""
        for _, copy in self.ready:
            yield copy
        yield from self.unacked

    def entries(self) -> list[Entry]:
        """All messages, ready or not, by position (for recovery)."""
        held = [(position, copy) for copy, (_, position) in self.unacked.items()]
        return sorted([*self.ready, *held])

    def bytes_held(self) -> int:
        """Bytes of all messages, ready or not, for which the node needs memory and disk (R-38)."""
        messages = self.messages
        if messages.sizes is None:
            return 1024 * (len(self.ready) + len(self.unacked))
        return sum(messages.size_of(copy) for _, copy in self.ready) + sum(
            map(messages.size_of, self.unacked)
        )

    def bytes_of_log(self) -> int:
        """Bytes for which it needs the disk only."""
        return 0

    # -- failure -----------------------------------------------------------------------------------------------

    def stop_cleanly(self) -> None:
        """The node stops in good order: what has to last is written, and synced."""

    def node_crashed(self, node: Node) -> None:
        """Some node of the cluster has crashed."""

    def node_back(self, node: Node) -> None:
        """Some node of the cluster is back."""

    def crashed(self, kind: str) -> None:
        """The node of the queue has crashed (kinds as in `Host.crash`)."""
        raise NotImplementedError

    def restarted(self) -> None:
        """The node is back."""
        raise NotImplementedError
