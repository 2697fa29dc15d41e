"""The store: nothing half-written, nothing damaged believed, a key for everything that matters."""

import json

import pytest

from sim import store
from sim.store import Store, key, model_version

OUTCOME = {"figures": {"lost": 3, "latency_p50": 0.1 + 0.2, "cost": None}, "quantiles": [[0.5, 1e-9]]}


def test_what_was_put_is_got(tmp_path):
    kept = Store(tmp_path / "store")
    assert kept.get("ab12") is None
    kept.put("ab12", OUTCOME)
    assert kept.get("ab12") == OUTCOME
    assert kept.get("ab13") is None
    assert [path.name for path in (tmp_path / "store" / "ab").iterdir()] == ["12.json"]  # no part is left


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"lost": 3', '"lost": 4'),
        lambda text: "[]",
        lambda text: '"text"',
        lambda text: json.dumps({"digest": "0", "outcome": {}}),
        lambda text: "\x00\x01",
    ],
)
def test_a_damaged_entry_counts_as_none(tmp_path, damage):
    kept = Store(tmp_path)
    kept.put("ab12", OUTCOME)
    file = tmp_path / "ab" / "12.json"
    file.write_text(damage(file.read_text()))
    assert kept.get("ab12") is None


def test_bytes_that_are_no_text_count_as_none(tmp_path):
    kept = Store(tmp_path)
    kept.put("ab12", OUTCOME)
    (tmp_path / "ab" / "12.json").write_bytes(b"\xff\xfe\x80")
    assert kept.get("ab12") is None


def test_the_key_depends_on_all_that_a_run_depends_on(monkeypatch):
    keys = [
        key({"loss": 0.0, "n": 1}, 1, 0),
        key({"loss": 0.1, "n": 1}, 1, 0),
        key({"n": 1, "loss": 0.0}, 1, 0),
        key({"loss": 0.0, "n": 1}, 2, 0),
        key({"loss": 0.0, "n": 1}, 1, 1),
    ]
    monkeypatch.setattr(store, "model_version", lambda: "another")
    keys.append(key({"loss": 0.0, "n": 1}, 1, 0))
    assert len(set(keys)) == len(keys)


def test_the_model_version_follows_the_models_and_not_what_stands_above(tmp_path, monkeypatch):
    package = tmp_path / "sim"
    (package / "brokers").mkdir(parents=True)
    for name in ("kernel.py", "brokers/kafka.py", "cli.py", "store.py"):
        (package / name).write_text("one = 1\n")
    monkeypatch.setattr(store, "__file__", str(package / "store.py"))

    def version():
        model_version.cache_clear()
        return model_version()

    first = version()
    (package / "cli.py").write_text("two = 2\n")
    assert version() == first
    (package / "brokers" / "kafka.py").write_text("two = 2\n")
    second = version()
    assert second != first
    (package / "brokers" / "another.py").write_text("")
    assert version() not in (first, second)
    monkeypatch.undo()
    model_version.cache_clear()
