"""A partition's log on one broker: offsets, leader epochs, what is flushed, and which producers' batches it has.

Records are numbers of copies (`sim.ledger`); a negative control value stands for what is no record. The log is in the
page cache; `flushed` is the offset up to which the disk has it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Any

COMMIT, ABORT = (
    -(1 << 40),
    -(1 << 40) - 1,
)  # control records: the end of a transaction (K-01: one offset each)


@dataclass(slots=True)
class Batch:
    """Records of one producer that are appended together.

    `sequence` of its first record, -1 without idempotence; `size` in bytes. `transaction` says that the batch is part
    of its producer's open transaction.
    """

    copies: list[int]
    size: int
    producer: int = -1
    epoch: int = 0
    sequence: int = -1
    transaction: bool = False
    control: int = 0


class Log:
    """One replica's log of a partition. Offsets are dense; `start` is the first that retention has left (K-41)."""

    def __init__(self) -> None:
        self.start = 0
        self.records = array("q")  # from offset `start` on
        self.bytes = array("q")  # size of each
        self.times = array("d")  # when each was appended at its leader (s)
        self.epochs: list[tuple[int, int]] = []  # (leader epoch, first offset of it)
        self.flushed = 0
        self.producers: dict[int, ProducerState] = {}
        self.aborted: list[tuple[int, int, int]] = []  # (producer, first offset, last offset)
        self.ongoing: dict[int, int] = {}  # producers with an open transaction: its first offset

    @property
    def end(self) -> int:
        """LEO: the offset of the next record."""
        return self.start + len(self.records)

    def append(self, batch: Batch, epoch: int, now: float) -> int:
        """Append a batch as of a leader epoch; returns the offset of its first record."""
        offset = self.end
        if not self.epochs or self.epochs[-1][0] != epoch:
            self.epochs.append((epoch, offset))
        share = batch.size // max(1, len(batch.copies))
        for copy in batch.copies:
            self.records.append(copy)
            self.bytes.append(share)
            self.times.append(now)
        self._note(batch, offset)
        return offset

    def _note(self, batch: Batch, offset: int) -> None:
        """What the log says of its producers: sequences (K-15) and transactions (K-46)."""
        if batch.sequence >= 0:
            state = self.producers.get(batch.producer)
            if state is None or state.epoch != batch.epoch:
                state = self.producers[batch.producer] = ProducerState(batch.epoch)
            state.add(batch.sequence, len(batch.copies), offset)
        if batch.transaction and batch.producer not in self.ongoing:
            self.ongoing[batch.producer] = offset
        if batch.control:
            first = self.ongoing.pop(batch.producer, None)
            if batch.control == ABORT and first is not None:
                self.aborted.append((batch.producer, first, offset))

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of the record at an offset; -1 before the first."""
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
        at = end - self.start
        gone = list(self.records[at:])
        del self.records[at:], self.bytes[at:], self.times[at:]
        self.epochs = [entry for entry in self.epochs if entry[1] < end]
        self.flushed = min(self.flushed, end)
        for number, state in list(self.producers.items()):
            state.truncate(end)
            if not state.batches:
                del self.producers[number]
        self.ongoing = {producer: first for producer, first in self.ongoing.items() if first < end}
        self.aborted = [entry for entry in self.aborted if entry[2] < end]
        return gone

    def last_stable(self, high_watermark: int) -> int:
        """LSO: below it no transaction is open (K-46)."""
        return min([high_watermark, *self.ongoing.values()])

    def is_aborted(self, producer: int, offset: int) -> bool:
        """Whether a record belongs to an aborted transaction."""
        return any(p == producer and first <= offset <= last for p, first, last in self.aborted)

    def read(self, start: int, end: int, limits: Any) -> list[int]:
        """Records from `start` up to before `end`, within the bytes that a consumer's settings allow."""
        at = start - self.start
        stop = end - self.start
        if limits is not None:
            size = 0
            for i in range(at, stop):
                size += self.bytes[i]
                if size > limits.max_partition_fetch_bytes and i > at:
                    stop = i
                    break
        return list(self.records[at:stop])

    def copy_of(self, start: int, end: int) -> Piece:
        """A piece of the log for a follower."""
        at, stop = start - self.start, end - self.start
        epochs = [(epoch, max(first, start)) for epoch, first in self.epochs if first < end]
        epochs = [e for i, e in enumerate(epochs) if i + 1 == len(epochs) or epochs[i + 1][1] > start]
        return Piece(
            start,
            self.records[at:stop],
            self.bytes[at:stop],
            self.times[at:stop],
            epochs,
            {number: state.copy() for number, state in self.producers.items()},
            dict(self.ongoing),
            list(self.aborted),
        )

    def extend(self, piece: Piece) -> None:
        """Take over a piece of the leader's log."""
        self.records.extend(piece.records)
        self.bytes.extend(piece.bytes)
        self.times.extend(piece.times)
        for epoch, first in piece.epochs:
            if not self.epochs or self.epochs[-1][0] != epoch:
                self.epochs.append((epoch, first))
        self.producers = piece.producers
        self.ongoing, self.aborted = piece.ongoing, piece.aborted

    def restart_at(self, offset: int) -> None:
        """What is missing before an offset was deleted at the leader: begin there."""
        self.truncate(self.start)
        self.start = self.flushed = offset
        self.epochs.clear()

    def drop_before(self, offset: int) -> list[int]:
        """Retention: delete everything before an offset (K-41); returns those records."""
        count = max(0, min(offset, self.end) - self.start)
        gone = list(self.records[:count])
        del self.records[:count], self.bytes[:count], self.times[:count]
        self.start += count
        self.flushed = max(self.flushed, self.start)
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
    aborted: list[tuple[int, int, int]]


class ProducerState:
    """The last five batches of an idempotent producer (K-15), as (first sequence, records, offset)."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
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

    def truncate(self, end: int) -> None:
        """Forget batches that were cut off."""
        while self.batches and self.batches[-1][2] >= end:
            self.batches.pop()

    def copy(self) -> ProducerState:
        """For a follower."""
        other = ProducerState(self.epoch)
        other.batches.extend(self.batches)
        return other
