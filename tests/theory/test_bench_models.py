"""The two models that the benchmark compares do the same work: what they find of W agrees."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from bench import __main__ as main
from bench import straightforward
from bench.measure import bare_heap, ledger_bytes, size_of
from bench.work import LOSS, reference_work
from sim import theory
from sim.metrics import measure
from sim.simulation import Simulation, simulate
from sim.stats import mean_ci
from tests.theory.helpers import CONFIDENCE, pairs

MESSAGES, RUNS = 6_000, 12
EXTRA = theory.retransmissions(LOSS, LOSS).copies ** 2 - 1  # 0.0203 per message


@pytest.fixture(scope="module")
def plain() -> list[list[straightforward.Message]]:
    """Runs of the plain SimPy model."""
    return [straightforward.run(MESSAGES, seed) for seed in range(RUNS)]


def test_the_plain_model_loses_nothing_and_repeats_as_it_must(
    plain: list[list[straightforward.Message]],
) -> None:
    messages = [message for run in plain for message in run]
    assert len(messages) == MESSAGES * RUNS
    assert all(message.first_processed is not None and message.confirmed is not None for message in messages)
    assert mean_ci([message.processings - 1 for message in messages], CONFIDENCE).covers(EXTRA)


def test_both_models_have_the_same_latency(plain: list[list[straightforward.Message]]) -> None:
    """Independent replications of each: the 99.9 % interval of the difference covers 0, and is narrow."""
    theirs = [fmean((message.first_processed or 0.0) - message.created for message in run) for run in plain]
    ours, extra = [], []
    for replication in range(RUNS):
        run = simulate(reference_work(MESSAGES), seed=41, replication=replication)
        figures = measure(run).figures
        assert figures["lost"] == figures["in_flight"] == 0 and figures["confirmed"] == MESSAGES
        ours.append(figures["latency_mean"] or 0.0)
        extra += [count - 1 for count in pairs(run, "orders", "billing").processings[:MESSAGES]]
    difference = mean_ci([a - b for a, b in zip(theirs, ours, strict=True)], CONFIDENCE)
    assert difference.covers(0.0)
    assert difference.half_width < 0.15 * fmean(ours)
    assert mean_ci(extra, CONFIDENCE).covers(EXTRA)


def test_w_takes_six_events_per_message() -> None:
    """An arrival, four packets and a service; redeliveries and timers add a little."""
    simulation = Simulation(reference_work(MESSAGES), 1, 0)
    first = next(simulation.world._eid)
    simulation.run()
    assert 6.0 < (next(simulation.world._eid) - first) / MESSAGES < 6.5


def test_the_size_of_a_ledger_counts_what_is_in_it() -> None:
    ledger = simulate(reference_work(MESSAGES)).ledger
    columns = 19 + 48  # bytes per message and per pair, as the ledger's own description says
    assert ledger_bytes(ledger) / MESSAGES > columns
    assert size_of([(1.0, 2)]) > size_of([])
    bare_heap(1_000)


def test_figures_become_text_json_and_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "HISTORY", tmp_path / "history.csv")
    figures = main.measure(1_000, 1, [1_000, 2_000])
    assert json.loads(json.dumps(figures)) == figures
    assert "plain SimPy / msgsim" in main.report(figures)
    for label in ("first", "second"):
        main.record(figures, label)
    header, *rows = (tmp_path / "history.csv").read_text().splitlines()
    assert header.startswith("label,python,cores,messages,ratio")
    assert [row.split(",")[0] for row in rows] == ["first", "second"]
