"""RabbitMQ in random small worlds under random faults: the books, what each guarantee promises, order, determinism.

A world is a scenario as a user would write it, so that a failing example can be saved as one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.properties.written import World, check_books, examples, nodes_of, run, seeds, some

SHORT, LASTING = (0.1, 0.5, 1.5), (0.02, 0.3, 2.0)  # seconds of a client's recovery, of a fault
HOSTS = ("shop", "billing", "billing.1", "orders", "orders.leader", "*")
PATHS = ("shop <-> orders", "orders -> shop", "orders -> billing", "orders <-> *", "orders.leader <-> *")
NAMES = st.sampled_from([["billing"], ["billing", "audit"]])


# -- worlds ----------------------------------------------------------------------------------------------------------


@st.composite
def faults(draw: Any, nodes: int, fragile: list[str]) -> World:
    """Any fault to anybody, of which nodes lose their disks only where they are among the fragile ones."""
    kinds = ("crash", "crash", "machine_crash", "partition", "pause", "slow", "loss_burst", "disk_loss")
    kind = draw(st.sampled_from([k for k in kinds if k != "disk_loss" or fragile]))
    if kind == "disk_loss":
        target = draw(st.sampled_from(fragile))
    elif kind in ("partition", "loss_burst"):
        between = ["orders.1 <-> orders.2", "orders.1 -> orders.2"] if nodes > 1 else []
        target = draw(st.sampled_from([*PATHS, *between]))
    else:
        target = draw(st.sampled_from([*HOSTS, *nodes_of(nodes)]))
    lasting = draw(st.sampled_from(LASTING))
    when = draw(st.sampled_from(["at", "at", "every", "publish", "put", "acked"]))
    if when == "at":
        return {kind: target, "at": draw(st.integers(0, 300)) / 100, "lasting": lasting}
    if when == "every":
        return {kind: target, "every": 1.3, "lasting": min(lasting, 1.0)}
    number = draw(st.integers(1, 40))
    return {kind: target, "on": f"orders.{when} #{number}", "after": draw(st.sampled_from((0.0, 0.001)))}


def clients(draw: Any, nodes: int) -> World:
    """What client libraries have in common. All have heartbeats: who listens without them may do so for ever (R-16)."""
    return some(
        draw,
        heartbeat=(..., 0.2, 1.0),
        recovery_interval=SHORT,
        node=tuple(range(1, nodes + 1)),
    )


def publisher(draw: Any, nodes: int) -> dict[str, Any]:
    """A producer with publisher confirms: in a window, after each batch, or one at a time."""
    confirms: list[dict[str, Any]] = [
        {},
        {"window": 1},
        {"window": 10},
        {"confirm_batch": 1},
        {"confirm_batch": 5},
    ]
    return {
        "arrivals": draw(st.sampled_from(["20/s", {"deterministic": "30/s"}, "200/s"])),
        "resend": {"timeout": None} | some(draw, backoff=(0.02, 0.1)),
        **draw(st.sampled_from(confirms)),
        **clients(draw, nodes),
    }


def consumer(draw: Any, nodes: int) -> dict[str, Any]:
    """A service whose consumers ack by hand, after processing, and not less often than the prefetch allows (R-11)."""
    prefetch, ack_every = draw(st.sampled_from([(None, 1), (None, 3), (1, 1), (10, 1), (10, 3)]))
    return (
        {"prefetch": prefetch, "ack_every": ack_every}
        | some(
            draw,
            consumers=(1, 1, 3),
            slots=(1, 2),
            service_time=("5 ms", {"exponential": 0.02}, 0.1),
            failures=({}, {}, {"transient": 0.2}),
        )
        | clients(draw, nodes)
    )


def assembled(draw: Any, channel: World, shop: World, services: World, struck_by: list[World]) -> World:
    """A scenario of 60 messages in at most 3 s, whose books are closed when 400 s have passed without faults."""
    if channel.get("queue_type") == "stream":  # refuses consumers without a prefetch, and is read from next
        for service in services.values():
            service["prefetch"] = service.get("prefetch") or 10
            service.setdefault("offset", "first")
    return {
        "channels": {"orders": {"system": "rabbitmq", **channel}},
        "producers": {"shop": {"messages": 60, **shop}},
        "services": services,
        "network": {
            "delay": draw(st.sampled_from([0.0005, {"exponential": 0.003}])),
            "loss": draw(st.sampled_from([0, 0, 0.05])),
        },
        "faults": struck_by,
        "duration": 3.0,
        "drain_limit": 400.0,
    }


@st.composite
def safe_worlds(draw: Any, guarantee: str) -> World:
    """Quorum queues, confirms, acks after processing; a minority of nodes may lose their disks, however often."""
    nodes = draw(st.sampled_from([3, 3, 5]))
    first = draw(st.integers(0, nodes - 1))
    fragile = [nodes_of(nodes)[(first + i) % nodes] for i in range(nodes // 2)]
    channel = {"guarantee": guarantee, "nodes": nodes, "initial_group_size": nodes} | some(
        draw,
        queue_node=(1, 2),
        node_delay=(0.0001, 0.005),
        fsync=(0.001, 0.02),
        series=(..., "4.2"),
        single_active_consumer=(False, True),
        consumer_disconnected_timeout=(..., 1.0),
        exchange=("fanout",),
    )
    services = {name: consumer(draw, nodes) for name in draw(NAMES)}
    struck_by = draw(st.lists(faults(nodes, fragile), min_size=1, max_size=3))
    if draw(st.booleans()):  # all of them at once
        struck_by += [{"disk_loss": node, "at": 1.0, "lasting": 0.5} for node in fragile]
    return assembled(draw, channel, publisher(draw, nodes), services, struck_by)


@st.composite
def worlds(draw: Any) -> World:
    """Whatever the settings allow."""
    nodes = draw(st.sampled_from([1, 1, 3, 5]))
    channel = {"nodes": nodes} | some(
        draw,
        queue_type=("classic", "classic", "quorum", "stream"),
        queue_node=tuple(range(1, nodes + 1)),
        node_delay=(0.0001, 0.005),
        exchange=("topic", "topic", "fanout"),
        alternate_exchange=(False, True),
        single_active_consumer=(False, False, True),
        series=(..., "4.2"),
        initial_group_size=(3, 5),
    )
    shop = publisher(draw, nodes) if draw(st.booleans()) else clients(draw, nodes) | {"arrivals": "50/s"}
    shop |= {"keys": {"values": ["order.eu", "order.us"]}}
    shop |= some(draw, delivery_mode=(..., "transient"), mandatory=(False, True))
    if "resend" in shop:
        shop |= some(draw, resend=(..., ..., {"timeout": 0.3, "attempts": 3}))
        if "confirm_batch" not in shop:
            shop |= some(draw, transaction=(..., ..., 4))
    services = {name: consumer(draw, nodes) | habits(draw) for name in draw(NAMES)}
    for client in (shop, *services.values()):
        client |= some(draw, heartbeat=(..., ..., None))
    own = {"classic": of_classic, "quorum": of_quorum, "stream": of_stream}[channel["queue_type"]]
    own(draw, channel, shop, services)
    struck_by = draw(st.lists(faults(nodes, nodes_of(nodes)), max_size=4))
    return assembled(draw, channel, shop, services, struck_by)


def habits(draw: Any) -> World:
    """What a service does that may lose messages, or hold them up."""
    failing: tuple[World, ...] = (
        {},
        {"poison": 0.1, "transient": 0.1},
        {"poison": 0.03, "crashes": True, "restart": 0.2},
    )
    return some(
        draw,
        ack=("manual", "manual", "auto"),
        settle=("after", "after", "before"),
        binding=(..., "order.eu"),
        failures=failing,
        on_failure=("requeue", "discard"),
        negative_ack=("nack", "reject"),
        requeue=(True, False),
        consumer_priorities=((), (1, 0)),
        idempotence=(..., {"store": "transaction"}, {"store": "memory", "size": 10}),
    )


def limits(draw: Any) -> World:
    """What makes a queue drop messages, and where they go then."""
    return some(
        draw,
        message_ttl=(..., ..., 0.0, 0.05, 0.5),
        expires=(..., ..., ..., 1.0),
        max_length=(..., ..., 1, 10),
        max_length_bytes=(..., ..., 5000),
        overflow=("drop-head", "reject-publish"),
        dead_letter_exchange=("none", "parking", "retry", "missing"),
        retry_ttl=(0.1,),
        retry_rounds=(2,),
    )


def of_classic(draw: Any, channel: World, shop: World, services: World) -> None:
    """What only classic queues know."""
    channel |= limits(draw) | some(draw, durable=(True, True, False), max_priority=(..., ..., 3))
    channel |= some(draw, exclusive=(False, False, False, True))
    shop |= some(draw, priorities=(..., {"order.us": 2}))
    if "series" in channel:
        channel |= some(draw, cluster_partition_handling=("ignore", "pause_minority", "autoheal"))


def of_quorum(draw: Any, channel: World, shop: World, services: World) -> None:
    """What only quorum queues know."""
    channel |= limits(draw) | some(
        draw,
        delivery_limit=(..., 0, 2),
        delayed_retry_type=("disabled", "all", "failed", "returned"),
        delayed_retry_min=(0.1,),
        consumer_disconnected_timeout=(..., 1.0),
    )
    if channel["dead_letter_exchange"] != "none":
        channel |= some(draw, dead_letter_strategy=("at-most-once", "at-least-once"))
    shop |= some(draw, priorities=(..., {"order.us": 9}))


def of_stream(draw: Any, channel: World, shop: World, services: World) -> None:
    """What only streams know."""
    channel |= some(draw, max_segment_size_bytes=(5000,), max_length_bytes=(..., 20_000), max_age=(..., 1.0))
    shop |= some(draw, publishing_ids=(False, True))
    for service in services.values():
        service |= {"ack": "manual"} | some(
            draw, offset=("first", "last", "next"), store_offset_every=(1, 5, None)
        )
        if not channel["single_active_consumer"]:
            service["consumers"] = 1


# -- properties ------------------------------------------------------------------------------------------------------


@examples(120)
@given(worlds(), seeds)
def test_the_books_balance_and_every_anomaly_has_a_cause(world: World, seed: int) -> None:
    check_books(run(world, seed)[1])


@examples(60)
@given(worlds(), seeds)
def test_at_most_once_never_repeats(world: World, seed: int) -> None:
    channel, shop = world["channels"]["orders"], world["producers"]["shop"]
    channel |= {"guarantee": "at-most-once", "queue_type": "classic"}
    channel.pop("max_age", None)  # which streams have
    for name in ("resend", "delivery_mode", "window", "confirm_batch", "transaction", "publishing_ids"):
        shop.pop(name, None)
    for service in world["services"].values():
        service.pop("ack", None)
    done, outcome = run(world, seed)
    assert outcome.figures["duplicates"] == outcome.figures["redelivered"] == 0
    assert len(done.ledger.channels["orders"].copy_message) == 0


@examples(60)
@given(safe_worlds("at-least-once"), seeds)
def test_at_least_once_never_loses_what_was_confirmed(world: World, seed: int) -> None:
    figures = run(world, seed)[1].figures
    assert figures["lost_confirmed"] == 0
    assert figures["in_flight"] == 0  # after the faults all of it gets through


@examples(60)
@given(safe_worlds("exactly-once"), seeds)
def test_exactly_once_neither_repeats_nor_misses_an_effect(world: World, seed: int) -> None:
    figures = run(world, seed)[1].figures
    assert figures["duplicate_effects"] == figures["lost_effects"] == figures["lost_confirmed"] == 0
    assert figures["effects"] == figures["unique"]


@st.composite
def single_files(draw: Any) -> World:
    """One publisher, one queue of any type, one consumer, and any faults."""
    nodes = draw(st.sampled_from([1, 3]))
    channel = {"nodes": nodes} | some(
        draw,
        queue_type=("classic", "quorum", "stream"),
        queue_node=tuple(range(1, nodes + 1)),
        node_delay=(0.0001, {"exponential": 0.003}),
    )
    confirming = draw(st.booleans())
    shop = publisher(draw, nodes) if confirming else clients(draw, nodes) | {"arrivals": "200/s"}
    billing = consumer(draw, nodes) | {"consumers": 1, "slots": 1, "failures": {}}
    struck_by = draw(st.lists(faults(nodes, nodes_of(nodes)), max_size=2))
    return assembled(draw, channel, shop, {"billing": billing}, struck_by)


@examples(80)
@given(single_files(), seeds)
def test_without_a_redelivery_or_a_resend_order_is_kept(world: World, seed: int) -> None:
    done, outcome = run(world, seed)
    further_copies = len(done.ledger.channels["orders"].copy_message)
    if not world["faults"] and not world["network"]["loss"]:
        assert further_copies == 0
    if further_copies == 0:
        assert outcome.figures["out_of_order"] == 0


@examples(25)
@given(worlds() | safe_worlds("at-least-once"), seeds)
def test_the_same_seed_gives_the_same_bytes(world: World, seed: int) -> None:
    first, second = (json.dumps(asdict(run(world, seed)[1])) for _ in range(2))
    assert first == second
