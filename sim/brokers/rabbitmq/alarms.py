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

    What counts are the bodies of messages that a node's queues hold, ready or not; and for the disk the logs of its
    streams, whoever has read them. (A log is in the page cache, which is not memory of the node's.)
    """

    def __init__(self, broker: Broker) -> None:
        self.broker, self.world = broker, broker.world
        settings = broker.settings
        memory, disk = settings.memory, settings.disk
        self.memory = math.inf if memory is None else memory * settings.vm_memory_high_watermark
        self.disk = math.inf if disk is None else disk - settings.disk_free_limit
        self.is_raised = False

    def start(self) -> None:
        """Begin to look."""
        self.world.in_background(CHECK, self._check)

    def _check(self) -> None:
        is_short = any(self.is_short(node) for node in self.broker.nodes if node.host.is_up)
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

    def is_short(self, node: Node) -> bool:
        """Whether a node has not enough memory or disk left."""
        in_queues = sum(queue.bytes_held() for queue in node.queues)
        in_logs = sum(queue.bytes_of_log() for queue in node.queues)
        return in_queues > self.memory or in_queues + in_logs > self.disk
