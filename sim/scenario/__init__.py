"""A scenario: its YAML and Python form, its validation, and the configurations of its points.

Each part is loaded when it is first used, so that listing scenarios needs neither pydantic nor a YAML
reader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.scenario.dump import config_dict
    from sim.scenario.errors import ScenarioError
    from sim.scenario.expectations import Claim
    from sim.scenario.json_schema import schema
    from sim.scenario.model import Point, Scenario, load
    from sim.scenario.starter import template

__all__ = ["Claim", "Point", "Scenario", "ScenarioError", "config_dict", "load", "schema", "template"]

_HOMES = {
    "Claim": "expectations",
    "Point": "model",
    "Scenario": "model",
    "ScenarioError": "errors",
    "config_dict": "dump",
    "load": "model",
    "schema": "json_schema",
    "template": "starter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
