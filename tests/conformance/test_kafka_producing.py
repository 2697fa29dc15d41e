"""Kafka's producer: behaviours K-02, K-03, K-08, K-11, K-13 to K-20 of its sheet, and the misconceptions about it.

`kafka` says what happens when where nothing else is said: message i is sent at 5 + 0.1 (i + 1) s with linger 0 and
acks=all, hops take 1 ms, within the cluster 0.25 ms.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby, pairwise
from typing import Any

import pytest

from sim.brokers.kafka.log import OUT_OF_ORDER
from sim.brokers.kafka.partitioner import partition_of
from sim.brokers.kafka.producer import Producer
from sim.brokers.kafka.settings import ProducerClient, is_idempotent
from sim.scenario.errors import ScenarioError
from tests.conformance.builders import Story
from tests.conformance.kafka import (
    HOP,
    RF3,
    Driven,
    at,
    at_once,
    books,
    kafka,
    outcomes,
    scenario,
    stored,
    told_after,
)

KIB = 1024
PLAIN = {"enable_idempotence": False}  # acks=all without idempotence
IMPATIENT = {"request_timeout": 2.0, "delivery_timeout": 60.0}
FEW = at(5.1, 5.2, 5.3, 90.0)  # the last so late that whatever befell the others is over


def every(gap: float, count: int, start: float = 5.0) -> dict[str, Any]:
    """Arrivals at equal gaps (s), the first a gap after `start` (s)."""
    return at(*(round(start + gap * (i + 1), 9) for i in range(count)))


def partitions(told: Story) -> list[int]:
    """The partition of each message."""
    scopes = books(told).scopes
    assert scopes is not None
    return scopes[: len(books(told))].tolist()


def cut(path: str, start: float, lasting: float) -> dict[str, Any]:
    """Nothing passes there for so long (s)."""
    return {"partition": path, "at": start, "lasting": lasting}


def down(host: str, start: float, lasting: float, kind: str = "crash") -> dict[str, Any]:
    """A process, or a machine, that is down for so long (s)."""
    return {kind: host, "at": start, "lasting": lasting}


def client(world: Driven) -> Any:
    """The client library of the only producer."""
    (producer,) = world.broker.producers
    return producer


# -- partitions ------------------------------------------------------------------------------------------------------


def test_K02_all_records_of_a_key_share_its_partition_and_keep_their_order():
    told = kafka(
        channel={"partitions": 4}, producer={"keys": {"number": 20}}, service={"consumers": 4}, messages=200
    )
    keys = [books(told).key_of(message) for message in range(200)]
    assert partitions(told) == [partition_of(key, 4) for key in keys]
    assert len(set(partitions(told))) == 4
    for key in set(keys):
        mine = [message for message in told.order("processed") if keys[message] == key]
        assert mine == sorted(mine)


def test_K02_a_producer_without_keys_beside_one_with_keys_spreads_its_records():
    told = kafka(
        channel={"partitions": 4},
        producers={"keyed": {"keys": {"values": ["a"]}}, "plain": {**at_once(640), "messages": 640}},
        messages=20,
    )
    shares = [set(), set()]
    for number, partition in zip(books(told).producer, partitions(told), strict=False):
        shares[number].add(partition)
    assert shares == [{partition_of("a", 4)}, {0, 1, 2, 3}]


def test_K03_records_without_a_key_stick_until_a_batch_is_full():
    told = kafka(channel={"partitions": 4}, producer=every(0.001, 1600), messages=1600)
    runs = [len(list(group)) for _, group in groupby(partitions(told))]
    assert all(run % 16 == 0 for run in runs)  # batch.size of 16 KiB
    assert len(runs) > 60  # of 100 batches, as the next partition is the same for one in four
    counts = Counter(partitions(told))
    for partition in range(4):  # each batch falls to it with 1/4
        assert abs(counts[partition] / 16 - 25) < 4 * math.sqrt(100 / 4 * 3 / 4)


def test_K03_a_batch_that_has_begun_is_filled_before_the_next_partition():
    told = kafka(channel={"partitions": 4}, producer=at_once(1600), messages=1600)
    first = len(list(next(groupby(partitions(told)))[1]))
    # Five single records are in flight at once; what comes then waits for an answer, and fills a batch.
    assert first % 16 == 5


def test_K03_a_slow_broker_gets_fewer_records():
    told = kafka(
        channel={"partitions": 2, "nodes": 2},
        producer=every(0.0002, 6000),
        service={"consumers": 2, "service_time": "0.01 ms"},
        messages=6000,
        faults=[{"slow": "orders.2", "at": 5, "lasting": 10, "factor": 200}],
    )
    assert told["unique"] == 6000
    # 10 ms and more of work per request there: 16 KiB batches come at 5000/s / 16 = 312/s.
    counts = Counter(partitions(told))
    assert counts[1] < counts[0] / 2


def test_K03_a_partition_without_a_leader_gets_no_records():
    told = kafka(
        channel={"partitions": 2, "nodes": 2, "offsets_replication_factor": 1},
        producer={**every(0.01, 4000), "batch_size": 4 * KIB},
        service={"service_time": "0.1 ms", "consumers": 2},
        messages=4000,
        faults=[down("orders.2", 8, 60)],
    )
    late = [partition for i, partition in enumerate(partitions(told)) if 20 < books(told).created[i] < 45]
    assert len(late) > 2000 and set(late) == {0}
    assert told["unique"] == 4000


# -- acks=0 ----------------------------------------------------------------------------------------------------------

ONE_WAY = {"acks": "0", "resend": None}


@pytest.mark.parametrize("delay", [0.005, 0.010])
def test_K08_what_is_on_its_way_to_a_broker_that_crashes_is_lost(delay: float):
    crash = 6.0005
    told = kafka(
        producer={**ONE_WAY, **every(0.001, 2000)},
        network={"delay": delay},
        faults=[down("orders", crash, 0.2)],
        messages=2000,
    )
    # λ · (on the wire + until the producer hears of it) = 1000/s · 2d
    assert told.causes == {("lost", "socket_cut"): round(2000 * delay)}
    dead = [books(told).created[event.message] for event in told.events("died")]
    assert crash - delay < min(dead) < max(dead) < crash + delay
    assert outcomes(told) == ["in_doubt"] * 2000 and not told.events("copy")


def test_K08_a_silent_cut_takes_what_the_socket_holds():
    told = kafka(
        producer={**ONE_WAY, **every(0.01, 5000)},
        faults=[cut("shop <-> orders", 10.0005, 45)],
        messages=5000,
    )
    # send.buffer.bytes of 128 KiB; what came after that waits, and after request.timeout.ms for a new connection.
    assert told.causes == {("lost", "socket_cut"): 128}
    assert told["unique"] == 5000 - 128


def test_K08_a_short_cut_costs_nothing_but_time():
    told = kafka(
        producer={**ONE_WAY, **every(0.01, 1000)}, faults=[cut("shop <-> orders", 10.0005, 5)], messages=1000
    )
    assert told.causes == {} and told["unique"] == 1000


def test_K08_a_broker_that_does_not_lead_any_more_closes_the_connection():
    told = kafka(
        channel=RF3,
        producer={**ONE_WAY, **every(0.01, 4000)},
        faults=[cut("orders.1 <-> orders.controller", 10, 20)],
        messages=4000,
    )
    # Deposed at 19 s and told so at 30 s: what it took meanwhile it cuts off (K-31), what came then is refused.
    lost = {cause: count for (_, cause), count in told.causes.items()}
    assert set(lost) == {"unreplicated", "socket_cut"}
    assert 0 < lost["socket_cut"] < 5  # 100/s, until the producer has heard of it and asked who leads
    dead = [event.message for event in told.events("died")]
    assert max(books(told).created[message] for message in dead) < 31.5


def test_K08_a_crashed_producer_takes_its_socket_along():
    told = kafka(
        producer={**ONE_WAY, **every(0.001, 1000)},
        network={"delay": 0.005},
        faults=[down("shop", 5.5005, 5)],
        messages=1000,
    )
    assert told.causes == {("lost", "socket_cut"): 5, ("lost", "producer_down"): 500}


# -- too few replicas ------------------------------------------------------------------------------------------------


def test_K11_with_one_broker_down_writes_go_on():
    told = kafka(channel=RF3, producer=every(0.1, 300), messages=300, faults=[down("orders.3", 10, 60)])
    assert told.causes == {} and told["confirmed"] == 300
    late = [t for c, t in zip(books(told).created, told_after(told), strict=False) if c > 20]
    assert max(late) < 0.01  # the in-sync set has shrunk


def test_K11_with_two_brokers_down_writes_stop_and_reads_go_on():
    followers = [down("orders.2", 10, 300), down("orders.3", 10, 300)]
    told = kafka(
        channel=RF3,
        producer={**every(1.0, 40), "delivery_timeout": 100.0},
        messages=40,
        producers={"shop": {}, "other": {**at(250.0), "messages": 1}},
        faults=[*followers, {"pause": "billing", "at": 6, "lasting": 30}],
    )
    late = [i for i in range(40) if books(told).created[i] > 20]
    assert [outcomes(told)[i] for i in late] == ["failed"] * len(late)
    assert {told.places()[i] for i in late} == {"rejected"}
    assert ("rejected", "not_enough_replicas") in told.causes
    after = [told_after(told)[i] for i in late]  # delivery.timeout.ms, of the first of up to 16 in a batch
    assert max(after) == pytest.approx(100) and min(after) > 84
    assert min(told.times("processed", 3)) > 36  # read while writes were refused


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_K11_what_was_appended_before_the_in_sync_set_shrank_is_in_the_log_already(is_idempotent: bool):
    followers = [down("orders.2", 10, 50), down("orders.3", 10, 50)]
    told = kafka(
        channel=RF3,
        producer={**every(1.0, 100, 9.5), "enable_idempotence": is_idempotent},
        messages=100,
        faults=followers,
    )
    assert told["confirmed"] == told["unique"] == 100
    if is_idempotent:
        assert told.causes == {}
    else:  # at least the one that was in flight when the followers died
        assert ("duplicate", "retried_after_append") in told.causes
        # which may overtake, too (K-14)
        assert {cause for _, cause in told.causes} == {"retried_after_append"}


# -- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["shop -> orders", "orders -> shop"])
@pytest.mark.parametrize("is_idempotent", [True, False])
def test_K13_a_batch_whose_answer_is_lost_is_appended_again(path: str, is_idempotent: bool):
    told = kafka(
        producer={**FEW, **IMPATIENT, "enable_idempotence": is_idempotent},
        faults=[cut(path, 5.2995, 5)],
        messages=4,
    )
    is_answer_lost = path == "orders -> shop"
    assert told["confirmed"] == told["unique"] == 4
    twice = {("duplicate", "retried_after_append"): 1}
    assert told.causes == (twice if is_answer_lost and not is_idempotent else {})
    assert len(stored(told)) == 4 + (is_answer_lost and not is_idempotent)


@pytest.mark.parametrize(("lasting", "copies"), [(1.5, 0), (7.0, 3)])
def test_K13_an_answer_later_than_the_request_timeout_is_as_good_as_none(lasting: float, copies: int):
    told = kafka(
        channel=RF3,
        producer={**at(5.1, 90.0), **PLAIN, **IMPATIENT},
        faults=[{"pause": "orders.2", "at": 5.05, "lasting": lasting}],
        messages=2,
    )
    # Sent again 2 s, and a back-off, after each time before: at about 5.1, 7.2, 9.3 and 11.5 s, all of them appended.
    assert len(stored(told)) == 2 + copies
    assert told["duplicates"] == copies
    assert told.causes == ({("duplicate", "retried_after_append"): copies} if copies else {})


def reordering(**producer: Any) -> Story:
    """Followers are down, so that writes are refused; when one is back in sync, some in flight are, others not."""
    times = [5.1, *(19 + 0.004 * i for i in range(999))]
    return kafka(
        channel=RF3,
        producers={
            "shop": {**at(*times), **producer},
            "other": {
                **every(0.1, 300),
                "acks": "1",
                "messages": 300,
            },  # the followers have something to fetch
        },
        service={"service_time": "0.1 ms"},
        faults=[down("orders.2", 9.5, 12), down("orders.3", 9.5, 60)],
        messages=1000,
    )


def test_K14_a_batch_that_was_refused_is_sent_again_behind_others():
    told = reordering(**PLAIN)
    assert told["out_of_order"] > 0
    assert set(told.causes) == {("reordered", "retried_behind_others")}
    again = {event.message for event in told.events("copy")}
    for _, message in told.anomalies["reordered", "retried_behind_others"]:
        assert message in again  # only after a retry


@pytest.mark.parametrize(
    "producer", [{**PLAIN, "max_in_flight_requests_per_connection": 1}, {"enable_idempotence": True}]
)
def test_K14_not_with_one_in_flight_nor_with_an_idempotent_producer(producer: dict[str, Any]):
    told = reordering(**producer)
    mine = [message for message in stored(told) if books(told).producer[message] == 0]
    assert told.causes == {} and mine == sorted(mine)


def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The errors that producers are answered from now on."""
    errors: list[str] = []
    answered = Producer.answered

    def listening(self: Producer, batch: Any, error: str) -> None:
        errors.append(error)
        answered(self, batch, error)

    monkeypatch.setattr(Producer, "answered", listening)
    return errors


def test_K15_a_gap_is_refused_and_filled(monkeypatch: pytest.MonkeyPatch):
    errors = refusals(monkeypatch)
    told = kafka(
        channel=RF3,
        producer={"linger": 0.005, **every(0.002, 3000)},
        service={"service_time": "0.1 ms"},
        faults=[down("orders.1", 6, 30)],
        messages=3000,
    )
    assert OUT_OF_ORDER in errors
    assert told.causes == {} and stored(told) == list(range(3000))


def test_K15_a_gap_counts_for_the_attempt_that_was_refused_only():
    """Refused at first since what came before it was still to come; then appended, and the answer is lost."""
    world = Driven(messages=3)
    (lane,) = client(world).lanes.values()
    world.run(5.1 + 1.5 * HOP)  # record 0 is in the log, and its answer on the way
    (batch,) = next(iter(lane.in_flight.values()))
    batch.error = OUT_OF_ORDER
    lane.connection.broken(client(world).host)
    world.run(10.0)
    assert world.partition.log().end == 3
    assert client(world).sequences[world.partition].epoch == 0


@pytest.mark.parametrize("is_answer_lost", [True, False])
def test_K15_after_a_batch_was_given_up_sequences_begin_anew(is_answer_lost: bool):
    told = kafka(
        producer={"request_timeout": 1.0, "delivery_timeout": 2.0, **every(0.5, 60)},
        faults=[cut("orders -> shop" if is_answer_lost else "shop -> orders", 10.25, 10)],
        messages=60,
    )
    failed = [i for i, outcome in enumerate(outcomes(told)) if outcome == "failed"]
    assert 15 <= len(failed) <= 18  # those of 10 s, but for the last 2 s of them
    assert told["duplicates"] == told["out_of_order"] == 0
    after = [i for i in range(60) if i not in failed]
    assert [told.places()[i] for i in after] == ["unique"] * len(after)


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_K16_what_the_application_sends_again_is_a_new_record(is_idempotent: bool):
    told = kafka(
        producer={**FEW, "resend": {"timeout": 1.0}, "enable_idempotence": is_idempotent},
        faults=[{"pause": "orders", "at": 5.15, "lasting": 1.5}],
        messages=4,
    )
    # Not answered for 1 s, that of 5.2 and that of 5.3 s were sent again before the broker went on at 6.65 s.
    assert told.causes == {("duplicate", "resent_by_application"): 2}
    assert told["duplicate_effects"] == 2


def test_K16_not_if_it_leaves_that_to_the_producer():
    told = kafka(producer=FEW, faults=[{"pause": "orders", "at": 5.15, "lasting": 1.5}], messages=4)
    assert told.causes == {} and told["unique"] == 4


# -- the accumulator -------------------------------------------------------------------------------------------------


def test_K17_what_lingers_dies_with_the_process():
    told = kafka(
        producer={**every(0.001, 200), "linger": 0.1, "batch_size": 2**20},
        faults=[down("shop", 5.0805, 0.1)],
        messages=200,
    )
    # λ · (time since the batch was begun) = 1000/s · 80 ms; then nobody sends for 100 ms.
    assert told.causes == {("lost", "accumulator_lost"): 80, ("lost", "producer_down"): 100}


def test_K17_it_is_buffer_memory_at_most():
    told = kafka(
        producer={**every(0.01, 300), "buffer_memory": 128 * KIB},
        producers={"shop": {}, "other": {**at(60.0), "messages": 1}},
        faults=[down("orders", 5.005, 30), down("shop", 8.005, 10)],
        messages=300,
    )
    assert told.causes[("lost", "accumulator_lost")] == 128
    assert told.causes[("lost", "producer_crashed")] == 300 - 128  # their send() had not returned


@pytest.mark.parametrize("outage", [10.0, 20.0])
def test_K18_an_outage_loses_what_is_older_than_the_delivery_timeout(outage: float):
    told = kafka(
        producer={**every(0.1, 400), "delivery_timeout": 4.0, "request_timeout": 1.0},
        faults=[down("orders", 8.05, outage)],
        messages=400,
    )
    # λ · (T - 4 s), and more for the broker to find the controller, the producer to find the broker, and the next
    # retry: each has a back-off of 1 s at most
    lost = told.causes[("lost", "delivery_timeout")]
    assert 10 * (outage - 4) <= lost <= 10 * (outage - 4 + 3) + 16  # a batch is given up as a whole
    assert told["failed"] == lost and told["lost_confirmed"] == told["duplicates"] == 0
    after = [t for t, outcome in zip(told_after(told), outcomes(told), strict=True) if outcome == "failed"]
    assert max(after) == pytest.approx(4) and min(after) > 4 - 1.6  # the age of its first record counts


def test_K18_the_default_is_two_minutes():
    told = kafka(producer=every(1.0, 200), faults=[down("orders", 8.5, 150)], messages=200)
    assert 30 <= told.causes[("lost", "delivery_timeout")] <= 32  # λ · (150 - 120 s)


def test_K18_a_record_that_is_reported_as_failed_may_be_stored():
    told = kafka(
        producer={**FEW, "request_timeout": 1.0, "delivery_timeout": 3.0},
        faults=[cut("orders -> shop", 5.2995, 20)],
        messages=4,
    )
    assert outcomes(told) == ["confirmed", "confirmed", "failed", "confirmed"]
    assert told.places() == ["unique"] * 4 and told.causes == {}


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_K18_an_application_that_sends_it_again_stores_it_twice(is_idempotent: bool):
    told = kafka(
        producer={
            **FEW,
            "enable_idempotence": is_idempotent,
            "request_timeout": 1.0,
            "delivery_timeout": 3.0,
            "resend": {"timeout": None, "attempts": 5},
        },
        faults=[cut("orders -> shop", 5.2995, 5)],
        messages=4,
    )
    assert outcomes(told) == ["confirmed"] * 4
    assert told.causes == {("duplicate", "resent_by_application"): 1}


def test_K18_the_application_may_try_again_whatever_the_library_has_tried():
    told = kafka(
        channel=RF3,
        producer={
            **FEW,
            **PLAIN,
            "request_timeout": 1.0,
            "delivery_timeout": 3.0,
            "resend": {"timeout": None, "attempts": 5},
        },
        faults=[{"pause": "orders.2", "at": 5.25, "lasting": 5}],
        messages=4,
    )
    assert outcomes(told) == ["confirmed"] * 4 and told.places() == ["unique"] * 4
    assert told["duplicates"] > 1 and all(anomaly == "duplicate" for anomaly, _ in told.causes)


def test_K19_the_buffer_fills_within_its_size_over_the_rate():
    world = Driven(producer=every(0.001, 40_000), faults=[down("orders", 4.9, 90)], messages=40_000)
    world.run(5 + 32.76)
    assert not client(world)._blocked  # 32 MiB / (1000/s · 1 KiB) = 32.768 s
    world.run(5 + 32.78)
    assert client(world)._blocked


def test_K19_send_blocks_and_then_fails_one_after_the_other():
    told = kafka(
        producer={**every(0.1, 400), "buffer_memory": 64 * KIB, "max_block": 5.0},
        faults=[down("orders", 10.05, 25)],
        messages=400,
    )
    # The buffer is full 6.4 s into the outage. One thread sends: its calls fail after 5, 10, 15 s.
    assert told.causes == {("lost", "buffer_full"): 3}
    dead = [event.time for event in told.events("died")]
    assert dead == pytest.approx([10.1 + 6.4 + 5 * (i + 1) for i in range(3)])
    assert stored(told) == sorted(stored(told))  # records are accepted in the order of send()


def test_K19_no_failure_when_the_outage_ends_before_max_block():
    told = kafka(
        producer={**every(0.1, 400), "buffer_memory": 64 * KIB},
        faults=[down("orders", 10.05, 25)],
        messages=400,
    )
    assert told.causes == {} and told["confirmed"] == 400


@pytest.mark.parametrize(("size", "is_refused"), [("1 MiB", False), ("1025 KiB", True)])
def test_K19_a_record_larger_than_max_request_size_is_refused(size: str, is_refused: bool):
    told = kafka(producer={"size": size}, messages=3)
    assert told.causes == ({("rejected", "record_too_large"): 3} if is_refused else {})
    assert outcomes(told) == ["failed" if is_refused else "confirmed"] * 3


def requests(world: Driven) -> int:
    """How many produce requests were sent."""
    return sum(lane._number for lane in client(world).lanes.values())


@pytest.mark.parametrize(("linger", "records"), [(0.0, 1), (0.0105, 11), (0.0055, 6), (0.1, 16)])
def test_K20_a_batch_has_the_records_of_its_linger_time(linger: float, records: int):
    world = Driven(producer={**every(0.001, 1760), "linger": linger}, messages=1760)
    world.run(20)
    assert requests(world) == math.ceil(1760 / records)  # min(16 KiB / 1 KiB, 1 + λL)


def test_K20_at_random_arrivals_it_is_so_on_average():
    n, rate, linger = 10_000, 500.0, 0.010
    world = Driven(
        producer={"arrivals": f"{rate:g}/s", "linger": linger},
        service={"service_time": "0.1 ms"},
        messages=n,
    )
    world.run(60)
    mean = 1 + rate * linger  # the first, and a Poisson number of others; hardly ever 16
    batches = n / mean
    assert abs(n / requests(world) - mean) < 4 * math.sqrt(rate * linger / batches)


def test_K20_each_record_waits_for_the_linger_time_at_most():
    linger = 0.1
    told = kafka(producer={**every(0.005, 1000), "linger": linger, "batch_size": 2**20}, messages=1000)
    waits = [after - 2 * HOP for after in told_after(told)]
    assert max(waits) == pytest.approx(linger, rel=0.01)
    assert sum(waits) / 1000 == pytest.approx(linger / 2, rel=0.06)  # λL = 20


def test_K20_at_saturation_batches_fill_without_linger():
    world = Driven(producer=at_once(1600), messages=1600)
    world.run(20)
    assert requests(world) <= 1600 / 16 + 5  # what was sent before the first answers came


def test_K20_a_request_takes_along_what_waits_for_the_same_broker():
    four = {"keys": {"values": ["a", "c", "d", "f"]}, **every(0.001, 1000), "linger": 0.0205}
    world = Driven(channel={"partitions": 8}, producer=four, messages=1000)
    world.run(20)
    assert len({partition_of(key, 8) for key in "acdf"}) == 4
    assert requests(world) == pytest.approx(1000 / 21, abs=2)  # one for all, not four


def test_K20_compression_makes_batches_of_more_records():
    world = Driven(producer={**at_once(3200), "compression_ratio": 0.25, "linger": 0.1}, messages=3200)
    world.run(20)
    assert requests(world) == 3200 / 64


# -- settings that exclude each other --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"acks": "1"}, False),
        ({"acks": "0"}, False),
        ({"retries": 0}, False),
        ({"max_in_flight_requests_per_connection": 6}, False),
        ({"enable_idempotence": False}, False),
        ({"transactional": True}, True),
    ],
)
def test_K15_idempotence_is_the_default_and_falls_silently(settings: dict[str, Any], expected: bool):
    assert is_idempotent(ProducerClient(**settings)) is expected


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"enable_idempotence": True, "acks": "1"}, "enable_idempotence needs acks: all, not 1"),
        ({"enable_idempotence": True, "retries": 0}, "enable_idempotence needs retries, not 0"),
        (
            {"enable_idempotence": True, "max_in_flight_requests_per_connection": 6},
            "at most 5 max_in_flight_requests_per_connection, not 6",
        ),
        ({"transactional": True, "acks": "0"}, "transactional needs acks: all, not 0"),
        ({"transactional": True, "enable_idempotence": False}, "transactional needs enable_idempotence"),
        ({"delivery_timeout": "10 s"}, "delivery_timeout, 10 s, must not be less than"),
    ],
)
def test_K15_a_conflict_that_was_asked_for_is_an_error(settings: dict[str, Any], complaint: str):
    with pytest.raises(ScenarioError, match=complaint):
        scenario(producer=settings)


# -- metadata, several producers -------------------------------------------------------------------------------------


def test_K23_an_error_says_who_leads_and_the_retry_goes_there_at_once():
    told = kafka(
        channel=RF3,
        producer={"acks": "1", **every(0.01, 4000)},
        service={"service_time": "0.1 ms"},
        faults=[cut("orders.1 <-> orders.controller", 10, 20)],
        messages=4000,
    )
    # At 30 s and a little the deposed leader hears that it is. KIP-951: no back-off of 80 to 120 ms, no metadata first.
    created = books(told).created
    late = [t for i, t in enumerate(told_after(told)) if 30 < created[i] < 35]
    assert len([t for t in late if t > 3 * HOP]) > 0  # some went there and were sent on
    assert max(late) < 6 * HOP


@pytest.mark.parametrize(("max_age", "asks"), [(5.0, True), (300.0, False)])
def test_K23_metadata_is_refreshed_when_it_is_old(max_age: float, asks: bool):
    world = Driven(producer={**every(1.0, 30), "metadata_max_age": max_age}, messages=30)
    world.run(30)
    assert (client(world).metadata.expires_at > 30 - 1 - HOP) is True
    assert (client(world).metadata.expires_at != max_age) is asks


def test_K15_several_producers_have_ids_of_their_own():
    told = kafka(
        channel={**RF3, "partitions": 3},
        producers={"shop": {"instances": 3}, "other": {}},
        producer={**every(0.01, 300), "linger": 0.005},
        messages=300,
        faults=[down("orders.1", 6, 10), cut("orders -> shop", 6.5, 2)],
    )
    assert told["published"] == told["confirmed"] == told["unique"] and told.causes == {}


@pytest.mark.parametrize("since", [6.0, 7.5, 12.8])
def test_K15_a_process_learns_who_leads_before_it_sends(since: float):
    # given that all processes die, and that others lead when they are back
    told = kafka(
        channel=RF3,
        producer={**every(0.25, 60), "batch_size": 1, "linger": 0.05, "request_timeout": 2.0},
        faults=[down("*", since, 3.0)],
        messages=60,
        duration="60 s",
    )
    # then the first request goes to who leads by now, and none that was sent elsewhere is overtaken by it
    assert told.causes == {("lost", "producer_down"): 12}
    assert told["unique"] == 48 and told["out_of_order"] == 0


def test_K18_a_producer_that_stands_still_gives_up_what_has_become_too_old():
    told = kafka(
        producer={**every(0.01, 1000), "linger": 0.05, "delivery_timeout": 3.0, "request_timeout": 2.0},
        faults=[{"pause": "shop", "at": 6.0, "lasting": 5}],
        messages=1000,
    )
    # What lingered at 6 s is 5 s old when the process goes on, and fails; the application's calls were late, too.
    assert 0 < told["failed"] <= 6
    assert told["failed"] + told["confirmed"] == 1000


def test_K19_while_send_blocks_nothing_lingers():
    told = kafka(
        channel={"partitions": 8},
        producer={
            **at(*(5 + 0.05 * i for i in range(12)), 90.0),
            "keys": {"values": ["a", "c", "d", "f"]},
            "linger": 25.0,
            "buffer_memory": 32 * KIB,  # two batches: what is for a third partition has to wait
            "max_block": 1.0,
        },
        messages=13,
    )
    assert len(set(partitions(told)[:12])) > 2
    assert told.causes == {}


def test_K13_retries_wait_twice_as_long_each_time_up_to_a_second():
    told = kafka(
        channel=RF3,
        producer={**at(5.1, 19.0, 90.0), **PLAIN},
        messages=3,
        faults=[down("orders.2", 6, 30), down("orders.3", 6, 30)],
    )
    sent = [19.0, *told.times("copy", message=1)][:12]
    waits = [later - earlier for earlier, later in pairwise(sent)]
    for i, wait in enumerate(waits):  # retry.backoff.ms of 100, jitter of 20%, and the way there and back
        least, most = min(0.8 * 0.1 * 2**i, 0.8), min(1.2 * 0.1 * 2**i, 1.0)
        assert least <= wait - 2 * HOP <= most + 0.001


def test_K15_a_leader_that_lost_the_record_and_its_sequence_takes_it_again():
    told = kafka(
        producer={**at(5.1, 5.2, 5.3, 90.0), "request_timeout": 2.0, "delivery_timeout": 60.0},
        faults=[cut("orders -> shop", 5.2995, 1.0), down("orders", 5.6, 0.5, "machine_crash")],
        messages=4,
    )
    # Read before power was lost, and what the producer had not been answered to it sends again (K-28).
    assert told.causes == {("duplicate", "retried_after_append"): 1}
    assert told["confirmed"] == told["unique"] == 4
