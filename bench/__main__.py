"""`python -m bench`: how fast the simulator is, and how much memory a message takes. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from bench.measure import Spread, bytes_per_message, compare, events, scaling, systems

HISTORY = Path(__file__).with_name("history.csv")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, help="messages of the comparison (20000; with --full 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparison (5)")
    parser.add_argument("--full", action="store_true", help="compare at 200,000 messages, scale to 2,000,000")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--record", metavar="LABEL", help="append the figures to bench/history.csv under that label"
    )
    chosen = parser.parse_args()
    if chosen.rounds < 1 or (chosen.messages is not None and chosen.messages < 1000):
        parser.error("expected at least 1 round of at least 1000 messages")
    return chosen


def measure(messages: int, rounds: int, sizes: list[int]) -> dict[str, Any]:
    """All figures, by name: a comparison at `messages`, events and memory at the first of `sizes`, cost at each."""
    comparison = compare(messages, rounds)
    counted = events(sizes[0], rounds)
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "messages": messages,
        "rounds": rounds,
        "ratio": asdict(comparison.ratio),
        "plain_us_per_message": asdict(comparison.plain_us),
        "us_per_message": asdict(comparison.ours_us),
        "events_per_message": counted.per_message,
        "events_per_second": counted.per_second,
        "share_of_heap": counted.share_of_heap,
        "bytes_per_message": bytes_per_message(sizes[0]),
        "us_per_message_by_size": {str(n): us for n, us in scaling(sizes).items()},
        "systems": {name: asdict(cost) for name, cost in systems(messages, rounds).items()},
    }


def report(figures: dict[str, Any]) -> str:
    """The figures for people."""

    def spread(figure: dict[str, float], digits: int) -> str:
        values = Spread(**figure)
        return f"{values.median:.{digits}f} ({values.least:.{digits}f} to {values.greatest:.{digits}f})"

    by_size = {int(n): us for n, us in figures["us_per_message_by_size"].items()}
    smallest = min(by_size)
    lines = [
        f"Reference work W, {figures['messages']:,} messages, {figures['rounds']} rounds in turn: "
        "median (least to greatest) of CPU time",
        f"  plain SimPy / msgsim     {spread(figures['ratio'], 1)} times",
        f"  plain SimPy              {spread(figures['plain_us_per_message'], 1)} us per message",
        f"  msgsim, full ledger      {spread(figures['us_per_message'], 1)} us per message",
        f"Events                     {figures['events_per_message']:.1f} per message, "
        f"{figures['events_per_second'] / 1e6:.2f} M/s",
        f"  of a bare heap           {figures['share_of_heap']:.0%}",
        f"Ledger                     {figures['bytes_per_message']:.0f} bytes per message",
        "Cost as the run grows",
        *(
            f"  {n:>9,} messages       {us:.1f} us each, {us / by_size[smallest]:.2f} of the smallest"
            for n, us in by_size.items()
        ),
        f"The same work over connections that lose nothing, {figures['messages']:,} messages, in turn",
        *(
            f"  {name:<18}       {spread(cost['ratio'], 2)} of the textbook, "
            f"{cost['us']['median']:.1f} us and {cost['events_per_message']:.1f} events per message"
            for name, cost in figures["systems"].items()
        ),
        f"Python {figures['python']}, {figures['cores']} cores",
    ]
    return "\n".join(lines)


def record(figures: dict[str, Any], label: str) -> None:
    """Append one line to the history. It names no machine: compare ratios, not microseconds."""
    largest = max(figures["us_per_message_by_size"], key=int)
    row = {
        "label": label,
        "python": figures["python"],
        "cores": figures["cores"],
        "messages": figures["messages"],
        "ratio": round(figures["ratio"]["median"], 2),
        "ratio_least": round(figures["ratio"]["least"], 2),
        "ratio_greatest": round(figures["ratio"]["greatest"], 2),
        "us_per_message": round(figures["us_per_message"]["median"], 2),
        "events_per_message": round(figures["events_per_message"], 2),
        "share_of_heap": round(figures["share_of_heap"], 3),
        "bytes_per_message": round(figures["bytes_per_message"], 1),
        "largest": largest,
        "us_per_message_at_largest": round(figures["us_per_message_by_size"][largest], 2),
    }
    for name, cost in figures["systems"].items():
        row[f"{name} ratio"] = round(cost["ratio"]["median"], 2)
        row[f"{name} events"] = round(cost["events_per_message"], 2)
    rows = []
    if HISTORY.exists():
        with HISTORY.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))  # earlier ones may lack figures that came later
    rows.append(row)
    with HISTORY.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(chain(*rows))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure, print, and record if asked to."""
    chosen = options()
    if not chosen.json and sys.stderr.isatty():
        print("measuring, about 2 minutes" + (", 10 with --full" if chosen.full else ""), file=sys.stderr)
    messages = chosen.messages or (200_000 if chosen.full else 20_000)
    figures = measure(messages, chosen.rounds, [20_000, 200_000, *([2_000_000] if chosen.full else [])])
    print(json.dumps(figures) if chosen.json else report(figures))
    if chosen.record:
        record(figures, chosen.record)


if __name__ == "__main__":
    main()
