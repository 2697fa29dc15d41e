"""Every picture can be drawn of every shape of result, says what it shows, and is the same each time."""

import re
import subprocess
import sys
import warnings
from functools import cache
from itertools import combinations

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from sim.plots import CAPTIONS, PLOTS, choose, draw
from sim.plots.load import telling_figures
from tests.report import fakes

RESULTS = {
    "guarantees by loss": fakes.guarantees_by_loss,
    "one number": fakes.numeric_sweep,
    "single row": fakes.single_row,
    "single row with faults": lambda: fakes.single_row(faults=fakes.FAULTS, replications=5),
    "three rows with faults": fakes.storage_with_faults,
    "three rows, five times": lambda: fakes.storage_with_faults(replications=5),
    "six systems": fakes.six_systems,
    "thirty rows": lambda: fakes.numeric_sweep(points=30),
    "extreme": fakes.extreme,
    "nothing processed": fakes.silent,
}


@cache
def figure_of(name, shape):
    """The figure, laid out; a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = PLOTS[name](RESULTS[shape]())
        figure.draw_without_rendering()
    return figure


def texts(figure):
    """Everything that is written in a figure and not empty."""
    return [
        text.get_text() for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]


@pytest.mark.parametrize("shape", list(RESULTS)[:-1])
@pytest.mark.parametrize("name", PLOTS)
def test_every_kind_draws_every_shape_without_a_warning_and_with_a_title(name, shape):
    figure = figure_of(name, shape)
    assert figure.get_suptitle()
    assert figure.axes or any(sentence.endswith(".") for sentence in texts(figure))


@pytest.mark.parametrize("name", PLOTS)
def test_axes_are_labelled_with_units_and_nothing_is_smaller_than_eleven_points(name):
    figure = figure_of(name, "guarantees by loss")
    written = " ".join(texts(figure))
    assert re.search(r"%|\bms\b|\(s\)|messages/s|messages", written)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 11
    if name not in ("guarantees", "components", "series"):
        assert any(panel.get_xlabel() for panel in figure.axes)


@pytest.mark.parametrize("name", PLOTS)
def test_the_same_result_gives_the_same_bytes(name, tmp_path):
    first = draw(fakes.storage_with_faults(replications=2), tmp_path / "one", [name])
    second = draw(fakes.storage_with_faults(replications=2), tmp_path / "two", [name])
    assert [path.name for path in first] == [f"{name}.png"]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert b"tEXt" not in first[0].read_bytes()  # no version, no date


def test_pictures_do_not_depend_on_what_was_set_globally(tmp_path):
    import matplotlib

    before = draw(fakes.single_row(), tmp_path / "one", ["cdf"])[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "pink"}):
        after = draw(fakes.single_row(), tmp_path / "two", ["cdf"])[0].read_bytes()
        assert matplotlib.rcParams["font.size"] == 30
    assert before == after


def test_matplotlib_waits_until_something_is_drawn_and_pyplot_stays_out():
    code = """
import sys
from sim.plots import PLOTS
from tests.report import fakes
assert "matplotlib" not in sys.modules
for draw in PLOTS.values():
    draw(fakes.storage_with_faults())
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_zero_bars_say_what_zero_means():
    written = texts(figure_of("guarantees", "guarantees by loss"))
    assert "< 0.01%" in written  # 3 / (5 x 6,000)
    assert any("N = 30,000 messages" in text and "3/N" in text for text in written)


def test_where_faults_strike_many_at_once_the_trial_is_the_episode():
    written = texts(figure_of("guarantees", "three rows, five times"))
    assert not any(text.startswith("<") for text in written)
    assert any("N = 15 fault episodes" in text and "20%" in text for text in written)


def test_losses_have_intervals_only_with_replications():
    def has_error_bars(shape):
        kinds = {
            type(container) for panel in figure_of("guarantees", shape).axes for container in panel.containers
        }
        return ErrorbarContainer in kinds

    assert has_error_bars("three rows, five times")
    assert not has_error_bars("three rows with faults")


def test_a_bar_is_as_long_as_the_share_it_shows():
    panel = figure_of("guarantees", "three rows with faults").axes[0]
    widths = [bar.get_width() for container in panel.containers for bar in container]
    assert max(widths) == pytest.approx(900 / 6000)


def test_faults_are_shaded_and_named():
    figure = figure_of("series", "three rows with faults")
    _, backlog, _ = figure.axes
    named = texts(figure)
    for name in ("crash: billing.1", "partition: shop <-> orders", "machine crash: orders"):
        assert name in named
    spans = [patch.get_x() for patch in backlog.patches]
    assert spans == [10.0, 22.0, 45.0]


def test_faults_that_only_some_rows_have_are_shown_and_these_rows_named():
    result = fakes.storage_with_faults()
    result.rows[0].outcomes[0].faults = []
    figure = PLOTS["series"](result)
    assert [patch.get_x() for patch in figure.axes[1].patches] == [10.0, 22.0, 45.0]
    (note,) = [text for text in texts(figure) if text.startswith("Faults only in")]
    assert note.count(";") == 1  # two of the three rows


def test_rates_are_drawn_over_wider_bins_and_keep_their_sum():
    result = fakes.single_row()
    course = result.rows[0].outcomes[0].series
    rates = PLOTS["series"](result).axes[1]
    arrivals, processed = (patch.get_data() for patch in rates.patches)
    assert 40 <= len(arrivals.values) <= 50
    for drawn, name in ((arrivals, "arrivals"), (processed, "processed")):
        total = sum(v * (b - a) for v, a, b in zip(drawn.values, drawn.edges, drawn.edges[1:], strict=False))
        assert total == pytest.approx(0.5 * sum(course[name]))


def test_the_course_ends_when_nothing_happens_any_more():
    backlog = figure_of("series", "single row").axes[0]
    assert backlog.get_xlim() == (0, 70.25)  # the fake's time goes on to 80 s


def test_a_tail_of_many_orders_gets_a_logarithmic_axis_and_a_short_one_does_not():
    assert figure_of("tail", "extreme").axes[0].get_xscale() == "log"
    panel = figure_of("tail", "single row").axes[0]
    assert (panel.get_xscale(), panel.get_xlabel()) == ("linear", "latency (ms)")


def test_the_curve_goes_through_the_mean_of_the_replications_quantiles():
    result = RESULTS["single row with faults"]()
    (line,) = figure_of("cdf", "single row with faults").axes[0].get_lines()
    points = dict(zip(line.get_ydata(), line.get_xdata(), strict=True))
    median = sum(dict(outcome.quantiles)[0.5] for outcome in result.rows[0].outcomes) / 5
    assert points[0.5] == pytest.approx(1000 * median)


def test_parts_add_up_to_the_mean_latency():
    panel = figure_of("components", "three rows with faults").axes[0]
    ends = [sum(container[row].get_width() for container in panel.containers) for row in range(3)]
    assert ends == pytest.approx([20.0, 40.0, 60.0])  # ms
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == ["publish", "in queue", "delivery", "in consumer", "service"]


def test_a_row_in_which_nothing_was_processed_is_named_not_drawn():
    assert any("Nothing was processed: workload P" in text for text in texts(figure_of("tail", "extreme")))


@pytest.mark.parametrize("name", ["cdf", "tail", "tradeoff", "series", "components"])
def test_nothing_to_show_is_said_in_words(name):
    figure = figure_of(name, "nothing processed")
    assert not figure.axes
    assert any("Nothing" in text or "No message" in text for text in texts(figure))


def test_a_sweep_shows_what_the_claims_speak_of_first():
    assert telling_figures(fakes.numeric_sweep())[0] == "utilisation"
    panel = figure_of("sweep", "one number").axes[0]
    assert panel.get_title(loc="left") == "Utilisation"
    (line,) = panel.get_lines()
    assert list(line.get_xdata()) == [100.0 * i for i in range(1, 11)]
    assert "arrivals" in texts(figure_of("sweep", "one number"))


def test_labels_of_points_cover_neither_each_other_nor_the_legend():
    figure = figure_of("tradeoff", "six systems")
    (panel,) = figure.axes
    labels = [text for text in panel.texts if text.get_text()]
    assert len(labels) == 18
    boxes = [Text.get_window_extent(label) for label in labels]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.overlaps(figure.legends[0].get_window_extent()) for box in boxes)


def test_lines_differ_without_colour():
    panel = figure_of("cdf", "guarantees by loss").axes[0]
    looks = [(line.get_marker(), str(line._dash_pattern)) for line in panel.get_lines()]
    assert len(set(looks)) == len(looks) == 12


def test_more_rows_than_can_be_told_apart_are_thinned_and_that_is_said():
    figure = figure_of("cdf", "thirty rows")
    assert len(figure.axes[0].get_lines()) == 20
    assert "20 of 30 rows are drawn." in texts(figure)


@pytest.mark.parametrize(
    "shape, chosen",
    [
        ("guarantees by loss", ["guarantees", "sweep", "tradeoff", "tail", "series", "components"]),
        ("one number", ["sweep", "tradeoff", "tail", "series", "components"]),
        ("single row with faults", ["guarantees", "cdf", "tail", "series", "components"]),
        ("nothing processed", ["guarantees", "series"]),
    ],
)
def test_pictures_suit_what_the_scenario_varies(shape, chosen):
    assert choose(RESULTS[shape]()) == chosen


def test_the_scenario_may_choose():
    result = fakes.single_row()
    result.scenario.plots = ["tail", "cdf"]
    assert choose(result) == ["tail", "cdf"]


def test_an_unknown_picture_is_one_line_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"found 'tails'; did you mean 'tail'\?$") as error:
        draw(fakes.single_row(), tmp_path, ["tails"])
    assert "\n" not in str(error.value)


def test_every_picture_has_a_caption():
    assert list(CAPTIONS) == list(PLOTS)
