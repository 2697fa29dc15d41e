"""The guides say what the code does: examples run, fields, defaults, figures, causes and commands are the real ones."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from sim import arrivals, distributions
from sim.apps import Failures, Idempotence, Keys, Producer, Publishes, Resend, Service
from sim.brokers import system
from sim.cli import app
from sim.faults import Fault
from sim.ledger import known_causes
from sim.network import LossBursts, NetworkSettings, TcpSettings
from sim.plots import PLOTS
from sim.scenario import Scenario, load
from sim.scenario.document import SECTIONS
from sim.scenario.errors import ScenarioError
from sim.scenario.expand import Limits
from sim.scenario.expectations import Expectation
from sim.scenario.forms import read
from sim.scenario.model import TOP, Header
from sim.scenario.published import Line, Source
from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME
from sim.words import FIGURES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TEXTBOOK = system("textbook")

# What an example that shows a part of a scenario is a part of.
BASE: dict[str, Any] = {
    "duration": "5 s",
    "channels": {"orders": {}},
    "producers": {"shop": {"arrivals": "50/s"}},
    "services": {"billing": {}},
}


# -- reading a page ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the title after that, and what is in it."""

    language: str
    title: str
    text: str
    line: int


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        Block(found[1], found[2] or "", found[3], text[: found.start()].count("\n") + 1)
        for found in fence.finditer(text)
        if found[1] == language
    ]


def every(language: str) -> list[Any]:
    return [
        pytest.param(page, block, id=f"{page.name}:{block.line}")
        for page in PAGES
        for block in blocks(page, language)
    ]


def rows(page: Path, heading: str = "", deep: bool = False) -> Iterator[list[str]]:
    """The cells of the tables under a heading, without what stands under deeper ones unless `deep`."""
    level, here = 0, not heading
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            hashes, _, title = line.partition(" ")
            if title == heading:
                level, here = len(hashes), True
            elif heading and (not deep or len(hashes) <= level):
                here = False
        elif here and line.startswith("|") and not line.startswith(("| ---", "| - ")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def from_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def merged(base: Any, part: Any) -> Any:
    if isinstance(base, dict) and isinstance(part, dict):
        return base | {key: merged(base.get(key), value) for key, value in part.items()}
    return part


# -- examples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "block"), every("yaml"))
def test_a_scenario_is_valid(page: Path, block: Block) -> None:
    found = from_yaml(block.text)
    is_part = not {"channels", "producers", "services"} <= set(found) or "duration" not in found
    scenario = Scenario.from_dict(merged(BASE, found) if is_part else found, name=page.stem)
    assert scenario.points()


@pytest.mark.parametrize(("page", "block"), every("sh"))
def test_a_command_exists(page: Path, block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif words:
            assert words[0] == "msgsim", line
            check_command(words[1:])


def check_command(words: list[str]) -> None:
    name, *rest = words
    commands: Any = get_command(app)
    assert name in commands.commands, f"msgsim has no command {name}"
    context = commands.commands[name].make_context(name, list(rest))  # raises for an unknown option
    target = context.params.get("scenario")
    if target is not None:
        scenario = scenario_of(target)
        pairs = [setting.partition("=") for setting in context.params["settings"] or []]
        scenario.override({path: from_yaml(value) for path, _, value in pairs})


def scenario_of(target: str) -> Scenario:
    """A shipped scenario, or one that a page shows under that name or tells to make with `msgsim new`."""
    shown = {block.title: block.text for page in PAGES for block in blocks(page, "yaml") if block.title}
    if target in shown:
        return Scenario.from_dict(from_yaml(shown[target]), name=target)
    made = {word for page in PAGES for word in re.findall(r"msgsim new (\S+)", page.read_text())}
    if target.removesuffix(".yaml") in made:
        return Scenario.from_dict(BASE, name=target)
    return load(target)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_the_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__docs__"}
    for block in blocks(page, "python"):
        if not block.title:
            source = "\n" * block.line + block.text  # so that a traceback has the line of the page
            exec(compile(source, str(page), "exec"), names)


def test_a_system_can_be_added_in_one_file(tmp_path: Path) -> None:
    module, program = (block.text for block in blocks(DOCS / "architecture.md", "python") if block.title)
    (tmp_path / "relay.py").write_text(module)
    adding = (
        f"from sim import brokers\nbrokers.__path__.append({str(tmp_path)!r})\nbrokers.NAMES += ('relay',)\n"
    )
    done = subprocess.run([sys.executable, "-c", adding + program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "packet_lost" in done.stdout


def test_the_error_that_getting_started_shows_is_the_one_you_get(tmp_path: Path) -> None:
    page = DOCS / "getting-started.md"
    (shown,) = [block.text.strip() for block in blocks(page, "text")]
    file = tmp_path / "coffee-bar.yaml"
    (smallest,) = blocks(page, "yaml")
    lines = smallest.text.replace("service_time", "service_tme").splitlines()
    place, wanted = re.match(r"msgsim: coffee-bar.yaml:(\d+): (.*)", shown).groups()  # type: ignore[union-attr]
    file.write_text("\n".join(lines))
    with pytest.raises(ScenarioError) as caught:
        load(str(file))
    assert str(caught.value) == f"{file}:{place}: {wanted}"


# -- links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, ROOT / "reports/gallery/README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}, target


def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text()))
    assert listed == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


# -- fields and their defaults -----------------------------------------------------------------------------

SETTINGS: dict[str, tuple[type, ...]] = {
    "channels": (TEXTBOOK.Channel,),
    "producers": (Producer, TEXTBOOK.ProducerClient),
    "keys": (Keys,),
    "resend": (Resend,),
    "services": (Service, TEXTBOOK.ConsumerClient),
    "idempotence": (Idempotence,),
    "failures": (Failures,),
    "publishes": (Publishes,),
    "network": (NetworkSettings,),
    "bursts": (LossBursts,),
    "tcp": (TcpSettings,),
    "faults": (Fault,),
    "expect": (Expectation,),
    "published": (Source,),
    "lines": (Line,),
    "The top": (Header, Limits),
}


def table(heading: str) -> dict[str, str]:
    """The fields of the first table under a heading, each with its default as written."""
    found = [cells for cells in rows(DOCS / "scenario-files.md", heading) if len(cells) == 3]
    start = next(i for i, cells in enumerate(found) if cells[0] == "field")
    return {quoted(cells[0])[0]: cells[1] for cells in found[start + 1 :]}


@pytest.mark.parametrize("heading", SETTINGS)
def test_every_field_is_there_with_its_default(heading: str) -> None:
    written = table(heading)
    known = {field.name: (cls, field) for cls in SETTINGS[heading] for field in fields(cls)}
    beside = {"guarantee", *SECTIONS, "sweep", "expect", "published"} if heading == "The top" else set()
    assert set(written) == set(known) | beside
    assert [name for name, (cls, field) in known.items() if not is_true(written[name], cls, field)] == []


def is_true(cell: str, cls: type, field: Any) -> bool:
    """Whether a cell gives a field's default, by reading it as a scenario would be read."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if not quoted(cell):  # in words
        return default is MISSING or default is None or default in ("", ())
    value = from_yaml(quoted(cell)[0])
    problems: list[str] = []
    needed = {f.name: SAMPLES[f.name] for f in fields(cls) if f.default is f.default_factory is MISSING}
    given = read((cls,), needed | {field.name: value}, ROOT, lambda path, text: problems.append(text))
    return given is not None and given[0][field.name] == default


SAMPLES = {"channel": "orders", "kind": "crash", "target": "orders", "claim": "lost == 0"}
SAMPLES |= {"figure": "lost", "value": 1}


def test_all_that_may_stand_at_the_top_is_there() -> None:
    assert set(table("The top")) == set(TOP)


@pytest.mark.parametrize(
    ("heading", "kinds", "cls", "field"),
    [
        ("Distributions", distributions.KINDS, Service, "service_time"),
        ("Arrivals", arrivals.KINDS, Producer, "arrivals"),
    ],
)
def test_every_law_is_there_as_it_is_written(
    heading: str, kinds: dict[str, type], cls: type, field: str
) -> None:
    written = {
        quoted(cells[0])[0]: quoted(cells[1])[0]
        for cells in rows(DOCS / "scenario-files.md", heading)
        if quoted(cells[0])
    }
    assert set(written) == set(kinds)
    for kind, text in written.items():
        problems: list[str] = []
        raw = {"channel": "orders", field: from_yaml(text)}
        given = read((cls,), raw, ROOT, lambda path, text: problems.append(text))  # noqa: B023
        assert given is not None, f"{text}: {problems}"
        assert isinstance(given[0][field], kinds[kind])


def test_every_unit_is_there() -> None:
    text = "".join("".join(cells) for cells in rows(DOCS / "scenario-files.md", "Scenario files"))
    for quantity in (TIME, SIZE, RATE, BANDWIDTH, SHARE):
        assert [unit for unit in quantity.units if f"`{unit}`" not in text] == []


def test_every_plot_and_option_is_there() -> None:
    (plots,) = [cells[2] for cells in rows(DOCS / "scenario-files.md", "The top") if "`plots`" in cells[0]]
    assert quoted(plots) == list(PLOTS)
    options = {"--" + part.lstrip("-").split()[0] for part in quoted_first("getting-started.md")}
    commands: Any = get_command(app)
    known = {name for option in commands.commands["run"].params for name in option.opts if name[:2] == "--"}
    assert options == known - {"--help"}


def quoted_first(page: str) -> list[str]:
    cells = [row[0] for row in rows(DOCS / page, "Change something")]
    return [text for cell in cells for text in quoted(cell) if text.startswith("--")]


# -- figures, causes, guarantees, modules ------------------------------------------------------------------


def test_every_figure_is_defined() -> None:
    defined = [name for cells in rows(DOCS / "figures.md") for name in quoted(cells[0])]
    assert sorted(defined) == sorted(FIGURES)


def test_every_cause_of_the_textbook_broker_is_on_the_way_of_a_message() -> None:
    heading = "Where it goes wrong, and by which cause"
    placed = {
        name for cells in rows(DOCS / "textbook.md", heading) for cell in cells for name in quoted(cell)
    }
    causes = {c.name for c in known_causes() if c.system in ("textbook", "application")}
    assert placed == causes - {"overtaken"}
    assert "`overtaken`" in (DOCS / "textbook.md").read_text()


def test_the_guarantees_are_made_of_what_the_page_says() -> None:
    written = {
        quoted(cells[0])[0]: [from_yaml(f"{{{', '.join(quoted(cell))}}}") for cell in cells[1:]]
        for cells in rows(DOCS / "textbook.md", "What each guarantee is made of")
        if quoted(cells[0])
    }
    presets = {
        name: [dict(part) for part in (preset.channel, preset.producer, preset.service)]
        for name, preset in TEXTBOOK.presets.items()
    }
    for parts in written.values():
        parts[1] = {key: None if value == "none" else value for key, value in parts[1].items()}
    assert written == presets


def test_every_module_has_its_place_in_the_house() -> None:
    placed = {name for cells in rows(DOCS / "architecture.md", "The house") for name in quoted(cells[0])}
    modules = {path.stem for path in (ROOT / "sim").iterdir() if not path.name.startswith(("_", "py"))}
    assert placed == modules
