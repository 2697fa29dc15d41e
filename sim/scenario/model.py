"""Scenarios: loading them, overriding values in them, and the points of their sweeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path as FilePath
from typing import Any

from sim.config import Config
from sim.scenario import index
from sim.scenario.document import FOR_ALL_POINTS, SWEEPABLE, Document
from sim.scenario.errors import Place, Problems, ScenarioError, did_you_mean, found, nearest_or_all
from sim.scenario.expand import expand
from sim.scenario.expectations import Claim, check_breaking, read_claims
from sim.scenario.forms import read
from sim.scenario.parse import parse, plain
from sim.scenario.published import Published, check_rows, read_published
from sim.scenario.sweep import Dimension, override, points, read_sweep

TOP = (*SWEEPABLE, *FOR_ALL_POINTS)


@dataclass(frozen=True)
class Header:
    """What a scenario says about itself.

    `question`: what the reader should be able to answer. `replications`: runs with other random numbers, for
    intervals. `plots`: the pictures of its report, by default chosen by what it varies.
    """

    title: str = ""
    question: str = ""
    seed: int = 1
    replications: int = 1
    plots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One point of the sweep.

    `params` has the plain value (SI number, text, boolean or label) of each swept path, `expansion` what a
    guarantee filled in, as written, by dotted path.
    """

    params: dict[str, Any]
    config: Config
    expansion: dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A scenario, read and checked. `file` is None for one that was built in Python.

    `published` is the measurement that it reproduces, if there is one.
    """

    name: str
    title: str
    question: str
    seed: int
    replications: int
    plots: tuple[str, ...]
    sweep: tuple[Dimension, ...] = field(repr=False)
    claims: tuple[Claim, ...]
    published: Published | None
    file: FilePath | None
    document: Document = field(repr=False)
    _points: tuple[Point, ...] = field(repr=False, compare=False)

    @property
    def raw(self) -> dict[str, Any]:
        """The scenario as it is written: dicts, lists and scalars."""
        return self.document.data

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], name: str = "scenario", folder: str | FilePath = "."
    ) -> Scenario:
        """A scenario built in Python: the mapping that a file would hold.

        Times may be plain seconds, distributions and arrivals instances of their classes. CSV files are
        relative to `folder`. Raises ScenarioError.
        """
        if not isinstance(data, Mapping):
            raise ScenarioError(
                f"{name}: expected a mapping with channels and producers, found {found(data)}"
            )
        return _build(Document(plain(data), name, folder=FilePath(folder)), name, None)

    def points(self) -> list[Point]:
        """The points of the sweep, the first path written varying slowest; one if there is no sweep."""
        return list(self._points)

    def override(self, changes: Mapping[str, Any]) -> Scenario:
        """The scenario with other values, as written in YAML, at dotted paths.

        A swept path keeps its column, with that value only. `duration` replaces `messages` and the other way
        round. Raises ScenarioError for an unknown path (with the nearest valid one) or an impossible value.
        """
        document = self.document
        if all(changes.get(name) is not None for name in ("duration", "messages")):
            raise ScenarioError("--set duration, messages: expected one of the two, found both")
        for path, value in changes.items():
            place = Place(0, 0, f"--set {path}")
            try:
                document = override(document, path, plain(value), {(): place})
            except ValueError as error:
                raise ScenarioError(f"{place}: {error}") from None
        # An override may take the ground away from a claim, such as the sweep; that is no error of the override.
        return _build(document, self.name, self.file, check_claims="expect" in changes)


def load(name_or_path: str | os.PathLike[str]) -> Scenario:
    """The shipped scenario of that name, or the scenario in that file. Raises ScenarioError, in one line."""
    text = os.fspath(name_or_path)
    try:
        paths = {entry["name"]: entry["path"] for entry in index.load_index()}
    except FileNotFoundError:
        paths = {}
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    if isinstance(name_or_path, str) and text in paths:
        return _load_file(paths[text], text)
    if not isinstance(name_or_path, str) or text.endswith((".yaml", ".yml")) or os.path.isfile(text):
        return _load_file(text, FilePath(text).stem)
    hint = did_you_mean(text, paths) or "; `msgsim list` shows them all, and the name of a file ends in .yaml"
    raise ScenarioError(f"no scenario is named {found(text)}{hint}")


def _load_file(path: str, name: str) -> Scenario:
    file = FilePath(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: expected a text file in UTF-8, found other bytes") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(f"{path}: cannot be read: {reason}") from None
    data, places = parse(text, path)
    if not isinstance(data, dict):
        what = "nothing in it" if data is None else found(data)
        raise ScenarioError(
            f"{path}: expected a scenario (a mapping with channels and producers), found {what}"
        )
    return _build(Document(data, path, places, file.parent), name, file)


def _build(document: Document, name: str, file: FilePath | None, check_claims: bool = True) -> Scenario:
    """Read everything; of all problems the first in the order of the file is raised."""
    problems = Problems()
    for key in document.data:
        if key not in TOP:
            document.report(problems, (key,), f"unknown field{nearest_or_all(key, TOP)}")
    header = _header(document, problems)
    dimensions = read_sweep(document, problems)
    claims = read_claims(document, dimensions, problems, check_names=check_claims)
    swept = [path for dimension in dimensions for path in dimension.paths]
    published = read_published(document, swept, problems) if check_claims else None
    expanded = _expanded(document, dimensions, problems)
    if check_claims and not problems:
        check_breaking(document, claims, problems)
        check_rows(document, published, [point.params for point in expanded], problems)
    problems.raise_first()
    return Scenario(
        name=name,
        title=" ".join(header.title.split()) or name,
        question=" ".join(header.question.split()),
        seed=header.seed,
        replications=header.replications,
        plots=header.plots,
        sweep=dimensions,
        claims=claims,
        published=published,
        file=file,
        document=document,
        _points=expanded,
    )


def _header(document: Document, problems: Problems) -> Header:
    raw = {key.name: document.data[key.name] for key in fields(Header) if key.name in document.data}
    given = read((Header,), raw, document.folder, document.reporter(problems, ()))
    header = Header(**given[0]) if given else Header()
    if header.plots:
        from sim.plots import PLOTS

        for number, plot in enumerate(header.plots):
            if plot not in PLOTS:
                text = f"expected the name of a plot, found {found(plot)}{nearest_or_all(plot, list(PLOTS))}"
                document.report(problems, ("plots", str(number)), text)
    return header


def _expanded(document: Document, dimensions: tuple[Dimension, ...], problems: Problems) -> tuple[Point, ...]:
    """All points, or those before the first with a problem."""
    result: list[Point] = []
    swept = {place for path, place in document.places.items() if path[:1] == ("sweep",)}
    try:
        for params, changed in points(document, dimensions):
            here = Problems()
            expanded = expand(changed, here)
            if expanded is None:
                # With a sound first point the line alone does not show what is wrong: say which point it is.
                values = ", ".join(f"{path} = {value}" for path, value in params.items())
                for place, text in here.found:
                    is_told = not result or place in swept
                    problems.found.append((place, text if is_told else f"{text} (at {values})"))
                break
            result.append(Point(params, *expanded))
    except ValueError as error:
        document.report(problems, ("sweep",), str(error))
    return tuple(result)
