"""From the ledger to figures (design, section 5), and the audit of the books on the way.

Counts are exact integers. Sums that a figure depends on use `math.fsum`, so that they are the same whatever vector
instructions the CPU has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.apps import OVERTAKEN
from sim.ledger import CONFIRMED, FAILED, OUTCOMES, Messages, Pairs, UnbalancedBooks, cause_of, cause_rank
from sim.simulation import Run

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Figures = dict[str, int | float | None]

PLACES = ("unique", "in_flight", "dead_lettered", "expired", "rejected", "lost")
MESSAGE_COUNTS = ("published", "confirmed", "failed", "in_doubt")
PAIR_COUNTS = (
    (
        "expected",
        "aborted",
        "delivered",
        "requeued",
        "processed",
        "unique",
        "duplicates",
        "phantom",
        "redelivered",
    )
    + ("in_flight", "dead_lettered", "expired", "rejected", "lost", "lost_confirmed", "out_of_order")
    + ("effects", "duplicate_effects", "lost_effects")
)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
COMPONENTS = ("publish", "queue", "delivery", "wait", "service")
STAYS = {"queue_wait_mean": "queue", "transit_mean": "delivery", "prefetched_wait_mean": "wait"}
BINS = 240


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run: figures by name, per (channel, subscription) in `by`, causes, and what the plots need.

    `quantiles` are [probability, latency in s]; `series` holds equally long lists over `time` (s); `components` are
    mean seconds of a latency's parts, in the order of a message's way.
    """

    figures: Figures
    by: list[dict[str, Any]]
    causes: list[dict[str, Any]]
    inert: list[str]
    faults: list[dict[str, Any]]
    quantiles: list[list[float]]
    series: dict[str, list[float]]
    components: dict[str, float]
    n_latency: int


@dataclass
class PairFacts:
    """The columns of one subscription, cut to its messages, with the place of every pair."""

    pairs: Pairs
    expected: Array
    place: Array
    created: Array
    stored: Array
    sent: Array
    delivered: Array
    started: Array
    processed: Array
    counts: dict[str, int]
    causes: Counter[tuple[str, int]]


def measure(run: Run) -> Outcome:
    """All figures of a run. Raises UnbalancedBooks when a message is unaccounted for."""
    facts = [
        pair_facts(run, pairs)
        for messages in run.ledger.channels.values()
        for pairs in subscriptions(messages)
    ]
    warmup = run.config.warmup
    channels = {name: message_counts(messages) for name, messages in run.ledger.channels.items()}
    figures: Figures = {name: sum(counts[name] for counts in channels.values()) for name in MESSAGE_COUNTS}
    figures |= {name: sum(f.counts[name] for f in facts) for name in PAIR_COUNTS}
    figures |= rates_and_latencies(run, facts, warmup)
    stays = [stays_of(f, warmup) for f in facts]
    figures |= waits(run, facts, stays)
    figures |= confirm_latencies(run.ledger.channels.values(), warmup)
    figures |= {"requests": run.requests, "cost": None}
    by = []
    for f, stay in zip(facts, stays, strict=True):
        channel = f.pairs.messages
        row: dict[str, Any] = {"channel": channel.name, "subscription": f.pairs.name}
        row |= (
            channels[channel.name]
            | f.counts
            | rates_and_latencies(run, [f], warmup)
            | waits(run, [f], [stay])
        )
        by.append(row)
    latency = pooled_latency(facts, warmup)
    return Outcome(
        figures=figures,
        by=by,
        causes=[
            {
                "anomaly": anomaly,
                "cause": cause_of(code).name,
                "behaviour": cause_of(code).behaviour,
                "count": count,
            }
            for (anomaly, code), count in in_order(sum((f.causes for f in facts), Counter()))
        ],
        inert=run.faults.inert(),
        faults=[
            {
                "kind": s.kind,
                "target": s.target,
                "start": s.start,
                "end": run.ended_at if s.end is None else s.end,
            }
            for s in run.faults.spells
        ],
        quantiles=quantile_curve(latency),
        series=series(run, facts),
        components={name: mean(values) or 0.0 for name, values in pooled(stays).items()},
        n_latency=len(latency),
    )


def in_order(causes: Counter[tuple[str, int]]) -> list[tuple[tuple[str, int], int]]:
    """Counts of (anomaly, cause), in the same order in every process."""
    return sorted(causes.items(), key=lambda item: (item[0][0], cause_rank(item[0][1])))


def subscriptions(messages: Messages) -> Iterable[Pairs]:
    """The subscriptions of a channel, in the order in which they were opened."""
    return messages.subscriptions.values()


def column(values: Any, n: int, kind: str) -> Array:
    """The first `n` entries of a ledger's column, as an array that shares nothing with it."""
    return np.frombuffer(values, dtype=kind, count=n).copy() if n else np.zeros(0, dtype=kind)


def message_counts(messages: Messages) -> dict[str, int]:
    """Messages published, and what their producers were last told."""
    outcome = column(messages.outcome, len(messages), "u1")
    return {"published": len(messages)} | {
        OUTCOMES[code]: int(np.count_nonzero(outcome == code)) for code in (CONFIRMED, FAILED, 0)
    }


# -- the books -----------------------------------------------------------------------------------------------------


def pair_facts(run: Run, pairs: Pairs) -> PairFacts:
    """Put every pair in its place, count, explain, and balance the books of one subscription."""
    messages = pairs.messages
    n = len(messages)
    expected = np.ones(n, dtype=bool) if pairs.is_expected is None else column(pairs.is_expected, n, "u1") > 0
    owed = int(np.count_nonzero(expected))
    for message in messages.transactions:
        expected[message] &= not messages.is_aborted(message)
    processings, deliveries = column(pairs.processings, n, "u4"), column(pairs.deliveries, n, "u4")
    effects, fate = column(pairs.effects, n, "u4"), column(pairs.fate, n, "u2")
    outcome = column(messages.outcome, n, "u1")
    started = column(pairs.started_at, n, "f8")
    held = np.zeros(n, dtype=bool)
    held[sorted(run.holdings[messages.name, pairs.name])] = True

    place = np.full(n, "", dtype="U13")
    causes: Counter[tuple[str, int]] = Counter()
    is_processed = processings > 0
    place[expected & is_processed] = "unique"
    place[expected & ~is_processed & held] = "in_flight"
    gone = expected & ~is_processed & ~held
    for code in np.unique(fate[gone]):
        ends_here = gone & (fate == code)
        if code == 0 or cause_of(int(code)).anomaly not in PLACES:
            why = (
                "no copy is left and none was reported dead"
                if code == 0
                else f"it died of {cause_of(int(code)).name}"
            )
            raise unbalanced(run, pairs, int(np.flatnonzero(ends_here)[0]), why)
        anomaly = cause_of(int(code)).anomaly
        place[ends_here] = anomaly
        causes[anomaly, int(code)] += int(np.count_nonzero(ends_here))

    for message, copies in pairs.repeats.items():
        if not expected[message]:
            continue
        if len(copies) != processings[message]:
            raise unbalanced(run, pairs, message, f"{processings[message]} processings, {len(copies)} copies")
        for code in repeats(run, pairs, copies):
            causes["duplicate", code] += 1

    late = out_of_order(ordering_scopes(messages), started, place == "unique")
    for message in np.flatnonzero(late).tolist():
        copy = pairs.first_started.get(message, message)
        causes["reordered", OVERTAKEN if copy >= 0 else messages.copy_cause[~copy]] += 1

    def total(values: Array) -> int:
        return int(values.sum(dtype=np.int64))

    lost = place == "lost"
    counts = {name: int(np.count_nonzero(place == name)) for name in PLACES} | {
        "expected": int(np.count_nonzero(expected)),
        "aborted": owed - int(np.count_nonzero(expected)),
        "delivered": total(deliveries),
        "requeued": pairs.requeued,
        "processed": total(processings),
        "duplicates": total(processings[expected & is_processed])
        - int(np.count_nonzero(expected & is_processed)),
        "phantom": total(processings[~expected]),
        "redelivered": total(deliveries[deliveries > 0] - 1),
        "lost_confirmed": int(np.count_nonzero(lost & (outcome == CONFIRMED))),
        "out_of_order": int(np.count_nonzero(late)),
        "effects": total(effects),
        "duplicate_effects": total(effects[effects > 0] - 1),
        "lost_effects": int(np.count_nonzero(is_processed & expected & (effects == 0)))
        if pairs.has_effect
        else 0,
    }
    balance(run, pairs, counts, causes)
    return PairFacts(
        pairs=pairs,
        expected=expected,
        place=place,
        created=column(messages.created, n, "f8"),
        stored=column(pairs.stored_at, n, "f8"),
        sent=column(pairs.sent_at, n, "f8"),
        delivered=column(pairs.delivered_at, n, "f8"),
        started=started,
        processed=column(pairs.processed_at, n, "f8"),
        counts=counts,
        causes=causes,
    )


def balance(run: Run, pairs: Pairs, counts: dict[str, int], causes: Counter[tuple[str, int]]) -> None:
    """The books of one subscription, as exact integers."""
    explained: Counter[str] = Counter()
    for (anomaly, _), count in causes.items():
        explained[anomaly] += count
    for complaint, is_wrong in (
        ("expected is not the sum of the places", counts["expected"] != sum(counts[p] for p in PLACES)),
        ("more was processed than delivered", counts["processed"] > counts["delivered"]),
        (
            "processed is not unique + duplicates + phantom",
            counts["processed"] != counts["unique"] + counts["duplicates"] + counts["phantom"],
        ),
        ("a duplicate has no cause", explained["duplicate"] != counts["duplicates"]),
        ("a loss has no cause", any(explained[place] != counts[place] for place in PLACES[2:])),
    ):
        if is_wrong:
            raise unbalanced(run, pairs, None, complaint)


def unbalanced(run: Run, pairs: Pairs, message: int | None, complaint: str) -> UnbalancedBooks:
    """The error for books that do not balance: which message, and how to see its story."""
    which = "" if message is None else f", message {message}"
    story = "" if message is None else f" --message {pairs.messages.name}:{message}"
    return UnbalancedBooks(
        f"the books of {pairs.messages.name}/{pairs.name}{which} do not balance: {complaint}; "
        f"seed {run.seed}, replication {run.replication}: "
        f"see its story with `msgsim why SCENARIO{story} --seed {run.seed} --replication {run.replication}`"
    )


def repeats(run: Run, pairs: Pairs, copies: Sequence[int]) -> list[int]:
    """Why a pair was processed more than once: of `copies` processed, the causes of all but one.

    Spared is the first copy, or the one that stands for it where that was lost on its way; only where neither was
    processed, the copy that was delivered first.
    """
    lines = [line_of(pairs.messages, copy) for copy in copies]
    processed = Counter(copy for line in lines for copy in line)  # how many in the line of each
    roots = [root_cause(pairs.messages, line, processed) for line in lines]
    if None in roots:
        roots.remove(None)
    else:
        first = min(copies, key=lambda copy: (pairs.delivered_copies[copy], -copy))
        del roots[list(copies).index(first)]
    if None in roots:
        raise unbalanced(run, pairs, pairs.messages.message_of(copies[0]), "a copy was processed twice")
    return [code for code in roots if code is not None]


def line_of(messages: Messages, copy: int) -> list[int]:
    """A copy, the copy that it was made from, and so on up to the first."""
    line = [copy]
    while copy < 0:
        copy = messages.copy_parent[~copy]
        line.append(copy)
    return line


def root_cause(messages: Messages, line: Sequence[int], processed: Mapping[int, int]) -> int | None:
    """Why the first of a line was one too many: the nearest birth beside which another copy was processed.

    One in place of a copy that nobody processed made none too many, whatever it was born of: that is where it came
    from. None for the line of the first copy.
    """
    for child, parent in pairwise(line):
        code = messages.copy_cause[~child]
        if processed[parent] > processed[child] and cause_of(code).anomaly == "duplicate":
            return code
    return None


def ordering_scopes(messages: Messages) -> Array:
    """A number for each message, the same for those that should keep their order: of a producer and, say, partition."""
    n = len(messages)
    producer = column(messages.producer, n, "u2").astype(np.int64)
    if messages.ordering_scope == "key" and messages.keys is not None:
        return producer * len(messages.key_names) + column(messages.keys, n, "i8")
    return producer if messages.scopes is None else producer * 65536 + column(messages.scopes, n, "u2")


def out_of_order(scope: Array, started: Array, counted: Array) -> Array:
    """Pairs whose first processing starts after that of a later one of the same producer and scope."""
    late = np.zeros(len(started), dtype=bool)
    for number in np.unique(scope):
        rows = np.flatnonzero(counted & (scope == number))
        if len(rows) > 1:
            earliest_after = np.minimum.accumulate(started[rows][::-1])[::-1]
            late[rows[:-1]] = started[rows][:-1] > earliest_after[1:]
    return late


# -- figures -------------------------------------------------------------------------------------------------------


def pooled_latency(facts: Sequence[PairFacts], warmup: float) -> Array:
    """Sorted latencies (s) of all pairs processed, of messages created after the warm-up."""
    parts = [(f.processed - f.created)[(f.place == "unique") & (f.created >= warmup)] for f in facts]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0)


def mean(values: Array) -> float | None:
    """The mean, or None of nothing."""
    return math.fsum(values.tolist()) / len(values) if len(values) else None


def quantile(ordered: Array, q: float) -> float | None:
    """The q-quantile of sorted values by linear interpolation, or None of nothing."""
    if not len(ordered):
        return None
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low]) + (at - low) * (float(ordered[high]) - float(ordered[low]))


def rates_and_latencies(run: Run, facts: Sequence[PairFacts], warmup: float) -> Figures:
    """Latencies, rates over [warm-up, end of arrivals], backlog and utilisation of some subscriptions together."""
    latency = pooled_latency(facts, warmup)
    figures: Figures = {"latency_mean": mean(latency)}
    figures |= {f"latency_{name}": quantile(latency, q) for name, q in QUANTILES.items()}
    figures["latency_max"] = float(latency[-1]) if len(latency) else None
    end = run.stopped_at
    span = end - warmup
    first = sum(int(np.count_nonzero((f.processed >= warmup) & (f.processed <= end))) for f in facts)
    again = sum(sum(warmup <= t <= end for t in f.pairs.repeat_times) for f in facts)
    figures["throughput"] = (first + again) / span if span > 0 else None
    figures["goodput"] = first / span if span > 0 else None
    times, depth = backlog(facts)
    figures["backlog_max"] = int(depth.max()) if len(depth) else 0
    figures["backlog_mean"] = step_mean(times, depth, warmup, end) if span > 0 else None
    figures["backlog_lasted"] = longest_spell(times, depth, run.ended_at)
    busy = [run.busy[f.pairs.name] for f in facts if f.pairs.name in run.busy]
    up = math.fsum(u for _, u in busy)
    figures["utilisation"] = math.fsum(b for b, _ in busy) / up if up > 0 else None
    return figures


def waits(run: Run, facts: Sequence[PairFacts], stays: Sequence[dict[str, Array]]) -> Figures:
    """Where messages wait on their way, how many in client libraries, and how long nothing is at work.

    As the stays, the latter two are of first deliveries and first processings, over [warm-up, end of arrivals].
    """
    start, end = run.config.warmup, run.stopped_at
    parts = pooled(stays)
    figures: Figures = {name: mean(parts[part]) for name, part in STAYS.items()}
    if end <= start:
        return figures | {"prefetched_mean": None, "idle": None}
    prefetched: list[float] = []
    for f in facts:
        known = ~np.isnan(f.delivered) & ~np.isnan(f.started)
        stay = np.clip(f.started[known], start, end) - np.clip(f.delivered[known], start, end)
        prefetched += stay.tolist()
    figures["prefetched_mean"] = math.fsum(prefetched) / (end - start)
    figures["idle"] = idle_time(facts, start, end) / (end - start)
    return figures


def idle_time(facts: Sequence[PairFacts], start: float, end: float) -> float:
    """Seconds of [start, end] in which no message is being processed for the first time."""
    known = [~np.isnan(f.processed) for f in facts]
    begun = np.concatenate([[start], *(f.started[k] for f, k in zip(facts, known, strict=True)), [end]])
    done = np.concatenate([[start], *(f.processed[k] for f, k in zip(facts, known, strict=True)), [end]])
    order = np.argsort(begun, kind="stable")
    begun, done = begun[order], np.maximum.accumulate(done[order])
    gaps = np.clip(begun[1:], start, end) - np.clip(done[:-1], start, end)
    return math.fsum(gaps[gaps > 0].tolist())


def confirm_latencies(channels: Iterable[Messages], warmup: float) -> Figures:
    """How long producers waited for their acks (s), from intended creation; failures are not in it."""
    parts = []
    for messages in channels:
        n = len(messages)
        created, told = column(messages.created, n, "f8"), column(messages.told_at, n, "f8")
        is_told = (column(messages.outcome, n, "u1") == CONFIRMED) & (created >= warmup)
        parts.append((told - created)[is_told])
    waits = np.sort(np.concatenate(parts)) if parts else np.zeros(0)
    return {
        "confirm_mean": mean(waits),
        "confirm_p50": quantile(waits, 0.5),
        "confirm_p99": quantile(waits, 0.99),
        "confirm_max": float(waits[-1]) if len(waits) else None,
    }


def backlog(facts: Sequence[PairFacts]) -> tuple[Array, Array]:
    """Ready copies at the broker as a step function: times (s), and the depth from each time on."""
    times: list[Array] = []
    steps: list[Array] = []
    for f in facts:
        for values, step in ((f.stored, 1), (f.sent, -1)):
            known = values[~np.isnan(values)]
            times.append(known)
            steps.append(np.full(len(known), step, dtype=np.int64))
        if f.pairs.queue_steps:
            times.append(np.array([t for t, _ in f.pairs.queue_steps]))
            steps.append(np.array([s for _, s in f.pairs.queue_steps], dtype=np.int64))
    if not times:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    at, change = np.concatenate(times), np.concatenate(steps)
    order = np.argsort(at, kind="stable")
    at, depth = at[order], np.cumsum(change[order])
    is_last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, dtype=bool)
    return at[is_last], depth[is_last]


def longest_spell(times: Array, values: Array, end: float) -> float:
    """For how long at most (s) a step function stayed above 0 until `end`."""
    is_above = values > 0
    rises = np.flatnonzero(is_above & ~np.append(False, is_above[:-1]))
    falls = np.flatnonzero(~is_above & np.append(False, is_above[:-1]))
    lengths = np.append(times[falls], end)[: len(rises)] - times[rises]
    return float(lengths.max()) if len(lengths) else 0.0


def step_mean(times: Array, values: Array, start: float, end: float) -> float:
    """The time average of a step function (0 before its first step) over [start, end]."""
    edges = np.concatenate(([start], np.clip(times, start, end), [end]))
    held = np.concatenate(([0], values, values[-1:] if len(values) else [0]))
    before = np.searchsorted(times, start, side="right")
    held[0] = values[before - 1] if before else 0
    areas = (edges[1:] - edges[:-1]) * np.concatenate((held[:1], values))
    return math.fsum(areas.tolist()) / (end - start)


def quantile_curve(latency: Array) -> list[list[float]]:
    """The latency's quantile function on a grid that is fine in the tail, as far as the sample reaches."""
    if not len(latency):
        return []
    grid = [i / 100 for i in range(100)]
    tail = 0.01
    while tail > 1 / len(latency):
        grid += [1 - tail * (1 - k / 10) for k in range(0, 9)]
        tail /= 10
    grid = sorted({*grid, 1.0})
    return [[q, quantile(latency, q) or 0.0] for q in grid]


def series(run: Run, facts: Sequence[PairFacts]) -> dict[str, list[float]]:
    """Backlog, and arrivals and processings per second, over the run in equal bins (`time`: their middles, s)."""
    end = max(run.ended_at, run.stopped_at)
    finished = [f.processed[~np.isnan(f.processed)] for f in facts]
    last = max([run.stopped_at, *(float(p.max()) for p in finished if len(p))])
    end = min(end, last * 1.02) or 1.0
    edges = np.arange(BINS + 1) * (end / BINS)
    width = end / BINS
    times, depth = backlog(facts)
    at = np.searchsorted(times, edges[1:], side="right") - 1

    def rate(values: Sequence[Array]) -> list[float]:
        joined = np.concatenate(values) if values else np.zeros(0)
        index = np.searchsorted(edges, joined, side="right") - 1
        counts = np.bincount(index[(index >= 0) & (index < BINS)], minlength=BINS)
        return [int(c) / width for c in counts]

    created = [column(m.created, len(m), "f8") for m in run.ledger.channels.values()]
    return {
        "time": [float(e) + width / 2 for e in edges[:-1]],
        "backlog": [float(depth[i]) if i >= 0 else 0.0 for i in at],
        "arrivals": rate(created),
        "processed": rate(finished),
    }


def stays_of(f: PairFacts, warmup: float) -> dict[str, Array]:
    """Seconds that each message spent on each part of its way to its first processing."""
    chosen = (f.place == "unique") & (f.created >= warmup)
    stations = [
        values[chosen] for values in (f.created, f.stored, f.sent, f.delivered, f.started, f.processed)
    ]
    return {
        name: after - before for name, before, after in zip(COMPONENTS, stations, stations[1:], strict=False)
    }


def pooled(stays: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The stays of several subscriptions together."""
    if len(stays) == 1:
        return stays[0]
    return {name: np.concatenate([np.zeros(0), *(stay[name] for stay in stays)]) for name in COMPONENTS}


# -- tables --------------------------------------------------------------------------------------------------------


def messages(run: Run) -> pd.DataFrame:
    """One row per message: its channel, number, producer, key, size (bytes), creation (s), and what was told when."""
    import pandas as pd

    frames = []
    for name, books in run.ledger.channels.items():
        n = len(books)
        producers = np.array([*books.producers, ""])
        outcome = column(books.outcome, n, "u1")
        frame = {
            "channel": name,
            "message": np.arange(n),
            "producer": producers[column(books.producer, n, "u2")],
            "created": column(books.created, n, "f8"),
            "outcome": np.array(OUTCOMES)[outcome],
            "told_at": column(books.told_at, n, "f8"),
        }
        if books.keys is not None:
            frame["key"] = np.array(books.key_names)[column(books.keys, n, "i8")]
        if books.sizes is not None:
            frame["size"] = column(books.sizes, n, "i8")
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def deliveries(run: Run) -> pd.DataFrame:
    """One row per pair: how often delivered, processed and effective, the times of its way (s), place and cause."""
    import pandas as pd

    frames = []
    for books in run.ledger.channels.values():
        for pairs in subscriptions(books):
            f, n = pair_facts(run, pairs), len(books)
            fate = column(pairs.fate, n, "u2")
            names = np.array([""] + [cause_of(code).name for code in range(1, int(fate.max(initial=0)) + 1)])
            is_gone = ~np.isin(f.place, ("unique", "in_flight", ""))
            frames.append(
                pd.DataFrame(
                    {
                        "channel": books.name,
                        "subscription": pairs.name,
                        "message": np.arange(n),
                        "expected": f.expected,
                        "deliveries": column(pairs.deliveries, n, "u4"),
                        "processings": column(pairs.processings, n, "u4"),
                        "effects": column(pairs.effects, n, "u4"),
                        "created": f.created,
                        "stored": f.stored,
                        "sent": f.sent,
                        "delivered": f.delivered,
                        "started": f.started,
                        "processed": f.processed,
                        "place": f.place,
                        "cause": np.where(is_gone, names[np.where(is_gone, fate, 0)], ""),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)
