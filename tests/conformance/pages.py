"""What the pages on the systems have in common: tables of settings, of guarantees, and examples that run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from sim.brokers import System
from sim.experiment import broken, run
from sim.scenario import Scenario
from tests.docs.test_docs import blocks, from_yaml, is_true, quoted, rows


def examples(page: Path) -> dict[str, str]:
    """The scenarios that a page shows, by name."""
    return {block.title: block.text for block in blocks(page, "yaml") if block.title}


def settings(page: Path, heading: str) -> dict[str, list[str]]:
    """The lines of a table of settings by field: official name, default, meaning."""
    lines = [cells for cells in rows(page, heading) if len(cells) == 4 and cells[0] != "field"]
    return {quoted(cells[0])[0]: cells[1:] for cells in lines}


def check_defaults(written: dict[str, list[str]], cls: type) -> None:
    """The table has every field, in the order of the code and with its default."""
    known = fields(cls)
    assert list(written) == [field.name for field in known]
    assert [field.name for field in known if not is_true(written[field.name][1], cls, field)] == []


def check_names(written: dict[str, list[str]]) -> None:
    """Every field has an official name or is said to be the model's, and has a meaning."""
    for name, (official, _, meaning) in written.items():
        assert official in ("–", "of the model") or quoted(official), name
        assert meaning, name


def check_example(name: str, text: str) -> None:
    """Its claims hold, and each of them fails under the change that it names."""
    scenario = Scenario.from_dict(from_yaml(text), name=name)
    assert scenario.claims
    verdicts = run(scenario, jobs=1).claims
    assert [f"{v.claim.statement}: {v.observed}" for v in verdicts if not v.holds] == []
    for claim in scenario.claims:
        assert not broken(scenario, claim).holds, f"{claim.statement} still holds under {claim.broken_by}"


def check_guarantees(page: Path, system: System) -> None:
    """The table of guarantees is what the presets are made of."""
    written = {
        quoted(cells[0])[0]: [from_yaml(f"{{{', '.join(quoted(cell))}}}") for cell in cells[1:]]
        for cells in rows(page, "What each guarantee is made of")
        if quoted(cells[0])
    }
    for parts in written.values():
        parts[1] = {key: None if value == "none" else value for key, value in parts[1].items()}
    assert written == {
        name: [dict(part) for part in (preset.channel, preset.producer, preset.service)]
        for name, preset in system.presets.items()
    }
