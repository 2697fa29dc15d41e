"""A node of the cluster: a broker process on a machine with a disk, its queues and its clients' channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.brokers.rabbitmq.channels import ConsumerChannel, PublisherChannel
from sim.storage import Disk

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.queue import MessageQueue


class Node:
    """One RabbitMQ node."""

    def __init__(self, broker: Broker, name: str, group: str) -> None:
        self.broker, self.name = broker, name
        self.host = broker.sim.network.host(name, group)
        self.disk = Disk(self.host, broker.settings.fsync)
        self.queues: list[MessageQueue] = []
        self.channels: list[PublisherChannel | ConsumerChannel] = []
        self.host.residents.append(self)

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def crashed(self, kind: str) -> None:
        """Sockets, channels and mailboxes are gone; queues keep what their type keeps (section 1.11)."""
        for queue in self.queues:
            queue.crashed(kind)
        for channel in self.channels:
            if isinstance(channel, ConsumerChannel):
                channel.node_died(kind)
            else:
                channel.closed()
        self.broker.node_crashed(self, kind)

    def restarted(self) -> None:
        """The node starts with what its disk holds."""
        for queue in self.queues:
            queue.restarted()
        self.broker.node_restarted(self)
