"""What user code does, whatever the broker: its settings, its causes of anomalies, and its port to a system.

What it does is in `sim.producing` (send, resend) and `sim.consuming` (process, settle, remember).

The narrow port between an application and a system's client library:

- `client.publish(copy)` sends; the library answers `sender.confirmed(copy)` or `sender.refused(copy)`, or never;
  `client.is_ready` says whether it takes more now, and the library calls `sender.client_ready()` when it does again.
  It may report as well what a broken connection left without an answer (`sender.in_doubt(copy)`, or
  `sender.all_in_doubt()`), and what the broker returned because nobody wants it (`sender.returned(copy)`);
- `worker.on_delivery(delivery)` hands over a delivery; `delivery.settle(OK | FAILED | LATER)` is the application's
  answer. What an answer does (acknowledge, delete, commit an offset) is the system's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from sim.arrivals import Poisson
from sim.distributions import Constant, Distribution, Schedule
from sim.ledger import cause
from sim.units import Fraction, Seconds


@dataclass(frozen=True)
class Resend:
    """Send again what was not acknowledged within `timeout`, after a back-off, until acked or given up.

    A `timeout` of None waits for ever, and sends again only what the client library reports as refused or in doubt.
    Back-off before attempt n + 1 (n = 1, 2 ...): `backoff * factor**(n - 1)`, at most `backoff_max`; with full jitter
    it is uniform between zero and that (Brooker 2015). Gives up after `attempts` sends, or `deadline` seconds after
    the message was created. `budget`: of a bucket of that many tokens a resend takes `budget_cost` and an ack returns
    one (AWS SDK "standard" retry quota); an empty bucket gives the message up.
    """

    timeout: Seconds | None = 0.1
    backoff: Seconds = 0.0
    factor: float = 2.0
    backoff_max: Seconds = 20.0
    jitter: Literal["none", "full"] = "none"
    attempts: int | None = None
    deadline: Seconds | None = None
    budget: float | None = None
    budget_cost: float = 5.0


@dataclass(frozen=True)
class Keys:
    """Keys of messages: `values` in equal shares or by `weights`, or `number` keys "0", "1" ... with Zipf skew."""

    values: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    number: int | None = None
    skew: float = 0.0


@dataclass(frozen=True)
class Producer:
    """An application that owes messages to a channel, whether or not its process is up."""

    channel: str
    arrivals: object = Poisson(100.0)
    messages: int | None = None
    size: Distribution = Constant(1024)
    keys: Keys | None = None
    resend: Resend | None = None
    window: int | None = None
    instances: int = 1


@dataclass(frozen=True)
class Idempotence:
    """Remember what was processed and skip it: in the process's memory, or in the transaction of the effect."""

    store: Literal["memory", "transaction"] = "transaction"
    size: int | None = None
    ttl: Seconds | None = None


@dataclass(frozen=True)
class Failures:
    """A handler that fails: `poison` messages fail every time, `transient` failures strike any attempt."""

    poison: Fraction = 0.0
    transient: Fraction = 0.0
    crashes: bool = False
    restart: Seconds = 5.0


@dataclass(frozen=True)
class Publishes:
    """What a service sends on for each message it has processed."""

    channel: str
    resend: Resend | None = Resend()
    size: Distribution = Constant(1024)


@dataclass(frozen=True)
class Service:
    """A consuming application: `consumers` processes of `slots` handlers each."""

    channel: str
    consumers: int = 1
    slots: int = 1
    service_time: Distribution | Schedule = Constant(0.01)
    settle: Literal["after", "before"] = "after"
    filter: str | None = None
    binding: str | None = None
    failures: Failures = Failures()
    on_failure: Literal["requeue", "discard"] = "requeue"
    idempotence: Idempotence | None = None
    effect: bool = True
    publishes: Publishes | None = None


# -- causes of anomalies that arise in applications ----------------------------------------------------------------


def _cause(anomaly: str, name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    return cause("application", anomaly, name, meaning, behaviour, prevented_by)


PRODUCER_DOWN = _cause(
    "lost",
    "producer_down",
    "The message was owed while its producer's process was down, and nothing had written it down.",
    "D.1",
    "a transactional outbox: the message is a row in the producer's database first",
)
PRODUCER_CRASHED = _cause(
    "lost",
    "producer_crashed",
    "The message was still in the producer's memory, unacknowledged, when the process crashed.",
    "D.1",
    "a transactional outbox",
)
GAVE_UP = _cause(
    "lost",
    "gave_up",
    "The producer stopped resending: its attempts, deadline or retry budget ran out before an ack came.",
    "H.12",
    "more attempts or a later deadline",
)
CONSUMER_CRASHED = _cause(
    "lost",
    "consumer_crashed",
    "The consumer's process crashed while it held the message.",
    "D.1",
    "settling after processing, so that the broker keeps the message until then",
)
HANDLER_FAILED = _cause(
    "lost",
    "handler_failed",
    "The handler failed and the message had been settled all the same.",
    "PT-08",
    "settling after processing, requeueing, or a dead-letter queue",
)
REPROCESSED = _cause(
    "duplicate",
    "input_reprocessed",
    "The service processed the message's parent again and published its output again.",
    "PT-13",
    "an idempotent consumer of the output, or a transaction that covers input and output",
)

CRASHED_BEFORE_ACK = _cause(
    "duplicate",
    "consumer_crashed_before_ack",
    "The consumer's process crashed after the effect and before it had settled the delivery.",
    "D.1",
    "an idempotent consumer (the delivery still repeats)",
)
OVERTAKEN = _cause(
    "reordered",
    "overtaken",
    "A later message was faster: on another path, at another consumer, or past one that waited.",
    "PT-14",
    "one connection and one sequential consumer per ordering scope",
)

OK, FAILED, LATER = "ok", "failed", "later"


class ProducerPort(Protocol):
    """A client library's sending side."""

    is_ready: bool

    def publish(self, copy: int) -> None:
        """Send a copy towards the broker."""


class ConsumerPort(Protocol):
    """A client library's receiving side."""

    def settle(self, tag: int, outcome: str) -> None:
        """The application's answer to a delivery."""


class Delivery:
    """A copy in a consumer's hands. `tag` is what the broker knows the delivery by."""

    __slots__ = ("client", "copy", "tag")

    def __init__(self, client: ConsumerPort, copy: int, tag: int) -> None:
        self.client, self.copy, self.tag = client, copy, tag

    def settle(self, outcome: str) -> None:
        """Answer the delivery: OK, FAILED or LATER."""
        self.client.settle(self.tag, outcome)
