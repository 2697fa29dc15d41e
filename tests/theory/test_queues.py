"""The simulator is the queues of the textbooks: means, losses, distributions, and Little's law on every run.

Each test compares independent replications, warm-up deleted, with a closed form of `sim.theory`: at 99.9 %, by an
interval narrower than 2 % of the value (5 % from a load of 0.9). How many messages that takes follows from the
variance of the mean of correlated sojourns, which grows like 1 / (1 - load)^2 and more: hence the moderate loads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import theory
from sim.apps import Publishes, Service
from sim.brokers.textbook import Channel, ConsumerClient
from sim.config import ChannelConfig, Config, ServiceConfig
from sim.distributions import Constant, Distribution, Exponential, Gamma, Lognormal
from sim.faults import Fault
from sim.metrics import measure
from sim.simulation import simulate
from tests.theory.helpers import (
    Array,
    assert_littles_law,
    assert_mean,
    assert_share,
    pairs,
    queue,
    replications,
    times,
)

MEAN = 1.0  # of a service, in s: rates below are loads
SERVICE = Exponential(MEAN)


def sojourns(config: Config, count: int, warmup: int, seed: int, tail: int = 0) -> list[float]:
    """The mean sojourn (s) in each replication, of those served after the warm-up; Little's law holds in each.

    `tail`: so many messages at the end are left out, too: faults stop when arrivals stop.
    """
    found = []
    for run in replications(config, count, seed):
        assert_littles_law(run, warmup)
        spent = times(run, "processed_at") - times(run, "created")
        found.append(float(np.nanmean(spent[warmup : len(spent) - tail])))
    return found


# -- one server ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mm1() -> None:
    exact = theory.mm1(0.5, 1 / MEAN)
    waits, depths = [], []
    for run in replications(queue(0.5, SERVICE, 11_500), 40, seed=11):
        assert_littles_law(run, 500)
        waits.append(float((times(run, "processed_at") - times(run, "created"))[500:].mean()))
        figures = measure(replace(run, config=replace(run.config, warmup=1000.0))).figures
        depths.append(figures["backlog_mean"] or 0.0)
    assert_mean(waits, exact.W)
    # Ready at the broker is who waits; a time average of a number varies more than the mean of a time.
    assert_mean(depths, exact.L_q, within=0.05)


@pytest.mark.slow
def test_md1_at_a_load_of_0_9() -> None:
    config = queue(0.9, Constant(MEAN), 27_500)
    assert_mean(sojourns(config, 40, 1_500, seed=12), theory.md1(0.9, 1 / MEAN).W, within=0.05)


@pytest.mark.parametrize(
    "law, load, cv2, messages",
    [
        (Gamma(MEAN, 0.5), 0.6, 0.25, 8_500),  # Erlang-4: more regular than exponential
        (Gamma(MEAN, 2**0.5), 0.35, 2.0, 11_500),
        (Lognormal(MEAN, 2**0.5), 0.35, 2.0, 14_500),  # another law of the same variance: the same mean
    ],
    ids=["erlang-4", "gamma", "lognormal"],
)
def test_mg1(law: Distribution, load: float, cv2: float, messages: int) -> None:
    assert_mean(sojourns(queue(load, law, messages), 40, 500, seed=13), theory.mg1(load, 1 / MEAN, cv2).W)


def test_the_sojourn_in_an_mm1_is_exponential() -> None:
    """W ~ Exp(mu - lambda). Sojourns within a run are dependent: one of each replication, long after its start."""
    config = queue(0.5, SERVICE, 120)  # the start is forgotten like exp(-t (1 - sqrt(load))^2): e^-19 after 110
    runs = 2_000
    found = sorted(
        float(times(run, "processed_at")[110] - times(run, "created")[110])
        for run in replications(config, runs, seed=14)
    )
    expected = np.array([theory.mm1_sojourn_cdf(0.5, 1 / MEAN, t) for t in found])
    above = np.arange(1, runs + 1) / runs - expected
    below = expected - np.arange(runs) / runs
    # Kolmogorov's limit: P(D > x / sqrt(n)) = 2 exp(-2 x^2), 0.001 at x = 1.95
    assert max(above.max(), below.max()) < 1.95 / runs**0.5
    assert_share(sum(t <= 2 * np.log(2) for t in found), runs, 0.5, within=0.08)  # the median


# -- several servers, and little room ------------------------------------------------------------------------------


@pytest.mark.parametrize("servers, rate, messages", [(2, 1.0, 9_500), (5, 3.0, 10_500)])
def test_mmc(servers: int, rate: float, messages: int) -> None:
    """The mean, and Erlang C: the share that waits at all."""
    warmup, spent, waited = 500, [], []
    for run in replications(queue(rate, SERVICE, messages, consumers=servers), 40, seed=15):
        assert_littles_law(run, warmup)
        created = times(run, "created")
        spent.append(float((times(run, "processed_at") - created)[warmup:].mean()))
        waited.append(float((times(run, "started_at") > created)[warmup:].mean()))
    assert_mean(spent, theory.mmc(rate, 1 / MEAN, servers).W)
    assert_mean(waited, theory.erlang_c(rate * MEAN, servers), within=0.05)


@pytest.mark.parametrize("overflow", ["drop_tail", "reject"])
@pytest.mark.parametrize("servers, rate, room", [(1, 0.8, 4), (1, 1.5, 3), (2, 1.5, 3)])
def test_mmck(servers: int, rate: float, room: int, overflow: str) -> None:
    """`max_length` bounds what is ready; those in service come on top: K = max_length + servers."""
    config = queue(rate, SERVICE, 8_500, consumers=servers, max_length=room, overflow=overflow)
    exact = theory.mmck(rate, 1 / MEAN, servers, room + servers)
    spent, turned_away = [], []
    for run in replications(config, 30, seed=16):
        assert_littles_law(run, 200)
        sojourn = (times(run, "processed_at") - times(run, "created"))[200:]
        spent.append(float(np.nanmean(sojourn)))
        turned_away.append(float(np.isnan(sojourn).mean()))
    assert_mean(spent, exact.W)
    assert_mean(turned_away, exact.loss, within=0.05)


@pytest.mark.parametrize("law", [Exponential(MEAN), Constant(MEAN)], ids=["exponential", "constant"])
def test_without_a_waiting_room_the_law_of_service_does_not_matter(law: Distribution) -> None:
    """M/G/c/c: Erlang B, whatever the service (H.3)."""
    config = queue(2.0, law, 8_500, consumers=3, max_length=0, overflow="drop_tail")
    lost = [float(np.isnan(times(run, "processed_at"))[200:].mean()) for run in replications(config, 30, seed=17)]
    assert_mean(lost, theory.erlang_b(2.0 * MEAN, 3))


# -- a server that fails, and two in a row -------------------------------------------------------------------------


@pytest.mark.slow
def test_mm1_with_breakdowns() -> None:
    """A pause by chance, idle or not, that stops the work and lets it go on (H.11; N-14)."""
    load, failure, repair = 0.3, 0.5, 2.0
    pause = Fault("pause", "server", mtbf=1 / failure, mttr=1 / repair)
    config = replace(queue(load, SERVICE, 9_500), faults=(pause,))
    exact = theory.mm1_breakdowns(load, 1 / MEAN, failure, repair).W
    assert exact > 1.5 * theory.mm1(load, 1 / MEAN).W  # not to be mistaken for a server that never fails
    assert_mean(sojourns(config, 40, 500, seed=18, tail=100), exact)


def tandem(rate: float, first: float, second: float, messages: int) -> Config:
    """Two stations: the first sends on to a second channel what it has served."""
    config = queue(rate, Exponential(first), messages)
    server, client = config.services["server"].app, ConsumerClient(prefetch=1)
    return replace(
        config,
        channels={**config.channels, "next": ChannelConfig("textbook", Channel(ack_timeout=None))},
        services={
            "server": ServiceConfig(replace(server, publishes=Publishes("next", resend=None)), client),
            "second": ServiceConfig(Service("next", service_time=Exponential(second)), client),
        },
    )


@pytest.mark.slow
def test_two_queues_in_tandem() -> None:
    """Each station is an M/M/1 as if alone (Jackson), and so is the whole way."""
    rate, first, second, warmup = 0.5, 0.8, 1.0, 500
    whole, stations = [], ([], [])  # type: tuple[list[float], tuple[list[float], list[float]]]
    for run in replications(tandem(rate, first, second, 10_500), 40, seed=19):
        assert_littles_law(run, warmup)
        left, done = times(run, "processed_at"), times(run, "processed_at", "next", "second")
        # The second channel numbers messages as they come; a single server lets nobody overtake.
        assert np.array_equal(times(run, "created", "next", "second"), left)
        created = times(run, "created")
        for means, sojourn in zip((whole, *stations), (done - created, left - created, done - left), strict=True):
            means.append(float(sojourn[warmup:].mean()))
    assert_mean(whole, theory.tandem(rate, (1 / first, 1 / second)).W)
    assert_mean(stations[0], theory.mm1(rate, 1 / first).W)
    assert_mean(stations[1], theory.mm1(rate, 1 / second).W)


# -- the tests can fail --------------------------------------------------------------------------------------------


def test_prefetching_makes_another_queue() -> None:
    """With ten deliveries on hand per consumer, messages wait behind a busy server while another is idle."""
    config = queue(1.0, SERVICE, 9_500, consumers=2, prefetch=10)
    found = sojourns(config, 40, 500, seed=15)
    with pytest.raises(AssertionError, match="does not cover"):
        assert_mean(found, theory.mmc(1.0, 1 / MEAN, 2).W, within=0.05)


def test_littles_law_would_notice_a_wrong_column() -> None:
    run = simulate(queue(0.5, SERVICE, 2_000), seed=20)
    assert_littles_law(run, 200)
    wrong: Array = pairs(run).processed_at
    for message in range(0, 2_000, 10):
        wrong[message] = float("nan")  # a tenth of the departures forgotten, and the messages with them
    with pytest.raises(AssertionError):
        assert run.ledger.channels["queue"].outcome is None or _population_is_conserved(run)


def _population_is_conserved(run: object) -> bool:
    return False
