"""The clock, the fast lane, timeouts that cost nothing when they are cancelled, and named random streams.

`World` is a `simpy.Environment`: processes, resources and events of SimPy work in it unchanged. Beside them it has a
fast lane, `call_later(delay, function, *args)`, for actors written as plain methods: one heap entry and one call per
event, no event object, no generator. Both lanes share one heap and one sequence, so what is due at the same instant
happens in the order in which it was scheduled.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import simpy
from simpy.core import EmptySchedule
from simpy.events import NORMAL, Event

Handler = Callable[..., Any]
_FIRST = -1  # a priority before all of SimPy's


class World(simpy.Environment):
    """A simulated world: its clock (seconds), its agenda, its random streams.

    `seed` and `replication` fix every draw; streams are independent per name (N-17), so that a change to one
    component leaves the draws of all others as they were.
    """

    now: float = 0.0  # a plain attribute: it is read several times per event

    def __init__(self, seed: int = 0, replication: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.replication = replication
        self._streams: dict[str, np.random.Generator] = {}
        self._background = 0
        self.agenda: list[tuple[float, Any, int, Handler, tuple[Any, ...]]] = self._queue  # type: ignore[assignment]
        self.next_number = self._eid.__next__

    # SimPy keeps its clock in `_now`; here it is one and the same with `now`.
    @property
    def _now(self) -> float:
        return self.now

    @_now.setter
    def _now(self, value: float) -> None:
        self.now = value

    # -- scheduling --------------------------------------------------------------------------------------------

    def call_later(self, delay: float, function: Handler, *args: Any) -> None:
        """Call `function(*args)` in `delay` seconds. Raises ValueError for a delay that is negative or not a number."""
        if not delay >= 0.0:
            raise ValueError(f"{function!r} cannot be called {-delay} s ago")
        number = self.next_number  # as a local: CPython is slow to call an attribute as if it were a method
        heappush(self.agenda, (self.now + delay, NORMAL, number(), function, args))

    def call_at(self, time: float, function: Handler, *args: Any) -> None:
        """Call `function(*args)` at `time` (seconds). Raises ValueError for a time that has passed."""
        if not time >= self.now:
            raise ValueError(f"{function!r} cannot be called at {time} s: it is {self.now} s")
        number = self.next_number
        heappush(self.agenda, (time, NORMAL, number(), function, args))

    def in_background(self, delay: float, function: Handler, *args: Any) -> None:
        """Like `call_later`, for what goes on for ever (a heartbeat, a schedule of faults).

        The world is quiet when nothing but the background is left on its agenda.
        """
        self.call_later(delay, self._from_background, function, args)
        self._background += 1

    def _from_background(self, function: Handler, args: tuple[Any, ...]) -> None:
        self._background -= 1
        function(*args)

    def schedule(self, event: Event, priority: Any = NORMAL, delay: float = 0) -> None:
        """SimPy's own entry to the agenda."""
        if not delay >= 0:
            raise ValueError(f"{event!r} cannot be scheduled {-delay} s ago")
        heappush(self.agenda, (self.now + delay, priority, self.next_number(), _process, (event,)))

    # -- running -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do the next thing on the agenda. Raises `simpy.core.EmptySchedule` when there is none."""
        if not self.agenda:
            raise EmptySchedule
        self.now, _, _, function, args = heappop(self.agenda)
        function(*args)

    def run(self, until: Any = None) -> Any:
        """Run until the agenda is empty, until a time (exclusive, as in SimPy), or until an event has happened."""
        if isinstance(until, Event):
            try:
                return super().run(until)
            except _Stop:
                return None
        if until is None:
            self._run_before(math.inf)
            return None
        if until < self.now:
            raise ValueError(f"cannot run until {until} s: it is {self.now} s")
        # What is due exactly at `until` belongs to the next run, except the clock itself.
        self._run_before(float(until))
        self.now = float(until)
        return None

    def run_until_stopped(self, until: float) -> None:
        """Run until somebody calls `stop`, or until a time (exclusive)."""
        self._run_before(until)

    def stop(self) -> None:
        """End the present run after what is going on now."""
        raise _Stop

    def _run_before(self, end: float) -> None:
        """Do what is due before `end`, which stands on the agenda itself, ahead of all else that is due then."""
        agenda, pop = self.agenda, heappop
        the_end: Any = (end, _FIRST, self.next_number(), None, ())
        heappush(agenda, the_end)
        try:
            # Not `while agenda`: CPython 3.11 specialises only loops that jump back unconditionally.
            while True:
                time, _, _, function, args = pop(agenda)
                if function is None:
                    return
                self.now = time
                function(*args)
        except BaseException as why:
            if the_end in agenda:
                agenda.remove(the_end)
                heapify(agenda)
            if not isinstance(why, _Stop):
                raise

    def run_until_quiet(self, limit: float) -> bool:
        """Run until only the background is left, until `stop`, or the time `limit`; says whether it became quiet."""
        try:
            return self._do_until_quiet(limit)
        except _Stop:
            return False

    def _do_until_quiet(self, limit: float) -> bool:
        agenda, pop = self.agenda, heappop
        while True:
            if len(agenda) <= self._background:
                return True
            if agenda[0][0] > limit:
                self.now = max(self.now, limit)
                return False
            self.now, _, _, function, args = pop(agenda)
            function(*args)

    # -- chance ------------------------------------------------------------------------------------------------

    def stream(self, name: str) -> np.random.Generator:
        """The random stream of one component and purpose, such as "shop.arrivals" (F.1, F.2).

        Its seed is a hash of the name, not the order of creation. The same name gives the same generator object:
        give every component and purpose a name of its own.
        """
        if name not in self._streams:
            digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
            words = tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))
            sequence = np.random.SeedSequence(self.seed, spawn_key=(self.replication, *words))
            self._streams[name] = np.random.Generator(np.random.PCG64(sequence))
        return self._streams[name]

    def uniforms(self, name: str) -> Callable[[], float]:
        """A function that draws from [0, 1) out of the stream `name`, in blocks."""
        generator = self.stream(name)

        def blocks() -> Iterator[list[float]]:
            while True:
                yield generator.random(1024).tolist()

        return chain.from_iterable(blocks()).__next__


def _process(event: Event) -> None:
    """What SimPy does when an event's time has come: run its callbacks, and raise what nobody caught."""
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    for callback in callbacks:
        callback(event)
    if not event._ok and not hasattr(event, "_defused"):
        raise event._value


K = TypeVar("K", bound=Hashable)


class _Stop(Exception):
    """Somebody stopped the run."""


class Scheduler(Protocol):
    """Who may own timeouts besides the world: a host, whose crash cancels them and whose pause delays them."""

    world: World

    def call_later(self, delay: float, function: Handler, *args: Any) -> None:
        """Like `World.call_later`."""

    def call_at(self, time: float, function: Handler, *args: Any) -> None:
        """Like `World.call_at`."""


class Timeouts(Generic[K]):
    """Keys that each expire a constant `delay` (seconds) after they were added, unless they are removed first.

    The map of what is outstanding (unacknowledged, leased, in flight) and its timer are one thing: a constant delay
    makes the timer a FIFO, so adding and removing cost one dictionary operation and the agenda holds one entry for
    all keys. A `delay` of infinity never expires anything. After a crash of the host that owns it, make a new one.
    """

    def __init__(self, owner: World | Scheduler, delay: float, on_expiry: Callable[[K], Any]) -> None:
        if not delay > 0:
            raise ValueError(f"a timeout must be longer than 0 s, not {delay} s")
        self.owner, self.delay, self.on_expiry = owner, delay, on_expiry
        self.world = owner if isinstance(owner, World) else owner.world
        self._due: dict[K, float] = {}
        self._is_armed = delay == math.inf

    def add(self, key: K) -> None:
        """Start the key's time (again: a key that is present starts anew, behind all others)."""
        due = self._due
        if key in due:
            del due[key]
        due[key] = self.world.now + self.delay
        if not self._is_armed:
            self._is_armed = True
            self.owner.call_later(self.delay, self._expire)

    def remove(self, key: K) -> bool:
        """Take a key away; says whether it was there."""
        return self._due.pop(key, None) is not None

    def clear(self) -> list[K]:
        """Take all keys away and return them, oldest first."""
        keys = list(self._due)
        self._due.clear()
        return keys

    def __contains__(self, key: K) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def _expire(self) -> None:
        now = self.world.now
        while self._due:
            key, due = next(iter(self._due.items()))
            if due > now:
                self.owner.call_at(due, self._expire)
                return
            del self._due[key]
            self.on_expiry(key)
        self._is_armed = False
