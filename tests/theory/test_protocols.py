"""Losses and duplicates are those that the mechanism implies: closed forms of H.12, and the reference work W.

Messages meet independent packets, so a message is a trial: Wilson intervals at 99.9 %, narrower than 2 % of the
share. The probabilities are large where the sheet's are small, since a share s needs 27,000 (1 - s) / s messages.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.work import LOSS, reference_work
from sim import theory
from sim.apps import Producer, Publishes, Resend, Service
from sim.arrivals import Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant
from sim.metrics import measure
from sim.network import LinkSettings, NetworkSettings
from sim.simulation import Run, simulate
from tests.theory.helpers import Array, assert_attempts, assert_mean, assert_share, pairs, replications

NOTHING = Constant(0.0)
FORGETFUL = ConsumerClient(ack="auto")


# -- at most once --------------------------------------------------------------------------------------------------


def chain(hops: int, loss: float, messages: int) -> Config:
    """A message that crosses `hops` lossy links, one try each, to the last of a row of services.

    Two links per channel: to the broker and from it. With an odd number the first is sound.
    """
    stages = (hops + 1) // 2
    names = [f"stage{i}" for i in range(stages)]
    services = {}
    for number, name in enumerate(names):
        onward = Publishes(names[number + 1], resend=None) if number + 1 < stages else None
        services[f"{name}-service"] = ServiceConfig(
            Service(name, service_time=NOTHING, publishes=onward), FORGETFUL
        )
    sound = {"source -> stage0": LinkSettings(NOTHING)} if hops % 2 else {}
    return Config(
        channels={name: ChannelConfig("textbook", Channel()) for name in names},
        producers={"source": ProducerConfig(Producer("stage0", Poisson(100.0)), ProducerClient())},
        services=services,
        network=NetworkSettings(delay=NOTHING, loss=loss, links=sound),
        messages=messages,
    )


@pytest.mark.parametrize(
    "hops, loss, messages", [(1, 0.3, 75_000), (2, 0.25, 42_000), (3, 0.2, 34_000), (4, 0.15, 36_000)]
)
def test_a_single_attempt_loses_on_every_hop(hops: int, loss: float, messages: int) -> None:
    run = simulate(chain(hops, loss, messages), seed=31)
    last = list(run.ledger.channels.values())[-1]
    arrived = sum(count > 0 for books in last.subscriptions.values() for count in books.processings)
    assert_share(messages - arrived, messages, theory.single_attempt_loss(loss, hops))
    figures = measure(run).figures
    assert figures["duplicates"] == 0
    assert figures["lost"] == messages - arrived  # each where it was lost, once


# -- at least once -------------------------------------------------------------------------------------------------


def resending(data_loss: float, ack_loss: float, attempts: int | None, messages: int) -> Config:
    """A producer that resends, on a path that loses messages one way and acks the other; delivery is sound."""
    return Config(
        channels={"queue": ChannelConfig("textbook", Channel())},
        producers={
            "source": ProducerConfig(
                Producer("queue", Poisson(100.0), resend=Resend(timeout=0.1, attempts=attempts)),
                ProducerClient(),
            )
        },
        services={"server": ServiceConfig(Service("queue", service_time=NOTHING), FORGETFUL)},
        network=NetworkSettings(
            delay=NOTHING,
            links={
                "source -> queue": LinkSettings(NOTHING, loss=data_loss),
                "queue -> source": LinkSettings(NOTHING, loss=ack_loss),
            },
        ),
        messages=messages,
    )


def copies(run: Run) -> Array:
    """How many copies of each message reached the receiver."""
    return np.array(pairs(run).processings[: len(run.ledger.channels["queue"])])


@pytest.mark.parametrize(
    "data_loss, ack_loss, tries, messages", [(0.45, 0.7, 2, 130_000), (0.6, 0.6, 3, 125_000)]
)
def test_a_limit_on_attempts(data_loss: float, ack_loss: float, tries: int, messages: int) -> None:
    run = simulate(resending(data_loss, ack_loss, tries, messages), seed=32)
    exact = theory.retransmissions(data_loss, ack_loss, tries)
    arrived, outcome = copies(run), np.frombuffer(run.ledger.channels["queue"].outcome, dtype="u1")[:messages]
    is_unconfirmed = outcome == 0
    assert_share(int((arrived == 0).sum()), messages, exact.never_delivered)
    assert_share(int(((arrived > 0) & is_unconfirmed).sum()), messages, exact.false_failure)
    assert_share(int((arrived == 1).sum()), messages, exact.exactly_one)
    assert_share(int((arrived > 1).sum()), messages, exact.duplicated)
    assert not ((arrived == 0) & ~is_unconfirmed).any()  # nothing confirmed is lost
    assert_mean(arrived.tolist(), exact.copies)
    assert_attempts(run.requests, messages, exact.attempts, 1 - (1 - data_loss) * (1 - ack_loss), tries)


def test_without_a_limit() -> None:
    """Nothing is lost, and the number of copies is geometric, whatever the loss of data."""
    messages, data_loss, ack_loss = 90_000, 0.3, 0.4
    run = simulate(resending(data_loss, ack_loss, None, messages), seed=33)
    exact = theory.retransmissions(data_loss, ack_loss)
    arrived = copies(run)
    assert arrived.min() == 1
    assert_share(int((arrived > 1).sum()), messages, exact.duplicated)
    assert_mean((arrived - 1).tolist(), exact.copies - 1)
    assert_attempts(run.requests, messages, exact.attempts, 1 - (1 - data_loss) * (1 - ack_loss), None)


# -- the reference work --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_duplicates_of_the_reference_work() -> None:
    """Each stored copy is delivered until an ack comes through, each message stored until an ack comes through.

    Both are geometric with the loss q of an ack: (1 / (1 - q))^2 - 1 = 0.0203 duplicates per message.
    """
    q, messages = LOSS, 245_000
    extra: list[int] = []
    for run in replications(reference_work(messages), 6, seed=34):
        processings = pairs(run, "orders", "billing").processings[:messages]
        assert min(processings) == 1  # nothing is lost
        extra += [count - 1 for count in processings]
    assert_mean(extra, theory.retransmissions(q, q).copies ** 2 - 1)
