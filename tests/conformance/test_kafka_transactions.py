"""Kafka, transactions: behaviours K-01 (markers) and K-45 to K-49 of the sheet, and what the exactly-once preset is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sim.brokers.kafka.log import COMMIT, FENCED
from sim.explain import explain
from sim.scenario import ScenarioError
from tests.conformance.kafka import HOP, RF3, START, STEP, Driven, at, books, kafka, outcomes, scenario

READS_COMMITTED = {"isolation_level": "read_committed"}
BOTH = {"committed": READS_COMMITTED, "uncommitted": {}}
EVERY_SECOND = {"transactional": True, "transaction_interval": "1 s"}
CHAIN: dict[str, Any] = {
    "channels": {
        "orders": {"system": "kafka", **RF3},
        "shipped": {
            "system": "kafka",
            "cluster": "orders",
            "replication_factor": 3,
            "min_insync_replicas": 2,
        },
    },
    "producer": {"channel": "orders"},
    "services": {
        "shipping": {"channel": "orders", "transactional": True, "publishes": {"channel": "shipped"}},
        "committed": {"channel": "shipped", **READS_COMMITTED},
        "uncommitted": {"channel": "shipped"},
    },
}


def chain(**settings: Any) -> Any:
    """shop -> orders -> shipping -> shipped, read by two: one sees what is committed, the other everything."""
    return kafka(**{**CHAIN, **settings})


# -- K-01: markers take offsets ----------------------------------------------------------------------------------------


def test_K01_each_transaction_takes_one_offset_more_in_each_partition_that_it_writes_to() -> None:
    world = Driven(
        channel={"partitions": 2},
        producer={**EVERY_SECOND, **at(5.0, 5.1, 5.2, 8.0), "keys": {"values": ["a", "b"]}},
        messages=4,
    )
    world.run(until=12.0)
    logs = [partition.log() for partition in world.broker.partitions]
    records = [[copy for copy in log.records if copy >= 0] for log in logs]
    writers = [
        {int(copy >= 3) for copy in own} for own in records
    ]  # which of the two transactions wrote there
    assert sum(map(len, records)) == 4
    assert [log.end for log in logs] == [len(own) + len(by) for own, by in zip(records, writers, strict=True)]


# -- K-45: read, process, write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.0005, 0.0015, 0.0025, 0.004, 0.006, 0.010, 0.013, 0.02])
def test_K45_wherever_the_processor_crashes_output_and_offset_commit_together_or_not_at_all(
    after: float,
) -> None:
    crash = {"crash": "shipping.1", "at": START + 3 * STEP + after, "lasting": "2 s"}
    told = chain(faults=[crash], messages=8)
    assert told.places("committed") == ["unique"] * 8
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8
    inputs, visible = told.pairs("shipping"), books(told, "shipped").transactions
    assert all(visible.values()) and len(visible) == 8
    again = [i for i in range(8) if inputs.processings[i] > 1]
    assert {told.causes.get(("duplicate", "offset_not_committed"), 0)} == {len(again)}


@pytest.mark.parametrize("after", [0.012, 0.014, 0.016, 0.018, 0.020, 0.022, 0.0225, 0.023, 0.024])
def test_K45_wherever_the_coordinators_crash_what_was_decided_is_done(after: float) -> None:
    told = chain(
        faults=[{"crash": "orders", "at": START + 4 * STEP + after, "lasting": "3 s"}],
        messages=None,
        producer={**CHAIN["producer"], **at(*(START + STEP * (i + 1) for i in range(8)))},
        duration="60 s",
    )
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8
    assert told["in_flight"] == 0


def test_K45_a_transaction_that_runs_out_of_time_while_its_output_is_written_is_begun_again() -> None:
    # given brokers that die when the output of message 3 is on its way, and are back when its transaction is too old
    shipping = {**CHAIN["services"]["shipping"], "transaction_timeout": "1 s"}
    told = chain(
        services={**CHAIN["services"], "shipping": shipping},
        faults=[{"crash": "orders", "at": START + 4 * STEP + 0.016, "lasting": "3 s"}],
        messages=None,
        producer={**CHAIN["producer"], **at(*(START + STEP * (i + 1) for i in range(8)))},
        duration="60 s",
    )
    # then the processor, whose commit is refused, reads message 3 again and goes on
    assert told.causes["duplicate", "transaction_aborted"] == 1
    assert told.pairs("shipping").processings[:8].tolist() == [1, 1, 1, 2, 1, 1, 1, 1]
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8


def test_K45_a_reader_of_uncommitted_records_sees_the_aborted_output_too() -> None:
    def crashed_at(time: float) -> Any:
        return chain(faults=[{"crash": "shipping.1", "at": time, "lasting": "2 s"}], messages=8)

    healthy = chain(messages=8)
    written = healthy.times("delivered", 3, "uncommitted")[0] - HOP
    committed = healthy.times("delivered", 3, "committed")[0] - HOP
    told = crashed_at((written + committed) / 2)  # in the log, and its transaction not yet decided
    assert told.pairs("uncommitted").processings[3] == 2
    assert told.pairs("committed").processings[3] == 1
    assert ("uncommitted", 3) in told.anomalies["duplicate", "input_reprocessed"]


def test_K45_offsets_count_with_the_commit_only() -> None:
    world = Driven(**CHAIN, messages=1)
    group = world.broker.groups[0]
    committed: list[float] = []
    while not committed:
        world.run(until=world.sim.world.now + HOP / 4)
        if group.committed(world.partition) == 1:
            committed.append(world.sim.world.now)
    world.run(until=committed[0] + 10 * HOP)
    (marker,) = [event.time for event in world.trace if event.what == "committed"]
    assert abs(committed[0] - marker) < 2 * HOP  # the marker and the offset are written side by side


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_K35_who_leaves_while_its_output_is_written_joins_again_as_one_member(protocol: str) -> None:
    # given followers that stop for 2 s when the output of message 3 is on its way, and max.poll.interval.ms of 0.5 s
    shipping = {**CHAIN["services"]["shipping"], "max_poll_interval": "0.5 s", "group_protocol": protocol}
    stops = [{"pause": f"orders.{i}", "at": START + 4 * STEP + 0.0135, "lasting": "2 s"} for i in (2, 3)]
    world = Driven(
        **{**CHAIN, "services": {**CHAIN["services"], "shipping": shipping}, "faults": stops, "messages": 8}
    )
    world.run(until=60.0)
    (group,) = world.broker.groups
    assert [member.name for member in group.members] == ["shipping.1-2"]
    assert group.committed(world.partition) == 8


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_K35_output_of_a_batch_whose_partitions_were_lost_is_aborted(protocol: str) -> None:
    # given a poll of eight records of 0.2 s each, and max.poll.interval.ms of 1 s: the member leaves amid it
    shipping = {
        **CHAIN["services"]["shipping"],
        "service_time": {"schedule": [["0 s", "0.2 s"], ["11 s", "10 ms"]]},
        "max_poll_interval": "1 s",
        "group_protocol": protocol,
    }
    told = chain(
        producer={"channel": "orders", "linger": "1 ms", **at(*[8.0] * 8)},
        services={**CHAIN["services"], "shipping": shipping},
        messages=8,
    )
    assert told.causes["duplicate", "poll_interval_exceeded"] >= 8
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8
    assert told.pairs("uncommitted").processings[:8].tolist() != [1] * 8


def stands_still(after: float) -> Any:
    """One of two processors does so amid message 3, for longer than its session, but not than its transaction."""
    pause = {"pause": "shipping.1", "at": 10.0 + 3 * STEP + after, "lasting": "52 s"}
    return chain(
        producer={**CHAIN["producer"], **at(*(10.0 + STEP * i for i in range(8)))},
        services={**CHAIN["services"], "shipping": {**CHAIN["services"]["shipping"], "consumers": 2}},
        faults=[pause],
        duration="120 s",
    )


@pytest.mark.parametrize("after, times", [(0.012, 2), (0.018, 2), (0.0205, 1), (0.0225, 1)])
def test_K45_who_is_next_waits_for_offsets_that_may_be_committed_yet(after: float, times: int) -> None:
    # given that it stands still before, or after, the coordinator has its offsets, and before it has its commit
    told = stands_still(after)
    # then its commit is refused, and the next one's output counts, or that one waits and goes on behind it
    assert told.pairs("shipping").processings[3] == times
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8


def test_K45_a_transaction_of_which_a_record_could_not_be_written_is_aborted() -> None:
    # given transactions of 4 s over four partitions, of which one has no leader
    def told(**resend: Any) -> Any:
        return kafka(
            channel={"nodes": 4, "partitions": 4},
            producer={
                **EVERY_SECOND,
                "transaction_interval": "4 s",
                "request_timeout": "1 s",
                "delivery_timeout": "2 s",
                "keys": {"number": 64},
                **at(5.0, 5.1, 5.2, 5.3, 5.4, 6.0, 6.1, 6.2, 6.3, 6.4),
                **resend,
            },
            services=BOTH,
            faults=[{"crash": "orders.4", "at": 5.7, "lasting": "20 s"}],
            duration="60 s",
        )

    # then what was written before is no more worth than what was not
    once = told(resend={"timeout": None, "attempts": 1})
    assert outcomes(once) == ["failed"] * 10
    assert once.pairs("committed").processings[:10].tolist() == [0] * 10
    assert sum(once.pairs("uncommitted").processings[:10]) >= 5
    # and the application, which is told so, sends all of it again
    assert told().pairs("committed").processings[:10].tolist() == [1] * 10


def test_K45_a_commit_is_confirmed_when_the_decision_is_committed() -> None:
    # given followers of the coordinator that stand still
    stands = [{"pause": f"orders.{i}", "at": 5.5, "lasting": "4 s"} for i in (2, 3)]
    world = Driven(
        channel={"nodes": 3},
        producer={**EVERY_SECOND, "transaction_interval": "50 s", **at(5.0)},
        faults=stands,
        messages=1,
    )
    world.run(until=6.0)
    (producer,), answers = world.broker.producers, []
    world.cluster.transaction_coordinator.end("shop", producer.epoch, COMMIT, answers.append)
    world.run(until=9.4)
    assert not answers and not world.partition.log().ends
    world.run(until=12.0)
    assert answers == ["NONE"] and len(world.partition.log().ends) == 1


def test_K45_less_than_the_minimum_of_coordinators_decide_nothing() -> None:
    # given transaction.state.log.min.isr of 2, and one broker of three, which leads the topic
    gone = [{"crash": f"orders.{i}", "at": 20.0, "lasting": "100 s"} for i in (2, 3)]
    world = Driven(
        channel={"nodes": 3},
        producer={**EVERY_SECOND, **at(60.0)},
        service=READS_COMMITTED,
        faults=gone,
        messages=1,
    )
    world.run(until=119.0)
    assert world.partition.log().end == 0  # not even begun
    world.run(until=130.0)
    assert world.sent(120.0) == [0]


# -- K-46: an open transaction blocks readers --------------------------------------------------------------------------


def test_K46_readers_of_committed_records_wait_for_the_end_of_the_transaction() -> None:
    interval, count = 1.0, 400
    told = kafka(
        producer={**EVERY_SECOND, **at(*(START + 0.0503 * i for i in range(count)))},
        services=BOTH | {"committed": {**READS_COMMITTED, "service_time": "0.1 ms"}},
        service={"service_time": "0.1 ms"},
        messages=count,
    )
    waits = [
        told.times("delivered", i, "committed")[0] - told.times("delivered", i, "uncommitted")[0]
        for i in range(count)
    ]
    # Uniform over the interval: mean half; the sum of n has a standard deviation of interval * sqrt(n / 12).
    deviation = interval / math.sqrt(12 * count)
    assert abs(sum(waits) / count - interval / 2) < 3.29 * deviation + 20 * HOP
    assert max(waits) < interval + 20 * HOP


def test_K46_another_producers_records_wait_with_it() -> None:
    told = kafka(
        producers={
            "slow": {**EVERY_SECOND, "transaction_interval": "3 s", **at(5.0), "messages": 1},
            "plain": {**at(5.5), "messages": 1},
        },
        services=BOTH,
        messages=None,
        duration="20 s",
    )
    (message,) = [i for i in range(2) if books(told).created[i] == 5.5]
    (early,), (late,) = (
        told.times("delivered", message, "uncommitted"),
        told.times("delivered", message, "committed"),
    )
    assert early < 5.5 + 4 * HOP
    assert 8.0 < late < 8.0 + 20 * HOP


def test_K46_a_hung_producer_blocks_until_its_timeout_and_the_next_scan() -> None:
    told = kafka(
        producers={
            "hung": {**EVERY_SECOND, **at(5.0), "messages": 1},
            "plain": {**at(5.5), "messages": 1},
        },
        services=BOTH,
        faults=[{"pause": "hung", "at": 5.2, "lasting": "100 s"}],
        messages=None,
        duration="120 s",
    )
    (message,) = [i for i in range(2) if books(told).created[i] == 5.5]
    (late,) = told.times("delivered", message, "committed")
    began = 5.0 + 4 * HOP  # the coordinator hears of it
    assert began + 60.0 - 2 * HOP <= late <= began + 60.0 + 10.0 + 10 * HOP


def test_K46_a_coordinator_that_was_away_when_it_had_to_look_looks_when_it_is_back() -> None:
    told = kafka(
        producers={
            "hung": {**EVERY_SECOND, **at(5.0), "messages": 1},
            "plain": {**at(5.5), "messages": 1},
        },
        services=BOTH,
        faults=[
            {"pause": "hung", "at": 5.2, "lasting": "200 s"},
            {"crash": "orders", "at": 58.0, "lasting": "5 s"},
        ],
        messages=None,
        duration="220 s",
    )
    (message,) = [i for i in range(2) if books(told).created[i] == 5.5]
    (late,) = told.times("delivered", message, "committed")
    assert 65.0 < late < 65.0 + 2 * 10.0


# -- K-47: fencing ----------------------------------------------------------------------------------------------------


def test_K47_a_zombie_whose_transaction_timed_out_is_fenced_and_nothing_of_it_is_seen() -> None:
    told = kafka(
        producer={**EVERY_SECOND, **at(5.0, 5.1, 5.15, 90.0), "resend": {"timeout": None, "attempts": 1}},
        services=BOTH,
        faults=[{"pause": "shop", "at": 5.12, "lasting": "80 s"}],
        messages=4,
    )
    zombies = [0, 1]
    assert [told.pairs("committed").processings[i] for i in zombies] == [0, 0]
    assert [told.pairs("uncommitted").processings[i] for i in zombies] == [
        1,
        1,
    ]  # it was in the log all the same
    assert told["phantom"] == 2
    assert told["aborted"] == 6  # the third was sent in that transaction, too, and refused
    assert [outcomes(told)[i] for i in zombies] == ["failed", "failed"]
    assert told.places("committed")[3] == "unique"  # its next session


def test_K47_a_new_session_of_the_same_id_aborts_the_old_ones_transaction() -> None:
    world = Driven(producer={**EVERY_SECOND, **at(5.0)}, messages=1)
    world.run(until=5.5)
    (producer,) = world.broker.producers
    zombie = producer.producer_id, producer.epoch
    coordinator, answers = world.cluster.transaction_coordinator, []
    coordinator.init("shop", 60.0, lambda *session: answers.append(session))  # by another process
    world.run(until=6.5)
    assert answers == [(zombie[0], zombie[1] + 2)]  # one for the abort, one for the session
    assert [end.is_abort for end in world.partition.log().ends] == [True]
    late: list[str] = []
    coordinator.end("shop", zombie[1], 1, late.append)
    assert late == ["INVALID_PRODUCER_EPOCH"]


def test_K47_a_session_that_was_replaced_is_told_so_whatever_it_asks() -> None:
    world = Driven(producer={**EVERY_SECOND, **at(5.0)}, messages=1)
    world.run(until=5.5)
    (producer,), (group,) = world.broker.producers, world.broker.groups
    (member,) = group.members
    zombie, coordinator = producer.epoch, world.cluster.transaction_coordinator
    coordinator.init("shop", 60.0, lambda *session: None)  # by another process
    world.run(until=6.5)
    late: list[str] = []
    offsets = {world.partition: (1, 0)}
    coordinator.add_partition("shop", zombie, world.partition, late.append)
    coordinator.add_offsets("shop", zombie, group, member.epoch, member, offsets, late.append)
    coordinator.end("shop", zombie, COMMIT, late.append)
    assert late == [FENCED] * 3


def test_K47_a_session_begins_when_the_last_transaction_has_its_markers() -> None:
    # given a transaction over four partitions that is decided while the leader of the last of them is away
    world = Driven(
        channel={"nodes": 4, "partitions": 4},
        producer={**EVERY_SECOND, "keys": {"number": 64}, **at(*[5.0 + 0.01 * i for i in range(40)])},
        faults=[{"crash": "orders.4", "at": 5.5, "lasting": "15 s"}],
        messages=40,
    )
    world.run(until=8.0)
    logs = [partition.log() for partition in world.broker.partitions]
    assert [len(log.ends) for log in logs] == [1, 1, 1, 0]
    answers: list[tuple[int, int]] = []
    world.cluster.transaction_coordinator.init("shop", 60.0, lambda *session: answers.append(session))
    world.run(until=20.0)
    assert not answers
    world.run(until=40.0)
    assert len(answers) == 1
    assert [[end.is_abort for end in log.ends] for log in logs] == [[False]] * 4


def test_K47_a_zombie_of_the_group_cannot_commit_with_an_old_generation() -> None:
    # given that it stands still amid a record, and goes on when another has processed that and those behind it
    told = stands_still(after=0.013)
    assert told.pairs("shipping").processings[3] == told.pairs("uncommitted").processings[3] == 2
    assert told.pairs("committed").processings[:8].tolist() == [1] * 8


# -- K-48: exactly-once ends at the edge ------------------------------------------------------------------------------


def test_K48_an_effect_outside_is_repeated_and_one_with_an_inbox_is_not() -> None:
    def world(**shipping: Any) -> Any:
        services = {**CHAIN["services"], "shipping": {**CHAIN["services"]["shipping"], **shipping}}
        crash = {"crash": "shipping.1", "at": START + 3 * STEP + 0.0155, "lasting": "2 s"}
        return chain(services=services, faults=[crash], messages=8)

    mails = world()
    (row,) = [r for r in mails.outcome.by if r["subscription"] == "shipping"]
    assert row["duplicate_effects"] == row["duplicates"] == 1
    (row,) = [
        r for r in world(idempotence={"store": "transaction"}).outcome.by if r["subscription"] == "shipping"
    ]
    assert row["duplicate_effects"] == 0 and row["duplicates"] == 1


# -- K-49: what it costs ----------------------------------------------------------------------------------------------


def test_K49_the_cost_of_a_transaction_is_fixed_so_that_it_falls_with_the_records_in_it() -> None:
    def segments(commit_every: int | None) -> float:
        """What goes to coordinators and comes back, per input record."""
        services = {
            **CHAIN["services"],
            "committed": {
                "channel": "shipped",
                **READS_COMMITTED,
                "enable_auto_commit": True,
                "auto_commit_interval": "1 h",
            },
            "uncommitted": {"channel": "shipped", "enable_auto_commit": True, "auto_commit_interval": "1 h"},
            "shipping": {
                **CHAIN["services"]["shipping"],
                "commit_every": commit_every,
                "service_time": "1 ms",
            },
        }
        producer = {"channel": "orders", **at(*[9.0] * 64)}
        world = Driven(**{**CHAIN, "services": services, "producer": producer}, messages=64)
        before = sum(link.sent for link in world.sim.network.links if link.hop.name == "coordinator")
        world.run(until=30.0)
        after = sum(link.sent for link in world.sim.network.links if link.hop.name == "coordinator")
        return (after - before) / 64

    one, eight, all_ = segments(1), segments(8), segments(64)
    # Of each transaction: AddPartitions, AddOffsets, EndTxn and their answers. What does not depend on them is joining.
    assert one - eight == pytest.approx(6 * (1 - 1 / 8), rel=0.05)
    assert eight - all_ == pytest.approx(6 * (1 / 8 - 1 / 64), rel=0.25)


# -- the preset -------------------------------------------------------------------------------------------------------


def test_exactly_once_is_a_transaction_on_one_cluster_and_an_inbox_elsewhere() -> None:
    services = {
        name: {key: value for key, value in service.items() if key != "transactional"}
        for name, service in CHAIN["services"].items()
    }
    for own_cluster in (False, True):
        shipped = {"system": "kafka"} if own_cluster else {"system": "kafka", "cluster": "orders"}
        told = chain(
            channels={"orders": {"system": "kafka"}, "shipped": shipped},
            services=services,
            guarantee="exactly-once",
            faults=[{"crash": "shipping.1", "at": START + 3 * STEP + 0.0155, "lasting": "2 s"}],
            messages=8,
        )
        assert told["duplicate_effects"] == told["lost_effects"] == told["lost"] == 0
        in_transactions = bool(books(told, "shipped").transactions)
        assert in_transactions is not own_cluster


@pytest.mark.parametrize(
    ("channels", "is_transactional", "complaint"),
    [
        (
            {"shipped": {"system": "kafka", "cluster": "ordrs"}},
            False,
            "channels.shipped: cluster: ordrs is no Kafka channel with a cluster of its own; there is orders",
        ),
        (
            {"shipped": {"system": "kafka"}},
            True,
            "channels.orders: shipping is transactional, so it must publish to a topic of the same cluster",
        ),
        (
            {"shipped": {"system": "kafka", "cluster": "orders", "replication_factor": 5}},
            True,
            "channels.shipped: replication_factor 5 needs as many nodes; there are 3",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    channels: dict[str, Any], is_transactional: bool, complaint: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        scenario(
            channels={"orders": {"system": "kafka", **RF3}, **channels},
            producer={"channel": "orders"},
            services={
                "shipping": {
                    "channel": "orders",
                    "transactional": is_transactional,
                    "publishes": {"channel": "shipped"},
                }
            },
        ).points()
    assert str(error.value) == f"scenario: {complaint}"


def test_why_says_of_an_aborted_message_that_nobody_is_owed_it() -> None:
    world = scenario(
        producer={**EVERY_SECOND, **at(5.0, 5.1, 9.0)},
        services=BOTH,
        faults=[{"crash": "shop", "at": 5.5, "lasting": "2 s"}],
        messages=3,
    )
    story = explain(world, message=1)
    assert story is not None and story.anomaly is None
    assert story.summary == (
        "The transaction of orders:1 was aborted, so nobody is owed it. uncommitted processed it all the same. "
        "Its producer was told nothing."
    )
    assert "the transaction of copy 1 is aborted" in [step.text.split(" [")[0] for step in story.events]
