"""Retention and compaction: how a broker gets rid of records in the logs that it has, whoever leads them (K-41, K-42).

Both look at what lies below the high watermark, segment by segment. A broker looks at a log only when something may be
due: for retention at a multiple of log.retention.check.interval.ms, for compaction at one of log.cleaner.backoff.ms.
What goes is gone for readers at once (the files are deleted 60 s later), and costs no time.

Messages have no null values here, so there are no tombstones and no delete.retention.ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from sim.brokers.kafka.causes import COMPACTED, RETENTION
from sim.brokers.kafka.log import ABORT, HOLE, Log

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.replication import Partition

CLEANER_BACKOFF = 15.0  # seconds (log.cleaner.backoff.ms)


class Cleaner:
    """A broker's background threads for its logs."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.world = broker, broker.world
        self._looks_at: dict[Partition, float] = {}  # when it looks at a log next (s)

    def watch(self, partition: Partition) -> None:
        """Records have come: look at the log when some of them may go, if not before."""
        due = self._due(self.broker.logs[partition])
        if due < self._looks_at.get(partition, math.inf):
            self._look_at(partition, due)

    def _look_at(self, partition: Partition, due: float) -> None:
        self._looks_at[partition] = due
        self.world.in_background(max(0.0, due - self.world.now), self._look, partition, due)

    def _due(self, log: Log) -> float:
        """When the first of the records in a log may go (s)."""
        config, now = log.config, self.world.now
        if config.is_compacted:
            return _next(now, CLEANER_BACKOFF)
        interval = self.broker.cluster.settings.log_retention_check_interval
        due = math.inf
        if config.retention_bytes is not None and log.is_dirty:
            due = _next(now, interval)
        if config.retention is not None and log.records:
            newest = log.times[(log.segments[1] if len(log.segments) > 1 else log.end) - log.start - 1]
            due = min(due, max(_next(now, interval), _next(newest + config.retention, interval)))
        return due

    def _look(self, partition: Partition, due: float) -> None:
        if self._looks_at.get(partition) != due:
            return  # it was looked at before that
        del self._looks_at[partition]
        broker = self.broker
        log, mark = broker.logs[partition], broker.high_watermarks.get(partition, 0)
        if not broker.host.is_running:
            self._look_at(partition, self._due(log))
            return
        start = log.start
        if log.config.is_compacted:
            end = cleanable(log, mark)
            if end is not None:
                gone = compact(log, end, partition.topic.key_of)
                partition.topic.vanished(partition, start, gone, COMPACTED)
            if log.is_dirty or log.cleaned < log.segments[-1] > mark:
                self.watch(partition)
            return
        end = deletable(log, self.world.now, mark)
        if end > start:
            partition.topic.vanished(partition, start, log.drop_before(end), RETENTION)
        self.watch(partition)


def _next(time: float, interval: float) -> float:
    """The first multiple of an interval (s) after a time."""
    return (time // interval + 1) * interval


def deletable(log: Log, now: float, high_watermark: int) -> int:
    """K-41: the offset before which retention deletes: whole segments, as long as the oldest is too old or too much.

    The active segment may be among them: when all of its records are too old, another takes its place.
    """
    config, before = log.config, log.start
    size = sum(log.bytes) if config.retention_bytes is not None else 0
    for first, end in pairwise([*log.segments, log.end]):
        if end > high_watermark or first == end:
            break
        its_size = sum(log.bytes[first - log.start : end - log.start])
        is_old = config.retention is not None and log.times[end - log.start - 1] < now - config.retention
        is_too_much = config.retention_bytes is not None and size - its_size >= config.retention_bytes
        if not (is_old or is_too_much):
            break
        size -= its_size
        before = end
    return before


def cleanable(log: Log, high_watermark: int) -> int | None:
    """K-42: how far a log can be compacted, if enough of that is dirty; None if it is not worth it."""
    end = min(log.segments[-1], log.last_stable(high_watermark))
    if end <= log.cleaned:
        return None
    total = log.size(log.start, end - log.start)
    dirty = log.size(log.cleaned, end - log.cleaned)
    return end if dirty > log.config.min_cleanable_dirty_ratio * total else None


def compact(log: Log, end: int, key_of: Callable[[int], int]) -> list[int]:
    """K-42: leave, below `end`, the last record of each key, where it was; returns what is gone, with holes between.

    Records of aborted transactions go, too; markers stay.
    """
    last: dict[int, int] = {}
    for offset in range(log.cleaned, end):
        copy = log.records[offset - log.start]
        if copy > ABORT and not log.is_aborted(offset):
            last[key_of(copy)] = offset
    gone = []
    for offset in range(log.start, end):
        at = offset - log.start
        copy = log.records[at]
        if copy > ABORT and (log.is_aborted(offset) or last.get(key_of(copy), offset) > offset):
            log.records[at], log.bytes[at] = HOLE, 0
            gone.append(copy)
        else:
            gone.append(HOLE)
    log.cleaned = end
    return gone
