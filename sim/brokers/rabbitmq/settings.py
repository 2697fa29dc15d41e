"""Settings of RabbitMQ and of its client libraries: official names in snake_case, official defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.distributions import Constant, Distribution
from sim.units import Bytes, Seconds


@dataclass(frozen=True)
class Channel:
    """An exchange on a cluster, with a queue per consuming service.

    Cluster: `series` of the broker; `nodes` of it; `queue_node` is where queues are declared (a classic queue lives
    there, a quorum queue or stream starts with its leader there); `node_delay` one way (s) between nodes;
    `cluster_partition_handling` for series 4.2.

    Routing: `exchange` by type ("missing": it was never declared); `alternate_exchange` parks what matches no binding.

    Queues: `queue_type` (x-queue-type), `durable`, `initial_group_size` (x-quorum-initial-group-size, as many as
    there are nodes if that is less), `max_priority` (x-max-priority), `single_active_consumer`, `exclusive`,
    `message_ttl`, `expires`, `max_length`, `max_length_bytes`, `overflow`, `delivery_limit` (quorum; null is off),
    `delayed_retry_type` with `delayed_retry_min` and `_max` (quorum, 4.3), `consumer_timeout`,
    `consumer_disconnected_timeout` (quorum, 4.3).

    Dead letters: `dead_letter_exchange` leads nowhere ("none": they are dropped; "missing": it was never declared),
    to a terminal queue ("parking"), or to a queue with a TTL of `retry_ttl` that leads back ("retry", until
    `retry_rounds` are over, which the consumer reads in x-death). `dead_letter_node` holds that queue.
    `is_delay_queue` publishes into the queue with the TTL first.

    Streams: `max_age`, `max_segment_size_bytes` (x-stream-max-segment-size-bytes).

    Flow control: `credit_flow_default_credit`, what a sender may send and what comes back when so much is handled.

    Hardware: `fsync` of a flush of the write-ahead log, `memory` and `disk` of each node (null: no alarm),
    with `vm_memory_high_watermark` as a share of it and `disk_free_limit`. `cpu_per_message` (no setting of RabbitMQ
    but of the model) is what a queue's process spends on an enqueue or a delivery, the leader of a quorum queue on
    each command: a publish, an ack, a return (null: 10 us, 15 us).

    Source of the defaults: the RabbitMQ sheet, section 2.
    """

    series: Literal["4.3", "4.2"] = "4.3"
    nodes: int = 1
    queue_node: int = 1
    node_delay: Distribution = Constant(0.0001)
    cluster_partition_handling: Literal["ignore", "pause_minority", "autoheal"] = "ignore"
    exchange: Literal["default", "direct", "topic", "fanout", "headers", "missing"] = "default"
    alternate_exchange: bool = False
    queue_type: Literal["classic", "quorum", "stream"] = "classic"
    durable: bool = True
    exclusive: bool = False
    initial_group_size: int = 3
    max_priority: int | None = None
    single_active_consumer: bool = False
    message_ttl: Seconds | None = None
    expires: Seconds | None = None
    max_length: int | None = None
    max_length_bytes: Bytes | None = None
    overflow: Literal["drop-head", "reject-publish", "reject-publish-dlx"] = "drop-head"
    delivery_limit: int | None = 20
    delayed_retry_type: Literal["disabled", "all", "failed", "returned"] = "disabled"
    delayed_retry_min: Seconds = 1.0
    delayed_retry_max: Seconds = 60.0
    consumer_timeout: Seconds | None = 1800.0
    consumer_disconnected_timeout: Seconds = 60.0
    dead_letter_exchange: Literal["none", "missing", "parking", "retry"] = "none"
    dead_letter_strategy: Literal["at-most-once", "at-least-once"] = "at-most-once"
    dead_letter_node: int | None = None
    retry_ttl: Seconds = 30.0
    retry_rounds: int | None = None
    is_delay_queue: bool = False
    max_age: Seconds | None = None
    max_segment_size_bytes: Bytes = 500_000_000
    credit_flow_default_credit: tuple[int, ...] = (400, 200)
    cpu_per_message: Seconds | None = None
    fsync: Distribution = Constant(0.001)
    memory: Bytes | None = None
    vm_memory_high_watermark: float = 0.6
    disk: Bytes | None = None
    disk_free_limit: Bytes = 50_000_000


@dataclass(frozen=True)
class ProducerClient:
    """A publisher's client library; it uses publisher confirms when the application resends.

    `delivery_mode` 2 (persistent) or 1 (transient). `mandatory`: what cannot be routed is returned. `confirm_batch`:
    wait for all confirms after each so many publishes; `transaction`: tx.commit after each so many, instead of
    confirms. `expiration`: TTL of each message (s). `priorities`: by key, others have the queue's default.
    `publishing_ids` (stream protocol): the stream drops what it has stored already. `heartbeat` (s; null is off),
    `recovery_interval` before it connects again. `node`: the one it connects to first; then the next.
    `cpu_per_message` (of the model): what the application's thread spends on each publish, one after the other.
    """

    delivery_mode: Literal["persistent", "transient"] = "persistent"
    mandatory: bool = False
    confirm_batch: int | None = None
    transaction: int | None = None
    expiration: Distribution | None = None
    priorities: dict[str, int] | None = None
    publishing_ids: bool = False
    heartbeat: Seconds | None = 60.0
    recovery_interval: Seconds = 5.0
    node: int = 1
    cpu_per_message: Seconds = 0.0


@dataclass(frozen=True)
class ConsumerClient:
    """A consumer's client library.

    `ack`: manual or automatic (auto: forgotten as soon as it is written to the socket). `prefetch` (basic.qos) is the
    number of unacked deliveries, null or 0 without limit (which streams do not allow). `ack_every`: ack so many at
    once (multiple). A handler that failed answers with `negative_ack` (basic.nack or basic.reject), with or without
    `requeue`.
    `consumer_priorities`: x-priority of the first consumer, the second ... (the last one for all others).
    `bindings`: further ones of the service's queue, beside its `binding`.
    `publishes_too`: the connection publishes as well, so alarms stop it. Streams: `offset` (x-stream-offset) where to
    start if none is stored, by default with what is published from then on; an offset is stored after each
    `store_offset_every` messages (null: never), before or after they are processed.
    """

    ack: Literal["manual", "auto"] = "manual"
    prefetch: int | None = None
    ack_every: int = 1
    negative_ack: Literal["nack", "reject"] = "nack"
    requeue: bool = True
    consumer_priorities: tuple[int, ...] = ()
    bindings: tuple[str, ...] = ()
    publishes_too: bool = False
    offset: Literal["first", "last", "next"] = "next"
    store_offset_every: int | None = 1
    heartbeat: Seconds | None = 60.0
    recovery_interval: Seconds = 5.0
    node: int = 1
