"""A cluster with one topic: its brokers, its controller, and what its clients can ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.causes import RETRIED, UNCLEAN_ELECTION, UNREPLICATED
from sim.brokers.kafka.cluster import Broker, Controller, Leadership, Partition
from sim.brokers.kafka.consumer import Consumer
from sim.brokers.kafka.group import Group
from sim.brokers.kafka.log import Batch, Log
from sim.brokers.kafka.producer import Producer
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient
from sim.connection import Connection
from sim.heartbeats import MissedHeartbeats
from sim.host import Host
from sim.ledger import Pairs
from sim.network import Hop
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.consuming import Worker
    from sim.simulation import Simulation

SOCKET_TIMEOUT = 30.0  # seconds without an answer to a fetch, which comes within its longest wait otherwise
OFFSETS = "__consumer_offsets"


class Kafka:
    """The cluster."""

    def __init__(self, sim: Simulation, name: str, settings: Channel) -> None:
        self.sim, self.world, self.name, self.settings = sim, sim.world, name, settings
        self.messages = sim.ledger.channel(name)
        self.messages.late = RETRIED
        names = [name] if settings.nodes == 1 else [f"{name}.{i + 1}" for i in range(settings.nodes)]
        self.brokers = [Broker(self, broker, name, i) for i, broker in enumerate(names)]
        self.controller = Controller(self)
        self.was_unclean: dict[Partition, bool] = {}
        self.partitions = [
            self._partition(name, i, settings.replication_factor) for i in range(settings.partitions)
        ]
        self.offsets = self._partition(OFFSETS, 0, min(settings.offsets_replication_factor, settings.nodes))
        for broker in self.brokers:
            self.controller.register(broker)
            for peer in self.brokers:
                if any(
                    broker in p.replicas and peer in p.replicas
                    for p in self.controller.partitions
                    if peer is not broker
                ):
                    broker.fetcher_to(peer)
        self.groups: list[Group] = []
        self.producers: list[Producer] = []
        self._commits: list[tuple[Group, dict[Partition, int], dict[Partition, int]]] = []
        self._producer_ids = 0
        sim.at_start(self._start)

    def _partition(self, topic: str, number: int, replication: int) -> Partition:
        """Replicas go round the brokers, each partition beginning at the next."""
        count = len(self.brokers)
        replicas = [self.brokers[(number + i) % count] for i in range(min(replication, count))]
        partition = Partition(topic, number, replicas)
        for broker in replicas:
            broker.logs[partition] = Log()
        self.controller.partitions.append(partition)
        return partition

    def _start(self) -> None:
        """All leaders lead, all followers follow."""
        config = self.sim.config
        sizes = [p.app.size for p in config.producers.values() if p.app.channel == self.name]
        if self.messages.sizes is None and any(repr(size) != "Constant(1024)" for size in sizes):
            self.messages.keep_sizes()
        for partition in self.controller.partitions:
            for broker in partition.replicas:
                broker.told(partition, partition.leader, partition.epoch, partition.isr)

    # -- connections -------------------------------------------------------------------------------------------

    def between(
        self,
        client: Any,
        server: Any,
        hop: Hop,
        opened: Callable[[], Any],
        broken: Callable[[], Any],
        server_broken: Callable[[], Any],
        server_opened: Callable[[], Any] = lambda: None,
    ) -> Connection:
        """A connection within the cluster, which is kept open."""
        settings = self.settings
        tcp = replace(self.sim.network.settings.tcp, heartbeat=None, reconnect=0.05, reconnect_max=1.0)
        rule = Sessions(settings.replica_fetch_wait_max, SOCKET_TIMEOUT)
        if server is self.controller:
            rule = Sessions(settings.broker_heartbeat_interval, settings.broker_session_timeout)
        connection = self.sim.network.connection(
            client.host,
            server.host,
            hop,
            hop,
            client_opened=opened,
            client_broken=broken,
            server_opened=server_opened,
            server_broken=server_broken,
            tcp=tcp,
            heartbeats=rule,
        )
        delay = settings.broker_delay
        for stream in (connection.there, connection.back):
            stream.settings = replace(stream.settings, delay=delay)
            stream.delay = delay.draws(self.world.stream(f"link.{stream.name}.delay"))
        connection.keep_open()
        return connection

    def client_connection(
        self,
        client: Host,
        broker: Broker,
        there: Hop,
        back: Hop,
        settings: ProducerClient | ConsumerClient,
        opened: Callable[[], Any],
        broken: Callable[[], Any],
        server_broken: Callable[[], Any] = lambda: None,
    ) -> Connection:
        """A client's connection to one broker, which is kept open."""
        tcp = replace(self.sim.network.settings.tcp, heartbeat=None, reconnect=0.05, reconnect_max=1.0)
        connection = self.sim.network.connection(
            client,
            broker.host,
            there,
            back,
            client_opened=opened,
            client_broken=broken,
            server_broken=server_broken,
            tcp=tcp,
            heartbeats=Sessions(settings.fetch_max_wait, SOCKET_TIMEOUT)
            if isinstance(settings, ConsumerClient)
            else None,
        )
        connection.keep_open()
        return connection

    # -- what clients ask --------------------------------------------------------------------------------------

    def leader_known(self, partition: Partition) -> Broker | None:
        """Metadata: who leads. Clients refresh it on errors, which takes a retry back-off, so what the controller
        says is what they know when they ask again."""
        return partition.leader

    def log_of(self, partition: Partition) -> Log:
        """The log of the leader, or of the most advanced replica while there is none."""
        leader = partition.leader
        if leader is not None:
            return leader.logs[partition]
        return max((b.logs[partition] for b in partition.replicas), key=lambda log: log.end)

    def minimum_of(self, partition: Partition) -> int:
        """min.insync.replicas of the partition's topic."""
        return self.settings.min_insync_replicas if partition.topic == self.name else 1

    def new_producer_id(self) -> int:
        """InitProducerId."""
        self._producer_ids += 1
        return self._producer_ids

    # -- the books ---------------------------------------------------------------------------------------------

    def appended(self, partition: Partition, batch: Batch, offset: int) -> None:
        """A leader has appended a batch."""
        if partition.topic != OFFSETS:
            for group in self.groups:
                for copy in batch.copies:
                    group.pairs.stored(copy)

    def cut_off(self, partition: Partition, gone: list[int], cause: int) -> None:
        """Records are gone from one replica's log."""
        if partition.topic != OFFSETS:
            for copy in gone:
                self.messages.died(copy, cause)

    def cause_of_truncation(self, partition: Partition) -> int:
        """K-09 or K-27: why a returning replica has records that the leader lacks."""
        return UNCLEAN_ELECTION if self.was_unclean.get(partition) else UNREPLICATED

    def skipped(self, group: Group, partition: Partition, start: int, end: int, cause: int) -> None:
        """A group will never read some offsets."""
        log = self.log_of(partition)
        for copy in log.read(start, end, None):
            group.pairs.died(copy, cause)

    def scope(self, copy: int, partition: Partition) -> None:
        """Order is promised within a partition (K-04)."""

    # -- the coordinator ---------------------------------------------------------------------------------------

    def coordinator(self) -> Leadership | None:
        """Who leads `__consumer_offsets`."""
        leader = self.offsets.leader
        return leader.leads.get(self.offsets) if leader is not None and leader.host.is_up else None

    def at_coordinator(self, delay: float, handler: Callable[..., Any], *args: Any) -> None:
        """Do something at the coordinator in `delay` s, or as soon as there is one."""
        self.world.call_later(delay, self._do_at_coordinator, handler, args)

    def _do_at_coordinator(self, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self.coordinator() is not None:
            handler(*args)
        else:
            self.world.in_background(0.1, self._do_at_coordinator, handler, args)

    def store_offsets(
        self, group: Group, offsets: dict[Partition, int], answer: Callable[[str], Any]
    ) -> None:
        """A commit is a record in `__consumer_offsets`, written like any other with acks=all."""
        leadership = self.coordinator()
        if leadership is None:
            return
        epochs = {p: self.log_of(p).epoch_at(offset - 1) for p, offset in offsets.items()}
        self._commits.append((group, offsets, epochs))
        number = len(self._commits) - 1

        def told(error: str, _offset: int, _at: float) -> None:
            if error == "NONE":
                group.stored(offsets, epochs)
            answer(error)

        leadership.broker.produce(self.offsets, Batch([number], 64), "all", told)

    def coordinator_link(self, consumer: Consumer) -> CoordinatorLink:
        """A member's connection to the coordinator."""
        return CoordinatorLink(self, consumer)

    def leads_now(self, broker: Broker, partition: Partition) -> None:
        """A broker leads a partition: the new coordinator reads the offsets that its log has."""
        if partition is self.offsets:
            for group in self.groups:
                group.committed.clear()
            log = broker.logs[partition]
            for number in log.records:
                group, offsets, epochs = self._commits[number]
                group.stored(offsets, epochs)
        else:
            for group in self.groups:
                group.truncated(partition, broker.logs[partition].end)

    def broker_crashed(self, broker: Broker, kind: str) -> None:
        """The controller will see, when it registers again, whether it stopped in good order."""
        if kind != "process":
            self.controller.brokers[broker].is_clean = False

    # -- clients -----------------------------------------------------------------------------------------------

    def connect_producer(self, sender: Sender, settings: ProducerClient) -> Producer:
        """Attach a producing application's client library."""
        producer = Producer(self, sender, settings)
        self.producers.append(producer)
        return producer

    def subscribe(self, pairs: Pairs, binding: str | None) -> Group:
        """The consumer group of a service."""
        group = Group(self, pairs)
        self.groups.append(group)
        return group

    def connect_consumer(self, worker: Worker, group: Group, settings: ConsumerClient) -> Consumer:
        """Attach a member's client library."""
        return Consumer(self, worker, group, settings)

    def holdings(self) -> Iterator[tuple[Pairs, int]]:
        """Copies that would still be delivered: in producers, and in logs from the committed offsets on."""
        for group in self.groups:
            for producer in self.producers:
                for copy in producer.holdings():
                    yield group.pairs, copy
            for partition in self.partitions:
                log = self.log_of(partition)
                for copy in log.read(max(log.start, group.valid_offset(partition) or 0), log.end, None):
                    yield group.pairs, copy


class Sessions(MissedHeartbeats):
    """A session ends so long (s) after the last heartbeat that came."""

    def __init__(self, every: float, timeout: float) -> None:
        super().__init__(every, 0)
        self.timeout = timeout

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """When the session is over."""
        return heard_at + self.timeout


class CoordinatorLink:
    """A member's way to the coordinator, wherever that is: requests, answers, and reckoned heartbeats."""

    def __init__(self, kafka: Kafka, consumer: Consumer) -> None:
        self.kafka, self.consumer = kafka, consumer
        self._links: dict[Broker, Connection] = {}
        self._waiting: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        for broker in kafka.offsets.replicas:
            self._links[broker] = self._link(broker)

    def _link(self, broker: Broker) -> Connection:
        settings = self.consumer.settings
        network = self.kafka.sim.network
        hop = Hop("coordinator")
        tcp = replace(network.settings.tcp, heartbeat=None, reconnect=0.05, reconnect_max=1.0)
        connection = network.connection(
            self.consumer.host,
            broker.host,
            hop,
            hop,
            client_opened=lambda: self._opened(broker),
            server_opened=lambda: self.consumer.group.heard(self.consumer),
            server_broken=lambda: self._server_broken(broker),
            tcp=tcp,
            heartbeats=Sessions(settings.heartbeat_interval, settings.session_timeout),
        )
        connection.keep_open()
        return connection

    def _current(self) -> Broker | None:
        return self.kafka.offsets.leader

    def _opened(self, broker: Broker) -> None:
        if broker is self._current():
            self.consumer.connected()

    def _server_broken(self, broker: Broker) -> None:
        if broker is self._current():
            self.consumer.group.silent(self.consumer)

    def is_silent(self) -> bool:
        """Whether the member fell silent, rather than its connection being reset."""
        broker, host = self._current(), self.consumer.host
        is_cut = broker is not None and self._links[broker].there.cuts > 0
        return is_cut or not host.is_machine_up or (host.is_up and not host.is_running)

    def ask(self, handler: Callable[..., Any], *args: Any) -> None:
        """Send a request; it is repeated until there is a coordinator to take it."""
        broker = self._current()
        if broker is None or not self._links[broker].is_established:
            self.consumer.host.call_later(0.1, self.ask, handler, *args)
            return
        self._links[broker].there.send(self._arrives, 0, broker, handler, args)

    def _arrives(
        self, _control: int, broker: Broker, handler: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if broker.leads.get(self.kafka.offsets) is not None:
            handler(*args)
        else:
            self._links[broker].back.send(self._refused, 0, handler, args)

    def _refused(self, _control: int, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.consumer.host.call_later(0.1, self.ask, handler, *args)

    def tell(self, handler: Callable[..., Any], *args: Any) -> None:
        """At the coordinator: send an answer."""
        broker = self._current()
        if broker is not None:
            self._links[broker].back.send(self._told, 0, handler, args)

    def _told(self, _control: int, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        handler(*args)
