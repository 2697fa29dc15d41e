"""Routing keys and what matches them."""

from __future__ import annotations

from collections.abc import Callable


def matcher(binding: str) -> Callable[[str], bool]:
    """Whether a key of words between dots matches a binding: "*" is one word, "#" any number of them."""
    pattern = binding.split(".")

    def matches(words: list[str], at: int) -> bool:
        if at == len(pattern):
            return not words
        if pattern[at] == "#":
            return any(matches(words[i:], at + 1) for i in range(len(words) + 1))
        return bool(words) and pattern[at] in ("*", words[0]) and matches(words[1:], at + 1)

    known: dict[str, bool] = {}

    def takes(key: str) -> bool:
        if key not in known:
            known[key] = matches(key.split(".") if key else [], 0)
        return known[key]

    return takes
