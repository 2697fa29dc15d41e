"""Distributions and arrivals as a scenario writes them.

A law is written as {kind: {parameter: value, ...}}. Shorter forms: a bare quantity is a constant (of arrivals
a Poisson rate), a kind with one parameter takes its bare value ({exponential: 32 ms}), and kinds made of a
list take the list ({uniform: [1 ms, 3 ms]}).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema, WrapValidator, create_model
from pydantic_core.core_schema import ValidationInfo

from sim import arrivals, distributions
from sim.scenario.errors import found, nearest_or_all
from sim.scenario.quantities import annotate, many, measure, number, optional, pair, text, whole
from sim.units import RATE, SIZE, TIME, Quantity

LAWS: dict[
    str, tuple[Mapping[str, Kind], str]
] = {}  # kinds of each law and its bare one, for the JSON Schema
FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Kind:
    """One kind of law: what makes it, its parameters and their types, and what may stand for all of them.

    `short` is "value" (the first parameter alone), "list" (the first parameter is the list), "each" (a list
    of all parameters) or "" for none.
    """

    make: Callable[..., Any]
    fields: Mapping[str, Any]
    short: str = ""
    may_lack: tuple[str, ...] = ()

    def spell_out(self, body: Any) -> Any:
        """The body as a mapping from parameter to value."""
        names = list(self.fields)
        if isinstance(body, Mapping):
            return body
        if self.short == "value" or (self.short == "list" and isinstance(body, list | tuple)):
            return {names[0]: body}
        if self.short == "each" and isinstance(body, list | tuple) and len(body) == len(names):
            return dict(zip(names, body, strict=True))
        raise ValueError(f"expected a mapping with {' and '.join(names)}, found {found(body)}")


def make(build: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Call `build`, whose complaints become those of the value that is being read."""
    try:
        return build(**given)
    except ValueError as error:
        # The path in front of the text says already whose complaint it is.
        raise ValueError(re.sub(r"^[A-Z]\w+: ", "", str(error))) from None
    except ArithmeticError:
        raise ValueError("these numbers are too extreme to compute with") from None


def given(model: BaseModel) -> dict[str, Any]:
    """What was written, by name; what was not is left to the defaults of the dataclass."""
    return {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}


def law(
    name: str, title: str, example: str, kinds: Mapping[str, Kind], bare: str, done: tuple[type, ...]
) -> Any:
    """The type of a law of one of these kinds; a bare value is of the kind `bare`.

    Within the kinds the text `name` stands for the law itself, and instances of `done` are passed through.
    """

    def body(kind_name: str, kind: Kind) -> Any:
        fields: dict[str, Any] = {
            field: (type_, None) if field in kind.may_lack else (type_, ...)
            for field, type_ in kind.fields.items()
        }
        model = create_model(f"{name}_{kind_name}", __config__=FORBID, __doc__=kind.make.__doc__, **fields)
        bodies.append(model)

        def read(value: Any, handler: Callable[[Any], BaseModel]) -> Any:
            return make(kind.make, given(handler(kind.spell_out(value))))

        return annotate(model, WrapValidator(read))

    def read(value: Any, handler: Callable[[Any], BaseModel]) -> Any:
        if isinstance(value, done):
            return value
        if not isinstance(value, Mapping):
            value = {bare: value}
        if len(value) != 1:
            raise ValueError(f"expected {title} such as {example}, found a mapping of {len(value)} names")
        kind = next(iter(value))
        if kind not in kinds:
            raise ValueError(f"expected {title}, found {kind!r}{nearest_or_all(kind, list(kinds))}")
        return getattr(handler(value), kind)

    bodies: list[type[BaseModel]] = []
    choices: dict[str, Any] = {kind_name: (body(kind_name, kind), None) for kind_name, kind in kinds.items()}
    model = create_model(name, __config__=FORBID, __doc__=title[0].upper() + title[1:] + ".", **choices)
    result = annotate(model, WrapValidator(read))
    LAWS[name] = kinds, bare
    for part in (*bodies, model):  # again, now that `name` can mean the law and not only its spelt-out form
        part.model_rebuild(_types_namespace={name: result}, force=True)
    return result


def _read_csv_path(value: Any, info: ValidationInfo) -> str:
    """A path relative to the folder of the scenario, which the reader passes as its context."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the name of a CSV file, found {found(value)}")
    return str((info.context or {}).get("folder", Path()) / value)


csv_path = Annotated[
    Any,
    PlainValidator(_read_csv_path),
    WithJsonSchema({"type": "string", "description": "CSV file, relative to the scenario"}),
]


def column_of(path: str, column: str) -> tuple[float, ...]:
    """The numbers of a column of a CSV file, read once per state of the file. Raises ValueError."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return _column(path, column, 0, 0)
    return _column(path, column, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _column(path: str, column: str, changed: int, size: int) -> tuple[float, ...]:
    try:
        return distributions.read_column(path, column)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV file in UTF-8, found something else ({error})") from None


def _measured(first: str, given: Mapping[str, Any]) -> Any:
    """The values, or the column of the CSV file: one of the two."""
    if set(given) == {"csv", "column"}:
        return column_of(given["csv"], given["column"])
    if set(given) == {first}:
        return given[first]
    raise ValueError(f"expected either {first}, or csv and column, found {_listing(given)}")


def _empirical(**given: Any) -> distributions.Empirical:
    """Measured values: a list, or a column of a CSV file (SI units)."""
    return distributions.Empirical(_measured("values", given))


def _trace(**given: Any) -> arrivals.Trace:
    """Recorded times of arrivals: a list, or a column of a CSV file (seconds)."""
    return arrivals.Trace(_measured("at", given))


def _lognormal(**given: float) -> distributions.Lognormal:
    """Lognormal with mean and cv (sd / mean), or with median and p99."""
    names = set(given)
    if names == {"mean", "cv"}:
        return distributions.Lognormal(**given)
    if names == {"median", "p99"}:
        return distributions.Lognormal.from_median_p99(**given)
    raise ValueError(f"expected either mean and cv, or median and p99, found {_listing(given)}")


def _listing(names: Iterable[str]) -> str:
    return " and ".join(names) or "nothing"


def distribution(name: str, title: str, quantity: Quantity) -> Any:
    """The type of a distribution of that quantity."""
    example = f"{quantity.example} or {{exponential: {quantity.example}}}"
    done = tuple(distributions.KINDS.values())
    return law(name, title, example, distribution_kinds(quantity, name), "constant", done)


def distribution_kinds(quantity: Quantity, self: Any) -> dict[str, Kind]:
    """The kinds of distributions of that quantity; `self` is the type of what they are made of."""
    value, factor = measure(quantity), number(" > 0")
    return {
        "constant": Kind(distributions.Constant, {"value": value}, "value"),
        "exponential": Kind(distributions.Exponential, {"mean": value}, "value"),
        "uniform": Kind(distributions.Uniform, {"low": value, "high": value}, "each"),
        "normal": Kind(distributions.Normal, {"mean": value, "sd": value}),
        "lognormal": Kind(
            _lognormal,
            {"mean": value, "cv": number(), "median": value, "p99": value},
            may_lack=("mean", "cv", "median", "p99"),
        ),
        "gamma": Kind(distributions.Gamma, {"mean": value, "cv": number()}),
        "pareto": Kind(distributions.Pareto, {"minimum": value, "alpha": factor}),
        "empirical": Kind(
            _empirical,
            {"values": many(value), "csv": csv_path, "column": text},
            "list",
            may_lack=("values", "csv", "column"),
        ),
        "shifted": Kind(distributions.Shifted, {"offset": value, "distribution": self}),
        "mixture": Kind(
            distributions.Mixture,
            {"parts": many(pair(factor, self, "[0.9, 10 ms]"))},
            "list",
        ),
        "scaled": Kind(distributions.Scaled, {"factor": factor, "distribution": self}),
    }


DURATION = distribution("Duration", "a distribution of times", TIME)
VOLUME = distribution("Volume", "a distribution of sizes", SIZE)
SCHEDULE = law(
    "Schedule",
    "a distribution of times",
    f"{TIME.example} or {{exponential: {TIME.example}}}",
    {
        **distribution_kinds(TIME, DURATION),
        "schedule": Kind(
            distributions.Schedule,
            {"pieces": many(pair(measure(TIME), DURATION, "[5 min, 20 ms]"))},
            "list",
        ),
    },
    "constant",
    (*distributions.KINDS.values(), distributions.Schedule),
)

_RATE = measure(RATE, " > 0")
ARRIVALS = law(
    "Arrivals",
    "arrivals",
    "100/s or {deterministic: 100/s}",
    {
        "poisson": Kind(arrivals.Poisson, {"rate": _RATE}, "value"),
        "deterministic": Kind(arrivals.Deterministic, {"rate": _RATE}, "value"),
        "on_off": Kind(arrivals.OnOff, {"rate_on": _RATE, "on": DURATION, "off": DURATION}),
        "piecewise": Kind(
            arrivals.Piecewise,
            {
                "rates": many(pair(measure(TIME), measure(RATE), "[60 s, 500/s]")),
                "period": optional(measure(TIME)),
            },
            "list",
            may_lack=("period",),
        ),
        "trace": Kind(
            _trace,
            {"at": many(measure(TIME)), "csv": csv_path, "column": text},
            "list",
            may_lack=("at", "csv", "column"),
        ),
        "batches": Kind(arrivals.Batches, {"arrivals": "Arrivals", "size": whole()}),
        "closed_loop": Kind(
            arrivals.ClosedLoop,
            {"window": whole(), "think": optional(DURATION)},
            "value",
            may_lack=("think",),
        ),
    },
    "poisson",
    tuple(arrivals.KINDS.values()),
)
