"""Channels that run on several hosts: what faults and links may name, and how many nodes there are at a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sim import brokers
from sim.apps import Resend
from sim.brokers import Preset, System
from sim.faults import Fault
from sim.scenario import Scenario, ScenarioError
from tests.scenario.conftest import PIGEON, SIMPLE


@dataclass(frozen=True)
class HerdChannel:
    """A cluster of so many `nodes`."""

    nodes: int = 1


@dataclass(frozen=True)
class HerdClient:
    """Has no settings."""


HERD = System(
    name="herd",
    title="A herd",
    Channel=HerdChannel,
    ProducerClient=HerdClient,
    ConsumerClient=HerdClient,
    presets={"at-most-once": Preset(), "at-least-once": Preset(channel={"nodes": 3})},
    events=("moo",),
    build=lambda *_: None,
    roles=("leader", "follower"),
    reports_in_doubt=True,
)


@pytest.fixture(autouse=True)
def _herds(monkeypatch: pytest.MonkeyPatch) -> None:
    systems = {"textbook": SIMPLE, "pigeon": PIGEON, "herd": HERD}
    monkeypatch.setattr(brokers, "NAMES", tuple(systems))
    monkeypatch.setattr(brokers, "system", systems.__getitem__)


def scenario(channel: Any, *targets: str, **more: Any) -> Scenario:
    """A scenario with one channel and faults that name `targets`."""
    kinds = ("partition" if "->" in target else "crash" for target in targets)
    faults = [{kind: target, "at": "1 s"} for kind, target in zip(kinds, targets, strict=True)]
    return Scenario.from_dict(
        {
            "messages": 1,
            "channels": {"orders": channel},
            "producers": {"shop": {}},
            "services": {"billing": {"consumers": 2}},
            "faults": faults,
        }
        | more
    )


def problem(*args: Any, **more: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenario(*args, **more)
    return str(caught.value).partition(": ")[2]


def test_a_channel_with_several_nodes_is_a_group_of_hosts():
    targets = [
        "orders",
        "orders.1",
        "orders.3",
        "orders.2 <-> orders.3",
        "orders <-> orders",
        "shop -> orders.1",
    ]
    found = scenario({"system": "herd", "nodes": 3}, *targets)
    assert [fault.target for fault in found.points()[0].config.faults] == targets


def test_a_channel_with_one_node_is_a_host_that_stands_alone():
    assert scenario({"system": "herd"}, "orders").points()[0].config.faults == (
        Fault("crash", "orders", at=1.0),
    )
    message = "faults.0.crash: expected a host, found 'orders.1'; did you mean 'orders'?"
    for channel in ({"system": "herd"}, {"system": "herd", "nodes": 1}, {}):
        assert problem(channel, "orders.1") == message


@pytest.mark.parametrize(
    "target, expected, nearest",
    [
        ("orders.4", "crash: expected a host", "orders.3"),
        ("orders.0", "crash: expected a host", "orders.3"),
        ("orders.1 <-> orders.4", "partition: expected a host after the arrow", "orders.3"),
        ("orders.leadr", "crash: expected a host", "orders.leader"),
        ("orders.folower -> *", "partition: expected a host before the arrow", "orders.follower"),
        ("billing.leader", "crash: expected a host", "billing.2"),
    ],
)
def test_what_is_no_host_and_no_role_is_told_with_the_nearest_name(target, expected, nearest):
    wrong = next(end for end in reversed(target.split()) if "." in end and end != "orders.1")
    found = problem({"system": "herd", "nodes": 3}, target)
    assert found == f"faults.0.{expected}, found '{wrong}'; did you mean '{nearest}'?"


def test_the_number_of_nodes_may_come_from_a_guarantee_an_override_or_a_sweep():
    herd = {"system": "herd"}
    assert scenario(herd, "orders.3", guarantee="at-least-once")
    assert scenario(herd | {"nodes": 3}, "orders.2").override({"channels.orders.nodes": 2})
    with pytest.raises(ScenarioError, match=r"found 'orders\.2'; did you mean 'orders'\?"):
        scenario(herd | {"nodes": 3}, "orders.2").override({"channels.orders.nodes": 1})
    swept = scenario(herd, "orders.2", sweep={"channels.orders.nodes": [2, 3]})
    assert [point.config.channels["orders"].settings.nodes for point in swept.points()] == [2, 3]
    assert "found 'orders.3'" in problem(herd, "orders.3", sweep={"channels.orders.nodes": [2, 3]})


def test_links_between_nodes_may_have_settings_of_their_own():
    links = {"orders <-> orders": {"delay": "0.1 ms"}, "orders.1 -> orders.2": {"delay": "9 ms"}}
    found = scenario({"system": "herd", "nodes": 2}, network={"links": links}).points()[0].config.network
    assert [link.delay.mean for link in found.links.values()] == [0.0001, 0.009]


def test_who_has_a_role_can_be_struck_and_has_no_links_of_its_own():
    found = scenario({"system": "herd"}, "orders.leader", "orders.leader <-> *", "shop -> orders.follower")
    assert len(found.points()[0].config.faults) == 3
    message = problem({"system": "herd"}, network={"links": {"shop -> orders.leader": {"loss": "5%"}}})
    assert "expected a host after the arrow, found 'orders.leader'; did you mean 'orders'?" in message
    assert "expected a host, found 'orders.leader'" in problem({}, "orders.leader"), "textbook has no roles"


def test_a_channel_that_cannot_be_read_is_one_mistake():
    found = problem({"system": "herd", "nodes": "many"}, "orders.7")
    assert found.startswith("channels.orders.nodes: ") and "more)" not in found


# -- resend without a timeout -----------------------------------------------------------------------------------------

COMPLAINT = "timeout: null needs a system whose client reports broken connections; that of textbook does not"


def test_a_producer_may_wait_for_ever_where_the_client_reports_broken_connections():
    for never in (None, "none"):
        found = scenario({"system": "herd"}, producers={"shop": {"resend": {"timeout": never}}})
        assert found.points()[0].config.producers["shop"].app.resend == Resend(timeout=None)
        found = problem({}, producers={"shop": {"resend": {"timeout": never}}})
        assert found == f"producers.shop.resend.timeout: {COMPLAINT}"


def test_the_rule_is_that_of_the_channel_that_is_published_to():
    herd, text = {"system": "herd"}, {"system": "textbook", "pattern": "topic"}

    def given(output: str) -> dict[str, Any]:
        publishes = {"channel": output, "resend": {"timeout": None}}
        return {
            "channels": {"a": herd, "b": text},
            "producers": {"shop": {"channel": "b" if output == "a" else "a"}},
            "services": {"billing": {"channel": "b" if output == "a" else "a", "publishes": publishes}},
        }

    assert scenario({}, **given("a"))
    assert problem({}, **given("b")) == f"services.billing.publishes.resend.timeout: {COMPLAINT}"
