"""The broker's process: queues in memory, a journal on disk, a session for each consumer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sim.apps import HANDLER_FAILED
from sim.brokers.textbook.causes import (
    ACK_LATE,
    ATTEMPTS_SPENT,
    BROKER_RESTARTED,
    CONFIRM_LATE,
    CONSUMER_GONE,
    DISK_LOST,
    DROPPED_HEAD,
    DROPPED_TAIL,
    MEMORY_LOST,
    PARKED,
    QUEUE_FULL,
    SWALLOWED,
    UNROUTABLE,
    UNSYNCED_LOST,
)
from sim.brokers.textbook.client import ConsumerClientLibrary, ProducerClientLibrary
from sim.brokers.textbook.settings import Channel, ConsumerClient, ProducerClient
from sim.consuming import Worker
from sim.kernel import Timeouts
from sim.ledger import Pairs
from sim.producing import Sender
from sim.routing import matcher
from sim.storage import Disk, Journal

if TYPE_CHECKING:
    from sim.simulation import Simulation


LOST_WITH = {"process": MEMORY_LOST, "machine": UNSYNCED_LOST, "disk": DISK_LOST}


class Broker:
    """The broker's process: its queues in memory, its journal on disk, its clients' sessions."""

    def __init__(self, sim: Simulation, name: str, settings: Channel) -> None:
        self.sim, self.world, self.name, self.settings = sim, sim.world, name, settings
        self.host = sim.network.host(name)
        self.messages = sim.ledger.channel(name)
        self.messages.late = CONFIRM_LATE
        self.queues: list[Queue] = []
        self.producers: list[ProducerClientLibrary] = []
        self.journal: Journal[tuple[str, int]] | None = None
        if settings.storage == "disk":
            self.journal = Journal(Disk(self.host, settings.fsync))
        self.accepted: set[int] = set()  # numbers it has accepted, for producers that number their messages
        self._flush_due = False
        self._unsynced: list[tuple[str, int]] = []
        self.callers: dict[int, tuple[ProducerClientLibrary, int]] = {}
        self.host.residents.append(self)

    def publish(self, copy: int, client: ProducerClientLibrary) -> None:
        """A message arrives. It is routed, stored, and acked once it is as safe as the settings ask for."""
        if client.settings.sequence_numbers and self.is_known(copy, client):
            return
        queues = self.queues if self.settings.pattern != "exchange" else self.route(copy)
        if self.settings.max_length is not None:
            queues = self._with_room(queues, copy, client)
            if not queues:
                return
        self.accept(copy, client, queues)

    def accept(self, copy: int, client: ProducerClientLibrary, queues: list[Queue]) -> None:
        """Store a message in its queues, and see to its ack."""
        journal = self.journal
        if client.settings.sequence_numbers:
            self.accepted.add(self.messages.message_of(copy))
        if self.settings.acknowledges == "processed" and client.wants_confirms:
            self.callers[self.messages.message_of(copy)] = (client, copy)
        elif client.wants_confirms and (journal is None or self.settings.sync != "before_ack"):
            client.confirm(copy)
        if journal is not None:
            for queue in queues:
                journal.add((queue.name, copy))
            if self.settings.sync == "before_ack":
                journal.sync(self._synced, copy, client)  # D.4: the ack waits for the device
            else:
                self._flush_later()
        for queue in queues:
            queue.put(copy)

    def _synced(self, is_ok: bool, copy: int, client: ProducerClientLibrary) -> None:
        if is_ok or self.settings.on_fsync_failure == "ignore":
            if client.wants_confirms and self.messages.message_of(copy) not in self.callers:
                client.confirm(copy)
        elif self.host.is_up:
            self.world.call_later(1.0, self.host.restart)
            self.host.crash()  # a broker that cannot know what is on its disk starts again from it

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            interval = self.settings.flush_interval if self.settings.sync == "periodic" else 30.0
            self.host.call_later(interval, self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        assert self.journal is not None
        self.journal.sync(lambda is_ok: None)

    def is_known(self, copy: int, client: ProducerClientLibrary) -> bool:
        """H.12: a number that it has accepted is dropped and acked again, once what it stands for is safe."""
        message = self.messages.message_of(copy)
        if message not in self.accepted:
            return False
        self.messages.died(copy, SWALLOWED)
        if message not in self.callers and client.wants_confirms:
            if self.journal is not None and self.settings.sync == "before_ack":
                self.journal.sync(self._synced, copy, client)
            else:
                client.confirm(copy)
        return True

    def route(self, copy: int) -> list[Queue]:
        """The queues whose binding matches the message's key. A service that wants it in vain has lost it."""
        key = self.messages.key_of(copy)
        queues = []
        for queue in self.queues:
            if queue.takes(key):
                queues.append(queue)
            else:
                queue.pairs.died(copy, UNROUTABLE)
        return queues

    def _with_room(self, queues: list[Queue], copy: int, client: ProducerClientLibrary) -> list[Queue]:
        """PT-15: what full queues do with one message too many; returns the queues that take it now."""
        full = [queue for queue in queues if queue.is_full]
        overflow = self.settings.overflow
        if not full:
            return queues
        if overflow == "drop_head":
            for queue in full:
                queue.drop_head()
            return queues
        if overflow == "drop_tail":
            for queue in full:
                queue.pairs.died(copy, DROPPED_TAIL)
            return [queue for queue in queues if queue not in full]
        if overflow == "block":
            full[0].blocked.append((copy, client))
        else:
            self.messages.died(copy, QUEUE_FULL)
            if client.wants_confirms:
                client.refuse(copy)
        return []

    def settled(self, copy: int, queue: Queue) -> None:
        """A delivery was acked: the message is done with."""
        if self.journal is not None:
            self.journal.remove((queue.name, copy))
            self._flush_later()
        if self.callers:
            waiting = self.callers.pop(self.messages.message_of(copy), None)
            if waiting is not None:
                waiting[0].confirm(waiting[1])

    # -- failure and recovery ----------------------------------------------------------------------------------

    def crashed(self, kind: str) -> None:
        """D.1, D.2: memory is gone; the journal keeps what was written, or only what was synced."""
        self._flush_due = False
        self.callers.clear()
        survivors: dict[tuple[str, int], None] = {}
        reason = MEMORY_LOST
        if self.journal is None:
            self.accepted.clear()
        else:
            self._unsynced = self.journal.unsynced_additions()
            survivors = dict.fromkeys(self.journal.recover(kind))
            reason = LOST_WITH[kind]
        for queue in self.queues:
            queue.crashed(survivors, reason)

    def restarted(self) -> None:
        """The queues are what the journal says; what had been sent before may be sent again."""
        if self.journal is not None:
            kind = self.host.crash_kind
            live = self.journal.recover(kind)
            self._recover_numbers(kind)
            for queue in self.queues:
                queue.recover([copy for name, copy in live if name == queue.name], LOST_WITH[kind])
        for queue in self.queues:
            queue.reopen()

    def _recover_numbers(self, kind: str) -> None:
        """The numbers of accepted messages are in the same journal, and share its fate."""
        if kind == "disk":
            self.accepted.clear()
        elif kind == "machine":
            for _, copy in self._unsynced:
                self.accepted.discard(self.messages.message_of(copy))

    def holdings(self) -> Iterator[tuple[Pairs, int]]:
        """Copies that would still be delivered."""
        for queue in self.queues:
            for copy in queue.holdings():
                yield queue.pairs, copy

    # -- clients -----------------------------------------------------------------------------------------------

    def connect_producer(self, sender: Sender, settings: ProducerClient) -> ProducerClientLibrary:
        """Attach a producing application's client library."""
        client = ProducerClientLibrary(self, sender, settings)
        self.producers.append(client)
        return client

    def subscribe(self, pairs: Pairs, binding: str | None) -> Queue:
        """The queue of a consuming service."""
        queue = Queue(self, pairs, binding)
        self.queues.append(queue)
        return queue

    def connect_consumer(
        self, worker: Worker, queue: Queue, settings: ConsumerClient
    ) -> ConsumerClientLibrary:
        """Attach a consumer process's client library to a queue."""
        return ConsumerClientLibrary(self, worker, queue, settings)


class Queue:
    """Ready messages in order, and the sessions that take them in turn."""

    def __init__(self, broker: Broker, pairs: Pairs, binding: str | None) -> None:
        self.broker, self.pairs, self.name = broker, pairs, pairs.name
        self.takes = matcher(binding) if binding is not None else lambda key: True
        self.limit = broker.settings.max_length
        self.ready: deque[int] = deque()
        self.free: deque[Session] = deque()  # sessions that may be sent something, in turn
        self.sessions: list[Session] = []
        self.attempts: dict[int, int] = {}
        self.blocked: deque[tuple[int, ProducerClientLibrary]] = deque()
        self._is_unblocking = False
        self._to_recover: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether one more message would exceed the bound on ready messages."""
        return self.limit is not None and len(self.ready) >= self.limit and not self.free

    def attach(self, client: ConsumerClientLibrary) -> Session:
        """A session for one more consumer."""
        session = Session(self, client)
        self.sessions.append(session)
        return session

    def put(self, copy: int) -> None:
        """A message becomes ready, behind all others."""
        self.pairs.stored(copy)
        self.ready.append(copy)
        if self.free:
            self.dispatch()

    def dispatch(self) -> None:
        """Send ready messages to sessions with credit, round robin."""
        ready, free = self.ready, self.free
        while ready and free:
            session = free.popleft()
            copy = ready.popleft()
            session.credit -= 1
            self.pairs.sent(copy)
            session.deliver(copy)
            if session.credit > 0:
                free.append(session)
        if self.blocked:
            self._unblock()

    def _unblock(self) -> None:
        if self._is_unblocking:
            return  # what is accepted below is dispatched, which leads here again
        self._is_unblocking = True
        while self.blocked and not self.is_full:
            copy, client = self.blocked.popleft()
            if not (client.settings.sequence_numbers and self.broker.is_known(copy, client)):
                self.broker.accept(copy, client, [self])
        self._is_unblocking = False

    def drop_head(self) -> None:
        """PT-15: make room by dropping the oldest ready message."""
        if self.ready:
            self._drop(self.ready.popleft(), DROPPED_HEAD)

    def _drop(self, copy: int, reason: int) -> None:
        self.pairs.unready(copy)
        self.pairs.died(copy, reason)
        if self.broker.journal is not None:
            self.broker.journal.remove((self.name, copy))

    def put_back(self, copies: list[int], reason: int, counts: bool = True) -> None:
        """Take deliveries back: each becomes a new copy at the head, in the old order, or has had its last attempt."""
        limit = self.broker.settings.max_attempts
        for copy in reversed(copies):
            message = self.pairs.messages.message_of(copy)
            if counts and limit is not None:
                self.attempts[message] = self.attempts.get(message, 1) + 1
                if self.attempts[message] > limit:
                    self._park(copy, message)
                    continue
            again = self.pairs.requeue(copy, reason)
            self.pairs.stored(again)
            self.ready.appendleft(again)
            if self.broker.journal is not None:
                self.broker.journal.remove((self.name, copy))
                self.broker.journal.add((self.name, again))
        self.dispatch()

    def _park(self, copy: int, message: int) -> None:
        """PT-08: the message has had its last attempt."""
        del self.attempts[message]
        if self.broker.settings.dead_letter:
            self.pairs.dead_letter(copy, PARKED)
        else:
            self.pairs.died(copy, ATTEMPTS_SPENT)
        caller = self.broker.callers.pop(message, None)
        if caller is not None:
            caller[0].refuse(caller[1])
        self.broker.settled(copy, self)

    def holdings(self) -> Iterator[int]:
        """Copies that would still be delivered."""
        yield from self.ready
        for session in self.sessions:
            yield from session.unacked
        for copy, _ in self.blocked:
            yield copy
        yield from self._to_recover

    # -- failure and recovery ----------------------------------------------------------------------------------

    def crashed(self, survivors: dict[tuple[str, int], None], reason: int) -> None:
        """The memory is gone: copies that are on no disk die here."""
        for copy in self.ready:
            self.pairs.unready(copy)
        held = [*self.ready, *(copy for session in self.sessions for copy in session.unacked)]
        self.broker.host.touched += len(held) + len(self.blocked)
        for copy in held:
            if (self.name, copy) not in survivors:
                self.pairs.died(copy, reason)
        for copy, _ in self.blocked:
            self.pairs.died(copy, MEMORY_LOST)
        self._to_recover = [copy for name, copy in survivors if name == self.name]
        self.ready.clear()
        self.free.clear()
        self.blocked.clear()
        self.attempts.clear()
        for session in self.sessions:
            session.forget()

    def recover(self, copies: list[int], reason: int) -> None:
        """D.8: start from what the journal holds, and write it anew. What had been sent is a new copy, should it be
        delivered again."""
        journal = self.broker.journal
        assert journal is not None
        live = dict.fromkeys(copies)
        for copy in self._to_recover:
            if copy not in live:  # a worse crash came on top of the first
                self.pairs.died(copy, reason)
        self._to_recover = []
        for copy in copies:
            again = self.pairs.requeue(copy, BROKER_RESTARTED) if self.pairs.was_sent(copy) else copy
            if again != copy:
                journal.remove((self.name, copy))
            journal.add((self.name, again))
            self.pairs.stored(again)
            self.ready.append(again)

    def reopen(self) -> None:
        """Serve again whoever reaches the broker by datagrams; connections come back by themselves."""
        for session in self.sessions:
            if session.client.connection is None:
                session.open()
        self.dispatch()


class Session:
    """The broker's side of one consumer: its credit, and its unacked deliveries with their timeout."""

    def __init__(self, queue: Queue, client: ConsumerClientLibrary) -> None:
        self.queue, self.pairs, self.client, self.broker = queue, queue.pairs, client, queue.broker
        settings = client.settings
        self.is_auto = settings.ack == "auto"
        self.is_popped = settings.consume == "pop"
        self.prefetch = math.inf if settings.prefetch is None or self.is_auto else settings.prefetch
        self.forget()

    def forget(self) -> None:
        """The broker's memory of this session is gone."""
        timeout = self.broker.settings.ack_timeout
        self.unacked: Timeouts[int] = Timeouts(self.broker.host, timeout or math.inf, self.timed_out)
        self.is_open = False
        self.credit = 0 if self.is_popped else self.prefetch  # deliveries that it may still be sent

    def open(self) -> None:
        """The consumer can be reached."""
        self.is_open = True
        if self.credit > 0 and self not in self.queue.free:
            self.queue.free.append(self)

    def _give_credit(self) -> None:
        """A delivery is over: the consumer may be sent another, unless it asks for each."""
        if not self.is_popped:
            self.credit += 1
            if self.credit == 1 and self.is_open:
                self.queue.free.append(self)

    def deliver(self, copy: int) -> None:
        """Send a ready message; remember it until it is acked, unless acks are automatic."""
        if self.is_auto:
            self.broker.settled(copy, self.queue)
        else:
            self.unacked.add(copy)
        self.client.deliveries.send(self.client.deliver, copy, copy)

    def pop(self, _copy: int) -> None:
        """A consumer asks for one message; an empty queue says so, or lets it wait."""
        if not self.queue.ready and self.client.settings.stop_when_empty:
            self.client.deliveries.send(self.client.empty, _copy)
            return
        if not self.credit:  # a request that is repeated is the same request
            self.credit = 1
            self.queue.free.append(self)
        self.queue.dispatch()

    def acked(self, copy: int) -> None:
        """An ack arrives. One for a delivery that was taken back meanwhile comes too late and changes nothing."""
        if not self.unacked.remove(copy):
            return
        queue = self.queue
        if queue.attempts:
            queue.attempts.pop(self.pairs.messages.message_of(copy), None)
        if self.pairs.unheard:
            self.pairs.unheard.pop(copy, None)
        self.broker.settled(copy, queue)
        self._give_credit()
        if queue.ready:
            queue.dispatch()

    def nacked(self, copy: int, counts: bool) -> None:
        """The consumer hands a delivery back."""
        if self.unacked.remove(copy):
            self._give_credit()
            self.queue.put_back(
                [copy], HANDLER_FAILED, counts
            )  # in place of one that failed, not one too many

    def timed_out(self, copy: int) -> None:
        """No ack within `ack_timeout`: the delivery is taken back."""
        self._give_credit()
        self.queue.put_back([copy], ACK_LATE)

    def closed(self) -> None:
        """The connection is gone: exactly its unacked deliveries return, in place."""
        self.is_open = False
        self.credit = 0 if self.is_popped else self.prefetch
        if self in self.queue.free:
            self.queue.free.remove(self)
        self.queue.put_back(self.unacked.clear(), CONSUMER_GONE)
