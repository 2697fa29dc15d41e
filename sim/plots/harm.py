"""Losses and duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.plots.house import (
    HATCHES,
    PURPLE,
    SKY,
    VERMILLION,
    canvas,
    label_lines,
    share_ruler,
    styled,
    write_behind,
)
from sim.plots.reading import is_ever, lines_of, number, reading
from sim.words import count, digits, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.result import Result

HARM = {
    "lost": ("Lost", VERMILLION),
    "duplicates": ("Processed again", SKY),
    "duplicate_effects": ("Effect applied again", PURPLE),
}
CONFIRMED_COLOUR = "#7A3300"
LABEL_MAX = 18  # letters of a row's label; longer ones leave narrow panels


@styled
def guarantees(result: Result) -> Figure:
    """Bars of losses and duplicates: a bar per guarantee (or another word), a block per other value."""
    lines = lines_of(result)
    harm = [name for name in HARM if name != "duplicate_effects" or is_ever(result, "effects")]
    notes = _zero_notes(result, harm)
    if is_ever(result, "lost_confirmed"):
        notes.insert(0, "Dark: lost although the producer held a confirmation.")
    figure = canvas("What is lost, what is duplicated", max(2.4, 1.4 + 0.29 * len(lines)), notes)
    panels = figure.subplots(1, len(harm), sharey=True, squeeze=False)[0]
    is_narrow = max(len(label) for label, _ in lines) > LABEL_MAX
    for panel, name, hatch in zip(panels, harm, HATCHES, strict=False):
        _bars(panel, result, lines, name, hatch, is_narrow)
        label_lines(panel, lines)
    panels[len(panels) // 2].set_xlabel("share of the messages due")
    return figure


def _bars(
    panel: Axes,
    result: Result,
    lines: Sequence[tuple[str, int | None]],
    name: str,
    hatch: str,
    is_narrow: bool,
) -> None:
    """One anomaly: a bar with its interval per row, the value written behind it."""
    title, fill = HARM[name]
    largest = 0.0
    for y, (_, row) in enumerate(lines):
        if row is None:
            continue
        value, half = reading(result.rows[row], name)
        if value is None:
            panel.text(0, y, " unknown", va="center", fontsize=11)
            continue
        panel.barh(y, value, height=0.72, color=fill, hatch=hatch, edgecolor="white", linewidth=0)
        confirmed = reading(result.rows[row], "lost_confirmed")[0] if name == "lost" else None
        if confirmed:
            panel.barh(
                y, confirmed, height=0.72, color=CONFIRMED_COLOUR, hatch="///", edgecolor="white", linewidth=0
            )
        if half:
            panel.errorbar(value, y, xerr=[[min(half, value)], [half]], color="black", linewidth=1.4)
        text = share(value) if value else _zero_text(result, row)
        colour = "#000000" if value else "#666666"
        write_behind(panel, value + half, y, text, colour)
        largest = max(largest, value + half)
    panel.set_title(title.replace(" again", "\nagain") if is_narrow else title)
    panel.set_xlim(0, (2.1 if is_narrow else 1.75) * largest or 1)
    if largest:
        share_ruler(panel.xaxis, 2 if is_narrow else 3, largest)
    else:
        panel.set_xticks([0], ["0%"])


# None seen is not none: below 3/N with 95 % confidence (rule of three; behaviour N-20). N counts what is
# independent: messages, or fault episodes where one strikes many messages at once.


def _messages(result: Result, row: int) -> int:
    """How many messages could have been struck, each on its own; 0 where faults strike many at once."""
    outcomes = result.rows[row].outcomes
    if any(outcome.faults for outcome in outcomes):
        return 0
    return round((number(result.rows[row].metrics.get("expected")) or 0) * len(outcomes))


def _zero_text(result: Result, row: int) -> str:
    trials = _messages(result, row)
    return f"< {digits(300 / trials, 2)}%" if trials > 3 else "0"


def _zero_notes(result: Result, figures: Sequence[str]) -> list[str]:
    """What is written at bars of no length, explained."""
    notes = []
    zero = [i for i, row in enumerate(result.rows) if any(reading(row, name)[0] == 0 for name in figures)]
    trials = sorted({_messages(result, row) for row in zero} - {0})
    if trials:
        sizes = " to ".join(count(n) for n in dict.fromkeys((trials[0], trials[-1])))
        notes.append(f"“<”: none seen among N = {sizes} messages, so less than 3/N (95% confidence).")
    episodes = [
        sum(len(outcome.faults) for outcome in result.rows[row].outcomes)
        for row in zero
        if not _messages(result, row)
    ]
    if episodes:
        few = min(episodes)
        bound = f"; fewer than 3/N = {share(3 / few)} of them would (95% confidence)" if few > 3 else ""
        notes.append(f"“0”: none caused by N = {few} fault episode{'s' * (few != 1)}{bound}.")
    return notes
