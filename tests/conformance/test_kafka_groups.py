"""Apache Kafka, groups: behaviours K-33 to K-35 and K-44 of the sheet, with what it expects of them in numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from sim.brokers.kafka import classic
from sim.brokers.kafka.assignors import cooperative_sticky, range_, shared, sticky
from sim.brokers.kafka.consumer import Consumer
from sim.brokers.kafka.group import ILLEGAL_GENERATION, STALE_MEMBER_EPOCH
from tests.conformance.builders import Story
from tests.conformance.kafka import START, STEP, Driven, at, at_once, books, kafka

KEYS = {"number": 64}
HEARTBEAT, SESSION, HEARTBEAT_848 = 3.0, 45.0, 5.0
ROUND_TRIPS = 0.05  # seconds: more than all round trips of a rebalance
FETCH_WAIT = 0.5  # a fetch under way may keep others waiting so long

EAGER = {"partition_assignment_strategy": "range"}
COOPERATIVE = {"partition_assignment_strategy": "cooperative-sticky"}
KIP_848 = {"group_protocol": "consumer"}
PROTOCOLS = pytest.mark.parametrize(
    "protocol", [EAGER, COOPERATIVE, KIP_848], ids=["range", "cooperative-sticky", "KIP-848"]
)


class Name:
    """A member, for assignors."""

    def __init__(self, name: str) -> None:
        self.name = name


def longest_gap(times: list[float], since: float) -> tuple[float, float]:
    """The longest time without an event after that time, and when it ended (s)."""
    later = [since, *sorted(t for t in times if t > since)]
    return max((b - a, b) for a, b in pairwise(later))


# -- assignors ------------------------------------------------------------------------------------------------------


def test_range_gives_consecutive_partitions_in_the_order_of_names() -> None:
    b, a, c = Name("b"), Name("a"), Name("c")
    assert range_([b, a, c], [0, 1, 2, 3]) == {a: [0, 1], b: [2], c: [3]}
    assert range_([b, a, c], [0]) == {a: [0], b: [], c: []}


def test_sticky_moves_no_more_than_it_has_to() -> None:
    a, b, c = Name("a"), Name("b"), Name("c")
    before = {a: [0, 1, 2], b: [3, 4, 5]}
    after = sticky([a, b, c], list(range(6)), before)
    assert [after[a], after[b]] == [[0, 1], [3, 4]] and sorted(after[c]) == [2, 5]
    assert sticky([a], list(range(6)), before) == {a: list(range(6))}


def test_cooperative_sticky_gives_nobody_what_another_has_yet() -> None:
    a, b, c = Name("a"), Name("b"), Name("c")
    first = cooperative_sticky([a, b, c], list(range(6)), {a: [0, 1, 2], b: [3, 4, 5]})
    assert first == {a: [0, 1], b: [3, 4], c: []}
    second = cooperative_sticky([a, b, c], list(range(6)), first)
    assert sorted(second[c]) == [2, 5]


def test_a_share_group_leaves_nobody_idle() -> None:
    names = [Name(n) for n in "abcde"]
    many = shared(names, [0, 1])
    assert [len(many[n]) for n in names] == [1] * 5
    assert sorted(p for n in names[:2] for p in shared(names[:2], [0, 1, 2])[n]) == [0, 1, 2]


# -- K-33: a member is gone -----------------------------------------------------------------------------------------


def gone(fault: str, protocol: dict[str, Any], at: float = 30.0, **service: Any) -> Story:
    """Two members of a group, one of which ends then; records come all the time."""
    return kafka(
        channel={"partitions": 4},
        producer={"keys": KEYS},
        service={"consumers": 2, **protocol, **service},
        faults=[{fault: "billing.1", "at": at, "lasting": "200 s"}],
        messages=1000,
    )


def stall(told: Story, at: float = 30.0) -> float:
    """How long after that time the partitions of the member that is gone stood still (s)."""
    held = max(told.facts["billing"].processed - told.facts["billing"].created)
    return float(held) - 0.010 + STEP - 0.1 if held > 1 else float(held)


@PROTOCOLS
def test_K33_a_dead_members_partitions_stand_still_until_its_session_ends(protocol: dict[str, Any]) -> None:
    told = gone("crash", protocol)
    beat = HEARTBEAT_848 if protocol is KIP_848 else HEARTBEAT
    assert SESSION - beat - 0.5 < stall(told) < SESSION + 2 * beat + 1.0
    assert told["unique"] == 1000 and told["lost"] == 0
    assert told["duplicates"] <= 1


@PROTOCOLS
def test_K33_one_that_closes_leaves_at_once(protocol: dict[str, Any]) -> None:
    told = gone("stop", protocol)
    beat = HEARTBEAT_848 if protocol is KIP_848 else HEARTBEAT
    assert stall(told) < beat + FETCH_WAIT + 0.2
    assert told["unique"] == 1000 and told["duplicates"] == 0


def test_K33_redelivered_is_what_was_not_committed() -> None:
    """Position - committed, of each of its partitions; those that stay where they are lose nothing."""
    told = gone("crash", COOPERATIVE, at=33.33, commit_every=100)
    died = {e.message for e in told.events("delivered") if e.time < 33.33}
    again = {e.message for e in told.events("requeue")}
    assert again <= died
    assert 0 < told["duplicates"] <= 100 and told["lost"] == 0
    assert told.causes == {("duplicate", "offset_not_committed"): told["duplicates"]}


def test_K33_a_process_that_starts_again_waits_for_the_member_it_was() -> None:
    """Without a group.instance.id nobody knows that they are the same."""
    told = kafka(
        messages=800, faults=[{"crash": "billing.1", "at": 30.0, "lasting": "2 s"}], drain_limit="200 s"
    )
    gap, _ = longest_gap(told.times("processed"), 29.0)
    assert SESSION - HEARTBEAT - 0.5 < gap < SESSION + HEARTBEAT + 0.5
    assert told["unique"] == 800


def test_K33_a_paused_member_is_out_and_what_it_has_in_hand_is_done_twice() -> None:
    told = kafka(
        channel={"partitions": 2},
        producer={"keys": KEYS},
        service={"consumers": 2, "session_timeout": "10 s", "service_time": "150 ms"},
        faults=[{"pause": "billing.1", "at": 30.05, "lasting": "30 s"}],
        messages=800,
    )
    assert told["unique"] == 800 and told["lost"] == 0
    assert 1 <= told["duplicates"] <= 3
    assert {cause for _, cause in told.causes} <= {"offset_not_committed", "overtaken"}


def test_K33_a_member_that_cannot_reach_the_coordinator_is_replaced_and_comes_back() -> None:
    world = Driven(
        channel={"partitions": 2, "nodes": 3},
        service={"consumers": 2, "session_timeout": "10 s"},
        faults=[{"partition": "billing.1 <-> orders.1", "at": 20.0, "lasting": "40 s"}],
        duration="200 s",
    )
    world.run(until=19.0)
    assert [len(c.assigned) for c in world.broker.groups[0].clients] == [1, 1]
    world.run(until=55.0)
    assert len(world.broker.groups[0].members) == 1
    world.run(until=100.0)
    assert len(world.broker.groups[0].members) == 2
    assert [len(c.assigned) for c in world.broker.groups[0].clients] == [1, 1]


def test_K33_the_group_outlives_its_coordinator() -> None:
    """Members and offsets are in a log with three replicas: no rebalance, no record twice."""
    world = Driven(
        channel={"partitions": 2, "nodes": 3, "replication_factor": 3, "min_insync_replicas": 2},
        service={"consumers": 2},
        faults=[{"crash": "orders.1", "at": 20.0, "lasting": "30 s"}],
        duration="100 s",
    )
    world.run(until=19.0)
    group = world.broker.groups[0]
    generation, members = group.generation, list(group.members)
    world.run(until=99.0)
    assert group.generation == generation and list(group.members) == members


def test_K33_who_died_while_nobody_coordinated_is_missed_all_the_same() -> None:
    told = kafka(
        channel={"partitions": 2, "nodes": 3, "replication_factor": 3, "min_insync_replicas": 2},
        producer={"keys": KEYS},
        service={"consumers": 2},
        faults=[
            {"crash": "orders.1", "at": 20.0, "lasting": "300 s"},
            {"crash": "billing.2", "at": 22.0, "lasting": "300 s"},
        ],
        messages=1000,
    )
    assert told["unique"] == 1000
    gap = max(told.facts["billing"].processed - told.facts["billing"].created)
    assert (
        gap < 9.0 + SESSION + 2 * HEARTBEAT + 2
    )  # the new coordinator gives everybody a whole session's time


def test_K33_a_member_joins_although_nobody_coordinates_when_it_starts() -> None:
    world = Driven(
        channel={"nodes": 3, "replication_factor": 3, "min_insync_replicas": 2},
        faults=[
            {"crash": "billing.1", "at": 20.0, "lasting": "2 s"},
            {"pause": "orders.1", "at": 21.0, "lasting": "200 s"},
        ],
        duration="200 s",
    )
    world.run(until=120.0)
    assert [len(c.assigned) for c in world.broker.groups[0].clients] == [1]


def test_K33_a_session_counts_from_the_last_heartbeat_and_not_from_the_death() -> None:
    def over(since: float) -> float:
        world = Driven(faults=[{"crash": "billing.1", "at": since, "lasting": "200 s"}], duration="300 s")
        world.run(until=since)
        group = world.broker.groups[0]
        while group.members:
            world.run(until=world.sim.world.now + 0.25)
        return world.sim.world.now

    # given deaths at all times between two heartbeats
    ends = {over(20.0 + 0.25 * i) for i in range(int(HEARTBEAT / 0.25))}
    # then the session ends so long after one heartbeat, or after the next
    assert max(ends) - min(ends) == HEARTBEAT and len(ends) == 2


def test_K33_members_that_are_heard_in_time_stay() -> None:
    # given the only broker, and so the coordinator, away for as long as its session
    world = Driven(
        channel={"partitions": 2},
        service={"consumers": 2},
        faults=[{"crash": "orders", "at": 20.0, "lasting": "3 s"}],
        duration="200 s",
    )
    world.run(until=19.0)
    group = world.broker.groups[0]
    generation, members = group.generation, list(group.members)
    # then nobody is out: not when it is back, and not a session later
    world.run(until=150.0)
    assert group.generation == generation and list(group.members) == members


@pytest.mark.parametrize("protocol", [{"group_protocol": "consumer"}, {"group_protocol": "share"}])
def test_K33_the_session_of_a_new_group_is_the_groups_own(protocol: dict[str, Any]) -> None:
    # given a client that says something else (KIP-848, KIP-932: group.consumer.session.timeout.ms)
    world = Driven(
        service={"consumer_session_timeout": "10 s", "session_timeout": "45 s", **protocol},
        faults=[{"crash": "billing.1", "at": 20.0, "lasting": "200 s"}],
        duration="300 s",
    )
    group = world.broker.groups[0]
    world.run(until=20.0 + 10.0 - HEARTBEAT_848 - 0.01)
    assert len(group.members) == 1
    world.run(until=20.0 + 10.0 + 0.01)
    assert not group.members


def test_K33_only_the_coordinator_misses_a_heartbeat() -> None:
    # given a member that does not reach a broker that does not coordinate
    world = Driven(
        channel={"nodes": 3, "partitions": 2},
        service={"consumers": 2},
        faults=[{"partition": "billing.1 <-> orders.3", "at": 20.0, "lasting": "80 s"}],
        duration="200 s",
    )
    world.run(until=19.0)
    group = world.broker.groups[0]
    generation, members = group.generation, list(group.members)
    world.run(until=190.0)
    assert group.generation == generation and list(group.members) == members


def test_K33_a_commit_counts_when_the_replicas_have_it() -> None:
    # given followers that stand still for a while
    stands = [{"pause": f"orders.{i}", "at": 20.0, "lasting": "4 s"} for i in (2, 3)]
    world = Driven(channel={"nodes": 3}, faults=stands, duration="100 s")
    world.run(until=21.0)
    offsets, answers = world.cluster.committed, []
    offsets.commit("others", {world.partition: (3, 0)}, answers.append)
    world.run(until=23.9)
    assert not answers and offsets.at("others", world.partition) is None
    world.run(until=26.0)
    assert answers == ["NONE"] and offsets.at("others", world.partition) == (3, 0)


def test_K33_a_commit_that_a_deposed_coordinator_could_not_write_is_sent_again() -> None:
    # given that orders.1 coordinates, and leads the topic, but is cut off from the other brokers when a record comes
    others = ("orders.2", "orders.3", "orders.controller")
    world = Driven(
        channel={"nodes": 3},
        producer=at(20.5),
        faults=[{"partition": f"orders.1 <-> {other}", "at": 20.0, "lasting": "15 s"} for other in others],
        messages=1,
    )
    group = world.broker.groups[0]
    world.run(until=34.9)
    assert world.sent(20.0) == [0] and group.committed(world.partition) is None
    # then the next coordinator hears of the commit when the old one knows that it is none
    world.run(until=40.0)
    assert group.committed(world.partition) == 1


# -- K-34: rebalances -----------------------------------------------------------------------------------------------


class Movements:
    """What consumers gave up, as (time, consumer, how many of how many)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[float, str, int, int]] = []
        give_up: Callable[..., None] = Consumer.give_up

        def watched(consumer: Consumer, partitions: list[Any], cause: int) -> None:
            if partitions:
                self.log.append((consumer.world.now, consumer.name, len(partitions), len(consumer.assigned)))
            give_up(consumer, partitions, cause)

        monkeypatch.setattr(Consumer, "give_up", watched)

    def revoked(self, since: float, until: float) -> int:
        """Partitions that somebody had and gave up in that time."""
        return sum(count for time, _, count, _ in self.log if since <= time < until)


@PROTOCOLS
@pytest.mark.parametrize("members", [2, 3])
def test_K34_who_stops_when_one_joins(
    protocol: dict[str, Any], members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eager: all. Cooperative and KIP-848: 1/(C + 1), which is what the new one gets."""
    moved = Movements(monkeypatch)
    world = Driven(
        channel={"partitions": 12},
        service={"consumers": members + 1, **protocol},
        faults=[{"stop": f"billing.{members + 1}", "at": 20.0, "lasting": "20 s"}],
        duration="200 s",
    )
    world.run(until=39.9)
    clients = world.broker.groups[0].clients
    assert sorted(len(c.assigned) for c in clients) == [0, *[12 // members] * members]
    world.run(until=60.0)
    assert {len(c.assigned) for c in clients} == {12 // (members + 1)}
    stopped = moved.revoked(39.9, 60.0) / 12
    assert stopped == (1.0 if protocol is EAGER else 1 / (members + 1))


@PROTOCOLS
def test_K34_partitions_that_stay_are_read_on(protocol: dict[str, Any]) -> None:
    told = kafka(
        channel={"partitions": 12},
        producer={"keys": KEYS, "arrivals": {"deterministic": "100/s"}},
        service={"consumers": 3, "service_time": "1 ms", **protocol},
        faults=[{"stop": "billing.3", "at": 12.0, "lasting": "8 s"}],
        duration="30 s",
    )
    around = [t for t in told.times("processed") if 20.0 < t < 28.0]
    gap, _ = longest_gap(around, 20.0)
    assert told["unique"] == told["published"]
    assert told["duplicates"] <= 1  # one whose commit came while the leader assigned: nobody commits then
    if protocol is not EAGER:
        assert gap < 0.2


def test_K34_all_wait_for_the_slowest_members_poll() -> None:
    """The one that works on a long poll joins when it is done with it; the others have given up everything."""
    world = Driven(
        channel={"partitions": 2},
        producer={"keys": KEYS},
        service={"consumers": 3, "service_time": "1 ms"},
        faults=[
            {"slow": "billing.1", "at": 15.0, "lasting": "50 s", "factor": 20_000},
            {"stop": "billing.3", "at": 14.0, "lasting": "6 s"},
        ],
        messages=400,
    )
    group = world.broker.groups[0]
    waiting, without = 0.0, 0.0
    while world.sim.world.now < 60.0:
        world.run(until=world.sim.world.now + 0.1)
        if world.sim.world.now > 20.0 and group.state is classic.State.PREPARING:
            waiting += 0.1
            without += 0.1 * (not group.clients[1].assigned)
    assert HEARTBEAT < waiting < 20.0 + HEARTBEAT  # until it is done with what it polled: 20 s a record
    assert without > waiting - HEARTBEAT - 0.2


@PROTOCOLS
def test_K34_uncommitted_work_comes_again_unless_it_is_committed_when_revoked(
    protocol: dict[str, Any],
) -> None:
    def joined(**service: Any) -> Story:
        return kafka(
            channel={"partitions": 12},
            producer={"keys": KEYS},
            service={"consumers": 2, "commit_every": 1000, **protocol, **service},
            faults=[{"stop": "billing.2", "at": 12.0, "lasting": "20 s"}],
            messages=400,
        )

    told = joined()
    revoked = told.causes[("duplicate", "revoked_uncommitted")]
    assert revoked > 20 and told["lost"] == 0
    committed = joined(commits_when_revoked=True)
    assert committed["duplicates"] == 0 and committed["unique"] == 400


def test_K34_members_learn_of_a_rebalance_with_their_next_heartbeat() -> None:
    def formed(joined: float) -> float:
        world = Driven(
            service={"consumers": 2},
            faults=[{"stop": "billing.2", "at": 10.0, "lasting": joined - 10.0}],
            duration="100 s",
        )
        world.run(until=joined)
        group = world.broker.groups[0]
        while len(group.members) < 2 or group.state is not classic.State.STABLE:
            world.run(until=world.sim.world.now + 0.25)
        return world.sim.world.now

    # given that one joins, at all times between two heartbeats of the other
    ends = {formed(20.0 + 0.25 * i) for i in range(int(HEARTBEAT / 0.25))}
    # then the rebalance is over with one of its heartbeats, or with the next
    assert max(ends) - min(ends) == HEARTBEAT and len(ends) == 2


def test_K34_automatic_commits_happen_before_partitions_go() -> None:
    told = kafka(
        channel={"partitions": 12},
        producer={"keys": KEYS},
        service={"consumers": 2, "enable_auto_commit": True},
        faults=[{"stop": "billing.2", "at": 12.0, "lasting": "20 s"}],
        messages=400,
    )
    assert told["duplicates"] == 0 and told["unique"] == 400


def test_K34_a_new_group_waits_for_others_as_long_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """group.initial.rebalance.delay.ms: once for one member, once more if others came meanwhile."""
    for consumers, formed in ((1, 3.0), (3, 6.0)):
        world = Driven(channel={"partitions": 3}, service={"consumers": consumers})
        group = world.broker.groups[0]
        world.run(until=formed - 0.01)
        assert group.state is classic.State.PREPARING
        world.run(until=formed + ROUND_TRIPS)
        assert group.state is classic.State.STABLE and group.generation == 1


def test_K34_kip_848_has_no_delay_and_no_barrier() -> None:
    world = Driven(channel={"partitions": 3}, service={"consumers": 1, **KIP_848})
    world.run(until=ROUND_TRIPS)
    assert len(world.broker.groups[0].clients[0].assigned) == 3


def test_K34_what_was_fetched_of_a_revoked_partition_keeps_no_other_waiting() -> None:
    world = Driven(
        channel={"partitions": 2},
        producer=at_once(20) | {"linger": "5 ms", "keys": {"values": ["a"]}},
        service={"max_poll_records": 1, "service_time": "1000 s", **KIP_848},
        messages=20,
    )
    world.run(until=10.0)
    (client,) = world.broker.groups[0].clients
    (session,) = client.sessions.values()
    (full,) = client.buffered
    before = session.fetches
    world.run(until=20.0)
    assert session.fetches == before  # KAFKA-17182: not while something of that broker is buffered
    client.give_up([full], 1)
    world.run(until=30.0)
    assert session.fetches == pytest.approx(before + 10.0 / FETCH_WAIT, abs=1)


# -- K-35: max.poll.interval.ms -------------------------------------------------------------------------------------

POLL, INTERVAL = 500, 300.0


def slow(service_time: float, **service: Any) -> Story:
    """A poll of 500 records, and a handler that takes so long (s) for each."""
    return kafka(
        producer=at_once(POLL) | {"linger": "5 ms", "batch_size": 1_000_000},
        service={"service_time": service_time, **service},
        duration="1500 s",
        drain_limit="1 s",
    )


@pytest.mark.parametrize("protocol", [EAGER, COOPERATIVE, KIP_848], ids=["range", "cooperative", "KIP-848"])
def test_K35_a_slow_loop_works_on_the_same_records_again_and_again(protocol: dict[str, Any]) -> None:
    told = slow(0.7, **protocol)
    assert told["unique"] == POLL
    assert told["duplicates"] > 2 * POLL  # 1495 s at 0.7 s each
    assert told.causes == {("duplicate", "poll_interval_exceeded"): told["duplicates"]}


def test_K35_below_the_threshold_all_is_well() -> None:
    """0.6 s per record at the defaults."""
    told = slow(0.55)
    assert told["unique"] == POLL and told["duplicates"] == 0
    assert slow(0.7, max_poll_records=100)["duplicates"] == 0


def test_K35_another_member_gets_the_same_records() -> None:
    told = slow(0.7, consumers=2)
    third = [e.time for e in told.events("started", message=0)]
    assert len(third) >= 3
    assert third[1] - third[0] == pytest.approx(
        INTERVAL, abs=10
    )  # at once, while the first still works on them


@pytest.mark.parametrize("protocol", [EAGER, COOPERATIVE, KIP_848], ids=["range", "cooperative", "KIP-848"])
def test_K35_who_is_given_a_partition_reads_no_offset_that_is_about_to_be_replaced(
    protocol: dict[str, Any],
) -> None:
    # given commits before the work, which last longer than max.poll.interval.ms while a replica of theirs is paused
    told = kafka(
        channel={"nodes": 3, "replica_lag_time_max": 10.0},
        service={"settle": "before", "consumers": 2, "max_poll_interval": 2.0, **protocol},
        faults=[{"pause": "orders.2", "at": 5.51, "lasting": 4.0}],
        messages=20,
        duration="40 s",
    )
    # then the member leaves, and both it and the next one wait until the commit counts
    assert longest_gap(told.times("processed"), since=START)[0] > 3.0
    assert told["unique"] == 20 and told["duplicates"] == told["lost"] == 0


@pytest.mark.parametrize("protocol", [EAGER, KIP_848], ids=["classic", "KIP-848"])
def test_K35_a_commit_of_an_old_generation_is_refused(protocol: dict[str, Any]) -> None:
    world = Driven(service=protocol, producer=at(60.0), messages=1)
    world.run(until=20.0)
    group = world.broker.groups[0]
    (member,) = group.members
    answers: list[str] = []
    group.commit(member, member.epoch - 1, {world.partition: (3, 0)}, answers.append)
    world.run(until=21.0)
    assert answers == [ILLEGAL_GENERATION if protocol is EAGER else STALE_MEMBER_EPOCH]
    assert group.committed(world.partition) is None
    group.commit(member, member.epoch, {world.partition: (0, 0)}, answers.append)
    world.run(until=22.0)
    assert answers[1:] == ["NONE"] and group.committed(world.partition) == 0


@PROTOCOLS
def test_K35_a_member_that_is_out_does_not_set_the_offset_back(protocol: dict[str, Any]) -> None:
    # given a member that stands still amid a record for longer than its session, and commits that when it goes on
    timeouts = {"session_timeout": "10 s", "consumer_session_timeout": "10 s"}
    world = Driven(
        service={"consumers": 2, "service_time": "50 ms", **timeouts, **protocol},
        faults=[{"pause": "billing.1", "at": 30.03, "lasting": "30 s"}],
        messages=800,
    )
    group, committed = world.broker.groups[0], [0]
    while world.sim.world.now < 65.0:
        world.run(until=world.sim.world.now + 0.005)
        committed.append(group.committed(world.partition) or 0)
    # then what the other one has come to stands
    assert committed == sorted(committed) and committed[-1] > 500


def test_K34_a_rebalance_waits_for_a_long_poll_up_to_max_poll_interval() -> None:
    # given a poll that takes 100 s, which is more than a session, and another member that joins amid it
    world = Driven(
        producer=at_once(10) | {"linger": "5 ms"},
        service={"consumers": 2, "service_time": "10 s"},
        faults=[{"stop": "billing.2", "at": 4.0, "lasting": "16 s"}],
        messages=10,
    )
    group = world.broker.groups[0]
    world.run(until=100.0)
    assert group.state is classic.State.PREPARING and len(group.members) == 2
    world.run(until=120.0)
    # then it is over with the poll, and nothing was done twice
    assert group.state is classic.State.STABLE and len(group.members) == 2
    assert world.sent(0.0) == list(range(10))


# -- K-44: static membership ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumers", [1, 2])
def test_K44_a_static_member_that_is_back_in_time_goes_on(
    consumers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Movements(monkeypatch)
    told = kafka(
        channel={"partitions": 4},
        producer={"keys": KEYS},
        service={"consumers": consumers, "group_instance_id": True},
        faults=[{"crash": "billing.1", "at": 20.0, "lasting": "10 s"}],
        messages=400,
    )
    assert moved.revoked(19.0, 60.0) == 0  # the others lost nothing
    held = float(max(told.facts["billing"].processed - told.facts["billing"].created))
    backlog = 400 and 10.0 / STEP * 0.010
    assert 9.9 < held < 10.0 + backlog + FETCH_WAIT + 0.2  # stall = restart time
    assert told["unique"] == 400 and told["duplicates"] <= 1


def test_K44_one_that_is_not_back_in_time_is_replaced() -> None:
    told = kafka(
        channel={"partitions": 4},
        producer={"keys": KEYS},
        service={"consumers": 2, "group_instance_id": True},
        faults=[{"crash": "billing.1", "at": 20.0, "lasting": "100 s"}],
        messages=900,
    )
    held = float(max(told.facts["billing"].processed - told.facts["billing"].created))
    assert SESSION - HEARTBEAT - 0.5 < held < SESSION + 2 * HEARTBEAT + 1.0


def test_K44_close_does_not_leave() -> None:
    told = kafka(
        channel={"partitions": 4},
        producer={"keys": KEYS},
        service={"consumers": 2, "group_instance_id": True},
        faults=[{"stop": "billing.1", "at": 20.0, "lasting": "10 s"}],
        messages=400,
    )
    held = float(max(told.facts["billing"].processed - told.facts["billing"].created))
    assert 9.8 < held < 12.0 and told["duplicates"] == 0
    assert len(books(told)) == 400
