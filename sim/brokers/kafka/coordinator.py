"""A client's way to a coordinator, wherever that is: requests, answers, and heartbeats that are reckoned with."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.replication import NO_COPY
from sim.connection import Connection
from sim.host import Host
from sim.kernel import Timeouts
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import InternalTopic

RETRY_BACKOFF = 0.1  # seconds (retry.backoff.ms)

Handler = Callable[..., Any]


def _nothing(*_: Any) -> None:
    """Nobody asked to be told."""


class CoordinatorLink:
    """A client's connections to the brokers that may coordinate.

    Who coordinates it learns from FindCoordinator, which any broker answers: here it is the controller's word.
    `connected()` is called when the coordinator can be reached, `heard()` and `silent()` at the coordinator, when the
    client's session begins and when its connection is over.
    """

    def __init__(
        self,
        topic: InternalTopic,
        host: Host,
        settings: Any,
        session: Any = None,
        connected: Handler = _nothing,
        heard: Handler = _nothing,
        silent: Handler = _nothing,
    ) -> None:
        self.topic, self.host = topic, host
        self._settings, self._session = settings, session
        self._connected, self._heard, self._silent = connected, heard, silent
        self._number = 0
        self._asked: dict[int, tuple[Handler, tuple[Any, ...], Handler, Broker | None]] = {}
        self._open: dict[Broker, bool] = {}  # as far as the client knows
        self._start_timeouts()
        self._links = {broker: self._link(broker) for broker in topic.partition.replicas}

    def _start_timeouts(self) -> None:
        """request.timeout.ms; a member of a group has the silence of its session to go by."""
        limit = self._settings.request_timeout if self._session is None else math.inf
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
            server_opened=self._heard,
            server_broken=lambda: self._server_broken(broker),
        )
        if self._session is not None:
            connection.heartbeats = self._session
        return connection

    def _opened(self, broker: Broker) -> None:
        self._open[broker] = True
        if broker is self.topic.partition.leader:
            self._connected()

    def _server_broken(self, broker: Broker) -> None:
        if broker is self.topic.partition.leader:
            self._silent()

    def is_silent(self) -> bool:
        """At the coordinator: whether the client fell silent, rather than its connection being reset."""
        broker, host = self.topic.partition.leader, self.host
        is_cut = broker is not None and self._links[broker].there.cuts > 0
        return is_cut or not host.is_machine_up or (host.is_up and not host.is_running)

    # -- requests ----------------------------------------------------------------------------------------------

    def ask(self, handler: Handler, *args: Any, then: Handler = _nothing) -> None:
        """Call `handler(*args, answer)` at the coordinator, and `then(...)` here with what it calls `answer` with.

        The request is repeated when its connection breaks, and until a coordinator takes it.
        """
        self._number += 1
        self._asked[self._number] = (handler, args, then, None)
        self._send(self._number)

    def _send(self, number: int) -> None:
        if number not in self._asked:
            return
        handler, args, then, _ = self._asked[number]
        broker = self.topic.partition.leader
        if broker is None or not self._open.get(broker):
            self.host.call_later(RETRY_BACKOFF, self._send, number)
            return
        self._asked[number] = (handler, args, then, broker)
        self._timeouts.add(number)
        self._links[broker].there.send(self._arrives, NO_COPY, broker, number, handler, args)

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
        self._links[broker].back.send_at(at, self._answered, NO_COPY, number, values)

    def _answered(self, _copy: int, number: int, values: tuple[Any, ...]) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._timeouts.remove(number)
            asked[2](*values)

    def _timed_out(self, number: int) -> None:
        broker = self._asked[number][3] if number in self._asked else None
        if broker is not None:
            self._links[broker].broken(self.host)

    def _refused(self, _copy: int, number: int) -> None:
        """NOT_COORDINATOR."""
        self._timeouts.remove(number)
        self.host.call_later(RETRY_BACKOFF, self._send, number)

    def _broken(self, broker: Broker) -> None:
        self._open[broker] = False
        for number, (_, _, _, asked) in self._asked.items():
            if asked is broker:
                self.host.call_later(RETRY_BACKOFF, self._send, number)

    def forget(self) -> None:
        """The client's process has died, or wants none of the answers any more."""
        if not self.host.is_up:
            self._open.clear()
        self._asked.clear()
        self._start_timeouts()

    def tell(self, handler: Handler, *args: Any) -> None:
        """At the coordinator: tell the client something, with the answer to its next heartbeat."""
        broker = self.topic.partition.leader
        if broker is not None:
            self._links[broker].back.send(self._told, NO_COPY, handler, args)

    def _told(self, _copy: int, handler: Handler, args: tuple[Any, ...]) -> None:
        handler(*args)
