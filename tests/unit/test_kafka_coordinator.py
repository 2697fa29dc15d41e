"""The way to a coordinator: what becomes of requests that are not answered, or not wanted any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.brokers.kafka.cluster import Sessions
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.replication import NOT_LEADER
from tests.conformance.kafka import RF3, Driven

REQUEST_TIMEOUT = 2.0


class Way:
    """A link of its own to the coordinator of a world, with a handler that keeps the requests that come.

    With a `session` it is that of a member of a group.
    """

    def __init__(self, session: Sessions | None = None) -> None:
        self.world = Driven(channel=RF3, service={"request_timeout": REQUEST_TIMEOUT})
        consumer = self.world.broker.groups[0].clients[0]
        self.link = CoordinatorLink(self.world.cluster.offsets, consumer.host, consumer.settings, session)
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


def test_a_request_whose_connection_breaks_is_sent_again() -> None:
    way = Way()
    way.ask()
    coordinator = way.world.cluster.offsets.partition.leader
    way.link._links[coordinator].broken(way.link.host)
    way.pass_time(1.0)
    assert len(way.came) == 2
    way.came[1]("over another")
    way.pass_time(0.5)
    assert way.heard == ["over another"]


def test_a_broker_that_does_not_know_yet_that_it_coordinates_refuses() -> None:
    way = Way()
    partition = way.world.cluster.offsets.partition
    leads = way.world.cluster.brokers[0].leads
    leadership = leads.pop(partition)  # the controller's word has not come
    way.ask()
    assert not way.came
    leads[partition] = leadership
    way.pass_time(0.5)
    assert len(way.came) == 1


def test_a_member_asks_the_next_coordinator_when_the_one_that_it_asked_is_deposed() -> None:
    # given that another broker coordinates meanwhile, and that the connection to the first one holds
    way = Way(session=Sessions(3.0, 45.0))
    partition, (first, second, _) = way.world.cluster.offsets.partition, way.world.cluster.brokers
    way.ask()
    partition.leader, second.leads[partition] = second, first.leads[partition]
    way.pass_time(2 * REQUEST_TIMEOUT)
    assert len(way.came) == 2
