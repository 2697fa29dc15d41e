"""Apache Kafka 4.x: a topic is a few append-only logs, and reading removes nothing."""

from __future__ import annotations

from typing import Any

from sim.brokers import Preset, System
from sim.brokers.kafka.settings import Channel, ConsumerClient, ProducerClient, complaint
from sim.brokers.kafka.topic import Topic
from sim.config import Config

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
        | {
            "settle": "after",
            "isolation_level": "read_committed",
            "transactional": None,  # where what it publishes lies on the same cluster: offsets and output commit as one
            "idempotence": {"store": "transaction"},  # and what it does in its database is done once
        },
    ),
}


def cluster_of(config: Config, channel: str) -> str | None:
    """The name of the cluster that a channel's topic lies on; None for a channel of another system."""
    settings = config.channels[channel].settings
    return (settings.cluster or channel) if isinstance(settings, Channel) else None


def _check_config(config: Config, name: str) -> str | None:
    owner = cluster_of(config, name)
    assert owner is not None
    if owner not in config.channels or cluster_of(config, owner) != owner:
        owners = [channel for channel in config.channels if cluster_of(config, channel) == channel]
        return f"cluster: {owner} is no Kafka channel with a cluster of its own; there is {', '.join(owners) or 'none'}"
    replicas, nodes = config.channels[name].settings.replication_factor, config.channels[owner].settings.nodes
    if replicas > nodes:
        return f"replication_factor {replicas} needs as many nodes; there are {nodes}"
    for service, consumer in config.services.items():
        if consumer.app.channel != name:
            continue
        if consumer.client.group_protocol == "share":
            wrong = [key for key in ("transactional", "hands_off") if getattr(consumer.client, key)]
            if consumer.client.auto_offset_reset == "none":
                wrong.append("auto_offset_reset: none")
            if wrong:
                return f"{service} is a share group: it has no {wrong[0]}"
        if consumer.client.transactional:
            publishes = consumer.app.publishes
            if publishes is None or cluster_of(config, publishes.channel) != owner:
                return f"{service} is transactional, so it must publish to a topic of the same cluster"
    return None


def _check(channel: Channel, producers: Any, services: Any) -> str | None:
    if channel.min_insync_replicas > channel.replication_factor:
        return (
            f"min_insync_replicas {channel.min_insync_replicas} can never be met "
            f"by a replication_factor of {channel.replication_factor}"
        )
    if channel.alter_partitions is not None and channel.alter_partitions <= channel.partitions:
        return f"alter_partitions {channel.alter_partitions} is no more than there are: partitions {channel.partitions}"
    if channel.ordering_scope == "key" and not any(p.app.keys for p in producers.values()):
        return "ordering_scope: key needs a producer with keys"
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
    check_config=_check_config,
    roles=("leader", "controller"),
    reports_in_doubt=True,
    defaults=Preset(producer=REPORTS),
)
