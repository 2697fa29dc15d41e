"""Kafka, partitions added to a topic in use: the second half of K-02, and who hears of them when.

A topic of two partitions gets four at 10 s, ten records a second come from 5.1 s on, and half of the keys move.
"""

from __future__ import annotations

from typing import Any

import pytest

from sim.brokers.kafka.partitioner import partition_of
from sim.explain import explain
from sim.scenario.errors import ScenarioError
from tests.conformance.builders import Story
from tests.conformance.kafka import RF3, Driven, at, at_once, books, kafka, scenario

GROWS_AT = 10.0
GROWING = {"partitions": 2, "alter_partitions": 4, "alter_at": GROWS_AT}
KEYS = {"number": 40}
ROUND_TRIPS, FETCH_WAIT = 0.1, 0.5  # seconds
HEARTBEAT, HEARTBEAT_848 = 3.0, 5.0

EAGER = {"partition_assignment_strategy": "range"}
COOPERATIVE = {"partition_assignment_strategy": "cooperative-sticky"}
KIP_848 = {"group_protocol": "consumer"}
SHARE = {"group_protocol": "share"}


def growing(
    channel: dict[str, Any] | None = None,
    producer: dict[str, Any] | None = None,
    service: dict[str, Any] | None = None,
    **top: Any,
) -> Story:
    """A topic that grows, with a producer that hears of it within 2 s and four consumers that have no lag."""
    return kafka(
        channel={**GROWING, **(channel or {})},
        producer={"keys": KEYS, "metadata_max_age": 2.0, **(producer or {})},
        service={"consumers": 4, **(service or {})},
        **{"messages": 200, **top},
    )


def partitions(told: Story) -> list[int]:
    """The partition of each message."""
    scopes = books(told).scopes
    assert scopes is not None
    return scopes[: len(books(told))].tolist()


def heard_at(told: Story) -> float:
    """When the first record went to a new partition (s)."""
    return min(books(told).created[i] for i, partition in enumerate(partitions(told)) if partition > 1)


def read_at(told: Story) -> float:
    """When the first record of a new partition came to a consumer (s)."""
    new = {i for i, partition in enumerate(partitions(told)) if partition > 1}
    return min(event.time for event in told.events("delivered") if event.message in new)


# -- producers ------------------------------------------------------------------------------------------------------


def test_K02_a_producer_sends_by_the_partitions_that_it_knows_of():
    told = growing(producer={"metadata_max_age": 3.0})
    keys, created = [books(told).key_of(i) for i in range(200)], books(told).created
    # It asks with its first record, at 5.1 s, and with the first one 3 s after each answer: at 8.2 and at 11.3 s.
    assert 11.3 < heard_at(told) < 11.6
    for i, partition in enumerate(partitions(told)):
        assert partition == partition_of(keys[i], 4 if created[i] >= heard_at(told) else 2)


def test_K02_without_keys_the_new_partitions_get_their_share():
    told = growing(channel={"ordering_scope": "partition"}, producer={"keys": None}, messages=400)
    later = [p for i, p in enumerate(partitions(told)) if books(told).created[i] > 12.5]
    assert len(later) > 300
    for partition in range(4):  # one in four: each record is a batch, and goes where chance has it
        assert abs(later.count(partition) - len(later) / 4) < 4 * (len(later) * 3 / 16) ** 0.5 * 4


def test_K02_a_topic_of_one_partition_grows_as_well():
    told = growing(channel={"partitions": 1})
    assert set(partitions(told)[:40]) == {0} and set(partitions(told)[100:]) == {0, 1, 2, 3}


def test_K02_a_new_process_knows_all_partitions():
    """Its first records come before it is connected, and wait until it knows where to."""
    fault = {"crash": "shop", "at": 9.95, "lasting": 1.049}
    told = growing(producer={**at_once(20, 11.0), "metadata_max_age": 300.0}, faults=[fault], messages=20)
    assert partitions(told) == [partition_of(books(told).key_of(i), 4) for i in range(20)]
    assert heard_at(told) == 11.0


# -- order ----------------------------------------------------------------------------------------------------------


def lagging(**channel: Any) -> Story:
    """Two consumers do four records a second each, of ten that come; two more have nothing to do until it grows."""
    return growing(channel, service={**KIP_848, "service_time": 0.25, "max_poll_records": 1})


def test_K02_the_order_of_a_key_is_broken_across_the_change():
    told = lagging(ordering_scope="key")
    assert told["out_of_order"] > 0 and set(told.causes) == {("reordered", "overtaken")}
    late = [message for _, message in told.anomalies["reordered", "overtaken"]]
    keys = [books(told).key_of(message) for message in late]
    assert all(partition_of(key, 2) != partition_of(key, 4) for key in keys)
    change = heard_at(lagging(ordering_scope="partition"))  # the same world
    assert all(books(told).created[message] < change for message in late)
    assert lagging(ordering_scope="key", alter_partitions=None)["out_of_order"] == 0


@pytest.mark.parametrize(("scope", "said"), [("key", "producer and key"), ("topic", "producer")])
def test_why_says_within_what_a_message_was_overtaken(scope: str, said: str):
    world = scenario(
        channel={**GROWING, "ordering_scope": scope},
        producer={"keys": KEYS, "metadata_max_age": 2.0},
        service={"consumers": 4, **KIP_848, "service_time": 0.25, "max_poll_records": 1},
        messages=200,
    )
    assert f"a later message of the same {said}, at" in explain(world, anomaly="reordered").summary


def test_K04_within_a_partition_nothing_is_overtaken_all_the_same():
    assert lagging(ordering_scope="partition")["out_of_order"] == 0
    assert lagging(ordering_scope="topic")["out_of_order"] > lagging(ordering_scope="key")["out_of_order"]


# -- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [EAGER, COOPERATIVE], ids=["range", "cooperative-sticky"])
def test_K02_a_classic_group_hears_of_new_partitions_as_its_leader_does(strategy: dict[str, Any]):
    told = growing(service={**strategy, "metadata_max_age": 14.0})
    assert heard_at(told) < 12.5
    # The leader asks at 14 s and joins again; the others hear of that with their heartbeats.
    assert 14.0 < read_at(told) < 14.0 + HEARTBEAT + FETCH_WAIT + ROUND_TRIPS
    assert told["lost"] == told["duplicates"] == told["out_of_order"] == 0 and told["unique"] == 200


def test_K02_a_leader_shares_out_what_it_knows_of():
    """A rebalance meanwhile, for a member that leaves and comes back, changes nothing."""
    told = growing(
        service={"metadata_max_age": 14.0}, faults=[{"stop": "billing.2", "at": 11.0, "lasting": 1.0}]
    )
    assert 14.0 < read_at(told) < 14.0 + HEARTBEAT + FETCH_WAIT + ROUND_TRIPS
    assert told["lost"] == 0 and told["unique"] == 200


def test_K02_a_group_that_only_waits_hears_of_them_too():
    world = Driven(
        channel=GROWING,
        producer=at(30.0),
        service={"consumers": 2, "metadata_max_age": 7.0},
        messages=1,
    )
    (group,) = world.broker.groups
    world.run(14.0)
    assert sorted(len(client.assigned) for client in group.clients) == [1, 1]
    world.run(14.0 + HEARTBEAT + ROUND_TRIPS)
    assert sorted(len(client.assigned) for client in group.clients) == [2, 2]


def test_K02_a_group_of_KIP_848_hears_of_them_from_its_coordinator():
    told = growing(service=KIP_848)  # metadata.max.age.ms is 5 min
    assert heard_at(told) < read_at(told) < GROWS_AT + HEARTBEAT_848 + FETCH_WAIT + ROUND_TRIPS
    assert told["lost"] == told["duplicates"] == told["out_of_order"] == 0 and told["unique"] == 200


def test_K02_a_share_group_reads_them_too():
    told = growing(service=SHARE)
    assert heard_at(told) < read_at(told) < GROWS_AT + HEARTBEAT_848 + FETCH_WAIT + ROUND_TRIPS
    assert told["lost"] == 0 and told["unique"] == 200


@pytest.mark.parametrize(
    ("protocol", "asks_at"), [(EAGER, 14.0), (KIP_848, GROWS_AT)], ids=["classic", "KIP-848"]
)
def test_K02_with_latest_a_group_never_sees_what_came_before_it_had_heard(
    protocol: dict[str, Any], asks_at: float
):
    # KIP-848: the first answer to a member's heartbeat after the change comes before the first record.
    told = growing(service={**protocol, "metadata_max_age": 14.0, "auto_offset_reset": "latest"})
    place = told.places()
    first = place.index("unique")  # the group was formed then
    gone = [i for i in range(first, 200) if place[i] == "lost"]
    assert all(partitions(told)[i] > 1 for i in gone)
    assert all(books(told).created[i] < asks_at + HEARTBEAT + ROUND_TRIPS for i in gone)
    if protocol is EAGER:  # about 2 s at 10/s, half of them to new partitions
        assert len(gone) > 5 and told.causes == {("lost", "offset_reset_latest"): first + len(gone)}
        for new in (2, 3):  # the first of each
            mine = [i for i, partition in enumerate(partitions(told)) if partition == new]
            lost = [i for i in mine if i in gone]
            assert mine[: len(lost)] == lost


# -- when something is down -----------------------------------------------------------------------------------------


def test_K02_without_a_controller_nobody_adds_a_partition():
    told = growing(
        channel=RF3, service=KIP_848, faults=[{"crash": "orders.controller", "at": 9.0, "lasting": 6.0}]
    )
    assert 15.0 < heard_at(told) < 17.5
    assert told["lost"] == 0 and told["unique"] == 200


def test_K02_a_broker_that_is_down_leads_none_of_them_and_joins_later():
    world = Driven(
        channel={**RF3, **GROWING, "alter_partitions": 5},
        producer={"keys": KEYS, "metadata_max_age": 2.0},
        faults=[{"crash": "orders.3", "at": 0.5, "lasting": 25.0}],
        messages=400,
    )
    first, second, third = world.cluster.brokers
    world.run(GROWS_AT + ROUND_TRIPS)
    new = world.broker.partitions[2:]
    assert [p.replicas[0] for p in new] == [third, first, second]
    assert [p.leader for p in new] == [first, first, second]
    assert all(third not in p.isr for p in new)
    world.run(44.0)
    assert all(third in p.isr for p in new)
    for partition in new:
        lengths = {broker.logs[partition].end for broker in partition.replicas}
        assert len(lengths) == 1 and lengths != {0}


def test_K02_a_new_coordinator_has_heard_of_them_as_well():
    """The one that a group had is gone for good before it could tell anybody."""
    told = growing(
        channel=RF3,
        service={**KIP_848, "consumers": 4},
        faults=[{"crash": "orders.1", "at": 9.9}],
        messages=300,
    )
    assert told["lost"] == 0 and told["unique"] == 300
    assert {1, 2, 3} < set(partitions(told))


# -- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_K02_a_topic_never_shrinks(count: int):
    with pytest.raises(
        ScenarioError, match=rf"alter_partitions {count} is no more than there are: partitions 2"
    ):
        scenario(channel={**GROWING, "alter_partitions": count})


def test_order_by_key_needs_keys():
    with pytest.raises(ScenarioError, match="ordering_scope: key needs a producer with keys"):
        scenario(channel={"ordering_scope": "key"})
    assert kafka(channel={"ordering_scope": "key"}, producer={"keys": KEYS})["out_of_order"] == 0
