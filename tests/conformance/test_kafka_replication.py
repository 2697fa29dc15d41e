"""Replication and failure: K-09, K-10, K-12, K-21 to K-27, K-30 to K-32.

`tests.conformance.kafka` says what happens when where nothing else is said: message i is sent at 5 + 0.1 (i + 1) s,
each hop of a client takes 1 ms, one between brokers 0.25 ms. Brokers are orders.1, which leads, to orders.3.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.builders import Story
from tests.conformance.kafka import (
    HOP,
    RF3,
    Driven,
    at,
    books,
    deliveries,
    kafka,
    outcomes,
    stored,
    told_after,
)

ACKS_1 = {"acks": "1"}
REQUEST, APPEND = 60e-6, 6e-6  # seconds of a broker's CPU per produce request of 1 KiB (sheet, section 4)
SESSION, HEARTBEAT, LAG = 9.0, 2.0, 30.0  # seconds: defaults
BACKOFF = 1.2  # seconds: retry.backoff.max.ms with its jitter
FAR = {"broker_delay": "5 ms"}


def world(channel: dict[str, Any], *args: Any, **settings: Any) -> Story:
    """A world, until 150 s, in which each fault struck something."""
    told = kafka(channel, *args, **{"duration": 150.0, **settings})
    assert not told.outcome.inert
    return told


def driven_world(**settings: Any) -> Driven:
    """The same, which a test drives itself."""
    return Driven(**{"duration": 1000.0, **settings})


def every(step: float, since: float, until: float) -> dict[str, Any]:
    """Settings of a producer: a message each `step` s."""
    count = round((until - since) / step)
    return at(*(since + step * i for i in range(count)))


def cut(a: str, b: str, since: float, lasting: float) -> dict[str, Any]:
    """Nothing passes between two hosts."""
    return {"partition": f"{a} <-> {b}", "at": since, "lasting": lasting}


def down(host: str, since: float, lasting: float, kind: str = "crash") -> dict[str, Any]:
    """A host is down for a while."""
    return {kind: host, "at": since, "lasting": lasting}


def told_at(told: Story) -> list[float]:
    """When the producer was last told of each message (s)."""
    messages = books(told)
    return [messages.told_at[i] for i in range(len(messages))]


APART = [cut("orders.1", "orders.2", 5.25, 30.0), cut("orders.1", "orders.3", 5.25, 30.0)]
DIES: dict[str, Any] = {"on": "orders.appended #3", "after": 0.002, "lasting": 30.0}


def test_partitions_begin_at_one_broker_after_the_other() -> None:
    driven = driven_world(channel={**RF3, "partitions": 4})
    first, second, third = driven.cluster.brokers
    replicas = [partition.replicas for partition in driven.broker.partitions]
    assert replicas[:3] == [[first, second, third], [second, third, first], [third, first, second]]
    assert replicas[3] == replicas[0]
    assert [partition.leader for partition in driven.broker.partitions] == [first, second, third, first]


# -- K-09, K-24, K-25: what only the leader has --------------------------------------------------------------------


def lost_with_the_leader(kind: str, **settings: Any) -> Story:
    """The leader of a replicated topic dies 2 ms after it appended message 2, which did not reach the followers."""
    return world(RF3, ACKS_1, faults=[*APART, {**DIES, kind: "orders.1"}], **settings)


@pytest.mark.parametrize("kind, cause", [("crash", "unreplicated"), ("machine_crash", "unflushed")])
def test_K09_a_record_that_only_the_dead_leader_had_is_lost_though_it_was_confirmed(
    kind: str, cause: str
) -> None:
    told = lost_with_the_leader(kind)
    # then the producer was told ok, another broker leads without the record, and the others are there
    assert outcomes(told) == ["confirmed"] * 5
    assert told.places() == ["unique", "unique", "lost", "unique", "unique"]
    assert told["lost_confirmed"] == 1 and told.causes == {("lost", cause): 1}


def test_K09_acks_all_does_not_confirm_what_a_follower_lacks() -> None:
    told = world(RF3, {"acks": "all"}, faults=[*APART, {**DIES, "crash": "orders.1"}])
    assert told["lost"] == 0 and told["unique"] == 5 and told["duplicates"] == 0


def test_K09_loses_what_came_in_the_time_that_followers_were_behind() -> None:
    # given 1000 records per second, and followers that fetch over 5 ms each way, at least two of whose trips they lag
    rate, one_way = 1000.0, 0.005
    producer = {**ACKS_1, **every(1 / rate, 5.0, 6.0)}
    told = world({**RF3, **FAR}, producer, faults=[down("orders.1", 5.5003, 30.0)])
    # then what is lost was appended within one trip, and the round trip of the fetch before that at most
    lost = told["lost_confirmed"]
    assert rate * (one_way - HOP) - 1 <= lost <= rate * 3 * one_way + 1
    assert told.causes["lost", "unreplicated"] == lost == told["lost"]


def test_K24_the_old_leader_cuts_off_what_the_new_one_does_not_have() -> None:
    driven = driven_world(channel=RF3, producer=ACKS_1, faults=[*APART, {**DIES, "crash": "orders.1"}])
    logs = [broker.logs[driven.partition] for broker in driven.cluster.brokers]
    # given that it is back, and not yet connected again
    driven.run(35.3)
    assert logs[0].records.tolist()[2] == 2 and 2 not in logs[1].records
    # then it follows, with the same log as all others
    driven.run(60.0)
    assert driven.partition.leader is not driven.cluster.brokers[0]
    assert logs[0].records == logs[1].records == logs[2].records
    assert logs[0].epochs == logs[1].epochs == logs[2].epochs
    assert driven.partition.isr == [
        driven.partition.isr[0],
        driven.partition.isr[1],
        driven.cluster.brokers[0],
    ]


def test_K25_no_consumer_was_given_what_was_lost() -> None:
    told = lost_with_the_leader("crash")
    assert 2 not in told.order("sent") and told["phantom"] == 0


def test_K25_a_record_is_sent_when_the_isr_has_it() -> None:
    # given followers that are 20 ms away each way
    told = kafka({**RF3, "broker_delay": "20 ms"}, ACKS_1)
    waits = [told.pairs().sent_at[i] - told.pairs().stored_at[i] for i in range(5)]
    # then a consumer gets it when the follower's next fetch is at the leader
    assert waits == pytest.approx([0.040] * 5, abs=0.001)
    assert max(told_after(told)) < 0.003


def test_K25_random_crashes_of_leaders_never_take_back_what_was_delivered() -> None:
    # given leaders that crash now and then, and acks=1
    fault = {"crash": "orders.leader", "mtbf": 20.0, "mttr": 5.0}
    told = world(
        {**RF3, **FAR}, {**ACKS_1, **every(0.05, 5.0, 205.0)}, faults=[fault], seed=3, duration=210.0
    )
    lost = [i for i, place in enumerate(told.places()) if place == "lost"]
    sent = set(told.order("sent"))
    assert lost and not sent.intersection(lost)


# -- K-10: acks=all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_way", [0.25e-3, 10e-3])
def test_K10_acks_all_waits_for_a_round_trip_of_the_followers(one_way: float) -> None:
    channel = {**RF3, "broker_delay": one_way}
    alone, together = told_after(kafka(channel, ACKS_1)), told_after(kafka(channel, {"acks": "all"}))
    assert alone == pytest.approx([2 * HOP + REQUEST + APPEND] * 5, abs=1e-6)
    # then it takes the answer to the waiting fetch (two of them, one after the other), and the next fetch
    differences = [b - a for a, b in zip(alone, together, strict=True)]
    assert differences == pytest.approx([2 * one_way] * 5, abs=2 * REQUEST)


def test_K10_the_slowest_member_of_the_isr_counts() -> None:
    slow = {"slow_link": "orders.1 <-> orders.3", "at": 4.0, "lasting": 5.0, "factor": 40}
    told = world(RF3, {"acks": "all"}, faults=[slow])
    assert told_after(told) == pytest.approx([2 * HOP + 2 * 40 * 0.25e-3] * 5, abs=3 * REQUEST)


def test_K25_what_a_new_leader_has_is_committed_when_the_isr_has_it() -> None:
    # given a record that orders.2 has and orders.3, which is cut off, has not, and a leader that dies
    faults = [
        cut("orders.1", "orders.3", 5.0, 300.0),
        cut("orders.2", "orders.3", 5.0, 35.0),
        down("orders.1", 6.0, 300.0),
    ]
    driven = driven_world(channel=RF3, producer={**ACKS_1, **at(5.1)}, faults=faults)
    driven.run(39.0)
    # then orders.2 leads, and nobody gets the record until orders.3 has it, too
    second = driven.cluster.brokers[1]
    assert driven.partition.leader is second and second.logs[driven.partition].end == 1
    assert not driven.sent(0.0)
    driven.run(45.0)
    assert driven.sent(40.0) == [0]


def test_K24_who_has_to_cut_off_is_not_in_sync() -> None:
    # given message 2 on orders.1 alone, in whose place the new leader has message 3; brokers are 5 ms apart
    driven = driven_world(
        channel={**RF3, **FAR},
        producer={**ACKS_1, **at(5.1, 5.2, 5.3, 20.0)},
        faults=[*APART, {**DIES, "crash": "orders.1"}],
    )
    first, second, _ = driven.cluster.brokers
    old, new = first.logs[driven.partition], second.logs[driven.partition]
    driven.run(35.2)
    assert old.records.tolist() == [0, 1, 2] and new.records.tolist() == [0, 1, 3]
    # then orders.1 is in the ISR when its log is the leader's, and not a moment before
    while first not in driven.partition.isr:
        driven.run(driven.sim.world.now + HOP)
    assert old.records == new.records and driven.sim.world.now < 50.0


# -- K-12: an ISR of one -------------------------------------------------------------------------------------------

ALONE = [cut("orders.1", "orders.2", 10.0, 100.0), cut("orders.1", "orders.3", 10.0, 100.0)]
NOBODY_READS = down("billing", 9.0, 110.0)


@pytest.mark.parametrize("dies_at, minimum, lost", [(66.0, 1, 5), (100.0, 1, 0), (66.0, 2, 0)])
def test_K12_acks_all_is_only_as_wide_as_the_isr(dies_at: float, minimum: int, lost: int) -> None:
    # given a leader whose followers do not reach it: it has the ISR for itself after 60 s at the latest
    channel = {**RF3, "min_insync_replicas": minimum}
    producer = {"acks": "all", **at(12.0, *(60.0 + 0.1 * i for i in range(5)))}
    # when its machine loses power, with records that nobody else has, before or after they were written back
    faults = [*ALONE, NOBODY_READS, down("orders.1", dies_at, 5.0, "machine_crash")]
    told = world(channel, producer, faults=faults)
    # then those that the disk lacks are lost though confirmed, unless two replicas have to confirm them
    assert told["lost_confirmed"] == lost
    assert told.causes.get(("lost", "unflushed"), 0) == lost
    assert told["unique"] == 6 - lost and told["duplicates"] == 0


def test_K30_the_last_replica_may_lead_with_a_shorter_log() -> None:
    # given that the same machine crashes when all others are long out of the ISR: no other may lead
    producer = {"acks": "all", **at(12.0, 60.0, 60.1, 60.2, 100.0)}
    faults = [*ALONE, NOBODY_READS, down("orders.1", 66.0, 5.0, "machine_crash")]
    told = world({**RF3, "min_insync_replicas": 1}, producer, faults=faults)
    # then it leads again, without its tail, and the next record takes the place of the first one that was lost
    assert told.places() == ["unique"] + ["lost"] * 3 + ["unique"]
    assert told_at(told)[4] < 101.0


def test_K30_eligible_leader_replicas_lead_instead() -> None:
    # given min.insync.replicas of 2, and that followers come back as soon as the leader's machine is down
    producer = {"acks": "all", **at(12.0, 60.0, 60.1)}
    faults = [
        cut("orders.1", "orders.2", 10.0, 57.0),
        cut("orders.1", "orders.3", 10.0, 57.0),
        down("billing", 9.0, 100.0),
        down("orders.1", 66.0, 60.0, "machine_crash"),
    ]
    told = world(RF3, producer, faults=faults)
    # then one of them leads, while the machine is down still, and takes what the producer tries again
    assert told["lost"] == 0 and told["unique"] == 3
    assert 66.0 + SESSION - HEARTBEAT < told_at(told)[1] < 66.0 + SESSION + BACKOFF + 1.0


def test_K30_who_lost_its_page_cache_is_not_taken_for_what_its_process_before_was() -> None:
    # given that all processes die, and that one machine, whose session is over first, loses power before that
    producer = {"acks": "all", **at(12.0, 12.1, 12.2, 40.0)}
    processes = [down(f"orders.{i + 1}", 12.8, 0.2) for i in range(3)]
    faults = [NOBODY_READS, *processes, down("orders.2", 15.0, 0.2, "machine_crash")]
    told = world(RF3, producer, faults=faults)
    # then the leader has forgotten what its follower had told it, as that one has what it had
    assert told["confirmed"] == told["unique"] == 4


def test_K30_a_leader_that_speaks_of_a_process_that_is_over_is_refused() -> None:
    # given a follower whose machine loses power, and a leader that hears nothing of its next process (KIP-903)
    apart = cut("orders.1", "orders.2", 20.0, 100.0)
    driven = driven_world(channel=RF3, producer=at(12.0), messages=1, faults=[apart])
    first, second, third = driven.cluster.brokers
    driven.run(14.0)
    second.host.crash("machine")
    driven.run(24.0)
    second.host.restart()
    driven.run(24.1)
    told = {second: 0, third: 0}
    controller = driven.cluster.controller
    controller.alter(driven.partition, driven.partition.epoch, [first, third, second], first, told)
    assert driven.partition.isr == [first, third]
    told[second] = second.host.epoch
    controller.alter(driven.partition, driven.partition.epoch, [first, third, second], first, told)
    assert driven.partition.isr == [first, third, second]


def test_K30_below_min_insync_replicas_nothing_is_committed() -> None:
    # given an ISR of one where two are asked for (KIP-966), and acks=1, which does not ask
    driven = driven_world(channel=RF3, producer={**ACKS_1, **at(70.0, 70.1)}, faults=ALONE)
    driven.run(80.0)
    leadership = driven.cluster.brokers[0].leads[driven.partition]
    # then the leader has the records, and no consumer gets them until another replica has them, too
    assert leadership.isr == [driven.cluster.brokers[0]] and leadership.log.end == 2
    assert leadership.high_watermark == 0 and not driven.sent(0.0)
    driven.run(130.0)
    assert driven.sent(110.0) == [0, 1]


def test_K30_who_left_while_enough_were_in_sync_may_not_lead() -> None:
    # given that orders.3 is out of the ISR, and does without two records, when first orders.1 and then orders.2 die
    faults = [
        cut("orders.1", "orders.3", 10.0, 200.0),
        cut("orders.2", "orders.3", 10.0, 200.0),
        NOBODY_READS,
        down("orders.1", 80.0, 60.0),
        down("orders.2", 90.0, 30.0),
    ]
    told = world(RF3, {"acks": "all", **at(12.0, 70.0, 70.1)}, faults=faults)
    # then orders.3, which is alive all the time, waits like all others
    assert outcomes(told) == ["confirmed"] * 3
    assert told["lost"] == 0 and told["unique"] == 3


def test_K30_who_has_lost_its_page_cache_is_not_eligible_any_more() -> None:
    # given an ISR of orders.1 alone; orders.2, which left it when its machine lost power, is back when orders.1 dies
    faults = [
        NOBODY_READS,
        down("orders.3", 20.0, 120.0),
        down("orders.2", 62.0, 20.0, "machine_crash"),
        down("orders.1", 75.0, 50.0),
    ]
    told = world(RF3, {"acks": "all", **at(12.0, 60.0, 60.1)}, faults=faults)
    # then it does not lead without the two records that its disk did not have
    assert outcomes(told) == ["confirmed"] * 3
    assert told["lost"] == 0 and told["unique"] == 3


# -- a broker's CPU (section 4) ------------------------------------------------------------------------------------


def test_a_broker_handles_one_request_after_the_other_in_the_time_that_is_set() -> None:
    # given two producers, each with a record of 2 KiB at the same instant
    times = {
        "cpu_per_request": 3e-3,
        "cpu_per_kib": 2e-3,
        "append_time": 0.5e-3,
        "append_time_per_kib": 0.25e-3,
    }
    two = {"shop": {}, "market": {}}
    told = kafka(times, {**ACKS_1, **at(5.1), "size": 2048}, producers=two, messages=2)
    work = 3e-3 + 2 * 2e-3 + 0.5e-3 + 2 * 0.25e-3
    # then the consumer's fetch, which waits for the first, is answered before the second is handled
    assert sorted(told_after(told)) == pytest.approx([2 * HOP + work, 2 * HOP + 2 * work + 3e-3], abs=1e-6)


# -- K-21, K-22: followers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [20.1, 29.0, 31.0, 44.9])
def test_K21_a_follower_that_is_cut_off_stalls_acks_all_until_it_is_out_of_the_isr(since: float) -> None:
    # given that orders.3 does not reach the leader, but the controller
    producer = {"acks": "all", **at(since + 0.5, since + 0.6, 100.0)}
    told = world(RF3, producer, faults=[cut("orders.1", "orders.3", since, 200.0)])
    # then the ISR shrinks at the second look after the last fetch, 30 to 45 s after it
    stalls = [t - since for t in told_at(told)[:2]]
    assert all(LAG <= stall <= 1.5 * LAG + 0.01 + BACKOFF for stall in stalls)
    # and after that writes take as long as the rest of them take
    assert told_after(told)[2] == pytest.approx(2 * HOP + 2 * 0.25e-3, abs=3 * REQUEST)
    assert told["unique"] == 3 and told["duplicates"] == 0


def test_K21_a_follower_that_keeps_up_under_load_stays_in_the_isr() -> None:
    # given more records than fetches, for longer than replica.lag.time.max.ms
    channel = {**RF3, **FAR, "replica_lag_time_max": 1.0}
    driven = driven_world(channel=channel, producer={**ACKS_1, **every(0.002, 5.0, 9.0)})
    for second in (6.0, 7.0, 8.0, 9.0):
        driven.run(second + 0.0005)
        assert len(driven.partition.isr) == 3


def test_K21_a_follower_that_comes_back_joins_the_isr_when_it_has_all() -> None:
    driven = driven_world(
        channel=RF3,
        producer={**ACKS_1, **every(0.1, 5.0, 90.0)},
        faults=[cut("orders.1", "orders.3", 20.0, 50.0)],
    )
    driven.run(69.9)
    assert len(driven.partition.isr) == 2
    driven.run(75.0)
    assert len(driven.partition.isr) == 3


def test_K21_a_follower_that_has_all_joins_the_isr_though_nothing_is_written() -> None:
    # given one that registers again and fetches all before the leader hears that it was fenced
    driven = driven_world(
        channel=RF3,
        producer={**ACKS_1, **at(6.0)},
        messages=1,
        faults=[
            down("orders.3", 20.0, 3.0),
            {"partition": "orders.controller -> orders.1", "at": 28.4, "lasting": 0.2},
        ],
    )
    driven.run(28.6)
    assert len(driven.partition.isr) == 2
    # then it is there again with the next fetch, which is sent each replica.fetch.wait.max.ms
    driven.run(30.0)
    assert len(driven.partition.isr) == 3


def test_K21_a_follower_joins_the_isr_with_all_that_is_committed() -> None:
    # given 200 records that orders.3 lacks when it is back, which take 2 s on the wire
    driven = driven_world(
        channel={**RF3, "broker_bandwidth": 100 * 1024.0},
        producer={**ACKS_1, **every(0.1, 70.0, 90.0)},
        faults=[cut("orders.1", "orders.3", 10.0, 90.0)],
    )
    third = driven.cluster.brokers[2]
    driven.run(100.0)
    assert len(driven.partition.isr) == 2
    while third not in driven.partition.isr:
        driven.run(driven.sim.world.now + 0.1)
    assert third.logs[driven.partition].end == 200
    assert 102.0 < driven.sim.world.now < 110.0


@pytest.mark.parametrize("since", [20.0, 20.7, 21.4])
def test_K22_a_follower_that_dies_stalls_acks_all_until_its_session_is_over(since: float) -> None:
    producer = {"acks": "all", **at(since + 0.01)}
    told = world(RF3, producer, faults=[down("orders.3", since, 60.0)])
    stall = told_at(told)[0] - since
    assert SESSION - HEARTBEAT <= stall <= SESSION + 0.01


def test_K22_a_follower_that_is_stopped_stalls_nobody() -> None:
    producer = {"acks": "all", **every(0.05, 19.5, 20.5)}
    told = world(RF3, producer, faults=[down("orders.3", 20.0, 60.0, "stop")])
    assert max(told_after(told)) < 0.01 and told["unique"] == 20


def test_K22_a_follower_that_is_being_stopped_does_not_come_back() -> None:
    # given that orders.3 goes on fetching for a second, until another leads the partition that it led
    driven = driven_world(
        channel={**RF3, "partitions": 3, "election_time": 1.0},
        producer={"acks": "all", "keys": {"number": 64}, **every(0.05, 19.5, 21.5)},
        faults=[down("orders.3", 20.0, 60.0, "stop")],
    )
    first, second, third = driven.cluster.brokers
    # then it is out of the ISR from the beginning, whatever it fetches
    for tenth in range(1, 30):
        driven.run(20.0 + 0.1 * tenth)
        assert driven.partition.isr == [first, second]
    assert not third.host.is_up


# -- K-23: the leader ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crash", "machine_crash"])
@pytest.mark.parametrize("since", [20.0, 20.7, 21.4])
def test_K23_nobody_leads_until_the_session_of_the_dead_leader_is_over(kind: str, since: float) -> None:
    producer = {"acks": "all", "request_timeout": 2.0, **at(since + 0.1, since + 0.5)}
    told = world(RF3, producer, faults=[down("orders.1", since, 60.0, kind)])
    # then after 7 to 9 s, an election of 10 ms for each partition, and a back-off, or a request to a dead machine
    away = [t - since for t in told_at(told)]
    late = 0.1 + BACKOFF + (2.0 if kind == "machine_crash" else 0.0)
    assert all(SESSION - HEARTBEAT <= seconds <= SESSION + late for seconds in away)
    assert told["unique"] == 2 and told["lost"] == 0


def test_K23_a_session_counts_from_the_last_heartbeat_and_not_from_the_death() -> None:
    def over(since: float) -> float:
        driven = driven_world(channel=RF3, faults=[down("orders.1", since, 60.0)])
        while driven.partition.leader is driven.cluster.brokers[0]:
            driven.run(driven.sim.world.now + 0.25)
        return driven.sim.world.now

    # given deaths at all times between two heartbeats
    ends = {over(20.0 + 0.25 * i) for i in range(int(HEARTBEAT / 0.25))}
    # then the session ends so long after one heartbeat, or after the next
    assert max(ends) - min(ends) == HEARTBEAT and len(ends) == 2


def test_K23_leaders_are_elected_one_after_the_other() -> None:
    # given two partitions of six that the dead broker led, and elections that take a second each
    driven = driven_world(
        channel={**RF3, "partitions": 6, "election_time": 1.0}, faults=[down("orders.1", 20.0, 60.0)]
    )
    driven.run(19.0)
    first, *others = driven.cluster.brokers
    orphans = [p for p in driven.broker.partitions if p.leader is first]
    led: list[float] = []
    while len(led) < len(orphans):
        driven.run(driven.sim.world.now + 0.1)
        now_led = sum(any(p in broker.leads for broker in others) for p in orphans)
        led += [driven.sim.world.now] * (now_led - len(led))
    assert len(led) == 2 and led[1] - led[0] == pytest.approx(1.0)


def test_K23_a_quick_restart_does_not_help() -> None:
    # given a broker that is back in a second: the controller takes the new process when the old one's session is over
    producer = {"acks": "all", **at(20.1)}
    told = world(RF3, producer, faults=[down("orders.1", 20.0, 1.0)])
    assert SESSION - HEARTBEAT <= told_at(told)[0] - 20.0 <= SESSION + 0.1 + BACKOFF


@pytest.mark.parametrize("acks", ["1", "all"])
def test_K23_a_leader_that_is_stopped_hands_over_first(acks: str) -> None:
    producer = {"acks": acks, **every(0.02, 19.5, 20.5)}
    told = world(RF3, producer, faults=[down("orders.1", 20.0, 60.0, "stop")])
    assert max(told_after(told)) < 0.5 and told["unique"] == 50 and told["lost"] == 0


def test_K23_the_preferred_leader_gets_leadership_back() -> None:
    driven = driven_world(channel=RF3, faults=[down("orders.1", 20.0, 30.0)])
    driven.run(299.0)
    first, others = driven.cluster.brokers[0], driven.cluster.brokers[1:]
    assert driven.partition.leader in others and first in driven.partition.isr
    # auto.leader.rebalance.enable: every 300 s
    driven.run(301.0)
    assert driven.partition.leader is first and driven.partition in first.leads


def test_K23_a_preferred_leader_that_is_not_in_sync_waits_for_the_next_look() -> None:
    # given that orders.1 is back, but cut off from whom it follows
    away = [cut("orders.1", "orders.2", 45.0, 355.0), cut("orders.1", "orders.3", 45.0, 355.0)]
    driven = driven_world(channel=RF3, faults=[down("orders.1", 20.0, 30.0), *away])
    first, others = driven.cluster.brokers[0], driven.cluster.brokers[1:]
    driven.run(301.0)
    assert driven.partition.leader in others and first not in driven.partition.isr
    driven.run(601.0)
    assert driven.partition.leader is first


def test_K23_a_client_whose_question_is_not_answered_asks_somebody_else() -> None:
    # given a broker that stands still, and that the producer asks for metadata as well as the others, every 5 s
    faults = [{"pause": "orders.2", "at": 20.0, "lasting": 130.0}, down("orders.1", 60.0, 60.0)]
    told = world(RF3, {**ACKS_1, "metadata_max_age": 5.0, **every(1.0, 20.0, 80.0)}, faults=faults)
    # then it learns of the new leader all the same
    assert max(told_at(told)) < 81.0 and max(told_after(told)) < SESSION + 3.0


# -- K-26, K-27: without an ISR ------------------------------------------------------------------------------------

RF2 = {"nodes": 2, "replication_factor": 2}


@pytest.mark.parametrize("unclean, back", [(False, 61.0), (True, 41.0)])
def test_K26_a_clean_election_waits_for_a_member_of_the_isr(unclean: bool, back: float) -> None:
    # given a leader that dies when it has the ISR for itself; the other is back earlier
    faults = [down("orders.2", 20.0, 21.0), down("orders.1", 32.0, 29.0)]
    told = world(
        {**RF2, "unclean_leader_election_enable": unclean},
        {"acks": "all", **at(5.0, 30.0, 35.0)},
        service={"max_poll_records": 1},
        faults=[*faults, down("billing", 29.0, 60.0)],
    )
    # then writes go on when that one is back, or with an unclean election as soon as any is
    assert told_at(told)[2] == pytest.approx(back, abs=0.2 + BACKOFF)
    # and nothing is lost, or what only the leader had
    assert told.places() == ["unique", "lost" if unclean else "unique", "unique"]
    assert told.causes == ({("lost", "unclean_election"): 1} if unclean else {})
    assert told["lost_confirmed"] == unclean


def test_K27_who_has_read_beyond_goes_on_at_the_new_leaders_end() -> None:
    # given ten records that only the leader has, which one group has read and the other has not
    faults = [down("orders.2", 20.0, 21.0), down("orders.1", 32.0, 60.0), down("audit", 29.0, 60.0)]
    told = world(
        {**RF2, "unclean_leader_election_enable": True},
        {"acks": "all", **at(5.0, *(30.0 + 0.1 * i for i in range(10)), 50.0, 51.0)},
        services={"billing": {}, "audit": {}},
        faults=faults,
    )
    # then those ten are lost for who had not read them, and the other gets what lies at their offsets now
    assert told.places("billing") == ["unique"] * 13
    assert told.places("audit") == ["unique"] + ["lost"] * 10 + ["unique"] * 2
    assert told.causes["lost", "unclean_election"] == 10


@pytest.mark.parametrize("protocol", ["classic", "consumer", "share"])
def test_K27_what_an_unclean_election_has_taken_away_another_may_bring_back(protocol: str) -> None:
    # given that a broker with an empty disk leads for a while, and then the other, which has what was read before
    faults = [
        down("orders.1", 10.0, 30.0),
        down("orders.2", 10.0, 2.0, "disk_loss"),
        down("orders.2", 39.0, 60.0),
        down("billing", 12.0, 8.0),
    ]
    told = world(
        {**RF2, "unclean_leader_election_enable": True, "flush_messages": 1},
        {"acks": "all"},
        service={"group_protocol": protocol, "session_timeout": 6.0, "consumer_session_timeout": 6.0},
        faults=faults,
        duration=150.0,
    )
    # then it is read again
    assert told["lost"] == 0 and told["unique"] == 5
    assert told["duplicates"] == sum(told.causes.values()) == 5


# -- K-31, K-32: the controller ------------------------------------------------------------------------------------


def isolated(acks: str, **producer: Any) -> Story:
    """The leader reaches clients only, from 20 to 60 s."""
    others = ("orders.2", "orders.3", "orders.controller")
    faults = [cut("orders.1", other, 20.0, 40.0) for other in others]
    settings = {"acks": acks, **every(0.1, 10.05, 70.0), **producer}
    return world(RF3, settings, faults=faults)


def test_K31_an_isolated_leader_takes_what_will_be_lost_until_the_producer_learns_of_the_new_one() -> None:
    told = isolated("1")
    # given that its answers are all well: the producer learns of the new leader when the partition heals
    lost = [i for i, place in enumerate(told.places()) if place == "lost"]
    created = books(told).created
    assert lost == list(range(lost[0], lost[-1] + 1)) and max(told_after(told)[i] for i in lost) < 0.01
    assert created[lost[0]] == pytest.approx(20.05) and 59.9 < created[lost[-1]] < 60.0 + BACKOFF
    assert told["lost_confirmed"] == told.causes["lost", "unreplicated"] == len(lost)


def test_K31_metadata_that_age_sooner_end_it_sooner() -> None:
    told = isolated("1", metadata_max_age=5.0)
    # then within a session, an election, and three ages: each time another broker is asked
    assert 10 * (SESSION - HEARTBEAT) < told["lost_confirmed"] < 10 * (SESSION + 3 * 5.0 + 1.0)


def test_K31_who_has_learnt_of_the_new_leader_does_not_forget_it() -> None:
    # given that the isolated leader answers questions, too, with what it knows
    lost = [i for i, place in enumerate(isolated("1", metadata_max_age=5.0).places()) if place == "lost"]
    assert lost == list(range(lost[0], lost[-1] + 1))


def test_K31_with_acks_all_it_confirms_nothing() -> None:
    told = isolated("all")
    assert told["lost"] == told["duplicates"] == 0 and told["unique"] == 600
    stalled = [i for i, t in enumerate(told_after(told)) if t > 1.0]
    assert stalled and told.order("sent").index(stalled[0]) == stalled[0]


def test_K31_what_waits_at_a_deposed_leader_is_not_confirmed() -> None:
    # given a record that waits for the ISR while others elect another leader; its producer waits for 30 s
    others = ("orders.2", "orders.3", "orders.controller")
    told = world(
        RF3, {"acks": "all", **at(21.0)}, faults=[cut("orders.1", other, 20.0, 15.0) for other in others]
    )
    # then it is refused when the leader hears of that, tried again, and there once
    assert 35.0 < told_at(told)[0] < 35.0 + 3 * BACKOFF
    assert told["lost"] == 0 and deliveries(told) == [1]


def test_K31_only_who_leads_now_changes_the_isr() -> None:
    driven = driven_world(channel=RF3)
    driven.run(5.0)
    controller, partition = driven.cluster.controller, driven.partition
    first, second, third = driven.cluster.brokers
    controller.alter(partition, partition.epoch, [second], second, {})  # who never led
    controller.alter(
        partition, partition.epoch - 1, [first], first, {}
    )  # who led once, in an epoch that is over
    assert partition.isr == [first, second, third]
    controller.alter(partition, partition.epoch, [first, second], first, {})
    assert partition.isr == [first, second]


def test_K32_without_a_controller_leaders_serve_on() -> None:
    told = world(
        RF3, {"acks": "all", **every(0.1, 10.0, 20.0)}, faults=[down("orders.controller", 9.0, 30.0)]
    )
    assert max(told_after(told)) < 0.01 and told["unique"] == 100


def test_K32_without_a_controller_nobody_is_elected() -> None:
    # given a leader that dies while there is no controller
    faults = [down("orders.controller", 10.0, 60.0), down("orders.1", 20.0, 120.0)]
    told = world(RF3, {"acks": "all", **at(15.0, 21.0)}, faults=faults)
    # then the new controller gives each broker a session's time, and elects
    assert told_after(told)[0] < 0.01
    assert 70.0 + SESSION <= told_at(told)[1] <= 70.0 + SESSION + 0.1 + BACKOFF
    assert stored(told) == [0, 1]


def test_K32_without_a_controller_no_isr_changes() -> None:
    faults = [down("orders.controller", 10.0, 90.0), cut("orders.1", "orders.3", 20.0, 200.0)]
    told = world(RF3, {"acks": "all", **at(21.0)}, faults=faults)
    assert told_at(told)[0] >= 100.0 and told["unique"] == 1


# -- bandwidth -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 3])
def test_a_produced_byte_leaves_the_leader_once_for_each_follower_and_each_group(groups: int) -> None:
    # given twice as many records per second as go over the leader's wire
    bandwidth, count = 1_000_000.0, 2000
    rate = bandwidth / (2 + groups) / 1024
    told = kafka(
        {**RF3, "broker_bandwidth": bandwidth},
        {**ACKS_1, **every(1 / (2 * rate), 5.0, 5.0 + count / (2 * rate))},
        duration=60.0,
        services={f"reader{i}": {"service_time": 0.0, "max_poll_records": 10} for i in range(groups)},
    )
    # then they arrive at the rate that the sheet gives (section 4)
    arrived = sorted(told.pairs(f"reader{groups - 1}").delivered_at[:count])
    assert count / (arrived[-1] - 5.0) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("lasting", [3.0, 60.0])
def test_K23_a_broker_that_dies_before_it_was_ever_heard_is_missed_after_a_session(lasting: float) -> None:
    told = kafka(
        channel=RF3,
        producer=at(0.5, 20.0),
        faults=[{"machine_crash": "orders.1", "at": 0.0, "lasting": lasting}],
        messages=2,
    )
    assert told["confirmed"] == told["unique"] == 2
    assert all(9.0 < time < 11.0 for time in told.times("confirmed", 0)) or lasting > 3.0
    assert told.times("confirmed", 1)[0] < 21.0
