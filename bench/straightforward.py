"""The reference work W as a good SimPy user writes it in an afternoon: the model that ours is measured against.

Everything that waits is a process: a packet, a message at its producer, a delivery at the broker, a consumer. Queues
are stores, prefetch is a resource, and who waits for an ack waits for `ack | timeout`. It keeps four facts of each
message, where the simulator keeps its whole ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import simpy

from bench.work import ARRIVALS, CONSUMERS, DELAY, LOSS, PREFETCH, REDELIVER, RESEND, SERVICE

Story = Generator[simpy.Event, Any, None]


@dataclass(slots=True, eq=False)
class Message:
    """What is recorded of a message; times in seconds, None for never."""

    created: float
    confirmed: float | None = None
    first_processed: float | None = None
    processings: int = 0


class Model:
    """A shop, a broker with one queue, and its consumers."""

    def __init__(self, messages: int, seed: int) -> None:
        self.env = simpy.Environment()
        self.random = random.Random(seed)
        self.messages: list[Message] = []
        self.queue = simpy.Store(self.env)
        self.env.process(self.shop(messages))
        for _ in range(CONSUMERS):
            inbox, slots = simpy.Store(self.env), simpy.Resource(self.env, PREFETCH)
            self.env.process(self.dispatch(inbox, slots))
            self.env.process(self.consume(inbox))

    # -- the network -------------------------------------------------------------------------------------------

    def send(self, arrive: Callable[[], Any]) -> None:
        """Lose the packet, or let it arrive in a while."""
        if self.random.random() >= LOSS:
            self.env.process(self.packet(arrive))

    def packet(self, arrive: Callable[[], Any]) -> Story:
        """A packet on its way."""
        yield self.env.timeout(self.random.expovariate(1 / DELAY))
        arrive()

    def acknowledge(self, ack: simpy.Event) -> None:
        """An ack arrives, maybe not the first."""
        if not ack.triggered:
            ack.succeed()

    # -- the producer ------------------------------------------------------------------------------------------

    def shop(self, messages: int) -> Story:
        """Messages arrive at the shop."""
        for _ in range(messages):
            yield self.env.timeout(self.random.expovariate(ARRIVALS))
            message = Message(self.env.now)
            self.messages.append(message)
            self.env.process(self.publish(message))

    def publish(self, message: Message) -> Story:
        """Send a message until it is acked."""
        ack = self.env.event()
        while not ack.triggered:
            self.send(partial(self.store, message, ack))
            yield ack | self.env.timeout(RESEND)
        message.confirmed = self.env.now

    # -- the broker --------------------------------------------------------------------------------------------

    def store(self, message: Message, ack: simpy.Event) -> None:
        """A message arrives at the broker."""
        self.queue.put(message)
        self.send(partial(self.acknowledge, ack))

    def dispatch(self, inbox: simpy.Store, slots: simpy.Resource) -> Story:
        """Give a consumer messages while it has slots."""
        while True:
            slot = slots.request()
            yield slot
            message = yield self.queue.get()
            self.env.process(self.deliver(message, inbox, slots, slot))

    def deliver(self, message: Message, inbox: simpy.Store, slots: simpy.Resource, slot: Any) -> Story:
        """One delivery: it holds its slot until it is acked, or goes back into the queue."""
        ack = self.env.event()
        self.send(partial(inbox.put, (message, ack)))
        yield ack | self.env.timeout(REDELIVER)
        slots.release(slot)
        if not ack.triggered:
            self.queue.put(message)

    # -- a consumer --------------------------------------------------------------------------------------------

    def consume(self, inbox: simpy.Store) -> Story:
        """Process deliveries one by one, and ack each."""
        while True:
            message, ack = yield inbox.get()
            yield self.env.timeout(self.random.expovariate(1 / SERVICE))
            message.processings += 1
            if message.first_processed is None:
                message.first_processed = self.env.now
            self.send(partial(self.acknowledge, ack))


def run(messages: int, seed: int) -> list[Message]:
    """All messages of one run, which goes on for 60 s after the last is expected to arrive."""
    model = Model(messages, seed)
    model.env.run(until=messages / ARRIVALS + 60)
    return model.messages
