"""Worlds of Kafka in a line, as a scenario would write them, and their story.

`kafka(channel={"nodes": 3}, producer={...}, service={...}, faults=[...], messages=100)` fills in what it is told;
`services` and `producers` name several (each on top of `service` and `producer`), anything else is a top-level field
of a scenario (also `channels`, for several topics). Where nothing else is said, "shop" sends five records to the topic
"orders" (one partition, one replica), record i at 5 + 0.1 (i + 1) s, when the group has long been formed, with
linger 0 and acks=all; every hop takes 1 ms; one consumer, "billing.1", works 10 ms on each and commits after each poll
(enable_auto_commit false, auto_offset_reset earliest), with the official defaults of Kafka otherwise. Times can be
plain seconds. The result is a `Story`: `told["lost_confirmed"]`, `told.causes`, `told.places()` ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.scenario import Scenario
from tests.conformance import driven
from tests.conformance.builders import Story
from tests.conformance.driven import (
    HOP,
    STEP,
    DrivenWorld,
    Settings,
    assembled,
    at,
    books,
    deliveries,
    outcomes,
    stored,
    told_after,
)

__all__ = ["HOP", "STEP", "at", "books", "deliveries", "outcomes", "stored", "told_after"]

START = 5.0  # seconds until the first message's step begins
RF3 = {"nodes": 3, "replication_factor": 3, "min_insync_replicas": 2}


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
    count = top.get("messages") or 5
    shop = {**at(*(START + STEP * (i + 1) for i in range(count))), "linger": 0.0, **(producer or {})}
    billing = {
        "service_time": "10 ms",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        **(service or {}),
    }
    return assembled("kafka", shop, billing, channel, faults, producers, services, top)


def kafka(*args: Any, seed: int = 1, **settings: Any) -> Story:
    """Run `scenario(...)` with a trace; its books balance, or this raises."""
    return Story(scenario(*args, **settings).points()[0].config, seed)


def at_once(count: int, at: float = START) -> dict[str, Any]:
    """Settings of a producer: so many messages at one instant (s)."""
    return driven.at_once(count, at)


class Driven(DrivenWorld):
    """A world of Kafka that a test drives itself."""

    scenario = staticmethod(scenario)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.cluster = self.broker.cluster
        self.partition = self.broker.partitions[0]
