"""The page on Kafka: its tables are the settings of the model, and its examples do what they claim."""

from __future__ import annotations

import re

import pytest

from sim.brokers.kafka import SYSTEM, Channel, ConsumerClient, ProducerClient
from tests.conformance.pages import (
    check_defaults,
    check_example,
    check_guarantees,
    check_names,
    examples,
    settings,
)
from tests.docs.test_docs import DOCS, from_yaml, quoted

PAGE = DOCS / "kafka.md"
SETTINGS = {"Channel": Channel, "Producer": ProducerClient, "Consumer": ConsumerClient}
EXAMPLES = examples(PAGE)
WITH_THEIR_UNIT = {
    "flush_interval": "flush.ms",
    "segment_time": "segment.ms",
}  # no word for the time beside it
NO_NAME = {
    "commit_every": "commitSync",
    "commits_when_revoked": "onPartitionsRevoked",
}  # calls of the application


@pytest.mark.parametrize("heading", SETTINGS)
def test_every_setting_is_there_with_its_default(heading: str) -> None:
    check_defaults(settings(PAGE, heading), SETTINGS[heading])


@pytest.mark.parametrize("heading", SETTINGS)
def test_a_setting_with_its_own_name_has_an_official_one_or_is_said_to_be_the_models(heading: str) -> None:
    check_names(settings(PAGE, heading))


@pytest.mark.parametrize("heading", SETTINGS)
def test_an_official_name_has_the_words_of_the_field(heading: str) -> None:
    exceptions = WITH_THEIR_UNIT | NO_NAME | {"transactional": "sendOffsetsToTransaction"}
    for name, (official, _, _) in settings(PAGE, heading).items():
        words = quoted(official)[0].split(".") if quoted(official) else None
        if words is not None and exceptions.get(name) != ".".join(words):
            assert [word for word in name.split("_") if word not in words] == [], name


def test_there_is_an_example_of_replicas_of_groups_and_of_transactions() -> None:
    found = [from_yaml(text) for text in EXAMPLES.values()]
    assert any("producers.shop.acks" in example.get("sweep", {}) for example in found)
    protocols = {example["services"]["billing"].get("group_protocol", "classic") for example in found}
    assert protocols == {"classic", "share"}
    assert any(channel.get("cluster") for example in found for channel in example["channels"].values())


@pytest.mark.parametrize("title", EXAMPLES)
def test_its_claims_hold_and_can_fail(title: str) -> None:
    check_example(title, EXAMPLES[title])


def test_the_guarantees_are_made_of_what_the_page_says() -> None:
    check_guarantees(PAGE, SYSTEM)


def test_the_behaviours_and_roles_that_it_names_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    behaviours = {f"K-{number:02}" for number in range(1, 51)}
    assert set(re.findall(r"K-\d\d", text)) <= behaviours
    assert {role for role in SYSTEM.roles if f"`orders.{role}`" in text} == set(SYSTEM.roles)
