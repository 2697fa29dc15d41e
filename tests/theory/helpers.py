"""Worlds that are the queues and protocols of the textbooks, replications of them, and the bounds a test asserts.

Every assertion is at 99.9 %: about one right model in a thousand would fail it, once, and with the seeds fixed it
then fails for ever or never. An interval must also be narrow: one that is wide agrees with anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from sim.apps import Producer, Service
from sim.arrivals import Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant, Distribution
from sim.ledger import Pairs
from sim.network import NetworkSettings
from sim.simulation import Run, simulate
from sim.stats import Interval, mean_ci, wilson

CONFIDENCE = 0.999
Array = np.ndarray[Any, Any]


# -- worlds --------------------------------------------------------------------------------------------------------


def queue(
    arrival_rate: float,
    service_time: Distribution,
    messages: int,
    consumers: int = 1,
    prefetch: int = 1,
    **channel: Any,
) -> Config:
    """A single station: Poisson arrivals, one queue, `consumers` servers; nothing is lost or delayed on the way.

    With one unacked delivery per consumer and no delay, the broker's ready messages are the waiting room and the
    next message starts in the instant in which one is done.
    """
    return Config(
        channels={"queue": ChannelConfig("textbook", Channel(ack_timeout=None, **channel))},
        producers={"source": ProducerConfig(Producer("queue", Poisson(arrival_rate)), ProducerClient())},
        services={
            "server": ServiceConfig(
                Service("queue", consumers=consumers, service_time=service_time),
                ConsumerClient(prefetch=prefetch),
            )
        },
        network=NetworkSettings(delay=Constant(0.0)),
        messages=messages,
    )


def replications(config: Config, count: int, seed: int) -> Iterator[Run]:
    """Independent runs of a world, one at a time."""
    return (simulate(config, seed, replication=number) for number in range(count))


# -- what the ledger says ------------------------------------------------------------------------------------------


def pairs(run: Run, channel: str = "queue", service: str = "server") -> Pairs:
    """The books of one service."""
    return run.ledger.channels[channel].subscriptions[service]


def times(run: Run, name: str, channel: str = "queue", service: str = "server") -> Array:
    """One column of times, in s, NaN for never: `created`, `started_at`, `processed_at` ..."""
    books = run.ledger.channels[channel]
    values = books.created if name == "created" else getattr(pairs(run, channel, service), name)
    return np.array(values[: len(books)], dtype=float)


def littles_law(run: Run, first: int) -> tuple[float, float, float]:
    """L, lambda W, and how far they can be apart, over the time from arrival `first` to the last arrival.

    L is the time average of the number between the broker's door and the end of a processing; lambda and W are
    those of the messages that were created in that time and not turned away. The sums differ by the sojourns that
    reach over an end of the window, hence at most by the whole sojourns of the messages there at either end.
    """
    created, stored, processed = (times(run, name) for name in ("created", "stored_at", "processed_at"))
    start, end = float(created[first]), float(created[-1])
    is_served = ~np.isnan(processed)
    created, stored, processed = created[is_served], stored[is_served], processed[is_served]
    at = np.concatenate((stored, processed))
    steps = np.concatenate((np.ones(len(stored)), -np.ones(len(processed))))
    order = np.argsort(at, kind="stable")
    number = np.cumsum(steps[order])
    spans = np.diff(np.clip(at[order], start, end), append=end)
    sojourn = processed - created
    came = (created >= start) & (created < end)
    is_cut = ((created < start) & (processed > start)) | ((created < end) & (processed > end))
    length = end - start
    return (
        float(number @ spans) / length,
        float(sojourn[came].sum()) / length,
        float(sojourn[is_cut].sum()) / length,
    )


def assert_littles_law(run: Run, first: int) -> None:
    """L = lambda W, but for what the ends of the window cut."""
    L, lambda_w, apart = littles_law(run, first)
    assert abs(L - lambda_w) <= apart + 1e-9 * L, f"L is {L:g}, lambda W is {lambda_w:g}"
    assert apart < 0.1 * L, "the run is too short to tell"


# -- bounds --------------------------------------------------------------------------------------------------------


def assert_mean(values: Sequence[float], exact: float, within: float = 0.02) -> Interval:
    """The mean of independent `values` is `exact`, as far as a narrow interval of it can tell."""
    interval = mean_ci(values, CONFIDENCE)
    assert interval.half_width < within * exact, f"{interval} is wider than {within:.0%} of {exact:g}"
    assert interval.covers(exact), f"{interval} does not cover {exact:g}"
    return interval


def assert_share(events: int, trials: int, exact: float, within: float = 0.02) -> None:
    """`events` of that many independent trials are the share `exact`, by an interval as narrow as that."""
    bounds = wilson(events, trials, CONFIDENCE)
    assert bounds.high - bounds.low < 2 * within * exact, f"{bounds} is wider than {within:.0%} of {exact:g}"
    assert bounds.low <= exact <= bounds.high, f"{bounds} does not cover {exact:g}"


def assert_attempts(sent: int, messages: int, exact: float, unanswered: float, tries: int | None) -> None:
    """So many sendings are `exact` per message, each of which gets no answer with that probability.

    The number of a message's sendings X is geometric, cut at `tries`: E[X^2] = sum of (2 i - 1) s^(i - 1).
    """
    s = unanswered
    square = (
        (1 + s) / (1 - s) ** 2
        if tries is None
        else sum((2 * i - 1) * s ** (i - 1) for i in range(1, tries + 1))
    )
    half_width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt((square - exact**2) / messages)
    assert half_width < 0.02 * exact
    assert abs(sent / messages - exact) <= half_width, f"{sent / messages:g} per message instead of {exact:g}"
