"""A topic: the partitions of one channel, and its books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.brokers.kafka.broker import Broker
from sim.brokers.kafka.causes import RETRIED
from sim.brokers.kafka.classic import ClassicGroup
from sim.brokers.kafka.cluster import Cluster
from sim.brokers.kafka.consumer import Consumer
from sim.brokers.kafka.group import Group
from sim.brokers.kafka.log import ABORT, Batch
from sim.brokers.kafka.modern import ConsumerGroup
from sim.brokers.kafka.producer import Producer
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient
from sim.brokers.kafka.share import ShareGroup
from sim.brokers.kafka.share_consumer import ShareConsumer
from sim.host import Host
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.apps import ConsumerPort
    from sim.consuming import Worker
    from sim.producing import Sender
    from sim.simulation import Simulation


GROUPS: dict[str, type[Group]] = {"classic": ClassicGroup, "consumer": ConsumerGroup, "share": ShareGroup}


class Topic:
    """A topic on a cluster of its own, or on that of another channel."""

    def __init__(self, sim: Simulation, name: str, settings: Channel) -> None:
        self.sim, self.world, self.name, self.settings = sim, sim.world, name, settings
        self.messages = sim.ledger.channel(name)
        self.messages.late = RETRIED
        if settings.partitions > 1:
            self.messages.keep_scopes()  # order is promised within a partition (K-04)
        self.min_insync_replicas = settings.min_insync_replicas
        self.groups: list[Group] = []
        self.producers: list[Producer] = []
        self.cluster = Cluster.of(sim, settings.cluster or name)
        self.partitions: list[Partition] = self.cluster.add_partitions(
            self, settings.partitions, settings.replication_factor
        )
        sim.at_start(self._start)

    def _start(self) -> None:
        config = self.sim.config
        sizes = [p.app.size for p in config.producers.values() if p.app.channel == self.name]
        if self.messages.sizes is None and any(repr(size) != "Constant(1024)" for size in sizes):
            self.messages.keep_sizes()  # batches fill by bytes

    # -- clients -----------------------------------------------------------------------------------------------

    def connect_producer(self, sender: Sender, settings: ProducerClient) -> Producer:
        """Attach a producing application's client library."""
        producer = Producer(self, sender, settings)
        self.producers.append(producer)
        return producer

    def subscribe(self, pairs: Pairs, binding: str | None) -> Group:
        """The consumer group of a service."""
        client = self.sim.config.services[pairs.name].client
        group = GROUPS[client.group_protocol](self, pairs, client)
        self.groups.append(group)
        return group

    def connect_consumer(self, worker: Worker, group: Group, settings: ConsumerClient) -> ConsumerPort:
        """Attach a member's client library."""
        is_shared = settings.group_protocol == "share"
        return (ShareConsumer if is_shared else Consumer)(self, worker, group, settings)

    # -- faults ------------------------------------------------------------------------------------------------

    def role(self, name: str) -> Host | None:
        """The host of the leader of partition 0 ("leader"), or that of the controller."""
        if name == "controller":
            return self.cluster.controller.host
        leader = self.partitions[0].leader
        return None if leader is None else leader.host

    # -- the books ---------------------------------------------------------------------------------------------

    def appended(self, partition: Partition, batch: Batch, offset: int) -> None:
        """A leader has appended a batch: each group has it to read. A marker says what a transaction is worth."""
        if batch.control:
            messages = self.messages
            told = messages.aborted if batch.control == ABORT else messages.committed
            for copy in partition.log().ended:
                told(copy)
            return
        for group in self.groups:
            stored = group.pairs.stored
            for copy in batch.copies:
                stored(copy)

    def vanished(self, partition: Partition, records: list[int], cause: int) -> None:
        """Records are gone from one replica's log."""
        for copy in records:
            if copy > ABORT:
                self.messages.died(copy, cause)

    def led_by(self, partition: Partition, broker: Broker) -> None:
        """What lies behind a new leader's log was never delivered, as far as that leader knows."""
        for group in self.groups:
            group.truncated(partition, broker.logs[partition].end, broker.leads[partition].epoch)

    def holdings(self) -> Iterator[tuple[Pairs, int]]:
        """Copies that would still be delivered: in producers, and in logs from the committed offsets on."""
        for group in self.groups:
            for producer in self.producers:
                for copy in producer.holdings():
                    yield group.pairs, copy
            for partition in self.partitions:
                for copy in group.unread(partition):
                    yield group.pairs, copy
            for copy in group.held():
                yield group.pairs, copy
