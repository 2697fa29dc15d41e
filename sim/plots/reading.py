"""What the pictures read from a result."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sim.words import SHARE_OF, Axis, row_label, sweep_axes

if TYPE_CHECKING:
    from sim.result import Result, Row


def axes_of(result: Result) -> list[Axis]:
    """The axes of the result's sweep."""
    return sweep_axes([row.params for row in result.rows])


def category_of(axes: list[Axis]) -> Axis | None:
    """The axis whose values are to be compared side by side: the guarantee, else words, else the first."""
    guarantee = [axis for axis in axes if axis.path.split(".")[-1] == "guarantee"]
    words = [axis for axis in axes if not axis.is_numeric]
    return next(iter([*guarantee, *words, *axes]), None)


def labels_of(result: Result, is_meant: Callable[[Row], bool]) -> str:
    """The names of the rows that are meant."""
    axes = axes_of(result)
    return "; ".join(row_label(axes, row.params) or "this run" for row in result.rows if is_meant(row))


def number(value: Any) -> float | None:
    """The finite number that a cell holds, or None: absent figures are None, NaN or NA."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def reading(row: Row, figure: str) -> tuple[float | None, float]:
    """A figure and the half width of its 95 % interval, 0 without replications.

    Losses and the like are shares of what was due.
    """
    value = number(row.metrics.get(figure))
    if value is None:
        return None, 0.0
    whole = (number(row.metrics.get(SHARE_OF[figure])) or 1.0) if figure in SHARE_OF else 1.0
    return value / whole, (number(row.metrics.get(f"{figure}_ci95")) or 0.0) / whole


def is_ever(result: Result, figure: str) -> bool:
    """Whether a figure is known and not zero in some row."""
    return any(number(row.metrics.get(figure)) for row in result.rows)


def quantiles(row: Row) -> tuple[list[float], list[float]]:
    """Probabilities and latencies (s), averaged over the replications at the levels that all of them know."""
    samples = [{pair[0]: pair[1] for pair in outcome.quantiles} for outcome in row.outcomes]
    levels = [q for q in sorted(samples[0]) if all(q in sample for sample in samples)] if samples else []
    return levels, [fmean(sample[q] for sample in samples) for q in levels]


def components(row: Row) -> dict[str, float]:
    """Mean seconds per part of the latency, averaged over the replications that know them."""
    samples = [outcome.components for outcome in row.outcomes if outcome.components]
    return {name: fmean(sample[name] for sample in samples) for name in (samples[0] if samples else ())}


def spread_out(rows: list[Row], limit: int) -> tuple[list[Row], list[str]]:
    """At most `limit` rows, evenly spaced, and a note if some are left out."""
    if len(rows) <= limit:
        return rows, []
    chosen = [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]
    return chosen, [f"{limit} of {len(rows)} rows are drawn."]


def lines_of(result: Result) -> list[tuple[str, int | None]]:
    """Rows as labelled lines from top to bottom: what is compared side by side, in blocks of what they share.

    A line is a label and the number of its row, or the heading of a block and None.
    """
    axes = axes_of(result)
    category = category_of(axes)
    others = [axis for axis in axes if axis is not category]
    blocks: dict[str, list[tuple[str, int | None]]] = {}
    for i, row in enumerate(result.rows):
        label = category.label(row.params[category.path]) if category else "this run"
        blocks.setdefault(row_label(others, row.params), []).append((label, i))
    return [
        line for heading, rows in blocks.items() for line in ([(heading, None)] if heading else []) + rows
    ]
