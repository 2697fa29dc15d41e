"""The reference work W, in the simulator's own terms; `bench.straightforward` is the same model in plain SimPy.

Poisson arrivals, 100/s. Every hop (publish, its ack, delivery, its ack) has an exponential delay of mean 1 ms and
loses 1 %. The producer resends after 100 ms until acked. One queue; four consumers that hold at most ten unacked
deliveries each; exponential service of mean 32 ms (load 0.8); redelivery 1 s after a delivery without an ack.

The work of `SYSTEMS` is the same over connections, on a network that loses nothing: what a system's own protocol costs.
"""

from __future__ import annotations

from sim.apps import Producer, Resend, Service
from sim.arrivals import Poisson
from sim.brokers import rabbitmq
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


# -- the same work on several systems: one message per request, each confirmed, each delivery acked ---------------

SYSTEMS = {
    "textbook": ChannelConfig("textbook", Channel(transport="connection", ack_timeout=REDELIVER)),
    "rabbitmq classic": ChannelConfig("rabbitmq", rabbitmq.Channel()),
    "rabbitmq quorum": ChannelConfig("rabbitmq", rabbitmq.Channel(queue_type="quorum", nodes=3)),
    "rabbitmq stream": ChannelConfig("rabbitmq", rabbitmq.Channel(queue_type="stream", nodes=3)),
}
PATIENT = 30.0  # seconds until a producer sends again, which it never needs to


def system_work(name: str, messages: int) -> Config:
    """That many messages through one of `SYSTEMS`. A stream has one consumer, of as many handlers as others have
    consumers: each of several would read everything."""
    channel = SYSTEMS[name]
    consumers, slots = (1, CONSUMERS) if name == "rabbitmq stream" else (CONSUMERS, 1)
    is_textbook = channel.system == "textbook"
    producer = ProducerClient() if is_textbook else rabbitmq.ProducerClient()
    prefetch = PREFETCH * slots
    client = (
        ConsumerClient(prefetch=prefetch)
        if is_textbook
        else rabbitmq.ConsumerClient(prefetch=prefetch, offset="first")
    )
    return Config(
        channels={"orders": channel},
        producers={
            "shop": ProducerConfig(
                Producer("orders", Poisson(ARRIVALS), resend=Resend(timeout=PATIENT)), producer
            )
        },
        services={
            "billing": ServiceConfig(
                Service("orders", consumers=consumers, slots=slots, service_time=Exponential(SERVICE)),
                client,
            )
        },
        network=NetworkSettings(delay=Exponential(DELAY)),
        messages=messages,
    )
