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

from sim.ledger import OUTCOMES, Event, Messages, Pairs
from sim.scenario import Scenario
from sim.simulation import Simulation
from tests.conformance.builders import Story

STEP = 0.1  # seconds between messages
HOP = 0.001  # seconds on a link
START = 5.0  # seconds until the first message's step begins
RF3 = {"nodes": 3, "replication_factor": 3, "min_insync_replicas": 2}

Settings = Mapping[str, Any]


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
    data: dict[str, Any] = {
        "channels": {"orders": {"system": "kafka", **(channel or {})}},
        "producers": {name: {**shop, **own} for name, own in (producers or {"shop": {}}).items()},
        "services": {name: {**billing, **own} for name, own in (services or {"billing": {}}).items()},
        "network": {"delay": HOP},
        "faults": [dict(fault) for fault in faults],
        **top,
    }
    if "duration" in data:
        data.pop("messages", None)
    else:
        data.setdefault("messages", 5)
    return Scenario.from_dict(data)


def kafka(*args: Any, seed: int = 1, **settings: Any) -> Story:
    """Run `scenario(...)` with a trace; its books balance, or this raises."""
    return Story(scenario(*args, **settings).points()[0].config, seed)


def books(told: Story, channel: str = "orders") -> Messages:
    """The books of a channel: when messages were created, what their producers were told, which copies there were."""
    return told.run.ledger.channels[channel]


def outcomes(told: Story) -> list[str]:
    """What the producer was last told of each message: in_doubt, confirmed or failed."""
    messages = books(told)
    return [OUTCOMES[messages.outcome[i]] for i in range(len(messages))]


def told_after(told: Story) -> list[float]:
    """How long after each message's creation its producer was last told of it (s; NaN for never)."""
    messages = books(told)
    return [round(messages.told_at[i] - messages.created[i], 6) for i in range(len(messages))]


def stored(told: Story, service: str = "billing") -> list[int]:
    """Messages in the order in which their copies became readable for a group."""
    return told.order("stored", service)


def deliveries(told: Story, service: str = "billing") -> list[int]:
    """How often each message was delivered to a service."""
    pairs: Pairs = told.pairs(service)
    return pairs.deliveries[: len(books(told))].tolist()


def at_once(count: int, at: float = START) -> dict[str, Any]:
    """Settings of a producer: so many messages at one instant (s)."""
    return {"arrivals": {"batches": {"arrivals": {"trace": [at]}, "size": count}}}


def at(*times: float) -> dict[str, Any]:
    """Settings of a producer: messages at those times (s)."""
    return {"arrivals": {"trace": list(times)}}


class Driven:
    """A world that a test drives itself: to look inside, and to do what clients do not do of their own accord."""

    def __init__(self, **settings: Any) -> None:
        self.trace: list[Event] = []
        self.sim = Simulation(scenario(**settings).points()[0].config, 1, 0, self.trace)
        for function in self.sim._at_start:
            function()
        for source in self.sim.sources:
            source.start()
        self.sim._is_draining = True  # time does not stop with the last arrival
        self.broker: Any = self.sim.part("orders")
        self.cluster = self.broker.cluster
        self.partition = self.broker.partitions[0]

    def run(self, until: float) -> None:
        """Let time pass until then (s)."""
        self.sim.world.run(until=until)

    def sent(self, since: float) -> list[int]:
        """Messages sent to consumers from then on (s), in order."""
        return [event.message for event in self.trace if event.what == "sent" and event.time >= since]
