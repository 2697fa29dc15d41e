"""The claims of a scenario (its `expect`): read, checked, and each shown to be one that could fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.scenario.document import Document
from sim.scenario.errors import Path, Problems, found
from sim.scenario.expand import expand
from sim.scenario.forms import read
from sim.scenario.sweep import Dimension, override, points, read_sweep


@dataclass(frozen=True)
class Expectation:
    """A claim as it is written.

    `claim` is a statement over figures; it is to hold in every row that `where` selects. Under the override
    `broken_by` it must fail. `refuted` marks a misconception: it is to be false. `because` is for the reader.
    """

    claim: str
    where: str | None = None
    broken_by: dict[str, Any] | None = None
    refuted: bool = False
    because: str | None = None


@dataclass(frozen=True)
class Claim:
    """A statement over figures and what is expected of it; `line` is where it is written, 0 if in no file."""

    statement: str
    where: str | None = None
    broken_by: Mapping[str, Any] | None = None
    refuted: bool = False
    because: str | None = None
    line: int = 0


def read_claims(
    document: Document, dimensions: tuple[Dimension, ...], problems: Problems, *, check_names: bool
) -> tuple[Claim, ...]:
    """The claims in order; those with problems are left out. `check_names`: they may speak of known names only."""
    raw = document.data.get("expect")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        document.report(problems, ("expect",), f"expected a list of claims, found {found(raw)}")
        return ()
    swept = [path for dimension in dimensions for path in dimension.paths]
    claims = []
    for number, entry in enumerate(raw):
        path: Path = ("expect", str(number))
        given = read((Expectation,), entry, document.folder, document.reporter(problems, path))
        if given is not None:
            expectation = Expectation(**given[0])
            if check_names:
                _check(document, path, expectation, swept, problems)
            fields = {name: value for name, value in vars(expectation).items() if name != "claim"}
            claims.append(Claim(expectation.claim, **fields, line=document.place(path).line))
    return tuple(claims)


def _check(document: Document, path: Path, claim: Expectation, swept: list[str], problems: Problems) -> None:
    """Note what is wrong with the statement and its `where`."""
    from sim.claims import check, param_names
    from sim.words import FIGURES

    names = list(param_names(swept))
    for field, text, known in (("claim", claim.claim, list(FIGURES)), ("where", claim.where, names)):
        if text is not None:
            try:
                check(text, known, names)
            except ValueError as error:
                document.report(problems, (*path, field), str(error))


def check_breaking(document: Document, claims: tuple[Claim, ...], problems: Problems) -> None:
    """Note each `broken_by` under which the scenario cannot run (as far as its first point shows)."""
    for number, claim in enumerate(claims):
        changed = document
        path: Path = ("expect", str(number), "broken_by")
        try:
            for target, value in (claim.broken_by or {}).items():
                path = (*path[:3], target)
                changed = override(changed, target, value, document.parts(path))
            dimensions = read_sweep(changed, problems)
            _, first = next(points(changed, dimensions))
        except ValueError as error:
            document.report(problems, path, str(error))
            continue
        expand(first, problems)
