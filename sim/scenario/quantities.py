"""The leaves of a scenario: quantities with units, numbers, choices, texts; each a type for pydantic.

Reading is strict: "yes" is no boolean, "5" is no number, 1 is no text. A plain number is in SI units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from types import GenericAlias
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from sim.scenario.errors import did_you_mean, found
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME, Quantity

Limit = Literal["", " >= 0", " > 0"]  # written as it stands in messages

_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*(\S*)")
_LARGEST = 2**63 - 1


def parse_quantity(value: object, quantity: Quantity, limit: Limit = " >= 0") -> float:
    """The SI value of "200 ms", "1 KiB", "300/s", "10 MB/s", "2%" or of a plain number.

    Raises ValueError, in words for the user, for anything else and for a number outside `limit`.
    """
    number, why = _si(value, quantity)
    if number is None:
        raise ValueError(
            f"expected {quantity.dimension} such as {quantity.example}, found {found(value)}{why}"
        )
    if quantity == SHARE:
        if not 0 <= number <= 1:
            raise ValueError(
                f"expected {quantity.dimension} such as {quantity.example}, found {found(value)}"
            )
    elif not within(number, limit):
        raise ValueError(
            f"expected {quantity.dimension}{limit} such as {quantity.example}, found {found(value)}"
        )
    return number


def _si(value: object, quantity: Quantity) -> tuple[float | None, str]:
    """The value in SI units, or None and what else can be said about it."""
    if not isinstance(value, str):
        return finite(value), ""
    match = _NUMBER.fullmatch(value.strip()) if len(value) <= 100 else None
    if not match:
        return None, ""
    digits, unit = match.groups()
    if unit not in quantity.units:
        if not unit:
            return None, "; a number in quotes needs a unit"
        other = next((q.dimension for q in (TIME, SIZE, RATE, BANDWIDTH, SHARE) if unit in q.units), None)
        return None, f" ({other})" if other else f" (units: {', '.join(quantity.units)})"
    # Exact arithmetic, rounded once: 7% is 0.07, which 7 * 0.01 is not. All factors are n or 1 / n.
    factor = Fraction(quantity.units[unit]).limit_denominator(10**10)
    try:
        return float(Fraction(digits) * factor), ""
    except OverflowError:
        return None, ""


def finite(value: object) -> float | None:
    """The number as a float, or None if it is no number, not finite, or too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def within(number: float, limit: Limit) -> bool:
    """Whether the number satisfies the limit."""
    return limit == "" or number > 0 or (limit == " >= 0" and number == 0)


def annotate(type_: Any, *extras: Any) -> Any:
    """`Annotated[type_, *extras]` of types that are made at run time."""
    return cast(Any, Annotated)[(type_, *extras)]


def many(item: Any) -> Any:
    """The type of a list of such items."""
    return GenericAlias(list, (item,))


def by_name(item: Any) -> Any:
    """The type of a mapping from names to such items."""
    return GenericAlias(dict, (str, item))


def _leaf(read: Callable[[Any], Any], schema: dict[str, Any]) -> Any:
    return Annotated[Any, PlainValidator(read), WithJsonSchema(schema)]


def measure(quantity: Quantity, limit: Limit = " >= 0", whole: bool = False) -> Any:
    """The type of a quantity; a `whole` one (bytes) is an int."""

    def read(value: object) -> float:
        number = parse_quantity(value, quantity, limit)
        if not whole:
            return number
        if not number.is_integer() or number > _LARGEST:
            raise ValueError(
                f"expected a whole number of bytes such as {quantity.example}, found {found(value)}"
            )
        return int(number)

    text = f"{quantity.dimension} such as {quantity.example}; a plain number is in SI units"
    return _leaf(read, {"type": ["string", "number"], "description": text[0].upper() + text[1:]})


def number(limit: Limit = " >= 0") -> Any:
    """The type of a number without a unit."""

    def read(value: object) -> float:
        result = finite(value)
        if result is None or not within(result, limit):
            raise ValueError(f"expected a number{limit}, found {found(value)}")
        return result

    bounds: dict[str, Any] = {"": {}, " >= 0": {"minimum": 0}, " > 0": {"exclusiveMinimum": 0}}
    return _leaf(read, {"type": "number", **bounds[limit]})


def whole(minimum: int = 1) -> Any:
    """The type of a whole number from `minimum` on."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= _LARGEST:
            too_large = isinstance(value, int) and value > _LARGEST
            most = " and < 2^63" if too_large else ""
            raise ValueError(f"expected a whole number >= {minimum}{most}, found {found(value)}")
        return value

    return _leaf(read, {"type": "integer", "minimum": minimum})


def choice(options: tuple[Any, ...]) -> Any:
    """The type of one of several values. One that reads as a number ("1", "4.3") may be written as one."""
    names = ", ".join(str(option) for option in options)
    numbers = {_number_of(option): option for option in options if _number_of(option) is not None}

    def read(value: object) -> Any:
        for option in options:
            if type(option) is type(value) and option == value:
                return option
        if type(value) in (int, float) and value in numbers:
            return numbers[value]
        hint = did_you_mean(value, [str(option) for option in options]) if isinstance(value, str) else ""
        raise ValueError(
            f"expected {'one of ' if len(options) > 1 else ''}{names}, found {found(value)}{hint}"
        )

    return _leaf(read, {"enum": [*options, *numbers]})


def _number_of(option: object) -> int | float | None:
    """The number that a text stands for in YAML."""
    if not isinstance(option, str) or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", option):
        return None
    return float(option) if "." in option else int(option)


def _read_truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {found(value)}")
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, int | float) else ""
        raise ValueError(f"expected a text, found {found(value)}{hint}")
    return value


truth = _leaf(_read_truth, {"type": "boolean"})
text = _leaf(_read_text, {"type": "string"})


def is_none(value: object) -> bool:
    """Whether a value says that there is none: null or the word "none"."""
    return value is None or value == "none"


def optional(inner: Any) -> Any:
    """The type of what may be absent: null and "none" are None."""
    return annotate(inner | None, BeforeValidator(lambda value: None if is_none(value) else value))


def pair(first: Any, second: Any, example: str) -> Any:
    """The type of a list of two; the message shows `example`."""

    def check(value: object) -> object:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(f"expected a pair such as {example}, found {found(value)}")
        return value

    return annotate(GenericAlias(tuple, (first, second)), BeforeValidator(check))
