"""The `published` block of a scenario: what it may hold, what is wrong with one, and what a tolerance allows."""
# ruff: noqa: E501 -- a message stands in one line, as it is told

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sim.scenario import Scenario, ScenarioError, schema
from sim.scenario.published import PublishedLine, Tolerance
from tests.scenario.test_bad_files import VALID

pytestmark = pytest.mark.usefixtures("fake_systems")

Load = Callable[[str], Scenario]
SWEPT = VALID + "sweep: {services.billing.prefetch: [1, 26]}\n"  # ten lines
BLOCK = """\
published:
  case: P-03
  source: "Somebody:
    A measurement"
  url: https://example.org/a
  year: 2012
  nature: measured
  strength: A
  lines:
    - {figure: busy fraction, value: 0.038, predicted: utilisation, where: prefetch == 1, tolerance: 2%}
    - figure: added wait
      value: 100
      unit: ms
      predicted: latency_mean - at("latency_mean", prefetch=1)
      where: prefetch == 26
      tolerance: 0.045 s
    - {figure: rate at one, value: 1540, unit: msg/s, input: true}
"""


def with_line(line: str) -> str:
    """The swept scenario with published lines, which begin in line 19."""
    return SWEPT + BLOCK.replace('"Somebody:\n    A measurement"', "S").partition("    - {figure")[0] + line


def block(old: str, new: str) -> str:
    """The swept scenario with something else in its block, which begins in line 11."""
    assert old in BLOCK
    return SWEPT + BLOCK.replace(old, new)


def test_a_block_is_read(loaded: Load) -> None:
    published = loaded(SWEPT + BLOCK).published
    assert published is not None
    assert (published.case, published.source, published.year) == ("P-03", "Somebody: A measurement", 2012)
    busy, added, rate = published.lines
    assert (busy.figure, busy.value, busy.unit, busy.where) == ("busy fraction", 0.038, "", "prefetch == 1")
    assert busy.tolerance == Tolerance("2%", "relative", 0.02)
    assert added.tolerance == Tolerance("0.045 s", "absolute", pytest.approx(45.0))
    assert (rate.is_input, rate.predicted, rate.tolerance) == (True, None, None)
    assert [line.line for line in published.lines] == [20, 21, 27]


def test_a_scenario_without_a_block_has_none(loaded: Load) -> None:
    assert loaded(VALID).published is None


def test_a_block_changes_nothing_of_what_runs(loaded: Load) -> None:
    plain, with_block = loaded(SWEPT).points(), loaded(SWEPT + BLOCK).points()
    assert plain == with_block


def test_an_override_may_take_the_ground_from_a_line(loaded: Load) -> None:
    changed = loaded(SWEPT + BLOCK).override({"services.billing.prefetch": 5})
    assert len(changed.points()) == 1 and changed.published is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("published: 3\n", "s.yaml:11: published: expected a mapping (case, source, url, year ...), found 3"),
        (block("case: P-03", "cse: P-03").removeprefix(SWEPT), "s.yaml:12: published.cse: unknown field; did you mean 'case'?"),
        (block("  year: 2012\n", "").removeprefix(SWEPT), "s.yaml:11: published: 'year' is missing"),
        (block("P-03", "P3").removeprefix(SWEPT), "s.yaml:12: published.case: expected the number of a case such as P-03, found 'P3'"),
        (block("2012", "'12'").removeprefix(SWEPT), "s.yaml:16: published.year: expected a whole number >= 1, found '12'"),
        (block("measured", "mesured").removeprefix(SWEPT), "s.yaml:17: published.nature: expected one of measured, worked-example, documented-rule, formula, found 'mesured'; did you mean 'measured'?"),
        (block("strength: A", "strength: D").removeprefix(SWEPT), "s.yaml:18: published.strength: expected one of A, B, C, found 'D'"),
        (block("https://example.org/a", "''").removeprefix(SWEPT), "s.yaml:15: published.url: expected a text, found none"),
    ],
)  # fmt: skip
def test_a_broken_block_is_told_in_one_line(loaded: Load, text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loaded(SWEPT + text)
    assert str(caught.value) == message


ONE = "figure: wait, value: 100, unit: ms"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{figur: x}", "0.figur: unknown field; did you mean 'figure'?"),
        ("{value: 3}", "0: 'figure' is missing"),
        ("{figure: x, value: 3 ms}", "0.value: expected a number >= 0, found '3 ms'"),
        (f"{{{ONE}, tolerance: 2%}}", "0: 'predicted' is missing (only an input needs none)"),
        (f"{{{ONE}, predicted: latncy_mean, tolerance: 2%}}", "0.predicted: unknown name 'latncy_mean'; did you mean 'latency_mean'?"),
        (f"{{{ONE}, predicted: lost == 0, tolerance: 2%}}", "0.predicted: expected numbers, names and + - * / **, found 'lost == 0'"),
        (f"{{{ONE}, predicted: 2 +, tolerance: 2%}}", "0.predicted: expected an expression such as 1000 * latency_mean, found '2 +'"),
        (f"{{{ONE}, predicted: '2', tolerance: 2%}}", "0.predicted: expected an expression such as 1000 * latency_mean, found '2', which names nothing"),
        (f"{{{ONE}, predicted: 'smallest(\"prefech\", lost == 0)', tolerance: 2%}}", "0.predicted: unknown parameter of the sweep 'prefech'; did you mean 'prefetch'?"),
        (f"{{{ONE}, predicted: lost, where: prefetch == 1}}", "0: 'tolerance' is missing (only an input needs none)"),
        (f"{{{ONE}, predicted: lost, tolerance: roughly}}", "0.tolerance: expected a tolerance such as 2%, factor 1.6, 45 ms or exact, found 'roughly'"),
        (f"{{{ONE}, predicted: lost, tolerance: exakt}}", "0.tolerance: expected a tolerance such as 2%, factor 1.6, 45 ms or exact, found 'exakt'; did you mean 'exact'?"),
        (f"{{{ONE}, predicted: lost, tolerance: 45}}", "0.tolerance: expected a text, found 45; put it in quotes"),
        (f"{{{ONE}, predicted: lost, tolerance: '45'}}", "0.tolerance: expected a tolerance in ms, as the value is, or such as 2%, factor 1.6, 45 ms or exact, found '45'"),
        (f"{{{ONE}, predicted: lost, tolerance: 45 MB}}", "0.tolerance: expected a tolerance in ms, as the value is, or such as 2%, factor 1.6, 45 ms or exact, found '45 MB'"),
        ("{figure: x, value: 3, predicted: lost, tolerance: 1 ms}", "0.tolerance: expected a tolerance without a unit, as the value is, or such as 2%, factor 1.6, 45 ms or exact, found '1 ms'"),
        (f"{{{ONE}, predicted: lost, tolerance: factor 0.5}}", "0.tolerance: expected a factor >= 1, found 'factor 0.5'"),
        ("{figure: x, value: 0, predicted: lost, tolerance: factor 2}", "0.tolerance: a factor is of something > 0, found a value of 0"),
        (f"{{{ONE}, predicted: lost, tolerance: 2%}}", "0: expected a where that selects one row, found 2 rows"),
        (f"{{{ONE}, predicted: lost, tolerance: 2%, where: prefetch > 0}}", "0.where: expected a where that selects one row, found 2 rows"),
        (f"{{{ONE}, predicted: lost, tolerance: 2%, where: prefetch == 2}}", "0.where: prefetch == 2 selects no row: prefetch is 1 or 26"),
        (f"{{{ONE}, predicted: lost, tolerance: 2%, where: prefech == 1}}", "0.where: unknown name 'prefech'; did you mean 'prefetch'?"),
        (f"{{{ONE}, input: true}}\n    - {{{ONE}, input: true}}", "1.figure: 'wait' is there already; a line is known by its figure"),
        ("{figure: ' ', value: 3, input: true}", "0.figure: expected what the source calls it, found no text"),
    ],
)  # fmt: skip
def test_a_broken_line_is_told_in_one_line(loaded: Load, line: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loaded(with_line(f"    - {line}\n"))
    number = 19 + int(message[0])
    assert str(caught.value) == f"s.yaml:{number}: published.lines.{message}"


def test_a_block_needs_lines(loaded: Load) -> None:
    with pytest.raises(ScenarioError, match=r"s\.yaml:18: published\.lines: expected at least one line"):
        loaded(with_line("").rstrip() + " []\n")


def test_the_schema_knows_it(loaded: Load) -> None:
    def complaints(data: Any) -> list[str]:
        return [error.message for error in Draft202012Validator(schema()).iter_errors(data)]

    raw = loaded(SWEPT + BLOCK).raw
    assert complaints(raw) == []
    lines = raw["published"]["lines"]
    assert complaints(raw | {"published": raw["published"] | {"lines": [lines[0] | {"toleranse": "2%"}]}})
    assert complaints(raw | {"published": {"case": "P-03"}})


# -- tolerances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tolerance", "published", "predictions", "allowed"),
    [
        (Tolerance("2%", "relative", 0.02), 50, [51], True),
        (Tolerance("2%", "relative", 0.02), 50, [51.01], False),
        (Tolerance("2%", "relative", 0.02), 50, [48.99], False),
        (Tolerance("2%", "relative", 0.02), 50, [40, 60], True),  # the mean counts
        (Tolerance("2%", "relative", 0.02), 0, [0], True),
        (Tolerance("2%", "relative", 0.02), 0, [0.001], False),
        (Tolerance("factor 1.6", "factor", 1.6), 100, [160], True),
        (Tolerance("factor 1.6", "factor", 1.6), 100, [62.5], True),
        (Tolerance("factor 1.6", "factor", 1.6), 100, [62], False),
        (Tolerance("factor 1.6", "factor", 1.6), 100, [161], False),
        (Tolerance("45 ms", "absolute", 45), 880, [925], True),
        (Tolerance("45 ms", "absolute", 45), 880, [835], True),
        (Tolerance("45 ms", "absolute", 45), 880, [925.1], False),
        (Tolerance("exact", "exact"), 26, [26.0, 26.0], True),
        (Tolerance("exact", "exact"), 26, [25.0, 27.0], False),  # every replication counts
        (Tolerance("exact", "exact"), 0.3, [0.1 + 0.2], True),
        (Tolerance("exact", "exact"), 0, [0], True),
    ],
)
def test_what_a_tolerance_allows(
    tolerance: Tolerance, published: float, predictions: list[float], allowed: bool
) -> None:
    assert tolerance.allows(published, predictions) == allowed


@pytest.mark.parametrize(
    ("unit", "si", "shown"),
    [
        ("ms", 0.88, 880),
        ("min", 90.0, 1.5),
        ("d", 172800.0, 2),
        ("%", 0.946, 94.6),
        ("MB", 32e6, 32),
        ("/h", 0.5, 1800),
        ("", 0.946, 0.946),
        ("messages", 25.0, 25),
        ("msg/s", 50.0, 50),
    ],
)
def test_a_known_unit_converts_what_is_predicted(unit: str, si: float, shown: float) -> None:
    line = PublishedLine("x", shown, unit, "lost", None, None, False)
    assert line.in_unit(si) == pytest.approx(shown, rel=1e-12)
