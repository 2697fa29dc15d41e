"""Pictures of published measurements: predicted against published, and how far each line is off."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim import brokers
from sim.plots.house import COLOURS, MARKERS, canvas, house_style, label_points, nothing
from sim.words import digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from sim.verify.published import Judged

GREY, RED = "#777777", "#B00000"
TITLE = "Predicted against published"


@dataclass(frozen=True)
class _Dot:
    """A line that can be drawn on logarithmic axes, and how."""

    line: Judged
    x: float
    y: float
    low: float
    high: float
    colour: str
    marker: str

    @property
    def is_off(self) -> bool:
        return self.line.verdict in ("MISSED", "explained")


def draw_published(lines: Sequence[Judged], folder: Path) -> list[Path]:
    """Write `published.png` and `published-ratio.png` into a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with house_style():
        for name, draw in (("published", against), ("published-ratio", ratios)):
            path = folder / f"{name}.png"
            draw(lines).savefig(path, metadata={"Software": None})
            paths.append(path)
    return paths


def _dots(lines: Sequence[Judged]) -> list[_Dot]:
    """The lines whose figures are above 0, each in the look of its system."""
    systems = list(dict.fromkeys([*brokers.NAMES, *(line.system for line in lines)]))
    dots = []
    for line in lines:
        if line.predicted is None or line.predicted <= 0 or line.published <= 0:
            continue
        low, high = line.allowed or (line.published, line.published)
        number = systems.index(line.system)
        look = (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        dots.append(_Dot(line, line.published, line.predicted, max(low, 0.0), high, *look))
    return dots


def _notes(lines: Sequence[Judged], dots: Sequence[_Dot]) -> list[str]:
    notes = ["Pale bars: tolerance of the line. Hollow: an input, used for calibration."]
    if any(dot.is_off for dot in dots):
        notes.append("Crossed out: outside its tolerance.")
    left_out = len(lines) - len(dots)
    if left_out:
        notes.append(f"Lines not drawn, of 0 or with nothing to compare: {left_out} of {len(lines)}.")
    return notes


def _handles(dots: Sequence[_Dot]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    looks = {dot.line.system: (dot.colour, dot.marker) for dot in dots}
    return [
        Line2D([], [], color=colour, marker=marker, markersize=8, linestyle="none", label=system)
        for system, (colour, marker) in looks.items()
    ]


def _mark(panel: Axes, x: float, y: float, dot: _Dot) -> None:
    fill = "white" if dot.line.verdict == "input" else dot.colour
    style: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    panel.plot(
        [x], [y], marker=dot.marker, markersize=7, color=dot.colour, markerfacecolor=fill, zorder=4, **style
    )
    if dot.is_off:
        panel.plot([x], [y], marker="x", markersize=13, markeredgewidth=2, color=RED, zorder=5, **style)


# -- predicted against published -------------------------------------------------------------------------------


def against(lines: Sequence[Judged]) -> Figure:
    """Both on logarithmic axes, each line in the unit in which it was published."""
    dots = _dots(lines)
    if not dots:
        return nothing(TITLE, "There is no line to draw.")
    figure = canvas(TITLE, height=6.2, notes=["Each line in its own unit.", *_notes(lines, dots)])
    panel = figure.subplots()
    values = [value for dot in dots for value in (dot.x, dot.y)]
    low, high = min(values) / 3, max(values) * 3
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.plot([low, high], [low, high], color=GREY, linewidth=1.2, zorder=1)
    for dot in dots:
        panel.plot(
            [dot.x, dot.x],
            [max(dot.low, low), dot.high],
            color=dot.colour,
            linewidth=2.5,
            alpha=0.45,
            zorder=2,
        )
        _mark(panel, dot.x, dot.y, dot)
    panel.set_xlim(low, high)
    panel.set_ylim(low, high)
    panel.set_box_aspect(1)
    for ruler, name in ((panel.xaxis, "published"), (panel.yaxis, "predicted")):
        _decades(ruler)
        ruler.set_label_text(name)
    panel.grid(which="minor", visible=False)
    panel.legend(
        handles=_handles(dots), loc="lower right", bbox_to_anchor=(1, 0.02)
    )  # nothing lies below the line
    named = _one_each(dots)
    others = [(dot.x, dot.y) for dot in dots if dot not in named]
    label_points(panel, [(dot.x, dot.y) for dot in named], [dot.line.case for dot in named], True, others)
    return figure


def _decades(ruler: Any) -> None:
    """Ticks at powers of ten, as numbers: 0.01, 1, 1k, 1M."""
    from matplotlib.ticker import LogLocator, NullLocator

    ruler.set_major_locator(LogLocator(10, numticks=9))
    ruler.set_minor_locator(NullLocator())
    ruler.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.999:
            return f"{digits(value / factor)}{suffix}"
    return digits(value)


def _one_each(dots: Sequence[_Dot]) -> list[_Dot]:
    """Of each case the line that is furthest off, to carry the label."""
    chosen: dict[str, _Dot] = {}
    for dot in dots:
        other = chosen.get(dot.line.case)
        if other is None or _off(dot) > _off(other):
            chosen[dot.line.case] = dot
    return list(chosen.values())


def _off(dot: _Dot) -> float:
    return abs(math.log(dot.y / dot.x))


# -- how far each line is off ----------------------------------------------------------------------------------


def ratios(lines: Sequence[Judged]) -> Figure:
    """Predicted over published, a row for each line, with the band of its tolerance."""
    dots = _dots(lines)
    title = "Predicted over published, line by line"
    if not dots:
        return nothing(title, "There is no line to draw.")
    figure = canvas(title, height=1.7 + 0.36 * len(dots), notes=_notes(lines, dots))
    panel = figure.subplots()
    panel.axvline(1, color=GREY, linewidth=1.2, zorder=1)
    for y, dot in enumerate(dots):
        ends = [max(dot.low / dot.x, 1e-3), dot.high / dot.x]
        panel.plot(ends, [y, y], color=dot.colour, linewidth=7, alpha=0.3, solid_capstyle="butt", zorder=2)
        _mark(panel, dot.y / dot.x, y, dot)
        text = dot.line.deviation + (f"  ({dot.line.tolerance})" if dot.line.tolerance else "")
        panel.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=10)
    widest = max(max(_off(dot), abs(math.log(dot.high / dot.x))) for dot in dots)
    reach = max(math.exp(1.15 * widest), 1.05)
    panel.set_xscale("log")
    panel.set_xlim(1 / reach, reach)
    _ratio_ruler(panel, reach)
    panel.set_xlabel("predicted / published (log scale)")
    panel.set_yticks(range(len(dots)), [_row_label(dot.line) for dot in dots], fontsize=9, linespacing=1.0)
    panel.set_ylim(len(dots) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    panel.legend(handles=_handles(dots), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _row_label(line: Judged) -> str:
    return textwrap.fill(f"{line.case}  {line.figure}", 42, max_lines=2, placeholder=" …")


def _ratio_ruler(panel: Axes, reach: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    steps = next(
        (
            steps
            for least, steps in ((8, (1, 2, 5)), (2.2, (1, 1.5, 2, 3, 5)), (1.25, (1, 1.2, 1.5, 2)))
            if reach >= least
        ),
        (1, 1.02, 1.05, 1.1, 1.2),
    )
    above = [m * 10.0**k for k in range(4) for m in steps if m * 10.0**k <= reach]
    ticks = sorted({*above, *(1 / value for value in above)})
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: digits(value, 2 if value < 1 else 3))
