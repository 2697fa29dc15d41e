"""Ready messages of a queue, in the order in which they would be delivered.

An entry is `(position, copy)`; the position is the place in the order of publishing, which a message keeps when it
comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Protocol

Entry = tuple[int, int]


class Ready(Protocol):
    """What a queue asks of its ready messages; `n` is how many there are."""

    n: int

    def put(self, entry: Entry, priority: int) -> None:
        """A fresh message, behind those of its priority."""

    def put_back(self, entry: Entry, priority: int) -> None:
        """A message that was returned."""

    def pop(self) -> Entry:
        """Take the one that is delivered next. Raises IndexError."""

    def head(self) -> Entry | None:
        """The one that is delivered next."""

    def pop_oldest(self) -> Entry:
        """Take the one that drop-head drops."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...

    def clear(self) -> None:
        """Forget all."""


class InPublishOrder:
    """A classic queue: what comes back goes to its original position (R-13)."""

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.returned: list[Entry] = []  # a heap
        self.n = 0

    def put(self, entry: Entry, priority: int = 0) -> None:
        """Behind all others."""
        self.fresh.append(entry)
        self.n += 1

    def put_back(self, entry: Entry, priority: int = 0) -> None:
        """Where it was."""
        heappush(self.returned, entry)
        self.n += 1

    def pop(self) -> Entry:
        """The oldest by position."""
        is_back = self.returned and (not self.fresh or self.returned[0] < self.fresh[0])
        entry = heappop(self.returned) if is_back else self.fresh.popleft()
        self.n -= 1
        return entry

    pop_oldest = pop

    def head(self) -> Entry | None:
        """The oldest by position."""
        heads = [part[0] for part in (self.returned, self.fresh) if part]
        return min(heads) if heads else None

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted([*self.returned, *self.fresh]))

    def clear(self) -> None:
        """Forget all."""
        self.fresh.clear()
        self.returned.clear()
        self.n = 0


class ByPriority:
    """A classic queue with priorities: higher ones first, each in the order of publishing (R-36)."""

    def __init__(self) -> None:
        self._lanes: dict[int, Ready] = {}
        self._order: list[int] = []
        self.n = 0

    def _of(self, priority: int) -> Ready:
        if priority not in self._lanes:
            self._lanes[priority] = InPublishOrder()
            self._order = sorted(self._lanes, reverse=True)
        return self._lanes[priority]

    def put(self, entry: Entry, priority: int) -> None:
        """Behind those of its priority."""
        self._of(priority).put(entry, priority)
        self.n += 1

    def put_back(self, entry: Entry, priority: int) -> None:
        """Back among those of its priority."""
        self._of(priority).put_back(entry, priority)
        self.n += 1

    def _first(self) -> Ready:
        for priority in self._order:
            if len(self._lanes[priority]):
                return self._lanes[priority]
        raise IndexError("no message is ready")

    def pop(self) -> Entry:
        """The next of the highest priority."""
        entry = self._first().pop()
        self.n -= 1
        return entry

    def pop_oldest(self) -> Entry:
        """R-36: drop-head ignores priority: the oldest of all."""
        heads = [(lane.head(), priority) for priority, lane in self._lanes.items() if len(lane)]
        self.n -= 1
        return self._lanes[min(heads)[1]].pop()

    def head(self) -> Entry | None:
        """The next of the highest priority."""
        return self._first().head() if len(self) else None

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Entry]:
        for priority in self._order:
            yield from self._lanes[priority]

    def clear(self) -> None:
        """Forget all."""
        for lane in self._lanes.values():
            lane.clear()
        self.n = 0


class QuorumReady:
    """A quorum queue: what was returned first, in the order of return; then by priority (R-13, R-36).

    Without a delivery limit what is returned goes to the tail. In series 4.2 there are two priorities, from 5 on and
    below, served 2 to 1.
    """

    def __init__(self, to_the_tail: bool, is_two_to_one: bool) -> None:
        self.returned: deque[Entry] = deque()
        self.lanes: dict[int, deque[Entry]] = {}
        self.to_the_tail, self.is_two_to_one = to_the_tail, is_two_to_one
        self._order: list[int] = []
        self._in_lanes = 0
        self._turn = 0
        self.n = 0

    def put(self, entry: Entry, priority: int) -> None:
        """Behind those of its priority."""
        if self.is_two_to_one:
            priority = 1 if priority >= 5 else 0
        lane = self.lanes.get(priority)
        if lane is None:
            lane = self.lanes[priority] = deque()
            self._order = sorted(self.lanes, reverse=True)
        lane.append(entry)
        self._in_lanes += 1
        self.n += 1

    def put_back(self, entry: Entry, priority: int) -> None:
        """Behind what was returned before, or behind all."""
        if self.to_the_tail:
            self.put(entry, priority)
        else:
            self.returned.append(entry)
            self.n += 1

    def _lane(self) -> deque[Entry]:
        """The lane whose turn it is."""
        if len(self._order) == 1:
            return self.lanes[self._order[0]]
        filled = [priority for priority in self._order if self.lanes[priority]]
        if self.is_two_to_one and len(filled) == 2 and self._turn % 3 == 2:
            return self.lanes[filled[1]]
        return self.lanes[filled[0]]

    def pop(self) -> Entry:
        """What was returned first, else the next by priority."""
        self.n -= 1
        if self.returned:
            return self.returned.popleft()
        lane = self._lane()
        self._in_lanes -= 1
        self._turn += 1
        return lane.popleft()

    def pop_oldest(self) -> Entry:
        """R-36: drop-head ignores priority."""
        self.n -= 1
        if self.returned:
            return self.returned.popleft()
        lane = min((lane for lane in self.lanes.values() if lane), key=lambda lane: lane[0])
        self._in_lanes -= 1
        return lane.popleft()

    def head(self) -> Entry | None:
        """The one that is delivered next."""
        if self.returned:
            return self.returned[0]
        return self._lane()[0] if self._in_lanes else None

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Entry]:
        yield from self.returned
        for priority in self._order:
            yield from self.lanes[priority]

    def clear(self) -> None:
        """Forget all."""
        self.returned.clear()
        self.lanes.clear()
        self._order.clear()
        self._in_lanes = self.n = 0


class Weighed:
    """Ready messages of any kind, and how many bytes they are (R-35: `max_length_bytes` counts bodies only)."""

    def __init__(self, ready: Ready, size_of: Callable[[int], int]) -> None:
        self.ready, self._size_of = ready, size_of
        self.n = self.bytes = 0

    def put(self, entry: Entry, priority: int) -> None:
        """A fresh message."""
        self.ready.put(entry, priority)
        self._count(entry, 1)

    def put_back(self, entry: Entry, priority: int) -> None:
        """One that was returned."""
        self.ready.put_back(entry, priority)
        self._count(entry, 1)

    def pop(self) -> Entry:
        """Take the next."""
        return self._count(self.ready.pop(), -1)

    def pop_oldest(self) -> Entry:
        """Take the oldest."""
        return self._count(self.ready.pop_oldest(), -1)

    def _count(self, entry: Entry, sign: int) -> Entry:
        self.n += sign
        self.bytes += sign * self._size_of(entry[1])
        return entry

    def head(self) -> Entry | None:
        """The next."""
        return self.ready.head()

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.ready)

    def clear(self) -> None:
        """Forget all."""
        self.ready.clear()
        self.n = self.bytes = 0
