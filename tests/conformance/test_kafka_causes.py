"""One world per cause of Kafka's closed list: there it strikes the pairs named; without its mechanism, nothing does.

As in `test_rabbitmq_causes`, both worlds share seed, streams and everything but the mechanism, and message 2 of "shop"
is the victim where one is enough: sent at 5.3, appended at 5.301, in the consumer's hands from 5.302 to 5.312, its
offset committed at 5.313 s (see `tests.conformance.kafka`). Whoever has lost a connection is back after 50 ms.
"""

from __future__ import annotations

import pytest

from tests.conformance.builders import Story
from tests.conformance.cases import (
    ALL,
    IDEMPOTENT,
    MENDED,
    POISON,
    Case,
    World,
    channel,
    check_case,
    check_complete,
    check_cure,
    merged,
    producer,
    service,
    strikes,
)
from tests.conformance.kafka import RF3, at, kafka

FIRST_THREE, LAST_THREE = ALL[:3], ALL[2:]


def told_of(case: Case, override: World | None = None) -> Story:
    """The story of a case's world, with an override on top of it."""
    quick = {"reconnect_backoff": 0.05, "reconnect_backoff_max": 0.05}
    world = merged({"producer": quick, "service": quick}, case.world, override or {})
    return kafka(seed=case.seed, **world)


def until(time: float) -> World:
    """Faults go on until then (s)."""
    return {"duration": time}


def all_of(*worlds: World) -> World:
    """The faults of several worlds in one."""
    return {"faults": tuple(fault for world in worlds for fault in world["faults"])}


ACKS_0, ACKS_1, ACKS_ALL = producer(acks="0", resend=None), producer(acks="1"), producer(acks="all")
SAFE = merged(channel(**RF3), ACKS_ALL)  # acks=all with min.insync.replicas of 2
PLAIN, IDEMPOTENT_PRODUCER = producer(enable_idempotence=False), producer(enable_idempotence=True)
GIVES_UP = producer(request_timeout=1.0, delivery_timeout=2.0)
# The application does, when the library has given up.
TRIES_AGAIN = producer(resend={"timeout": None, "attempts": 9})
AWAY = strikes("crash", "billing", at=5.25, lasting=60.0)  # message 2 and those after it are there to be read
APART = [strikes("partition", f"orders.1 <-> orders.{i}", at=5.25, lasting=30.0) for i in (2, 3)]
PAIR = channel(nodes=2, replication_factor=2)
ONE_EACH = channel(segment_bytes=1024)  # a record per segment
SHARED = service(group_protocol="share")
STUCK = strikes("slow", "billing", at=5.3, lasting=0.1, factor=200)  # message 2 takes 2 s
QUICK = service(service_time=0.001)
EVERY_OTHER = service(commit_every=2)  # so that message 4 is not committed

LOST = [
    Case(
        "lost", "socket_cut", merged(ACKS_0, strikes("crash", "orders", at=5.3005)), cures=(ACKS_1, ACKS_ALL)
    ),
    Case(
        "lost",
        "accumulator_lost",
        merged(producer(linger=0.05), strikes("crash", "shop", at=5.31)),
        cures=(producer(linger=0.0),),  # as good as flush()
    ),
    Case(
        "lost",
        "delivery_timeout",
        merged(GIVES_UP, strikes("crash", "orders", at=5.29, lasting=5.0)),
        cures=(producer(delivery_timeout=120.0), TRIES_AGAIN),
        pairs=LAST_THREE,
    ),
    Case(
        "lost",
        "buffer_full",
        merged(
            producer(batch_size=1, buffer_memory=1024, max_block=0.05),
            strikes("crash", "orders", at=5.29, lasting=5.0),
        ),
        cures=(producer(buffer_memory=33_554_432), producer(**at(5.1, 5.2, 5.3, 15.0, 15.1))),
        pairs=ALL[3:],
    ),
    Case(
        "lost",
        "unreplicated",
        merged(channel(**RF3), ACKS_1, all_of(*APART, strikes("crash", "orders.1", at=5.305, lasting=30.0))),
        cures=(SAFE,),
    ),
    Case(
        "lost",
        "unclean_election",
        merged(
            PAIR,
            channel(unclean_leader_election_enable=True),
            until(100.0),
            all_of(
                strikes("crash", "orders.2", at=5.25, lasting=25.0),
                strikes("crash", "orders.1", at=20.0, lasting=60.0),
                AWAY,
            ),
        ),
        cures=(channel(unclean_leader_election_enable=False),),
        pairs=LAST_THREE,
    ),
    Case(
        "lost",
        "unflushed",
        merged(until(100.0), all_of(AWAY, strikes("machine_crash", "orders.leader", at=8.0, lasting=20.0))),
        cures=(SAFE,),
        pairs=LAST_THREE,
    ),
    Case(
        "lost",
        "disk_lost",
        merged(until(100.0), all_of(AWAY, strikes("disk_loss", "orders.leader", at=8.0, lasting=20.0))),
        cures=(SAFE,),
        pairs=LAST_THREE,
    ),
    Case(
        "lost",
        "committed_early",
        merged(service(settle="before"), strikes("crash", "billing", at=5.3045)),
        cures=(service(settle="after"),),
    ),
    Case(
        "lost",
        "offset_reset_latest",
        merged(producer(**at(0.1, 0.2, 0.3, 0.4, 0.5)), service(auto_offset_reset="latest")),
        without=producer(**at(5.1, 5.2, 5.3, 5.4, 5.5)),
        cures=(service(auto_offset_reset="earliest"),),
        pairs=ALL,
    ),
    Case(
        "lost",
        "offset_reset_none",
        service(auto_offset_reset="none"),
        without=service(auto_offset_reset="earliest"),
        pairs=ALL,
    ),
]

KEPT_ELSEWHERE = [
    Case(
        "expired",
        "retention",
        merged(
            ONE_EACH,
            channel(retention=60.0),
            until(500.0),
            strikes("crash", "billing", at=5.25, lasting=400.0),
        ),
        cures=(channel(retention=604_800.0),),
        pairs=LAST_THREE,
    ),
    Case(
        "expired",
        "compacted",
        merged(
            until(100.0), ONE_EACH, channel(cleanup_policy="compact"), producer(keys={"values": ["a"]}), AWAY
        ),
        cures=(
            channel(cleanup_policy="delete"),
        ),  # message 4 is in the active segment, so that message 3 stays
    ),
    Case(
        "rejected",
        "record_too_large",
        producer(max_request_size=1000),
        without=producer(max_request_size=1_048_576),
        cures=(producer(size=500),),
        pairs=ALL,
    ),
    Case(
        "rejected",
        "not_enough_replicas",
        merged(
            channel(**RF3),
            GIVES_UP,
            until(100.0),
            producer(**at(5.1, 5.2, 20.0, 20.1, 20.2)),
            all_of(*(strikes("crash", f"orders.{i}", at=5.25, lasting=60.0) for i in (2, 3))),
        ),
        cures=(channel(nodes=5, replication_factor=5), channel(min_insync_replicas=1)),
        pairs=LAST_THREE,
    ),
    Case(
        "dead_lettered",
        "archived",
        merged(SHARED, service(failures=POISON, share_delivery_count_limit=2)),
        without=MENDED,
        pairs=ALL,
    ),
    Case(
        "dead_lettered",
        "archived",
        merged(SHARED, service(failures=POISON, on_failure="discard")),
        without=MENDED,
        pairs=ALL,
    ),
]

REORDERED = [
    Case(
        "reordered",
        "retried_behind_others",
        merged(
            PAIR,
            channel(min_insync_replicas=2),
            PLAIN,
            # The in-sync set is two again at 30.002 s: message 2 comes at 29.995, and message 3, sent before that is
            # refused, at 30.005 s.
            producer(**at(5.1, 5.2, 29.985, 29.995, 40.0)),
            {"network": {"delay": 0.01}},
            strikes("crash", "orders.2", at=5.25, lasting=24.75),
        ),
        cures=(IDEMPOTENT_PRODUCER, producer(max_in_flight_requests_per_connection=1)),
    ),
]

DUPLICATE = [
    Case(
        "duplicate",
        "retried_after_append",
        merged(
            PLAIN,
            producer(request_timeout=2.0, **at(5.1, 5.2, 5.3, 15.0, 15.1)),
            strikes("partition", "orders -> shop", at=5.3005, lasting=5.0),
        ),
        cures=(IDEMPOTENT_PRODUCER,),
    ),
    Case(
        "duplicate",
        "resent_by_application",
        merged(
            producer(resend={"timeout": 1.0}, **at(5.1, 5.2, 5.3, 15.0, 15.1)),
            strikes("pause", "orders", at=5.29, lasting=1.5),
        ),
        cures=(producer(resend={"timeout": None}), IDEMPOTENT),
    ),
    Case(
        "duplicate",
        "offset_not_committed",
        merged(service(enable_auto_commit=True), strikes("crash", "billing", at=5.35)),
        cures=(IDEMPOTENT,),
        pairs=FIRST_THREE,
    ),
    Case(
        "duplicate",
        "poll_interval_exceeded",
        merged(service(max_poll_interval=0.5), STUCK),
        cures=(service(max_poll_interval=300.0),),
    ),
    Case(
        "duplicate",
        "revoked_uncommitted",
        merged(until(20.0), EVERY_OTHER, service(consumers=2), strikes("crash", "billing.2", at=5.25)),
        cures=(
            service(commits_when_revoked=True),
            service(partition_assignment_strategy="cooperative-sticky"),
            service(group_instance_id=True),
        ),
        pairs=ALL[4:],
    ),
    Case(
        "duplicate",
        "offset_reset_earliest",
        merged(
            channel(offsets_retention=60.0),
            until(1500.0),
            strikes("crash", "billing", at=5.35, lasting=1300.0),
        ),
        cures=(channel(offsets_retention=604_800.0),),
        pairs=FIRST_THREE,
    ),
    Case(
        "duplicate",
        "acquisition_lock_expired",
        merged(SHARED, service(share_record_lock_duration=1.0), STUCK),
        cures=(service(share_record_lock_duration=30.0), QUICK),
    ),
    Case(
        "duplicate",
        "share_leader_moved",
        merged(SHARED, channel(**RF3), strikes("crash", "orders.leader", at=5.305, lasting=30.0)),
        cures=(IDEMPOTENT,),
    ),
    Case(
        "duplicate",
        "transaction_aborted",
        merged(
            {"channels": {"orders": {"system": "kafka"}, "out": {"system": "kafka", "cluster": "orders"}}},
            producer(channel="orders"),
            service(channel="orders"),
            until(100.0),
            service(transactional=True, transaction_timeout=5.0, publishes={"channel": "out"}),
            strikes("pause", "billing", at=5.313, lasting=30.0),
        ),
        cures=(IDEMPOTENT,),
    ),
]

CASES = LOST + KEPT_ELSEWHERE + REORDERED + DUPLICATE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cause_strikes_those_pairs_and_without_its_mechanism_they_are_well(case: Case) -> None:
    check_case(case, told_of)


@pytest.mark.parametrize(("case", "cure"), [(case, cure) for case in CASES for cure in case.cures], ids=str)
def test_what_is_said_to_prevent_the_cause_does(case: Case, cure: World) -> None:
    check_cure(case, cure, told_of)


def test_no_cause_is_known_that_has_no_case() -> None:
    check_complete(CASES, "kafka")
