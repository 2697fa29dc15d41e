"""The notebooks run from top to bottom, and their exercises tell a right answer from a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES_MAX = 300_000  # bytes of PNG in a notebook


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def tagged(notebook: Any, tag: str) -> Any:
    """The one cell with that tag."""
    (cell,) = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
    return cell


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.get("outputs", ()) if output.output_type == "stream")


def pictures(notebook: Any) -> Iterator[str]:
    """The PNG pictures of a notebook, in base 64."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                yield output.data["image/png"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_what_it_shows(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
        "run it from top to bottom"
    )
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    assert not [output for output in shown if output.get("name") == "stderr"]
    assert list(pictures(notebook)), "it has no picture"
    assert sum(len(picture) * 3 // 4 for picture in pictures(notebook)) < PICTURES_MAX


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_its_exercise_knows_the_answer(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )

    def run(cell: Any) -> str:
        client.execute_cell(cell, notebook.cells.index(cell))
        return printed(cell)

    answer, check, solution = (tagged(notebook, tag) for tag in ("answer", "check", "solution"))
    (source,) = re.findall(r"```python\n(.*?)```", solution.source, re.DOTALL)
    with client.setup_kernel():
        for cell in notebook.cells:
            run(cell)  # raises if the cell does
        assert "Not yet" in printed(check)
        assert "✗" in printed(check)
        assert all(hint in check.source for hint in re.findall(r"✗ .*\n +(\S.*)", printed(check)))

        answer.source = source
        run(answer)
        assert "Solved" in run(check)
        assert "✗" not in printed(check)

        setting = re.findall(r'"([\w.]+)": ', source)[0]
        answer.source = source.replace(setting, setting[:-1])
        run(answer)
        assert f"did you mean '{setting}'" in run(check)
