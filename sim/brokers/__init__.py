"""One messaging system each: the broker and its client library.

A system is one module here that holds a `SYSTEM`. Adding a system is adding its file and its name to `NAMES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sim.apps import ConsumerPort, ProducerPort
    from sim.consuming import Worker
    from sim.ledger import Messages, Pairs
    from sim.producing import Sender

NAMES = ("textbook", "rabbitmq", "kafka")


class BrokerPort(Protocol):
    """What a simulation needs of a broker, whatever its system. Client libraries follow the ports in `sim.apps`."""

    messages: Messages

    def connect_producer(self, sender: Sender, settings: Any) -> ProducerPort:
        """Attach a producing application's client library."""

    def subscribe(self, pairs: Pairs, binding: str | None) -> Any:
        """Make room for a consuming service; what is returned is handed to `connect_consumer`."""

    def connect_consumer(self, worker: Worker, subscription: Any, settings: Any) -> ConsumerPort:
        """Attach the client library of one of the service's processes."""

    def holdings(self) -> Iterable[tuple[Pairs, int]]:
        """Copies that the system would still hand to a subscription, without an operator's help."""


@dataclass(frozen=True)
class Preset:
    """A delivery guarantee in a system's own settings, written as in a scenario file."""

    channel: Mapping[str, Any] = field(default_factory=dict)
    producer: Mapping[str, Any] = field(default_factory=dict)
    service: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """What the rest of the house knows of a messaging system.

    `Channel`, `ProducerClient` and `ConsumerClient` are its settings (frozen dataclasses). `events` are the methods
    of a broker that a fault can wait for ("orders.append #3"). `check` returns a complaint about a combination of
    settings that cannot be, or None; `check_config` does so for what concerns more than one channel.
    `build(simulation, name, channel)` makes the broker.

    `Channel` may have a field `nodes`. A channel with one node runs on the host of its name; one with more runs on
    "orders.1", "orders.2" ... of the group "orders", which the broker makes. `roles` are what its hosts can be in
    turn ("leader"), so that faults can aim at them ("orders.leader"); `broker.role(name)` is the host that has the
    role or, while none has it, had it last; None if none ever had. `reports_in_doubt`: the producer's library tells
    which copies a broken connection left in doubt (`Sender.in_doubt`), so that `resend` may do without a timeout.
    `defaults` are what applications of this system do where neither a guarantee nor the scenario says otherwise.
    """

    name: str
    title: str
    Channel: type
    ProducerClient: type
    ConsumerClient: type
    presets: Mapping[str, Preset]
    events: tuple[str, ...]
    build: Callable[..., BrokerPort]
    check: Callable[..., str | None] = lambda channel, producers, services: None
    check_config: Callable[..., str | None] = lambda config, channel: None
    roles: tuple[str, ...] = ()
    reports_in_doubt: bool = False
    defaults: Preset = Preset()


def system(name: str) -> System:
    """The system of that name; its module is imported on first use. Raises KeyError."""
    if name not in NAMES:
        raise KeyError(name)
    found: System = import_module(f"sim.brokers.{name}").SYSTEM
    return found
