"""The index of the shipped scenarios: what `msgsim list` shows, without reading a single YAML file.

`index.json` lies beside the scenarios. The build writes it into the wheel (`hatch_build.py` loads this file by
its path, hence no import of the rest of `sim`); in a checkout `make index` writes it, and a test keeps it fresh.
"""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TypedDict

INDEX = "index.json"
PUBLISHED = "published/"  # scenarios that reproduce published measurements: a group of their own
DEVIATIONS = f"{PUBLISHED}deviations"  # lies among them and is no scenario
PACKAGED = Path(__file__).resolve().parents[1] / "_scenarios"  # in an installed wheel
CHECKOUT = Path(__file__).resolve().parents[2] / "scenarios"  # in a checkout, and so in an editable install


class Entry(TypedDict):
    """A scenario as the index has it; its name is its path in the folder without suffix: `published/p01`."""

    name: str
    title: str
    question: str


class LocatedEntry(Entry):
    """An entry with the absolute path of its YAML file on this machine."""

    path: str


def scenarios_folder() -> Path:
    """The folder of the shipped scenarios: the wheel's, else the checkout's.

    Raises FileNotFoundError if there is neither.
    """
    for folder in (PACKAGED, CHECKOUT):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no scenarios: expected a folder {PACKAGED} or {CHECKOUT}, found neither")


def load_index() -> list[LocatedEntry]:
    """The shipped scenarios in the order of their names; reads YAML only if the index file is missing.

    Raises FileNotFoundError if there are no scenarios at all, ValueError if the index file is damaged.
    """
    folder = scenarios_folder()
    file = folder / INDEX
    if not file.is_file():
        entries = build_index(folder)
    else:
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: expected JSON ({error}); `make index` writes it anew") from None
    return [{**entry, "path": str(folder / f"{entry['name']}.yaml")} for entry in entries]


def is_published(entry: Entry) -> bool:
    """Whether a scenario reproduces a published measurement, so that `msgsim verify` is for it."""
    return entry["name"].startswith(PUBLISHED)


def build_index(folder: Path) -> list[Entry]:
    """Read name, title and question of every `*.yaml` under `folder`, in the order of their names.

    Raises ValueError, in one line, for a file that is not YAML or lacks a title or a question.
    """
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    files.pop(DEVIATIONS, None)
    return [_entry(name, files[name]) for name in sorted(files)]


def index_text(folder: Path) -> str:
    """The index of `folder` as the text of its index file."""
    return json.dumps(build_index(folder), indent=2, ensure_ascii=False) + "\n"


def write_index(folder: Path) -> Path:
    """Write the index of `folder` into it and return the file's path."""
    file = folder / INDEX
    file.write_text(index_text(folder), encoding="utf-8")
    return file


def _entry(name: str, path: Path) -> Entry:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(path)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: not YAML: {error.problem}") from None
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        found = type(document).__name__
        raise ValueError(f"{path}: expected a scenario (a mapping with a title), found {found}")
    return {
        "name": name,
        "title": _one_line(document, "title", path),
        "question": _one_line(document, "question", path),
    }


def _one_line(document: dict[object, object], key: str, path: Path) -> str:
    """The text under `key`, folded into one line."""
    text = document.get(key)
    if isinstance(text, str) and text.strip():
        return " ".join(text.split())
    if key in document:
        raise ValueError(f"{path}: expected a text as {key}, found {text!r}")
    near = get_close_matches(key, [str(k) for k in document], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{path}: expected a {key}, found none{hint}")
