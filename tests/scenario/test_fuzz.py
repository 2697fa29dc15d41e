"""Nothing that a file may hold, and no value of an override, gives anything but a scenario or one line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.scenario import Scenario, ScenarioError, load
from sim.scenario.parse import parse
from tests.scenario.test_loading import FULL

pytestmark = pytest.mark.usefixtures("fake_systems")

SWEEP = """
sweep:
  network.loss: [0%, 5%]
  zip: {services.billing.consumers: [2, 3], services.billing.prefetch: [10, none]}
  services.billing.service_time: {steady: 10 ms, bursty: {mixture: [[0.9, 1 ms], [0.1, {gamma: {mean: 1 s, cv: 2}}]]}}
"""
TEXT = FULL + SWEEP
DATA: dict[str, Any] = parse(TEXT, "s.yaml")[0]
WORDS = st.sampled_from(
    [
        "",
        "none",
        "5 ms",
        "2%",
        "1 KiB",
        "300/s",
        "-1 s",
        "orders",
        "shop -> orders",
        "billing.1",
        "at-least-once",
        "*",
        "\n",
    ]
    + [
        "textbook",
        "pigeon",
        "queue",
        "lost == 0",
        "exponential",
        "1e999 s",
        "orders.accept #1",
        "sweep",
        "network.loss",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8)
KEYS = WORDS | st.sampled_from(
    ["channel", "mean", "mixture", "crash", "at", "zip", "faults.0.at", "channels"]
)
JUNK = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=6
)

fuzz = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of the document but its top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from nodes(item, (*path, key))


NODES = list(nodes(DATA))


def changed(path: tuple[Any, ...], action: str, key: str, junk: Any) -> dict[str, Any]:
    """The document with one value removed, replaced, renamed, wrapped in a list, or given a sibling."""
    data = copy.deepcopy(DATA)
    parent: Any = data
    for part in path[:-1]:
        parent = parent[part]
    if action == "remove":
        del parent[path[-1]]
    elif action == "rename" and isinstance(parent, dict):
        parent[key] = parent.pop(path[-1])
    elif action == "wrap":
        parent[path[-1]] = [parent[path[-1]]]
    elif action == "add" and isinstance(parent, dict):
        parent[key] = junk
    else:
        parent[path[-1]] = junk
    return data


def gives_a_scenario_or_one_line(make: Callable[[], Scenario]) -> None:
    message = ""
    try:
        points = make().points()
    except ScenarioError as error:
        message = str(error)
    assert (len(message) > 10 and message.isprintable()) or points


ACTIONS = st.sampled_from(["remove", "replace", "rename", "wrap", "add"])


@fuzz
@given(st.sampled_from(NODES), ACTIONS, KEYS, JUNK)
def test_a_document_with_one_change(path: tuple[Any, ...], action: str, key: str, junk: Any) -> None:
    gives_a_scenario_or_one_line(lambda: Scenario.from_dict(changed(path, action, key, junk)))


@cache
def base() -> Scenario:
    return Scenario.from_dict(DATA)


@fuzz
@given(st.sampled_from([".".join(map(str, path)) for path in NODES]) | st.text(max_size=10), JUNK)
def test_an_override(path: str, value: Any) -> None:
    scenario = base()
    gives_a_scenario_or_one_line(lambda: scenario.override({path: value}))


@fuzz
@given(st.dictionaries(KEYS | st.sampled_from([*DATA, "guarantee"]), JUNK))
def test_a_document_of_junk(data: dict[str, Any]) -> None:
    gives_a_scenario_or_one_line(lambda: Scenario.from_dict(data))


@fuzz
@given(
    st.integers(0, len(TEXT)),
    st.integers(0, 30),
    st.text(max_size=6) | st.sampled_from(list("{}[]:,-#&*!|>'\"%@`\t\n")),
)
def test_a_file_with_one_cut(tmp_path: Path, start: int, length: int, insert: str) -> None:
    text = TEXT[:start] + insert + TEXT[start + length :]
    check_file(tmp_path, text.encode("utf-8", "surrogatepass"))


@fuzz
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_a_file_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    check_file(tmp_path, content)


@fuzz
@given(st.text(alphabet="ab1:-#&*!|>'\"%{}[], \n\t?<", max_size=60))
def test_a_file_that_looks_like_yaml(tmp_path: Path, text: str) -> None:
    check_file(tmp_path, text.encode())


def check_file(folder: Path, content: bytes) -> None:
    file = folder / "s.yaml"
    file.write_bytes(content)
    gives_a_scenario_or_one_line(lambda: load(file))
