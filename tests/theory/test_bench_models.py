"""The two models that the benchmark compares do the same work: what they find of W agrees."""

from __future__ import annotations

import json
import math
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

MESSAGES, RUNS = 4_000, 10
EXTRA = theory.retransmissions(LOSS, LOSS).copies ** 2 - 1  # 0.0203 duplicates per message


def test_both_models_lose_nothing_repeat_alike_and_take_as_long() -> None:
    """Duplicates of each within its 99.9 % interval; that of the difference of mean latencies covers 0."""
    plain_latency, latency = [], []
    plain_extra: list[int] = []
    extra: list[int] = []
    for number in range(RUNS):
        plain = straightforward.run(MESSAGES, seed=number)
        assert len(plain) == MESSAGES and all(message.confirmed is not None for message in plain)
        plain_latency.append(
            fmean((message.first_processed or math.inf) - message.created for message in plain)
        )
        plain_extra += [message.processings - 1 for message in plain]

        run = simulate(reference_work(MESSAGES), seed=41, replication=number)
        figures = measure(run).figures
        assert figures["unique"] == figures["confirmed"] == MESSAGES
        latency.append(figures["latency_mean"] or 0.0)
        extra += [count - 1 for count in pairs(run, "orders", "billing").processings[:MESSAGES]]
    assert mean_ci(plain_extra, CONFIDENCE).covers(EXTRA)
    assert mean_ci(extra, CONFIDENCE).covers(EXTRA)
    difference = mean_ci([a - b for a, b in zip(plain_latency, latency, strict=True)], CONFIDENCE)
    assert difference.covers(0.0)
    assert difference.half_width < 0.25 * fmean(latency)


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
