"""A cluster: its nodes, the exchange, and what nodes know of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sim.brokers.rabbitmq.alarms import Alarms
from sim.brokers.rabbitmq.causes import (
    PARKED_UNROUTABLE,
    REPUBLISHED_IN_DOUBT,
    UNROUTABLE,
)
from sim.brokers.rabbitmq.channels import PublisherChannel
from sim.brokers.rabbitmq.classic import ClassicQueue
from sim.brokers.rabbitmq.client import Consumer, Publisher
from sim.brokers.rabbitmq.dead_letters import DeadLetters
from sim.brokers.rabbitmq.mesh import Mesh
from sim.brokers.rabbitmq.node import Node
from sim.brokers.rabbitmq.partitions import PartitionHandling
from sim.brokers.rabbitmq.queue import MessageQueue
from sim.brokers.rabbitmq.quorum import QuorumQueue
from sim.brokers.rabbitmq.routing import any_takes
from sim.brokers.rabbitmq.settings import Channel, ConsumerClient, ProducerClient
from sim.distributions import Constant
from sim.host import Host
from sim.ledger import Pairs
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.consuming import Worker
    from sim.simulation import Simulation


class Broker:
    """A cluster with one exchange and its queues."""

    def __init__(self, sim: Simulation, name: str, settings: Channel) -> None:
        self.sim, self.world, self.name, self.settings = sim, sim.world, name, settings
        self.messages = sim.ledger.channel(name)
        self.messages.late = REPUBLISHED_IN_DOUBT
        names = [name] if settings.nodes == 1 else [f"{name}.{i + 1}" for i in range(settings.nodes)]
        self.nodes = [Node(self, node, name) for node in names]
        self.mesh = Mesh(sim.network, self.nodes, settings.node_delay)
        self.mesh.contact, self.mesh.suspicion = self._contact, self._suspicion
        self.partitions = PartitionHandling(self) if settings.series == "4.2" else None
        self.queues: list[MessageQueue] = []
        self.publishers: list[Publisher] = []
        self.has_sizes = False
        self.has_ttl = settings.message_ttl is not None
        self._net_tick: Callable[[], float] | None = None
        self._everything_to: list[MessageQueue] | None = None  # where there are no keys to look at
        self.only_queue: MessageQueue | None = None  # that takes everything
        self._by_key: dict[str, list[MessageQueue]] = {}
        self._expirations: list[Callable[[], float] | None] = []
        self._expiration: dict[int, float] = {}
        sim.at_start(self._start)

    def _start(self) -> None:
        self._keep_sizes()
        is_plain = (
            self.messages.keys is None and not self._anything_deleted() and not self.settings.is_delay_queue
        )
        if is_plain and all(queue.takes("") for queue in self.queues):
            self._everything_to = [queue for queue in self.queues if queue.is_offered]
            if len(self._everything_to) == 1:
                self.only_queue = self._everything_to[0]
        if self.settings.memory is not None or self.settings.disk is not None:
            Alarms(self).start()
        for publisher in self.publishers:
            if publisher.settings.expiration is not None:
                self.has_ttl = True
        for queue in self.queues:
            queue.unused()  # from its declaration on

    def _keep_sizes(self) -> None:
        """Sizes are worth their memory where messages are not all of the size that is taken for granted."""
        config = self.sim.config
        sizes = [p.app.size for p in config.producers.values() if p.app.channel == self.name]
        publishing = [s.app.publishes for s in config.services.values() if s.app.publishes is not None]
        sizes += [publishes.size for publishes in publishing if publishes.channel == self.name]
        if self.messages.sizes is None and any(size != Constant(1024) for size in sizes):
            self.messages.keep_sizes()
        self.has_sizes = self.messages.sizes is not None

    # -- routing -----------------------------------------------------------------------------------------------

    def route(self, copy: int) -> list[MessageQueue]:
        """R-01: the queues with a binding that matches; each gets one copy, however many of its bindings match."""
        if self._everything_to is not None:
            return self._everything_to
        key = self.messages.key_of(copy) if self.messages.keys is not None else ""
        queues = self._by_key.get(key)
        if queues is None or self._anything_deleted():
            queues = self._by_key[key] = [q for q in self.queues if q.takes(key) and not q.is_deleted]
        if len(queues) < len(self.queues):
            for queue in self.queues:
                if queue not in queues:
                    queue.pairs.died(copy, UNROUTABLE)
        if self.settings.is_delay_queue:
            return [
                queue.dead_letters.target
                for queue in queues
                if queue.dead_letters is not None and queue.dead_letters.target is not None
            ]
        return queues if self.settings.queue_type != "stream" else [q for q in queues if q.is_offered]

    def _anything_deleted(self) -> bool:
        return self.settings.expires is not None or self.settings.exclusive

    def park_unroutable(self, copy: int) -> None:
        """R-03: the alternate exchange leads to a queue for what matched nothing."""
        for queue in self.queues:
            queue.pairs.dead_letter(copy, PARKED_UNROUTABLE)

    # -- properties of messages, as their publisher set them ---------------------------------------------------

    def _client_of(self, copy: int) -> Publisher:
        return self.publishers[self.messages.producer[self.messages.message_of(copy)]]

    def is_transient(self, copy: int) -> bool:
        """delivery_mode 1."""
        return self._client_of(copy).settings.delivery_mode == "transient"

    def priority_of(self, copy: int, default: int) -> int:
        """The message's priority, or the queue's default."""
        priorities = self._client_of(copy).settings.priorities
        return default if priorities is None else priorities.get(self.messages.key_of(copy), default)

    def expiration_of(self, copy: int) -> float | None:
        """The message's own TTL (s), drawn once."""
        message = self.messages.message_of(copy)
        if message not in self._expiration:
            client = self._client_of(copy)
            if client.settings.expiration is None:
                return None
            self._expiration[message] = client.draw_expiration()
        return self._expiration[message]

    # -- what faults aim at and wait for -----------------------------------------------------------------------

    def role(self, name: str) -> Host | None:
        """The host that leads: where the (first) queue lives."""
        return self.queues[0].node.host if name == "leader" and self.queues else None

    def owners_of(self, event: str) -> list[Any]:
        """The parts with the method that is an event."""
        if event == "publish":
            return [c for node in self.nodes for c in node.channels if isinstance(c, PublisherChannel)]
        return list(self.queues)

    # -- between nodes -----------------------------------------------------------------------------------------

    def send(self, a: Node, b: Node, handler: Callable[..., Any], *args: Any, dropped: Any = None) -> None:
        """From one node to another; within one at once."""
        if a is b:
            handler(*args)
        else:
            self.mesh.send(a, b, handler, *args, dropped=dropped)

    def knows_up(self, observer: Node, node: Node) -> bool:
        """Whether a node takes another to be there: until the net tick it does so in vain."""
        if self.partitions is not None and self.partitions.are_apart(observer, node):
            return False
        return observer is node or self.mesh.is_connected(observer, node)

    def node_crashed(self, node: Node, kind: str) -> None:
        """Replicated queues let go of what the node had not handed over."""
        for queue in self.all_queues():
            queue.node_crashed(node)

    def _contact(self, node: Node, peer: Node, is_there: bool) -> None:
        """R-24: a node loses the connection to another: by a reset, or after the net tick, and so do its channels."""
        if self.partitions is not None:
            self.partitions.contact(node, peer, is_there)
        if not is_there:
            for channel in node.channels:
                channel.node_lost(peer)
        for queue in self.all_queues():
            if queue.node is node:
                queue.contact(peer, is_there)

    def _suspicion(self, node: Node, peer: Node, is_suspected: bool) -> None:
        """R-26: the failure detector of a node suspects another, or no longer."""
        for queue in self.all_queues():
            if queue.node is node:
                queue.suspicion(peer, is_suspected)

    def until_noticed(self, kind: str) -> float:
        """Seconds until other nodes know of a crash: at once by a reset, or by net_ticktime (60 s: 45 to 75 s)."""
        if kind == "process":
            return 0.0
        if self._net_tick is None:
            self._net_tick = self.world.uniforms(f"{self.name}.net_tick")
        return 45.0 + 30.0 * self._net_tick()

    def node_restarted(self, node: Node) -> None:
        """What its channels held comes back to replicated queues."""
        for replicated in self.all_queues():
            replicated.node_back(node)

    # -- clients -----------------------------------------------------------------------------------------------

    def connect_producer(self, sender: Sender, settings: ProducerClient) -> Publisher:
        """Attach a publisher's client library."""
        client = Publisher(self, sender, settings)
        self.publishers.append(client)
        return client

    def subscribe(self, pairs: Pairs, binding: str | None) -> MessageQueue:
        """The queue of a consuming service, with its dead-letter exchange."""
        node = self.nodes[self.settings.queue_node - 1]
        queue = self._queue_type()(self, node, pairs, binding)
        further = self.sim.config.services[pairs.name].client.bindings
        queue.takes = any_takes(self.settings.exchange, queue.name, [binding, *further])
        self.queues.append(queue)
        self._add_dead_letters(queue)
        return queue

    def _queue_type(self) -> type[MessageQueue]:
        if self.settings.queue_type == "quorum":
            return QuorumQueue
        if self.settings.queue_type == "stream":
            from sim.brokers.rabbitmq.stream import StreamQueue

            return StreamQueue
        return ClassicQueue

    def _add_dead_letters(self, queue: MessageQueue) -> None:
        settings = self.settings
        if settings.dead_letter_exchange == "none" and not settings.is_delay_queue:
            return
        node = self.nodes[(settings.dead_letter_node or settings.queue_node) - 1]
        target = None
        deaths: dict[int, dict[tuple[str, str], int]] = {}
        if settings.dead_letter_exchange == "retry" or settings.is_delay_queue:
            target = self._queue_type()(self, node, queue.pairs, None, f"{queue.name}.wait")
            target.ttl = None if settings.is_delay_queue else settings.retry_ttl
            target.dead_letters = DeadLetters(target, queue, queue.node, deaths)
            self.has_ttl = True
        if settings.dead_letter_exchange != "none" or settings.is_delay_queue:
            is_declared = settings.dead_letter_exchange != "missing"
            queue.dead_letters = DeadLetters(queue, target, node, deaths, is_declared)

    def connect_consumer(self, worker: Worker, queue: MessageQueue, settings: ConsumerClient) -> Consumer:
        """Attach a consumer's client library to its service's queue."""
        return Consumer(self, worker, queue, settings)

    def all_queues(self) -> Iterator[MessageQueue]:
        """Queues of services, and those that their dead letters go to."""
        for queue in self.queues:
            yield queue
            if queue.dead_letters is not None and queue.dead_letters.target is not None:
                yield queue.dead_letters.target

    # -- books -------------------------------------------------------------------------------------------------

    def holdings(self) -> Iterator[tuple[Pairs, int]]:
        """Copies that would still be delivered."""
        for queue in self.queues:
            parts: list[Any] = [queue]
            if queue.dead_letters is not None:
                parts.append(queue.dead_letters)
                if queue.dead_letters.target is not None:
                    parts.append(queue.dead_letters.target)
            for part in parts:
                for copy in part.holdings():
                    yield queue.pairs, copy
        for publisher in self.publishers:
            for copy in publisher.buffered:
                for pairs in self.messages.subscriptions.values():
                    yield pairs, copy
