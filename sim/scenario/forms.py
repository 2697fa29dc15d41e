"""The settings dataclasses of the house as forms that pydantic can read a piece of YAML into.

`form(Service, ConsumerClient)` has the fields of both, so that a client library's settings stand beside the
app's. What a field accepts follows from its annotation (see `sim.units`), its limits from `POSITIVE`,
`SIGNED` and its default.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, ValidationError, WrapValidator, create_model
from pydantic_core import ErrorDetails

from sim.distributions import Distribution, Schedule
from sim.scenario.dump import to_plain
from sim.scenario.errors import Path, found, nearest_or_all
from sim.scenario.hints import Hint, hints
from sim.scenario.laws import ARRIVALS, DURATION, FORBID, SCHEDULE, VOLUME, given, make
from sim.scenario.quantities import (
    Limit,
    annotate,
    by_name,
    choice,
    many,
    measure,
    number,
    optional,
    text,
    truth,
    whole,
)
from sim.units import SIZE

# Times, rates and factors that mean nothing at 0; other numbers may be 0.
POSITIVE = {
    *("timeout", "deadline", "ttl", "every", "mtbf", "mttr", "duration", "flush_interval", "ack_timeout"),
    *("rto_min", "rto_initial", "rto_max", "connect_timeout", "heartbeat", "reconnect", "reconnect_max"),
    *("bandwidth", "factor", "budget", "LossBursts.lasting"),
}
SIGNED = {"skew", "drift"}
# Other whole numbers start at 1, unless their default is 0.
COUNTS_FROM_ZERO = {"retries", "seed", "priorities", "consumer_priorities", "max_length", "delivery_limit"}


@cache
def form(*classes: type) -> type[BaseModel]:
    """A model with the fields of all the classes; which were written is in `model_fields_set`.

    Raises TypeError if two classes share a field name or a field has a type that YAML cannot hold.
    """
    fields: dict[str, Any] = {}
    for cls in classes:
        for field in dataclasses.fields(cls):
            if field.name in fields:
                raise TypeError(f"{field.name} is a field of two of {', '.join(c.__name__ for c in classes)}")
            fields[field.name] = (_type(cls, field), _default(field))
    doc = "\n\n".join(inspect.cleandoc(cls.__doc__ or "") for cls in classes)
    return create_model("".join(cls.__name__ for cls in classes), __config__=FORBID, __doc__=doc, **fields)


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default as it would be written; only editors read it, the value itself comes from the dataclass."""
    if field.default is not dataclasses.MISSING:
        return Field(default=to_plain(field.default))
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ...


def _type(cls: type, field: dataclasses.Field[Any]) -> Any:
    hint = hints(cls)[field.name]
    inner = _type_of(hint, cls, field)
    return optional(inner) if hint.is_optional else inner


def _type_of(hint: Hint, cls: type, field: dataclasses.Field[Any]) -> Any:
    is_positive = field.name in POSITIVE or f"{cls.__name__}.{field.name}" in POSITIVE
    limit: Limit = "" if field.name in SIGNED else " > 0" if is_positive else " >= 0"
    if hint.is_law:
        if field.name == "arrivals":
            return ARRIVALS
        if hint.type == Distribution | Schedule:
            return SCHEDULE
        return VOLUME if hint.quantity == SIZE else DURATION
    if hint.quantity is not None:
        return measure(hint.quantity, limit, whole=hint.type is int)
    minimum = 0 if field.default == 0 or field.name in COUNTS_FROM_ZERO else 1
    return _plain_type(hint.type, limit, minimum, f"{cls.__name__}.{field.name}")


def _plain_type(type_: Any, limit: Limit, minimum: int, where: str) -> Any:
    simple = {bool: truth, str: text, int: whole(minimum), float: number(limit), Any: Any, object: Any}
    if type_ in simple:
        return simple[type_]
    if dataclasses.is_dataclass(type_):
        return record(type_)  # type: ignore[arg-type]
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Literal:
        return choice(arguments)
    if origin is tuple and arguments[1:] == (...,):
        return annotate(many(_plain_type(arguments[0], limit, minimum, where)), AfterValidator(tuple))
    if origin in (dict, Mapping) and arguments[0] is str:
        return by_name(_plain_type(arguments[1], limit, minimum, where))
    raise TypeError(f"{where}: a scenario cannot hold {type_}")


@cache
def record(cls: type) -> Any:
    """The type of a mapping that becomes an instance of the dataclass; such an instance is taken as it is."""

    def read(value: Any, handler: Callable[[Any], BaseModel]) -> Any:
        return value if isinstance(value, cls) else make(cls, given(handler(value)))

    return annotate(form(cls), WrapValidator(read))


def read(
    classes: tuple[type, ...], raw: Any, folder: FilePath, report: Callable[[Path, str], None]
) -> tuple[dict[str, Any], ...] | None:
    """What `raw` gives for each of the classes, as keyword arguments; None if there is something to `report`.

    `folder` is where CSV files lie; `report(path within raw, text)` is called for each problem.
    """
    model = form(*classes)
    try:
        values = given(model.model_validate(raw, context={"folder": folder}))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        misspelt = {details["loc"][:-1] for details in errors if details["type"] == "extra_forbidden"}
        for details in errors:
            if details["type"] != "missing" or details["loc"][:-1] not in misspelt:  # one mistake, not two
                report(*_problem(model, details))
        return None
    return tuple({name: values[name] for name in hints(cls) if name in values} for cls in classes)


def _problem(model: type[BaseModel], details: ErrorDetails) -> tuple[Path, str]:
    """The path and the text of an error of pydantic."""
    path = tuple(str(part) for part in details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        valid = list(_model_at(model, path[:-1]).model_fields)
        return path, f"unknown field{nearest_or_all(path[-1], valid)}"
    if kind == "missing":
        return path[:-1], f"{path[-1]!r} is missing"
    if kind == "value_error":
        return path, str(details["ctx"]["error"])
    if kind == "model_type":
        names = list(_model_at(model, path).model_fields)
        listing = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
        return path, f"expected a mapping ({listing}), found {found(details['input'])}"
    expected = {"dict_type": "a mapping", "list_type": "a list", "tuple_type": "a list"}
    if kind in expected:
        return path, f"expected {expected[kind]}, found {found(details['input'])}"
    return path, details["msg"]


def _model_at(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel]:
    """The model that reads the value at `path`; an index or an entry's name leaves the model as it is."""
    for part in path:
        field = model.model_fields.get(part)
        if field is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
