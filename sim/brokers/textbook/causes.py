"""Every cause of an anomaly that arises in the textbook broker or on the way to and from it: a closed list."""

from __future__ import annotations

from sim.ledger import cause


def _lost(name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    return cause("textbook", "lost", name, meaning, behaviour, prevented_by)


def _twice(name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    return cause("textbook", "duplicate", name, meaning, behaviour, prevented_by)


RESENDING = "a producer that resends until acked"
ACK_AFTER = "manual acks after processing, so that the broker keeps the message until then"
IDEMPOTENT = "an idempotent consumer (the delivery still repeats)"
SEQUENCES = "sequence numbers, by which the broker drops what it has"

PUBLISH_LOST = _lost("publish_lost", "The network lost the message on its way to the broker.", "B", RESENDING)
PUBLISH_CUT = _lost("publish_cut", "The message was sent into a partition.", "C", RESENDING)
PUBLISH_TO_DEAD_BROKER = _lost("broker_down", "The message reached a broker that was down.", "D.1", RESENDING)
PUBLISH_BROKEN = _lost(
    "publish_connection_broken",
    "The message was on a connection that broke before it arrived.",
    "A.9",
    RESENDING,
)
NOT_CONNECTED = _lost(
    "not_connected", "The producer had no connection and does not keep messages.", "A.9", RESENDING
)
DELIVERY_LOST = _lost("delivery_lost", "The network lost the delivery.", "B", ACK_AFTER)
DELIVERY_CUT = _lost("delivery_cut", "The delivery was sent into a partition.", "C", ACK_AFTER)
DELIVERY_TO_DEAD = _lost("consumer_down", "The delivery reached a consumer that was down.", "D.1", ACK_AFTER)
DELIVERY_BROKEN = _lost(
    "delivery_connection_broken",
    "The delivery was on a connection that broke before it arrived.",
    "A.9",
    ACK_AFTER,
)
MEMORY_LOST = _lost(
    "broker_memory_lost", "The broker crashed and kept its queue in memory.", "D.1", "storage: disk"
)
UNSYNCED_LOST = _lost(
    "unsynced_lost", "The broker's machine crashed before the message was synced.", "D.2", "sync: before_ack"
)
DISK_LOST = _lost("disk_lost", "The broker's disk was lost.", "D.3", "a replica on another disk")
DROPPED_HEAD = _lost(
    "overflow_drop_head", "The queue was full and dropped its oldest message.", "PT-15", "block, reject"
)
DROPPED_TAIL = _lost(
    "overflow_drop_tail", "The queue was full and dropped the new message.", "PT-15", "block, reject"
)
UNROUTABLE = _lost(
    "unroutable",
    "A service declares that it wants the message; its binding does not match it.",
    "PT-03",
    "the binding",
)
ATTEMPTS_SPENT = _lost(
    "attempts_spent",
    "All attempts failed or ran out of time, and there is no dead-letter queue.",
    "PT-08",
    "dead_letter",
)
SWALLOWED = _lost(
    "deduplicated",
    "The broker dropped a resend whose number it knew; the copy it had accepted was lost.",
    "H.12",
    ACK_AFTER,
)
QUEUE_FULL = cause(
    "textbook", "rejected", "queue_full", "The queue was full and refused it.", "PT-15", "more room, block"
)
PARKED = cause(
    "textbook",
    "dead_lettered",
    "attempt_limit",
    "All attempts failed or ran out of time.",
    "PT-08",
    "mending the handler",
)

CONFIRM_LOST = _twice("confirm_lost", "The broker's ack was lost, so the producer resent.", "H.12", SEQUENCES)
CONFIRM_CUT = _twice(
    "confirm_cut", "The broker's ack met a partition, so the producer resent.", "N-09", SEQUENCES
)
CONFIRM_LATE = _twice(
    "confirm_late", "The ack came after the producer's timeout.", "A.10", "a longer timeout, sequences"
)
CONFIRM_BROKEN = _twice(
    "confirm_connection_broken", "The connection broke before the ack came.", "A.10", SEQUENCES
)
ACK_LOST = _twice(
    "ack_lost", "The consumer's ack was lost, so the broker delivered again.", "H.12", IDEMPOTENT
)
ACK_CUT = _twice(
    "ack_cut", "The consumer's ack met a partition, so the broker delivered again.", "N-09", IDEMPOTENT
)
ACK_TO_DEAD = _twice(
    "ack_to_dead_broker", "The consumer's ack reached a broker that was down.", "D.1", IDEMPOTENT
)
ACK_LATE = _twice(
    "ack_late", "The consumer was not done before the ack timeout.", "S-02", "a longer ack_timeout"
)
CONSUMER_GONE = _twice(
    "consumer_connection_lost",
    "The consumer's connection broke with the delivery unacked.",
    "A.9",
    IDEMPOTENT,
)
BROKER_RESTARTED = _twice(
    "broker_restarted",
    "The broker restarted and delivered again what its disk showed as unacked.",
    "D.1",
    IDEMPOTENT,
)
NETWORK_TWICE = _twice("network_duplicate", "The network delivered a datagram twice.", "N-12", "a connection")
