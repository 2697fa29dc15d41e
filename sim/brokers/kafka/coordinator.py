"""A client's way to a coordinator, wherever that is: requests, answers, and heartbeats that are reckoned with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.replication import NO_COPY, NOT_LEADER
from sim.connection import Connection
from sim.host import Host
from sim.kernel import Timeouts
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import InternalTopic

Handler = Callable[..., Any]


def _nothing(*_: Any) -> None:
    """Nobody asked to be told."""


@dataclass(slots=True)
class Request:
    """A request without an answer; `broker` has it, None while nobody does."""

    handler: Handler
    args: tuple[Any, ...]
    then: Handler
    broker: Broker | None = None


class CoordinatorLink:
    """A client's connections to the brokers that may coordinate.

    Who coordinates it learns from FindCoordinator, which any broker answers: here it is the controller's word.
    `connected()` is called when the coordinator can be reached, and `silent()` at the coordinator when the client's
    connection is over. `session` is the rule of the client's heartbeats.
    """

    def __init__(
        self,
        topic: InternalTopic,
        host: Host,
        settings: Any,
        session: Any = None,
        connected: Handler = _nothing,
        silent: Handler = _nothing,
    ) -> None:
        self.topic, self.host, self.world = topic, host, host.world
        self._settings, self._session = settings, session
        self._connected, self._silent = connected, silent
        self._number = 0
        self._asked: dict[int, Request] = {}
        self._open: dict[Broker, bool] = {}  # as far as the client knows
        self._start_timeouts()
        self._links = {broker: self._link(broker) for broker in topic.partition.replicas}

    def _start_timeouts(self) -> None:
        limit = self._settings.request_timeout
        self._timeouts: Timeouts[int] = Timeouts(self.host, limit, self._timed_out)

    def _link(self, broker: Broker) -> Connection:
        hop = Hop("coordinator")
        connection = self.topic.cluster.client_connection(
            self.host,
            broker,
            hop,
            hop,
            self._settings,
            client_opened=lambda: self._opened(broker),
            client_broken=lambda: self._broken(broker),
            server_broken=lambda: self._server_broken(broker),
        )
        if self._session is not None:
            connection.heartbeats = self._session
        return connection

    def _opened(self, broker: Broker) -> None:
        self._open[broker] = True
        if broker is self.topic.partition.leader:
            for number in list(self._asked):
                self._send(number)
            self._connected()

    def _server_broken(self, broker: Broker) -> None:
        if broker is self.topic.partition.leader:
            self._silent()

    # -- at the coordinator ------------------------------------------------------------------------------------

    def is_audible(self) -> bool:
        """Whether the client's heartbeats come."""
        broker = self.topic.partition.leader
        return broker is not None and self._links[broker].is_server_hearing

    def heard_at(self) -> float:
        """When the last heartbeat of a client that fell silent came (s)."""
        broker = self.topic.partition.leader
        return self.world.now if broker is None else self._links[broker].server_heard_at

    def tell(self, handler: Handler, *args: Any) -> None:
        """Tell the client something, with the answer to a heartbeat."""
        broker = self.topic.partition.leader
        if broker is not None:
            self._links[broker].back.send(self._told, NO_COPY, handler, args)

    def _told(self, _copy: int, handler: Handler, args: tuple[Any, ...]) -> None:
        handler(*args)

    # -- requests ----------------------------------------------------------------------------------------------

    def ask(self, handler: Handler, *args: Any, then: Handler = _nothing) -> None:
        """Call `handler(*args, answer)` at the coordinator, and `then(...)` here with what it calls `answer` with.

        The request is repeated when its connection breaks, when the answer is NOT_LEADER (it was deposed before its
        records were committed), until a coordinator takes it, and after request.timeout.ms if another broker
        coordinates then.
        """
        self._number += 1
        self._asked[self._number] = Request(handler, args, then)
        self._send(self._number)

    def _send(self, number: int) -> None:
        request = self._asked.get(number)
        if request is None or request.broker is not None:
            return
        broker = self.topic.partition.leader
        if broker is None or not self._open.get(broker):
            self.host.call_later(RETRY_BACKOFF, self._send, number)
            return
        request.broker = broker
        self._timeouts.add(number)
        self._links[broker].there.send(self._arrives, NO_COPY, broker, number, request.handler, request.args)

    def _arrives(
        self, _copy: int, broker: Broker, number: int, handler: Handler, args: tuple[Any, ...]
    ) -> None:
        broker.work(broker.request_time)
        if self.topic.partition in broker.leads:
            handler(*args, partial(self._answer, broker, number))
        else:
            self._links[broker].back.send(self._refused, NO_COPY, number)

    def _answer(self, broker: Broker, number: int, *values: Any) -> None:
        """At the coordinator."""
        at = max(broker.busy, broker.world.now)
        if values[:1] == (NOT_LEADER,):
            self._links[broker].back.send_at(at, self._refused, NO_COPY, number)
        else:
            self._links[broker].back.send_at(at, self._answered, NO_COPY, number, values)

    def _answered(self, _copy: int, number: int, values: tuple[Any, ...]) -> None:
        request = self._asked.pop(number, None)
        if request is not None:
            self._timeouts.remove(number)
            request.then(*values)

    def _timed_out(self, number: int) -> None:
        """request.timeout.ms without an answer. Some take longer, and whether the coordinator is there a member of a
        group hears by its heartbeats."""
        broker = self._asked[number].broker
        if broker is None or broker is not self.topic.partition.leader:
            self._send_later(number)
        elif self._session is None:
            self._links[broker].broken(self.host)
        else:
            self._timeouts.add(number)

    def _refused(self, _copy: int, number: int) -> None:
        """NOT_COORDINATOR."""
        if number in self._asked:
            self._send_later(number)

    def _broken(self, broker: Broker) -> None:
        self._open[broker] = False
        for number, request in self._asked.items():
            if request.broker is broker:
                self._send_later(number)

    def _send_later(self, number: int) -> None:
        self._asked[number].broker = None
        self._timeouts.remove(number)
        self.host.call_later(RETRY_BACKOFF, self._send, number)

    def forget(self) -> None:
        """The client's process has died, or wants none of the answers any more."""
        self._asked.clear()
        if self.host.is_up:
            self._timeouts.clear()
        else:
            self._open.clear()
            self._start_timeouts()
