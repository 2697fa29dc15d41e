"""Distributions and arrivals: every form in which they may be written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim import arrivals, distributions
from sim.arrivals import Batches, ClosedLoop, Deterministic, OnOff, Piecewise, Poisson, Trace
from sim.distributions import (
    Constant,
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
)
from sim.scenario import Scenario, ScenarioError, config_dict
from sim.scenario.laws import LAWS

pytestmark = pytest.mark.usefixtures("fake_systems")

FILE = """
duration: 10 s
channels: {{orders: }}
producers: {{shop: {{arrivals: {arrivals}, size: {size}, resend: {{}}}}}}
services: {{billing: {{service_time: {time}}}}}
"""

TIMES = [
    ("32 ms", Constant(0.032)),
    ("0.032", Constant(0.032)),
    ("{constant: 32 ms}", Constant(0.032)),
    ("{constant: {value: 32 ms}}", Constant(0.032)),
    ("{exponential: 32 ms}", Exponential(0.032)),
    ("{exponential: {mean: 32 ms}}", Exponential(0.032)),
    ("{uniform: [1 ms, 3 ms]}", Uniform(0.001, 0.003)),
    ("{uniform: {low: 1 ms, high: 3 ms}}", Uniform(0.001, 0.003)),
    ("{normal: {mean: 1 s, sd: 100 ms}}", Normal(1.0, 0.1)),
    ("{lognormal: {mean: 50 ms, cv: 1}}", Lognormal(0.05, 1.0)),
    ("{lognormal: {median: 10 ms, p99: 90 ms}}", Lognormal.from_median_p99(0.01, 0.09)),
    ("{gamma: {mean: 1 s, cv: 0.5}}", Gamma(1.0, 0.5)),
    ("{pareto: {minimum: 1 ms, alpha: 1.5}}", Pareto(0.001, 1.5)),
    ("{empirical: [3 ms, 1 ms]}", Empirical((0.001, 0.003))),
    ("{empirical: {values: [1 ms, 3 ms]}}", Empirical((0.001, 0.003))),
    ("{empirical: {csv: times.csv, column: seconds}}", Empirical((0.25, 0.5))),
    ("{shifted: {offset: 5 ms, distribution: {exponential: 1 ms}}}", Shifted(0.005, Exponential(0.001))),
    ("{scaled: {factor: 3, distribution: 1 ms}}", Scaled(3.0, Constant(0.001))),
    (
        "{mixture: [[0.9, 1 ms], [0.1, {exponential: 50 ms}]]}",
        Mixture(((0.9, Constant(0.001)), (0.1, Exponential(0.05)))),
    ),
    (
        "{mixture: {parts: [[1, {mixture: [[2, 1 ms]]}]]}}",
        Mixture(((1.0, Mixture(((2.0, Constant(0.001)),))),)),
    ),
]
SCHEDULES = [
    (
        "{schedule: [[0 s, 10 ms], [5 min, {exponential: 30 ms}]]}",
        Schedule(((0.0, Constant(0.01)), (300.0, Exponential(0.03)))),
    ),
    ("{schedule: {pieces: [[0, 1 s]]}}", Schedule(((0.0, Constant(1.0)),))),
]
ARRIVALS = [
    ("100/s", Poisson(100.0)),
    ("100", Poisson(100.0)),
    ("{poisson: 100/s}", Poisson(100.0)),
    ("{poisson: {rate: 100/s}}", Poisson(100.0)),
    ("{deterministic: 60/min}", Deterministic(1.0)),
    (
        "{on_off: {rate_on: 200/s, on: {exponential: 5 s}, off: 10 s}}",
        OnOff(200.0, Exponential(5.0), Constant(10.0)),
    ),
    ("{piecewise: [[0 s, 100/s], [1 min, 0/s]]}", Piecewise(((0.0, 100.0), (60.0, 0.0)))),
    ("{piecewise: {rates: [[0 s, 1/s]], period: 1 d}}", Piecewise(((0.0, 1.0),), 86400.0)),
    ("{trace: [0 s, 1 s]}", Trace((0.0, 1.0))),
    ("{trace: {csv: times.csv, column: seconds}}", Trace((0.25, 0.5))),
    ("{batches: {arrivals: 10/s, size: 5}}", Batches(Poisson(10.0), 5)),
    ("{closed_loop: {window: 10, think: 5 ms}}", ClosedLoop(10, Constant(0.005))),
    ("{closed_loop: {window: 10, think: none}}", ClosedLoop(10)),
    ("{closed_loop: 10}", ClosedLoop(10)),
]


def scenario(loaded: Callable[[str], Scenario], **laws: str) -> Scenario:
    Path("times.csv").write_text("n,seconds\n1,0.25\n2,0.5\n")
    return loaded(FILE.format(**({"arrivals": "1/s", "size": "1 B", "time": "1 s"} | laws)))


@pytest.mark.parametrize("text, law", [*TIMES, *SCHEDULES])
def test_distribution(loaded: Callable[[str], Scenario], text: str, law: Any) -> None:
    config = scenario(loaded, time=text).points()[0].config
    assert config.services["billing"].app.service_time == law


@pytest.mark.parametrize("text, law", ARRIVALS)
def test_arrivals(loaded: Callable[[str], Scenario], text: str, law: Any) -> None:
    config = scenario(loaded, arrivals=text).points()[0].config
    assert config.producers["shop"].app.arrivals == law


def test_a_size_is_in_bytes(loaded: Callable[[str], Scenario]) -> None:
    config = scenario(loaded, size="{uniform: [1 KiB, 2 kB]}").points()[0].config
    assert config.producers["shop"].app.size == Uniform(1024.0, 2000.0)


@pytest.mark.parametrize("kind", [*TIMES, *SCHEDULES, *ARRIVALS], ids=lambda item: item[0])
def test_what_a_config_says_can_be_read_again(
    loaded: Callable[[str], Scenario], kind: tuple[str, Any]
) -> None:
    part = "arrivals" if kind in ARRIVALS else "time"
    config = scenario(loaded, **{part: kind[0]}).points()[0].config
    assert Scenario.from_dict(config_dict(config)).points()[0].config == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{schedule: []}", "the first piece must begin at 0, found none"),
        ("{schedule: [[1 s, 10 ms]]}", "the first piece must begin at 0, found 1"),
        ("{schedule: [[0 s, 10 ms], [0 s, 20 ms]]}", "each piece must begin after the one before it"),
        ("{schedule: [[0 s, 10 ms], 20 ms]}", "expected a pair such as [5 min, 20 ms], found '20 ms'"),
        ("{scaled: {factor: 2, distribution: {schedule: [[0 s, 1 s]]}}}", "expected a distribution of times"),
    ],
)
def test_a_bad_schedule_is_told(loaded: Callable[[str], Scenario], text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(message)):
        scenario(loaded, time=text)


def test_only_a_service_time_has_a_schedule(loaded: Callable[[str], Scenario]) -> None:
    with pytest.raises(ScenarioError, match="expected a distribution of sizes, found 'schedule'"):
        scenario(loaded, size="{schedule: [[0 s, 1 B]]}")


def test_every_kind_can_be_written() -> None:
    assert list(LAWS["Schedule"][0]) == [*distributions.KINDS, "schedule"]
    assert list(LAWS["Duration"][0]) == list(LAWS["Volume"][0]) == list(distributions.KINDS)
    assert list(LAWS["Arrivals"][0]) == list(arrivals.KINDS)
    assert {type(law) for _, law in TIMES} == set(distributions.KINDS.values())
    assert {type(law) for _, law in ARRIVALS} == set(arrivals.KINDS.values())


def test_a_csv_file_that_has_changed_is_read_again(loaded: Callable[[str], Scenario]) -> None:
    text = "{empirical: {csv: times.csv, column: seconds}}"
    scenario(loaded, time=text)
    Path("times.csv").write_text("seconds\n7\n")
    config = loaded(FILE.format(arrivals="1/s", size="1 B", time=text)).points()[0].config
    assert config.services["billing"].app.service_time == Empirical((7.0,))
