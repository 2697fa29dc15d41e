"""Share groups (KIP-932, K-50): records are acquired one by one under a lock, and acknowledged one by one.

The leader of a partition knows which records are acquired, by whom and for how long: that is in its memory. What was
accepted, released or archived it writes to `__share_group_state` (here without the way to that topic's leader), from
which the next leader goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from sim.apps import HANDLER_FAILED
from sim.brokers.kafka.assignors import shared
from sim.brokers.kafka.causes import ARCHIVED, LOCK_EXPIRED, NEVER_SEEN, SHARE_STATE_LOST
from sim.brokers.kafka.cluster import Cluster, InternalTopic
from sim.brokers.kafka.group import Answer, Group, Member
from sim.brokers.kafka.log import ABORT, OK
from sim.brokers.kafka.metadata import RETRY_BACKOFF
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import Leadership, Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.brokers.kafka.state import TopicState
from sim.kernel import Timeouts
from sim.ledger import Pairs

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.topic import Topic

ACCEPT, RELEASE, REJECT = "ACCEPT", "RELEASE", "REJECT"
AVAILABLE, ACQUIRED, DONE, GONE = "Available", "Acquired", "Acknowledged", "Archived"

Key = tuple[str, Partition]  # group and partition
Changes = dict[int, tuple[str, int]]  # by offset: state, and how often it was delivered


@dataclass(frozen=True, slots=True)
class Written:
    """One record of `__share_group_state`. `end`: what is written of offsets from there on counts no more."""

    key: Key
    epoch: int  # of the leader that writes it
    start: int
    changes: Changes
    end: int | None = None


class Snapshot:
    """What was written of a share-partition: its start offset, and the state of records from there on."""

    def __init__(self) -> None:
        self.start, self.epoch = 0, -1
        self.states: Changes = {}

    def copy(self) -> Snapshot:
        """The same, to go on with."""
        other = Snapshot()
        other.start, other.epoch, other.states = self.start, self.epoch, dict(self.states)
        return other

    def apply(self, record: Written) -> bool:
        """One record more; one of a leader that was replaced does not count."""
        if record.epoch < self.epoch:
            return False
        self.epoch = record.epoch
        self.states.update(record.changes)
        if record.end is not None:
            self.start = min(self.start, record.end)
            self.states = {offset: state for offset, state in self.states.items() if offset < record.end}
        for offset in range(self.start, record.start):
            self.states.pop(offset, None)
        self.start = max(self.start, record.start)
        return True


class ShareState(TopicState[Key, Snapshot, Written]):
    """The share coordinator: `__share_group_state`, and what it says."""

    @classmethod
    def on(cls, cluster: Cluster) -> ShareState:
        """That of a cluster, made when the first share group is."""
        key = f"kafka share groups {cluster.name}"
        if key not in cluster.sim.shared:
            replicas = cluster.settings.offsets_replication_factor
            cluster.sim.shared[key] = cls(InternalTopic(cluster, "__share_group_state", replicas))
        found: ShareState = cluster.sim.shared[key]
        return found

    def apply(self, of: dict[Key, Snapshot], record: Written) -> bool:
        """One of a leader that was replaced does not count."""
        return of.setdefault(record.key, Snapshot()).apply(record)

    def copied(self, value: Snapshot) -> Snapshot:
        """The same, to go on with."""
        return value.copy()

    def write(self, record: Written, then: Callable[[bool], Any]) -> None:
        """It counts, if at all, when the record is committed; until that works it is tried again."""
        self._append(self.next_number(), record, then)

    def _append(self, number: int, record: Written, then: Callable[[bool], Any]) -> None:
        def told(error: str, _offset: int, _at: float) -> None:
            if error == OK:
                then(self.apply(self.of, record))
            else:
                self.topic.call_later(RETRY_BACKOFF, self._append, number, record, then)

        if self.topic.coordinator is None:
            self.topic.call_later(RETRY_BACKOFF, self._append, number, record, then)
        else:
            self.topic.write(self.note(number, record), told)


class ShareGroup(Group):
    """A share group: its members may outnumber the partitions."""

    def __init__(self, topic: Topic, pairs: Pairs, settings: ConsumerClient) -> None:
        super().__init__(topic, pairs, settings)
        self.state = ShareState.on(topic.cluster)
        self.partitions: dict[Partition, SharePartition] = {}  # as their leaders know them
        self.assignment: dict[Member, list[Partition]] = {}
        self._partitions: list[Partition] = []  # what is shared out
        # For the books: the last copy of a record that members got, from the start offset on; up to where that was
        # once; records that are out; why they come again.
        self.handed: dict[tuple[Partition, int], int] = {}
        self.passed: Positions = {}
        self.out: dict[tuple[Partition, int], None] = {}
        self.cause_of_return: dict[tuple[Partition, int], int] = {}

    # -- members -----------------------------------------------------------------------------------------------

    def assigned_to(self, member: Member) -> list[Partition]:
        """Nothing is a member's alone."""
        return []

    def heartbeat(self, member: Member, answer: Answer) -> None:
        """ShareGroupHeartbeat: join, or say that one is still there."""
        if member.has_left:
            answer(member, None)
            return
        is_new = member not in self.members
        self.members[member] = None
        self.heard(member)
        member.since = self.world.now
        if is_new:
            self._assign()
        self.when_kept(partial(answer, member, self.assignment[member]), otherwise=answer)

    def leave(self, member: Member, answer: Answer) -> None:
        """At once, or when the session is over. What it has acquired stays locked."""
        if member in self.members:
            self.forget(member)
            self._assign()
        answer()

    def _assign(self) -> None:
        self._partitions = self.known_partitions()
        self.assignment = shared(list(self.members), self._partitions)
        self.keep()
        for member in self.members:
            self.tell_again(member)

    def look_at_partitions(self) -> None:
        """K-02: what was added is shared out."""
        if self.members and self.known_partitions() != self._partitions:
            self._assign()

    def tell_news(self, member: Member) -> None:
        """What to fetch from."""
        client = member.client
        client.coordinator.tell(client.told, member, self.assignment[member])

    def refusal(self, member: Member, epoch: int) -> str | None:
        """There are no offsets to commit."""
        return "INVALID_GROUP_TYPE"

    # -- share-partitions --------------------------------------------------------------------------------------

    def led_by(self, broker: Broker, partition: Partition) -> SharePartition | None:
        """The share-partition at its leader, which reads its state first; None if that broker does not lead."""
        leadership = broker.leads.get(partition)
        if leadership is None:
            return None
        found = self.partitions.get(partition)
        if found is None or found.leadership is not leadership:
            found = self.partitions[partition] = SharePartition(self, leadership)
        return found

    # -- the books ---------------------------------------------------------------------------------------------

    def committed(self, partition: Partition) -> int | None:
        """The start offset: below it all is accepted or archived."""
        snapshot = self.state.of.get((self.name, partition))
        return None if snapshot is None else snapshot.start

    def unread(self, partition: Partition) -> Iterator[int]:
        """Records that are neither accepted nor archived."""
        log, snapshot = partition.log(), self.state.of.get((self.name, partition))
        start = max(log.start, self.committed(partition) or 0)
        states = snapshot.states if snapshot else {}
        for i, copy in enumerate(log.without_aborted(start, log.read(start, log.end))):
            if copy > ABORT and states.get(start + i, (AVAILABLE, 0))[0] == AVAILABLE:
                yield copy

    def left(self, partition: Partition, offset: int, copy: int) -> int:
        """A record leaves for a member; returns the copy that this is."""
        at = (partition, offset)
        before = self.handed.get(at)
        if copy in self.cut or (before is None and offset < self.passed.get(partition, 0)):
            self.cut.pop(copy, None)
            self.pairs.stored(copy)
            before = copy
        if before is not None:
            copy = self.pairs.requeue(before, self.cause_of_return.pop(at, SHARE_STATE_LOST))
        self.handed[at] = copy
        self.out[at] = None
        self.pairs.sent(copy)
        return copy

    def returned(self, partition: Partition, offset: int, copy: int, cause: int) -> None:
        """A record that was out may go to another member."""
        if (partition, offset) in self.out:
            del self.out[partition, offset]
            if copy > ABORT:  # else it was compacted away meanwhile
                self.cause_of_return[partition, offset] = cause
                self.pairs.stored(copy)

    def finished(self, partition: Partition, offset: int) -> None:
        """A record is accepted or archived for good."""
        for kept in (self.out, self.cause_of_return):
            kept.pop((partition, offset), None)

    def starts_at(self, partition: Partition, offset: int, before: int) -> None:
        """The start offset of a share-partition moves on; it comes back only with the state of before."""
        for passed in range(before, offset):
            self.handed.pop((partition, passed), None)
        self.passed[partition] = max(offset, self.passed.get(partition, 0))

    def truncated(self, partition: Partition, end: int, epoch: int) -> None:
        """A new leader: what lies behind its log's end from now on was never sent, nor answered."""
        key = (self.name, partition)
        if partition in self.partitions:
            self.note_cut(partition, end, self.partitions[partition].end)
        if key in self.state.of:
            cut = Written(key, epoch, 0, {}, end)
            self.state.of[key].apply(cut)
            self.state.write(cut, lambda counts: None)
        for at in [at for at in self.handed if at[0] is partition and at[1] >= end]:
            del self.handed[at]
            self.finished(*at)
        self.passed[partition] = min(end, self.passed.get(partition, 0))


class Acquirable:
    """A record between the start offset and the end offset of a share-partition."""

    __slots__ = ("copy", "count", "member", "state")

    def __init__(self, copy: int, state: str, count: int) -> None:
        self.copy, self.state, self.count = copy, state, count
        self.member: Member | None = None


class SharePartition:
    """What the leader of a partition knows for one share group: from its start offset up to before its end offset."""

    def __init__(self, group: ShareGroup, leadership: Leadership) -> None:
        self.group, self.leadership, self.partition = group, leadership, leadership.partition
        self.settings, self.log = group.settings, leadership.log
        self.key: Key = (group.name, self.partition)
        self.records: dict[int, Acquirable] = {}
        self._released: list[int] = []  # a heap of offsets that may be acquired again
        self.waiting: dict[Any, None] = {}  # fetches that wait for records
        self._locks: Timeouts[int] = Timeouts(
            leadership.broker.host, self.settings.share_record_lock_duration, self._lock_is_over
        )
        self._load()

    def _load(self) -> None:
        """Start from what was written; what was acquired and not answered then is available again."""
        log, snapshot = self.log, self.group.state.of.get(self.key)
        if snapshot is None:
            self._begin()
            return
        self.start = self.end = max(log.start, min(snapshot.start, log.end))
        states = {
            offset: state for offset, state in snapshot.states.items() if self.start <= offset < log.end
        }
        self.end = max([self.start, *(offset + 1 for offset in states)])
        for i, copy in enumerate(self._read(self.start, self.end)):
            offset = self.start + i
            state, count = states.get(offset, (AVAILABLE, 0))
            if copy <= ABORT:
                state = GONE  # a marker, or what compaction or an abort has taken away
            self.records[offset] = Acquirable(copy, state, count)
            if state == AVAILABLE:
                heappush(self._released, offset)
        for offset, copy in enumerate(self._read(self.start, log.end), start=self.start):
            self.group.returned(self.partition, offset, copy, SHARE_STATE_LOST)

    def _begin(self) -> None:
        """K-40: a new group starts where share.auto.offset.reset says."""
        log, is_latest = self.log, self.settings.auto_offset_reset == "latest"
        self.start = self.end = self._readable_end() if is_latest else log.start
        for copy in log.read(log.start, self.start):
            if copy > ABORT:
                self.group.pairs.died(copy, NEVER_SEEN)
        self.group.state.write(Written(self.key, self.leadership.epoch, self.start, {}), lambda counts: None)

    def _readable_end(self) -> int:
        return self.leadership.readable_end(self.settings.isolation_level)

    def _read(self, start: int, end: int) -> list[int]:
        records = self.log.read(start, end)
        if self.settings.isolation_level == "read_committed":
            records = self.log.without_aborted(start, records)
        return records

    # -- acquiring ---------------------------------------------------------------------------------------------

    def acquire(self, member: Member, limit: int) -> list[tuple[int, int]]:
        """Up to `limit` records, as (offset, copy): first what came back, then what nobody had."""
        taken: list[tuple[int, int]] = []
        while self._released and len(taken) < limit:
            offset = heappop(self._released)
            record = self.records.get(offset)
            if record is None or record.state != AVAILABLE:
                continue
            if self.log.has(offset, record.copy):
                self._acquire(member, offset, record, taken)
            else:
                record.state = GONE  # retention or compaction was faster (K-41, K-42)
        if self.end < self.log.start:  # K-41
            self.end = self.log.start
            self._advance()
        room = self.start + self.settings.share_partition_max_record_locks - self.end
        count = min(limit - len(taken), room, self._readable_end() - self.end)
        if count > 0:
            self._acquire_fresh(member, count, taken)
        return taken

    def _acquire_fresh(self, member: Member, count: int, taken: list[tuple[int, int]]) -> None:
        for copy in self._read(self.end, self.end + count):
            record = self.records[self.end] = Acquirable(copy, GONE, 0)
            if copy > ABORT:  # else a marker, or what compaction or an abort has taken away
                self._acquire(member, self.end, record, taken)
            self.end += 1
        self._advance()

    def _acquire(self, member: Member, offset: int, record: Acquirable, taken: list[tuple[int, int]]) -> None:
        record.state, record.member = ACQUIRED, member
        record.count += 1
        self._locks.add(offset)
        taken.append((offset, self.group.left(self.partition, offset, record.copy)))

    # -- acknowledgements --------------------------------------------------------------------------------------

    def acknowledge(
        self, member: Member, answers: Iterable[tuple[int, str]], then: Callable[[], Any]
    ) -> None:
        """What a member says of records that it has; of others it is not heard (INVALID_RECORD_STATE)."""
        changes: Changes = {}
        for offset, kind in answers:
            record = self.records.get(offset)
            if record is None or record.state != ACQUIRED or record.member is not member:
                continue
            self._locks.remove(offset)
            if kind == ACCEPT:
                record.state = DONE
            elif kind == REJECT:
                record.state = GONE
            else:
                self._release(offset, record, HANDLER_FAILED)
            changes[offset] = (record.state, record.count)
        self._write(changes, then)

    def _release(self, offset: int, record: Acquirable, cause: int) -> None:
        """Another may have it, unless it was delivered as often as it may be."""
        record.member = None
        if record.count >= self.settings.share_delivery_count_limit:
            record.state = GONE
        else:
            record.state = AVAILABLE
            heappush(self._released, offset)
            self.group.returned(self.partition, offset, record.copy, cause)

    def _lock_is_over(self, offset: int) -> None:
        """share.record.lock.duration.ms is over."""
        record = self.records.get(offset)
        if self.leadership is self.leadership.broker.leads.get(self.partition) and record is not None:
            self._release(offset, record, LOCK_EXPIRED)
            self._write({offset: (record.state, record.count)}, lambda: None)

    def _write(self, changes: Changes, then: Callable[[], Any]) -> None:
        if not changes:
            then()
            return
        copies = {offset: self.records[offset].copy for offset in changes}
        self._advance()

        def written(counts: bool) -> None:
            for offset, (state, _) in changes.items() if counts else ():
                if state == GONE and copies[offset] > ABORT:
                    self.group.pairs.dead_letter(copies[offset], ARCHIVED)
                if state != AVAILABLE:
                    self.group.finished(self.partition, offset)
            then()

        self.group.state.write(Written(self.key, self.leadership.epoch, self.start, changes), written)
        if self._released or self.waiting:
            for session in list(self.waiting):
                session.wake()

    def _advance(self) -> None:
        """The start offset goes past what is done with, and past what retention has taken (K-41)."""
        records, before, first = self.records, self.start, max(self.start, self.log.start)
        while self.start < self.end and (self.start < first or records[self.start].state in (DONE, GONE)):
            records.pop(self.start, None)
            self.start += 1
        if self.start > before:
            self.group.starts_at(self.partition, self.start, before)
