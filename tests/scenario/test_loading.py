"""From a file or a name to a scenario: what is read, what is left to defaults, how parts refer to each other."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.apps import Failures, Idempotence, Keys, Producer, Publishes, Resend, Service
from sim.config import Config
from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.network import LinkSettings, LossBursts, TcpSettings
from sim.scenario import Claim, Scenario, ScenarioError, config_dict, index, load

pytestmark = pytest.mark.usefixtures("fake_systems")

FULL = """
title: Orders and
  receipts
question: >
  Where do
  they go?
seed: 7
messages: 100
warmup: 1 s
drain_limit: 10 min
replications: 3
channels:
  orders: {storage: disk, ack_timeout: none, memory: 1 MiB}
  receipts: {system: pigeon}
producers:
  shop:
    channel: orders
    messages: 30
    keys: {values: [a, b], weights: [0.7, 0.3]}
    resend: {timeout: 50 ms, attempts: none}
    instances: 2
    sequence_numbers: true
services:
  billing:
    channel: orders
    consumers: 3
    prefetch: none
    failures: {poison: 1%, crashes: true}
    idempotence: {store: memory, size: 100, ttl: 1 h}
    publishes: {channel: receipts, resend: none, size: 100 B}
  archive: {channel: receipts, filter: "a.*"}
network:
  delay: {exponential: 1 ms}
  loss: 1%
  bursts: {every: 10 s}
  tcp: {retries: 0}
  links:
    shop.2 -> orders: {loss: 5%}
    "orders <-> *": {delay: 3 ms, bursts: none}
faults:
  - {kind: crash, target: billing.1, at: 10 s, lasting: 5 s}
  - {crash: orders, on: "orders.accept #3", lasting: 2 s}
  - {slow_link: billing -> receipts, every: 5 s, lasting: 1 s, factor: 4}
  - {clock_skew: shop, mtbf: 10 s, mttr: 1 s, skew: -3 s}
expect:
  - claim: lost == 0
    because: it is so
  - {claim: duplicates == 0, refuted: true, broken_by: {network.loss: 0}}
plots: [cdf, tail]
"""


@pytest.fixture
def full(loaded: Callable[[str], Scenario]) -> Scenario:
    return loaded(FULL)


def config_of(scenario: Scenario) -> Config:
    return scenario.points()[0].config


def test_head(full: Scenario) -> None:
    assert (full.name, full.file) == ("s", Path("s.yaml"))
    assert (full.title, full.question) == ("Orders and receipts", "Where do they go?")
    assert (full.seed, full.replications, full.plots) == (7, 3, ("cdf", "tail"))
    assert full.claims == (
        Claim("lost == 0", because="it is so", line=FULL[: FULL.index("claim: lost")].count("\n") + 1),
        Claim("duplicates == 0", broken_by={"network.loss": 0}, refuted=True, line=full.claims[0].line + 2),
    )
    assert full.raw["messages"] == 100


def test_end(full: Scenario) -> None:
    config = config_of(full)
    assert (config.duration, config.messages, config.warmup, config.drain_limit) == (None, 100, 1.0, 600.0)


def test_channels(full: Scenario) -> None:
    orders, receipts = config_of(full).channels.values()
    assert (orders.system, receipts.system) == ("textbook", "pigeon")
    settings = orders.settings
    assert (settings.storage, settings.ack_timeout, settings.memory) == ("disk", None, 2**20)
    assert settings.fsync == Constant(0.002)


def test_producers(full: Scenario) -> None:
    producer = config_of(full).producers["shop"]
    assert producer.app == Producer(
        channel="orders",
        messages=30,
        keys=Keys(("a", "b"), (0.7, 0.3)),
        resend=Resend(timeout=0.05),
        instances=2,
    )
    assert producer.client.sequence_numbers is True


def test_services(full: Scenario) -> None:
    services = config_of(full).services
    assert services["billing"].app == Service(
        channel="orders",
        consumers=3,
        failures=Failures(poison=0.01, crashes=True),
        idempotence=Idempotence("memory", 100, 3600.0),
        publishes=Publishes("receipts", None, Constant(100.0)),
    )
    assert services["billing"].client.prefetch is None
    assert services["archive"].app == Service(channel="receipts", filter="a.*")


def test_links_take_from_the_network_what_they_do_not_say(full: Scenario) -> None:
    network = config_of(full).network
    bursts = LossBursts(every=10.0)
    assert network.tcp == TcpSettings(retries=0)
    assert network.links == {
        "shop.2 -> orders": LinkSettings(Exponential(0.001), 0.05, bursts=bursts),
        "orders <-> *": LinkSettings(Constant(0.003), 0.01, bursts=None),
    }


def test_faults(full: Scenario) -> None:
    assert config_of(full).faults == (
        Fault("crash", "billing.1", at=10.0, lasting=5.0),
        Fault("crash", "orders", on="orders.accept #3", lasting=2.0),
        Fault("slow_link", "billing -> receipts", every=5.0, lasting=1.0, factor=4.0),
        Fault("clock_skew", "shop", mtbf=10.0, mttr=1.0, skew=-3.0),
    )


def test_a_config_as_a_dict_is_json_and_can_be_read_again(full: Scenario) -> None:
    config = config_of(full)
    data = json.loads(json.dumps(config_dict(config), allow_nan=False))
    again = config_of(Scenario.from_dict(data))
    assert again == config
    assert json.dumps(config_dict(again)) == json.dumps(config_dict(config))


def test_a_default_and_the_same_value_written_give_the_same_dict(loaded: Callable[[str], Scenario]) -> None:
    short = "duration: 1 s\nchannels: {orders: }\nproducers: {shop: %s}\n"
    implicit, explicit = loaded(short % ""), loaded(short % "{size: 1 KiB, arrivals: 100/s, channel: orders}")
    assert json.dumps(config_dict(config_of(implicit))) == json.dumps(config_dict(config_of(explicit)))


def test_the_smallest_scenario(loaded: Callable[[str], Scenario]) -> None:
    scenario = loaded(
        "messages: 1\nchannels:\n  q:\nproducers:\n  p:\nservices:\nnetwork:\nfaults:\nsweep:\nexpect:\n"
    )
    assert (scenario.title, scenario.question, scenario.seed, scenario.replications) == ("s", "", 1, 1)
    (point,) = scenario.points()
    assert (point.params, point.expansion, point.config.services) == ({}, {}, {})
    assert point.config.producers["p"].app == Producer("q")


def test_an_alias_stands_for_what_it_names(loaded: Callable[[str], Scenario]) -> None:
    services = "services:\n  a: &same {consumers: 3}\n  b: *same\n"
    scenario = loaded("messages: 1\nchannels: {q: {pattern: topic}}\nproducers: {p: }\n" + services)
    assert [service.app.consumers for service in config_of(scenario).services.values()] == [3, 3]


@pytest.mark.parametrize("text", ["\ufeffmessages: 1\r\nchannels: {q: }\r\nproducers: {p: }\r\n"])
def test_a_file_from_windows(loaded: Callable[[str], Scenario], text: str) -> None:
    assert config_of(loaded(text)).messages == 1


def test_csv_files_are_relative_to_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "t.csv").write_text("t\n1\n2\n")
    (tmp_path / "deep" / "s.yaml").write_text(
        "messages: 1\nchannels: {q: }\nproducers: {p: {arrivals: {trace: {csv: t.csv, column: t}}}}\n"
    )
    assert config_of(load(tmp_path / "deep" / "s.yaml")).producers["p"].app.arrivals.at == (1.0, 2.0)  # type: ignore[attr-defined]


def test_a_shipped_scenario_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "published").mkdir()
    text = "title: T\nquestion: Q?\nmessages: 1\nchannels: {q: }\nproducers: {p: }\n"
    for name in ("published/p01", "guarantees"):
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(index, "scenarios_folder", lambda: tmp_path)
    assert (load("published/p01").name, load("published/p01").title) == ("published/p01", "T")
    for wrong, hint in (
        ("guarantes", "; did you mean 'guarantees'?"),
        ("published/p1", "; did you mean 'published/p01'?"),
        ("xyzzy", "; `msgsim list` shows them all, and the name of a file ends in .yaml"),
    ):
        with pytest.raises(ScenarioError) as caught:
            load(wrong)
        assert str(caught.value) == f"no scenario is named {wrong!r}{hint}"


def test_a_scenario_can_be_sent_to_another_process(full: Scenario) -> None:
    copy = pickle.loads(pickle.dumps(full))
    assert copy == full and [p.params for p in copy.points()] == [p.params for p in full.points()]


def test_built_in_python() -> None:
    data: dict[str, Any] = {
        "duration": 10,
        "channels": {"orders": {"pattern": "queue"}},
        "producers": {"shop": {"arrivals": "5/s", "resend": Resend(timeout=0.3)}},
        "services": {"billing": {"service_time": Exponential(0.02), "consumers": 2}},
        "sweep": {"services.billing.consumers": range(1, 4)},
    }
    scenario = Scenario.from_dict(data, name="mine")
    points = scenario.points()
    assert (scenario.name, scenario.file) == ("mine", None)
    assert [point.params for point in points] == [{"services.billing.consumers": n} for n in (1, 2, 3)]
    assert points[2].config.services["billing"].app == Service("orders", 3, service_time=Exponential(0.02))
    assert points[0].config.producers["shop"].app.resend == Resend(timeout=0.3)


def test_a_mistake_in_python_has_a_path_but_no_line() -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_dict(
            {"duration": 10, "channels": {"q": None}, "producers": {"p": {"size": "x"}}}, name="mine"
        )
    assert str(caught.value) == "mine: producers.p.size: expected a size such as 1 KiB, found 'x'"


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_mapping(data: Any) -> None:
    with pytest.raises(ScenarioError, match="expected a mapping with channels and producers, found"):
        Scenario.from_dict(data)


def test_a_dict_within_itself() -> None:
    data: dict[str, Any] = {"duration": 1}
    data["channels"] = data
    with pytest.raises(ScenarioError, match="nested too deeply"):
        Scenario.from_dict(data)


def test_listing_needs_no_heavy_packages() -> None:
    code = (
        "import sys, sim.scenario, sim.scenario.errors; from sim.scenario.index import load_index; load_index(); "
        "print([m for m in ('pydantic', 'ruamel', 'ruamel.yaml', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_what_they_say() -> None:
    import sim.scenario as package

    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = package.lood
