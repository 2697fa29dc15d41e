"""The command `msgsim`: it reads the command line, calls the library, and says in one line what is wrong.

Exit codes: 0 done, 1 a claim does not hold (`run --strict`) or `verify` missed a line, 2 bad input, 3 an internal
error or unbalanced books, 130 interrupted. Heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.claims import ClaimError
from sim.scenario.errors import ScenarioError

if TYPE_CHECKING:
    from sim.experiment import Progress
    from sim.ledger import Event
    from sim.result import Result

DONE, MISSED, BAD_INPUT, INTERNAL_ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
RUNS, VERIFIED = Path("reports", "runs"), Path("reports", "verify")
RESULT = "result.json"  # also what marks the folder of an earlier run, which may be replaced

Action = Callable[[], int]  # typer reads the command line into an action, `main` acts
# What a bad command line raises: an exception of click, or of the copy of click in newer versions of typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class BadInput(Exception):
    """Something the user can put right; its text is one line."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


def _print_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        print(context.get_help())
        raise typer.Exit


def _print_version(wanted: bool) -> None:
    if wanted:
        import sim

        print(f"msgsim {sim.__version__}")
        raise typer.Exit


app = typer.Typer(
    name="msgsim",
    help="A discrete-event simulator that teaches messaging systems.",
    add_completion=False,
    add_help_option=False,  # typer's own makes every command import pydantic
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
command = partial(app.command, add_help_option=False)

Help = Annotated[
    bool, typer.Option("--help", is_eager=True, callback=_print_help, help="Show this message and exit.")
]
Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an internal error.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: that of this process) and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows a question mark
    code = _obey(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _forget_stdout()
        code = DONE if isinstance(error, BrokenPipeError) else _unwritable(error)
    sys.exit(code)


def _obey(words: list[str]) -> int:
    try:
        action = app(words, prog_name="msgsim", standalone_mode=False)
        return action() if callable(action) else int(action or DONE)
    except UsageError as error:
        context = getattr(error, "ctx", None)
        name = context.command_path if context else "msgsim"
        return _say(BAD_INPUT, f"{name}: {_usage(error)} (see {name} --help)")
    except (BadInput, ScenarioError, ClaimError) as error:
        return _say(BAD_INPUT, f"msgsim: {error}")
    except Terminated:
        return TERMINATED
    except (KeyboardInterrupt, typer.Abort):
        kept = (
            "" if "--no-store" in words else "; what is finished is kept: the same command goes on from there"
        )
        return _say(INTERRUPTED, "msgsim: interrupted" + (kept if words[0] in ("run", "verify") else ""))
    except (BrokenPipeError, SystemExit):  # the latter is what typer makes of the former
        _forget_stdout()
        return DONE  # the reader has seen enough
    except OSError as error:
        return _unwritable(error)
    except Exception as error:
        return _internal_error(error, words)


def _usage(error: Exception) -> str:
    """What is wrong with the command line."""
    text: str = error.format_message()  # type: ignore[attr-defined]
    return text.rstrip(".")


def _unwritable(error: OSError) -> int:
    return _say(
        BAD_INPUT, f"msgsim: {error.filename or 'cannot write the output'}: {error.strerror or error}"
    )


def _internal_error(error: Exception, words: Sequence[str]) -> int:
    if "--debug" in words:
        traceback.print_exception(error)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    again = shlex.join(["msgsim", *(word for word in words if word != "--debug"), "--debug"])
    text = textwrap.shorten(f"{type(error).__name__}: {error}", 1000, placeholder=" ...")
    return _say(INTERNAL_ERROR, f"msgsim: internal error: {text}{notes}; to reproduce: {again}")


def _say(code: int, text: str) -> int:
    print(" ".join(text.split()), file=sys.stderr)
    return code


def _forget_stdout() -> None:
    """The reader of standard output is gone: let nothing more be written there, not even at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- commands ----------------------------------------------------------------------------------------------


@app.callback()
def _options(version: Version = False, help_: Help = False) -> None:
    pass


@command("list")
def list_(as_json: AsJson = False, debug: Debug = False, help_: Help = False) -> Action:
    """List the scenarios, a line each with its question."""
    return partial(_list, as_json)


@command()
def run(
    scenario: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A scenario of `msgsim list`, or a file.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Override a value; may be given several times."),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Replaces the scenario's seed.")] = None,
    replications: Annotated[
        str | None, typer.Option(metavar="N", help="Replaces the scenario's own.")
    ] = None,
    jobs: Annotated[str | None, typer.Option(metavar="N", help="Processes [default: all cores].")] = None,
    messages: Annotated[
        str | None, typer.Option(metavar="N", help="How many each producer publishes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to write [default: reports/runs/NAME].")
    ] = None,
    as_json: AsJson = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Write all events of the first replications.")
    ] = False,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Draw no pictures.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if a claim does not hold.")] = False,
    no_store: Annotated[bool, typer.Option("--no-store", help="Neither use nor keep finished runs.")] = False,
    debug: Debug = False,
    help_: Help = False,
) -> Action:
    """Run a scenario: figures, verdicts, pictures and a report."""
    options = {
        "seed": _number("--seed", seed, least=0),
        "replications": _number("--replications", replications, least=1),
        "jobs": _number("--jobs", jobs, least=1),
        "messages": _number("--messages", messages, least=1),
        "overrides": dict(map(_setting, settings or ())),
        "trace": trace,
    }
    return partial(
        _run,
        scenario,
        options,
        out,
        settings=[*(settings or ()), *([] if messages is None else [f"messages={messages}"])],
        as_json=as_json,
        plots=not no_plots,
        strict=strict,
        store=not no_store,
    )


@command()
def why(
    scenario: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A scenario of `msgsim list`, or a file.")
    ],
    anomaly: Annotated[
        str | None,
        typer.Option(
            metavar="ANOMALY",
            help="lost, duplicate, reordered, expired, rejected or dead_lettered [default: lost, duplicate or any].",
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(metavar="CHANNEL:NUMBER", help="Which message [default: the first with the anomaly]."),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(metavar="N", help="The row of the sweep, from 0 [default: the first with it]."),
    ] = None,
    replication: Annotated[
        str | None, typer.Option(metavar="N", help="The replication, from 0 [default: the first with it].")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Override a value; may be given several times."),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Replaces the scenario's seed.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
    help_: Help = False,
) -> Action:
    """Tell the story of one message: what happened to it, and why."""
    options = {
        "anomaly": anomaly,
        "message": message,
        "row": _number("--row", row, least=0),
        "replication": _number("--replication", replication, least=0),
        "seed": _number("--seed", seed, least=0),
    }
    return partial(_why, scenario, settings or (), options, as_json)


@command()
def verify(
    part: Annotated[
        str | None,
        typer.Argument(metavar="[theory|published|semantics]", help="What to verify [default: all three]."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME ...]", help="Only these cases (P-03), systems (rabbitmq) or behaviours (R-07)."
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the tests of the behaviours anew (in a checkout).")
    ] = False,
    jobs: Annotated[str | None, typer.Option(metavar="N", help="Processes [default: all cores].")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to write [default: reports/verify].")
    ] = None,
    as_json: AsJson = False,
    no_plots: Annotated[bool, typer.Option("--no-plots", help="Draw no pictures.")] = False,
    no_store: Annotated[bool, typer.Option("--no-store", help="Neither use nor keep finished runs.")] = False,
    debug: Debug = False,
    help_: Help = False,
) -> Action:
    """What this installation reproduces, line by line: closed forms, published figures, behaviours."""
    return partial(
        _verify,
        part,
        names or (),
        VERIFIED if out is None else Path(out),
        run=run,
        jobs=_number("--jobs", jobs, least=1),
        as_json=as_json,
        plots=not no_plots,
        store=not no_store,
    )


@command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    debug: Debug = False,
    help_: Help = False,
) -> Action:
    """Write NAME.yaml, a commented scenario to start from."""
    return partial(_new, name)


@command()
def schema(debug: Debug = False, help_: Help = False) -> Action:
    """Print the JSON Schema of a scenario, for editors."""
    return _schema


@command()
def causes(as_json: AsJson = False, debug: Debug = False, help_: Help = False) -> Action:
    """List every cause of an anomaly, and what prevents it."""
    return partial(_causes, as_json)


# -- what they do ------------------------------------------------------------------------------------------


def _list(as_json: bool) -> int:
    from sim.scenario.index import is_published, load_index

    try:
        entries = load_index()
    except (OSError, ValueError) as error:
        raise BadInput(str(error)) from None
    lessons = [entry for entry in entries if not is_published(entry)]
    published = [entry for entry in entries if is_published(entry)]
    if as_json:
        print(json.dumps(lessons, indent=2))
        return DONE
    width = max((len(entry["name"]) for entry in lessons), default=0)
    for entry in lessons:
        _print_entry(f"{entry['name']:{width}}  ", entry["question"])
    if published:
        print(
            f"{chr(10) if lessons else ''}Published measurements, for `msgsim verify published` and `msgsim run`:"
        )
    for entry in published:
        _print_entry(f"{entry['name']}\n    ", entry["title"])
    return DONE


def _print_entry(start: str, text: str) -> None:
    """A name and what there is to say of it, wrapped where it is for a terminal."""
    if sys.stdout.isatty():
        *above, last = start.split("\n")
        wide = shutil.get_terminal_size().columns
        filled = textwrap.fill(text, wide, initial_indent=last, subsequent_indent=" " * len(last))
        print("\n".join([*above, filled]))
    else:
        print(start + text)


def _run(
    name: str,
    options: dict[str, Any],
    out: Path | str | None,
    *,
    settings: Sequence[str],
    as_json: bool,
    plots: bool,
    strict: bool,
    store: bool,
) -> int:
    from sim.experiment import run as run_scenario
    from sim.scenario import load
    from sim.store import Store
    from sim.terminal import warnings

    scenario = load(name)
    out = _usable(RUNS / scenario.name if out is None else Path(out))
    with _terminable(), _progress() as progress, _naming(name, settings):
        result = run_scenario(
            scenario,
            store=Store(RUNS / ".store") if store else None,
            progress=progress,
            **options,
        )
    with _whole(out.resolve()) as folder:
        written = [out / path.relative_to(folder) for path in _write(result, folder, plots)]
    if as_json:
        print(_json(result))
        for warning in warnings(result):
            print(f"msgsim: warning: {warning}", file=sys.stderr)
    else:
        _show(result, written)
    return MISSED if strict and not all(verdict.holds for verdict in result.claims) else DONE


def _why(name: str, settings: Sequence[str], options: dict[str, Any], as_json: bool) -> int:
    from sim.explain import Unknown, explain, nothing
    from sim.scenario import load

    scenario = load(name)
    if settings:
        scenario = scenario.override(dict(map(_setting, settings)))
    try:
        with _naming(name, settings):
            story = explain(scenario, **options)
    except Unknown as error:
        raise BadInput(f"--{error}") from None
    if story is None:
        print(_nothing(options), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        told = story.to_json() if story else nothing(scenario, options["seed"])
        print(json.dumps(told, indent=1, allow_nan=False))
    elif story:
        from sim.terminal import Screen, show_story

        show_story(story, scenario, Screen())
    return DONE


def _verify(
    part: str | None,
    names: Sequence[str],
    out: Path,
    *,
    run: bool,
    jobs: int | None,
    as_json: bool,
    plots: bool,
    store: bool,
) -> int:
    from sim.store import Store
    from sim.verify.command import parts, report_of, show, write

    chosen = parts(part, names, run)
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: expected a folder, found a file")
    kept = Store(RUNS / ".store") if store else None
    reports: dict[str, Any] = {}
    written: list[Path] = []
    for name in chosen:
        with _terminable(), _progress() as progress:
            reports[name] = report_of(name, names, run=run, jobs=jobs, store=kept, progress=progress)
        if not as_json:
            show(name, reports[name])
        written += write(name, reports[name], out, plots)
    if as_json:
        found = {name: report.to_json() for name, report in reports.items()}
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        print(f"Written: {', '.join(path.name for path in written)} in {out}")
    return MISSED if any(report.has_missed for report in reports.values()) else DONE


def _nothing(options: dict[str, Any]) -> str:
    """That there is no such anomaly where it was looked for."""
    whose = f"message {options['message']}" if options["message"] else "any message"
    row, replication = options["row"], options["replication"]
    where = "in any row" if row is None else f"in row {row}"
    where += "" if replication is None else f", replication {replication}"
    kind = f" {options['anomaly']!r}" if options["anomaly"] else ""
    return f"There is no anomaly{kind} of {whose} {where}."


@contextlib.contextmanager
def _naming(name: str, settings: Sequence[str]) -> Iterator[None]:
    """Where books do not balance, complete the command that tells the story of the message."""
    from sim.ledger import UnbalancedBooks

    try:
        yield
    except UnbalancedBooks as error:
        row = re.search(r"\brow (\d+)", " ".join(getattr(error, "__notes__", ())))
        options = [word for setting in settings for word in ("--set", setting)]
        options += ["--row", row[1]] if row else []
        command = shlex.join(["msgsim", "why", name, *options])
        error.args = (str(error).replace("msgsim why SCENARIO", command),)
        raise


def _new(name: str) -> int:
    from sim.scenario import template

    if not re.fullmatch(r"[\w./ -]*[\w-]", name):
        raise BadInput(f"expected a name such as my-queue, found {name!r}")
    file = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    text = template(file.stem)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise BadInput(f"{file}: expected the name of a new file, found one that is there already") from None
    print(f"{file} is a scenario to start from. Change it, then: msgsim run {shlex.quote(str(file))}")
    return DONE


def _schema() -> int:
    from sim.scenario import schema as scenario_schema

    print(json.dumps(scenario_schema(), indent=2))
    return DONE


def _causes(as_json: bool) -> int:
    from sim.ledger import known_causes

    found = [
        {
            "system": cause.system,
            "anomaly": cause.anomaly,
            "cause": cause.name,
            "meaning": cause.meaning,
            "behaviour": cause.behaviour,
            "prevented_by": cause.prevented_by,
        }
        for cause in known_causes()
    ]
    if as_json:
        print(json.dumps(found, indent=2))
        return DONE
    from sim.terminal import Screen, show_causes

    show_causes(found, Screen())
    return DONE


def _number(option: str, text: str | None, least: int) -> int | None:
    """The value of an option that is a whole number."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or int(text) < least:
        raise BadInput(f"{option}: expected a whole number, {least} or more, found {text!r}")
    return int(text)


def _setting(text: str) -> tuple[str, Any]:
    """PATH=VALUE, the value in YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise BadInput(f"--set {text}: expected PATH=VALUE such as network.loss=5%")
    try:
        return path.strip(), YAML(typ="safe", pure=True).load(value)
    except (YAMLError, ValueError, RecursionError):
        raise BadInput(
            f"--set {text}: expected a value in YAML such as 5% or [1, 2], found {value!r}"
        ) from None


# -- what a run writes -------------------------------------------------------------------------------------


def _usable(out: Path) -> Path:
    """The folder of a run, checked before the work is done: new, empty, or that of an earlier run."""
    folder = out.resolve()
    if folder == Path.cwd():
        raise BadInput(f"--out {out}: expected a folder to be made anew, found the current one")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {out}: expected a folder, found a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RESULT).is_file():
        raise BadInput(
            f"--out {out}: expected a new folder or that of an earlier run, found one with other files"
        )
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there if there != folder else folder.parent, os.W_OK):
        raise BadInput(f"--out {out}: expected a folder that may be written, found {there} read-only")
    return out


def _write(result: Result, folder: Path, plots: bool) -> list[Path]:
    """Write everything a run leaves; returns its report and its pictures."""
    from sim.report import write_report

    (folder / RESULT).write_text(_json(result) + "\n", encoding="utf-8")
    for i, events in enumerate(result.traces):
        (folder / f"trace-{i}.jsonl").write_text("".join(map(_event, events)), encoding="utf-8")
    pictures: list[Path] = []
    if plots:
        from sim.plots import draw

        pictures = draw(result, folder)
    return [write_report(result, folder, pictures), *pictures]


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place in the end."""
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _json(result: Result) -> str:
    return json.dumps(result.to_json(), indent=1, allow_nan=False)


def _event(event: Event) -> str:
    from dataclasses import asdict

    return json.dumps(asdict(event)) + "\n"


def _show(result: Result, written: Sequence[Path]) -> None:
    from sim.terminal import Screen, show

    show(result, Screen())
    print()
    report, *pictures = written
    if pictures:
        print(f"Pictures: {', '.join(path.name for path in pictures)} in {pictures[0].parent}")
    print(f"Report:   {report}")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """When this process is asked to end, its worker processes end with it."""

    def end(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Simulating", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
