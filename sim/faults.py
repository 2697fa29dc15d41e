"""Crashes, partitions and slow parts, at set times, by chance, or at an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sim.host import Host
from sim.network import Network, Path, directions
from sim.units import Fraction, Seconds

if TYPE_CHECKING:
    from sim.simulation import Simulation
    from sim.storage import Disk

Undo = Callable[[], Any]

Kind = Literal[
    "stop",
    "crash",
    "machine_crash",
    "disk_loss",
    "fsync_failure",
    "partition",
    "slow",
    "slow_link",
    "pause",
    "loss_burst",
    "clock_skew",
]


@dataclass(frozen=True)
class Fault:
    """One fault: what happens to whom, and when.

    `target` is a host, a group of hosts ("billing": all of them), whichever host has a role then ("orders.leader")
    or, for links, a pair ("shop -> orders" one way, "shop <-> orders" both, "orders <-> *"). When: `at` (s),
    repeated `every` (s); or by chance, up times of mean `mtbf` and down times of mean `mttr`; or `on` the n-th event
    ("orders.append #3") and `after` (s) it. It heals after `lasting` (s), or at the end of the run if that is not
    given. `factor` slows a host or a link, `loss` is a burst's, `skew` (s) and `drift` (s per s) are a clock's.
    """

    kind: Kind
    target: str
    at: Seconds | None = None
    every: Seconds | None = None
    mtbf: Seconds | None = None
    mttr: Seconds | None = None
    on: str | None = None
    after: Seconds = 0.0
    lasting: Seconds | None = None
    factor: float = 10.0
    loss: Fraction = 1.0
    skew: Seconds = 0.0
    drift: float = 0.0


LINK_KINDS = ("partition", "slow_link", "loss_burst")
CRASHES = {"crash": "process", "machine_crash": "machine", "disk_loss": "disk"}

# What a host, a disk or a path counts of what each kind of fault acted on there.
COUNTERS = {
    "stop": "touched",
    "crash": "touched",
    "machine_crash": "touched",
    "disk_loss": "touched",
    "fsync_failure": "failed",
    "partition": "severed",
    "slow": "slowed",
    "slow_link": "slowed",
    "pause": "held",
    "loss_burst": "flooded",
    "clock_skew": "misread",
}


@dataclass
class Spell:
    """One time that a fault struck: when (s), until when, and how many things it acted on."""

    kind: str
    target: str
    start: float
    end: float | None = None
    touched: int = 0


class Faults:
    """Carries out the faults of a run, and keeps what they did."""

    def __init__(self, sim: Simulation, faults: tuple[Fault, ...]) -> None:
        self.world = sim.world
        self.spells: list[Spell] = []
        self.is_over = False
        self._schedules = [
            Schedule(self, sim, fault, faults[:i].count(fault)) for i, fault in enumerate(faults)
        ]

    def heal(self) -> None:
        """End what is on, and let nothing strike any more."""
        self.is_over = True
        for schedule in self._schedules:
            schedule.end()

    def inert(self) -> list[str]:
        """Faults that never struck, or never acted on anything: a mistake in the scenario more often than not."""
        return [
            f"{s.fault.kind} of {s.fault.target}"
            for s in self._schedules
            if not any(spell.touched for spell in s.spells)
        ]


class Schedule:
    """When one fault strikes and heals. `number` tells it from the same fault listed before."""

    def __init__(self, faults: Faults, sim: Simulation, fault: Fault, number: int) -> None:
        self.faults, self.world, self.fault = faults, sim.world, fault
        self.spells: list[Spell] = []
        self._random = sim.world.stream(
            f"fault.{fault.kind}.{fault.target}.{fault.mtbf}.{fault.mttr}.{number}"
        )
        self._find = finder(sim, fault)
        self._parts: list[Any] = []
        self._undo: Undo | None = None
        self._touched_before = 0
        if fault.on is not None:
            part, event, count = parse_event(fault.on)
            watch(sim.part(part), event, count, self._event_came)
        elif fault.mtbf is not None:
            self._wait_for_failure()
        else:
            at = fault.at if fault.at is not None else fault.every or 0.0
            self.world.in_background(at, self._strike_on_time)

    def _event_came(self) -> None:
        self.world.in_background(self.fault.after, self.begin)

    def _strike_on_time(self) -> None:
        self.begin()
        if self.fault.every is not None:
            self.world.in_background(self.fault.every, self._strike_on_time)

    def _wait_for_failure(self) -> None:
        assert self.fault.mtbf is not None
        self.world.in_background(self._random.exponential(self.fault.mtbf), self._fail_by_chance)

    def _fail_by_chance(self) -> None:
        mttr = self.fault.mttr
        self.begin(self._random.exponential(mttr) if mttr is not None else None)

    def begin(self, lasting: float | None = None) -> None:
        """The fault strikes, for `lasting` seconds if not as long as it says; one that is still on goes on."""
        if self.faults.is_over or self._undo is not None:
            return
        self._parts = self._find()
        self._touched_before = self._touched()
        spell = Spell(self.fault.kind, self.fault.target, self.world.now)
        self.spells.append(spell)
        self.faults.spells.append(spell)
        strike = STRIKES[self.fault.kind] if self._parts else _strike_nobody
        self._undo = strike(self.fault, self._parts)
        lasting = lasting if lasting is not None else self.fault.lasting
        if lasting is not None:
            self.world.in_background(lasting, self.end)

    def end(self) -> None:
        """The fault heals."""
        if self._undo is None:
            return
        undo, self._undo = self._undo, None
        undo()
        spell = self.spells[-1]
        spell.end = self.world.now
        spell.touched = self._touched() - self._touched_before
        if self.fault.mtbf is not None and not self.faults.is_over:
            self._wait_for_failure()

    def _touched(self) -> int:
        parts = self._parts if self.fault.kind != "fsync_failure" else disks_of(self._parts)
        return sum(getattr(part, COUNTERS[self.fault.kind]) for part in parts)


def finder(sim: Simulation, fault: Fault) -> Callable[[], list[Any]]:
    """A function that finds the hosts or paths that a fault acts on as it strikes.

    Only who has a role changes. Raises ValueError where the target means nothing.
    """
    arrow = "<->" if "<->" in fault.target else "->"
    ends = [_role_of(sim, end.strip()) for end in fault.target.split(arrow)]
    if not any(callable(end) for end in ends):
        parts = parts_of(sim.network, fault)
        return lambda: parts

    def find() -> list[Any]:
        names: list[str] = []
        for end in ends:
            host = end() if callable(end) else end
            if host is None:
                return []
            names.append(host if isinstance(host, str) else host.name)
        return parts_of(sim.network, replace(fault, target=f" {arrow} ".join(names)))

    return find


def _role_of(sim: Simulation, end: str) -> str | Callable[[], Host | None]:
    """How to ask who has the role that a target such as "orders.leader" means; the target itself if it is no role."""
    channel, _, role = end.rpartition(".")
    if not channel or role.isdecimal() or end in sim.network.hosts:
        return end
    try:
        ask = sim.part(channel).role
    except (KeyError, AttributeError):
        return end
    return lambda: ask(role)


def parts_of(network: Network, fault: Fault) -> list[Any]:
    """The hosts or paths that a fault acts on. Raises ValueError where its target means nothing."""
    if fault.kind not in LINK_KINDS:
        return list(network.named(fault.target))
    target = fault.target if "->" in fault.target else f"{fault.target} <-> *"
    for a, b in directions(target):
        network.named(a)
        network.named(b)
    return list(network.between(target))


def parse_event(text: str) -> tuple[str, str, int]:
    """ "orders.accept #3" as ("orders", "accept", 3); without a number the first is meant. Raises ValueError."""
    name, _, number = text.partition("#")
    part, dot, event = name.strip().rpartition(".")
    if not dot or not part or not event or (number and not number.strip().isdigit()):
        raise ValueError(f'expected an event such as "orders.accept #3", found {text!r}')
    return part, event, int(number or 1)


def watch(part: Any, event: str, count: int, then: Callable[[], Any]) -> None:
    """Call `then` after the `count`-th call of a part's method `event`. Raises ValueError if it has none.

    A part may consist of several: its `owners_of(event)` have the method, and their calls are counted together.
    """
    owners = part.owners_of(event) if hasattr(part, "owners_of") else [part]
    if not all(callable(getattr(owner, event, None)) for owner in owners):
        raise ValueError(f"{part.name} has no event {event!r}")
    seen = 0

    def watching(method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            nonlocal seen
            seen += 1
            result = method(*args)
            if seen == count:
                then()
            return result

        return watched

    for owner in owners:
        setattr(owner, event, watching(getattr(owner, event)))


# -- what each kind does ------------------------------------------------------------------------------------------
# Hosts, disks and paths count who holds them, so that faults may overlap: the last to let go sets them free.


def disks_of(hosts: list[Host]) -> list[Disk]:
    """All disks of some hosts."""
    return [disk for host in hosts for disk in host.disks]


def _each(parts: list[Any], strike: Callable[[Any], None], mend: Callable[[Any], None]) -> Undo:
    for part in parts:
        strike(part)

    def undo() -> None:
        for part in parts:
            mend(part)

    return undo


def _strike_nobody(fault: Fault, parts: list[Any]) -> Undo:
    """Nobody has the role that it aims at."""
    return lambda: None


def _crash(fault: Fault, hosts: list[Host]) -> Undo:
    return _each(hosts, lambda host: host.crash(CRASHES[fault.kind]), Host.restart)


def _stop(fault: Fault, hosts: list[Host]) -> Undo:
    return _each(hosts, Host.stop, Host.unstop)


def _pause(fault: Fault, hosts: list[Host]) -> Undo:
    return _each(hosts, Host.pause, Host.resume)


def _fail_fsync(fault: Fault, hosts: list[Host]) -> Undo:
    return _each(disks_of(hosts), lambda disk: disk.start_failing(), lambda disk: disk.stop_failing())


def _slow(fault: Fault, parts: list[Host] | list[Path]) -> Undo:
    return _each(parts, lambda part: part.slow_down(fault.factor), lambda part: part.speed_up(fault.factor))


def _cut(fault: Fault, paths: list[Path]) -> Undo:
    return _each(paths, Path.cut, Path.mend)


def _flood(fault: Fault, paths: list[Path]) -> Undo:
    return _each(paths, lambda path: path.flood(fault.loss), lambda path: path.drain(fault.loss))


def _skew(fault: Fault, hosts: list[Host]) -> Undo:
    error = (fault.skew, fault.drift, hosts[0].world.now)
    return _each(hosts, lambda host: host.put_clock_out(error), lambda host: host.put_clock_right(error))


STRIKES: dict[str, Callable[[Fault, list[Any]], Undo]] = {
    "stop": _stop,
    "crash": _crash,
    "machine_crash": _crash,
    "disk_loss": _crash,
    "fsync_failure": _fail_fsync,
    "partition": _cut,
    "slow": _slow,
    "slow_link": _slow,
    "pause": _pause,
    "loss_burst": _flood,
    "clock_skew": _skew,
}
