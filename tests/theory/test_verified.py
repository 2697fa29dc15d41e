"""The list of `msgsim verify theory`: it agrees, it covers what it should, and it would notice a wrong formula."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.experiment import run_all
from sim.scenario import Scenario
from sim.verify.closed_forms import World, all_worlds, judge, protocols, verify

WORLDS = all_worlds()


def test_each_world_is_a_scenario_with_a_seed_of_its_own() -> None:
    scenarios = [Scenario.from_dict(world.scenario, name=world.title) for world in WORLDS]
    assert (
        len({scenario.seed for scenario in scenarios})
        == len({world.title for world in WORLDS})
        == len(WORLDS)
    )
    assert all(scenario.replications >= 20 for scenario in scenarios)
    assert all(0 < line.within <= 0.05 and line.exact > 0 for world in WORLDS for line in world.lines)
    assert sum(len(world.lines) for world in WORLDS) >= 12


@pytest.mark.slow
def test_every_line_agrees() -> None:
    report = verify(jobs=1)
    assert [f"{line.world}, {line.name}: {line}" for line in report.lines if line.verdict != "ok"] == []
    assert not report.has_missed


def test_a_formula_for_another_protocol_is_noticed() -> None:
    """Duplicates do not depend on the loss of messages: a formula that says so misses."""
    world: World = protocols()[-1]
    scenario = Scenario.from_dict(world.scenario | {"messages": 1_500, "replications": 10}, name="small")
    (result,) = run_all([scenario], jobs=1)
    right = replace(world.lines[0], within=0.2)
    wrong = replace(right, exact=1 / ((1 - 0.3) * (1 - 0.4)) - 1)
    assert judge(world, right, result.rows).verdict == "ok"
    assert judge(world, wrong, result.rows).verdict == "MISSED"
    assert judge(world, replace(right, within=1e-4), result.rows).verdict == "too wide"
