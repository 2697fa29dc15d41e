"""The report of a run: one HTML file that needs nothing else, for a browser or a printer.

What it says is put together in `content`; how it looks is in `template.html.j2` and `report.css`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.result import Result

FILE = "report.html"


def write_report(result: Result, folder: Path, pictures: Sequence[Path] = ()) -> Path:
    """Write `folder/report.html` with the pictures (PNG files, as `sim.plots.draw` returns them) in it.

    Returns its path. The same result and pictures give the same bytes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from sim.report.content import content

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("template.html.j2").render(content(result, pictures))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(page, encoding="utf-8")
    return path
