"""Claims: statements over figures, judged in every selected row and every replication.

The language is a small part of Python's: numbers, strings, names, `+ - * / **`, comparisons (also chained),
`and`, `or`, `not`, `abs`, `min`, `max`, `round`, and `at("figure", loss=0.05)`: that figure in the row whose
parameters equal this row's except the given ones, in the same replication; `of("audit", "lost")` is a figure of
one subscription (or of the one subscription of a channel) alone; `smallest("prefetch", utilisation > 0.99)` is the
smallest value of that parameter for which the statement is true, in the rows that differ from this one in just that.
Names are figures in a statement, and parameters of the sweep in a `where`. Numbers that differ by rounding only (1
part in 1e12) are equal, whatever the comparison. An expression is the part of the language that gives a number.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.metrics import Outcome
    from sim.result import Row
    from sim.scenario import Claim

Scalar = bool | int | float | str | None

FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max, "round": round}
ARGUMENTS = {  # how many each takes, at least and at most
    "abs": (1, 1, "one number"),
    "min": (2, 99, "two numbers or more"),
    "max": (2, 99, "two numbers or more"),
    "round": (1, 2, "a number, and decimals if wanted"),
}
COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}  # as YAML spells them
ELSEWHERE = ("at", "smallest")  # functions that look at other rows
CLAIM, EXPRESSION = "a claim such as lost_confirmed == 0", "an expression such as 1000 * latency_mean"
LENGTH_MAX = 1000  # characters
DEPTH_MAX = 60  # of nested parts
NAMED_MAX = 3  # failing rows that a verdict names


class ClaimError(ValueError):
    """A claim that cannot be judged. Its text is one line."""


@dataclass(frozen=True)
class Verdict:
    """What came of a claim. `holds`: it is as expected; for a refuted claim, that it is false somewhere."""

    claim: Claim
    holds: bool
    observed: str
    refuted: bool


def check(statement: str, names: Iterable[str], params: Iterable[str] | None = None) -> None:
    """Whether a statement is well formed and speaks of known `names` only.

    `params` are the names that `at(...)` may change, unchecked if None. Raises ClaimError (a ValueError) with
    one line that gives the nearest valid name.
    """
    _read(statement, names, params)


def check_expression(text: str, names: Iterable[str], params: Iterable[str] | None = None) -> None:
    """Whether a text is an expression over known `names`: what gives a number. As `check`, otherwise."""
    _read(text, names, params, EXPRESSION)


def param_names(paths: Iterable[str]) -> dict[str, str]:
    """What a claim may call the paths of a sweep: the last segment if unique, and the path with _ for `.`."""
    paths = list(paths)
    last = [path.split(".")[-1] for path in paths]
    names = {name: path for name, path in zip(last, paths, strict=True) if last.count(name) == 1}
    return names | {re.sub(r"\W+", "_", path): path for path in paths}


def select(where: str | None, params: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of the rows that a `where` selects; all of them if there is none.

    Raises ClaimError if it selects nothing or is not well formed.
    """
    if where is None:
        return list(range(len(params)))
    names = param_names(params[0])
    tree = _read(where, names, ())
    chosen = []
    for i, row in enumerate(params):
        values = {name: row[path] for name, path in names.items()}
        if _truth(tree, _Scope(values, _no_at, _no_of, _no_smallest)):
            chosen.append(i)
    if not chosen:
        used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names]
        there = "; ".join(f"{name} is {_values(names[name], params)}" for name in dict.fromkeys(used))
        raise ClaimError(f"where: {' '.join(where.split())} selects no row" + (f": {there}" if there else ""))
    return chosen


def needs_other_rows(statement: str) -> bool:
    """Whether a statement looks beyond its own row."""
    return any(
        isinstance(node, ast.Call) and _function(node) in ELSEWHERE for node in ast.walk(_parse(statement))
    )


def judge(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """Whether a claim holds in every row that its `where` selects, in every replication.

    A refuted claim holds if its statement is false somewhere. Raises ClaimError if it cannot be judged: it is
    not well formed, its `where` selects nothing, or a figure it speaks of is null.
    """
    params = [row.params for row in rows]
    chosen = select(claim.where, params)
    names = param_names(params[0])
    tree = _read(claim.statement, rows[0].outcomes[0].figures, names)
    terms = {ast.unparse(node): node for node in _terms(tree)}
    observed: dict[str, list[Any]] = {term: [] for term in terms}
    failures: dict[int, list[int]] = {}
    for i in chosen:
        for number in range(len(rows[i].outcomes)):
            scope = _scope(rows, i, number, names)
            try:
                for term, node in terms.items():
                    observed[term].append(value := _value(node, scope))
                    if value is None:
                        raise ClaimError(f"{term} is null: there was nothing to measure")
                if not _truth(tree, scope):
                    failures.setdefault(i, []).append(number)
            except ClaimError as error:
                raise ClaimError(f"{error} ({_place(rows, i, [number])})") from None
    text = _observed_text(rows, observed, failures, sum(len(rows[i].outcomes) for i in chosen))
    return Verdict(claim, bool(failures) == claim.refuted, text, claim.refuted)


def values(expression: str, rows: Sequence[Row], row: int) -> list[float]:
    """What an expression gives in a row, in each of its replications.

    Raises ClaimError if it is not well formed, or cannot be computed: a figure it speaks of is null.
    """
    names = param_names(rows[row].params)
    tree = _read(expression, rows[row].outcomes[0].figures, names, EXPRESSION)
    return [
        float(_number(tree, _scope(rows, row, number, names))) for number in range(len(rows[row].outcomes))
    ]


# -- reading a statement -------------------------------------------------------------------------------------


def _parse(statement: str, wanted: str = CLAIM) -> ast.expr:
    kind = wanted.partition(" such as")[0]
    if len(statement) > LENGTH_MAX:
        raise ClaimError(f"expected {kind} of at most {LENGTH_MAX} characters, found {len(statement)}")
    text = " ".join(statement.split("\n")).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        hint = "; equality is written ==" if re.search(r"(?<![=<>!])=(?!=)", text) else ""
        raise ClaimError(f"expected {wanted}, found {text!r}{hint}") from None
    level: list[ast.AST] = [body]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ClaimError(f"expected {wanted}, found one nested {DEPTH_MAX} deep")
    return body


def _read(
    statement: str, names: Iterable[str], params: Iterable[str] | None, wanted: str = CLAIM
) -> ast.expr:
    """A statement (or an expression) that has passed every check that needs no values."""
    tree = _parse(statement, wanted)
    checker = _Checker(list(names), None if params is None else list(params))
    if wanted == CLAIM:
        checker.statement(tree)
    else:
        checker.value(tree)
    if not list(_terms(tree)):
        raise ClaimError(f"expected {wanted}, found {statement!r}, which names nothing")
    return tree


@dataclass(frozen=True)
class _Checker:
    """Walks a statement before anything is evaluated: what is not expressly allowed is an error."""

    names: list[str]
    params: list[str] | None

    def statement(self, node: ast.expr) -> None:
        """A part that is true or false."""
        match node:
            case ast.Compare():
                for operator in node.ops:
                    if not isinstance(operator, COMPARISONS):
                        raise ClaimError(f"expected == != < <= > or >=, found {ast.unparse(node)!r}")
                for operand in (node.left, *node.comparators):
                    self.value(operand)
            case ast.BoolOp():
                for part in node.values:
                    self.statement(part)
            case ast.UnaryOp(op=ast.Not()):
                self.statement(node.operand)
            case ast.Name():
                self.name(node.id, "name", self.names)
            case ast.Constant(value=bool()):
                pass
            case _:
                raise ClaimError(f"expected a comparison such as lost == 0, found {ast.unparse(node)!r}")

    def value(self, node: ast.expr) -> None:
        """A part that is a number or a text."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                pass
            case ast.Name():
                self.name(node.id, "name", self.names)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                self.value(node.operand)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
                self.value(node.left)
                self.value(node.right)
            case ast.Call():
                self.call(node)
            case _:
                raise ClaimError(f"expected numbers, names and + - * / **, found {ast.unparse(node)!r}")

    def call(self, node: ast.Call) -> None:
        """A call of one of the few functions."""
        function = _function(node)
        if function == "at":
            return self.at(node)
        if function == "of":
            return self.of(node)
        if function == "smallest":
            return self.smallest(node)
        self.name(function, "function", [*FUNCTIONS, "at", "of", "smallest"])
        least, most, wanted = ARGUMENTS[function]
        if node.keywords or not least <= len(node.args) <= most:
            raise ClaimError(f"{function}() takes {wanted}, found {ast.unparse(node)!r}")
        for argument in node.args:
            self.value(argument)

    def at(self, node: ast.Call) -> None:
        """A figure in another row."""
        match node.args:
            case [ast.Constant(value=str() as figure)] if node.keywords:
                self.name(figure, "figure", self.names)
            case _:
                raise ClaimError(f'expected at("figure", parameter=value), found {ast.unparse(node)!r}')
        for keyword in node.keywords:
            if keyword.arg is None or not _is_constant(keyword.value):
                raise ClaimError(f"at(...) takes parameter=plain value, found {ast.unparse(node)!r}")
            if self.params is not None:
                self.name(keyword.arg, "parameter of the sweep", self.params)

    def of(self, node: ast.Call) -> None:
        """A figure of one subscription."""
        match node.args:
            case [ast.Constant(value=str()), ast.Constant(value=str() as figure)] if not node.keywords:
                self.name(figure, "figure", self.names)
            case _:
                raise ClaimError(f'expected of("subscription", "figure"), found {ast.unparse(node)!r}')

    def smallest(self, node: ast.Call) -> None:
        """A parameter of the sweep, and what is to be true."""
        match node.args:
            case [ast.Constant(value=str() as parameter), statement] if not node.keywords:
                if self.params is not None:
                    self.name(parameter, "parameter of the sweep", self.params)
                self.statement(statement)
            case _:
                raise ClaimError(
                    f'expected smallest("parameter", lost == 0) with a comparison, found {ast.unparse(node)!r}'
                )

    def name(self, name: str, what: str, known: list[str]) -> None:
        """A name that must be known."""
        if name in known or (what == "name" and name in CONSTANTS):
            return
        near = get_close_matches(name, known, n=1)
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif not known:
            hint = "nothing is swept"
        else:
            hint = f"known are {', '.join(known[:12])}" + (" ..." if len(known) > 12 else "")
        raise ClaimError(f"unknown {what} {name!r}; {hint}")


def _function(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return _is_constant(node.operand)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in CONSTANTS)


def _terms(node: ast.AST) -> Iterator[ast.expr]:
    """The figures a statement speaks of: names, and calls of `at`, `of` and `smallest`."""
    if isinstance(node, ast.Call):
        if _function(node) in (*ELSEWHERE, "of"):
            yield node
            return
        children: Iterable[ast.AST] = node.args
    elif isinstance(node, ast.Name):
        if node.id not in CONSTANTS:
            yield node
        return
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _terms(child)


# -- evaluating it -------------------------------------------------------------------------------------------

At = Callable[[str, Mapping[str, Scalar]], Scalar]
Of = Callable[[str, str], Scalar]
Smallest = Callable[[str, ast.expr], Scalar]


@dataclass(frozen=True)
class _Scope:
    """What names mean where a statement is evaluated."""

    names: Mapping[str, Any]
    at: At
    of: Of
    smallest: Smallest


def _scope(rows: Sequence[Row], row: int, replication: int, names: Mapping[str, str]) -> _Scope:
    """What names mean in one replication of a row."""
    outcome = rows[row].outcomes[replication]
    elsewhere = _Elsewhere(rows, row, replication, names)
    return _Scope(outcome.figures, elsewhere, _Part(outcome), elsewhere.smallest)


def _no_at(figure: str, changes: Mapping[str, Scalar]) -> Scalar:
    raise ClaimError("at(...) stands in a claim, not in its where")


def _no_of(subscription: str, figure: str) -> Scalar:
    raise ClaimError("of(...) stands in a claim, not in its where")


def _no_smallest(parameter: str, statement: ast.expr) -> Scalar:
    raise ClaimError("smallest(...) stands in a claim, not in its where")


@dataclass(frozen=True)
class _Part:
    """`of`: a figure of one subscription of this row, in this replication."""

    outcome: Outcome

    def __call__(self, subscription: str, figure: str) -> Scalar:
        parts = self.outcome.by
        found = [part for part in parts if subscription in (part["subscription"], part["channel"])]
        if len(found) != 1:
            known = list(dict.fromkeys(part["subscription"] for part in parts))
            near = get_close_matches(subscription, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ClaimError(f"{len(found) or 'no'} subscriptions are named {subscription!r}; {hint}")
        if figure not in found[0]:
            raise ClaimError(f"{figure!r} is not a figure of a subscription")
        value: Scalar = found[0][figure]
        return value


@dataclass(frozen=True)
class _Elsewhere:
    """`at` and `smallest`: what is found in other rows, in the same replication."""

    rows: Sequence[Row]
    row: int
    replication: int
    names: Mapping[str, str]

    def __call__(self, figure: str, changes: Mapping[str, Scalar]) -> Scalar:
        changed = {self.names[name]: value for name, value in changes.items()}
        wanted = dict(self.rows[self.row].params) | changed
        found = [row for row in self.rows if all(_same(row.params[path], wanted[path]) for path in wanted)]
        if len(found) != 1:
            given = ", ".join(f"{name}={value!r}" for name, value in changes.items())
            params = [row.params for row in self.rows]
            there = "; ".join(f"{name} is {_values(self.names[name], params)}" for name in changes)
            raise ClaimError(f"{len(found) or 'no'} rows are like this one but for {given}: {there}")
        value: Scalar = found[0].outcomes[self.replication].figures[figure]
        return value

    def smallest(self, parameter: str, statement: ast.expr) -> Scalar:
        """The smallest value of a parameter for which a statement is true, all others as in this row."""
        changed, here = self.names[parameter], self.rows[self.row].params
        others = [path for path in here if path != changed]
        tried: dict[Any, bool] = {}
        for i, row in enumerate(self.rows):
            if all(_same(row.params[path], here[path]) for path in others):
                if not _is_number(row.params[changed]):
                    raise ClaimError(f"only numbers have an order, found {parameter}={row.params[changed]!r}")
                scope = _scope(self.rows, i, self.replication, self.names)
                tried[row.params[changed]] = _truth(statement, scope)
        found: list[int | float] = [value for value, is_true in tried.items() if is_true]
        if not found:
            values = ", ".join(map(_text, tried))
            raise ClaimError(f"{ast.unparse(statement)} is false for every {parameter} ({values})")
        return min(found)


def _truth(node: ast.expr, scope: _Scope) -> bool:
    match node:
        case ast.Compare():
            values = [_value(operand, scope) for operand in (node.left, *node.comparators)]
            pairs = zip(node.ops, values, values[1:], strict=False)
            return all(_compares(operator, left, right) for operator, left, right in pairs)
        case ast.BoolOp(op=ast.And()):
            return all(_truth(part, scope) for part in node.values)
        case ast.BoolOp():
            return any(_truth(part, scope) for part in node.values)
        case ast.UnaryOp():
            return not _truth(node.operand, scope)
    value = _value(node, scope)
    if not isinstance(value, bool):
        raise ClaimError(f"expected a comparison, found {ast.unparse(node)!r}, which is {value!r}")
    return value


def _value(node: ast.expr, scope: _Scope) -> Scalar:
    match node:
        case ast.Constant():
            constant: Any = node.value
            return constant  # type: ignore[no-any-return]
        case ast.Name():
            return scope.names[node.id] if node.id in scope.names else CONSTANTS[node.id]
        case ast.UnaryOp():
            operand = _number(node.operand, scope)
            return -operand if isinstance(node.op, ast.USub) else operand
        case ast.BinOp():
            return _arithmetic(node, scope)
        case ast.Call() if _function(node) == "at":
            changes = {keyword.arg or "": _value(keyword.value, scope) for keyword in node.keywords}
            return scope.at(str(_value(node.args[0], scope)), changes)
        case ast.Call() if _function(node) == "of":
            return scope.of(str(_value(node.args[0], scope)), str(_value(node.args[1], scope)))
        case ast.Call() if _function(node) == "smallest":
            return scope.smallest(str(_value(node.args[0], scope)), node.args[1])
        case ast.Call():
            numbers = [_number(argument, scope) for argument in node.args]
            try:
                result: Scalar = FUNCTIONS[_function(node)](*numbers)
            except (TypeError, ValueError, OverflowError) as error:
                raise ClaimError(f"{ast.unparse(node)}: {error}") from None
            return result
    raise AssertionError(f"{ast.dump(node)} passed the checker")


def _arithmetic(node: ast.BinOp, scope: _Scope) -> Scalar:
    left, right = _number(node.left, scope), _number(node.right, scope)
    try:
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
        return math.pow(left, right)  # of floats: no towers of integers
    except (ArithmeticError, ValueError) as error:
        raise ClaimError(f"{ast.unparse(node)}: {error}") from None


def _number(node: ast.expr, scope: _Scope) -> int | float:
    value = _value(node, scope)
    if value is None:
        raise ClaimError(f"{ast.unparse(node)} is null")
    if isinstance(value, bool | str):
        raise ClaimError(f"expected a number, found {ast.unparse(node)!r}, which is {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(left: Any, right: Any) -> bool:
    if _is_number(left) and _is_number(right):
        if isinstance(left, int) and isinstance(right, int):
            return left == right
        return math.isclose(left, right, rel_tol=1e-12)
    return type(left) is type(right) and bool(left == right)


def _compares(operator: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(operator, ast.Eq | ast.NotEq):
        return _same(left, right) == isinstance(operator, ast.Eq)
    if not (_is_number(left) and _is_number(right)):
        raise ClaimError(f"only numbers have an order, found {left!r} and {right!r}")
    if _same(left, right):
        return isinstance(operator, ast.LtE | ast.GtE)
    return bool(left < right) == isinstance(operator, ast.Lt | ast.LtE)


# -- telling what was seen -----------------------------------------------------------------------------------


def _observed_text(
    rows: Sequence[Row], observed: Mapping[str, list[Any]], failures: Mapping[int, list[int]], runs: int
) -> str:
    seen = ", ".join(f"{term} {_range(values)}" for term, values in observed.items())
    if not failures:
        return f"{seen} in {runs} runs" if runs > 1 else seen
    if runs == 1:
        return f"{seen}: false"
    failed = sum(len(numbers) for numbers in failures.values())
    places = [_place(rows, i, numbers) for i, numbers in list(failures.items())[:NAMED_MAX]]
    more = f"; and {len(failures) - NAMED_MAX} more rows" if len(failures) > NAMED_MAX else ""
    return f"{seen}; false in {failed} of {runs} runs: {'; '.join(places)}{more}"


def _place(rows: Sequence[Row], i: int, numbers: Sequence[int]) -> str:
    """A row and, unless it is all of them, its replications (numbered from 0)."""
    names: dict[str, str] = {}  # the first name of a path is its short one
    for name, path in param_names(rows[i].params).items():
        names.setdefault(path, name)
    row = ", ".join(f"{names[path]}={_text(value)}" for path, value in rows[i].params.items())
    row = row or "the only row"
    if len(numbers) == len(rows[i].outcomes):
        return row
    which = ", ".join(str(number) for number in numbers)
    return f"{row}, replication{'s' if len(numbers) > 1 else ''} {which}"


def _range(values: Sequence[Any]) -> str:
    if not all(_is_number(value) for value in values):
        return "= " + " or ".join(dict.fromkeys(_text(value) for value in values))
    least, most = _text(min(values)), _text(max(values))
    return f"= {least}" if least == most else f"{least} to {most}"


def _values(path: str, params: Sequence[Mapping[str, Any]]) -> str:
    texts = list(dict.fromkeys(_text(row[path]) for row in params))
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < math.inf else f"{value:.4g}"
    return str(value)
