"""The reports of `msgsim verify` as text, for a terminal of 80 columns or more."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from sim.terminal import GAP, marks, wrapped
from sim.verify import closed_forms, published, semantics
from sim.words import digits, share

STYLES = {
    "ok": "green",
    "passed": "green",
    "MISSED": "bold red",
    "too wide": "bold red",
    "failed": "bold red",
}


def show_theory(report: closed_forms.Report, console: Console) -> None:
    """A line for each closed form, under the world it is of."""
    console.print(Text("Closed forms", style="bold"))
    confidence = share(closed_forms.CONFIDENCE)
    console.print(Text(f"simulated: mean ± half width of its {confidence} interval", style="dim"))
    console.print()
    lines = [
        _Line(
            line.world,
            line.verdict,
            f"{line.name}: {line.formula}",
            (_number(line.exact), f"{_number(line.simulated)} ± {digits(line.half_width, 2)}"),
        )
        for line in report.lines
    ]
    _print_lines(("formula", "simulated"), lines, console)
    missed = sum(line.verdict != "ok" for line in report.lines)
    console.print()
    console.print(Text(f"{len(report.lines)} lines, {missed} missed"))


def show_published(report: published.Report, console: Console) -> None:
    """A line for each published figure, then what there is to say about those that miss, then the sources."""
    console.print(Text("Published measurements", style="bold"))
    console.print()
    titles = {about["scenario"]: _heading(about) for about in report.cases}
    lines = [
        _Line(
            titles[line.scenario],
            line.verdict,
            line.figure,
            (
                f"{digits(line.published, 6)} {line.unit}".strip(),
                _predicted(line),
                line.deviation,
                line.tolerance or "–",
            ),
        )
        for line in report.lines
    ]
    _print_lines(("published", "predicted", "off by", "tolerance"), lines, console)
    _print_notes("Explained", [line for line in report.lines if line.verdict == "explained"], console)
    _print_notes("Missed", [one for one in report.lines if one.verdict == "MISSED" and one.note], console)
    _print_sources(report.cases, console)
    console.print()
    counts = ", ".join(
        f"{report.count(verdict)} {verdict}" for verdict in published.VERDICTS if report.count(verdict)
    )
    console.print(Text(f"{len(report.lines)} lines of {len(report.cases)} cases: {counts or 'nothing'}"))
    for stale in report.stale:
        text = f"Listed as a deviation, and within its tolerance: {stale}"
        console.print(Text(textwrap.fill(text, console.width), style="yellow"))


def _heading(about: Mapping[str, Any]) -> str:
    kind = about["nature"].replace("-", " ")
    return f"{about['case']}  {about['title']} ({about['system']}; {kind}, strength {about['strength']})"


def _predicted(line: published.Judged) -> str:
    if line.predicted is None:
        return "–"
    interval = f" ± {digits(line.half_width, 2)}" if line.half_width else ""
    return _number(line.predicted) + interval


def _print_sources(cases: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Each source once, with the cases that are from it."""
    console.print()
    console.print(Text("Sources", style="bold"))
    sources: dict[tuple[str, str], list[str]] = {}
    for about in cases:
        sources.setdefault((f"{about['source']}, {about['year']}", about["url"]), []).append(about["case"])
    for (source, url), names in sources.items():
        console.print(Text(wrapped(" " * GAP, f"{', '.join(dict.fromkeys(names))}: {source}", console.width)))
        console.print(Text(f"{' ' * 2 * GAP}{url}", style="dim"), soft_wrap=True)


def _print_notes(title: str, lines: Sequence[published.Judged], console: Console) -> None:
    if not lines:
        return
    console.print()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(
            Text(wrapped(f"{' ' * GAP}{line.case}  ", f"{line.figure}: {line.note}", console.width))
        )


def show_semantics(report: semantics.Report, console: Console) -> None:
    """Each behaviour of each system: how its tests ended, its claim, its source, its tests."""
    system = None
    good, bad = marks(console.encoding)
    signs = {"passed": good, "failed": bad}
    for behaviour in report.behaviours:
        if behaviour.system != system:
            if system is not None:
                console.print()
            system = behaviour.system
            console.print(Text(report.titles[system], style="bold"))
        start = f"{signs.get(behaviour.status, '·').ljust(len(good))} {behaviour.id}  "
        blank = " " * len(start)
        text = Text(wrapped(start, f"{behaviour.title}. {behaviour.claim}", console.width))
        text.stylize(STYLES.get(behaviour.status, "dim"), 0, len(start))
        console.print(text)
        console.print(Text(wrapped(blank, f"[{behaviour.source}]", console.width), style="dim"))
        for test in behaviour.tests:
            ended = "" if test.outcome == semantics.PASSED else f" ({test.outcome})"
            console.print(Text(f"{blank}{test.name}{ended}", style="dim"), soft_wrap=True)
        if behaviour.left_out:
            console.print(Text(wrapped(blank, f"left out: {behaviour.left_out}", console.width)))
    console.print()
    statuses: Mapping[str, int] = report.to_json()["statuses"]
    listing = ", ".join(f"{count} {status}" for status, count in statuses.items() if count)
    console.print(Text(f"{len(report.behaviours)} behaviours: {listing or 'none'}"))


# -- lines with numbers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """A verdict, what it is about, and numbers as texts; lines of one heading stand below it."""

    heading: str
    verdict: str
    text: str
    numbers: tuple[str, ...]


def _print_lines(names: Sequence[str], lines: Sequence[_Line], console: Console) -> None:
    """Lines in columns, the text wrapped to what is left of the width."""
    widths = [max(map(len, column)) for column in zip(names, *(line.numbers for line in lines), strict=True)]
    indent = GAP + max((len(line.verdict) for line in lines), default=0) + GAP
    room = max(12, console.width - indent - sum(widths) - GAP * len(widths))

    def numbers(texts: Sequence[str]) -> str:
        return "".join(f"{'':{GAP}}{text:>{width}}" for text, width in zip(texts, widths, strict=True))

    console.print(Text(" " * (indent + room) + numbers(names), style="dim"), soft_wrap=True)
    heading = None
    for line in lines:
        if line.heading != heading:
            heading = line.heading
            console.print(
                Text(textwrap.fill(heading, console.width, subsequent_indent=" " * 2 * GAP), style="bold")
            )
        first, *more = textwrap.wrap(line.text, room)
        text = Text(f"{'':{GAP}}{line.verdict}".ljust(indent) + first.ljust(room) + numbers(line.numbers))
        text.stylize(STYLES.get(line.verdict, "dim"), 0, indent)
        console.print(text, soft_wrap=True)
        for rest in more:
            console.print(Text(" " * (indent + GAP) + rest), soft_wrap=True)


def _number(value: float) -> str:
    return digits(value, 4) if abs(value) < 1000 else digits(value, 5)
