"""What happened to every message and copy: columns, not objects.

A *message* is a number: its row in the `Messages` of its channel. A *copy* is a number too: `copy >= 0` is the first
copy of message `copy`; a negative one is a further copy, born of a retransmission, a redelivery or a network that
doubled a packet, and the `Messages` remember its message, its parent copy and the cause of its birth. Each consuming
service has `Pairs`: what became of every message at that service.

Models report to the ledger and never ask it what to do. Everybody who drops a copy says so with a cause (`died`); the
last death stands, and it counts only where no copy was processed and none is left (see `sim.metrics`).

Memory: 19 bytes per message (6 more with sizes and keys), 54 per pair, 18 per further copy, whatever the run's length.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sim.kernel import World

IN_DOUBT, CONFIRMED, FAILED = 0, 1, 2
OUTCOMES = ("in_doubt", "confirmed", "failed")
ANOMALIES = ("lost", "expired", "rejected", "dead_lettered", "duplicate", "reordered")

NAN = math.nan
USUAL_SIZE = 1024  # bytes of a message where sizes are not kept
_CHUNK = 4096


@dataclass(frozen=True)
class Cause:
    """Why an anomaly happens: one entry of a system's closed list.

    `anomaly` is what it leads to. `behaviour` names the numbered behaviour of the sheets that it follows from, and
    `prevented_by` what a user would change. `code` is its small number in the ledger's columns.
    """

    system: str
    anomaly: str
    name: str
    meaning: str
    behaviour: str
    prevented_by: str
    code: int = 0


_CAUSES: list[Cause] = []


def cause(system: str, anomaly: str, name: str, meaning: str, behaviour: str, prevented_by: str) -> int:
    """Enter a cause into its system's list and return its code. Raises ValueError for a name that is taken."""
    if anomaly not in ANOMALIES:
        raise ValueError(f"{anomaly!r} is not an anomaly: {', '.join(ANOMALIES)}")
    if any((c.system, c.name) == (system, name) for c in _CAUSES):
        raise ValueError(f"{system} has a cause {name!r} already")
    code = len(_CAUSES) + 1
    _CAUSES.append(Cause(system, anomaly, name, meaning, behaviour, prevented_by, code))
    return code


def known_causes() -> list[Cause]:
    """Every cause of an anomaly, of every system, in the order of their files."""
    from sim import brokers

    for name in brokers.NAMES:
        brokers.system(name)
    return [_CAUSES[code - 1] for code in sorted(range(1, len(_CAUSES) + 1), key=cause_rank)]


def cause_rank(code: int) -> tuple[int, int]:
    """What causes are ordered by, whichever system was imported first: the system's place in `NAMES`, then the file."""
    from sim import brokers

    system = _CAUSES[code - 1].system
    return (brokers.NAMES.index(system) if system in brokers.NAMES else -1), code


def cause_of(code: int) -> Cause:
    """The cause with that code."""
    return _CAUSES[code - 1]


class UnbalancedBooks(Exception):
    """The books of a run do not balance: a bug of the model. Says which message, and how to replay it."""


class Ledger:
    """The books of one run: `Messages` per channel."""

    def __init__(self, world: World, trace: list[Event] | None = None) -> None:
        self.world, self.trace = world, trace
        self.channels: dict[str, Messages] = {}

    def channel(self, name: str) -> Messages:
        """Open the books of a channel."""
        kind = Messages if self.trace is None else TracedMessages
        self.channels[name] = kind(self, name)
        return self.channels[name]


class Messages:
    """The messages of one channel: what their producers owe, and were told."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger, self.world, self.name = ledger, ledger.world, name
        self.created = array("d")
        self.outcome = bytearray()
        self.told_at = array("d")
        self.producer = array("H")
        self.producers: list[str] = []
        self.sizes: array[int] | None = None
        self.keys: array[int] | None = None
        self.key_names: list[str] = []
        self._key_numbers: dict[str, int] = {}
        self.derived: dict[tuple[str, int], int] = {}
        self.unheard: dict[int, int] = {}
        self.scopes: array[int] | None = None
        self.ordering_scope = (
            ""  # besides the producer: "partition" (its numbers are `scopes`), "key", or nothing
        )
        self.transactions: dict[int, bool] = {}
        self.copy_message: array[int] = array("q")
        self.copy_parent: array[int] = array("q")
        self.copy_cause: array[int] = array("H")
        self.subscriptions: dict[str, Pairs] = {}
        self._filtered: list[Pairs] = []
        self._capacity = 0
        self.late = 0  # the system's cause for a resend whose answer was merely late

    def subscription(self, name: str, wants: Callable[[str], bool] | None = None) -> Pairs:
        """Open the books of a consuming service. `wants(key)` is its declared intent; None wants every message."""
        kind = Pairs if self.ledger.trace is None else TracedPairs
        pairs = kind(self, name, wants)
        self.subscriptions[name] = pairs
        if wants is not None:
            self._filtered.append(pairs)
        return pairs

    def __len__(self) -> int:
        return len(self.created)

    # -- the life of a message ---------------------------------------------------------------------------------

    def publish(self, producer: int, size: int, key: int) -> int:
        """A producer owes a new message, as of now; returns its number."""
        message = len(self.created)
        if message >= self._capacity:
            self._grow()
        self.created.append(self.world.now)
        if producer:  # 0 is there already
            self.producer[message] = producer
        if self.sizes is not None:
            self.sizes.append(size)
        if self.keys is not None:
            self.keys.append(key)
            for pairs in self._filtered:
                pairs.expect(message, self.key_names[key])
        return message

    def _grow(self) -> None:
        self._capacity += _CHUNK
        if self.scopes is not None:
            self.scopes.frombytes(bytes(2 * _CHUNK))
        self.outcome.extend(bytes(_CHUNK))
        self.producer.frombytes(bytes(2 * _CHUNK))
        self.told_at.extend([NAN] * _CHUNK)
        for pairs in self.subscriptions.values():
            pairs.grow(_CHUNK)

    def confirmed(self, copy: int) -> None:
        """The producer was told that the message is stored."""
        message = copy if copy >= 0 else self.copy_message[~copy]
        if self.outcome[message] != CONFIRMED:
            self.outcome[message] = CONFIRMED
            self.told_at[message] = self.world.now

    def failed(self, copy: int) -> None:
        """The producer was told that the message is not stored."""
        message = copy if copy >= 0 else self.copy_message[~copy]
        self.outcome[message] = FAILED
        self.told_at[message] = self.world.now

    def in_doubt(self, message: int) -> None:
        """The producer stopped waiting for an answer."""
        if self.outcome[message] == IN_DOUBT:
            self.told_at[message] = self.world.now

    def message_of(self, copy: int) -> int:
        """The message that a copy is of."""
        return copy if copy >= 0 else self.copy_message[~copy]

    def size_of(self, copy: int) -> int:
        """Bytes of a message (the same in all its copies)."""
        message = copy if copy >= 0 else self.copy_message[~copy]
        return self.sizes[message] if self.sizes is not None else USUAL_SIZE

    def key_of(self, copy: int) -> str:
        """The key of a message; "" where the channel has no keys."""
        if self.keys is None:
            return ""
        return self.key_names[self.keys[copy if copy >= 0 else self.copy_message[~copy]]]

    def copy(self, parent: int, cause: int) -> int:
        """A further copy of what `parent` is a copy of, born now for that cause; returns its number."""
        self.copy_message.append(parent if parent >= 0 else self.copy_message[~parent])
        self.copy_parent.append(parent)
        self.copy_cause.append(cause)
        return -len(self.copy_message)

    def derive(self, service: str, parent: int, size: int, cause: int) -> int:
        """The copy that `service` publishes because of message `parent` of the channel that it consumes.

        The message's identity is (parent, service): when the parent is processed again, what is published is a
        further copy of the same message, not a new one.
        """
        message = self.derived.get((service, parent))
        if message is not None:
            return self.copy(message, cause)
        message = self.derived[service, parent] = self.publish(self.producers.index(service), size, 0)
        return message

    def keep_sizes(self) -> None:
        """Keep the sizes of messages."""
        self.sizes = array("q", [USUAL_SIZE] * len(self.created))

    def keep_scopes(self, name: str) -> None:
        """Keep the scope within which each message has its order, such as a partition."""
        self.ordering_scope = name
        self.scopes = array("H")

    def scoped(self, copy: int, scope: int) -> None:
        """A message has its order among those of this scope (a number; 0 until it is known), if scopes are kept."""
        if self.scopes is not None:
            self.scopes[copy if copy >= 0 else self.copy_message[~copy]] = scope

    def committed(self, copy: int) -> None:
        """The transaction that a copy belongs to was committed."""
        self.transactions[self.message_of(copy)] = True

    def aborted(self, copy: int) -> None:
        """The transaction that a copy belongs to was aborted. Unless another copy's is committed, nobody is owed it."""
        self.transactions.setdefault(self.message_of(copy), False)

    def is_aborted(self, message: int) -> bool:
        """Whether a message was only ever written in transactions that were aborted."""
        return not self.transactions.get(message, True)

    def key_number(self, key: str) -> int:
        """The number that stands for a key in the column `keys`."""
        if self.keys is None:
            self.keys = array("q")
        number = self._key_numbers.setdefault(key, len(self.key_names))
        if number == len(self.key_names):
            self.key_names.append(key)
        return number

    def resent(self, parent: int) -> int:
        """The copy that a producer sends because it heard no answer; born of the root cause, where that is known."""
        return self.copy(parent, self.unheard.pop(parent, self.late))

    def not_heard(self, copy: int, cause: int) -> None:
        """The root cause why a producer will not hear of this copy."""
        self.unheard[copy] = cause

    def died(self, copy: int, cause: int) -> None:
        """A copy is gone before it reached the subscriptions."""
        message = copy if copy >= 0 else self.copy_message[~copy]
        for pairs in self.subscriptions.values():
            pairs.fate[message] = cause


class Pairs:
    """What became of every message of a channel at one consuming service.

    Columns by message: times (s, NaN for never) of the first time it was stored, sent, delivered, started and
    processed; numbers of deliveries, processings and effects; the cause of the last death of a copy.
    """

    def __init__(self, messages: Messages, name: str, wants: Callable[[str], bool] | None) -> None:
        self.messages, self.world, self.name, self.wants = messages, messages.world, name, wants
        self.stored_at, self.sent_at, self.delivered_at = array("d"), array("d"), array("d")
        self.started_at, self.processed_at = array("d"), array("d")
        self.deliveries, self.processings, self.effects = array("I"), array("I"), array("I")
        self.fate = array("H")
        self.is_expected = bytearray() if wants is not None else None
        self.parked: dict[int, None] = {}
        self.first_copy: dict[int, int] = {}  # the further copies that were processed, or started, first
        self.first_started: dict[int, int] = {}
        self.repeats: dict[int, list[int]] = {}
        self.delivered_copies: dict[int, float] = {}
        self.unheard: dict[int, int] = {}
        self.queue_steps: list[tuple[float, int]] = []
        self.repeat_times = array("d")
        self.requeued = 0
        self.has_effect = True
        self._matches: dict[str, bool] = {}

    def grow(self, n: int) -> None:
        """Make room for `n` more messages."""
        unknown, none = [NAN] * n, bytes(4 * n)
        for column in (self.stored_at, self.sent_at, self.delivered_at, self.started_at, self.processed_at):
            column.extend(unknown)
        for counts in (self.deliveries, self.processings, self.effects):
            counts.frombytes(none)
        self.fate.frombytes(none[: 2 * n])
        if self.is_expected is not None:
            self.is_expected.extend(bytes(n))

    def expect(self, message: int, key: str) -> None:
        """Note whether the service is owed a new message of that key."""
        assert self.is_expected is not None and self.wants is not None
        wanted = self._matches.get(key)
        if wanted is None:
            wanted = self._matches[key] = self.wants(key)
        self.is_expected[message] = wanted

    # -- at the broker -----------------------------------------------------------------------------------------

    def stored(self, copy: int) -> None:
        """A copy is ready at the broker."""
        message = copy if copy >= 0 else self.messages.copy_message[~copy]
        if (at := self.stored_at[message]) != at:  # NaN: the first time
            self.stored_at[message] = self.world.now
        else:
            self.queue_steps.append((self.world.now, 1))

    def sent(self, copy: int) -> None:
        """A ready copy has been sent to a consumer."""
        message = copy if copy >= 0 else self.messages.copy_message[~copy]
        if (at := self.sent_at[message]) != at:  # NaN: the first time
            self.sent_at[message] = self.world.now
        else:
            self.queue_steps.append((self.world.now, -1))

    def unready(self, copy: int) -> None:
        """A ready copy has left the broker's queue otherwise: dropped, expired, or gone with its memory."""
        self.queue_steps.append((self.world.now, -1))

    def was_sent(self, copy: int) -> bool:
        """Whether a message was ever sent to a consumer (for the cause of a copy, never for a decision)."""
        at = self.sent_at[copy if copy >= 0 else self.messages.copy_message[~copy]]
        return at == at

    def requeue(self, copy: int, cause: int) -> int:
        """The broker takes back a delivery; returns the copy that it will deliver instead."""
        self.requeued += 1
        return self.messages.copy(copy, self.unheard.pop(copy, cause))

    def not_heard(self, copy: int, cause: int) -> None:
        """The root cause why a delivery's answer will not come, should the broker take it back."""
        self.unheard[copy] = cause

    # -- at the consumer ---------------------------------------------------------------------------------------

    def delivered(self, copy: int) -> None:
        """A copy arrived in a consumer's client library."""
        now = self.world.now
        if copy >= 0:
            message = copy
        else:
            message = self.messages.copy_message[~copy]
            self.delivered_copies[copy] = now
        n = self.deliveries[message]
        self.deliveries[message] = n + 1
        if n == 0:
            self.delivered_at[message] = now

    def started(self, copy: int) -> None:
        """A handler began to process a copy."""
        message = copy if copy >= 0 else self.messages.copy_message[~copy]
        if (at := self.started_at[message]) != at:  # NaN: the first time
            self.started_at[message] = self.world.now
            if copy < 0:
                self.first_started[message] = copy

    def processed(self, copy: int) -> None:
        """A processing is complete: its effect is committed, or its handler returned if it has none."""
        message = copy if copy >= 0 else self.messages.copy_message[~copy]
        n = self.processings[message]
        self.processings[message] = n + 1
        if n == 0:
            self.processed_at[message] = self.world.now
            if copy < 0:
                self.first_copy[message] = copy
        else:
            self.repeats.setdefault(message, [self.first_copy.get(message, message)]).append(copy)
            self.repeat_times.append(self.world.now)

    def effect(self, copy: int) -> None:
        """An effect of a message was committed to the consumer's database."""
        self.effects[copy if copy >= 0 else self.messages.copy_message[~copy]] += 1

    def died(self, copy: int, cause: int) -> None:
        """A copy of this subscription is gone."""
        self.fate[copy if copy >= 0 else self.messages.copy_message[~copy]] = cause

    def dead_letter(self, copy: int, cause: int) -> None:
        """A copy was parked in a queue declared terminal."""
        message = self.messages.message_of(copy)
        self.parked[message] = None
        self.fate[message] = cause


# -- with a trace --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One thing that happened to one copy. `subscription` is "" before the message reached one."""

    time: float
    channel: str
    subscription: str
    message: int
    copy: int
    what: str
    cause: str


def _recording(method: Callable[..., Any], what: str) -> Callable[..., Any]:
    def recorded(self: Any, copy: int, *args: Any) -> Any:
        result = method(self, copy, *args)
        messages: Messages = self if isinstance(self, Messages) else self.messages
        trace = messages.ledger.trace
        assert trace is not None
        subject = result if what in ("publish", "copy", "requeue") else copy
        why = cause_of(args[-1]).name if what in ("copy", "died", "dead_letter", "not_heard") else ""
        if what == "requeue":
            why = cause_of(messages.copy_cause[~result]).name
        trace.append(
            Event(
                messages.world.now,
                messages.name,
                "" if self is messages else self.name,
                messages.message_of(subject),
                subject,
                what,
                why,
            )
        )
        return result

    recorded.__name__, recorded.__doc__ = method.__name__, method.__doc__
    return recorded


def _traced(kind: type, names: Iterable[str]) -> dict[str, Any]:
    return {name: _recording(getattr(kind, name), name) for name in names}


TracedMessages: type[Messages] = type(
    "TracedMessages",
    (Messages,),
    _traced(
        Messages,
        ("publish", "confirmed", "failed", "in_doubt", "copy", "not_heard", "died", "committed", "aborted"),
    ),
)
TracedPairs: type[Pairs] = type(
    "TracedPairs",
    (Pairs,),
    _traced(
        Pairs,
        ("stored", "sent", "unready", "requeue", "not_heard", "delivered", "started")
        + ("processed", "effect", "died", "dead_letter"),
    ),
)
