"""A guarantee fills in what the scenario leaves open, and says what it filled in."""

from __future__ import annotations

from typing import Any

import pytest

from sim.apps import Idempotence, Resend
from sim.distributions import Constant, Exponential
from sim.scenario import Scenario
from sim.scenario.model import Point

pytestmark = pytest.mark.usefixtures("fake_systems")


def point(
    guarantee: Any, channel: Any = None, producer: Any = None, service: Any = None, **more: Any
) -> Point:
    data = {
        "messages": 1,
        "guarantee": guarantee,
        "channels": {"orders": channel},
        "producers": {"shop": producer},
        "services": {"billing": service},
    }
    return Scenario.from_dict(data | more).points()[0]


def test_it_fills_in_what_is_open() -> None:
    found = point("at-least-once")
    assert found.config.channels["orders"].settings.storage == "disk"
    assert found.config.channels["orders"].settings.fsync == Exponential(0.003)
    assert found.config.producers["shop"].app.resend == Resend(timeout=0.2, backoff=0.05)
    assert found.expansion == {
        "channels.orders.storage": "disk",
        "channels.orders.fsync": {"exponential": "3 ms"},
        "producers.shop.resend": {"timeout": "200 ms", "backoff": "50 ms"},
        "services.billing.settle": "after",
    }


def test_settings_of_the_client_library_stand_beside_those_of_the_app() -> None:
    found = point("exactly-once")
    assert found.config.producers["shop"].client.sequence_numbers is True
    assert found.config.services["billing"].app.idempotence == Idempotence("transaction")


def test_what_is_written_wins_field_by_field() -> None:
    found = point(
        "at-least-once", {"storage": "memory"}, {"resend": {"timeout": "1 s"}}, {"settle": "before"}
    )
    assert found.config.channels["orders"].settings.storage == "memory"
    assert found.config.producers["shop"].app.resend == Resend(timeout=1.0, backoff=0.05)
    assert found.config.services["billing"].app.settle == "before"
    assert found.expansion == {
        "channels.orders.fsync": {"exponential": "3 ms"},
        "producers.shop.resend.backoff": "50 ms",
    }


def test_a_distribution_is_one_value() -> None:
    found = point("at-least-once", {"fsync": {"lognormal": {"mean": "1 ms", "cv": 0}}})
    assert "channels.orders.fsync" not in found.expansion
    assert found.config.channels["orders"].settings.fsync.mean == 0.001


@pytest.mark.parametrize("none", [None, "none"])
def test_a_null_that_is_written_wins_too(none: Any) -> None:
    assert point("at-least-once", producer={"resend": none}).config.producers["shop"].app.resend is None
    assert (
        point("exactly-once", service={"idempotence": none}).config.services["billing"].app.idempotence
        is None
    )


@pytest.mark.parametrize("none", [None, "none"])
def test_no_guarantee(none: Any) -> None:
    found = point(none)
    assert found.expansion == {}
    assert found.config.channels["orders"].settings.fsync == Constant(0.002)


def test_a_channels_own_guarantee_wins() -> None:
    assert (
        point("at-least-once", {"guarantee": "at-most-once"}).config.channels["orders"].settings.storage
        == "memory"
    )
    assert point("at-least-once", {"guarantee": None}).expansion == {}


def test_each_channel_by_its_own_system() -> None:
    channels = {"orders": {}, "birds": {"system": "pigeon"}}
    producers = {"shop": {"channel": "orders"}, "loft": {"channel": "birds"}}
    found = point("at-most-once", channels=channels, producers=producers, services={})
    assert found.config.channels["birds"].settings.flock == 2
    assert found.expansion == {
        "channels.orders.storage": "memory",
        "producers.shop.resend": None,
        "channels.birds.flock": 2,
    }


def test_a_service_that_publishes_is_a_producer_of_the_next_channel() -> None:
    channels = {"orders": {}, "bills": {"guarantee": "at-least-once"}}
    services = {
        "billing": {"channel": "orders", "publishes": {"channel": "bills", "resend": {"backoff": "1 s"}}}
    }
    found = point(None, channels=channels, producers={"shop": {"channel": "orders"}}, services=services)
    publishes = found.config.services["billing"].app.publishes
    assert publishes is not None and publishes.resend == Resend(timeout=0.2, backoff=1.0)
    assert found.expansion["services.billing.publishes.resend.timeout"] == "200 ms"
