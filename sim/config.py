"""One point of a scenario, fully expanded: what a simulation is built from. Plain frozen dataclasses, no YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.apps import Producer, Service
from sim.faults import Fault
from sim.network import NetworkSettings


@dataclass(frozen=True)
class ChannelConfig:
    """A channel: the system it runs on and that system's `Channel` settings."""

    system: str
    settings: Any


@dataclass(frozen=True)
class ProducerConfig:
    """A producing application and its client library's `ProducerClient` settings."""

    app: Producer
    client: Any


@dataclass(frozen=True)
class ServiceConfig:
    """A consuming application and its client library's `ConsumerClient` settings."""

    app: Service
    client: Any


@dataclass(frozen=True)
class Config:
    """Everything that decides a run besides seed and replication. Names of channels, producers, services are keys.

    Arrivals stop at `duration` (s) or after `messages` messages per producer; then faults heal and the run drains
    for at most `drain_limit` (s). `warmup` (s) is deleted from latencies and rates, never from the books.
    """

    channels: Mapping[str, ChannelConfig]
    producers: Mapping[str, ProducerConfig]
    services: Mapping[str, ServiceConfig]
    network: NetworkSettings = field(default_factory=NetworkSettings)
    faults: tuple[Fault, ...] = ()
    duration: float | None = None
    messages: int | None = None
    warmup: float = 0.0
    drain_limit: float = 600.0
