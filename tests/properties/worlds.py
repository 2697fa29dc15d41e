"""Random small scenarios under random faults, as `Config` objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from hypothesis import strategies as st

from sim.apps import Failures, Idempotence, Keys, Producer, Publishes, Resend, Service
from sim.arrivals import ClosedLoop, Deterministic, Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant, Exponential
from sim.faults import LINK_KINDS, Fault, Kind
from sim.network import LossBursts, NetworkSettings, TcpSettings

TRANSPORTS = ["datagram", "connection"]
times = st.floats(0.0, 4.0).map(lambda t: round(t, 2))
spans = st.floats(0.05, 3.0).map(lambda t: round(t, 2))
delays = st.sampled_from([Constant(0.0), Constant(0.002), Exponential(0.005), Exponential(0.05)])

channels = st.builds(
    Channel,
    pattern=st.sampled_from(["queue", "topic", "exchange"]),
    transport=st.sampled_from(TRANSPORTS),
    storage=st.sampled_from(["memory", "disk"]),
    sync=st.sampled_from(["before_ack", "periodic", "never"]),
    fsync=st.sampled_from([Constant(0.0), Constant(0.002), Exponential(0.05)]),
    on_fsync_failure=st.sampled_from(["crash", "ignore"]),
    ack_timeout=st.sampled_from([None, 0.05, 1.0]),
    max_length=st.sampled_from([None, None, 1, 5]),
    overflow=st.sampled_from(["reject", "drop_head", "drop_tail"]),
    max_attempts=st.sampled_from([None, None, 1, 3]),
    dead_letter=st.booleans(),
    acknowledges=st.sampled_from(["stored", "processed"]),
)
resends = st.builds(
    Resend,
    timeout=st.sampled_from([0.02, 0.1, 1.0]),
    backoff=st.sampled_from([0.0, 0.05]),
    jitter=st.sampled_from(["none", "full"]),
    attempts=st.sampled_from([None, 1, 3]),
    deadline=st.sampled_from([None, 2.0]),
    budget=st.sampled_from([None, 10.0]),
)
keys = st.sampled_from([None, Keys(values=("order.eu", "order.us", "ping")), Keys(number=4, skew=1.0)])


@st.composite
def producers(draw: Any) -> ProducerConfig:
    resend = draw(st.none() | resends)
    arrivals = draw(st.sampled_from([Poisson(20.0), Deterministic(30.0), ClosedLoop(3, None)]))
    if resend is None and isinstance(arrivals, ClosedLoop):
        arrivals = Poisson(20.0)
    app = Producer(
        "orders",
        arrivals,
        messages=60,
        keys=draw(keys),
        resend=resend,
        window=draw(st.sampled_from([None, 2])) if resend else None,
        instances=draw(st.sampled_from([1, 2])),
    )
    return ProducerConfig(app, ProducerClient(sequence_numbers=draw(st.booleans())))


@st.composite
def services(draw: Any, name: str) -> ServiceConfig:
    app = Service(
        "orders",
        consumers=draw(st.integers(1, 3)),
        slots=draw(st.integers(1, 2)),
        service_time=draw(st.sampled_from([Constant(0.0), Constant(0.02), Exponential(0.05)])),
        settle=draw(st.sampled_from(["after", "before"])),
        filter=draw(st.sampled_from([None, "order.*", "#"])),
        binding=draw(st.sampled_from([None, None, "order.eu"])),
        failures=draw(
            st.sampled_from(
                [
                    Failures(),
                    Failures(poison=0.1, transient=0.1),
                    Failures(poison=0.05, crashes=True, restart=0.5),
                ]
            )
        ),
        on_failure=draw(st.sampled_from(["requeue", "discard"])),
        idempotence=draw(
            st.sampled_from(
                [
                    None,
                    Idempotence("transaction"),
                    Idempotence("memory", size=10),
                    Idempotence("transaction", ttl=0.5),
                ]
            )
        ),
        effect=draw(st.booleans()),
        publishes=draw(st.sampled_from([None, None, Publishes("mails"), Publishes("mails", resend=None)])),
    )
    client = ConsumerClient(
        ack=draw(st.sampled_from(["manual", "auto"])),
        prefetch=draw(st.sampled_from([None, 1, 10])),
        consume=draw(st.sampled_from(["push", "push", "pop"])),
        stop_when_empty=draw(st.booleans()),
    )
    return ServiceConfig(app, client)


@st.composite
def faults(draw: Any, hosts: list[str]) -> Fault:
    kind = draw(st.sampled_from(get_args(Kind)))
    target = draw(st.sampled_from(hosts))
    if kind in LINK_KINDS:
        target = draw(
            st.sampled_from(["shop -> orders", "shop <-> orders", "orders -> billing", "orders <-> *"])
        )
    fault = Fault(kind, target, at=draw(times), lasting=draw(spans), skew=5.0, factor=3.0)
    when = draw(st.sampled_from(["at", "at", "every", "chance", "event"]))
    if when == "every":
        return replace(fault, every=1.5)
    if when == "chance":
        return replace(fault, at=None, lasting=None, mtbf=2.0, mttr=0.5)
    if when == "event":
        return replace(
            fault,
            at=None,
            on=f"orders.accept #{draw(st.integers(1, 20))}",
            after=draw(st.sampled_from([0.0, 0.01])),
        )
    return fault


@st.composite
def configs(draw: Any) -> Config:
    """A small scenario of any settings under any faults."""
    channel = draw(channels)
    service_names = ["billing"] if channel.pattern == "queue" else ["billing", "audit"]
    service_configs = {name: draw(services(name)) for name in service_names}
    if channel.pattern == "queue" and draw(st.booleans()):
        channel = replace(channel, overflow="block", acknowledges="stored")
    named = {"orders": ChannelConfig("textbook", channel)}
    if any(s.app.publishes for s in service_configs.values()):
        named["mails"] = ChannelConfig("textbook", Channel())
        service_configs["mailer"] = ServiceConfig(
            Service("mails", service_time=Constant(0.01)), ConsumerClient()
        )
    hosts = ["shop", "orders", "billing", "billing.1", "*"]
    return Config(
        channels=named,
        producers={"shop": draw(producers())},
        services=service_configs,
        network=NetworkSettings(
            delay=draw(delays),
            loss=draw(st.sampled_from([0.0, 0.0, 0.05, 0.3])),
            duplicate=draw(st.sampled_from([0.0, 0.1])),
            bursts=draw(st.sampled_from([None, LossBursts(1.0, 1.0, 0.1)])),
            bandwidth=draw(st.sampled_from([None, 1e6])),
            tcp=TcpSettings(heartbeat=draw(st.sampled_from([None, 0.5]))),
        ),
        faults=tuple(draw(st.lists(faults(hosts), max_size=4))),
        duration=draw(st.sampled_from([3.0, 5.0])),
        drain_limit=20.0,
    )
