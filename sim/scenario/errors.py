"""One line for what is wrong with a scenario: where, what was expected and found, what may be meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

LONGEST = 40  # characters shown of a value that is wrong

Path = tuple[str, ...]  # the way to a value: names of fields, and indices of lists (from 0) as text


class ScenarioError(ValueError):
    """A scenario that cannot be used; its text is one line, with line breaks and the like made visible."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


@dataclass(frozen=True, order=True)
class Place:
    """A line and column of a file, from 1; line 0: a source without lines such as `--set network.loss`."""

    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problems:
    """What is wrong with one document; the first in the order of the file is what the user gets to read."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str]] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, place: Place, path: Path, text: str) -> None:
        """Note that the value at `path`, written at `place`, is wrong; `text` says how."""
        name = ".".join(path)
        subject = f"{name}: " if name and place.source != f"--set {name}" else ""
        self.found.append((place, f"{place}: {subject}{text}"))

    def raise_first(self) -> None:
        """Raise ScenarioError for the first problem, if there is any."""
        if self.found:
            _, text = min(self.found, key=lambda problem: problem[0])
            others = len({text for _, text in self.found}) - 1
            raise ScenarioError(text + (f" (and {others} more)" if others else ""))


def found(value: object) -> str:
    """How an unusable value is shown in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ...{text[-1]}"


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """`; did you mean 'prefetch'?` for the nearest valid name, or nothing."""
    near = get_close_matches(str(name), list(valid), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_or_all(name: object, valid: Sequence[str]) -> str:
    """As `did_you_mean`; without a near name all the valid ones."""
    return did_you_mean(name, valid) or (f"; choose from {', '.join(valid)}" if valid else "")
