"""Hosts: processes on machines, and what faults do to them (sheet D).

Numbers N-01 ... and letters A ... are those of the sheet "Network, faults, statistics".
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from sim.kernel import Handler, World

if TYPE_CHECKING:
    from sim.connection import Connection
    from sim.storage import Disk


class Resident(Protocol):
    """A program that runs on a host. A crash takes its memory; a restart begins with what its disk holds.

    One that has something to do before it ends in good order has a method `stopping(done)` besides, and calls `done()`.
    """

    def crashed(self, kind: str) -> None:
        """The memory is gone: forget it, and record what died with it. `kind` as in `Host.crash`.

        What a disk is about to lose is still on it, and is gone after this call.
        """

    def restarted(self) -> None:
        """Start again, from durable state only."""


ClockError = tuple[float, float, float]  # seconds off, seconds more per second, and since when (s)
GRACE = 30.0  # seconds from SIGTERM to SIGKILL (terminationGracePeriodSeconds of Kubernetes)
SEVERITY = {"process": 1, "machine": 2, "disk": 3}


class Host:
    """A process on a machine (sheet D). Crashing it ends its epoch: what an old epoch scheduled never runs.

    `slowness` multiplies its service times (a gray node); `clock()` is its own clock, which may be wrong. Faults may
    overlap: it is up again when each of its crashes was followed by a restart, and runs when all pauses are over.

    What faults acted on is counted: `touched` by crashes, `held` by pauses, `slowed` by a slow spell, `misread` by a
    wrong clock.
    """

    def __init__(self, world: World, name: str, group: str | None = None) -> None:
        self.world, self.name, self.group = world, name, group or name
        self.is_up = True
        self.is_running = True  # up and not paused: what every arrival asks
        self.is_machine_up = True
        self.is_steady = False
        self.may_stop = False  # its own cluster may tell it to, without any fault
        self.epoch = 0
        self.crash_kind = ""  # the worst that happened to it when it was last down
        self.slowness = 1.0
        self.frozen = 0.0  # seconds that pauses have taken so far
        self.working = 0  # pieces of work under way
        self.residents: list[Resident] = []
        self.connections: list[Connection] = []
        self.disks: list[Disk] = []
        self.touched = self.held = self.slowed = self.misread = 0
        self._downs = self._pauses = 0
        self._is_stopping = False
        self._paused_at = 0.0
        self._factors: list[float] = []
        self._clock_errors: list[ClockError] = []
        self._held: deque[tuple[Handler, tuple[Any, ...], Handler | None]] = deque()

    def __repr__(self) -> str:
        return f"<host {self.name}>"

    def be_steady(self) -> None:
        """Nothing will ever befall this host: its calls become the world's own, with no look at its state."""
        self.is_steady = True
        self.call_later = self.world.call_later  # type: ignore[method-assign]
        self.work = self.world.call_later  # type: ignore[method-assign, assignment]
        self.call_at = self.world.call_at  # type: ignore[method-assign]

    # -- what its process does ---------------------------------------------------------------------------------

    def call_later(self, delay: float, function: Handler, *args: Any) -> None:
        """Like `World.call_later`, but a crash cancels the call and a pause delays it (N-14: late, not skipped)."""
        self.world.call_later(delay, self._wake, self.epoch, function, args)

    def call_at(self, time: float, function: Handler, *args: Any) -> None:
        """Like `World.call_at`, under the same rule."""
        self.world.call_at(time, self._wake, self.epoch, function, args)

    def _wake(self, epoch: int, function: Handler, args: tuple[Any, ...]) -> None:
        if epoch != self.epoch:
            if not self.is_up:
                self.touched += 1
        elif self.is_running:
            function(*args)
        else:
            self.hold(function, args)

    def work(self, seconds: float, function: Handler, *args: Any) -> None:
        """Call `function(*args)` when the process has worked for `seconds`: a pause on the way stops the work, too."""
        self.working += 1
        if self.slowness != 1.0:
            self.slowed += 1
        self.world.call_later(
            seconds, self._worked, self.epoch, self.world.now + seconds, self.frozen, function, args
        )

    def _worked(
        self, epoch: int, due: float, frozen: float, function: Handler, args: tuple[Any, ...]
    ) -> None:
        if epoch != self.epoch:
            return
        if not self.is_running:
            self.hold(self._worked, (epoch, due, frozen, function, args))
        elif self.frozen == frozen:
            self.working -= 1
            function(*args)
        else:
            due = max(due + (self.frozen - frozen), self.world.now)  # the sum may round to just before now
            self.world.call_at(due, self._worked, epoch, due, self.frozen, function, args)

    def tell(self, function: Handler, *args: Any) -> None:
        """Call now, or at the end of a pause; a process that is down hears nothing."""
        if self.is_running:
            function(*args)
        elif self.is_up:
            self.hold(function, args)

    def hold(self, function: Handler, args: tuple[Any, ...], lost: Handler | None = None) -> None:
        """Keep a call for the end of the pause; `lost(*args)` is called instead if a crash comes first."""
        self.held += 1
        self._held.append((function, args, lost))

    def clock(self) -> float:
        """Local time (s): the world's, plus what skew and drift have made of it."""
        now = self.world.now
        if not self._clock_errors:
            return now
        self.misread += 1
        return now + math.fsum(skew + drift * (now - since) for skew, drift, since in self._clock_errors)

    # -- verbs of faults ---------------------------------------------------------------------------------------

    def crash(self, kind: str = "process") -> None:
        """Kill the process ("process"), cut the power ("machine"), or lose the disks with it ("disk").

        A process that is down already loses what the worse kind takes besides.
        """
        assert not self.is_steady, f"{self!r} was built as one that nothing befalls"
        self._downs += 1 + self._is_stopping  # a stop that is under way ends with it
        self._is_stopping = False
        was_up = self.is_up
        if not was_up and SEVERITY[kind] <= SEVERITY[self.crash_kind]:
            return
        self.crash_kind = kind
        self.is_machine_up &= kind == "process"
        if was_up:
            self.is_up = self.is_running = False
            self.epoch += 1
            self.touched += self.working + len(self._held)
            self.working = 0
            held, self._held = self._held, deque()
            for _, args, lost in held:
                if lost is not None:
                    lost(*args)
            for resident in self.residents:
                resident.crashed(kind)
        self.touched += sum(disk.crashed(kind) for disk in self.disks)
        for connection in self.connections:
            connection.host_crashed(self, kind)

    def stop(self) -> None:
        """Ask the process to end (SIGTERM): its programs put things in order, for `GRACE` at most; then it is over."""
        found = [getattr(resident, "stopping", None) for resident in self.residents]
        left = [function for function in found if function is not None]
        if self._is_stopping or not self.is_up or not left:
            self.crash()
            return
        self._is_stopping = True
        self.world.in_background(GRACE, self._stopped, self.epoch)
        waits_for = len(left)

        def done() -> None:
            nonlocal waits_for
            waits_for -= 1
            if not waits_for:
                self.call_later(0.0, self._stopped, self.epoch)

        for function in left:
            self.tell(function, done)

    def _stopped(self, epoch: int) -> None:
        if self._is_stopping and epoch == self.epoch:
            self._is_stopping = False
            self.crash()

    def unstop(self) -> None:
        """Undo one stop: start the process again, once it has ended."""
        self._stopped(self.epoch)
        self.restart()

    def restart(self) -> None:
        """Undo one crash; after the last, bring machine and process back with nothing but what its disk holds."""
        if not self._downs:
            return
        self._downs -= 1
        if self._downs:
            return
        self.is_up = self.is_machine_up = True
        self.is_running = not self._pauses
        self._paused_at = self.world.now
        for connection in self.connections:
            connection.host_restarted(self)
        for resident in self.residents:
            self.tell(resident.restarted)

    def pause(self) -> None:
        """Freeze the process (garbage collection, migration of the machine): its kernel still takes packets."""
        assert not self.is_steady, f"{self!r} was built as one that nothing befalls"
        self._pauses += 1
        self.held += self.working
        if self.is_running:
            self.is_running = False
            self._paused_at = self.world.now
            for connection in self.connections:
                connection.host_paused(self)

    def resume(self) -> None:
        """End one pause; after the last, what came due meanwhile happens now, in order."""
        if not self._pauses:
            return
        self._pauses -= 1
        if self._pauses or not self.is_up:
            return
        self.is_running = True
        self.frozen += self.world.now - self._paused_at
        for connection in self.connections:
            connection.check_silence()
        epoch = self.epoch
        for _ in range(len(self._held)):
            function, args, _ = self._held.popleft()
            function(*args)
            if epoch != self.epoch:
                return

    def slow_down(self, factor: float) -> None:
        """Multiply service times by `factor`, on top of what slows it already."""
        self._factors.append(factor)
        self.slowness = math.prod(self._factors)

    def speed_up(self, factor: float) -> None:
        """Undo one `slow_down` by that factor."""
        self._factors.remove(factor)
        self.slowness = math.prod(self._factors)

    def put_clock_out(self, error: ClockError) -> None:
        """Let the clock be wrong by that much besides what makes it wrong already."""
        self._clock_errors.append(error)

    def put_clock_right(self, error: ClockError) -> None:
        """Undo one `put_clock_out` of that error."""
        self._clock_errors.remove(error)
