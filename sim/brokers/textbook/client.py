"""The client library: how producers and consumers speak to the textbook broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED, Delivery
from sim.brokers.textbook.causes import (
    ACK_CUT,
    ACK_LOST,
    ACK_TO_DEAD,
    CONFIRM_BROKEN,
    CONFIRM_CUT,
    CONFIRM_LOST,
    CONSUMER_GONE,
    DELIVERY_BROKEN,
    DELIVERY_CUT,
    DELIVERY_LOST,
    DELIVERY_TO_DEAD,
    NETWORK_TWICE,
    NOT_CONNECTED,
    PUBLISH_BROKEN,
    PUBLISH_CUT,
    PUBLISH_LOST,
    PUBLISH_TO_DEAD_BROKER,
)
from sim.brokers.textbook.settings import ConsumerClient, ProducerClient
from sim.connection import Connection
from sim.consuming import Worker
from sim.network import Hop
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.brokers.textbook.broker import Broker, Queue

POP_TIMEOUT = 1.0  # seconds after which a popping consumer asks again
CONTROL = 1 << 62  # stands for a copy where a packet carries none


class ProducerClientLibrary:
    """The producer's side of the protocol: it sends, and hears acks and refusals."""

    def __init__(self, broker: Broker, sender: Sender, settings: ProducerClient) -> None:
        self.broker, self.sender, self.settings = broker, sender, settings
        self.messages = broker.messages
        self.wants_confirms = sender.resend is not None
        self.is_ready = True
        there = Hop(
            "publish",
            lost=PUBLISH_LOST,
            cut=PUBLISH_CUT,
            down=PUBLISH_TO_DEAD_BROKER,
            broken=PUBLISH_BROKEN,
            twice=NETWORK_TWICE,
            dropped=self._publish_dropped,
            duplicated=self.messages.copy,
            size_of=self.messages.size_of,
            bound_for=lambda copy: self.messages.subscriptions.values(),
        )
        back = Hop(
            "confirm",
            lost=CONFIRM_LOST,
            cut=CONFIRM_CUT,
            broken=CONFIRM_BROKEN,
            dropped=self._confirm_dropped,
        )
        network, host = broker.sim.network, sender.host
        self.connection: Connection | None = None
        if broker.settings.transport == "datagram":
            self.requests: Any = network.link(host, broker.host, there)
            self.answers: Any = network.link(broker.host, host, back)
        else:
            self.is_ready = False
            self.connection = network.connection(
                host, broker.host, there, back, client_opened=self._opened, client_broken=self._broken
            )
            self.requests, self.answers = self.connection.there, self.connection.back
            self.connection.keep_open()

    def publish(self, copy: int) -> None:
        """Send a copy to the broker."""
        if self.is_ready:
            self.requests.send(self.broker.publish, copy, self)
        else:
            self.messages.died(copy, NOT_CONNECTED)

    def _publish_dropped(self, copy: int, reason: int) -> None:
        self.messages.died(copy, reason)
        if self.wants_confirms:
            self.messages.not_heard(copy, reason)

    def _confirm_dropped(self, copy: int, reason: int) -> None:
        if self.sender.host.is_up:  # else it has forgotten what it sent, and resends nothing
            self.messages.not_heard(copy, reason)

    def confirm(self, copy: int) -> None:
        """At the broker: ack a copy."""
        self.answers.send(self.sender.confirmed, copy)

    def refuse(self, copy: int) -> None:
        """At the broker: refuse a copy."""
        self.answers.send(self.sender.refused, copy)

    def _opened(self) -> None:
        self.is_ready = True
        self.sender.client_ready()

    def _broken(self) -> None:
        self.is_ready = False


class ConsumerClientLibrary:
    """The consumer's side of the protocol: it takes deliveries and sends answers."""

    def __init__(self, broker: Broker, worker: Worker, queue: Queue, settings: ConsumerClient) -> None:
        self.broker, self.worker, self.settings, self.pairs = broker, worker, settings, queue.pairs
        self.is_auto = settings.ack == "auto"
        self.connection: Connection | None = None
        self.has_ended = False
        self._asked = 0
        self.session = queue.attach(self)
        there = Hop(
            "ack",
            lost=ACK_LOST,
            cut=ACK_CUT,
            down=ACK_TO_DEAD,
            broken=CONSUMER_GONE,
            dropped=self._ack_dropped,
        )
        back = Hop(
            "delivery",
            lost=DELIVERY_LOST,
            cut=DELIVERY_CUT,
            down=DELIVERY_TO_DEAD,
            broken=DELIVERY_BROKEN,
            twice=NETWORK_TWICE,
            dropped=self._delivery_dropped,
            duplicated=self._doubled,
            size_of=self._size_of,
            bound_for=lambda copy: () if copy == CONTROL else (self.pairs,),
        )
        network, host = broker.sim.network, worker.host
        if broker.settings.transport == "datagram":
            self.answers: Any = network.link(host, broker.host, there)
            self.deliveries: Any = network.link(broker.host, host, back)
            self.session.is_open = True
            if not self.session.is_popped:
                self.session.open()
            broker.sim.at_start(self._ask)
        else:
            self.connection = network.connection(
                host,
                broker.host,
                there,
                back,
                client_opened=self._ask,
                server_opened=self._served,
                server_broken=self.session.closed,
            )
            self.answers, self.deliveries = self.connection.there, self.connection.back
            self.connection.keep_open()
        host.residents.append(self)

    def _served(self) -> None:
        if not self.session.is_popped:
            self.session.open()
            self.session.queue.dispatch()
        self.session.is_open = True

    def _ask(self) -> None:
        """A popping consumer asks for its next message."""
        if self.session.is_popped and not self.has_ended:
            self._asked += 1
            self.answers.send(self.session.pop, CONTROL)
            self.worker.world.in_background(POP_TIMEOUT, self._ask_again, self._asked, self.worker.host.epoch)

    def _ask_again(self, asked: int, epoch: int) -> None:
        """Neither a message nor word of an empty queue came: the request or its answer may have been lost."""
        if asked == self._asked and epoch == self.worker.host.epoch and not self.worker.running:
            self._ask()

    def empty(self, _copy: int) -> None:
        """The queue was empty, and the worker's loop ends for good."""
        self.has_ended = True

    def deliver(self, copy: int, tag: int) -> None:
        """A delivery arrives."""
        self.pairs.delivered(copy)
        self.worker.on_delivery(Delivery(self, copy, tag))

    def _delivery_dropped(self, copy: int, reason: int) -> None:
        if copy != CONTROL:
            self.pairs.died(copy, reason)
            if not self.is_auto:
                self.pairs.not_heard(copy, reason)

    def _ack_dropped(self, copy: int, reason: int) -> None:
        if copy != CONTROL:
            self.pairs.not_heard(copy, reason)

    def _doubled(self, copy: int, reason: int) -> int:
        return copy if copy == CONTROL else self.pairs.messages.copy(copy, reason)

    def _size_of(self, copy: int) -> int:
        return 64 if copy == CONTROL else self.pairs.messages.size_of(copy)

    def settle(self, tag: int, outcome: str) -> None:
        """The application's answer, sent to the broker unless it has forgotten the message already."""
        if not self.is_auto:
            if outcome == "ok":
                self.answers.send(self.session.acked, tag)
            else:
                self.answers.send(self.session.nacked, tag, outcome == "failed")
        elif outcome != "ok":
            self.pairs.died(tag, HANDLER_FAILED)  # the broker has nothing to deliver again
        if self.session.is_popped:
            self._ask()

    def crashed(self, kind: str) -> None:
        """Nothing of its own is lost: deliveries are the worker's."""

    def restarted(self) -> None:
        """A new worker loop begins."""
        self.has_ended = False
        if self.connection is None:
            self._ask()
