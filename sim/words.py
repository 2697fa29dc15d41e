"""Words and numbers for people: how a figure is called, a value written, a row of a sweep named.

For the pictures and the report. Inside all is seconds, bytes and plain shares; here they get their units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME, Quantity


class Figure(NamedTuple):
    """A figure of the contract: its name for readers, what it counts or measures, its meaning."""

    label: str
    unit: str
    meaning: str


FIGURES: dict[str, Figure] = {
    "published": Figure(
        "published", "message", "messages the application owes, also while its producer is down"
    ),
    "confirmed": Figure("confirmed", "message", "the producer was told: stored"),
    "failed": Figure("failed", "message", "the producer was told: not stored"),
    "in_doubt": Figure("in doubt", "message", "the producer was told nothing"),
    "aborted": Figure("aborted", "pair", "their transaction was aborted; outside the books"),
    "expected": Figure("expected", "pair", "messages times the services that should process them"),
    "delivered": Figure("delivered", "delivery", "copies that arrived at a consumer"),
    "requeued": Figure("requeued", "delivery", "deliveries the broker took back"),
    "redelivered": Figure("redelivered", "delivery", "deliveries beyond the first of a pair"),
    "processed": Figure("processed", "delivery", "completed processings, also repeated ones"),
    "unique": Figure("processed once or more", "pair", "pairs processed at least once"),
    "duplicates": Figure("duplicates", "delivery", "further processings of the same pair"),
    "phantom": Figure("phantom", "delivery", "processings of what was never committed"),
    "lost": Figure("lost", "pair", "never processed and never will be, by no rule that says so"),
    "lost_confirmed": Figure(
        "lost though confirmed", "pair", "lost ones whose producer holds a confirmation"
    ),
    "dead_lettered": Figure("dead-lettered", "pair", "parked unprocessed in a dead-letter queue"),
    "expired": Figure("expired", "pair", "removed unprocessed by a rule of age, retention or trimming"),
    "rejected": Figure("rejected", "pair", "refused before storage, and the producer was told"),
    "in_flight": Figure("in flight", "pair", "not processed by the end, yet a copy is still on its way"),
    "out_of_order": Figure(
        "out of order", "pair", "started after a later message of the same producer and scope"
    ),
    "effects": Figure("effects", "effect", "committed to the consumer's database"),
    "duplicate_effects": Figure("duplicate effects", "effect", "effects beyond the first of a pair"),
    "lost_effects": Figure("lost effects", "effect", "pairs processed that have no effect"),
    "latency_mean": Figure(
        "mean latency", "time", "from intended creation to the first completed processing"
    ),
    "latency_p50": Figure("median latency", "time", "half of the pairs are faster"),
    "latency_p90": Figure("p90 latency", "time", "1 pair in 10 is slower"),
    "latency_p95": Figure("p95 latency", "time", "1 pair in 20 is slower"),
    "latency_p99": Figure("p99 latency", "time", "1 pair in 100 is slower"),
    "latency_p999": Figure("p99.9 latency", "time", "1 pair in 1,000 is slower"),
    "latency_max": Figure("maximum latency", "time", "the slowest pair"),
    "confirm_mean": Figure(
        "mean confirmation", "time", "from intended creation to the producer's confirmation"
    ),
    "confirm_p50": Figure("median confirmation", "time", "half of the confirmations come sooner"),
    "confirm_p99": Figure("p99 confirmation", "time", "1 confirmation in 100 comes later"),
    "confirm_max": Figure("maximum confirmation", "time", "the slowest confirmation"),
    "queue_wait_mean": Figure(
        "mean wait in the queue", "time", "from stored by the broker to first sent to a consumer"
    ),
    "transit_mean": Figure(
        "mean transit", "time", "from first sent by the broker to first delivered to a consumer"
    ),
    "prefetched_wait_mean": Figure(
        "mean wait in the consumer", "time", "from first delivered to the start of its processing"
    ),
    "throughput": Figure("throughput", "rate", "processings per second, repeated ones included"),
    "goodput": Figure("goodput", "rate", "pairs processed per second, each counted once"),
    "backlog_max": Figure("maximum backlog", "copy", "copies ready at the broker at the worst moment"),
    "backlog_mean": Figure("mean backlog", "copy", "copies ready at the broker, averaged over time"),
    "backlog_lasted": Figure(
        "longest backlog", "time", "longest time on end in which copies were ready at the broker"
    ),
    "prefetched_mean": Figure("mean prefetched", "copy", "delivered and not yet started, averaged over time"),
    "idle": Figure("idle", "share", "share of time in which no message is being processed"),
    "utilisation": Figure("utilisation", "share", "consumers' busy slots over slots that are up"),
    "requests": Figure("API requests", "request", "calls made to the broker's API"),
    "cost": Figure("cost", "money", "in US dollars, by the system's dated price table"),
}

# Counts that are read as a share of another count.
_OF_EXPECTED = (
    "lost lost_confirmed duplicates duplicate_effects lost_effects out_of_order redelivered "
    "dead_lettered expired rejected in_flight"
)
SHARE_OF = dict.fromkeys(_OF_EXPECTED.split(), "expected") | {
    "confirmed": "published",
    "failed": "published",
    "in_doubt": "published",
}


# Numbers.


def digits(value: float, significant: int = 3) -> str:
    """Rounded to so many significant digits, never in exponent form: 0.0000123, 12,300."""
    rounded = Decimal(f"{value:.{significant}g}")
    text = f"{rounded:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float) -> str:
    """A count, or a mean of counts with a decimal."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}".removesuffix(".0")


def compact(value: float) -> str:
    """A round number for an axis, short: 1,500, 200k, 3M."""
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(factor, 1e5):
            return f"{digits(value / factor, 4)}{suffix}"
    return digits(value, 6)


def share(value: float) -> str:
    """A share as per cent: 0.051 is 5.1%."""
    return f"{digits(100 * value)}%"


def time_scale(seconds: float) -> tuple[float, str]:
    """How many seconds the unit has in which this time is best read, and the unit."""
    for factor, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * factor or math.isclose(seconds, factor):
            return factor, unit
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor * (1 - 1e-9):
            return factor, unit
    return (1e-6, "µs") if seconds else (1.0, "s")


def duration(seconds: float) -> str:
    """A time with its unit: 12.3 ms."""
    factor, unit = time_scale(seconds)
    return f"{digits(seconds / factor)} {unit}"


def _in_unit(quantity: Quantity, units: Sequence[str], value: float) -> str:
    """In the largest of the units (largest first) in which the value is at least 1."""
    unit = next((u for u in units if abs(value) >= quantity.units[u]), units[-1])
    return f"{digits(value / quantity.units[unit])} {unit}"


def quantity(value: float, measures: Quantity | None) -> str:
    """A setting's value in the unit of what it measures."""
    if measures is TIME:
        return duration(value)
    if measures is SHARE:
        return share(value)
    if measures is RATE:
        return f"{digits(value)}/s"
    if measures is SIZE:
        binary = value >= 1024 and value % 1024 == 0
        return _in_unit(SIZE, ("GiB", "MiB", "KiB") if binary else ("GB", "MB", "kB", "B"), value)
    if measures is BANDWIDTH:
        return _in_unit(BANDWIDTH, ("GB/s", "MB/s", "kB/s", "B/s"), value)
    return digits(value, 6)


def figure_text(name: str, value: float | None, half_width: float | None = None) -> str:
    """A figure with its unit and, where there are replications, its 95 % half width: `12.3 ± 0.4 ms`."""
    if value is None:
        return "–"
    unit = FIGURES[name].unit if name in FIGURES else ""
    factor, suffix = 1.0, ""
    if unit == "time":
        factor, suffix = time_scale(value)
        suffix = f" {suffix}"
    elif unit == "share":
        factor, suffix = 0.01, "%"
    elif unit == "rate":
        suffix = "/s"
    elif unit == "money":
        suffix = " USD"
    scaled = value / factor
    if not half_width:
        text = digits(scaled) if suffix and abs(scaled) < 1000 else count(scaled)
        return f"{text}{suffix}"
    half = half_width / factor
    decimals = min(4, max(0, 1 - math.floor(math.log10(half))))
    return f"{scaled:,.{decimals}f} ± {half:,.{decimals}f}{suffix}"


# What a swept path measures.

_BESIDE_SETTINGS = {
    "duration": TIME,
    "warmup": TIME,
    "drain_limit": TIME,
    "arrivals": RATE,
    "rate": RATE,
    "rate_on": RATE,
    "on": TIME,
    "off": TIME,
    "think": TIME,
}
_PURE_NUMBERS = frozenset(("cv", "alpha", "weights", "factor", "window", "messages", "replications"))


_ANNOTATIONS = {
    "Seconds": TIME,
    "Bytes": SIZE,
    "PerSecond": RATE,
    "BytesPerSecond": BANDWIDTH,
    "Fraction": SHARE,
}


@cache
def _measured() -> dict[str, Quantity | None]:
    """Every setting's name to what it measures, by the annotations of the settings themselves."""
    from sim import apps, brokers, faults, network

    settings = [
        found
        for module in (apps, faults, network)
        for found in vars(module).values()
        if is_dataclass(found) and found.__module__ == module.__name__
    ]
    for name in brokers.NAMES:
        system = brokers.system(name)
        settings += [system.Channel, system.ProducerClient, system.ConsumerClient]
    measured: dict[str, Quantity | None] = {}
    for field in (field for kind in settings for field in fields(kind)):
        words = re.findall(r"\w+", str(field.type))
        found = next((_ANNOTATIONS[word] for word in words if word in _ANNOTATIONS), None)
        if "Distribution" in words:
            found = SIZE if field.name == "size" else TIME
        if found or field.name not in measured:
            measured[field.name] = found
    return measured | _BESIDE_SETTINGS


def measures(path: str) -> Quantity | None:
    """What the setting at a dotted path measures, or None for a pure number: `network.loss` is a share.

    Within a distribution (`service_time.exponential.mean`) the nearest setting above decides.
    """
    if path.endswith(("idempotence.size", "batches.size", "keys.skew")):
        return None
    for segment in reversed(path.split(".")):
        if segment in _PURE_NUMBERS:
            return None
        if segment in _measured():
            return _measured()[segment]
    return None


# Rows of a sweep.


@dataclass(frozen=True)
class Axis:
    """A swept path and its values in the order of the sweep; `zipped` paths vary together with it."""

    path: str
    name: str
    values: tuple[Any, ...]
    zipped: tuple[Axis, ...] = ()

    @property
    def is_numeric(self) -> bool:
        """Whether a curve may be drawn over it."""
        return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.values)

    def text(self, value: Any) -> str:
        """A value alone: `5%`."""
        if isinstance(value, bool):
            return "on" if value else "off"
        if value is None:
            return "none"
        if isinstance(value, (int, float)):
            return quantity(value, measures(self.path))
        return str(value)

    def label(self, value: Any) -> str:
        """A value that can stand alone: `loss 5%`, `at-least-once`."""
        alone = self.text(value)
        is_a_number_left_out = value == "none" and any(
            isinstance(other, (int, float)) for other in self.values
        )
        if not isinstance(value, str) or is_a_number_left_out:
            alone = f"{self.name} {alone}"
        partners = [other.label(other.values[self.values.index(value)]) for other in self.zipped]
        return ", ".join([alone, *partners])


def sweep_axes(params: Sequence[Mapping[str, Any]]) -> list[Axis]:
    """The paths that differ between rows. Paths whose values go together one to one are one axis."""
    varying: dict[str, list[Any]] = {}
    for path in params[0] if params else ():
        column = [row[path] for row in params]
        if any(value != column[0] for value in column):
            varying[path] = column
    names = short_names(varying)
    leaders: list[str] = []
    followers: dict[str, list[str]] = {}
    for path in varying:
        leader = next((first for first in leaders if _goes_with(varying[first], varying[path])), None)
        if leader is None:
            leaders.append(path)
        else:
            followers.setdefault(leader, []).append(path)
    axes = []
    for path in leaders:
        places = [varying[path].index(value) for value in _distinct(varying[path])]
        zipped = tuple(
            Axis(other, names[other], tuple(varying[other][i] for i in places))
            for other in followers.get(path, ())
        )
        axes.append(Axis(path, names[path], tuple(varying[path][i] for i in places), zipped))
    return axes


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """A path's last words, as many as it takes to tell it from the others: `network.loss` is "loss"."""
    paths = list(paths)
    names = {}
    for path in paths:
        segments = path.split(".")
        for depth in range(1, len(segments) + 1):
            tail = segments[-depth:]
            if sum(other.split(".")[-depth:] == tail for other in paths) == 1:
                break
        names[path] = " ".join(tail).replace("_", " ")
    return names


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _goes_with(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether each value of one always stands beside the same value of the other, both ways."""
    pairs = _distinct(list(zip(one, other, strict=True)))
    return len(pairs) == len(_distinct(one)) == len(_distinct(other))


def row_label(axes: Sequence[Axis], params: Mapping[str, Any]) -> str:
    """The name of a row among its like: `at-least-once, loss 5%`; empty if nothing is swept."""
    return ", ".join(axis.label(params[axis.path]) for axis in axes)
