"""A topic: the partitions of one channel, and its books."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.brokers.kafka.broker import Broker
from sim.brokers.kafka.causes import RESENT, RETRIED
from sim.brokers.kafka.classic import ClassicGroup
from sim.brokers.kafka.cluster import Cluster
from sim.brokers.kafka.consumer import Consumer
from sim.brokers.kafka.group import Group
from sim.brokers.kafka.log import ABORT, Batch, LogConfig
from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.modern import ConsumerGroup
from sim.brokers.kafka.producer import Producer
from sim.brokers.kafka.replication import Partition
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient
from sim.brokers.kafka.share import ShareGroup
from sim.brokers.kafka.share_consumer import ShareConsumer
from sim.distributions import Constant
from sim.host import Host
from sim.ledger import USUAL_SIZE, Pairs

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
        self.messages.late = RESENT
        later = range(settings.partitions, settings.alter_partitions or 0)
        if settings.ordering_scope == "key":
            self.messages.ordering_scope = "key"
        elif settings.ordering_scope == "partition" and (settings.partitions > 1 or later):
            self.messages.keep_scopes("partition")
        self.min_insync_replicas = settings.min_insync_replicas
        self.unclean_leader_election_enable = settings.unclean_leader_election_enable
        self.groups: list[Group] = []
        self.producers: list[Producer] = []
        self.cluster = Cluster.of(sim, settings.cluster or name)
        self.log_config = self._log_config()
        self.partitions: list[Partition] = self.cluster.add_partitions(
            self, range(settings.partitions), settings.replication_factor
        )
        if later:
            for number in later:
                self.cluster.place(number, settings.replication_factor)
            sim.world.in_background(settings.alter_at, self._alter, later)
        sim.at_start(self._start)

    def _start(self) -> None:
        config = self.sim.config
        publishing = [s.app.publishes for s in config.services.values() if s.app.publishes is not None]
        sizes = [p.app.size for p in config.producers.values() if p.app.channel == self.name]
        sizes += [publishes.size for publishes in publishing if publishes.channel == self.name]
        if self.messages.sizes is None and any(size != Constant(USUAL_SIZE) for size in sizes):
            self.messages.keep_sizes()  # batches fill by bytes

    def _log_config(self) -> LogConfig:
        settings, of_brokers = self.settings, self.cluster.settings
        is_compacted = settings.cleanup_policy == "compact"
        return LogConfig(
            segment_bytes=settings.segment_bytes,
            segment_time=settings.segment_time,
            retention=None if is_compacted else settings.retention,
            retention_bytes=None if is_compacted else settings.retention_bytes,
            is_compacted=is_compacted,
            min_cleanable_dirty_ratio=settings.min_cleanable_dirty_ratio,
            flush_messages=settings.flush_messages,
            write_back=min(of_brokers.write_back, settings.flush_interval or math.inf),
            producer_id_expiration=of_brokers.producer_id_expiration,
        )

    def _alter(self, numbers: range) -> None:
        """kafka-topics --alter --partitions, which an operator tries until the controller is there (K-02)."""
        controller = self.cluster.controller
        if controller.host.is_running:
            controller.create_partitions(self, numbers, self.settings.replication_factor)
        else:
            self.world.in_background(RETRY_BACKOFF, self._alter, numbers)

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

    def known_to(self, broker: Broker) -> None:
        """A broker has heard of one more partition: a coordinator gives it to its groups' members."""
        if broker is self.cluster.offsets.coordinator:
            for group in self.groups:
                group.look_at_partitions()

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

    def copies_of(self, copies: list[int]) -> list[int]:
        """The same records once more: nobody remembers that they are here already."""
        return [self.messages.copy(copy, RETRIED) for copy in copies]

    def key_of(self, copy: int) -> int:
        """The number of a record's key."""
        keys = self.messages.keys
        return 0 if keys is None else keys[self.messages.message_of(copy)]

    def vanished(self, partition: Partition, start: int, records: list[int], cause: int) -> None:
        """Records, from offset `start` on, are gone from one replica's log: a death for groups that have not read them.

        With the last replica's it leaves the backlog, too.
        """
        lost = [(start + i, copy) for i, copy in enumerate(records) if copy > ABORT]
        for group in self.groups:
            pairs, read_below = group.pairs, group.committed(partition) or 0
            for offset, copy in lost:
                was_sent = pairs.was_sent(copy)
                if offset < read_below and (was_sent or pairs.fate[self.messages.message_of(copy)]):
                    continue  # the group is done with it, one way or another
                pairs.died(copy, cause)
                if not (was_sent or partition.is_held(offset, copy)):
                    pairs.unready(copy)

    def led_by(self, partition: Partition, broker: Broker) -> None:
        """What lies behind a new leader's log was never delivered, as far as that leader knows, and will not be."""
        log = broker.logs[partition]
        for group in self.groups:
            group.truncated(partition, log.end, broker.leads[partition].epoch)
        for replica in partition.replicas:
            other = replica.logs[partition]
            agreed = log.agreement(other)
            if agreed < other.end:
                gone = other.read(agreed, other.end)
                self.vanished(partition, agreed, gone, partition.cause_of_cut(other))

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
