"""The replicated log that quorum queues and streams stand on: a Raft group over connections between nodes.

A leader appends commands to its log and sends them to its followers without waiting for their answers. A member
reports an entry once it is safe there: for a quorum queue when the node's write-ahead log has fsynced it, for a stream
when it is in the page cache. What a majority has reported is committed, and is applied in order at the leader.

What a member holds dies with what it is on: a process crash takes only roles and knowledge of others, a machine crash
what was not fsynced, a lost disk everything. A member without its disk has no vote until a leader has brought it up
to date (RabbitMQ adds it as a new member), else a minority of lost disks could elect a leader that lacks what is
committed. Terms and votes are durable at once, and survive.

From top to bottom: one node's copy of a log (`Member`), with replication first and elections after it; the group
(`ReplicatedLog`), which keeps for all members together what is true of all: the forgotten prefix, and how far the log
was applied. Nodes, their connections and what they write are in `mesh`. Sources: Ongaro & Ousterhout 2014; Ra as in
the RabbitMQ sheet, R-22 ... R-27.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.brokers.rabbitmq.mesh import Mesh, Node, Station

Command = tuple[Any, ...]
# Its term, and None for what a new leader appends to commit its predecessors':
Entry = tuple[int, Command | None]

WINDOW = 4096  # entries on their way to a follower (max_pipeline_count)
SNAPSHOT_ENTRY = 10e-6  # seconds of work per entry of a snapshot
FORGET_EVERY = 1024  # applied entries between looks at what may be forgotten


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
