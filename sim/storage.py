"""Page cache and disk: what survives which crash (sheet D).

A write goes to the page cache at once: it survives the crash of its process. A completed fsync puts it on the device:
it survives the machine. A lost disk takes everything. Fsync takes time, and all who wait for one share it (group
commit, D.5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from itertools import count
from typing import Any, Generic, TypeVar

from sim.distributions import Distribution
from sim.host import Host

K = TypeVar("K", bound=Hashable)


class Disk:
    """A host's disk. `fsync` is the time a flush takes (s).

    `syncs` counts flushes, `failed` those that a fault made fail (D.6).
    """

    def __init__(self, host: Host, fsync: Distribution) -> None:
        self.host = host
        self.syncs = 0
        self.failed = 0
        self.journals: list[Journal[Any]] = []
        self._faults = 0
        self._crashes = 0
        name = f"{host.name}.fsync" if not host.disks else f"{host.name}.fsync#{len(host.disks) + 1}"
        self._fsync_time = fsync.draws(host.world.stream(name))
        host.disks.append(self)

    @property
    def is_failing(self) -> bool:
        """Whether every fsync fails."""
        return self._faults > 0

    def fsync(self, done: Callable[[bool], Any], then: Callable[[bool], Any]) -> None:
        """Flush: `done(is_ok)` settles what is on the device, and the process hears `then(is_ok)` of it.

        A crash that comes first ends the flush. A paused process hears of it late.
        """
        self.syncs += 1
        host = self.host
        if host.slowness != 1.0:
            host.slowed += 1
        host.world.call_later(self._fsync_time() * host.slowness, self._flushed, self._crashes, done, then)

    def _flushed(self, crashes: int, done: Callable[[bool], Any], then: Callable[[bool], Any]) -> None:
        if crashes != self._crashes:
            return
        is_ok = not self.is_failing
        if not is_ok:
            self.failed += 1
        done(is_ok)
        self.host.tell(then, is_ok)

    # -- verbs of faults ---------------------------------------------------------------------------------------

    def crashed(self, kind: str) -> int:
        """The host has crashed (kinds as in `Host.crash`); returns how many records that cost."""
        self._crashes += 1
        return sum(journal.crashed(kind) for journal in self.journals)

    def start_failing(self) -> None:
        """Let every fsync fail."""
        self._faults += 1

    def stop_failing(self) -> None:
        """Undo one `start_failing`."""
        self._faults -= 1


class Journal(Generic[K]):
    """An append-only file of additions and removals of keys; reading it back gives the live ones, in order.

    `add` and `remove` write to the page cache, as `write` does for many keys at once. `sync(then, *args)` calls
    `then(is_ok, *args)` once everything written before is on the device.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._on_device: dict[K, int] = {}  # live keys, and the number of the record that made each so
        self._dirty: list[K] = []  # records in the page cache: their keys,
        self._dirty_is_live: list[bool] = []  # and whether each is live from there on
        self._marked_clean: dict[K, tuple[bool, int]] = {}
        self._waiting: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._is_syncing = False
        self._settled = 0  # records that are not dirty any more: the number of the first that is
        disk.journals.append(self)

    def add(self, key: K) -> None:
        """Write that a key is live."""
        self.write((key,), ())

    def remove(self, key: K) -> None:
        """Write that a key is done with."""
        self.write((), (key,))

    def write(self, added: Collection[K], removed: Collection[K]) -> None:
        """Write that some keys are live, then that others are done with."""
        self._dirty.extend(added)
        self._dirty.extend(removed)
        self._dirty_is_live.extend([True] * len(added) + [False] * len(removed))

    def rename(self, old: K, new: K) -> None:
        """A key goes by another name from now on, on the device and in the page cache; nothing is written."""
        if old in self._on_device:
            self._on_device[new] = self._on_device.pop(old)
        if old in self._marked_clean:
            self._marked_clean[new] = self._marked_clean.pop(old)
        if old in self._dirty:
            self._dirty = [new if key == old else key for key in self._dirty]

    @property
    def unsynced(self) -> int:
        """Records in the page cache that wait for an fsync."""
        return len(self._dirty)

    def sync(self, then: Callable[..., Any], *args: Any) -> None:
        """Call `then(is_ok, *args)` when what is written now has been flushed, or could not be."""
        self._waiting.append((then, args))
        if not self._is_syncing:
            self._start()

    def _start(self) -> None:
        """Flush for all who wait; who comes later shares the next flush."""
        self._is_syncing = True
        waiting, self._waiting = self._waiting, []
        written = len(self._dirty)

        def done(is_ok: bool) -> None:
            self._is_syncing = False
            self._settle(written, is_ok)
            if self._waiting:
                self._start()

        def tell(is_ok: bool) -> None:
            for then, args in waiting:
                then(is_ok, *args)

        self.disk.fsync(done, tell)

    def _settle(self, records: int, is_ok: bool) -> None:
        """The oldest records are not dirty any more. After a failed fsync their pages count as clean and are not on
        the device: no later fsync writes them (Rebello et al. 2020)."""
        on_device, marked_clean = self._on_device, self._marked_clean
        for number, key, is_live in self._records(records):
            if marked_clean:
                marked_clean.pop(key, None)
            if not is_ok:
                if is_live or key in on_device:
                    marked_clean[key] = (is_live, number)
            elif is_live:
                on_device[key] = number
            else:
                on_device.pop(key, None)
        del self._dirty[:records], self._dirty_is_live[:records]
        self._settled += records

    def _records(self, n: int) -> Iterator[tuple[int, K, bool]]:
        """The oldest dirty records, with their numbers."""
        return zip(count(self._settled), self._dirty[:n], self._dirty_is_live[:n], strict=False)

    def unsynced_additions(self) -> list[K]:
        """Keys whose addition the crash of the machine would undo."""
        live = self._read("process")
        return [key for key in live if key not in self._on_device]

    def recover(self, kind: str) -> list[K]:
        """The keys that are live after a crash of that kind (as in `Host.crash`), in the order of their additions."""
        live = self._read(kind)
        return sorted(live, key=live.__getitem__)

    def _read(self, kind: str) -> dict[K, int]:
        """Live keys and the numbers of their records."""
        if kind == "disk":
            return {}
        live = dict(self._on_device)
        if kind == "process":
            for key, (is_live, number) in self._marked_clean.items():
                _apply(live, key, is_live, number)
            for number, key, is_live in self._records(len(self._dirty)):
                _apply(live, key, is_live, number)
        return live

    def crashed(self, kind: str) -> int:
        """Nobody waits any more, and what a crash of that kind takes is gone; returns how many records that were."""
        self._waiting.clear()
        self._is_syncing = False
        if kind == "process":
            return 0
        lost = len(self._dirty) + len(self._marked_clean)
        self._dirty.clear()
        self._dirty_is_live.clear()
        self._marked_clean.clear()
        if kind == "disk":
            lost += len(self._on_device)
            self._on_device.clear()
        return lost


def _apply(live: dict[K, int], key: K, is_live: bool, number: int) -> None:
    if is_live:
        live[key] = number
    else:
        live.pop(key, None)
