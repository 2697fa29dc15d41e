"""How figures are compared and stated: N-18 to N-20 of the sheet."""

from __future__ import annotations

import math
from functools import cache
from statistics import correlation, fmean

import pytest

from sim.apps import Producer, Service
from sim.arrivals import Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant, Exponential
from sim.metrics import measure
from sim.network import NetworkSettings
from sim.simulation import simulate
from sim.stats import mean_ci, mser5, paired_ci, rule_of_three, wilson, zero_events_bound


def single_server(load: float, messages: int) -> Config:
    """M/M/1 with service rate 1: a queue without delays, a producer that fires and forgets, one consumer."""
    return Config(
        channels={"orders": ChannelConfig("textbook", Channel(ack_timeout=None))},
        producers={"shop": ProducerConfig(Producer("orders", Poisson(load)), ProducerClient())},
        services={
            "billing": ServiceConfig(
                Service("orders", service_time=Exponential(1.0)), ConsumerClient(prefetch=1)
            )
        },
        network=NetworkSettings(delay=Constant(0.0)),
        messages=messages,
    )


def sojourns(load: float, messages: int, seed: int, replication: int) -> list[float]:
    """Seconds that each message spent between its creation and its processing."""
    books = simulate(single_server(load, messages), seed, replication).ledger.channels["orders"]
    processed = books.subscriptions["billing"].processed_at
    return [processed[i] - books.created[i] for i in range(messages)]


# -- N-18: common random numbers --------------------------------------------------------------------------------------


@cache
def means(load: float, seed: int, replications: int = 20) -> tuple[float, ...]:
    """Mean sojourn times of independent replications."""
    return tuple(fmean(sojourns(load, 300, seed, r)) for r in range(replications))


def test_N18_common_random_numbers_correlate_two_configurations_and_narrow_the_interval_of_their_difference():
    slow, fast = means(0.8, seed=1), means(0.7, seed=1)
    elsewhere = means(0.7, seed=2)
    assert correlation(slow, fast) > 0.5
    common, independent = paired_ci(slow, fast), paired_ci(slow, elsewhere)
    assert common.half_width < independent.half_width
    # Var(A - B) = Var A + Var B - 2 Cov (F.5)
    assert common.low > 0, "and shows a difference"


def test_N18_replications_of_one_configuration_are_independent():
    first = means(0.8, seed=1)
    assert len(set(first)) == len(first)
    lagged = correlation(first[:-1], first[1:])
    assert abs(lagged) < 3.29 / math.sqrt(len(first))  # 99.9 % for a correlation of nothing


# -- N-19: the transient of a run that starts empty --------------------------------------------------------------------


@cache
def transient() -> list[list[float]]:
    """Sojourns at a load of 0.9, started empty: 60 replications of 6000 messages."""
    return [sojourns(0.9, 6000, seed=1, replication=r) for r in range(60)]


def test_N19_a_short_run_that_starts_empty_underestimates():
    exact = 1 / (1.0 - 0.9)
    short = mean_ci([fmean(run[:300]) for run in transient()], 0.999)
    assert short.high < exact


def test_N19_mser5_deletes_the_beginning_and_brings_the_mean_nearer():
    exact = 1 / (1.0 - 0.9)
    average = [fmean(column) for column in zip(*transient(), strict=True)]
    deleted = mser5(average)
    assert deleted is not None and deleted > 0
    whole = mean_ci([fmean(run) for run in transient()], 0.999)
    rest = mean_ci([fmean(run[deleted:]) for run in transient()], 0.999)
    assert whole.mean < rest.mean
    assert rest.covers(exact)


# -- N-20: nothing seen is not nothing ---------------------------------------------------------------------------------


def test_N20_no_event_in_n_trials_is_stated_as_below_3_over_n():
    n = 2000
    figures = measure(simulate(single_server(0.5, n))).figures
    assert (figures["duplicates"], figures["expected"]) == (0, n)
    assert rule_of_three(n) == 3 / n
    assert zero_events_bound(n) == pytest.approx(1 - 0.05 ** (1 / n))
    assert zero_events_bound(n) < rule_of_three(n)
    interval = wilson(0, n)
    assert interval.low == 0.0 < interval.high


SCENARIO = """
title: Nothing happens
question: How often?
messages: 2000
channels: {orders: {system: textbook}}
producers: {shop: {channel: orders, arrivals: 100/s}}
services: {billing: {channel: orders, service_time: 1 ms}}
"""


def test_N20_a_picture_never_calls_it_zero(tmp_path):
    from sim.experiment import run
    from sim.plots.harm import guarantees
    from sim.scenario import load

    path = tmp_path / "quiet.yaml"
    path.write_text(SCENARIO)
    result = run(load(path), jobs=1)
    figure = guarantees(result)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("< 0.15%") == len(figure.axes) and "0" not in words
