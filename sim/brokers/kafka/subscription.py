"""What a consumer reads: its partitions, its positions in them, and what it has fetched and not polled yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sim.brokers.kafka.causes import NEVER_SEEN, RESET_EARLIEST
from sim.brokers.kafka.coordinator import CoordinatorLink
from sim.brokers.kafka.fetching import DIVERGED, LISTED, RESET, Fetched, FetchSession
from sim.brokers.kafka.log import ABORT
from sim.brokers.kafka.metadata import RETRY_BACKOFF, Metadata
from sim.brokers.kafka.offsets import Positions
from sim.brokers.kafka.replication import NOT_LEADER, Partition
from sim.brokers.kafka.settings import ConsumerClient
from sim.host import Host

if TYPE_CHECKING:
    from sim.brokers.kafka.broker import Broker
    from sim.brokers.kafka.group import Group
    from sim.brokers.kafka.topic import Topic

Record = tuple[Partition | None, int, int]  # partition (None: it is another's by now), offset, copy


class Subscription:
    """The fetching side of a consumer."""

    coordinator: CoordinatorLink
    settings: ConsumerClient

    def __init__(self, topic: Topic, host: Host, group: Group, settings: ConsumerClient) -> None:
        self.topic, self.world, self.host = topic, topic.world, host
        self.group, self.pairs, self.settings = group, group.pairs, settings
        self.start_empty()
        self.sessions = {broker: FetchSession(self, broker) for broker in topic.cluster.brokers}
        self.metadata = Metadata(
            host,
            topic,
            {broker: session.connection for broker, session in self.sessions.items()},
            settings.metadata_max_age,
            self.fetch_all,
            self.grown,
        )
        self.world.in_background(settings.metadata_max_age, self._refresh_metadata)

    def start_empty(self) -> None:
        """A process begins."""
        self.assigned: dict[Partition, None] = {}
        self.fetch_from: Positions = {}
        self.position: Positions = {}
        self.committed: Positions = {}
        self.epochs: dict[Partition, int] = {}  # leader epochs of the records last fetched
        self.polled_epochs: dict[Partition, int] = {}  # and last polled: they go with commits (KIP-320)
        self.buffer: deque[Fetched] = deque()  # fetched, not polled
        self.buffered: dict[Partition, None] = {}
        # Polled, and to be tried again: with the position of the partition then.
        self.kept: dict[Partition, tuple[list[Record], int]] = {}
        self.leaderless: dict[Partition, None] = {}  # whose leader has said that it is none
        self._reset_from: Positions = {}  # for the books: offsets below were read before a reset

    # -- what the poll loop does -------------------------------------------------------------------------------

    def look_at_buffer(self) -> None:
        """There may be something in the buffer."""
        raise NotImplementedError

    def raise_error(self) -> None:
        """No offset to go on from."""
        raise NotImplementedError

    def grown(self, partition: Partition) -> None:
        """The topic has one more partition."""
        raise NotImplementedError

    # -- partitions come and go --------------------------------------------------------------------------------

    def take_over(self, partitions: list[Partition]) -> None:
        """These partitions are this member's from now on: ask for their offsets."""
        if partitions:
            self.assigned.update(dict.fromkeys(partitions))
            self.metadata.ask_for(partitions)
            self.coordinator.ask(self.group.fetch_offsets, partitions, then=self._offsets_told)

    def forget(self, partitions: list[Partition]) -> dict[Partition, None]:
        """These partitions are another's: forget what was fetched of them. Returns them."""
        gone = dict.fromkeys(partitions)
        for partition in partitions:
            self.assigned.pop(partition, None)
            self.buffered.pop(partition, None)
            self.kept.pop(partition, None)
            for known in (self.fetch_from, self.position, self.committed, self.epochs, self.polled_epochs):
                known.pop(partition, None)
        self.buffer = deque(part for part in self.buffer if part.partition not in gone)
        return gone

    def _offsets_told(self, offsets: dict[Partition, tuple[int, int] | None]) -> None:
        """K-40: start from the committed offset, or from where auto.offset.reset says."""
        for partition, found in offsets.items():
            if partition not in self.assigned or partition in self.fetch_from:
                continue
            if found is None:
                self._reset(partition, 0)
            else:
                offset, self.epochs[partition] = found
                self.polled_epochs[partition] = found[1]
                self.fetch_from[partition] = self.position[partition] = self.committed[partition] = offset
                self.group.reads_from(partition, offset)
        self.fetch_all()

    def _reset(self, partition: Partition, read_before: int) -> None:
        """K-40: no valid offset: ask the leader where to begin, or raise NoOffsetForPartition."""
        self.position.pop(partition, None)
        self.epochs.pop(partition, None)
        self.polled_epochs.pop(partition, None)
        if self.settings.auto_offset_reset == "none":
            self.fetch_from.pop(partition, None)
            self.raise_error()
        else:
            self.fetch_from[partition] = RESET
            self._reset_from[partition] = read_before

    def _begin_at(self, partition: Partition, offset: int) -> None:
        """The leader's answer to that. Of what is skipped the books hear why."""
        self.fetch_from[partition] = self.position[partition] = offset
        self.group.reads_from(partition, offset)
        log = partition.log()
        if self.settings.auto_offset_reset == "latest":
            for copy in log.read(max(log.start, self._reset_from[partition]), offset):
                if copy > ABORT:
                    self.pairs.died(copy, NEVER_SEEN)
        elif (self.group.name, partition) in self.group.offsets.ever:
            self.group.cause_of_rewind[partition] = RESET_EARLIEST  # there was one before

    # -- fetching ----------------------------------------------------------------------------------------------

    def fetch_all(self) -> None:
        """Ask the leaders for what is not buffered."""
        metadata = self.metadata
        if self.world.now >= metadata.expires_at:
            metadata.refresh()
        for session in self.sessions.values():
            session.fetch()

    def _refresh_metadata(self) -> None:
        """metadata.max.age.ms, for one that waits (K-31)."""
        wait = self.metadata.expires_at - self.world.now
        if wait <= 0:
            wait = RETRY_BACKOFF
            if self.host.is_running:
                self.metadata.refresh()
                wait = self.settings.metadata_max_age
        self.world.in_background(wait, self._refresh_metadata)

    def positions_to_fetch(self, broker: Broker) -> dict[Partition, tuple[int, int]]:
        """Offset, and leader epoch of the record before it, of each partition to ask a broker for."""
        leaders, buffered, epochs = self.metadata.leaders, self.buffered, self.epochs
        for partition in buffered:
            if leaders[partition] is broker and partition not in self.kept:
                return {}
        asked = {}
        for partition, offset in self.fetch_from.items():
            if leaders[partition] is broker and partition not in buffered:
                asked[partition] = (offset, epochs.get(partition, -1))
        for partition in self.leaderless:
            asked.pop(partition, None)
        return asked

    def fetched(self, part: Fetched) -> None:
        """Records of a fetch response."""
        partition, fetch_from = part.partition, self.fetch_from
        if fetch_from.get(partition) != part.start:
            return  # the partition was revoked meanwhile, or its position moved
        self.epochs[partition] = part.epoch
        known = self.group.delivered_to.get(partition, 0)
        if part.start < known:
            self._delivered_before(part, known)
        if self.group.cut:
            self._brought_back(part)
        delivered = self.pairs.delivered
        for copy in part.records:
            if copy > ABORT:
                delivered(copy)
        end = part.start + len(part.records)
        if end > known:
            self.group.delivered_to[partition] = end
        self.buffer.append(part)
        self.buffered[partition] = None
        del fetch_from[partition]  # to the end: the others come first in the next fetch
        fetch_from[partition] = end

    def _delivered_before(self, part: Fetched, known: int) -> None:
        """For the books: in place of records that some member has had already, the copies that these are."""
        redelivered = self.group.redelivered
        for i in range(min(len(part.records), known - part.start)):
            if part.records[i] > ABORT:
                part.records[i] = redelivered(part.partition, part.records[i])

    def _brought_back(self, part: Fetched) -> None:
        """The same for records that no leader had meanwhile."""
        for i, copy in enumerate(part.records):
            if copy in self.group.cut:
                del self.group.cut[copy]
                part.records[i] = self.group.redelivered(part.partition, copy)

    def fetch_failed(self, part: Fetched) -> None:
        """A partition in a fetch response could not be read."""
        partition = part.partition
        if part.error == NOT_LEADER:
            if partition not in self.leaderless:
                self.leaderless[partition] = None  # it is not asked for until the back-off is over
                self.host.call_later(RETRY_BACKOFF, self._look_for_leader, partition)
        elif partition not in self.fetch_from:
            return
        elif part.error == LISTED:
            if self.fetch_from[partition] == RESET:
                self._begin_at(partition, part.start)
                self.epochs[partition] = self.polled_epochs[partition] = part.epoch
        elif part.error != DIVERGED:  # K-40, K-41
            known = self.group.delivered_to.get(partition, 0)  # less, if the log was cut off
            self._reset(partition, min(known, self.position.get(partition, 0)))
        elif self.settings.auto_offset_reset == "none":  # LogTruncation
            self.raise_error()
        else:
            self.fetch_from[partition] = self.position[partition] = part.start
            self.group.reads_from(partition, part.start)
            self.epochs[partition] = self.polled_epochs[partition] = part.epoch

    def _look_for_leader(self, partition: Partition) -> None:
        self.leaderless.pop(partition, None)
        self.metadata.refresh()
        self.fetch_all()
