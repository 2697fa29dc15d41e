"""Kafka in random small worlds under random faults: the books, what each guarantee promises, order, determinism.

A world is a scenario as a user would write it, so that a failing example can be saved as one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sim.brokers.kafka.log import ABORT
from sim.metrics import measure
from sim.scenario import Scenario
from sim.simulation import Simulation
from tests.properties.written import World, check_books, examples, nodes_of, run, seeds, some

HOSTS = ("shop", "billing", "billing.1", "orders", "orders.leader", "orders.controller", "*")
PATHS = ("shop <-> orders", "orders -> shop", "billing <-> orders", "orders -> billing", "orders <-> *")
BETWEEN = ("orders.1 <-> orders.2", "orders.3 -> orders.1", "orders.leader <-> orders.controller")
LASTING = (0.2, 3.0, 15.0)  # seconds of a fault: less than any session, than some, and than few
POWER = ("machine_crash", "disk_loss")


# -- worlds ----------------------------------------------------------------------------------------------------------


@st.composite
def faults(draw: Any, nodes: int, fragile: list[str]) -> World:
    """Any fault to anybody, of which brokers lose power, or their disks, only where they are among the fragile ones."""
    kinds = (
        "crash",
        "crash",
        "stop",
        "partition",
        "pause",
        "slow",
        "loss_burst",
        *(POWER if fragile else ()),
    )
    kind = draw(st.sampled_from(kinds))
    if kind in POWER:
        target = draw(st.sampled_from(fragile))
    elif kind in ("partition", "loss_burst"):
        target = draw(st.sampled_from([*PATHS, *(BETWEEN if nodes > 1 else ())]))
    else:
        target = draw(st.sampled_from([*HOSTS, *nodes_of(nodes)]))
    lasting = draw(st.sampled_from(LASTING))
    when = draw(st.sampled_from(["at", "every", "appended", "appended"]))
    if when == "at":
        return {kind: target, "at": draw(st.integers(0, 2000)) / 100, "lasting": lasting}
    if when == "every":
        return {kind: target, "every": 7.0, "lasting": min(lasting, 3.0)}
    number = draw(st.integers(1, 40))
    after = draw(st.sampled_from((0.0, 0.001, 0.003, 0.02)))
    return {kind: target, "on": f"orders.appended #{number}", "after": after, "lasting": lasting}


def in_turn(draw: Any) -> list[World]:
    """Each of three brokers loses power, or its disk, and the next one only when the others have all that is confirmed.

    A session of 9 s ends meanwhile, and the ISR is whole again.
    """
    first = draw(st.integers(0, 2))
    return [
        {draw(st.sampled_from(POWER)): f"orders.{(first + i) % 3 + 1}", "at": 2.0 + 15.0 * i, "lasting": 4.0}
        for i in range(3)
    ]


def publisher(draw: Any) -> World:
    """A producer with acks=all whose library tries again for as long as it takes."""
    return {"arrivals": draw(st.sampled_from(["4/s", "20/s", {"deterministic": "30/s"}, "200/s"]))} | some(
        draw,
        linger=(..., 0.0, 0.05),
        batch_size=(..., 1, 3000),
        request_timeout=(..., 2.0),
        delivery_timeout=(1000.0,),
        max_in_flight_requests_per_connection=(..., 1),
        metadata_max_age=(..., 1.0),
        keys=(..., {"number": 5}),
    )


def consumer(draw: Any) -> World:
    """A service that commits after processing."""
    return some(
        draw,
        consumers=(1, 1, 3),
        slots=(1, 1, 2),
        service_time=("2 ms", {"exponential": 0.02}),
        failures=({}, {}, {"transient": 0.2}),
        group_protocol=("classic", "classic", "consumer"),
        partition_assignment_strategy=("range", "cooperative-sticky"),
        group_instance_id=(False, True),
        session_timeout=(..., 6.0),
        max_poll_records=(..., 1, 10),
        max_poll_interval=(..., 2.0),
        commit_every=(..., 1, 7),
        fetch_min_bytes=(1, 1, 5000),
        metadata_max_age=(..., 1.0),
    )


def topic(draw: Any) -> World:
    """What does not touch what is promised."""
    partitions = draw(st.sampled_from((1, 1, 3)))
    return {"partitions": partitions} | some(
        draw,
        alter_partitions=(..., ..., partitions + 2),
        alter_at=(0.0, 0.7, 4.0, 15.0),
        broker_delay=(..., 0.005),
        replica_lag_time_max=(..., 2.0),
        flush_messages=(..., ..., 1),
        group_initial_rebalance_delay=(..., 0.0),
    )


def assembled(draw: Any, channel: World, shop: World, services: World, struck_by: list[World]) -> World:
    """A scenario of 60 messages in at most 50 s, whose books are closed when 2000 s have passed without faults."""
    return {
        "channels": {"orders": {"system": "kafka", **channel}},
        "producers": {"shop": {"messages": 60, "channel": "orders", **shop}},
        "services": {name: {"channel": "orders", **service} for name, service in services.items()},
        "network": {
            "delay": draw(st.sampled_from([0.0005, {"exponential": 0.003}])),
            "loss": draw(st.sampled_from([0, 0, 0.02])),
        },
        "faults": struck_by,
        "duration": 50.0 if struck_by else 20.0,
        "drain_limit": 2000.0,
    }


@st.composite
def safe_worlds(draw: Any, guarantee: str) -> World:
    """Replication factor 3, acks=all, min ISR 2, clean elections, commits after processing; one machine of three at a
    time is lost.
    """
    channel = {"guarantee": guarantee, "nodes": 3} | topic(draw)
    if draw(st.integers(0, 3)):
        struck_by = draw(st.lists(faults(3, [draw(st.sampled_from(nodes_of(3)))]), max_size=4))
    else:
        struck_by = in_turn(draw)
    names = draw(st.sampled_from([["billing"], ["billing", "audit"]]))
    services = {name: consumer(draw) for name in names}
    return assembled(draw, channel, publisher(draw), services, struck_by)


@st.composite
def chains(draw: Any) -> World:
    """shop -> orders -> billing -> shipped -> reader, all of it exactly-once.

    Who loses power does so alone: the min ISR of __consumer_offsets is 1, and with other faults committed offsets, for
    which billing has no inbox, may go with the last replica (K-30).
    """
    world = draw(safe_worlds("exactly-once"))
    if draw(st.booleans()) or not world["faults"]:
        world["faults"] = in_turn(draw)
    else:
        world["faults"] = draw(st.lists(faults(3, []), min_size=1, max_size=4))
    world["duration"] = 50.0
    shipped = {"system": "kafka", "cluster": "orders", "guarantee": "exactly-once"}
    world["channels"]["shipped"] = shipped | some(draw, partitions=(1, 3))
    billing = world["services"]["billing"]
    billing |= {
        "publishes": {"channel": "shipped"},
        "transaction_timeout": draw(st.sampled_from([5.0, 60.0])),
    }
    billing.pop("commit_every", None)
    world["services"] = {"billing": billing, "reader": {"channel": "shipped"}}
    return world


@st.composite
def worlds(draw: Any) -> World:
    """Whatever the settings allow."""
    nodes = draw(st.sampled_from([1, 1, 3, 5]))
    replicas = min(nodes, draw(st.sampled_from([1, 3])))
    channel = {"nodes": nodes, "replication_factor": replicas} | topic(draw)
    channel |= some(
        draw,
        min_insync_replicas=(1, min(2, replicas)),
        unclean_leader_election_enable=(False, False, True),
        flush_interval=(..., ..., 0.5),
        write_back=(..., 3.0),
        retention=(..., ..., 10.0),
        retention_bytes=(..., ..., 20_000),
        segment_bytes=(..., 1024, 5000),
        segment_time=(..., 2.0),
        log_retention_check_interval=(..., 5.0),
        offsets_replication_factor=(..., 1),
        offsets_retention=(..., ..., 1.0),
        producer_id_expiration=(..., ..., 1.0),
        broker_bandwidth=(..., ..., 1e6),
    )
    shop = publisher(draw) | carelessness(draw)
    if "keys" in shop:
        channel |= some(draw, cleanup_policy=("delete", "compact"))
    services = {
        name: consumer(draw) | habits(draw)
        for name in draw(st.sampled_from([["billing"], ["billing", "audit"]]))
    }
    struck_by = draw(st.lists(faults(nodes, ["orders", "orders.leader", *nodes_of(nodes)]), max_size=4))
    return assembled(draw, channel, shop, services, struck_by) | {"drain_limit": 400.0}


def carelessness(draw: Any) -> World:
    """What a producer does that may lose, repeat or reorder records."""
    kinds: list[World] = [
        {},
        {"acks": "0", "resend": None},
        {"acks": "1"},
        {"enable_idempotence": False},
        {"transactional": True, "transaction_interval": 0.1, "transaction_timeout": 5.0},
        {"transactional": True, "transaction_interval": 2.0},
    ]
    kind = draw(st.sampled_from(kinds))
    shop = kind | some(
        draw,
        buffer_memory=(..., ..., 20_000),
        max_block=(..., 0.5),
        max_request_size=(..., ..., 3000),
        size=(..., {"exponential": 1000.0}),
        compression_ratio=(..., 0.5),
    )
    if draw(st.booleans()):
        shop |= {"request_timeout": 1.0, "delivery_timeout": draw(st.sampled_from([2.0, 10.0]))}
    if draw(st.booleans()) and "transactional" not in kind and "resend" not in kind:
        shop |= {"resend": draw(st.sampled_from([{"timeout": 1.0}, {"timeout": None, "attempts": 3}]))}
    return shop


def habits(draw: Any) -> World:
    """What a service does that may lose records, or repeat or skip them."""
    kinds: list[World] = [
        {},
        {"settle": "before", "enable_auto_commit": False},
        {"enable_auto_commit": True, "auto_commit_interval": 0.5},
        {"enable_auto_commit": True, "hands_off": True},
        {"enable_auto_commit": False, "hands_off": True},
        {"group_protocol": "share", "share_record_lock_duration": 2.0},
        {"group_protocol": "share", "share_delivery_count_limit": 2, "on_failure": "discard"},
    ]
    kind = draw(st.sampled_from(kinds))
    resets = ("earliest", "earliest", "latest", "none")
    return (
        some(
            draw,
            enable_auto_commit=(False,),
            auto_offset_reset=resets[:3] if "group_protocol" in kind else resets,
            isolation_level=("read_uncommitted", "read_committed"),
            commits_when_revoked=(False, True),
            failures=({}, {}, {"transient": 0.2}, {"poison": 0.03, "crashes": True, "restart": 2.0}),
            idempotence=(..., {"store": "transaction"}, {"store": "memory", "size": 10}),
        )
        | kind
    )


# -- properties ------------------------------------------------------------------------------------------------------


@examples(80)
@given(worlds(), seeds)
def test_the_books_balance_and_every_anomaly_has_a_cause(world: World, seed: int) -> None:
    check_books(run(world, seed)[1])


@st.composite
def careless_worlds(draw: Any) -> World:
    """The at-most-once preset under any fault but the loss of a machine, with which committed offsets may go."""
    channel = {"guarantee": "at-most-once"} | topic(draw)
    services = {"billing": consumer(draw) | {"failures": {}}}
    struck_by = draw(st.lists(faults(3, []), max_size=4))
    shop = publisher(draw)
    shop.pop("max_in_flight_requests_per_connection", None)
    return assembled(draw, channel, shop, services, struck_by)


@examples(60)
@given(careless_worlds(), seeds)
def test_at_most_once_never_repeats(world: World, seed: int) -> None:
    assert run(world, seed)[1].figures["duplicates"] == 0


@examples(60)
@given(safe_worlds("at-least-once"), seeds)
def test_at_least_once_never_loses_what_was_confirmed(world: World, seed: int) -> None:
    outcome = run(world, seed)[1]
    assert outcome.figures["lost_confirmed"] == 0
    assert outcome.figures["in_flight"] == 0  # after the faults all of it gets through
    # The producer is idempotent: it neither repeats nor reorders.
    assert not {"retried_after_append", "retried_behind_others"} & {
        cause["cause"] for cause in outcome.causes
    }


@examples(40)
@given(safe_worlds("exactly-once"), seeds)
def test_exactly_once_neither_repeats_nor_misses_an_effect(world: World, seed: int) -> None:
    figures = run(world, seed)[1].figures
    assert figures["duplicate_effects"] == figures["lost_effects"] == figures["lost_confirmed"] == 0
    assert figures["effects"] == figures["unique"]


@examples(50)
@given(chains(), seeds)
def test_exactly_once_over_a_chain_has_one_output_for_each_input(world: World, seed: int) -> None:
    sim = Simulation(Scenario.from_dict(world).points()[0].config, seed, 0)
    outcome = measure(sim.run())
    figures = outcome.figures
    assert figures["duplicate_effects"] == figures["lost_effects"] == figures["lost_confirmed"] == 0
    assert figures["in_flight"] == 0
    # What a reader of committed records can see: never two records of one input, whoever has read it how often.
    visible: Counter[int] = Counter()
    for partition in sim.part("shipped").partitions:
        log = partition.log()
        for copy in log.without_aborted(log.start, log.read(log.start, log.end)):
            if copy > ABORT:
                visible[sim.ledger.channels["shipped"].message_of(copy)] += 1
    assert set(visible.values()) <= {1}


@st.composite
def single_files(draw: Any) -> World:
    """An idempotent producer, one consumer of one thread, and any faults."""
    nodes = draw(st.sampled_from([1, 3]))
    channel = {"nodes": nodes, "replication_factor": nodes} | topic(draw)
    billing = consumer(draw) | {"consumers": 1, "slots": 1, "failures": {}}
    billing |= {"enable_auto_commit": draw(st.booleans()), "auto_offset_reset": "earliest"}
    struck_by = draw(st.lists(faults(nodes, nodes_of(nodes)), max_size=2))
    return assembled(draw, channel, publisher(draw), {"billing": billing}, struck_by)


@examples(80)
@given(single_files(), seeds)
def test_without_a_redelivery_order_within_a_partition_is_kept(world: World, seed: int) -> None:
    done, outcome = run(world, seed)
    further_copies = len(done.ledger.channels["orders"].copy_message)
    has_rebalances = (
        "max_poll_interval" in world["services"]["billing"]
        or "alter_partitions" in world["channels"]["orders"]
    )
    if not world["faults"] and not has_rebalances:
        assert further_copies == 0
    if further_copies == 0:
        assert outcome.figures["out_of_order"] == 0


@examples(25)
@given(worlds() | chains(), seeds)
def test_the_same_seed_gives_the_same_bytes(world: World, seed: int) -> None:
    first, second = (json.dumps(asdict(run(world, seed)[1])) for _ in range(2))
    assert first == second
