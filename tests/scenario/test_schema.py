"""The JSON Schema of a scenario, and the scenario to start from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sim.scenario import Scenario, config_dict, schema, template
from tests.scenario.test_bad_files import VALID, more, shop, time
from tests.scenario.test_laws import ARRIVALS, TIMES
from tests.scenario.test_loading import FULL


def complaints(data: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema()).iter_errors(data)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


@pytest.mark.usefixtures("fake_systems")
@pytest.mark.parametrize(
    "text",
    [
        VALID,
        FULL,
        *(time(text) for text, _ in TIMES if "csv" not in text),
        *(shop(f"arrivals: {text}, resend: {{}}") for text, _ in ARRIVALS if "csv" not in text),
        more("    prefetch: none\n    idempotence: null\nguarantee: none\nfaults:\nsweep:\nexpect:\n"),
        more("sweep: {zip: {network.loss: [1%], duration: {a: 1 s}}, guarantee: [none]}\n"),
        more("faults: [{kind: crash, target: shop, at: 1 s}, {partition: shop -> orders, at: 1}]\n"),
    ],
)
def test_it_accepts_what_can_be_loaded(loaded: Callable[[str], Scenario], text: str) -> None:
    scenario = loaded(text)
    assert complaints(scenario.raw) == []
    for point in scenario.points():
        assert complaints(config_dict(point.config)) == []


@pytest.mark.usefixtures("fake_systems")
@pytest.mark.parametrize(
    "data",
    [
        {"chanels": {}},
        {"channels": {"q": {"storage": "disc"}}},
        {"channels": {"q": {"system": "textbok"}}},
        {"channels": {"q": {"system": "pigeon", "storage": "disk"}}},
        {"producers": {"p": {"arrivals": {"poison": 1}}}},
        {"producers": {"p": {"arrivals": {"poisson": 1, "deterministic": 1}}}},
        {"services": {"s": {"consumers": 0}}},
        {"services": {"s": {"service_time": [1]}}},
        {"network": {"los": 0}},
        {"faults": [{"crash": "q", "lasing": 1}]},
        {"faults": [{"at": 1}]},
        {"sweep": {"network.loss": 3}},
        {"expect": [{"where": "loss == 0"}]},
        {"seed": -1},
        {"guarantee": "sometimes"},
    ],
)
def test_it_rejects_what_is_wrong(data: dict[str, Any]) -> None:
    good = {"messages": 1, "channels": {"q": {}}, "producers": {"p": {}}}
    assert complaints(good) == []
    assert complaints(good | data) != []


def test_editors_can_tell_what_a_setting_means() -> None:
    found = schema()
    resend = found["$defs"]["Resend"]
    assert "Send again what was not acknowledged" in resend["description"]
    assert "Gives up after `attempts` sends" in resend["properties"]["attempts"]["description"]
    assert "A time such as 200 ms" in resend["properties"]["backoff"]["description"]
    assert "A time such as 200 ms" in resend["properties"]["timeout"]["anyOf"][0]["description"]
    assert resend["properties"]["timeout"]["default"] == 0.1
    assert found["properties"]["duration"]["anyOf"][1] == {"enum": [None, "none"]}


@pytest.mark.usefixtures("fake_systems")
def test_each_system_has_its_own_settings() -> None:
    choices = schema()["properties"]["channels"]["additionalProperties"]["anyOf"][0]["anyOf"]
    definitions = [schema()["$defs"][choice["$ref"].rpartition("/")[2]] for choice in choices]
    assert [definition["properties"]["system"]["const"] for definition in definitions] == [
        "textbook",
        "pigeon",
    ]
    assert ["flock" in definition["properties"] for definition in definitions] == [False, True]
    assert [definition["required"] for definition in definitions] == [[], ["system"]]


@pytest.mark.parametrize(
    "name", ["my-queue", "a b", 'quote"d', "back\\slash", "{brace}", "#", "ünïcode", "1"]
)
def test_the_template_is_a_valid_scenario(loaded: Callable[[str], Scenario], name: str) -> None:
    scenario = loaded(template(name))
    assert complaints(scenario.raw) == []
    assert len(scenario.points()) == 6 and scenario.title and scenario.question
    assert len(scenario.claims) == 2 and all(claim.broken_by for claim in scenario.claims)


def test_the_template_explains_each_section() -> None:
    lines = template("my-queue").splitlines()
    for section in ("channels", "producers", "services", "network", "faults", "sweep", "expect", "guarantee"):
        number = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
        assert lines[number - 1].startswith("# ")


def test_what_the_template_has_commented_out_is_valid_too(loaded: Callable[[str], Scenario]) -> None:
    lines = [
        line.replace("# - {", "- {").replace("# resend", "resend") for line in template("x").splitlines()
    ]
    lines = [
        line.replace("# idem", "idem").replace("# links", "links").replace("#   shop", "  shop")
        for line in lines
    ]
    config = loaded("\n".join(lines)).points()[0].config
    assert len(config.faults) == 3 and config.network.links
    assert config.producers["shop"].app.resend and config.services["billing"].app.idempotence
