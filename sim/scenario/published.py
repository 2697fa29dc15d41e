"""What a scenario says of a published measurement (its `published`): read, checked, and judged line by line.

Running a scenario does not look at it; `msgsim verify published` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sim.scenario.document import Document
from sim.scenario.errors import Path, Problems, found, nearest_or_all
from sim.scenario.forms import read
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME

Nature = Literal["measured", "worked-example", "documented-rule", "formula"]
Kind = Literal["exact", "relative", "factor", "absolute"]

QUANTITIES = (TIME, SIZE, RATE, BANDWIDTH, SHARE)
EXAMPLES = "2%, factor 1.6, 45 ms or exact"
CASE = re.compile(r"[A-Z]{1,3}-[0-9]{2,3}")
_AMOUNT = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(.*)")
_FACTOR = re.compile(r"factor\s+([0-9]+\.?[0-9]*)")


# -- as it is written ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One published figure.

    `figure`: what the source calls it; different for each line. `value` is what was published, in `unit`, which is
    shown. `predicted` is an expression over figures; where `unit` is one that msgsim knows (such as ms or %), its
    result is converted from seconds, bytes or shares. `where` selects the row of the sweep. `tolerance`: 2%, factor
    1.6, 45 ms or exact. An `input` was used for calibration and is not judged.
    """

    figure: str
    value: float
    unit: str = ""
    predicted: str | None = None
    where: str | None = None
    tolerance: str | None = None
    input: bool = False


@dataclass(frozen=True)
class Source:
    """A published measurement that this scenario reproduces.

    `case` is its number, `source` who published it under which title. `nature`: whether it was measured, is
    worked out or laid down there, or follows from a formula. `strength`: how good evidence it is, A before B
    before C.
    """

    case: str
    source: str
    url: str
    year: int
    nature: Nature
    strength: Literal["A", "B", "C"]
    lines: tuple[Line, ...]


# -- as it is used -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tolerance:
    """How far a prediction may be from what was published; `text` is as it is written."""

    text: str
    kind: Kind
    amount: float = 0.0  # a share, a factor >= 1, or in the unit of the line

    def bounds(self, published: float) -> tuple[float, float]:
        """The least and the largest prediction that is within it."""
        if self.kind == "factor":
            return published / self.amount, published * self.amount
        reach = {"exact": 0.0, "relative": self.amount * abs(published), "absolute": self.amount}[self.kind]
        return published - reach, published + reach

    def allows(self, published: float, predictions: Sequence[float]) -> bool:
        """Whether the mean of the replications' predictions is within it; `exact` speaks of each of them."""
        if self.kind == "exact":
            return all(math.isclose(value, published, rel_tol=1e-9, abs_tol=1e-12) for value in predictions)
        low, high = self.bounds(published)
        mean = math.fsum(predictions) / len(predictions)
        slack = 1e-9 * max(abs(low), abs(high))  # 2% of 50 is 1, whatever the floats say
        return low - slack <= mean <= high + slack


@dataclass(frozen=True)
class PublishedLine:
    """A line that can be judged; `line` is where it is written, 0 if in no file."""

    figure: str
    value: float
    unit: str
    predicted: str | None
    where: str | None
    tolerance: Tolerance | None
    is_input: bool
    line: int = 0

    def in_unit(self, value: float) -> float:
        """A prediction in SI units, in the unit of what was published."""
        quantity = next((q for q in QUANTITIES if self.unit in q.units), None)
        if quantity is None:
            return value
        factor = quantity.units[self.unit]
        return value * round(1 / factor) if factor < 1 else value / factor


@dataclass(frozen=True)
class Published:
    """A case: where it was published, and its lines."""

    case: str
    source: str
    url: str
    year: int
    nature: str
    strength: str
    lines: tuple[PublishedLine, ...]


# -- reading -------------------------------------------------------------------------------------------------


def read_published(document: Document, swept: Sequence[str], problems: Problems) -> Published | None:
    """The published block; None if there is none or it has problems."""
    raw = document.data.get("published")
    if raw is None:
        return None
    given = read((Source,), raw, document.folder, document.reporter(problems, ("published",)))
    if given is None:
        return None
    before = len(problems.found)
    source = Source(**given[0])
    for field in ("source", "url"):
        if not getattr(source, field).strip():
            document.report(problems, ("published", field), "expected a text, found none")
    if not CASE.fullmatch(source.case):
        document.report(
            problems,
            ("published", "case"),
            f"expected the number of a case such as P-03, found {found(source.case)}",
        )
    if not source.lines:
        document.report(problems, ("published", "lines"), "expected at least one line, found none")
    lines = _lines(document, source, swept, problems)
    if len(problems.found) > before:
        return None
    fields = {name: " ".join(text.split()) for name, text in vars(source).items() if isinstance(text, str)}
    return Published(**{**vars(source), **fields, "lines": tuple(lines)})


def _lines(
    document: Document, source: Source, swept: Sequence[str], problems: Problems
) -> list[PublishedLine]:
    lines: list[PublishedLine] = []
    for number, line in enumerate(source.lines):
        path: Path = ("published", "lines", str(number))
        try:
            path = (*path[:3], "figure")
            _is_new(line, lines)
            path = (*path[:3], "predicted")
            _check(line, swept)
            path = (*path[:3], "tolerance")
            tolerance = _tolerance(line)
        except ValueError as error:
            document.report(problems, path, str(error))
            continue
        lines.append(
            PublishedLine(
                figure=" ".join(line.figure.split()),
                value=line.value,
                unit=line.unit.strip(),
                predicted=line.predicted,
                where=line.where,
                tolerance=tolerance,
                is_input=line.input,
                line=document.place(path[:3]).line,
            )
        )
    return lines


def _is_new(line: Line, others: Sequence[PublishedLine]) -> None:
    figure = " ".join(line.figure.split())
    if not figure:
        raise ValueError("expected what the source calls it, found no text")
    if any(figure == other.figure for other in others):
        raise ValueError(f"{found(figure)} is there already; a line is known by its figure")


def _check(line: Line, swept: Sequence[str]) -> None:
    """Raise ValueError unless the prediction is an expression over known names."""
    from sim.claims import check_expression, param_names
    from sim.words import FIGURES

    if line.predicted is not None:
        check_expression(line.predicted, list(FIGURES), list(param_names(swept)))
    elif not line.input:
        raise ValueError("'predicted' is missing (only an input needs none)")


def check_rows(
    document: Document, published: Published | None, params: Sequence[dict[str, Any]], problems: Problems
) -> None:
    """Note each line whose `where` does not select exactly one row; `params` are those of the rows."""
    from sim.claims import select

    for number, line in enumerate(published.lines if published else ()):
        path: Path = ("published", "lines", str(number), *(("where",) if line.where else ()))
        if line.predicted is None:
            continue
        try:
            rows = select(line.where, params)
        except ValueError as error:
            document.report(problems, path, str(error).removeprefix("where: "))
            continue
        if len(rows) > 1:
            document.report(problems, path, f"expected a where that selects one row, found {len(rows)} rows")


def _tolerance(line: Line) -> Tolerance | None:
    """How far the prediction may be off. Raises ValueError."""
    written, unit = line.tolerance, line.unit.strip()
    if written is None:
        if line.input:
            return None
        raise ValueError("'tolerance' is missing (only an input needs none)")
    text = " ".join(written.split())
    if text == "exact":
        return Tolerance(text, "exact")
    if factor := _FACTOR.fullmatch(text):
        if line.value <= 0:
            raise ValueError(f"a factor is of something > 0, found a value of {line.value:g}")
        if float(factor[1]) < 1:
            raise ValueError(f"expected a factor >= 1, found {found(written)}")
        return Tolerance(text, "factor", float(factor[1]))
    amount = _AMOUNT.fullmatch(text)
    if amount is None:
        words = ("factor 1.6", "exact")
        hint = nearest_or_all(text, words) if text and not text[0].isdigit() else ""
        hint = hint if "did you mean" in hint else ""
        raise ValueError(f"expected a tolerance such as {EXAMPLES}, found {found(written)}{hint}")
    if amount[2] == "%":
        return Tolerance(text, "relative", float(amount[1]) / 100)
    return Tolerance(text, "absolute", float(amount[1]) * _ratio(amount[2], unit, written))


def _ratio(unit: str, of_line: str, written: object) -> float:
    """How many of the line's units one unit of the tolerance is."""
    if unit == of_line:
        return 1.0
    for quantity in QUANTITIES:
        if unit in quantity.units and of_line in quantity.units and unit:
            return quantity.units[unit] / quantity.units[of_line]
    wanted = f"in {of_line}, as the value is" if of_line else "without a unit, as the value is"
    raise ValueError(f"expected a tolerance {wanted}, or such as {EXAMPLES}, found {found(written)}")
