"""What worlds of a real system have in common in tests: scenarios, their stories, and worlds that a test drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sim.ledger import OUTCOMES, Event, Messages, Pairs
from sim.scenario import Scenario
from sim.simulation import Simulation
from tests.conformance.builders import Story

STEP = 0.1  # seconds between messages
HOP = 0.001  # seconds on a link

Settings = Mapping[str, Any]


def assembled(
    system: str,
    shop: Settings,
    billing: Settings,
    channel: Settings | None,
    faults: Sequence[Settings],
    producers: Mapping[str, Settings] | None,
    services: Mapping[str, Settings] | None,
    top: Settings,
) -> Scenario:
    """The channel "orders", producers on top of `shop`, services on top of `billing`; five messages, or as `top` says.

    Raises ScenarioError for settings that do not exist or do not fit.
    """
    data: dict[str, Any] = {
        "channels": {"orders": {"system": system, **(channel or {})}},
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
    """Messages in the order in which their copies became ready for a service."""
    return told.order("stored", service)


def deliveries(told: Story, service: str = "billing") -> list[int]:
    """How often each message was delivered to a service."""
    pairs: Pairs = told.pairs(service)
    return pairs.deliveries[: len(books(told))].tolist()


def at_once(count: int, at: float = STEP) -> dict[str, Any]:
    """Settings of a producer: so many messages at one instant (s)."""
    return {"arrivals": {"batches": {"arrivals": {"trace": [at]}, "size": count}}}


def at(*times: float) -> dict[str, Any]:
    """Settings of a producer: messages at those times (s)."""
    return {"arrivals": {"trace": list(times)}}


class DrivenWorld:
    """A world that a test drives itself: to look inside, and to do what clients do not do of their own accord."""

    scenario: Callable[..., Scenario]

    def __init__(self, **settings: Any) -> None:
        self.trace: list[Event] = []
        self.sim = Simulation(type(self).scenario(**settings).points()[0].config, 1, 0, self.trace)
        for function in self.sim._at_start:
            function()
        for source in self.sim.sources:
            source.start()
        self.sim._is_draining = True  # time does not stop with the last arrival
        self.broker: Any = self.sim.part("orders")

    def run(self, until: float) -> None:
        """Let time pass until then (s)."""
        self.sim.world.run(until=until)

    def sent(self, since: float) -> list[int]:
        """Messages sent to consumers from then on (s), in order."""
        return [event.message for event in self.trace if event.what == "sent" and event.time >= since]
