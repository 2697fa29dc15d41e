"""The points of a sweep: grids, pairs, labels, and what their rows show."""

from __future__ import annotations

from typing import Any

import pytest

from sim.distributions import Constant, Exponential, Lognormal
from sim.scenario import Scenario, ScenarioError, model
from sim.scenario.expand import expand

pytestmark = pytest.mark.usefixtures("fake_systems")


def scenario(sweep: dict[str, Any], **more: Any) -> Scenario:
    data: dict[str, Any] = {
        "duration": "10 s",
        "channels": {"orders": {}},
        "producers": {"shop": {}},
        "services": {"billing": {"service_time": {"exponential": "10 ms"}}},
        "faults": [{"crash": "orders", "at": "1 s"}],
    }
    return Scenario.from_dict(data | {"sweep": sweep} | more)


def rows(sweep: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [point.params for point in scenario(sweep, **more).points()]


def test_a_grid_in_the_order_written() -> None:
    found = rows({"services.billing.consumers": [2, 1], "network.loss": ["0%", "5%"]})
    assert found == [
        {"services.billing.consumers": 2, "network.loss": 0.0},
        {"services.billing.consumers": 2, "network.loss": 0.05},
        {"services.billing.consumers": 1, "network.loss": 0.0},
        {"services.billing.consumers": 1, "network.loss": 0.05},
    ]


def test_zip_pairs_and_takes_its_place_in_the_grid() -> None:
    pairs = {"services.billing.consumers": [1, 2], "services.billing.prefetch": [10, 5]}
    found = rows({"zip": pairs, "network.loss": [0, 0.5]})
    assert [tuple(row.values()) for row in found] == [(1, 10, 0.0), (1, 10, 0.5), (2, 5, 0.0), (2, 5, 0.5)]
    assert list(found[0]) == ["services.billing.consumers", "services.billing.prefetch", "network.loss"]


def test_the_values_reach_the_configurations() -> None:
    points = scenario({"network.loss": ["0%", "5%"], "faults.0.at": ["2 s"]}).points()
    assert [point.config.network.loss for point in points] == [0.0, 0.05]
    assert points[0].config.faults[0].at == 2.0


def test_labels_stand_for_values() -> None:
    sweep = {
        "services.billing.service_time": {
            "steady": "10 ms",
            "bursty": {"lognormal": {"mean": "10 ms", "cv": 3}},
        }
    }
    points = scenario(sweep).points()
    assert [point.params for point in points] == [
        {"services.billing.service_time": "steady"},
        {"services.billing.service_time": "bursty"},
    ]
    assert [point.config.services["billing"].app.service_time for point in points] == [
        Constant(0.01),
        Lognormal(0.01, 3.0),
    ]


@pytest.mark.parametrize(
    "path, values, shown",
    [
        ("duration", ["1 min", 5], [60.0, 5.0]),
        ("messages", [10, 20], [10, 20]),
        ("producers.shop.arrivals", ["100/s", "2/min"], [100.0, 1 / 30]),
        ("producers.shop.size", ["1 KiB", {"exponential": "1 KiB"}], [1024, "exponential 1 KiB"]),
        ("channels.orders.memory", ["1 KiB"], [1024]),
        ("services.billing.service_time.exponential", ["10 ms", "1 s"], [0.01, 1.0]),
        ("services.billing.prefetch", [1, None], [1, "none"]),
        ("services.billing.effect", [True, False], [True, False]),
        ("services.billing.settle", ["before", "after"], ["before", "after"]),
        ("services.billing.idempotence", [None, {"size": 3}], ["none", "size 3"]),
        ("producers.shop.keys", [{"values": ["a", "b"]}], ["values [a, b]"]),
        ("guarantee", ["at-most-once", "none"], ["at-most-once", "none"]),
        ("channels.orders.guarantee", [None, "at-least-once"], ["none", "at-least-once"]),
        ("channels.orders.system", ["textbook", "pigeon"], ["textbook", "pigeon"]),
        ("faults", [[], [{"crash": "orders", "at": "1 s"}]], ["[]", "[{crash: orders, at: 1 s}]"]),
    ],
)
def test_what_a_row_shows(path: str, values: list[Any], shown: list[Any]) -> None:
    found = [row[path] for row in rows({path: values})]
    assert found == shown and [type(value) for value in found] == [type(value) for value in shown]


def test_two_ways_to_write_the_same_are_one_value_too_many() -> None:
    for path, values, twice in (
        ("network.loss", ["5%", 0.05], "0.05"),
        ("guarantee", [None, "none"], "none"),
    ):
        with pytest.raises(ScenarioError, match=f"expected different values, found {twice} twice"):
            rows({path: values})


def test_a_swept_guarantee_expands_anew_at_each_point() -> None:
    points = scenario({"guarantee": ["at-most-once", "at-least-once"]}).points()
    assert [point.config.channels["orders"].settings.storage for point in points] == ["memory", "disk"]
    assert [point.expansion["producers.shop.resend"] for point in points] == [
        None,
        {"timeout": "200 ms", "backoff": "50 ms"},
    ]


def test_a_path_that_is_not_written_can_be_swept() -> None:
    points = scenario({"services.billing.idempotence.size": [5], "network.tcp.retries": [0]}).points()
    idempotence = points[0].config.services["billing"].app.idempotence
    assert idempotence is not None and idempotence.size == 5
    assert points[0].config.network.tcp.retries == 0


def test_whole_parts_can_be_swept_under_labels() -> None:
    channels = {"durable": {"storage": "disk"}, "bird": {"system": "pigeon", "flock": 3}}
    points = scenario({"channels.orders": channels, "services.billing.consumers": [1]}).points()
    assert [point.params["channels.orders"] for point in points] == ["durable", "bird"]
    assert [point.config.channels["orders"].system for point in points] == ["textbook", "pigeon"]


def test_messages_take_the_place_of_the_duration() -> None:
    point = scenario({"messages": [10]}).points()[0]
    assert (point.config.duration, point.config.messages) == (None, 10)


def test_the_sweep_does_not_change_what_is_written() -> None:
    swept = scenario({"services.billing.service_time": ["1 s"]})
    assert swept.raw["services"]["billing"]["service_time"] == {"exponential": "10 ms"}
    assert swept.sweep[0].paths == ("services.billing.service_time",)
    assert swept.sweep[0].values == ((1.0,),)


def test_a_claim_may_name_what_is_swept() -> None:
    claims = [
        {"claim": "lost == at('lost', loss=0)", "where": "loss > 0 and services_billing_consumers == 1"}
    ]
    assert scenario({"network.loss": [0, 0.1], "services.billing.consumers": [1]}, expect=claims).claims


def test_service_time_keeps_its_kind_where_only_a_part_is_swept() -> None:
    points = scenario({"services.billing.service_time.exponential": ["1 s"]}).points()
    assert points[0].config.services["billing"].app.service_time == Exponential(1.0)


def test_each_point_is_expanded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(model, "expand", lambda *given: calls.append(1) or expand(*given))
    sweep = {"services.billing.consumers": range(1, 5), "network.loss": [0, 0.1, 0.2, 0.3, 0.4]}
    assert len(scenario(sweep).points()) == len(calls) == 20
