"""Same scenario, seed and lock file: the same bytes, whatever the process, the hash seed, the jobs and the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest

from sim.experiment import run
from sim.metrics import measure
from sim.scenario import load
from sim.simulation import simulate

COMMAND = ("run", "guarantee-by-pattern", "--json", "--no-plots", "--no-store", "--set", "duration=4 s")
FASTER = ("run", "retry-storm", "--json", "--no-plots", "--no-store", "--set", "duration=4 s")


def output(command: tuple[str, ...], out: str, **environment: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "sim", *command, "--out", out],
        capture_output=True,
        env=os.environ | environment,
        check=True,
    )
    assert len(done.stdout) > 1000
    return done.stdout


@cache
def reference(command: tuple[str, ...]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return output((*command, "--jobs", "1"), f"{folder}/out", PYTHONHASHSEED="0")


@pytest.mark.parametrize("command", [COMMAND, FASTER], ids=lambda c: c[1])
def test_the_hash_seed_and_the_process_change_nothing(command: tuple[str, ...], tmp_path) -> None:
    again = output((*command, "--jobs", "1"), str(tmp_path / "out"), PYTHONHASHSEED="12345")
    assert again == reference(command)


@pytest.mark.parametrize("command", [COMMAND, FASTER], ids=lambda c: c[1])
def test_the_number_of_jobs_changes_nothing(command: tuple[str, ...], tmp_path) -> None:
    assert output((*command, "--jobs", "2"), str(tmp_path / "out")) == reference(command)


def vector_extensions() -> list[str]:
    """Features of this CPU that NumPy dispatches on, and can be told to leave alone."""
    core = np._core._multiarray_umath
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


@pytest.mark.parametrize("command", [COMMAND, FASTER], ids=lambda c: c[1])
def test_the_vector_extensions_of_the_cpu_change_nothing(command: tuple[str, ...], tmp_path) -> None:
    features = vector_extensions()
    assert features, "NumPy dispatches on nothing here: this machine cannot show the difference"
    plain = output(
        (*command, "--jobs", "1"), str(tmp_path / "out"), NPY_DISABLE_CPU_FEATURES=" ".join(features)
    )
    assert plain == reference(command)


def test_two_halves_of_the_replications_are_the_whole() -> None:
    scenario = load("guarantee-by-pattern").override({"duration": "3 s"})
    whole = run(scenario, replications=4, jobs=1)
    point = scenario.points()[4]
    halves = [measure(simulate(point.config, scenario.seed, number)) for number in (2, 3, 0, 1)]
    assert [asdict(o) for o in halves[2:] + halves[:2]] == [asdict(o) for o in whole.rows[4].outcomes]


def test_another_seed_is_another_run() -> None:
    config = load("guarantee-by-pattern").override({"duration": "3 s"}).points()[0].config
    assert measure(simulate(config, 1)).figures != measure(simulate(config, 2)).figures


def test_one_component_more_leaves_the_draws_of_the_others_alone() -> None:
    """N-17, at the level of a scenario: the same messages arrive at the same instants."""
    config = load("guarantee-by-pattern").override({"duration": "3 s"}).points()
    queue, topic = (simulate(config[i].config, 1).ledger.channels["orders"] for i in (0, 1))
    assert list(queue.created[: len(queue)]) == list(topic.created[: len(topic)])
