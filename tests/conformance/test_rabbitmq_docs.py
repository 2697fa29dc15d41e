"""The page on RabbitMQ: its tables are the settings of the model, and its examples do what they claim."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from sim.brokers.rabbitmq import SYSTEM, Channel, ConsumerClient, ProducerClient
from sim.experiment import broken, run
from sim.ledger import known_causes
from sim.scenario import Scenario
from tests.docs.test_docs import DOCS, blocks, from_yaml, is_true, quoted, rows

PAGE = DOCS / "rabbitmq.md"
SETTINGS = {"Channel": Channel, "Producer": ProducerClient, "Consumer": ConsumerClient}
EXAMPLES = {block.title: block.text for block in blocks(PAGE, "yaml") if block.title}


def table(heading: str) -> dict[str, list[str]]:
    """The lines of a table of settings by field: official name, default, meaning."""
    lines = [cells for cells in rows(PAGE, heading) if len(cells) == 4 and cells[0] != "field"]
    return {quoted(cells[0])[0]: cells[1:] for cells in lines}


@pytest.mark.parametrize("heading", SETTINGS)
def test_every_setting_is_there_with_its_default(heading: str) -> None:
    written, cls = table(heading), SETTINGS[heading]
    assert list(written) == [field.name for field in fields(cls) if field.name in written]
    assert set(written) == {field.name for field in fields(cls)}
    wrong = [field.name for field in fields(cls) if not is_true(written[field.name][1], cls, field)]
    assert wrong == []


@pytest.mark.parametrize("heading", SETTINGS)
def test_a_setting_with_its_own_name_has_an_official_one_or_is_said_to_be_the_models(heading: str) -> None:
    for name, (official, _, meaning) in table(heading).items():
        assert official in ("–", "of the model") or quoted(official), name
        assert meaning, name


def test_there_is_an_example_of_each_type_of_queue() -> None:
    types = [from_yaml(text)["channels"]["orders"]["queue_type"] for text in EXAMPLES.values()]
    assert types == ["classic", "quorum", "stream"]


@pytest.mark.parametrize("title", EXAMPLES)
def test_its_claims_hold_and_can_fail(title: str) -> None:
    scenario = Scenario.from_dict(from_yaml(EXAMPLES[title]), name=title)
    verdicts = run(scenario, jobs=1).claims
    assert [f"{v.claim.statement}: {v.observed}" for v in verdicts if not v.holds] == []
    for claim in scenario.claims:
        assert not broken(scenario, claim).holds, f"{claim.statement} still holds under {claim.broken_by}"


def test_the_guarantees_are_made_of_what_the_page_says() -> None:
    written = {
        quoted(cells[0])[0]: [from_yaml(f"{{{', '.join(quoted(cell))}}}") for cell in cells[1:]]
        for cells in rows(PAGE, "What each guarantee is made of")
        if quoted(cells[0])
    }
    for parts in written.values():
        parts[1] = {key: None if value == "none" else value for key, value in parts[1].items()}
    assert written == {
        name: [dict(part) for part in (preset.channel, preset.producer, preset.service)]
        for name, preset in SYSTEM.presets.items()
    }


def test_the_behaviours_and_causes_that_it_names_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    behaviours = {f"R-{number:02}" for number in range(1, 41)}
    assert set(re.findall(r"R-\d\d", text)) <= behaviours
    assert "not_connected" in {cause.name for cause in known_causes() if cause.system == "rabbitmq"}
