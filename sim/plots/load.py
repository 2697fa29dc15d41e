"""Backlog and rates over time, and figures against a swept number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sim.plots.house import (
    BLUE,
    LINES_MAX,
    Look,
    canvas,
    count_ruler,
    is_wide,
    legend,
    log_time_ruler,
    looks,
    nothing,
    share_ruler,
    styled,
    time_ruler,
)
from sim.plots.reading import axes_of, reading, spread_out
from sim.words import FIGURES, SHARE_OF, Axis, row_label, time_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from sim.result import Result, Row

OVERLAID_MAX = 4  # rows that may share a panel of their courses
LANES_MAX = 6  # faults that are named
RATE_BINS = 50


@styled
def series(result: Result) -> Figure:
    """Backlog and rates over time, in the first replication, with the faults as shaded spans."""
    title = "Backlog and rates over time"
    rows = [row for row in result.rows if row.outcomes and _last_event(row)]
    if not rows:
        return nothing(title, "Nothing arrived and nothing was processed, so there is no course to show.")
    if len(rows) <= OVERLAID_MAX:
        return _overlaid(result, rows, title)
    return _side_by_side(result, rows)


def _course(row: Row) -> dict[str, list[float]]:
    """The first replication's course."""
    found: dict[str, list[float]] = row.outcomes[0].series
    return found


def _faults(row: Row) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = row.outcomes[0].faults
    return found


def _last_event(row: Row) -> float:
    """When (s) the last message arrived, waited or was processed; 0 if there was none."""
    course = _course(row)
    lively = zip(course["time"], course["backlog"], course["arrivals"], course["processed"], strict=False)
    return max((time for time, *amounts in lively if any(amounts)), default=0.0)


def _overlaid(result: Result, rows: list[Row], title: str) -> Figure:
    """The backlog above, the rates below, a line per row; above all a lane per fault that all rows share."""
    struck = [row for row in rows if _faults(row)]
    shared = all(_faults(row) == _faults(struck[0]) for row in struck)
    end = _end(rows)
    lanes = _lanes(_faults(struck[0]), end) if struck and shared else {}
    notes = [] if shared else ["The faults strike at different times in the rows and are not marked."]
    if shared and 0 < len(struck) < len(rows):
        axes = axes_of(result)
        notes = [f"Faults only in: {'; '.join(row_label(axes, row.params) for row in struck)}."]
    figure = canvas(title, 4.5 + 0.27 * len(lanes), notes + _replication_note(rows))
    heights = [0.27 * len(lanes)] * bool(lanes) + [1.7, 1.4]
    *above, backlog, rates = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=heights, squeeze=False
    )[:, 0]
    unit = time_ruler(rates.xaxis, end, "time")
    for panel in above:
        _draw_lanes(panel, lanes, unit, end)
    _shade(backlog, lanes, unit)
    _shade(rates, lanes, unit)
    styles, handles = looks(axes_of(result), rows)
    alike = _arrive_alike(rows)
    for row, look in zip(rows, styles, strict=True):
        course = _course(row)
        backlog.plot([t / unit for t in course["time"]], course["backlog"], **look.line())
        arrivals, edges = _coarse(course, "arrivals", unit)
        processed, _ = _coarse(course, "processed", unit)
        if not alike:
            rates.stairs(arrivals, edges, baseline=None, color=look.colour, linewidth=0.9, alpha=0.7)
        elif row is rows[0]:
            rates.stairs(arrivals, edges, fill=True, color="#BBBBBB")
        rates.stairs(processed, edges, baseline=None, **look.line())
    backlog.set_title("Backlog (messages)")
    rates.set_title(f"Processed ({'grey' if alike else 'thin'}: arrivals), messages/s")
    for panel in (backlog, rates):
        count_ruler(panel.yaxis, 4)
        panel.set_ylim(0, None if panel.get_ylim()[1] > 0.1 else 1)
    rates.set_xlim(0, end / unit)
    legend(figure, _without_markers(handles))
    return figure


def _arrive_alike(rows: Sequence[Row]) -> bool:
    """Whether as much arrives in all rows, to a hundredth: then one row's arrivals stand for all."""
    totals = [sum(_course(row)["arrivals"]) * _course(row)["time"][0] for row in rows]  # half of what arrived
    return max(totals) - min(totals) <= 0.01 * max(totals)


def _coarse(course: Mapping[str, Sequence[float]], name: str, unit: float) -> tuple[list[float], list[float]]:
    """Means over neighbouring bins (in finer ones rates are noise), and the edges of the new bins."""
    values = course[name]
    width = (
        2 * course["time"][0] / unit
    )  # times are the middles of equal bins, the first of which starts at 0
    size = -(-len(values) // RATE_BINS)
    starts = range(0, len(values), size)
    return [fmean(values[i : i + size]) for i in starts], [i * width for i in (*starts, len(values))]


def _without_markers(handles: Sequence[Line2D]) -> Sequence[Line2D]:
    """The keys of lines that are drawn without markers."""
    for handle in handles:
        handle.set_marker("")
        if handle.get_linestyle() == "None":
            handle.set_linestyle("-")
    return handles


def _replication_note(rows: Sequence[Row]) -> list[str]:
    replications = max(len(row.outcomes) for row in rows)
    return [f"Replication 1 of {replications}."] if replications > 1 else []


def _end(rows: Sequence[Row]) -> float:
    """Up to when (s) the courses are drawn: afterwards nothing happens in any row."""
    return max(_last_event(row) for row in rows)


def _lanes(faults: Sequence[Mapping[str, Any]], end: float) -> dict[str, list[tuple[float, float]]]:
    """Each fault's name and spans (start and length, s); the last lane takes those that have no room."""
    lanes: dict[str, list[tuple[float, float]]] = {}
    for fault in faults:
        until = end if fault["end"] is None else min(fault["end"], end)
        span = (fault["start"], max(until - fault["start"], 0.004 * end))  # a moment must be seen, too
        if fault["start"] <= end:
            lanes.setdefault(f"{fault['kind'].replace('_', ' ')}: {fault['target']}", []).append(span)
    names = list(lanes)
    if len(names) > LANES_MAX:
        rest = names[LANES_MAX - 1 :]
        lanes[f"{len(rest)} other faults"] = sorted(span for name in rest for span in lanes.pop(name))
    return lanes


def _draw_lanes(panel: Axes, lanes: Mapping[str, list[tuple[float, float]]], unit: float, end: float) -> None:
    """A lane per fault: its spans, and its name where the lane has the most room."""
    for y, (name, spans) in enumerate(lanes.items()):
        first, last = spans[0][0] / unit, sum(spans[-1]) / unit
        panel.broken_barh(
            [(start / unit, length / unit) for start, length in spans], (y - 0.3, 0.6), color="#555555"
        )
        place, side, shift = (last, "left", 5) if end / unit - last > first else (first, "right", -5)
        panel.annotate(
            name,
            (place, y),
            (shift, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=11,
            in_layout=False,
        )
    panel.set_yticks([])
    panel.set_ylim(len(lanes) - 0.5, -0.5)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, labelbottom=False)
    panel.grid(visible=False)


def _shade(panel: Axes, lanes: Mapping[str, list[tuple[float, float]]], unit: float) -> None:
    for start, length in (span for spans in lanes.values() for span in spans):
        panel.axvspan(start / unit, (start + length) / unit, color="#E4E4E4", linewidth=0, zorder=0)


def _side_by_side(result: Result, rows: list[Row]) -> Figure:
    """Many rows: a small panel each with its backlog and its faults."""
    axes = axes_of(result)
    rows, notes = spread_out(rows, LINES_MAX)
    peaks = [max(_course(row)["backlog"]) for row in rows]
    own_scales = is_wide(peaks, 20)
    if own_scales:
        notes.append("Each panel has its own scale.")
    faults = dict.fromkeys(name for row in rows for name in _lanes(_faults(row), _end(rows)))
    if faults:
        notes.append(f"Grey: {'; '.join(faults)}.")
    columns = 3 if len(rows) <= 9 else 4 if len(rows) <= 16 else 5
    height = -(-len(rows) // columns)
    figure = canvas("Backlog over time", 1.0 + 1.35 * height, notes + _replication_note(rows))
    panels = list(figure.subplots(height, columns, sharex=True, sharey=not own_scales, squeeze=False).flat)
    unit = time_ruler(panels[0].xaxis, _end(rows), "time")
    time_label = panels[0].get_xlabel()
    panels[0].set_xlabel("")
    for panel, row, peak in zip(panels, rows, peaks, strict=False):
        course = _course(row)
        _shade(panel, _lanes(_faults(row), _end(rows)), unit)
        panel.fill_between([t / unit for t in course["time"]], course["backlog"], color=BLUE, linewidth=0)
        panel.set_title(row_label(axes, row.params).replace(", ", "\n"), fontsize=11, fontweight="normal")
        panel.locator_params(axis="x", nbins=4)
        count_ruler(panel.yaxis, 3)
        panel.set_ylim(0, 1.05 * (peak if own_scales else max(peaks)) or 1)
    for panel in panels[len(rows) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(rows) - columns) : len(rows)]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel(time_label)
    panels[0].set_xlim(0, _end(rows) / unit)
    figure.supylabel("messages", fontsize=12)
    return figure


# Figures against a number.

_TELLING = (
    "lost lost_confirmed duplicates duplicate_effects out_of_order latency_p99 goodput backlog_max "
    "utilisation latency_p50 throughput dead_lettered expired rejected redelivered requests cost"
)
PANELS_MAX = 4


def telling_figures(result: Result) -> list[str]:
    """At most four figures that differ between rows: those the claims speak of, then the most telling."""
    words = " ".join([*(verdict.claim.statement for verdict in result.claims), _TELLING])
    candidates = [name for name in dict.fromkeys(re.findall(r"\w+", words)) if name in FIGURES]
    telling = [name for name in candidates if len({row.metrics.get(name) for row in result.rows}) > 1]
    return telling[:PANELS_MAX]


@styled
def sweep(result: Result) -> Figure:
    """The most telling figures against the swept number, with 95 % intervals; a line per other value."""
    axes = axes_of(result)
    numeric = [axis for axis in axes if axis.is_numeric]
    figures = telling_figures(result)
    if not numeric:
        return nothing("Figures over the sweep", "The sweep has no numeric path to draw figures against.")
    x_axis = max(numeric, key=lambda axis: len(axis.values))
    title = f"What changes with {x_axis.name}"
    if not figures:
        return nothing(title, f"No figure changes with {x_axis.name}.")
    columns = min(2, len(figures))
    shares = any(name in SHARE_OF for name in figures)
    notes = ["What is lost, duplicated and so on is a share of the messages due."] if shares else []
    figure = canvas(title, 4.5 if len(figures) <= 2 else 6.2, notes)
    panels = list(figure.subplots(-(-len(figures) // columns), columns, squeeze=False).flat)
    others = [axis for axis in axes if axis is not x_axis]
    lines: dict[str, list[int]] = {}
    for i, row in enumerate(result.rows):
        lines.setdefault(row_label(others, row.params), []).append(i)
    styles, handles = looks(others, [result.rows[line[0]] for line in lines.values()])
    for panel, name in zip(panels, figures, strict=False):
        readings = [reading(row, name) for row in result.rows]
        unit = _figure_ruler(panel, name, [value for value, _ in readings if value is not None])
        for line, look in zip(lines.values(), styles, strict=True):
            known = {
                result.rows[i].params[x_axis.path]: readings[i] for i in line if readings[i][0] is not None
            }
            _line_with_band(panel, known, unit, look)
        if panel.get_yscale() == "linear":
            panel.set_ylim(bottom=0)
        _number_ruler(panel, x_axis)
    for panel in panels[len(figures) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(figures) - columns) : len(figures)]:
        panel.set_xlabel(x_axis.name)
    legend(figure, handles)
    return figure


def _line_with_band(
    panel: Axes, known: Mapping[float, tuple[float | None, float]], unit: float, look: Look
) -> None:
    """A line through the values and a band of their intervals, none of which reaches below zero."""
    points = sorted((x, (value or 0.0) / unit, half / unit) for x, (value, half) in known.items())
    if not points:
        return
    x, y, half = zip(*points, strict=True)
    panel.plot(x, y, **look.marked_line(), clip_on=panel.get_yscale() == "log", zorder=3)  # zeros in full
    low = [max(value - h, 0.0) for value, h in zip(y, half, strict=True)]
    high = [value + h for value, h in zip(y, half, strict=True)]
    panel.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)


def _figure_ruler(panel: Axes, name: str, values: Sequence[float]) -> float:
    """Title and vertical axis of a figure's panel; returns the unit to divide by."""
    label, kind, _ = FIGURES[name]
    unit = 1.0
    if kind == "time" and is_wide(values) and min(values) > 0:
        panel.set_yscale("log")
        log_time_ruler(panel.yaxis, (min(values) / 1.5, max(values) * 1.5))
    elif kind == "time":
        unit, unit_name = time_scale(max(values))
        label = f"{label} ({unit_name})"
    elif name in SHARE_OF or kind == "share":
        share_ruler(panel.yaxis)
    elif is_wide(values, 300) and min(values) > 0:
        panel.set_yscale("log")
    else:
        count_ruler(panel.yaxis)
    if kind == "rate":
        label = f"{label} (messages/s)"
    panel.set_title(label if label.startswith("p9") else label[0].upper() + label[1:])
    panel.set_ylabel("")
    return unit


def _number_ruler(panel: Axes, axis: Axis) -> None:
    """The swept number's axis: ticks at swept values, with their unit, as many as have room."""
    values = sorted(axis.values)
    if is_wide(values, 50) and values[0] > 0:
        panel.set_xscale("log")
    places = [math.log(v) if panel.get_xscale() == "log" else v for v in values]
    room = 0.16 * (places[-1] - places[0])
    kept = [0, len(values) - 1]
    for i in range(len(values) - 2, 0, -1):
        if all(abs(places[i] - places[k]) >= room for k in kept):
            kept.append(i)
    panel.set_xticks([values[i] for i in kept], [axis.text(values[i]) for i in kept])
    panel.set_xticks([], minor=True)
