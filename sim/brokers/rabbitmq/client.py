"""The client libraries: how applications speak to RabbitMQ. Each has a connection of its own, and one channel on it."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED, Delivery
from sim.brokers.rabbitmq.causes import (
    AUTO_ACK_CRASH,
    CHANNEL_LOST,
    NOT_CONNECTED,
    REPUBLISHED_IN_DOUBT,
    SOCKET_CUT,
)
from sim.brokers.rabbitmq.channels import ConsumerChannel, PublisherChannel
from sim.brokers.rabbitmq.settings import ConsumerClient, ProducerClient
from sim.connection import Connection
from sim.heartbeats import SampledHeartbeats
from sim.network import Hop
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.node import Node
    from sim.brokers.rabbitmq.queue import MessageQueue
    from sim.consuming import Worker

SOCKETS = 200_000  # bytes that the two sockets' buffers of one direction hold (sheet, section 4)
HANDSHAKE = (
    6  # round trips after the connection stands until it can be used: connect, open, consume (section 4)
)
CONTROL = 1 << 62  # stands for a copy where a frame carries none


class Address:
    """A client's connection to one node, and the channel there."""

    def __init__(self, node: Node, connection: Connection, channel: Any) -> None:
        self.node, self.connection, self.channel = node, connection, channel


class Client:
    """What publishers and consumers have in common: addresses of nodes, one of which is in use at a time."""

    def __init__(self, broker: Broker, host: Any, settings: ProducerClient | ConsumerClient) -> None:
        self.broker, self.world, self.host, self.settings = broker, broker.world, host, settings
        self.is_open = False
        self.opened = 0  # channels so far: what belongs to an earlier one is void
        self._turns = 0

    def _connect(self, there: Hop, back: Hop, channel_on: Any) -> None:
        """Open a connection to the first address; after a failure the next one has its turn."""
        settings, nodes = self.settings, self.broker.nodes
        first = settings.node - 1
        tcp = replace(
            self.broker.sim.network.settings.tcp,
            heartbeat=None,
            reconnect=settings.recovery_interval,
            reconnect_max=settings.recovery_interval,
        )
        heartbeats = None if settings.heartbeat is None else SampledHeartbeats(settings.heartbeat)
        self.addresses: list[Address] = []
        for node in [*nodes[first:], *nodes[:first]]:
            channel = channel_on(node)
            number = len(self.addresses)
            connection = self.broker.sim.network.connection(
                self.host,
                node.host,
                there,
                back,
                client_opened=lambda n=number: self._stands(n),
                client_broken=lambda n=number: self._broken(n),
                server_broken=channel.closed,
                connect_failed=lambda n=number: self._next(n),
                tcp=tcp,
                heartbeats=heartbeats,
            )
            self.addresses.append(Address(node, connection, channel))
            channel.requests, channel.answers = connection.there, connection.back
            channel.deliveries = connection.back
        self._use(0)
        self.addresses[0].connection.keep_open()

    def _use(self, number: int) -> None:
        """Speak to that address."""
        address = self.addresses[number]
        self.current, self.channel, self.requests = number, address.channel, address.connection.there

    def _stands(self, number: int) -> None:
        """The connection stands; AMQP's handshake follows."""
        self._shake(number, HANDSHAKE)

    def _shake(self, number: int, left: int) -> None:
        connection = self.addresses[number].connection
        if left:
            connection.there.send(self._shake_back, CONTROL, number, left)
        else:
            self.is_open = True
            self.opened += 1
            self.ready()

    def _shake_back(self, _control: int, number: int, left: int) -> None:
        self.addresses[number].connection.back.send(self._shaken, CONTROL, number, left)

    def _shaken(self, _control: int, number: int, left: int) -> None:
        if number == self.current:
            self._shake(number, left - 1)

    def _broken(self, number: int) -> None:
        was_open, self.is_open = self.is_open, False
        if was_open:
            self.lost()
        self._next(number)

    def _next(self, number: int) -> None:
        """After a failure the next address has its turn."""
        if len(self.addresses) == 1 or number != self.current:
            return
        self.addresses[number].connection.forget()
        self._use((number + 1) % len(self.addresses))
        self.host.call_later(self.settings.recovery_interval, self._try, self.current)

    def _try(self, number: int) -> None:
        if number == self.current:
            self.addresses[number].connection.keep_open()

    def crashed(self, kind: str) -> None:
        """The process has died, and with it the library's memory."""
        self.is_open = False

    def restarted(self) -> None:
        """Connect again. One that was kept open does so by itself, but the next one may not have had its turn yet."""
        if len(self.addresses) > 1:
            self.addresses[self.current].connection.keep_open()

    def can_write(self) -> None:
        """The broker reads the socket again."""

    def ready(self) -> None:
        """The channel can be used."""
        raise NotImplementedError

    def lost(self) -> None:
        """The channel is gone."""
        raise NotImplementedError


class Publisher(Client):
    """A publisher's client library."""

    settings: ProducerClient

    def __init__(self, broker: Broker, sender: Sender, settings: ProducerClient) -> None:
        super().__init__(broker, sender.host, settings)
        self.sender, self.messages = sender, broker.messages
        self.wants_confirms = sender.resend is not None
        self.is_ready = self._waits_for_socket = False
        self.buffered: list[int] = []  # without confirms: publishes that a full socket keeps waiting
        self._batch = settings.confirm_batch or settings.transaction
        self._in_batch: dict[int, None] = {}  # copies that were published and have no answer yet
        self._published = 0  # copies of this batch, answered or not
        self._is_batch_full = False
        self._busy = 0.0  # when the application's thread is done with what it has published (s)
        self._is_plain = self._batch is None and not settings.cpu_per_message
        if self._batch is None:
            self.confirmed = sender.confirmed  # type: ignore[method-assign]
        if settings.expiration is not None:
            number = len(broker.publishers)
            stream = broker.world.stream(f"{sender.host.name}.{broker.name}.expiration#{number}")
            self.draw_expiration = settings.expiration.draws(stream)
        there = Hop(
            "publish",
            broken=SOCKET_CUT,
            dropped=self._publish_dropped,
            size_of=self._size_of,
            bound_for=self._bound_for,
        )
        back = Hop("confirm", broken=REPUBLISHED_IN_DOUBT, dropped=self._confirm_dropped)
        self._connect(there, back, lambda node: PublisherChannel(self, node))
        sender.host.residents.append(self)

    def _size_of(self, copy: int) -> int:
        return 64 if copy == CONTROL else self.messages.size_of(copy)

    def _bound_for(self, copy: int) -> Any:
        return () if copy == CONTROL else self.messages.subscriptions.values()

    # -- publishing --------------------------------------------------------------------------------------------

    def publish(self, copy: int) -> None:
        """basic.publish. Without a channel it raises: the message is the application's to keep, or lost."""
        if not self.is_open:
            self.messages.died(copy, NOT_CONNECTED)
            return
        requests = self.requests
        if self.buffered or ((requests.in_flight or not requests.is_well) and self._is_socket_full(copy)):
            self._wait_for_socket()
            if not self.wants_confirms:
                self.buffered.append(copy)
                return
        if self._is_plain:
            send = requests.send  # as a local: see `World.call_later`
            send(self.channel.publish, copy)
        else:
            self._publish_fully(copy)

    def _publish_fully(self, copy: int) -> None:
        """The way of an application that waits for batches, or needs a while for each publish."""
        self._busy = max(self._busy, self.world.now) + self.settings.cpu_per_message
        self.requests.send_at(self._busy, self.channel.publish, copy)
        if self._batch is not None:
            self._in_batch[copy] = None
            self._published += 1
            if self._published == self._batch:
                self._batch_full()

    def _is_socket_full(self, copy: int) -> bool:
        """R-37: the sockets take no more than they have room for, whether the broker reads or not."""
        held: int = self.requests.backlog
        return held > 0 and held * self._size_of(copy) >= SOCKETS

    def _wait_for_socket(self) -> None:
        """Go on when the broker reads again (`can_write`), or if it does, when what is on its way has arrived."""
        self.is_ready = False
        if not self.channel.is_stopped and not self._waits_for_socket:
            self._waits_for_socket = True
            now, last = self.world.now, self.requests.last_arrival
            due = last if last > now else now + self.requests.rto
            self.host.call_at(due, self._try_to_write, self.opened)

    def _try_to_write(self, opened: int) -> None:
        if opened == self.opened:
            self._waits_for_socket = False
            self.can_write()

    def can_write(self) -> None:
        """The broker reads the socket again."""
        if not self.is_open:
            return
        buffered, self.buffered = self.buffered, []
        for copy in buffered:
            self.publish(copy)
        if not self.buffered and not self._is_batch_full:
            self.is_ready = True
            self.sender.client_ready()

    def _batch_full(self) -> None:
        """R-09, R-10: wait for all confirms of the batch, or for commit-ok."""
        self._is_batch_full = True
        self._published = 0
        self.is_ready = False
        if self.settings.transaction is not None:
            self.requests.send(self.channel.commit, CONTROL, [])

    def _over(self, copy: int) -> None:
        if (
            self._in_batch.pop(copy, 0) is None
            and not self._in_batch
            and self._is_batch_full
            and self.is_open
        ):
            self._is_batch_full = False
            self.is_ready = True
            self.sender.client_ready()

    # -- answers -----------------------------------------------------------------------------------------------

    def confirmed(self, copy: int) -> None:
        """basic.ack."""
        self.sender.confirmed(copy)
        if self._batch is not None:
            self._over(copy)

    def nacked(self, copy: int) -> None:
        """basic.nack: the message may be published again."""
        self.sender.refused(copy)
        if self._batch is not None:
            self._over(copy)

    def returned(self, copy: int) -> None:
        """R-03: basic.return: nobody wants it, and publishing it again would change nothing.

        With confirms basic.ack follows, which is no news to the application any more.
        """
        self.sender.returned(copy)

    def channel_closed(self, _copy: int) -> None:
        """R-03: channel.close (404). Nobody opens another channel: a publish raises from now on."""
        if self.is_open:
            self.is_open = False
            self.lost()

    # -- the connection ----------------------------------------------------------------------------------------

    def ready(self) -> None:
        """The channel can be used."""
        self.is_ready = True
        self._waits_for_socket = False
        self.sender.client_ready()

    def lost(self) -> None:
        """R-08: everything unconfirmed is in doubt."""
        self.is_ready = False
        self._is_batch_full = False
        self._published = 0
        self._in_batch.clear()
        for copy in self.buffered:
            self.messages.died(copy, SOCKET_CUT)
        self.buffered.clear()
        if self.wants_confirms:
            self.sender.all_in_doubt()

    def crashed(self, kind: str) -> None:
        """The process has died."""
        super().crashed(kind)
        self.is_ready = False
        self._is_batch_full = False
        self._published = 0
        self._in_batch.clear()
        for copy in self.buffered:
            self.messages.died(copy, SOCKET_CUT)
        self.buffered.clear()

    def _publish_dropped(self, copy: int, reason: int) -> None:
        if copy == CONTROL:
            return
        self.messages.died(copy, reason)
        if self.wants_confirms:
            self.messages.not_heard(copy, REPUBLISHED_IN_DOUBT)

    def _confirm_dropped(self, copy: int, reason: int) -> None:
        if copy != CONTROL and self.sender.host.is_up:
            self.messages.not_heard(copy, reason)


class Consumer(Client):
    """A consumer's client library."""

    settings: ConsumerClient

    def __init__(self, broker: Broker, worker: Worker, queue: MessageQueue, settings: ConsumerClient) -> None:
        super().__init__(broker, worker.host, settings)
        self.worker, self.queue, self.pairs = worker, queue, queue.pairs
        self.is_auto = settings.ack == "auto"
        self.priority = priority_of(settings, int(worker.host.name.rpartition(".")[2]) - 1)
        # Deliveries of the present channel that are not acked, in order; whether the application is done with them
        self._held: dict[int, bool] = {}
        self._acks_each = settings.ack_every == 1 and not self.is_auto
        self._to_ack = 0
        if broker.settings.queue_type == "stream":
            self._to_store = 0  # deliveries that were answered since an offset was stored
            self.settle = self._settle_and_store  # type: ignore[method-assign]
        there = Hop("ack", broken=CHANNEL_LOST)
        back = Hop(
            "delivery",
            broken=AUTO_ACK_CRASH,
            dropped=self.delivery_dropped,
            size_of=self._size_of,
            bound_for=self._bound_for,
        )
        self._connect(there, back, lambda node: ConsumerChannel(queue, self, node, self.priority))
        worker.host.residents.append(self)

    def _size_of(self, copy: int) -> int:
        return 64 if copy == CONTROL else self.pairs.messages.size_of(copy)

    def _bound_for(self, copy: int) -> Any:
        return (self.pairs,) if self.is_auto and copy != CONTROL else ()

    # -- deliveries --------------------------------------------------------------------------------------------

    def deliver(self, copy: int, tag: int) -> None:
        """basic.deliver arrives."""
        self.pairs.delivered(copy)
        if not self.is_auto:
            self._held[tag] = False
        self.worker.on_delivery(Delivery(self, copy, tag))

    def delivery_dropped(self, copy: int, reason: int) -> None:
        """A delivery was on a connection that broke. The broker keeps it, unless acks are automatic."""
        if copy != CONTROL and self.is_auto:
            self.pairs.died(copy, reason)

    # -- answers -----------------------------------------------------------------------------------------------

    def settle(self, tag: int, outcome: str) -> None:
        """The application's answer. For a delivery of an earlier channel there is nobody to send it to."""
        if outcome == "ok" and self._acks_each:
            if self._held.pop(tag, None) is not None:
                send = self.requests.send  # as a local: see `World.call_later`
                send(self.channel.ack, tag)
        elif self.is_auto:
            if outcome != "ok":
                self.pairs.died(tag, HANDLER_FAILED)
        elif self._held.get(tag, True):
            return
        elif outcome != "ok":
            del self._held[tag]
            self.requests.send(self.channel.nack, tag, self.settings.requeue)
        else:
            self._held[tag] = True
            self._to_ack += 1
            if self._to_ack >= self.settings.ack_every:
                self._ack_all_done()

    def _ack_all_done(self) -> None:
        """R-11: one ack for all deliveries up to the first that the application is not done with."""
        done = list(takewhile(self._held.__getitem__, self._held))
        if done:
            for tag in done:
                del self._held[tag]
            self._to_ack -= len(done)
            self.requests.send(self.channel.ack_all_to, done[-1])

    def _settle_and_store(self, tag: int, outcome: str) -> None:
        """R-39, R-40: whatever the outcome, a stream takes nothing back: the ack is credit. After each so many the
        client has the delivery's offset stored."""
        if outcome != "ok":
            self.pairs.died(tag, HANDLER_FAILED)
        if tag in self._held:
            self._to_store += 1
            if self._to_store == self.settings.store_offset_every:
                self._to_store = 0
                self.requests.send(self.channel.queue.store_offset, tag, self.channel)
        Consumer.settle(self, tag, "ok")

    # -- the connection ----------------------------------------------------------------------------------------

    def ready(self) -> None:
        """basic.consume."""
        self._to_store = 0
        self.requests.send(self.channel.consume, CONTROL)

    def lost(self) -> None:
        """R-14: deliveries in hand are the broker's again; the application may still be at work on them."""
        self._held.clear()
        self._to_ack = 0

    def cancelled_by_broker(self, keeps: bool = False) -> None:
        """R-17, R-24: basic.cancel; the application subscribes again. It may answer what it has if it `keeps` that."""
        if not keeps:
            self._held.clear()
            self._to_ack = 0
        if self.is_open:
            self.host.call_later(self.settings.recovery_interval, self._consume_again, self.opened)

    def _consume_again(self, opened: int) -> None:
        if self.is_open and opened == self.opened:
            self.ready()

    def crashed(self, kind: str) -> None:
        """The process has died."""
        super().crashed(kind)
        self._held.clear()
        self._to_ack = 0


def priority_of(settings: ConsumerClient, index: int) -> int:
    """The x-priority of a service's consumer by number."""
    priorities = settings.consumer_priorities
    return priorities[min(index, len(priorities) - 1)] if priorities else 0
