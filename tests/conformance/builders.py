"""Worlds of the textbook broker in a line, and their story, for tests that read given, when, then.

`given(storage="disk", resend=Resend(), faults=(Fault(...),))` names settings of the channel, the applications, the
client libraries, the network or the run, whichever has a field of that name. Where nothing else is said, everything
takes round numbers: "shop" sends five messages to "orders", message i at 0.1 (i + 1) s; every link takes 10 ms; one
consumer, "billing.1", works on each for 10 ms. So message 2 is sent at 0.30, stored at 0.31, delivered at 0.32,
processed at 0.33, and its ack is back at 0.34 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from sim.apps import OVERTAKEN, Producer, Service
from sim.arrivals import Deterministic
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant
from sim.ledger import Event, Pairs, cause_of
from sim.metrics import Outcome, PairFacts, measure, pair_facts, repeats
from sim.network import NetworkSettings, TcpSettings
from sim.simulation import simulate

STEP = 0.1  # seconds between messages
HOP = 0.01  # seconds on a link

Where = tuple[str, int]  # a subscription and the number of a message


def given(
    services: Mapping[str, Mapping[str, Any]] | None = None,
    mailer: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Config:
    """A config in which each setting has found its place. Raises TypeError for one that has none.

    `services` gives each service settings of its own; `mailer` gives them to the one that consumes from "mails",
    which is there if somebody publishes.
    """
    unused = dict(settings)

    def take(default: Any, own: Mapping[str, Any] = {}) -> Any:
        names = {field.name for field in fields(default)} - {"channel"}
        for name in names:
            unused.pop(name, None)
        return replace(default, **{n: v for n, v in {**settings, **own}.items() if n in names})

    channel = take(Channel())
    app = take(Producer("orders", Deterministic(1 / STEP), messages=5))
    shop = ProducerConfig(app, take(ProducerClient()))
    consuming = {
        name: ServiceConfig(take(Service("orders"), own), take(ConsumerClient(), own))
        for name, own in (services or {"billing": {}}).items()
    }
    channels = {"orders": ChannelConfig("textbook", channel)}
    if any(service.app.publishes for service in consuming.values()):
        channels["mails"] = ChannelConfig("textbook", Channel())
        consuming["mailer"] = ServiceConfig(replace(Service("mails"), **mailer or {}), ConsumerClient())
    network = replace(take(NetworkSettings(delay=Constant(HOP))), tcp=take(TcpSettings()))
    config: Config = take(Config({}, {}, {}, duration=3.0, drain_limit=60.0))
    if unused:
        raise TypeError(f"nothing has a setting {', '.join(unused)}")
    return replace(
        config,
        channels=channels,
        producers={"shop": shop},
        services=consuming,
        network=network,
        messages=None,
    )


class Story:
    """What happened in a run: its figures, its anomalies by cause, and every event."""

    def __init__(self, config: Config, seed: int = 1) -> None:
        self.run = simulate(config, seed, trace=True)
        self.outcome: Outcome = measure(self.run)  # the books balance, or this raises
        self.trace: list[Event] = self.run.trace or []

    def __getitem__(self, figure: str) -> Any:
        """A figure by its name."""
        return self.outcome.figures[figure]

    def pairs(self, service: str = "billing") -> Pairs:
        """The books of a service."""
        return next(
            m.subscriptions[service] for m in self.run.ledger.channels.values() if service in m.subscriptions
        )

    @cached_property
    def facts(self) -> dict[str, PairFacts]:
        """The places of all pairs, by service."""
        found = {}
        for messages in self.run.ledger.channels.values():
            for name, pairs in messages.subscriptions.items():
                found[name] = pair_facts(self.run, pairs)
        return found

    def places(self, service: str = "billing") -> list[str]:
        """The place of every message at a service; "" for one that it does not want."""
        return [str(place) for place in self.facts[service].place]

    @cached_property
    def causes(self) -> dict[tuple[str, str], int]:
        """How often each (anomaly, cause) was recorded."""
        return {(c["anomaly"], c["cause"]): c["count"] for c in self.outcome.causes}

    def is_well(self, pair: Where, anomaly: str | None = None) -> bool:
        """Whether a pair has no anomaly, or not that one."""
        return not any(
            pair in pairs for (kind, _), pairs in self.anomalies.items() if anomaly in (None, kind)
        )

    @cached_property
    def anomalies(self) -> dict[tuple[str, str], list[Where]]:
        """The pairs behind each of `causes`; a pair that was processed n times is named n - 1 times."""
        found: dict[tuple[str, str], list[Where]] = defaultdict(list)
        for name, facts in self.facts.items():
            pairs = facts.pairs
            is_gone = np.isin(facts.place, ("dead_lettered", "expired", "rejected", "lost"))
            for message in np.flatnonzero(is_gone).tolist():
                cause = cause_of(pairs.fate[message])
                found[cause.anomaly, cause.name].append((name, message))
            for message, copies in pairs.repeats.items():
                for code in repeats(self.run, pairs, copies):
                    found["duplicate", cause_of(code).name].append((name, message))
            for message in range(len(facts.place)):
                if facts.expected[message] and self._is_late(facts, message):
                    found["reordered", self._late_because(pairs, message)].append((name, message))
        return dict(found)

    @staticmethod
    def _is_late(facts: PairFacts, message: int) -> bool:
        """Whether a later one of the same producer and scope was started before. Written as its definition reads."""
        producer, is_unique = facts.pairs.messages.producer, facts.place == "unique"
        messages = facts.pairs.messages
        by_key = messages.keys if messages.ordering_scope == "key" else None
        scope = by_key or messages.scopes or [0] * len(facts.place)
        return bool(is_unique[message]) and any(
            is_unique[later]
            and (producer[later], scope[later]) == (producer[message], scope[message])
            and facts.started[later] < facts.started[message]
            for later in range(message + 1, len(facts.place))
        )

    @staticmethod
    def _late_because(pairs: Pairs, message: int) -> str:
        copy = pairs.first_started.get(message, message)
        return cause_of(OVERTAKEN if copy >= 0 else pairs.messages.copy_cause[~copy]).name

    def events(self, what: str, message: int | None = None, service: str | None = None) -> list[Event]:
        """Events of a kind, in order, of one message or all, at one service (or "": before any) or all."""
        return [
            event
            for event in self.trace
            if event.what == what
            and (message is None or event.message == message)
            and (service is None or event.subscription == service)
        ]

    def order(self, what: str, service: str = "billing") -> list[int]:
        """Messages in the order of their events of a kind at a service."""
        return [event.message for event in self.events(what, service=service)]

    def times(self, what: str, message: int | None = None, service: str | None = None) -> list[float]:
        """When events of a kind happened (s, to the microsecond)."""
        return [round(event.time, 6) for event in self.events(what, message, service)]


def story(config: Config | None = None, seed: int = 1, **settings: Any) -> Story:
    """Run `given(**settings)`, or a config, with a trace."""
    return Story(config if config is not None else given(**settings), seed)
