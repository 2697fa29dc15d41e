"""When messages come: arrival processes as frozen descriptions.

`times(rng)` yields the absolute times of the arrivals, in seconds from 0, never decreasing, maybe for ever.
They are drawn ahead in blocks, so `rng` must be a stream of its own; they do not depend on the size of the
blocks. Each random gap is one draw, so runs that share a stream and differ in rate see the same gaps,
stretched (common random numbers).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise, repeat
from os import PathLike
from typing import Protocol, runtime_checkable

import numpy as np

from sim.distributions import (
    Distribution,
    blockwise,
    check_count,
    check_distribution,
    check_number,
    check_numbers,
    read_column,
)


@runtime_checkable
class Arrivals(Protocol):
    """An open arrival process: it does not wait for anybody."""

    @property
    def mean_rate(self) -> float:
        """Arrivals per second in the long run; of a process that ends: expected arrivals / its end."""

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        """Yield the arrival times in seconds from 0, never decreasing; takes over `rng`."""


def _poisson_times(rate: float, rng: np.random.Generator) -> Iterator[float]:
    last = 0.0

    def block(size: int) -> list[float]:
        nonlocal last
        gaps = rng.exponential(1 / rate, size)
        gaps[0] += last  # inside the running sum, which so rounds alike whatever the block size
        times: list[float] = np.cumsum(gaps).tolist()
        last = times[-1]
        return times

    return blockwise(block)


@dataclass(frozen=True)
class Poisson:
    """Independent exponential gaps; `rate` in arrivals per second."""

    rate: float

    def __post_init__(self) -> None:
        check_numbers(self, "rate", above=0)

    @property
    def mean_rate(self) -> float:
        return self.rate

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        return _poisson_times(self.rate, rng)


@dataclass(frozen=True)
class Deterministic:
    """Equal gaps: arrival k = 1, 2, ... at k / rate seconds."""

    rate: float

    def __post_init__(self) -> None:
        check_numbers(self, "rate", above=0)

    @property
    def mean_rate(self) -> float:
        return self.rate

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        return (number / self.rate for number in count(1))


@dataclass(frozen=True)
class OnOff:
    """Bursts: Poisson with `rate_on` per second while on, silent while off; starts with an on period at 0.

    `on` and `off` are lengths of periods in seconds. Exponential ones make an interrupted Poisson process,
    Pareto ones with alpha between 1 and 2 long-range dependent traffic.
    """

    rate_on: float
    on: Distribution
    off: Distribution

    def __post_init__(self) -> None:
        check_numbers(self, "rate_on", above=0)
        for name, periods in (("on", self.on), ("off", self.off)):
            check_distribution(self, name, periods)
            check_number(f"OnOff: the mean of {name}", periods.mean, above=0)

    @property
    def mean_rate(self) -> float:
        return self.rate_on * self.on.mean / (self.on.mean + self.off.mean)

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        gaps, ons, offs = rng.spawn(3)
        on, off = self.on.draws(ons), self.off.draws(offs)
        busy, silent = on(), 0.0  # seconds on and off, up to the end of the current on period
        for on_time in _poisson_times(self.rate_on, gaps):
            while on_time > busy:
                silent += off()
                busy += on()
            yield on_time + silent


@dataclass(frozen=True)
class Piecewise:
    """Poisson whose rate is constant between the given starts: ((start, rate), ...), seconds and per second.

    Before the first start the rate is 0. The last rate stays for ever, unless `period` (seconds) repeats the
    whole. Exact: arrival k is where the integrated rate reaches the k-th point of a Poisson process of rate 1
    (time change; Çinlar, Introduction to Stochastic Processes, 1975). Nothing is thinned: one draw each.
    """

    rates: tuple[tuple[float, float], ...]
    period: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple((start, rate) for start, rate in self.rates))
        for start, rate in self.rates:
            check_number("Piecewise: each start", start)
            check_number("Piecewise: each rate", rate)
        starts = [start for start, _ in self.rates]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            raise ValueError(f"Piecewise: starts must increase, found {starts}")
        if not any(rate > 0 for _, rate in self.rates):
            raise ValueError("Piecewise: at least one rate must be > 0, found none")
        if self.period is not None:
            check_number("Piecewise: period", self.period, above=starts[-1])

    @property
    def mean_rate(self) -> float:
        last_start, last_rate = self.rates[-1]
        if self.period is None and last_rate > 0:
            return last_rate
        end = last_start if self.period is None else self.period
        return math.fsum(rate * (stop - start) for start, stop, rate in self._pieces(end)) / end

    def _pieces(self, end: float) -> Iterator[tuple[float, float, float]]:
        """Yield (start, stop, rate) of each piece with a rate > 0, the last one stopping at `end`."""
        stops = [start for start, _ in self.rates[1:]] + [end]
        for (start, rate), stop in zip(self.rates, stops, strict=True):
            if rate > 0:
                yield start, stop, rate

    def _all_pieces(self) -> Iterator[tuple[float, float, float]]:
        if self.period is None:
            yield from self._pieces(math.inf)
            return
        for cycle in count():
            base = cycle * self.period
            for start, stop, rate in self._pieces(self.period):
                yield base + start, base + stop, rate

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        pieces = self._all_pieces()
        start, stop, rate = next(pieces)
        level = 0.0  # integrated rate at `start`
        for target in _poisson_times(1.0, rng):
            while target > level + rate * (stop - start):
                level += rate * (stop - start)
                piece = next(pieces, None)
                if piece is None:
                    return
                start, stop, rate = piece
            yield min(start + (target - level) / rate, stop)  # min: rounding must not overtake the next piece


@dataclass(frozen=True)
class Trace:
    """Recorded arrival times, in seconds from the start of the run, in order."""

    at: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(self.at))
        if not self.at:
            raise ValueError("Trace: at must hold at least one time, found none")
        previous = 0.0
        for time in self.at:
            check_number("Trace: each time", time)
            if time < previous:
                raise ValueError(f"Trace: times must not decrease, found {time!r} after {previous!r}")
            previous = time

    @classmethod
    def from_csv(cls, path: str | PathLike[str], column: str) -> "Trace":
        """The times in one column of a CSV file with a header; ValueError as in `read_column`."""
        return cls(read_column(path, column))

    @property
    def mean_rate(self) -> float:
        return len(self.at) / self.at[-1] if self.at[-1] > 0 else math.inf

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        return map(float, self.at)


@dataclass(frozen=True)
class Batches:
    """Each arrival of another process brings `size` messages at once: its time is yielded `size` times."""

    arrivals: Arrivals
    size: int

    def __post_init__(self) -> None:
        check_count(self, "size")
        if not isinstance(self.arrivals, Arrivals):
            raise ValueError(f"Batches: arrivals must be an open arrival process, found {self.arrivals!r}")

    @property
    def mean_rate(self) -> float:
        return self.size * self.arrivals.mean_rate

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        return chain.from_iterable(repeat(time, self.size) for time in self.arrivals.times(rng))


@dataclass(frozen=True)
class ClosedLoop:
    """`window` clients that each send, wait for the answer, think, and send again. The producer plays it.

    `think` is in seconds; None sends again at once. There are no `times`: they depend on the answers.
    """

    window: int
    think: Distribution | None = None

    def __post_init__(self) -> None:
        check_count(self, "window")
        if self.think is not None:
            check_distribution(self, "think", self.think)


KINDS: dict[str, type[Arrivals] | type[ClosedLoop]] = {
    "poisson": Poisson,
    "deterministic": Deterministic,
    "on_off": OnOff,
    "piecewise": Piecewise,
    "trace": Trace,
    "batches": Batches,
    "closed_loop": ClosedLoop,
}
