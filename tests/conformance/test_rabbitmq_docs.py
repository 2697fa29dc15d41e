"""The page on RabbitMQ: its tables are the settings of the model, and its examples do what they claim."""

from __future__ import annotations

import re

import pytest

from sim.brokers.rabbitmq import SYSTEM, Channel, ConsumerClient, ProducerClient
from sim.ledger import known_causes
from tests.conformance.pages import (
    check_defaults,
    check_example,
    check_guarantees,
    check_names,
    examples,
    settings,
)
from tests.docs.test_docs import DOCS, from_yaml

PAGE = DOCS / "rabbitmq.md"
SETTINGS = {"Channel": Channel, "Producer": ProducerClient, "Consumer": ConsumerClient}
EXAMPLES = examples(PAGE)


@pytest.mark.parametrize("heading", SETTINGS)
def test_every_setting_is_there_with_its_default(heading: str) -> None:
    check_defaults(settings(PAGE, heading), SETTINGS[heading])


@pytest.mark.parametrize("heading", SETTINGS)
def test_a_setting_with_its_own_name_has_an_official_one_or_is_said_to_be_the_models(heading: str) -> None:
    check_names(settings(PAGE, heading))


def test_there_is_an_example_of_each_type_of_queue() -> None:
    types = [from_yaml(text)["channels"]["orders"]["queue_type"] for text in EXAMPLES.values()]
    assert types == ["classic", "quorum", "stream"]


@pytest.mark.parametrize("title", EXAMPLES)
def test_its_claims_hold_and_can_fail(title: str) -> None:
    check_example(title, EXAMPLES[title])


def test_the_guarantees_are_made_of_what_the_page_says() -> None:
    check_guarantees(PAGE, SYSTEM)


def test_the_behaviours_and_causes_that_it_names_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    behaviours = {f"R-{number:02}" for number in range(1, 41)}
    assert set(re.findall(r"R-\d\d", text)) <= behaviours
    assert "not_connected" in {cause.name for cause in known_causes() if cause.system == "rabbitmq"}
