"""A world built from a `Config`, and its run: arrivals, then healing, then draining until no copy moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sim.brokers import BrokerPort, system
from sim.config import Config, ServiceConfig
from sim.consuming import ServiceApp, Worker
from sim.faults import Faults
from sim.kernel import World
from sim.ledger import Event, Ledger, Pairs
from sim.network import Network
from sim.producing import Sender, Source
from sim.routing import matcher

SETTLING = 60.0  # seconds without a delivery after which copies that are left will not move any more


@dataclass
class Run:
    """A finished run: its books, its faults, and when arrivals ended (`stopped_at`, s)."""

    config: Config
    seed: int
    replication: int
    ledger: Ledger
    faults: Faults
    stopped_at: float
    ended_at: float
    busy: dict[str, tuple[float, float]]
    holdings: dict[tuple[str, str], set[int]]
    trace: list[Event] | None
    requests: int


class Simulation:
    """The parts of one run, by name: brokers, sources, workers, on hosts of one network."""

    def __init__(self, config: Config, seed: int, replication: int, trace: list[Event] | None = None) -> None:
        self.config = config
        self.world = World(seed, replication)
        self.network = Network(self.world, config.network)
        self.ledger = Ledger(self.world, trace)
        self.duration = math.inf if config.duration is None else config.duration
        self._at_start: list[Callable[[], Any]] = []
        self.shared: dict[str, Any] = {}  # what the brokers of several channels have in common, by name
        self.brokers: dict[str, BrokerPort] = {
            name: system(channel.system).build(self, name, channel.settings)
            for name, channel in config.channels.items()
        }
        self.sources = [source for name in config.producers for source in self._producer(name)]
        self.workers: dict[str, list[Worker]] = {name: self._service(name) for name in config.services}
        self.senders = [s.sender for s in self.sources] + [
            worker.sender
            for workers in self.workers.values()
            for worker in workers
            if worker.sender is not None
        ]
        self._running_sources = len(self.sources)
        self._is_draining = False
        self.faults = Faults(self, config.faults)

    def at_start(self, function: Callable[[], Any]) -> None:
        """Call a function when the run begins, with all parts in place."""
        self._at_start.append(function)

    def part(self, name: str) -> Any:
        """The broker of that name, for events that a fault waits for."""
        return self.brokers[name]

    # -- building ----------------------------------------------------------------------------------------------

    def _producer(self, name: str) -> Iterator[Source]:
        settings = self.config.producers[name].app
        broker = self.brokers[settings.channel]
        self._open_columns(settings.channel)
        for i in range(settings.instances):
            label = name if settings.instances == 1 else f"{name}.{i + 1}"
            source = Source(self, label, self.network.host(label, name), broker.messages, settings)
            source.sender.client = broker.connect_producer(source.sender, self.config.producers[name].client)
            yield source

    def _open_columns(self, channel: str) -> None:
        """Sizes and keys are kept only where something in the scenario depends on them."""
        messages = self.brokers[channel].messages
        producers = [p.app for p in self.config.producers.values() if p.app.channel == channel]
        services = [s.app for s in self.config.services.values() if s.app.channel == channel]
        if any(p.keys for p in producers) or any(s.filter for s in services):
            messages.key_number("")
        network = self.config.network
        is_limited = network.bandwidth or any(link.bandwidth for link in network.links.values())
        if messages.sizes is None and is_limited:
            messages.keep_sizes()

    def _service(self, name: str) -> list[Worker]:
        service = self.config.services[name]
        settings = service.app
        broker = self.brokers[settings.channel]
        wants = matcher(settings.filter) if settings.filter else None
        pairs = broker.messages.subscription(name, wants)
        queue = broker.subscribe(pairs, settings.binding if settings.binding is not None else settings.filter)
        app = ServiceApp(self, name, settings, pairs)
        return [
            self._worker(service, app, broker, queue, f"{name}.{i + 1}") for i in range(settings.consumers)
        ]

    def _worker(self, service: ServiceConfig, app: ServiceApp, broker: Any, queue: Any, name: str) -> Worker:
        host = self.network.host(name, app.name)
        worker = Worker(self, app, host)
        publishes = service.app.publishes
        if publishes is not None:
            target = self.brokers[publishes.channel]
            self._open_columns(publishes.channel)
            if app.name not in target.messages.producers:
                target.messages.producers.append(app.name)
            worker.publish_through(
                Sender(self, host, target.messages, publishes.resend, None, worker.output_told)
            )
            assert worker.sender is not None
            client = system(self.config.channels[publishes.channel].system).ProducerClient()
            worker.sender.client = target.connect_producer(worker.sender, client)
        worker.client = broker.connect_consumer(worker, queue, service.client)
        return worker

    # -- running -----------------------------------------------------------------------------------------------

    def source_over(self) -> None:
        """A source has published its last message."""
        self._running_sources -= 1
        if not self._running_sources and not self._is_draining:
            self.world.call_later(0.0, self.world.stop)

    def run(self) -> Run:
        """Run to the end. Arrivals stop at the duration or the last message; then faults heal, and it drains."""
        world = self.world
        if not self.config.faults and not any(s.app.failures.crashes for s in self.config.services.values()):
            self.network.nothing_fails()
        for function in self._at_start:
            function()
        for source in self.sources:
            source.start()
        if math.isinf(self.duration):
            world.run()
            stopped_at = world.now
        else:
            world.run_until_stopped(self.duration)
            world.run(until=self.duration)
            stopped_at = self.duration
        busy = {
            name: tuple(map(math.fsum, zip(*(worker.busy_and_up() for worker in workers), strict=True)))
            for name, workers in self.workers.items()
        }
        self._is_draining = True
        self.faults.heal()
        self._drain(world.now + self.config.drain_limit)
        return Run(
            config=self.config,
            seed=self.world.seed,
            replication=self.world.replication,
            ledger=self.ledger,
            faults=self.faults,
            stopped_at=stopped_at,
            ended_at=world.now,
            busy=busy,  # type: ignore[arg-type]
            holdings=self._holdings(),
            trace=self.ledger.trace,
            requests=sum(
                getattr(link, "sent", 0) for link in self.network.links if link.hop.name in ("publish", "ack")
            ),
        )

    def _drain(self, limit: float) -> None:
        world, moved = self.world, -1
        while world.run_until_quiet(limit):
            deliveries = sum(sum(p.deliveries) for p in self._all_pairs())
            if deliveries == moved or not any(self._holdings().values()):
                return
            moved = deliveries
            world.run(until=min(world.now + SETTLING, limit))

    def _all_pairs(self) -> list[Pairs]:
        return [p for messages in self.ledger.channels.values() for p in messages.subscriptions.values()]

    def _holdings(self) -> dict[tuple[str, str], set[int]]:
        """Messages of which a copy is left that the system would still hand to a subscription."""
        left: dict[tuple[str, str], set[int]] = {
            (pairs.messages.name, pairs.name): set() for pairs in self._all_pairs()
        }
        for broker in self.brokers.values():
            for pairs, copy in broker.holdings():
                left[pairs.messages.name, pairs.name].add(pairs.messages.message_of(copy))
        for sender in self.senders:
            for message in sender.holdings():
                for pairs in sender.messages.subscriptions.values():
                    left[pairs.messages.name, pairs.name].add(message)
        for hop, copy in self.network.in_transit():
            for pairs in hop.bound_for(copy):
                left[pairs.messages.name, pairs.name].add(pairs.messages.message_of(copy))
        for workers in self.workers.values():
            for worker in workers:
                for delivery in [*worker.running, *worker.inbox]:
                    pairs = worker.pairs
                    left[pairs.messages.name, pairs.name].add(pairs.messages.message_of(delivery.copy))
        return left


def simulate(config: Config, seed: int = 1, replication: int = 0, trace: bool = False) -> Run:
    """Build the world of a config and run it to its end."""
    return Simulation(config, seed, replication, [] if trace else None).run()
