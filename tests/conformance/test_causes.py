"""One world per cause of an anomaly: there it strikes the pairs named, and with its mechanism disabled, nothing does.

Both worlds share seed, streams and everything but the mechanism. Message 2 of "shop" is the victim where one is
enough (see `builders`: sent at 0.30, stored at 0.31, delivered at 0.32, processed at 0.33, acked at 0.34 s).
`python -m tests.conformance.test_causes` writes docs/causes.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sim.apps import Failures, Idempotence, Keys, Publishes, Resend
from sim.arrivals import Deterministic
from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.ledger import Cause, known_causes
from sim.network import LinkSettings
from tests.conformance.builders import HOP, Where, story

PAGE = Path(__file__).parents[2] / "docs" / "causes.md"
VICTIM = [("billing", 2)]
SYSTEMS = ("application", "textbook")
ALL = [("billing", message) for message in range(5)]


@dataclass(frozen=True)
class Case:
    """`world` are the settings under which `pairs` have that anomaly by that cause; `without` disables it.

    `cure` is what `prevented_by` says, where that can be said in settings: then the pairs do not have that anomaly,
    or, where only the consumer can tell a repeat, have a single effect.
    """

    anomaly: str
    cause: str
    world: Mapping[str, Any]
    without: Mapping[str, Any] = field(default_factory=lambda: {"faults": ()})
    cure: Mapping[str, Any] | None = None
    pairs: list[Where] = field(default_factory=lambda: VICTIM)
    system: str = "textbook"

    def __str__(self) -> str:
        return self.cause


def at(time: float, kind: str, target: str, lasting: float = 0.01, **settings: Any) -> tuple[Fault, ...]:
    """One fault."""
    return (Fault(kind, target, at=time, lasting=lasting, **settings),)  # type: ignore[arg-type]


PUBLISHING, CONFIRMING = "shop -> orders", "orders -> shop"
DELIVERING, ACKING = "orders -> billing", "billing -> orders"
MANUAL, AUTO = {"ack": "manual"}, {"ack": "auto"}
RESENDING = {"resend": Resend(timeout=0.5)}
CONNECTED = {"transport": "connection", "reconnect": 0.05, "ack_timeout": None}
HEARD = {**CONNECTED, "heartbeat": 0.1, "messages": 3}
SLOW = {"service_time": Constant(0.2), "prefetch": 1, "ack_timeout": None, "messages": 3}
ON_DISK = {"storage": "disk", "sync": "before_ack", "ack_timeout": None, "messages": 3}
IDEMPOTENT = {"idempotence": Idempotence("transaction")}
SEQUENCES = {"sequence_numbers": True}
FAILING = {"failures": Failures(poison=1.0)}
MENDED = {"failures": Failures()}
OUTPUT = {
    "publishes": Publishes("mails", resend=Resend(timeout=0.5)),
    "faults": at(
        0.345, "crash", "billing"
    ),  # the output is at "mails" since 0.34, its ack not back before 0.35
}
UNDELIVERED_UNCONFIRMED = at(0.305, "loss_burst", DELIVERING) + at(0.305, "loss_burst", CONFIRMING)

LOST = [
    Case("lost", "publish_lost", {"faults": at(0.295, "loss_burst", PUBLISHING)}, cure=RESENDING),
    Case("lost", "publish_cut", {"faults": at(0.295, "partition", PUBLISHING)}, cure=RESENDING),
    Case("lost", "broker_down", {"faults": at(0.305, "crash", "orders")}, cure=RESENDING),
    Case(
        "lost",
        "publish_connection_broken",
        {**CONNECTED, "faults": at(0.305, "crash", "orders")},
        cure=RESENDING,
    ),
    Case("lost", "not_connected", {**CONNECTED, "faults": at(0.285, "crash", "orders")}, cure=RESENDING),
    Case("lost", "delivery_lost", {**AUTO, "faults": at(0.305, "loss_burst", DELIVERING)}, cure=MANUAL),
    Case("lost", "delivery_cut", {**AUTO, "faults": at(0.305, "partition", DELIVERING)}, cure=MANUAL),
    Case("lost", "consumer_down", {**AUTO, "faults": at(0.315, "crash", "billing")}, cure=MANUAL),
    Case(
        "lost",
        "delivery_connection_broken",
        {**CONNECTED, **AUTO, "faults": at(0.315, "crash", "billing")},
        cure=MANUAL,
    ),
    Case(
        "lost",
        "broker_memory_lost",
        {**SLOW, "faults": at(0.415, "crash", "orders")},
        cure={"storage": "disk"},
        pairs=[("billing", 2)],
    ),
    Case(
        "lost",
        "unsynced_lost",
        {**SLOW, **ON_DISK, "sync": "never", "faults": at(0.415, "machine_crash", "orders")},
        cure={"sync": "before_ack"},
    ),
    Case("lost", "disk_lost", {**SLOW, **ON_DISK, "faults": at(0.415, "disk_loss", "orders")}),
    Case(
        "lost",
        "overflow_drop_head",
        {**SLOW, "max_length": 1, "overflow": "drop_head"},
        without={"max_length": 2},
        cure={"overflow": "block"},
        pairs=[("billing", 1)],
    ),
    Case(
        "lost",
        "overflow_drop_tail",
        {**SLOW, "max_length": 1, "overflow": "drop_tail"},
        without={"max_length": 2},
        cure={"overflow": "block"},
    ),
    Case(
        "lost",
        "unroutable",
        {"pattern": "exchange", "keys": Keys(("order.us",)), "filter": "order.*", "binding": "order.eu"},
        without={"binding": None},
        cure={"binding": "*.us"},
        pairs=ALL,
    ),
    Case(
        "lost",
        "attempts_spent",
        {**FAILING, "max_attempts": 2},
        without=MENDED,
        cure={"dead_letter": True},
        pairs=ALL,
    ),
    Case(
        "lost",
        "deduplicated",
        {**RESENDING, **SEQUENCES, **AUTO, "messages": 3, "faults": UNDELIVERED_UNCONFIRMED},
        without={"sequence_numbers": False},
        cure=MANUAL,
    ),
    Case("lost", "producer_down", {"faults": at(0.295, "crash", "shop")}, system="application"),
    Case(
        "lost",
        "producer_crashed",
        {
            **RESENDING,
            "messages": 3,
            "faults": at(0.295, "partition", PUBLISHING) + at(0.35, "crash", "shop"),
        },
        without={"faults": at(0.295, "partition", PUBLISHING)},
        system="application",
    ),
    Case(
        "lost",
        "gave_up",
        {"resend": Resend(timeout=0.1, attempts=2), "faults": at(0.295, "loss_burst", PUBLISHING, 0.11)},
        cure={"resend": Resend(timeout=0.1, attempts=3)},
        system="application",
    ),
    Case(
        "lost",
        "consumer_crashed",
        {**AUTO, "faults": at(0.325, "crash", "billing")},
        cure=MANUAL,
        system="application",
    ),
    Case(
        "lost",
        "handler_failed",
        {**FAILING, "on_failure": "discard"},
        without=MENDED,
        cure={"on_failure": "requeue", "max_attempts": 2, "dead_letter": True},
        pairs=ALL,
        system="application",
    ),
]

KEPT_ELSEWHERE = [
    Case(
        "rejected",
        "queue_full",
        {**SLOW, "max_length": 1, "overflow": "reject"},
        without={"max_length": 2},
        cure={"overflow": "block"},
    ),
    Case(
        "dead_lettered",
        "attempt_limit",
        {**FAILING, "max_attempts": 2, "dead_letter": True},
        without=MENDED,
        pairs=ALL,
    ),
]

DUPLICATE = [
    Case(
        "duplicate",
        "confirm_lost",
        {**RESENDING, "faults": at(0.305, "loss_burst", CONFIRMING)},
        cure=SEQUENCES,
    ),
    Case(
        "duplicate",
        "confirm_cut",
        {**RESENDING, "faults": at(0.305, "partition", CONFIRMING)},
        cure=SEQUENCES,
    ),
    Case(
        "duplicate",
        "confirm_late",
        {"resend": Resend(timeout=0.015)},
        without=RESENDING,
        cure=SEQUENCES,
        pairs=ALL,
    ),
    Case(
        "duplicate",
        "confirm_connection_broken",
        {**HEARD, "resend": Resend(timeout=1.0), "faults": at(0.305, "partition", CONFIRMING, 0.5)},
        cure=SEQUENCES,
    ),
    Case("duplicate", "ack_lost", {"faults": at(0.325, "loss_burst", ACKING)}, cure=IDEMPOTENT),
    Case("duplicate", "ack_cut", {"faults": at(0.325, "partition", ACKING)}, cure=IDEMPOTENT),
    Case(
        "duplicate",
        "ack_to_dead_broker",
        {**ON_DISK, "faults": at(0.335, "crash", "orders")},
        cure=IDEMPOTENT,
    ),
    Case(
        "duplicate",
        "ack_late",
        {"ack_timeout": 0.5, "messages": 3, "faults": at(0.315, "slow", "billing", factor=80.0)},
        cure={"ack_timeout": 1.5},
    ),
    Case(
        "duplicate",
        "consumer_connection_lost",
        {**HEARD, "faults": at(0.325, "partition", "billing <-> orders", 0.5)},
        cure=IDEMPOTENT,
    ),
    Case(
        "duplicate",
        "broker_restarted",
        {**ON_DISK, "service_time": Constant(0.1), "faults": at(0.35, "crash", "orders")},
        cure=IDEMPOTENT,
    ),
    Case(
        "duplicate",
        "network_duplicate",
        {"links": {PUBLISHING: LinkSettings(Constant(HOP), duplicate=1.0)}},
        without={"links": {}},
        cure={"transport": "connection"},
        pairs=ALL,
    ),
    Case(
        "duplicate",
        "consumer_crashed_before_ack",
        OUTPUT,
        cure=IDEMPOTENT,
        system="application",
    ),
    Case(
        "duplicate",
        "input_reprocessed",
        OUTPUT,
        cure={"mailer": IDEMPOTENT},
        pairs=[("mailer", 2)],
        system="application",
    ),
]

REORDERED = [
    Case(
        "reordered",
        "overtaken",
        {"consumers": 2, "links": {"orders -> billing.1": LinkSettings(Constant(0.15))}},
        without={"links": {}},
        cure={"consumers": 1},
        pairs=[("billing", 0), ("billing", 2)],
        system="application",
    ),
]

CASES = LOST + KEPT_ELSEWHERE + DUPLICATE + REORDERED


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cause_strikes_those_pairs_and_without_its_mechanism_they_are_well(case: Case) -> None:
    told = story(**case.world)
    assert told.anomalies.get((case.anomaly, case.cause)) == case.pairs, told.anomalies
    assert told.causes[case.anomaly, case.cause] == len(case.pairs)
    well = story(**{**case.world, **case.without})
    assert all(well.is_well(pair) for pair in case.pairs), well.anomalies


@pytest.mark.parametrize("case", [case for case in CASES if case.cure], ids=str)
def test_what_is_said_to_prevent_the_cause_does(case: Case) -> None:
    assert case.cure is not None
    cured = story(**{**case.world, **case.cure})
    if IDEMPOTENT in (case.cure, case.cure.get("mailer")):
        assert all(cured.pairs(service).effects[message] == 1 for service, message in case.pairs)
    else:
        assert all(cured.is_well(pair, case.anomaly) for pair in case.pairs), cured.anomalies


def test_no_cause_is_known_that_has_no_case() -> None:
    tested = {(case.system, case.anomaly, case.cause) for case in CASES}
    assert tested == {(c.system, c.anomaly, c.name) for c in known_causes() if c.system in SYSTEMS}


# -- the page ------------------------------------------------------------------------------------------------------

INTRODUCTION = """# Causes

Every anomaly has one root cause, recorded where it happened, from the closed list of its system. This page is those
lists (`msgsim causes` prints them). *Behaviour* is the number of the behaviour that it follows from, in the sheet
"Network, faults, statistics" (A.9, D.1, H.12, N-09 ...) or in "Messaging patterns" (PT-08 ...). What stands under
*prevented by* prevents that anomaly by that cause, at its own price; an idempotent consumer makes the effect single
while the delivery still repeats.

A message that was started after a later one of the same producer is `reordered`: by `overtaken`, or by whatever
caused the copy that was started first.

`python -m tests.conformance.test_causes` writes this page, and a test says when it is out of date.
"""


def page(causes: list[Cause]) -> str:
    """The page of all causes, a table for each system."""
    lines = [INTRODUCTION]
    for system in dict.fromkeys(cause.system for cause in causes):
        lines += [
            f"## {system}",
            "",
            "| anomaly | cause | meaning | behaviour | prevented by |",
            "| - " * 5 + "|",
        ]
        lines += [
            f"| {c.anomaly} | `{c.name}` | {c.meaning} | {c.behaviour} | {c.prevented_by} |"
            for c in causes
            if c.system == system
        ] + [""]
    return "\n".join(lines).rstrip() + "\n"


def test_the_page_of_causes_is_up_to_date() -> None:
    expected = page(known_causes())
    assert PAGE.read_text(encoding="utf-8") == expected, "run python -m tests.conformance.test_causes"


# -- causes that are easily taken for another ----------------------------------------------------------------------


FAILS_FIRST = 12  # a seed with which billing.1 fails the first time, of a half, and not the next two times


def test_a_requeue_replaces_a_copy_that_failed_so_the_repeat_is_due_to_what_made_a_second_one() -> None:
    # Copy 1 is slow and taken back at 0.26 s; copy 2 fails at 0.28; copy 3, in its place, and copy 1 are processed.
    told = story(
        messages=1,
        slots=2,
        ack_timeout=0.15,
        failures=Failures(transient=0.5),
        faults=at(0.115, "slow", "billing", factor=20.0),
        seed=FAILS_FIRST,
    )
    assert told.order("started") == [0, 0, 0]
    assert told.causes == {("duplicate", "ack_late"): 1}


DOUBLING = LinkSettings(Exponential(0.02), duplicate=0.5)


@pytest.mark.parametrize("seed", [13, 15, 17])
def test_what_replaces_a_doubled_datagram_that_failed_is_due_to_the_doubling(seed: int) -> None:
    told = story(seed=seed, messages=20, links={DELIVERING: DOUBLING}, failures=Failures(transient=0.4))
    assert told["requeued"] > 0
    assert {cause for anomaly, cause in told.causes if anomaly == "duplicate"} == {"network_duplicate"}


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_a_crash_that_takes_a_doubled_datagram_does_not_hide_why_the_other_is_delivered_again(
    seed: int,
) -> None:
    told = story(
        seed=seed,
        messages=20,
        arrivals=Deterministic(50.0),
        links={DELIVERING: DOUBLING, ACKING: LinkSettings(Constant(HOP), loss=0.5)},
        failures=Failures(transient=0.2),
        faults=tuple(Fault("crash", "billing", at=0.1 * k, lasting=0.01) for k in range(1, 9)),
    )
    repeats = {cause: count for (anomaly, cause), count in told.causes.items() if anomaly == "duplicate"}
    assert {*repeats} <= {"network_duplicate", "ack_lost", "ack_late"} and sum(repeats.values()) == told[
        "duplicates"
    ]


def test_order_is_broken_by_what_made_the_copy_late_that_was_started_first() -> None:
    # Message 0 is overtaken on its way to billing.1, fails there, and is processed as a copy that was requeued.
    told = story(
        messages=2,
        consumers=2,
        links={"orders -> billing.1": LinkSettings(Constant(0.15))},
        failures=Failures(transient=0.5),
        seed=FAILS_FIRST,
    )
    assert told["requeued"] == 1
    assert told.anomalies == {("reordered", "overtaken"): [("billing", 0)]}


def test_order_is_broken_by_the_loss_for_which_a_message_was_sent_again() -> None:
    told = story(**RESENDING, faults=at(0.295, "loss_burst", PUBLISHING))
    assert told.anomalies == {("reordered", "publish_lost"): VICTIM}


if __name__ == "__main__":
    PAGE.write_text(page(known_causes()), encoding="utf-8")
