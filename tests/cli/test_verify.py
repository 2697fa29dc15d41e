"""`msgsim verify` as its users meet it: what it prints and writes, its exit codes, and what is wrong with its words."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from sim.cli import main
from sim.scenario import index
from sim.verify import closed_forms, published, semantics

CASE = """\
title: A consumer 100 ms away
question: How busy is it?
duration: 20 s
warmup: 2 s
drain_limit: 1 s
channels:
  queue: {transport: connection, ack_timeout: null}
producers:
  source: {arrivals: {deterministic: 300/s}}
services:
  worker: {service_time: 4 ms}
network: {delay: 50 ms}
sweep:
  services.worker.prefetch: [1, 26]
published:
  case: P-03
  source: "Matthew Sackman: Some queuing theory"
  url: https://example.org/queuing
  year: 2012
  nature: worked-example
  strength: A
  lines:
    - figure: busy fraction, prefetch 1
      value: 0.038
      predicted: goodput * 0.004
      where: prefetch == 1
      tolerance: 2%
    - {figure: round trip, value: 100, unit: ms, where: prefetch == 26, predicted: 2 * transit_mean, input: true}
"""
QUICK = CASE.replace("P-03", "P-10").replace("where: prefetch == 1\n", "where: prefetch == 26\n")


@pytest.fixture
def scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scenarios of its own, with two published cases; the second misses."""
    folder = tmp_path / "scenarios"
    (folder / "published").mkdir(parents=True)
    (folder / "published" / "p03-prefetch.yaml").write_text(CASE)
    (folder / "published" / "p10-other.yaml").write_text(QUICK)
    monkeypatch.setattr(index, "scenarios_folder", lambda: folder)
    monkeypatch.setattr(published, "scenarios_folder", lambda: folder)
    return folder


@pytest.fixture
def msgsim(tmp_path: Path, scenarios: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Runs the command in this process: exit code, standard output, error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(line: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            main(shlex.split(line))
        return exit.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


def explain(scenarios: Path, line: str = "busy fraction, prefetch 1") -> None:
    """List a line of P-10 as a deviation."""
    file = scenarios / "published" / "deviations.yaml"
    file.write_text(f'- {{case: P-10, line: "{line}", reason: a case that is wrong on purpose}}\n')


# -- published measurements


def test_a_case_that_agrees(msgsim: Any) -> None:
    code, out, err = msgsim("verify published P-03 --no-plots")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"P-03  A consumer 100 ms away \(textbook; worked example, strength A\)", out)
    assert re.search(r"ok +busy fraction, prefetch 1 +0\.038 +0\.03\d+ +\+?\S+% +2%", out)
    assert re.search(r"input +round trip +100 ms +100 +0% +–", out)
    assert "P-03: Matthew Sackman: Some queuing theory, 2012\n    https://example.org/queuing\n" in out
    assert "2 lines of 1 cases: 1 ok, 1 input\n" in out
    assert "P-10" not in out
    assert out.endswith("Written: published.json in reports/verify\n")


def test_a_miss_is_exit_code_1_unless_it_is_explained(msgsim: Any, scenarios: Path) -> None:
    code, out, err = msgsim("verify published --no-plots")
    assert (code, err) == (1, "")
    assert re.search(r"MISSED +busy fraction", out)
    assert "4 lines of 2 cases: 1 ok, 2 input, 1 MISSED\n" in out
    explain(scenarios)
    code, out, _ = msgsim("verify published --no-plots")
    assert code == 0
    assert re.search(r"explained +busy fraction", out)
    assert "Explained\n  P-10  busy fraction, prefetch 1: a case that is wrong on purpose\n" in out
    (scenarios / "published" / "deviations.yaml").write_text(
        '- {case: P-03, line: "busy fraction, prefetch 1", reason: x}\n'
    )
    code, out, _ = msgsim("verify published P-03 --no-plots")
    assert code == 0
    assert "Listed as a deviation, and within its tolerance: P-03: busy fraction" in out


def test_json_is_one_object_and_nothing_else(msgsim: Any) -> None:
    code, out, err = msgsim("verify published --json --out here")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert list(found) == ["published"]
    report = found["published"]
    assert list(report) == ["cases", "lines", "verdicts", "stale_deviations"]
    assert list(report["cases"][0]) == [
        *("case", "title", "scenario", "system", "source", "url", "year", "nature", "strength")
    ]
    fields = "case scenario system figure unit published predicted half_width tolerance allowed verdict note deviation"
    assert [list(line) for line in report["lines"]] == [fields.split()] * 4
    assert report["verdicts"] == {"ok": 1, "input": 2, "explained": 0, "MISSED": 1}
    assert report["lines"][0]["predicted"] == pytest.approx(0.004 / 0.104, rel=0.01)
    assert json.loads(Path("here", "published.json").read_text()) == report
    names = sorted(path.name for path in Path("here").iterdir())
    assert names == ["published-ratio.png", "published.json", "published.png"]


def test_finished_runs_are_kept_and_used(msgsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = msgsim("verify published --no-plots --json")

    def fail(*args: Any) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr("sim.simulation.simulate", fail)
    assert msgsim("verify published --no-plots --json") == first
    assert msgsim("verify published --no-plots --no-store")[0] == 3
    assert msgsim("run published/p03-prefetch --no-plots --json")[0] == 0  # a run finds them, too


def test_published_scenarios_are_listed_in_a_group_of_their_own(msgsim: Any) -> None:
    assert json.loads(msgsim("list --json")[1]) == []
    out = msgsim("list")[1]
    assert "Published measurements" in out and "published/p03-prefetch\n    A consumer 100 ms away\n" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("verify publshed", "verify: expected a part, found 'publshed'; did you mean 'published'?"),
        ("verify x", "verify: expected a part, found 'x'; choose from theory, published, semantics"),
        ("verify published P-04", "no published case is named 'P-04'; there are P-03, P-10"),
        ("verify theory P-03", "verify theory: expected no names, found 'P-03'; its list is fixed"),
        ("verify published --run", "--run: expected after verify semantics, whose tests it runs"),
        ("verify --run", "--run: expected after verify semantics, whose tests it runs"),
        ("verify --jobs 0", "--jobs: expected a whole number, 1 or more, found '0'"),
        ("verify published --out file", "--out file: expected a folder, found a file"),
        ("verify semantics R-99", "no system or behaviour is named 'R-99'; did you mean 'R-39'?"),
        ("verify semantics rabitmq", "no system or behaviour is named 'rabitmq'; did you mean 'rabbitmq'?"),
    ],
)
def test_bad_input_is_one_line(msgsim: Any, line: str, message: str) -> None:
    Path("file").touch()
    assert msgsim(line) == (2, "", f"msgsim: {message}\n")
    assert not Path("reports").exists()


def test_a_broken_case_is_bad_input(msgsim: Any, scenarios: Path) -> None:
    file = scenarios / "published" / "p10-other.yaml"
    file.write_text(QUICK.replace("tolerance: 2%", "tolerance: 2 s"))
    code, out, err = msgsim("verify published")
    assert (code, out) == (2, "")
    assert err.startswith(
        f"msgsim: {file}:27: published.lines.0.tolerance: expected a tolerance without a unit"
    )


# -- closed forms


@pytest.fixture
def short_list(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One world of the list, much smaller, with a line that holds and whatever else is asked for."""

    def use(*others: closed_forms.Line) -> None:
        scenario = closed_forms.repeated(closed_forms.lossy(0.3, 0.4, None), 400, 4, seed=5)
        right = closed_forms.Line("duplicates", "q / (1 - q)", 2 / 3, "duplicates / published", within=1.0)
        monkeypatch.setattr(
            closed_forms, "all_worlds", lambda: [closed_forms.World("a world", scenario, (right, *others))]
        )

    use()
    return use


def test_closed_forms(msgsim: Any, short_list: Any) -> None:
    code, out, err = msgsim("verify theory")
    assert (code, err) == (0, "")
    assert re.search(r"a world\n +ok +duplicates: q / \(1 - q\) +0\.6667 +0\.\d+ ± 0\.\d+\n", out)
    assert "1 lines, 0 missed\n" in out
    report = json.loads(msgsim("verify theory --json")[1])["theory"]
    assert (report["missed"], len(report["lines"])) == (0, 1)
    assert json.loads(Path("reports/verify/theory.json").read_text()) == report


def test_a_formula_that_is_wrong_or_an_interval_that_says_nothing_is_a_miss(
    msgsim: Any, short_list: Any
) -> None:
    short_list(closed_forms.Line("wrong", "q", 5.0, "duplicates / published", within=1.0))
    code, out, _ = msgsim("verify theory")
    assert code == 1 and re.search(r"MISSED +wrong: q", out)
    short_list(closed_forms.Line("wide", "q / (1 - q)", 2 / 3, "duplicates / published", within=0.001))
    code, out, _ = msgsim("verify theory")
    assert code == 1 and re.search(r"too wide +wide", out)


# -- behaviours


def test_behaviours_are_shown_with_their_source_and_tests(msgsim: Any) -> None:
    code, out, err = msgsim("verify semantics N-13 n-01")
    assert (code, err) == (0, "")
    assert "Network, faults and statistics\n" in out
    assert "✓ N-13  Page cache and disk." in out
    assert "[Rebello 2020, derived]" in out
    assert "test_N13_a_process_crash_keeps_what_was_written\n" in out
    assert "2 behaviours: 2 passed\n" in out
    assert "R-01" not in out


def test_behaviours_as_json(msgsim: Any) -> None:
    code, out, _ = msgsim("verify semantics --json")
    report = json.loads(out)["semantics"]
    assert code == (1 if report["statuses"]["failed"] else 0)
    fields = ["system", "id", "title", "claim", "source", "left_out", "tests", "status"]
    assert all(list(behaviour) == fields for behaviour in report["behaviours"])
    ids = [behaviour["id"] for behaviour in report["behaviours"]]
    assert len(set(ids)) == len(ids) >= 60
    assert sum(report["statuses"].values()) == len(ids)


def test_a_failed_test_is_exit_code_1(msgsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fail(root: Path, keys: list[str]) -> dict[str, str]:
        asked.extend(keys)
        return dict.fromkeys(keys, "passed") | {keys[0]: "failed"}

    monkeypatch.setattr(semantics, "run_tests", fail)
    code, out, _ = msgsim("verify semantics N-04 N-12 --run")
    assert code == 1
    assert [key.partition("::test_")[2][:3] for key in asked] == ["N04", "N12"]
    assert "✗ N-04" in out and "✓ N-12" in out and "(failed)" in out


def test_without_its_tests_nothing_can_be_run(msgsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantics, "CHECKOUT", Path("nowhere"))
    code, out, err = msgsim("verify semantics N-04 --run")
    assert (code, out) == (2, "")
    assert err == "msgsim: --run: expected a checkout with its tests, found an installed package\n"


@pytest.mark.slow
def test_the_tests_of_a_behaviour_can_be_run_anew(msgsim: Any) -> None:
    code, out, err = msgsim("verify semantics N-04 --run")
    assert (code, err) == (0, "")
    assert "1 behaviours: 1 passed\n" in out


def test_without_a_part_all_three_are_verified(msgsim: Any, short_list: Any, scenarios: Path) -> None:
    explain(scenarios)
    code, out, err = msgsim("verify --json --no-plots")
    assert (code, err) == (0, "")
    assert list(json.loads(out)) == ["theory", "published", "semantics"]
    names = sorted(path.name for path in Path("reports/verify").iterdir())
    assert names == ["published.json", "semantics.json", "theory.json"]
