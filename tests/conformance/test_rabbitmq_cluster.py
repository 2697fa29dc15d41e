"""R-22 to R-29 of the RabbitMQ sheet, for classic and quorum queues: what survives which crash, and what goes on.

`rabbitmq` says what happens when where nothing else is said: message i is sent at 0.1 (i + 1) s, every hop takes 1 ms,
nodes are 0.1 ms apart, the work takes 10 ms. A consumer that is not there yet leaves all in the queue: `absent`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest

from tests.conformance.builders import Story
from tests.conformance.rabbitmq import (
    HOP,
    QUORUM,
    at_once,
    books,
    deliveries,
    outcomes,
    rabbit,
    stored,
    told_after,
)

Z = 3.2905  # two-sided 99.9 % of the normal distribution
NODE_HOP = 0.0001  # s, one way
FSYNC = 0.001  # s
CHANNEL, COMMAND = 10e-6, 15e-6  # s: of a publisher's channel, and of a quorum queue's leader
FEW = 60e-6  # s: what the processes on the way take at most

CLASSIC: dict[str, Any] = {}
TYPES = pytest.mark.parametrize("queue", [CLASSIC, QUORUM], ids=["CQ", "QQ"])
ONCE = {"timeout": None, "attempts": 1}  # confirms, and no second try
PATIENT = {"timeout": None, "backoff": "1 s"}


def absent(until: float) -> dict[str, Any]:
    """The consumers come only then."""
    return {"crash": "billing", "at": 0, "lasting": until}


def cut(at: float, lasting: float, *nodes: int, apart: int = 1) -> list[dict[str, Any]]:
    """A partition of a node from others."""
    return [{"partition": f"orders.{apart} <-> orders.{i}", "at": at, "lasting": lasting} for i in nodes]


def first_after(told: Story, what: str, start: float) -> float:
    """How long after `start` (s) the first event of a kind came."""
    return next(event.time for event in told.events(what) if event.time > start) - start


def gap(told: Story, what: str, start: float, end: float) -> tuple[float, float]:
    """The longest time without an event of a kind, from one between those times (s)."""
    times = [time for time in told.times(what) if start <= time <= end]
    return max(pairwise(times), key=lambda pair: pair[1] - pair[0])


# -- who survives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "kind", "lost"),
    [
        (CLASSIC, "crash", {"transient_restart": 20}),
        (CLASSIC, "machine_crash", {"transient_restart": 20, "power_loss": 20}),
        (CLASSIC, "disk_loss", {"transient_restart": 20, "disk_loss": 20}),
        ({"durable": False}, "crash", {"transient_restart": 40}),
        (QUORUM, "crash", {}),
        (QUORUM, "machine_crash", {}),
        (QUORUM, "disk_loss", {"disk_loss": 40}),
    ],
)
def test_R22_who_survives_which_end_of_its_node(queue: dict[str, Any], kind: str, lost: dict[str, int]):
    told = rabbit(
        queue,
        {"messages": 20},
        producers={"persistent": {}, "transient": {"delivery_mode": "transient"}},
        faults=[absent(9), {kind: "orders", "at": 5, "lasting": 1}],
        duration=10,
    )
    assert outcomes(told) == ["confirmed"] * 40
    assert told.causes == {("lost", cause): count for cause, count in lost.items()}
    assert told["unique"] == told["processed"] == 40 - sum(lost.values())
    assert told["lost_confirmed"] == sum(lost.values())


@pytest.mark.parametrize(("disks", "lost"), [((1,), 0), ((2,), 0), ((2, 3), 0), ((1, 2), 20)])
def test_R22_a_quorum_queue_survives_the_loss_of_disks_while_its_leader_or_a_majority_is_left(
    disks: tuple[int, ...], lost: int
):
    losses = [{"disk_loss": f"orders.{i}", "at": 5, "lasting": 1} for i in disks]
    told = rabbit(QUORUM, {"messages": 20}, faults=[absent(9), *losses], duration=15)
    assert told["lost"] == told["lost_confirmed"] == lost
    assert told["unique"] == 20 - lost


def test_R22_disks_lost_one_after_the_other_cost_nothing_once_a_replica_was_rebuilt():
    losses = [{"disk_loss": f"orders.{i}", "at": 5 * i, "lasting": 1} for i in (1, 2, 3)]
    told = rabbit(QUORUM, {"messages": 20}, faults=[absent(29), *losses], duration=30)
    assert told["unique"] == 20 and told["lost"] == 0


def test_R22_a_process_takes_with_it_what_it_had_not_flushed():
    crash = {"crash": "orders", "on": "orders.put #3", "lasting": 1}
    told = rabbit(CLASSIC, {"resend": ONCE}, faults=[absent(2.5), crash], duration=3)
    assert [i for i, outcome in enumerate(outcomes(told)) if outcome != "confirmed"] == [2]
    assert told.places()[:4] == ["unique", "unique", "lost", "unique"]
    assert stored(told)[:5] == [0, 1, 2, 0, 1]


# -- confirmed is not fsynced ----------------------------------------------------------------------------------


def lost_in_power_failure(queue: dict[str, Any], at: float) -> int:
    """Confirmed messages lost when the power fails everywhere at that time (s), at 10/s."""
    power = {"machine_crash": "orders", "at": at, "lasting": 1}
    told = rabbit(queue, faults=[absent(70), power], duration=65)
    assert told["lost"] == told["lost_confirmed"]
    return int(told["lost"])


def test_R23_power_loss_costs_what_was_confirmed_since_the_last_write_back():
    rate, period = 10, 30.0
    times = [
        31.05 + 3 * i for i in range(10)
    ]  # evenly over one period between two write-backs, at 30.1 and 60.2
    lost = [lost_in_power_failure(CLASSIC, at) for at in times]
    assert lost == [pytest.approx(rate * (at - 30.1), abs=2) for at in times]
    assert fmean(lost) == pytest.approx(rate * period / 2, rel=0.05)
    assert rate * (period - 3) < max(lost) <= rate * period
    assert lost_in_power_failure(QUORUM, times[-1]) == 0


@pytest.mark.parametrize(("queue", "revived"), [(CLASSIC, 100), (QUORUM, 0)], ids=["CQ", "QQ"])
def test_R23_acks_are_buffered_too_and_acked_messages_come_back(queue: dict[str, Any], revived: int):
    power = {
        "machine_crash": "orders",
        "at": 50,
        "lasting": 1,
    }  # messages are on the disk since 30 s, acks are not
    told = rabbit(queue, {"messages": 100}, faults=[absent(35), power], duration=60)
    assert told["unique"] == 100 and told["lost"] == 0
    assert told.causes.get(("duplicate", "ack_revived"), 0) == told["duplicates"] == revived


# -- the node of a classic queue is down -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("crash", 0), ("machine_crash", 50), ("disk_loss", 50)],
    ids=["process", "power", "disk"],
)
def test_R24_while_its_node_is_down_a_classic_queue_takes_nothing_and_the_clients_elsewhere_know(
    kind: str, lost: int
):
    told = rabbit(
        {"nodes": 2},
        {"node": 2, "resend": ONCE},
        {"node": 2},
        faults=[absent(9), {kind: "orders.1", "at": 5.05, "lasting": 3}],
        duration=20,
    )
    down = range(50, 80)
    assert [i for i, outcome in enumerate(outcomes(told)) if outcome == "failed"] == [*down]
    assert told.causes[("lost", "queue_down")] == len(down)
    assert told["lost_confirmed"] == lost
    assert told["unique"] == 200 - len(down) - lost


@pytest.mark.parametrize("kind", ["crash", "machine_crash"])
def test_R24_a_process_that_dies_resets_connections_and_a_silent_machine_keeps_publishers_waiting(kind: str):
    told = rabbit(
        {"nodes": 2},
        {"node": 2, "resend": ONCE},
        faults=[{kind: "orders.1", "at": 5.05, "lasting": 100}],
        duration=100,
    )
    nacked_at = told.times("failed")
    if kind == "crash":
        assert nacked_at[0] == pytest.approx(5.1 + 2 * HOP, abs=FEW)
    else:  # the net tick: 45 to 75 s
        assert 45 <= nacked_at[0] - 5.05 <= 75
        assert nacked_at.count(nacked_at[0]) == math.floor(
            10 * (nacked_at[0] - 5.05)
        )  # all that waited, at once


def test_R24_without_confirms_publishes_to_a_queue_that_is_down_are_lost_silently():
    crash = {"crash": "orders.1", "at": 5.05, "lasting": 3}
    told = rabbit({"nodes": 2}, {"node": 2, "resend": None}, {"node": 2}, faults=[crash], duration=10)
    assert told.causes[("lost", "queue_down")] == 30
    assert told["confirmed"] == told["failed"] == 0


@pytest.mark.parametrize("node", [1, 2])
@pytest.mark.parametrize("kind", ["crash", "machine_crash"])
def test_R24_consumers_there_and_elsewhere_go_on_afterwards_with_a_full_window(kind: str, node: int):
    told = rabbit(
        {"nodes": node},
        {"node": node, "resend": PATIENT},
        {"node": node, "prefetch": 1, "service_time": "80 ms"},
        faults=[{kind: "orders.leader", "at": 5.05, "lasting": 3}],
        duration=20,
    )
    assert told["unique"] == 200
    assert told["in_flight"] == told["lost"] == 0


# -- a commit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 3, 5])
@pytest.mark.parametrize("fsync", [FSYNC, 4 * FSYNC])
@pytest.mark.parametrize("delay", [0.0, 0.001])
def test_R25_a_confirm_waits_for_a_majority_of_disks(members: int, fsync: float, delay: float):
    group = {"queue_type": "quorum", "nodes": members, "initial_group_size": members}
    told = rabbit({**group, "node_delay": delay, "fsync": fsync})
    commit = fsync + (2 * delay if members > 1 else 0.0)
    assert told_after(told) == [pytest.approx(2 * HOP + commit, abs=FEW)] * 5
    assert told.times("sent") == [pytest.approx(0.1 * (i + 1) + HOP + commit, abs=FEW) for i in range(5)]


@pytest.mark.parametrize("node", [1, 2])
def test_R25_a_commit_begins_behind_the_channel_and_its_answer_leaves_behind_the_leader(node: int):
    told = rabbit(QUORUM, {"node": node}, faults=[absent(1e6)])
    on_the_way = 2 * HOP + 2 * NODE_HOP * node  # to a follower and, from node 2, to the leader
    assert told_after(told) == pytest.approx([on_the_way + CHANNEL + FSYNC + COMMAND] * 5, abs=1e-6)


@pytest.mark.parametrize("node", [1, 2])
def test_R25_the_leader_spends_its_time_on_commands_and_not_on_deliveries(node: int):
    # given 50 publishes of one instant, on each of which the leader spends 2 ms, and no acks yet
    n, command = 50, 0.002
    told = rabbit(
        {**QUORUM, "cpu_per_message": command},
        {**at_once(n), "node": node},
        {"node": node, "prefetch": n, "service_time": 10},
        messages=n,
    )
    # then confirms and deliveries, to whatever node, are 2 ms apart
    for what in ("confirmed", "delivered"):
        times = [time for time in told.times(what) if time < 1]
        steps = [b - a for a, b in pairwise(times)]
        assert len(times) == n and steps == pytest.approx([command] * (n - 1), abs=1e-6)


@pytest.mark.parametrize("mode", ["persistent", "transient"])
def test_R25_the_delivery_mode_makes_no_difference_to_a_quorum_queue(mode: str):
    told = rabbit(QUORUM, {"delivery_mode": mode})
    assert told_after(told) == [pytest.approx(2 * (HOP + NODE_HOP) + FSYNC, abs=FEW)] * 5


@pytest.mark.parametrize(("members", "factor", "deviation"), [(3, 5 / 6, 0.601), (5, 47 / 60, 0.463)])
def test_R25_with_random_disks_the_majority_takes_an_order_statistic(
    members: int, factor: float, deviation: float
):
    group = {"queue_type": "quorum", "nodes": members, "initial_group_size": members, "node_delay": 0}
    n, s = 2000, 0.01
    arrivals = {"arrivals": {"deterministic": "4/s"}}
    told = rabbit({**group, "fsync": {"exponential": s}}, arrivals, faults=[absent(1e6)], messages=n)
    assert fmean(told_after(told)) - 2 * HOP == pytest.approx(
        factor * s, abs=Z * deviation * s / math.sqrt(n) + FEW
    )


def test_R25_an_fsync_covers_what_gathered_during_the_last():
    s, n = 0.01, 997  # a disk that is always busy: wait for the fsync that runs, then for one's own
    arrivals = {"arrivals": {"deterministic": "997/s"}}
    told = rabbit({**QUORUM, "node_delay": 0, "fsync": s}, arrivals, faults=[absent(1e6)], messages=n)
    commits = [after - 2 * HOP for after in told_after(told)[50:]]  # the first ones wait for the connection
    assert s <= min(commits) and max(commits) <= 2 * s + 0.001  # up to 10 per batch, 15 us each
    assert fmean(commits) == pytest.approx(1.5 * s, rel=0.03)


@pytest.mark.parametrize(
    ("slow", "commit"),
    [
        ((1,), 0.002 + 2 * NODE_HOP),
        ((2,), 0.002 + 2 * NODE_HOP),
        ((1, 2), 0.02),
        ((2, 3), 0.02 + 2 * NODE_HOP),
    ],
)
def test_R25_a_minority_of_slow_disks_makes_no_difference(slow: tuple[int, ...], commit: float):
    faults = [{"slow": f"orders.{i}", "at": 0, "factor": 10} for i in slow]
    told = rabbit({**QUORUM, "fsync": 0.002}, faults=faults, duration=1)
    assert told_after(told)[:9] == [pytest.approx(2 * HOP + commit, abs=FEW)] * 9


# -- the leader is lost ----------------------------------------------------------------------------------------


def pause(kind: str, seed: int) -> float:
    """How long nothing commits after the leader's node has died (s)."""
    crash = {kind: "orders.leader", "at": 1.05, "lasting": 30}
    arrivals = {"deterministic": "10/s" if kind == "crash" else "2/s"}
    told = rabbit(
        QUORUM,
        {"node": 2, "arrivals": arrivals},
        {"node": 3},
        faults=[crash],
        seed=seed,
        duration=2 if kind == "crash" else 13,
    )
    assert told["lost"] == told["duplicates"] == 0
    return first_after(told, "stored", 1.05)


@pytest.mark.parametrize(
    ("kind", "low", "high", "mean", "deviation"),
    [
        # The first of two followers to stand: 0.1 + min U(0, 0.5); and 5 + min (U(0, 5) + U(0, 1)).
        ("crash", 0.1, 0.6, 0.1 + 0.5 / 3, 0.5 / math.sqrt(18)),
        ("machine_crash", 5.0, 11.0, 7.1507, 1.21),
    ],
)
def test_R26_the_pause_until_a_follower_leads(
    kind: str, low: float, high: float, mean: float, deviation: float
):
    pauses = [pause(kind, seed) for seed in range(60)]
    voting = 0.005  # two rounds of votes, one of them repeated now and then, and a commit
    assert low <= min(pauses) and max(pauses) <= high + voting
    assert fmean(pauses) == pytest.approx(mean, abs=Z * deviation / math.sqrt(60) + voting)
    assert max(pauses) - min(pauses) > 0.5 * (high - low)


@pytest.mark.parametrize(
    ("kind", "lasting"), [("crash", 0.05), ("crash", 2), ("machine_crash", 0.05), ("disk_loss", 15)]
)
def test_R26_channels_on_live_nodes_keep_what_is_pending_and_nobody_publishes_again(
    kind: str, lasting: float
):
    arrivals = {"arrivals": {"deterministic": "200/s"}, "node": 2}
    crash = {kind: "orders.leader", "at": 2.0012, "lasting": lasting}
    told = rabbit(QUORUM, arrivals, {"node": 3, "service_time": "1 ms"}, faults=[crash], duration=4)
    assert outcomes(told) == ["confirmed"] * 800
    assert told.events("copy") == [] and told["duplicates"] == told["requeued"] == 0
    assert told["unique"] == 800
    assert max(told_after(told)) > 0.1  # late confirms


def test_R26_a_fan_out_is_confirmed_when_each_of_its_queues_has_a_new_leader():
    told = rabbit(
        {**QUORUM, "exchange": "fanout"},
        {"node": 2},
        services={"billing": {"node": 3}, "audit": {"node": 3}},
        # The first of two queues has message 2, the second has not, and both answers are lost.
        faults=[{"crash": "orders.1", "on": "orders.put #5", "lasting": 2}],
        duration=3,
    )
    assert outcomes(told) == ["confirmed"] * 30
    assert told["unique"] == 60 and told.events("copy") == [] and told["duplicates"] == 0
    assert 0.1 < told_after(told)[2] < 1


def test_R26_a_quorum_queue_forgets_what_its_publishers_node_took_with_it():
    crash = {"crash": "orders.2", "at": 1.00105, "lasting": 1}  # message 9 is between the nodes
    told = rabbit(
        {**QUORUM, "node_delay": 0.001}, {"node": 2, "resend": ONCE}, {"node": 3}, faults=[crash], duration=4
    )
    assert told.places()[8:11] == ["unique", "lost", "unique"]
    assert told["in_flight"] == 0


def returned_at(
    node: int,
    kind: str = "crash",
    series: str = "4.3",
    lasting: float = 200,
    after: float = 20,
    **settings: Any,
) -> list[float]:
    """When the three deliveries of a consumer through that node came back after its death at 5.05 s."""
    told = rabbit(
        {**QUORUM, "series": series, "consumer_disconnected_timeout": after},
        {"node": 2 if node == 1 else 1},
        {"node": node, "prefetch": 3, "service_time": "100 s"},
        faults=[{kind: f"orders.{node}", "at": 5.05, "lasting": lasting}],
        duration=60,
        drain_limit=1,
        **settings,
    )
    assert told.order("requeue") == [0, 1, 2]
    return [time - 5.05 for time in told.times("requeue")]


def test_R26_what_a_consumer_held_through_a_dead_node_returns_after_the_disconnected_timeout():
    assert (
        returned_at(node=2, after=20) == [pytest.approx(20, abs=0.01)] * 3
    )  # the leader's node is told by a reset
    assert returned_at(node=2, after=40) == [pytest.approx(40, abs=0.01)] * 3
    elected = returned_at(node=1, after=20)[0] - 20  # by the next leader
    assert 0.1 <= elected <= 0.61
    suspected = returned_at(node=2, kind="machine_crash", after=20)[0] - 20
    assert 5 <= suspected <= 10.01


@pytest.mark.parametrize("node", [1, 2])
def test_R26_or_when_the_node_is_back_or_at_once_in_4_2(node: int):
    back = returned_at(node, lasting=8)
    assert back == [pytest.approx(8, abs=1.01)] * 3 and back[0] > 8
    assert returned_at(node, series="4.2")[0] <= 0.61


def test_R26_a_consumer_behind_a_cut_goes_on_after_it():
    told = rabbit(
        {**QUORUM, "consumer_disconnected_timeout": 20},
        {"node": 1, "messages": 1000},
        {"node": 2, "prefetch": 5},
        faults=cut(5.05, 100, 2),  # the leader and the consumer's node; node 3 sees both
        duration=110,
    )
    returned = told.times("requeue")
    assert len(returned) == 5 and 5 + 20 <= returned[0] - 5.05 <= 10 + 20.01
    assert told["unique"] == 1000 and told["lost"] == told["in_flight"] == 0
    assert not [time for time in told.times("sent") if 11 < time - 5.05 < 100]


def test_R26_what_an_old_leader_sent_into_a_cut_is_not_delivered_twice():
    told = rabbit(
        QUORUM,
        {"node": 1, "messages": 200},
        {"node": 3, "prefetch": 20},
        # Deliveries of a second from node 1 to node 3 wait in the cut; node 2, which has all, leads next.
        faults=[*cut(5.05, 20, 3), *cut(6.05, 19, 2)],
        duration=40,
    )
    before, after = gap(told, "delivered", 0, 16)
    assert before < 5.05 + 0.2 and 10 < after < 18
    assert deliveries(told) == [1] * 200
    assert told["unique"] == 200 and told["requeued"] == 0


# -- no majority -----------------------------------------------------------------------------------------------


def test_R27_one_of_three_nodes_down_changes_nothing():
    told = rabbit(QUORUM, faults=[{"crash": "orders.2", "at": 2.05, "lasting": 5}], duration=10)
    assert max(told_after(told)) <= 2 * HOP + 2 * NODE_HOP + FSYNC + FEW


@pytest.mark.parametrize("kind", ["crash", "machine_crash"])
def test_R27_without_a_majority_nothing_commits_and_nothing_is_lost(kind: str):
    down = [{kind: f"orders.{i}", "at": 2.05, "lasting": 10} for i in (2, 3)]
    told = rabbit(QUORUM, None, {"service_time": "20 ms"}, faults=down, duration=15)
    for what in ("stored", "confirmed", "sent"):
        before, after = gap(told, what, 0, 15)
        assert before < 2.05 and 12.05 <= after < 14
    assert outcomes(told) == ["confirmed"] * 150 and told.events("copy") == []
    assert told["unique"] == 150 and told["duplicates"] == told["requeued"] == 0


def test_R27_acks_do_not_commit_either():
    down = [{"crash": f"orders.{i}", "at": 1.05, "lasting": 10} for i in (2, 3)]
    told = rabbit(
        QUORUM, {"messages": 20}, {"prefetch": 2, "service_time": "300 ms"}, faults=down, duration=12
    )
    before, after = gap(told, "started", 0, 13)
    assert before < 1.05 + 2 * 0.3 and after > 11.05  # two in hand, and no room for more
    assert told["unique"] == 20 and told["duplicates"] == 0


@pytest.mark.parametrize("lasting", [20, 100])
def test_R27_the_minority_side_stalls_while_the_majority_goes_on(lasting: int):
    sides = {"minority": {"node": 1}, "majority": {"node": 2}}
    told = rabbit(
        QUORUM,
        {"messages": 300},
        {"node": 3},
        producers=sides,
        faults=cut(5.05, lasting, 2, 3),
        duration=lasting + 6,
    )
    messages, waits = books(told), told_after(told)
    cut_off = [i for i in range(len(messages)) if 5.05 < messages.created[i] < 25.05]
    assert max(waits[i] for i in cut_off if messages.producer[i] == 1) <= 11.01
    assert min(messages.told_at[i] for i in cut_off if messages.producer[i] == 0) >= 5.05 + lasting
    assert {*outcomes(told)} == {"confirmed"} and told.events("copy") == []
    assert told["unique"] == told["published"] and told["duplicates"] == told["requeued"] == 0


# -- a partition of nodes --------------------------------------------------------------------------------------


def test_R28_in_4_3_classic_queues_go_on_where_they_live_and_the_other_side_cannot_use_them():
    sides = {"near": {"node": 1}, "far": {"node": 2}}
    told = rabbit({"nodes": 2}, {"resend": ONCE}, producers=sides, faults=cut(5.05, 100, 2), duration=120)
    producer, waits = books(told).producer, told_after(told)
    assert max(wait for i, wait in enumerate(waits) if producer[i] == 0) < 2 * HOP + 0.001
    nacked = [i for i, outcome in enumerate(outcomes(told)) if outcome == "failed"]
    assert all(producer[i] == 1 for i in nacked)
    assert len(nacked) == pytest.approx(10 * 100, abs=7)  # and until the nodes are connected again
    assert told.causes == {("lost", "queue_down"): len(nacked)}
    assert 45 <= told.times("failed")[0] - 5.05 <= 75
    assert told["lost_confirmed"] == 0


def test_R28_what_a_consumer_on_the_other_side_holds_returns_at_the_net_tick():
    told = rabbit({"nodes": 2}, None, {"node": 2, "prefetch": 5}, faults=cut(5.05, 100, 2), duration=110)
    returned = told.times("requeue")
    assert len(returned) == 5 and 45 <= returned[0] - 5.05 <= 75
    assert told["unique"] == 1100 and told["in_flight"] == 0


@pytest.mark.parametrize("series", ["4.3", "4.2"])
def test_R28_with_ignore_the_sides_stay_apart_until_one_is_restarted(series: str):
    # given a cut from 5 to 105 s, after which an operator restarts the queue's node, from 150 to 152 s
    told = rabbit(
        {"nodes": 2, "series": series},
        {"node": 2, "resend": ONCE},
        {"node": 1, "recovery_interval": 1},
        faults=[*cut(5.05, 100, 2), {"crash": "orders.1", "at": 150, "lasting": 2}],
        duration=160,
    )
    # then publishes on the other side are nacked until then: in 4.3 only until the nodes are connected again
    nacked = [time for time in told.times("failed") if time < 149.5]
    assert 50 <= nacked[0] <= 80.1 and told["lost_confirmed"] == 0
    assert nacked[-1] == pytest.approx(149.5 if series == "4.2" else 105.5, abs=0.6)
    assert max(told.times("confirmed")) == pytest.approx(160, abs=0.2)
    assert told["lost"] == told.causes[("lost", "queue_down")] == told["failed"]


def test_R28_with_ignore_consumers_cannot_use_the_other_side_either():
    told = rabbit({"nodes": 2, "series": "4.2"}, None, {"node": 2}, faults=cut(5.05, 100, 2), duration=150)
    assert max(told.times("delivered")) < 105 and told["in_flight"] > 900


@pytest.mark.parametrize("queue", [QUORUM, {"queue_type": "stream", "nodes": 3}], ids=["quorum", "stream"])
def test_R28_with_ignore_replicated_queues_go_on_after_a_cut(queue: dict[str, Any]):
    told = rabbit(
        {**queue, "series": "4.2"},
        {"node": 2},
        {"node": 3, "prefetch": 100, "offset": "first"},
        faults=cut(5.05, 100, 2, 3),
        duration=130,
    )
    assert told["unique"] == 1300 and told["in_flight"] == 0


def handled(handling: str, nodes: int, clients: int, lasting: float = 100) -> Story:
    """4.2: node 1, with the queue, is cut off at 5.05 s. `clients` publish there, as many persistent as transient."""
    sides = {f"near{i}": {"node": 1} for i in range(clients)}
    sides["transient"] = {"node": 1, "delivery_mode": "transient"}
    sides["far"] = {"node": 2}
    return rabbit(
        {"nodes": nodes, "series": "4.2", "cluster_partition_handling": handling},
        {"resend": PATIENT, "arrivals": {"deterministic": "2/s"}, "messages": 10},
        {"node": 1},
        producers={**sides, "probe": {"messages": 2 * int(lasting + 20)}},
        faults=[
            {"crash": "billing", "at": 0, "lasting": lasting + 19},
            *cut(5.05, lasting, *range(2, nodes + 1)),
        ],
        duration=lasting + 20,
    )


def test_R28_pause_minority_stops_the_cut_off_node_until_it_sees_the_others():
    told = handled("pause_minority", nodes=3, clients=2)
    paused, back = gap(told, "stored", 5, 119)
    assert 45 <= 1 + paused - 5.05 <= 76
    assert back - 105.05 == pytest.approx(1, abs=1.1)  # its next look, and a start
    # a clean stop keeps what is persistent, and drops what is transient.
    assert told.causes[("lost", "transient_restart")] == told["lost"] == 10
    assert told["in_flight"] == told["duplicates"] == 0


def test_R22_a_clean_stop_writes_what_had_not_been_flushed():
    pausing = {"nodes": 2, "series": "4.2", "cluster_partition_handling": "pause_minority"}
    told = rabbit(
        pausing, {"resend": None, "messages": 10}, faults=[absent(98), *cut(5.05, 80, 2)], duration=100
    )
    assert told["requeued"] == 0 and stored(told) == [*range(10)] * 2  # the second time after the pause
    assert told["unique"] == 10 and told["lost"] == 0


def test_R28_of_two_nodes_any_cut_pauses_both():
    told = handled("pause_minority", nodes=2, clients=1)
    in_pause = [event for event in told.events("confirmed") if 80.05 < event.time < 105.05]
    assert in_pause == []  # with three nodes the majority goes on to nack, with two nobody is there
    assert [event for event in told.events("failed") if 80.05 < event.time < 105.05] == []
    assert [
        e for e in handled("pause_minority", nodes=3, clients=1).events("failed") if 80.05 < e.time < 105.05
    ]


def test_R28_a_short_cut_pauses_nobody():
    told = handled("pause_minority", nodes=3, clients=2, lasting=40)
    assert told["lost"] == 0
    before, after = gap(told, "stored", 5, 59)
    assert after - before < 1


@pytest.mark.parametrize(("clients", "lost"), [(1, 10), (4, 0)])
def test_R28_autoheal_restarts_the_side_with_fewer_clients_after_the_cut(clients: int, lost: int):
    extra = {f"far{i}": {"node": 2, "messages": 1} for i in range(5)}
    told = rabbit(
        {"nodes": 2, "series": "4.2", "cluster_partition_handling": "autoheal"},
        {"resend": PATIENT, "arrivals": {"deterministic": "2/s"}, "messages": 10},
        producers={
            **{f"near{i}": {"node": 1} for i in range(clients)},
            "transient": {"node": 1, "delivery_mode": "transient"},
            "probe": {"node": 2, "messages": 240},
            **(extra if lost else {}),
        },
        faults=[absent(119), *cut(5.05, 100, 2)],
        duration=120,
    )
    assert told.causes.get(("lost", "transient_restart"), 0) == told["lost"] == lost
    before, after = gap(told, "stored", 105.5, 119)
    assert after - before == pytest.approx(
        10.7 if lost else 5.5, abs=0.6
    )  # a start, or a client that looks elsewhere


def test_R28_a_crash_is_no_partition_to_autoheal():
    told = rabbit(
        {"nodes": 2, "queue_node": 2, "series": "4.2", "cluster_partition_handling": "autoheal"},
        {"node": 1, "delivery_mode": "transient", "messages": 10},
        faults=[{"crash": "orders.1", "at": 5.05, "lasting": 2}, absent(18)],
        duration=20,
    )
    assert told["unique"] == 10 and told["lost"] == 0  # node 2, without clients then, has not been restarted


# -- the delivery limit ----------------------------------------------------------------------------------------

POISON = {"poison": 1.0}


@pytest.mark.parametrize(
    ("series", "answer", "limit", "delivered"),
    [
        ("4.3", "reject", 20, 21),
        ("4.2", "reject", 20, 21),
        ("4.2", "nack", 20, 21),
        ("4.3", "reject", 3, 4),
        ("4.3", "nack", 20, math.inf),
        ("4.3", "reject", None, math.inf),
    ],
)
def test_R29_a_poison_message_is_delivered_once_more_than_its_limit(
    series: str, answer: str, limit: int | None, delivered: float
):
    told = rabbit(
        {**QUORUM, "series": series, "delivery_limit": limit},
        None,
        {"failures": POISON, "negative_ack": answer},
        messages=1,
        drain_limit=2,
    )
    if delivered == math.inf:
        assert deliveries(told)[0] > 100 and told.places() == ["in_flight"]
    else:
        assert deliveries(told) == [delivered]
        assert told.causes == {("lost", "delivery_limit"): 1}


def test_R29_with_a_dead_letter_exchange_it_is_parked():
    told = rabbit(
        {**QUORUM, "dead_letter_exchange": "parking"},
        None,
        {"failures": POISON, "negative_ack": "reject"},
        messages=1,
    )
    assert told.causes == {("dead_lettered", "parked_delivery_limit"): 1} and deliveries(told) == [21]


def test_R29_a_classic_queue_has_no_limit():
    told = rabbit(CLASSIC, None, {"failures": POISON, "negative_ack": "reject"}, messages=1, drain_limit=2)
    assert deliveries(told)[0] > 100 and told["lost"] == 0


@pytest.mark.parametrize("prefetch", [1, 3, 5])
def test_R29_a_crashing_handler_takes_its_whole_window_with_it(prefetch: int):
    failures = {"poison": 0.05, "crashes": True, "restart": 1}
    told = rabbit(
        QUORUM, {"messages": 20}, {"failures": failures, "prefetch": prefetch}, faults=[absent(3)], duration=4
    )
    poison = 10
    assert deliveries(told) == [1] * poison + [21] * prefetch + [1] * (20 - poison - prefetch)
    assert told["lost"] == prefetch and told["processed"] == 20 - prefetch


# -- the same faults for both types (issue 4) ------------------------------------------------------------------------

CONSUMER_CRASH, PROCESS_CRASH, POWER_LOSS, PARTITION = 30.0123, 50.0123, 80.0123, 120.0123  # s
SCRIPT = [
    {"loss_burst": "* <-> *", "loss": 0.02, "at": 5, "every": 20, "lasting": 2},
    {"crash": "billing.1", "at": CONSUMER_CRASH, "lasting": 2},
    {"crash": "orders.leader", "at": PROCESS_CRASH, "lasting": 5},
    {"machine_crash": "orders.leader", "at": POWER_LOSS, "lasting": 20},
    {"partition": "orders.leader <-> *", "at": PARTITION, "lasting": 30},
]


@pytest.fixture(scope="module")
def under_faults() -> dict[str, Story]:
    """Quorum queues with persistent messages and classic queues with transient ones under the same script."""
    kinds = {"QQ": (QUORUM, "persistent"), "CQ": ({"nodes": 3}, "transient")}
    return {
        name: rabbit(
            queue,
            {"arrivals": "20/s", "resend": PATIENT, "delivery_mode": mode},
            {"prefetch": 5, "service_time": {"exponential": "40 ms"}},
            faults=SCRIPT,
            duration=200,
        )
        for name, (queue, mode) in kinds.items()
    }


def waiting(told: Story, at: float) -> set[int]:
    """Messages that were ready, and in no consumer's hands, at that time (s)."""
    by = {what: {e.message for e in told.events(what) if e.time < at} for what in ("stored", "sent")}
    return by["stored"] - by["sent"]


@pytest.mark.parametrize("name", ["QQ", "CQ"])
def test_every_fault_of_the_script_strikes_and_everything_is_confirmed(
    under_faults: dict[str, Story], name: str
):
    told = under_faults[name]
    assert told.outcome.inert == []
    assert told["confirmed"] == told["published"] > 3500
    assert told["in_flight"] == 0


def test_R25_R26_R27_quorum_queues_with_confirms_and_manual_acks_lose_nothing(under_faults: dict[str, Story]):
    told = under_faults["QQ"]
    assert told["lost"] == told["lost_confirmed"] == 0
    assert told["unique"] == told["published"]
    assert {cause for anomaly, cause in told.causes if anomaly == "duplicate"} <= {
        "channel_lost",
        "republish_in_doubt",
    }


def test_R22_R24_classic_queues_lose_their_transient_messages_with_each_restart(
    under_faults: dict[str, Story],
):
    told = under_faults["CQ"]
    lost = {i for i, place in enumerate(told.places()) if place == "lost"}
    ready = waiting(told, PROCESS_CRASH) | waiting(told, POWER_LOSS)
    sent = [(e.time, e.message) for e in told.events("sent")]
    on_the_wire = {
        m for time, m in sent for crash in (PROCESS_CRASH, POWER_LOSS) if 0 <= crash - time < 2 * HOP
    }
    assert ready <= lost <= ready | on_the_wire
    assert len(lost) == told["lost_confirmed"] > 0
    assert {cause for anomaly, cause in told.causes if anomaly == "lost"} == {"transient_restart"}


@pytest.mark.parametrize("name", ["QQ", "CQ"])
def test_R14_after_the_consumers_crash_exactly_its_unacked_window_returns(
    under_faults: dict[str, Story], name: str
):
    told = under_faults[name]
    sent, processed = (
        {e.message for e in told.events(what) if e.time < CONSUMER_CRASH} for what in ("sent", "processed")
    )
    returned = [e.message for e in told.events("requeue") if 0 <= e.time - CONSUMER_CRASH < 1]
    assert returned == sorted(sent - processed)
    assert 0 < len(returned) <= 5
