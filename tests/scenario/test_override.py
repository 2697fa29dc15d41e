"""Values changed by dotted path, as with --set and broken_by."""

from __future__ import annotations

from typing import Any

import pytest

from sim.distributions import Constant, Exponential, Gamma
from sim.scenario import Scenario, ScenarioError

pytestmark = pytest.mark.usefixtures("fake_systems")

BASE: dict[str, Any] = {
    "title": "T",
    "duration": "10 s",
    "channels": {"orders": {"pattern": "topic"}},
    "producers": {"shop": {"resend": "none"}},
    "services": {"billing": {"service_time": {"exponential": "10 ms"}}, "audit": {}},
    "network": {"links": {"shop -> orders": {"loss": "1%"}}},
    "faults": [{"crash": "orders", "at": "1 s", "lasting": "1 s"}],
}
SWEPT = BASE | {
    "sweep": {
        "network.loss": ["0%", "5%"],
        "zip": {"services.billing.consumers": [1, 2], "services.billing.prefetch": [10, 5]},
    },
    "expect": [
        {"claim": "lost == 0", "where": "loss == 0", "broken_by": {"faults.0.at": "2 s"}},
        {"claim": "lost == 0", "broken_by": {"faults": []}},
    ],
}


@pytest.fixture
def base() -> Scenario:
    return Scenario.from_dict(BASE)


@pytest.fixture
def swept() -> Scenario:
    return Scenario.from_dict(SWEPT)


def test_a_value(base: Scenario) -> None:
    changed = base.override({"network.loss": "5%", "services.billing.consumers": 3})
    config = changed.points()[0].config
    assert (config.network.loss, config.services["billing"].app.consumers) == (0.05, 3)
    assert base.points()[0].config.network.loss == 0.0


@pytest.mark.parametrize(
    "path, value, found",
    [
        ("title", "U", lambda s, c: s.title == "U"),
        ("seed", 9, lambda s, c: s.seed == 9),
        ("replications", 4, lambda s, c: s.replications == 4),
        ("plots", ["cdf"], lambda s, c: s.plots == ("cdf",)),
        ("guarantee", "at-least-once", lambda s, c: c.channels["orders"].settings.storage == "disk"),
        ("channels.orders.storage", "disk", lambda s, c: c.channels["orders"].settings.storage == "disk"),
        ("producers.shop.resend.attempts", 3, lambda s, c: c.producers["shop"].app.resend.attempts == 3),
        (
            "services.billing.service_time",
            "1 s",
            lambda s, c: c.services["billing"].app.service_time == Constant(1),
        ),
        (
            "services.billing.service_time",
            Gamma(1.0, 2.0),
            lambda s, c: c.services["billing"].app.service_time == Gamma(1.0, 2.0),
        ),
        (
            "services.billing.service_time.exponential",
            "1 s",
            lambda s, c: c.services["billing"].app.service_time == Exponential(1),
        ),
        (
            "network.links.shop -> orders.loss",
            0.5,
            lambda s, c: c.network.links["shop -> orders"].loss == 0.5,
        ),
        ("network.links", {}, lambda s, c: c.network.links == {}),
        ("faults.0.lasting", "3 s", lambda s, c: c.faults[0].lasting == 3.0),
        ("faults", None, lambda s, c: c.faults == ()),
        ("sweep", {"network.loss": [0, 1]}, lambda s, c: len(s.points()) == 2),
        ("expect", [{"claim": "lost == 0"}], lambda s, c: len(s.claims) == 1),
        ("messages", 5, lambda s, c: (c.duration, c.messages) == (None, 5)),
        ("duration", "1 min", lambda s, c: (c.duration, c.messages) == (60.0, None)),
    ],
)
def test_every_part_can_be_changed(base: Scenario, path: str, value: Any, found: Any) -> None:
    changed = base.override({path: value})
    assert found(changed, changed.points()[0].config)


def test_a_swept_path_keeps_its_column_with_one_value(swept: Scenario) -> None:
    points = swept.override({"network.loss": "20%"}).points()
    assert [tuple(point.params.values()) for point in points] == [(0.2, 1, 10), (0.2, 2, 5)]
    assert {point.config.network.loss for point in points} == {0.2}


def test_so_does_a_path_of_zip(swept: Scenario) -> None:
    points = swept.override({"services.billing.prefetch": 7, "network.loss": 0}).points()
    assert [tuple(point.params.values()) for point in points] == [(0.0, 1, 7), (0.0, 2, 7)]


def test_rows_of_zip_that_become_one(swept: Scenario) -> None:
    points = swept.override({"services.billing.prefetch": 7, "services.billing.consumers": 1}).points()
    assert [tuple(point.params.values()) for point in points] == [(0.0, 1, 7), (0.05, 1, 7)]


def test_an_override_may_take_the_ground_from_a_claim(swept: Scenario) -> None:
    # No loss to speak of in `where`, no fault to speak of in a broken_by.
    changed = swept.override({"sweep": None, "faults": None})
    assert len(changed.points()) == 1 and len(changed.claims) == 2


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("services.biling.prefetch", 1, "unknown path; did you mean 'services.billing.prefetch'?"),
        ("services.billing.prefech", 1, "unknown path; did you mean 'services.billing.prefetch'?"),
        ("guarante", 1, "unknown path; did you mean 'guarantee'?"),
        (
            "services.billing.service_time.mean",
            1,
            "unknown path; services.billing.service_time has exponential",
        ),
        ("faults.1.at", 1, "unknown path; did you mean 'faults.0.at'?"),
        ("network.loss", "500%", "expected a share from 0 to 1 such as 2%, found '500%'"),
        ("services.billing", 3, "expected a mapping of settings, found 3"),
        ("seed", "x", "expected a whole number >= 0, found 'x'"),
        (
            "services.billing.idempotence",
            {"stoer": 1},
            "services.billing.idempotence.stoer: unknown field; did you mean 'store'?",
        ),
        (
            "services.billing.service_time",
            {"gamma": {"mean": "x", "cv": 1}},
            "services.billing.service_time.gamma.mean: expected a time such as 200 ms, found 'x'",
        ),
        ("expect", [{"claim": "lots == 0"}], "expect.0.claim: unknown name 'lots'; did you mean 'lost'?"),
        ("sweep", {"network.los": [1]}, "sweep.network.los: unknown path; did you mean 'network.loss'?"),
    ],
)
def test_a_mistake_is_told_in_one_line(base: Scenario, path: str, value: Any, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        base.override({path: value})
    assert str(caught.value) == f"--set {path}: {message}"


def test_a_path_that_begins_like_no_other(base: Scenario) -> None:
    with pytest.raises(
        ScenarioError, match="xyzzy: unknown path; a path begins with one of channels, producers"
    ):
        base.override({"xyzzy": 1})


def test_what_the_sweep_would_overwrite(swept: Scenario) -> None:
    by_time = Scenario.from_dict(
        BASE | {"sweep": {"duration": ["1 s", "2 s"], "services.billing.service_time": ["1 s"]}}
    )
    for scenario, path, value, other in (
        (by_time, "messages", 5, "duration"),
        (by_time, "services.billing.service_time.exponential", "1 s", "services.billing.service_time"),
    ):
        with pytest.raises(ScenarioError) as caught:
            scenario.override({path: value})
        assert str(caught.value) == f"--set {path}: the sweep over {other} would overwrite it"
    assert swept.override({"messages": 5}).points()[0].config.messages == 5


def test_a_duration_and_a_number_of_messages(base: Scenario) -> None:
    with pytest.raises(ScenarioError, match="--set duration, messages: expected one of the two, found both"):
        base.override({"duration": "1 s", "messages": 5})


def test_of_a_file_only_the_changed_value_is_at_another_place(loaded: Any) -> None:
    scenario = loaded("duration: 5 s\nchannels:\n  q:\nproducers:\n  p:\nwarmup: 2 s\n")
    with pytest.raises(ScenarioError) as caught:
        scenario.override({"duration": "1 s"})
    assert str(caught.value) == "s.yaml:6: warmup: expected less than the duration, 1 s, found 2 s"
