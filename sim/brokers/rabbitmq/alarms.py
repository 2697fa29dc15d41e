"""Alarms: a node is short of memory or disk, and the whole cluster stops reading from those who publish (R-38)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sim.brokers.rabbitmq.channels import ConsumerChannel

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.node import Node

CHECK = 1.0  # seconds between looks at memory; the disk is looked at every 10 s ... 0.1 s
REASON = "alarm"


class Alarms:
    """Looks at all nodes once a second, and blocks or frees the connections of publishers.

    What counts are the bodies of messages that a node's queues hold, ready or not.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker, self.world = broker, broker.world
        settings = broker.settings
        memory = math.inf if settings.memory is None else settings.memory * settings.vm_memory_high_watermark
        disk = math.inf if settings.disk is None else settings.disk - settings.disk_free_limit
        self.limit = min(memory, disk)
        self.is_raised = False

    def start(self) -> None:
        """Begin to look."""
        self.world.in_background(CHECK, self._check)

    def _check(self) -> None:
        is_short = any(self.held_by(node) > self.limit for node in self.broker.nodes if node.host.is_up)
        if is_short or self.is_raised != is_short:
            self.is_raised = is_short
            for node in self.broker.nodes:
                for channel in node.channels:
                    if isinstance(channel, ConsumerChannel) and not channel.settings.publishes_too:
                        continue  # a connection that only consumes is read on
                    if is_short:
                        channel.stop_reading(REASON)
                    else:
                        channel.read_again(REASON)
        self.world.in_background(CHECK, self._check)

    def held_by(self, node: Node) -> int:
        """Bytes of the messages in a node's queues."""
        messages = self.broker.messages
        if messages.sizes is None:
            return 1024 * sum(len(queue.ready) + len(queue.unacked) for queue in node.queues)
        return sum(messages.size_of(copy) for queue in node.queues for _, copy in queue.entries())
