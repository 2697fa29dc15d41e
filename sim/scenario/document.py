"""A scenario as it is written: plain data, the place of every part, the dotted paths that can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from sim import brokers
from sim.apps import Producer, Service
from sim.faults import Fault
from sim.network import NetworkSettings
from sim.scenario.errors import Path, Place, Problems, did_you_mean
from sim.scenario.hints import hints
from sim.units import TIME, Quantity

DEFAULT_SYSTEM = "textbook"
SECTIONS = ("channels", "producers", "services", "network", "faults")
TIMES = ("duration", "warmup", "drain_limit")
SWEEPABLE = (*SECTIONS, *TIMES, "messages", "guarantee")
FOR_ALL_POINTS = ("title", "question", "seed", "replications", "sweep", "expect", "plots", "published")


@dataclass(frozen=True)
class Document:
    """The mapping at the top of a scenario, where its parts are written, and the folder for CSV files."""

    data: dict[str, Any]
    source: str
    places: Mapping[Path, Place] = field(default_factory=dict)
    folder: FilePath = FilePath()

    def section(self, name: str) -> dict[str, Any]:
        """A mapping at the top; empty if it is missing or is no mapping."""
        value = self.data.get(name)
        return value if isinstance(value, dict) else {}

    def place(self, path: Path) -> Place:
        """Where the value at `path` is written, or the nearest part that holds it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(0, 0, self.source)

    def written(self, path: Path) -> Path:
        """The path without the names that are not written: shorter forms leave some out."""
        value: Any = self.data
        result: list[str] = []
        for part in path:
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part in map(str, range(len(value))):
                value = value[int(part)]
            else:
                continue
            result.append(part)
        return tuple(result)

    def report(self, problems: Problems, path: Path, text: str) -> None:
        """Note a problem of the value at `path`."""
        written = self.written(path)
        problems.add(self.place(written), written, text)

    def reporter(self, problems: Problems, path: Path) -> Callable[[Path, str], None]:
        """A function that notes a problem at a path within `path`."""
        return lambda inner, text: self.report(problems, path + inner, text)

    def parts(self, path: Path) -> dict[Path, Place]:
        """The places of a value and of what it holds, relative to it; of a value without any, its own."""
        inside = {p[len(path) :]: place for p, place in self.places.items() if p[: len(path)] == path}
        return {(): self.place(path)} | inside

    def with_value(self, path: Path, value: Any, places: Mapping[Path, Place]) -> Document:
        """A copy with another value at `path`, written at `places` (relative to it)."""
        others = {p: place for p, place in self.places.items() if p[: len(path)] != path}
        moved = {path + p: place for p, place in places.items()}
        return replace(self, data=_set(self.data, path, value), places=others | moved)

    def without(self, name: str) -> Document:
        """A copy without a value at the top."""
        return replace(self, data={key: value for key, value in self.data.items() if key != name})


def _set(container: Any, path: Path, value: Any) -> Any:
    """A copy with another value at `path`; what is no mapping or list on the way becomes a mapping."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(container, list):
        index = int(head)
        return [*container[:index], _set(container[index], rest, value), *container[index + 1 :]]
    mapping = container if isinstance(container, dict) else {}
    return mapping | {head: _set(mapping.get(head), rest, value)}


@dataclass(frozen=True)
class Slot:
    """A value that can be changed: its path, and what it measures when it is written as a bare quantity."""

    path: Path
    quantity: Quantity | None = None


def slots(document: Document) -> dict[str, Slot]:
    """All dotted paths of a document that can be overridden or swept, whether or not they are written."""
    systems = [brokers.system(name) for name in _systems(document)]
    classes = {
        "channels": tuple(system.Channel for system in systems),
        "producers": (Producer, *(system.ProducerClient for system in systems)),
        "services": (Service, *(system.ConsumerClient for system in systems)),
    }
    found = [Slot((name,), TIME if name in TIMES else None) for name in (*SWEEPABLE, *FOR_ALL_POINTS)]
    for section, members in classes.items():
        for name, raw in document.section(section).items():
            found.append(Slot((section, name)))
            if section == "channels":
                found += [Slot((section, name, "system")), Slot((section, name, "guarantee"))]
            for cls in members:
                found += _fields(cls, (section, name), raw)
    found += _fields(NetworkSettings, ("network",), document.data.get("network"))
    faults = document.data.get("faults")
    for number, raw in enumerate(faults if isinstance(faults, list) else ()):
        found += [Slot(("faults", str(number))), *_fields(Fault, ("faults", str(number)), raw)]
    return {".".join(slot.path): slot for slot in found}


def _systems(document: Document) -> list[str]:
    """The systems a document may run on: those it names, also as values of its sweep."""
    channels = document.section("channels")
    names: list[Any] = [
        raw.get("system", DEFAULT_SYSTEM) for raw in channels.values() if isinstance(raw, dict)
    ]
    for path, values in _written_sweep(document):
        if path.startswith("channels."):
            names += (
                values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
            )
    names += [value.get("system") for value in names if isinstance(value, dict)]
    return [name for name in brokers.NAMES if name in names or name == DEFAULT_SYSTEM]


def _written_sweep(document: Document) -> Iterator[tuple[str, Any]]:
    sweep = document.section("sweep")
    zipped = sweep.get("zip")
    yield from (item for item in sweep.items() if item[0] != "zip")
    yield from zipped.items() if isinstance(zipped, dict) else ()


def _fields(cls: type, path: Path, raw: Any) -> Iterator[Slot]:
    """The paths of a dataclass's fields; those within laws and mappings only as far as they are written."""
    raw = raw if isinstance(raw, dict) else {}
    for name, hint in hints(cls).items():
        here = (*path, name)
        yield Slot(here, hint.quantity)
        if hint.is_law:
            yield from _parts(here, raw.get(name), hint.quantity)
        elif hint.nested is not None and hint.nested is hint.type:
            yield from _fields(hint.nested, here, raw.get(name))
        elif hint.nested is not None:
            entries = raw.get(name)
            for key, entry in entries.items() if isinstance(entries, dict) else ():
                yield from [Slot((*here, key)), *_fields(hint.nested, (*here, key), entry)]


def _parts(path: Path, raw: Any, quantity: Quantity | None) -> Iterator[Slot]:
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, value in items:
        yield Slot((*path, str(key)), quantity)
        yield from _parts((*path, str(key)), value, quantity)


def find(text: str, known: Mapping[str, Slot]) -> Slot:
    """The slot of a dotted path. Raises ValueError with the nearest valid path, or its neighbours."""
    if text in known:
        return known[text]
    parent, _, last = text.rpartition(".")
    siblings = {path: slot.path[-1] for path, slot in known.items() if path == f"{parent}.{slot.path[-1]}"}
    near = get_close_matches(last, siblings.values(), 1)
    if near:
        raise ValueError(f"unknown path; did you mean '{parent}.{near[0]}'?")
    if siblings:
        raise ValueError(f"unknown path; {parent} has {', '.join(siblings.values())}")
    top = [slot.path[0] for slot in known.values() if len(slot.path) == 1]
    begins = f"; a path begins with one of {', '.join(top)}"
    raise ValueError(f"unknown path{did_you_mean(text, known) or begins}")
