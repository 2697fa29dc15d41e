"""How long messages take, and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from sim.plots.house import (
    BLUE,
    COLOURS,
    HATCHES,
    LINES_MAX,
    Look,
    axis_keys,
    axis_looks,
    canvas,
    count_ruler,
    is_wide,
    label_lines,
    label_points,
    legend,
    log_time_ruler,
    looks,
    nothing,
    share_ruler,
    styled,
    time_ruler,
    write_behind,
)
from sim.plots.reading import (
    axes_of,
    category_of,
    components,
    labels_of,
    lines_of,
    quantiles,
    reading,
    spread_out,
)
from sim.words import Axis, count, duration, row_label, time_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from sim.result import Result, Row

P99 = "p99 latency: 1 message in 100 is slower"
PARTS = {"queue": "in queue", "wait": "in consumer"}  # where a bare word does not say who keeps the message
Curve = tuple[list[float], list[float]]  # probabilities, and the latencies (s) that belong to them


@styled
def cdf(result: Result) -> Figure:
    """The share of messages processed within a time."""
    return _curves(result, "How soon messages are processed", is_tail=False)


@styled
def tail(result: Result) -> Figure:
    """The share of messages slower than a time, on a logarithmic scale, down to one in 100,000."""
    return _curves(result, "The slow ones: the tail of latency", is_tail=True)


def _curves(result: Result, title: str, is_tail: bool) -> Figure:
    rows = [row for row in result.rows if len(quantiles(row)[0]) > 1]
    if not rows:
        return nothing(title, "No message was processed, so there is no latency to show.")
    rows, notes = spread_out(rows, LINES_MAX)
    silent = labels_of(result, lambda row: not quantiles(row)[0])
    if silent:
        notes.append(f"Nothing was processed: {silent}.")
    curves = [quantiles(row) for row in rows]
    figure = canvas(title, notes=notes)
    panel = figure.subplots()
    styles, handles = looks(axes_of(result), rows)
    unit = _latency_ruler(panel, curves, is_tail)
    for (levels, latencies), look in zip(curves, styles, strict=True):
        kept = [(s / unit, 1 - q if is_tail else q) for q, s in zip(levels, latencies, strict=True) if q < 1]
        marks = [i for i, q in enumerate(levels[: len(kept)]) if _is_marked(q)]
        panel.plot(*zip(*kept, strict=True), **look.marked_line(), markevery=marks)
    _share_of_messages(panel, is_tail)
    legend(figure, handles)
    return figure


def _is_marked(level: float) -> bool:
    """Where a curve gets its marker: at few quantiles, so that curves can be told apart without colour."""
    return any(math.isclose(level, q) for q in (0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 0.99999))


def _latency_ruler(panel: Axes, curves: Sequence[Curve], is_tail: bool) -> float:
    """Scale the axis of latencies, logarithmic if they spread far; returns the seconds of its unit."""
    last = max(latencies[-1] for _, latencies in curves)
    middles = [
        latencies[len(latencies) // 2] for _, latencies in curves if latencies[len(latencies) // 2] > 0
    ]
    if middles and (is_wide(middles, 8) or is_wide([max(middles), last])):
        smallest = min(s for _, latencies in curves for s in latencies if s > 0)
        panel.set_xscale("log")
        log_time_ruler(panel.xaxis, (max(smallest, min(middles) / 30) / 1.2, last * 1.3))
        return 1.0
    if not is_tail:  # the last of a long tail would press the rest against the edge
        last = max(max(s for q, s in zip(*curve, strict=True) if q <= 0.999) for curve in curves)
    unit = time_ruler(panel.xaxis, last)
    panel.set_xlim(0, last * 1.04 / unit or 1)
    return unit


def _share_of_messages(panel: Axes, is_tail: bool) -> None:
    from matplotlib.ticker import NullLocator

    if is_tail:
        panel.set_yscale("log")
        panel.set_ylim(top=1.2)
        panel.yaxis.set_major_formatter(lambda y, _: "all" if y >= 1 else f"1 in {count(round(1 / y))}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_ylabel("messages slower than that")
    else:
        panel.set_ylim(0, 1.03)
        share_ruler(panel.yaxis)
        panel.set_ylabel("processed within that time")


@styled
def tradeoff(result: Result) -> Figure:
    """Goodput against tail latency: a labelled point per row, lines where a number is swept."""
    title = "Goodput against latency"
    rows, readings = [], []
    for row in result.rows:
        (x, dx), (y, dy) = reading(row, "latency_p99"), reading(row, "goodput")
        if x is not None and y is not None:
            rows.append(row)
            readings.append((x, y, dx, dy))
    if not rows:
        return nothing(title, "No message was processed, so there is neither latency nor goodput to show.")
    axes = axes_of(result)
    if len(axes) == 1 and axes[0].is_numeric:  # else the labels say it
        title += f", by {axes[0].name}"
    figure = canvas(title)
    panel = figure.subplots()
    seconds = [x for x, _, _, _ in readings]
    wide = is_wide(seconds) and min(seconds) > 0
    unit = 1.0 if wide else time_ruler(panel.xaxis, max(seconds), P99)
    styles, handles, labels = _points(axes, rows)
    points = [(x / unit, y) for x, y, _, _ in readings]
    joined = any(axis.is_numeric for axis in axes)
    if joined:
        for look in dict.fromkeys(styles):
            path = [point for point, other in zip(points, styles, strict=True) if other == look]
            panel.plot(*zip(*path, strict=True), color=look.colour, linestyle=look.dash, linewidth=1.2)
    for (x, y), (_, _, dx, dy), look in zip(points, readings, styles, strict=True):
        panel.errorbar(
            x, y, xerr=dx / unit, yerr=dy, color=look.colour, marker=look.marker, markersize=9, linewidth=1
        )
    panel.margins(0.15)
    if wide:
        panel.set_xscale("log")
        log_time_ruler(panel.xaxis, (min(seconds) / 3, 3 * max(seconds)), P99)
    count_ruler(panel.yaxis)
    panel.set_ylabel("goodput (messages/s)")
    legend(figure, handles)
    label_points(panel, points, labels, with_leaders=not joined)
    return figure


def _points(axes: list[Axis], rows: Sequence[Row]) -> tuple[list[Look], list[Line2D], list[str]]:
    """A look for each point, a legend, and a label beside each point for what the legend does not say."""
    hue = category_of(axes)
    if hue is None or (len(axes) == 1 and hue.is_numeric):
        return (
            [Look(BLUE, "o", "-")] * len(rows),
            [],
            [hue.text(row.params[hue.path]) if hue else "" for row in rows],
        )
    of_value = axis_looks(hue)
    styles = [of_value[hue.values.index(row.params[hue.path])] for row in rows]
    if len(axes) == 1 and len(rows) <= 8:
        return styles, [], [row_label(axes, row.params) for row in rows]
    rest = [axis for axis in axes if axis is not hue]
    return styles, axis_keys(hue, rows), [row_label(rest, row.params) for row in rows]


@styled
def breakdown(result: Result) -> Figure:
    """Where the time of a message goes, on average: a stacked bar per row."""
    title = "Where the time goes"
    parts = [components(row) for row in result.rows]
    shown = [i for i, part in enumerate(parts) if sum(part.values()) > 0]
    if not shown:
        return nothing(title, "No message was processed, so there is no time to divide.")
    totals = {i: sum(parts[i].values()) for i in shown}
    lines = [(label, row) for label, row in lines_of(result) if row is None or row in totals]
    as_shares = is_wide(list(totals.values()), 12)  # or the bars of the short ones would vanish
    factor, unit = time_scale(max(totals.values()))
    silent = labels_of(result, lambda row: not sum(components(row).values()))
    notes = [f"Nothing was processed: {silent}."] if silent else []
    figure = canvas(title, max(2.6, 1.8 + 0.3 * len(lines)), notes)
    panel = figure.subplots()
    places = {row: y for y, (_, row) in enumerate(lines) if row is not None}
    names = list(dict.fromkeys(name for i in places for name in parts[i]))
    ends = dict.fromkeys(places, 0.0)
    for name, colour, hatch in zip(names, cycle(COLOURS), cycle(HATCHES), strict=False):
        widths = {i: parts[i].get(name, 0.0) / (totals[i] if as_shares else factor) for i in places}
        panel.barh(
            list(places.values()),
            list(widths.values()),
            left=list(ends.values()),
            height=0.72,
            label=PARTS.get(name, name),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
        )
        ends = {i: end + widths[i] for i, end in ends.items()}
    for i, y in places.items():
        write_behind(panel, ends[i], y, duration(totals[i]))
    label_lines(panel, lines)
    panel.set_xlim(0, 1.16 * max(ends.values()))
    if as_shares:
        share_ruler(panel.xaxis, largest=1.0)
        panel.set_xlabel("share of the mean latency (written behind the bar)")
    else:
        panel.set_xlabel(f"mean latency ({unit})")
    panel.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names), columnspacing=1.2, handlelength=1.6
    )
    return figure
