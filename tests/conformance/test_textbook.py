"""The textbook broker, its client library and the applications around it: one test per promise of their docstrings.

`builders` says what happens when where nothing else is said: message i is sent at 0.1 (i + 1) s, every hop takes 10 ms
and the work 10 ms.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest

from sim.apps import Failures, Idempotence, Keys, Publishes, Resend
from sim.arrivals import ClosedLoop, Deterministic
from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.ledger import OUTCOMES
from sim.network import LinkSettings
from tests.conformance.builders import HOP, Story, given, story

Z = 3.2905  # two-sided 99.9 % of the normal distribution

APART = {f"orders -> billing.{i}": LinkSettings(Constant(i * HOP)) for i in (1, 2, 3)}
CONSUMER_IS_DOWN = Fault("crash", "billing", at=0.0)  # until arrivals end
ACK_OF_0_IS_LOST = Fault("loss_burst", "billing -> orders", at=0.125, lasting=0.01)
CONFIRM_OF_0_IS_LOST = Fault("loss_burst", "orders -> shop", at=0.105, lasting=0.01)


def taken_by(told: Story) -> list[int]:
    """Which consumer each delivery went to, in the order of sending: on links `APART`, their delays tell."""
    arrival = {event.copy: event.time for event in told.events("delivered")}
    return [round((arrival[event.copy] - event.time) / HOP) for event in told.events("sent")]


def unacked_at_most(told: Story, consumer: int) -> int:
    """The most deliveries that a consumer had not acked at any time, as its broker sees it."""
    steps = []
    for event, taker in zip(told.events("sent"), taken_by(told), strict=True):
        if taker == consumer:
            steps.append((round(event.time, 6), 1))
            done = [e.time for e in told.events("processed") if e.copy == event.copy]
            steps += [(round(time + HOP, 6), -1) for time in done]
    return max(accumulate(step for _, step in sorted(steps)))  # at one instant, acks come before sends


def told_after(told: Story, messages: int = 5) -> list[float]:
    """How long after each message's creation its producer was told (s)."""
    books = told.run.ledger.channels["orders"]
    return [round(books.told_at[i] - books.created[i], 6) for i in range(messages)]


def outcomes(told: Story) -> list[str]:
    """What the producer was last told of each message."""
    books = told.run.ledger.channels["orders"]
    return [OUTCOMES[books.outcome[i]] for i in range(len(books))]


# -- the three patterns ----------------------------------------------------------------------------------------------


def test_a_queue_hands_each_message_to_one_of_its_competing_consumers():
    told = story(consumers=3, links=APART, messages=30)
    assert sorted(told.order("delivered")) == list(range(30))
    assert told["processed"] == told["unique"] == 30
    assert {*taken_by(told)} == {1, 2, 3}


def test_a_topic_gives_every_message_to_each_subscription():
    told = story(pattern="topic", services={"billing": {}, "audit": {"service_time": Constant(0.05)}})
    assert told.places("billing") == told.places("audit") == ["unique"] * 5
    assert told["processed"] == told["expected"] == 10


@pytest.mark.parametrize(
    ("binding", "takes"),
    [
        ("order.eu", {"order.eu"}),
        ("order.*", {"order.eu", "order.us"}),
        ("*.eu", {"order.eu", "mail.eu"}),
        ("order.#", {"order", "order.eu", "order.us", "order.eu.paris"}),
        ("#.eu.#", {"order.eu", "mail.eu", "order.eu.paris"}),
        ("*", {"order"}),
        ("#", {"order", "order.eu", "order.us", "mail.eu", "order.eu.paris"}),
    ],
)
def test_an_exchange_routes_what_matches_the_binding(binding: str, takes: set[str]):
    keys = Keys(("order", "order.eu", "order.us", "mail.eu", "order.eu.paris"))
    told = story(
        pattern="exchange", services={"billing": {"filter": binding}, "rest": {}}, keys=keys, messages=25
    )
    books = told.run.ledger.channels["orders"]
    assert {books.key_of(message) for message in told.order("processed")} == takes
    assert told["expected"] == told["unique"] == 25 + sum(books.key_of(i) in takes for i in range(25))


def test_what_a_service_wants_and_its_binding_does_not_match_is_confirmed_and_lost():
    told = story(
        pattern="exchange",
        keys=Keys(("order.eu", "order.us")),
        filter="order.*",
        binding="order.eu",
        resend=Resend(),
        messages=20,
    )
    books = told.run.ledger.channels["orders"]
    astray = sum(books.key_of(i) == "order.us" for i in range(20))
    assert 0 < astray < 20
    assert told.causes == {("lost", "unroutable"): astray}
    assert told["lost_confirmed"] == astray


# -- from the queue to the consumers ---------------------------------------------------------------------------------


def test_consumers_are_served_round_robin():
    assert taken_by(story(consumers=3, links=APART, messages=7)) == [1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_consumer_never_holds_more_than_its_prefetch_unacked(prefetch: int):
    told = story(
        consumers=2,
        links=APART,
        prefetch=prefetch,
        service_time=Exponential(0.4),
        ack_timeout=None,
        messages=25,
    )
    assert told["processed"] == 25
    assert [unacked_at_most(told, consumer) for consumer in (1, 2)] == [prefetch, prefetch]


def test_without_a_prefetch_or_with_automatic_acks_nothing_waits_at_the_broker():
    slow = given(service_time=Constant(1.0), ack_timeout=None, prefetch=1)
    assert story(slow)["backlog_max"] > 0
    for setting in ({"prefetch": None}, {"prefetch": 1, "ack": "auto"}):
        told = story(service_time=Constant(1.0), ack_timeout=None, **setting)
        assert told.times("sent") == told.times("stored") == [0.11, 0.21, 0.31, 0.41, 0.51]


def test_a_popping_consumer_takes_one_at_a_time_and_waits_at_an_empty_queue():
    told = story(consume="pop", service_time=Constant(0.15))
    # The first request waits for the first message; later ones come 10 ms after the work, at a queue that is not empty.
    assert told.times("sent") == [0.11, 0.28, 0.45, 0.62, 0.79]
    assert told.times("processed") == [0.27, 0.44, 0.61, 0.78, 0.95]
    told = story(consume="pop")
    assert told.times("sent") == told.times("stored")


@pytest.mark.parametrize(("stops", "processed"), [(True, 6), (False, 10)])
def test_a_popping_consumer_that_stops_when_empty_leaves_the_rest(stops: bool, processed: int):
    down_at_first = Fault("crash", "billing", at=0.0, lasting=0.45)
    told = story(consume="pop", stop_when_empty=stops, messages=10, faults=(down_at_first,))
    assert sorted(told.order("processed")) == list(range(processed))
    assert told["in_flight"] == 10 - processed


def test_automatic_acks_make_the_broker_forget_what_it_has_sent():
    crash = Fault("crash", "billing", at=0.45, lasting=0.01)
    auto = story(ack="auto", service_time=Constant(1.0), faults=(crash,))
    assert auto.places() == ["lost"] * 4 + ["unique"]
    manual = story(ack="manual", service_time=Constant(1.0), faults=(crash,), ack_timeout=10.0)
    assert manual.places() == ["unique"] * 5


def test_a_delivery_unacked_for_the_ack_timeout_is_taken_back():
    told = story(ack_timeout=0.7, faults=(ACK_OF_0_IS_LOST,))
    assert told.times("sent", 0) == [0.11, 0.81]
    assert told["requeued"] == 1
    assert told.order("processed") == [0, 1, 2, 3, 4, 0]


def test_an_ack_after_the_timeout_changes_nothing():
    slow = Fault("slow", "billing", at=0.115, lasting=0.01, factor=40.0)  # message 0 takes 0.4 s
    told = story(ack_timeout=0.3, messages=1, slots=2, faults=(slow,))
    # Taken back at 0.41 and processed at 0.43; the first copy is done at 0.52 and its ack finds nothing to settle.
    assert told.times("processed") == [0.43, 0.52]
    assert told["requeued"] == 1 and told["duplicates"] == 1 and told["in_flight"] == 0


def test_what_is_handed_back_returns_to_the_head():
    failing = story(
        failures=Failures(transient=0.5), prefetch=1, service_time=Constant(0.2), ack_timeout=None, messages=9
    )
    sent = failing.order("sent")
    assert failing["requeued"] > 0
    assert sent == sorted(sent)  # each is sent again before the next


def test_exactly_the_unacked_window_returns_to_the_head_in_order_when_a_connection_breaks():
    told = story(
        transport="connection",
        prefetch=3,
        service_time=Constant(1.0),
        ack_timeout=None,
        faults=(Fault("crash", "billing", at=0.55, lasting=0.1),),
    )
    assert told.order("sent") == [0, 1, 2, 0, 1, 2, 3, 4]
    assert told.order("requeue") == [2, 1, 0]
    assert told["duplicates"] == 0 and told["unique"] == 5


def test_a_broken_connection_of_one_consumer_leaves_the_window_of_another_alone():
    told = story(
        transport="connection",
        consumers=2,
        prefetch=2,
        service_time=Constant(1.0),
        ack_timeout=None,
        faults=(Fault("crash", "billing.1", at=0.55, lasting=2.0),),
    )
    assert told.order("sent")[:4] == [0, 1, 2, 3]  # 0 and 2 at billing.1, 1 and 3 at billing.2
    assert sorted(told.order("requeue")) == [0, 2]


@pytest.mark.parametrize("limit", [1, 3])
def test_after_max_attempts_a_message_is_parked_or_dropped(limit: int):
    poison = {"failures": Failures(poison=1.0), "max_attempts": limit, "ack_timeout": None}
    told = story(**poison, dead_letter=True)
    assert told["delivered"] == 5 * limit and told["processed"] == 0
    assert told.places() == ["dead_lettered"] * 5
    assert story(**poison).places() == ["lost"] * 5


def test_running_out_of_time_counts_as_an_attempt():
    told = story(max_attempts=2, dead_letter=True, ack_timeout=0.3, messages=1, faults=(CONSUMER_IS_DOWN,))
    assert told.times("sent") == [0.11, 0.41]
    assert told.places() == ["dead_lettered"]
    assert told.times("dead_letter") == [0.71]


# -- a full queue ----------------------------------------------------------------------------------------------------

# Message 0 is at work until 0.92 s; one more may wait.
FULL = {"service_time": Constant(0.8), "prefetch": 1, "max_length": 1, "messages": 4, "ack_timeout": None}


def test_drop_head_keeps_the_newest_and_drop_tail_the_oldest():
    two = {**FULL, "max_length": 2, "messages": 5}
    assert story(**two, overflow="drop_head").places() == ["unique", "lost", "lost", "unique", "unique"]
    assert story(**two, overflow="drop_tail").places() == ["unique", "unique", "unique", "lost", "lost"]
    assert story(**FULL, overflow="drop_head").places() == ["unique", "lost", "lost", "unique"]
    assert story(**FULL, overflow="drop_tail").places() == ["unique", "unique", "lost", "lost"]
    for policy in ("drop_head", "drop_tail", "reject", "block"):
        assert story(**FULL, overflow=policy)["backlog_max"] == 1


@pytest.mark.parametrize(
    ("overflow", "billing", "audit"),
    [
        ("drop_tail", ["unique"] * 4, ["unique", "unique", "lost", "lost"]),
        ("drop_head", ["unique"] * 4, ["unique", "lost", "lost", "unique"]),
        (
            "reject",
            ["unique", "unique", "rejected", "rejected"],
            ["unique", "unique", "rejected", "rejected"],
        ),
    ],
)
def test_a_topic_drops_queue_by_queue_and_refuses_as_a_whole(
    overflow: str, billing: list[str], audit: list[str]
):
    slow = {name: FULL[name] for name in ("service_time", "prefetch")}
    told = story(
        pattern="topic",
        services={"billing": {}, "audit": slow},
        max_length=1,
        overflow=overflow,
        messages=4,
        ack_timeout=None,
    )
    assert told.places("billing") == billing
    assert told.places("audit") == audit


def test_a_rejected_message_is_told_to_its_producer_and_sent_again_after_the_timeout():
    told = story(**FULL, overflow="reject", resend=Resend(timeout=0.5, attempts=2))
    # 2 and 3 are refused at 0.31 and 0.41; at 0.81 and 0.91 s the queue is still full.
    assert told.places() == ["unique", "unique", "rejected", "rejected"]
    assert outcomes(told) == ["confirmed", "confirmed", "failed", "failed"]
    assert told_after(told, 4) == [0.02, 0.02, 0.52, 0.52]
    patient = story(**FULL, overflow="reject", resend=Resend(timeout=0.5))
    assert patient.places() == ["unique"] * 4 and outcomes(patient) == ["confirmed"] * 4


@pytest.mark.parametrize("transport", ["datagram", "connection"])
def test_block_holds_the_ack_back_until_there_is_room(transport: str):
    told = story(**FULL, overflow="block", transport=transport, resend=Resend(timeout=60.0))
    assert told.places() == ["unique"] * 4 and told["duplicates"] == 0
    # Acks of the work at 0.93, 1.75 ... make room for one message each.
    assert told.times("stored") == [0.11, 0.21, 0.93, 1.75]
    assert told_after(told, 4) == [0.02, 0.02, 0.64, 1.36]


def test_block_slows_a_producer_with_a_window_down():
    told = story(
        **{**FULL, "messages": 8}, overflow="block", transport="connection", resend=Resend(60.0), window=1
    )
    gaps = [round(b - a, 6) for a, b in pairwise(told.times("stored")[2:])]
    assert told["unique"] == 8 and told["backlog_max"] == 1
    assert min(gaps) == pytest.approx(0.82)  # one message per 0.8 s of work and two hops


# -- acks to producers -----------------------------------------------------------------------------------------------


def test_a_known_sequence_number_is_dropped_and_acked_again():
    lost = {"resend": Resend(timeout=0.3), "faults": (CONFIRM_OF_0_IS_LOST,)}
    told = story(**lost, sequence_numbers=True)
    assert told["duplicates"] == 0 and told["delivered"] == 5
    assert told_after(told) == [0.32, 0.02, 0.02, 0.02, 0.02]
    assert story(**lost)["duplicates"] == 1


@pytest.mark.parametrize(
    ("befell", "causes"),
    [
        (
            Fault("crash", "billing", at=0.425, lasting=0.1),
            {"confirm_lost": 1},
        ),  # its redelivery takes its place
        (
            Fault("loss_burst", "billing -> orders", at=0.425, lasting=0.01),
            {"confirm_lost": 1, "ack_lost": 1},
        ),
    ],
    ids=["not processed", "processed"],
)
def test_a_redelivery_of_what_nobody_processed_is_not_what_was_one_too_many(
    befell: Fault, causes: dict[str, int]
):
    """Message 0 is sent again at 0.4 s; what befalls that copy at 0.425 s, the broker delivers it once more."""
    told = story(messages=1, resend=Resend(timeout=0.3), faults=(CONFIRM_OF_0_IS_LOST, befell))
    assert told["requeued"] == 1
    assert told.causes == {("duplicate", cause): count for cause, count in causes.items()}


def test_resends_of_a_message_that_waits_for_room_are_dropped_by_their_sequence_number():
    told = story(**FULL, overflow="block", sequence_numbers=True, resend=Resend(timeout=0.3))
    assert len(told.events("copy")) > 1  # resends wait for room, too
    assert told["delivered"] == told["confirmed"] == 4


def test_sequence_numbers_share_the_fate_of_what_they_stand_for():
    lost = {"resend": Resend(timeout=0.3), "sequence_numbers": True, "messages": 1}
    for settings, kind, accepted_again in (
        ({}, "crash", True),
        ({"storage": "disk", "sync": "never"}, "crash", False),
        ({"storage": "disk", "sync": "never"}, "machine_crash", True),
        ({"storage": "disk", "sync": "before_ack"}, "disk_loss", True),
    ):
        crash = Fault(kind, "orders", at=0.2, lasting=0.05)  # type: ignore[arg-type]
        told = story(**settings, **lost, faults=(CONFIRM_OF_0_IS_LOST, CONSUMER_IS_DOWN, crash))
        assert told.places() == ["unique"]  # whatever is lost with the broker is resent at 0.4 s
        assert (0.41 in told.times("stored")) == accepted_again, (settings, kind)


def test_sequence_numbers_on_disk_survive_a_crash_of_the_process():
    told = story(
        storage="disk",
        ack_timeout=None,
        resend=Resend(timeout=0.3),
        sequence_numbers=True,
        messages=1,
        faults=(CONFIRM_OF_0_IS_LOST, Fault("crash", "orders", at=0.2, lasting=0.05)),
    )
    assert told["delivered"] == 1 and told["confirmed"] == 1


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 0.02),
        ({"storage": "disk", "sync": "before_ack"}, 0.07),
        ({"storage": "disk", "sync": "periodic"}, 0.02),
        ({"storage": "disk", "sync": "never"}, 0.02),
    ],
)
def test_the_ack_waits_for_the_device_only_where_it_is_told_to(settings: dict[str, str], seconds: float):
    told = story(**settings, fsync=Constant(0.05), resend=Resend(timeout=1.0))
    assert told_after(told) == [seconds] * 5
    assert told.times("stored") == [0.11, 0.21, 0.31, 0.41, 0.51]  # consumers need not wait


def test_nothing_is_acked_to_a_producer_that_fires_and_forgets():
    assert outcomes(story()) == ["in_doubt"] * 5


def test_a_call_that_is_acked_when_processed_takes_the_whole_way_there_and_back():
    told = story(acknowledges="processed", resend=Resend(timeout=1.0))
    assert told_after(told) == [0.05] * 5 and outcomes(told) == ["confirmed"] * 5


def test_a_call_fails_with_poison_and_outlasts_a_transient_failure():
    call = {"acknowledges": "processed", "resend": Resend(timeout=5.0, attempts=1), "max_attempts": 3}
    told = story(**call, failures=Failures(poison=1.0), dead_letter=True)
    assert outcomes(told) == ["failed"] * 5
    assert told_after(told) == [0.11] * 5  # three times there, work and back
    told = story(**{**call, "max_attempts": None}, failures=Failures(transient=0.5), messages=10)
    assert outcomes(told) == ["confirmed"] * 10
    failures = [len(told.events("requeue", message)) for message in range(10)]
    assert max(failures) > 0
    assert told_after(told, 10) == [round(0.05 + 0.03 * n, 6) for n in failures]


# -- crashes of the broker -------------------------------------------------------------------------------------------

DISK = {"storage": "disk", "fsync": Constant(0.002), "messages": 4, "prefetch": 1}


def lost_by(kind: str, at: float = 0.45, **settings: object) -> list[int]:
    """Which of four messages, that nobody processes before, a crash takes from the broker."""
    crash = Fault(kind, "orders", at=at, lasting=0.1)  # type: ignore[arg-type]
    told = story(**{**DISK, **settings}, faults=(CONSUMER_IS_DOWN, crash))
    reasons = ("unsynced_lost", "disk_lost", "broker_memory_lost")
    return [message for reason in reasons for _, message in told.anomalies.get(("lost", reason), [])]


def test_a_crash_of_the_process_costs_a_memory_everything_and_a_disk_nothing():
    assert lost_by("crash", storage="memory") == [0, 1, 2, 3]
    for sync in ("before_ack", "periodic", "never"):
        assert lost_by("crash", sync=sync) == []


def test_a_crash_of_the_machine_costs_what_was_not_synced():
    assert lost_by("machine_crash", sync="before_ack") == []
    assert lost_by("machine_crash", sync="never") == [0, 1, 2, 3]
    # Written at 0.11, 0.21, 0.31, 0.41; flushed 0.25 s after the first write.
    assert lost_by("machine_crash", sync="periodic", flush_interval=0.25) == [3]
    assert lost_by("machine_crash", sync="before_ack", at=0.411) == [3]  # its fsync was under way


def test_a_worse_crash_on_top_of_another_takes_what_the_worse_takes():
    crashes = (
        Fault("crash", "orders", at=0.45, lasting=0.3),
        Fault("machine_crash", "orders", at=0.5, lasting=0.1),
    )
    told = story(**DISK, sync="never", faults=(CONSUMER_IS_DOWN, *crashes))
    assert told.causes == {("lost", "unsynced_lost"): 4}
    told = story(**DISK, sync="never", faults=(CONSUMER_IS_DOWN, crashes[0]))
    assert told.places() == ["unique"] * 4


def test_a_lost_disk_costs_everything():
    assert lost_by("disk_loss", sync="before_ack") == [0, 1, 2, 3]


@pytest.mark.parametrize(("at", "lost"), [(29.0, 3), (31.0, 0)])
def test_the_operating_system_writes_back_within_30_s(at: float, lost: int):
    assert len(lost_by("machine_crash", at, sync="never", duration=40.0, messages=3)) == lost


def test_a_periodic_flush_loses_half_an_interval_of_messages_on_average():
    rate, interval, runs = 100.0, 0.2, 40
    lost = [
        len(
            lost_by(
                "machine_crash",
                at=1.0 + interval * (i + 0.5) / runs,
                sync="periodic",
                flush_interval=interval,
                arrivals=Deterministic(rate),
                messages=150,
                duration=1.6,
            )
        )
        for i in range(runs)
    ]
    fsync_and_gap = 1.2  # messages of the 2 ms that a flush takes, and of the 10 ms until the next write
    assert (
        rate * interval / 2 <= sum(lost) / runs + 0.5
        and sum(lost) / runs <= rate * interval / 2 + fsync_and_gap
    )
    assert max(lost) <= rate * interval + fsync_and_gap


def test_a_failed_fsync_crashes_the_broker_so_that_it_confirms_nothing_that_is_not_on_the_device():
    failing = (
        Fault("fsync_failure", "orders", at=0.305, lasting=0.05),
        Fault("machine_crash", "orders", at=2.5, lasting=0.1),
    )
    told = story(**DISK, resend=Resend(timeout=0.5), faults=(CONSUMER_IS_DOWN, *failing))
    assert told["confirmed"] == 4 and told["lost"] == 0
    assert told_after(told, 4)[2] > 1.0  # not before it was up again
    told = story(
        **DISK, on_fsync_failure="ignore", resend=Resend(timeout=0.5), faults=(CONSUMER_IS_DOWN, *failing)
    )
    assert told_after(told, 4)[2] == 0.022
    assert told["lost_confirmed"] == 1 and told.places()[2] == "lost"


def test_a_restarted_broker_delivers_again_what_its_disk_shows_as_unacked():
    told = story(
        **{**DISK, "prefetch": 2}, service_time=Constant(0.3), ack_timeout=None,
        faults=(Fault("crash", "orders", at=0.45, lasting=0.05),),
    )  # fmt: skip
    # 0 is acked at 0.43, so 1 and 2 are unacked and 3 was never sent.
    assert told.order("requeue") == [1, 2]
    assert told["lost"] == 0 and told["duplicates"] == 2


# -- consuming applications ------------------------------------------------------------------------------------------


def test_a_process_works_on_as_many_messages_at_once_as_it_has_slots():
    told = story(slots=2, service_time=Constant(0.25), messages=4)
    assert told.times("started") == [0.12, 0.22, 0.37, 0.47]


def test_settling_before_the_work_loses_what_a_crash_interrupts_and_repeats_nothing():
    crash = Fault("crash", "billing", at=0.345, lasting=0.05)
    late = {"service_time": Constant(0.05), "faults": (crash,)}
    told = story(**late, settle="before")
    assert told.causes == {("lost", "consumer_crashed"): 1} and told.places()[2] == "lost"
    told = story(**late, settle="after")
    assert told.places() == ["unique"] * 5 and told["requeued"] == 1


def test_poison_that_crashes_the_process_takes_its_prefetched_neighbours_down_with_it():
    crashing = Failures(poison=0.1, crashes=True, restart=0.1)
    told = story(
        failures=crashing,
        transport="connection",
        ack_timeout=None,
        max_attempts=3,
        dead_letter=True,
        prefetch=4,
        service_time=Constant(0.1),
        messages=20,
    )
    # With this seed message 10 is poison. Each of its attempts costs its neighbours one: 11 was there all three times.
    crashes = [event for event in told.events("died") if event.message == 10]
    assert len(crashes) == 3
    assert {event.message for event in told.events("requeue")} == {10, 11, 12, 13}
    assert [i for i, place in enumerate(told.places()) if place == "dead_lettered"] == [10, 11]
    assert told["unique"] == 18 and told["duplicates"] == 0


# -- idempotent consumers --------------------------------------------------------------------------------------------

TWICE = {"ack_timeout": 0.8, "faults": (ACK_OF_0_IS_LOST,)}  # message 0 is delivered again at 0.92 s


def effects(told: Story, service: str = "billing") -> list[int]:
    """Effects of each message."""
    return told.pairs(service).effects[: len(told.pairs(service).messages)].tolist()


@pytest.mark.parametrize(
    ("idempotence", "times"),
    [
        (None, 2),
        (Idempotence("transaction"), 1),
        (Idempotence("memory"), 1),
        (Idempotence("transaction", size=5), 1),
        (Idempotence("transaction", size=4), 2),  # four others were processed meanwhile
        (Idempotence("memory", size=4), 2),
        (Idempotence("transaction", ttl=0.81), 1),  # done at 0.13, asked for at 0.92 s
        (Idempotence("transaction", ttl=0.77), 2),
    ],
    ids=repr,
)
def test_an_idempotent_consumer_skips_what_it_remembers(idempotence: Idempotence | None, times: int):
    told = story(**TWICE, idempotence=idempotence)
    assert told["processed"] == 6 and told["duplicates"] == 1  # a skip is a processing
    assert effects(told) == [times, 1, 1, 1, 1]


def test_a_memory_dies_with_its_process_and_a_transaction_does_not():
    crash = Fault("crash", "billing", at=0.7, lasting=0.05)
    for store, times in (("memory", 2), ("transaction", 1)):
        told = story(
            ack_timeout=0.8,
            faults=(ACK_OF_0_IS_LOST, crash),
            idempotence=Idempotence(store),  # type: ignore[arg-type]
        )
        assert effects(told)[0] == times


def test_a_memory_is_one_process_s_and_a_database_all_processes_share():
    for store, times in (("memory", 2), ("transaction", 1)):
        told = story(**TWICE, consumers=2, idempotence=Idempotence(store))  # type: ignore[arg-type]
        assert told.order("delivered")[-1] == 0 and effects(told)[0] == times


def test_two_copies_at_work_at_once_have_one_effect_only_in_a_transaction():
    slow = Fault("slow", "billing", at=0.115, lasting=0.01, factor=40.0)
    for store, times in (("memory", 2), ("transaction", 1)):
        told = story(
            ack_timeout=0.3,
            messages=1,
            slots=2,
            faults=(slow,),
            idempotence=Idempotence(store),  # type: ignore[arg-type]
        )
        assert told["processed"] == 2 and effects(told) == [times]


def test_a_clock_that_runs_ahead_forgets_too_early():
    skew = Fault("clock_skew", "billing", at=0.6, skew=5.0, lasting=1.0)
    remembers = Idempotence("transaction", ttl=2.0)
    assert effects(story(**TWICE, idempotence=remembers))[0] == 1
    told = story(ack_timeout=0.8, faults=(ACK_OF_0_IS_LOST, skew), idempotence=remembers)
    assert effects(told)[0] == 2


# -- services that publish on ----------------------------------------------------------------------------------------


# Message 0 is acked at 0.15 s, when its output is confirmed, and delivered again at 0.92 s.
OUTPUT_TWICE = {
    "publishes": Publishes("mails"),
    "ack_timeout": 0.8,
    "faults": (replace(ACK_OF_0_IS_LOST, at=0.145),),
}


@pytest.mark.parametrize(("resend", "settled_after"), [(Resend(timeout=0.5), 0.05), (None, 0.03)])
def test_an_input_is_settled_when_its_output_is_confirmed(resend: Resend | None, settled_after: float):
    # There, work, and back; with a confirm to wait for, there and back to "mails" as well.
    publishes = Publishes("mails", resend=resend)
    for timeout, requeued in ((settled_after - 0.001, 5), (settled_after + 0.001, 0)):
        told = story(publishes=publishes, ack_timeout=timeout, max_attempts=2, slots=5)
        assert told["requeued"] == requeued


def test_the_output_of_an_input_that_is_processed_again_is_a_copy_and_not_a_new_message():
    told = story(**OUTPUT_TWICE)
    assert len(told.run.ledger.channels["mails"]) == 5
    assert told.pairs("billing").processings[0] == told.pairs("mailer").processings[0] == 2
    assert told["expected"] == 10 and told["duplicates"] == 2


def test_an_output_that_its_input_s_consumer_skips_is_published_again_since_it_may_be_missing():
    once = {**OUTPUT_TWICE, "idempotence": Idempotence()}
    assert effects(story(**once)) == [1] * 5
    assert effects(story(**once), "mailer")[0] == 2
    assert effects(story(**once, mailer={"idempotence": Idempotence()}), "mailer") == [1] * 5


# -- resending -------------------------------------------------------------------------------------------------------

OUTAGE = Fault("partition", "shop -> orders", at=0.0, lasting=1.35)


def resent_at(told: Story) -> list[float]:
    """When further copies were sent (s)."""
    return told.times("copy")


def test_back_off_grows_up_to_its_bound():
    rule = Resend(timeout=0.1, backoff=0.1, factor=2.0, backoff_max=0.3)
    told = story(resend=rule, messages=1, faults=(OUTAGE,))
    # Timeouts of 0.1 s, then waits of 0.1, 0.2, 0.3 (not 0.4) and 0.3 s.
    assert resent_at(told) == [0.3, 0.6, 1.0, 1.4]
    assert outcomes(told) == ["confirmed"]


def test_full_jitter_is_uniform_up_to_the_back_off():
    n, backoff = 400, 0.5
    rule = Resend(timeout=0.1, backoff=backoff, jitter="full", attempts=2)
    told = story(
        resend=rule, messages=n, arrivals=Deterministic(1000.0), faults=(replace(OUTAGE, lasting=0.5),)
    )
    first = {e.message: e.time for e in told.events("publish")}
    waits = sorted(e.time - first[e.message] - rule.timeout for e in told.events("copy"))
    assert len(waits) == n
    assert waits[0] >= 0.0 and waits[-1] < backoff
    assert abs(math.fsum(waits) / n - backoff / 2) < Z * backoff / math.sqrt(12 * n)
    largest_gap = max(abs(wait / backoff - (i + 0.5) / n) for i, wait in enumerate(waits))
    assert largest_gap < 1.95 / math.sqrt(n) + 0.5 / n  # Kolmogorov-Smirnov, 99.9 %


def test_attempts_and_deadline_end_the_resending():
    told = story(resend=Resend(timeout=0.1, attempts=3), messages=1, faults=(OUTAGE,))
    assert resent_at(told) == [0.2, 0.3]
    assert told.causes == {("lost", "gave_up"): 1} and told_after(told, 1) == [0.3]
    told = story(resend=Resend(timeout=0.1, deadline=0.35), messages=1, faults=(OUTAGE,))
    assert resent_at(told) == [0.2, 0.3, 0.4]  # not at 0.5, which is 0.4 s after its creation
    assert told.causes == {("lost", "gave_up"): 1} and told_after(told, 1) == [0.4]


def test_a_budget_bounds_the_resends_of_all_messages_together():
    told = story(resend=Resend(timeout=0.1, budget=10.0, budget_cost=5.0), faults=(OUTAGE,))
    assert len(resent_at(told)) == 2
    assert told.causes == {("lost", "gave_up"): 5}


@pytest.mark.parametrize(("others", "lost"), [(3, 1), (4, 0)])
def test_an_ack_returns_one_token(others: int, lost: int):
    last = 0.1 * (others + 2)
    bursts = tuple(Fault("loss_burst", "shop -> orders", at=t - 0.005, lasting=0.01) for t in (0.1, last))
    told = story(
        # The resend of message 0 at 0.15 s empties the bucket; its own ack and the others' fill it.
        resend=Resend(timeout=0.05, budget=5.0, budget_cost=5.0), messages=others + 2, faults=bursts
    )  # fmt: skip
    assert told["lost"] == lost


def test_no_more_than_a_window_is_unconfirmed():
    slow_acks = {"orders -> shop": LinkSettings(Constant(0.5))}
    told = story(resend=Resend(timeout=5.0), window=2, links=slow_acks)
    assert told.times("stored") == [0.11, 0.21, 0.62, 0.72, 1.13]
    assert story(resend=Resend(timeout=5.0), links=slow_acks).times("stored") == [
        0.11,
        0.21,
        0.31,
        0.41,
        0.51,
    ]


# -- producers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("acknowledges", "round_trip"), [("stored", 0.02), ("processed", 0.05)])
def test_a_closed_loop_asks_again_when_it_has_its_answer_and_has_thought(
    acknowledges: str, round_trip: float
):
    told = story(
        arrivals=ClosedLoop(2, Constant(0.1)),
        acknowledges=acknowledges,
        slots=2,
        resend=Resend(timeout=1.0),
        messages=6,
    )
    created = told.times("publish")
    cycle = 0.1 + round_trip
    assert created[2:] == [round(time, 6) for k in (1, 2) for time in (created[0] + k * cycle,) * 2]


def test_instances_are_processes_of_their_own():
    told = story(instances=3, faults=(Fault("crash", "shop.2", at=0.25, lasting=0.2),))
    assert told["published"] == 15
    books = told.run.ledger.channels["orders"]
    lost = [i for i, place in enumerate(told.places()) if place == "lost"]
    assert [books.producers[books.producer[i]] for i in lost] == ["shop.2", "shop.2"]
    assert told.causes == {("lost", "producer_down"): 2}


# -- the promises of the module --------------------------------------------------------------------------------------

SCRIPT = (
    Fault("machine_crash", "orders", at=0.8, lasting=0.3),
    Fault("crash", "billing", at=1.6, lasting=0.2),
    Fault("partition", "shop <-> orders", at=2.2, lasting=0.2),
)
ROUGH = {"loss": 0.1, "messages": 250, "arrivals": Deterministic(100.0), "faults": SCRIPT, "ack_timeout": 0.2}
AT_LEAST_ONCE = {**ROUGH, "storage": "disk", "sync": "before_ack", "resend": Resend()}


def test_at_most_once_loses_and_never_repeats():
    told = story(**ROUGH, storage="memory", ack="auto")
    assert told["lost"] > 0 and told["redelivered"] == 0 and told["duplicates"] == 0


def test_at_least_once_repeats_and_loses_nothing_confirmed():
    told = story(**AT_LEAST_ONCE)
    assert told["lost"] == 0 and told["duplicates"] > 0 and told["duplicate_effects"] > 0


def test_effects_are_single_when_the_consumer_remembers_in_their_transaction():
    told = story(**AT_LEAST_ONCE, sequence_numbers=True, idempotence=Idempotence("transaction"))
    assert told["redelivered"] > 0 and told["duplicate_effects"] == 0
    assert told["effects"] == told["unique"] == 250
