"""Two made-up systems, so that these tests do not change with the settings of real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from sim import brokers
from sim.brokers import Preset, System
from sim.distributions import Constant, Distribution
from sim.scenario import Scenario, load
from sim.units import Bytes, Seconds


@dataclass(frozen=True)
class SimpleChannel:
    """A queue or a topic. `fsync` is what a flush takes, every `flush_interval`."""

    pattern: Literal["queue", "topic"] = "queue"
    storage: Literal["memory", "disk"] = "memory"
    flush_interval: Seconds = 1.0
    fsync: Distribution = Constant(0.002)
    ack_timeout: Seconds | None = 1.0
    max_length: int | None = None
    memory: Bytes | None = None
    dead_letter: bool = False


@dataclass(frozen=True)
class SimpleProducer:
    """The producer's library."""

    sequence_numbers: bool = False


@dataclass(frozen=True)
class SimpleConsumer:
    """The consumer's library: up to `prefetch` unacked deliveries."""

    prefetch: int | None = 10


@dataclass(frozen=True)
class PigeonChannel:
    """Fire and forget."""

    flock: int = 1


@dataclass(frozen=True)
class PigeonClient:
    """Has no settings."""


def _one_reader(channel: SimpleChannel, producers: Any, services: Any) -> str | None:
    return "a queue has one service" if channel.pattern == "queue" and len(services) > 1 else None


SIMPLE = System(
    name="textbook",
    title="Textbook",
    Channel=SimpleChannel,
    ProducerClient=SimpleProducer,
    ConsumerClient=SimpleConsumer,
    presets={
        "at-most-once": Preset(channel={"storage": "memory"}, producer={"resend": None}),
        "at-least-once": Preset(
            channel={"storage": "disk", "fsync": {"exponential": "3 ms"}},
            producer={"resend": {"timeout": "200 ms", "backoff": "50 ms"}},
            service={"settle": "after"},
        ),
        "exactly-once": Preset(
            channel={"storage": "disk"},
            producer={"resend": {}, "sequence_numbers": True},
            service={"idempotence": {"store": "transaction"}},
        ),
    },
    events=("accept", "settled"),
    build=lambda *_: None,
    check=_one_reader,
)
PIGEON = System(
    name="pigeon",
    title="Pigeon post",
    Channel=PigeonChannel,
    ProducerClient=PigeonClient,
    ConsumerClient=PigeonClient,
    presets={"at-most-once": Preset(channel={"flock": 2})},
    events=("coo",),
    build=lambda *_: None,
)


@pytest.fixture
def fake_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only these two exist; one bears the name of the default system."""
    systems = {"textbook": SIMPLE, "pigeon": PIGEON}
    monkeypatch.setattr(brokers, "NAMES", tuple(systems))
    monkeypatch.setattr(brokers, "system", systems.__getitem__)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Scenario]:
    """Load a text as the file s.yaml of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str | bytes) -> Scenario:
        Path("s.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load("s.yaml")

    return load_text
