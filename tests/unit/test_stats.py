"""Intervals, warm-up, batch means: worked values, exact coverage, and behaviour on processes of known law."""

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, t

from sim.stats import (
    Interval,
    batch_means_ci,
    is_precise,
    mean_ci,
    mser5,
    paired_ci,
    quantile_ci,
    quantile_ranks,
    rule_of_three,
    time_average,
    wilson,
    zero_events_bound,
)


def runs_covered(runs: int, p: float) -> float:
    """How far a count of Binomial(runs, p) strays with probability 1e-6 at most (4.9 sigma, normal limit)."""
    return 4.9 * math.sqrt(runs * p * (1 - p))


def autoregressive(n: int, phi: float, seed: int, start: float = 0.0) -> list[float]:
    """x_i = phi x_{i-1} + normal noise: mean 0, correlation phi^lag."""
    noise = np.random.default_rng(seed).normal(size=n).tolist()
    values, x = [], start
    for e in noise:
        x = phi * x + e
        values.append(x)
    return values


# --- means --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, quantile", [(10, 2.262), (20, 2.093), (30, 2.045)])
def test_mean_ci_has_the_worked_t_quantiles(n: int, quantile: float) -> None:
    values = [float(i) for i in range(n)]
    interval = mean_ci(values)
    assert interval.mean == (n - 1) / 2
    assert interval.n == n
    # the variance of 0 .. n - 1 is n (n + 1) / 12
    assert interval.half_width == pytest.approx(quantile * math.sqrt((n + 1) / 12), abs=5e-4 * math.sqrt(n))
    assert (interval.low, interval.high) == (
        interval.mean - interval.half_width,
        interval.mean + interval.half_width,
    )


def test_mean_ci_follows_the_confidence() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    exact = t.ppf(0.995, 3) * np.std(values, ddof=1) / 2
    assert mean_ci(values, 0.99).half_width == pytest.approx(exact, rel=1e-12)


def test_mean_ci_of_normal_data_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = sum(mean_ci(rng.normal(3, 2, 5).tolist(), 0.9).covers(3) for _ in range(2000))
    assert abs(hits - 1800) <= runs_covered(2000, 0.9)


def test_equal_values_have_no_width() -> None:
    assert mean_ci([0.1] * 7).half_width == pytest.approx(0, abs=1e-15)


def test_paired_ci_is_that_of_the_differences_and_narrower_under_common_noise() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 5, 20)
    a = (10 + noise).tolist()
    b = (9 + noise + rng.normal(0, 0.1, 20)).tolist()
    difference = paired_ci(a, b)
    assert difference == mean_ci([x - y for x, y in zip(a, b, strict=True)])
    assert not difference.covers(0) and difference.covers(1)
    assert difference.half_width < mean_ci(a).half_width / 10


@pytest.mark.parametrize(
    "half_width, n, precise",
    [(0.476, 10, True), (0.477, 10, False), (0.1, 9, False), (0.0, 10, True)],
)
def test_precision_stop_uses_the_adjusted_relative_error(half_width: float, n: int, precise: bool) -> None:
    assert is_precise(Interval(10.0, half_width, n)) is precise  # 5 %: 0.05 / 1.05 = 0.0476
    assert is_precise(Interval(-10.0, half_width, n)) is precise


# --- proportions --------------------------------------------------------------------------------------------


def test_wilson_worked_values() -> None:
    bounds = wilson(10, 100)
    assert (bounds.estimate, bounds.n) == (0.1, 100)
    assert (bounds.low, bounds.high) == pytest.approx((0.05523, 0.17437), abs=1e-5)
    assert wilson(90, 100).low == pytest.approx(1 - bounds.high)


def test_wilson_bounds_solve_their_equation() -> None:
    bounds = wilson(7, 50, 0.99)
    z = 2.5758293035489004
    for p in (bounds.low, bounds.high):  # (share - p)^2 = z^2 p (1 - p) / n
        assert (0.14 - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / 50, rel=1e-9)


def test_wilson_at_the_ends() -> None:
    none, every = wilson(0, 30), wilson(30, 30)
    assert none.low == 0 and 0 < none.high < 0.12
    assert every.high == 1 and every.low == pytest.approx(1 - none.high)


def test_zero_events() -> None:
    assert rule_of_three(1000) == 0.003
    assert rule_of_three(2) == 1
    # exact: the bound under which seeing nothing has probability 5 %
    assert (1 - zero_events_bound(50)) ** 50 == pytest.approx(0.05)
    for n in (10, 100, 10_000):
        assert 0.85 * rule_of_three(n) < zero_events_bound(n) < rule_of_three(n)


# --- quantiles ----------------------------------------------------------------------------------------------


def test_quantile_ranks_worked_values() -> None:
    assert quantile_ranks(10_000, 0.99) == (9880, 9921)
    assert quantile_ranks(1000, 0.99) == (983, 998)  # 990 - 6.17 rounded down, 990 + 6.17 rounded up, + 1
    assert quantile_ranks(100, 0.5) == (40, 61)


@pytest.mark.parametrize("n, p", [(1000, 0.99), (10_000, 0.99), (200, 0.5), (500, 0.95)])
def test_quantile_ranks_cover_as_often_as_they_say(n: int, p: float) -> None:
    low, high = quantile_ranks(n, p)
    # exact: X_(low) <= q < X_(high) iff low <= Binomial(n, p) < high
    coverage = binom.cdf(high - 1, n, p) - binom.cdf(low - 1, n, p)
    rounding = 3 * binom.pmf(int(n * p), n, p)  # outwards by less than 1 + 2 ranks
    assert 0.95 <= coverage <= 0.95 + rounding


def test_quantile_ci_takes_the_order_statistics() -> None:
    values = [float(i) for i in range(1, 1001)]
    np.random.default_rng(1).shuffle(values)
    bounds = quantile_ci(values, 0.99)
    assert (bounds.low, bounds.high, bounds.n) == (983, 998, 1000)
    assert bounds.estimate == pytest.approx(np.quantile(values, 0.99))


def test_quantile_ci_of_too_few_values_is_open() -> None:
    bounds = quantile_ci([1.0, 2.0, 3.0], 0.99)
    assert bounds.low == -math.inf or bounds.low in (1.0, 2.0, 3.0)
    assert bounds.high == math.inf
    assert quantile_ci([1.0, 2.0, 3.0], 0.01).low == -math.inf
    assert quantile_ci([4.0], 0.5).estimate == 4.0


# --- steady state -------------------------------------------------------------------------------------------


def mser5_by_definition(values: list[float]) -> int:
    means = np.reshape(values, (-1, 5)).mean(axis=1)
    k = len(means)
    scores = [np.sum((means[d:] - means[d:].mean()) ** 2) / (k - d) ** 2 for d in range(k - 4)]
    return 5 * int(np.argmin(scores))


def test_mser5_deletes_a_transient_and_little_else() -> None:
    transient = np.linspace(30, 0, 200).tolist()
    steady = np.random.default_rng(8).normal(size=1000).tolist()
    cut = mser5([x + y for x, y in zip(transient + [0.0] * 800, steady, strict=True)])
    assert cut is not None and 150 <= cut <= 250


@pytest.mark.parametrize("seed", range(5))
def test_mser5_minimises_its_statistic(seed: int) -> None:
    values = autoregressive(1000, 0.9, seed, start=40)
    expected = mser5_by_definition(values)
    assert expected <= 500
    assert mser5(values) == expected


def test_mser5_keeps_a_constant_series_and_ignores_the_ragged_end() -> None:
    assert mser5([2.5] * 100) == 0
    values = autoregressive(500, 0.5, 3, start=20)
    assert mser5([*values, 1e9, 1e9]) == mser5(values)


def test_mser5_says_when_the_run_is_too_short() -> None:
    assert mser5([float(i) for i in range(100)]) is None  # still growing at the end


def test_batch_means_pass_on_independent_and_fail_on_correlated_batches() -> None:
    independent = batch_means_ci(autoregressive(4000, 0, 1))
    assert independent.is_uncorrelated and independent.interval.n == 20
    assert independent.interval.covers(0)
    correlated = batch_means_ci(autoregressive(100, 0.95, 1))  # batches of 5, correlation time 40
    assert not correlated.is_uncorrelated
    assert correlated.correlation > 0.5


def test_batch_means_check_fails_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    fails = sum(not batch_means_ci(rng.normal(size=40).tolist()).is_uncorrelated for _ in range(2000))
    # the limit law is approximate for 20 batches: between 4 % and 6 % expected, plus 1e-6 noise
    assert 80 - runs_covered(2000, 0.04) <= fails <= 120 + runs_covered(2000, 0.06)


def test_batch_means_interval_covers_where_the_naive_one_does_not() -> None:
    runs = [autoregressive(6000, 0.9, seed) for seed in range(200)]
    hits = sum(batch_means_ci(run).interval.covers(0) for run in runs)
    naive = sum(mean_ci(run).covers(0) for run in runs)
    assert hits >= 190 - runs_covered(200, 0.95)  # batches of 300, correlation time 19
    # the naive half width is sqrt((1 - phi) / (1 + phi)) = 0.23 of the right one: it covers 35 % of the time
    assert abs(naive - 70) <= runs_covered(200, 0.35) + 5


def test_batch_means_use_every_value() -> None:
    values = autoregressive(200, 0, 6)
    interval = batch_means_ci(values).interval
    batches = np.reshape(values, (20, 10)).mean(axis=1)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.half_width == pytest.approx(mean_ci(batches.tolist()).half_width)


def test_batch_means_drop_what_does_not_fill_a_batch_from_the_front() -> None:
    values = autoregressive(200, 0, 6)
    assert batch_means_ci([1e9, 1e9, *values]) == batch_means_ci(values)


# --- step functions -----------------------------------------------------------------------------------------


def test_time_average_weighs_by_time() -> None:
    assert time_average([0, 1, 3], [0, 2, 5], 4) == (0 * 1 + 2 * 2 + 5 * 1) / 4
    assert time_average([10], [7], 12) == 7
    assert time_average([0, 2, 2], [1, 100, 3], 4) == 2  # what holds for no time does not count


# --- bad input and imports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mean_ci([1.0]), "an interval needs at least 2 values, found 1"),
        (lambda: mean_ci([1.0, 2.0], 95), "confidence must be between 0 and 1, found 95"),
        (lambda: paired_ci([1, 2], [1]), "pairs need as many values on each side, found 2 and 1"),
        (lambda: is_precise(Interval(1, 1, 10), 0), "relative must be > 0, found 0"),
        (lambda: wilson(5, 4), "wilson needs 0 <= events <= trials >= 1, found 5 events, 4 trials"),
        (lambda: rule_of_three(0), "trials must be >= 1, found 0"),
        (lambda: zero_events_bound(0), "trials must be >= 1, found 0"),
        (lambda: quantile_ranks(10, 1), "quantile ranks need n >= 1 and 0 < p < 1, found n = 10 and p = 1"),
        (lambda: quantile_ci([], 0.5), "a quantile needs at least 1 values, found 0"),
        (lambda: mser5([1.0] * 49), "mser5 needs at least 50 values, found 49"),
        (lambda: batch_means_ci([1.0] * 39), "20 batches needs at least 40 values, found 39"),
        (lambda: batch_means_ci([1.0] * 39, 5), "batches must be >= 10, found 5"),
        (lambda: time_average([], [], 1), "a time average needs at least 1 values, found 0"),
        (lambda: time_average([0, 1], [1], 2), "a time average needs a value per time, found 2 and 1"),
        (lambda: time_average([1], [1], 1), "end must be > the first time 1, found 1"),
        (lambda: time_average([0, 3], [1, 2], 2), "times must not decrease nor pass the end"),
    ],
)
def test_bad_input_is_one_clear_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_importing_these_modules_loads_nothing_heavy() -> None:
    code = (
        "import sys, sim.distributions, sim.arrivals, sim.theory, sim.stats;"
        "print([name for name in ('scipy', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
