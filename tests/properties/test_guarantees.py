"""What each guarantee promises, whatever the network and the faults do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sim.apps import Failures, Idempotence, Producer, Resend, Service
from sim.arrivals import Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant, Exponential
from sim.metrics import measure
from sim.network import NetworkSettings, TcpSettings
from sim.simulation import simulate
from tests.properties.worlds import TRANSPORTS, configs, faults, resends

small = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
seeds = st.integers(0, 2**32)
HOSTS = ["shop", "orders", "billing", "billing.1", "*"]


@st.composite
def at_least_once(draw: Any, idempotence: Idempotence | None = None, numbered: bool = False) -> Config:
    """A durable broker that syncs before it acks, a producer that never gives up, acks after processing."""
    resend = replace(draw(resends), attempts=None, deadline=None, budget=None)
    service = Service(
        "orders",
        consumers=draw(st.integers(1, 3)),
        slots=draw(st.integers(1, 2)),
        service_time=draw(st.sampled_from([Constant(0.01), Exponential(0.05)])),
        failures=draw(st.sampled_from([Failures(), Failures(transient=0.2)])),
        idempotence=idempotence,
    )
    channel = Channel(
        transport=draw(st.sampled_from(TRANSPORTS)),
        storage="disk",
        sync="before_ack",
        fsync=draw(st.sampled_from([Constant(0.0), Constant(0.002), Exponential(0.05)])),
        ack_timeout=draw(st.sampled_from([0.5, 1.0])),
    )
    harmless = faults(HOSTS).filter(lambda fault: fault.kind != "disk_loss")
    return Config(
        channels={"orders": ChannelConfig("textbook", channel)},
        producers={
            "shop": ProducerConfig(
                Producer("orders", Poisson(20.0), messages=60, resend=resend),
                ProducerClient(sequence_numbers=numbered),
            )
        },
        services={"billing": ServiceConfig(service, ConsumerClient(prefetch=draw(st.sampled_from([1, 10]))))},
        network=NetworkSettings(
            delay=draw(st.sampled_from([Constant(0.002), Exponential(0.02)])),
            loss=draw(st.sampled_from([0.0, 0.05, 0.3])),
            duplicate=draw(st.sampled_from([0.0, 0.1])),
            tcp=TcpSettings(heartbeat=draw(st.sampled_from([None, 0.5]))),
        ),
        faults=tuple(draw(st.lists(harmless, max_size=4))),
        duration=4.0,
        drain_limit=60.0,
    )


@small
@given(configs(), seeds)
def test_at_most_once_never_duplicates(config: Config, seed: int) -> None:
    channels = {
        name: replace(c, settings=replace(c.settings, storage="memory"))
        for name, c in config.channels.items()
    }
    producers = {
        name: replace(p, app=replace(p.app, resend=None, window=None, arrivals=Poisson(20.0)))
        for name, p in config.producers.items()
    }
    services = {
        name: ServiceConfig(replace(s.app, publishes=None), replace(s.client, ack="auto"))
        for name, s in config.services.items()
    }
    config = replace(
        config,
        channels=channels,
        producers=producers,
        services=services,
        network=replace(config.network, duplicate=0.0),
    )
    assert measure(simulate(config, seed)).figures["duplicates"] == 0


@small
@given(at_least_once(), seeds)
def test_at_least_once_never_loses_what_was_confirmed(config: Config, seed: int) -> None:
    figures = measure(simulate(config, seed)).figures
    assert figures["lost_confirmed"] == 0


@small
@given(at_least_once(Idempotence("transaction"), numbered=True), seeds)
def test_exactly_once_neither_repeats_nor_misses_an_effect(config: Config, seed: int) -> None:
    figures = measure(simulate(config, seed)).figures
    assert figures["duplicate_effects"] == 0
    assert figures["lost_effects"] == 0
    assert figures["lost_confirmed"] == 0
    assert figures["effects"] == figures["unique"]


@small
@given(
    st.sampled_from([Constant(0.002), Exponential(0.02)]),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_one_connection_one_queue_one_consumer_never_reorder(
    delay: Any, loss: float, durable: bool, confirms: bool, seed: int
) -> None:
    resend = Resend(timeout=1000.0) if confirms else None
    config = Config(
        channels={
            "orders": ChannelConfig(
                "textbook",
                Channel(transport="connection", storage="disk" if durable else "memory", ack_timeout=None),
            )
        },
        producers={
            "shop": ProducerConfig(Producer("orders", Poisson(50.0), resend=resend), ProducerClient())
        },
        services={
            "billing": ServiceConfig(Service("orders", service_time=Exponential(0.01)), ConsumerClient())
        },
        network=NetworkSettings(delay=delay, loss=loss),
        duration=4.0,
    )
    figures = measure(simulate(config, seed)).figures
    assert figures["unique"] and figures["out_of_order"] == 0
