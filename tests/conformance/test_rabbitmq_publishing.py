"""RabbitMQ from the publisher to the queue, and acknowledgements: behaviours R-01 to R-12 of its sheet.

`rabbitmq` says what happens when where nothing else is said: message i is published at 0.1 (i + 1) s, hops take 1 ms
and the work 10 ms. A message costs its channel 10 µs, its queue 10 µs, a flush 51 µs (of 1 KiB).
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from sim.brokers.rabbitmq.classic import ClassicQueue
from sim.producing import Sender
from sim.scenario.errors import ScenarioError
from tests.conformance.builders import Story
from tests.conformance.rabbitmq import (
    HOP,
    QUORUM,
    books,
    deliveries,
    outcomes,
    rabbit,
    scenario,
    stored,
    told_after,
)

CHANNEL = QUEUE = 10e-6  # seconds per message
FLUSH = 50e-6 + 1024 / 1e9
NOBODY_CONSUMES = {"crash": "billing", "at": 0}  # until arrivals end
FORWARDED = {"nodes": 2, "queue_node": 2}  # the queue is not where the publisher is connected


def every(gap: float) -> dict[str, Any]:
    """Arrivals at equal gaps (s)."""
    return {"deterministic": f"{1 / gap}/s"}


def answered_at(told: Story) -> list[float]:
    """When the producer was last told of each message (s)."""
    return [created + after for created, after in zip(books(told).created, told_after(told), strict=True)]


def keyed(told: Story, messages: list[int]) -> set[str]:
    """The keys of some messages."""
    return {books(told).key_of(message) for message in messages}


def test_a_cluster_stands_when_the_run_begins():
    told = rabbit(channel={**FORWARDED, "node_delay": "10 ms"})
    work = CHANNEL + 2 * QUEUE  # an enqueue and a delivery
    expected = [0.1 * (i + 1) + 2 * HOP + 0.02 + work for i in range(5)]
    assert told.times("delivered") == pytest.approx(expected, abs=1e-9)


# -- routing ---------------------------------------------------------------------------------------------------------

COLOURS = {"keys": {"values": ["red", "green", "blue"]}}


def test_R01_direct_takes_equal_keys():
    told = rabbit(
        channel={"exchange": "direct"},
        producer=COLOURS,
        services={"reds": {"filter": "red"}, "greens": {"filter": "green"}, "also_red": {"filter": "red"}},
        messages=30,
    )
    for service, key in (("reds", "red"), ("greens", "green"), ("also_red", "red")):
        assert keyed(told, told.order("processed", service)) == {key}
    assert told["unique"] == told["expected"] and told["lost"] == told["duplicates"] == 0


def test_R01_fanout_takes_whatever_the_key():
    told = rabbit(
        channel={"exchange": "fanout"},
        producer=COLOURS,
        services={"billing": {"binding": "none of these"}, "audit": {}},
        messages=30,
    )
    assert told.places("billing") == told.places("audit") == ["unique"] * 30


@pytest.mark.parametrize(
    ("binding", "takes"),
    [
        ("x-match=all, format=pdf, type=report", {"format=pdf, type=report"}),
        ("format=pdf, type=report", {"format=pdf, type=report"}),  # all is the default
        (
            "x-match=any, format=pdf, type=report",
            {"format=pdf, type=report", "format=zip, type=report", "format=pdf, type=log"},
        ),
        ("x-match=all, x-owner=me, type=log", {"format=pdf, type=log", "format=zip, type=log"}),
    ],
)
def test_R01_headers_takes_all_or_any(binding: str, takes: set[str]):
    values = [f"format={f}, type={t}" for f in ("pdf", "zip") for t in ("report", "log")]
    told = rabbit(
        channel={"exchange": "headers"},
        producer={"keys": {"values": values}},
        service={"binding": binding},
        messages=40,
    )
    assert keyed(told, told.order("processed")) == takes
    assert told["unique"] + told.causes.get(("lost", "unroutable"), 0) == 40


def test_R01_the_default_exchange_leads_to_the_queue_named_like_the_key():
    told = rabbit(
        producer={"keys": {"values": ["billing", "audit", "nobody"]}},
        services={"billing": {"filter": "billing"}, "audit": {"filter": "audit"}},
        messages=30,
    )
    for service in ("billing", "audit"):
        assert keyed(told, told.order("processed", service)) == {service}
    assert told["confirmed"] == 30  # also those for nobody


def test_R01_a_queue_with_several_bindings_that_match_gets_one_copy():
    told = rabbit(
        channel={"exchange": "topic"},
        producer={"keys": {"values": ["order.eu"]}},
        services={
            "billing": {"binding": "order.*", "bindings": ["*.eu", "#"]},
            "audit": {"binding": "order.us", "bindings": ["order.eu"]},
            "other": {"filter": "order.us", "bindings": ["mail.*"]},
        },
    )
    copies = [len(stored(told, service)) for service in ("billing", "audit", "other")]
    assert copies == [5, 5, 0]  # one copy per distinct queue that matches


@pytest.mark.parametrize(
    ("binding", "takes"),
    [
        ("a.b", {"a.b"}),
        ("a.*", {"a.b"}),
        ("*.b", {"a.b"}),
        ("a.#", {"a", "a.b", "a.b.c"}),
        ("#.c", {"a.b.c"}),
        ("#.b.#", {"a.b", "a.b.c"}),
        ("*", {"a"}),
        ("#", {"a", "a.b", "a.b.c"}),
    ],
)
def test_R02_topic_patterns(binding: str, takes: set[str]):
    told = rabbit(
        channel={"exchange": "topic"},
        producer={"keys": {"values": ["a", "a.b", "a.b.c"]}},
        service={"binding": binding},
        messages=20,
    )
    assert keyed(told, told.order("processed")) == takes


WRONG_KEY = {
    "filter": "order.*",
    "binding": "order.eu",
}  # what the service wants, and what its queue is bound to


def unroutable(channel: dict[str, Any] | None = None, **producer: Any) -> Story:
    """Twenty messages for a service that wants them all, with keys that its binding does not match."""
    return rabbit(
        channel={"exchange": "topic", **(channel or {})},
        producer={"keys": {"values": ["order.us"]}, **producer},
        service=WRONG_KEY,
        messages=20,
    )


def test_R03_unroutable_is_dropped_and_confirmed():
    told = unroutable()
    assert told.causes == {("lost", "unroutable"): 20}
    assert told["confirmed"] == told["lost_confirmed"] == 20


@pytest.mark.parametrize("resend", [{"timeout": None}, None])
def test_R03_mandatory_returns_it_and_nothing_is_lost_unnoticed(resend: Any):
    told = unroutable(mandatory=True, resend=resend)
    assert told.causes == {("rejected", "returned_unroutable"): 20}
    assert told["lost"] == told["confirmed"] == 0
    assert told["failed"] == (20 if resend else 0)
    assert not told.events("copy")  # to publish again would change nothing


@pytest.mark.parametrize(("resend", "acks"), [({"timeout": None}, 1), (None, 0)])
def test_R03_a_return_is_followed_by_the_ack(resend: Any, acks: int, monkeypatch: pytest.MonkeyPatch):
    heard: list[tuple[str, int]] = []
    for what in ("returned", "confirmed"):
        handler = getattr(Sender, what)
        monkeypatch.setattr(
            Sender, what, lambda self, copy, n=what, h=handler: (heard.append((n, copy)), h(self, copy))
        )
    told = unroutable(mandatory=True, resend=resend)
    # then in this order, and the producer has been told that it was returned
    assert heard == [(what, i) for i in range(20) for what in ["returned", "confirmed"][: 1 + acks]]
    assert told["confirmed"] == 0


@pytest.mark.parametrize("kind", ["confirm_batch", "transaction"])
def test_R03_a_batch_goes_on_after_what_was_returned(kind: str):
    told = unroutable(mandatory=True, **{kind: 3})
    assert (
        told["failed"]
        == told.causes[("rejected", "returned_unroutable")]
        == 20
        - (
            2 if kind == "transaction" else 0  # not committed
        )
    )


def test_R03_an_alternate_exchange_counts_as_routed():
    told = unroutable({"alternate_exchange": True}, mandatory=True)
    assert told.causes == {("dead_lettered", "parked_unroutable"): 20}
    assert told["confirmed"] == 20 and told["lost"] == told["rejected"] == 0


def test_R03_mandatory_is_content_with_any_queue():
    told = rabbit(
        channel={"exchange": "topic"},
        producer={"keys": {"values": ["order.us"]}, "mandatory": True},
        services={"billing": WRONG_KEY, "audit": {"binding": "#"}},
    )
    assert told["confirmed"] == told["lost_confirmed"] == 5 and told.places("audit") == ["unique"] * 5


def test_R03_without_an_exchange_the_channel_closes():
    told = rabbit(channel={"exchange": "missing"})
    assert told["confirmed"] == told["lost"] == 0 and told["in_doubt"] == 5
    told = rabbit(channel={"exchange": "missing"}, producer={"resend": None})
    assert told.causes == {("lost", "unroutable"): 1, ("lost", "not_connected"): 4}  # the others raised


# -- without confirms ------------------------------------------------------------------------------------------------

FIRE_AND_FORGET = {"resend": None, "arrivals": every(0.001)}  # 1000/s


def test_R04_a_broker_crash_takes_what_was_on_its_way_unnoticed():
    delay, at = 0.005, 1.0005
    told = rabbit(
        producer=FIRE_AND_FORGET,
        network={"delay": delay},
        faults=[NOBODY_CONSUMES, {"crash": "orders", "at": at, "lasting": "0.1 s"}],
        messages=1200,
    )
    dead = [event for event in told.events("died") if event.cause == "socket_cut"]
    # 1000/s · 5 ms on the wire at the crash, and as many until the publisher hears of it.
    assert len(dead) == 10
    assert all(at - delay < books(told).created[event.message] < at + delay for event in dead)
    assert told["in_doubt"] == 1200  # it was told nothing


@pytest.mark.parametrize(("at", "arrived"), [(0.6005, 585), (1.2005, 1185)])
def test_R04_a_broker_crash_takes_the_unwritten_buffer_of_at_most_512_KiB(at: float, arrived: int):
    told = rabbit(
        producer={**FIRE_AND_FORGET, "heartbeat": None},
        faults=[NOBODY_CONSUMES, {"crash": "orders", "at": at, "lasting": "0.1 s"}],
        messages=1250,
    )
    assert (
        len(stored(told)) - told["unique"] == arrived
    )  # the first 14 raised: the connection was not open yet
    assert told["unique"] == arrived // 512 * 512  # full buffers of 512 · 1 KiB are written; no timer runs
    assert told.causes[("lost", "unflushed")] == arrived % 512


def test_R04_a_publisher_crash_takes_its_socket():
    told = rabbit(
        producer=FIRE_AND_FORGET,
        network={"delay": "5 ms"},
        faults=[{"crash": "shop", "at": 0.5005, "lasting": "0.1 s"}],
        messages=800,
    )
    assert told.causes[("lost", "socket_cut")] == 5  # 1000/s · 5 ms


@pytest.mark.parametrize("heartbeat", [1.0, 2.0])
def test_R04_a_silent_cut_takes_all_until_it_is_noticed(heartbeat: float):
    cut = 5.05
    told = rabbit(
        producer={"resend": None, "heartbeat": heartbeat},
        faults=[{"partition": "shop <-> orders", "at": cut, "lasting": 20}],
        messages=200,
    )
    noticed = told.causes[("lost", "socket_cut")] * 0.1
    assert 1.5 * heartbeat - 0.1 <= noticed <= 3 * heartbeat + 0.1
    first = min(event.message for event in told.events("died"))
    assert books(told).created[first] == pytest.approx(5.1)


# -- confirms --------------------------------------------------------------------------------------------------------


def confirm_time(delay: float = HOP, **settings: Any) -> float:
    """T_c (s) of the third of five messages, which nobody consumes."""
    faults = [NOBODY_CONSUMES]
    return told_after(rabbit(faults=faults, network={"delay": delay}, **settings))[2] - 2 * delay


def test_R05_unroutable_is_confirmed_at_once():
    assert confirm_time(service={"binding": "x"}, channel={"exchange": "direct"}) == pytest.approx(CHANNEL)


@pytest.mark.parametrize(
    "settings", [{"producer": {"delivery_mode": "transient"}}, {"channel": {"durable": False}}]
)
def test_R05_transient_is_confirmed_on_reaching_the_queue(settings: dict[str, Any]):
    assert confirm_time(**settings) == pytest.approx(CHANNEL + QUEUE)


@pytest.mark.parametrize("fsync", ["1 ms", "100 ms"])
def test_R05_persistent_is_confirmed_when_written_and_no_fsync_awaited(fsync: str):
    assert confirm_time(channel={"fsync": fsync}) == pytest.approx(CHANNEL + QUEUE + FLUSH, abs=2e-6)


def test_R05_persistent_is_confirmed_earlier_if_consumed_and_acked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    # Its mailbox is never empty (500 publishes and 500 deliveries a second), so a flush would come after 200 ms.
    told = rabbit(producer={"arrivals": every(0.002)}, service={"service_time": "5 ms"}, messages=40)
    assert max(told_after(told)) < 0.15
    told = rabbit(producer={"arrivals": every(0.001)}, faults=[NOBODY_CONSUMES], messages=120)
    assert told_after(told)[20] > 0.15


@pytest.mark.parametrize("mode", ["persistent", "transient"])
@pytest.mark.parametrize(("nodes", "between"), [(1, 0.0), (3, 0.004)])
def test_R05_a_quorum_queue_confirms_when_a_majority_has_it_fsynced(mode: str, nodes: int, between: float):
    fsync = 0.007
    channel = {"queue_type": "quorum", "nodes": nodes, "fsync": fsync, "node_delay": between / 2}
    t_c = confirm_time(channel=channel, producer={"delivery_mode": mode})
    assert t_c == pytest.approx(fsync + between, abs=40e-6)  # s + ρ, whatever the mode


@pytest.mark.parametrize(("nodes", "between"), [(1, 0.0), (3, 0.004)])
def test_R05_a_stream_confirms_when_a_majority_has_written_it(nodes: int, between: float):
    channel = {"queue_type": "stream", "nodes": nodes, "fsync": "100 ms", "node_delay": between / 2}
    t_c = confirm_time(channel=channel, service={"prefetch": 100})
    assert t_c == pytest.approx(between, abs=100e-6)


def test_R05_a_queue_on_another_node_adds_the_way_there_and_back():
    t_c = confirm_time(channel={**FORWARDED, "node_delay": "3 ms"})
    assert t_c == pytest.approx(CHANNEL + QUEUE + FLUSH + 0.006, abs=2e-6)


def test_R05_a_fan_out_is_confirmed_with_the_last_of_its_queues(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    fan_out: dict[str, Any] = {
        "channel": {"exchange": "topic"},
        "producers": {
            "shop": {"keys": {"values": ["a"]}, "messages": 3},
            # keeps the mailbox of "busy" full: 1000 messages a second that take 1 ms each
            "flood": {"keys": {"values": ["b"]}, "arrivals": every(0.001), "resend": None, "messages": 600},
        },
        "faults": [{"crash": name, "at": 0} for name in ("idle", "busy")],
    }
    idle = {"idle": {"binding": "a"}}
    busy = {"busy": {"binding": "#"}}

    def t_c(**services: Any) -> float:
        told = rabbit(**{**fan_out, "services": services})
        first = next(e.message for e in told.events("publish") if books(told).key_of(e.message) == "a")
        return told_after(told)[first] - 2 * HOP

    alone = t_c(**idle, busy={"binding": "b"})
    slow = t_c(**busy, idle={"binding": "c"})
    assert alone < 0.002 and slow > 0.15
    assert (
        t_c(**idle, **busy) == pytest.approx(slow, abs=1e-4) == t_c(**busy, **idle)
    )  # max of the queues' T_c


def test_R05_a_fan_out_waits_for_the_mailbox_of_the_slowest_queue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    for services in (("busy", "idle"), ("idle", "busy")):
        told = rabbit(
            channel={"exchange": "topic"},
            producer={"delivery_mode": "transient"},
            producers={
                "flood": {"keys": {"values": ["b"]}, "arrivals": every(0.0005), "messages": 100},
                "shop": {"keys": {"values": ["a"]}, "arrivals": every(0.0302), "messages": 1},
            },
            services={name: {"binding": "#" if name == "busy" else "a"} for name in services},
            faults=[{"crash": name, "at": 0} for name in services],
            network={"delay": 0},
        )
        mine = next(e.message for e in told.events("publish") if books(told).key_of(e.message) == "a")
        # 60 messages of 1 ms are before it in 30 ms; at the idle queue none is.
        assert told_after(told)[mine] == pytest.approx(0.031, abs=0.001)


def test_R06_an_idle_queue_confirms_each_after_one_write():
    told = rabbit(producer={"arrivals": every(0.001)}, faults=[NOBODY_CONSUMES], messages=100)
    t_c = [after - 2 * HOP for after in told_after(told)[20:]]
    assert max(t_c) == pytest.approx(min(t_c), abs=2e-6) == pytest.approx(CHANNEL + QUEUE + FLUSH, abs=2e-6)


def test_R06_a_busy_queue_confirms_all_at_once_every_200_ms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    # A message a millisecond that takes a millisecond: the mailbox is never empty, and no backlog grows.
    told = rabbit(
        producer={"arrivals": every(0.001)}, faults=[NOBODY_CONSUMES], messages=650, network={"delay": 0}
    )
    confirmed = Counter(round(time, 3) for time in answered_at(told))
    flushes = sorted(confirmed)[:3]
    assert [round(b - a, 2) for a, b in pairwise(flushes)] == [0.2] * 2
    assert all(198 <= confirmed[time] <= 202 for time in flushes)
    waits = sorted(told_after(told)[: sum(confirmed[time] for time in flushes)])
    assert waits[0] < 0.005 and 0.2 < waits[-1] < 0.205
    assert math.fsum(waits) / len(waits) == pytest.approx(0.1, abs=0.003)  # uniform on (0, 200] ms


@pytest.mark.parametrize("other", ["transient", "no confirms"])
def test_R06_the_200_ms_begin_with_the_first_that_waits_for_a_confirm(
    other: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    plain = {"delivery_mode": "transient"} if other == "transient" else {"resend": None}
    told = rabbit(
        producers={
            "flood": {**plain, "arrivals": every(0.001), "messages": 600},
            "shop": {"arrivals": every(0.21), "messages": 1},
        },
        faults=[NOBODY_CONSUMES],
        network={"delay": 0},
    )
    mine = next(i for i in range(601) if books(told).producers[books(told).producer[i]] == "shop")
    assert told_after(told)[mine] == pytest.approx(0.2, abs=0.005)


def test_R06_a_full_buffer_is_written_without_confirms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    size = 10 * 1024  # 52 of them fill 512 KiB
    told = rabbit(
        producer={"arrivals": every(0.001), "size": size, "resend": {"timeout": None, "attempts": 1}},
        faults=[NOBODY_CONSUMES, {"crash": "orders", "at": 0.15, "lasting": "0.1 s"}],
        messages=160,
    )
    arrived = len({event.message for event in told.events("stored") if event.time < 0.15})
    assert arrived > 104 and outcomes(told)[:arrived] == ["in_doubt"] * arrived
    assert told.places()[:arrived].count("unique") == arrived // 52 * 52


# -- the shape of confirms -------------------------------------------------------------------------------------------

FULL = {"exchange": "fanout", "max_length": 1, "overflow": "reject-publish"}
ONCE_MORE = {"timeout": None, "backoff": "1 s", "attempts": 2}
STUCK = {"prefetch": 1, "service_time": 10}


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_R07_each_publish_is_acked_or_nacked_exactly_once(queue_type: str):
    told = rabbit(
        channel={"queue_type": queue_type, "max_length": 10, "overflow": "reject-publish"},
        producer={"arrivals": every(0.005), "resend": {"timeout": None, "attempts": 1}},
        service={"prefetch": 1},
        messages=200,
    )
    acks, nacks = told.order("confirmed", ""), told.order("failed", "")
    assert nacks and sorted(acks + nacks) == list(range(200))
    assert told["confirmed"] == len(acks) and told["failed"] == len(nacks)


def test_R07_confirms_may_come_in_another_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ClassicQueue, "per_message", 0.001)
    told = rabbit(
        channel={"exchange": "topic"},
        producer={
            "keys": {"values": ["busy", "busy.too", "idle"], "weights": [0.5, 0.47, 0.03]},
            "arrivals": every(0.001),
        },
        services={"busy": {"binding": "busy.#"}, "idle": {"binding": "idle"}},
        faults=[{"crash": name, "at": 0} for name in ("idle", "busy")],
        messages=300,
    )
    assert sorted(told.order("confirmed", "")) == list(range(300)) != told.order("confirmed", "")


@pytest.mark.parametrize("k", [2, 3])
def test_R07_one_refusal_of_a_fan_out_is_a_nack_and_the_others_keep_the_message(k: int):
    others = ("billing", "audit")[: k - 1]
    settings = {
        "channel": FULL,
        "services": {**{name: {} for name in others}, "stuck": STUCK},
        "messages": 3,
    }
    told = rabbit(**settings, producer={"resend": {"timeout": None, "attempts": 1}})
    # stuck has message 0 in hand and 1 in the queue
    assert outcomes(told) == ["confirmed", "confirmed", "failed"]
    assert all(told.places(name) == ["unique"] * 3 for name in others)
    assert told.causes == {("lost", "overflow_new"): 1}  # at stuck only
    told = rabbit(**settings, producer={"resend": ONCE_MORE})
    assert told.causes[("duplicate", "republish_after_nack")] == k - 1


@pytest.mark.parametrize("services", [{"billing": {}}, {"billing": {}, "audit": {}}])
def test_R07_a_node_that_is_down_means_nacks(services: dict[str, Any]):
    told = rabbit(
        channel={**FORWARDED, "exchange": "fanout", "node_delay": "10 ms"},
        producer={"resend": {"timeout": None, "attempts": 1}},
        services=services,
        # message 2 is on its way between the nodes when that of the queues dies; 3 to 5 find it down
        faults=[{"crash": "orders.2", "at": 0.305, "lasting": 0.35}],
        messages=10,
    )
    assert outcomes(told) == ["confirmed"] * 2 + ["failed"] * 4 + ["confirmed"] * 4
    assert told.causes[("lost", "queue_down")] == told["lost"] == 4 * len(services)
    assert told["in_flight"] == 0


@pytest.mark.parametrize("at", [0.3065, 0.3275, 0.3335, 0.3395])
def test_R07_a_fan_out_over_quorum_queues_is_confirmed_once_both_have_it_whoever_leads(at: float):
    told = rabbit(
        channel={**QUORUM, "exchange": "fanout", "node_delay": "10 ms"},
        producer={"node": 2},
        services={"billing": {"node": 3}, "audit": {"node": 3}},
        faults=[{"crash": "orders.1", "at": at, "lasting": "2 s"}],
        messages=10,
    )
    assert told["confirmed"] == 10 and told["duplicates"] == told["lost"] == told["in_flight"] == 0
    for service in ("billing", "audit"):
        applied = told.pairs(service).stored_at
        assert all(confirmed >= applied[i] for i, confirmed in enumerate(answered_at(told)))


# -- in doubt --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [0.0, 0.005])
@pytest.mark.parametrize("republishes", [True, False])
def test_R08_a_cut_leaves_in_doubt_what_is_on_either_way(between: float, republishes: bool):
    """The node of the connection dies; the queue is on another. What that node had not passed on is not stored."""
    rate, delay, at = 1000.0, 0.005, 0.3005
    told = rabbit(
        channel={**FORWARDED, "node_delay": between},
        producer={
            "arrivals": every(1 / rate),
            "resend": {"timeout": None, "attempts": None if republishes else 1},
        },
        service={"node": 2},
        network={"delay": delay},
        faults=[{"crash": "orders.1", "at": at, "lasting": "1 s"}],
        messages=400,
    )
    gone = round(rate * (delay + between + delay))  # on the way to the queue, or sent until the reset came
    kept = round(rate * (between + delay))  # stored, and the confirm on its way back
    if republishes:
        assert len(told.events("copy")) == gone + kept
        assert told.causes == {("duplicate", "republish_in_doubt"): kept}
        assert told["lost"] == 0
    else:
        assert told["in_doubt"] == gone + kept and told["duplicates"] == 0
        assert told.causes == {("lost", "gave_up"): gone}


@pytest.mark.parametrize(
    ("gap", "delay", "t_c", "at"), [(0.001, 0.005, 0.0, 0.3005), (0.01, 0.05, 0.004, 2.0005)]
)
def test_R08_a_broker_crash_loses_what_is_not_written(
    gap: float, delay: float, t_c: float, at: float, monkeypatch: pytest.MonkeyPatch
):
    """x (d1 + T_c) are not stored, x d2 stored and not confirmed; x d1 more are sent until the publisher hears."""
    if t_c:
        monkeypatch.setattr(ClassicQueue, "per_message", t_c)
    told = rabbit(
        producer={"arrivals": every(gap)},
        network={"delay": delay},
        faults=[NOBODY_CONSUMES, {"crash": "orders", "at": at, "lasting": "1 s"}],
        messages=round((at + 0.1) / gap),
    )
    t_c += CHANNEL + FLUSH
    created = [time for time in books(told).created if time < at + delay]
    gone = sum(time + delay + t_c > at for time in created)
    kept = sum(time + delay + t_c <= at < time + delay + t_c + delay for time in created)
    assert told.causes == {("duplicate", "republish_in_doubt"): kept}
    assert len(told.events("copy")) == gone + kept


def test_R08_a_queue_does_not_deduplicate():
    told = rabbit(faults=[{"crash": "orders", "at": 0.3015, "lasting": "0.1 s"}], messages=4)
    # The confirm of message 2 was on its way; the fault heals, and the publisher connects again 5 s later.
    assert told.pairs().processings[:4].tolist() == [1, 1, 2, 1]
    assert told.causes == {("duplicate", "republish_in_doubt"): 1}


@pytest.mark.parametrize(
    "channel",
    [
        {"cpu_per_message": 20},
        {**FORWARDED, "node_delay": 10},
        {"queue_type": "quorum", "fsync": 20},
        {**QUORUM, "queue_node": 2, "node_delay": 5},
        {"queue_type": "stream", "nodes": 2, "queue_node": 2, "node_delay": 5},
    ],
    ids=["classic", "classic elsewhere", "quorum", "quorum elsewhere", "stream elsewhere"],
)
def test_R08_an_answer_to_a_channel_that_has_ended_is_not_for_the_next_one(channel: dict[str, Any]):
    # given a publisher that a cut of a second robs of its channel, and that cannot reach other nodes
    others = [f"orders.{i + 1}" for i in range(1, channel.get("nodes", 1))]
    told = rabbit(
        channel=channel,
        service={"prefetch": 100},
        producer={
            "heartbeat": 0.2,
            "recovery_interval": 0.1,
            "messages": 1,
            "resend": {"timeout": None, "backoff": 20},
        },
        faults=[
            NOBODY_CONSUMES,
            {"partition": "shop <-> orders", "at": 0.15, "lasting": 1},
            *({"partition": f"shop <-> {node}", "at": 0.15, "lasting": 60} for node in others),
        ],
        duration=70,
    )
    # when the first copy's confirm comes after 20 s, on the channel that it has now (connecting takes it up to 10 s)
    again, confirmed = told.times("copy"), told.times("confirmed")
    # then it is none for it: it publishes again, and that takes 20 s
    assert len(again) == len(confirmed) == 1 and again[0] > 20.5
    assert confirmed[0] >= again[0] + 20


# -- throughput of publishers ----------------------------------------------------------------------------------------


def rate_of(told: Story, unit: int) -> float:
    """Messages per second that were confirmed, from the end of the first `unit` to the end of the last."""
    times = answered_at(told)
    return (len(times) - unit) / (times[-1] - times[unit - 1])


@pytest.mark.parametrize("kind", ["window", "confirm_batch"])
@pytest.mark.parametrize("window", [1, 10])
def test_R09_throughput_is_the_window_over_the_round_trip(kind: str, window: int):
    told = rabbit(
        channel={**FORWARDED, "node_delay": "1 ms"},  # T_c = 2 ms
        producer={"arrivals": every(1e-5), kind: window},
        network={"delay": "0.5 ms"},  # r = 1 ms
        service=STUCK,
        messages=20 * window,
        drain_limit=1,
    )
    t_c = 0.002 + window * CHANNEL + QUEUE + 50e-6 + window * 1024 / 1e9
    assert rate_of(told, window) == pytest.approx(window / (0.001 + t_c), rel=0.002)


@pytest.mark.parametrize(("batch", "waits"), [(2, False), (3, True), (4, False)])
def test_R09_a_batch_ends_with_so_many_publishes_also_if_some_are_answered_already(batch: int, waits: bool):
    # given a fourth publish while only the third has no answer yet
    told = rabbit(producer={"arrivals": {"trace": [0.1, 0.2, 0.3, 0.3005]}, "confirm_batch": batch})
    # then it waits for that if the third was the last of a batch
    answer = answered_at(told)[2]
    assert told.times("stored")[3] == pytest.approx((answer if waits else 0.3005) + HOP)


def test_R09_what_is_published_again_counts_to_the_batch_in_which_it_is():
    # given a queue that takes nothing: message 0 is published at 0.100, 0.102 and 0.104 s, and that makes a batch
    told = rabbit(
        channel={"max_length": 0, "overflow": "reject-publish"},
        producer={
            "arrivals": {"trace": [0.1, 0.105]},
            "confirm_batch": 3,
            "resend": {"timeout": None, "attempts": 3},
        },
        faults=[NOBODY_CONSUMES],
    )
    # then message 1 waits for the third answer
    came = [event.time for event in told.events("died", message=1) if event.cause == "overflow_new"]
    assert came[0] == pytest.approx(0.106 + HOP, abs=1e-4)


def test_R09_a_wide_window_leaves_the_rate_of_arrivals():
    told = rabbit(producer={"arrivals": every(0.001), "window": 20}, faults=[NOBODY_CONSUMES], messages=200)
    assert rate_of(told, 50) == pytest.approx(1000.0, rel=0.001)


def test_R10_effects_appear_at_the_commit():
    told = rabbit(producer={"transaction": 3}, messages=8)
    assert told.times("stored") == [0.301] * 3 + [0.601] * 3  # the last two are not committed
    assert told_after(told)[:6] == pytest.approx([after + 0.00212 for after in (0.2, 0.1, 0.0)] * 2, abs=1e-4)
    assert told["in_flight"] == 2 and told["confirmed"] == 6


def test_R10_what_was_not_committed_dies_with_the_channel():
    told = rabbit(
        producer={"transaction": 3}, faults=[{"crash": "orders", "at": 0.25, "lasting": 0.1}], messages=6
    )
    assert min(told.times("stored")) > 5  # after the reconnect
    assert told["duplicates"] == 0 and told.places() == ["unique"] * 6


def test_R10_a_transaction_is_not_atomic_over_crashes():
    n, size = 100, 10 * 1024  # 52 fill the queue's buffer of 512 KiB, which is then written
    told = rabbit(
        producer={
            "transaction": n,
            "arrivals": every(0.001),
            "size": size,
            "resend": {"timeout": None, "attempts": 1},
        },
        faults=[NOBODY_CONSUMES, {"crash": "orders", "at": 0.1005, "lasting": 0.1}],
        messages=n + 5,
        network={"delay": 0},
    )
    assert told["confirmed"] == 0 and told["unique"] == 52


@pytest.mark.parametrize("k", [1, 10, 100])
def test_R10_throughput_of_transactions(k: int):
    told = rabbit(
        producer={"transaction": k, "arrivals": every(1e-5)},
        network={"delay": "0.5 ms"},
        service=STUCK,
        messages=10 * k,
        drain_limit=1,
    )
    t_c = k * QUEUE + 50e-6 + k * 1024 / 1e9
    assert rate_of(told, k) == pytest.approx(k / (k * CHANNEL + 0.001 + t_c), rel=0.005)


def test_R10_transactions_and_confirms_exclude_each_other():
    with pytest.raises(ScenarioError, match="exclude each other"):
        scenario(producer={"transaction": 2, "confirm_batch": 2})


# -- acknowledgements ------------------------------------------------------------------------------------------------

CRASH = {"crash": "billing", "lasting": 0.05}


def test_R11_acked_is_removed_and_unacked_comes_again():
    told = rabbit(service={"service_time": "20 ms"}, faults=[{**CRASH, "at": 0.3235}], messages=5)
    # Message 2 is delivered at 0.302 and its ack arrives at 0.323 s.
    assert deliveries(told) == [1] * 5 and told["requeued"] == 0
    told = rabbit(service={"service_time": "20 ms"}, faults=[{**CRASH, "at": 0.3225}], messages=5)
    assert deliveries(told) == [1, 1, 2, 1, 1] and told["duplicates"] == 1


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize(
    ("at", "repeated"), [(0.45, [0, 1, 2, 3]), (0.55, []), (0.65, [5]), (0.95, [5, 6, 7, 8])]
)
def test_R11_acking_every_kth_repeats_up_to_k_minus_1(queue_type: str, at: float, repeated: list[int]):
    told = rabbit(
        channel={"queue_type": queue_type},
        service={"ack_every": 5},
        faults=[{**CRASH, "at": at}],
        messages=10,
    )
    assert [i for i, n in enumerate(told.pairs().processings[:10]) if n == 2] == repeated
    assert len(repeated) <= 4 and told.causes == (
        {("duplicate", "channel_lost"): len(repeated)} if repeated else {}
    )


@pytest.mark.parametrize(("prefetch", "processed"), [(3, 3), (5, 10), (None, 10)])
def test_R11_an_ack_of_more_than_the_window_stalls_the_consumer(prefetch: int | None, processed: int):
    told = rabbit(service={"ack_every": 5, "prefetch": prefetch}, messages=10)
    assert told["processed"] == processed and told["in_flight"] == 10 - processed


def test_R11_a_stalled_consumer_of_a_quorum_queue_is_rid_of_its_deliveries_after_the_timeout():
    told = rabbit(
        channel={"queue_type": "quorum", "consumer_timeout": 60},
        producer={"messages": 4},
        service={"ack_every": 5, "prefetch": 3},
        duration=130,
        drain_limit=1,
    )
    # The second time two of them make five that it has done; that ack lets message 3 come.
    assert deliveries(told) == [2, 2, 2, 1] and told.causes == {("duplicate", "ack_timeout"): 3}


def test_R11_multiple_goes_no_further_than_the_first_delivery_still_at_work():
    slow = {"slow": "billing.1", "at": 0.09, "lasting": 0.02, "factor": 60}  # it works on message 0 for 0.6 s
    for at in (
        0.25,
        0.35,
    ):  # 1 and 2 are done at 0.312 s: an ack of them with multiple would be one of 0 as well
        told = rabbit(service={"slots": 2, "ack_every": 2}, faults=[slow, {**CRASH, "at": at}])
        assert told["lost"] == 0 and deliveries(told)[0] == 2


def test_R11_multiple_leaves_later_tags_alone():
    told = rabbit(
        producer={"arrivals": every(0.001)},
        service={"ack_every": 2},
        faults=[{**CRASH, "at": 0.04}],
        messages=50,
    )
    # Work begins at 0.016 s; the ack of 0 and 1 arrives at 0.037 s with all others sent.
    assert deliveries(told)[:5] == [1, 1, 2, 2, 2] and told["lost"] == 0


def test_R11_multiple_leaves_other_channels_alone():
    told = rabbit(
        service={"consumers": 2, "ack_every": 2},
        faults=[{"crash": "billing.2", "at": 0.55, "lasting": 0.05}],
        messages=6,
    )
    # In turn: billing.1 has acked 0 and 2 and holds 4; billing.2 has acked 1 and 3.
    assert deliveries(told) == [1] * 6
    told = rabbit(
        service={"consumers": 2, "ack_every": 2},
        faults=[{"crash": "billing.2", "at": 0.35, "lasting": 0.05}],
        messages=6,
    )
    assert deliveries(told)[:4] == [1, 2, 1, 1]  # the ack of 0 and 2 does not cover 1, which billing.2 held


# -- auto ack --------------------------------------------------------------------------------------------------------

AUTO = {"ack": "auto"}


def test_R12_auto_acked_is_forgotten_when_it_is_sent():
    told = rabbit(service={**AUTO, "prefetch": 1, "service_time": 10}, messages=5)
    assert told.times("sent") == [0.101, 0.201, 0.301, 0.401, 0.501]  # no window, whatever the prefetch


def test_R12_a_crash_loses_all_that_was_sent_and_not_processed():
    at = 0.4505
    told = rabbit(
        producer={"arrivals": every(0.01)},
        service={**AUTO, "service_time": 0.025},
        faults=[{**CRASH, "at": at}],
        messages=60,
    )
    sent, done = told.events("sent"), told.events("processed")
    held = sum(e.time < at + HOP for e in sent) - sum(e.time < at for e in done)
    assert told["lost"] == told["lost_confirmed"] == held == sum(told.causes.values())
    assert {cause for _, cause in told.causes} <= {"consumer_crashed", "auto_ack_crash"}
    # An overload of λ - 1/t_p = 60/s since 0.012 s
    assert held == pytest.approx(60 * (at - 0.012), abs=2)
    assert told["duplicates"] == 0 and max(deliveries(told)) == 1


def test_R12_what_is_on_the_wire_is_lost_too():
    told = rabbit(
        producer={"arrivals": every(0.01)},
        service={**AUTO, "service_time": 0},
        network={"delay": "50 ms"},
        faults=[{**CRASH, "at": 1.005, "lasting": 0.01}],
        messages=150,
    )
    # λ r / 2 = 100/s · 50 ms at the crash, and as many until the broker hears of it
    assert told.causes == {("lost", "auto_ack_crash"): 10}


def test_R12_a_random_crash_loses_the_queue_of_the_client():
    """M/M/1 with ρ = 0.5: ρ / (1 - ρ) on average, that in service included."""
    crashes, rho = 150, 0.5
    told = rabbit(
        producer={"arrivals": {"poisson": f"{rho}/s"}, "resend": None},
        service={**AUTO, "service_time": {"exponential": 1}, "recovery_interval": 0.01},
        faults=[{"crash": "billing", "every": 30, "lasting": 0.1}],
        duration=30.0 * crashes + 1,
    )
    mean, deviation = rho / (1 - rho), math.sqrt(rho) / (1 - rho)
    assert told["lost"] / crashes == pytest.approx(mean, abs=3.3 * deviation / math.sqrt(crashes))
