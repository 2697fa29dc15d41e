"""What `msgsim verify` does with each of its parts: its report, as text, and as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.scenario.errors import ScenarioError, found, nearest_or_all
from sim.verify import PARTS

if TYPE_CHECKING:
    from sim.experiment import Progress
    from sim.store import Store


def parts(part: str | None, names: Sequence[str], run: bool) -> Sequence[str]:
    """The parts to verify. Raises ScenarioError for an unknown one, and for words that are for another."""
    if part is not None and part not in PARTS:
        raise ScenarioError(f"verify: expected a part, found {found(part)}{nearest_or_all(part, PARTS)}")
    if part == "theory" and names:
        raise ScenarioError(f"verify theory: expected no names, found {found(names[0])}; its list is fixed")
    if run and part != "semantics":
        raise ScenarioError("--run: expected after verify semantics, whose tests it runs")
    return PARTS if part is None else (part,)


def report_of(
    part: str,
    names: Sequence[str],
    *,
    run: bool,
    jobs: int | None,
    store: Store | None,
    progress: Progress | None,
) -> Any:
    """The report of one part, of those names only if there are any."""
    if part == "semantics":
        from sim.verify import semantics

        return semantics.verify(names, run=run)
    if part == "theory":
        from sim.verify import closed_forms

        return closed_forms.verify(jobs=jobs, store=store, progress=progress)
    from sim.verify import published

    return published.verify(names, jobs=jobs, store=store, progress=progress)


def show(part: str, report: Any) -> None:
    """Print a report."""
    from sim.terminal import Screen
    from sim.verify import show

    shows: dict[str, Any] = {
        "theory": show.show_theory,
        "published": show.show_published,
        "semantics": show.show_semantics,
    }
    shows[part](report, Screen())
    print()


def write(part: str, report: Any, out: Path, plots: bool) -> list[Path]:
    """Write a report as PART.json, and its pictures beside it; their paths."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{part}.json"
    text = json.dumps(report.to_json(), indent=1, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
    if part != "published" or not plots:
        return [file]
    from sim.plots.published import draw_published

    return [file, *draw_published(report.lines, out)]
