"""Results as the pictures and the report see them, made up: no simulation behind them."""

import math
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Q = [0.0, *(i / 100 for i in range(1, 100)), 0.995, 0.999, 0.9995, 0.9999, 0.99995, 0.99999]
LATENCIES = {"mean": None, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 0.99999}
COUNTS = (
    "published confirmed failed in_doubt expected delivered requeued processed unique duplicates phantom "
    "redelivered lost lost_confirmed dead_lettered expired rejected in_flight out_of_order "
    "effects duplicate_effects lost_effects"
)
COMPONENTS = ("publish", "queue", "delivery", "wait", "service")


def outcome(
    mean: float = 0.02, tail: float = 1.0, faults=(), backlog: float = 10.0, inert=(), number: int = 0
):
    """One replication: latencies are exponential with that mean, their logarithm stretched by `tail`."""
    scale = mean * (1 + 0.02 * number)
    quantiles = [[q, scale * -math.log1p(-q) * (1 + (tail - 1) * q**30)] for q in Q]
    time = [0.5 * i + 0.25 for i in range(160)]
    arrivals = [100 + 9 * math.sin(1.7 * i) if t < 60 else 0.0 for i, t in enumerate(time)]
    waiting = [backlog * max(0.0, math.sin(t / 8)) ** 2 if t < 70 else 0.0 for t in time]
    change = [0.0, *(2 * (b - a) for a, b in pairwise(waiting))]
    processed = [max(0.0, a - c) for a, c in zip(arrivals, change, strict=True)]
    shares = (0.05, 0.3, 0.05, 0.1, 0.5)
    return SimpleNamespace(
        quantiles=quantiles,
        series={"time": time, "backlog": waiting, "arrivals": arrivals, "processed": processed},
        faults=[dict(fault) for fault in faults],
        components={name: scale * part for name, part in zip(COMPONENTS, shares, strict=True)},
        inert=list(inert),
    )


def metrics(
    lost: float = 0, duplicates: float = 0, mean: float = 0.02, tail: float = 1.0, **other: float | None
):
    """The figures of a row with 6,000 messages; what is not given follows from what is."""
    published = other.pop("published", 6000)
    unique = published - lost
    found: dict[str, Any] = dict.fromkeys(COUNTS.split(), 0) | {
        "published": published,
        "confirmed": published - lost,
        "in_doubt": lost,
        "expected": published,
        "delivered": unique + duplicates,
        "processed": unique + duplicates,
        "unique": unique,
        "duplicates": duplicates,
        "lost": lost,
        "effects": unique + duplicates,
        "duplicate_effects": duplicates,
    }
    quantiles = dict(outcome(mean, tail).quantiles)
    for name, q in LATENCIES.items():
        found[f"latency_{name}"] = mean if q is None else quantiles[q]
    found |= {
        "throughput": (unique + duplicates) / 60,
        "goodput": unique / 60,
        "backlog_max": 10,
        "backlog_mean": 2.5,
        "backlog_lasted": 1.5,
        "utilisation": 0.8,
        "requests": 3 * published,
        "cost": None,
    }
    return found | other


def result(rows, claims=(), replications: int = 1, plots=(), name: str = "fake", **scenario: Any):
    """A result of `rows`: (params, metrics, keywords of `outcome`, causes) each."""
    made = []
    for params, figures, kwargs, causes in rows:
        outcomes = [outcome(**kwargs, number=i) for i in range(replications)]
        if replications > 1:
            figures |= {f"{k}_ci95": None if v is None else 0.08 * v for k, v in figures.items()}
        row = SimpleNamespace(params=params, metrics=figures, causes=list(causes), outcomes=outcomes)
        made.append(row)
        row.config, row.expansion = config(params), expansion(params)
    text = {
        "title": "Delivery guarantees under loss",
        "question": "What does each guarantee cost?",
        **scenario,
    }
    return SimpleNamespace(
        scenario=SimpleNamespace(
            name=name,
            file=Path("somewhere", f"{name}.yaml"),
            plots=list(plots),
            raw={**text, "seed": 1, "network": {"loss": "1%"}},
            document=SimpleNamespace(places={}),
            **text,
        ),
        seed=7,
        replications=replications,
        rows=made,
        claims=list(claims),
        config=[row.config for row in made],
        expansions=[row.expansion for row in made],
    )


def config(params) -> dict[str, Any]:
    """The expanded settings of a row: the swept ones differ, the rest is common."""
    return {
        "channels": {"orders": {"system": "textbook", "settings": {"ack_timeout": 1.0, "storage": "disk"}}},
        "network": {
            "delay": {"exponential": {"mean": 0.001}},
            "loss": params.get("network.loss", 0.0),
            "links": {},
        },
        "services": {"billing": {"consumers": params.get("services.billing.consumers", 4)}},
        "faults": [],
        "duration": 60.0,
    }


def expansion(params) -> dict[str, Any]:
    """What the guarantee filled in, if the row has one."""
    settle = {"at-most-once": "before", "at-least-once": "after", "exactly-once": "after"}
    guarantee = params.get("guarantee")
    return {"services": {"billing": {"settle": settle[guarantee]}}} if guarantee else {}


def verdict(statement, holds=True, where=None, because=None, refuted=False, observed="0 in every row"):
    """A claim and what came of it."""
    claim = SimpleNamespace(statement=statement, where=where, because=because, refuted=refuted)
    return SimpleNamespace(claim=claim, holds=holds, observed=observed, refuted=refuted)


def cause(anomaly, name, count, behaviour="N-01"):
    """A line of a row's causes."""
    return {"anomaly": anomaly, "cause": name, "behaviour": behaviour, "count": count}


def guarantees_by_loss(replications: int = 5):
    """3 guarantees x 4 losses: the flagship's shape."""
    rows = []
    for guarantee, loss in product(("at-most-once", "at-least-once", "exactly-once"), (0.0, 0.01, 0.05, 0.2)):
        gone = round(6000 * (2 * loss - loss**2)) if guarantee == "at-most-once" else 0
        again = 0 if guarantee == "at-most-once" else round(6000 * loss * 1.2)
        once = guarantee == "exactly-once"
        mean = 0.02 * (1 + 6 * loss * (guarantee != "at-most-once")) * (1.3 if once else 1)
        tail = 1 + 40 * loss * (guarantee != "at-most-once")
        figures = metrics(gone, again, mean, tail, **({"duplicate_effects": 0} if once else {}))
        causes = [cause("lost", "packet_lost", gone)] if gone else []
        causes += [cause("duplicate", "resent_after_lost_ack", again, "T-07")] if again else []
        rows.append(
            ({"guarantee": guarantee, "network.loss": loss}, figures, {"mean": mean, "tail": tail}, causes)
        )
    claims = [
        verdict(
            "lost_confirmed == 0", where='guarantee == "at-least-once"', because="a resend covers every loss"
        ),
        verdict(
            "duplicate_effects == 0",
            where='guarantee == "exactly-once"',
            because="effect and ack commit as one",
        ),
        verdict(
            "duplicates == 0", where='guarantee == "at-least-once"', refuted=True, observed="72 to 1,440"
        ),
    ]
    return result(rows, claims, replications)


def numeric_sweep(points: int = 10, replications: int = 3):
    """One path from light load to overload, latencies over three decades."""
    rows = []
    for i in range(points):
        rate = 100 + 100 * i
        load = rate / 1050
        mean = 0.01 / (1 - load) if load < 1 else 5.0
        figures = metrics(
            0, 0, mean, utilisation=min(load, 1.0), backlog_max=10 / (1 - min(load, 0.99)), goodput=rate
        )
        rows.append(({"producers.shop.arrivals": float(rate)}, figures, {"mean": mean}, ()))
    return result(rows, [verdict("utilisation < 1")], replications, title="Load and latency")


FAULTS = (
    {"kind": "crash", "target": "billing.1", "start": 10.0, "end": 15.0},
    {"kind": "partition", "target": "shop <-> orders", "start": 22.0, "end": 30.0},
    {"kind": "machine_crash", "target": "orders", "start": 45.0, "end": None},
)


def single_row(faults=(), replications: int = 1, **kwargs: Any):
    """No sweep at all."""
    settings = {"faults": faults, "backlog": 400.0, **kwargs}
    inert = settings.get("inert", ())
    claims = [verdict("lost == 0", holds=not faults, observed="12" if faults else "0")]
    lost = 12 if faults else 0
    causes = [cause("lost", "memory_lost_in_crash", lost)] if lost else []
    return result(
        [({}, metrics(lost, 30), settings, causes)], claims, replications, title=f"One run {inert or ''}"
    )


def storage_with_faults(replications: int = 1):
    """Three rows of one path of words, all under the same three faults."""
    rows = []
    for i, storage in enumerate(("memory", "page cache", "disk")):
        figures = metrics((900, 40, 0)[i], (0, 35, 60)[i], 0.02 * (1 + i))
        kwargs = {"mean": 0.02 * (1 + i), "faults": FAULTS, "backlog": 300.0 + 90 * i}
        rows.append(({"channels.orders.storage": storage}, figures, kwargs, ()))
    return result(rows, replications=replications, title="What a crash destroys")


def six_systems():
    """The largest usual sweep: systems and the guarantees each offers, long names, faults."""
    offers = {
        "rabbitmq": ("at-most-once", "at-least-once", "exactly-once"),
        "kafka": ("at-most-once", "at-least-once", "exactly-once"),
        "aws_sqs": ("at-least-once", "exactly-once"),
        "google_pubsub": ("at-most-once", "at-least-once", "exactly-once"),
        "redis_pubsub": ("at-most-once",),
        "redis_streams": ("at-most-once", "at-least-once", "exactly-once"),
        "ibm_mq": ("at-most-once", "at-least-once", "exactly-once"),
    }
    rows = []
    for i, (system, guarantees) in enumerate(offers.items()):
        for k, guarantee in enumerate(guarantees):
            lost = 200 * (i + 1) if guarantee == "at-most-once" else 0
            again = 0 if guarantee == "at-most-once" else 3 * i
            mean = 0.004 * (1 + i) * (1 + k)
            figures = metrics(lost, again, mean, lost_confirmed=lost // 3, goodput=100 - i - lost / 60)
            kwargs = {"mean": mean, "faults": FAULTS, "backlog": 100.0 * (i + 1)}
            params = {"channels.orders.system": system, "guarantee": guarantee}
            rows.append((params, figures, kwargs, [cause("lost", "memory_lost_in_crash", lost)] * bool(lost)))
    return result(rows, replications=5, title="Six systems, three guarantees")


def extreme():
    """Sixteen rows: shares from a millionth to all, latencies from 10 µs to 1 h, one without."""
    rows = []
    for i in range(16):
        mean = 1e-5 * 10 ** (i * 8.5 / 15)
        lost = (0, 1, 60, 600, 6_000, 300_000, 599_999, 600_000)[i % 8]
        figures = metrics(lost, (0, 0, 7, 1_200_000)[i % 4], mean, published=600_000)
        kwargs: dict[str, Any] = {"mean": mean, "tail": 1 + 50 * (i % 3), "backlog": 10.0**i}
        rows.append(({"services.billing.service_time": f"workload {chr(65 + i)}"}, figures, kwargs, ()))
    made = result(rows, title="Extreme ranges")
    nothing = made.rows[15]
    nothing.outcomes[0].quantiles = []
    nothing.outcomes[0].components = {}
    for name in LATENCIES:
        nothing.metrics[f"latency_{name}"] = None
    return made


def silent():
    """A run in which nothing was processed."""
    made = single_row()
    row = made.rows[0]
    row.metrics |= {"lost": 6000, "unique": 0, "processed": 0, "goodput": 0.0, "throughput": 0.0}
    row.metrics |= {f"latency_{name}": None for name in LATENCIES}
    row.outcomes[0].quantiles, row.outcomes[0].components = [], {}
    row.outcomes[0].series = {name: [] for name in ("time", "backlog", "arrivals", "processed")}
    return made
