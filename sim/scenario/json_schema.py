"""The JSON Schema (2020-12) of a scenario file, for editors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import models_json_schema

from sim import brokers
from sim.apps import Producer, Publishes, Service
from sim.faults import Fault
from sim.network import NetworkSettings
from sim.scenario.checks import FAULT_KINDS
from sim.scenario.document import DEFAULT_SYSTEM
from sim.scenario.expand import Limits
from sim.scenario.expectations import Expectation
from sim.scenario.forms import form
from sim.scenario.laws import LAWS
from sim.scenario.model import Header
from sim.scenario.published import Source

Json = dict[str, Any]


def schema() -> Json:
    """The schema, with the docstrings of the settings as descriptions.

    It accepts every file that is valid; what depends on several fields only `load` can check.
    """
    systems = [brokers.system(name) for name in brokers.NAMES]
    parts = {
        "top": [form(Header, Limits)],
        "channels": [form(system.Channel) for system in systems],
        "producers": [form(Producer, system.ProducerClient) for system in systems],
        "services": [form(Service, system.ConsumerClient) for system in systems],
        "network": [form(NetworkSettings)],
        "faults": [form(Fault)],
        "expect": [form(Expectation)],
        "published": [form(Source)],
        "publishes": [form(Publishes)],
    }
    refs, whole = models_json_schema([(model, "validation") for models in parts.values() for model in models])
    defs: dict[str, Json] = whole["$defs"]
    for name, definition in defs.items():
        if name.partition("_")[0] not in LAWS:
            _describe_fields(definition)
    for name in LAWS:
        _shorten_law(defs, name)

    def named(part: str) -> list[str]:
        return [refs[(model, "validation")]["$ref"].rpartition("/")[2] for model in parts[part]]

    guarantees = list(dict.fromkeys(name for system in systems for name in system.presets))
    guarantee = {"enum": [*guarantees, "none", None], "description": "A preset of the system's settings."}
    for name, system in zip(named("channels"), systems, strict=True):
        chosen: Json = {"const": system.name, "description": system.title}
        defs[name]["properties"] = {"system": chosen, "guarantee": guarantee} | defs[name]["properties"]
        defs[name]["required"] = [] if system.name == DEFAULT_SYSTEM else ["system"]
    for part in ("producers", "services", "publishes"):  # with one channel, `channel` may be left out
        for name in named(part):
            defs[name].pop("required", None)
    _shorten_fault(defs[named("faults")[0]])
    top = defs.pop(named("top")[0])
    sections: Json = {
        "guarantee": guarantee,
        **{part: _by_name(named(part)) for part in ("channels", "producers", "services")},
        "network": _nullable({"$ref": f"#/$defs/{named('network')[0]}"}),
        "faults": _nullable({"type": "array", "items": {"$ref": f"#/$defs/{named('faults')[0]}"}}),
        "sweep": _nullable(_sweep()),
        "expect": _nullable({"type": "array", "items": {"$ref": f"#/$defs/{named('expect')[0]}"}}),
        "published": _nullable({"$ref": f"#/$defs/{named('published')[0]}"}),
    }
    result: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of msgsim",
        "type": "object",
        "properties": top["properties"] | sections,
        "required": ["channels", "producers"],
        "additionalProperties": False,
        "$defs": dict(sorted(defs.items())),
    }
    tidy: Json = _everywhere(result, _tidy)
    return tidy


def _describe_fields(definition: Json) -> None:
    """Give each field the sentence of the docstring that speaks of it."""
    sentences = re.split(r"(?<=[.;])\s+", " ".join(definition.get("description", "").split()))
    for name, field in definition.get("properties", {}).items():
        about = next(
            (sentence for sentence in sentences if f"`{name}`" in sentence or f"`{name}:" in sentence), None
        )
        if about:
            known = f" {field['description']}" if "description" in field else ""
            field["description"] = about[0].upper() + about[1:].rstrip(";") + known


def _shorten_law(defs: dict[str, Json], name: str) -> None:
    """Let a law be a bare quantity, and its kinds take their shorter forms."""
    kinds, bare = LAWS[name]
    choices: Json = {}
    for kind_name, kind in kinds.items():
        body = defs[f"{name}_{kind_name}"]
        for field in body["properties"].values():
            field.pop("default", None)
        first = next(iter(body["properties"].values()))
        number = len(kind.fields)
        short = {
            "value": [first],
            "list": [first],
            "each": [{"type": "array", "minItems": number, "maxItems": number}],
            "": [],
        }[kind.short]
        ref = {"$ref": f"#/$defs/{name}_{kind_name}"}
        choices[kind_name] = {"anyOf": [ref, *short]} if short else ref
    quantity = next(iter(defs[f"{name}_{bare}"]["properties"].values()))
    one_kind = {"type": "object", "properties": choices, "additionalProperties": False} | {
        "minProperties": 1,
        "maxProperties": 1,
    }
    defs[name] = {"description": defs[name]["description"], "anyOf": [quantity, one_kind]}


def _shorten_fault(definition: Json) -> None:
    """Let `crash: orders` stand for `kind: crash, target: orders`."""
    target = {"type": "string", "description": "The host or the link that it strikes."}
    definition["properties"] |= dict.fromkeys(FAULT_KINDS, target)
    definition["anyOf"] = [
        {"required": names} for names in (["kind", "target"], *([kind] for kind in FAULT_KINDS))
    ]
    definition.pop("required", None)


def _by_name(names: list[str]) -> Json:
    """A mapping from names to members of one of the definitions."""
    members = [{"$ref": f"#/$defs/{name}"} for name in names]
    member = members[0] if len(members) == 1 else {"anyOf": members}
    return {"type": ["object", "null"], "additionalProperties": _nullable(member)}


def _sweep() -> Json:
    values = {
        "anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}],
        "description": "A list of values, or a mapping of labels to values.",
    }
    zipped = {"type": "object", "additionalProperties": values, "description": "Paths that change together."}
    return {
        "type": "object",
        "properties": {"zip": zipped},
        "additionalProperties": values,
        "description": "Dotted paths and the values they go through; several make a grid.",
    }


def _nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _everywhere(value: Any, change: Callable[[Json], Json]) -> Any:
    if isinstance(value, dict):
        return change({key: _everywhere(item, change) for key, item in value.items()})
    return [_everywhere(item, change) for item in value] if isinstance(value, list) else value


def _tidy(schema: Json) -> Json:
    """Without the titles that pydantic makes of names; "none" beside null."""
    if isinstance(schema.get("title"), str) and "$schema" not in schema:
        schema = {key: item for key, item in schema.items() if key != "title"}
    return {"enum": [None, "none"]} if schema == {"type": "null"} else schema
