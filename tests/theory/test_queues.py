"""The simulator is the queues of the textbooks: means, losses, distributions, and Little's law on every run.

Each test compares independent replications, warm-up deleted, with a closed form of `sim.theory`: at 99.9 %, by an
interval narrower than 2 % of the value (5 % from a load of 0.9). How many messages that takes follows from the
variance of the mean of correlated sojourns, which grows like 1 / (1 - load)^2: hence the moderate loads.
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
from tests.theory.helpers import assert_littles_law, assert_mean, queue, replications, times

MEAN = 1.0  # of a service, in s: an arrival rate is the load of one server
SERVICE = Exponential(MEAN)


def sojourns(config: Config, count: int, warmup: int, seed: int, tail: int = 0) -> list[float]:
    """The mean sojourn (s) in each replication, of those served after the warm-up; Little's law holds in each.

    `tail`: so many messages at the end are left out, too, where faults stop with the arrivals.
    """
    found = []
    for run in replications(config, count, seed):
        assert_littles_law(run, warmup)
        spent = times(run, "processed_at") - times(run, "created")
        found.append(float(np.nanmean(spent[warmup : len(spent) - tail])))
    return found


# -- one server ----------------------------------------------------------------------------------------------------


def test_mm1() -> None:
    """Not only the mean sojourn: also the figures that a user sees of the same queue."""
    exact = theory.mm1(0.4, 1 / MEAN)
    figures: dict[str, list[float]] = {"latency_mean": [], "utilisation": [], "backlog_mean": []}
    for run in replications(replace(queue(0.4, SERVICE, 4_500), warmup=500.0), 60, seed=11):
        assert_littles_law(run, 200)
        measured = measure(run).figures
        for name, values in figures.items():
            values.append(measured[name] or 0.0)
    assert_mean(figures["latency_mean"], exact.W)
    assert_mean(figures["utilisation"], exact.rho)
    # What is ready at the broker is what waits. The time average of a number varies more than the mean of a time.
    assert_mean(figures["backlog_mean"], exact.L_q, within=0.05)


@pytest.mark.slow
def test_md1_at_a_load_of_0_9() -> None:
    config = queue(0.9, Constant(MEAN), 11_500)
    assert_mean(sojourns(config, 80, 600, seed=12), theory.md1(0.9, 1 / MEAN).W, within=0.05)


@pytest.mark.parametrize(
    "law, load, cv2, messages",
    [
        (Gamma(MEAN, 0.5), 0.5, 0.25, 2_500),  # Erlang-4: more regular than exponential
        (Gamma(MEAN, 1.25), 0.3, 1.5625, 4_800),
        (Lognormal(MEAN, 1.0), 0.2, 1.0, 3_800),  # not exponential, but of its variance: the mean of an M/M/1
    ],
    ids=["erlang-4", "gamma", "lognormal"],
)
def test_mg1(law: Distribution, load: float, cv2: float, messages: int) -> None:
    """Pollaczek and Khinchine: of the law of the service only the variance matters."""
    assert_mean(sojourns(queue(load, law, messages), 60, 300, seed=13), theory.mg1(load, 1 / MEAN, cv2).W)


def test_the_sojourn_in_an_mm1_is_exponential() -> None:
    """W ~ Exp(mu - lambda). Sojourns within a run are dependent: one of each replication, long after its start."""
    load, number, runs = 0.3, 30, 2_000
    # The start is forgotten like exp(-t (1 - sqrt(load))^2): e^-20 when message 30 comes.
    found = sorted(
        float(times(run, "processed_at")[number] - times(run, "created")[number])
        for run in replications(queue(load, SERVICE, number + 1), runs, seed=14)
    )
    expected = np.array([theory.mm1_sojourn_cdf(load, 1 / MEAN, t) for t in found])
    above = np.arange(1, runs + 1) / runs - expected
    below = expected - np.arange(runs) / runs
    # Kolmogorov's limit: P(D > x / sqrt(n)) = 2 exp(-2 x^2), 0.001 at x = 1.95
    assert max(above.max(), below.max()) < 1.95 / runs**0.5


# -- several servers, and little room ------------------------------------------------------------------------------


def test_mm4() -> None:
    config = queue(2.0, SERVICE, 3_500, consumers=4)
    assert_mean(sojourns(config, 40, 300, seed=15), theory.mmc(2.0, 1 / MEAN, 4).W)


def test_mm2_and_who_waits_at_all() -> None:
    """The mean, and Erlang C."""
    warmup = 300
    spent, waited = [], []
    for run in replications(queue(1.2, SERVICE, 10_500, consumers=2), 40, seed=21):
        assert_littles_law(run, warmup)
        created = times(run, "created")
        spent.append(float((times(run, "processed_at") - created)[warmup:].mean()))
        waited.append(float((times(run, "started_at") > created)[warmup:].mean()))
    assert_mean(spent, theory.mmc(1.2, 1 / MEAN, 2).W)
    assert_mean(waited, theory.erlang_c(1.2 * MEAN, 2))


@pytest.mark.parametrize(
    "servers, rate, room, overflow, messages",
    [(1, 1.2, 3, "drop_tail", 8_500), (1, 2.0, 1, "reject", 5_000), (2, 3.0, 4, "drop_tail", 6_500)],
)
def test_mmck(servers: int, rate: float, room: int, overflow: str, messages: int) -> None:
    """`max_length` bounds what is ready; those in service come on top: K = max_length + servers."""
    config = queue(rate, SERVICE, messages, consumers=servers, max_length=room, overflow=overflow)
    exact = theory.mmck(rate, 1 / MEAN, servers, room + servers)
    spent, turned_away = [], []
    for run in replications(config, 30, seed=16):
        assert_littles_law(run, 200)
        sojourn = (times(run, "processed_at") - times(run, "created"))[200:]
        spent.append(float(np.nanmean(sojourn)))
        turned_away.append(float(np.isnan(sojourn).mean()))
    assert_mean(spent, exact.W)
    assert_mean(turned_away, exact.loss)


@pytest.mark.parametrize("law", [SERVICE, Constant(MEAN)], ids=["exponential", "constant"])
def test_without_a_waiting_room_the_law_of_service_does_not_matter(law: Distribution) -> None:
    """M/G/c/c: Erlang B (H.3)."""
    config = queue(3.0, law, 4_200, consumers=3, max_length=0, overflow="drop_tail")
    turned_away = [
        float(np.isnan(times(run, "processed_at"))[200:].mean()) for run in replications(config, 30, seed=17)
    ]
    assert_mean(turned_away, theory.erlang_b(3.0 * MEAN, 3))


# -- a server that fails, and two in a row -------------------------------------------------------------------------


def test_mm1_with_breakdowns() -> None:
    """A pause by chance, idle or not, that stops the work and lets it go on (H.11, N-14)."""
    load, failure, repair = 0.25, 0.25, 1.0
    pause = Fault("pause", "server", mtbf=1 / failure, mttr=1 / repair)
    config = replace(queue(load, SERVICE, 4_800), faults=(pause,))
    exact = theory.mm1_breakdowns(load, 1 / MEAN, failure, repair).W
    assert exact > 1.3 * theory.mm1(load, 1 / MEAN).W  # not to be mistaken for a server that never fails
    assert_mean(sojourns(config, 40, 300, seed=18, tail=100), exact)


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


def test_two_queues_in_tandem() -> None:
    """Each station is an M/M/1 as if alone (Jackson), and so is the whole way."""
    rate, first, second, warmup = 0.4, 0.75, 0.9, 300
    spent: dict[str, list[float]] = {"whole": [], "first": [], "second": []}
    for run in replications(tandem(rate, first, second, 6_500), 40, seed=19):
        assert_littles_law(run, warmup)
        created, left = times(run, "created"), times(run, "processed_at")
        done = times(run, "processed_at", "next", "second")
        # The second channel numbers messages as they come, and a single server lets nobody overtake.
        assert np.array_equal(times(run, "created", "next", "second"), left)
        for name, sojourn in (("whole", done - created), ("first", left - created), ("second", done - left)):
            spent[name].append(float(sojourn[warmup:].mean()))
    assert_mean(spent["whole"], theory.tandem(rate, (1 / first, 1 / second)).W)
    assert_mean(spent["first"], theory.mm1(rate, 1 / first).W)
    assert_mean(spent["second"], theory.mm1(rate, 1 / second).W)


# -- these tests can fail ------------------------------------------------------------------------------------------


def test_prefetching_makes_another_queue() -> None:
    """With ten deliveries on hand per consumer, messages wait behind a busy server while another is idle."""
    found = sojourns(queue(1.0, SERVICE, 5_500, consumers=2, prefetch=10), 20, 500, seed=15)
    with pytest.raises(AssertionError, match="does not cover"):
        assert_mean(found, theory.mmc(1.0, 1 / MEAN, 2).W, within=0.05)


def test_littles_law_would_notice_what_is_not_counted() -> None:
    """With a delay, part of a sojourn is spent on the wire, where the number in the system does not count it."""
    config = queue(0.5, SERVICE, 2_000)
    slow = replace(config, network=replace(config.network, delay=Constant(0.1)))
    with pytest.raises(AssertionError, match="lambda W"):
        assert_littles_law(simulate(slow, seed=20), 200)
