"""Apache Kafka 4.x: a topic is a few append-only logs, and reading removes nothing."""

from __future__ import annotations

from typing import Any

from sim.brokers import Preset, System
from sim.brokers.kafka.broker import Kafka
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient

__all__ = ["SYSTEM", "Channel", "ConsumerClient", "Kafka", "ProducerClient"]

SAFE = {"nodes": 3, "replication_factor": 3, "min_insync_replicas": 2}
PRESETS = {
    "at-most-once": Preset(
        channel={"nodes": 3, "replication_factor": 3},
        producer={"acks": "0", "resend": None},
        service={"enable_auto_commit": False, "settle": "before", "auto_offset_reset": "earliest"},
    ),
    "at-least-once": Preset(
        channel=SAFE,
        producer={"acks": "all", "resend": {"timeout": None}},
        service={"enable_auto_commit": False, "settle": "after", "auto_offset_reset": "earliest"},
    ),
    "exactly-once": Preset(
        channel=SAFE,
        producer={"acks": "all", "resend": {"timeout": None}},
        service={
            "enable_auto_commit": False,
            "settle": "after",
            "auto_offset_reset": "earliest",
            "idempotence": {"store": "transaction"},
        },
    ),
}


def _check(channel: Channel, producers: Any, services: Any) -> str | None:
    if channel.replication_factor > channel.nodes:
        return (
            f"replication_factor {channel.replication_factor} needs as many nodes; there are {channel.nodes}"
        )
    return None


SYSTEM = System(
    name="kafka",
    title="Apache Kafka",
    Channel=Channel,
    ProducerClient=ProducerClient,
    ConsumerClient=ConsumerClient,
    presets=PRESETS,
    events=("appended",),
    build=Kafka,
    check=_check,
    roles=(),
    reports_in_doubt=True,
)
