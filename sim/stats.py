"""Intervals and other honest ways to speak of simulated figures.

Inputs are sequences of floats. `confidence` is the coverage of a two-sided interval; for k comparisons at
once use 1 - (1 - confidence) / k (Bonferroni). Every function raises ValueError for too few values or a
parameter out of range. A NaN among the values gives NaN. Sources: Law, Simulation Modeling and Analysis
(2015), here "Law"; others where they are used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, mean +- half_width, from n values."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def covers(self, value: float) -> bool:
        """Whether `value` lies in the interval; a difference is one only if its interval does not cover 0."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Bounds:
    """An estimate and the ends of its confidence interval, which need not be symmetric, from n values."""

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class BatchMeans:
    """A batch means interval, the lag-1 correlation of the batches, and whether that is near enough to 0."""

    interval: Interval
    correlation: float
    is_uncorrelated: bool


def _tails(confidence: float) -> float:
    """Return the upper point 1 - (1 - confidence) / 2."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence!r}")
    return (1 + confidence) / 2


def _at_least(count: int, values: Sequence[float], what: str) -> None:
    if len(values) < count:
        raise ValueError(f"{what} needs at least {count} values, found {len(values)}")


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(_tails(confidence))


def _t_quantile(confidence: float, degrees: int) -> float:
    from scipy.special import stdtrit  # type: ignore[import-untyped, unused-ignore]

    return float(stdtrit(degrees, _tails(confidence)))


def mean_ci(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student t interval of the mean of n >= 2 independent values: mean +- t_{n-1} s / sqrt(n)."""
    _at_least(2, values, "an interval")
    n, mean = len(values), fmean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, _t_quantile(confidence, n - 1) * math.sqrt(variance / n), n)


def paired_ci(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """t interval of the mean of first - second, pair by pair (common random numbers; Law, 10.2)."""
    if len(first) != len(second):
        raise ValueError(f"pairs need as many values on each side, found {len(first)} and {len(second)}")
    return mean_ci([a - b for a, b in zip(first, second, strict=True)], confidence)


def is_precise(interval: Interval, relative: float = 0.05, minimum: int = 10) -> bool:
    """Whether there are replications enough: at least `minimum`, half width <= g / (1 + g) |mean| (Law, 9.4).

    With g = `relative`, the relative error of the mean is then at most g with the interval's confidence.
    """
    if relative <= 0:
        raise ValueError(f"relative must be > 0, found {relative!r}")
    return interval.n >= minimum and interval.half_width <= relative / (1 + relative) * abs(interval.mean)


def wilson(events: int, trials: int, confidence: float = 0.95) -> Bounds:
    """Wilson score interval of a probability (Wilson 1927). A trial is what is independent of the others."""
    if trials < 1 or not 0 <= events <= trials:
        raise ValueError(f"wilson needs 0 <= events <= trials >= 1, found {events} events, {trials} trials")
    z = _normal_quantile(confidence)
    share = events / trials
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    centre, scale = share + z * z / (2 * trials), 1 + z * z / trials
    # at the ends the bound is exactly 0 or 1, which rounding would miss
    low = 0.0 if events == 0 else (centre - spread) / scale
    high = 1.0 if events == trials else (centre + spread) / scale
    return Bounds(share, low, high, trials)


def rule_of_three(trials: int) -> float:
    """95 % upper bound of a probability after no event in `trials` independent trials: 3 / n, at most 1."""
    if trials < 1:
        raise ValueError(f"trials must be >= 1, found {trials!r}")
    return min(1.0, 3 / trials)


def zero_events_bound(trials: int, confidence: float = 0.95) -> float:
    """Exact one-sided bound after 0 events in n trials: 1 - (1 - confidence)^(1/n) (Clopper-Pearson)."""
    _tails(confidence)
    if trials < 1:
        raise ValueError(f"trials must be >= 1, found {trials!r}")
    return -math.expm1(math.log1p(-confidence) / trials)


def quantile_ranks(n: int, p: float, confidence: float = 0.95) -> tuple[int, int]:
    """Ranks (1 is the smallest) of the order statistics that enclose the p-quantile of n independent values.

    floor(n p - z sqrt(n p (1 - p))) and ceil(n p + z sqrt(n p (1 - p))) + 1 (Conover, Practical Nonparametric
    Statistics, 3.2). A rank below 1 or above n means that n is too small for a bound on that side.
    """
    if n < 1 or not 0 < p < 1:
        raise ValueError(f"quantile ranks need n >= 1 and 0 < p < 1, found n = {n!r} and p = {p!r}")
    spread = _normal_quantile(confidence) * math.sqrt(n * p * (1 - p))
    return math.floor(n * p - spread), math.ceil(n * p + spread) + 1


def quantile_ci(values: Sequence[float], p: float, confidence: float = 0.95) -> Bounds:
    """The p-quantile of independent values (linear between neighbours) and its order statistics interval.

    An end that the sample is too small for is infinite. Delays within one run are correlated: there, take the
    quantile of each replication and `mean_ci` over them.
    """
    _at_least(1, values, "a quantile")
    ordered, n = sorted(values), len(values)
    low, high = quantile_ranks(n, p, confidence)
    position = p * (n - 1)
    below = int(position)
    above = min(below + 1, n - 1)
    estimate = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    return Bounds(
        estimate,
        ordered[low - 1] if low >= 1 else -math.inf,
        ordered[high - 1] if high <= n else math.inf,
        n,
    )


def mser5(values: Sequence[float]) -> int | None:
    """How many values to delete as warm-up, a multiple of 5; None if the run is too short to tell.

    Means of 5 Z_1 .. Z_k; delete the d of them that minimise sum_{i>d} (Z_i - mean_{>d})^2 / (k - d)^2, over
    d <= k - 5 since a handful of last means says nothing; too short when the best d > k / 2 (White 1997;
    Spratt 1998; Hoad & Robinson 2011). Use it on the average over replications.
    """
    _at_least(50, values, "mser5")
    means = [fmean(values[i : i + 5]) for i in range(0, len(values) - len(values) % 5, 5)]
    k = len(means)
    best, best_d = math.inf, 0
    mean, squares = 0.0, 0.0  # of the last `kept` means, by Welford's updates
    for kept, value in enumerate(reversed(means), start=1):
        delta = value - mean
        mean += delta / kept
        squares += delta * (value - mean)
        if kept >= 5 and squares / kept**2 <= best:  # <=: among equals, delete least
            best, best_d = squares / kept**2, k - kept
    return 5 * best_d if best_d <= k / 2 else None


def batch_means_ci(values: Sequence[float], batches: int = 20, confidence: float = 0.95) -> BatchMeans:
    """t interval from the means of equal batches of one long run, warm-up deleted before; n >= 2 batches.

    The batches must be long against the correlation time: C = 1 - sum (x_i - x_{i+1})^2 / (2 sum (x_i -
    mean)^2) estimates their lag-1 correlation, and they pass if it is not above its 95 % point without
    correlation, where its variance is (b - 2) / (b^2 - 1) (von Neumann 1941; Fishman 1978). Values that do
    not fill a batch are dropped from the front.
    """
    if batches < 10:
        raise ValueError(f"batches must be >= 10, found {batches!r}")
    _at_least(2 * batches, values, f"{batches} batches")
    size = len(values) // batches
    start = len(values) - size * batches
    means = [fmean(values[i : i + size]) for i in range(start, len(values), size)]
    interval = mean_ci(means, confidence)
    around = math.fsum((value - interval.mean) ** 2 for value in means)
    steps = math.fsum((a - b) ** 2 for a, b in pairwise(means))
    correlation = 1 - steps / (2 * around) if around > 0 else 0.0
    limit = NormalDist().inv_cdf(0.95) * math.sqrt((batches - 2) / (batches**2 - 1))
    return BatchMeans(interval, correlation, correlation <= limit)


def time_average(times: Sequence[float], values: Sequence[float], end: float) -> float:
    """Mean over [times[0], end] of a step function that is values[i] from times[i] (seconds) to the next."""
    _at_least(1, times, "a time average")
    if len(times) != len(values):
        raise ValueError(f"a time average needs a value per time, found {len(times)} and {len(values)}")
    if end <= times[0]:
        raise ValueError(f"end must be > the first time {times[0]!r}, found {end!r}")
    spans = [after - before for before, after in pairwise([*times, end])]
    if min(spans) < 0:
        raise ValueError("times must not decrease nor pass the end")
    return math.fsum(value * span for value, span in zip(values, spans, strict=True)) / (end - times[0])
