"""What a report says: an answer, tables and pictures, as plain values for its template."""

from __future__ import annotations

import base64
import re
import shlex
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.scenario.index import scenarios_folder
from sim.words import FIGURES, Axis, count, figure_text, measures, quantity, row_label, sweep_axes

if TYPE_CHECKING:
    from sim.ledger import Cause
    from sim.result import Result, Row

# The figures that every report shows, and those that it shows where they are not zero in every row.
COUNTS = ("published", "lost", "lost_confirmed", "duplicates")
COUNTS_IF_ANY = "duplicate_effects lost_effects out_of_order dead_lettered expired rejected in_flight cost"
RATES = ("latency_p50", "latency_p99", "goodput")


@dataclass(frozen=True)
class Table:
    """A table for the template. Cells are texts; those from column `numbers` on are set as numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 99


def content(result: Result, pictures: Sequence[Path]) -> dict[str, Any]:
    """Everything that the template names."""
    axes = sweep_axes([row.params for row in result.rows])
    labels = [row_label(axes, row.params) or "this run" for row in result.rows]
    scenario = result.scenario
    return {
        "title": scenario.title,
        "question": scenario.question,
        "answer": answer(result),
        "warnings": warnings(result, labels),
        "claims": [claim_line(verdict) for verdict in result.claims],
        "figures": figures_table(result, labels),
        "all_figures": all_figures_table(result, labels),
        "pictures": [picture(path, labels) for path in pictures],
        "causes": causes_table(result),
        "causes_by_row": causes_by_row(result, labels),
        "expansions": expansions_table(result, axes),
        "settings": common_settings(result),
        "differences": differing_settings(result, labels),
        "command": command(result),
        "changed": changed(result),
        "scenario": scenario_text(result),
        "version": version(),
        "seed": result.seed,
        "replications": result.replications,
        "css": (Path(__file__).with_name("report.css")).read_text(encoding="utf-8"),
    }


# The answer.


def answer(result: Result) -> str:
    """The question's answer in one line, built from the verdicts; without claims, from the figures."""
    verdicts = result.claims
    if not verdicts:
        return "The scenario claims nothing. " + _ranges(result)
    failed = [verdict for verdict in verdicts if not verdict.holds]
    if failed:
        lines = [f"{_said(verdict)} (observed: {verdict.observed})" for verdict in failed]
        return f"Not as claimed, {len(failed)} of {len(verdicts)}: {_joined(lines)}."
    all_of = f"all {len(verdicts)} claims hold" if len(verdicts) > 1 else "the claim holds"
    return f"As claimed ({all_of}): {_joined([_said(verdict) for verdict in verdicts])}."


def _said(verdict: Any) -> str:
    """A claim in words: the author's reason if it is as expected, else what turned out to be the case."""
    claim = verdict.claim
    if verdict.holds and claim.because:
        return str(claim.because).rstrip(".")
    where = f" where {claim.where}" if claim.where else ""
    is_true = verdict.holds != verdict.refuted
    truth = "" if verdict.holds and is_true else "it is true that " if is_true else "it is not true that "
    return f"{truth}{claim.statement}{where}"


def _joined(lines: Sequence[str], limit: int = 3) -> str:
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "; ".join([*lines[:limit], *more])


def _ranges(result: Result) -> str:
    """The span of the main figures over the rows."""
    spans = []
    for name in ("lost", "duplicates", "latency_p99"):
        values = sorted(value for row in result.rows if (value := row.metrics.get(name)) is not None)
        if values:
            ends = dict.fromkeys(figure_text(name, value) for value in (values[0], values[-1]))
            spans.append(f"{FIGURES[name].label} {' to '.join(ends)}")
    return f"Over {len(result.rows)} row{'s' * (len(result.rows) != 1)}: {', '.join(spans)}."


def claim_line(verdict: Any) -> dict[str, Any]:
    """A line of the table of claims."""
    if verdict.refuted:
        text = "refuted, as expected" if verdict.holds else "not refuted"
    else:
        text = "holds" if verdict.holds else "does not hold"
    claim = verdict.claim
    return {
        "holds": verdict.holds,
        "verdict": text,
        "statement": claim.statement,
        "where": claim.where or "everywhere",
        "observed": verdict.observed,
        "because": claim.because or "",
    }


def warnings(result: Result, labels: Sequence[str]) -> list[str]:
    """What a reader must know before trusting a figure."""
    found = []
    inert: dict[str, list[str]] = {}
    for row, label in zip(result.rows, labels, strict=True):
        for fault in dict.fromkeys(fault for outcome in row.outcomes for fault in outcome.inert):
            times = sum(fault in outcome.inert for outcome in row.outcomes)
            among = f" ({times} of {len(row.outcomes)} replications)" if times < len(row.outcomes) else ""
            inert.setdefault(fault, []).append(label + among)
    for fault, where in inert.items():
        found.append(f"A fault touched nothing: {fault}. Rows: {'; '.join(where)}.")
    for row, label in zip(result.rows, labels, strict=True):
        waiting = row.metrics.get("in_flight")
        if waiting:
            found.append(f"The run ended while {count(waiting)} messages were still on their way: {label}.")
    return found


# Figures.


def _cell(row: Row, name: str) -> str:
    return figure_text(name, row.metrics.get(name), row.metrics.get(f"{name}_ci95"))


def figures_table(result: Result, labels: Sequence[str]) -> Table:
    """The figures that matter, a line per row of the sweep."""
    metrics = [row.metrics for row in result.rows]
    some = [name for name in COUNTS_IF_ANY.split() if any(line.get(name) for line in metrics)]
    claimed = re.findall(r"\w+", " ".join(verdict.claim.statement for verdict in result.claims))
    shown = list(dict.fromkeys([*COUNTS, *some, *RATES, *(name for name in claimed if name in FIGURES)]))
    intervals = f" ± half width of the 95% interval over {result.replications} replications" * (
        result.replications > 1
    )
    return Table(
        f"Figures{intervals}. Counts are messages, once for each service that should process them.",
        ["", "row", *(FIGURES[name].label for name in shown)],
        [
            [str(i), label, *(_cell(row, name) for name in shown)]
            for i, (row, label) in enumerate(zip(result.rows, labels, strict=True), start=1)
        ],
        numbers=2,
    )


def all_figures_table(result: Result, labels: Sequence[str]) -> Table:
    """Every figure with its meaning, a column per row of the sweep."""
    known = [name for name in FIGURES if any(name in row.metrics for row in result.rows)]
    return Table(
        "A pair is a message and a service that should process it. Columns are the rows of the sweep.",
        ["figure", "counts or measures", "meaning", *_numbered(labels)],
        [
            [name, FIGURES[name].unit, FIGURES[name].meaning, *(_cell(row, name) for row in result.rows)]
            for name in known
        ],
        numbers=3,
    )


def _numbered(labels: Sequence[str]) -> list[str]:
    return [f"{i}: {label}" for i, label in enumerate(labels, start=1)] if len(labels) > 1 else list(labels)


# Causes.


def causes_table(result: Result) -> Table:
    """Why things went wrong, over all rows: what each cause means and what would prevent it."""
    known = _known_causes()
    lines = []
    for kind in _kinds(result):
        anomaly, name, behaviour = kind
        cause = known.get((name, behaviour))
        total = sum(_counts(row).get(kind, 0) for row in result.rows)
        meaning, prevented_by = (cause.meaning, cause.prevented_by) if cause else ("", "")
        lines.append([anomaly.replace("_", " "), name, meaning, prevented_by, behaviour, count(total)])
    head = ["anomaly", "cause", "meaning", "prevented by", "behaviour", "count"]
    means = ", means over the replications" * (result.replications > 1)
    return Table(
        f"Why: every anomaly has one cause. Counts are over all rows{means}.", head, lines, numbers=5
    )


def causes_by_row(result: Result, labels: Sequence[str]) -> Table:
    """How often each cause struck in each row."""
    kinds = _kinds(result)
    return Table(
        "How often each cause struck in each row",
        ["", "row", *(f"{anomaly.replace('_', ' ')}: {name}" for anomaly, name, _ in kinds)],
        [
            [str(i), label, *(count(_counts(row).get(kind, 0)) for kind in kinds)]
            for i, (row, label) in enumerate(zip(result.rows, labels, strict=True), start=1)
        ],
        numbers=2,
    )


def _counts(row: Row) -> dict[tuple[str, str, str], float]:
    return {(cause["anomaly"], cause["cause"], cause["behaviour"]): cause["count"] for cause in row.causes}


def _kinds(result: Result) -> list[tuple[str, str, str]]:
    """Anomaly, cause and behaviour: the gravest anomaly first, of each the most frequent cause first."""
    from sim.ledger import ANOMALIES

    totals: dict[tuple[str, str, str], float] = {}
    for row in result.rows:
        for kind, number in _counts(row).items():
            totals[kind] = totals.get(kind, 0) + number
    return sorted(totals, key=lambda kind: (ANOMALIES.index(kind[0]), -totals[kind], kind))


def _known_causes() -> dict[tuple[str, str], Cause]:
    from sim.ledger import known_causes

    return {(cause.name, cause.behaviour): cause for cause in known_causes()}


# Settings.


def flat(settings: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path, as `--set` takes them; lists of mappings are counted from 0."""
    pairs = (
        settings.items() if isinstance(settings, Mapping) else ((str(i), v) for i, v in enumerate(settings))
    )
    found: dict[str, Any] = {}
    for name, value in pairs:
        path = f"{prefix}{name}"
        is_branch = isinstance(value, Mapping) or (
            isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)
        )
        found |= flat(value, f"{path}.") if value and is_branch else {path: value}
    return found


def setting_text(path: str, value: Any) -> str:
    """A setting's value with its unit."""
    if value is None or value in ({}, [], ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return quantity(value, measures(path))
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(path, item) for item in value)
    return str(value)


def common_settings(result: Result) -> Table:
    """The settings that all rows share."""
    every = [flat(config) for config in result.config]
    shared = {
        path: value for path, value in every[0].items() if all(_same(config, path, value) for config in every)
    }
    return Table(
        "By the paths that --set takes",
        ["setting", "value"],
        [[path, setting_text(path, value)] for path, value in shared.items()],
    )


def differing_settings(result: Result, labels: Sequence[str]) -> Table:
    """The settings that differ between rows; whatever there is more of, rows or settings, goes downwards."""
    every = [flat(config) for config in result.config]
    paths = list(dict.fromkeys(path for config in every for path in config))
    first = [(path, every[0].get(path, _ABSENT)) for path in paths]
    differing = [path for path, value in first if not all(_same(config, path, value) for config in every)]
    caption = "By the paths that --set takes; a dash where a row has no such setting"
    if len(differing) >= len(labels):
        return _columns(caption, every, _numbered(labels), differing)
    lines = [
        [str(i), label, *(_value(config, path) for path in differing)]
        for i, (config, label) in enumerate(zip(every, labels, strict=True), start=1)
    ]
    return Table(caption, ["", "row", *differing], lines)


def expansions_table(result: Result, axes: Sequence[Axis]) -> Table:
    """What the guarantees filled in, a column for each different filling."""
    deciding = [axis for axis in axes if _decides(axis, axes, result)]
    fillings: list[dict[str, Any]] = []
    names: list[dict[str, None]] = []  # of the rows that share a filling, in order
    for row in result.rows:
        filling = {path: "defaults" if value == {} else value for path, value in flat(row.expansion).items()}
        if filling not in fillings:
            fillings.append(filling)
            names.append({})
        names[fillings.index(filling)][row_label(deciding, row.params) or "this run"] = None
    paths = list(dict.fromkeys(path for filling in fillings for path in filling))
    caption = "What the guarantee stands for, in the system's own settings"
    return _columns(caption, fillings, ["; ".join(name) for name in names], paths)


def _decides(axis: Axis, axes: Sequence[Axis], result: Result) -> bool:
    """Whether rows that differ in nothing but this axis differ in what their guarantee filled in."""
    others = [other for other in axes if other is not axis]
    fillings: dict[str, list[Any]] = {}
    for row in result.rows:
        fillings.setdefault(row_label(others, row.params), []).append(row.expansion)
    return any(filling != group[0] for group in fillings.values() for filling in group)


_ABSENT = object()


def _same(config: Mapping[str, Any], path: str, value: Any) -> bool:
    return bool(config.get(path, _ABSENT) == value)


def _value(settings: Mapping[str, Any], path: str) -> str:
    return setting_text(path, settings[path]) if path in settings else "–"


def _columns(
    caption: str, every: Sequence[Mapping[str, Any]], names: Sequence[str], paths: Sequence[str]
) -> Table:
    """Settings by path, a column per mapping."""
    lines = [[path, *(_value(settings, path) for settings in every)] for path in paths]
    return Table(caption, ["setting", *names], lines)


# Pictures and provenance.


def picture(path: Path, labels: Sequence[str]) -> dict[str, Any]:
    """A picture as a data URI, with its caption, a text that stands for it, and its size in CSS pixels."""
    from sim.plots import CAPTIONS

    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])  # the header of a PNG file
    caption = CAPTIONS.get(path.stem, path.stem)
    return {
        "source": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
        "caption": caption,
        "text": f"{path.stem} of {'; '.join(labels)}. {caption} The numbers are in the table of figures.",
        "width": width * 2 // 3,
        "height": height * 2 // 3,
    }


def command(result: Result) -> str:
    """The command that runs the scenario again; empty for one that was built in Python."""
    scenario = result.scenario
    if scenario.file is None:
        return ""
    is_shipped = scenario.file.resolve().is_relative_to(scenarios_folder())
    name = scenario.name if is_shipped else scenario.file.name
    return f"msgsim run {shlex.quote(name)} --seed {result.seed} --replications {result.replications}"


def changed(result: Result) -> list[str]:
    """The paths that `--set` (or the like in Python) gave other values than the scenario's file."""
    sources = sorted({place.source for place in result.scenario.document.places.values()})
    return [source.removeprefix("--set ") for source in sources if source.startswith("--set ")]


def scenario_text(result: Result) -> str:
    """The scenario as it was run, with what was changed, in YAML; empty for one that was built in Python."""
    if result.scenario.file is None:
        return ""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 100
    text = StringIO()
    yaml.dump(result.scenario.raw | {"seed": result.seed, "replications": result.replications}, text)
    return text.getvalue()


def version() -> str:
    """The version of msgsim, and of its models by a hash over their source."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from sim.store import model_version

    try:
        number = installed("msgsim")
    except PackageNotFoundError:
        number = "not installed"
    return f"msgsim {number}, models {model_version()[:12]}"
