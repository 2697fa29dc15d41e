"""Settings of the textbook broker and of its client library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.distributions import Constant, Distribution
from sim.units import Seconds


@dataclass(frozen=True)
class Channel:
    """A queue, a topic or an exchange on one broker host.

    `storage` and `sync` say where a message is when it is acked: in memory, in the page cache, or on the device
    (`before_ack`; `periodic` every `flush_interval`; `never`: the operating system writes back within 30 s).
    `fsync` is what a flush takes; when one fails the broker crashes and restarts, or ignores it. `ack_timeout`: a
    delivery unacked for that long is taken back. `max_length` bounds each queue's ready messages; `overflow` says what
    happens to one too many. After `max_attempts` deliveries a message is dropped, or parked where `dead_letter` is
    true. `acknowledges: processed` makes the ack wait for the consumer (a synchronous call).
    """

    pattern: Literal["queue", "topic", "exchange"] = "queue"
    transport: Literal["datagram", "connection"] = "datagram"
    storage: Literal["memory", "disk"] = "memory"
    sync: Literal["before_ack", "periodic", "never"] = "before_ack"
    flush_interval: Seconds = 1.0
    fsync: Distribution = Constant(0.002)
    on_fsync_failure: Literal["crash", "ignore"] = "crash"
    ack_timeout: Seconds | None = 1.0
    max_length: int | None = None
    overflow: Literal["reject", "drop_head", "drop_tail", "block"] = "reject"
    max_attempts: int | None = None
    dead_letter: bool = False
    acknowledges: Literal["stored", "processed"] = "stored"


@dataclass(frozen=True)
class ProducerClient:
    """The producer library. `sequence_numbers` lets the broker drop what it has accepted already."""

    sequence_numbers: bool = False


@dataclass(frozen=True)
class ConsumerClient:
    """The consumer library: pushed up to `prefetch` unacked deliveries, or taking one at a time (`pop`).

    `ack: auto` makes the broker forget a message as it sends it. A `pop` consumer that finds the queue empty waits,
    or ends for good with `stop_when_empty`.
    """

    ack: Literal["manual", "auto"] = "manual"
    prefetch: int | None = 10
    consume: Literal["push", "pop"] = "push"
    stop_when_empty: bool = False
