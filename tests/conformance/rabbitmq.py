"""Worlds of RabbitMQ in a line, as a scenario would write them, and their story.

`rabbit(channel={"queue_type": "quorum"}, producer={...}, service={...}, faults=[...], messages=100)` fills in what it
is told; `services` and `producers` name several (each on top of `service` and `producer`), anything else is a
top-level field of a scenario. Where nothing else is said, "shop" sends five messages to "orders", message i at
0.1 (i + 1) s, with confirms and resends as the library reports; every hop takes 1 ms; one consumer, "billing.1", works
10 ms on each, with the official defaults of RabbitMQ otherwise (no prefetch limit, manual acks). Times can be plain
seconds. The result is a `Story`: `told["lost_confirmed"]`, `told.causes`, `told.places()`, `told.times("stored")` ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.scenario import Scenario
from tests.conformance.builders import Story
from tests.conformance.driven import (
    HOP,
    STEP,
    DrivenWorld,
    Settings,
    assembled,
    at,
    at_once,
    books,
    deliveries,
    outcomes,
    stored,
    told_after,
)

__all__ = ["HOP", "STEP", "at", "at_once", "books", "deliveries", "outcomes", "stored", "told_after"]

QUORUM = {"queue_type": "quorum", "nodes": 3}


def scenario(
    channel: Settings | None = None,
    producer: Settings | None = None,
    service: Settings | None = None,
    faults: Sequence[Settings] = (),
    producers: Mapping[str, Settings] | None = None,
    services: Mapping[str, Settings] | None = None,
    **top: Any,
) -> Scenario:
    """The scenario of such a world. Raises ScenarioError for settings that do not exist or do not fit."""
    shop = {"arrivals": {"deterministic": f"{1 / STEP}/s"}, "resend": {"timeout": None}, **(producer or {})}
    billing = {"service_time": "10 ms", **(service or {})}
    return assembled("rabbitmq", shop, billing, channel, faults, producers, services, top)


def rabbit(*args: Any, seed: int = 1, **settings: Any) -> Story:
    """Run `scenario(...)` with a trace; its books balance, or this raises."""
    return Story(scenario(*args, **settings).points()[0].config, seed)


class Driven(DrivenWorld):
    """A world of RabbitMQ that a test drives itself."""

    scenario = staticmethod(scenario)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.queue = self.broker.queues[0]
