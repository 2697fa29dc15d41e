"""Streams: a log that reading does not empty. Each service has its own position in it, and an offset that it stores.

All services with the same binding read one log (`stream_log`), and each has a `StreamQueue`: its reader. The reader
sits where its consumer is connected and reads what that node knows to be committed. What a consumer has acked is
credit, nothing else; what brings it back to where it was is the offset that it stored, which is part of the log.

Left out: Bloom filters (x-stream-filter), reading from an offset or a time given as a number, sub-entry batching.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.brokers.rabbitmq.causes import OFFSET_NEXT, OFFSET_REPLAY, RETENTION
from sim.brokers.rabbitmq.channels import ConsumerChannel
from sim.brokers.rabbitmq.queue import MessageQueue
from sim.brokers.rabbitmq.stream_log import StreamLog
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.channels import PublisherChannel
    from sim.brokers.rabbitmq.node import Node

NOTHING = -1  # stands for a stored offset where none is stored


class StreamQueue(MessageQueue):
    """A service's reader of a stream (R-39, R-40).

    `position` is the offset of the next delivery. While nobody reads, it is where a consumer that came now would
    start; what it passes by in that way is lost to the service, and reported as soon as that is certain.
    """

    nacks_when_down = False
    soft_limit = 256  # stream_messages_soft_limit

    def __init__(self, broker: Broker, node: Node, pairs: Pairs, binding: str | None, name: str = "") -> None:
        super().__init__(broker, node, pairs, binding, name)
        own = pairs.name if self.settings.exchange == "default" else binding
        self._reads = (self.settings.exchange == "default", own)
        same = [q for q in broker.queues if isinstance(q, StreamQueue) and q._reads == self._reads]
        self.is_offered = not same  # what is routed to several readers of a log goes into it once
        self.log: StreamLog = same[0].log if same else StreamLog(self, node)
        self.log.readers.append(self)
        self.start_at = "first"
        self.stored = NOTHING
        self.position = 0
        self.active: ConsumerChannel | None = None  # of `consumers`, the one that reads
        self._again: dict[int, int] = {}  # by offset, the further copies of what was delivered before
        self._vanished: dict[
            ConsumerChannel, None
        ] = {}  # with their node, which the leader does not know yet
        broker.sim.at_start(self._look_up_start)

    def _look_up_start(self) -> None:
        """x-stream-offset of the service's consumers."""
        for node in self.broker.nodes:
            for channel in node.channels:
                if isinstance(channel, ConsumerChannel) and channel.queue is self:
                    self.start_at = channel.settings.offset

    # -- a message comes in ------------------------------------------------------------------------------------

    def offer(self, copy: int, channel: PublisherChannel, at: float) -> None:
        """R-05, R-37: the channel waits until a majority has written it."""
        channel.wait_for(copy, self)
        self.log.submit(copy, channel.node, channel, at)

    def enqueue(self, copy: int, channel: PublisherChannel | None, at: float) -> None:
        """From within the cluster."""
        self.log.submit(copy, self.node, channel, at)

    def is_pending(self, copy: int) -> bool:
        """Whether a publish is not applied yet."""
        return self.log.is_pending(copy)

    def put(self, copy: int) -> None:
        """The message is in the log."""
        self.pairs.stored(copy)

    def grown(self) -> None:
        """The log has a further chunk."""
        if self.active is None:
            self._go_to(self._start())
        elif self.active.node is self.node:
            self.dispatch()

    # -- reading -----------------------------------------------------------------------------------------------

    def _start(self) -> int:
        """R-39, R-40: where a consumer starts: behind the stored offset, or as it says; clamped to what there is."""
        log = self.log
        if self.stored != NOTHING:
            start = self.stored + 1
        elif self.start_at == "first":
            start = log.first
        elif self.start_at == "last":
            start = log.last_chunk
        else:
            start = log.end
        return min(max(start, log.first), log.end)

    def _copy_at(self, offset: int) -> int:
        copy = self._again.get(offset) if self._again else None
        return copy if copy is not None else self.log.copies[offset - self.log.first]

    def _go_to(self, start: int) -> None:
        """Go back: what was delivered will be delivered again, as further copies. Go forward: it never will."""
        pairs = self.pairs
        for offset in range(start, self.position):
            again = self._again[offset] = pairs.requeue(self._copy_at(offset), OFFSET_REPLAY)
            pairs.stored(again)
        for offset in range(self.position, start):
            copy = self._copy_at(offset)
            pairs.unready(copy)
            if offset > self.stored:
                pairs.died(copy, OFFSET_NEXT)
        self.position = start

    def dispatch(self) -> None:
        """R-39: in order, as far as the consumer has credit and its node knows the log."""
        consumer = self.active
        if consumer is None or not consumer.is_open:
            return
        end = self.log.seen_at(consumer.node)
        while self.position < end and consumer.credit > 0:
            copy = self._copy_at(self.position)
            self.unacked[copy] = (consumer, self.position)
            self.position += 1
            self.pairs.sent(copy)
            consumer.credit -= 1
            consumer.unacked.add(copy)
            consumer.deliveries.send(consumer.client.deliver, copy, copy)

    def acked(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-39: an ack is credit."""
        if self.unacked.pop(copy, None) is not None:
            consumer.released(copy)
            if consumer is self.active:
                self.dispatch()

    def rejected(self, consumer: ConsumerChannel, copy: int) -> None:
        """So is a rejection: a stream does not take anything back."""
        self.acked(consumer, copy)

    def returned(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """So is a return."""
        for copy in copies:
            self.acked(consumer, copy)

    def store_offset(self, copy: int, consumer: ConsumerChannel) -> None:
        """R-40: a consumer has told its node to store the offset of a delivery; the node tells the leader."""
        held = self.unacked.get(copy)
        if held is not None and held[0] is consumer:
            self.broker.send(consumer.node, self.node, self.log.take_offset, self, held[1])

    def store(self, offset: int) -> None:
        """R-40: the offset is stored. A lower one than before, from a slower handler, changes nothing."""
        if self._again:
            for done in range(self.stored + 1, offset + 1):
                self._again.pop(done, None)
        self.stored = max(self.stored, offset)
        if self.active is None:
            self._go_to(self._start())

    # -- consumers ---------------------------------------------------------------------------------------------

    def is_local_to(self, node: Node) -> bool:
        """A reader is on the node of its consumer."""
        return True

    def tell(self, node: Node, what: str, *args: Any) -> None:
        """Said on the node itself."""
        getattr(self, what)(*args)

    def may_send(self, consumer: ConsumerChannel) -> None:
        """A consumer has room again: see `acked`."""

    def attach(self, consumer: ConsumerChannel) -> None:
        """A consumer subscribes. R-20: with a single active consumer it may have to wait."""
        if consumer in self._vanished:
            self._take_leave(consumer)
        if consumer in self.consumers:
            return
        if not self.settings.single_active_consumer:
            for old in list(self.consumers):  # the client was on another node, which does not know yet
                self._take_leave(old)
        consumer.credit = consumer.prefetch
        self.consumers.append(consumer)
        if self.active is None:
            self._activate(consumer)

    def _activate(self, consumer: ConsumerChannel) -> None:
        self.active = consumer
        self._go_to(self._start())
        if consumer.node is self.node:
            self.dispatch()
        else:
            self.log.tell_end(consumer.node)

    def left(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """A consumer's channel has ended: whoever comes next starts from the stored offset."""
        self._take_leave(consumer)

    def _take_leave(self, consumer: ConsumerChannel) -> None:
        self._vanished.pop(consumer, None)
        if consumer not in self.consumers:
            return
        self.consumers.remove(consumer)
        if consumer is not self.active:
            return
        self.active = None
        start = self._start()
        for copy, (_, offset) in self.unacked.items():
            if self.stored < offset < start:
                self.pairs.died(copy, RETENTION if offset < self.log.first else OFFSET_NEXT)
        self.unacked.clear()
        self._go_to(start)
        successor = next((other for other in self.consumers if other.is_open), None)
        if successor is not None:
            self._activate(successor)

    def consumer_node_lost(self, consumer: ConsumerChannel, copies: list[int], kind: str) -> None:
        """The reader has died with its node. Whoever waits to succeed it waits until the leader's node notices."""
        if not self.settings.single_active_consumer or consumer.node is self.node:
            self._take_leave(consumer)
        elif consumer in self.consumers:
            self._vanished[consumer] = None

    def contact(self, peer: Node, is_there: bool) -> None:
        """The leader's node is connected to another, or not any more. A reader that is still there reads on."""
        for consumer in [c for c in self._vanished if c.node is peer]:
            self._take_leave(consumer)
        if is_there and self.is_offered:
            self.log.greet(peer)

    # -- what the log loses ------------------------------------------------------------------------------------

    def dropped_before(self, first: int) -> None:
        """R-39: retention drops what is before that offset, read or not."""
        for offset in range(self.position, first):
            copy = self._copy_at(offset)
            self.pairs.unready(copy)
            self.pairs.died(copy, RETENTION)
        self.position = max(self.position, first)
        if self._again:
            self._again = {offset: copy for offset, copy in self._again.items() if offset >= first}

    def lost_from(self, start: int, cause: int) -> None:
        """R-22, R-23: the log has lost its end from that offset on."""
        for offset in range(start, self.log.end):
            copy = self._copy_at(offset)
            if offset >= self.position:
                self.pairs.unready(copy)
            self.pairs.died(copy, cause)
            self._again.pop(offset, None)
        self.position = min(self.position, start)
        for copy, (consumer, offset) in list(self.unacked.items()):
            if offset >= start:  # the offset will be another message's
                del self.unacked[copy]
                consumer.released(copy)

    def move_to(self, leader: Node) -> None:
        """R-26: another node leads."""
        self.node.queues.remove(self)
        leader.queues.append(self)
        self.node = leader
        for consumer in list(self._vanished):
            self._take_leave(consumer)

    # -- books and failure -------------------------------------------------------------------------------------

    def holdings(self) -> Iterator[int]:
        """Copies that would still be delivered: to the consumer that reads now or, if that is gone and the broker does
        not know it yet, to the next one."""
        yield from self.log.pending()
        active = self.active
        if (
            active is not None
            and active.is_open
            and active.client.is_open
            and active.client.channel is active
        ):
            first = self.position
            yield from (copy for copy in active.deliveries.held_copies() if copy in self.unacked)
        else:
            first = min(self.position, self._start())
            for copy, (_, offset) in self.unacked.items():
                if self.stored < offset < first:
                    yield copy
        for offset in range(first, self.log.end):
            yield self._copy_at(offset)

    def bytes_held(self) -> int:
        """Bytes in memory: none."""
        return 0

    def bytes_of_log(self) -> int:
        """R-38, R-39: bytes on the disk: all that retention has not dropped, once for all readers."""
        return self.log.size if self.is_offered else 0

    def node_crashed(self, node: Node) -> None:
        """Some node of the cluster has crashed."""
        if self.is_offered:
            self.log.node_crashed(node)

    def crashed(self, kind: str) -> None:
        """R-22: what a majority has in its page cache survives."""
        self.node.host.touched += len(self.unacked) + len(self.log.copies)

    def restarted(self) -> None:
        """The log is caught up by the leader."""
