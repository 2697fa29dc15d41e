"""Settings as JSON: fully expanded, in the form of a scenario file, in a stable order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sim import arrivals, distributions
from sim.config import Config
from sim.scenario.hints import hints

_KINDS: dict[type, str] = {
    cls: name for kinds in (distributions.KINDS, arrivals.KINDS) for name, cls in kinds.items()
} | {distributions.Schedule: "schedule"}


def config_dict(config: Config) -> dict[str, Any]:
    """All settings of a configuration, ready for JSON and readable as a scenario; quantities are in SI units.

    Fields stand in the order of their dataclasses, names in the order of the scenario.
    """
    return {
        "channels": {
            name: {"system": channel.system, **to_plain(channel.settings)}
            for name, channel in config.channels.items()
        },
        "producers": {
            name: {**to_plain(producer.app), **to_plain(producer.client)}
            for name, producer in config.producers.items()
        },
        "services": {
            name: {**to_plain(service.app), **to_plain(service.client)}
            for name, service in config.services.items()
        },
        "network": to_plain(config.network),
        "faults": to_plain(config.faults),
        "duration": config.duration,
        "messages": config.messages,
        "warmup": config.warmup,
        "drain_limit": config.drain_limit,
    }


def to_plain(value: Any) -> Any:
    """Dataclasses as mappings, distributions and arrivals as {kind: {...}}, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        # A default may be the int 1024 where a file gives 1024.0; the JSON of both must be the same.
        for name, hint in hints(type(value)).items():
            if hint.type is float and isinstance(fields[name], int):
                fields[name] = float(fields[name])
        kind = _KINDS.get(type(value))
        return {kind: fields} if kind else fields
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value
