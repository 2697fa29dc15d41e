"""When an end of a connection notices that its peer is silent.

Heartbeats are not sent but reckoned with: a rule says when the last one before the silence came, and when an end that
has heard nothing since closes the connection. All times are in seconds.
"""

from __future__ import annotations

import math
from typing import Protocol


class Heartbeats(Protocol):
    """A rule. `hears_data`: whatever arrives tells that the peer is there, not only a heartbeat.

    `has_phase`: the peer's heartbeats are out of step with this end by a `phase` that each connection draws anew,
    uniformly from [0, 1).
    """

    hears_data: bool
    has_phase: bool

    def last_beat(self, opened_at: float, time: float, phase: float) -> float:
        """When the last heartbeat up to `time` came; the opening is one."""

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """When an end that last heard its peer at `heard_at` closes the connection."""


class MissedHeartbeats:
    """A.8, N-08: one is due every `every` seconds after the opening; more than `misses` missed ones are too many.

    Silence is noticed `misses` to `misses` + 1 heartbeats after it began.
    """

    hears_data = has_phase = False

    def __init__(self, every: float, misses: int) -> None:
        self.every, self.misses = every, misses

    def last_beat(self, opened_at: float, time: float, phase: float) -> float:
        """The last one due."""
        return opened_at + math.floor((time - opened_at) / self.every) * self.every

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """When one too many is missing."""
        return heard_at + (self.misses + 1) * self.every


class SampledHeartbeats:
    """R-16: each end looks every `every` seconds whether anything came, and closes at the second look in vain.

    The peer beats twice as often, and not in step with those looks. From a cut it takes 2 to 3 times `every` under
    traffic (2.5 in the mean) and 1.5 to 3 times on an idle connection (2.25).
    """

    hears_data = has_phase = True

    def __init__(self, every: float) -> None:
        self.every = every

    def last_beat(self, opened_at: float, time: float, phase: float) -> float:
        """The last beat of the peer."""
        beats = math.floor(2 * (time - opened_at) / self.every - phase)
        return opened_at + ((beats + phase) * self.every / 2 if beats >= 0 else 0.0)

    def noticed(self, opened_at: float, heard_at: float) -> float:
        """The first look after that sees a change; the two that follow do not."""
        return opened_at + (math.floor((heard_at - opened_at) / self.every) + 3) * self.every
