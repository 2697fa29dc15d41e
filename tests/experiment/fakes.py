"""A small scenario built from settings, and a simulation that only pretends."""

from dataclasses import dataclass, replace
from typing import Any

from sim.apps import Producer, Resend, Service
from sim.arrivals import Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.metrics import Outcome
from sim.network import NetworkSettings


@dataclass(frozen=True)
class Claim:
    statement: str
    where: str | None = None
    broken_by: Any = None
    refuted: bool = False
    because: str | None = None


@dataclass(frozen=True)
class Point:
    params: dict[str, Any]
    config: Config
    expansion: dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A queue over a lossy network, swept over its loss."""

    losses: tuple[float, ...] = (0.0, 0.05)
    resend: bool = True
    messages: int = 200
    claims: tuple[Claim, ...] = ()
    name: str = "lossy"
    title: str = "Loss"
    question: str = "What does loss do?"
    seed: int = 1
    replications: int = 3
    plots: tuple[str, ...] = ()

    def override(self, changes):
        return replace(self, **changes)

    def points(self):
        return [Point({"network.loss": x}, config(x, self.messages, self.resend), {}) for x in self.losses]


def config(loss, messages=200, resend=True):
    """One producer, one consumer, a network that loses that share of the packets."""
    shop = Producer("orders", Poisson(100.0), resend=Resend() if resend else None)
    return Config(
        channels={"orders": ChannelConfig("textbook", Channel())},
        producers={"shop": ProducerConfig(shop, ProducerClient())},
        services={"billing": ServiceConfig(Service("orders"), ConsumerClient())},
        network=NetworkSettings(loss=loss),
        messages=messages,
    )


def outcome(lost=0, duplicates=0, latency=0.1, **others):
    """What a run might give."""
    figures = {"published": 100, "lost": lost, "duplicates": duplicates, "latency_p50": latency}
    causes = [{"anomaly": "lost", "cause": "packet_lost", "behaviour": "N-01", "count": lost}] if lost else []
    fields = {
        "figures": figures,
        "by": [{"channel": "orders", "subscription": "billing", **figures}],
        "causes": causes,
        "inert": [],
        "faults": [],
        "quantiles": [[0.5, 0.1]],
        "series": {"time": [0.5, 1.5], "backlog": [0.0, 2.0]},
        "components": {"queue": 0.1},
        "n_latency": 100,
    }
    return Outcome(**fields | others)


class Pretence:
    """Stands in for `simulate` and `measure`: loses the network's share, and one more per replication."""

    def __init__(self, monkeypatch):
        self.runs = []
        monkeypatch.setattr("sim.simulation.simulate", self.simulate)
        monkeypatch.setattr("sim.metrics.measure", self.measure)

    def simulate(self, config, seed, replication, trace=False):
        self.before(config.network.loss, replication)
        self.runs.append((config.network.loss, replication))
        return config.network.loss, replication

    def before(self, loss, replication):
        """What happens when a run begins."""

    def measure(self, run):
        loss, replication = run
        return outcome(lost=round(100 * loss) + replication, duplicates=replication)
