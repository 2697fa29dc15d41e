"""Why: the story of one message, with an anomaly or without, told from a trace of its run.

A run is a function of its config, seed and replication. So the anomaly is looked for in runs without a trace, with
their books audited, and the one run with the message is simulated again with a trace. A message that is asked for by
its number has its story told whether or not the books balance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.apps import OVERTAKEN
from sim.ledger import (
    ANOMALIES,
    OUTCOMES,
    Cause,
    Event,
    Messages,
    Pairs,
    UnbalancedBooks,
    cause_of,
    known_causes,
)
from sim.metrics import PLACES, Array, column, ordering_scopes, out_of_order, pair_facts, repeats
from sim.scenario.errors import found as shown
from sim.scenario.errors import nearest_or_all
from sim.simulation import Run, simulate
from sim.words import duration

if TYPE_CHECKING:
    from sim.faults import Spell
    from sim.scenario import Scenario

ENDINGS = {
    "lost": "lost for good",
    "expired": "removed as expired",
    "rejected": "rejected for good",
    "dead_lettered": "parked as a dead letter",
}
PREFERRED = ("lost", "duplicate", *(a for a in ANOMALIES if a not in ("lost", "duplicate")))
UNACCOUNTED = "unaccounted"
TOLD = {
    "confirmed": "Its producer holds a confirmation.",
    "failed": "Its producer was told that it is not stored.",
    "in_doubt": "Its producer was told nothing.",
}
BIRTHS = {"network_duplicate": "doubled", "input_reprocessed": "published again"}  # others were resent


class Unknown(ValueError):
    """An anomaly, message, row or replication that is not there; its text is one line that begins with which."""


@dataclass(frozen=True)
class Step:
    """One thing that happened, at `time` (s): to which copy, by its label, and in words. `what` is the trace's word."""

    time: float
    subscription: str
    copy: str
    what: str
    cause: str
    text: str


@dataclass(frozen=True)
class Story:
    """What happened to one message.

    `anomaly` and `cause` are None where all went well. `subscription` is "" where the story is that of all services.
    """

    scenario: str
    seed: int
    row: int
    params: dict[str, Any]
    replication: int
    channel: str
    message: int
    subscription: str
    anomaly: str | None
    cause: Cause | None
    events: tuple[Step, ...]
    summary: str

    @property
    def meaning(self) -> str | None:
        """What the cause means here. A loss that was made good only came late: there, its first clause is true."""
        if self.cause is None or self.cause.anomaly == self.anomaly:
            return self.cause.meaning if self.cause else None
        return f"{_clause(self.cause.meaning)}, and the copy that took its place came later."

    @property
    def prevented_by(self) -> str | None:
        """What a user would change."""
        if self.cause is None or self.cause.anomaly == self.anomaly:
            return self.cause.prevented_by if self.cause else None
        return cause_of(OVERTAKEN).prevented_by

    def to_json(self) -> dict[str, Any]:
        """The story as `msgsim why --json` prints it."""
        from sim.result import plain

        cause = self.cause
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "row": self.row,
            "params": plain(self.params),
            "replication": self.replication,
            "channel": self.channel,
            "message": self.message,
            "subscription": self.subscription,
            "anomaly": self.anomaly,
            "cause": cause.name if cause else None,
            "behaviour": cause.behaviour if cause else None,
            "meaning": self.meaning,
            "prevented_by": self.prevented_by,
            "events": [vars(step) for step in self.events],
        }


@dataclass(frozen=True)
class _Found:
    """Whose story is told."""

    row: int
    replication: int
    channel: str
    message: int
    subscription: str
    anomaly: str | None


def explain(
    scenario: Scenario | str | Path,
    *,
    anomaly: str | None = None,
    message: str | int | None = None,
    row: int | None = None,
    replication: int | None = None,
    seed: int | None = None,
) -> Story | None:
    """The story of one message of a scenario (or the one of that name or file).

    `message` is "orders:17", or 17 where there is one channel; without `anomaly` it is that of the first row and
    replication, unless they are given. Else the story is of the first message, by row, replication and number, that
    has the anomaly (by default lost, or duplicate, or any); None if there is none.

    Raises Unknown for what is not there, ScenarioError for a bad scenario, and UnbalancedBooks where an anomaly is
    looked for in a run whose books do not balance.
    """
    if isinstance(scenario, str | Path):
        from sim.scenario import load

        scenario = load(scenario)
    if anomaly is not None and anomaly not in ANOMALIES:
        raise Unknown(
            f"anomaly: expected an anomaly, found {shown(anomaly)}{nearest_or_all(anomaly, ANOMALIES)}"
        )
    points = scenario.points()
    if row is not None and not 0 <= row < len(points):
        raise Unknown(f"row: expected a row from 0 to {len(points) - 1}, found {row}")
    if replication is not None and replication < 0:
        raise Unknown(f"replication: expected a replication, 0 or more, found {replication}")
    seed = scenario.seed if seed is None else seed
    rows = range(len(points)) if row is None else range(row, row + 1)
    replications = (
        range(scenario.replications) if replication is None else range(replication, replication + 1)
    )
    runs = ((i, k, simulate(points[i].config, seed, k)) for i in rows for k in replications)
    if message is None:
        found = _first(runs, anomaly)
    else:
        found = _named(runs, *_address(message, list(points[rows[0]].config.channels)), anomaly)
    if found is None:
        return None
    run = simulate(points[found.row].config, seed, found.replication, trace=True)
    return _story(scenario.name, found, dict(points[found.row].params), run)


def nothing(scenario: Scenario, seed: int | None = None) -> dict[str, Any]:
    """What `msgsim why --json` prints where there is no story: the same names, nearly all of them null."""
    names = (
        "scenario seed row params replication channel message subscription anomaly cause behaviour meaning"
    )
    known = {"scenario": scenario.name, "seed": scenario.seed if seed is None else seed}
    return dict.fromkeys(names.split()) | known | {"prevented_by": None, "events": []}


# -- whose story ---------------------------------------------------------------------------------------------------


def _address(message: str | int, channels: Sequence[str]) -> tuple[str, int]:
    """ "orders:17" as ("orders", 17); the channel may be left out where there is one."""
    channel, colon, number = str(message).rpartition(":")
    if not re.fullmatch(r"\d{1,18}", number, re.ASCII):
        raise Unknown(f"message: expected CHANNEL:NUMBER such as {channels[0]}:17, found {str(message)!r}")
    if not colon and len(channels) > 1:
        raise Unknown(
            f"message: expected CHANNEL:NUMBER, found {str(message)!r}; the channels are {', '.join(channels)}"
        )
    if colon and channel not in channels:
        raise Unknown(f"message: unknown channel {shown(channel)}{nearest_or_all(channel, channels)}")
    return (channel if colon else channels[0]), int(number)


def _first(runs: Iterator[tuple[int, int, Run]], anomaly: str | None) -> _Found | None:
    """The first message that has the anomaly, or else the first of the anomaly that comes first in `PREFERRED`."""
    wanted = PREFERRED if anomaly is None else (anomaly,)
    found: dict[str, _Found] = {}
    for row, replication, run in runs:
        try:
            firsts = _firsts(run)
        except UnbalancedBooks as error:
            error.add_note(f"row {row}, replication {replication}, seed {run.seed}")
            raise
        for kind, (message, channel, subscription) in firsts.items():
            found.setdefault(kind, _Found(row, replication, channel, message, subscription, kind))
        if wanted[0] in found:
            break
    return next((found[kind] for kind in wanted if kind in found), None)


def _firsts(run: Run) -> dict[str, tuple[int, str, str]]:
    """For each anomaly of a run the first message that has it: its number, channel and subscription."""
    firsts: dict[str, tuple[int, str, str]] = {}
    for pairs in (p for books in run.ledger.channels.values() for p in books.subscriptions.values()):
        facts = pair_facts(run, pairs)
        numbers = {place: np.flatnonzero(facts.place == place).tolist() for place in ENDINGS}
        numbers["duplicate"] = sorted(m for m in pairs.repeats if facts.expected[m])
        numbers["reordered"] = np.flatnonzero(_late(pairs)).tolist()
        for kind, having in numbers.items():
            if having and (kind not in firsts or having[0] < firsts[kind][0]):
                firsts[kind] = (having[0], pairs.messages.name, pairs.name)
    return firsts


def _named(
    runs: Iterator[tuple[int, int, Run]], channel: str, message: int, anomaly: str | None
) -> _Found | None:
    """The message of that number, in the first run, or in the first in which it has the anomaly."""
    n_most = 0
    for row, replication, run in runs:
        books = run.ledger.channels[channel]
        n_most = max(n_most, len(books))
        if message < len(books):
            kinds = {
                kind: pairs.name
                for pairs in reversed(books.subscriptions.values())
                for kind in _anomalies(run, pairs, message)
            }
            kind = anomaly or next((k for k in PREFERRED if k in kinds), None)
            if anomaly is None or anomaly in kinds:
                subscription = kinds[kind] if kind else _without_anomaly(run, books, message)
                return _Found(row, replication, channel, message, subscription, kind)
        if anomaly is None:
            break
    if message >= n_most:
        numbers = f"expected a number from 0 to {n_most - 1}" if n_most else "no message was published"
        raise Unknown(f"message: unknown message {channel}:{message}; {numbers}")
    return None


def _without_anomaly(run: Run, books: Messages, message: int) -> str:
    """The subscription that the story is about: the only one, or one that has not processed the message; "" for all."""
    places = {pairs.name: _place(run, pairs, message) for pairs in books.subscriptions.values()}
    expecting = [name for name, place in places.items() if place]
    waiting = [name for place in (UNACCOUNTED, "in_flight") for name in expecting if places[name] == place]
    return waiting[0] if waiting else expecting[0] if len(expecting) == 1 else ""


# -- what became of it (without an audit) --------------------------------------------------------------------------


def _place(run: Run, pairs: Pairs, message: int) -> str:
    """The place of one pair, as in `sim.metrics.pair_facts`; "" where the service does not want the message."""
    if pairs.is_expected is not None and not pairs.is_expected[message]:
        return ""
    if pairs.messages.is_aborted(message):
        return "aborted"
    if pairs.processings[message]:
        return "unique"
    if message in run.holdings[pairs.messages.name, pairs.name]:
        return "in_flight"
    code = pairs.fate[message]
    place = cause_of(code).anomaly if code else UNACCOUNTED
    return place if place in PLACES else UNACCOUNTED


def _late(pairs: Pairs) -> Array:
    """Which messages a subscription started out of order."""
    n = len(pairs.messages)
    unique = column(pairs.processings, n, "u4") > 0
    if pairs.is_expected is not None:
        unique &= column(pairs.is_expected, n, "u1") > 0
    return out_of_order(ordering_scopes(pairs.messages), column(pairs.started_at, n, "f8"), unique)


def _anomalies(run: Run, pairs: Pairs, message: int) -> list[str]:
    place = _place(run, pairs, message)
    if place != "unique":
        return [place] if place in ENDINGS else []
    is_repeated = pairs.processings[message] > 1
    return ["duplicate"] * is_repeated + ["reordered"] * bool(_late(pairs)[message])


def _causes(run: Run, pairs: Pairs, message: int, anomaly: str) -> list[Cause]:
    """The causes of an anomaly of one pair, of each repeat if it is `duplicate`; empty where the books are wrong."""
    if anomaly in ENDINGS:
        return [cause_of(pairs.fate[message])]
    if anomaly == "duplicate":
        try:
            return [cause_of(code) for code in repeats(run, pairs, pairs.repeats[message])]
        except (UnbalancedBooks, KeyError):
            return []
    copy = pairs.first_started.get(message, message)
    return [cause_of(OVERTAKEN if copy >= 0 else pairs.messages.copy_cause[~copy])]


# -- the story -----------------------------------------------------------------------------------------------------


def _story(scenario: str, found: _Found, params: dict[str, Any], run: Run) -> Story:
    books = run.ledger.channels[found.channel]
    pairs = books.subscriptions.get(found.subscription)
    causes = _causes(run, pairs, found.message, found.anomaly) if pairs and found.anomaly else []
    story = Story(
        scenario=scenario,
        seed=run.seed,
        row=found.row,
        params=params,
        replication=found.replication,
        channel=found.channel,
        message=found.message,
        subscription=found.subscription,
        anomaly=found.anomaly,
        cause=causes[0] if causes else None,
        events=tuple(_Teller(run, found).steps()),
        summary="",
    )
    return replace(story, summary=_summary(run, pairs, story, causes))


def _summary(run: Run, pairs: Pairs | None, story: Story, causes: list[Cause]) -> str:
    books, message = run.ledger.channels[story.channel], story.message
    name = f"{story.channel}:{message}"
    told = TOLD[OUTCOMES[books.outcome[message]]]
    if books.is_aborted(message):
        seen = [p.name for p in books.subscriptions.values() if p.processings[message]]
        phantom = f" {' and '.join(seen)} processed it all the same." if seen else ""
        return f"The transaction of {name} was aborted, so nobody is owed it.{phantom} {told}"
    if pairs is None:
        return _summary_of_all(run, books, message, name)
    service, why = pairs.name, _lowered(story.meaning or "the cause is not known")
    if story.anomaly == "duplicate":
        why = ", and ".join(dict.fromkeys(_lowered(cause.meaning) for cause in causes)) or why
        n = pairs.effects[message]
        effects = f" ({n} effect{'s' * (n != 1)})" if pairs.has_effect else ""
        return f"{service} processed {name} {_times(pairs.processings[message])}{effects}: {why}."
    if story.anomaly == "reordered":
        later = _overtaker(pairs, message)
        scope = f" and {pairs.messages.ordering_scope}" if pairs.messages.ordering_scope else ""
        return (
            f"{service} began {name} at {pairs.started_at[message]:.3f} s, "
            f"after {story.channel}:{later}, a later message of the same producer{scope}, "
            f"at {pairs.started_at[later]:.3f} s: {why}."
        )
    if story.anomaly is not None:
        return f"{name} was {ENDINGS[story.anomaly]}, and {service} never processed it: {why}. {told}"
    place = _place(run, pairs, message)
    if place == "unique":
        latency = duration(pairs.processed_at[message] - books.created[message])
        return f"All went well: {service} processed {name} once, {latency} after it was created."
    if place == "in_flight":
        return f"{name} was still on its way to {service} when the run ended, at {run.ended_at:.3f} s. {told}"
    return (
        f"{name} is unaccounted for at {service}: never processed, no copy is left, and none was reported dead. "
        "The books do not balance, which is a bug of the model."
    )


def _summary_of_all(run: Run, books: Messages, message: int, name: str) -> str:
    services = [p.name for p in books.subscriptions.values() if _place(run, p, message)]
    if not services:
        return f"No service wants {name}."
    return f"All went well: {', '.join(services[:-1])} and {services[-1]} processed {name} once each."


def _overtaker(pairs: Pairs, message: int) -> int:
    """The later message of the same producer that was started first of all."""
    n, scopes = len(pairs.messages), ordering_scopes(pairs.messages)
    later = [
        m
        for m in range(message + 1, n)
        if scopes[m] == scopes[message] and pairs.processings[m] and not math.isnan(pairs.started_at[m])
    ]
    return min(later, key=lambda m: pairs.started_at[m])


class _Teller:
    """Tells the events of one message, and of its copies, in order."""

    def __init__(self, run: Run, found: _Found) -> None:
        self.run, self.found = run, found
        self.books = run.ledger.channels[found.channel]
        self.events = _events_of(run.trace or [], found)
        self.system = run.config.channels[found.channel].system
        self.known = known_causes()
        self.numbers: dict[int, int] = {found.message: 1}
        self.labels: dict[int, str] = {found.message: "copy 1"}
        self.processings: dict[str, int] = {}
        self.effects: dict[str, int] = {}
        ends = [event for event in self.events if event.what in ("died", "dead_letter")]
        self.end = ends[-1] if ends and found.anomaly in ENDINGS else None

    def steps(self) -> Iterator[Step]:
        """The story, step by step."""
        for event in self.events:
            if event.copy not in self.numbers:
                number = self.numbers[event.copy] = len(self.numbers) + 1
                how = "redelivered" if event.what == "requeue" else BIRTHS.get(event.cause, "resent")
                self.labels[event.copy] = f"copy {number} ({how}: {event.cause})"
            text = self._sentence(event) + "".join(self._faults(event.time))
            yield Step(event.time, event.subscription, self.labels[event.copy], event.what, event.cause, text)

    def _sentence(self, event: Event) -> str:
        copy, service = f"copy {self.numbers[event.copy]}", event.subscription
        match event.what:
            case "publish":
                return f"{self._producer()} has a message to publish{self._parent()}: {copy}"
            case "confirmed":
                return "the producer hears that the message is stored"
            case "failed":
                return "the producer hears that the message is not stored"
            case "in_doubt":
                return "the producer waits for an answer no longer, and is in doubt"
            case "copy" | "requeue":
                return self._birth(event)
            case "committed":
                return f"the transaction of {copy} is committed"
            case "aborted":
                return f"the transaction of {copy} is aborted"
            case "stored":
                return f"the broker has {copy} ready for {service}"
            case "sent":
                return f"the broker sends {copy} to {service}"
            case "unready":
                return f"the broker has {copy} ready no longer"
            case "delivered":
                return f"{copy} arrives at {service}"
            case "started":
                return f"{service} begins to process {copy}"
            case "processed":
                return self._processed(event)
            case "effect":
                n = self.effects[service] = self.effects.get(service, 0) + 1
                return f"{service} commits the effect of {copy}" + (
                    f": effect {n} of this message" if n > 1 else ""
                )
            case "not_heard":
                who = "the broker" if service else "the producer"
                return f"{who} will hear no answer for {copy}: {self._why(event)}"
            case "died" | "dead_letter":
                return self._death(event)
        return f"{copy}: {event.what.replace('_', ' ')}"

    def _producer(self) -> str:
        return self.books.producers[self.books.producer[self.found.message]]

    def _parent(self) -> str:
        """Of a message that a service published because of another: which."""
        for (service, parent), message in self.books.derived.items():
            if message == self.found.message:
                return f", because of {self.run.config.services[service].app.channel}:{parent}"
        return ""

    def _birth(self, event: Event) -> str:
        parent = f"copy {self.numbers.get(self.books.copy_parent[~event.copy], 1)}"
        copy, why = f"copy {self.numbers[event.copy]}", self._why(event)
        if event.what == "requeue":
            return f"the broker takes {parent} back and will deliver it again, as {copy}: {why}"
        how = BIRTHS.get(event.cause, "resent")
        if how == "doubled":
            return f"the network makes {copy} of {parent}: {why}"
        verb = "resends" if how == "resent" else "publishes it again:"
        return f"{self._producer()} {verb} {parent} as {copy}: {why}"

    def _processed(self, event: Event) -> str:
        service = event.subscription
        n = self.processings[service] = self.processings.get(service, 0) + 1
        text = f"{service} has processed copy {self.numbers[event.copy]}"
        if n > 1:
            text += f": processing {n} of this message"
        has_effect = any(
            (e.what, e.time, e.copy, e.subscription) == ("effect", event.time, event.copy, service)
            for e in self.events
        )
        if self.books.subscriptions[service].has_effect and not has_effect:
            text += ", without an effect, since it was known"
        return text

    def _death(self, event: Event) -> str:
        copy = f"copy {self.numbers[event.copy]}"
        if self._cause(event).system == "application" and not event.subscription:
            copy = "the message"  # its producer speaks of the message, whatever its copies
        if event is self.end:
            assert self.found.anomaly is not None
            return f"{copy} is {ENDINGS[self.found.anomaly]}: {self._why(event, whole=True)}"
        return f"{copy} is gone: {self._why(event)}"

    def _cause(self, event: Event) -> Cause:
        """The cause of an event: names are unique within a system."""
        named = [cause for cause in self.known if cause.name == event.cause]
        own = [cause for cause in named if cause.system in (self.system, "application")]
        return (own or named)[0]

    def _why(self, event: Event, whole: bool = False) -> str:
        """What a cause means. Only where it ended the message is all of it true: else the first clause is told."""
        meaning = self._cause(event).meaning
        return f"{_lowered(meaning if whole else _clause(meaning))} ({event.cause})"

    def _faults(self, time: float) -> Iterator[str]:
        """The faults that were on."""
        for spell in self.run.faults.spells:
            end = self.run.ended_at if spell.end is None else spell.end
            if spell.start <= time <= end:
                yield f" [{_fault(spell, end)}]"


def _events_of(trace: Sequence[Event], found: _Found) -> list[Event]:
    """The events of a message in the story of one subscription (or all): without those that say the same twice."""
    events = [e for e in trace if e.message == found.message and e.channel == found.channel]
    if found.subscription:
        here = {e.copy for e in events if e.subscription == found.subscription}
        elsewhere = {e.copy for e in events if e.subscription and e.copy < 0} - here
        events = [e for e in events if e.subscription in ("", found.subscription) and e.copy not in elsewhere]
    requeued = {e.copy for e in events if e.what == "requeue"}
    deaths = {(e.time, e.copy) for e in events if e.what in ("died", "dead_letter")}
    return [
        e
        for e in events
        if not (e.what == "copy" and e.copy in requeued)
        and not (e.what in ("unready", "not_heard") and (e.time, e.copy) in deaths)
    ]


def _fault(spell: Spell, end: float) -> str:
    start, until = (re.sub(r"(\.\d+?)0+$", r"\1", f"{time:.3f}") for time in (spell.start, end))
    return f"{spell.kind.replace('_', ' ')} of {spell.target} {start}-{until} s"


def _clause(meaning: str) -> str:
    """What happened; what follows says how it ended."""
    return re.split(r",? and |; |, so ", meaning)[0].rstrip(".")


def _lowered(sentence: str) -> str:
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")


def _times(n: int) -> str:
    return "twice" if n == 2 else f"{n} times"
