"""The textbook broker: the model that lectures start from.

One broker process on one host offers the three patterns. A *queue* hands each message to one of its competing
consumers; a *topic* has a queue per subscription, and each gets every message; an *exchange* has a queue per
subscription as well, and routes to it what matches its binding ("*" stands for one word of a key, "#" for any number).

What it promises depends on its settings. With a producer that resends until acked, a queue on a disk that is synced
before the ack, and consumers that ack after processing, nothing confirmed is lost and repeats happen (at-least-once).
With a producer that fires and forgets and a broker that forgets what it has sent, nothing repeats and losses happen
(at-most-once). Effects are single when the consumer remembers, in the transaction of the effect, what it has done.

The behaviours follow the sheet "Network, faults, statistics" (N, A-D, H) and "Messaging patterns" (PT).
"""

from __future__ import annotations

from typing import Any

from sim.brokers import Preset, System
from sim.brokers.textbook.broker import Broker
from sim.brokers.textbook.settings import Channel, ConsumerClient, ProducerClient

__all__ = ["SYSTEM", "Broker", "Channel", "ConsumerClient", "ProducerClient"]

PRESETS = {
    "at-most-once": Preset(channel={"storage": "memory"}, producer={"resend": None}, service={"ack": "auto"}),
    "at-least-once": Preset(
        channel={"storage": "disk", "sync": "before_ack"},
        producer={"resend": {}},
        service={"ack": "manual", "settle": "after"},
    ),
    "exactly-once": Preset(
        channel={"storage": "disk", "sync": "before_ack"},
        producer={"resend": {}, "sequence_numbers": True},
        service={"ack": "manual", "settle": "after", "idempotence": {"store": "transaction"}},
    ),
}


def _check(channel: Channel, producers: Any, services: Any) -> str | None:
    if channel.pattern == "queue" and len(services) > 1:
        return "a queue has one consuming service; for several use pattern: topic or exchange"
    if channel.overflow == "block" and channel.pattern != "queue":
        return "overflow: block needs pattern: queue"
    return None


SYSTEM = System(
    name="textbook",
    title="Textbook broker",
    Channel=Channel,
    ProducerClient=ProducerClient,
    ConsumerClient=ConsumerClient,
    presets=PRESETS,
    events=("publish", "accept", "settled"),
    build=Broker,
    check=_check,
)
