"""Random worlds of a real system, written as a user would write a scenario, and how they are run."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from sim.metrics import PLACES, Outcome, measure
from sim.scenario import Scenario
from sim.simulation import Run, simulate

World = dict[str, Any]

seeds = st.integers(0, 2**32)


def examples(number: int) -> settings:
    """So many worlds, the same ones every time, and no time spent on shrinking one that fails.

    For `make worlds` as many as it asks for, and others for each seed.
    """
    wanted = int(os.environ.get("MSGSIM_WORLDS", "0"))
    return settings(
        max_examples=wanted or number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not wanted,
        phases=[Phase.explicit, Phase.generate],
    )


def some(draw: Any, **choices: tuple[Any, ...]) -> dict[str, Any]:
    """One of each of the choices by name; what is chosen to be ... is left to its default."""
    chosen = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    return {name: value for name, value in chosen.items() if value is not ...}


def nodes_of(number: int) -> list[str]:
    """The names of the nodes of a cluster."""
    return ["orders"] if number == 1 else [f"orders.{i + 1}" for i in range(number)]


def run(world: World, seed: int) -> tuple[Run, Outcome]:
    """A world's run and what is measured of it. Raises UnbalancedBooks."""
    done = simulate(Scenario.from_dict(world).points()[0].config, seed)
    return done, measure(done)


def check_books(outcome: Outcome) -> None:
    """The books balance, and each anomaly has as many causes as there are of it."""
    figures = outcome.figures
    assert figures["expected"] == sum(figures[place] for place in PLACES)
    assert figures["published"] == figures["confirmed"] + figures["failed"] + figures["in_doubt"]
    assert figures["processed"] == figures["unique"] + figures["duplicates"] + figures["phantom"]
    explained = dict.fromkeys(("lost", "expired", "rejected", "dead_lettered", "duplicate", "reordered"), 0)
    for cause in outcome.causes:
        explained[cause["anomaly"]] += cause["count"]
    assert explained.pop("duplicate") == figures["duplicates"]
    assert explained.pop("reordered") == figures["out_of_order"]
    assert explained == {place: figures[place] for place in explained}
