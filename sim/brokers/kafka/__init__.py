"""Apache Kafka 4.x: a topic is a few append-only logs, and reading removes nothing."""

from __future__ import annotations

from typing import Any

from sim.brokers import Preset, System
from sim.brokers.kafka.producer import complaint
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient
from sim.brokers.kafka.topic import Topic

__all__ = ["SYSTEM", "Channel", "ConsumerClient", "ProducerClient", "Topic"]

REPORTS = {"resend": {"timeout": None}}  # the library retries by itself; the application hears how it ended
SAFE_TOPIC = {"nodes": 3, "replication_factor": 3, "min_insync_replicas": 2}
COMMITS_ITSELF = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
PRESETS = {
    "at-most-once": Preset(
        channel={"nodes": 3, "replication_factor": 3},
        producer={"acks": "0", "resend": None},
        service=COMMITS_ITSELF | {"settle": "before"},
    ),
    "at-least-once": Preset(
        channel=SAFE_TOPIC,
        producer=REPORTS | {"acks": "all"},
        service=COMMITS_ITSELF | {"settle": "after"},
    ),
    "exactly-once": Preset(
        channel=SAFE_TOPIC,
        producer=REPORTS | {"acks": "all"},
        service=COMMITS_ITSELF
        | {"settle": "after", "isolation_level": "read_committed", "idempotence": {"store": "transaction"}},
    ),
}


def _check(channel: Channel, producers: Any, services: Any) -> str | None:
    if channel.cluster is None and channel.replication_factor > channel.nodes:
        return (
            f"replication_factor {channel.replication_factor} needs as many nodes; there are {channel.nodes}"
        )
    complaints = (f"producer {name}: {c}" for name, p in producers.items() if (c := complaint(p.client)))
    return next(complaints, None)


SYSTEM = System(
    name="kafka",
    title="Apache Kafka",
    Channel=Channel,
    ProducerClient=ProducerClient,
    ConsumerClient=ConsumerClient,
    presets=PRESETS,
    events=("appended",),
    build=Topic,
    check=_check,
    roles=("leader", "controller"),
    reports_in_doubt=True,
    defaults=Preset(producer=REPORTS),
)
