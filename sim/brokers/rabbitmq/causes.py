"""Every cause of an anomaly that arises in RabbitMQ or on the way to and from it: a closed list (sheet, section 6)."""

from __future__ import annotations

from sim.ledger import cause


def _cause(anomaly: str, name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    return cause("rabbitmq", anomaly, name, meaning, behaviour, prevented_by)


CONFIRMS = "publisher confirms, and publishing again what was not confirmed"
MANUAL_ACK = "manual acknowledgements after processing"
QUORUM = "a quorum queue"
DLX = "a dead-letter exchange"
IDEMPOTENT = "an idempotent consumer (the delivery still repeats)"

# -- lost ----------------------------------------------------------------------------------------------------------

SOCKET_CUT = _cause(
    "lost",
    "socket_cut",
    "The message was in the publisher's client library or in a socket when the connection broke.",
    "R-04",
    CONFIRMS,
)
NOT_CONNECTED = _cause(
    "lost", "not_connected", "The publisher had no connection, and its publish raised.", "R-04", CONFIRMS
)
UNFLUSHED = _cause(
    "lost",
    "unflushed",
    "The queue's process died with the message in its memory: not written yet, or not to be written at all.",
    "R-04",
    CONFIRMS,
)
UNROUTABLE = _cause(
    "lost",
    "unroutable",
    "A service declares that it wants the message; no binding of its queue matched it.",
    "R-03",
    "the binding, the mandatory flag or an alternate exchange",
)
QUEUE_DOWN = _cause(
    "lost",
    "queue_down",
    "The node of the classic queue was down or out of reach when the message was routed to it.",
    "R-24",
    CONFIRMS,
)
OVERFLOW_HEAD = _cause(
    "lost",
    "overflow_head",
    "The queue was full and dropped its oldest message (drop-head).",
    "R-35",
    "reject-publish with confirms, or " + DLX,
)
OVERFLOW_NEW = _cause(
    "lost",
    "overflow_new",
    "The queue was full and refused the new message (reject-publish).",
    "R-35",
    CONFIRMS,
)
REJECTED = _cause(
    "lost",
    "rejected",
    "The consumer rejected the message without requeue, and there is no dead-letter exchange.",
    "R-32",
    DLX,
)
DELIVERY_LIMIT = _cause(
    "lost",
    "delivery_limit",
    "The quorum queue had delivered the message as often as it may, and there is no dead-letter exchange.",
    "R-29",
    DLX,
)
DLX_LOST = _cause(
    "lost",
    "dlx_lost",
    "Dead-lettered without confirms to an exchange or queue that did not take it, or round a cycle.",
    "R-32",
    "dead_letter_strategy: at-least-once",
)
AUTO_ACK_CRASH = _cause(
    "lost",
    "auto_ack_crash",
    "The delivery was forgotten by the broker when it was sent (auto ack), and never processed.",
    "R-12",
    MANUAL_ACK,
)
TRANSIENT_RESTART = _cause(
    "lost",
    "transient_restart",
    "The node of the classic queue restarted; the message was transient or its queue not durable.",
    "R-22",
    "persistent messages on durable queues",
)
POWER_LOSS = _cause(
    "lost",
    "power_loss",
    "The machine died before its page cache was written to the disk (a confirm does not wait for that).",
    "R-23",
    QUORUM,
)
DISK_LOSS = _cause(
    "lost",
    "disk_loss",
    "The only disk, or a majority of the disks, with the message was lost.",
    "R-22",
    QUORUM,
)
QUEUE_DELETED = _cause(
    "lost",
    "queue_deleted",
    "The queue was deleted with its contents: unused for `expires`, or exclusive to a connection that ended.",
    "R-30",
    "a queue that outlives its consumers",
)
DEDUP_SWALLOWED = _cause(
    "lost",
    "dedup_swallowed",
    "The stream had stored a higher publishing id of that producer and dropped the message.",
    "R-40",
    "publishing ids in the order of publishing",
)

OFFSET_NEXT = _cause(
    "lost",
    "offset_next",
    "The consumer of the stream started behind it: at the next message or the last chunk, with no offset stored.",
    "R-39",
    "offset: first, or storing offsets",
)

# -- refused, parked, expired --------------------------------------------------------------------------------------

RETURNED_UNROUTABLE = _cause(
    "rejected",
    "returned_unroutable",
    "No binding matched, and the mandatory flag made the broker return the message.",
    "R-03",
    "the binding",
)
PARKED_UNROUTABLE = _cause(
    "dead_lettered",
    "parked_unroutable",
    "No binding matched; the alternate exchange led to a queue for such messages.",
    "R-03",
    "the binding",
)
PARKED_REJECTED = _cause(
    "dead_lettered", "parked_rejected", "The consumer rejected it without requeue.", "R-32", "the handler"
)
PARKED_EXPIRED = _cause(
    "dead_lettered", "parked_expired", "It expired and was dead-lettered.", "R-32", "a longer TTL"
)
PARKED_OVERFLOW = _cause(
    "dead_lettered",
    "parked_overflow",
    "The queue was full, and it was dead-lettered.",
    "R-32",
    "a longer queue",
)
PARKED_DELIVERY_LIMIT = _cause(
    "dead_lettered",
    "parked_delivery_limit",
    "The quorum queue had delivered it as often as it may.",
    "R-29",
    "a handler that does not fail on it",
)
PARKED_RETRIES_SPENT = _cause(
    "dead_lettered",
    "parked_retries_spent",
    "The consumer found in x-death that it had failed often enough.",
    "R-33",
    "a handler that does not fail on it",
)
TTL = _cause("expired", "ttl", "The message was older than its TTL at the head of the queue.", "R-30", DLX)
RETENTION = _cause(
    "expired",
    "retention",
    "The stream dropped the segment before the consumer had read it.",
    "R-39",
    "a longer retention or a faster consumer",
)

# -- duplicates ----------------------------------------------------------------------------------------------------

REPUBLISHED_IN_DOUBT = _cause(
    "duplicate",
    "republish_in_doubt",
    "The publisher had no confirm (lost with the connection, or late) and published again; both were stored.",
    "R-08",
    IDEMPOTENT,
)
REPUBLISHED_AFTER_NACK = _cause(
    "duplicate",
    "republish_after_nack",
    "One of several queues refused the message, the others kept it, and the publisher published again.",
    "R-07",
    IDEMPOTENT,
)
CHANNEL_LOST = _cause(
    "duplicate",
    "channel_lost",
    "The consumer's channel or the queue's node ended with the delivery unacked, and it was delivered again.",
    "R-14",
    IDEMPOTENT,
)
ACK_TIMEOUT = _cause(
    "duplicate",
    "ack_timeout",
    "The delivery was unacked for consumer_timeout and was delivered again.",
    "R-17",
    "a longer timeout or shorter processing",
)
ACK_REVIVED = _cause(
    "duplicate",
    "ack_revived",
    "The classic queue's node died before the acknowledgement was on its disk; the message came back.",
    "R-23",
    QUORUM + " or " + IDEMPOTENT,
)
DLX_RETRY = _cause(
    "duplicate",
    "dlx_retry",
    "At-least-once dead-lettering had no confirm from its target and published again.",
    "R-34",
    IDEMPOTENT,
)
OFFSET_REPLAY = _cause(
    "duplicate",
    "offset_replay",
    "The consumer of the stream started again from the offset it had last stored.",
    "R-40",
    "storing the offset in the transaction of the effect",
)

# A message that a handler failed on and gave back, or rejected into a retry loop, goes on as a copy born of
# `handler_failed` (sim.apps): it stands for one that is gone, and makes none too many.
