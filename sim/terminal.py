"""A result as text: the figures that matter, why they are so, and what became of the claims.

Written for a terminal of 80 columns; wider ones are used. A table that is too wide goes on in a second one.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim import words

if TYPE_CHECKING:
    from sim.claims import Verdict
    from sim.explain import Story
    from sim.result import Result
    from sim.scenario import Scenario

ALWAYS = ("published", "lost", "lost_confirmed", "duplicates", "duplicate_effects")
IF_ANY = ("rejected", "expired", "dead_lettered", "in_flight", "phantom", "lost_effects", "out_of_order")
SPEED = ("latency_p50", "latency_p99", "goodput")
GAP = 2  # characters between columns


class Screen(Console):
    """Standard output; it prints texts as they are."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Leave it to the caller."""
        raise BrokenPipeError


def show(result: Result, console: Console) -> None:
    """Print a result: title, figures, the guarantee's settings, causes, claims, warnings."""
    scenario = result.scenario
    console.print(Text(scenario.title, style="bold"))
    console.print(Text(scenario.question))
    console.print(Text(_size(result), style="dim"))
    for table in figure_tables(result, console.width):
        console.print()
        console.print(table)
    for title, lines in (("Settings of the guarantee", _expansion(result)), ("Why", _causes(result))):
        if lines:
            console.print()
            console.print(Text(title, style="bold"))
            _print_columns(lines, console)
    if result.claims:
        console.print()
        console.print(Text("Claims", style="bold"))
        for verdict in result.claims:
            _print_verdict(verdict, console)
    for warning in warnings(result):
        console.print()
        console.print(Text(f"Warning: {warning}", style="yellow"))


def _size(result: Result) -> str:
    text = f"seed {result.seed}"
    if len(result.rows) > 1:
        text = f"{len(result.rows)} rows, {text}"
    if result.replications > 1:
        text += f", {result.replications} replications: mean ± half width of the 95% interval"
    return text


# -- figures -----------------------------------------------------------------------------------------------


def figure_tables(result: Result, width: int) -> Iterator[Table]:
    """The figures, a line per row of the sweep, in as many tables as the width (columns) calls for."""
    params = [_param_column(result, path) for path in (result.rows[0].params if result.rows else ())]
    any_of = [name for name in IF_ANY if any(row.metrics[name] for row in result.rows)]
    figures = [_figure_column(result, name) for name in chain(ALWAYS, any_of, SPEED)]
    free = width - sum(_width(column) + GAP for column in params)
    chosen: list[list[str]] = []
    for column in figures:
        if chosen and sum(_width(c) + GAP for c in [*chosen, column]) > free:
            yield _table(params, chosen)
            chosen = []
        chosen.append(column)
    yield _table(params, chosen)


def _param_column(result: Result, path: str) -> list[str]:
    axis = words.Axis(path, words.short_names(result.rows[0].params)[path], ())
    return [axis.name.replace(" ", "\n"), *(axis.text(row.params[path]) for row in result.rows)]


def _figure_column(result: Result, name: str) -> list[str]:
    texts = [
        words.figure_text(name, row.metrics[name], row.metrics.get(f"{name}_ci95")) for row in result.rows
    ]
    *first, last = name.split("_")
    return [f"{' '.join(first)}\n{last}" if first else last, *texts]


def _width(column: Sequence[str]) -> int:
    return max(len(line) for text in column for line in text.split("\n"))


def _table(params: Sequence[Sequence[str]], figures: Sequence[Sequence[str]]) -> Table:
    # The box adds a blank between columns.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for column in params:
        table.add_column(Text(column[0]), no_wrap=True)
    for column in figures:
        table.add_column(Text(column[0]), justify="right", no_wrap=True)
    for texts in zip(*(column[1:] for column in [*params, *figures]), strict=True):
        table.add_row(*map(Text, texts))
    return table


# -- why ---------------------------------------------------------------------------------------------------


def _expansion(result: Result) -> list[tuple[str, str]]:
    """What each guarantee filled in, once each: what it is filled into, and the settings."""
    axes = words.sweep_axes([row.params for row in result.rows])
    guarantee = [axis for axis in axes if axis.path.split(".")[-1] == "guarantee"]
    told: dict[str, str] = {}
    for row in result.rows:
        settings = ", ".join(f"{path}: {_plain(value)}" for path, value in row.expansion.items())
        if settings:
            told.setdefault(settings, words.row_label(guarantee, row.params))
    return [(label, settings) for settings, label in told.items()]


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_plain(item)}' for name, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _causes(result: Result) -> list[tuple[str, str]]:
    """Each cause once: the row where it counts most, in how many it appears, and what it means."""
    from sim.ledger import ANOMALIES, known_causes

    known = known_causes()
    meanings = {cause.name: cause.meaning for cause in known}
    meanings |= {f"{cause.anomaly} {cause.name}": cause.meaning for cause in known}
    axes = words.sweep_axes([row.params for row in result.rows])
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in result.rows:
        for cause in row.causes:
            place = (cause["count"], words.row_label(axes, row.params))
            found.setdefault((cause["anomaly"], cause["cause"]), []).append(place)
    lines = []
    for anomaly, name in sorted(
        found, key=lambda kind: (ANOMALIES.index(kind[0]), -max(found[kind])[0], kind[1])
    ):
        places = found[anomaly, name]
        count, label = max(places, key=lambda place: place[0])
        text = words.count(count)
        if len(places) > 1:
            text = f"up to {text} ({label}), in {len(places)} of {len(result.rows)} rows"
        elif label:
            text = f"{text} ({label})"
        meaning = meanings.get(f"{anomaly} {name}", meanings.get(name, ""))
        lines.append((f"{anomaly}: {name}", f"{text}. {meaning}".strip()))
    return lines


def _print_columns(lines: Sequence[tuple[str, str]], console: Console) -> None:
    """Names, and beside each a text, wrapped."""
    indent = GAP + max(len(left) for left, _ in lines)
    indent += GAP if indent > GAP else 0
    for left, right in lines:
        console.print(Text(wrapped(f"{' ' * GAP}{left}".ljust(indent), right, console.width)))


def wrapped(start: str, text: str, width: int) -> str:
    """The text after `start`, its further lines below its first; where that is too narrow, all of it below."""
    blank = " " * len(start)
    if width < len(start) + 20:
        start, blank = f"{start.rstrip()}\n", " " * 2 * GAP
        return start + textwrap.fill(text, width, initial_indent=blank, subsequent_indent=blank)
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=blank, break_on_hyphens=False)


# -- the story of a message --------------------------------------------------------------------------------


def show_story(story: Story, scenario: Scenario, console: Console) -> None:
    """Print what happened to one message of a scenario: which run, what became of it, every event, why."""
    rows = [point.params for point in scenario.points()]
    label = words.row_label(words.sweep_axes(rows), story.params)
    row = f"row {story.row}" + (f" ({label})" if label else "")
    console.print(Text(scenario.title, style="bold"))
    console.print(Text(f"{row}, replication {story.replication}, seed {story.seed}", style="dim"))
    console.print()
    console.print(Text(textwrap.fill(story.summary, console.width, break_on_hyphens=False), style="bold"))
    console.print()
    times = _times([step.time for step in story.events])
    _print_columns(list(zip(times, (step.text for step in story.events), strict=True)), console)
    if story.cause:
        console.print()
        cause = story.cause
        told = {"cause": f"{story.anomaly}: {cause.name}", "meaning": story.meaning or ""}
        told |= {"behaviour": cause.behaviour, "prevented by": story.prevented_by or ""}
        _print_columns(list(told.items()), console)


def _times(seconds: Sequence[float]) -> list[str]:
    """Times of events, all with as many decimals (3 to 6) as it takes to tell them apart."""
    gaps = [after - before for before, after in pairwise(seconds) if after > before]
    decimals = max(3, min(6, math.ceil(-math.log10(min(gaps))))) if gaps else 3
    texts = [f"{time:.{decimals}f} s" for time in seconds]
    return [text.rjust(max(map(len, texts))) for text in texts]


# -- claims, warnings, the list of causes ------------------------------------------------------------------


def marks(encoding: str) -> tuple[str, str]:
    """The signs for what holds and what does not."""
    try:
        "✓✗".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return "yes", "NO"
    return "✓", "✗"


def _print_verdict(verdict: Verdict, console: Console) -> None:
    """A mark, and beside it the statement, what was observed, and why."""
    claim = verdict.claim
    mark = marks(console.encoding)[0 if verdict.holds else 1]
    text = " ".join(claim.statement.split())
    if verdict.refuted:
        text = f"not so, as expected: {text}" if verdict.holds else f"so after all: {text}"
    if claim.where:
        text += f"  where {' '.join(claim.where.split())}"
    lines = Text(wrapped(f"{mark} ", text, console.width))
    lines.stylize("green" if verdict.holds else "bold red", 0, len(mark))
    console.print(lines)
    blank = " " * (len(mark) + 1)
    console.print(Text(wrapped(blank, verdict.observed, console.width), style="dim"))
    if claim.because:
        console.print(Text(wrapped(blank, f"because: {' '.join(claim.because.split())}", console.width)))


def warnings(result: Result) -> list[str]:
    """What a reader should know before believing the figures: faults that touched nothing."""
    told = []
    for fault, rows in result.inert.items():
        if len(rows) == len(result.rows):
            where = ""
        else:
            where = f" in {len(rows)} of {len(result.rows)} rows"
        told.append(f"the fault {fault!r} touched nothing{where}")
    return told


def show_causes(causes: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print the list of causes (the entries of `msgsim causes --json`), by system and anomaly."""
    for (system, anomaly), group in groupby(causes, key=lambda cause: (cause["system"], cause["anomaly"])):
        console.print(Text(f"{system}: {anomaly}", style="bold"))
        _print_columns([(cause["cause"], _meaning(cause)) for cause in group], console)


def _meaning(cause: Mapping[str, str]) -> str:
    meaning = cause["meaning"].rstrip(".")
    return f"{meaning} [{cause['behaviour']}]; prevented by {cause['prevented_by']}"
