"""Settings of Kafka and of its clients: official names in snake_case without their unit, official defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.distributions import Constant, Distribution
from sim.units import Bytes, BytesPerSecond, Fraction, Seconds


@dataclass(frozen=True)
class Channel:
    """A topic on a cluster of `nodes` brokers and a controller quorum (one host, "orders.controller").

    `cluster`: the name of another Kafka channel on whose cluster this topic lies; settings of brokers and of hardware
    are that channel's then. A transaction covers topics of one cluster.

    Topic: `partitions`, `replication_factor`, `min_insync_replicas`, `unclean_leader_election_enable`, `flush_messages`
    and `flush_interval` (flush.ms; null is never), `retention` (retention.ms), `retention_bytes`, `segment_bytes`,
    `segment_time` (segment.ms), `cleanup_policy` (compact needs keys; there are no tombstones, since no message is
    null), `min_cleanable_dirty_ratio`. At `alter_at` an operator gives it `alter_partitions` (null: never).
    `ordering_scope` says within what, besides the producer, order is counted: that changes nothing else.

    Brokers: `replica_lag_time_max`, `replica_fetch_wait_max`, `broker_heartbeat_interval`, `broker_session_timeout`,
    `log_retention_check_interval`, `auto_leader_rebalance_enable` and its interval, `group_initial_rebalance_delay`,
    `offsets_replication_factor`, `offsets_retention`, `transaction_state_log_replication_factor` and `_min_isr`,
    `producer_id_expiration`.

    Hardware: `broker_delay` one way (s) between brokers, `election_time` (s) of a leader once it is decided, per
    partition and one after the other, `write_back` (s) of dirty pages, `fsync` of a flush that is asked for,
    `broker_bandwidth` of a broker's network (null is unlimited). A broker's CPU handles one request at a time, in
    `cpu_per_request` and `cpu_per_kib` of what is produced, and then `append_time` and `append_time_per_kib` for each
    batch.

    Source of the defaults: the Kafka sheet, sections 2 and 4.
    """

    cluster: str | None = None
    nodes: int = 1
    partitions: int = 1
    replication_factor: int = 1
    min_insync_replicas: int = 1
    unclean_leader_election_enable: bool = False
    flush_messages: int | None = None
    flush_interval: Seconds | None = None
    retention: Seconds | None = 604_800.0
    retention_bytes: Bytes | None = None
    segment_bytes: Bytes = 1_073_741_824
    segment_time: Seconds = 604_800.0
    cleanup_policy: Literal["delete", "compact"] = "delete"
    min_cleanable_dirty_ratio: Fraction = 0.5
    alter_partitions: int | None = None
    alter_at: Seconds = 0.0
    ordering_scope: Literal["topic", "partition", "key"] = "partition"
    replica_lag_time_max: Seconds = 30.0
    replica_fetch_wait_max: Seconds = 0.5
    broker_heartbeat_interval: Seconds = 2.0
    broker_session_timeout: Seconds = 9.0
    log_retention_check_interval: Seconds = 300.0
    auto_leader_rebalance_enable: bool = True
    leader_imbalance_check_interval: Seconds = 300.0
    group_initial_rebalance_delay: Seconds = 3.0
    offsets_replication_factor: int = 3
    offsets_retention: Seconds = 604_800.0
    transaction_state_log_replication_factor: int = 3
    transaction_state_log_min_isr: int = 2
    producer_id_expiration: Seconds = 86_400.0
    broker_delay: Distribution = Constant(0.00025)
    election_time: Seconds = 0.010
    write_back: Seconds = 30.0
    fsync: Distribution = Constant(0.001)
    broker_bandwidth: BytesPerSecond | None = None
    cpu_per_request: Seconds = 50e-6
    cpu_per_kib: Seconds = 10e-6
    append_time: Seconds = 5e-6
    append_time_per_kib: Seconds = 1e-6


@dataclass(frozen=True)
class ProducerClient:
    """The producer.

    `acks`, `enable_idempotence` (null: as acks, retries and in-flight allow), `retries`, `delivery_timeout`,
    `request_timeout`, `retry_backoff` to `retry_backoff_max` (doubling, 20% jitter), `reconnect_backoff` to
    `reconnect_backoff_max`, `metadata_max_age`, `max_in_flight_requests_per_connection`, `linger`, `batch_size`,
    `buffer_memory`, `max_block`, `max_request_size`, `compression_ratio` (compressed size / size). `transactional`:
    write in transactions of `transactional.id` = its host's name, with `transaction_timeout`, committed every
    `transaction_interval`.
    """

    acks: Literal["0", "1", "all"] = "all"
    enable_idempotence: bool | None = None
    retries: int = 2_147_483_647
    delivery_timeout: Seconds = 120.0
    request_timeout: Seconds = 30.0
    retry_backoff: Seconds = 0.1
    retry_backoff_max: Seconds = 1.0
    reconnect_backoff: Seconds = 0.05
    reconnect_backoff_max: Seconds = 1.0
    metadata_max_age: Seconds = 300.0
    max_in_flight_requests_per_connection: int = 5
    linger: Seconds = 0.005
    batch_size: Bytes = 16_384
    buffer_memory: Bytes = 33_554_432
    max_block: Seconds = 60.0
    max_request_size: Bytes = 1_048_576
    compression_ratio: Fraction = 1.0
    transactional: bool = False
    transaction_timeout: Seconds = 60.0
    transaction_interval: Seconds = 0.1


@dataclass(frozen=True)
class ConsumerClient:
    """A member of a consumer group (each service is a group).

    `group_protocol` (classic; consumer is KIP-848; share is a share group) and `partition_assignment_strategy` (of the
    classic protocol); `session_timeout`, `heartbeat_interval`, `max_poll_interval`, `max_poll_records`;
    `group_instance_id` (static membership, classic). The group's own, for the other two protocols:
    `consumer_heartbeat_interval`, `consumer_session_timeout`; `share_record_lock_duration`,
    `share_delivery_count_limit`, `share_partition_max_record_locks`.

    `enable_auto_commit` every `auto_commit_interval` inside poll, else the application commits: after each
    `commit_every` records, or once per poll (null), `settle: before` meaning before it processes them; and, if it
    `commits_when_revoked`, before a partition goes to another. `auto_offset_reset` also stands for
    share.auto.offset.reset. `isolation_level`.

    `fetch_min_bytes`, `fetch_max_wait`, `max_partition_fetch_bytes`, `fetch_max_bytes`; `request_timeout`,
    `reconnect_backoff` to `reconnect_backoff_max`, `metadata_max_age`. `hands_off`: records go to a pool of workers
    and poll goes on at once (the classic mistake with automatic commits). `transactional`: what it publishes and its
    offsets are one transaction per commit (read-process-write), given up after `transaction_timeout`; null: if what it
    publishes goes to a topic of the same cluster.
    """

    group_protocol: Literal["classic", "consumer", "share"] = "classic"
    partition_assignment_strategy: Literal["range", "cooperative-sticky"] = "range"
    session_timeout: Seconds = 45.0
    heartbeat_interval: Seconds = 3.0
    max_poll_interval: Seconds = 300.0
    max_poll_records: int = 500
    enable_auto_commit: bool = True
    auto_commit_interval: Seconds = 5.0
    commit_every: int | None = None
    auto_offset_reset: Literal["latest", "earliest", "none"] = "latest"
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    fetch_min_bytes: Bytes = 1
    fetch_max_wait: Seconds = 0.5
    max_partition_fetch_bytes: Bytes = 1_048_576
    fetch_max_bytes: Bytes = 52_428_800
    request_timeout: Seconds = 30.0
    reconnect_backoff: Seconds = 0.05
    reconnect_backoff_max: Seconds = 1.0
    metadata_max_age: Seconds = 300.0
    transactional: bool | None = False
    transaction_timeout: Seconds = 60.0
    group_instance_id: bool = False
    hands_off: bool = False
    commits_when_revoked: bool = False
    consumer_heartbeat_interval: Seconds = 5.0
    consumer_session_timeout: Seconds = 45.0
    share_record_lock_duration: Seconds = 30.0
    share_delivery_count_limit: int = 5
    share_partition_max_record_locks: int = 2000


# -- what goes together ----------------------------------------------------------------------------------------------


def is_idempotent(settings: ProducerClient) -> bool:
    """Whether producer ids are used: as asked, or where acks, retries and in-flight allow it (section 2)."""
    if settings.transactional or settings.enable_idempotence:
        return True
    return settings.enable_idempotence is None and idempotence_conflict(settings) is None


def complaint(settings: ProducerClient) -> str | None:
    """What the client library would refuse to begin with (a ConfigException)."""
    name = "transactional" if settings.transactional else "enable_idempotence"
    if settings.transactional and settings.enable_idempotence is False:
        return "transactional needs enable_idempotence"
    if (settings.transactional or settings.enable_idempotence) and (needs := idempotence_conflict(settings)):
        return f"{name} needs {needs}"
    least = settings.request_timeout + settings.linger
    if settings.delivery_timeout < least:
        return (
            f"delivery_timeout, {settings.delivery_timeout:g} s, must not be less than request_timeout + linger,"
            f" {least:g} s"
        )
    return None


def idempotence_conflict(settings: ProducerClient) -> str | None:
    """Which setting excludes an idempotent producer, if one does."""
    if settings.acks != "all":
        return f"acks: all, not {settings.acks}"
    if not settings.retries:
        return "retries, not 0"
    if settings.max_in_flight_requests_per_connection > 5:
        limit = settings.max_in_flight_requests_per_connection
        return f"at most 5 max_in_flight_requests_per_connection, not {limit}"
    return None
