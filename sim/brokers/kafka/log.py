"""A partition's log on one broker: offsets, leader epochs, what is flushed, and which producers' batches it has.

Records are numbers of copies (`sim.ledger`); a negative control value stands for what is no record. The log is in the
page cache; `flushed` is the offset up to which the disk has it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

OK = "NONE"
OUT_OF_ORDER = "OUT_OF_ORDER_SEQUENCE_NUMBER"
FENCED = "INVALID_PRODUCER_EPOCH"

# In the place of copies: markers at the end of transactions (K-01: one offset each), and what is gone.
ABORT, COMMIT, HOLE = -(1 << 40), -(1 << 40) - 1, -(1 << 40) - 2


@dataclass(eq=False, slots=True)
class Batch:
    """Records of one producer that are appended together.

    `sequence` of its first record, -1 without idempotence; `size` in bytes on the wire. `is_transactional` says that
    the batch is part of its producer's open transaction; `control` that it is a marker that ends one. `offset` is where
    it was appended last, -1 if it never was.
    """

    copies: list[int]
    size: int
    producer: int = -1
    epoch: int = 0
    sequence: int = -1
    is_transactional: bool = False
    control: int = 0
    offset: int = -1


@dataclass(frozen=True)
class LogConfig:
    """What a log goes by, of its topic's settings and of its broker's; in s and bytes, None is never.

    `write_back` is how long a record is dirty at most, by the operating system's rule or by flush.ms.
    """

    segment_bytes: float = 1 << 30
    segment_time: float = 604_800.0
    retention: float | None = None
    retention_bytes: float | None = None
    is_compacted: bool = False
    min_cleanable_dirty_ratio: float = 0.5
    flush_messages: int | None = None
    write_back: float = 30.0
    producer_id_expiration: float = math.inf


class End(NamedTuple):
    """How a transaction ended: the offset of its marker, its producer, and the offset of its first record."""

    marker: int
    producer: int
    first: int
    is_abort: bool


class Log:
    """One replica's log of a partition.

    Offsets are dense; `start` is the first that retention has left (K-41), `end` that of the next record (LEO),
    `segments` are the first offsets of its files, and below `cleaned` it is compacted (K-42). 24 bytes a record.
    """

    def __init__(self, config: LogConfig = LogConfig()) -> None:
        self.config = config
        self.start = self.end = self.cleaned = 0
        self.records = array("q")  # from offset `start` on
        self.bytes = array("q")  # size of each
        self.times = array("d")  # when each was appended at its leader (s)
        self.epochs: list[tuple[int, int]] = []  # (leader epoch, first offset of it)
        self.flushed = 0
        self.is_dirty = False  # has records that wait for the operating system to write them back
        self.unwritable = math.inf  # the first offset that an fsync could not write, and none will (D.6)
        self.segments = [0]
        self.on_roll: Callable[[], Any] = lambda: None  # the active segment is full, and another begins
        self._room = 0.0  # bytes that fit into the active segment; as of `resume`, only the leader's is right
        self._rolls_at = -1.0
        self.producers: dict[int, ProducerState] = {}
        self.owners = array("q")  # producers of records in transactions; -1 for others, or the end is missing
        self.ongoing: dict[int, int] = {}  # producers with an open transaction: its first offset
        self.ends: list[End] = []  # of transactions, in the order of their markers
        self.has_aborts = False
        self.ended: list[int] = []  # records of the transaction that ended last

    def append(self, batch: Batch, epoch: int, now: float) -> int:
        """Append a batch as of a leader epoch; returns the offset of its first record."""
        batch.offset = offset = self.end
        self._room -= batch.size
        if self._room < 0 or now > self._rolls_at:
            self._roll(offset, batch.size, now)
        if not self.epochs or self.epochs[-1][0] != epoch:
            self.epochs.append((epoch, offset))
        copies = batch.copies
        self.end = offset + len(copies)
        if len(copies) == 1:
            self.records.append(copies[0])
            self.bytes.append(batch.size)
            self.times.append(now)
        else:
            self.records.extend(copies)
            self.bytes.extend([batch.size // len(copies)] * len(copies))
            self.times.extend([now] * len(copies))
        if batch.producer >= 0:
            self._note(batch, offset, now)
        return offset

    def _roll(self, offset: int, size: int, now: float) -> None:
        """segment.bytes, segment.ms: a record that does not belong to the active segment any more begins another."""
        if offset > self.segments[-1]:
            self.segments.append(offset)
            self.on_roll()
        self._room = self.config.segment_bytes - size
        self._rolls_at = now + self.config.segment_time

    def resume(self) -> None:
        """Go on with the active segment: a leader begins to append."""
        at = self.segments[-1] - self.start
        self._room = self.config.segment_bytes - sum(self.bytes[at:])
        self._rolls_at = self.times[at] + self.config.segment_time if at < len(self.times) else -1.0

    def check(self, batch: Batch, now: float) -> tuple[str, int | None]:
        """K-15, K-47: whether a producer's batch may be appended, and where it is if it is here already.

        Of a producer that is not known (any more) every sequence is taken; a new epoch has to begin with 0.
        """
        state = self.producers.get(batch.producer)
        if state is None or self._is_forgotten(batch.producer, state, now):
            return OK, None
        if batch.epoch > state.epoch:
            return (OUT_OF_ORDER if batch.sequence > 0 else OK), None
        if batch.epoch < state.epoch:
            return FENCED, None
        known = state.offset_of(batch.sequence, len(batch.copies))
        if known is None and batch.sequence != state.next_sequence:
            return OUT_OF_ORDER, None
        return OK, known

    def knows(self, producer: int, epoch: int) -> bool:
        """Whether something of a producer's session, or of a later one, is in the log."""
        state = self.producers.get(producer)
        return state is not None and state.epoch >= epoch

    def _is_forgotten(self, producer: int, state: ProducerState, now: float) -> bool:
        """producer.id.expiration.ms: so long after its last batch a producer is not known any more."""
        if now <= state.at + self.config.producer_id_expiration or producer in self.ongoing:
            return False
        del self.producers[producer]
        return True

    def _note(self, batch: Batch, offset: int, now: float) -> None:
        """What the log says of its producers: sequences (K-15) and transactions (K-46)."""
        if batch.sequence >= 0 or batch.control:
            state = self.producers.get(batch.producer)
            if state is None or state.epoch != batch.epoch:
                state = self.producers[batch.producer] = ProducerState(batch.epoch)
            state.at = now
            if batch.sequence >= 0:
                state.add(batch.sequence, len(batch.copies), offset)
        if batch.is_transactional:
            self.owners.extend([-1] * (offset - self.start - len(self.owners)))
            self.owners.extend([batch.producer] * len(batch.copies))
            self.ongoing.setdefault(batch.producer, offset)
        if batch.control:
            first = self.ongoing.pop(batch.producer, None)
            self.ended = [] if first is None else self.written_by(batch.producer, first, offset)
            if first is not None:
                self._add_ends([End(offset, batch.producer, first, batch.control == ABORT)])

    def _add_ends(self, ends: list[End]) -> None:
        self.ends += ends
        self.has_aborts = self.has_aborts or any(end.is_abort for end in ends)

    def written_back(self, end: int, is_ok: bool) -> None:
        """An fsync of what lies before `end` is over."""
        if is_ok:
            self.flushed = int(max(self.flushed, min(end, self.end, self.unwritable)))
        else:
            self.unwritable = min(self.unwritable, self.flushed)

    def has_to_flush(self) -> bool:
        """flush.messages: so many records may wait for the disk, and no more."""
        limit = self.config.flush_messages
        return limit is not None and self.end - self.flushed >= limit

    @property
    def last_epoch(self) -> int:
        """The leader epoch of the last record; -1 of an empty log."""
        return self.epochs[-1][0] if self.epochs else -1

    def agreed_end(self, end: int, last_epoch: int) -> int:
        """Up to which offset a replica that ends at `end`, in that leader epoch, has what this log has (K-24)."""
        return min(end, self.end_of_epoch(last_epoch)) if last_epoch >= 0 else end

    def diverges(self, end: int, last_epoch: int) -> tuple[int, int] | None:
        """K-24: what a leader tells a follower whose log ends at `end`, with a record of `last_epoch`.

        None if this log has it all. Otherwise the last epoch here that the follower may know, and where that ends.
        """
        if last_epoch < 0:
            return None if end <= self.end else (-1, self.end)
        i = bisect_right(self.epochs, last_epoch, key=lambda entry: entry[0])
        epoch = self.epochs[i - 1][0] if i else -1
        its_end = self.epochs[i][1] if i < len(self.epochs) else self.end
        return None if epoch == last_epoch and its_end >= end else (epoch, its_end)

    def agreement(self, other: Log) -> int:
        """The offset up to which another log has what this one has, by their epochs."""
        end, epoch = other.end, other.last_epoch
        while (told := self.diverges(end, epoch)) is not None:
            end = min(told[1], other.end_of_epoch(told[0]))
            epoch = other.epoch_at(end - 1)
        return end

    def has(self, offset: int, copy: int) -> bool:
        """Whether a record is here, at that offset."""
        at = offset - self.start
        return 0 <= at < len(self.records) and self.records[at] == copy

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of the record at an offset; -1 before the first."""
        if self.epochs and self.epochs[-1][1] <= offset:
            return self.epochs[-1][0]
        i = bisect_right(self.epochs, offset, key=lambda entry: entry[1])
        return self.epochs[i - 1][0] if i else -1

    def end_of_epoch(self, epoch: int) -> int:
        """Where the records of an epoch, and of those before it, end (K-24)."""
        for later, first in self.epochs:
            if later > epoch:
                return first
        return self.end

    def truncate(self, end: int) -> list[int]:
        """Cut off what lies at `end` or behind it; returns those records."""
        end = max(end, self.start)
        if end >= self.end:
            return []
        at, self.end = end - self.start, end
        gone = list(self.records[at:])
        del self.records[at:], self.bytes[at:], self.times[at:]
        self.epochs = [entry for entry in self.epochs if entry[1] < end]
        self.flushed = min(self.flushed, end)
        self.cleaned = min(self.cleaned, end)
        self.segments = [first for first in self.segments if first < end] or [end]
        if end <= self.unwritable:
            self.unwritable = math.inf
        self.resume()
        for number, state in list(self.producers.items()):
            if state.truncate(end) and not state.batches:
                del self.producers[number]
        del self.owners[at:]
        self.ongoing = self.ongoing_at(end)
        self.ends = [entry for entry in self.ends if entry.marker < end]
        return gone

    def ongoing_at(self, end: int) -> dict[int, int]:
        """Producers whose transaction was open when the log ended there: the marker of some came later."""
        found = {producer: first for producer, first in self.ongoing.items() if first < end}
        later = [entry for entry in self.ends if entry.first < end <= entry.marker]
        return found | {entry.producer: entry.first for entry in later}

    def wipe(self) -> list[int]:
        """The disk is lost; returns what was in the log."""
        gone = self.truncate(self.start)
        self.restart_at(0)
        return gone

    def last_stable(self, high_watermark: int) -> int:
        """LSO: below it no transaction is open (K-46)."""
        return min([high_watermark, *self.ongoing.values()])

    def is_aborted(self, offset: int) -> bool:
        """Whether a record belongs to an aborted transaction: the next of its producer's that ends is its own."""
        at = offset - self.start
        producer = self.owners[at] if at < len(self.owners) else -1
        if producer < 0:
            return False
        for i in range(bisect_right(self.ends, offset, key=lambda end: end.marker), len(self.ends)):
            if self.ends[i].producer == producer:
                return self.ends[i].is_abort
        return False

    def without_aborted(self, start: int, records: list[int]) -> list[int]:
        """The records from `start` on, with a hole in the place of each that belongs to an aborted transaction."""
        if not self.has_aborts:
            return records
        return [HOLE if self.is_aborted(start + i) else copy for i, copy in enumerate(records)]

    def written_by(self, producer: int, first: int, end: int) -> list[int]:
        """Records of a producer's transaction."""
        at = first - self.start
        pairs = zip(self.records[at : end - self.start], self.owners[at : end - self.start], strict=False)
        return [copy for copy, owner in pairs if owner == producer]

    def size(self, start: int, count: int) -> int:
        """Bytes of `count` records from an offset on."""
        at = start - self.start
        return sum(self.bytes[at : at + count])

    def read(self, start: int, end: int, limit: int | None = None) -> list[int]:
        """Records from `start` up to before `end`: the first, and as many more as `limit` bytes allow."""
        at, stop = start - self.start, end - self.start
        if stop - at == 1:
            return [self.records[at]]
        if limit is not None and stop > at:
            size = 0
            for i in range(at, stop):
                size += self.bytes[i]
                if size > limit and i > at:
                    stop = i
                    break
        return self.records[at:stop].tolist()

    def end_within(self, start: int, limit: int) -> int:
        """How far a piece from `start` on goes that has at most so many bytes, and at least one record."""
        size = 0
        for at in range(start - self.start, len(self.bytes)):
            size += self.bytes[at]
            if size > limit:
                return max(start + 1, self.start + at)
        return self.end

    def copy_of(self, start: int, end: int) -> Piece:
        """A piece of the log for a follower."""
        at, stop = start - self.start, end - self.start
        if self.epochs and self.epochs[-1][1] <= start:
            epochs = [(self.epochs[-1][0], start)]
        else:
            epochs = [(epoch, max(first, start)) for epoch, first in self.epochs if first < end]
            epochs = [e for i, e in enumerate(epochs) if i + 1 == len(epochs) or epochs[i + 1][1] > start]
        producers = {number: state.copy() for number, state in self.producers.items()}
        if end < self.end:
            for state in producers.values():
                state.truncate(end)
        return Piece(
            start,
            self.records[at:stop],
            self.bytes[at:stop],
            self.times[at:stop],
            epochs,
            producers,
            self.ongoing_at(end) if end < self.end else dict(self.ongoing),
            self.owners[at:stop],
            [entry for entry in self.ends if start <= entry.marker < end] if self.ends else [],
            self.segments[bisect_left(self.segments, start) : bisect_left(self.segments, end)],
            self.start,
        )

    def extend(self, piece: Piece) -> None:
        """Take over a piece of the leader's log."""
        if piece.segments and piece.segments[-1] > self.segments[-1]:
            self.segments += [first for first in piece.segments if first > self.segments[-1]]
            self.on_roll()
        self.records.extend(piece.records)
        self.end += len(piece.records)
        self.bytes.extend(piece.bytes)
        self.times.extend(piece.times)
        for epoch, first in piece.epochs:
            if not self.epochs or self.epochs[-1][0] != epoch:
                self.epochs.append((epoch, first))
        self.producers, self.ongoing = piece.producers, piece.ongoing
        if piece.owners:
            self.owners.extend([-1] * (piece.start - self.start - len(self.owners)))
            self.owners.extend(piece.owners)
        if piece.ends:
            self._add_ends(piece.ends)

    def restart_at(self, offset: int) -> None:
        """What is missing before an offset was deleted at the leader: begin there."""
        self.truncate(self.start)
        self.start = self.end = self.flushed = self.cleaned = offset
        self.segments = [offset]
        self.resume()
        self.epochs.clear()
        self.producers, self.ongoing, self.ends = {}, {}, []

    def drop_before(self, offset: int) -> list[int]:
        """Retention: delete everything before an offset (K-41); returns those records."""
        count = max(0, min(offset, self.end) - self.start)
        gone = list(self.records[:count])
        del self.records[:count], self.bytes[:count], self.times[:count], self.owners[:count]
        self.start += count
        self.flushed = max(self.flushed, self.start)
        self.cleaned = max(self.cleaned, self.start)
        self.ends = [entry for entry in self.ends if entry.marker >= self.start]
        self.segments = [self.start, *self.segments[bisect_right(self.segments, self.start) :]]
        if len(self.segments) == 1:
            self.resume()
        return gone


@dataclass(slots=True)
class Piece:
    """Consecutive records of a log on their way to a follower, with what the log says of producers at their end."""

    start: int
    records: array[int]
    bytes: array[int]
    times: array[float]
    epochs: list[tuple[int, int]]
    producers: dict[int, ProducerState]
    ongoing: dict[int, int]
    owners: array[int]
    ends: list[End]
    segments: list[int]
    log_start: int


class ProducerState:
    """The last five batches of an idempotent producer (K-15), as (first sequence, records, offset), `at` last (s)."""

    def __init__(self, epoch: int, at: float = 0.0) -> None:
        self.epoch, self.at = epoch, at
        self.batches: deque[tuple[int, int, int]] = deque(maxlen=5)

    def add(self, sequence: int, count: int, offset: int) -> None:
        """A batch was appended."""
        self.batches.append((sequence, count, offset))

    @property
    def next_sequence(self) -> int:
        """The sequence that must come next."""
        return self.batches[-1][0] + self.batches[-1][1] if self.batches else 0

    def offset_of(self, sequence: int, count: int) -> int | None:
        """Where a batch that is repeated was appended; None if it is not known."""
        for first, n, offset in self.batches:
            if (first, n) == (sequence, count):
                return offset
        return None

    def truncate(self, end: int) -> bool:
        """Forget batches that were cut off; says whether there were any."""
        before = len(self.batches)
        while self.batches and self.batches[-1][2] >= end:
            self.batches.pop()
        return len(self.batches) < before

    def copy(self) -> ProducerState:
        """For a follower."""
        other = ProducerState(self.epoch, self.at)
        other.batches.extend(self.batches)
        return other
