"""The controller quorum, as one process on a host of its own: registrations, leaders, ISRs (K-23, K-26, K-30, K-32)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.brokers.kafka.replication import Partition
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import Cluster


@dataclass
class Registration:
    """What the controller knows of a broker."""

    is_alive: bool = True
    is_clean: bool = True  # its last stop, if any, did not cost it its page cache
    incarnation: int = 0  # of its process
    generation: int = 0  # of its connection


class Controller:
    """Who leads and who is in sync is its decision alone, and outlives its process (its metadata log is durable)."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.world, self.settings = cluster, cluster.world, cluster.settings
        self.host = cluster.sim.network.host(f"{cluster.name}.controller")
        self.partitions: list[Partition] = []
        self.brokers: dict[Broker, Registration] = {}
        self._elected_until = 0.0
        self._is_rebalance_due = False
        self.host.residents.append(self)

    def register(self, broker: Broker) -> None:
        """A broker of the cluster; both keep a connection, over which it sends its heartbeats."""
        self.brokers[broker] = Registration()
        broker.controller_link = self.cluster.between(
            broker,
            self,
            Hop("controller"),
            server_broken=lambda: self._silent(broker),
            server_opened=lambda: self._heard(broker),
        )

    def stopped(self, broker: Broker, kind: str) -> None:
        """It will see, when the broker registers again, whether that stopped in good order."""
        if kind != "process":
            self.brokers[broker].is_clean = False

    def crashed(self, kind: str) -> None:
        """K-32: nobody elects and nobody changes an ISR; what there is goes on."""

    def restarted(self) -> None:
        """It goes on with what its log says; brokers connect again by themselves."""

    # -- sessions ----------------------------------------------------------------------------------------------

    def _heard(self, broker: Broker) -> None:
        """A broker is (again) connected: it is unfenced, and told what it leads and follows."""
        registration = self.brokers[broker]
        registration.generation += 1
        if registration.incarnation != broker.host.epoch:
            registration.incarnation = broker.host.epoch
            self._fence(broker)  # a new process registers: the old one is over
        was_alive, registration.is_alive = registration.is_alive, True
        if not registration.is_clean:
            self._after_unclean_shutdown(broker)
            registration.is_clean = True
        for partition in self.partitions:
            if partition.leader is None or (partition.leader is broker and not was_alive):
                self._elect(partition)
        for partition in self.partitions:
            self._tell(broker, partition)
        self._rebalance_later()

    def _after_unclean_shutdown(self, broker: Broker) -> None:
        """K-30: with ELR a broker that lost its page cache is not taken for in sync (KIP-966)."""
        for partition in self.partitions:
            if broker in partition.replicas and partition.topic.min_insync_replicas >= 2:
                others = [r for r in partition.isr if r is not broker]
                if others or partition.elr:
                    partition.isr = others
                    partition.elr = [r for r in partition.elr if r is not broker]
                    if partition.leader is broker:
                        partition.leader = None

    def _silent(self, broker: Broker) -> None:
        """The connection is gone. The session ends broker.session.timeout.ms after the last heartbeat."""
        registration = self.brokers[broker]
        settings = self.settings
        link = broker.controller_link
        if (
            link.there.cuts
            or not broker.host.is_machine_up
            or (broker.host.is_up and not broker.host.is_running)
        ):
            self._session_over(broker, registration.generation)  # it was silent until its session ended
            return
        beat = settings.broker_heartbeat_interval
        phase = beat * (broker.number + 1) / (len(self.brokers) + 1)
        last = phase + math.floor((self.world.now - phase) / beat) * beat
        due = max(self.world.now, last + settings.broker_session_timeout)
        self.host.call_at(due, self._session_over, broker, registration.generation)

    def _session_over(self, broker: Broker, generation: int) -> None:
        """The broker is fenced: others lead what it led."""
        registration = self.brokers[broker]
        if registration.generation == generation and registration.is_alive:
            self._fence(broker)

    def _fence(self, broker: Broker) -> None:
        registration = self.brokers[broker]
        if not registration.is_alive:
            return
        registration.is_alive = False
        for partition in self.partitions:
            if broker in partition.isr and len(partition.isr) > 1:
                partition.isr.remove(broker)
                if (
                    len(partition.isr) < partition.topic.min_insync_replicas
                    and partition.topic.min_insync_replicas >= 2
                ):
                    partition.elr.append(broker)
                partition.epoch += partition.leader is not broker
                if partition.leader is not broker:
                    self._publish(partition)
            if partition.leader is broker:
                self._elect(partition)

    # -- elections ---------------------------------------------------------------------------------------------

    def _elect(self, partition: Partition) -> None:
        """K-23, K-26, K-27: an ISR member leads; without one the partition waits, or somebody else does."""
        alive = [r for r in partition.replicas if self.brokers[r].is_alive]
        chosen = next((r for r in alive if r in partition.isr), None)
        if chosen is None:
            chosen = next((r for r in alive if r in partition.elr), None)
            if chosen is not None:
                partition.isr = [chosen]
        if chosen is None and alive and self.settings.unclean_leader_election_enable:
            chosen = alive[0]
            partition.isr = [chosen]
            partition.unclean_epochs.append(partition.epoch + 1)
        partition.leader = chosen
        partition.elr = [r for r in partition.elr if r not in partition.isr]
        partition.epoch += 1
        # One after the other: the last of many partitions waits for all others.
        self._elected_until = max(self._elected_until, self.world.now) + self.settings.election_time
        self.host.call_at(self._elected_until, self._publish, partition)

    def _publish(self, partition: Partition) -> None:
        for broker in self.brokers:
            self._tell(broker, partition)

    def _tell(self, broker: Broker, partition: Partition) -> None:
        broker.from_controller(broker.told, partition, partition.leader, partition.epoch, list(partition.isr))

    def alter(self, partition: Partition, epoch: int, isr: list[Broker], leader: Broker) -> None:
        """AlterPartition of a leader: granted if it still leads, and all members are alive."""
        if partition.leader is not leader or epoch != partition.epoch:
            self._tell(leader, partition)
            return
        gone = [r for r in partition.isr if r not in isr]
        partition.isr = [r for r in isr if self.brokers[r].is_alive]
        minimum = partition.topic.min_insync_replicas
        if minimum >= 2 and len(partition.isr) < minimum:
            partition.elr += [r for r in gone if r not in partition.elr]
        partition.elr = [r for r in partition.elr if r not in partition.isr and len(partition.isr) < minimum]
        self._tell(leader, partition)
        self._rebalance_later()

    # -- preferred leaders -------------------------------------------------------------------------------------

    def _rebalance_later(self) -> None:
        """auto.leader.rebalance.enable: looks every 300 s, while somebody else than the preferred one leads."""
        settings = self.settings
        if not settings.auto_leader_rebalance_enable or self._is_rebalance_due:
            return
        if any(p.leader is not p.replicas[0] for p in self.partitions):
            self._is_rebalance_due = True
            interval = settings.leader_imbalance_check_interval
            wait = (self.world.now // interval + 1) * interval - self.world.now
            self.world.in_background(wait, self._rebalance)

    def _rebalance(self) -> None:
        self._is_rebalance_due = False
        if self.host.is_up:
            for partition in self.partitions:
                first = partition.replicas[0]
                if partition.leader is not first and first in partition.isr and self.brokers[first].is_alive:
                    partition.leader = first
                    partition.epoch += 1
                    self._publish(partition)
        self._rebalance_later()
