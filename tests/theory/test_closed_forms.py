"""The closed forms: their worked values, their limits, and independent solutions of the same models."""

import math
from collections.abc import Callable
from dataclasses import astuple
from itertools import product

import numpy as np
import pytest

from sim.theory import (
    Outage,
    Queue,
    Retransmission,
    batch_mm1,
    break_probability,
    erlang_b,
    erlang_c,
    exponential_max_mean,
    in_doubt_applied_share,
    inversion_probability,
    kingman_approximation,
    kingman_bound,
    little,
    md1,
    mg1,
    mm1,
    mm1_breakdowns,
    mm1_breakdowns_serving,
    mm1_sojourn_cdf,
    mm1_sojourn_quantile,
    mm1k,
    mmc,
    mmck,
    outage_backlog,
    priority_mm1,
    retransmissions,
    single_attempt_loss,
    tandem,
    tcp_rto_delay,
    tcp_rto_extra,
    zipf_hottest_share,
)


def near(value: float | list[float]) -> object:
    """Equal to a worked value printed with five significant digits or more."""
    return pytest.approx(value, rel=1e-5)


# --- worked values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "queue, expected",
    [
        (mm1(0.5, 1), {"W": 2, "L": 1, "W_q": 1, "L_q": 0.5, "rho": 0.5}),
        (mm1(80, 100), {"W": 0.05, "L": 4, "W_q": 0.04, "rho": 0.8}),
        (mm1(0.9, 1), {"W": 10, "L": 9}),
        (mmc(1.5, 1, 2), {"W_q": 1.28571, "L_q": 1.92857, "W": 2.28571, "rho": 0.75}),
        (mmc(4, 1, 5), {"W_q": 0.55411, "L_q": 2.21645, "L": 6.21645, "rho": 0.8}),
        (mmck(1.5, 1, 2, 5), {"loss": 0.085114, "L": 2.00595, "W": 1.46172, "rho": 0.75}),
        (mm1k(0.8, 1, 10), {"loss": 0.023493, "L": 2.96631, "W": 3.79710, "rho": 0.8}),
        (md1(0.5, 1), {"W_q": 0.5, "W": 1.5, "L": 0.75}),
        (md1(0.9, 1), {"W_q": 4.5, "W": 5.5}),
        (mg1(0.8, 1, 4), {"W_q": 10, "W": 11, "L_q": 8}),
        (mg1(0.8, 1, 0.25), {"W_q": 2.5}),
        (batch_mm1(0.125, 1, 4, 16), {"L": 2.5, "W": 5, "rho": 0.5}),
        (batch_mm1(0.08, 1, 10, 190), {"L": 40, "W": 50, "rho": 0.8}),
        (tandem(0.5, [1, 0.8]), {"W": 5.33333, "L": 2.66667, "rho": 0.625}),
        (tandem(3, [4, 5, 6]), {"W": 1.83333, "L": 5.5, "rho": 0.75}),
        (mm1_breakdowns(0.5, 1, 0.01, 0.1), {"L": 2.23232, "W": 4.46465, "rho": 0.55}),
        (mm1_breakdowns(80, 100, 1 / 300, 1 / 30), {"L": 1825.5, "W": 22.82}),
        (mm1_breakdowns_serving(0.5, 1, 0.01, 0.1), {"W": 3.55556, "rho": 0.55}),
    ],
)
def test_worked_means_of_queues(queue: Queue, expected: dict[str, float]) -> None:
    rel = 5e-4 if queue.L > 1000 else 1e-5  # the worked values of the long queue have fewer digits
    assert {name: getattr(queue, name) for name in expected} == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize(
    "rates, preemptive, name, expected",
    [
        ((0.3, 0.5), False, "W_q", [1.14286, 5.71429]),
        ((0.3, 0.5), True, "W", [1.42857, 7.14286]),
        ((0.2, 0.3, 0.4), False, "W_q", [1.125, 2.25, 18.0]),
    ],
)
def test_worked_means_of_priority_classes(
    rates: tuple[float, ...], preemptive: bool, name: str, expected: list[float]
) -> None:
    classes = priority_mm1(rates, 1, preemptive)
    assert [getattr(queue, name) for queue in classes] == near(expected)
    assert [queue.rho for queue in classes] == near(list(rates))


@pytest.mark.parametrize(
    "value, expected",
    [
        (mm1_sojourn_quantile(0.5, 1, 0.99), 9.21034),
        (mm1_sojourn_quantile(80, 100, 0.99), 0.230259),
        (mm1_sojourn_cdf(80, 100, 0.230259), 0.99),
        (erlang_c(1.5, 2), 0.642857),
        (erlang_c(4, 5), 0.554113),
        (erlang_b(2, 3), 0.210526),
        (erlang_b(8, 10), 0.121661),
        (kingman_approximation(0.8, 1, 0.25, 0.25), 1.0),
        (kingman_bound(0.8, 1, 0.25, 0.25), 1.28125),
        (kingman_approximation(0.9, 1, 2, 1), 13.5),
        (kingman_bound(0.9, 1, 2, 1), 15.6111),
        (mm1(0.5, 1).W, 2),  # the comparison of the sheet: the same load without batches
        (mm1(0.8, 1).W, 5),
        (little(100, 0.05), 5),
        (single_attempt_loss(0.01, 3), 0.029701),
        (single_attempt_loss(0.001, 5), 0.00499001),
        (single_attempt_loss(1, 2), 1),
        (in_doubt_applied_share(0.010, 0.005, 0.010), 0.40),
        (in_doubt_applied_share(0.010, 0.005, 0.010, commits_at_start=True), 0.60),
        (inversion_probability(0.010, 0.010), 0.183940),
        (break_probability(0.5, 2), 0.632121),
        (exponential_max_mean(1, 10), 2.92897),
        (exponential_max_mean(1, 100), 5.18738),
        (zipf_hottest_share(100, 1), 0.192776),
        (zipf_hottest_share(1000, 1), 0.133592),
        (100 / zipf_hottest_share(1000, 1), 748.547),
    ],
)
def test_worked_values(value: float, expected: float) -> None:
    assert value == near(expected)


def test_worked_values_of_tcp_timeouts() -> None:
    assert [tcp_rto_delay(k) for k in range(6)] == near([0, 0.2, 0.6, 1.4, 3.0, 6.2])
    assert tcp_rto_delay(16) == near(924.6)  # Linux gives up: tcp_retries2 = 15, with the cap of 120 s
    assert [tcp_rto_extra(p) for p in (0.01, 0.05, 0.1)] == pytest.approx([2.04e-3, 11.1e-3, 25e-3], rel=2e-3)


@pytest.mark.parametrize(
    "outage, expected",
    [
        (outage_backlog(300, 100, 150), Outage(600, 30_000, 300, 150, 90_000)),
        (outage_backlog(60, 50, 60), Outage(300, 3000, 60, 30, 18_000)),
    ],
)
def test_worked_values_of_the_backlog_after_an_outage(outage: Outage, expected: Outage) -> None:
    assert astuple(outage) == near(list(astuple(expected)))


@pytest.mark.parametrize(
    "p, q, n, expected",
    [
        (0.01, 0.01, None, {"attempts": 1.02030, "copies": 1.010101, "duplicated": 0.01}),
        (0.1, 0.05, None, {"attempts": 1.16959, "copies": 1.052632, "duplicated": 0.05}),
        (
            0.1,
            0.05,
            3,
            {
                "attempts": 1.166025,
                "never_delivered": 0.001,
                "false_failure": 0.00204863,
                "copies": 1.0494225,
                "duplicated": 0.0486,
            },
        ),
        (
            0.2,
            0.2,
            4,
            {
                "attempts": 1.536256,
                "never_delivered": 0.0016,
                "false_failure": 0.01519616,
                "copies": 1.2290048,
                "duplicated": 0.19456,
            },
        ),
    ],
)
def test_worked_values_of_retransmission(
    p: float, q: float, n: int | None, expected: dict[str, float]
) -> None:
    result = retransmissions(p, q, n)
    assert {name: getattr(result, name) for name in expected} == pytest.approx(expected, rel=4e-6)


# --- the same models solved in another way ------------------------------------------------------------------


def mean_of_chain(rate: Callable[[int, int], float], states: int, value: Callable[[int], float]) -> float:
    """Stationary mean of `value` in a Markov chain on 0 .. states - 1 with transition rates `rate(i, j)`."""
    Q = np.array([[rate(i, j) if i != j else 0.0 for j in range(states)] for i in range(states)])
    Q -= np.diag(Q.sum(axis=1))
    Q[:, 0] = 1  # replaces one balance equation by the normalisation
    p = np.linalg.solve(Q.T, np.eye(states)[0])
    return float(p @ np.array([value(i) for i in range(states)]))


@pytest.mark.parametrize("servers, capacity", [(1, 6), (3, 3), (2, 9)])
def test_mmck_solves_its_markov_chain(servers: int, capacity: int) -> None:
    def rate(i: int, j: int) -> float:
        return 1.7 if j == i + 1 else min(i, servers) * 0.9 if j == i - 1 else 0.0

    queue = mmck(1.7, 0.9, servers, capacity)
    assert mean_of_chain(rate, capacity + 1, float) == pytest.approx(queue.L)
    assert queue.loss == pytest.approx(mean_of_chain(rate, capacity + 1, lambda i: float(i == capacity)))
    assert mean_of_chain(rate, capacity + 1, lambda i: max(0.0, i - servers)) == pytest.approx(queue.L_q)
    assert little(1.7 * (1 - queue.loss), queue.W) == pytest.approx(queue.L)


def test_batch_queue_solves_its_markov_chain() -> None:
    sizes = {1: 0.5, 4: 0.5}  # mean 2.5, mean square 8.5

    def rate(i: int, j: int) -> float:
        return 1.0 if j == i - 1 else 0.2 * sizes.get(j - i, 0.0)

    assert mean_of_chain(rate, 200, float) == pytest.approx(batch_mm1(0.2, 1, 2.5, 8.5).L, rel=1e-9)


def test_breakdowns_solve_their_markov_chain() -> None:
    """State 2 n + up; failures while up, idle or not. Truncated where the queue is longer than anyone sees."""
    arrival, service, failure, repair = 0.4, 1.0, 0.05, 0.25

    def rate(i: int, j: int) -> float:
        n, up = divmod(i, 2)
        to_n, to_up = divmod(j, 2)
        if up == to_up:
            return arrival if to_n == n + 1 else service if to_n == n - 1 and up else 0.0
        return (failure if up else repair) if n == to_n else 0.0

    chain = mean_of_chain(rate, 600, lambda i: float(i // 2))
    assert chain == pytest.approx(mm1_breakdowns(arrival, service, failure, repair).L, rel=1e-9)


def test_breakdowns_while_serving_solve_their_markov_chain() -> None:
    arrival, service, failure, repair = 0.4, 1.0, 0.05, 0.25

    def rate(i: int, j: int) -> float:
        n, up = divmod(i, 2)
        to_n, to_up = divmod(j, 2)
        if up == to_up:
            return arrival if to_n == n + 1 else service if to_n == n - 1 and up else 0.0
        return (failure if up and n > 0 else repair if not up else 0.0) if n == to_n else 0.0

    # the state (0, down) is never entered and drains at once, so it weighs nothing
    chain = mean_of_chain(rate, 600, lambda i: float(i // 2))
    assert chain == pytest.approx(mm1_breakdowns_serving(arrival, service, failure, repair).L, rel=1e-9)


def test_preemptive_priority_solves_its_markov_chain() -> None:
    """State (high, low) queue lengths; the high class takes the server whenever it is there."""
    high, low, service, width = 0.2, 0.2, 1.0, 24

    def rate(i: int, j: int) -> float:
        (a, b), (c, d) = divmod(i, width), divmod(j, width)
        if b == d:
            return high if c == a + 1 else service if c == a - 1 else 0.0
        if a == c:
            return low if d == b + 1 else service if d == b - 1 and a == 0 else 0.0
        return 0.0

    first, second = priority_mm1((high, low), service, preemptive=True)
    assert mean_of_chain(rate, width**2, lambda i: float(i // width)) == pytest.approx(first.L, rel=1e-6)
    assert mean_of_chain(rate, width**2, lambda i: float(i % width)) == pytest.approx(second.L, rel=1e-6)


@pytest.mark.parametrize("p, q, n", [(0.1, 0.05, 3), (0.2, 0.2, 4), (0.7, 0.4, 6), (0, 1, 3), (1, 0.3, 2)])
def test_retransmission_equals_going_through_every_outcome(p: float, q: float, n: int) -> None:
    """An attempt ends with the data lost, the ack lost, or an answer; sum over all sequences of n attempts."""
    odds = {"data": p, "ack": (1 - p) * q, "answer": (1 - p) * (1 - q)}
    total = dict.fromkeys(Retransmission.__dataclass_fields__, 0.0)
    for outcome in product(odds, repeat=n):
        made = outcome[: outcome.index("answer") + 1] if "answer" in outcome else outcome
        chance = math.prod(odds[what] for what in outcome)
        copies = len(made) - made.count("data")
        total["attempts"] += chance * len(made)
        total["copies"] += chance * copies
        total["never_delivered"] += chance * (copies == 0)
        total["exactly_one"] += chance * (copies == 1)
        total["duplicated"] += chance * (copies > 1)
        total["false_failure"] += chance * (copies > 0 and "answer" not in made)
    assert vars(retransmissions(p, q, n)) == pytest.approx(total, abs=1e-12)


def test_tcp_mean_extra_is_the_sum_over_its_timeouts() -> None:
    p = 0.1
    series = math.fsum((1 - p) * p**k * tcp_rto_delay(k, 0.3, rto_max=math.ldexp(1, 900)) for k in range(200))
    assert tcp_rto_extra(p, 0.3) == pytest.approx(series, rel=1e-12)


# --- limits and identities ----------------------------------------------------------------------------------


def test_special_cases_agree() -> None:
    assert astuple(mmc(0.8, 1, 1)) == pytest.approx(astuple(mm1(0.8, 1)))
    assert astuple(mg1(0.8, 1, 1)) == pytest.approx(astuple(mm1(0.8, 1)))
    assert astuple(batch_mm1(0.8, 1, 1, 1)) == pytest.approx(astuple(mm1(0.8, 1)))
    assert astuple(mmck(4, 1, 5, 2000)) == pytest.approx(astuple(mmc(4, 1, 5)))
    assert mmck(8, 1, 10, 10).loss == pytest.approx(erlang_b(8, 10))
    assert abs(mmck(8, 1, 10, 10).W_q) < 1e-12
    assert mm1k(1, 1, 9).loss == pytest.approx(1 / 10)
    assert mm1k(3, 1, 5000).loss == pytest.approx(1 - 1 / 3)  # overload: only 1/rho gets in
    assert astuple(mm1_breakdowns(0.8, 1, 1e-12, 1)) == pytest.approx(astuple(mm1(0.8, 1)))
    assert kingman_approximation(0.8, 1, 1, 3) == pytest.approx(mg1(0.8, 1, 3).W_q)
    assert astuple(retransmissions(0.1, 0.2, 400)) == pytest.approx(astuple(retransmissions(0.1, 0.2)))


@pytest.mark.parametrize("preemptive", [False, True])
def test_priority_conserves_the_work_that_waits(preemptive: bool) -> None:
    rates = (0.3, 0.5)
    classes = priority_mm1(rates, 1, preemptive)
    if preemptive:
        assert sum(queue.L for queue in classes) == pytest.approx(mm1(0.8, 1).L)
    else:
        assert sum(queue.rho * queue.W_q for queue in classes) == pytest.approx(3.2)


@pytest.mark.parametrize(
    "queue, rate",
    [
        (mm1(80, 100), 80),
        (mmc(4, 1, 5), 4),
        (mg1(0.8, 2, 3), 0.8),
        (batch_mm1(0.08, 1, 10, 190), 0.8),
        (tandem(3, [4, 5]), 3),
        (mm1_breakdowns(0.5, 1, 0.01, 0.1), 0.5),
        (mm1_breakdowns_serving(0.5, 1, 0.01, 0.1), 0.5),
        (priority_mm1((0.3, 0.5), 1)[1], 0.5),
    ],
)
def test_littles_law_holds(queue: Queue, rate: float) -> None:
    assert little(rate, queue.W) == pytest.approx(queue.L)
    assert little(rate, queue.W_q) == pytest.approx(queue.L_q)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ca2, cs2", [(1, 0), (1, 1), (0.25, 0.25), (2, 1), (1, 4)])
def test_kingmans_bound_is_above_the_approximation(rho: float, ca2: float, cs2: float) -> None:
    assert kingman_bound(rho, 1, ca2, cs2) >= kingman_approximation(rho, 1, ca2, cs2) - 1e-12


def test_sojourn_quantile_and_distribution_are_inverse() -> None:
    for p in (0, 0.5, 0.99, 0.999999):
        assert mm1_sojourn_cdf(3, 4, mm1_sojourn_quantile(3, 4, p)) == pytest.approx(p)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mm1(1, 1), "no steady state: the load rho must be < 1, found 1"),
        (lambda: mmc(5, 1, 4), "no steady state: the load rho must be < 1, found 1.25"),
        (lambda: mm1_breakdowns(0.95, 1, 1, 9), "no steady state: the load rho must be < 1, found 1.05556"),
        (lambda: priority_mm1((0.5, 0.6), 1), "no steady state: the load rho must be < 1, found 1.1"),
        (lambda: outage_backlog(10, 5, 5), "no steady state: the load rho must be < 1, found 1"),
        (lambda: mm1(-1, 1), "arrival_rate must be a number > 0, found -1"),
        (lambda: mg1(0.5, 1, -1), "service_cv2 must be a number >= 0, found -1"),
        (lambda: mmck(1, 1, 3, 2), "capacity must be >= servers (3), found 2"),
        (lambda: erlang_b(1, 0), "servers must be a whole number >= 1, found 0"),
        (lambda: batch_mm1(0.1, 1, 4, 15), "size_mean_square must be >= size_mean^2, found 15"),
        (lambda: priority_mm1((), 1), "arrival_rates must hold at least one class, found none"),
        (lambda: tandem(1, []), "service_rates must hold at least one node, found none"),
        (lambda: mm1_sojourn_quantile(0.5, 1, 1), "p must be >= 0 and < 1, found 1"),
        (lambda: retransmissions(1.5, 0, 3), "data_loss must be between 0 and 1, found 1.5"),
        (
            lambda: retransmissions(1, 0),
            "without a limit on attempts, data_loss and ack_loss must be < 1",
        ),
        (lambda: retransmissions(0.1, 0.1, 0), "attempts must be a whole number >= 1, found 0"),
        (lambda: tcp_rto_extra(0.5), "loss must be >= 0 and < 0.5, found 0.5"),
        (lambda: in_doubt_applied_share(0, 0, 0), "exchange must be a number > 0, found 0"),
    ],
)
def test_bad_parameters_are_one_clear_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message
