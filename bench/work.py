"""The reference work W, in the simulator's own terms; `bench.straightforward` is the same model in plain SimPy.

Poisson arrivals, 100/s. Every hop (publish, its ack, delivery, its ack) has an exponential delay of mean 1 ms and
loses 1 %. The producer resends after 100 ms until acked. One queue; four consumers that hold at most ten unacked
deliveries each; exponential service of mean 32 ms (load 0.8); redelivery 1 s after a delivery without an ack.

The work of `SYSTEMS` is the same over connections, on a network that loses nothing: what a system's own protocol costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sim.apps import Producer, Resend, Service
from sim.arrivals import Poisson
from sim.brokers import kafka, rabbitmq
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Exponential
from sim.network import NetworkSettings

ARRIVALS = 100.0  # per second
DELAY, SERVICE, RESEND, REDELIVER = 0.001, 0.032, 0.1, 1.0  # seconds
LOSS = 0.01
CONSUMERS, PREFETCH = 4, 10


def reference_work(messages: int) -> Config:
    """W with that many messages: at least once, all in memory, nothing fails but packets."""
    return Config(
        channels={"orders": ChannelConfig("textbook", Channel(ack_timeout=REDELIVER))},
        producers={
            "shop": ProducerConfig(
                Producer("orders", Poisson(ARRIVALS), resend=Resend(timeout=RESEND)), ProducerClient()
            )
        },
        services={
            "billing": ServiceConfig(
                Service("orders", consumers=CONSUMERS, service_time=Exponential(SERVICE)),
                ConsumerClient(prefetch=PREFETCH),
            )
        },
        network=NetworkSettings(delay=Exponential(DELAY), loss=LOSS),
        messages=messages,
    )


# -- the same work on several systems: each message confirmed, each delivery acked or its offset committed -----------

PATIENT = 30.0  # seconds until a producer sends again, which it never needs to
BATCH = 100  # messages of a Kafka batch, where it is not one
KIB = 1024  # bytes of a message


@dataclass(frozen=True)
class SystemWork:
    """A system's settings for the work. A stream has one consumer, of as many handlers as others have consumers: each
    of several would read everything."""

    channel: ChannelConfig
    producer: Any = ProducerClient()
    consumer: Callable[..., Any] = ConsumerClient
    consumers: int = CONSUMERS
    resend: Resend = Resend(timeout=PATIENT)


def _rabbitmq(consumers: int = CONSUMERS, **channel: Any) -> SystemWork:
    return SystemWork(
        ChannelConfig("rabbitmq", rabbitmq.Channel(**channel)),
        rabbitmq.ProducerClient(),
        partial(rabbitmq.ConsumerClient, offset="first"),
        consumers,
    )


def _kafka(batch: int, acks: Any = "1", **channel: Any) -> SystemWork:
    """A partition for each consumer, and batches of so many messages. The library resends by itself."""
    producer = kafka.ProducerClient(acks=acks, batch_size=batch * KIB, linger=0.0 if batch == 1 else PATIENT)
    return SystemWork(
        ChannelConfig("kafka", kafka.Channel(partitions=CONSUMERS, **channel)),
        producer,
        lambda prefetch: kafka.ConsumerClient(auto_offset_reset="earliest"),
        resend=Resend(timeout=None),
    )


SYSTEMS = {
    "textbook": SystemWork(ChannelConfig("textbook", Channel(transport="connection", ack_timeout=REDELIVER))),
    "rabbitmq classic": _rabbitmq(),
    "rabbitmq quorum": _rabbitmq(queue_type="quorum", nodes=3),
    "rabbitmq stream": _rabbitmq(1, queue_type="stream", nodes=3),
    "kafka": _kafka(1),
    f"kafka, {BATCH} a batch": _kafka(BATCH),
    "kafka, 3 replicas": _kafka(1, acks="all", nodes=3, replication_factor=3, min_insync_replicas=2),
}


def system_work(name: str, messages: int) -> Config:
    """That many messages through one of `SYSTEMS`."""
    work = SYSTEMS[name]
    slots = CONSUMERS // work.consumers
    return Config(
        channels={"orders": work.channel},
        producers={
            "shop": ProducerConfig(Producer("orders", Poisson(ARRIVALS), resend=work.resend), work.producer)
        },
        services={
            "billing": ServiceConfig(
                Service("orders", consumers=work.consumers, slots=slots, service_time=Exponential(SERVICE)),
                work.consumer(prefetch=PREFETCH * slots),
            )
        },
        network=NetworkSettings(delay=Exponential(DELAY)),
        messages=messages,
    )
