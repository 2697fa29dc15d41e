"""What mutants showed to be untested, or tested by accident only (docs/mutation-testing.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from sim.apps import Idempotence, Resend
from sim.consuming import ProcessedIds
from sim.distributions import Constant
from sim.faults import Fault
from sim.kernel import World
from sim.ledger import Ledger, Messages, Pairs, UnbalancedBooks
from sim.metrics import measure
from sim.network import Hop, LinkSettings, Network, NetworkSettings, directions
from sim.storage import Disk
from tests.conformance.builders import story
from tests.conformance.rig import Rig

# -- the books ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def books() -> tuple[World, Messages, Pairs]:
    """A channel with one subscription and one message, published at 0 s."""
    world = World()
    messages = Ledger(world).channel("orders")
    pairs = messages.subscription("billing")
    messages.publish(producer=0, size=1, key=0)
    return world, messages, pairs


# Copies 0, 1 and 2 are the first of their messages; -1 is a copy of message 2, -2 of message 1, -3 of copy -1.
OF = {0: 0, 1: 1, 2: 2, -1: 2, -2: 1, -3: 2}
COLUMNS = {
    "confirmed": "outcome",
    "failed": "outcome",
    "stored": "stored_at",
    "sent": "sent_at",
    "delivered": "deliveries",
    "started": "started_at",
    "processed": "processings",
    "effect": "effects",
    "died": "fate",
    "dead_letter": "fate",
}


def three_messages() -> Messages:
    """Messages 0, 1, 2 with their number as key and size, and the copies of `OF`."""
    messages = Ledger(World()).channel("orders")
    messages.keep_sizes()
    messages.subscription("billing")
    for i in range(3):
        messages.publish(producer=0, size=i, key=messages.key_number(str(i)))
    for parent in (2, 1, -1):
        messages.copy(parent, 1)
    return messages


@pytest.mark.parametrize("report", COLUMNS)
@pytest.mark.parametrize("copy", OF)
def test_what_happens_to_a_copy_is_booked_for_its_message_alone(report: str, copy: int) -> None:
    messages = three_messages()
    owner: Any = messages if report in ("confirmed", "failed") else messages.subscriptions["billing"]
    column = getattr(owner, COLUMNS[report])
    before = [repr(value) for value in column]
    getattr(owner, report)(copy, *([7] if column is getattr(owner, "fate", None) else []))
    assert [i for i, value in enumerate(column) if repr(value) != before[i]] == [OF[copy]]


@pytest.mark.parametrize("copy", OF)
def test_a_copy_has_the_key_the_size_and_the_fate_of_its_message(copy: int) -> None:
    messages, message = three_messages(), OF[copy]
    pairs = messages.subscriptions["billing"]
    assert messages.message_of(copy) == message
    assert (messages.key_of(copy), messages.size_of(copy)) == (str(message), message)
    assert not pairs.was_sent(copy)
    pairs.sent(message)
    assert pairs.was_sent(copy)
    messages.died(copy, 7)
    assert [i for i in range(3) if pairs.fate[i]] == [message]


def test_the_books_have_room_for_any_number_of_messages() -> None:
    messages = Ledger(World()).channel("orders")
    pairs = messages.subscription("billing", wants=lambda key: True)
    messages.key_number("")
    for message in range(10_000):
        messages.publish(producer=0, size=1, key=0)
        messages.confirmed(message)
        for report in ("stored", "sent", "delivered", "started", "processed", "effect"):
            getattr(pairs, report)(message)
        pairs.died(message, 7)
    for counted in (pairs.deliveries, pairs.processings, pairs.effects, messages.outcome, pairs.is_expected):
        assert counted is not None and set(counted[:10_000]) == {1}
    assert set(pairs.fate[:10_000]) == {7} and set(messages.told_at[:10_000]) == {0.0}


def test_the_first_ack_ends_a_producers_wait(books: tuple[World, Messages, Pairs]) -> None:
    world, messages, _ = books
    for time in (1.0, 2.0):
        world.run(until=time)
        messages.confirmed(0)
    assert messages.told_at[0] == 1.0


def test_the_parts_of_a_latency_end_with_the_first_of_each(books: tuple[World, Messages, Pairs]) -> None:
    world, messages, pairs = books
    for time, copy in ((1.0, 0), (2.0, messages.copy(0, 1))):
        world.run(until=time)
        for happens in (pairs.stored, pairs.sent, pairs.delivered, pairs.started, pairs.processed):
            happens(copy)
    assert pairs.stored_at[0] == pairs.sent_at[0] == pairs.delivered_at[0] == 1.0
    assert pairs.started_at[0] == pairs.processed_at[0] == 1.0


def test_cooked_books_stop_a_run() -> None:
    told = story()
    told.pairs().deliveries[2] += 1
    told.pairs().processings[2] += 1
    with pytest.raises(UnbalancedBooks, match="a duplicate has no cause"):
        measure(told.run)


# -- figures -----------------------------------------------------------------------------------------------------------

PAUSE = Fault("pause", "shop", at=0.05, lasting=0.1)  # message 0, owed at 0.1 s, is sent at 0.15 s


def test_latency_counts_from_when_a_message_was_owed() -> None:
    assert story(faults=(PAUSE,))["latency_max"] == pytest.approx(0.08)


def test_latencies_of_the_warmup_do_not_count() -> None:
    told = story(faults=(PAUSE,), warmup=0.15)
    assert told["latency_max"] == pytest.approx(0.03) and told.outcome.n_latency == 4


def test_messages_that_are_started_at_the_same_instant_are_in_order() -> None:
    told = story(slots=5, faults=(Fault("pause", "billing", at=0.05, lasting=1.0),))
    assert told.times("started") == [1.05] * 5 and told["out_of_order"] == 0


# -- the broker --------------------------------------------------------------------------------------------------------


def test_a_known_number_is_acked_when_what_it_stands_for_is_on_the_device() -> None:
    told = story(
        storage="disk", fsync=Constant(0.1), messages=1, sequence_numbers=True, resend=Resend(timeout=0.05)
    )
    # The first copy is on the device at 0.21 s; further ones arrive at 0.16 and 0.21 s.
    books = told.run.ledger.channels["orders"]
    assert books.told_at[0] == pytest.approx(0.22)


def test_a_broker_without_a_disk_forgets_the_numbers_with_the_messages() -> None:
    faults = (
        Fault("crash", "billing", at=0.0),
        Fault("loss_burst", "orders -> shop", at=0.105, lasting=0.01),
        Fault("crash", "orders", at=0.2, lasting=0.05),
    )
    told = story(messages=1, sequence_numbers=True, resend=Resend(timeout=0.3), faults=faults)
    assert told.places() == ["unique"]  # the resend of a message that died with the broker is taken


def test_a_popping_consumer_is_handed_nothing_that_it_has_not_asked_for_when_its_broker_is_back() -> None:
    told = story(
        consume="pop",
        storage="disk",
        service_time=Constant(1.0),
        ack_timeout=None,
        messages=2,
        faults=(Fault("crash", "orders", at=0.5, lasting=0.1),),
    )
    first, second = told.times("delivered")[:2]
    assert first == 0.12 and second >= 1.12  # not before the work on the first is done


def test_a_crash_that_costs_nothing_but_what_is_queued_has_acted() -> None:
    crash = Fault("crash", "orders", at=0.45, lasting=0.01)  # no packet meets it
    told = story(service_time=Constant(0.8), prefetch=1, ack_timeout=None, messages=4, faults=(crash,))
    assert told["lost"] > 0 and told.outcome.inert == []


# -- the network -------------------------------------------------------------------------------------------------------


CUT = {"faults": (Fault("partition", "shop -> orders", at=0.25, lasting=0.1),)}
LOSSY = {"links": {"shop -> orders": LinkSettings(Constant(0.01), loss=1.0)}}
NARROW = {"bandwidth": 1e6}


@pytest.mark.parametrize(
    "settings, requests",
    [
        ({}, 10),  # five publishes and five acks
        (NARROW, 10),
        (CUT, 9),  # one publish meets the cut, and so has no ack
        (LOSSY, 5),
        ({"transport": "connection"}, 10),
        ({"transport": "connection"} | NARROW, 10),
    ],
)
def test_whatever_is_sent_is_a_request_whether_or_not_it_arrives(
    settings: dict[str, Any], requests: int
) -> None:
    assert story(**settings)["requests"] == requests


@pytest.mark.parametrize("names", [("shop -> billing.1", "shop -> billing"), ("shop.1 -> *", "shop -> *")])
@pytest.mark.parametrize("order", [1, -1])
def test_a_name_is_more_exact_than_a_group_in_either_order(names: tuple[str, str], order: int) -> None:
    laws = dict(zip(names, (LinkSettings(Constant(1.0)), LinkSettings(Constant(2.0))), strict=True))
    network = Network(World(), NetworkSettings(links=dict([*laws.items()][::order])))
    shop, billing = network.host("shop.1", "shop"), network.host("billing.1", "billing")
    assert network.settings_between(shop, billing).delay == Constant(1.0)


@pytest.mark.parametrize("text", ["-> orders", "shop ->", "shop <->", "shop orders", ""])
def test_a_direction_has_two_ends(text: str) -> None:
    with pytest.raises(ValueError, match="expected two ends such as"):
        directions(text)


# -- random streams ----------------------------------------------------------------------------------------------------


def test_equal_purposes_of_two_components_draw_different_numbers() -> None:
    world = World()
    assert world.stream("shop.arrivals").random() != world.stream("till.arrivals").random()


# -- applications ------------------------------------------------------------------------------------------------------


def test_a_memory_of_two_holds_two() -> None:
    ids = ProcessedIds(Idempotence(size=2))
    for message in (1, 2):
        ids.add(message, 0.0)
    assert ids.knows(1, 0.0) and ids.knows(2, 0.0)
    ids.add(3, 0.0)
    assert [ids.knows(message, 0.0) for message in (1, 2, 3)] == [False, True, True]


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_client_that_connects_in_vain_waits_twice_as_long_each_time_up_to_its_bound() -> None:
    rig = Rig(reconnect=0.1, reconnect_max=0.5)
    rig.server.crash()
    rig.connection().keep_open()
    rig.run_for(3.0)
    gaps = [round(b - a, 6) for a, b in pairwise(rig.times_of("connect_failed"))]
    assert gaps[:4] == [0.12, 0.22, 0.42, 0.52]  # the wait, and a round trip to be refused


# -- what a second sample of mutants left alive ------------------------------------------------------------------------


def test_a_popping_consumer_whose_question_was_lost_asks_again() -> None:
    asleep = Fault("crash", "orders", at=0.005, lasting=0.05)  # the question arrives at 0.01 s
    told = story(consume="pop", faults=(asleep,))
    assert told["unique"] == 5
    assert told.pairs().sent_at[0] == pytest.approx(1.01), "asked again a second after the first time"


@pytest.mark.parametrize("faults", [(), (Fault("pause", "shop", at=0.25, lasting=0.01),)])
def test_what_is_on_its_way_when_the_drain_is_over_is_in_flight(faults: tuple[Fault, ...]) -> None:
    slow = {"orders -> billing": LinkSettings(Constant(1000.0))}
    assert story(ack="auto", links=slow, faults=faults).places() == ["in_flight"] * 5


def test_a_broker_that_crashes_twice_delivers_again_twice() -> None:
    crashes = tuple(Fault("crash", "orders", at=at, lasting=0.1) for at in (0.5, 1.0))
    told = story(messages=1, storage="disk", ack_timeout=None, service_time=Constant(5.0), faults=crashes)
    assert told.pairs().deliveries[0] == 3
    assert told.causes["duplicate", "broker_restarted"] == 2


def test_an_ack_is_64_bytes() -> None:
    thin = {"billing -> orders": LinkSettings(Constant(0.0), bandwidth=64.0)}
    pairs = story(prefetch=1, ack_timeout=None, links=thin).pairs()
    assert pairs.sent_at[1] - pairs.processed_at[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "better, worse", [("a.1 -> *", "a -> b"), ("a.1 -> b", "a.1 -> *"), ("* -> b.1", "a -> b")]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_the_more_exact_link_wins(better: str, worse: str, is_first: bool) -> None:
    settings = {better: LinkSettings(loss=0.1), worse: LinkSettings(loss=0.2)}
    if not is_first:
        settings = dict(reversed(settings.items()))
    network = Network(World(), NetworkSettings(links=settings))
    assert network.settings_between(network.host("a.1", "a"), network.host("b.1", "b")).loss == 0.1


@pytest.mark.parametrize(("there", "back"), [(0.5, 0.25), (0.25, 0.5)])
def test_a_retransmission_timeout_is_of_both_ways_of_a_connection(there: float, back: float) -> None:
    links = {"a -> b": LinkSettings(Constant(there)), "b -> a": LinkSettings(Constant(back))}
    network = Network(World(), NetworkSettings(links=links))
    connection = network.connection(network.host("a"), network.host("b"), Hop("publish"), Hop("confirm"))
    assert connection.there.rto == pytest.approx(0.75)  # the mean round trip: it does not vary


def test_a_flush_is_slowed_only_on_a_slow_host() -> None:
    rig = Rig()
    disk = Disk(rig.server, Constant(0.001))
    disk.fsync(lambda is_ok: None, lambda is_ok: None)
    assert rig.server.slowed == 0
    rig.server.slow_down(2.0)
    disk.fsync(lambda is_ok: None, lambda is_ok: None)
    assert rig.server.slowed == 1


def test_what_is_sent_again_leaves_the_queue_again(books: tuple[World, Messages, Pairs]) -> None:
    _, _, pairs = books
    pairs.stored(0)
    pairs.sent(0)
    again = pairs.requeue(0, 1)
    pairs.stored(again)
    pairs.sent(again)
    pairs.stored(again)
    pairs.unready(again)
    assert [step for _, step in pairs.queue_steps] == [1, -1, 1, -1]


def test_a_link_to_a_steady_host_loses_its_share_and_one_without_loss_none() -> None:
    for loss, expected in ((0.0, 200), (0.5, 100)):
        network = Network(World(), NetworkSettings(loss=loss))
        arrived: list[int] = []
        link = network.link(network.host("a"), network.host("b"), Hop("publish"))
        network.nothing_fails()
        assert network.host("a").is_steady and network.host("b").is_steady
        for i in range(200):
            link.send(arrived.append, i)
        network.world.run()
        assert abs(len(arrived) - expected) <= (0 if not loss else 4 * 200**0.5 / 2)
