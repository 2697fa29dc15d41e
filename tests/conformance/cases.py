"""A case is a world in which a cause of an anomaly strikes, with what disables its mechanism and what prevents it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.ledger import known_causes
from tests.conformance.builders import Story, Where

World = Mapping[str, Any]
VICTIM = [("billing", 2)]
ALL = [("billing", message) for message in range(5)]
HEALED: World = {"faults": ()}


@dataclass(frozen=True)
class Case:
    """In `world`, `pairs` have that anomaly by that cause; `without` disables the mechanism, and they are well.

    Each of `cures` is something that `prevented_by` names, said in settings: then the pairs do not have that anomaly
    or, where only the consumer can tell a repeat, have a single effect.
    """

    anomaly: str
    cause: str
    world: World
    without: World = field(default_factory=lambda: HEALED)
    cures: tuple[World, ...] = ()
    pairs: list[Where] = field(default_factory=lambda: VICTIM)
    seed: int = 1

    def __str__(self) -> str:
        return self.cause


def merged(*worlds: World) -> dict[str, Any]:
    """Worlds on top of each other: of a channel, producers and services single settings, else the whole."""
    result: dict[str, Any] = {}
    for world in worlds:
        for name, value in world.items():
            is_part = name in ("channel", "producer", "service")
            result[name] = {**result.get(name, {}), **value} if is_part else value
    return result


def channel(**settings: Any) -> World:
    """Settings of the channel."""
    return {"channel": settings}


def producer(**settings: Any) -> World:
    """Settings of the producer."""
    return {"producer": settings}


def service(**settings: Any) -> World:
    """Settings of the consuming service."""
    return {"service": settings}


def strikes(kind: str, target: str, at: float, lasting: float = 0.02, **settings: Any) -> World:
    """One fault."""
    return {"faults": ({kind: target, "at": at, "lasting": lasting, **settings},)}


IDEMPOTENT = service(idempotence={"store": "transaction"})
POISON, MENDED = {"poison": 1.0}, service(failures={"poison": 0.0})


def check_case(case: Case, told_of: Callable[..., Story]) -> None:
    """The cause strikes the pairs named, and without its mechanism they are well."""
    told = told_of(case)
    assert told.anomalies.get((case.anomaly, case.cause)) == case.pairs, told.anomalies
    assert told.causes[case.anomaly, case.cause] == len(case.pairs)
    assert not told.outcome.inert
    well = told_of(case, case.without)
    assert all(well.is_well(pair) for pair in case.pairs), well.anomalies


def check_cure(case: Case, cure: World, told_of: Callable[..., Story]) -> None:
    """What is said to prevent the cause does."""
    cured = told_of(case, cure)
    if cure is IDEMPOTENT:
        assert all(cured.pairs(service).effects[message] == 1 for service, message in case.pairs)
    else:
        assert all(cured.is_well(pair, case.anomaly) for pair in case.pairs), cured.anomalies


def check_complete(cases: Iterable[Case], system: str) -> None:
    """Every cause of a system has a case."""
    listed = {(cause.anomaly, cause.name) for cause in known_causes() if cause.system == system}
    assert {(case.anomaly, case.cause) for case in cases} == listed
