"""The index of the shipped scenarios: built from their YAML, kept fresh, read without a YAML reader."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sim.scenario import index

FLAGSHIP = "title: Crash before the ack\nquestion: Who keeps the message?\nduration: 10 s\n"
FOLDED = "question: >\n  How long does\n  the second attempt take?\ntitle: Retries\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scenarios, one of them in a subfolder, and two files that are none."""
    (tmp_path / "published").mkdir()
    (tmp_path / "retries.yaml").write_text(FOLDED)
    (tmp_path / "published" / "p01.yaml").write_text(FLAGSHIP)
    (tmp_path / "published" / "gaps.csv").write_text("gap\n0.1\n")
    (tmp_path / "published" / "deviations.yaml").write_text("[]\n")
    return tmp_path


def test_index_names_scenarios_by_their_path_in_order(folder: Path) -> None:
    assert index.build_index(folder) == [
        {"name": "published/p01", "title": "Crash before the ack", "question": "Who keeps the message?"},
        {"name": "retries", "title": "Retries", "question": "How long does the second attempt take?"},
    ]


def test_loaded_index_says_where_each_file_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.write_index(folder)
    monkeypatch.setattr(index, "PACKAGED", folder / "absent")
    monkeypatch.setattr(index, "CHECKOUT", folder)
    entries = index.load_index()
    assert [entry["name"] for entry in entries] == ["published/p01", "retries"]
    assert [Path(entry["path"]) for entry in entries] == [
        folder / "published" / "p01.yaml",
        folder / "retries.yaml",
    ]


def test_scenarios_on_board_come_before_a_checkouts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "PACKAGED", folder)
    monkeypatch.setattr(index, "CHECKOUT", tmp_path / "absent")
    assert index.scenarios_folder() == folder


def test_without_an_index_file_the_scenarios_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PACKAGED", folder)
    assert [entry["title"] for entry in index.load_index()] == ["Crash before the ack", "Retries"]


def test_no_scenarios_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PACKAGED", tmp_path / "a")
    monkeypatch.setattr(index, "CHECKOUT", tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="found neither"):
        index.load_index()


def test_a_damaged_index_names_its_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / index.INDEX).write_text('[{"name": "retr')
    monkeypatch.setattr(index, "PACKAGED", folder)
    with pytest.raises(ValueError, match="make index"):
        index.load_index()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("titel: Retries\nquestion: Why?\n", "expected a title, found none; did you mean 'titel'?"),
        ("title: Retries\n", "expected a question, found none"),
        ("title: Retries\nquestion: [1, 2]\n", "expected a text as question, found [1, 2]"),
        ("title: ''\nquestion: Why?\n", "expected a text as title, found ''"),
        ("- title: Retries\n", "expected a scenario (a mapping with a title), found list"),
        ("", "expected a scenario (a mapping with a title), found NoneType"),
        ("title: Retries\nquestion: 'Why?\n", "not YAML"),
        ("title: Retries\ntitle: Again\nquestion: Why?\n", 'not YAML: found duplicate key "title"'),
    ],
)
def test_a_bad_scenario_is_one_line_with_its_file(folder: Path, text: str, complaint: str) -> None:
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:
        index.build_index(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / "bad.yaml"))
    assert complaint in message
    assert "\n" not in message


def test_committed_index_is_fresh() -> None:
    committed = (index.CHECKOUT / index.INDEX).read_text(encoding="utf-8")
    assert committed == index.index_text(index.CHECKOUT), "scenarios/index.json is stale: run `make index`"


def test_listing_imports_no_yaml_reader() -> None:
    program = "import json, sys; from sim.scenario.index import load_index; load_index(); "
    program += "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    root = index.CHECKOUT.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert "sim" in json.loads(done.stdout)
    assert {"ruamel", "yaml", "pandas", "matplotlib", "scipy", "pydantic"}.isdisjoint(json.loads(done.stdout))
