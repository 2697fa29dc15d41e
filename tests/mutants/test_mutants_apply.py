"""Every planted mistake still has its place in today's sources, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
each = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@each
def test_it_applies_exactly_once_and_is_python(mutant: Mutant) -> None:
    source = (ROOT / "sim" / mutant.file).read_text()
    assert source.count(mutant.old) == 1, f"sim/{mutant.file} does not have once:\n{mutant.old}"
    mutated = source.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))  # more than a comment or a blank


@each
def test_the_tests_it_names_exist(mutant: Mutant) -> None:
    for test in mutant.first:
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / "tests" / file).read_text()


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
