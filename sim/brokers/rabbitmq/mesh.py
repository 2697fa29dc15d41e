"""Between the nodes of a cluster: their connections, what each believes of the others, and what each writes.

From top to bottom: the connections (`Mesh`, `Cable`) and their silence (`NetTick`); a node in the mesh with its
failure detector (`Station`); its write-ahead log and page cache (`Wal`). The logs that are replicated over all this
are in `replication`. Sources: Ra, Aten and distributed Erlang as in the RabbitMQ sheet, R-22 ... R-28.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sim.connection import Connection, End
from sim.distributions import Distribution
from sim.host import Host
from sim.kernel import Handler
from sim.network import Hop, Network
from sim.storage import Disk
from sim.stream import Stream

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.replication import Member

POLL = 5.0  # seconds between looks of a node's failure detector, and from the first doubt to suspicion
NET_TICK, NET_TICK_LOOKS = 15.0, 4  # net_ticktime 60 s: a silent connection breaks after 45 to 75 s
RECONNECT, RECONNECT_MAX = 0.1, 1.0  # seconds between attempts of a node to reach another
WRITE_BACK = 30.0  # seconds after which the system writes back a dirty page
WAL_RESTART = 0.1  # seconds until a write-ahead log whose fsync failed writes that again


class Node(Protocol):
    """What a member of a group runs on."""

    name: str
    host: Host
    disk: Disk


class Mesh:
    """Connections between all nodes of a cluster, and a station on each node. The earlier of two nodes connects.

    `delay` (s, one way) replaces the network's own between them.
    """

    def __init__(self, network: Network, nodes: Sequence[Node], delay: Distribution | None = None) -> None:
        self.network, self.world = network, network.world
        # Who watches contacts:
        self.contact: Callable[[Any, Any, bool], Any] = lambda node, peer, is_there: None
        self.suspicion: Callable[[Any, Any, bool], Any] = lambda node, peer, is_suspected: None
        self._parcels: dict[int, tuple[Handler, tuple[Any, ...]]] = {}
        self._last_parcel = 0
        self.hop = Hop("nodes", dropped=self._dropped)
        self.stations = {node.name: Station(self, node) for node in nodes}
        stations = [*self.stations.values()]
        for i, one in enumerate(stations):
            for other in stations[i + 1 :]:
                cable = Cable(self, one, other, delay)
                self.world.call_at(self.world.now, cable.join)

    def send(
        self, a: Node, b: Node, handler: Handler, *args: Any, dropped: Callable[..., Any] | None = None
    ) -> None:
        """Call `handler(*args)` at `b`, in order with all that `a` sends there; within a node at once.

        If there is no connection, or it breaks with this on its way, `dropped(*args)` is called, once.
        """
        if a is b:
            handler(*args)
            return
        stream = self.stations[a.name].streams[self.stations[b.name]]
        if dropped is None:
            stream.send(_hand_over, 0, handler, args)
        else:
            self._last_parcel += 1
            self._parcels[self._last_parcel] = (dropped, args)
            stream.send(self._hand_over_parcel, self._last_parcel, handler, args)

    def _hand_over_parcel(self, number: int, handler: Handler, args: tuple[Any, ...]) -> None:
        del self._parcels[number]
        handler(*args)

    def _dropped(self, number: int, cause: int) -> None:
        if number:
            dropped, args = self._parcels.pop(number)
            dropped(*args)

    def on_their_way(self) -> Iterator[tuple[Any, ...]]:
        """The arguments of what was sent with `dropped` and is not handed over yet, for the books."""
        for _, args in self._parcels.values():
            yield args

    def is_connected(self, a: Node, b: Node) -> bool:
        """Whether `a` has a connection to `b`, as far as it knows: what it sends may still be in vain."""
        return self.stations[a.name].ends[self.stations[b.name]].is_open

    def trusts(self, a: Node, b: Node) -> bool:
        """Whether `a` believes that `b` is there: connected, and not suspected by its failure detector."""
        return self.stations[a.name].trusts(self.stations[b.name])

    def can_reach(self, a: Node, b: Node) -> bool:
        """Whether they are connected and hear each other now; a node that is up reaches itself."""
        return self.stations[a.name].reaches(self.stations[b.name])


def _hand_over(_control: int, handler: Handler, args: tuple[Any, ...]) -> None:
    handler(*args)


class NetTick:
    """The rule of distributed Erlang: peers beat every quarter of net_ticktime, and each end looks as often.

    Not in step: the first look after the last beat sees a change, and the fourth in vain after that closes the
    connection, so 45 to 75 s after a cut of an idle connection, 60 s in the mean.
    """

    hears_data = has_phase = True

    def last_beat(self, opened_at: float, time: float, phase: float) -> float:
        """The last beat of the peer."""
        beats = math.floor((time - opened_at) / NET_TICK - phase)
        return opened_at + ((beats + phase) * NET_TICK if beats >= 0 else 0.0)

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """The look that is one too many."""
        return opened_at + (math.floor((heard_at - opened_at) / NET_TICK) + 1 + NET_TICK_LOOKS) * NET_TICK


class Cable(Connection):
    """The connection of two nodes. Whenever one of them falls silent or is heard again, both stations look."""

    def __init__(self, mesh: Mesh, one: Station, other: Station, delay: Distribution | None) -> None:
        tcp = replace(
            mesh.network.settings.tcp,
            heartbeat=None,
            reconnect=RECONNECT,
            reconnect_max=RECONNECT_MAX,
        )
        super().__init__(
            mesh.network,
            one.host,
            other.host,
            mesh.hop,
            mesh.hop,
            client_opened=partial(one.connected, other),
            client_broken=partial(one.lost, other),
            server_opened=partial(other.connected, one),
            server_broken=partial(other.lost, one),
            connect_failed=partial(one.lost, other),
            tcp=tcp,
            heartbeats=NetTick(),
        )
        if delay is not None:
            for stream in (self.there, self.back):
                stream.settings = replace(stream.settings, delay=delay)
                stream.delay = delay.draws(mesh.world.stream(f"link.{stream.name}.delay"))
                stream.rto = mesh.network.rto(delay, delay, tcp.rto_min)
        self.sides = ((one, other, self._client_end), (other, one, self._server_end))
        for station, peer, end in self.sides:
            station.ends[peer] = end
            station.streams[peer] = end.outgoing
        other.incoming_cables.append(self)

    def check_silence(self) -> None:
        """Somebody may have fallen silent or be heard again."""
        super().check_silence()
        for station, peer, end in self.sides:
            station.listen(peer, end)

    def join(self) -> None:
        """Two nodes have long been connected when the run begins."""
        self._is_wanted = True
        self._attempt += 1
        self._established(self._attempt, self.server.epoch)

    def invite(self) -> None:
        """The server's node has started: it looks for the others, and they connect."""
        if self._client_end.is_open:
            self.answer_with_reset(self._client_end, self.world.now)  # the old connection is unknown there
        else:
            self.keep_open()


class Station:
    """A node in the mesh: its ends of the connections, its failure detector, its logs and their members.

    Aten sends heartbeats every 0.1 s and looks for missing ones every 5 s, on a grid of each node's own. Here nothing
    ticks: when a peer falls silent, its station reckons when it will suspect it.
    """

    def __init__(self, mesh: Mesh, node: Node) -> None:
        self.mesh, self.node, self.host, self.world = mesh, node, node.host, mesh.world
        self.ends: dict[Station, End] = {}
        self.streams: dict[Station, Stream] = {}
        self.incoming_cables: list[Cable] = []
        self.members: list[Member] = []
        self.wal = Wal(node, 0.0)
        self.page_cache = Wal(node, WRITE_BACK)
        self._poll_phase = POLL * self.world.uniforms(f"{node.name}.detector")()
        self._silent_since: dict[Station, float] = {}
        self._suspected: set[Station] = set()
        self.host.residents.append(self)

    def __repr__(self) -> str:
        return f"<station {self.node.name}>"

    def reaches(self, peer: Station) -> bool:
        """Whether both are connected and hear each other now."""
        if peer is self:
            return self.host.is_up
        return self._hears(peer) and peer._hears(self)

    def _hears(self, peer: Station) -> bool:
        end = self.ends[peer]
        return end.is_open and not end.is_silent()

    def trusts(self, peer: Station) -> bool:
        """Whether this node believes that the peer is there."""
        return peer is self or (self.ends[peer].is_open and peer not in self._suspected)

    def connected(self, peer: Station) -> None:
        """A connection to a peer is open."""
        self.mesh.contact(self.node, peer.node, True)
        for member in self.members:
            member.peer_connected(peer)

    def lost(self, peer: Station) -> None:
        """The connection to a peer broke, or could not be opened."""
        self.mesh.contact(self.node, peer.node, False)
        for member in self.members:
            member.peer_lost(peer)

    def listen(self, peer: Station, end: End) -> None:
        """Note whether the peer is silent."""
        if end.is_open and end.is_silent():
            if peer not in self._silent_since:
                now = self._silent_since[peer] = self.world.now
                polls = math.floor((now - self._poll_phase) / POLL) + 1
                # the next look finds beats missing, and the one after it is sure
                due = max(now, self._poll_phase + polls * POLL + POLL)
                self.host.call_at(due, self._suspect, peer, now)
        elif self._silent_since.pop(peer, None) is not None:
            was_suspected = peer in self._suspected
            self._suspected.discard(peer)
            if was_suspected and self.trusts(peer):
                self.mesh.suspicion(self.node, peer.node, False)
            for station, other in ((self, peer), (peer, self)):
                for member in station.members:
                    member.peer_heard(other)

    def _suspect(self, peer: Station, since: float) -> None:
        if self._silent_since.get(peer) == since and self.ends[peer].is_open:
            self._suspected.add(peer)
            self.mesh.suspicion(self.node, peer.node, True)
            for member in self.members:
                member.peer_suspected(peer)

    def crashed(self, kind: str) -> None:
        """The process knows nobody any more."""
        self._suspected.clear()
        self._silent_since.clear()
        for member in self.members:
            member.crashed()

    def restarted(self) -> None:
        """The node starts: it writes what its page cache holds, and looks for the others."""
        self.wal.resume()
        self.page_cache.resume()
        for cable in self.incoming_cables:
            cable.invite()
        for member in self.members:
            member.restarted()


class Wal:
    """What a node writes for all its members of one kind: at once to the page cache, and from there to the device.

    Without `delay` it is a write-ahead log that fsyncs as soon as it can: one fsync covers what gathered during the
    last (R-25). With it, the system writes back what has been dirty for so long (s), and nobody waits for that.
    """

    def __init__(self, node: Node, delay: float) -> None:
        self.disk, self.world, self.delay = node.disk, node.host.world, delay
        self.members: list[Member] = []
        self._dirty: dict[Member, None] = {}
        self._flushing: dict[Member, int] = {}  # up to which index the present fsync covers a member's log
        self._is_flushing = self._is_waiting = False
        self._began = 0.0
        node.disk.journals.append(self)  # type: ignore[arg-type]  # the disk asks only what its crash costs

    def wrote(self, member: Member) -> None:
        """A member has appended to its log, in the page cache."""
        if self._is_flushing and self._began == self.world.now:
            self._flushing[member] = member.last  # written in the instant in which the fsync begins
        else:
            self._dirty[member] = None
            self.resume()

    def truncated(self, member: Member) -> None:
        """A member has cut off the end of its log."""
        if member in self._flushing:
            self._flushing[member] = min(self._flushing[member], member.last)

    def resume(self) -> None:
        """Flush, or see to it that it will be done."""
        if not self._dirty or self._is_flushing or self._is_waiting:
            return
        if self.delay:
            self._is_waiting = True
            self.world.in_background(self.delay, self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        self._is_waiting = False
        if not self._dirty or self._is_flushing:
            return
        flushing = self._flushing = {member: member.last for member in self._dirty}
        self._dirty = {}
        self._is_flushing, self._began = True, self.world.now
        self.disk.fsync(self._flushed, partial(self._tell, flushing))

    def _flushed(self, is_ok: bool) -> None:
        self._is_flushing = False
        flushing, self._flushing = self._flushing, {}
        if is_ok:
            for member, index in flushing.items():
                member.durable = max(member.durable, index)
            self.resume()
        else:
            self._dirty.update(dict.fromkeys(flushing))
            self._is_waiting = True
            self.world.call_later(WAL_RESTART, self._flush)

    def _tell(self, flushing: Iterable[Member], is_ok: bool) -> None:
        if is_ok and not self.delay:
            for member in flushing:
                member.report()

    def crashed(self, kind: str) -> int:
        """The host has crashed (kinds as in `Host.crash`); returns how many entries that cost."""
        self._dirty.update(dict.fromkeys(self._flushing))
        self._flushing, self._is_flushing = {}, False
        if kind == "process":
            return 0
        self._dirty = {}
        return sum(member.lose(kind) for member in self.members)
