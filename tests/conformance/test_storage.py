"""Page cache and disk: N-13 of the sheet, and the rules of its section D that it rests on."""

from __future__ import annotations

from typing import Any

import pytest

from sim.distributions import Constant
from sim.storage import Disk, Journal
from tests.conformance.rig import Rig


class Store:
    """A process that keeps keys in a journal, and starts again from it."""

    def __init__(self, fsync: float = 0.01) -> None:
        self.rig = Rig()
        self.world, self.host = self.rig.world, self.rig.server
        self.disk = Disk(self.host, Constant(fsync))
        self.journal: Journal[Any] = Journal(self.disk)
        self.keys: list[Any] = []
        self.synced: list[tuple[float, bool, Any]] = []
        self.host.residents.append(self)

    def crashed(self, kind: str) -> None:
        self.survivors = self.journal.recover(kind)
        self.unsynced = self.journal.unsynced_additions()
        self.keys = []

    def restarted(self) -> None:
        self.keys = self.journal.recover("process")  # whatever is left

    def write(self, *keys: Any) -> None:
        for key in keys:
            self.journal.add(key)

    def sync(self, name: Any = None) -> None:
        self.journal.sync(lambda is_ok: self.synced.append((self.world.now, is_ok, name)))

    def after(self, kind: str) -> list[Any]:
        """The keys after a crash of that kind and a restart, a second from now."""
        self.rig.run_for(1.0)
        self.host.crash(kind)
        assert self.keys == []
        self.host.restart()
        assert self.keys == self.survivors, "what it was told would survive"
        return self.keys


@pytest.fixture
def store() -> Store:
    return Store()


def test_N13_a_process_crash_keeps_what_was_written(store):
    store.write("a", "b")
    assert store.after("process") == ["a", "b"]


def test_N13_a_power_loss_keeps_only_what_was_synced(store):
    store.write("a", "b")
    store.sync()
    store.rig.run_for(0.5)
    store.write("c")
    assert store.after("machine") == ["a", "b"]
    assert store.unsynced == ["c"]


def test_N13_an_fsync_under_way_at_the_power_loss_has_saved_nothing(store):
    store.rig.run_for(0.995)
    store.write("a")
    store.rig.after(0.995, store.sync)
    assert store.after("machine") == []
    store.rig.run_for(1.0)
    assert store.synced == [], "and nobody hears of it any more"


def test_N13_with_a_flush_every_F_a_power_loss_costs_lambda_F_over_2_on_average_and_at_most_lambda_F():
    rate, interval, losses = 100.0, 1.0, []
    for i in range(100):  # power losses at equal distances over one interval
        store = Store(fsync=0.0)
        for n in range(1000):
            store.world.call_at(n / rate, store.write, n)
        for n in range(1, 10):
            store.world.call_at(n * interval - 0.001, store.sync)
        store.world.run(until=5.0 + (i + 0.5) / 100 * interval)
        written = int(store.world.now * rate) + 1
        store.host.crash("machine")
        losses.append(written - len(store.survivors))
    assert sum(losses) / len(losses) == pytest.approx(rate * interval / 2, abs=1.0)
    assert max(losses) <= rate * interval


def test_D3_a_lost_disk_takes_everything(store):
    store.write("a")
    store.sync()
    assert store.after("disk") == []


@pytest.mark.parametrize("then, left", [("process", ["a", "b"]), ("machine", ["a"]), ("disk", [])])
def test_D_a_worse_crash_of_a_process_that_is_down_takes_what_it_takes(store, then, left):
    store.write("a")
    store.sync()
    store.rig.run_for(1.0)
    store.write("b")
    store.host.crash("process")
    store.host.crash(then)
    store.host.restart()
    assert store.keys == [], "it is down until both crashes are over"
    store.host.restart()
    assert store.keys == left


def test_D4_a_sync_is_heard_of_after_its_flush(store):
    store.write("a")
    store.sync()
    store.rig.run_for(1.0)
    assert store.synced == [(0.01, True, None)]


def test_D5_all_who_wait_share_the_next_flush(store):
    for i in range(10):
        store.rig.after(i * 0.001, store.write, i)
        store.rig.after(i * 0.001, store.sync, i)
    store.rig.run_for(1.0)
    assert store.disk.syncs == 2, "the first, and one for the nine who came meanwhile"
    assert store.synced == [(0.01, True, 0)] + [(0.02, True, i) for i in range(1, 10)]
    store.write(10)
    store.sync(10)
    store.rig.run_for(1.0)
    assert store.disk.syncs == 3


def test_D5_a_flush_saves_what_was_written_before_it_began_and_no_more(store):
    store.write("a")
    store.sync()
    store.rig.after(0.005, store.write, "b")
    assert store.after("machine") == ["a"]


def test_D6_a_failed_fsync_leaves_pages_that_count_as_clean_and_are_not_on_the_device(store):
    store.write("a")
    store.disk.start_failing()
    store.sync()
    store.rig.run_for(1.0)
    store.disk.stop_failing()
    assert store.synced == [(0.01, False, None)] and store.disk.failed == 1
    store.write("b")
    store.sync()
    store.rig.run_for(1.0)
    assert store.synced[1][1] is True
    assert store.journal.unsynced == 0, "no later fsync writes them"
    assert store.after("process") == ["a", "b"]
    assert store.after("machine") == ["b"]


def test_D6_a_removal_whose_fsync_failed_comes_back_after_a_power_loss_only(store):
    store.write("a")
    store.sync()
    store.rig.run_for(1.0)
    store.journal.remove("a")
    store.disk.start_failing()
    store.sync()
    assert store.after("process") == []
    assert store.after("machine") == ["a"]


def test_D6_overlapping_fsync_faults_end_with_the_last(store):
    store.disk.start_failing()
    store.disk.start_failing()
    store.disk.stop_failing()
    assert store.disk.is_failing
    store.disk.stop_failing()
    assert not store.disk.is_failing


def test_D8_recovery_gives_the_live_keys_in_the_order_in_which_they_were_added(store):
    store.write(5, 3)
    store.sync()
    store.rig.run_for(1.0)
    store.disk.start_failing()
    store.write(9)
    store.sync()
    store.rig.run_for(1.0)
    store.disk.stop_failing()
    store.write(1)
    store.sync()
    store.rig.run_for(1.0)
    store.write(7)
    store.journal.remove(3)
    store.write(3)  # added anew: behind all others
    assert store.after("process") == [5, 9, 1, 7, 3]
    assert store.after("machine") == [5, 3, 1]


def test_a_paused_process_hears_late_of_a_flush_that_is_done_in_time(store):
    store.write("a")
    store.sync()
    store.host.pause()
    store.rig.run_for(5.0)
    assert store.synced == []
    assert store.journal.unsynced == 0
    store.host.resume()
    assert store.synced == [(5.0, True, None)]


def test_a_slow_host_has_a_slow_disk(store):
    store.host.slow_down(10.0)
    store.sync()
    store.rig.run_for(1.0)
    assert store.synced == [(0.1, True, None)]
