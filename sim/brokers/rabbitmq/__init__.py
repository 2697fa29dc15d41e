"""RabbitMQ 4.x: exchanges route to queues, and queues push to consumers.

A publish goes from the socket through the channel's process, which routes it, to the processes of queues; a delivery
goes from a queue through a channel to the consumer. Each of these is a buffer in order, and dies with its process.
What is safe depends on the type of the queue:

- a *classic* queue is one process on one node; it writes to the page cache and never waits for the disk (`classic`);
- a *quorum* queue is a Raft group; what is confirmed is on the disks of a majority (`quorum`, `replication`, `mesh`);
- a *stream* is a replicated log that reading does not empty (`stream`).

A publisher confirm says that the queues took the message, an acknowledgement that the queue may forget it, and neither
knows of the other. Duplicates arise where one of the two is in doubt.

Read in this order: `settings`, `client` (the applications' side), `channels` (the broker's side of a connection),
`broker` (routing and the cluster), `queue` and one of its types, `dead_letters`. Behaviours carry the ids R-01 ... of
the RabbitMQ sheet.
"""

from __future__ import annotations

from typing import Any

from sim.brokers import Preset, System
from sim.brokers.rabbitmq.broker import Broker
from sim.brokers.rabbitmq.settings import Channel, ConsumerClient, ProducerClient

__all__ = ["SYSTEM", "Broker", "Channel", "ConsumerClient", "ProducerClient"]

NOT_FOR_STREAMS = (
    "message_ttl",
    "expires",
    "max_length",
    "overflow",
    "delivery_limit",
    "delayed_retry_type",
    "dead_letter_exchange",
    "dead_letter_strategy",
    "is_delay_queue",
)
SAFE = {"queue_type": "quorum", "nodes": 3}
PRESETS = {
    "at-most-once": Preset(
        channel={"queue_type": "classic"},
        producer={"resend": None, "delivery_mode": "transient"},
        service={"ack": "auto"},
    ),
    "at-least-once": Preset(
        channel=SAFE,
        producer={"resend": {"timeout": None}},
        service={"ack": "manual", "settle": "after", "prefetch": 100},
    ),
    "exactly-once": Preset(
        channel=SAFE,
        producer={"resend": {"timeout": None}},
        service={
            "ack": "manual",
            "settle": "after",
            "prefetch": 100,
            "idempotence": {"store": "transaction"},
        },
    ),
}


def _check(channel: Channel, producers: Any, services: Any) -> str | None:
    clients = [*(p.client for p in producers.values()), *(s.client for s in services.values())]
    credits = channel.credit_flow_default_credit
    if len(credits) != 2 or credits[1] > credits[0]:
        return (
            "credit_flow_default_credit has a credit and what comes back of it at a time, such as [400, 200]"
        )
    if channel.queue_node > channel.nodes or (channel.dead_letter_node or 1) > channel.nodes:
        return f"there are {channel.nodes} nodes; queue_node and dead_letter_node must be among them"
    if any(client.node > channel.nodes for client in clients):
        return f"there are {channel.nodes} nodes; a client's node must be among them"
    if (
        channel.exchange == "default"
        and len(services) > 1
        and not any(p.app.keys for p in producers.values())
    ):
        return (
            "the default exchange routes to the queue named like the key; without keys use another exchange"
        )
    return _type_complaint(channel, services) or _client_complaint(channel, producers)


def _type_complaint(channel: Channel, services: Any) -> str | None:
    if channel.queue_type != "classic":
        if channel.exclusive or not channel.durable:
            return f"{channel.queue_type} queues are durable and not exclusive"
        if channel.max_priority is not None:
            return "max_priority is for classic queues; quorum queues know priorities 0 to 31 without it"
        if channel.overflow == "reject-publish-dlx":
            return "overflow: reject-publish-dlx is for classic queues"
    if channel.queue_type == "stream":
        for name, service in services.items():
            if service.app.consumers > 1 and not channel.single_active_consumer:
                return (
                    f"each consumer of a stream reads everything; {name} has {service.app.consumers}: "
                    "make them services of their own, or set single_active_consumer"
                )
            if service.client.ack == "auto":
                return "acks are credit for a stream; use ack: manual"
            if not service.client.prefetch:
                return f"{name}: RabbitMQ refuses consumers of a stream without a prefetch; set prefetch: 100"
        unknown = [name for name in NOT_FOR_STREAMS if getattr(channel, name) != getattr(Channel, name)]
        if unknown:
            return (
                f"RabbitMQ refuses to declare a stream with {', '.join(unknown)}; "
                "it keeps messages by max_length_bytes and max_age"
            )
    elif channel.max_age is not None:
        return "max_age is for streams; queues have message_ttl"
    if channel.dead_letter_strategy == "at-least-once" and channel.dead_letter_exchange == "none":
        return "dead_letter_strategy needs a dead_letter_exchange"
    if channel.cluster_partition_handling != "ignore" and channel.series != "4.2":
        return "cluster_partition_handling has no effect in series 4.3; use series: '4.2'"
    return None


def _client_complaint(channel: Channel, producers: Any) -> str | None:
    for name, producer in producers.items():
        client, app = producer.client, producer.app
        if client.transaction is not None and client.confirm_batch is not None:
            return f"{name}: transactions and publisher confirms exclude each other"
        if (client.transaction or client.confirm_batch) and app.resend is None:
            return f"{name}: a batch waits for answers, so it needs resend, such as resend: {{timeout: null}}"
        if client.publishing_ids and channel.queue_type != "stream":
            return f"{name}: publishing_ids are for streams; queues do not deduplicate"
    return None


SYSTEM = System(
    name="rabbitmq",
    title="RabbitMQ",
    Channel=Channel,
    ProducerClient=ProducerClient,
    ConsumerClient=ConsumerClient,
    presets=PRESETS,
    events=("publish", "put", "acked"),
    roles=("leader",),
    reports_in_doubt=True,
    build=Broker,
    check=_check,
)
