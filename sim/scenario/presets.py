"""A delivery guarantee, filled in beneath what the scenario says explicitly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.brokers import Preset, System
from sim.scenario.errors import Path, did_you_mean, found
from sim.scenario.hints import hints
from sim.scenario.quantities import is_none


def preset(system: System, guarantee: Any) -> Preset:
    """The system's preset of that name; its defaults where there is no guarantee.

    Raises ValueError that names what the system offers.
    """
    if is_none(guarantee):
        return system.defaults
    if isinstance(guarantee, str) and guarantee in system.presets:
        return system.presets[guarantee]
    offers = ", ".join(system.presets) or "none"
    hint = did_you_mean(guarantee, system.presets)
    raise ValueError(f"{system.name} does not offer {found(guarantee)}{hint or f'; it offers {offers}'}")


def beneath(
    defaults: Mapping[str, Any], explicit: dict[str, Any], *classes: type
) -> tuple[dict[str, Any], dict[Path, Any]]:
    """`explicit` with the defaults it leaves open, and what these were (by path).

    Field by field: what is written wins, also when it is null. Mappings that stand for a dataclass are
    merged; others, such as a distribution, are one value.
    """
    merged = dict(explicit)
    filled: dict[Path, Any] = {}
    for name, value in defaults.items():
        nested = next((hints(cls)[name].nested for cls in classes if name in hints(cls)), None)
        if name not in explicit:
            merged[name] = value
            filled[(name,)] = value
        elif nested is not None and isinstance(value, Mapping) and isinstance(explicit[name], dict):
            merged[name], inner = beneath(value, explicit[name], nested)
            filled |= {(name, *path): item for path, item in inner.items()}
    return merged, filled
