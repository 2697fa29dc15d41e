"""Changing values of a document by dotted path: overrides, and the points of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sim.scenario.document import SWEEPABLE, Document, Slot, find, slots
from sim.scenario.errors import Path, Place, Problems, found
from sim.scenario.quantities import parse_quantity
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME, Quantity

MOST_POINTS = 10_000

Places = Mapping[Path, Place]  # of a value and its parts, relative to the value


@dataclass(frozen=True)
class Setting:
    """One value of a swept path as written, and as a row shows it: SI number, text, boolean or label."""

    value: Any
    shown: Any
    places: Places = field(repr=False, compare=False)


@dataclass(frozen=True)
class Dimension:
    """Paths that are swept together (one, or those of `zip`), and the values they go through."""

    slots: tuple[Slot, ...]
    settings: tuple[tuple[Setting, ...], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths."""
        return tuple(".".join(slot.path) for slot in self.slots)

    @property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """What a row shows for each path, combination by combination."""
        return tuple(tuple(setting.shown for setting in row) for row in self.settings)


# -- reading a sweep ---------------------------------------------------------------------------------------


def read_sweep(document: Document, problems: Problems) -> tuple[Dimension, ...]:
    """The dimensions of the sweep, in the order written."""
    raw = document.data.get("sweep")
    if raw is None:
        return ()
    if not isinstance(raw, dict):
        text = f"expected a mapping of paths to lists of values, found {found(raw)}"
        document.report(problems, ("sweep",), text)
        return ()
    reader = _Reader(document, problems)
    dimensions = []
    for path, values in raw.items():
        columns = reader.zipped(values) if path == "zip" else [reader.column(("sweep", path), values)]
        if columns and all(columns):
            sound = [column for column in columns if column]
            rows = tuple(zip(*(settings for _, settings in sound), strict=True))
            dimensions.append(Dimension(tuple(slot for slot, _ in sound), rows))
    number = 1
    for dimension in dimensions:
        number *= len(dimension.settings)
    if number > MOST_POINTS:
        document.report(problems, ("sweep",), f"expected at most {MOST_POINTS:,} points, found {number:,}")
        return ()
    return tuple(dimensions)


class _Reader:
    """Reads the paths of one sweep and their values."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document, self.problems = document, problems
        self.known = slots(document)
        self.seen: list[Slot] = []

    def zipped(self, raw: Any) -> list[tuple[Slot, list[Setting]] | None]:
        """The columns of `zip`: equally long lists."""
        if not isinstance(raw, dict) or not raw:
            self._report(
                ("sweep", "zip"),
                f"expected a mapping of paths to equally long lists, found {found(raw or None)}",
            )
            return []
        columns = [self.column(("sweep", "zip", path), values) for path, values in raw.items()]
        lengths = {path: len(column[1]) for path, column in zip(raw, columns, strict=True) if column}
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"{length} of {path}" for path, length in lengths.items())
            self._report(("sweep", "zip"), f"expected equally long lists, found {listing}")
            return []
        rows = list(zip(*([s.shown for s in column[1]] for column in columns if column), strict=True))
        if all(columns) and (twice := _first_twice(rows)) is not None:
            shown = ", ".join(str(value) for value in twice)
            self._report(("sweep", "zip"), f"expected different rows, found {shown} twice")
            return []
        return columns

    def column(self, path: Path, raw: Any) -> tuple[Slot, list[Setting]] | None:
        """A swept path and its values, which may have labels."""
        try:
            slot = find(path[-1], self.known)
            self._check(slot)
            settings = self._settings(path, slot, raw)
        except ValueError as error:
            self._report(path, str(error))
            return None
        self.seen.append(slot)
        return slot, settings

    def _check(self, slot: Slot) -> None:
        if slot.path[0] not in SWEEPABLE:
            raise ValueError("cannot be swept; it is one and the same for all points")
        for other in self.seen:
            name = ".".join(other.path)
            if other.path == slot.path:
                raise ValueError("swept twice")
            if other.path[: len(slot.path)] == slot.path:
                raise ValueError(f"would overwrite the sweep over {name}; write it before that")

    def _settings(self, path: Path, slot: Slot, raw: Any) -> list[Setting]:
        if isinstance(raw, list) and raw:
            shown = [_shown(value, slot.quantity) for value in raw]
            keys, values = [str(i) for i in range(len(raw))], raw
        elif isinstance(raw, dict) and raw:
            shown = keys = list(raw)
            values = list(raw.values())
        else:
            raise ValueError(
                f"expected a list of values, or a mapping of labels to values, found {found(raw or None)}"
            )
        twice = _first_twice(shown)
        if twice is not None and path[1] != "zip":
            raise ValueError(f"expected different values, found {twice} twice")
        parts = [self.document.parts((*path, key)) for key in keys]
        return [Setting(*item) for item in zip(values, shown, parts, strict=True)]

    def _report(self, path: Path, text: str) -> None:
        self.document.report(self.problems, path, text)


def _first_twice(values: Iterable[Any]) -> Any:
    """The first value that is there already, or None."""
    seen: list[Any] = []
    for value in values:
        if any(type(other) is type(value) and other == value for other in seen):
            return value
        seen.append(value)
    return None


def _shown(value: Any, quantity: Quantity | None) -> Any:
    """A value as a row shows it: quantities in SI units, mappings and lists as short texts."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(item)}" for key, item in value.items()) or "{}"
    if isinstance(value, list):
        return _inner(value)
    # Within a law there are quantities of several dimensions: the unit decides.
    for candidate in (quantity, TIME, SIZE, RATE, BANDWIDTH, SHARE) if quantity else ():
        try:
            number = parse_quantity(value, candidate, "") if candidate else None
        except ValueError:
            continue
        return int(number) if candidate == SIZE and number is not None and number.is_integer() else number
    return value if isinstance(value, bool | int | float | str) else str(value)


def _inner(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inner(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_inner(item) for item in value) + "]" if isinstance(value, list) else str(value)


# -- changing a document -----------------------------------------------------------------------------------


def points(
    document: Document, dimensions: tuple[Dimension, ...]
) -> Iterator[tuple[dict[str, Any], Document]]:
    """What the row of each point shows, and its document; the first dimension varies slowest.

    Raises ValueError where a path leads nowhere once another has been set.
    """
    for combination in itertools.product(*(dimension.settings for dimension in dimensions)):
        changed, params = document, {}
        for dimension, settings in zip(dimensions, combination, strict=True):
            for slot, setting in zip(dimension.slots, settings, strict=True):
                changed = _put(changed, slot, setting.value, setting.places)
                params[".".join(slot.path)] = setting.shown
        yield params, changed


def override(document: Document, path: str, value: Any, places: Places) -> Document:
    """The document with another value at a dotted path; a swept path is then swept over that value alone.

    Raises ValueError for a path that is unknown (with the nearest valid one) or overwritten by the sweep.
    """
    slot = find(path, slots(document))
    swept = _swept(document)
    if path in swept:
        where = swept[path]
        old = document.data["sweep"]["zip"][path] if where[1] == "zip" else [value]
        number = len(old) if isinstance(old, list | dict) else 1
        moved = {(str(i), *part): place for i in range(number) for part, place in places.items()}
        changed = document.with_value(where, [value] * number, {(): places[()]} | moved)
        return _without_repeats(changed) if where[1] == "zip" else changed
    for other in swept:
        if path.startswith(f"{other}.") or {path, other} == {"duration", "messages"}:
            raise ValueError(f"the sweep over {other} would overwrite it")
    return _put(document, slot, value, places)


def _put(document: Document, slot: Slot, value: Any, places: Places) -> Document:
    """Set a value; of `duration` and `messages` one replaces the other."""
    rival = {"duration": "messages", "messages": "duration"}.get(slot.path[0])
    if rival is not None and value is not None:
        document = document.without(rival)
    try:
        return document.with_value(slot.path, value, places)
    except (ValueError, IndexError):
        raise ValueError(f"{'.'.join(slot.path)}: there is no such part any more") from None


def _swept(document: Document) -> dict[str, Path]:
    """Where each swept path is written."""
    sweep = document.section("sweep")
    zipped = sweep.get("zip")
    grid: dict[str, Path] = {path: ("sweep", path) for path in sweep if path != "zip"}
    return grid | {path: ("sweep", "zip", path) for path in (zipped if isinstance(zipped, dict) else ())}


def _without_repeats(document: Document) -> Document:
    """The document with each row of `zip` once, after one of its paths has got a single value."""
    zipped: dict[str, Any] = document.data["sweep"]["zip"]
    columns = [list(values.items()) if isinstance(values, dict) else values for values in zipped.values()]
    rows: list[tuple[Any, ...]] = []
    for row in zip(*columns, strict=False):
        if not any(repr(other) == repr(row) for other in rows):
            rows.append(row)
    kept = {}
    for (path, values), column in zip(zipped.items(), zip(*rows, strict=True), strict=True):
        kept[path] = dict(column) if isinstance(values, dict) else list(column)
    return replace(document, data=document.data | {"sweep": document.data["sweep"] | {"zip": kept}})
