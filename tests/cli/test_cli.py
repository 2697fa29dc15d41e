"""The command line as its users meet it: one line for what is wrong, exit codes, JSON, what a run leaves behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sim
from sim.cli import main
from sim.ledger import UnbalancedBooks

SCENARIO = """\
title: A lossy network
question: What does [loss] do?
messages: 60
seed: 3
replications: 2
channels: {orders: {}}
producers: {shop: {arrivals: 100/s, resend: {timeout: 50 ms}}}
services: {billing: {service_time: 1 ms}}
network: {loss: 20%}
sweep:
  guarantee: [at-most-once, exactly-once]
expect:
  - claim: lost == 0
    where: guarantee == "exactly-once"
    broken_by: {guarantee: at-most-once}
    because: What is not confirmed
      is sent again.
  - {claim: lost == 0, refuted: true}
"""
FALSE_CLAIM = SCENARIO.replace("- {claim: lost == 0, refuted: true}", "- {claim: lost == 0}")


@pytest.fixture
def msgsim(tmp_path, monkeypatch, capsys):
    """Runs the command within this process in a folder with `lossy.yaml`: exit code, standard output, error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("lossy.yaml").write_text(SCENARIO)

    def run(line):
        with pytest.raises(SystemExit) as exit:
            main(shlex.split(line))
        return exit.value.code, *capsys.readouterr()

    return run


def in_process_of_its_own(*words, code="import sys; from sim.cli import main; main(sys.argv[1:])"):
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=Path(sim.__file__).parents[1],
        timeout=120,
    )


# -- bad input: one line, exit code 2


@pytest.mark.parametrize(
    "line, message",
    [
        ("rum", "msgsim: No such command 'rum'. Did you mean 'run'? (see msgsim --help)"),
        ("--verson", "msgsim: No such option: --verson (Possible options: --version) (see msgsim --help)"),
        ("run", "msgsim run: Missing argument 'NAME|FILE' (see msgsim run --help)"),
        ("run a b", "msgsim run: Got unexpected extra argument(s) (b) (see msgsim run --help)"),
        (
            "run lossy.yaml --sed 3",
            "msgsim run: No such option: --sed (Possible options: --seed, --set) (see msgsim run --help)",
        ),
        ("run lossy.yaml -x", "msgsim run: No such option: -x (see msgsim run --help)"),
        ("run lossy.yaml --seed", "msgsim: Option '--seed' requires an argument (see msgsim --help)"),
        ("run lossy.yaml --json=yes", "msgsim: Option '--json' does not take a value (see msgsim --help)"),
        ("run lossy.yaml --seed abc", "msgsim: --seed: expected a whole number, 0 or more, found 'abc'"),
        ("run lossy.yaml --seed -1", "msgsim: --seed: expected a whole number, 0 or more, found '-1'"),
        ("run lossy.yaml --jobs 0", "msgsim: --jobs: expected a whole number, 1 or more, found '0'"),
        ("run lossy.yaml --jobs 1.5", "msgsim: --jobs: expected a whole number, 1 or more, found '1.5'"),
        (
            "run lossy.yaml --replications ''",
            "msgsim: --replications: expected a whole number, 1 or more, found ''",
        ),
        (
            "run lossy.yaml --messages 1e3",
            "msgsim: --messages: expected a whole number, 1 or more, found '1e3'",
        ),
        ("run lossy.yaml --set loss", "msgsim: --set loss: expected PATH=VALUE such as network.loss=5%"),
        ("run lossy.yaml --set =3", "msgsim: --set =3: expected PATH=VALUE such as network.loss=5%"),
        (
            "run lossy.yaml --set network.loss=[1",
            "msgsim: --set network.loss=[1: expected a value in YAML such as 5% or [1, 2], found '[1'",
        ),
        (
            "run lossy.yaml --set network.los=5%",
            "msgsim: --set network.los: unknown path; did you mean 'network.loss'?",
        ),
        (
            "run lossy.yaml --set network.loss=200%",
            "msgsim: --set network.loss: expected a share from 0 to 1 such as 2%, found '200%'",
        ),
        ("run lossy.yaml --out lossy.yaml", "msgsim: --out lossy.yaml: expected a folder, found a file"),
        (
            "run lossy.yaml --out .",
            "msgsim: --out .: expected a folder to be made anew, found the current one",
        ),
        (
            "run lossy.yaml --out ..",
            "msgsim: --out ..: expected a new folder or that of an earlier run, found one with other files",
        ),
        ("run missing.yaml", "msgsim: missing.yaml: cannot be read: No such file or directory"),
        ("new lossy", "msgsim: lossy.yaml: expected the name of a new file, found one that is there already"),
        ("new ''", "msgsim: expected a name such as my-queue, found ''"),
        ("new missing/one", "msgsim: missing/one.yaml: No such file or directory"),
        ("schema x", "msgsim schema: Got unexpected extra argument(s) (x) (see msgsim schema --help)"),
        (
            "list --jsn",
            "msgsim list: No such option: --jsn (Possible options: --json) (see msgsim list --help)",
        ),
    ],
)
def test_bad_input_is_one_line_on_standard_error(msgsim, line, message):
    assert msgsim(line) == (2, "", message + "\n")
    assert not Path("reports").exists()


def test_a_broken_scenario_is_one_line(msgsim):
    Path("lossy.yaml").write_text(SCENARIO.replace("claim: lost == 0\n", "claim: lots == 0\n"))
    code, out, err = msgsim("run lossy.yaml")
    assert (code, out) == (2, "")
    assert err == "msgsim: lossy.yaml:13: expect.0.claim: unknown name 'lots'; did you mean 'lost'?\n"


def test_a_claim_about_no_row_is_bad_input(msgsim):
    Path("lossy.yaml").write_text(SCENARIO.replace('"exactly-once"', '"at-least-once"'))
    code, out, err = msgsim("run lossy.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "msgsim: claim 'lost == 0': where: guarantee == \"at-least-once\" selects no row: "
        "guarantee is at-most-once or exactly-once\n"
    )


# -- running


def test_a_run_shows_figures_causes_and_verdicts(msgsim):
    code, out, err = msgsim("run lossy.yaml --no-plots")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for part in (
        "A lossy network\nWhat does [loss] do?\n2 rows, seed 3, 2 replications: mean ± half width",
        "published",
        "latency",
        "at-most-once ",
        "channels.orders.storage: memory",
        "lost: delivery_lost  ",
        '✓ lost == 0  where guarantee == "exactly-once"',
        "because: What is not confirmed is sent again.",
        "✓ not so, as expected: lost == 0",
        "Report:   reports/runs/lossy/report.html\n",
    ):
        assert part in out, part
    assert sorted(p.name for p in Path("reports/runs/lossy").iterdir()) == ["report.html", "result.json"]


def test_json_is_one_object_of_the_agreed_shape(msgsim):
    code, out, err = msgsim("run lossy.yaml --json --no-plots --out here")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result) == ["scenario", "seed", "rows", "claims"]
    assert (result["scenario"], result["seed"]) == ("lossy", 3)
    assert [row["params"] for row in result["rows"]] == [
        {"guarantee": "at-most-once"},
        {"guarantee": "exactly-once"},
    ]
    for row in result["rows"]:
        assert list(row) == ["params", "metrics", "causes"]
        metrics = row["metrics"]
        places = ("unique", "in_flight", "dead_lettered", "expired", "rejected", "lost")
        assert metrics["expected"] == pytest.approx(sum(metrics[place] for place in places), abs=1e-9)
        assert metrics["published"] == 60 and "lost_ci95" in metrics
        lost = sum(cause["count"] for cause in row["causes"] if cause["anomaly"] == "lost")
        assert lost == pytest.approx(metrics["lost"], abs=1e-9)
        assert all(list(cause) == ["anomaly", "cause", "count"] for cause in row["causes"])
    assert [list(claim) for claim in result["claims"]] == [["claim", "holds", "observed", "refuted"]] * 2
    assert [claim["holds"] for claim in result["claims"]] == [True, True]
    assert json.loads(Path("here", "result.json").read_text()) == result


def test_one_job_and_two_print_the_same_bytes(msgsim):
    outputs = {msgsim(f"run lossy.yaml --json --no-plots --no-store --jobs {jobs}") for jobs in (1, 2)}
    assert len(outputs) == 1
    assert not Path("reports/runs/.store").exists()


def test_options_replace_what_the_scenario_says(msgsim):
    line = "run lossy.yaml --json --no-plots --seed 9 --replications 1 --messages 20"
    result = json.loads(msgsim(f"{line} --set network.loss=0% --set 'guarantee=exactly-once'")[1])
    assert result["seed"] == 9
    assert [row["params"]["guarantee"] for row in result["rows"]] == ["exactly-once"]
    metrics = result["rows"][0]["metrics"]
    assert (metrics["published"], metrics["lost"], metrics["duplicates"]) == (20, 0, 0)
    assert "lost_ci95" not in metrics


def test_strict_turns_a_false_claim_into_exit_code_1(msgsim):
    Path("lossy.yaml").write_text(FALSE_CLAIM)
    code, out, _ = msgsim("run lossy.yaml --no-plots")
    assert code == 0
    assert "✗ lost == 0\n" in out
    assert "false in" in out
    assert msgsim("run lossy.yaml --no-plots --strict")[0] == 1
    Path("lossy.yaml").write_text(SCENARIO)
    assert msgsim("run lossy.yaml --no-plots --strict")[0] == 0


def test_a_fault_that_touches_nothing_is_a_warning(msgsim):
    idle = "faults: [{crash: orders, on: 'orders.accept #999', lasting: 1 s}]\n"
    Path("lossy.yaml").write_text(SCENARIO + idle)
    assert "Warning: the fault 'crash of orders' touched nothing\n" in msgsim("run lossy.yaml --no-plots")[1]
    code, out, err = msgsim("run lossy.yaml --no-plots --json")
    assert code == 0 and json.loads(out)
    assert err == "msgsim: warning: the fault 'crash of orders' touched nothing\n"


def test_plots_and_traces_are_written_when_asked_for(msgsim):
    code, out, _ = msgsim("run lossy.yaml --trace --set plots=[guarantees]")
    assert code == 0
    assert "Pictures: guarantees.png in reports/runs/lossy\n" in out
    names = sorted(p.name for p in Path("reports/runs/lossy").iterdir())
    assert names == ["guarantees.png", "report.html", "result.json", "trace-0.jsonl", "trace-1.jsonl"]
    events = [json.loads(line) for line in Path("reports/runs/lossy/trace-1.jsonl").read_text().splitlines()]
    assert {"publish", "stored", "delivered", "processed"} <= {event["what"] for event in events}


# -- what is left behind


def test_the_folder_of_a_run_is_replaced_as_a_whole(msgsim):
    assert msgsim("run lossy.yaml --trace --no-plots --out runs/one")[0] == 0
    assert Path("runs/one/trace-0.jsonl").exists()
    assert msgsim("run lossy.yaml --no-plots --out runs/one")[0] == 0
    assert sorted(p.name for p in Path("runs/one").iterdir()) == ["report.html", "result.json"]
    Path("runs/empty").mkdir()
    assert msgsim("run lossy.yaml --no-plots --out runs/empty")[0] == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["empty", "one"]


@pytest.mark.parametrize("error, code", [(KeyboardInterrupt, 130), (RuntimeError("full"), 3)])
def test_a_run_that_fails_leaves_the_folder_as_it_was(msgsim, monkeypatch, error, code):
    assert msgsim("run lossy.yaml --no-plots --out runs/one")[0] == 0
    before = Path("runs/one/report.html").read_text()

    def fail(*args):
        raise error

    monkeypatch.setattr("sim.report.write_report", fail)
    assert msgsim("run lossy.yaml --no-plots --out runs/one --seed 4")[0] == code
    assert [p.name for p in Path("runs").iterdir()] == ["one"]
    assert Path("runs/one/report.html").read_text() == before


def test_an_interrupted_run_goes_on_from_the_store(msgsim, monkeypatch):
    from sim.simulation import simulate

    seen = []

    def counted(config, seed, replication):
        if len(seen) == 2 and not done:
            raise KeyboardInterrupt
        seen.append(replication)
        return simulate(config, seed, replication)

    done = []
    monkeypatch.setattr("sim.simulation.simulate", counted)
    code, out, err = msgsim("run lossy.yaml --json --no-plots")
    assert (code, out) == (130, "")
    assert err == "msgsim: interrupted; what is finished is kept: the same command goes on from there\n"
    done.append(True)
    first = msgsim("run lossy.yaml --json --no-plots")
    assert first[0] == 0
    assert seen == [0, 1, 0, 1]  # two points, two replications, each once
    assert msgsim("run lossy.yaml --json --no-plots --no-store") == first


# -- internal errors


@pytest.mark.parametrize("error", [UnbalancedBooks("orders/billing: a loss\nhas no cause"), KeyError("x")])
def test_an_internal_error_is_one_line_that_says_how_to_reproduce_it(msgsim, monkeypatch, error):
    def fail(run):
        raise error

    monkeypatch.setattr("sim.metrics.measure", fail)
    code, out, err = msgsim("run lossy.yaml --no-plots --set 'network.loss=10 %' --seed 5")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert type(error).__name__ in err
    assert "(row 0 (guarantee=at-most-once), replication 0, seed 5)" in err
    again = "msgsim run lossy.yaml --no-plots --set 'network.loss=10 %' --seed 5 --debug"
    assert err.endswith(f"; to reproduce: {again}\n")
    code, _, err = msgsim(again.removeprefix("msgsim "))
    assert code == 3
    assert "Traceback" in err and "in fail" in err


# -- the other commands


def test_new_writes_a_scenario_that_runs(msgsim):
    code, out, err = msgsim("new first")
    assert (code, err) == (0, "")
    assert out == "first.yaml is a scenario to start from. Change it, then: msgsim run first.yaml\n"
    assert msgsim("run first.yaml --no-plots --strict --messages 50 --replications 1 --json")[0] in (0, 1)


def test_schema_is_json(msgsim):
    code, out, _ = msgsim("schema")
    assert code == 0
    assert json.loads(out)["properties"].keys() >= {"title", "channels", "producers", "services", "expect"}


def test_causes_are_listed(msgsim):
    code, out, _ = msgsim("causes --json")
    causes = json.loads(out)
    assert code == 0
    keys = ["system", "anomaly", "cause", "meaning", "behaviour", "prevented_by"]
    assert all(list(cause) == keys for cause in causes)
    assert {"textbook"} <= {cause["system"] for cause in causes}
    text = msgsim("causes")[1]
    assert all(cause["cause"] in text for cause in causes)


def test_list_shows_names_and_questions(msgsim, tmp_path, monkeypatch):
    from sim.scenario import index

    monkeypatch.setattr(index, "scenarios_folder", lambda: tmp_path)
    entries = [
        {"name": "a", "title": "A", "question": "What [is] a?"},
        {"name": "published/p01", "title": "P", "question": "What is p?"},
    ]
    Path(index.INDEX).write_text(json.dumps(entries))
    group = "Published measurements, for `msgsim verify published` and `msgsim run`:"
    assert msgsim("list") == (0, f"a  What [is] a?\n\n{group}\npublished/p01\n    P\n", "")
    listed = json.loads(msgsim("list --json")[1])
    assert [list(entry) for entry in listed] == [["name", "title", "question", "path"]]
    assert listed[0]["path"] == str(tmp_path / "a.yaml")
    Path(index.INDEX).write_text("[")
    code, out, err = msgsim("list")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1


def test_without_a_command_the_help_is_shown(msgsim):
    code, out, err = msgsim("")
    assert (code, err) == (0, "")
    assert out == msgsim("--help")[1]
    assert all(f"\n  {command} " in out for command in ("list", "run", "new", "schema", "causes"))
    assert msgsim("--version") == (0, f"msgsim {sim.__version__}\n", "")


# -- in a process of its own


@pytest.mark.parametrize(
    "words", [["list"], ["list", "--json"], ["--help"], ["--version"], ["run", "--help"]]
)
def test_what_starts_quickly_imports_nothing_heavy(words):
    heavy = (
        "pandas",
        "matplotlib",
        "scipy",
        "pydantic",
        "ruamel",
        "yaml",
        "numpy",
        "simpy",
        "joblib",
        "rich",
    )
    code = (
        "import sys\nfrom sim.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n"
        f"    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = in_process_of_its_own(*words, code=code)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_import_sim_imports_nothing_heavy():
    code = "import sys, sim, sim.cli, sim.result, sim.claims; print([n for n in sys.modules if n in sys.argv[1:]])"
    done = in_process_of_its_own("pandas", "matplotlib", "scipy", "pydantic", "ruamel", code=code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_public_names_are_there():
    assert set(sim.__all__) >= {"load", "run", "Scenario", "Result", "World", "simulate", "ScenarioError"}
    for name in sim.__all__:
        assert getattr(sim, name).__name__ == name
    assert set(sim.__all__) <= set(dir(sim))
    with pytest.raises(AttributeError, match="module 'sim' has no attribute 'rum'"):
        _ = sim.rum


def test_a_reader_that_stops_reading_is_no_error():
    command = [sys.executable, "-m", "sim", "causes", "--json"]
    folder = Path(sim.__file__).parents[1]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, text=True, bufsize=0
    ) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")


def test_signs_that_the_output_cannot_show_do_not_stop_it(tmp_path):
    (tmp_path / "lossy.yaml").write_text(SCENARIO)
    done = subprocess.run(
        [sys.executable, "-m", "sim", "run", "lossy.yaml", "--no-plots"],
        capture_output=True,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(sim.__file__).parents[1])},
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\nyes lost == 0  where" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a process group")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_its_processes_quietly(tmp_path, number, code):
    (tmp_path / "lossy.yaml").write_text(SCENARIO)
    words = "run lossy.yaml --no-plots --jobs 2 --messages 3000 --replications 500"
    with subprocess.Popen(
        [sys.executable, "-m", "sim", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(sim.__file__).parents[1])},
        text=True,
        start_new_session=True,
    ) as process:
        store = tmp_path / "reports" / "runs" / ".store"
        while not any(store.glob("*/*.json")) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, err = process.communicate(timeout=60)  # returns when the workers, too, have closed their ends
    assert (process.returncode, out) == (code, "")
    assert len(err.splitlines()) == (1 if code == 130 else 0)
    assert [path.name for path in store.parent.iterdir()] == [".store"]
