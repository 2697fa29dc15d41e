"""Dead letters: where messages go that were rejected, expired, crowded out or delivered too often (R-32 to R-34)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED
from sim.brokers.rabbitmq.causes import (
    DLX_LOST,
    DLX_RETRY,
    PARKED_DELIVERY_LIMIT,
    PARKED_EXPIRED,
    PARKED_OVERFLOW,
    PARKED_REJECTED,
    PARKED_RETRIES_SPENT,
)

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.node import Node
    from sim.brokers.rabbitmq.queue import MessageQueue

PARKED = {
    "rejected": PARKED_REJECTED,
    "expired": PARKED_EXPIRED,
    "maxlen": PARKED_OVERFLOW,
    "refused": PARKED_OVERFLOW,
    "delivery_limit": PARKED_DELIVERY_LIMIT,
}
WORKER_PREFETCH = 32  # dead_letter_worker_consumer_prefetch
CONFIRM_TIMEOUT = 180.0  # seconds: dead_letter_worker_publisher_confirm_timeout


class DeadLetters:
    """The dead-letter exchange of one queue, and the queue that it leads to: a terminal one, or one with a TTL.

    `target` is the queue that takes them; None stands for a terminal one, which is nothing but the books. `deaths`
    are the x-death headers: how often a message died where, and of what (R-33).
    """

    def __init__(
        self,
        source: MessageQueue,
        target: MessageQueue | None,
        node: Node,
        deaths: dict[int, dict[tuple[str, str], int]],
        is_declared: bool = True,
    ) -> None:
        self.source, self.target, self._node, self.is_declared = source, target, node, is_declared
        self.world, self.pairs = source.world, source.pairs
        settings = source.settings
        self.is_safe = (  # else it falls back to at most once
            settings.dead_letter_strategy == "at-least-once"
            and settings.queue_type == "quorum"
            and settings.overflow == "reject-publish"
        )
        self.deaths = deaths
        # At least once: until the target has confirmed. With the reason, how often it was stored there, and until when
        # it may be in flight (s).
        self._kept: deque[tuple[int, str, int]] = deque()
        self._in_flight: dict[int, tuple[str, int, float]] = {}

    @property
    def node(self) -> Node:
        """Where the target is."""
        return self.target.node if self.target is not None else self._node

    def take(self, copy: int, reason: str) -> None:
        """A message has died in the source, of that reason."""
        if self._is_cycle(copy, reason):
            self.pairs.died(copy, DLX_LOST)
            return
        if self.is_safe:
            self._kept.append((copy, reason, 0))
            self._pump()
        elif self._can_reach():
            broker = self.source.broker
            broker.send(self.source.node, self.node, self._store, copy, reason, dropped=self._lost)
        else:
            self._lost(copy, reason)

    def _lost(self, copy: int, reason: str) -> None:
        self.pairs.died(copy, DLX_LOST)  # republished without confirms

    def deaths_of(self, copy: int) -> int:
        """How often the message was rejected (x-death), which a consumer can read."""
        counts = self.deaths.get(self.pairs.messages.message_of(copy), {})
        return sum(count for (_, reason), count in counts.items() if reason == "rejected")

    def _is_cycle(self, copy: int, reason: str) -> bool:
        """R-33: notes the death, and tells whether it would go to where it died before, with no rejection since."""
        counts = self.deaths.setdefault(self.pairs.messages.message_of(copy), {})
        key = (self.source.name, reason)
        counts[key] = counts.pop(key, 0) + 1  # the newest is the last
        if self.target is None:
            return False
        for queue, why in reversed(counts):
            if why == "rejected":
                return False
            if queue == self.target.name:
                return True
        return False

    def _can_reach(self) -> bool:
        return self.is_declared and self.source.broker.knows_up(self.source.node, self.node)

    def _store(self, copy: int, reason: str, channel: Any = None) -> None:
        """At the node of the target. A `channel` is told when it is stored."""
        rounds = self.source.settings.retry_rounds
        if self.target is None:
            self.pairs.dead_letter(copy, PARKED[reason])
        elif reason == "rejected" and rounds is not None and self.deaths_of(copy) > rounds:
            self.pairs.dead_letter(copy, PARKED_RETRIES_SPENT)  # the consumer looked, and gave up
        else:
            again = self.pairs.requeue(copy, HANDLER_FAILED) if self.pairs.was_sent(copy) else copy
            self.target.enqueue(again, channel, self.world.now)
            return
        if channel is not None:
            self.source.broker.send(self.node, self.source.node, channel.took, copy, self.world.now, None)

    # -- at least once -----------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._kept and len(self._in_flight) < WORKER_PREFETCH:
            copy, reason, times = self._kept.popleft()
            self._in_flight[copy] = (reason, times, 0.0)
            self._try(copy, 0.0)

    def _try(self, copy: int, since: float) -> None:
        """R-34: publish to the target and wait for its confirm; again 180 to 360 s after the last try."""
        entry = self._in_flight.get(copy)
        if entry is None or entry[2] != since:
            return
        broker, source = self.source.broker, self.source.node
        # A timer of 180 s looks for what is at least that old.
        due = CONFIRM_TIMEOUT * (self.world.now // CONFIRM_TIMEOUT + 2)
        self._in_flight[copy] = (entry[0], entry[1], due)
        source.host.call_at(due, self._try, copy, due)
        if self._can_reach():
            broker.send(source, self.node, self._arrives, copy)

    def start_again(self) -> None:
        """The queue has a new leader, where nobody knows what is in flight: it is published again."""
        for copy, (reason, times, _) in reversed(self._in_flight.items()):
            self._kept.appendleft((copy, reason, times))
        self._in_flight.clear()
        self._pump()

    def _arrives(self, copy: int) -> None:
        """At the target: a try that is repeated is stored again, since nothing tells it from another message."""
        entry = self._in_flight.get(copy)
        if entry is None or not self.node.host.is_running:
            return
        reason, times, since = entry
        self._in_flight[copy] = (reason, times + 1, since)
        stored = copy if not times else self.pairs.messages.copy(copy, DLX_RETRY)
        self._store(stored, reason, Publication(self, copy))

    def confirmed(self, copy: int) -> None:
        """The target has confirmed a dead letter."""
        if self._in_flight.pop(copy, None) is not None:
            self._pump()
            self.source.relax()

    def holdings(self) -> Iterator[int]:
        """Copies that the source keeps until the target has them."""
        for copy, _, _ in self._kept:
            yield copy
        yield from self._in_flight

    def __len__(self) -> int:
        return len(self._kept) + len(self._in_flight)


class Publication:
    """R-34: what the target of a dead letter knows of the worker that has published it: whom to confirm it to."""

    confirms = is_persistent = True

    def __init__(self, letters: DeadLetters, copy: int) -> None:
        self.letters, self.copy, self.node = letters, copy, letters.source.node
        self.pending = self  # whatever it is asked for waits for a confirm

    def __contains__(self, copy: int) -> bool:
        return True

    def took(self, copy: int, at: float, queue: MessageQueue | None) -> None:
        """The target has it."""
        self.letters.confirmed(self.copy)

    def refused(self, copy: int, at: float, queue: MessageQueue | None) -> None:
        """The target is full: it is tried again."""
