"""What a planted mistake is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One mistake: `file` under sim/, what stands there, what is put in its place, and what is wrong with that.

    `first` are tests under tests/: files, or "file::test".
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    first: tuple[str, ...]
