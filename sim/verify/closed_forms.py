"""Closed forms against the simulator, line by line: a fixed list, with fixed seeds.

Each world is a scenario as a file would hold it. A line holds if the 99.9% interval of the mean of independent
replications covers the value, and is narrow enough to say something: an interval that is wide agrees with anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sim import theory

if TYPE_CHECKING:
    from sim.experiment import Progress
    from sim.result import Row
    from sim.store import Store

CONFIDENCE = 0.999
Verdict = Literal["ok", "MISSED", "too wide"]


@dataclass(frozen=True)
class Line:
    """A value by a formula, and the expression over figures that shall come to it.

    `within`: the share of the value that the half width of the interval may have.
    """

    name: str
    formula: str
    exact: float
    measured: str
    within: float = 0.03


@dataclass(frozen=True)
class World:
    """A scenario, and what is known of it."""

    title: str
    scenario: dict[str, Any]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Judged:
    """A line and what was simulated: the mean over `runs` replications, and the half width of its interval."""

    world: str
    name: str
    formula: str
    exact: float
    simulated: float
    half_width: float
    runs: int
    within: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The line as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Report:
    """All lines, in the order of the list."""

    lines: tuple[Judged, ...]

    @property
    def has_missed(self) -> bool:
        """Whether a formula and the simulator do not agree."""
        return any(line.verdict != "ok" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "confidence": CONFIDENCE,
            "lines": [line.to_json() for line in self.lines],
            "missed": sum(line.verdict != "ok" for line in self.lines),
        }


def verify(
    *, jobs: int | None = None, store: Store | Path | None = None, progress: Progress | None = None
) -> Report:
    """Simulate every world of the list, and compare."""
    from sim.experiment import run_all
    from sim.scenario import Scenario

    worlds = all_worlds()
    scenarios = [Scenario.from_dict(world.scenario, name=world.title) for world in worlds]
    results = run_all(scenarios, jobs=jobs, store=store, progress=progress)
    return Report(
        tuple(
            judge(world, line, result.rows)
            for world, result in zip(worlds, results, strict=True)
            for line in world.lines
        )
    )


def judge(world: World, line: Line, rows: Sequence[Row]) -> Judged:
    """A line against the row that its world gave."""
    from sim.claims import values
    from sim.stats import mean_ci

    numbers = values(line.measured, rows, 0)
    interval = mean_ci(numbers, CONFIDENCE)
    verdict: Verdict = "ok" if interval.covers(line.exact) else "MISSED"
    if interval.half_width > line.within * line.exact:
        verdict = "too wide"
    return Judged(
        world=world.title,
        name=line.name,
        formula=line.formula,
        exact=line.exact,
        simulated=interval.mean,
        half_width=interval.half_width,
        runs=len(numbers),
        within=line.within,
        verdict=verdict,
    )


# -- the list --------------------------------------------------------------------------------------------------


def station(rate: float, service: Any, consumers: int = 1, **channel: Any) -> dict[str, Any]:
    """One queue: Poisson arrivals, service times of mean 1 s, nothing lost or delayed on the way.

    With one unacked delivery for each consumer the broker's ready messages are the waiting room.
    """
    return {
        "channels": {"queue": {"ack_timeout": None, **channel}},
        "producers": {"source": {"arrivals": rate}},
        "services": {"server": {"consumers": consumers, "service_time": service, "prefetch": 1}},
        "network": {"delay": 0},
    }


def repeated(parts: dict[str, Any], messages: int, runs: int, seed: int, warmup: float = 0) -> dict[str, Any]:
    """A scenario of so many messages, run so often."""
    limits = {"messages": messages, "warmup": warmup, "drain_limit": 1e6, "seed": seed, "replications": runs}
    return {**parts, **limits}


def all_worlds() -> list[World]:
    """Everything that is compared. Service times have a mean of 1 s, so that an arrival rate is a load."""
    return [*queues(), *protocols()]


def queues() -> list[World]:
    """Stations of the textbooks."""
    exponential = {"exponential": 1}
    mm1, mm3, mm1k = theory.mm1(0.5, 1), theory.mmc(1.8, 1, 3), theory.mm1k(1.2, 1, 4)
    failing = {"kind": "pause", "target": "server", "mtbf": 4, "mttr": 1}
    line = station(0.4, {"exponential": 0.75})
    line["channels"]["next"] = {"ack_timeout": None}
    line["producers"]["source"]["channel"] = line["services"]["server"]["channel"] = "queue"
    line["services"]["server"]["publishes"] = {"channel": "next", "resend": None}
    line["services"]["second"] = {"channel": "next", "service_time": {"exponential": 0.9}, "prefetch": 1}
    return [
        World(
            "M/M/1 at a load of 0.5",
            repeated(station(0.5, exponential), 6_000, 30, seed=101, warmup=300),
            (
                Line("mean time in the system", "W = 1 / (mu - lambda)", mm1.W, "latency_mean"),
                Line(
                    "its 99% quantile",
                    "ln 100 / (mu - lambda)",
                    theory.mm1_sojourn_quantile(0.5, 1, 0.99),
                    "latency_p99",
                    within=0.05,
                ),
                Line("mean number waiting", "L_q = rho^2 / (1 - rho)", mm1.L_q, "backlog_mean", within=0.05),
            ),
        ),
        World(
            "M/M/3 at a load of 0.6",
            repeated(station(1.8, exponential, consumers=3), 6_000, 30, seed=102, warmup=150),
            (Line("mean time in the system", "1 / mu + C(3, 1.8) / (3 mu - lambda)", mm3.W, "latency_mean"),),
        ),
        World(
            "M/M/1/4 at an offered load of 1.2",
            repeated(station(1.2, exponential, max_length=3, overflow="drop_tail"), 6_500, 20, seed=103),
            (
                Line("share turned away", "(1 - rho) rho^4 / (1 - rho^5)", mm1k.loss, "lost / published"),
                Line("mean time in the system", "L / (lambda (1 - p_4))", mm1k.W, "latency_mean"),
            ),
        ),
        World(
            "M/D/1 at a load of 0.6",
            repeated(station(0.6, 1), 4_000, 30, seed=104, warmup=300),
            (
                Line(
                    "mean time in the system",
                    "1 / mu + rho / (2 mu (1 - rho))",
                    theory.md1(0.6, 1).W,
                    "latency_mean",
                ),
            ),
        ),
        World(
            "M/G/1 at a load of 0.3, gamma service of cv 1.25",
            repeated(station(0.3, {"gamma": {"mean": 1, "cv": 1.25}}), 4_800, 30, seed=105, warmup=300),
            (
                Line(
                    "mean time in the system",
                    "Pollaczek and Khinchine",
                    theory.mg1(0.3, 1, 1.25**2).W,
                    "latency_mean",
                ),
            ),
        ),
        World(
            "M/M/1 at 0.25 whose server breaks down",
            repeated(station(0.25, exponential) | {"faults": [failing]}, 6_000, 25, seed=106, warmup=800),
            (
                Line(
                    "mean time in the system",
                    "Avi-Itzhak and Naor",
                    theory.mm1_breakdowns(0.25, 1, 0.25, 1).W,
                    "latency_mean",
                ),
            ),
        ),
        World(
            "two M/M/1 in tandem",
            repeated(line, 6_500, 20, seed=107, warmup=500),
            (
                Line(
                    "mean time for both",
                    "sum of 1 / (mu_i - lambda)",
                    theory.tandem(0.4, (1 / 0.75, 1 / 0.9)).W,
                    'of("server", "latency_mean") + of("second", "latency_mean")',
                ),
            ),
        ),
    ]


def lossy(loss_there: float, loss_back: float, attempts: int | None) -> dict[str, Any]:
    """A producer that resends over a path that loses messages one way and acks the other; delivery is sound."""
    return {
        "channels": {"queue": {}},
        "producers": {"source": {"arrivals": 100, "resend": {"timeout": 0.1, "attempts": attempts}}},
        "services": {"server": {"service_time": 0, "ack": "auto", "prefetch": None}},
        "network": {
            "delay": 0,
            "links": {"source -> queue": {"loss": loss_there}, "queue -> source": {"loss": loss_back}},
        },
    }


def protocols() -> list[World]:
    """What is lost and what is repeated, by how often one tries."""
    four_hops = {
        "channels": {"first": {}, "second": {}},
        "producers": {"source": {"channel": "first", "arrivals": 100}},
        "services": {
            "relay": {
                "channel": "first",
                "service_time": 0,
                "ack": "auto",
                "prefetch": None,
                "publishes": {"channel": "second", "resend": None},
            },
            "sink": {"channel": "second", "service_time": 0, "ack": "auto", "prefetch": None},
        },
        "network": {"delay": 0, "loss": 0.15},
    }
    p, q = 0.45, 0.7
    tries, ever = theory.retransmissions(p, q, 2), theory.retransmissions(0.3, 0.4)
    published = 'of("relay", "published")'
    return [
        World(
            "at most once, over 4 hops that lose 15% each",
            repeated(four_hops, 2_000, 20, seed=108),
            (
                Line(
                    "share lost",
                    "1 - (1 - p)^4",
                    theory.single_attempt_loss(0.15, 4),
                    f'({published} - of("sink", "unique")) / {published}',
                ),
            ),
        ),
        World(
            "at least once with 2 attempts, 45% of messages and 70% of acks lost",
            repeated(lossy(p, q, 2), 6_000, 20, seed=109),
            (
                Line("share never delivered", "p^2", tries.never_delivered, "lost / published", 0.04),
                Line("mean copies", "(1 - p) (1 - s^2) / (1 - s)", tries.copies, "processed / published"),
                Line("mean attempts", "(1 - s^2) / (1 - s)", tries.attempts, "requests / published"),
                Line(
                    "delivered, yet not confirmed",
                    "s^2 - p^2",
                    tries.false_failure,
                    "(in_doubt - lost) / published",
                ),
            ),
        ),
        World(
            "at least once without a limit, 30% of messages and 40% of acks lost",
            repeated(lossy(0.3, 0.4, None), 3_000, 20, seed=110),
            (
                Line("duplicates per message", "q / (1 - q)", ever.copies - 1, "duplicates / published"),
                Line("mean attempts", "1 / ((1 - p) (1 - q))", ever.attempts, "requests / published"),
            ),
        ),
    ]
