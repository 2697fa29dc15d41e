"""The controller quorum, as one process on a host of its own: registrations, leaders, ISRs (K-23, K-26, K-30, K-32)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.brokers.kafka.replication import Partition, Topic
from sim.network import Hop

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.cluster import Cluster


@dataclass
class Registration:
    """What the controller knows of a broker."""

    is_alive: bool = True
    is_clean: bool = True  # its last stop, if any, did not cost it its page cache
    is_connected: bool = False
    is_stopping: bool = False  # in controlled shutdown
    incarnation: int = 0  # of the process that has registered
    generation: int = 0  # of its connection
    was_heard: bool = False  # since the run began, the process that is registered
    beats_until: float = math.inf  # when its last heartbeat can have been (s)


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
        cluster.sim.at_start(self._begin)

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

    def _begin(self) -> None:
        """All brokers are registered when a run begins; one that is gone before it was heard has a session, too."""
        for broker, registration in self.brokers.items():
            due = self.settings.broker_session_timeout
            self.host.call_later(due, self._session_over_if_unheard, broker, registration)

    def _session_over_if_unheard(self, broker: Broker, registration: Registration) -> None:
        if not registration.was_heard:
            self._session_over(broker, registration.generation)

    def stopped(self, broker: Broker, kind: str) -> None:
        """A process is over. The controller will see, when the next one registers, whether in good order."""
        registration = self.brokers[broker]
        registration.beats_until = min(registration.beats_until, self.world.now)
        if kind != "process":
            registration.is_clean = False

    def crashed(self, kind: str) -> None:
        """K-32: nobody elects and nobody changes an ISR; what there is goes on."""
        for registration in self.brokers.values():
            registration.is_connected = False

    def restarted(self) -> None:
        """It goes on with what its log says: brokers connect again, and each has a session's time to do so."""
        for broker, registration in self.brokers.items():
            due = self.settings.broker_session_timeout
            self.host.call_later(due, self._session_over, broker, registration.generation)

    # -- sessions ----------------------------------------------------------------------------------------------

    def _heard(self, broker: Broker) -> None:
        """A broker is (again) connected. A new process registers when the session of the old one is over."""
        registration = self.brokers[broker]
        registration.generation += 1
        registration.is_connected = True
        if registration.incarnation == broker.host.epoch:
            registration.was_heard = True
            self._unfence(broker)
        elif not registration.is_alive:
            self._register(broker)

    def _register(self, broker: Broker) -> None:
        registration = self.brokers[broker]
        registration.incarnation = broker.host.epoch
        registration.was_heard = True
        registration.is_stopping = False
        registration.beats_until = math.inf
        if not registration.is_clean:
            self._after_unclean_shutdown(broker)
            registration.is_clean = True
        self._unfence(broker)

    def _unfence(self, broker: Broker) -> None:
        """It is told what it leads and follows, and may lead what nobody does."""
        self.brokers[broker].is_alive = True
        broker.from_controller(broker.unfenced)
        for partition in self.partitions:
            if partition.leader is None:
                self._elect(partition)
        for partition in self.partitions:
            self._tell(broker, partition)
        self._rebalance_later()

    def _after_unclean_shutdown(self, broker: Broker) -> None:
        """K-30: with ELR a broker that lost its page cache is not taken for in sync (KIP-966)."""
        for partition in self.partitions:
            if broker in partition.replicas and partition.topic.min_insync_replicas >= 2:
                others = [r for r in partition.isr if r is not broker]
                if others or partition.elr != [broker]:
                    partition.elr = [r for r in partition.elr if r is not broker]
                if others or partition.elr:
                    partition.isr = others

    def _silent(self, broker: Broker) -> None:
        """The connection is gone. The session ends broker.session.timeout.ms after the last heartbeat."""
        registration = self.brokers[broker]
        registration.is_connected = False
        if registration.beats_until == math.inf or not broker.host.is_machine_up:
            self._session_over(broker, registration.generation)  # it was silent until its session ended
            return
        settings = self.settings
        beat = settings.broker_heartbeat_interval
        phase = beat * (broker.number + 1) / (len(self.brokers) + 1)
        last = phase + math.floor((registration.beats_until - phase) / beat) * beat
        due = max(self.world.now, last + settings.broker_session_timeout)
        self.host.call_at(due, self._session_over, broker, registration.generation)

    def _session_over(self, broker: Broker, generation: int) -> None:
        """The broker is fenced: others lead what it led."""
        registration = self.brokers[broker]
        is_new = registration.incarnation != broker.host.epoch
        if registration.generation != generation and not is_new:
            return
        self._fence(broker)
        if registration.is_connected and is_new:
            self._register(broker)

    def _fence(self, broker: Broker) -> None:
        registration = self.brokers[broker]
        if registration.is_alive:
            registration.is_alive = False
            self._retire(broker)

    def _retire(self, broker: Broker) -> None:
        """A broker is in no ISR and leads nothing, wherever somebody else is there for it."""
        for partition in self.partitions:
            if broker in partition.isr and len(partition.isr) > 1:
                partition.isr.remove(broker)
                self._note_eligible(partition, [broker])
                if partition.leader is not None and partition.leader is not broker:
                    self._tell(partition.leader, partition)
            if partition.leader is broker:
                self._elect(partition)

    def _note_eligible(self, partition: Partition, gone: list[Broker]) -> None:
        """K-30: who leaves an ISR of less than min.insync.replicas has all that is committed (ELR, KIP-966)."""
        minimum = partition.topic.min_insync_replicas
        is_short = minimum >= 2 and len(partition.isr) < minimum
        known = dict.fromkeys([*partition.elr, *gone]) if is_short else {}
        partition.elr = [r for r in known if r not in partition.isr]

    def wants_to_stop(self, broker: Broker, done: Callable[[], Any]) -> None:
        """Controlled shutdown: others lead, and then the broker may end."""
        registration = self.brokers[broker]
        registration.is_stopping = True
        self._retire(broker)
        registration.is_alive = False
        wait = max(self._elected_until, self.world.now) - self.world.now
        self.host.call_later(wait, broker.from_controller, done)

    # -- elections ---------------------------------------------------------------------------------------------

    def _elect(self, partition: Partition) -> None:
        """K-23, K-26, K-27: an ISR member leads; without one the partition waits, or somebody else does."""
        known = self.brokers
        alive = [r for r in partition.replicas if known[r].is_alive and not known[r].is_stopping]
        before = partition.isr
        chosen = next((r for r in alive if r in partition.isr), None)
        if chosen is None:
            chosen = next((r for r in alive if r in partition.elr), None)
            if chosen is not None:
                partition.isr = [chosen]
        if chosen is None and alive and partition.topic.unclean_leader_election_enable:
            chosen = alive[0]
            partition.isr, partition.elr, before = [chosen], [], []
            partition.unclean_epochs.append(partition.epoch + 1)
        if chosen is None and partition.leader is None:
            return
        partition.leader = chosen
        self._note_eligible(partition, before)
        partition.epoch += 1
        # One after the other: the last of many partitions waits for all others.
        self._elected_until = max(self._elected_until, self.world.now) + self.settings.election_time
        self.host.call_at(self._elected_until, self._publish, partition)

    def _publish(self, partition: Partition) -> None:
        for broker in self.brokers:
            self._tell(broker, partition)

    def _tell(self, broker: Broker, partition: Partition) -> None:
        broker.from_controller(broker.told, partition, partition.leader, partition.epoch, list(partition.isr))

    def alter(
        self,
        partition: Partition,
        epoch: int,
        isr: list[Broker],
        leader: Broker,
        incarnations: dict[Broker, int],
    ) -> None:
        """AlterPartition of a leader: granted if it still leads, to members that are alive.

        A leader that speaks of a process that is over is refused: what that one had may be gone (KIP-903).
        """
        known = self.brokers
        is_stale = any(0 <= n != known[r].incarnation for r, n in incarnations.items())
        if partition.leader is not leader or epoch != partition.epoch or is_stale:
            self._tell(leader, partition)
            return
        gone = [r for r in partition.isr if r not in isr]
        partition.isr = [r for r in isr if known[r].is_alive and not known[r].is_stopping]
        self._note_eligible(partition, gone)
        self._tell(leader, partition)
        self._rebalance_later()

    # -- partitions --------------------------------------------------------------------------------------------

    def create_partitions(self, topic: Topic, numbers: range, replication_factor: int) -> None:
        """CreatePartitions (K-02): each is led by the first replica that is there, and brokers hear of all at once."""
        new = self.cluster.add_partitions(topic, numbers, replication_factor)
        for partition in new:
            alive = [r for r in partition.replicas if self.brokers[r].is_alive]
            partition.leader = alive[0] if alive else None
            partition.isr = alive or partition.isr
        topic.partitions += new
        for broker in self.brokers:
            said = [(p, p.leader, p.epoch, list(p.isr)) for p in new]
            broker.from_controller(broker.told_of_more, said)

    # -- preferred leaders -------------------------------------------------------------------------------------

    def _rebalance_later(self) -> None:
        """auto.leader.rebalance.enable: looks every 300 s, while a preferred leader could lead and does not."""
        settings = self.settings
        if not settings.auto_leader_rebalance_enable or self._is_rebalance_due:
            return
        if any(self._is_unbalanced(p) for p in self.partitions):
            self._is_rebalance_due = True
            interval = settings.leader_imbalance_check_interval
            wait = (self.world.now // interval + 1) * interval - self.world.now
            self.world.in_background(wait, self._rebalance)

    def _is_unbalanced(self, partition: Partition) -> bool:
        """Whether the preferred leader could lead, and does not."""
        first = partition.replicas[0]
        return partition.leader is not first and first in partition.isr and self.brokers[first].is_alive

    def _rebalance(self) -> None:
        self._is_rebalance_due = False
        if self.host.is_running:
            for partition in self.partitions:
                if self._is_unbalanced(partition):
                    partition.leader = partition.replicas[0]
                    partition.epoch += 1
                    self._publish(partition)
        self._rebalance_later()
