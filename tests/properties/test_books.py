"""Whatever the scenario and its faults: every message is accounted for, and every anomaly has a cause."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sim.config import Config
from sim.metrics import PLACES, measure
from sim.simulation import simulate
from tests.properties.worlds import configs

small = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)


@small
@given(configs(), st.integers(0, 2**32))
def test_the_books_balance(config: Config, seed: int) -> None:
    outcome = measure(simulate(config, seed))
    figures = outcome.figures
    assert figures["expected"] == sum(figures[place] for place in PLACES)
    assert figures["published"] == figures["confirmed"] + figures["failed"] + figures["in_doubt"]
    assert figures["processed"] == figures["unique"] + figures["duplicates"] + figures["phantom"]
    assert figures["delivered"] >= figures["processed"]
    explained = dict.fromkeys(("lost", "expired", "rejected", "dead_lettered", "duplicate"), 0)
    for cause in outcome.causes:
        if cause["anomaly"] in explained:
            explained[cause["anomaly"]] += cause["count"]
    assert explained["duplicate"] == figures["duplicates"]
    assert all(explained[a] == figures[a] for a in ("lost", "expired", "rejected", "dead_lettered"))
