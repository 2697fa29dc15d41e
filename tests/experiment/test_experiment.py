"""Sweeps and replications: order, common random numbers, resuming, errors with their types."""

import json
import pickle
import threading
from dataclasses import replace

import joblib
import pytest

from sim.claims import ClaimError
from sim.experiment import broken, run, run_all
from sim.ledger import UnbalancedBooks
from sim.store import Store

from .fakes import Claim, Pretence, Scenario


@pytest.fixture
def pretence(monkeypatch):
    return Pretence(monkeypatch)


def text(result):
    return json.dumps(result.to_json())


def test_every_point_runs_with_every_replication_in_order(pretence):
    result = run(Scenario(), jobs=1)
    assert pretence.runs == [(loss, k) for loss in (0.0, 0.05) for k in range(3)]
    assert [row.params for row in result.rows] == [{"network.loss": 0.0}, {"network.loss": 0.05}]
    assert [o.figures["lost"] for row in result.rows for o in row.outcomes] == [0, 1, 2, 5, 6, 7]
    assert [row.metrics["lost"] for row in result.rows] == [1.0, 6.0]
    assert (result.seed, result.replications) == (1, 3)


def test_seed_and_replications_replace_the_scenarios_own(pretence):
    result = run(Scenario(), seed=9, replications=1)
    assert result.seed == 9 and result.to_json()["seed"] == 9
    assert [len(row.outcomes) for row in result.rows] == [1, 1]
    for wrong in ({"replications": 0}, {"jobs": 0}):
        with pytest.raises(ValueError, match=r"expected 1 .* or more, found 0"):
            run(Scenario(), **wrong)


def test_rows_stand_in_the_order_of_the_sweep_whoever_finishes_first(pretence):
    last_has_begun = threading.Event()

    def before(loss, replication):
        if (loss, replication) == (0.0, 0):
            assert last_has_begun.wait(60)
        elif (loss, replication) == (0.05, 2):
            last_has_begun.set()

    pretence.before = before
    with joblib.parallel_config(backend="threading"):
        result = run(Scenario(), jobs=2)
    assert pretence.runs[-1] == (0.0, 0) or pretence.runs[-2] == (0.0, 0)
    assert [o.figures["lost"] for row in result.rows for o in row.outcomes] == [0, 1, 2, 5, 6, 7]


def test_one_process_and_two_give_the_same_bytes(tmp_path):
    scenario = Scenario(claims=(Claim("lost == 0"), Claim("duplicates == 0", refuted=True)), messages=300)
    texts = {text(run(scenario, jobs=jobs)) for jobs in (1, 2)}
    stored = [text(run(scenario, jobs=2, store=tmp_path)) for _ in range(2)]
    assert len(texts | set(stored)) == 1


def test_replications_are_the_same_at_every_point():
    """Common random numbers: with the same settings, two points differ in nothing."""
    one, two = run(Scenario(losses=(0.05, 0.05)), replications=2).rows
    assert [o.figures for o in one.outcomes] == [o.figures for o in two.outcomes]
    assert one.outcomes[0].figures != one.outcomes[1].figures


# -- the store


def test_what_is_stored_is_not_simulated_again(pretence, tmp_path):
    first = run(Scenario(), store=tmp_path)
    assert len(pretence.runs) == 6
    again = run(Scenario(losses=(0.0, 0.05, 0.1)), store=Store(tmp_path))
    assert pretence.runs[6:] == [(0.1, 0), (0.1, 1), (0.1, 2)]
    assert [row.metrics for row in again.rows[:2]] == [row.metrics for row in first.rows]
    run(Scenario(), seed=2, store=tmp_path)
    assert len(pretence.runs) == 15


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_a_sweep_that_was_killed_goes_on_where_it_stopped(pretence, tmp_path, end):
    def before(loss, replication):
        if (loss, replication) == (0.05, 1):
            raise end

    pretence.before = before
    with pytest.raises(end):
        run(Scenario(), jobs=1, store=tmp_path)
    done = list(pretence.runs)
    assert done == [(0.0, 0), (0.0, 1), (0.0, 2), (0.05, 0)]
    pretence.before = lambda loss, replication: None
    told = []
    result = run(Scenario(), jobs=1, store=tmp_path, progress=lambda *counts: told.append(counts))
    assert pretence.runs[len(done) :] == [(0.05, 1), (0.05, 2)]
    assert told == [(4, 6), (5, 6), (6, 6)]
    assert text(result) == text(run(Scenario(), jobs=1))


def test_a_damaged_entry_is_simulated_again(pretence, tmp_path):
    whole = text(run(Scenario(), store=tmp_path))
    files = sorted(tmp_path.glob("*/*.json"))
    files[0].write_text(files[0].read_text()[:-9])
    Store(tmp_path).put(files[1].parent.name + files[1].stem, {"figures": {}})  # not an outcome
    assert text(run(Scenario(), store=tmp_path)) == whole
    assert len(pretence.runs) == 8


# -- errors


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kind", [UnbalancedBooks, ValueError])
def test_errors_keep_their_type_and_say_where_they_happened(pretence, jobs, kind):
    def before(loss, replication):
        if (loss, replication) == (0.05, 1):
            raise kind("orders/billing, message 3")

    pretence.before = before
    with joblib.parallel_config(backend="threading"), pytest.raises(kind, match="message 3") as caught:
        run(Scenario(), jobs=jobs)
    assert caught.value.__notes__ == ["row 1 (network.loss=0.05), replication 1, seed 1"]


def test_errors_of_other_processes_keep_their_type():
    error = UnbalancedBooks("orders/billing, message 3")
    error.add_note("row 1")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is UnbalancedBooks and str(copy) == str(error) and copy.__notes__ == ["row 1"]
    impossible = Scenario(losses=("much", "more"))  # no number: the network raises in the other process
    with pytest.raises((TypeError, ValueError)) as caught:
        run(impossible, jobs=2, replications=1)
    assert "replication 0, seed 1" in caught.value.__notes__[0]


# -- claims


def test_a_where_that_selects_nothing_stops_before_the_work(pretence):
    scenario = Scenario(claims=(Claim("lost == 0", where="loss == 0.5"),))
    with pytest.raises(ClaimError) as caught:
        run(scenario)
    assert str(caught.value) == "claim 'lost == 0': where: loss == 0.5 selects no row: loss is 0 or 0.05"
    assert pretence.runs == []


def test_a_claim_whose_ground_an_override_took_away_does_not_hold(pretence):
    scenario = Scenario(claims=(Claim("lost == 0", where="loss == 0"), Claim("lost >= 10")))
    result = run(scenario, overrides={"losses": (0.1, 0.2)})
    assert [verdict.holds for verdict in result.claims] == [False, True]
    observed = "cannot be judged: where: loss == 0 selects no row: loss is 0.1 or 0.2"
    assert result.claims[0].observed == observed
    assert result.scenario.losses == (0.1, 0.2)


def test_several_scenarios_are_run_as_each_alone(pretence, tmp_path):
    scenarios = [Scenario(name="a", losses=(0.05, 0.1)), Scenario(name="b", replications=2, seed=4)]
    progress = []
    results = run_all(scenarios, jobs=1, progress=lambda *done: progress.append(done), store=tmp_path)
    assert [text(result) for result in results] == [text(run(scenario, jobs=1)) for scenario in scenarios]
    assert [result.scenario for result in results] == scenarios
    assert (progress[0], progress[-1]) == ((0, 10), (10, 10))
    before = len(pretence.runs)
    run_all(scenarios, jobs=1, store=tmp_path)
    assert len(pretence.runs) == before


def test_of_several_scenarios_the_one_that_fails_is_named(pretence, monkeypatch):
    def fail(run):
        raise UnbalancedBooks("books")

    monkeypatch.setattr("sim.metrics.measure", fail)
    with pytest.raises(UnbalancedBooks) as caught:
        run_all([Scenario(name="a")], jobs=1)
    assert caught.value.__notes__ == ["a: row 0 (network.loss=0.0), replication 0, seed 1"]


def test_broken_judges_a_claim_under_its_broken_by(pretence):
    claim = Claim("lost <= 7", where="loss > 0", broken_by={"losses": (0.0, 0.05, 0.06)})
    scenario = Scenario(claims=(claim,))
    assert run(scenario).claims[0].holds
    pretence.runs.clear()
    verdict = broken(scenario, claim)
    assert not verdict.holds
    assert verdict.observed == "lost 5 to 8; false in 1 of 6 runs: loss=0.06, replication 2"
    assert {loss for loss, _ in pretence.runs} == {0.05, 0.06}  # the row without loss is not asked for
    with pytest.raises(ClaimError, match="expected a broken_by, found none"):
        broken(scenario, Claim("lost <= 7"))


def test_broken_runs_the_rows_that_at_looks_at(pretence):
    claim = Claim('lost <= at("lost", loss=0)', where="loss > 0", broken_by={"resend": False})
    assert not broken(Scenario(), claim).holds
    assert {loss for loss, _ in pretence.runs} == {0.0, 0.05}


def test_a_misconception_is_broken_where_it_is_true(pretence):
    claim = Claim("lost == 0", refuted=True, broken_by={"losses": (0.0,), "replications": 1})
    scenario = Scenario(claims=(claim,))
    assert run(scenario).claims[0].holds
    assert not broken(scenario, claim).holds
    assert broken(
        scenario, replace(claim, broken_by={"losses": (0.0,)})
    ).holds  # later replications lose some


# -- simulated anew


def test_messages_deliveries_and_trace_are_those_of_the_row():
    result = run(Scenario(losses=(0.0, 0.3), resend=False), replications=2)
    figures = result.rows[1].outcomes[1].figures
    assert figures["lost"] > 0
    messages, deliveries = result.messages(1, 1), result.deliveries(1, 1)
    assert len(messages) == figures["published"] == 200
    assert (deliveries["place"] == "lost").sum() == figures["lost"]
    assert sum(event.what == "processed" for event in result.trace(1, 1)) == figures["processed"]
    for wrong in ((2, 0), (0, 2), (-1, 0)):
        with pytest.raises(IndexError, match=r"expected a (row|replication) from 0 to 1, found"):
            result.messages(*wrong)


def test_a_recorded_trace_is_that_of_the_first_replication():
    result = run(Scenario(), replications=1, trace=True)
    assert len(result.traces) == 2
    assert result.trace(1) is result.traces[1]
    assert run(Scenario(), replications=1).trace(1) == result.traces[1]
