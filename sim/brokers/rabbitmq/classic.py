"""Classic queues: one process on one node, no replica; written to the page cache, never synced before a confirm.

A message is in the process's memory first, in the page cache from the next flush on, and on the disk when the
operating system writes it back. Persistent and transient messages are stored alike; what differs is when they are
confirmed, and what a restart discards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.brokers.rabbitmq.causes import (
    ACK_REVIVED,
    CHANNEL_LOST,
    DISK_LOSS,
    POWER_LOSS,
    QUEUE_DOWN,
    TRANSIENT_RESTART,
    UNFLUSHED,
)
from sim.brokers.rabbitmq.channels import RemoteChannel
from sim.brokers.rabbitmq.queue import MessageQueue
from sim.ledger import USUAL_SIZE, Pairs
from sim.storage import Journal

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.channels import ConsumerChannel, PublisherChannel
    from sim.brokers.rabbitmq.node import Node

FLUSH = 50e-6  # seconds of a flush, plus the bytes at 1 GB/s (sheet, section 4)
SYNC_INTERVAL = 0.2  # seconds: the latest flush
WRITE_BUFFER = 512 * 1024  # bytes: a full one is written, without confirms
WRITE_BACK = 30.0  # seconds between write-backs of the operating system
NEVER = math.inf
FEW = 2e-4  # seconds of work: with less than that before it a publish cannot be out of credit
RECOVERY = 10e-6  # seconds per stored message when a node starts

FATE = {"process": UNFLUSHED, "machine": POWER_LOSS, "disk": DISK_LOSS}


class ClassicQueue(MessageQueue):
    """A classic queue (R-05, R-06, R-22, R-23)."""

    def __init__(self, broker: Broker, node: Node, pairs: Pairs, binding: str | None, name: str = "") -> None:
        super().__init__(broker, node, pairs, binding, name)
        self.journal: Journal[int] = Journal(node.disk)
        self.is_durable = self.settings.durable and not self.settings.exclusive
        self._unwritten: dict[int, PublisherChannel | None] = {}  # in the buffer; who waits for a confirm
        # The same of what was written before a flush.
        self._unconfirmed: dict[int, PublisherChannel | None] = {}
        self._acks: list[int] = []  # acks in the buffer
        self._acked: list[int] = []  # acks that were written, and are not on the disk
        self._buffered = 0
        self._flush_at = NEVER
        self._has_ack_timer = False
        self._is_write_back_due = False
        self._survivors: list[tuple[int, int]] = []

    # -- a message comes in ------------------------------------------------------------------------------------

    def offer(self, copy: int, channel: PublisherChannel, at: float) -> None:
        """R-24: to a queue on another node it goes through the nodes' connection; it is nacked if that is known to be
        down or out of reach."""
        if channel.node is self.node:
            self.enqueue(copy, channel, at)
            if self.busy > self.world.now + FEW:
                channel.spend(self)
        elif self.broker.knows_up(channel.node, self.node):
            channel.pending[copy] = self
            wait = at - self.world.now  # until the channel has come so far
            there = (channel.node, self.node, self._arrives, copy, channel, wait)
            self.broker.send(*there, dropped=self._dropped)
        else:
            self.pairs.died(copy, QUEUE_DOWN)
            channel.refused(copy, at, self)

    def _arrives(self, copy: int, channel: PublisherChannel, wait: float) -> None:
        self.enqueue(copy, RemoteChannel(channel, self), self.world.now + wait)  # type: ignore[arg-type]

    def _dropped(self, copy: int, channel: PublisherChannel, wait: float) -> None:
        self.pairs.died(copy, QUEUE_DOWN)

    def enqueue(self, copy: int, channel: PublisherChannel | None, at: float) -> None:
        """R-05: a transient message is confirmed on reaching the queue, a persistent one when it is written."""
        self.busy = done = (self.busy if self.busy > at else at) + self.per_message
        if self._is_bounded and self.refuses(copy):
            self.refuse(copy, channel, done)
            return
        is_waited_for = self.is_durable and channel is not None and channel.confirms and channel.is_persistent
        self._unwritten[copy] = channel if is_waited_for else None
        if not is_waited_for and channel is not None:
            channel.took(copy, done, self)
        self._buffered += self.messages.size_of(copy) if self.broker.has_sizes else USUAL_SIZE
        if self._buffered >= WRITE_BUFFER:
            self._write_early()
        self.put(copy)
        if is_waited_for and self._flush_at == NEVER:
            self._flush_at = due = self.busy
            self.node.host.call_at(due, self._flush_if_idle, due, self.world.now + SYNC_INTERVAL)

    def publisher_left(self, channel: PublisherChannel) -> None:
        """R-08: its messages stay, and what is on the way to it is not for the channel that the client opens next."""
        for waiting in (self._unwritten, self._unconfirmed):
            for copy, owner in waiting.items():
                if owner is channel:
                    waiting[copy] = None

    def put(self, copy: int) -> None:
        """R-19: what finds the queue empty and a consumer with room does not wait in it."""
        if self.free and not self.ready.n and not self.broker.has_ttl:
            self.pairs.stored(copy)
            self._position = position = self._position + 1
            self._send(copy, position)
        else:
            super().put(copy)

    def _flush_if_idle(self, due: float, latest: float) -> None:
        """R-06: a flush comes when the mailbox is empty, or 200 ms after the first message that waits for it."""
        if due != self._flush_at:
            return
        if self.busy > self.world.now < latest:
            self._flush_at = due = min(self.busy, latest)
            self.node.host.call_at(due, self._flush_if_idle, due, latest)
        else:
            self._flush()

    def _ack_timer(self) -> None:
        """R-23: acks do not wait longer than that either."""
        self._has_ack_timer = False
        if self._acks:
            self._flush()

    def _flush(self) -> None:
        self._flush_at = NEVER
        took = FLUSH + self._buffered / 1e9
        unwritten = self._unwritten
        self._write()
        now = self.world.now
        self.busy = done = (self.busy if self.busy > now else now) + took
        if self._unconfirmed:
            unwritten, self._unconfirmed = {**self._unconfirmed, **unwritten}, {}
        for copy, channel in unwritten.items():
            if channel is not None:
                channel.took(copy, done, self)

    def _write_early(self) -> None:
        """R-06: a full buffer is written; confirms wait for the flush."""
        self._unconfirmed |= {
            copy: channel for copy, channel in self._unwritten.items() if channel is not None
        }
        self._write()

    def _write(self) -> None:
        """What is buffered goes to the page cache: messages, and acks of those that are there."""
        self.journal.write(self._unwritten, self._acks)
        self._acked.extend(self._acks)
        self._unwritten, self._acks = {}, []
        self._buffered = 0
        if not self._is_write_back_due and self.journal.unsynced:
            self._is_write_back_due = True
            self.node.host.call_later(WRITE_BACK, self._write_back)

    def _write_back(self) -> None:
        """R-23: the operating system writes its dirty pages back."""
        self._is_write_back_due = False
        self.journal.sync(self._written_back, set(self._acked))

    def _written_back(self, is_ok: bool, acked: set[int]) -> None:
        if is_ok:
            self._acked = [copy for copy in self._acked if copy not in acked]

    # -- answers of consumers ----------------------------------------------------------------------------------

    def acked(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-11: the message is removed; the consumer has room for another."""
        if self.unacked.pop(copy, None) is None:
            return
        self.forget(copy)
        consumer.released(copy)
        if self.free and self.ready.n:
            self.dispatch()

    def forget(self, copy: int) -> None:
        """A message that was written has to be removed from the disk; one that was not never goes there (R-05)."""
        if self.expires_at or self.pairs.unheard:
            super().forget(copy)
        if copy in self._unwritten:
            channel = self._unwritten.pop(copy)
            if channel is not None:
                channel.took(copy, max(self.busy, self.world.now), self)
        else:
            self._acks.append(copy)
            if not self._has_ack_timer:
                self._has_ack_timer = True
                self.node.host.call_later(SYNC_INTERVAL, self._ack_timer)

    def returned(self, consumer: ConsumerChannel, copies: list[int], cause: int, how: str) -> None:
        """R-13, R-14: ready again, at the original position; a classic queue has no delivery limit."""
        for copy in copies:
            held = self.unacked.pop(copy, None)
            if held is None:
                continue
            again = self.put_back(copy, held[1], cause)
            self._renumber(copy, again)
            consumer.released(copy)
        if self._is_bounded and self.settings.overflow == "drop-head":
            self._drop_heads()
        self.dispatch()

    def _renumber(self, copy: int, again: int) -> None:
        """The same message on the disk goes by the name of its new copy."""
        if copy in self._unwritten:
            self._unwritten[again] = self._unwritten.pop(copy)
        else:
            self.journal.rename(copy, again)

    def rejected(self, consumer: ConsumerChannel, copy: int) -> None:
        """R-32: no more deliveries of it from here."""
        if self.unacked.pop(copy, None) is not None:
            consumer.released(copy)
            self.bury(copy, "rejected")
            self.dispatch()

    # -- failure -----------------------------------------------------------------------------------------------

    def stop_cleanly(self) -> None:
        """R-22: a clean stop writes what is buffered."""
        self._write_early()

    def crashed(self, kind: str) -> None:
        """R-22, R-23: memory is gone; the page cache survives the process, the disk the machine."""
        on_disk = dict.fromkeys(self.journal.recover(kind))
        entries = self.entries()
        self.node.host.touched += len(entries)
        for _, copy in self.ready:
            self.pairs.unready(copy)
        waiting = dict(self._unwritten)
        acked = [*self._acks, *self._acked]
        self._survivors = []
        for position, copy in entries:
            if not self.survives(copy):
                self.pairs.died(copy, TRANSIENT_RESTART)
            elif copy in on_disk:
                self._survivors.append((position, copy))
            else:
                self.pairs.died(copy, UNFLUSHED if copy in waiting else FATE[kind])
        for copy in acked:
            if copy in on_disk and self.survives(copy):
                self._survivors.append((-1, copy))
        self._revived = dict.fromkeys(acked)
        self.ready.clear()
        self.unacked.clear()
        self.free.clear()
        self.consumers.clear()
        self._unwritten.clear()
        self._unconfirmed.clear()
        self._acks.clear()
        self._acked.clear()
        self._buffered = 0
        self._flush_at = NEVER
        self._has_ack_timer = self._is_write_back_due = False
        self._head_watched = -1.0

    def survives(self, copy: int) -> bool:
        """R-22: persistent messages on durable queues."""
        return self.is_durable and not self.broker.is_transient(copy)

    def restarted(self) -> None:
        """Start from what the disk holds; what had been sent comes again as a copy that is marked so."""
        kind = self.node.host.crash_kind
        on_disk = dict.fromkeys(self.journal.recover(kind))
        for position, copy in sorted(self._survivors):
            if copy not in on_disk:  # a worse crash came on top of the first
                self.pairs.died(copy, FATE[kind])
                continue
            again = copy
            if copy in self._revived:
                again = self.pairs.requeue(copy, ACK_REVIVED)
            elif self.pairs.was_sent(copy):
                again = self.pairs.requeue(copy, CHANNEL_LOST)
            if again != copy:
                self.journal.remove(copy)
                self.journal.add(again)
                if self.expires_at is not None and copy in self.expires_at:
                    self.expires_at[again] = self.expires_at.pop(copy)
            self.pairs.stored(again)
            self.ready.put((max(position, 0), again), self.priority_of(again))
        for copy in on_disk:
            if not self.survives(copy):
                self.journal.remove(copy)
        self.busy = self.world.now + RECOVERY * len(self._survivors)
        self._survivors = []
        if self.journal.unsynced:
            self._is_write_back_due = True
            self.node.host.call_later(WRITE_BACK, self._write_back)
        if self.expires_at:
            self._watch_head()
        self.unused()

    def holdings(self) -> Iterator[int]:
        """Copies that would still be delivered."""
        yield from super().holdings()
        for _, copy in self._survivors:
            yield copy
