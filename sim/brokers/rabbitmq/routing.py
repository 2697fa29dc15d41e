"""Exchanges: which queues a message goes to (R-01, R-02)."""

from __future__ import annotations

from collections.abc import Callable

from sim.routing import matcher


def any_takes(exchange: str, queue: str, bindings: list[str | None]) -> Callable[[str], bool]:
    """Whether one of a queue's bindings matches: it gets one copy, however many do."""
    matches = [takes(exchange, queue, binding) for binding in bindings]
    return matches[0] if len(matches) == 1 else lambda key: any(match(key) for match in matches)


def takes(exchange: str, queue: str, binding: str | None) -> Callable[[str], bool]:
    """Whether a queue's binding to an exchange of that type matches a routing key.

    Without a binding, a queue takes: of the default exchange what carries its own name, of a direct one what carries
    no key, of a topic or headers exchange everything. Headers stand in the key, as "format=pdf, type=report"; so do
    the arguments of a binding, with "x-match=any" where one of them is enough.
    """
    if exchange == "missing":
        return lambda key: False
    if exchange == "fanout":
        return lambda key: True
    if exchange == "topic":
        return matcher("#" if binding is None else binding)
    if exchange == "headers":
        return headers_matcher(binding or "")
    if exchange == "direct":
        wanted = binding or ""
        return lambda key: key == wanted
    return lambda key: key in ("", queue)


def headers_matcher(binding: str) -> Callable[[str], bool]:
    """All or any of the binding's arguments; those that begin with "x-" are not compared (R-01)."""
    arguments = headers(binding)
    wanted = {name: value for name, value in arguments.items() if not name.startswith("x-")}
    if arguments.get("x-match") == "any":
        return lambda key: any(headers(key).get(name) == value for name, value in wanted.items())
    return lambda key: all(headers(key).get(name) == value for name, value in wanted.items())


def headers(text: str) -> dict[str, str]:
    """ "a=1, b=2" as a dictionary."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}
