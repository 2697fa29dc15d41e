"""The pictures of published measurements: what is drawn, how it is told apart, what is said in words instead."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sim.plots.house import house_style
from sim.plots.published import against, draw_published, ratios
from sim.verify.published import Judged


def line(number: int, ratio: float | None = 1.01, **changes: Any) -> Judged:
    published = changes.pop("published", 10.0 ** (number % 6))
    fields: dict[str, Any] = {"case": f"P-{number:02}", "scenario": "x", "system": "textbook", "unit": "ms"}
    fields |= {"figure": f"figure {number}", "published": published, "half_width": None}
    fields |= {"predicted": None if ratio is None else ratio * published, "tolerance": "10%"}
    fields |= {"allowed": (0.9 * published, 1.1 * published), "verdict": "ok"}
    return Judged(**fields | changes)


LINES = [
    *(line(i, system="rabbitmq" if i % 2 else "textbook") for i in range(1, 16)),
    line(16, 3.0, verdict="MISSED"),
    line(17, 0.5, verdict="explained"),
    line(18, verdict="input", allowed=None, tolerance=""),
    line(19, published=0.0, allowed=(0.0, 0.0)),
    line(20, None, verdict="MISSED"),
]


@pytest.fixture(autouse=True)
def in_house_style() -> Any:
    with house_style():
        yield


def texts(figure: Any) -> str:
    found = [text.get_text() for text in figure.findobj(match=lambda one: hasattr(one, "get_text"))]
    return "\n".join(found)


def test_both_pictures_are_written_and_are_the_same_each_time(tmp_path: Path) -> None:
    paths = draw_published(LINES, tmp_path / "a")
    again = draw_published(LINES, tmp_path / "b")
    assert [path.name for path in paths] == ["published.png", "published-ratio.png"]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_axes_are_logarithmic_with_a_line_of_agreement() -> None:
    figure = against(LINES)
    (panel,) = figure.axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert panel.get_xlim() == panel.get_ylim()
    diagonal = panel.lines[0]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == list(panel.get_xlim())


def test_a_whisker_spans_the_tolerance_at_what_was_published() -> None:
    panel = against([line(2)]).axes[0]
    whisker = panel.lines[1]
    assert list(whisker.get_xdata()) == [100, 100]
    assert list(whisker.get_ydata()) == pytest.approx([90, 110])


def test_systems_differ_by_marker_and_not_by_colour_alone() -> None:
    figure = against(LINES)
    handles = figure.axes[0].get_legend().legend_handles
    assert len({handle.get_marker() for handle in handles}) == len(handles) == 2
    assert len({handle.get_color() for handle in handles}) == 2


def test_each_case_has_one_label_and_none_covers_another() -> None:
    figure = against(LINES)
    figure.draw_without_rendering()
    from matplotlib.text import Text

    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("P-")]
    assert sorted(text.get_text() for text in labels) == [f"P-{i:02}" for i in range(1, 19)]
    boxes = [Text.get_window_extent(text) for text in labels]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_what_missed_is_crossed_out_and_an_input_is_hollow() -> None:
    panel = against(LINES).axes[0]
    crosses = [drawn for drawn in panel.lines if drawn.get_marker() == "x"]
    assert [float(drawn.get_ydata()[0] / drawn.get_xdata()[0]) for drawn in crosses] == pytest.approx(
        [3.0, 0.5]
    )
    hollow = [drawn for drawn in panel.lines if drawn.get_markerfacecolor() == "white"]
    assert len(hollow) == 1


def test_what_has_no_place_on_a_logarithmic_axis_is_said() -> None:
    assert "with nothing to compare: 2 of 20" in texts(against(LINES))
    assert "Crossed out" in texts(against(LINES)) and "Crossed out" not in texts(against([line(1)]))
    assert "There is no line to draw." in texts(against([line(1, None)]))
    assert "There is no line to draw." in texts(ratios([]))


def test_ratios_have_a_row_for_each_line_with_its_deviation_in_words() -> None:
    figure = ratios(LINES)
    (panel,) = figure.axes
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[:2] == ["P-01  figure 1", "P-02  figure 2"] and len(labels) == 18
    assert "+1.0%  (10%)" in texts(figure) and "+200.0%  (10%)" in texts(figure)
    left, right = panel.get_xlim()
    assert left < 0.5 and right > 3.0
    assert panel.yaxis_inverted()
