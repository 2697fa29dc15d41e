"""Every cause of an anomaly that arises in Kafka or on the way to and from it: a closed list."""

from __future__ import annotations

from sim.ledger import cause


def _cause(anomaly: str, name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    return cause("kafka", anomaly, name, meaning, behaviour, prevented_by)


ACKS_ALL = "acks=all with min.insync.replicas of 2"
IDEMPOTENT = "an idempotent producer"
IDEMPOTENT_CONSUMER = "an idempotent consumer (the delivery still repeats)"

# -- lost ----------------------------------------------------------------------------------------------------------

SOCKET_CUT = _cause(
    "lost",
    "socket_cut",
    "With acks=0 the record was in a socket when the connection broke, or reached a broker that does not lead.",
    "K-08",
    "acks=1 or all",
)
ACCUMULATOR_LOST = _cause(
    "lost",
    "accumulator_lost",
    "The producer's process crashed with the record in its memory, not yet answered.",
    "K-17",
    "flush() before what depends on it, or an outbox",
)
DELIVERY_TIMEOUT = _cause(
    "lost",
    "delivery_timeout",
    "The producer gave the record up: delivery.timeout.ms was over.",
    "K-18",
    "a longer timeout, or an application that tries again",
)
BUFFER_FULL = _cause(
    "lost",
    "buffer_full",
    "The producer's buffer was full for max.block.ms, and send() failed.",
    "K-19",
    "more buffer.memory or fewer records",
)
UNREPLICATED = _cause(
    "lost",
    "unreplicated",
    "The leader was replaced before a follower had the record, and truncated it when it came back.",
    "K-09",
    ACKS_ALL,
)
UNCLEAN_ELECTION = _cause(
    "lost",
    "unclean_election",
    "A replica outside the ISR became leader, and the record was above its log's end.",
    "K-27",
    "unclean.leader.election.enable=false",
)
UNFLUSHED = _cause(
    "lost",
    "unflushed",
    "The machine lost power before its page cache was written back, and no other replica had the record.",
    "K-28",
    "more replicas on other machines, " + ACKS_ALL,
)
DISK_LOST = _cause(
    "lost", "disk_lost", "The disk was lost, and no other replica had the record.", "K-28", ACKS_ALL
)
COMMITTED_EARLY = _cause(
    "lost",
    "committed_early",
    "The offset was committed before the record was processed, and the consumer crashed or lost the partition.",
    "K-38",
    "committing after processing",
)
NEVER_SEEN = _cause(
    "lost",
    "offset_reset_latest",
    "The group had no valid offset and began at the end of the log, behind the record.",
    "K-40",
    "auto.offset.reset=earliest",
)
NO_OFFSET = _cause(
    "lost",
    "offset_reset_none",
    "The group had no valid offset, and every consumer raised an error and stopped: an operator has to set one.",
    "K-40",
    "auto.offset.reset=earliest",
)

# -- expired, rejected, parked ---------------------------------------------------------------------------------------

RETENTION = _cause(
    "expired",
    "retention",
    "The record's segment was deleted before the group had read it.",
    "K-41",
    "a longer retention or more consumers",
)
COMPACTED = _cause(
    "expired",
    "compacted",
    "A later record of the same key replaced it before the group had read it.",
    "K-42",
    "cleanup.policy=delete",
)
TOO_LARGE = _cause(
    "rejected", "record_too_large", "The record was larger than max.request.size.", "K-19", "smaller records"
)
NOT_ENOUGH_REPLICAS = _cause(
    "rejected",
    "not_enough_replicas",
    "Fewer than min.insync.replicas were in sync until the producer gave up.",
    "K-11",
    "more replicas",
)
ARCHIVED = _cause(
    "dead_lettered",
    "archived",
    "The share group had delivered the record as often as it may, or the application rejected it.",
    "K-50",
    "a handler that does not fail on it",
)

# -- reordered ------------------------------------------------------------------------------------------------------

SENT_AGAIN = _cause(
    "reordered",
    "retried_behind_others",
    "The batch was refused, one that was in flight behind it was not, and it was sent again after that.",
    "K-14",
    IDEMPOTENT + ", or max.in.flight.requests.per.connection=1",
)

# -- duplicates ----------------------------------------------------------------------------------------------------

RETRIED = _cause(
    "duplicate",
    "retried_after_append",
    "The batch was appended, its answer was lost, late or an error, and the producer sent it again.",
    "K-13",
    IDEMPOTENT,
)
RESENT = _cause(
    "duplicate",
    "resent_by_application",
    "The application sent the message again as a new record, which no broker can tell from another.",
    "K-16",
    "waiting for the producer's own retries; " + IDEMPOTENT_CONSUMER,
)
NOT_COMMITTED = _cause(
    "duplicate",
    "offset_not_committed",
    "The consumer crashed, or lost the partition, after processing and before its offset was committed.",
    "K-39",
    IDEMPOTENT_CONSUMER,
)
POLL_EXCEEDED = _cause(
    "duplicate",
    "poll_interval_exceeded",
    "The consumer did not poll for max.poll.interval.ms, and its partitions went to another with its uncommitted work.",
    "K-35",
    "a smaller max.poll.records or a longer max.poll.interval.ms",
)
REVOKED = _cause(
    "duplicate",
    "revoked_uncommitted",
    "A rebalance moved the partition before the work on it was committed.",
    "K-34",
    "committing when partitions are revoked, the cooperative protocol, static membership",
)
RESET_EARLIEST = _cause(
    "duplicate",
    "offset_reset_earliest",
    "The group had no valid offset and began at the start of the log again.",
    "K-40",
    "committing offsets more often than they expire",
)
LOCK_EXPIRED = _cause(
    "duplicate",
    "acquisition_lock_expired",
    "The share group's lock on the record ran out, and it was delivered again.",
    "K-50",
    "a longer lock or shorter processing",
)
SHARE_STATE_LOST = _cause(
    "duplicate",
    "share_leader_moved",
    "The partition's leader was replaced: which records are locked it had in memory, and they were delivered again.",
    "K-50",
    IDEMPOTENT_CONSUMER,
)
TRANSACTION_ABORTED = _cause(
    "duplicate",
    "transaction_aborted",
    "The transaction that the record's offset belongs to was aborted, and the record was processed again.",
    "K-48",
    "an effect that is part of the transaction, or an idempotent consumer",
)
