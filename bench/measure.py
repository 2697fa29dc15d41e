"""What the benchmark measures. CPU time of this process only, never the wall clock: others may use the machine."""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any

from bench import straightforward
from bench.work import SYSTEMS, reference_work, system_work
from sim.config import Config
from sim.ledger import Ledger
from sim.simulation import Simulation, simulate


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU time (s) of one call, begun with no garbage left behind by others."""
    gc.collect()
    start = time.process_time()
    function()
    return time.process_time() - start


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of some values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Comparison:
    """Plain SimPy against the simulator: `ratio` of CPU times round by round, and us per message of either."""

    messages: int
    ratio: Spread
    plain_us: Spread
    ours_us: Spread


def compare(messages: int, rounds: int) -> Comparison:
    """Run both models of W in turn, A B A B ..., so that a slow spell of the machine strikes both."""
    plain, ours = [], []
    for seed in range(1, rounds + 1):
        plain.append(cpu_seconds(partial(straightforward.run, messages, seed)))
        ours.append(cpu_seconds(partial(simulate, reference_work(messages), seed)))
    per_message = 1e6 / messages
    return Comparison(
        messages,
        Spread.of([a / b for a, b in zip(plain, ours, strict=True)]),
        Spread.of([a * per_message for a in plain]),
        Spread.of([b * per_message for b in ours]),
    )


def scaling(sizes: list[int]) -> dict[int, float]:
    """CPU time (us) per message of W, by number of messages. The full ledger is kept at every size.

    The sizes are run up and down again, the small ones as often as makes up for their size: a mean over both ways.
    """
    total = sorted(sizes)[-2:][0]
    runs: dict[int, list[float]] = {n: [] for n in sizes}
    for n in [*sizes, *reversed(sizes)]:
        runs[n] += [cpu_seconds(partial(simulate, reference_work(n))) for _ in range(max(1, total // n // 2))]
    return {n: statistics.fmean(seconds) * 1e6 / n for n, seconds in runs.items()}


# -- systems -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SystemCost:
    """What a message costs on one system: CPU time (us), that as a multiple of the textbook's in the same round, and
    events on the agenda."""

    us: Spread
    ratio: Spread
    events_per_message: float


def systems(messages: int, rounds: int) -> dict[str, SystemCost]:
    """Run the same work on each system in turn, A B C A B C ...; the first is the one that others are compared with."""
    times: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    counts: dict[str, list[int]] = {name: [] for name in SYSTEMS}
    for seed in range(1, rounds + 1):
        for name in SYSTEMS:
            seconds, count = timed_and_counted(system_work(name, messages), seed)
            times[name].append(seconds * 1e6 / messages)
            counts[name].append(count)
    first = next(iter(times.values()))
    return {
        name: SystemCost(
            Spread.of(us),
            Spread.of([a / b for a, b in zip(us, first, strict=True)]),
            statistics.median(counts[name]) / messages,
        )
        for name, us in times.items()
    }


def timed_and_counted(config: Config, seed: int) -> tuple[float, int]:
    """CPU time (s) of one run, and what its agenda numbered."""
    simulation = Simulation(config, seed, 0)
    first = next(simulation.world._eid)
    seconds = cpu_seconds(simulation.run)
    return seconds, next(simulation.world._eid) - first - 1


# -- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Events:
    """Events of W on the agenda: per message, per second of CPU time, and as a share of what a bare heap does.

    A share of 1 would mean that the model itself costs nothing.
    """

    per_message: float
    per_second: float
    share_of_heap: float


def events(messages: int, rounds: int) -> Events:
    """Count what the agenda numbered, and time as many pushes and pops of a heap of the same kind of entries."""
    counts, rates, shares = [], [], []
    for seed in range(1, rounds + 1):
        seconds, count = timed_and_counted(reference_work(messages), seed)
        counts.append(count)
        rates.append(count / seconds)
        shares.append(cpu_seconds(partial(bare_heap, count)) / seconds)
    return Events(statistics.median(counts) / messages, statistics.median(rates), statistics.median(shares))


def bare_heap(events: int, size: int = 16) -> None:
    """Pop the next entry and push another, `events` times: a simulation in which nothing happens.

    `size` entries, about as many as W has on its agenda.
    """
    chance = random.Random(1)
    gaps = [chance.expovariate(1.0) for _ in range(1024)]
    heap: list[tuple[float, int, int, None, tuple[()]]] = [
        (gap, 1, n, None, ()) for n, gap in enumerate(gaps[:size])
    ]
    heapify(heap)
    for number in range(events):
        now, _, _, _, _ = heappop(heap)
        heappush(heap, (now + gaps[number & 1023], 1, number, None, ()))


# -- memory --------------------------------------------------------------------------------------------------------


def ledger_bytes(ledger: Ledger) -> int:
    """Bytes that a ledger's columns and maps take, with the room that they keep for more."""
    books = [*ledger.channels.values()]
    pairs = [p for messages in books for p in messages.subscriptions.values()]
    return sum(size_of(value) for part in [*books, *pairs] for value in vars(part).values())


def size_of(value: Any) -> int:
    """Bytes of a container and of the numbers and containers in it; 0 for what a ledger only refers to."""
    if isinstance(value, array | bytearray | float | int):
        return sys.getsizeof(value)
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sys.getsizeof(value) + sum(map(size_of, value))
    return 0


def bytes_per_message(messages: int) -> float:
    """Of the whole ledger after a run of W."""
    run = simulate(reference_work(messages))
    return ledger_bytes(run.ledger) / messages
