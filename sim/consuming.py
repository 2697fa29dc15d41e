"""Applications that consume: their processes, their handlers, and what they remember."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from sim.apps import (
    CONSUMER_CRASHED,
    CRASHED_BEFORE_ACK,
    FAILED,
    HANDLER_FAILED,
    OK,
    REPROCESSED,
    ConsumerPort,
    Delivery,
    Failures,
    Idempotence,
    Service,
)
from sim.distributions import Constant, Schedule
from sim.ledger import Pairs
from sim.network import Host
from sim.producing import Sender

if TYPE_CHECKING:
    from sim.simulation import Simulation


class ServiceApp:
    """A consuming application: its database, shared by its processes, with the effects and the ids it remembers."""

    def __init__(self, sim: Simulation, name: str, settings: Service, pairs: Pairs) -> None:
        self.world, self.name, self.settings, self.pairs = sim.world, name, settings, pairs
        pairs.has_effect = settings.effect
        self.processed_ids = ProcessedIds(settings.idempotence) if settings.idempotence else None
        self._demands: list[float] = []
        random = sim.world.stream(f"{name}.service")
        if isinstance(settings.service_time, Schedule):
            self._draw_scheduled = settings.service_time.draws(random)
            self.demand = self._demand_now  # type: ignore[method-assign]
        else:
            self._draw_demand = settings.service_time.draws(random)
        size = settings.publishes.size if settings.publishes else Constant(0)
        self._size = size.draws(sim.world.stream(f"{name}.output sizes"))
        self._poison: list[float] = []
        self._draw_poison = sim.world.uniforms(f"{name}.poison")

    def demand(self, message: int) -> float:
        """Seconds of work that a message takes: its own, whoever processes it, however often."""
        demands = self._demands
        if message >= len(demands):
            draw = self._draw_demand
            demands.extend([draw() for _ in range(message + 1024 - len(demands))])
        return demands[message]

    def _demand_now(self, message: int) -> float:
        """The same under a schedule: what a message takes that is begun now; each attempt draws anew."""
        return self._draw_scheduled(self.world.now)

    def output_size(self) -> int:
        """Bytes of the next message that it publishes."""
        return int(self._size())

    def is_poison(self, message: int) -> bool:
        """Whether every handler fails on this message."""
        draws = self._poison
        while message >= len(draws):
            draws.append(self._draw_poison())
        return draws[message] < self.settings.failures.poison


class ProcessedIds:
    """The ids that an idempotent consumer remembers, bounded by number or by age."""

    def __init__(self, settings: Idempotence) -> None:
        self.size, self.ttl = settings.size, settings.ttl
        self._ids: OrderedDict[int, float] = OrderedDict()

    def knows(self, message: int, now: float) -> bool:
        """Whether the message was processed, as far as is remembered. `now` is the asking host's clock (s)."""
        if self.ttl is not None:
            while self._ids and next(iter(self._ids.values())) < now - self.ttl:
                self._ids.popitem(last=False)
        return message in self._ids

    def add(self, message: int, now: float) -> None:
        """Remember a message."""
        self._ids[message] = now
        if self.size is not None and len(self._ids) > self.size:
            self._ids.popitem(last=False)

    def __len__(self) -> int:
        return len(self._ids)


class Worker:
    """One process of a service: its inbox of deliveries, and its handlers (`slots`) at work."""

    client: ConsumerPort

    def __init__(self, sim: Simulation, app: ServiceApp, host: Host) -> None:
        settings = app.settings
        self.world, self.app, self.host, self.settings = sim.world, app, host, settings
        self.sender: Sender | None = None
        self.pairs, self.slots = app.pairs, settings.slots
        self.settles_first = settings.settle == "before"
        self.discards_as = OK  # what a client library hears that has another word for it
        self._transient = sim.world.uniforms(f"{host.name}.transient")
        self._is_plain = settings.failures == Failures() and app.processed_ids is None
        self.busy_time = self.up_time = 0.0
        self._up_since = 0.0
        self._start_empty()
        host.residents.append(self)

    def _start_empty(self) -> None:
        self.inbox: deque[Delivery] = deque()
        self.running: dict[Delivery, float] = {}
        self._awaiting: dict[int, list[Delivery]] = {}
        self.memory: ProcessedIds | None = None
        if self.settings.idempotence and self.settings.idempotence.store == "memory":
            self.memory = ProcessedIds(self.settings.idempotence)

    def publish_through(self, sender: Sender) -> None:
        """Send outputs on through that sender."""
        self.sender = sender
        self._is_plain = False

    @property
    def ids(self) -> ProcessedIds | None:
        """Where this process looks up what was processed."""
        return self.memory if self.memory is not None else self.app.processed_ids

    def on_delivery(self, delivery: Delivery) -> None:
        """The client library hands over a delivery."""
        if len(self.running) < self.slots:
            self._start(delivery)
        else:
            self.inbox.append(delivery)

    def _start(self, delivery: Delivery) -> None:
        copy = delivery.copy
        self.pairs.started(copy)
        if self.settles_first:
            delivery.settle(OK)
        message = copy if copy >= 0 else self.pairs.messages.message_of(copy)
        self.running[delivery] = self.world.now
        host = self.host
        if self._is_plain:
            host.work(self.app.demand(message) * host.slowness, self._finish_plainly, delivery)
            return
        ids = self.ids
        if ids is not None and ids.knows(message, host.clock()):
            host.call_later(0.0, self._skip, delivery)
        else:
            host.work(self.app.demand(message) * host.slowness, self._finish, delivery)

    def _finish_plainly(self, delivery: Delivery) -> None:
        """The way of most: a handler that cannot fail, with nothing to remember and nothing to send on."""
        copy = delivery.copy
        self.pairs.processed(copy)
        if self.pairs.has_effect:
            self.pairs.effect(copy)
        self._done(delivery, OK)

    def _finish(self, delivery: Delivery) -> None:
        if self._fails(delivery):
            return
        copy = delivery.copy
        self.pairs.processed(copy)
        self._commit(copy)
        if self.sender is not None:
            self._publish(delivery)
        else:
            self._done(delivery, OK)

    def _skip(self, delivery: Delivery) -> None:
        """An idempotent consumer has seen this message: nothing to do but to say so."""
        self.pairs.processed(delivery.copy)
        if self.sender is not None:
            self._publish(delivery)
        else:
            self._done(delivery, OK)

    def _done(self, delivery: Delivery, outcome: str) -> None:
        self.busy_time += self.world.now - self.running.pop(delivery)
        if not self.settles_first:
            delivery.client.settle(delivery.tag, outcome)
        if self.inbox and len(self.running) < self.slots:
            self._start(self.inbox.popleft())

    def _commit(self, copy: int) -> None:
        """The effect, and the id beside it. Together they are one transaction; a memory knows only this process."""
        message = self.pairs.messages.message_of(copy)
        ids, now = self.ids, self.host.clock()
        if ids is not None:
            if self.memory is None and ids.knows(message, now):
                return  # the unique key refuses a copy that was processed meanwhile
            ids.add(message, now)
        if self.pairs.has_effect:
            self.pairs.effect(copy)

    def _fails(self, delivery: Delivery) -> bool:
        failures = self.settings.failures
        message = self.pairs.messages.message_of(delivery.copy)
        is_poison = failures.poison > 0 and self.app.is_poison(message)
        if not is_poison and not (failures.transient > 0 and self._transient() < failures.transient):
            return False
        if failures.crashes and is_poison:
            self.world.call_later(failures.restart, self.host.restart)
            self.host.crash()
        elif self.settings.on_failure == "discard" or self.settles_first:
            self.pairs.died(delivery.copy, HANDLER_FAILED)
            self._done(delivery, self.discards_as)
        else:
            if delivery.copy != delivery.tag:
                self._not_heard(delivery, HANDLER_FAILED)
            self._done(delivery, FAILED)
        return True

    def _not_heard(self, delivery: Delivery, cause: int) -> None:
        """Why the broker will deliver it again. In place of a copy that it knows nothing of, that is one too many."""
        if delivery.copy != delivery.tag:
            cause = self.pairs.messages.copy_cause[~delivery.copy]
        self.pairs.not_heard(delivery.tag, cause)

    def _publish(self, delivery: Delivery) -> None:
        """Send the output on; the input is settled when the output is confirmed."""
        assert self.sender is not None
        output = self.sender.messages
        parent = self.pairs.messages.message_of(delivery.copy)
        copy = output.derive(self.app.name, parent, self.app.output_size(), REPROCESSED)
        self._awaiting.setdefault(output.message_of(copy), []).append(delivery)
        self.sender.send(copy)
        if self.sender.resend is None:
            self.output_told(output.message_of(copy))

    def output_told(self, message: int) -> None:
        """An output's sending is over: its input is settled."""
        for delivery in self._awaiting.pop(message, []):
            if delivery in self.running:
                self._done(delivery, OK)

    def crashed(self, kind: str) -> None:
        """What it held is gone: deliveries at work, deliveries that waited, the ids in its memory."""
        now = self.world.now
        finished = {delivery: None for waiting in self._awaiting.values() for delivery in waiting}
        for delivery in [*self.running, *self.inbox]:
            self.host.touched += 1
            if delivery in finished:
                self.pairs.not_heard(delivery.tag, CRASHED_BEFORE_ACK)
                continue
            self.pairs.died(delivery.copy, CONSUMER_CRASHED)
            self._not_heard(delivery, CONSUMER_CRASHED)
        self.busy_time += sum(now - started for started in self.running.values())
        self.up_time += now - self._up_since
        self._start_empty()

    def restarted(self) -> None:
        """An empty process, ready for deliveries."""
        self._up_since = self.world.now

    def busy_and_up(self) -> tuple[float, float]:
        """Seconds of handlers at work, and of handlers that were up, until now."""
        now = self.world.now
        busy = self.busy_time + sum(now - started for started in self.running.values())
        up = self.up_time + (now - self._up_since if self.host.is_up else 0.0)
        return busy, up * self.slots
