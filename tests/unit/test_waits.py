"""The figures of where messages wait, on a line of messages whose times are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.arrivals import Deterministic
from sim.distributions import Constant, Schedule
from sim.metrics import idle_time, longest_spell, measure
from sim.simulation import simulate
from tests.conformance.builders import given


def figures(**settings: Any) -> dict[str, Any]:
    return dict(measure(simulate(given(**settings))).figures)


def test_each_wait_is_where_it_happens() -> None:
    """A batch of five at one consumer: message i waits in the client for i services of 10 ms."""
    found = figures(arrivals=Deterministic(1e6), duration=1.0, prefetch=10)
    assert found["queue_wait_mean"] == pytest.approx(0.0, abs=1e-5)
    assert found["transit_mean"] == pytest.approx(0.01, abs=1e-5)
    assert found["prefetched_wait_mean"] == pytest.approx(0.02, abs=1e-4)  # (0 + 10 + 20 + 30 + 40) / 5
    assert found["prefetched_mean"] == pytest.approx(5 * 0.02 / 1.0, abs=1e-3)
    assert found["idle"] == pytest.approx(1 - 5 * 0.01, abs=1e-3)


def test_with_a_prefetch_of_one_they_wait_at_the_broker() -> None:
    """Each next one is sent when the ack of the one before is back: 30 ms later."""
    found = figures(arrivals=Deterministic(1e6), duration=1.0, prefetch=1)
    assert found["queue_wait_mean"] == pytest.approx(0.06, abs=1e-4)  # (0 + 30 + 60 + 90 + 120) / 5
    assert found["prefetched_wait_mean"] == pytest.approx(0.0, abs=1e-9)
    assert found["prefetched_mean"] == pytest.approx(0.0, abs=1e-9)


def test_the_warm_up_is_cut_off() -> None:
    """Messages 0.1 s apart with 10 ms of service: the first two are created before 0.25 s."""
    config = replace(given(duration=0.45), warmup=0.25)
    found = measure(simulate(config)).figures
    # Message 1 is processed until 0.23, messages 2 and 3 for 10 ms each within [0.25, 0.45].
    assert found["idle"] == pytest.approx(1 - 0.02 / 0.2, abs=1e-6)
    assert found["transit_mean"] == pytest.approx(0.01)


def test_nothing_processed_is_nothing_measured() -> None:
    found = figures(loss=1.0, duration=1.0)
    assert [found[name] for name in ("queue_wait_mean", "transit_mean", "prefetched_wait_mean")] == [None] * 3
    assert (found["prefetched_mean"], found["idle"]) == (0.0, 1.0)


def test_each_subscription_has_its_own() -> None:
    outcome = measure(
        simulate(
            given(
                pattern="topic",
                services={"quick": {}, "slow": {"service_time": Constant(0.05)}},
                duration=1.0,
            )
        )
    )
    idle = {part["subscription"]: part["idle"] for part in outcome.by}
    assert idle["quick"] == pytest.approx(0.95, abs=1e-6)
    assert idle["slow"] == pytest.approx(0.75, abs=1e-6)
    assert outcome.figures["idle"] == pytest.approx(0.75, abs=1e-6)  # both start together


@pytest.mark.parametrize(
    ("spans", "idle"),
    [
        ([], 10.0),
        ([(1, 2), (3, 5)], 7.0),
        ([(3, 5), (1, 4)], 6.0),  # out of order, overlapping
        ([(1, 9), (2, 3)], 2.0),  # one within the other
        ([(-5, 1), (9, 20)], 8.0),  # over both ends
        ([(-5, -1), (11, 12)], 10.0),  # outside
        ([(-5, 20)], 0.0),
        ([(np.nan, np.nan), (1, 2)], 9.0),  # never started
    ],
)
def test_idle_time_is_what_no_span_covers(spans: list[tuple[float, float]], idle: float) -> None:
    started, processed = (np.array([span[i] for span in spans], dtype=float) for i in (0, 1))
    facts: Any = [SimpleNamespace(started=started, processed=processed)]
    assert idle_time(facts, 0.0, 10.0) == pytest.approx(idle)
    assert idle_time([], 0.0, 10.0) == 10.0


@pytest.mark.parametrize(
    ("times", "values", "longest"),
    [
        ([], [], 0.0),
        ([1.0, 2.0], [0, 0], 0.0),
        ([1.0, 2.0, 3.0, 6.0, 7.0, 8.5], [1, 0, 2, 1, 0, 0], 4.0),
        ([1.0, 4.0, 6.0], [1, 0, 3], 4.0),  # still above at the end
    ],
)
def test_the_longest_spell_above_zero(times: list[float], values: list[int], longest: float) -> None:
    assert longest_spell(np.array(times), np.array(values, dtype=np.int64), 10.0) == longest


def test_a_backlog_lasts_until_the_broker_has_none_left() -> None:
    """A batch of five at one consumer, each next one sent 30 ms after the one before: the last after 120 ms."""
    found = figures(arrivals=Deterministic(1e6), duration=1.0, prefetch=1)
    assert found["backlog_lasted"] == pytest.approx(0.12, abs=1e-4)


def test_a_handler_takes_as_long_as_is_scheduled_when_it_begins() -> None:
    schedule = Schedule(((0.0, Constant(0.01)), (1.0, Constant(0.03))))
    run = simulate(given(arrivals=Deterministic(10.0), duration=2.0, messages=19, service_time=schedule))
    pairs = next(iter(next(iter(run.ledger.channels.values())).subscriptions.values()))
    took = [(pairs.started_at[i], pairs.processed_at[i] - pairs.started_at[i]) for i in range(19)]
    assert len({round(seconds, 9) for _, seconds in took}) == 2
    assert all(seconds == pytest.approx(0.01 if began < 1.0 else 0.03) for began, seconds in took)
