"""The replicated log that quorum queues and streams stand on: a Raft group over connections between nodes.

A leader appends commands to its log and sends them to its followers without waiting for their answers. A member
reports an entry once it is safe there: for a quorum queue when the node's write-ahead log has fsynced it, for a stream
when it is in the page cache. What a majority has reported is committed, and is applied in order at the leader.

What a member holds dies with what it is on: a process crash takes only roles and knowledge of others, a machine crash
what was not fsynced, a lost disk everything. A member without its disk has no vote until a leader has brought it up
to date (RabbitMQ adds it as a new member), else a minority of lost disks could elect a leader that lacks what is
committed. Terms and votes are durable at once, and survive.

From top to bottom: the connections between nodes and what each node believes of the others (`Mesh`, `Station`); what
it writes (`Wal`); one node's copy of a log (`Member`), with replication first and elections after it; the group
(`ReplicatedLog`), which keeps for all members together what is true of all: the forgotten prefix, and how far the log
was applied. Sources: Ongaro & Ousterhout 2014; Ra and Aten as in the RabbitMQ sheet, R-22 ... R-27.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from sim.connection import Connection, End
from sim.distributions import Distribution
from sim.host import Host
from sim.kernel import Handler
from sim.network import Hop, Network
from sim.storage import Disk
from sim.stream import Stream

Command = tuple[Any, ...]
Entry = tuple[
    int, Command | None
]  # its term, and None for what a new leader appends to commit its predecessors'

POLL = 5.0  # seconds between looks of a node's failure detector, and from the first doubt to suspicion
NET_TICK, NET_TICK_LOOKS = 15.0, 4  # net_ticktime 60 s: a silent connection breaks after 45 to 75 s
RECONNECT, RECONNECT_MAX = 0.1, 1.0  # seconds between attempts of a node to reach another
WRITE_BACK = 30.0  # seconds after which the system writes back a dirty page
WAL_RESTART = (
    0.1  # seconds until a write-ahead log whose fsync failed writes again what it had not made durable
)
WINDOW = 4096  # entries on their way to a follower (max_pipeline_count)
SNAPSHOT_ENTRY = 10e-6  # seconds of work per entry of a snapshot
FORGET_EVERY = 1024  # applied entries between looks at what may be forgotten


class Node(Protocol):
    """What a member of a group runs on."""

    name: str
    host: Host
    disk: Disk


# -- between nodes -----------------------------------------------------------------------------------------------


class Mesh:
    """Connections between all nodes of a cluster, and a station on each node. The earlier of two nodes connects.

    `delay` (s, one way) replaces the network's own between them.
    """

    def __init__(self, network: Network, nodes: Sequence[Node], delay: Distribution | None = None) -> None:
        self.network, self.world = network, network.world
        self.contact: Callable[[Any, Any, bool], Any] = lambda node, peer, is_there: (
            None
        )  # who watches contacts
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


# -- one copy of the log -----------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Append:
    """A leader's message: entries from index `previous + 1` on, or with `is_snapshot` what stands for all before.

    `era` counts how often the leader has begun anew with this follower. It may grow while it has not been taken.
    """

    leader: Member
    term: int
    previous: int
    previous_term: int
    entries: list[Entry]
    era: int
    at: float
    is_snapshot: bool = False
    is_taken: bool = False


@dataclass(eq=False, slots=True)
class Progress:
    """What a leader knows of a follower: `match` is reported, `next` is to be sent, `start` came before the first that
    was sent in this era."""

    next: int
    start: int
    match: int = 0
    era: int = 0
    newest: Append | None = None
    is_preparing: bool = False  # a snapshot


@dataclass(eq=False)
class Ballot:
    """An election: a trial (pre-vote) asks whether one would be won, so that nobody disturbs a working leader."""

    term: int
    is_trial: bool
    votes: set[Member] = field(default_factory=set)


class Member:
    """One node's copy of a log, and its part in the group."""

    def __init__(self, log: ReplicatedLog, station: Station) -> None:
        self.log, self.station, self.host = log, station, station.host
        self.wal = station.wal if log.fsync else station.page_cache
        self.peers: list[Member] = []
        # On disk, the end of the log perhaps only in the page cache:
        self.term = 1
        self.vote: Member | None = None
        self.entries: list[Entry] = []  # behind the prefix that the group has forgotten
        self.durable = 0  # index up to which the device has it; -1 after a loss of the disk
        self.is_blank = False  # without even the prefix
        self.has_vote = True
        self._votes_from = 0  # a member without a vote has one again once it has reported this index
        # In memory:
        self.leader: Member | None = None
        self.progress: dict[Member, Progress] = {}
        self._ballot: Ballot | None = None
        self._matched = 0  # up to here its log is known to be the leader's
        self._timer = 0
        self._is_timed = False
        self._uniform = station.world.uniforms(f"{log.name}.{station.node.name}.election")
        station.members.append(self)
        self.wal.members.append(self)

    def __repr__(self) -> str:
        return f"<{self.log.name} at {self.station.node.name}>"

    @property
    def last(self) -> int:
        """Index of the last entry."""
        return self.log.forgotten + len(self.entries)

    @property
    def is_leader(self) -> bool:
        """Whether it takes itself to be the leader."""
        return self.leader is self

    def _term_at(self, index: int) -> int:
        forgotten = self.log.forgotten
        return self.log.forgotten_term if index == forgotten else self.entries[index - forgotten - 1][0]

    # -- the leader's side of replication ----------------------------------------------------------------------

    def propose(self, command: Command | None) -> None:
        """Append a command, send it, and write it: the leader's own fsync runs in parallel (R-25)."""
        assert self.is_leader
        self.entries.append((self.term, command))
        for follower in self.peers:
            self._send(follower)
        self._write()

    def _send(self, follower: Member, at_once: bool = False) -> None:
        """Send a follower what it lacks, `at_once` even if that is nothing.

        What is proposed in the same instant joins the message that has just left.
        """
        progress = self.progress[follower]
        newest, last = progress.newest, self.last
        if (
            newest is not None
            and newest.at == self.log.world.now
            and progress.next == last
            and not (newest.is_taken or newest.is_snapshot)
        ):
            newest.entries.append(self.entries[-1])
            progress.next += 1
            return
        if not self.station.ends[follower.station].is_open or progress.is_preparing:
            return
        forgotten = self.log.forgotten
        if progress.next <= forgotten:  # it has that, if it has a disk, and its report is not here yet
            progress.next, progress.start = forgotten + 1, forgotten
        end = min(last, max(progress.match, progress.start) + WINDOW)
        if end < progress.next and not at_once:
            return
        previous = progress.next - 1
        entries = self.entries[previous - forgotten : max(end, previous) - forgotten]
        self._send_append(follower, progress, previous, entries)

    def _send_append(
        self,
        follower: Member,
        progress: Progress,
        previous: int,
        entries: list[Entry],
        is_snapshot: bool = False,
    ) -> None:
        progress.newest = message = Append(
            leader=self,
            term=self.term,
            previous=previous,
            previous_term=self._term_at(previous),
            entries=entries,
            era=progress.era,
            at=self.log.world.now,
            is_snapshot=is_snapshot,
        )
        progress.next = previous + len(entries) + 1
        self.station.streams[follower.station].send(follower.on_append, 0, message)

    def _begin_anew(self, follower: Member, match: int) -> None:
        """Send from `match` + 1 on: what was sent besides is lost, or of no use to the follower."""
        progress = self.progress[follower]
        progress.era += 1
        progress.newest = None
        progress.match = min(progress.match, match)
        progress.next, progress.start = match + 1, match
        self._send(follower, at_once=True)

    def on_report(
        self, _control: int, follower: Member, term: int, index: int, refused_in: int | None
    ) -> None:
        """A follower reports that it has all up to `index`, or that it refused a message of an era."""
        if term > self.term:
            self._step_down(term)
        if not self.is_leader or term < self.term:
            return
        progress = self.progress[follower]
        if refused_in is None:
            progress.match = max(progress.match, index)
            self._look_for_commits()
            if self.is_leader and progress.next <= self.last:
                self._send(follower)
        elif refused_in == progress.era:
            if index >= 0:
                self._begin_anew(follower, index)
            elif not progress.is_preparing:
                progress.is_preparing = True
                seconds = SNAPSHOT_ENTRY * self.log.snapshot_size() * self.host.slowness
                self.host.work(seconds, self._send_snapshot, follower, progress)

    def _send_snapshot(self, follower: Member, progress: Progress) -> None:
        if self.is_leader and self.progress[follower] is progress:
            progress.is_preparing = False
            if self.station.ends[follower.station].is_open:
                progress.era += 1
                progress.match, progress.start = 0, self.last
                self._send_append(follower, progress, self.log.forgotten, self.entries[:], is_snapshot=True)

    def _look_for_commits(self) -> None:
        """R-25: committed is what a majority has reported, if it is of this term (Raft, 5.4.2)."""
        reported = [self._reported(), *(progress.match for progress in self.progress.values())]
        reported.sort(reverse=True)
        index = reported[self.log.majority - 1]
        if index > self.log.applied and self._term_at(index) == self.term:
            self.log.committed(self, index)

    # -- a follower's side -------------------------------------------------------------------------------------

    def on_append(self, _control: int, message: Append) -> None:
        """Entries from a leader: append them where the logs agree, and cut off what the leader does not have."""
        message.is_taken = True
        if message.term < self.term:
            self._answer(message.leader, -1, message.era)
            return
        if message.term > self.term:
            self._step_down(message.term)
            if message.term != self.term:
                return  # with it the group was lost, and begins anew
        if self.leader is not message.leader:
            self.leader = message.leader
            self._matched = 0
        self._ballot = None
        self._is_timed = False
        entries, skipped = message.entries, self.log.forgotten - message.previous
        if self.is_blank:
            if not message.is_snapshot or skipped > len(entries):
                self._answer(message.leader, -1, message.era)
                return
            self.is_blank = False
            self._votes_from = message.previous + len(entries)
        agreed = self._agreement(message.previous, message.previous_term)
        if agreed < message.previous:
            self._answer(message.leader, agreed, message.era)
            return
        self._matched = max(self._matched, message.previous + len(entries))
        if self._take(message.previous, entries, skipped):
            self._write()
        else:
            self.report()

    def _agreement(self, previous: int, term: int) -> int:
        """`previous` if the logs agree there, else an earlier index from which to try again."""
        forgotten = self.log.forgotten
        if previous <= forgotten:
            return previous
        if previous > self.last:
            return self.last
        mine = self._term_at(previous)
        if mine == term:
            return previous
        while previous > forgotten and self._term_at(previous) == mine:
            previous -= 1
        return previous

    def _take(self, previous: int, entries: list[Entry], skipped: int) -> bool:
        """Append what is new and replace what differs; says whether anything was written."""
        if previous == self.last:
            self.entries.extend(entries)
            return bool(entries)
        forgotten = self.log.forgotten
        for i in range(max(skipped, 0), len(entries)):
            at = previous + i - forgotten
            if at < len(self.entries) and self.entries[at][0] != entries[i][0]:
                del self.entries[at:]  # an old leader's uncommitted end
                self.durable = min(self.durable, self.last)
                self.wal.truncated(self)
            if at >= len(self.entries):
                self.entries.extend(entries[i:])
                return True
        return False

    def _write(self) -> None:
        self.wal.wrote(self)
        if self.log.fsync:
            return
        if not self.is_leader:
            self.report()
        elif self.log.majority == 1:
            self.host.call_later(0.0, self.report)  # never within `propose`

    def _reported(self) -> int:
        """Up to where its log is as safe as the group asks for."""
        return self.durable if self.log.fsync else self.last

    def report(self) -> None:
        """What it has is safe here: tell the leader."""
        leader = self.leader
        if leader is self:
            self._look_for_commits()
        elif leader is not None:
            index = min(self._reported(), self._matched)
            if not self.has_vote and not self.is_blank and index >= self._votes_from:
                self.has_vote = True
            self._answer(leader, index)

    def _answer(self, leader: Member, index: int, refused_in: int | None = None) -> None:
        stream = self.station.streams[leader.station]
        stream.send(leader.on_report, 0, self, self.term, index, refused_in)

    # -- elections (R-26) --------------------------------------------------------------------------------------

    def peer_connected(self, peer: Station) -> None:
        """A leader begins where the old connection ended; others may have somebody to elect now."""
        member = self.log.member_at.get(peer)
        if member is None:
            return
        if self.is_leader:
            progress = self.progress[member]
            self._begin_anew(member, progress.match or progress.start)
        else:
            self._think_of_election(0.1 + 0.5 * self._uniform())

    def peer_lost(self, peer: Station) -> None:
        """Its process died, or the net tick said so. A leader that lives makes itself known when it is back."""
        if self.leader is not None and self.leader.station is peer:
            self.leader = None
            self._think_of_election(0.1 + 0.5 * self._uniform())

    def peer_suspected(self, peer: Station) -> None:
        """The failure detector is sure."""
        if self.leader is not None and self.leader.station is peer:
            self._think_of_election(self._uniform())

    def peer_heard(self, peer: Station) -> None:
        """A silence has ended: perhaps there is a majority again."""
        if peer in self.log.member_at:
            self._think_of_election(0.1 + 0.5 * self._uniform())

    def _has_leader(self) -> bool:
        return self.leader is not None and (self.is_leader or self.station.trusts(self.leader.station))

    def reaches_majority(self) -> bool:
        """Whether it is up and could hear from a majority, itself included."""
        return (
            self.host.is_up
            and sum(self.station.reaches(m.station) for m in self.log.members) >= self.log.majority
        )

    def _think_of_election(self, delay: float) -> None:
        """Stand in `delay` seconds, unless a leader turns up. Without a majority it waits for one to be heard."""
        if not (self._is_timed or self._has_leader()) and self.has_vote and self.reaches_majority():
            self._is_timed = True
            self._timer += 1
            self.host.call_later(delay, self._timed_out, self._timer)

    def _timed_out(self, timer: int) -> None:
        if timer != self._timer or not self._is_timed:
            return
        self._is_timed = False
        if not self._has_leader() and self.has_vote and self.reaches_majority():
            self._stand(Ballot(self.term + 1, is_trial=True))
            self._think_of_election(0.1 + 0.5 * self._uniform())

    def _stand(self, ballot: Ballot) -> None:
        self._ballot = ballot
        if not ballot.is_trial:
            self.term, self.vote, self.leader = ballot.term, self, None
        for peer in self.peers:
            stream = self.station.streams[peer.station]
            stream.send(peer.on_vote_asked, 0, self, ballot, self._term_at(self.last), self.last)
        self._count(self)

    def on_vote_asked(
        self, _control: int, candidate: Member, ballot: Ballot, last_term: int, last: int
    ) -> None:
        """Only who has all that this member has may lead (Raft, 5.4.1)."""
        if ballot.term > self.term and not ballot.is_trial:
            self._step_down(ballot.term)
        elif self.leader is candidate:
            self.leader = None  # it would not ask
        is_granted = self.has_vote and (last_term, last) >= (self._term_at(self.last), self.last)
        if ballot.is_trial:
            is_granted &= ballot.term > self.term and not self.is_leader
            if self.is_leader:
                progress = self.progress[candidate]  # let it hear who leads
                self._begin_anew(candidate, progress.match or progress.start)
        else:
            is_granted &= ballot.term == self.term and self.vote in (None, candidate)
            if is_granted:
                self.vote = candidate
                self._is_timed = False
                self._think_of_election(0.6 + 0.5 * self._uniform())
        stream = self.station.streams[candidate.station]
        stream.send(candidate.on_vote, 0, self, ballot, self.term, is_granted)

    def on_vote(self, _control: int, voter: Member, ballot: Ballot, term: int, is_granted: bool) -> None:
        """An answer. A higher term is adopted, so that the next attempt is not behind."""
        if term > self.term:
            self._step_down(term)
        elif is_granted and ballot is self._ballot:
            self._count(voter)

    def _count(self, voter: Member) -> None:
        ballot = self._ballot
        assert ballot is not None
        ballot.votes.add(voter)
        if len(ballot.votes) < self.log.majority:
            return
        self._ballot = None
        if ballot.is_trial:
            self._stand(Ballot(ballot.term, is_trial=False))
        else:
            self.lead()

    def lead(self) -> None:
        """Lead the group: what is left of earlier terms is committed with a first entry of this one."""
        self.leader, self._is_timed = self, False
        self.progress = {peer: Progress(self.last + 1, self.last) for peer in self.peers}
        self.log.led_by(self)

    def _step_down(self, term: int) -> None:
        """Somebody knows of a higher term."""
        self.term, self.vote = term, None
        self._lead_no_more()
        self._think_of_election(0.1 + 0.5 * self._uniform())

    def _lead_no_more(self) -> None:
        was_leader = self.is_leader
        self.leader, self._ballot, self.progress = None, None, {}
        if was_leader:
            self.log.left_by(self)

    # -- failure and recovery ----------------------------------------------------------------------------------

    def crashed(self) -> None:
        """The process is gone: who leads, who has what."""
        self._is_timed = False
        self._timer += 1
        self._lead_no_more()

    def lose(self, kind: str) -> int:
        """R-22: the machine or the disk is gone; returns how many entries that cost."""
        kept = self.durable if kind == "machine" else -1
        lost = self.last - max(kept, 0)
        if kept >= self.log.forgotten:
            del self.entries[kept - self.log.forgotten :]
        else:
            if self.is_blank:
                lost = 0
            self.forget_everything()
        self.log.check_survivors()
        return lost

    def forget_everything(self) -> None:
        """It is empty, and has no vote until a leader has given it all."""
        self.entries = []
        self.durable = -1
        self.is_blank, self.has_vote = True, False

    def restarted(self) -> None:
        """A process starts, as a follower of nobody."""
        self._think_of_election(0.1 + 0.5 * self._uniform())

    def start_empty(self, index: int, term: int) -> None:
        """The log was lost and is declared anew, empty, behind `index`."""
        self.entries, self.durable = [], index
        self.is_blank, self.has_vote = False, True
        self.term, self.vote = term, None
        self._lead_no_more()
        self._think_of_election(0.1 + 0.5 * self._uniform())


# -- the group ---------------------------------------------------------------------------------------------------


class ReplicatedLog:
    """A group of members. The first leads at the start.

    `apply(command)` is called for each committed command in order, when the present leader learns of the commit and
    never within `propose`. `on_leader(node or None)` tells who leads from now on. `on_lost(commands)` tells that
    commands which were applied are gone, in order; `on_lost(None)` that everything is, a majority of disks being lost
    and no leader left to copy from: the log goes on empty. `snapshot_size()` is how many entries a member without its
    disk is sent in place of what is forgotten.

    With `fsync` an entry counts once the device has it (quorum queues), else once it is written (streams).
    """

    def __init__(
        self,
        mesh: Mesh,
        name: str,
        members: Sequence[Node],
        *,
        fsync: bool,
        apply: Callable[[Command], Any],
        on_leader: Callable[[Any], Any],
        on_lost: Callable[[list[Command] | None], Any],
        snapshot_size: Callable[[], int] | None = None,
    ) -> None:
        self.world, self.name, self.fsync = mesh.world, name, fsync
        self.apply, self.on_leader, self.on_lost = apply, on_leader, on_lost
        self.snapshot_size = snapshot_size if snapshot_size is not None else self._length
        self.majority = len(members) // 2 + 1
        self.applied: int = 0  # index up to which commands were applied
        self.forgotten = 0  # index up to which all members have it on disk, so that nobody keeps it
        self.forgotten_term = 0
        self._history: list[Command | None] = []  # applied, not forgotten; only if a crash may take it back
        self._commit = 0
        self._is_applying = False
        self._forget_at = FORGET_EVERY
        self._leading: Member | None = None
        self._newest_term = 1
        self.members = [Member(self, mesh.stations[node.name]) for node in members]
        self.member_at = {member.station: member for member in self.members}
        for member in self.members:
            member.peers = [peer for peer in self.members if peer is not member]
            member.leader = self.members[0]
        first = self._leading = self.members[0]
        first.progress = {peer: Progress(1, 0) for peer in first.peers}

    def _length(self) -> int:
        return self.applied

    @property
    def leader(self) -> Node | None:
        """The node of the newest leader that is up."""
        return self._leading.station.node if self._leading is not None else None

    def propose(self, command: Command) -> None:
        """Append a command at the leader's node; there must be one."""
        assert self._leading is not None
        self._leading.propose(command)

    def has_majority(self) -> bool:
        """Whether the leader, or without one anybody who could become it, reaches a majority."""
        members = self.members if self._leading is None else [self._leading]
        return any(member.reaches_majority() for member in members)

    def uncommitted(self) -> list[Command]:
        """Commands not applied yet in the leader's log, or without one in the most advanced log of those up."""
        member = self._leading
        if member is None:
            up = [m for m in self.members if m.host.is_up] or self.members
            member = max(up, key=lambda m: (not m.is_blank, m._term_at(m.last), m.last))
        return [
            command for _, command in member.entries[self.applied - self.forgotten :] if command is not None
        ]

    # -- commits -----------------------------------------------------------------------------------------------

    def committed(self, leader: Member, index: int) -> None:
        """A leader has learnt that all up to `index` is committed. Only the newest one applies it."""
        if leader is not self._leading:
            return
        self._commit = index
        if self._is_applying:
            return
        self._is_applying = True
        while self.applied < self._commit:
            self.applied += 1
            command = leader.entries[self.applied - self.forgotten - 1][1]
            if not self.fsync:
                self._history.append(command)
            if command is not None:
                self.apply(command)
        self._is_applying = False
        if self.applied >= self._forget_at:
            self._forget()

    def _forget(self) -> None:
        """Let go of the prefix that all members with a vote have on disk: memory holds what somebody lacks."""
        self._forget_at = self.applied + FORGET_EVERY
        index = min([self.applied, *(m.durable for m in self.members if m.has_vote)])
        count = index - self.forgotten
        if count < FORGET_EVERY // 2:
            return
        holder = next(m for m in self.members if m.has_vote)
        term = holder._term_at(index)
        for member in self.members:
            if len(member.entries) >= count:
                del member.entries[:count]
            elif not member.is_blank:  # a snapshot that is behind already
                member.forget_everything()
        del self._history[:count]
        self.forgotten, self.forgotten_term = index, term

    # -- leaders come and go -----------------------------------------------------------------------------------

    def led_by(self, member: Member) -> None:
        """A member was elected. What was applied and is not in its log is gone: only streams lose so (R-23)."""
        if member.term < self._newest_term:  # its last vote was long on its way: it commits nothing any more
            member.propose(None)
            return
        self._newest_term = member.term
        lost: list[Command] = []
        if member.last < self.applied:
            kept = member.last - self.forgotten
            lost = [command for command in self._history[kept:] if command is not None]
            del self._history[kept:]
            self.applied = member.last
        self._leading, self._commit = member, self.applied
        member.propose(None)
        if lost:
            self.on_lost(lost)
        self.on_leader(self.leader)

    def left_by(self, member: Member) -> None:
        """A member leads no more."""
        if member is self._leading:
            self._leading, self._commit = None, self.applied
            self.on_leader(None)
        self.check_survivors()

    def check_survivors(self) -> None:
        """R-27: if too many have lost their disk for any election, and nobody leads who could copy his log to them,
        the queue must be deleted and declared anew. Here that happens at once."""
        if sum(m.has_vote for m in self.members) >= self.majority or any(m.is_leader for m in self.members):
            return
        last = max(self.applied, *(m.last for m in self.members))
        term = 1 + max(m.term for m in self.members)
        self.applied = self._commit = self.forgotten = last
        self.forgotten_term = term
        self._history.clear()
        for member in self.members:
            member.start_empty(last, term)
        self.on_lost(None)
