"""From YAML text to plain dicts, lists and scalars that know their lines.

YAML 1.2: `yes`, `on` and `off` are texts. The text is composed to nodes and the values are made here, so that
nothing but mappings, lists and core scalars can come out, whatever tags a file holds.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sim.scenario.errors import Path, Place, Problems, ScenarioError, found

DEEPEST = 32  # levels of nesting; also ends a list that contains itself
MOST = 100_000  # values in one file; also ends a file of aliases of aliases

_CORE = "tag:yaml.org,2002:"
_KINDS = (
    "map",
    "seq",
    "str",
    "int",
    "float",
    "bool",
    "null",
    "timestamp",
    "merge",
)  # the last two are read as texts


def parse(text: str, source: str) -> tuple[Any, dict[Path, Place]]:
    """The value a YAML text stands for, and the place where each part of it is written.

    Raises ScenarioError for what is not YAML, for a name written twice in a mapping, and for tags.
    """
    node = _compose(text, source)
    if node is None:
        return None, {}
    places: dict[Path, Place] = {}
    problems = Problems()
    value = _value(node, (), places, problems, source)
    problems.raise_first()
    return value, places


def _compose(text: str, source: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    try:
        node: Node | None = yaml.compose(text)
        return node
    except MarkedYAMLError as error:
        problem = " ".join(str(error.problem or error.context).split())
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        is_open = "stream end" in problem  # better to say where it begins than where the file ends
        mark = (error.context_mark if is_open else None) or error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ScenarioError(f"{source}{line}: not YAML: {problem}") from None
    except ReaderError as error:
        place = Place(text.count("\n", 0, error.position) + 1, 0, source)
        character = text[error.position : error.position + 1]
        raise ScenarioError(f"{place}: not YAML: the character {character!r} is not allowed") from None
    except RecursionError:
        raise ScenarioError(f"{source}: not a scenario: nested too deeply") from None
    except Exception as error:  # on damaged input the scanner also fails in ways of its own
        raise ScenarioError(f"{source}: not YAML: {type(error).__name__}: {error}") from None


def _value(node: Node, path: Path, places: dict[Path, Place], problems: Problems, source: str) -> Any:
    """The value of a node; notes its place (that of its name, if it has one) and those of its parts."""
    place = places.setdefault(path, _place(node, source))
    if len(path) > DEEPEST or len(places) > MOST:
        too = "deep" if len(path) > DEEPEST else "large"
        raise ScenarioError(f"{place}: too {too} for a scenario (aliases of aliases?)")
    if str(node.tag).removeprefix(_CORE) not in _KINDS:
        problems.add(place, path, f"expected plain YAML, found the tag {node.tag}")
    elif isinstance(node, MappingNode):
        mapping: dict[str, Any] = {}
        for key, item in node.value:
            at = _place(key, source)
            if not isinstance(key, ScalarNode):
                problems.add(at, path, "expected a name before the colon, found a list or a mapping")
                continue
            name = str(key.value)  # as it is written: a label may look like a number
            if name in mapping:
                first = places[(*path, name)].line
                problems.add(at, (*path, name), f"written twice; the first time in line {first}")
                continue
            places[(*path, name)] = at
            mapping[name] = _value(item, (*path, name), places, problems, source)
        return mapping
    elif isinstance(node, SequenceNode):
        return [_value(n, (*path, str(i)), places, problems, source) for i, n in enumerate(node.value)]
    else:
        return _scalar(node)
    return None


def _place(node: Node, source: str) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1, source)


def _scalar(node: Node) -> Any:
    """The value of a scalar by the core schema of YAML 1.2; what is no number after all stays a text."""
    text, kind = str(node.value), str(node.tag).removeprefix(_CORE)
    readers: dict[str, Callable[[str], Any]] = {
        "null": lambda _: None,
        "bool": _truth,
        "int": _int,
        "float": _float,
    }
    try:
        return readers.get(kind, str)(text)
    except ValueError:
        return text


def _truth(text: str) -> bool:
    return text.lower() in ("true", "yes", "on")  # the words are truths only under a %YAML 1.1 directive


def _int(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0) if digits.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(digits)


def _float(text: str) -> float:
    special = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
    return special[text.lower()] if text.lower() in special else float(text.replace("_", ""))


def plain(value: Any, depth: int = 0) -> Any:
    """A value from Python in the same form: dicts with text keys, lists, ints and floats; the rest is kept.

    Raises ScenarioError for a value nested too deeply (or within itself).
    """
    if depth > DEEPEST:
        raise ScenarioError(f"expected a scenario, found {found(value)} nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool | int) else value
