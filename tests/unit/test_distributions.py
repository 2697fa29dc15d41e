"""Distributions: laws, means, independence of the block size, bad input."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammainc, ndtr

from sim import distributions
from sim.distributions import (
    CHOICES,
    KINDS,
    Choice,
    Constant,
    Distribution,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Scaled,
    Schedule,
    Shifted,
    Uniform,
    UniformInt,
    Weighted,
    Zipf,
)

N = 50_000
# Dvoretzky-Kiefer-Wolfowitz with Massart's constant: P(sup |F_n - F| > e) <= 2 exp(-2 n e^2) = 1e-6 per law
DKW = math.sqrt(math.log(2e6) / (2 * N))
SIGMAS = 4.9  # a normal variable exceeds this many sigma with probability 1e-6 (both sides)

Cdf = Callable[[np.ndarray], np.ndarray]


def lognormal_cdf(mean: float, cv: float) -> Cdf:
    sigma = math.sqrt(math.log(1 + cv**2))
    return lambda x: ndtr((np.log(x) - math.log(mean) + sigma**2 / 2) / sigma)


def truncated_normal_cdf(location: float, sd: float) -> Cdf:
    cut = ndtr(-location / sd)
    return lambda x: (ndtr((x - location) / sd) - cut) / (1 - cut)


# distribution, its distribution function, its variance
LAWS: dict[str, tuple[Distribution, Cdf, float]] = {
    "exponential": (Exponential(0.05), lambda x: 1 - np.exp(-x / 0.05), 0.05**2),
    "uniform": (Uniform(2, 5), lambda x: np.clip((x - 2) / 3, 0, 1), 9 / 12),
    "normal": (Normal(10, 2), lambda x: ndtr((x - 10) / 2), 4),
    "normal, cut": (Normal(1, 0.8), truncated_normal_cdf(Normal(1, 0.8).location, 0.8), 0.64),
    "lognormal": (Lognormal(0.05, 1), lognormal_cdf(0.05, 1), 0.05**2),
    "gamma": (Gamma(3, 0.5), lambda x: gammainc(4, x * 4 / 3), 1.5**2),
    "gamma, wide": (Gamma(1, 2), lambda x: gammainc(0.25, x / 4), 4),
    "pareto": (Pareto(2, 5), lambda x: 1 - (2 / x) ** 5, 4 * 5 / (16 * 3)),
    "empirical": (Empirical([4, 1, 2]), lambda x: np.interp(x, [1, 2, 4], [0, 0.5, 1]), 0.8),
    "shifted": (Shifted(0.01, Exponential(0.05)), lambda x: 1 - np.exp(-(x - 0.01) / 0.05), 0.05**2),
    "scaled": (Scaled(3, Exponential(2)), lambda x: 1 - np.exp(-x / 6), 36),
    "mixture": (
        Mixture(((3, Uniform(0, 1)), (1, Exponential(4)))),
        lambda x: 0.75 * np.clip(x, 0, 1) + 0.25 * (1 - np.exp(-x / 4)),
        0.75 / 3 + 0.25 * 32 - (0.375 + 1) ** 2,
    ),
}

EVERY: dict[str, Distribution] = {"constant": Constant(7)} | {name: law for name, (law, _, _) in LAWS.items()}
EVERY_CHOICE: dict[str, Choice] = {
    "zipf": Zipf(50, 1.1),
    "weighted": Weighted((0, 3, 1, 0)),
    "uniform_int": UniformInt(7),
}


def sample(law: Distribution | Choice, n: int = N, seed: int = 1) -> list[float]:
    draw = law.draws(np.random.default_rng(seed))
    return [draw() for _ in range(n)]


@pytest.mark.parametrize("name", LAWS)
def test_draws_follow_the_law(name: str) -> None:
    law, cdf, _ = LAWS[name]
    values = np.sort(sample(law))
    ranks = np.arange(N + 1) / N
    exact = cdf(values)
    assert max(np.max(ranks[1:] - exact), np.max(exact - ranks[:-1])) <= DKW


@pytest.mark.parametrize("name", LAWS)
def test_mean_is_that_of_the_draws(name: str) -> None:
    law, _, variance = LAWS[name]
    # central limit: fails with probability 1e-6; truncation only lowers the variance
    assert abs(np.mean(sample(law, seed=2)) - law.mean) <= SIGMAS * math.sqrt(variance / N)


@pytest.mark.parametrize("law", [*EVERY.values(), *EVERY_CHOICE.values()], ids=[*EVERY, *EVERY_CHOICE])
def test_draws_do_not_depend_on_the_block_size(
    law: Distribution | Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = sample(law, 3000)
    for size in (1, 7):
        monkeypatch.setattr(distributions, "FIRST_BLOCK", size)
        monkeypatch.setattr(distributions, "BLOCK", size)
        assert sample(law, 3000) == usual


@pytest.mark.parametrize("law", EVERY.values(), ids=EVERY)
def test_draws_are_plain_non_negative_floats_and_repeatable(law: Distribution) -> None:
    values = sample(law, 2000)
    assert {type(value) for value in values} == {float}
    assert min(values) >= 0
    assert values == sample(law, 2000)
    assert len(set(values)) == 1 if isinstance(law, Constant) else values != sample(law, 2000, seed=2)


def test_blocks_grow_to_the_limit_and_no_further() -> None:
    sizes: list[int] = []

    def draw(size: int) -> list[int]:
        sizes.append(size)
        return list(range(size))

    values: Iterator[int] = distributions.blockwise(draw)
    assert list(islice(values, 18)) == [*range(16), 0, 1]
    assert sizes == [16, 32]
    list(islice(values, 5000))
    assert max(sizes) == 1024


def test_registry_holds_every_kind_under_its_snake_case_name() -> None:
    assert {type(law) for law in EVERY.values()} == set(KINDS.values())
    assert {type(choice) for choice in EVERY_CHOICE.values()} == set(CHOICES.values())
    assert all(name == kind.__name__.lower() for name, kind in KINDS.items())


def test_every_kind_is_hashable_and_equal_by_value() -> None:
    for law in EVERY.values():
        assert hash(law) == hash(law)
    assert Mixture([[1, Constant(2)]]) == Mixture(((1, Constant(2)),))  # type: ignore[arg-type]
    assert Empirical([2, 1]) == Empirical((1, 2))


# --- single kinds -------------------------------------------------------------------------------------------


def test_lognormal_has_the_worked_values_of_median_and_p99() -> None:
    for mean, cv, median, p99 in [(0.050, 1, 0.0354, 0.245), (0.001, 0.5, 0.000894, 0.00268)]:
        law = Lognormal.from_median_p99(median, p99)
        assert law.mean == pytest.approx(mean, rel=5e-3)
        assert law.cv == pytest.approx(cv, rel=1e-2)


def test_lognormal_from_median_and_p99_has_them_exactly() -> None:
    law = Lognormal.from_median_p99(0.02, 0.3)
    cdf = lognormal_cdf(law.mean, law.cv)
    assert cdf(np.array([0.02, 0.3])) == pytest.approx([0.5, 0.99], rel=1e-12)


@pytest.mark.parametrize("law", [Lognormal(3, 0), Gamma(3, 0), Normal(3, 0), Uniform(3, 3), Empirical([3])])
def test_no_spread_is_a_constant(law: Distribution) -> None:
    assert sample(law, 100) == pytest.approx([3.0] * 100, rel=1e-15)
    assert law.mean == 3


def test_pareto_has_the_worked_values_and_infinite_means() -> None:
    law = Pareto(1, 2.5)
    assert law.mean == pytest.approx(1.667, abs=5e-4)
    tail = sorted(sample(law, 200_000))
    assert min(tail) >= 1
    for p, quantile in [(0.99, 6.31), (0.999, 15.8)]:
        below = np.searchsorted(tail, quantile) / 200_000
        # binomial, fails with probability 1e-6; 2e-5 for the rounding of the worked values
        assert abs(below - p) <= SIGMAS * math.sqrt(p * (1 - p) / 200_000) + 2e-5
    assert Pareto(1, 1).mean == math.inf
    assert Shifted(1, Scaled(2, Pareto(1, 0.9))).mean == math.inf
    assert Mixture(((1, Constant(1)), (1, Pareto(1, 1)))).mean == math.inf


def test_normal_is_cut_at_zero_and_keeps_its_mean() -> None:
    assert Normal(10, 2).location == pytest.approx(10, rel=1e-6)  # the cut is 5 sd away
    assert Normal(4, 1).location == pytest.approx(4, rel=1e-4)
    wide = Normal(1, 1)
    t = wide.location
    hazard = math.exp(-t * t / 2) / math.sqrt(2 * math.pi) / float(ndtr(t))
    assert t + hazard == pytest.approx(1, rel=1e-12)
    assert t < 1


def test_empirical_stays_within_its_values() -> None:
    values = sample(Empirical([5, 1, 1, 9]), 2000)
    assert min(values) >= 1 and max(values) <= 9
    assert Empirical([5, 1, 1, 9]).mean == pytest.approx((1 + 3 + 7) / 3)


def test_a_part_of_a_mixture_draws_alike_whatever_the_others_are() -> None:
    def of_first_part(other: Distribution) -> list[float]:
        return [x for x in sample(Mixture(((1, Uniform(0, 1)), (1, other))), 500) if x < 1]

    assert of_first_part(Constant(5)) == of_first_part(Shifted(1, Gamma(3, 2)))


@pytest.mark.parametrize(
    "choice, shares",
    [
        (Zipf(4, 1), [12 / 25, 6 / 25, 4 / 25, 3 / 25]),
        (Zipf(3, 0), [1 / 3] * 3),
        (UniformInt(5), [0.2] * 5),
        (Weighted((0, 3, 1, 0)), [0, 0.75, 0.25, 0]),
    ],
)
def test_choices_have_their_shares(choice: Choice, shares: list[float]) -> None:
    indices = sample(choice)
    assert {type(index) for index in indices} == {int}
    assert choice.n == len(shares)
    counts = np.bincount(np.array(indices, dtype=int), minlength=choice.n) / N
    for count, share in zip(counts, shares, strict=True):  # binomial: 1e-6 each
        assert abs(count - share) <= SIGMAS * math.sqrt(share * (1 - share) / N)


def test_zipf_worked_share_of_the_hottest_key() -> None:
    share = sample(Zipf(1000, 1)).count(0) / N
    assert abs(share - 0.1336) <= SIGMAS * math.sqrt(0.1336 * 0.8664 / N) + 5e-5


# --- files and bad input ------------------------------------------------------------------------------------


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("host,latency\na,0.5\nb,0.1\nc,0.2\n", encoding="utf-8")
    return path


def test_empirical_reads_a_column(csv_file: Path) -> None:
    assert Empirical.from_csv(csv_file, "latency") == Empirical([0.1, 0.2, 0.5])


def test_bad_files_are_one_clear_line(csv_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'latencie'; did you mean 'latency'\?$"):
        Empirical.from_csv(csv_file, "latencie")
    with pytest.raises(ValueError, match=r"no column 'xyz'; it has host, latency$"):
        Empirical.from_csv(csv_file, "xyz")
    with pytest.raises(ValueError, match=r"trace\.csv, line 2: expected a number >= 0, found 'a'$"):
        Empirical.from_csv(csv_file, "host")
    with pytest.raises(ValueError, match=r"none\.csv: cannot be read \(No such file or directory\)$"):
        Empirical.from_csv(tmp_path / "none.csv", "latency")
    (tmp_path / "binary.csv").write_bytes(b"latency\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"binary\.csv: expected a CSV file in UTF-8"):
        Empirical.from_csv(tmp_path / "binary.csv", "latency")
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"short\.csv, line 3: expected a number >= 0, found None$"):
        Empirical.from_csv(tmp_path / "short.csv", "b")
    (tmp_path / "empty.csv").write_text("latency\n", encoding="utf-8")
    with pytest.raises(ValueError, match="at least one number, found none"):
        Empirical.from_csv(tmp_path / "empty.csv", "latency")


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Constant(-1), "Constant: value must be a number >= 0, found -1"),
        (lambda: Constant(math.inf), "Constant: value must be a number >= 0, found inf"),
        (lambda: Exponential(0), "Exponential: mean must be a number > 0, found 0"),
        (lambda: Exponential(math.nan), "Exponential: mean must be a number > 0, found nan"),
        (lambda: Exponential("5"), "Exponential: mean must be a number > 0, found '5'"),
        (lambda: Exponential(True), "Exponential: mean must be a number > 0, found True"),
        (lambda: Uniform(2, 1), "Uniform: high must be >= low, found low 2 and high 1"),
        (lambda: Normal(1, 2), "Normal: sd must be <= mean 1, found 2; try gamma"),
        (lambda: Lognormal(1, -0.5), "Lognormal: cv must be a number >= 0, found -0.5"),
        (
            lambda: Lognormal.from_median_p99(2, 1),
            "Lognormal: p99 must be >= median > 0, found median 2 and p99 1",
        ),
        (lambda: Gamma(0, 1), "Gamma: mean must be a number > 0, found 0"),
        (lambda: Pareto(1, 0), "Pareto: alpha must be a number > 0, found 0"),
        (lambda: Empirical([]), "Empirical: values must hold at least one number, found none"),
        (lambda: Empirical([1, -2]), "Empirical: each of values must be a number >= 0, found -2"),
        (lambda: Shifted(-1, Constant(1)), "Shifted: offset must be a number >= 0, found -1"),
        (lambda: Shifted(1, 5), "Shifted: distribution must be a distribution, found 5"),
        (lambda: Scaled(0, Constant(1)), "Scaled: factor must be a number > 0, found 0"),
        (lambda: Mixture(()), "Mixture: parts must hold at least one (weight, distribution), found none"),
        (lambda: Mixture(((0, Constant(1)),)), "Mixture: each weight must be a number > 0, found 0"),
        (lambda: Mixture(((1, 3),)), "Mixture: the law of each part must be a distribution, found 3"),
        (lambda: Zipf(0, 1), "Zipf: n must be a whole number >= 1, found 0"),
        (lambda: Zipf(10, -1), "Zipf: s must be a number >= 0, found -1"),
        (lambda: UniformInt(2.5), "UniformInt: n must be a whole number >= 1, found 2.5"),
        (lambda: Weighted((1, -1)), "Weighted: each of weights must be a number >= 0, found -1"),
        (lambda: Weighted((0, 0)), "Weighted: at least one of weights must be > 0, found (0, 0)"),
    ],
)
def test_bad_parameters_are_one_clear_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build()
    assert str(caught.value) == message


def test_a_schedule_draws_from_the_law_of_the_time() -> None:
    schedule = Schedule(((0.0, Constant(1.0)), (10.0, Exponential(5.0)), (20.0, Constant(3.0))))
    draw = schedule.draws(np.random.default_rng(1))
    assert [draw(time) for time in (0.0, 9.99, 20.0, 1e9, 5.0)] == [1.0, 1.0, 3.0, 3.0, 1.0]
    values = [draw(10.0) for _ in range(10_000)]
    assert sum(values) / len(values) == pytest.approx(5.0, rel=SIGMAS / 100)
