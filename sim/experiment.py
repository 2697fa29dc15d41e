"""Running a scenario: every point of its sweep times every replication, in parallel, each stored at once.

Common random numbers: replication k has the same random streams at every point, so that points differ by
what the sweep changes and not by luck. Results depend neither on the number of processes nor on which task
is finished first.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.claims import ClaimError, Verdict, judge, needs_other_rows, select
from sim.config import Config, ProducerConfig
from sim.result import Result, Row, make_row, outcome_dict
from sim.store import Store, key

if TYPE_CHECKING:
    from sim.metrics import Outcome
    from sim.scenario import Claim, Point, Scenario

Progress = Callable[[int, int], None]  # tasks done, tasks in all

TINY = 30_000  # messages: about a second of work, in which other processes would just have started


@dataclass(frozen=True)
class Task:
    """One run: a point of the sweep under one replication."""

    label: str
    config: Config
    seed: int
    replication: int
    key: str


def run(
    scenario: Scenario | str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    replications: int | None = None,
    jobs: int | None = None,
    messages: int | None = None,
    trace: bool = False,
    store: Store | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a scenario (or the one of that name or file) and judge its claims.

    `overrides` are values by dotted path as a scenario file has them; `messages` is how many each producer
    publishes; `seed` and `replications` replace the scenario's own. `jobs` processes work at it (default: all
    cores, or this process alone where there is little to do). With a `store`, finished tasks are looked up
    and kept there. With `trace`, the first replication of every row is recorded.

    Raises ScenarioError or ClaimError (both ValueErrors) for bad input, UnbalancedBooks for a bug of a model.
    A claim that cannot be judged does not hold if there are overrides: they may well take its ground away.
    """
    scenario, overridden = _prepared(scenario, overrides, messages)
    seed = scenario.seed if seed is None else seed
    replications = scenario.replications if replications is None else replications
    if replications < 1:
        raise ValueError(f"expected 1 replication or more, found {replications}")
    points = scenario.points()
    if not overridden:
        _check_claims(scenario.claims, points)
    rows = _rows(points, seed, replications, jobs, store, progress)
    return Result(
        scenario=scenario,
        seed=seed,
        replications=replications,
        rows=rows,
        claims=tuple(_verdict(claim, rows, lenient=overridden) for claim in scenario.claims),
        points=tuple(points),
        traces=tuple(_trace(point.config, seed) for point in points) if trace else (),
    )


def run_all(
    scenarios: Sequence[Scenario],
    *,
    jobs: int | None = None,
    store: Store | Path | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Run several scenarios as they are, all their tasks together; their claims are not judged.

    `jobs`, `store` and `progress` are those of `run`, and so is what it raises for a bug of a model.
    """
    plans = [
        _Plan.of(scenario.points(), scenario.seed, scenario.replications, f"{scenario.name}: ")
        for scenario in scenarios
    ]
    tasks = [task for plan in plans for task in plan.tasks]
    outcomes = iter(_perform(tasks, jobs, Store(store) if isinstance(store, Path) else store, progress))
    return [
        Result(
            scenario=scenario,
            seed=scenario.seed,
            replications=scenario.replications,
            rows=plan.rows(list(islice(outcomes, len(plan.tasks)))),
            claims=(),
            points=tuple(plan.points),
        )
        for scenario, plan in zip(scenarios, plans, strict=True)
    ]


def broken(
    scenario: Scenario, claim: Claim, *, jobs: int | None = None, store: Store | None = None
) -> Verdict:
    """The verdict on a claim where its `broken_by` overrides the scenario: it should not hold there.

    Same seed and replications, unless it overrides those; only the rows that the claim speaks of are run.
    Raises ClaimError for a claim without `broken_by`, or one that cannot be judged there.
    """
    if not claim.broken_by:
        raise ClaimError(f"{claim.statement}: expected a broken_by, found none")
    scenario = scenario.override(claim.broken_by)
    points = scenario.points()
    if not needs_other_rows(claim.statement):
        points = [points[i] for i in select(claim.where, [point.params for point in points])]
    return judge(claim, _rows(points, scenario.seed, scenario.replications, jobs, store, None))


def _prepared(
    scenario: Scenario | str | Path, overrides: Mapping[str, Any] | None, messages: int | None
) -> tuple[Scenario, bool]:
    """The scenario to run, and whether it is not quite as its author wrote it."""
    if isinstance(scenario, str | Path):
        from sim.scenario import load

        scenario = load(scenario)
    changes = dict(overrides or {}) | ({} if messages is None else {"messages": messages})
    return (scenario.override(changes) if changes else scenario), bool(changes)


def _check_claims(claims: Sequence[Claim], points: Sequence[Point]) -> None:
    """Find a `where` that selects nothing before the work is done."""
    for claim in claims:
        try:
            select(claim.where, [point.params for point in points])
        except ClaimError as error:
            raise ClaimError(f"claim {claim.statement!r}: {error}") from None


def _verdict(claim: Claim, rows: Sequence[Row], lenient: bool) -> Verdict:
    try:
        return judge(claim, rows)
    except ClaimError as error:
        if not lenient:
            raise ClaimError(f"claim {claim.statement!r}: {error}") from None
        return Verdict(claim, False, f"cannot be judged: {error}", claim.refuted)


def _trace(config: Config, seed: int) -> list[Any]:
    from sim.simulation import simulate

    return simulate(config, seed, 0, trace=True).trace or []


# -- tasks --------------------------------------------------------------------------------------------------


def _rows(
    points: Sequence[Point],
    seed: int,
    replications: int,
    jobs: int | None,
    store: Store | Path | None,
    progress: Progress | None,
) -> tuple[Row, ...]:
    plan = _Plan.of(points, seed, replications)
    return plan.rows(_perform(plan.tasks, jobs, Store(store) if isinstance(store, Path) else store, progress))


@dataclass(frozen=True)
class _Plan:
    """The tasks of a scenario's points, and how their outcomes become rows."""

    points: Sequence[Point]
    configs: list[dict[str, Any]]
    replications: int
    tasks: list[Task]

    @classmethod
    def of(cls, points: Sequence[Point], seed: int, replications: int, name: str = "") -> _Plan:
        from sim.scenario import config_dict

        configs = [config_dict(point.config) for point in points]
        tasks = [
            Task(name + _label(point, i), point.config, seed, replication, key(config, seed, replication))
            for i, (point, config) in enumerate(zip(points, configs, strict=True))
            for replication in range(replications)
        ]
        return cls(points, configs, replications, tasks)

    def rows(self, outcomes: Sequence[Outcome]) -> tuple[Row, ...]:
        """The rows, from the outcomes of the tasks in their order."""
        n = self.replications
        return tuple(
            make_row(point, config, outcomes[i * n : (i + 1) * n])
            for i, (point, config) in enumerate(zip(self.points, self.configs, strict=True))
        )


def _label(point: Point, number: int) -> str:
    params = ", ".join(f"{path}={value}" for path, value in point.params.items())
    return f"row {number} ({params})" if params else f"row {number}"


def _perform(
    tasks: Sequence[Task], jobs: int | None, store: Store | None, progress: Progress | None
) -> list[Outcome]:
    """The outcomes of the tasks, in their order."""
    from sim.metrics import Outcome

    found: dict[int, Outcome] = {}
    for i, task in enumerate(tasks):
        stored = None if store is None else store.get(task.key)
        try:
            found |= {} if stored is None else {i: Outcome(**stored)}
        except TypeError:
            continue  # whatever lies there is not an outcome
    if progress:
        progress(len(found), len(tasks))
    missing = [i for i in range(len(tasks)) if i not in found]
    for i, outcome in _results(tasks, missing, _processes(tasks, missing, jobs), store):
        found[i] = Outcome(**outcome)
        if progress:
            progress(len(found), len(tasks))
    return [found[i] for i in range(len(tasks))]


def _results(
    tasks: Sequence[Task], numbers: Sequence[int], jobs: int, store: Store | None
) -> Iterator[tuple[int, Any]]:
    """The numbers of tasks and their outcomes, as they are finished."""
    if jobs == 1:
        for i in numbers:
            yield perform(i, tasks[i], store)
        return
    from joblib import Parallel, delayed

    # No backend is named: it is joblib's own, or whatever the caller has chosen with joblib.parallel_config.
    pool = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    with _deaf_to_interrupts():
        results = pool(delayed(perform)(i, tasks[i], store) for i in numbers)
    yield from results


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started meanwhile will ignore the keyboard's interrupt, which is for this process to handle."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def perform(number: int, task: Task, store: Store | None) -> tuple[int, Any]:
    """Run one task and store its outcome; what goes wrong is noted with the task that it happened to."""
    from sim.metrics import measure
    from sim.simulation import simulate

    try:
        outcome = outcome_dict(measure(simulate(task.config, task.seed, task.replication)))
    except Exception as error:
        error.add_note(f"{task.label}, replication {task.replication}, seed {task.seed}")
        raise
    if store is not None:
        store.put(task.key, outcome)
    return number, outcome


def _processes(tasks: Sequence[Task], missing: Sequence[int], jobs: int | None) -> int:
    """How many processes to use; `jobs` is the user's wish."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"expected 1 job or more, found {jobs}")
    if len(missing) < 2 or jobs == 1:
        return 1
    if jobs is None and math.fsum(_size(tasks[i].config) for i in missing) < TINY:
        return 1
    from joblib import cpu_count

    return min(len(missing), jobs or int(cpu_count()))


def _size(config: Config) -> float:
    """About how many messages the producers of a run publish; infinite if that cannot be said beforehand."""
    return math.fsum(_published(producer, config) for producer in config.producers.values())


def _published(producer: ProducerConfig, config: Config) -> float:
    app = producer.app
    limits: list[float | None] = [app.messages, config.messages]
    if config.duration is not None:
        limits.append(getattr(app.arrivals, "mean_rate", math.inf) * config.duration)
    return app.instances * min((n for n in limits if n is not None), default=math.inf)
