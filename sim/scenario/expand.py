"""From a document without a sweep to a `Config`: presets filled in, fields read, references checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

from sim import brokers
from sim.apps import Producer, Publishes, Service
from sim.brokers import Preset, System
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.faults import Fault
from sim.network import LinkSettings, NetworkSettings
from sim.scenario import checks
from sim.scenario.checks import Hosts
from sim.scenario.document import DEFAULT_SYSTEM, Document
from sim.scenario.errors import Path, Problems, did_you_mean, found, nearest_or_all
from sim.scenario.forms import read
from sim.scenario.presets import beneath, preset
from sim.units import Seconds

NAME = re.compile(r"[^\W\d][\w-]*")
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """When a run ends: arrivals stop at `duration` or after `messages` per producer; then it drains."""

    duration: Seconds | None = None
    messages: int | None = None
    warmup: Seconds = 0.0
    drain_limit: Seconds = 600.0


def expand(document: Document, problems: Problems) -> tuple[Config, dict[str, Any]] | None:
    """The configuration, and what presets filled in by dotted path; None if there are problems."""
    return _Expansion(document, problems).config()


class _Expansion:
    """Reads the sections of one document one after the other, and notes what is wrong."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document, self.problems = document, problems
        self.systems: dict[str, System] = {}
        self.presets: dict[str, Preset] = {}
        self.nodes: dict[str, int] = {}
        self.filled: dict[str, Any] = {}

    def config(self) -> tuple[Config, dict[str, Any]] | None:
        before = len(self.problems.found)
        limits = self._limits()
        channels = {name: self._channel(name, raw) for name, raw in self._members("channels", True)}
        producers = {name: self._producer(name, raw) for name, raw in self._members("producers", True)}
        services = {name: self._service(name, raw) for name, raw in self._members("services", False)}
        self._names_differ()
        network, faults = self._network(), self._faults()
        if limits is None or network is None or len(self.problems.found) > before:
            return None
        config = Config(
            channels={name: channel for name, channel in channels.items() if channel},
            producers={name: producer for name, producer in producers.items() if producer},
            services={name: service for name, service in services.items() if service},
            network=network,
            faults=tuple(fault for fault in faults if fault),
            **vars(limits),
        )
        for path, text in checks.complaints(config):
            self._report(path, text)
        return None if len(self.problems.found) > before else (config, self.filled)

    # -- small tools -------------------------------------------------------------------------------------

    def _report(self, path: Path, text: str) -> None:
        self.document.report(self.problems, path, text)

    def _read(self, path: Path, raw: Any, *classes: type) -> tuple[dict[str, Any], ...] | None:
        return read(classes, raw, self.document.folder, self.document.reporter(self.problems, path))

    def _make(self, path: Path, make: Callable[[], T]) -> T | None:
        """What `make` gives; its ValueError is a problem of the value at `path`."""
        try:
            return make()
        except ValueError as error:
            self._report(path, str(error))
            return None

    def _members(self, section: str, is_needed: bool) -> list[tuple[str, dict[str, Any]]]:
        """The named mappings of a section that can be read further."""
        raw = self.document.data.get(section)
        if not isinstance(raw, dict) or not raw:
            if is_needed or raw:
                one = section.removesuffix("s")
                self._report((section,), f"expected at least one {one} by name, found {found(raw or None)}")
            return []
        members = []
        for name, member in raw.items():
            if not NAME.fullmatch(name):
                self._report(
                    (section, name), "expected a name of letters, digits, _ and - that starts with a letter"
                )
            elif not isinstance(member, dict | None):
                self._report((section, name), f"expected a mapping of settings, found {found(member)}")
            else:
                members.append((name, member or {}))
        return members

    def _names_differ(self) -> None:
        """Channels, producers and services are hosts, so no two may share a name."""
        seen: dict[str, str] = {}
        for section in ("channels", "producers", "services"):
            for name in self.document.section(section):
                if name in seen:
                    self._report(
                        (section, name),
                        f"the name is taken by {seen[name]}.{name}; hosts need names of their own",
                    )
                seen.setdefault(name, section)

    def _filled_in(
        self, path: Path, defaults: Mapping[str, Any], raw: dict[str, Any], *classes: type
    ) -> dict[str, Any]:
        merged, filled = beneath(defaults, raw, *classes)
        self.filled |= {".".join(path + inner): value for inner, value in filled.items()}
        return merged

    # -- sections ----------------------------------------------------------------------------------------

    def _limits(self) -> Limits | None:
        raw = {
            field.name: self.document.data[field.name]
            for field in fields(Limits)
            if field.name in self.document.data
        }
        given = self._read((), raw, Limits)
        if given is None:
            return None
        limits = Limits(**given[0])
        if limits.duration is None and limits.messages is None:
            self._report((), "expected a duration or a number of messages, found neither")
        elif limits.duration is not None and limits.messages is not None:
            self._report(("messages",), "expected either a duration or a number of messages, found both")
        return limits

    def _channel(self, name: str, raw: dict[str, Any]) -> ChannelConfig | None:
        path = ("channels", name)
        wanted = raw.get("system", DEFAULT_SYSTEM)
        if wanted not in brokers.NAMES:
            hint = nearest_or_all(wanted, brokers.NAMES)
            self._report((*path, "system"), f"expected the name of a system, found {found(wanted)}{hint}")
            return None
        system = brokers.system(wanted)
        self.systems[name] = system
        own = "guarantee" in raw
        guarantee = raw["guarantee"] if own else self.document.data.get("guarantee")
        where = (*path, "guarantee") if own else ("guarantee",)
        self.presets[name] = self._make(where, lambda: preset(system, guarantee)) or Preset()
        settings = {key: value for key, value in raw.items() if key not in ("system", "guarantee")}
        settings = self._filled_in(path, self.presets[name].channel, settings, system.Channel)
        given = self._read(path, settings, system.Channel)
        if given is None:
            return None
        channel = self._make(path, lambda: ChannelConfig(wanted, system.Channel(**given[0])))
        if channel is not None:
            has_hosts = getattr(channel.settings, "cluster", None) is None
            self.nodes[name] = getattr(channel.settings, "nodes", 1) if has_hosts else 0
        return channel

    def _producer(self, name: str, raw: dict[str, Any]) -> ProducerConfig | None:
        path = ("producers", name)
        found_channel = self._channel_of(path, raw)
        if found_channel is None:
            return None
        channel, system = found_channel
        settings = self._filled_in(path, self.presets[channel].producer, raw, Producer, system.ProducerClient)
        given = self._read(path, {"channel": channel} | settings, Producer, system.ProducerClient)
        if given is None:
            return None
        app, client = given
        return self._make(path, lambda: ProducerConfig(Producer(**app), system.ProducerClient(**client)))

    def _service(self, name: str, raw: dict[str, Any]) -> ServiceConfig | None:
        path = ("services", name)
        raw = self._publishing(path, raw)
        found_channel = self._channel_of(path, raw)
        if found_channel is None:
            return None
        channel, system = found_channel
        settings = self._filled_in(path, self.presets[channel].service, raw, Service, system.ConsumerClient)
        given = self._read(path, {"channel": channel} | settings, Service, system.ConsumerClient)
        if given is None:
            return None
        app, client = given
        return self._make(path, lambda: ServiceConfig(Service(**app), system.ConsumerClient(**client)))

    def _publishing(self, path: Path, raw: dict[str, Any]) -> dict[str, Any]:
        """The settings of a service with the producer's preset of the channel that it publishes to."""
        publishes = raw.get("publishes")
        if not isinstance(publishes, dict) or self._channel_of((*path, "publishes"), publishes) is None:
            return raw
        target = publishes.get("channel", next(iter(self.systems)))
        defaults = {
            k: v for k, v in self.presets[target].producer.items() if k in Publishes.__dataclass_fields__
        }
        merged = self._filled_in((*path, "publishes"), defaults, publishes, Publishes)
        return raw | {"publishes": {"channel": target} | merged}

    def _channel_of(self, path: Path, raw: dict[str, Any]) -> tuple[str, System] | None:
        """The channel that an application names, or the only one there is; None if it cannot be used."""
        names = list(self.document.section("channels"))
        if not names:
            return None  # which is reported already
        if "channel" not in raw and len(names) > 1:
            self._report(path, f"'channel' is missing; choose from {', '.join(names)}")
            return None
        name = raw.get("channel", names[0])
        if name not in names:
            hint = nearest_or_all(name, names)
            self._report((*path, "channel"), f"expected the name of a channel, found {found(name)}{hint}")
            return None
        return (name, self.systems[name]) if name in self.systems else None

    def _network(self) -> NetworkSettings | None:
        raw = self.document.data.get("network")
        if raw is None:
            return NetworkSettings()
        links = raw.get("links") if isinstance(raw, dict) else None
        given = self._read(
            ("network",), {**raw, "links": {}} if isinstance(raw, dict) else raw, NetworkSettings
        )
        if given is None:
            return None
        network = NetworkSettings(**given[0])
        if links is not None and not isinstance(links, dict):
            self._report(
                ("network", "links"), f'expected a mapping such as "shop -> orders", found {found(links)}'
            )
        default = {field.name: getattr(network, field.name) for field in fields(LinkSettings)}
        made: dict[str, LinkSettings] = {}
        hosts = self._hosts()
        for ends, link in (links if isinstance(links, dict) else {}).items():
            path = ("network", "links", ends)
            self._make(path, partial(checks.check_ends, ends, hosts))
            special = self._read(path, link if link is not None else {}, LinkSettings)
            if special is not None:
                made[ends] = LinkSettings(**default | special[0])
        return replace(network, links=made)

    def _faults(self) -> list[Fault | None]:
        raw = self.document.data.get("faults")
        if raw is not None and not isinstance(raw, list):
            self._report(("faults",), f"expected a list of faults, found {found(raw)}")
            return []
        return [self._fault(("faults", str(number)), fault) for number, fault in enumerate(raw or [])]

    def _fault(self, path: Path, raw: Any) -> Fault | None:
        spelt_out = self._make(path, lambda: _spell_out(raw))
        if spelt_out is None:
            return None
        settings, target = spelt_out
        report = self.document.reporter(self.problems, path)
        given = read(
            (Fault,),
            settings,
            self.document.folder,
            lambda inner, text: report((target,) if inner == ("target",) else inner, text),
        )
        if given is None:
            return None
        before = len(self.problems.found)
        fault = Fault(**given[0])
        self._make((*path, target), lambda: checks.check_target(fault, self._hosts()))
        self._make((*path, "on"), lambda: checks.check_event(fault.on, self.systems))
        self._make(path, lambda: checks.check_fault(fault, given[0]))
        return fault if len(self.problems.found) == before else None

    def _hosts(self) -> Hosts:
        return Hosts.of(self.document, self.nodes, self.systems)


def _spell_out(raw: Any) -> tuple[dict[str, Any], str]:
    """A fault with its kind and target, and the name under which the target is written.

    `crash: orders` stands for `kind: crash, target: orders`. Raises ValueError unless there is one kind.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"expected a fault such as {{crash: orders, at: 10 s}}, found {found(raw)}")
    if "kind" in raw:
        return raw, "target"
    kinds = [name for name in raw if name in checks.FAULT_KINDS]
    if len(kinds) != 1:
        hints = [] if kinds else [did_you_mean(name, checks.FAULT_KINDS) for name in raw]
        hint = next(filter(None, hints), "")
        raise ValueError(
            f"expected one kind of fault such as crash, found {' and '.join(kinds) or 'none'}{hint}"
        )
    kind = kinds[0]
    others = {name: value for name, value in raw.items() if name != kind}
    return {"kind": kind, "target": raw[kind]} | others, kind
