"""What nodes of series 4.0 to 4.2 do when they lose contact (R-28). In 4.3 they do nothing: Raft groups decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.broker import Broker
    from sim.brokers.rabbitmq.node import Node

RETRY = 1.0  # seconds between looks of a paused node for the others
RESTART = 10.0  # seconds that a node takes to start (sheet, section 4)


class PartitionHandling:
    """`cluster_partition_handling`: pause_minority, or autoheal. A node that is told to stops and starts cleanly.

    With `ignore` both sides go on, and clients of one cannot use the classic queues of the other, also when the nodes
    are connected again: that takes an operator who restarts a side (a fault of the scenario: the crash of its nodes).
    What such a side loses besides, changes of exchanges and queues, is not modelled: none are made in a run. Quorum
    queues and streams are groups of their own, and do not mind.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker, self.world = broker, broker.world
        self.handling = broker.settings.cluster_partition_handling
        if self.handling != "ignore":
            for node in broker.nodes:
                node.host.may_stop = True
        self.paused: dict[Node, None] = {}
        # The epochs of two processes when they met last, by node and peer; and of those that lost each other while
        # both went on:
        self._met: dict[tuple[Node, Node], tuple[int, int]] = {}
        self._diverged: dict[tuple[Node, Node], tuple[int, int]] = {}
        self._apart: dict[tuple[Node, Node], None] = {}  # who has lost whom

    def contact(self, node: Node, peer: Node, is_there: bool) -> None:
        """A node is connected to a peer, or not any more."""
        if is_there:
            self._met[node, peer] = _epochs(node, peer)
            self._apart.pop((node, peer), None)
            if self.handling == "ignore":
                return
            if self._diverged and not any(pair in self._apart for pair in self._diverged):
                self.world.call_later(RETRY, self._healed)
            return
        self._apart[node, peer] = None
        epochs = _epochs(node, peer)
        if peer.host.is_up and self._met.get((node, peer)) == epochs:  # it did not die: a partition
            self._diverged[node, peer] = epochs
        if self.handling == "pause_minority" and node.host.is_up:
            sees = 1 + sum(
                (node, other) not in self._apart for other in self.broker.nodes if other is not node
            )
            if 2 * sees <= len(self.broker.nodes):
                self._stop(node)
                self.world.in_background(RETRY, self._look, node)

    # -- ignore ------------------------------------------------------------------------------------------------

    def are_apart(self, node: Node, peer: Node) -> bool:
        """Whether two nodes have lost each other, and neither has been restarted since."""
        if self.handling != "ignore" or self.broker.settings.queue_type != "classic":
            return False
        pairs = ((node, peer), (peer, node))
        return any(self._diverged.get(pair) == _epochs(*pair) for pair in pairs)

    # -- pause_minority ----------------------------------------------------------------------------------------

    def _stop(self, node: Node) -> None:
        """A clean stop: what is in memory and has to last is written first."""
        self.paused[node] = None
        for queue in node.queues:
            queue.stop_cleanly()
        node.host.crash("process")

    def _look(self, node: Node) -> None:
        """A paused node starts again when it sees more than half of the cluster."""
        if node not in self.paused:
            return
        sees = 1 + sum(self._sees(node, other) for other in self.broker.nodes if other is not node)
        if 2 * sees > len(self.broker.nodes):
            del self.paused[node]
            node.host.restart()
        else:
            self.world.in_background(RETRY, self._look, node)

    def _sees(self, node: Node, other: Node) -> bool:
        """Whether a packet to the other node would come back: it is up, or paused itself."""
        end = self.broker.mesh.stations[node.name].ends[self.broker.mesh.stations[other.name]]
        is_there = other.host.is_up or other in self.paused
        return is_there and not end.outgoing.cuts and not end.incoming.cuts

    # -- autoheal ----------------------------------------------------------------------------------------------

    def _healed(self) -> None:
        """The sides see each other again: with autoheal all but the one with most clients start anew."""
        if not self._diverged or any(pair in self._apart for pair in self._diverged):
            return
        apart, self._diverged = self._diverged, {}
        if self.handling != "autoheal":
            return
        sides: list[list[Node]] = []
        for node in self.broker.nodes:
            side = next((s for s in sides if (node, s[0]) not in apart and (s[0], node) not in apart), None)
            if side is None:
                sides.append([node])
            else:
                side.append(node)
        winner = max(sides, key=lambda side: sum(map(_clients, side)))
        for side in sides:
            for node in side:
                if side is not winner and node.host.is_up:
                    self._stop(node)
                    self.world.call_later(RESTART, self._start, node)

    def _start(self, node: Node) -> None:
        self.paused.pop(node, None)
        node.host.restart()


def _epochs(node: Node, peer: Node) -> tuple[int, int]:
    """Which of their processes two nodes run."""
    return node.host.epoch, peer.host.epoch


def _clients(node: Node) -> int:
    """Clients that are connected to it."""
    return sum(channel.client.is_open and channel.client.channel is channel for channel in node.channels)
