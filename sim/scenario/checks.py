"""What one field alone cannot show: references between parts, and settings that do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sim import brokers
from sim.apps import Keys, Producer, Resend
from sim.arrivals import ClosedLoop
from sim.brokers import System
from sim.config import Config
from sim.faults import LINK_KINDS, Fault, Kind
from sim.scenario.document import Document
from sim.scenario.errors import Path, found, nearest_or_all

FAULT_KINDS: tuple[str, ...] = get_args(Kind)
# Settings that only some kinds of fault have.
ONLY_FOR = {
    "factor": ("slow", "slow_link"),
    "loss": ("loss_burst",),
    "skew": ("clock_skew",),
    "drift": ("clock_skew",),
}
_ARROW = re.compile(r"\s*(<?->)\s*")
MANY = 10**9  # members of a group whose number is not known
_EVENT = re.compile(r"(\S+)\.(\w+)\s*#\s*[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Hosts:
    """The hosts of a scenario: groups with the number of their members, and hosts that stand alone.

    `roles` are names that stand for whichever host of a channel has the role when a fault strikes.
    """

    groups: Mapping[str, int]
    alone: tuple[str, ...]
    roles: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Document, nodes: Mapping[str, int], systems: Mapping[str, System]) -> Hosts:
        """The hosts that a document makes: channels' nodes, producers, and services' consumers.

        `nodes` says how many a channel has, as far as that is known: of one that has not, any may be meant.
        """
        channels = {name: nodes.get(name, MANY) for name in document.section("channels")}
        services = {name: _count(raw, "consumers") for name, raw in document.section("services").items()}
        producers = {name: _count(raw, "instances") for name, raw in document.section("producers").items()}
        alone = [name for name, number in (channels | producers).items() if number == 1]
        groups = {name: number for name, number in (channels | producers).items() if number > 1}
        roles = [f"{name}.{role}" for name, system in systems.items() for role in system.roles]
        return cls(groups | services, tuple(alone), tuple(roles))

    def __contains__(self, name: str) -> bool:
        group, _, number = name.rpartition(".")
        if number.isdecimal() and len(number) < 10 and group in self.groups:
            return number == str(int(number)) and 1 <= int(number) <= self.groups[group]
        return name == "*" or name in self.alone or name in self.groups

    def names(self) -> list[str]:
        """Names that a message can offer: of a large group the first and the last."""
        members = [
            f"{name}.{i}"
            for name, n in self.groups.items()
            for i in dict.fromkeys((1, 2, n))
            if i <= n and i != MANY
        ]
        return [*self.alone, *self.groups, *members]

    def check(self, name: str, what: str = "a host", or_role: bool = False) -> None:
        """Raise ValueError, with the nearest name, unless there is such a host, or such a role if that will do."""
        roles = self.roles if or_role else ()
        if name not in self and name not in roles:
            hint = nearest_or_all(name, [*self.names(), *roles])
            raise ValueError(f"expected {what}, found {found(name)}{hint}")


def _count(raw: Any, field: str) -> int:
    count = raw.get(field, 1) if isinstance(raw, dict) else 1
    return count if isinstance(count, int) and count >= 1 else 1


def check_ends(text: str, hosts: Hosts, or_roles: bool = False) -> None:
    """Raise ValueError unless the text is "a -> b" or "a <-> b" of two hosts, or of roles if those will do."""
    parts = _ARROW.split(text.strip())
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise ValueError(
            f'expected two ends such as "shop -> orders" or "shop <-> orders", found {found(text)}'
        )
    hosts.check(parts[0], "a host before the arrow", or_roles)
    hosts.check(parts[2], "a host after the arrow", or_roles)


def check_target(fault: Fault, hosts: Hosts) -> None:
    """Raise ValueError unless the fault's target is a host, or for kinds that strike links also two ends."""
    if "->" not in fault.target:
        hosts.check(fault.target, or_role=True)
    elif fault.kind in LINK_KINDS:
        check_ends(fault.target, hosts, or_roles=True)
    else:
        raise ValueError(f"{fault.kind} strikes a host, not a link; found {found(fault.target)}")


def check_event(text: str | None, systems: Mapping[str, System]) -> None:
    """Raise ValueError unless the text is an event of a channel's broker with its number."""
    if text is None:
        return
    match = _EVENT.fullmatch(text.strip())
    if not match:
        raise ValueError(
            'expected an event and its number such as "orders.accept #3" '
            f"(in quotes: a bare # starts a comment), found {found(text)}"
        )
    channel, event = match.groups()
    if channel not in systems:
        raise ValueError(
            f"expected an event of a channel, found {channel!r}{nearest_or_all(channel, list(systems))}"
        )
    events = systems[channel].events
    if event not in events:
        raise ValueError(f"{systems[channel].name} has no event {event!r}{nearest_or_all(event, events)}")


def check_fault(fault: Fault, given: Mapping[str, Any]) -> None:
    """Raise ValueError where a fault does not say when it strikes, or has a setting of another kind."""
    written = [name for name in given if given[name] is not None]
    for name, kinds in ONLY_FOR.items():
        if fault.kind not in kinds and getattr(fault, name) != Fault.__dataclass_fields__[name].default:
            raise ValueError(f"{name} is for {' and '.join(kinds)}; {fault.kind} has none")
    if fault.kind == "clock_skew" and not (fault.skew or fault.drift):
        raise ValueError("clock_skew needs a skew or a drift")
    ways = [name for name in ("at", "mtbf", "on") if name in written or (name == "at" and "every" in written)]
    if len(ways) != 1:
        listing = " and ".join(ways) or "none"
        raise ValueError(
            f"expected one of at (or every), mtbf and on to say when it strikes, found {listing}"
        )
    if (fault.mtbf is None) != (fault.mttr is None):
        raise ValueError("mtbf and mttr go together: mean time up and mean time down")
    if fault.mtbf is not None and fault.lasting is not None:
        raise ValueError("lasting does not go with mtbf: mttr says how long it is down")
    if fault.after and fault.on is None:
        raise ValueError("after goes with on: the time between the event and the fault")
    if fault.every is not None and (fault.lasting is None or fault.lasting >= fault.every):
        raise ValueError("a fault that comes again needs a lasting shorter than every")


def complaints(config: Config) -> Iterator[tuple[Path, str]]:
    """What is wrong with a configuration whose fields are all valid: where, and why."""
    for name, channel in config.channels.items():
        producers = {n: p for n, p in config.producers.items() if p.app.channel == name}
        services = {n: s for n, s in config.services.items() if s.app.channel == name}
        system = brokers.system(channel.system)
        complaint = system.check(channel.settings, producers, services) or system.check_config(config, name)
        if complaint:
            yield ("channels", name), complaint
    for name, producer in config.producers.items():
        if producer.app.keys is not None and (complaint := _keys_complaint(producer.app.keys)):
            yield ("producers", name, "keys"), complaint
        yield from ((("producers", name, field), complaint) for field, complaint in _unanswered(producer.app))
        if complaint := _timeout_complaint(config, producer.app.channel, producer.app.resend):
            yield ("producers", name, "resend", "timeout"), complaint
    for name, service in config.services.items():
        publishes = service.app.publishes
        if publishes and (complaint := _timeout_complaint(config, publishes.channel, publishes.resend)):
            yield ("services", name, "publishes", "resend", "timeout"), complaint
        if (circle := _circle(config, name)) and name == min(circle):
            yield ("services", name, "publishes"), f"messages would go round for ever: {' -> '.join(circle)}"
    if config.duration is not None and config.warmup >= config.duration:
        yield (
            ("warmup",),
            f"expected less than the duration, {config.duration:g} s, found {config.warmup:g} s",
        )


def _unanswered(producer: Producer) -> Iterator[tuple[str, str]]:
    """A producer that asks for no acks would wait for them for ever, or not at all."""
    if producer.resend is None:
        if isinstance(producer.arrivals, ClosedLoop):
            yield (
                "arrivals",
                "a closed loop waits for acks, so it needs resend, such as resend: {}; found none",
            )
        if producer.window is not None:
            yield (
                "window",
                "a window counts unacked messages, so it needs resend, such as resend: {}; found none",
            )


def _timeout_complaint(config: Config, channel: str, resend: Resend | None) -> str | None:
    """Who waits for ever must be told when no ack will come."""
    name = config.channels[channel].system
    if resend is None or resend.timeout is not None or brokers.system(name).reports_in_doubt:
        return None
    return f"timeout: null needs a system whose client reports broken connections; that of {name} does not"


def _keys_complaint(keys: Keys) -> str | None:
    if bool(keys.values) == (keys.number is not None):
        return "expected either values or a number of keys"
    if keys.weights and len(keys.weights) != len(keys.values):
        return f"expected a weight for each of {len(keys.values)} values, found {len(keys.weights)}"
    if keys.weights and not sum(keys.weights) > 0:
        return "expected a weight above 0, found none"
    if keys.skew and keys.number is None:
        return "skew goes with number: the Zipf exponent over that many keys"
    return None


def _circle(config: Config, start: str) -> list[str] | None:
    """The services on a way along `publishes` that leads back to `start`, or None."""
    ways = [[start]]
    seen = {start}
    for way in ways:
        publishes = config.services[way[-1]].app.publishes
        for name, service in config.services.items():
            if publishes is None or service.app.channel != publishes.channel:
                continue
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None
