"""The replicated log of quorum queues and streams: R-22, R-25 ... R-27, and what Raft promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.brokers.rabbitmq.mesh import Mesh
from sim.brokers.rabbitmq.replication import FORGET_EVERY, WINDOW, ReplicatedLog
from sim.distributions import Constant, Exponential
from sim.kernel import World
from sim.network import Host, Network, NetworkSettings
from sim.storage import Disk

RHO = 0.002  # round trip between nodes (s)
FSYNC = 0.01  # s
MARGIN = 1e-9


class PlainNode:
    """A node with nothing but what replication needs."""

    def __init__(self, network: Network, name: str, fsync: Any) -> None:
        self.name = name
        self.host: Host = network.host(name)
        self.disk = Disk(self.host, fsync)


class Group:
    """A log on nodes a, b, c ...; `applied` holds (time, command), `leaders` (time, name), `lost` what was lost."""

    def __init__(
        self, size: int = 3, fsync: Any = FSYNC, rho: float = RHO, seed: int = 1, is_stream: bool = False
    ):
        law = Constant(fsync) if isinstance(fsync, int | float) else fsync
        self.world = World(seed)
        self.network = Network(self.world, NetworkSettings(delay=Constant(rho / 2)))
        self.nodes = [PlainNode(self.network, name, law) for name in "abcdefg"[:size]]
        self.mesh = Mesh(self.network, self.nodes)
        self.applied: list[tuple[float, Any]] = []
        self.leaders: list[tuple[float, str | None]] = []
        self.lost: list[Any] = []
        self.log = ReplicatedLog(
            self.mesh,
            "queue",
            self.nodes,
            fsync=not is_stream,
            apply=lambda command: self.applied.append((self.world.now, command)),
            on_leader=lambda node: self.leaders.append((self.world.now, node and node.name)),
            on_lost=self._on_lost,
        )
        self.proposed = 0
        self.run_for(1.0)

    def _on_lost(self, commands: Any) -> None:
        self.lost.append(commands)
        if commands is None:
            self.applied = []
        elif commands:
            assert self.commands[-len(commands) :] == commands, "the newest are lost, in order"
            del self.applied[-len(commands) :]

    def run_for(self, seconds: float) -> None:
        self.world.run(until=self.world.now + seconds)

    def propose(self, count: int = 1) -> None:
        """Propose further commands (0,), (1,) ... now."""
        for _ in range(count):
            self.log.propose((self.proposed,))
            self.proposed += 1

    @property
    def commands(self) -> list[Any]:
        return [command for _, command in self.applied]

    @property
    def leader(self) -> str | None:
        return self.log.leader and self.log.leader.name

    def node(self, name: str) -> PlainNode:
        return next(node for node in self.nodes if node.name == name)

    def member(self, name: str) -> Any:
        return next(m for m in self.log.members if m.station.node.name == name)

    def crash(self, names: str, kind: str = "process") -> None:
        for name in names:
            self.node(name).host.crash(kind)

    def restart(self, names: str) -> None:
        for name in names:
            self.node(name).host.restart()

    def cut(self, a: str, b: str) -> list[Any]:
        paths = [p for x in a for y in b for p in self.network.between(f"{x} <-> {y}")]
        for path in paths:
            path.cut()
        return paths

    def mend(self, paths: list[Any]) -> None:
        for path in paths:
            path.mend()

    def in_log_of(self, name: str) -> list[Any]:
        return [command for _, command in self.member(name).entries if command is not None]


# -- commits (R-25) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, is_stream, expected",
    [
        (1, False, FSYNC),
        (2, False, FSYNC + RHO),
        (3, False, FSYNC + RHO),
        (4, False, FSYNC + RHO),
        (5, False, FSYNC + RHO),
        (1, True, 0.0),
        (3, True, RHO),
        (5, True, RHO),
    ],
)
def test_a_command_is_applied_when_a_majority_has_reported_it(size, is_stream, expected):
    group = Group(size, is_stream=is_stream)
    start = group.world.now
    group.propose()
    assert group.applied == [], "never within propose"
    group.run_for(1.0)
    assert group.applied == [(pytest.approx(start + expected), (0,))]


def test_the_leaders_fsync_is_one_of_the_majority_and_runs_in_parallel():
    group = Group(3)
    group.node("c").host.slow_down(10.0)
    group.node("a").host.slow_down(3.0)
    start = group.world.now
    group.propose()
    group.run_for(1.0)
    assert group.applied[0][0] == pytest.approx(start + 3 * FSYNC), (
        "a after 30 ms and b after 12, not c after 102"
    )
    group.node("a").host.slow_down(10.0)
    start = group.world.now
    group.propose()
    group.run_for(1.0)
    assert group.applied[1][0] == pytest.approx(start + 10 * FSYNC + RHO), "b and c, before the leader itself"


@pytest.mark.parametrize("size", [3, 5])
def test_with_exponential_fsyncs_a_commit_takes_an_order_statistic(size):
    """0.833 s and 0.783 s: the k-th of n exponentials has mean sum 1/j and variance sum 1/j^2, j = n - k + 1 ... n."""
    group = Group(size, fsync=Exponential(1.0), rho=0.0)
    count = 2000
    starts = []
    for _ in range(count):
        starts.append(group.world.now)
        group.propose()
        group.run_for(60.0)
    times = [time - start for (time, _), start in zip(group.applied, starts, strict=True)]
    parts = range(size - (size // 2 + 1) + 1, size + 1)
    mean, variance = sum(1 / j for j in parts), sum(1 / j**2 for j in parts)
    assert mean == pytest.approx({3: 0.8333, 5: 0.7833}[size], abs=1e-4)
    assert np.mean(times) == pytest.approx(mean, abs=4 * math.sqrt(variance / count))


def test_one_fsync_covers_what_gathered_during_the_last():
    group = Group(1)
    start = group.world.now
    group.propose()
    for part in (0.2, 0.5, 0.9):
        group.world.call_later(part * FSYNC, group.propose)
    group.run_for(1.0)
    assert [time - start for time, _ in group.applied] == pytest.approx(
        [FSYNC, 2 * FSYNC, 2 * FSYNC, 2 * FSYNC]
    )
    assert group.nodes[0].disk.syncs == 2


def test_commands_of_one_instant_cost_one_message_one_fsync_and_one_reply_per_follower():
    group = Group(3)
    sent = {path.name: path.sent for path in group.network.links}
    syncs = [node.disk.syncs for node in group.nodes]
    group.propose(100)
    group.run_for(1.0)
    assert len(group.applied) == 100
    assert len({time for time, _ in group.applied}) == 1
    more = {path.name: path.sent - sent[path.name] for path in group.network.links}
    assert [more[name] for name in ("a->b.nodes", "b->a.nodes", "a->c.nodes", "c->a.nodes")] == [1, 1, 1, 1]
    assert [node.disk.syncs - before for node, before in zip(group.nodes, syncs, strict=True)] == [1, 1, 1]


def test_a_leader_sends_on_without_waiting_for_replies():
    group = Group(3, is_stream=True, rho=0.2)
    start = group.world.now
    for i in range(10):
        group.world.call_later(0.01 * i, group.propose)
    group.run_for(1.0)
    assert [time - start for time, _ in group.applied] == pytest.approx([0.2 + 0.01 * i for i in range(10)])


def test_groups_of_a_node_share_its_write_ahead_log():
    group = Group(1)
    heard: list[float] = []
    other = ReplicatedLog(
        group.mesh,
        "other",
        group.nodes,
        fsync=True,
        apply=lambda command: heard.append(group.world.now),
        on_leader=lambda node: None,
        on_lost=lambda commands: None,
    )
    start = group.world.now
    group.propose()
    group.world.call_later(FSYNC / 2, other.propose, ("x",))
    group.run_for(1.0)
    assert heard == [pytest.approx(start + 2 * FSYNC)], "it waits for the other group's fsync"
    assert group.nodes[0].disk.syncs == 2


def test_a_failed_fsync_is_repeated_and_reports_nothing_meanwhile():
    group = Group(1)
    group.nodes[0].disk.start_failing()
    group.propose()
    group.run_for(5.0)
    assert group.applied == []
    group.nodes[0].disk.stop_failing()
    group.run_for(1.0)
    assert group.commands == [(0,)]


def test_a_command_that_is_proposed_by_what_is_applied_comes_behind_it():
    group = Group(3)
    group.log.apply = lambda command: (
        group.applied.append((group.world.now, command)),
        len(group.applied) < 5 and group.propose(),
    )
    start = group.world.now
    group.propose()
    group.run_for(1.0)
    assert group.commands == [(0,), (1,), (2,), (3,), (4,)]
    assert group.applied[-1][0] <= start + 5 * (FSYNC + RHO) + MARGIN


# -- leaders (R-26) ------------------------------------------------------------------------------------------------


def pause_after(group: Group, crash: Any) -> float:
    """Seconds without a leader after `crash()`."""
    start = group.world.now
    crash()
    group.leaders.clear()
    group.run_for(20.0)
    assert group.leaders, "somebody was elected"
    assert len(group.leaders) == 1, "once"
    return group.leaders[0][0] - start


@pytest.mark.parametrize("size", [3, 5])
def test_the_leaders_process_dies_and_another_leads_within_0_1_to_0_6_s(size):
    pauses = []
    for seed in range(60):
        group = Group(size, seed=seed)
        pauses.append(pause_after(group, lambda group=group: group.crash("a")))
        assert group.leader in "bcdef"
        group.propose()
        group.run_for(1.0)
        assert group.commands == [(0,)]
    trials = 2.5 * RHO  # the reset, and two rounds of votes
    assert min(pauses) >= 0.1
    assert max(pauses) < 0.6 + trials + MARGIN
    # The first of n - 1 uniform draws on (0.1, 0.6): mean 0.1 + 0.5 / n, its variance below that of a uniform.
    bound = 4 * math.sqrt(0.25 / 12 / len(pauses))
    assert np.mean(pauses) == pytest.approx(0.1 + 0.5 / size + trials, abs=bound)


def first_of(observers: int) -> tuple[float, float]:
    """Mean and variance of the least of so many independent U(0, 5) + 5 + U(0, 1)."""
    x = np.linspace(0.0, 6.0, 60_001)
    above = np.where(x < 1, 1 - x**2 / 10, np.where(x < 5, (5.5 - x) / 5, (6 - x) ** 2 / 10)) ** observers
    mean = float(np.trapezoid(above, x))
    return 5 + mean, 2 * float(np.trapezoid(x * above, x)) - mean**2


@pytest.mark.parametrize("size", [3, 5])
def test_a_silent_leader_is_replaced_by_the_first_follower_that_is_sure(size):
    pauses = []
    for seed in range(100):
        group = Group(size, seed=seed)
        pauses.append(pause_after(group, lambda group=group: group.crash("a", "machine")))
    assert min(pauses) >= 5.0
    assert max(pauses) < 11.0 + 3 * RHO
    mean, variance = first_of(size - 1)
    assert np.mean(pauses) == pytest.approx(mean + 2 * RHO, abs=4 * math.sqrt(variance / len(pauses)))


def test_one_observer_takes_5_to_11_s_8_on_average():
    """Only b may lead: c lacks an entry. So nothing but b's own detector counts."""
    pauses = []
    for seed in range(150):
        group = Group(3, seed=seed)
        group.cut("a", "c")
        group.propose()
        group.run_for(0.05)
        assert group.commands == [(0,)]
        pauses.append(pause_after(group, lambda group=group: group.crash("a", "machine")))
        assert group.leader == "b"
    mean, variance = first_of(1)
    assert mean == pytest.approx(8.0, abs=1e-6)
    assert min(pauses) >= 5.0
    assert max(pauses) < 11.0 + 3 * RHO
    assert np.mean(pauses) == pytest.approx(8.0 + 2 * RHO, abs=4 * math.sqrt(variance / len(pauses)))


def test_a_leader_that_is_cut_off_is_replaced_and_its_uncommitted_end_vanishes():
    group = Group(3)
    group.propose()
    group.run_for(1.0)
    start = group.world.now
    paths = group.cut("a", "bc")
    group.propose(5)
    group.run_for(4.9)
    assert group.leader == "a" and len(group.applied) == 1
    assert group.log.uncommitted() == [(i,) for i in range(1, 6)]
    assert not group.log.has_majority()
    group.run_for(8.0)
    assert group.leader in "bc" and group.log.has_majority()
    assert 5.0 <= group.leaders[-1][0] - start < 11.0 + 3 * RHO
    group.propose(3)  # (6,) to (8,), while a still takes itself to be the leader
    group.run_for(1.0)
    assert group.commands == [(0,), (6,), (7,), (8,)]
    assert group.in_log_of("a") == [(i,) for i in range(6)]
    group.mend(paths)
    group.run_for(30.0)
    assert group.in_log_of("a") == group.commands == [(0,), (6,), (7,), (8,)]
    assert group.leaders == [group.leaders[0]], "a healed member disturbs nobody"


@pytest.mark.parametrize("seconds", [3.0, 40.0])
def test_what_replaces_a_vanished_end_counts_once_it_is_fsynced_itself(seconds):
    """Of the old end, an fsync is over (3 s) or still under way (40 s) when it is replaced."""
    group = Group(3)
    group.node("a").host.slow_down(seconds / FSYNC)
    start = group.world.now
    paths = group.cut("a", "bc")
    group.propose(5)
    group.run_for(12.0)
    assert group.leader in "bc"
    if group.leader == "b":
        group.crash("c")
    else:
        group.crash("b")
    group.propose()
    group.mend(paths)
    while group.in_log_of("a") != [(5,)]:
        group.world.step()
    written = group.world.now
    assert written < start + 40.0
    group.run_for(100.0)
    assert group.commands == [(5,)]
    assert group.applied[0][0] >= (written + 3.0 if seconds == 3.0 else start + 2 * 40.0)


def test_the_fsync_of_a_vanished_end_does_not_make_durable_what_replaces_it():
    group = Group(3)
    paths = group.cut("a", "bc")
    group.propose(5)
    group.run_for(15.0)
    group.node("a").host.slow_down(1000.0)
    group.propose()
    group.mend(paths)
    while group.in_log_of("a") != [(5,)]:
        group.world.step()
    group.crash("a", "machine")
    assert group.in_log_of("a") == []


def test_hosts_that_nothing_befalls_may_be_steady():
    group = Group(3)
    group.network.nothing_fails()
    start = group.world.now
    group.propose()
    assert group.world.run_until_quiet(10.0)
    assert group.applied == [(pytest.approx(start + FSYNC + RHO), (0,))]


def test_what_reached_a_majority_of_logs_is_applied_by_the_next_leader():
    group = Group(3)
    group.propose()
    group.run_for(RHO)  # it is in the page caches of b and c, and fsynced nowhere
    group.crash("a")
    group.run_for(2.0)
    assert group.commands == [(0,)]


def test_a_paused_leader_comes_back_as_a_follower():
    group = Group(3)
    group.node("a").host.pause()
    group.run_for(15.0)
    assert group.leader in "bc"
    group.propose()
    group.run_for(1.0)
    group.node("a").host.resume()
    group.run_for(30.0)
    assert group.in_log_of("a") == group.commands == [(0,)]
    assert not group.member("a").is_leader
    assert len(group.leaders) == 1


def test_a_member_that_lacks_what_is_committed_is_not_elected():
    for seed in range(20):
        group = Group(3, seed=seed)
        group.crash("c")
        group.propose()
        group.run_for(1.0)
        group.crash("a")
        group.restart("c")
        group.run_for(5.0)
        assert group.leader == "b"
        assert group.commands == [(0,)]


def test_who_wins_an_old_election_late_is_not_the_leader():
    """The last vote for it may be on its way for long: by then there is a leader of a higher term."""
    group = Group(3)
    paths = group.cut("a", "bc")
    group.run_for(15.0)
    leader = group.leader
    assert leader in "bc"
    group.member("a").lead()  # of term 1, again
    assert group.leader == leader
    group.propose()
    group.mend(paths)
    group.run_for(30.0)
    assert group.leader == leader
    assert group.in_log_of("a") == group.commands == [(0,)]


def test_a_reset_of_connections_costs_no_leader():
    group = Group(3)
    group.propose()
    for connection in group.node("a").host.connections:
        connection.reset()
    group.propose()
    group.run_for(0.05)
    assert group.commands == []
    group.run_for(0.95)
    assert group.commands == [(0,), (1,)], "sent again over new connections"
    assert group.leaders == [] or group.leaders[-1][1] is not None


# -- majorities (R-27) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "machine"])
def test_without_a_majority_nothing_commits_until_one_is_back(kind):
    group = Group(3)
    group.propose()
    group.run_for(1.0)
    group.crash("bc", kind)
    group.propose(3)
    group.run_for(60.0)
    assert group.commands == [(0,)] and group.leader == "a" and not group.log.has_majority()
    group.restart("b")
    group.run_for(2.0)
    assert group.commands == [(0,), (1,), (2,), (3,)] and group.leader == "a"
    group.restart("c")
    group.run_for(2.0)
    assert group.in_log_of("c") == group.commands


def test_without_a_majority_nobody_is_elected_until_one_is_back():
    group = Group(3)
    group.propose()
    group.run_for(1.0)
    group.crash("ab")
    group.run_for(60.0)
    assert group.leader is None
    group.leaders.clear()
    start = group.world.now
    group.restart("a")
    group.run_for(3.0)
    assert len(group.leaders) == 1 and 0.1 < group.leaders[0][0] - start < 0.6 + 10 * RHO
    group.propose()
    group.run_for(1.0)
    assert group.commands == [(0,), (1,)]


def test_a_minority_stalls_while_the_majority_goes_on():
    group = Group(5)
    group.cut("ab", "cde")
    group.run_for(15.0)
    assert group.leader in "cde"
    group.propose(10)
    group.run_for(1.0)
    assert len(group.applied) == 10
    assert group.in_log_of("a") == group.in_log_of("b") == []


def test_a_world_without_a_majority_becomes_quiet():
    group = Group(3)
    group.crash("ab")
    assert group.world.run_until_quiet(1000.0)


def test_an_even_group_needs_more_than_half():
    group = Group(4)
    group.crash("cd")
    group.propose()
    group.run_for(10.0)
    assert group.commands == []
    group.restart("c")
    group.run_for(2.0)
    assert group.commands == [(0,)]


# -- what a crash takes (R-22, R-23) -------------------------------------------------------------------------------


def test_power_loss_of_all_nodes_keeps_what_is_committed():
    group = Group(3)
    group.propose(10)
    group.run_for(1.0)
    group.propose(5)
    group.run_for(RHO)  # sent and written, and not fsynced
    group.crash("abc", "machine")
    group.run_for(1.0)
    group.restart("abc")
    group.run_for(5.0)
    assert group.commands == [(i,) for i in range(10)]
    assert group.lost == []


@pytest.mark.parametrize("kind", ["process", "machine"])
@pytest.mark.parametrize("after", [1.0, 40.0])
def test_a_stream_keeps_what_was_written_or_only_what_was_written_back(kind, after):
    group = Group(3, is_stream=True)
    group.propose(10)
    group.run_for(after)
    assert len(group.applied) == 10
    group.crash("abc", kind)
    group.run_for(1.0)
    group.restart("abc")
    group.run_for(5.0)
    group.propose(2)
    group.run_for(1.0)
    if kind == "machine" and after < 30.0:
        assert group.lost == [[(i,) for i in range(10)]]
        assert group.commands == [(10,), (11,)]
    else:
        assert group.lost == []
        assert group.commands == [(i,) for i in range(12)]


def test_a_stream_loses_nothing_with_a_minority_of_page_caches():
    group = Group(3, is_stream=True)
    group.propose(10)
    group.run_for(1.0)
    group.crash("a", "machine")
    group.run_for(15.0)
    group.restart("a")
    group.run_for(5.0)
    assert group.lost == [] and group.in_log_of("a") == group.commands == [(i,) for i in range(10)]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_minority_of_lost_disks_is_filled_again(is_stream):
    group = Group(5, is_stream=is_stream)
    group.propose(10)
    group.run_for(1.0)
    group.crash("ab", "disk")
    group.run_for(15.0)
    group.propose()
    group.run_for(1.0)
    group.restart("ab")
    assert not group.member("a").has_vote
    group.run_for(5.0)
    assert group.lost == []
    for name in "abcde":
        assert group.in_log_of(name) == group.commands == [(i,) for i in range(11)]
        assert group.member(name).has_vote


def test_a_member_without_its_disk_elects_nobody_who_lacks_what_is_committed():
    for seed in range(20):
        group = Group(3, seed=seed)
        group.crash("c")
        group.propose()
        group.run_for(1.0)
        group.crash("ab")
        group.crash("b", "disk")
        group.restart("bbc")
        group.run_for(20.0)
        assert group.leader is None and group.commands == [(0,)]
        group.restart("a")
        group.run_for(5.0)
        assert group.leader == "a" and group.lost == []
        assert group.in_log_of("b") == group.in_log_of("c") == [(0,)]


@pytest.mark.parametrize("size, names", [(1, "a"), (2, "a"), (3, "ab"), (5, "abc")])
def test_a_majority_of_lost_disks_is_reported_and_the_log_goes_on_empty(size, names):
    group = Group(size)
    group.propose(10)
    group.run_for(1.0)
    group.crash(names, "disk")
    assert group.lost == [None]
    group.run_for(15.0)
    group.restart(names)
    group.run_for(5.0)
    group.propose(2)
    group.run_for(1.0)
    assert group.commands == [(10,), (11,)]
    for name in "abcde"[:size]:
        assert group.in_log_of(name) == group.commands


def test_a_leader_that_lives_copies_its_log_to_a_majority_of_empty_disks():
    group = Group(3)
    group.propose(10)
    group.run_for(1.0)
    group.crash("bc", "disk")
    group.run_for(1.0)
    group.restart("bc")
    group.propose()
    group.run_for(5.0)
    assert group.lost == [] and len(group.applied) == 11
    assert group.in_log_of("b") == group.commands


def test_a_snapshot_costs_work_for_each_of_its_entries():
    group = Group(3)
    group.log.snapshot_size = lambda: 100_000
    group.propose(10)
    group.run_for(1.0)
    group.crash("b", "disk")
    group.restart("b")
    start = group.world.now
    while not group.member("b").has_vote:
        group.world.step()
    assert 1.0 < group.world.now - start < 1.2 + FSYNC + 10 * RHO, "10 us each, after reconnecting"


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_all_have_on_disk_is_forgotten(is_stream):
    group = Group(3, is_stream=is_stream)
    for _ in range(100):
        group.propose(FORGET_EVERY // 4)
        group.run_for(1.0)
    limit = 2 * FORGET_EVERY + (30 * FORGET_EVERY // 4 if is_stream else 0)
    assert len(group.applied) == 25 * FORGET_EVERY
    for member in group.log.members:
        assert len(member.entries) <= limit
    assert len(group.log._history) <= limit


@pytest.mark.parametrize("kind", ["process", "disk"])
def test_a_member_that_is_far_behind_catches_up(kind):
    group = Group(3)
    group.crash("c", kind)
    for _ in range(40):
        group.propose(WINDOW // 8)
        group.run_for(1.0)
    group.restart("c")
    group.run_for(10.0)
    assert group.member("c").last == group.member("a").last == 5 * WINDOW
    group.crash("b")
    group.propose()
    group.run_for(5.0)
    assert len(group.applied) == 5 * WINDOW + 1


def test_a_follower_that_cannot_be_heard_holds_no_more_than_a_window():
    group = Group(3)
    group.cut("a", "c")
    for _ in range(10):
        group.propose(WINDOW // 2)
        group.run_for(0.1)
    waiting = sum(
        len(m[2][0].entries)
        for _, m in group.member("a").station.streams[group.member("c").station].hole.waiting
    )
    assert waiting == WINDOW


# -- the mesh ------------------------------------------------------------------------------------------------------


def test_a_mesh_delivers_in_order_and_reports_what_is_dropped():
    group = Group(2)
    a, b = group.nodes
    got: list[Any] = []
    dropped: list[Any] = []
    group.mesh.send(a, a, got.append, "at once")
    assert got == ["at once"]
    for i in range(3):
        group.mesh.send(a, b, got.append, i, dropped=dropped.append)
    group.mesh.send(a, b, got.append, "bare")
    assert [*group.mesh.on_their_way()] == [(0,), (1,), (2,)]
    group.run_for(RHO)
    assert got == ["at once", 0, 1, 2, "bare"] and dropped == []
    group.mesh.send(a, b, got.append, "late", dropped=dropped.append)
    group.mesh.send(a, b, got.append, "late as well")
    group.crash("b")
    group.run_for(1.0)
    assert dropped == ["late"] and [*group.mesh.on_their_way()] == []
    group.mesh.send(a, b, got.append, "to nobody", dropped=dropped.append)
    assert dropped == ["late", "to nobody"]
    assert not group.mesh.can_reach(a, b) and group.mesh.can_reach(a, a) and not group.mesh.can_reach(b, b)
    group.restart("b")
    group.run_for(2 * RHO)
    assert group.mesh.can_reach(a, b) and group.mesh.can_reach(b, a), "who starts looks for the others"


def test_a_silent_connection_breaks_after_the_net_tick_and_is_replaced_soon_after_the_cut():
    group = Group(2)
    a, b = group.nodes
    dropped: list[Any] = []
    start = group.world.now
    paths = group.cut("a", "b")
    group.mesh.send(a, b, dropped.append, "x", dropped=lambda x: dropped.append(group.world.now))
    group.run_for(100.0)
    assert 45.0 <= dropped[0] - start <= 75.0
    group.mend(paths)
    group.run_for(2.0 + 3 * RHO)
    assert group.mesh.can_reach(a, b)


def test_a_delay_of_its_own_between_nodes():
    group = Group(1)
    nodes = [*group.nodes, PlainNode(group.network, "z", Constant(FSYNC))]
    mesh = Mesh(group.network, nodes, Constant(0.5))
    group.run_for(2.0)
    got: list[float] = []
    start = group.world.now
    mesh.send(nodes[0], nodes[1], lambda x: got.append(group.world.now), 1)
    group.run_for(2.0)
    assert got == [pytest.approx(start + 0.5)]


# -- whatever happens ----------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
WAITS = st.sampled_from([0.0, RHO / 4, RHO, FSYNC / 2, FSYNC, 0.1, 0.3, 1.0, 4.0, 12.0])
STEPS = st.one_of(
    st.tuples(st.just("propose"), st.integers(1, 3)),
    st.tuples(st.just("process"), NAMES),
    st.tuples(st.just("machine"), NAMES),
    st.tuples(st.just("disk"), NAMES),
    st.tuples(st.just("restart"), NAMES),
    st.tuples(st.just("cut"), NAMES),
    st.tuples(st.just("mend"), NAMES),
    st.tuples(st.just("pause"), NAMES),
    st.tuples(st.just("resume"), NAMES),
    st.tuples(st.just("reset"), NAMES),
)


class Ordeal:
    """A group of three, and what is wrong with it at present."""

    def __init__(self, seed: int, is_stream: bool, kinds: tuple[str, ...]) -> None:
        self.group = Group(3, seed=seed, is_stream=is_stream)
        self.kinds = kinds
        self.down: dict[str, int] = dict.fromkeys("abc", 0)
        self.paused: dict[str, int] = dict.fromkeys("abc", 0)
        self.cuts: dict[str, list[Any]] = {}
        self.log: list[Any] = []

    def do(self, what: str, arg: Any) -> None:
        group = self.group
        if what == "propose":
            if group.log.leader is not None and group.log.leader.host.is_running:
                group.propose(arg)
        elif what == "restart":
            if self.down[arg]:
                self.down[arg] -= 1
                group.restart(arg)
        elif what == "cut":
            if arg not in self.cuts:
                self.cuts[arg] = group.cut(arg, "abc".replace(arg, ""))
        elif what == "mend":
            group.mend(self.cuts.pop(arg, []))
        elif what == "pause":
            self.paused[arg] += 1
            group.node(arg).host.pause()
        elif what == "resume":
            if self.paused[arg]:
                self.paused[arg] -= 1
                group.node(arg).host.resume()
        elif what == "reset":
            for connection in group.node(arg).host.connections:
                connection.reset()
        elif what in self.kinds and not (
            what == "disk" and any(not m.has_vote for m in group.log.members if m is not group.member(arg))
        ):
            self.down[arg] += 1
            group.crash(arg, what)

    def heal(self) -> None:
        for name in "abc":
            self.do("mend", name)
            while self.paused[name]:
                self.do("resume", name)
            while self.down[name]:
                self.do("restart", name)
        self.group.run_for(300.0)


def check_end(ordeal: Ordeal) -> None:
    """Healed, it has one leader, and all logs hold exactly what was applied, once and in order."""
    group = ordeal.group
    ordeal.heal()
    assert group.leader is not None
    group.propose()
    group.run_for(1.0)
    assert len(set(group.commands)) == len(group.commands)
    assert group.commands == sorted(group.commands), "in the order in which they were proposed"
    assert group.commands[-1] == (group.proposed - 1,)
    for name in "abc":
        assert group.in_log_of(name) == group.commands
        assert group.member(name).has_vote
    assert group.log.uncommitted() == []
    assert sum(m.is_leader for m in group.log.members) == 1
    assert group.world.run_until_quiet(group.world.now + 1000.0)


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.lists(st.tuples(STEPS, WAITS), max_size=30))
def test_a_quorum_queue_loses_nothing_that_was_applied(seed, steps):
    """Any crashes of processes and machines, one lost disk at a time, cuts, pauses and resets."""
    ordeal = Ordeal(seed, False, ("process", "machine", "disk"))
    so_far: list[Any] = []
    for (what, arg), wait in steps:
        ordeal.do(what, arg)
        ordeal.group.run_for(wait)
        assert ordeal.group.commands[: len(so_far)] == so_far
        so_far = ordeal.group.commands
    check_end(ordeal)
    assert ordeal.group.commands[: len(so_far)] == so_far
    assert ordeal.group.lost == []


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.lists(st.tuples(STEPS, WAITS), max_size=30))
def test_a_stream_loses_nothing_to_crashes_of_processes(seed, steps):
    ordeal = Ordeal(seed, True, ("process",))
    for (what, arg), wait in steps:
        ordeal.do(what, arg)
        ordeal.group.run_for(wait)
    check_end(ordeal)
    assert ordeal.group.lost == []


@settings(max_examples=100)
@given(st.integers(0, 10_000), st.lists(st.tuples(STEPS, WAITS), max_size=30))
def test_a_stream_reports_all_that_it_loses(seed, steps):
    """Crashes of machines take back what was applied: exactly that is reported."""
    ordeal = Ordeal(seed, True, ("process", "machine", "disk"))
    for (what, arg), wait in steps:
        ordeal.do(what, arg)
        ordeal.group.run_for(wait)
    check_end(ordeal)


def test_the_same_seed_gives_the_same_story():
    def story(seed: int) -> Any:
        group = Group(3, fsync=Exponential(FSYNC), seed=seed)
        for i in range(50):
            if group.leader:
                group.propose()
            group.run_for(0.1)
            if i == 20:
                group.crash("a")
        return group.applied, group.leaders

    assert story(3) == story(3) != story(4)
