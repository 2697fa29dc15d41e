"""Published measurements against what their scenarios give, line by line.

A case is a scenario under `published/` with a `published` block. What misses its tolerance is a fault of the model,
unless `deviations.yaml` beside them says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sim.claims import ClaimError, select, values
from sim.result import Row, half_width
from sim.scenario import Scenario, ScenarioError, load
from sim.scenario.errors import Problems, did_you_mean, found, nearest_or_all
from sim.scenario.index import DEVIATIONS, PUBLISHED, is_published, load_index, scenarios_folder
from sim.scenario.parse import parse
from sim.words import digits

if TYPE_CHECKING:
    from sim.experiment import Progress
    from sim.scenario.published import Published, PublishedLine
    from sim.store import Store

Verdict = Literal["ok", "input", "MISSED", "explained"]
VERDICTS: tuple[Verdict, ...] = ("ok", "input", "explained", "MISSED")
FIELDS = ("case", "line", "reason")  # of a deviation


@dataclass(frozen=True)
class Judged:
    """A published figure and what came of it.

    `published`, `predicted` and `half_width` (of the 95% interval over replications, if there are several) are in
    `unit`. `predicted` is None where there was nothing to measure, or nothing to predict; `note` says why, or gives
    the reason of an explained deviation.
    """

    case: str
    scenario: str
    system: str
    figure: str
    unit: str
    published: float
    predicted: float | None
    half_width: float | None
    tolerance: str
    allowed: tuple[float, float] | None
    verdict: Verdict
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Predicted over published; None where that means nothing."""
        if self.predicted is None or self.published == 0:
            return None
        return self.predicted / self.published

    @property
    def deviation(self) -> str:
        """How far off the prediction is, as text: per cent, or a factor where that is what counts."""
        ratio = self.ratio
        if self.predicted is None:
            return "–"
        if ratio is None:
            return f"{self.predicted - self.published:+.3g}"
        if self.tolerance.startswith("factor") or ratio > 10:
            return f"× {digits(ratio)}"
        percent = 100 * (ratio - 1)
        return f"{percent:+.1f}%" if abs(percent) >= 0.05 else "0%"

    def to_json(self) -> dict[str, Any]:
        """The line as plain data; its `deviation` is relative."""
        ratio = self.ratio
        allowed = None if self.allowed is None else list(self.allowed)
        return vars(self) | {"allowed": allowed, "deviation": None if ratio is None else ratio - 1}


@dataclass(frozen=True)
class Report:
    """All lines, the cases they belong to, and deviations that are listed and not there any more."""

    cases: tuple[dict[str, Any], ...]
    lines: tuple[Judged, ...]
    stale: tuple[str, ...] = ()

    @property
    def has_missed(self) -> bool:
        """Whether a line missed its tolerance, and nobody has said why."""
        return any(line.verdict == "MISSED" for line in self.lines)

    def count(self, verdict: Verdict) -> int:
        """How many lines have that verdict."""
        return sum(line.verdict == verdict for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "cases": list(self.cases),
            "lines": [line.to_json() for line in self.lines],
            "verdicts": {verdict: self.count(verdict) for verdict in VERDICTS},
            "stale_deviations": list(self.stale),
        }


@dataclass(frozen=True)
class Deviation:
    """A line that is known to miss, and why."""

    case: str
    line: str
    reason: str


def verify(
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    store: Store | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run the cases of those names (such as P-03; all if none is named) and judge their lines.

    Raises ScenarioError for a name that is no case, and for a scenario or a list of deviations that is not well formed.
    """
    from sim.experiment import run_all

    everything = cases()
    explained = deviations(everything)
    chosen = _chosen(everything, names)
    results = run_all(chosen, jobs=jobs, store=store, progress=progress)
    lines = [
        line
        for scenario, result in zip(chosen, results, strict=True)
        for line in judge(scenario, result.rows, explained)
    ]
    return Report(
        cases=tuple(map(_about, chosen)),
        lines=tuple(lines),
        stale=tuple(
            f"{line.case}: {line.figure}"
            for line in lines
            if line.verdict == "ok" and _reason(line.case, line.figure, explained)
        ),
    )


def cases() -> list[Scenario]:
    """The published cases, in the order of their numbers. Raises ScenarioError for one without its block."""
    try:
        names = [entry["name"] for entry in load_index() if is_published(entry)]
    except (OSError, ValueError) as error:
        raise ScenarioError(str(error)) from None
    folder = scenarios_folder()
    for file in sorted((folder / PUBLISHED).glob("*.yaml")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name not in (*names, DEVIATIONS):
            raise ScenarioError(f"{file}: not in the index of scenarios yet; `make index` writes it anew")
    loaded = [load(name) for name in names]
    for scenario in loaded:
        if scenario.published is None:
            raise ScenarioError(f"{scenario.file}: 'published' is missing")
    return sorted(loaded, key=lambda scenario: _published(scenario).case)


def _published(scenario: Scenario) -> Published:
    assert scenario.published is not None
    return scenario.published


def _chosen(everything: Sequence[Scenario], names: Sequence[str]) -> list[Scenario]:
    known = [_published(scenario).case for scenario in everything]
    wanted = [name.upper() for name in names]
    for name in wanted:
        if name not in known:
            there = ", ".join(dict.fromkeys(known)) or "none"
            raise ScenarioError(f"no published case is named {found(name)}; there are {there}")
    return [scenario for scenario in everything if not names or _published(scenario).case in wanted]


def _about(scenario: Scenario) -> dict[str, Any]:
    published = _published(scenario)
    return {
        "case": published.case,
        "title": scenario.title,
        "scenario": scenario.name,
        "system": _system(scenario.points()[0].config.channels),
        "source": published.source,
        "url": published.url,
        "year": published.year,
        "nature": published.nature,
        "strength": published.strength,
    }


def _system(channels: Mapping[str, Any]) -> str:
    """The systems a scenario speaks of, as its first row has them."""
    return ", ".join(
        dict.fromkeys(
            channel["system"] if isinstance(channel, dict) else channel.system
            for channel in channels.values()
        )
    )


# -- judging -------------------------------------------------------------------------------------------------


def judge(scenario: Scenario, rows: Sequence[Row], explained: Sequence[Deviation] = ()) -> list[Judged]:
    """The lines of a case, against the rows that its scenario gave."""
    case = _published(scenario).case
    judged = []
    for line in _published(scenario).lines:
        verdict = _judged(scenario, line, rows)
        reason = _reason(case, line.figure, explained)
        if verdict.verdict == "MISSED" and reason:
            verdict = replace(verdict, verdict="explained", note=reason)
        judged.append(verdict)
    return judged


def _judged(scenario: Scenario, line: PublishedLine, rows: Sequence[Row]) -> Judged:
    numbers: list[float] = []
    note = ""
    number = 0
    if line.predicted is not None:
        (number,) = select(line.where, [row.params for row in rows])
        try:
            numbers = [line.in_unit(value) for value in values(line.predicted, rows, number)]
        except ClaimError as error:
            note = f"nothing to compare: {error}"
    verdict: Verdict = "MISSED"
    if line.is_input:
        verdict = "input"
    elif numbers and line.tolerance is not None and line.tolerance.allows(line.value, numbers):
        verdict = "ok"
    return Judged(
        case=_published(scenario).case,
        scenario=scenario.name,
        system=_system(rows[number].config["channels"]),
        figure=line.figure,
        unit=line.unit,
        published=line.value,
        predicted=math.fsum(numbers) / len(numbers) if numbers else None,
        half_width=half_width(numbers) if len(numbers) > 1 else None,
        tolerance=line.tolerance.text if line.tolerance else "",
        allowed=line.tolerance.bounds(line.value) if line.tolerance else None,
        verdict=verdict,
        note=note,
    )


# -- deviations that are explained -----------------------------------------------------------------------------


def _reason(case: str, figure: str, explained: Sequence[Deviation]) -> str:
    return next((entry.reason for entry in explained if (entry.case, entry.line) == (case, figure)), "")


def deviations(everything: Sequence[Scenario]) -> list[Deviation]:
    """The list of explained deviations; none if there is no such file.

    Raises ScenarioError, in one line, for one that is not well formed or speaks of a case or line that is not there.
    """
    file = scenarios_folder() / f"{DEVIATIONS}.yaml"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    data, places = parse(text, str(file))
    problems = Problems()
    if data is not None and not isinstance(data, list):
        raise ScenarioError(f"{file}: expected a list of deviations, found {found(data)}")
    lines: dict[str, list[str]] = {}
    for scenario in everything:
        published = _published(scenario)
        lines.setdefault(published.case, []).extend(line.figure for line in published.lines)
    entries: list[Deviation] = []
    for i, entry in enumerate(data or ()):
        try:
            entries.append(_deviation(entry, lines))
        except ValueError as error:
            problems.add(places[(str(i),)], (str(i),), str(error))
    problems.raise_first()
    return entries


def _deviation(entry: Any, lines: dict[str, list[str]]) -> Deviation:
    """A deviation as it is written. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"expected a mapping ({', '.join(FIELDS)}), found {found(entry)}")
    for name in entry:
        if name not in FIELDS:
            raise ValueError(f"unknown field {found(name)}{nearest_or_all(name, FIELDS)}")
    for name in FIELDS:
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(f"expected a text as {name}, found {found(entry.get(name))}")
    case, line, reason = (" ".join(entry[name].split()) for name in FIELDS)
    if case not in lines:
        raise ValueError(f"no published case is named {found(case)}{nearest_or_all(case, list(lines))}")
    if line not in lines[case]:
        raise ValueError(f"{case} has no line {found(line)}{did_you_mean(line, lines[case])}")
    return Deviation(case, line, reason)
