"""Closed forms against which the simulator is checked, and which lessons put beside what they measure.

Rates are per second, times in seconds, probabilities and loads plain numbers. Notation: rho = load of a
server, a = arrival rate / service rate (erlangs). Every function raises ValueError for parameters out of
range; the queues also when the load has no steady state. Sources: Kleinrock, Queueing Systems I (1975) and II
(1976); Gross, Shortle, Thompson & Harris, Fundamentals of Queueing Theory (2008), here "Gross et al.".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """Steady-state means of a queue (names as in the textbooks).

    W: seconds from arrival to departure; W_q: the part of it not being served; L, L_q: numbers in the system
    and waiting; rho: load per server; loss: share of arrivals turned away (W and W_q are those of the
    others).
    """

    W: float
    W_q: float
    L: float
    L_q: float
    rho: float
    loss: float = 0.0


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a number > 0, found {value!r}")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a number >= 0, found {value!r}")


def _whole(**values: int) -> None:
    for name, value in values.items():
        if value < 1 or value != int(value):
            raise ValueError(f"{name} must be a whole number >= 1, found {value!r}")


def _probability(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, found {value!r}")


def _stable(rho: float) -> float:
    if rho >= 1:
        raise ValueError(f"no steady state: the load rho must be < 1, found {rho:g}")
    return rho


def little(arrival_rate: float, seconds: float) -> float:
    """Mean number present: L = lambda W (Little 1961)."""
    _not_negative(arrival_rate=arrival_rate, seconds=seconds)
    return arrival_rate * seconds


# --- queues -------------------------------------------------------------------------------------------------


def mm1(arrival_rate: float, service_rate: float) -> Queue:
    """M/M/1: W = 1 / (mu - lambda), L = rho / (1 - rho) (Kleinrock I, 3.2)."""
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    rho = _stable(arrival_rate / service_rate)
    W = 1 / (service_rate - arrival_rate)
    return Queue(W=W, W_q=rho * W, L=rho / (1 - rho), L_q=rho**2 / (1 - rho), rho=rho)


def mm1_sojourn_cdf(arrival_rate: float, service_rate: float, seconds: float) -> float:
    """M/M/1, first come first served: P(sojourn <= t) = 1 - exp(-(mu - lambda) t) (Kleinrock I, 5.7)."""
    _not_negative(seconds=seconds)
    return -math.expm1(-seconds / mm1(arrival_rate, service_rate).W)


def mm1_sojourn_quantile(arrival_rate: float, service_rate: float, p: float) -> float:
    """Seconds within which a share p < 1 of the sojourns in an M/M/1 end: -ln(1 - p) / (mu - lambda)."""
    if not 0 <= p < 1:
        raise ValueError(f"p must be >= 0 and < 1, found {p!r}")
    return -math.log1p(-p) * mm1(arrival_rate, service_rate).W


def erlang_b(offered: float, servers: int) -> float:
    """M/G/c/c: share of arrivals lost when `offered` erlangs meet c servers and no waiting room.

    B(0) = 1, B(k) = a B(k-1) / (k + a B(k-1)) (Gross et al., 2.6); the law of the service time does not
    matter.
    """
    _positive(offered=offered)
    _whole(servers=servers)
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked


def erlang_c(offered: float, servers: int) -> float:
    """M/M/c: probability of having to wait, C = c B / (c - a (1 - B)) (Gross et al., 2.3)."""
    blocked = erlang_b(offered, servers)
    _stable(offered / servers)
    return servers * blocked / (servers - offered * (1 - blocked))


def mmc(arrival_rate: float, service_rate: float, servers: int) -> Queue:
    """M/M/c: W_q = C / (c mu - lambda), with C of Erlang C (Gross et al., 2.3)."""
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    W_q = erlang_c(arrival_rate / service_rate, servers) / (servers * service_rate - arrival_rate)
    return _from_wait(W_q, arrival_rate, service_rate, servers)


def _from_wait(W_q: float, arrival_rate: float, service_rate: float, servers: int = 1) -> Queue:
    W = W_q + 1 / service_rate
    rho = arrival_rate / (servers * service_rate)
    return Queue(W=W, W_q=W_q, L=arrival_rate * W, L_q=arrival_rate * W_q, rho=rho)


def mmck(arrival_rate: float, service_rate: float, servers: int, capacity: int) -> Queue:
    """M/M/c/K, at most K = capacity >= c in the system (in service included); any load.

    p_n in proportion to prod_{i<=n} lambda / (mu min(i, c)); loss = p_K, W = L / (lambda (1 - p_K))
    (Gross et al., 2.5). rho is the offered load, lambda / (c mu).
    """
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _whole(servers=servers, capacity=capacity)
    if capacity < servers:
        raise ValueError(f"capacity must be >= servers ({servers}), found {capacity}")
    logs = [0.0]  # logarithms, since the products overflow for a large K
    for i in range(1, capacity + 1):
        logs.append(logs[-1] + math.log(arrival_rate / (service_rate * min(i, servers))))
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    total = math.fsum(weights)
    loss = weights[-1] / total
    L = math.fsum(n * weight for n, weight in enumerate(weights)) / total
    accepted = arrival_rate * (1 - loss)
    W_q = L / accepted - 1 / service_rate
    rho = arrival_rate / (servers * service_rate)
    return Queue(W=L / accepted, W_q=W_q, L=L, L_q=accepted * W_q, rho=rho, loss=loss)


def mm1k(arrival_rate: float, service_rate: float, capacity: int) -> Queue:
    """M/M/1/K: loss = (1 - rho) rho^K / (1 - rho^(K+1)); K counts the one in service. See `mmck`."""
    return mmck(arrival_rate, service_rate, 1, capacity)


def mg1(arrival_rate: float, service_rate: float, service_cv2: float) -> Queue:
    """M/G/1: W_q = rho (1 + c_s^2) / (2 mu (1 - rho)), Pollaczek-Khinchine (Kleinrock I, 5.6).

    `service_cv2` is the squared coefficient of variation of the service time, variance / mean^2.
    """
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _not_negative(service_cv2=service_cv2)
    rho = _stable(arrival_rate / service_rate)
    return _from_wait(rho * (1 + service_cv2) / (2 * service_rate * (1 - rho)), arrival_rate, service_rate)


def md1(arrival_rate: float, service_rate: float) -> Queue:
    """M/D/1, constant service: W_q = rho / (2 mu (1 - rho)), half that of M/M/1."""
    return mg1(arrival_rate, service_rate, 0.0)


def kingman_approximation(
    arrival_rate: float, service_rate: float, arrival_cv2: float, service_cv2: float
) -> float:
    """G/G/1: W_q (s) is about rho / (1 - rho) (c_a^2 + c_s^2) / 2 / mu; exact for M/G/1 (Kingman 1961)."""
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _not_negative(arrival_cv2=arrival_cv2, service_cv2=service_cv2)
    rho = _stable(arrival_rate / service_rate)
    return rho / (1 - rho) * (arrival_cv2 + service_cv2) / 2 / service_rate


def kingman_bound(arrival_rate: float, service_rate: float, arrival_cv2: float, service_cv2: float) -> float:
    """G/G/1: W_q <= lambda (sigma_a^2 + sigma_s^2) / (2 (1 - rho)), in seconds (Kleinrock II, 2.2)."""
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _not_negative(arrival_cv2=arrival_cv2, service_cv2=service_cv2)
    rho = _stable(arrival_rate / service_rate)
    variances = arrival_cv2 / arrival_rate**2 + service_cv2 / service_rate**2
    return arrival_rate * variances / (2 * (1 - rho))


def batch_mm1(batch_rate: float, service_rate: float, size_mean: float, size_mean_square: float) -> Queue:
    """M^X/M/1: batches of X messages come at `batch_rate`, served one by one; all means per message.

    rho = lambda_b E[X] / mu, L = rho (1 + E[X^2] / E[X]) / (2 (1 - rho)) (Gross et al., 3.1).
    """
    _positive(batch_rate=batch_rate, service_rate=service_rate, size_mean=size_mean)
    if size_mean_square < size_mean**2:
        raise ValueError(f"size_mean_square must be >= size_mean^2, found {size_mean_square!r}")
    rho = _stable(batch_rate * size_mean / service_rate)
    L = rho * (1 + size_mean_square / size_mean) / (2 * (1 - rho))
    return _from_wait(L / (batch_rate * size_mean) - 1 / service_rate, batch_rate * size_mean, service_rate)


def priority_mm1(
    arrival_rates: Sequence[float], service_rate: float, preemptive: bool = False
) -> tuple[Queue, ...]:
    """M/M/1 with priority classes and one service rate: a Queue per class, the highest first.

    With s_k = rho_1 + ... + rho_k and rho the total: non-preemptive W_q,k = (rho / mu) / ((1 - s_{k-1})(1 -
    s_k)); preemptive-resume W_k = (1 / mu) / (1 - s_{k-1}) + (s_k / mu) / ((1 - s_{k-1})(1 - s_k)) (Kleinrock
    II, chapter 3; Gross et al., 3.4). `rho` in the answer is that of the class.
    """
    if not arrival_rates:
        raise ValueError("arrival_rates must hold at least one class, found none")
    for rate in arrival_rates:
        _positive(arrival_rates=rate)
    _positive(service_rate=service_rate)
    total = _stable(math.fsum(arrival_rates) / service_rate)
    queues, above = [], 0.0
    for rate in arrival_rates:
        upto = above + rate / service_rate
        free = (1 - above) * (1 - upto)
        if preemptive:
            W = (1 / (1 - above) + upto / free) / service_rate
            queues.append(_from_wait(W - 1 / service_rate, rate, service_rate))
        else:
            queues.append(_from_wait(total / service_rate / free, rate, service_rate))
        above = upto
    return tuple(queues)


def tandem(arrival_rate: float, service_rates: Sequence[float]) -> Queue:
    """M/M/1 queues one after another, whole path: W = sum 1 / (mu_i - lambda) (Jackson 1957).

    Each node is as if alone. `rho` is the load of the busiest node.
    """
    if not service_rates:
        raise ValueError("service_rates must hold at least one node, found none")
    nodes = [mm1(arrival_rate, rate) for rate in service_rates]
    return Queue(
        W=math.fsum(node.W for node in nodes),
        W_q=math.fsum(node.W_q for node in nodes),
        L=math.fsum(node.L for node in nodes),
        L_q=math.fsum(node.L_q for node in nodes),
        rho=max(node.rho for node in nodes),
    )


def mm1_breakdowns(
    arrival_rate: float, service_rate: float, failure_rate: float, repair_rate: float
) -> Queue:
    """M/M/1 whose server fails while it is up, idle or not, and resumes the service after the repair.

    L = lambda ((alpha + beta)^2 + alpha mu) / ((alpha + beta)(mu beta - lambda (alpha + beta))), stable if
    lambda < mu A with availability A = beta / (alpha + beta) (Avi-Itzhak & Naor 1963). `rho` is lambda / (mu
    A); W_q is W less the mean service, so it includes repairs.
    """
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _positive(failure_rate=failure_rate, repair_rate=repair_rate)
    both = failure_rate + repair_rate
    rho = _stable(arrival_rate * both / (service_rate * repair_rate))
    spare = service_rate * repair_rate - arrival_rate * both
    W = (both**2 + failure_rate * service_rate) / (both * spare)
    W_q = W - 1 / service_rate
    return Queue(W=W, W_q=W_q, L=arrival_rate * W, L_q=arrival_rate * W_q, rho=rho)


def mm1_breakdowns_serving(
    arrival_rate: float, service_rate: float, failure_rate: float, repair_rate: float
) -> Queue:
    """M/M/1 whose server fails only while it serves: an M/G/1 of completion times C (Avi-Itzhak & Naor 1963).

    E[C] = (1 + alpha / beta) / mu, E[C^2] = 2 (1 + alpha / beta)^2 / mu^2 + 2 alpha / (mu beta^2). W_q is the
    wait for the first service to begin; `rho` = lambda E[C].
    """
    _positive(arrival_rate=arrival_rate, service_rate=service_rate)
    _positive(failure_rate=failure_rate, repair_rate=repair_rate)
    completion = (1 + failure_rate / repair_rate) / service_rate
    variance = completion**2 + 2 * failure_rate / (service_rate * repair_rate**2)
    return mg1(arrival_rate, 1 / completion, variance / completion**2)


# --- sending again ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Retransmission:
    """What happens to one message that is sent until acknowledged.

    attempts: mean number of sendings; never_delivered, false_failure (delivered, yet the sender gave up),
    exactly_one, duplicated (two copies or more): probabilities; copies: mean number that arrive.
    """

    attempts: float
    never_delivered: float
    false_failure: float
    copies: float
    exactly_one: float
    duplicated: float


def retransmissions(data_loss: float, ack_loss: float, attempts: int | None = None) -> Retransmission:
    """Send, wait for the ack, send again: at most `attempts` times, or for ever (None).

    Each data packet is lost with probability p, each ack with q, independently; s = 1 - (1 - p)(1 - q) is
    that of an attempt without an answer. Geometric sums: mean attempts (1 - s^n) / (1 - s); never delivered
    p^n; false failure s^n - p^n; P(exactly one copy) = sum_i p^(i-1) (1 - p) ((1 - q) + q p^(n-i)). For ever,
    copies are geometric: P(duplicate) = q, mean 1 / (1 - q), whatever p is (then p and q must be < 1).
    """
    _probability(data_loss=data_loss, ack_loss=ack_loss)
    p, q = data_loss, ack_loss
    if attempts is None:
        if p == 1 or q == 1:
            raise ValueError("without a limit on attempts, data_loss and ack_loss must be < 1")
        return Retransmission(1 / ((1 - p) * (1 - q)), 0.0, 0.0, 1 / (1 - q), 1 - q, q)
    n = attempts
    _whole(attempts=n)
    s = p + q - p * q
    mean = math.fsum(s**i for i in range(n))
    never = p**n
    one = math.fsum(p ** (i - 1) * (1 - p) * ((1 - q) + q * p ** (n - i)) for i in range(1, n + 1))
    duplicated = max(0.0, 1 - never - one)  # max: rounding
    return Retransmission(mean, never, max(0.0, s**n - never), (1 - p) * mean, one, duplicated)


def single_attempt_loss(loss: float, hops: int) -> float:
    """At most once over k hops: P(lost) = 1 - (1 - p)^k."""
    _probability(loss=loss)
    _whole(hops=hops)
    return 1.0 if loss == 1 else -math.expm1(hops * math.log1p(-loss))


def break_probability(break_rate: float, one_way: float) -> float:
    """P(a connection that breaks at `break_rate` does so while a message travels `one_way` seconds).

    1 - exp(-beta d): takes the place of a packet loss in `retransmissions`.
    """
    _not_negative(break_rate=break_rate, one_way=one_way)
    return -math.expm1(-break_rate * one_way)


def tcp_rto_delay(losses: int, rto: float = 0.2, rto_max: float = 120.0) -> float:
    """Seconds that `losses` timeouts in a row cost one segment: sum of min(rto 2^i, rto_max) (RFC 6298).

    Up to the cap that is rto (2^k - 1). Defaults are those of Linux (minimum 200 ms, maximum 120 s).
    """
    _positive(rto=rto, rto_max=rto_max)
    return math.fsum(min(math.ldexp(rto, min(i, 1000)), rto_max) for i in range(losses))


def tcp_rto_extra(loss: float, rto: float = 0.2) -> float:
    """Mean seconds that retransmission timeouts add to one segment: rto p / (1 - 2 p), for p < 1/2.

    Each transmission is lost with probability p and the timeout doubles for ever (RFC 6298, no fast
    retransmit).
    """
    _positive(rto=rto)
    if not 0 <= loss < 0.5:
        raise ValueError(f"loss must be >= 0 and < 0.5, found {loss!r}")
    return rto * loss / (1 - 2 * loss)


# --- faults, fan-out and keys -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outage:
    """What an outage leaves behind.

    drain: seconds after its end until the backlog is gone; backlog: messages at its end; delay_max and
    delay_mean: seconds, of the `affected` messages (those that had to wait).
    """

    drain: float
    backlog: float
    delay_max: float
    delay_mean: float
    affected: float


def outage_backlog(outage: float, arrival_rate: float, capacity: float) -> Outage:
    """After `outage` seconds without service (fluid limit): drain = lambda T / (capacity - lambda).

    The backlog is lambda T; lambda (T + drain) messages wait, at most T, on average T / 2. Rates per second.
    """
    _positive(arrival_rate=arrival_rate, capacity=capacity)
    _not_negative(outage=outage)
    _stable(arrival_rate / capacity)
    drain = arrival_rate * outage / (capacity - arrival_rate)
    return Outage(
        drain=drain,
        backlog=arrival_rate * outage,
        delay_max=outage,
        delay_mean=outage / 2,
        affected=arrival_rate * (outage + drain),
    )


def in_doubt_applied_share(
    there: float, service: float, back: float, commits_at_start: bool = False
) -> float:
    """P(the request was applied, given that the connection broke at a uniform moment of the exchange).

    The request travels `there` seconds, is served for `service`, the reply travels `back`: the share is back
    / (there + service + back) if the effect commits at the end of the service, (service + back) / the same if
    at its start. The two generals' window (Akkoyunlu et al. 1975; Gray 1978).
    """
    _not_negative(there=there, service=service, back=back)
    _positive(exchange=there + service + back)
    return (back + (service if commits_at_start else 0.0)) / (there + service + back)


def inversion_probability(spacing: float, mean_delay: float) -> float:
    """P(the second of two datagrams sent `spacing` seconds apart arrives first): exp(-spacing / mean) / 2.

    The delays are independent and exponential with that mean, so their difference is a Laplace variable.
    """
    _not_negative(spacing=spacing)
    _positive(mean_delay=mean_delay)
    return math.exp(-spacing / mean_delay) / 2


def exponential_max_mean(mean: float, count: int) -> float:
    """Mean of the largest of n = count independent exponentials: mean (1 + 1/2 + ... + 1/n) (Renyi 1953)."""
    _positive(mean=mean)
    _whole(count=count)
    return mean * math.fsum(1 / i for i in range(1, count + 1))


def zipf_hottest_share(n: int, s: float) -> float:
    """Share of the hottest of n keys when key k has weight k^-s: 1 / (1 + 2^-s + ... + n^-s)."""
    _whole(n=n)
    _not_negative(s=s)
    return 1 / math.fsum(math.pow(rank, -s) for rank in range(1, n + 1))
