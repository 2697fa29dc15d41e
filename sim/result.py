"""What a scenario gave: figures per row of its sweep with their intervals, causes, verdicts on its claims."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sim.claims import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from sim.ledger import Event
    from sim.metrics import Outcome
    from sim.scenario import Point, Scenario

Number = int | float | None


@dataclass(frozen=True)
class Row:
    """One point of the sweep: its parameters by dotted path (SI units), and what its replications gave.

    `metrics` are the figures of design section 5; over several replications their means, with half widths of
    95% intervals as NAME_ci95. A figure that is null in one replication is null. `causes` are (mean) counts
    of (anomaly, cause, behaviour); `by` are the figures of each channel and subscription.
    """

    params: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    config: dict[str, Any]
    expansion: dict[str, Any]
    metrics: dict[str, Number]
    causes: list[dict[str, Any]]
    by: list[dict[str, Any]]


def make_row(point: Point, config: dict[str, Any], outcomes: Sequence[Outcome]) -> Row:
    """The row of a point of the sweep, of its replications in order and its expanded settings."""
    return Row(
        params=dict(point.params),
        outcomes=tuple(outcomes),
        config=config,
        expansion=dict(point.expansion),
        metrics=aggregate([outcome.figures for outcome in outcomes]),
        causes=_mean_causes([outcome.causes for outcome in outcomes]),
        by=_aggregate_by([outcome.by for outcome in outcomes]),
    )


def aggregate(replications: Sequence[Mapping[str, Number]]) -> dict[str, Number]:
    """Figures over replications: their means, each followed by NAME_ci95, the half width by Student's t.

    One replication's figures stay as they are. What is None, or not finite, in any replication is None.
    """
    figures: dict[str, Number] = {}
    for name in replications[0]:
        values = [replication[name] for replication in replications]
        figures[name] = mean(values)
        if len(values) > 1:
            figures[f"{name}_ci95"] = half_width(values)
    return figures


def mean(values: Sequence[Number]) -> Number:
    """The mean; a single value as it is (a count stays an int); None if any value is None or not finite."""
    numbers = _finite(values)
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else math.fsum(numbers) / len(numbers)


def half_width(values: Sequence[Number]) -> Number:
    """The half width of the 95% interval of the mean of two values or more; None as for `mean`."""
    from sim.stats import mean_ci

    numbers = _finite(values)
    return None if numbers is None else mean_ci(numbers, 0.95).half_width


def _finite(values: Sequence[Number]) -> list[int | float] | None:
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return numbers if len(numbers) == len(values) else None


def _mean_causes(replications: Sequence[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Mean counts of (anomaly, cause, behaviour), in that order; absent in a replication means none there."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for causes in replications:
        for cause in causes:
            kind = (cause["anomaly"], cause["cause"], cause["behaviour"])
            counts.setdefault(kind, []).append(cause["count"])
    n = len(replications)
    return [
        {"anomaly": kind[0], "cause": kind[1], "behaviour": kind[2]}
        | {"count": sum(counts[kind]) if n == 1 else sum(counts[kind]) / n}
        for kind in sorted(counts)
    ]


def _aggregate_by(replications: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    parts: dict[tuple[str, str], list[dict[str, Number]]] = {}
    for entries in replications:
        for entry in entries:
            figures = {
                name: value for name, value in entry.items() if name not in ("channel", "subscription")
            }
            parts.setdefault((entry["channel"], entry["subscription"]), []).append(figures)
    return [
        {"channel": channel, "subscription": subscription, **aggregate(figures)}
        for (channel, subscription), figures in parts.items()
    ]


@dataclass(frozen=True)
class Result:
    """The result of a scenario. Tables are pandas DataFrames, made when they are first asked for.

    `seed` and `replications` are those it ran with, `scenario` has its overrides applied. `traces` holds the
    recorded events of every row's first replication, if it ran with `trace=True`.
    """

    scenario: Scenario
    seed: int
    replications: int
    rows: tuple[Row, ...]
    claims: tuple[Verdict, ...]
    points: tuple[Point, ...] = field(repr=False)
    traces: tuple[list[Event], ...] = field(default=(), repr=False)

    @property
    def config(self) -> list[dict[str, Any]]:
        """The fully expanded settings of each row."""
        return [row.config for row in self.rows]

    @property
    def expansions(self) -> list[dict[str, Any]]:
        """What the guarantee filled in, for each row."""
        return [row.expansion for row in self.rows]

    @property
    def inert(self) -> dict[str, list[int]]:
        """Faults that touched nothing in any replication of a row, each with the numbers of those rows."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            for fault in dict.fromkeys(row.outcomes[0].inert):
                if all(fault in outcome.inert for outcome in row.outcomes):
                    found.setdefault(fault, []).append(i)
        return found

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per point of the sweep: its parameters, then its figures."""
        return _table({**row.params, **row.metrics} for row in self.rows)

    @cached_property
    def by(self) -> pd.DataFrame:
        """The figures of every (row, channel, subscription)."""
        return _table(
            {"row": i, **row.params, **entry} for i, row in enumerate(self.rows) for entry in row.by
        )

    @cached_property
    def causes(self) -> pd.DataFrame:
        """Why: row, anomaly, cause, behaviour, count."""
        columns = ["row", "anomaly", "cause", "behaviour", "count"]
        lines = [{"row": i, **cause} for i, row in enumerate(self.rows) for cause in row.causes]
        return _table(lines, columns)

    @cached_property
    def series(self) -> pd.DataFrame:
        """Backlog, arrivals and so on over time: row, replication, time (s), then a column each."""
        import pandas as pd

        parts = [
            pd.DataFrame({"row": i, "replication": number, **outcome.series})
            for i, row in enumerate(self.rows)
            for number, outcome in enumerate(row.outcomes)
        ]
        return pd.concat(parts, ignore_index=True)

    def messages(self, row: int = 0, replication: int = 0) -> pd.DataFrame:
        """Every message of one run, which is simulated anew (and comes out the same).

        Raises IndexError for a row or replication that is not there, here and below.
        """
        from sim import metrics

        return metrics.messages(self._again(row, replication))

    def deliveries(self, row: int = 0, replication: int = 0) -> pd.DataFrame:
        """Every pair of message and subscription of one run, which is simulated anew."""
        from sim import metrics

        return metrics.deliveries(self._again(row, replication))

    def trace(self, row: int = 0, replication: int = 0) -> list[Event]:
        """Everything that happened in one run: as recorded, or else simulated anew."""
        if replication == 0 and self.traces:
            return self.traces[row]
        return self._again(row, replication, trace=True).trace or []

    def _again(self, row: int, replication: int, trace: bool = False) -> Any:
        from sim.simulation import simulate

        if not 0 <= replication < self.replications:
            raise IndexError(f"expected a replication from 0 to {self.replications - 1}, found {replication}")
        if not 0 <= row < len(self.rows):
            raise IndexError(f"expected a row from 0 to {len(self.rows) - 1}, found {row}")
        return simulate(self.points[row].config, self.seed, replication, trace)

    def to_json(self) -> dict[str, Any]:
        """The result as `msgsim run --json` prints it (design section 6); no NaN or infinity, but None."""
        rows = [
            {
                "params": plain(row.params),
                "metrics": plain(row.metrics),
                "causes": [
                    {name: cause[name] for name in ("anomaly", "cause", "count")} for cause in row.causes
                ],
            }
            for row in self.rows
        ]
        claims = [
            {
                "claim": verdict.claim.statement,
                "holds": verdict.holds,
                "observed": verdict.observed,
                "refuted": verdict.refuted,
            }
            for verdict in self.claims
        ]
        return {"scenario": self.scenario.name, "seed": self.seed, "rows": rows, "claims": claims}


def outcome_dict(outcome: Outcome) -> Any:
    """An outcome as it comes back from JSON, so that a stored one and a fresh one are the same."""
    return json.loads(json.dumps(vars(outcome), default=lambda scalar: scalar.item()))


def plain(value: Any) -> Any:
    """A value ready for JSON: infinities and NaN are None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _table(lines: Iterable[Mapping[str, Any]], columns: list[str] | None = None) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(lines), columns=columns)
