"""What the fields of the settings dataclasses hold, by their annotations."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from sim.distributions import Distribution, Schedule
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME, Quantity

# Names stand in for the quantities: a `Quantity` holds a dict, and `Seconds | None` needs what can be hashed.
_QUANTITIES = {"time": TIME, "size": SIZE, "rate": RATE, "bandwidth": BANDWIDTH, "share": SHARE}
_STAND_INS = {
    "Seconds": Annotated[float, "time"],
    "Bytes": Annotated[int, "size"],
    "PerSecond": Annotated[float, "rate"],
    "BytesPerSecond": Annotated[float, "bandwidth"],
    "Fraction": Annotated[float, "share"],
}


@dataclasses.dataclass(frozen=True)
class Hint:
    """The type of a field, without None and without the quantity it is measured in."""

    type: Any
    is_optional: bool
    quantity: Quantity | None
    is_law: bool

    @property
    def nested(self) -> type | None:
        """The dataclass that the field holds, as it is or as the values of a mapping or list."""
        if self.is_law:
            return None
        candidates: tuple[Any, ...] = (self.type, *get_args(self.type))
        return next((part for part in candidates if dataclasses.is_dataclass(part)), None)


@cache
def hints(cls: type) -> dict[str, Hint]:
    """The fields of a dataclass, in order."""
    annotations = get_type_hints(cls, localns=_STAND_INS, include_extras=True)
    return {field.name: _hint(annotations[field.name], field.name) for field in dataclasses.fields(cls)}


def _hint(annotation: Any, name: str) -> Hint:
    inner, is_optional, quantity = annotation, False, None
    while True:
        arguments = get_args(inner)
        if get_origin(inner) is Annotated:
            inner = arguments[0]
            quantity = next(_quantities(arguments[1:]), quantity)
        elif (
            get_origin(inner) in (Union, types.UnionType) and type(None) in arguments and len(arguments) == 2
        ):
            inner = arguments[0] if arguments[1] is type(None) else arguments[1]
            is_optional = True
        else:
            break
    # Arrivals and distributions carry no unit: sizes are in bytes, all other laws are of times.
    is_law = name == "arrivals" or inner is Distribution or inner == Distribution | Schedule
    if is_law and quantity is None:
        quantity = RATE if name == "arrivals" else SIZE if name == "size" else TIME
    return Hint(inner, is_optional, quantity, is_law)


def _quantities(extras: tuple[Any, ...]) -> Iterator[Quantity]:
    for extra in extras:
        if isinstance(extra, Quantity):
            yield extra
        elif isinstance(extra, str) and extra in _QUANTITIES:
            yield _QUANTITIES[extra]
