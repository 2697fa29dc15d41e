"""Arrival processes: counts, exactness, common random numbers, independence of the block size, bad input."""

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice, pairwise, takewhile
from pathlib import Path

import numpy as np
import pytest

from sim import distributions
from sim.arrivals import (
    KINDS,
    Arrivals,
    Batches,
    ClosedLoop,
    Deterministic,
    OnOff,
    Piecewise,
    Poisson,
    Trace,
)
from sim.distributions import Constant, Exponential, Pareto

SIGMAS = 4.9  # a normal variable exceeds this many sigma with probability 1e-6 (both sides)
RAMP = Piecewise(((0, 10), (5, 0), (8, 40)))
DAY = Piecewise(((1, 20), (3, 0), (4, 60)), period=10)

EVERY: dict[str, Arrivals] = {
    "poisson": Poisson(100),
    "deterministic": Deterministic(3),
    "on_off": OnOff(50, Exponential(0.5), Pareto(0.1, 1.5)),
    "piecewise": RAMP,
    "piecewise, periodic": DAY,
    "trace": Trace((0.5, 0.5, 2)),
    "batches": Batches(Poisson(5), 3),
}


def times(process: Arrivals, n: int = 3000, seed: int = 1) -> list[float]:
    return list(islice(process.times(np.random.default_rng(seed)), n))


def until(process: Arrivals, end: float, seed: int = 1) -> list[float]:
    return list(takewhile(lambda t: t < end, process.times(np.random.default_rng(seed))))


def assert_poisson_count(count: int, mean: float) -> None:
    """Holds with probability 1 - 1e-6 (normal limit of the Poisson law; the means used are 400 and more)."""
    assert abs(count - mean) <= SIGMAS * math.sqrt(mean)


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_times_never_decrease_and_are_plain_floats(process: Arrivals) -> None:
    values = times(process)
    assert min(values) >= 0
    assert all(earlier <= later for earlier, later in pairwise(values))
    assert {type(value) for value in values} == {float}
    assert values == times(process)


@pytest.mark.parametrize("process", EVERY.values(), ids=EVERY)
def test_times_do_not_depend_on_the_block_size(process: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = times(process)
    for size in (1, 7):
        monkeypatch.setattr(distributions, "FIRST_BLOCK", size)
        monkeypatch.setattr(distributions, "BLOCK", size)
        assert times(process) == usual


def test_registry_holds_every_kind_under_its_snake_case_name() -> None:
    assert {type(process) for process in EVERY.values()} | {ClosedLoop} == set(KINDS.values())
    for name, kind in KINDS.items():
        assert name.replace("_", "") == kind.__name__.lower()


def test_poisson_counts_and_gaps() -> None:
    process = Poisson(200)
    assert process.mean_rate == 200
    values = until(process, 100)
    assert_poisson_count(len(values), 20_000)
    gaps = np.sort(np.diff([0.0, *values]))
    # Dvoretzky-Kiefer-Wolfowitz: fails with probability 1e-6
    distance = math.sqrt(math.log(2e6) / (2 * len(gaps)))
    exact = 1 - np.exp(-200 * gaps)
    assert np.max(np.abs(exact - np.arange(1, len(gaps) + 1) / len(gaps))) <= distance + 1 / len(gaps)


def test_poisson_of_another_rate_has_the_same_gaps_stretched() -> None:
    slow, fast = times(Poisson(10)), times(Poisson(40))
    assert slow == pytest.approx([4 * t for t in fast], rel=1e-12)


def test_deterministic_is_k_over_rate_without_drift() -> None:
    values = times(Deterministic(10), 100_000)
    assert values[:3] == [0.1, 0.2, 0.3]
    assert values[-1] == 10_000


@pytest.mark.parametrize("rate", [10, 0.2])  # many per burst; most bursts empty
def test_on_off_is_silent_while_off(rate: float) -> None:
    process = OnOff(rate, Constant(1), Constant(3))
    assert process.mean_rate == rate / 4
    values = until(process, 8000)
    assert all(t % 4 <= 1 for t in values)  # on in [0, 1), off until 4, and so on
    assert_poisson_count(len(values), rate * 2000)


def test_on_off_counts_follow_its_mean_rate() -> None:
    on, off, rate, end = 0.5, 1.5, 40, 20_000
    process = OnOff(rate, Exponential(on), Exponential(off))
    assert process.mean_rate == 10
    # time on in [0, T] has asymptotic variance 2 T on^2 off^2 / (on + off)^3 (alternating renewal; Cox 1962);
    # the count adds the Poisson variance. Starting on adds off * share of a second at most. Fails with 1e-6.
    variance = rate**2 * 2 * end * on**2 * off**2 / (on + off) ** 3 + process.mean_rate * end
    assert abs(len(until(process, end)) - 10 * end) <= SIGMAS * math.sqrt(variance) + rate * off


def test_on_off_keeps_its_periods_when_the_rate_changes() -> None:
    def first_after_silence(rate: float) -> list[int]:
        values = until(OnOff(rate, Exponential(1), Constant(50)), 2000)
        return [round(later / 50) for earlier, later in pairwise(values) if later - earlier > 40]

    assert first_after_silence(200) == first_after_silence(400)
    assert len(first_after_silence(200)) > 30


def integrated(process: Piecewise, t: float) -> float:
    """Expected arrivals up to t, by adding up pieces."""
    period = process.period or math.inf
    stops = [start for start, _ in process.rates[1:]] + [period]
    pieces = [(start, stop, rate) for (start, rate), stop in zip(process.rates, stops, strict=True)]
    cycles = 0 if period == math.inf else int(t // period)
    whole = cycles * sum(rate * (stop - start) for start, stop, rate in pieces) if cycles else 0.0
    rest = t - cycles * period if cycles else t
    return whole + sum(rate * (min(stop, rest) - start) for start, stop, rate in pieces if rest > start)


@pytest.mark.parametrize("process", [RAMP, DAY])
def test_piecewise_counts_match_the_integrated_rate(process: Piecewise) -> None:
    runs = [until(process, 20, seed) for seed in range(40)]
    windows = [(0, 1), (1, 3), (3, 4), (4, 6), (5, 8), (8, 12), (12, 20)]
    for low, high in windows:
        count = sum(bisect_left(run, high) - bisect_left(run, low) for run in runs)
        mean = 40 * (integrated(process, high) - integrated(process, low))
        if mean == 0:
            assert count == 0
        else:
            assert_poisson_count(count, mean)


@pytest.mark.parametrize("process", [RAMP, DAY])
def test_piecewise_is_a_unit_poisson_process_on_the_clock_of_its_rate(process: Piecewise) -> None:
    levels = [integrated(process, t) for t in times(process, 2000)]
    assert levels == pytest.approx(times(Poisson(1), 2000), rel=1e-9)


def test_piecewise_of_one_rate_is_poisson() -> None:
    assert times(Piecewise(((0, 50),))) == pytest.approx(times(Poisson(50)), rel=1e-12)
    assert times(Piecewise(((0, 50),), period=3)) == pytest.approx(times(Poisson(50)), rel=1e-9)


def test_piecewise_ends_when_its_last_rate_is_zero() -> None:
    process = Piecewise(((0, 100), (10, 0)))
    values = list(process.times(np.random.default_rng(3)))
    assert max(values) <= 10
    assert_poisson_count(len(values), 1000)
    assert process.mean_rate == 100


def test_piecewise_mean_rate() -> None:
    assert RAMP.mean_rate == 40  # the last rate stays
    assert DAY.mean_rate == pytest.approx((2 * 20 + 6 * 60) / 10)
    assert Piecewise(((0, 10), (5, 50), (6, 0))).mean_rate == pytest.approx(100 / 6)


def test_trace_plays_back_and_ends() -> None:
    process = Trace([0, 0.5, 0.5, 2])
    assert times(process) == [0, 0.5, 0.5, 2]
    assert process.mean_rate == 2
    assert Trace([0]).mean_rate == math.inf


def test_trace_reads_a_column(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("at,size\n0.25,10\n1.5,20\n", encoding="utf-8")
    assert times(Trace.from_csv(path, "at")) == [0.25, 1.5]
    path.write_text("at,size\n1.5,10\n0.25,20\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Trace: times must not decrease, found 0\.25 after 1\.5$"):
        Trace.from_csv(path, "at")


def test_batches_repeat_each_time() -> None:
    process = Batches(Poisson(5), 3)
    assert process.mean_rate == 15
    assert times(process, 300) == [t for t in times(Poisson(5), 100) for _ in range(3)]


def test_a_closed_loop_has_no_times() -> None:
    assert not isinstance(ClosedLoop(5), Arrivals)
    assert ClosedLoop(5, Constant(1)).window == 5


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Poisson(0), "Poisson: rate must be a number > 0, found 0"),
        (lambda: Deterministic(-1), "Deterministic: rate must be a number > 0, found -1"),
        (lambda: OnOff(1, Constant(0), Constant(1)), "OnOff: the mean of on must be a number > 0, found 0"),
        (
            lambda: OnOff(1, Constant(1), Pareto(1, 1)),
            "OnOff: the mean of off must be a number > 0, found inf",
        ),
        (lambda: OnOff(1, 2, Constant(1)), "OnOff: on must be a distribution, found 2"),
        (lambda: Piecewise(((0, 1), (0, 2))), "Piecewise: starts must increase, found [0, 0]"),
        (lambda: Piecewise(((0, -1),)), "Piecewise: each rate must be a number >= 0, found -1"),
        (lambda: Piecewise(((0, 0),)), "Piecewise: at least one rate must be > 0, found none"),
        (lambda: Piecewise(()), "Piecewise: at least one rate must be > 0, found none"),
        (
            lambda: Piecewise(((0, 1), (5, 2)), period=5),
            "Piecewise: period must be a number > 5, found 5",
        ),
        (lambda: Trace(()), "Trace: at must hold at least one time, found none"),
        (lambda: Trace((2, 1)), "Trace: times must not decrease, found 1 after 2"),
        (lambda: Trace((-1,)), "Trace: each time must be a number >= 0, found -1"),
        (lambda: Batches(Poisson(1), 0), "Batches: size must be a whole number >= 1, found 0"),
        (
            lambda: Batches(ClosedLoop(1), 2),
            "Batches: arrivals must be an open arrival process, found ClosedLoop(window=1, think=None)",
        ),
        (lambda: ClosedLoop(0), "ClosedLoop: window must be a whole number >= 1, found 0"),
        (lambda: ClosedLoop(1, 3), "ClosedLoop: think must be a distribution, found 3"),
    ],
)
def test_bad_parameters_are_one_clear_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build()
    assert str(caught.value) == message
