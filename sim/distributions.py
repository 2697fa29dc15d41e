"""Random durations and sizes (non-negative floats) and random choices of a key (integers).

A distribution is a frozen description; `draws(rng)` turns it into a function that returns the next value.
Values are drawn ahead in blocks, so `rng` must belong to that one function (a named stream of its own). The
values do not depend on the size of the blocks.
Units are those of the parameters: seconds for durations, bytes for sizes.
"""

import csv
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import accumulate, chain, pairwise, repeat
from numbers import Integral, Real
from os import PathLike
from statistics import NormalDist
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

FIRST_BLOCK = 16  # values drawn at first; doubled up to BLOCK, so that 100 000 quiet components stay small
BLOCK = 1024

T = TypeVar("T")


@runtime_checkable
class Distribution(Protocol):
    """A law of non-negative numbers."""

    @property
    def mean(self) -> float:
        """Exact mean of the draws; `math.inf` when it does not exist."""

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        """Return a function that gives the next draw (>= 0); it takes over `rng`."""


class Choice(Protocol):
    """A law of the indices 0 .. n - 1 (which key, which partition)."""

    @property
    def n(self) -> int:
        """How many indices there are."""

    def draws(self, rng: np.random.Generator) -> Callable[[], int]:
        """Return a function that gives the next index; it takes over `rng`."""


def blockwise(draw: Callable[[int], list[T]]) -> Iterator[T]:
    """Yield for ever the values of `draw(size)`, called again for each block; its `__next__` is a C call."""

    def blocks() -> Iterator[list[T]]:
        size = FIRST_BLOCK
        while True:
            yield draw(size)
            size = min(2 * size, BLOCK)

    return chain.from_iterable(blocks())


def check_number(what: str, value: object, above: float | None = None) -> None:
    """Raise ValueError unless `value` is a finite number >= 0 (with `above`: greater than that)."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or (number < 0 if above is None else number <= above):
        wanted = ">= 0" if above is None else f"> {above:g}"
        raise ValueError(f"{what} must be a number {wanted}, found {value!r}")


def check_numbers(owner: object, *names: str, above: float | None = None) -> None:
    """`check_number` for the fields of those names."""
    for name in names:
        check_number(f"{type(owner).__name__}: {name}", getattr(owner, name), above)


def check_count(owner: object, name: str) -> None:
    """Raise ValueError unless that field is an integer >= 1."""
    value = getattr(owner, name)
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
        raise ValueError(f"{type(owner).__name__}: {name} must be a whole number >= 1, found {value!r}")


def check_distribution(owner: object, name: str, value: object) -> None:
    """Raise ValueError unless `value` is a distribution."""
    if not isinstance(value, Distribution):
        raise ValueError(f"{type(owner).__name__}: {name} must be a distribution, found {value!r}")


def read_column(path: str | PathLike[str], column: str) -> tuple[float, ...]:
    """Return the numbers of one named column of a CSV file with a header line.

    Raises ValueError for a file that cannot be read, an unknown column, or a cell that is not a number >= 0.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = list(rows.fieldnames or [])
            if column not in names:
                near = get_close_matches(column, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'no header'}"
                raise ValueError(f"{path}: no column {column!r}; {hint}")
            return tuple(_cell(row[column], f"{path}, line {rows.line_num}") for row in rows)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV file in UTF-8, found something else ({error})") from error


def _cell(text: str | None, place: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{place}: expected a number >= 0, found {text!r}")
    return value


@dataclass(frozen=True)
class Constant:
    """Always `value`."""

    value: float

    def __post_init__(self) -> None:
        check_numbers(self, "value")

    @property
    def mean(self) -> float:
        return self.value

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        return repeat(float(self.value)).__next__


@dataclass(frozen=True)
class Exponential:
    """Memoryless; the 99th percentile is 4.605 means."""

    mean: float

    def __post_init__(self) -> None:
        check_numbers(self, "mean", above=0)

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        return blockwise(lambda size: rng.exponential(self.mean, size).tolist()).__next__


@dataclass(frozen=True)
class Uniform:
    """Any value from `low` to `high` alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        check_numbers(self, "low", "high")
        if self.high < self.low:
            raise ValueError(f"Uniform: high must be >= low, found low {self.low!r} and high {self.high!r}")

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        return blockwise(lambda size: rng.uniform(self.low, self.high, size).tolist()).__next__


@dataclass(frozen=True)
class Normal:
    """Normal noise of standard deviation `sd`, truncated at 0 by drawing again.

    Truncation alone would raise the mean, so the bell sits where the draws have exactly the mean `mean`: with
    sd <= mean / 4 that is `mean` itself within 1e-4 of it. `sd` is that of the bell before truncation.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        check_numbers(self, "mean", above=0)
        check_numbers(self, "sd")
        if self.sd > self.mean:
            raise ValueError(f"Normal: sd must be <= mean {self.mean!r}, found {self.sd!r}; try gamma")

    @property
    def location(self) -> float:
        """Centre of the bell before truncation (the root of location + sd h(location / sd) = mean).

        h(t) = phi(t) / Phi(t): mean of a truncated normal, Johnson, Kotz & Balakrishnan, Continuous
        Univariate Distributions, chapter 13.
        """
        if self.sd == 0:
            return self.mean
        low, high = 0.0, self.mean / self.sd
        for _ in range(60):
            t = (low + high) / 2
            hazard = math.sqrt(2 / math.pi) * math.exp(-t * t / 2) / math.erfc(-t / math.sqrt(2))
            low, high = (t, high) if t + hazard < self.mean / self.sd else (low, t)
        return self.sd * (low + high) / 2

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        location = self.location

        def block(size: int) -> list[float]:
            values = rng.normal(location, self.sd, size)
            kept: list[float] = values[values >= 0].tolist()
            return kept

        return blockwise(block).__next__


@dataclass(frozen=True)
class Lognormal:
    """The usual law of service times and round trips: mean and coefficient of variation (sd / mean)."""

    mean: float
    cv: float

    def __post_init__(self) -> None:
        check_numbers(self, "mean", above=0)
        check_numbers(self, "cv")

    @classmethod
    def from_median_p99(cls, median: float, p99: float) -> "Lognormal":
        """The lognormal with that median and 99th percentile, p99 >= median > 0."""
        if not (0 < median <= p99 < math.inf):
            raise ValueError(f"Lognormal: p99 must be >= median > 0, found median {median!r} and p99 {p99!r}")
        sigma = math.log(p99 / median) / NormalDist().inv_cdf(0.99)
        return cls(median * math.exp(sigma**2 / 2), math.sqrt(math.expm1(sigma**2)))

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        variance = math.log1p(self.cv**2)
        mu, sigma = math.log(self.mean) - variance / 2, math.sqrt(variance)
        return blockwise(lambda size: rng.lognormal(mu, sigma, size).tolist()).__next__


@dataclass(frozen=True)
class Gamma:
    """Mean `mean` and coefficient of variation `cv`; cv = 1 / sqrt(k) is Erlang-k, cv = 0 a constant."""

    mean: float
    cv: float

    def __post_init__(self) -> None:
        check_numbers(self, "mean", above=0)
        check_numbers(self, "cv")

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        if self.cv == 0:
            return Constant(self.mean).draws(rng)
        shape, scale = 1 / self.cv**2, self.mean * self.cv**2
        return blockwise(lambda size: rng.gamma(shape, scale, size).tolist()).__next__


@dataclass(frozen=True)
class Pareto:
    """Classical Pareto (type I): P(X > x) = (minimum / x)^alpha for x >= minimum.

    The mean is infinite for alpha <= 1, the variance for alpha <= 2.
    """

    minimum: float
    alpha: float

    def __post_init__(self) -> None:
        check_numbers(self, "minimum", "alpha", above=0)

    @property
    def mean(self) -> float:
        return math.inf if self.alpha <= 1 else self.minimum * self.alpha / (self.alpha - 1)

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        # numpy's is the shifted one (Lomax): add 1 to have the classical
        return blockwise(lambda size: (self.minimum * (1 + rng.pareto(self.alpha, size))).tolist()).__next__


@dataclass(frozen=True)
class Empirical:
    """Measured values: the inverse of their distribution function, linear between neighbours.

    F(x_(i)) = (i - 1) / (n - 1) for the i-th smallest of n (Law, Simulation Modeling and Analysis, ch. 6).
    Draws stay between the smallest and the largest value. `values` are kept sorted.
    """

    values: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        for value in self.values:
            check_number("Empirical: each of values", value)
        if not self.values:
            raise ValueError("Empirical: values must hold at least one number, found none")
        object.__setattr__(self, "values", tuple(sorted(self.values)))

    @classmethod
    def from_csv(cls, path: str | PathLike[str], column: str) -> "Empirical":
        """The values of one column of a CSV file with a header; ValueError as in `read_column`."""
        return cls(read_column(path, column))

    @property
    def mean(self) -> float:
        if len(self.values) == 1:
            return self.values[0]
        ends = (self.values[0] + self.values[-1]) / 2
        return (math.fsum(self.values) - ends) / (len(self.values) - 1)

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        points = np.array(self.values, dtype=float)
        steps = np.append(np.diff(points), 0.0)

        def block(size: int) -> list[float]:
            position = rng.random(size) * (len(points) - 1)
            index = position.astype(np.intp)
            values: list[float] = (points[index] + (position - index) * steps[index]).tolist()
            return values

        return blockwise(block).__next__


@dataclass(frozen=True)
class Shifted:
    """A floor plus a random part, such as propagation plus jitter."""

    offset: float
    distribution: Distribution

    def __post_init__(self) -> None:
        check_numbers(self, "offset")
        check_distribution(self, "distribution", self.distribution)

    @property
    def mean(self) -> float:
        return self.offset + self.distribution.mean

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        draw, offset = self.distribution.draws(rng), self.offset
        return (offset + value for value in iter(draw, None)).__next__


@dataclass(frozen=True)
class Scaled:
    """`factor` times another distribution, such as a slow node."""

    factor: float
    distribution: Distribution

    def __post_init__(self) -> None:
        check_numbers(self, "factor", above=0)
        check_distribution(self, "distribution", self.distribution)

    @property
    def mean(self) -> float:
        return self.factor * self.distribution.mean

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        draw, factor = self.distribution.draws(rng), self.factor
        return (factor * value for value in iter(draw, None)).__next__


@dataclass(frozen=True)
class Mixture:
    """Each draw comes from one of several distributions, chosen in proportion to its weight."""

    parts: tuple[tuple[float, Distribution], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple((weight, law) for weight, law in self.parts))
        if not self.parts:
            raise ValueError("Mixture: parts must hold at least one (weight, distribution), found none")
        for weight, distribution in self.parts:
            check_distribution(self, "the law of each part", distribution)
            check_number("Mixture: each weight", weight, above=0)

    @property
    def mean(self) -> float:
        total = math.fsum(weight for weight, _ in self.parts)
        return math.fsum(weight * distribution.mean for weight, distribution in self.parts) / total

    def draws(self, rng: np.random.Generator) -> Callable[[], float]:
        # a stream of its own for the choice and for each part: shared, they would depend on the block size
        choosing, *streams = rng.spawn(1 + len(self.parts))
        table = _cumulative(weight for weight, _ in self.parts)
        parts = [part.draws(stream) for (_, part), stream in zip(self.parts, streams, strict=True)]
        which = blockwise(lambda size: choosing.random(size).tolist())
        return (parts[bisect_right(table, u)]() for u in which).__next__


@dataclass(frozen=True)
class Schedule:
    """A distribution that changes with time: each of `pieces` says from when on (s) which one holds, the first from 0.

    Not a distribution itself: who draws says when.
    """

    pieces: tuple[tuple[float, Distribution], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", tuple((start, law) for start, law in self.pieces))
        for start, distribution in self.pieces:
            check_number("Schedule: each time", start)
            check_distribution(self, "the law of each piece", distribution)
        starts = [start for start, _ in self.pieces]
        if not starts or starts[0] != 0:
            raise ValueError(
                f"Schedule: the first piece must begin at 0, found {starts[0] if starts else 'none'}"
            )
        if any(b <= a for a, b in pairwise(starts)):
            raise ValueError("Schedule: each piece must begin after the one before it")

    def draws(self, rng: np.random.Generator) -> Callable[[float], float]:
        """A function that gives the next draw at a time (s); it takes over `rng`."""
        starts = [start for start, _ in self.pieces]
        streams = rng.spawn(len(starts))
        laws = [law.draws(stream) for (_, law), stream in zip(self.pieces, streams, strict=True)]
        return lambda time: laws[bisect_right(starts, time) - 1]()


def _cumulative(weights: Iterable[float]) -> list[float]:
    """Cumulative shares; the last is exactly 1, so that bisect with u < 1 always finds an index."""
    sums = list(accumulate(weights))
    return [value / sums[-1] for value in sums]


def _by_table(table: Sequence[float], rng: np.random.Generator) -> Callable[[], int]:
    return blockwise(lambda size: [bisect_right(table, u) for u in rng.random(size).tolist()]).__next__


@lru_cache(maxsize=8)
def _zipf_table(n: int, s: float) -> list[float]:
    return _cumulative(math.pow(rank, -s) for rank in range(1, n + 1))


@dataclass(frozen=True)
class Zipf:
    """Index i with probability proportional to 1 / (i + 1)^s: index 0 is the hottest; s = 0 is uniform."""

    n: int
    s: float

    def __post_init__(self) -> None:
        check_count(self, "n")
        check_numbers(self, "s")

    def draws(self, rng: np.random.Generator) -> Callable[[], int]:
        return _by_table(_zipf_table(self.n, self.s), rng)


@dataclass(frozen=True)
class Weighted:
    """Index i with probability proportional to `weights[i]`."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for weight in self.weights:
            check_number("Weighted: each of weights", weight)
        if not any(weight > 0 for weight in self.weights):
            raise ValueError(f"Weighted: at least one of weights must be > 0, found {self.weights!r}")

    @property
    def n(self) -> int:
        return len(self.weights)

    def draws(self, rng: np.random.Generator) -> Callable[[], int]:
        return _by_table(_cumulative(self.weights), rng)


@dataclass(frozen=True)
class UniformInt:
    """Each index 0 .. n - 1 alike."""

    n: int

    def __post_init__(self) -> None:
        check_count(self, "n")

    def draws(self, rng: np.random.Generator) -> Callable[[], int]:
        return blockwise(lambda size: rng.integers(self.n, size=size).tolist()).__next__


KINDS: dict[str, type[Distribution]] = {
    "constant": Constant,
    "exponential": Exponential,
    "uniform": Uniform,
    "normal": Normal,
    "lognormal": Lognormal,
    "gamma": Gamma,
    "pareto": Pareto,
    "empirical": Empirical,
    "shifted": Shifted,
    "mixture": Mixture,
    "scaled": Scaled,
}

CHOICES: dict[str, type[Choice]] = {"zipf": Zipf, "weighted": Weighted, "uniform_int": UniformInt}
