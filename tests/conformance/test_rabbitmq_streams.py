"""Streams of RabbitMQ: R-39 and R-40, and their part in R-05, R-22 and R-23.

`tests.conformance.rabbitmq` says what happens when where nothing else is said: message i is sent at 0.1 (i + 1) s,
every hop takes 1 ms and the work 10 ms. A chunk of one message takes 51 µs to write, a node hears of it 0.1 ms later.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest

from sim.scenario.errors import ScenarioError
from tests.conformance.builders import Story
from tests.conformance.rabbitmq import HOP, deliveries, outcomes, rabbit, scenario, told_after

ONE: dict[str, Any] = {"queue_type": "stream"}
THREE = {"queue_type": "stream", "nodes": 3}
TWO_SERVICES = {"billing": {}, "audit": {"node": 2}}
CHANNEL, CHUNK, BETWEEN_NODES = 10e-6, 51e-6, 0.1e-3  # seconds (sheet, section 4)
BYTES = {"size": 1000}


def reader_away(until: float, since: float = 0.05) -> dict[str, Any]:
    """The consumer's process is not there for a while; where nothing else is said, from before the first message on."""
    return {"crash": "billing", "at": since, "lasting": until - since}


def stream(channel: dict[str, Any] = ONE, service: dict[str, Any] | None = None, **settings: Any) -> Story:
    """A world with a stream that readers begin with its first message; who has lost a connection is back in 0.2 s."""
    producer = {"recovery_interval": 0.2, **settings.pop("producer", {})}
    service = {"recovery_interval": 0.2, "prefetch": 100, "offset": "first", **(service or {})}
    told = rabbit(channel, producer, service, **settings)
    assert not told.outcome.inert, "each fault struck something"
    return told


# -- the moment of the confirm -----------------------------------------------------------------------------------


def test_R05_a_stream_confirms_when_a_majority_has_written() -> None:
    # given a stream on three nodes, whose disks take a second to sync
    told = stream({**THREE, "fsync": 1.0})
    # then a confirm waits for the chunk and for the faster follower, and for no disk
    waits = CHANNEL + CHUNK + 2 * BETWEEN_NODES
    assert told_after(told) == pytest.approx([2 * HOP + waits] * 5)


def test_R05_a_stream_without_replicas_confirms_what_it_has_written() -> None:
    told = stream(ONE)
    assert told_after(told) == pytest.approx([2 * HOP + CHANNEL + CHUNK] * 5)


def test_R05_a_stream_without_a_majority_does_not_confirm() -> None:
    # given that both followers are down from before message 2 on, for a second
    faults = [{"crash": f"orders.{i}", "at": 0.25, "lasting": 1.0} for i in (2, 3)]
    told = stream(THREE, producer={"messages": 5}, faults=faults, duration=5.0)
    # then messages 2 to 4 are confirmed when the first of them is back, and nothing is lost or doubled
    assert max(told_after(told)[:2]) < 0.003
    back = [0.1 * (i + 1) + wait for i, wait in enumerate(told_after(told))][2:]
    assert 1.25 < back[0] < 2.4 and back == pytest.approx([back[0]] * 3, abs=0.001)
    assert told["unique"] == 5 and told["duplicates"] == 0


def test_R05_one_stream_with_several_readers_confirms_once() -> None:
    told = stream({**THREE, "exchange": "fanout"}, services=TWO_SERVICES)
    assert told.order("confirmed", service="") == [0, 1, 2, 3, 4]
    waits = CHANNEL + CHUNK + 2 * BETWEEN_NODES  # it is written once, not once for each reader
    assert told_after(told) == pytest.approx([2 * HOP + waits] * 5)


def test_R05_with_a_stream_for_each_binding_the_last_one_confirms() -> None:
    # given two streams behind a topic exchange, since the bindings differ
    services = {"billing": {"binding": "#"}, "audit": {"binding": "invoice.#"}}
    told = stream(
        {**THREE, "exchange": "topic"}, services=services, producer={"keys": {"values": ["invoice.paid"]}}
    )
    # then each message is stored in both, and confirmed once
    assert told.order("confirmed", service="") == [0, 1, 2, 3, 4]
    assert deliveries(told) == deliveries(told, "audit") == [1] * 5


# -- a log ---------------------------------------------------------------------------------------------------


def test_R39_reading_a_stream_removes_nothing() -> None:
    # given three services of one stream, one of which comes late
    services = {"billing": {}, "audit": {}, "search": {}}
    late = {"crash": "search", "at": 0.05, "lasting": 1.0}
    told = stream({**ONE, "exchange": "fanout"}, services=services, faults=[late])
    # then each reads all of it: n consumers, n N deliveries
    assert all(told.order("delivered", name) == [0, 1, 2, 3, 4] for name in services)
    assert told["delivered"] == 3 * 5 and told["duplicates"] == 0


@pytest.mark.parametrize(("offset", "missed"), [("first", 0), ("last", 3), ("next", 4)])
def test_R39_a_late_reader_starts_where_it_says(offset: str, missed: int) -> None:
    # given a reader that comes when messages 0 to 3 are there, each in a chunk of its own
    told = stream(service={"offset": offset}, faults=[reader_away(until=0.45)])
    # then it has missed those before the first, the last chunk, or the next message
    assert told.order("delivered") == list(range(missed, 5))
    assert told.causes == ({("lost", "offset_next"): missed} if missed else {})
    assert outcomes(told) == ["confirmed"] * 5


def test_R39_without_a_stored_offset_a_reader_begins_with_what_is_published_from_then_on() -> None:
    # given a reader that says nothing of an offset, and comes when messages 0 and 1 are there
    told = rabbit(ONE, service={"prefetch": 100}, faults=[reader_away(until=0.25, since=0)])
    assert told.order("delivered") == [2, 3, 4]
    assert told.causes == {("lost", "offset_next"): 2}


def test_R39_readers_without_a_prefetch_or_with_automatic_acks_are_refused() -> None:
    with pytest.raises(
        ScenarioError, match="billing: RabbitMQ refuses consumers of a stream without a prefetch"
    ):
        scenario(ONE)
    with pytest.raises(ScenarioError, match="acks are credit for a stream"):
        scenario(ONE, service={"prefetch": 10, "ack": "auto"})


@pytest.mark.parametrize(
    "setting",
    [
        {"message_ttl": 1},
        {"expires": 1},
        {"max_length": 1},
        {"overflow": "reject-publish"},
        {"delivery_limit": 5},
        {"delayed_retry_type": "all"},
        {"dead_letter_exchange": "parking"},
        {"is_delay_queue": True},
    ],
    ids=str,
)
def test_R39_a_stream_is_not_declared_with_what_only_queues_have(setting: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match=f"refuses to declare a stream with {next(iter(setting))};"):
        scenario({**ONE, **setting}, service={"prefetch": 10})


def test_R39_and_a_queue_is_not_with_what_only_streams_have() -> None:
    with pytest.raises(ScenarioError, match="max_age is for streams"):
        scenario({"max_age": 10})


def test_R39_a_reader_with_a_stored_offset_does_not_start_at_next() -> None:
    told = stream(service={"offset": "next"}, faults=[reader_away(since=0.25, until=0.45)])
    assert told["unique"] == 5


def test_R39_credit_comes_back_with_acks_in_any_order() -> None:
    # given messages that come faster than they are processed, and two handlers with a prefetch of 3
    service = {"prefetch": 3, "slots": 2, "service_time": {"exponential": 0.2}}
    told = stream(service=service, messages=200)
    # then the reader holds 3 at most, and each is delivered once, in order
    steps = sorted(
        [(e.time, 1) for e in told.events("delivered")] + [(e.time, -1) for e in told.events("processed")]
    )
    assert max(accumulate(step for _, step in steps)) == 3
    assert told.order("delivered") == list(range(200)) != told.order("processed")


def test_R39_a_stream_takes_nothing_back() -> None:
    # given a handler that fails on some messages
    told = stream(service={"failures": {"transient": 0.2}}, messages=50)
    # then each was delivered once, and what failed is lost
    assert deliveries(told) == [1] * 50
    assert told.causes == {("lost", "handler_failed"): 50 - told["unique"]}
    assert told["lost"] > 0


RETENTION = [
    ({"max_length_bytes": 10_000}, 15),
    ({"max_length_bytes": 15_000}, 10),
    ({"max_length_bytes": 0}, 20),
    ({"max_age": 0.7}, 10),
    ({"max_age": 60}, 0),
    ({}, 0),
]


@pytest.mark.parametrize(("retention", "first"), RETENTION)
def test_R39_retention_drops_whole_segments_and_never_the_last(retention: dict[str, Any], first: int) -> None:
    # given segments of five messages, the last of which was begun by message 20, at 2.1 s
    channel = {**ONE, "max_segment_size_bytes": 5000, **retention}
    # when somebody reads it from its first message on, after message 22
    told = stream(channel, producer=BYTES, faults=[reader_away(until=2.4)], messages=23)
    # then that is the first one of a segment, and what was before it has expired
    assert told.order("delivered") == list(range(first, 23))
    assert told.causes == ({("expired", "retention"): first} if first else {})
    limit = retention.get("max_length_bytes", 23_000)
    assert 1000 * (23 - first) <= limit + 5000


def test_R39_a_reader_that_lags_behind_retention_loses() -> None:
    # given a reader of ten messages a second, at work from the beginning, and twice as many messages
    channel = {**ONE, "max_segment_size_bytes": 5000, "max_length_bytes": 10_000}
    producer = {**BYTES, "arrivals": {"deterministic": "20/s"}}
    told = stream(channel, {"service_time": 0.1, "prefetch": 1}, producer=producer, messages=200)
    # then what it was too slow for has expired, and it reads on in order
    assert told.causes == {("expired", "retention"): 200 - told["unique"]}
    assert 80 <= told["expired"] <= 100
    assert told.order("delivered") == sorted(told.order("delivered"))


def test_R39_a_stored_offset_before_the_first_kept_one_is_clamped() -> None:
    channel = {**ONE, "max_segment_size_bytes": 5000, "max_length_bytes": 10_000}
    told = stream(channel, producer=BYTES, faults=[reader_away(since=0.35, until=2.4)], messages=23)
    assert told.order("delivered") == [0, 1, 2, *range(15, 23)]
    assert told.causes == {("expired", "retention"): 12}


def test_R39_a_reader_on_another_node_is_a_hop_behind() -> None:
    told = stream({**THREE, "exchange": "fanout"}, services=TWO_SERVICES)
    ahead = told.times("sent", service="billing")
    assert told.times("sent", service="audit") == pytest.approx([time + BETWEEN_NODES for time in ahead])


def test_R39_a_reader_goes_on_from_another_node() -> None:
    # given a reader whose node, not the leader's, dies under it
    told = stream(THREE, {"node": 2}, faults=[{"crash": "orders.2", "at": 0.25, "lasting": 10}])
    # then it goes on at the next node from where it was
    assert told.order("processed") == [0, 1, 2, 3, 4]


def test_R39_a_reader_that_is_cut_off_from_the_leader_catches_up() -> None:
    # given a reader and a publisher on nodes that have no contact for longer than their connection lasts
    cut = {"partition": "orders.1 <-> orders.2", "at": 0.25, "lasting": 100.0}
    told = stream(THREE, producer={"messages": 5, "node": 2}, duration=200.0, faults=[cut])
    # then all is confirmed once there is a leader that both followers hear of, and read in order after the cut
    assert told["confirmed"] == told["unique"] == 5
    assert told.order("processed") == [0, 1, 2, 3, 4] and told["duplicates"] == 0


def test_R39_a_reader_has_its_full_credit_again_after_its_node() -> None:
    # given a reader with a credit of 1, which is spent when the broker's process dies
    told = stream(ONE, {"prefetch": 1}, faults=[{"crash": "orders", "at": 0.305, "lasting": 0.05}])
    # then it reads on, and what it had in hand comes again
    assert told["unique"] == 5
    assert told.causes == {("duplicate", "offset_replay"): 1}


def test_R39_a_single_active_reader_is_succeeded() -> None:
    # given two readers, of which one is active, and dies
    service = {"consumers": 2}
    channel = {**THREE, "single_active_consumer": True}
    told = stream(channel, service, faults=[{"crash": "billing.1", "at": 0.25, "lasting": 10}])
    # then the other goes on from the stored offset
    assert told.order("processed") == [0, 1, 2, 3, 4]
    assert told.causes == {}


# -- recognising repeats, and keeping offsets ----------------------------------------------------------------

CONFIRM_LOST = {"crash": "orders", "on": "orders.put #3", "lasting": 0.05}


@pytest.mark.parametrize(("has_ids", "duplicates"), [(False, 1), (True, 0)])
def test_R40_republishing_after_doubt_doubles_nothing(has_ids: bool, duplicates: int) -> None:
    # given a broker that dies when it has stored message 2 and not told so
    told = stream(producer={"publishing_ids": has_ids}, faults=[CONFIRM_LOST])
    # then the publisher sends it again, and the stream knows its id
    assert len(told.events("copy", message=2)) >= 1
    assert told["duplicates"] == duplicates and told["lost"] == 0
    assert outcomes(told) == ["confirmed"] * 5


@pytest.mark.parametrize(("has_ids", "lost"), [(False, 0), (True, 1)])
def test_R40_an_id_that_comes_late_is_swallowed(has_ids: bool, lost: int) -> None:
    # given that message 3 is on its way when the broker dies, and sent again after a back-off, behind message 4
    producer = {"publishing_ids": has_ids, "resend": {"timeout": None, "backoff": 2.0}}
    told = stream(producer=producer, faults=[{"crash": "orders", "at": 0.4005, "lasting": 0.05}])
    # then its id is lower than the highest: it is confirmed, not stored, and lost
    assert outcomes(told) == ["confirmed"] * 5
    assert told["lost_confirmed"] == lost and told["unique"] == 5 - lost
    assert told.causes.get(("lost", "dedup_swallowed"), 0) == lost


def test_R40_each_producer_has_ids_of_its_own() -> None:
    producers = {"shop": {}, "kiosk": {"arrivals": {"deterministic": "7/s"}}}
    told = stream(producer={"publishing_ids": True}, producers=producers, messages=20)
    assert told["unique"] == told["published"]


@pytest.mark.parametrize("every", [1, 2, 5, 7])
@pytest.mark.parametrize("done", [3, 4, 5, 6])
def test_R40_an_offset_stored_every_k_repeats_up_to_k_less_1(every: int, done: int) -> None:
    # given a reader that dies between two messages, when it has processed so many
    away = reader_away(since=0.1 * done + 0.05, until=0.1 * done + 0.07)
    told = stream(THREE, {"store_offset_every": every}, faults=[away], messages=10)
    # then it starts again behind the last offset that it stored
    assert told["lost"] == 0
    repeated = {("duplicate", "offset_replay"): done % every} if done % every else {}
    assert told.causes == repeated


@pytest.mark.slow
def test_R40_a_crash_repeats_half_of_k_on_average() -> None:
    # given a reader that dies every 10.37 s, and stores an offset every 20 messages
    away = {"crash": "billing", "at": 5.0, "every": 10.37, "lasting": 0.1}
    service = {"store_offset_every": 20, "service_time": 0.001}
    told = stream(service=service, faults=[away], messages=20_000)
    crashes = len(told.run.faults.spells)
    assert crashes > 150
    # then U{0 .. 19}: mean 9.5, standard deviation sqrt((400 - 1) / 12); five standard errors
    assert told["duplicates"] / crashes == pytest.approx(9.5, abs=5 * 5.77 / crashes**0.5)


@pytest.mark.parametrize(("settle", "lost", "started"), [("before", 1, 1), ("after", 0, 2)])
def test_R40_an_offset_stored_before_the_work_loses(settle: str, lost: int, started: int) -> None:
    # given a reader that dies in the middle of message 2 (0.302 to 0.382 s)
    service = {"settle": settle, "service_time": 0.08}
    told = stream(service=service, faults=[reader_away(since=0.35, until=0.36)])
    # then the message is lost if its offset was stored before, and else begun anew
    assert len(told.events("started", message=2)) == started
    assert told.causes == ({("lost", "consumer_crashed"): 1} if lost else {})
    assert told["unique"] == 5 - lost


def test_R40_without_stored_offsets_all_is_read_again() -> None:
    told = stream(service={"store_offset_every": None}, faults=[reader_away(since=0.45, until=0.46)])
    assert told.causes == {("duplicate", "offset_replay"): 4}
    assert deliveries(told) == [2, 2, 2, 2, 1]


def test_R40_without_stored_offsets_a_reader_at_next_misses_what_came_meanwhile() -> None:
    service = {"store_offset_every": None, "offset": "next"}
    told = stream(service=service, faults=[reader_away(since=0.25, until=0.45)])
    assert told.causes == {("lost", "offset_next"): 2}
    assert told.order("processed") == [0, 1, 4]


def test_R40_a_broken_connection_repeats_what_was_not_stored() -> None:
    # given a reader with three deliveries in hand when its connection is cut, who processes them all the same
    producer = {"arrivals": {"deterministic": "1000/s"}, "messages": 3}
    cut = {"partition": "billing <-> orders", "at": 0.05, "lasting": 1.0}
    told = stream(ONE, {"service_time": 0.1, "heartbeat": 0.1}, producer=producer, duration=3.0, faults=[cut])
    # then they come again, as further copies
    assert told.order("processed") == [0, 1, 2, 0, 1, 2]
    assert told.causes == {("duplicate", "offset_replay"): 3}


def test_R40_idempotence_keeps_effects_single() -> None:
    service = {"store_offset_every": 5, "idempotence": {"store": "transaction"}}
    told = stream(service=service, faults=[reader_away(since=0.45, until=0.46)])
    assert told["duplicates"] == 4 and told["duplicate_effects"] == 0


# -- who survives --------------------------------------------------------------------------------------

UNREAD = reader_away(until=60.0)
LONG: dict[str, Any] = {
    "duration": 70.0,
    "producer": {"messages": 5},
}  # five messages by 0.5 s, unread for a minute


@pytest.mark.parametrize("kind", ["crash", "machine_crash", "disk_loss"])
def test_R22_a_stream_survives_the_loss_of_a_node(kind: str) -> None:
    # given a stream on three nodes that nobody has read, when its leader is gone
    told = stream(THREE, **LONG, faults=[UNREAD, {kind: "orders.leader", "at": 0.55, "lasting": 20.0}])
    # then all of it is read later
    assert told["unique"] == 5 and told.causes == {}


def test_R22_a_stream_without_replicas_survives_its_process() -> None:
    told = stream(ONE, **LONG, faults=[UNREAD, {"crash": "orders", "at": 0.55, "lasting": 10.0}])
    assert told["unique"] == 5 and told.causes == {}


def test_R22_a_stream_dies_with_a_majority_of_its_disks() -> None:
    faults = [{"disk_loss": f"orders.{i}", "at": 40.0, "lasting": 10.0} for i in (1, 2)]
    told = stream(THREE, **LONG, faults=[UNREAD, *faults])
    assert told.causes == {("lost", "disk_loss"): 5}
    assert told["lost_confirmed"] == 5


@pytest.mark.parametrize(("at", "lost"), [(0.55, 5), (25.0, 5), (35.0, 0)])
def test_R23_a_stream_loses_what_was_not_written_back(at: float, lost: int) -> None:
    # given a stream without replicas that was confirmed by 0.5 s, when the power fails
    told = stream(ONE, **LONG, faults=[UNREAD, {"machine_crash": "orders", "at": at, "lasting": 10.0}])
    # then it is lost, unless the system had written its pages back, after 30 s
    assert told.causes == ({("lost", "power_loss"): lost} if lost else {})
    assert told["lost_confirmed"] == lost


def test_R23_a_stream_loses_nothing_while_a_majority_keeps_its_page_cache() -> None:
    # given three nodes, when the power fails at a follower and then, when it is back, at the leader
    faults = [{"machine_crash": f"orders.{i}", "at": 5.0 * i, "lasting": 2.0} for i in (2, 3)]
    told = stream(
        THREE, **LONG, faults=[UNREAD, *faults, {"machine_crash": "orders.1", "at": 20.0, "lasting": 2.0}]
    )
    assert told["unique"] == 5 and told.causes == {}


def test_R23_a_stream_loses_what_a_majority_had_in_its_page_cache() -> None:
    told = stream(THREE, **LONG, faults=[UNREAD, {"machine_crash": "orders", "at": 10.0, "lasting": 5.0}])
    assert told.causes == {("lost", "power_loss"): 5}


def test_R23_a_stream_whose_end_is_lost_goes_on() -> None:
    # given that messages 0 to 4 are lost with the machine, and 5 to 9 are published after that
    told = stream(ONE, faults=[{"machine_crash": "orders", "at": 0.55, "lasting": 1.0}], messages=10)
    # then what the reader had read it does not miss, and it reads on at the same offsets
    assert told["lost"] == 0 and told.order("processed")[:5] == [0, 1, 2, 3, 4]
    assert told["unique"] == 10


def test_R23_a_stream_loses_stored_offsets_like_messages() -> None:
    # given messages that were written back by 31 s, and offsets that were stored at 32 s, when the power fails
    faults = [reader_away(until=32.0), {"machine_crash": "orders", "at": 40.0, "lasting": 1.0}]
    told = stream(ONE, {"heartbeat": 1.0}, **LONG, faults=faults)
    # then the reader starts from where it was before
    assert told.order("processed") == [0, 1, 2, 3, 4] * 2
    assert told.causes == {("duplicate", "offset_replay"): 5}
