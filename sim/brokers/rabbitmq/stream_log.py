"""The log of a stream: replicated, appended to in chunks, read by any number of services, cut off by retention alone.

The leader gathers what arrives while it writes a chunk into the next one. A chunk is a command of the replicated log;
it is committed when a majority has written it (no fsync), and then its messages have offsets. What a service's readers
know of the log is in `stream`; how a log is replicated, in `replication`.

As in `quorum`, channels keep what they have published until it is applied, and send it again to a new leader.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.brokers.rabbitmq.causes import DEDUP_SWALLOWED, DISK_LOSS, POWER_LOSS, SOCKET_CUT
from sim.brokers.rabbitmq.replication import Command, ReplicatedLog

if TYPE_CHECKING:
    from sim.brokers.rabbitmq.channels import PublisherChannel
    from sim.brokers.rabbitmq.node import Node
    from sim.brokers.rabbitmq.stream import StreamQueue

PER_MESSAGE = 1e-6  # seconds of the leader per message or stored offset that it writes (sheet, section 4)
PER_CHUNK = 50e-6  # seconds of the leader per chunk


class Publish:
    """A publish that is not applied. `node` keeps it, and sends it to the leader; None once that node has crashed."""

    __slots__ = ("channel", "has_id", "has_left", "node")

    def __init__(self, node: Node, channel: PublisherChannel | None) -> None:
        self.node: Node | None = node
        self.channel = channel
        self.has_id = channel is not None and channel.client.settings.publishing_ids
        self.has_left = False


class Chunk:
    """What the leader wrote at once: copies, and offsets that readers store. Applied, it knows how to be undone."""

    def __init__(self, copies: list[int], offsets: list[tuple[StreamQueue, int]]) -> None:
        self.copies, self.offsets = copies, offsets
        self.start = self.start_before = 0  # the offsets of its first message, and of the chunk before
        self.appended: list[tuple[int, PublisherChannel | None]] = []
        self.offsets_before: list[tuple[StreamQueue, int]] = []
        self.ids_before: dict[int, int] = {}


class Segment:
    """A file of the log: whole chunks, and what retention goes by."""

    __slots__ = ("first", "newest", "size")

    def __init__(self, first: int) -> None:
        self.first = first  # offset of its first message
        self.size = 0  # bytes
        self.newest = 0.0  # when its last chunk was written (s)


class StreamLog:
    """A stream. `entrance` is the queue that routing knows it by: that of the first service that reads it.

    Offsets count from 0. `copies` are the messages from offset `first` to before `end`; what retention has dropped
    takes no memory.
    """

    def __init__(self, entrance: StreamQueue, node: Node) -> None:
        self.entrance, self.node = entrance, node
        self.broker, self.world, self.settings = entrance.broker, entrance.world, entrance.settings
        self.messages = entrance.messages
        self.readers: list[StreamQueue] = []
        # The replicated state, which is the same on every member that has applied as much:
        self.copies: array[int] = array("q")
        self.first = self.last_chunk = 0
        self.segments = deque([Segment(0)])
        self.size = 0  # bytes
        self._highest: dict[int, int] = {}  # the highest publishing id of each producer
        # In memory, of channels and of the leader:
        self._outbox: dict[int, Publish] = {}  # published and not applied, by copy
        self._gathered: list[int] = []
        self._offsets: list[tuple[StreamQueue, int]] = []
        self._is_writing = False
        self._era = 0
        # What other nodes know to be committed:
        self._seen: dict[Node, int] = {}
        broker = self.broker
        first = broker.nodes.index(node)
        members = [*broker.nodes[first:], *broker.nodes[:first]][: self.settings.initial_group_size]
        self.log = ReplicatedLog(
            broker.mesh,
            f"{broker.name}.{entrance.name}",
            members,
            fsync=False,
            apply=self._apply,
            on_leader=self._leader_changed,
            on_lost=self._lost,
            snapshot_size=lambda: len(self.copies),
        )

    @property
    def end(self) -> int:
        """The offset that the next message will have."""
        return self.first + len(self.copies)

    # -- from channels to the leader ---------------------------------------------------------------------------

    def submit(self, copy: int, node: Node, channel: PublisherChannel | None, at: float) -> None:
        """A channel on a node publishes at `at` (s): it keeps the message until it is applied, whoever leads."""
        self._outbox[copy] = publish = Publish(node, channel)
        if node is self.node:
            publish.has_left = True
            self._gather(copy, at)
        else:
            node.host.call_at(at, self._forward, copy)

    def _forward(self, copy: int) -> None:
        publish = self._outbox.get(copy)
        if publish is None or publish.node is None or self.log.leader is None:
            return  # done with, or waits for a leader
        publish.has_left = True
        self.broker.send(publish.node, self.node, self._arrives, copy, dropped=self._not_forwarded)

    def _arrives(self, copy: int) -> None:
        self._gather(copy, self.world.now)

    def _not_forwarded(self, copy: int) -> None:
        publish = self._outbox.get(copy)
        if publish is None:
            return
        publish.has_left = False  # until there is a connection again, or another leader
        if publish.node is None:
            self._drop(copy)

    def node_crashed(self, node: Node) -> None:
        """What a dead node had not handed over is lost; it answers nobody."""
        for copy, publish in list(self._outbox.items()):
            if publish.node is node:
                publish.node = publish.channel = None
                if not publish.has_left:
                    self._drop(copy)

    def _drop(self, copy: int) -> None:
        del self._outbox[copy]
        for reader in self.readers:
            reader.pairs.died(copy, SOCKET_CUT)

    def is_pending(self, copy: int) -> bool:
        """Whether a publish is not applied yet."""
        return copy in self._outbox

    def pending(self) -> Iterator[int]:
        """Copies that were published and are not applied yet."""
        yield from self._outbox

    # -- at the leader -----------------------------------------------------------------------------------------

    def take_offset(self, reader: StreamQueue, offset: int) -> None:
        """R-40: a consumer stores an offset. Nobody answers it, and nobody sends it again."""
        if self.log.leader is self.node:
            self._offsets.append((reader, offset))
            self._write_at(self.world.now)

    def _gather(self, copy: int, at: float) -> None:
        if self.log.leader is self.node:
            self._gathered.append(copy)
            self._write_at(at)

    def _write_at(self, at: float) -> None:
        if not self._is_writing:
            self._is_writing = True
            self.node.host.call_at(at, self._write, self._era)

    def _write(self, era: int) -> None:
        """A chunk is what has gathered while the last one was being written."""
        if era != self._era:
            return
        copies, self._gathered = self._gathered, []
        offsets, self._offsets = self._offsets, []
        host = self.node.host
        seconds = PER_CHUNK + PER_MESSAGE * (len(copies) + len(offsets))
        host.work(seconds * host.slowness, self._written, era, Chunk(copies, offsets))

    def _written(self, era: int, chunk: Chunk) -> None:
        if era != self._era:
            return
        self.log.propose((chunk,))
        if self._gathered or self._offsets:
            self._write(era)
        else:
            self._is_writing = False

    # -- committed ---------------------------------------------------------------------------------------------

    def _apply(self, command: Command) -> None:
        """R-05: a majority has written the chunk: its messages have offsets, and are confirmed."""
        chunk: Chunk = command[0]
        chunk.start, chunk.start_before = self.end, self.last_chunk
        applied = []
        for copy in chunk.copies:
            publish = self._outbox.pop(copy, None)
            if publish is None:
                continue  # sent again to another leader, and applied already
            if publish.has_id and self._is_repeat(copy, chunk):
                self._swallow(copy)
            else:
                self.copies.append(copy)
                chunk.appended.append((copy, publish.channel))
                for reader in self.readers:
                    reader.put(copy)
            if publish.channel is not None:
                applied.append((copy, publish.channel))
        if chunk.appended:
            self.last_chunk = chunk.start
            self._file(chunk)
        for reader, offset in chunk.offsets:
            chunk.offsets_before.append((reader, reader.stored))
            reader.store(offset)
        for copy, channel in applied:
            self._answer(copy, channel)
        if chunk.appended:
            for reader in self.readers:
                reader.grown()
            for node in self._nodes_that_read():
                self.tell_end(node)

    def _is_repeat(self, copy: int, chunk: Chunk) -> bool:
        """R-40: the id of a message is its number, the same in all its copies; only a higher one than any before of
        its producer is stored."""
        message = self.messages.message_of(copy)
        producer = self.messages.producer[message]
        highest = self._highest.get(producer, -1)
        if message <= highest:
            return True
        chunk.ids_before.setdefault(producer, highest)
        self._highest[producer] = message
        return False

    def _swallow(self, copy: int) -> None:
        """R-40: confirmed, not stored. Of a message that was stored before, the death of one more copy is no news."""
        message = self.messages.message_of(copy)
        for reader in self.readers:
            if (at := reader.pairs.stored_at[message]) != at:  # NaN: never
                reader.pairs.died(copy, DEDUP_SWALLOWED)

    def _answer(self, copy: int, channel: PublisherChannel) -> None:
        self.broker.send(self.node, channel.node, self._relay, copy, channel)

    def _relay(self, copy: int, channel: PublisherChannel) -> None:
        if copy in channel.pending:  # else it has ended meanwhile
            channel.took(copy, self.world.now, self.entrance)

    # -- retention ---------------------------------------------------------------------------------------------

    def _file(self, chunk: Chunk) -> None:
        """R-39: a chunk goes to the last segment, or begins a new one; only then are old segments looked at."""
        segment = self.segments[-1]
        is_new = segment.size >= self.settings.max_segment_size_bytes
        if is_new:
            segment = Segment(chunk.start)
            self.segments.append(segment)
        size = sum(self.messages.size_of(copy) for copy, _ in chunk.appended)
        segment.size += size
        segment.newest = self.world.now
        self.size += size
        if is_new:
            self._retain()

    def _retain(self) -> None:
        """R-39: drop whole segments that are too many or too old, never the last one."""
        segments, limit, age = self.segments, self.settings.max_length_bytes, self.settings.max_age
        while len(segments) > 1:
            is_over = limit is not None and self.size > limit
            if not is_over and (age is None or segments[0].newest >= self.world.now - age):
                break
            self.size -= segments.popleft().size
        first = segments[0].first
        if first > self.first:
            for reader in self.readers:
                reader.dropped_before(first)
            del self.copies[: first - self.first]
            self.first = first

    # -- what readers on other nodes see -----------------------------------------------------------------------

    def seen_at(self, node: Node) -> int:
        """The end of what a node knows to be committed."""
        return self.end if node is self.node else min(self._seen.get(node, 0), self.end)

    def tell_end(self, node: Node) -> None:
        """The leader tells a node how far the log is committed. Without a leader, a node knows what it has.

        The data themselves were replicated before that, so what a reader at the node may read is there. (A node that
        has no replica is treated alike; in RabbitMQ nobody can read there.)
        """
        if self.log.leader is None:
            self._hear(node, self.end)
        else:
            self.broker.send(self.node, node, self._hear, node, self.end)

    def _hear(self, node: Node, end: int) -> None:
        self._seen[node] = end
        for reader in self.readers:
            if reader.active is not None and reader.active.node is node:
                reader.dispatch()

    def _nodes_that_read(self) -> list[Node]:
        """Nodes besides the leader's with an active consumer."""
        nodes = dict.fromkeys(reader.active.node for reader in self.readers if reader.active is not None)
        nodes.pop(self.node, None)
        return list(nodes)

    # -- leaders come and go -----------------------------------------------------------------------------------

    def greet(self, node: Node) -> None:
        """The leader's node and another are connected again: what was lost between them is said again."""
        if self.log.leader is None:
            return
        for copy, publish in list(self._outbox.items()):
            if publish.node is node and not publish.has_left:
                self._forward(copy)
        for channel in node.channels:
            channel.leader_changed(self.entrance)
        if node in self._nodes_that_read():
            self.tell_end(node)

    def _leader_changed(self, leader: Node | None) -> None:
        """R-26: channels on live nodes send again what was not applied, and ask again for what they did not hear."""
        self._era += 1  # what the old one was writing is not heard of any more
        self._gathered, self._offsets, self._is_writing = [], [], False
        if leader is None:
            return
        if leader is not self.node:
            self.node = leader
            for reader in self.readers:
                reader.move_to(leader)
        in_log = {copy for command in self.log.uncommitted() for copy in command[0].copies}
        for copy, publish in list(self._outbox.items()):
            if copy in in_log:
                continue
            if publish.node is None:  # it died with its channel's node, which nobody speaks for
                self._drop(copy)
            else:
                self._forward(copy)
        for node in self.broker.nodes:
            for channel in node.channels:
                channel.leader_changed(self.entrance)
        for node in self._nodes_that_read():
            self.tell_end(node)
        for reader in self.readers:
            reader.dispatch()

    def _lost(self, commands: list[Command] | None) -> None:
        """R-22, R-23: a majority has lost its page cache, or its disks: what was committed is gone, from the end on."""
        if commands is None:
            self._lost_everything()
            return
        start = self.end
        for command in reversed(commands):
            chunk: Chunk = command[0]
            start, self.last_chunk = chunk.start, chunk.start_before
            for reader, offset in reversed(chunk.offsets_before):
                reader.stored = offset
            self._highest.update(chunk.ids_before)
        self._cut(max(start, self.first), POWER_LOSS)
        for command in commands:
            for copy, channel in command[0].appended:
                if channel is not None and copy in channel.pending:
                    # RabbitMQ's channel would send it again; here that is left to the publisher.
                    channel.refused(copy, self.world.now, self.entrance)

    def _lost_everything(self) -> None:
        """The stream is declared anew, empty."""
        for reader in self.readers:
            reader.stored = -1
        self._highest.clear()
        self.last_chunk = 0
        self._cut(self.first, DISK_LOSS)
        self.first = self.segments[-1].first = 0
        for reader in self.readers:
            reader.position = 0

    def _cut(self, start: int, cause: int) -> None:
        """Cut off the end of the log from an offset on."""
        for reader in self.readers:
            reader.lost_from(start, cause)
        for copy in self.copies[start - self.first :]:
            self.size -= self.messages.size_of(copy)
        del self.copies[start - self.first :]
        while len(self.segments) > 1 and self.segments[-1].first >= start:
            self.segments.pop()
        self.segments[-1].first = min(self.segments[-1].first, start)
        self.segments[-1].size = self.size - sum(segment.size for segment in list(self.segments)[:-1])
        for reader in self.readers:
            if reader.active is None:
                reader.grown()  # an offset may be stored no more
