"""The house style: canvas, looks of lines that survive grey print, legends, notes, placing of labels.

Matplotlib is loaded when the first picture is drawn. Figures are plain objects: no pyplot, no global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.words import Axis, compact, duration, row_label, share, time_scale

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as Ruler
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox

    from sim.result import Result, Row

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH, HEIGHT = 8.0, 4.5  # inches: half a 16:9 slide's worth of pixels at 150 dpi
# Okabe and Ito (2008), without the yellow that vanishes on white; in the order of the style's cycle.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "|||")
LINES_MAX = 20  # more than that nobody can tell apart


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults and our style on top, whatever this machine's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def styled(draw: Callable[[Result], Figure]) -> Callable[[Result], Figure]:
    """Have a picture drawn in the house style."""

    @wraps(draw)
    def in_style(result: Result) -> Figure:
        with house_style():
            return draw(result)

    return in_style


def canvas(title: str, height: float = HEIGHT, notes: Sequence[str] = ()) -> Figure:
    """An empty figure with its title at the top and notes at the bottom, both flush left."""
    from matplotlib.figure import Figure

    lines = [line for note in notes for line in textwrap.wrap(note, 92)]
    figure = Figure(figsize=(WIDTH, height + 0.2 * len(lines)))
    figure.suptitle(title, x=0.012, ha="left")
    if lines:
        figure.supxlabel("\n".join(lines), x=0.012, ha="left", fontsize=11, color="#444444")
    return figure


def nothing(title: str, why: str) -> Figure:
    """A figure that says in words that there is nothing to show."""
    figure = canvas(title, height=2.5)
    figure.text(0.5, 0.45, textwrap.fill(why, 60), ha="center", va="center", fontsize=13)
    return figure


@dataclass(frozen=True)
class Look:
    """How the line of a row is drawn. Lines drawn later are thinner, so that those beneath still show."""

    colour: str
    marker: str
    dash: Any
    width: float = 2.2

    def line(self) -> dict[str, Any]:
        """Keywords of a line without markers."""
        return {"color": self.colour, "linestyle": self.dash, "linewidth": self.width}

    def marked_line(self) -> dict[str, Any]:
        """Keywords of a line with markers."""
        return {**self.line(), "marker": self.marker, "markersize": 3 + 2 * self.width}


def palette(number: int, ordered: bool) -> list[Look]:
    """So many looks; the colours of many values that have an order go from dark to light."""
    colours = [COLOURS[i % len(COLOURS)] for i in range(number)]
    if ordered and number > 4:
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        colours = [to_hex(colormaps["viridis"](0.88 * i / (number - 1))) for i in range(number)]
    widths = [3.2 - 1.4 * i / max(1, number - 1) for i in range(number)] if number > 1 else [2.4]
    return [
        Look(colour, MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)], width)
        for i, (colour, width) in enumerate(zip(colours, widths, strict=True))
    ]


def axis_looks(axis: Axis) -> list[Look]:
    """A look for each value of an axis."""
    return palette(len(axis.values), axis.is_numeric)


def axis_keys(axis: Axis, rows: Sequence[Row], dashed: bool = True) -> list[Line2D]:
    """The entries of a legend that says which look is which value, for the values that the rows have."""
    used = [row.params[axis.path] for row in rows]
    found = [
        (value, look) for value, look in zip(axis.values, axis_looks(axis), strict=True) if value in used
    ]
    return [_key(look if dashed else replace(look, dash="none"), axis.label(value)) for value, look in found]


def looks(axes: Sequence[Axis], rows: Sequence[Row]) -> tuple[list[Look], list[Line2D]]:
    """A look for each row, and a legend: of two axes where that is shorter than one of all rows."""
    from matplotlib.lines import Line2D

    hue, rest = _hue_and_rest(axes)
    if hue is None:
        every = palette(len(rows), bool(axes) and all(axis.is_numeric for axis in axes))
        labels = [row_label(axes, row.params) for row in rows]
        return every, [_key(look, label) for look, label in zip(every, labels, strict=True) if label]
    of_value = axis_looks(hue)
    combinations = list(dict.fromkeys(row_label(rest, row.params) for row in rows))
    found = [
        replace(
            of_value[hue.values.index(row.params[hue.path])],
            dash=DASHES[combinations.index(row_label(rest, row.params))],
        )
        for row in rows
    ]
    dashes = [
        Line2D([], [], color="#444444", linestyle=dash, label=label)
        for dash, label in zip(DASHES, combinations, strict=False)
    ]
    return found, [*axis_keys(hue, rows, dashed=False), *dashes]


def _hue_and_rest(axes: Sequence[Axis]) -> tuple[Axis | None, list[Axis]]:
    """The axis that gets the colours, if four dashes do for what is left; else each row has its own."""
    for hue in axes if len(axes) > 1 else ():
        rest = [axis for axis in axes if axis is not hue]
        if math.prod(len(axis.values) for axis in rest) <= len(DASHES):
            return hue, rest
    return None, []


def _key(look: Look, label: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], **look.marked_line(), label=label)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend beside the panels, where it covers nothing."""
    if handles:
        figure.legend(handles=list(handles), loc="outside right center", handlelength=2.6)


def label_lines(panel: Axes, lines: Sequence[tuple[str, int | None]]) -> None:
    """Label the vertical axis of bars from top to bottom; headings (lines without a row) are bold."""
    panel.set_yticks(range(len(lines)), [label for label, _ in lines])
    panel.set_ylim(len(lines) - 0.4, -0.6)
    for tick, (_, row) in zip(panel.get_yticklabels(), lines, strict=False):
        tick.set_fontweight("bold" if row is None else "normal")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)


def write_behind(panel: Axes, end: float, y: float, text: str, colour: str = "#000000") -> None:
    """Write a bar's value behind its end; the panel must leave room for it."""
    panel.annotate(
        text,
        (end, y),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=11,
        color=colour,
        in_layout=False,
    )


# Rulers.


def time_ruler(ruler: Ruler, largest: float, name: str = "latency") -> float:
    """Label a linear axis of times with the best unit; returns that unit's seconds, to divide the data by."""
    from matplotlib.ticker import MaxNLocator

    factor, unit = time_scale(largest if largest < 60 else largest / 3)
    ruler.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ruler.set_label_text(f"{name} ({unit})")
    return factor


def log_time_ruler(ruler: Ruler, limits: tuple[float, float], name: str = "latency") -> None:
    """Limit a logarithmic axis of seconds and label it 1 ms, 10 ms, 1 s, 10 s, 1 min, 1 h as they fall."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = _between(limits, [*(10.0**k for k in range(-9, 2)), 60.0, 600.0, 3600.0, 36000.0])
    for steps in ((1, 3), (1, 2, 5)):
        if len(ticks) < 3:
            ticks = _between(limits, [m * 10.0**k for k in range(-9, 6) for m in steps])
    ticks = ticks[:: 1 + (len(ticks) - 1) // 7]
    ruler.set_view_interval(*limits, ignore=True)
    ruler.set_major_locator(FixedLocator(ticks))
    ruler.set_major_formatter(lambda value, _: duration(value))
    ruler.set_minor_locator(NullLocator())
    ruler.set_label_text(f"{name} (log scale)")


def _between(limits: tuple[float, float], values: Sequence[float]) -> list[float]:
    return [value for value in values if limits[0] <= value <= limits[1]]


def share_ruler(ruler: Ruler, ticks: int = 5, largest: float = math.inf) -> None:
    """Ticks of an axis of shares as per cent, none beyond the largest share."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    locator = MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10])
    if math.isfinite(largest):
        ruler.set_major_locator(
            FixedLocator([t for t in locator.tick_values(0, largest) if t <= largest * 1.001])
        )
    else:
        ruler.set_major_locator(locator)
    ruler.set_major_formatter(lambda value, _: share(value) if abs(value) > 1e-12 else "0%")


def count_ruler(ruler: Ruler, ticks: int = 6) -> None:
    """Ticks of an axis of counts or rates: 1,500, 200k, 3M."""
    from matplotlib.ticker import MaxNLocator

    ruler.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    ruler.set_major_formatter(lambda value, _: compact(value))


def is_wide(values: Sequence[float], ratio: float = 30.0) -> bool:
    """Whether positive values spread so far that only a logarithmic axis shows them all."""
    positive = [value for value in values if value > 0]
    return len(positive) > 1 and max(positive) > ratio * min(positive)


# Labels beside points.


def label_points(
    panel: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    with_leaders: bool,
    others: Sequence[tuple[float, float]] = (),
) -> None:
    """Write each label beside its point where it covers no other, nor one of the `others`, which have no label.

    One that finds no such place is written further off `with_leaders` (a line to its point), else left out.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # what overlaps is known once the layout is
    taken = [_around(panel.transData.transform(point)) for point in (*points, *others)]
    for point, label in zip(points, labels, strict=True):
        for dx, dy in _places((11, 24, 38, 54, 70) if with_leaders else (11,)):
            text = panel.annotate(
                label,
                point,
                (dx, dy),
                textcoords="offset points",
                ha="left" if dx > 1 else "right" if dx < -1 else "center",
                va="center",
                fontsize=11,
                in_layout=False,
                path_effects=[withStroke(linewidth=3, foreground="white")],
                arrowprops={"arrowstyle": "-", "color": "#888888"} if math.hypot(dx, dy) > 14 else None,
            )
            text.get_window_extent()  # moves text and leader line to their places
            box = Text.get_window_extent(text)  # without the leader line
            if _inside(panel.bbox, box) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _places(radii: Sequence[float]) -> list[tuple[float, float]]:
    """Offsets (points) to try for a label: nearest first, below on the right before all others."""
    directions = ((0.6, -0.8), (-0.6, 0.8), (1, 0), (-1, 0), (0.6, 0.8), (-0.6, -0.8), (0, 1), (0, -1))
    return [(radius * x, radius * y) for radius in radii for x, y in directions]


def _around(point: Any, radius: float = 5.0) -> Bbox:
    from matplotlib.transforms import Bbox

    x, y = point
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _inside(outer: Bbox, inner: Bbox) -> bool:
    (left, bottom), (right, top) = outer.get_points().tolist()
    (x0, y0), (x1, y1) = inner.get_points().tolist()
    return bool(left <= x0 and x1 <= right and bottom <= y0 and y1 <= top)
