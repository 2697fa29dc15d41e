"""A cluster: brokers, the controller, and the topics that it keeps for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.broker import Broker
from sim.brokers.kafka.controller import Controller
from sim.brokers.kafka.log import Batch, LogConfig
from sim.brokers.kafka.offsets import CommittedOffsets
from sim.brokers.kafka.replication import NOT_LEADER, Answer, Partition, Topic
from sim.brokers.kafka.settings import Channel, ConsumerClient
from sim.brokers.kafka.transactions import TransactionCoordinator
from sim.connection import Connection
from sim.heartbeats import MissedHeartbeats
from sim.host import Host
from sim.network import Hop

if TYPE_CHECKING:
    from sim.simulation import Simulation

COMPACTS_AT = 1000  # records of an internal topic
FETCH_TIMEOUT = 30.0  # seconds without an answer to a fetch that comes within its longest wait otherwise


class Cluster:
    """What the topics of several channels share; its settings are those of the channel that it is named after."""

    @classmethod
    def of(cls, sim: Simulation, name: str) -> Cluster:
        """The cluster of that name, made when it is first asked for."""
        key = f"kafka {name}"
        if key not in sim.shared:
            sim.shared[key] = cls(sim, name)
        found: Cluster = sim.shared[key]
        return found

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim, self.world, self.name = sim, sim.world, name
        settings: Any = sim.config.channels[name].settings
        self.settings: Channel = settings
        names = [name] if settings.nodes == 1 else [f"{name}.{i + 1}" for i in range(settings.nodes)]
        self.brokers = [Broker(self, broker, name, i) for i, broker in enumerate(names)]
        self.controller = Controller(self)
        for broker in self.brokers:
            self.controller.register(broker)
        self.offsets = InternalTopic(self, "__consumer_offsets", settings.offsets_replication_factor)
        self.transactions = InternalTopic(
            self,
            "__transaction_state",
            settings.transaction_state_log_replication_factor,
            settings.transaction_state_log_min_isr,
        )
        self.transactions.on_compacted = lambda numbers: None  # nobody reads them again
        self.committed = CommittedOffsets(self.offsets)
        self.transaction_coordinator = TransactionCoordinator(self)
        self._producer_ids = 0
        self._links: dict[tuple[Broker, Broker], Connection] = {}
        sim.at_start(self._start)

    def add_partitions(self, topic: Topic, numbers: range, replication_factor: int) -> list[Partition]:
        """Partitions of a topic, by their numbers."""
        partitions = []
        for number in numbers:
            partitions.append(Partition(topic, number, self.place(number, replication_factor)))
            self.controller.partitions.append(partitions[-1])
        return partitions

    def place(self, number: int, replication_factor: int) -> list[Broker]:
        """Who has a topic's partition of that number: replicas go round the brokers, each beginning at the next.

        They are connected from now on, even if the partition is yet to come: faults look for the connections there are.
        """
        count = len(self.brokers)
        replicas = [self.brokers[(number + j) % count] for j in range(min(replication_factor, count))]
        for broker in replicas:
            for peer in replicas:
                if peer is not broker:
                    broker.fetcher_to(peer)
        return replicas

    def _start(self) -> None:
        """All leaders lead, all followers follow."""
        for partition in self.controller.partitions:
            for broker in self.brokers:
                broker.told(partition, partition.leader, partition.epoch, partition.isr)

    def new_producer_id(self) -> int:
        """InitProducerId."""
        self._producer_ids += 1
        return self._producer_ids

    # -- connections -------------------------------------------------------------------------------------------

    def link(self, source: Broker, target: Broker) -> Connection:
        """A connection from one broker to another, for what a transaction's coordinator has to say."""
        return self._links[source, target]

    def enable_transactions(self) -> None:
        """Somebody writes in transactions: connect those who may coordinate to all others."""
        if not self._links:
            for source in self.transactions.partition.replicas:
                for target in self.brokers:
                    if target is not source:
                        self._links[source, target] = self.between(source, target, Hop("coordination"))

    def between(self, client: Any, server: Any, hop: Hop, **told: Callable[[], Any]) -> Connection:
        """A connection within the cluster, which is kept open; `told` are opened, broken, server_opened ..."""
        settings = self.settings
        names = {"opened": "client_opened", "broken": "client_broken"}
        rule = Sessions(settings.replica_fetch_wait_max, FETCH_TIMEOUT)
        accepts = {} if server is self.controller else {"accepts": lambda: server.is_serving}
        if server is self.controller:
            rule = Sessions(settings.broker_heartbeat_interval, settings.broker_session_timeout)
        connection = self.sim.network.connection(
            client.host,
            server.host,
            hop,
            hop,
            tcp=replace(self.sim.network.settings.tcp, heartbeat=None, reconnect=0.05, reconnect_max=1.0),
            heartbeats=rule,
            **{names.get(name, name): function for name, function in told.items()},
            **accepts,
        )
        for stream in (connection.there, connection.back):
            stream.settings = replace(stream.settings, delay=settings.broker_delay)
            stream.delay = settings.broker_delay.draws(self.world.stream(f"link.{stream.name}.delay"))
        connection.keep_open()
        return connection

    def client_connection(
        self, client: Host, server: Broker, there: Hop, back: Hop, settings: Any, **told: Callable[[], Any]
    ) -> Connection:
        """A client's connection to one broker, which is kept open."""
        connection = self.sim.network.connection(
            client,
            server.host,
            there,
            back,
            tcp=replace(
                self.sim.network.settings.tcp,
                heartbeat=None,
                reconnect=settings.reconnect_backoff,
                reconnect_max=settings.reconnect_backoff_max,
            ),
            heartbeats=Sessions(settings.fetch_max_wait, settings.request_timeout)
            if isinstance(settings, ConsumerClient)
            else None,
            accepts=lambda: server.is_serving,
            **told,
        )
        connection.keep_open()
        return connection


class InternalTopic:
    """A topic of one partition in which a coordinator keeps its state: what it writes is a number.

    Who leads the partition is the coordinator. `on_led` is told of each new one. What all replicas have on their disks
    is compacted away now and then: `on_compacted` is told the numbers, in order, and remembers what they come to.
    """

    unclean_leader_election_enable = False

    def __init__(self, cluster: Cluster, name: str, replication_factor: int, min_isr: int = 1) -> None:
        self.cluster, self.world, self.name = cluster, cluster.world, name
        self.log_config = LogConfig(write_back=cluster.settings.write_back)
        self.partitions: list[Partition] = cluster.add_partitions(self, range(1), replication_factor)
        self.partition: Partition = self.partitions[0]
        self.min_insync_replicas = min(min_isr, len(self.partition.replicas))
        self.on_led: Callable[[Broker], Any] = lambda broker: None
        self.on_compacted: Callable[[list[int]], Any] | None = None  # None: it is never compacted
        self._compacts_at = COMPACTS_AT

    def appended(self, partition: Partition, batch: Batch, offset: int) -> None:
        """No books are kept of coordinators' records."""

    def copies_of(self, copies: list[int]) -> list[int]:
        """The same numbers."""
        return copies

    def key_of(self, copy: int) -> int:
        """It compacts by itself."""
        return 0

    def vanished(self, partition: Partition, start: int, records: list[int], cause: int) -> None:
        """Nor of their loss: who reads the log next finds what is left."""

    def led_by(self, partition: Partition, broker: Broker) -> None:
        """A new coordinator reads what the log has."""
        self.on_led(broker)

    def known_to(self, broker: Broker) -> None:
        """It keeps its one partition."""

    @property
    def coordinator(self) -> Broker | None:
        """The broker that coordinates now; None while nobody can."""
        leader = self.partition.leader
        if leader is None or not leader.host.is_up or self.partition not in leader.leads:
            return None
        return leader

    def write(self, number: int, answer: Answer) -> None:
        """The coordinator writes a record, like any other with acks=all; one that was deposed meanwhile is refused."""
        broker = self.coordinator
        if broker is not None:
            broker.produce(self.partition, Batch([number], 64), "all", answer)
            is_long = len(broker.logs[self.partition].records) >= self._compacts_at
            if is_long and self.on_compacted is not None:
                self._compact(broker)
        else:
            answer(NOT_LEADER, -1, self.world.now)

    def settle(self, answer: Answer) -> None:
        """Answer when all that was written before is committed, or NOT_LEADER when it can not be known."""
        broker = self.coordinator
        if broker is not None:
            broker.leads[self.partition].answer_when_safe(
                broker.logs[self.partition].end, 0, "all", answer, self.world.now
            )
        else:
            answer(NOT_LEADER, -1, self.world.now)

    def _compact(self, leader: Broker) -> None:
        """Forget what all replicas have, and can never lose."""
        log = leader.logs[self.partition]
        logs = [broker.logs[self.partition] for broker in self.partition.replicas]
        end = min(min(other.flushed, log.agreement(other)) for other in logs)
        assert self.on_compacted is not None
        if end > log.start:
            self.on_compacted(log.read(log.start, end))
            for other in logs:
                other.drop_before(end)
        self._compacts_at = 2 * len(log.records) + COMPACTS_AT

    def call_later(self, delay: float, handler: Callable[..., Any], *args: Any) -> None:
        """Do something at the coordinator in `delay` s, or as soon as there is one after that."""
        self.world.call_later(delay, self._do, handler, args)

    def _do(self, handler: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self.coordinator is not None:
            handler(*args)
        else:
            self.world.in_background(0.1, self._do, handler, args)


class Sessions(MissedHeartbeats):
    """A session ends so long (s) after the last heartbeat that came."""

    def __init__(self, every: float, timeout: float) -> None:
        super().__init__(every, 0)
        self.timeout = timeout

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """When the session is over."""
        return heard_at + self.timeout
