"""Pictures of a result: a function per kind in `PLOTS`, each from a `Result` to a matplotlib `Figure`.

`draw` writes those that suit a result as PNG files, the same bytes for the same result. A kind with nothing
to show says so in words. How lines, legends and labels look is in `house`, what is read in `reading`.
Matplotlib is loaded when the first picture is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from sim.plots.harm import guarantees
from sim.plots.house import house_style
from sim.plots.latency import breakdown, cdf, tail, tradeoff
from sim.plots.load import series, sweep
from sim.plots.reading import axes_of, components, is_ever, quantiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sim.result import Result

PLOTS: dict[str, Callable[[Result], Figure]] = {
    "guarantees": guarantees,
    "sweep": sweep,
    "tradeoff": tradeoff,
    "cdf": cdf,
    "tail": tail,
    "series": series,
    "components": breakdown,
}

# What a reader should know to read it.
CAPTIONS = {
    "guarantees": "Messages lost and messages processed more than once, as shares of the messages due. "
    "The line at a bar's end is the 95% interval over the replications.",
    "sweep": "The figures that change, against the swept number. Bands: 95% intervals over the replications.",
    "tradeoff": "Goodput against the latency that one message in a hundred exceeds: up and left is better. "
    "The crosses are 95% intervals over the replications.",
    "cdf": "The share of messages processed within a time of their creation: further left is faster.",
    "tail": "The share of messages that take longer than a time, on a logarithmic scale.",
    "series": "Messages waiting at the broker, and messages arriving and processed per second. Grey: faults.",
    "components": "The mean latency, divided into what a message spends it on. In queue: ready at the broker; "
    "in consumer: delivered, and waiting for a free handler.",
}


def choose(result: Result) -> list[str]:
    """The pictures of a result: those its scenario names, else those that suit what the scenario varies.

    Raises ValueError for a name that is no picture.
    """
    if result.scenario.plots:
        return [_known(name) for name in result.scenario.plots]
    axes = axes_of(result)
    has_latency = any(quantiles(row)[0] for row in result.rows)
    suits = {
        "guarantees": any(is_ever(result, name) for name in ("lost", "duplicates")),
        "sweep": any(axis.is_numeric and len(axis.values) > 2 for axis in axes),
        "tradeoff": len(result.rows) > 1,
        "cdf": has_latency and len(result.rows) <= 8,
        "tail": has_latency,
        "series": is_ever(result, "backlog_max"),
        "components": any(components(row) for row in result.rows),
    }
    return [name for name in PLOTS if suits[name]]


def draw(result: Result, folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write pictures (those of `choose` unless named) as `folder/NAME.png` at 150 dots per inch; their paths.

    Raises ValueError for a name that is no picture.
    """
    figures = {_known(name): PLOTS[name](result) for name in (choose(result) if names is None else names)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    with house_style():
        for figure, path in zip(figures.values(), paths, strict=True):
            figure.savefig(path, metadata={"Software": None})
    return paths


def _known(name: str) -> str:
    if name in PLOTS:
        return name
    near = get_close_matches(name, PLOTS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"plots: expected one of {', '.join(PLOTS)}, found {name!r}{hint}")
