"""The way to a coordinator: what becomes of requests that are not answered, or not wanted any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.replication import NOT_LEADER
from tests.conformance.kafka import RF3, Driven

REQUEST_TIMEOUT = 2.0


class Way:
    """A link of its own to the coordinator of a world, with a handler that keeps the requests that come."""

    def __init__(self) -> None:
        self.world = Driven(channel=RF3, service={"request_timeout": REQUEST_TIMEOUT})
        consumer = self.world.broker.groups[0].clients[0]
        self.link = CoordinatorLink(self.world.cluster.offsets, consumer.host, consumer.settings)
        self.came: list[Callable[..., Any]] = []
        self.heard: list[str] = []
        self.world.run(until=1.0)

    def ask(self) -> None:
        """Ask something, and give the coordinator time to keep it."""
        self.link.ask(self.came.append, then=self.heard.append)
        self.pass_time(0.5)

    def pass_time(self, seconds: float) -> None:
        """Let time pass (s)."""
        self.world.run(until=self.world.sim.world.now + seconds)


def test_a_process_that_forgets_its_requests_is_not_reminded_of_them() -> None:
    way = Way()
    way.ask()
    way.link.forget()
    way.pass_time(3 * REQUEST_TIMEOUT)  # the request's time is up, and the world goes on
    way.came[0]("late")
    way.ask()
    way.came[1]("in time")
    way.pass_time(0.5)
    assert way.heard == ["in time"]


def test_a_coordinator_that_was_deposed_before_its_record_was_committed_is_asked_again() -> None:
    way = Way()
    way.ask()
    way.came[0](NOT_LEADER)
    way.pass_time(0.5)
    assert way.heard == [] and len(way.came) == 2
    way.came[1]("by the next")
    way.pass_time(0.5)
    assert way.heard == ["by the next"]
