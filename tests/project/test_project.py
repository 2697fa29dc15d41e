"""The project as a whole: what a wheel carries, what the locks hold, what no file may say."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return {canonicalize_name(name): version for name, version in PIN.findall(text)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this project, built from a copy with two scenarios and a data file of its own."""
    pytest.importorskip("hatchling", reason="the build backend is in the locked environment")
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", "README.md", ".gitignore"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "sim", tree / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    published = tree / "scenarios" / "published"
    published.mkdir(parents=True)
    (published / "p01.yaml").write_text("title: Gaps\nquestion: How long?\n")
    (published / "gaps.csv").write_text("gap\n0.1\n")
    (published.parent / "flagship.yaml").write_text("title: Crash\nquestion: Who keeps it?\n")
    (published.parent / "index.json").write_text('[{"name": "stale", "title": "", "question": ""}]')
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    done = subprocess.run(build, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = built.glob("msgsim-*.whl")
    return file


def test_wheel_carries_the_scenarios_and_a_fresh_index(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "import json; from sim.scenario.index import load_index; print(json.dumps(load_index()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    entries = json.loads(done.stdout)
    assert [entry["name"] for entry in entries] == ["flagship", "published/p01"]
    assert all(Path(entry["path"]).is_relative_to(tmp_path / "sim" / "_scenarios") for entry in entries)
    assert all(Path(entry["path"]).is_file() for entry in entries)
    assert (tmp_path / "sim" / "_scenarios" / "published" / "gaps.csv").is_file()


def test_wheel_carries_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        entry_points = archive.read("msgsim-0.1.0.dist-info/entry_points.txt").decode()
    files = (path for path in (ROOT / "sim").rglob("*") if path.is_file())
    package = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert package <= inside
    assert {name.split("/")[0] for name in inside} == {"sim", "msgsim-0.1.0.dist-info"}
    assert "msgsim = sim.cli:main" in entry_points


@pytest.mark.parametrize("lock", ["base.txt", "dev.txt"])
def test_lock_pins_everything_and_names_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert requirements
    assert [line for line in requirements if not PIN.match(line)] == []
    assert text.count(" \\\n    --hash=sha256:") >= len(requirements)
    assert re.findall(r"\S*://\S*|--(?:extra-)?index-url.*|--find-links.*|\S+ @ .*", text) == []


def test_dev_lock_holds_the_base_lock() -> None:
    base, dev = pins("base.txt"), pins("dev.txt")
    assert {name: dev.get(name) for name in base} == base


@pytest.mark.parametrize(("lock", "extras"), [("base.txt", []), ("dev.txt", ["dev", "notebooks", "hunt"])])
def test_lock_satisfies_pyproject(lock: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"]) + project["dependency-groups"]["build"]
    wanted += project["build-system"]["requires"]
    wanted += [line for extra in extras for line in project["project"]["optional-dependencies"][extra]]
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in requirements/{lock}: run `make lock`"
        assert requirement.specifier.contains(version), (
            f"{requirement} but {version} is locked: run `make lock`"
        )


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    path = re.compile(rb"(?<![\w.])/(?:work|root|farm|home/\w+|tmp/v)/[\w./-]*")
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    found = {
        str(file.relative_to(ROOT)): match.group().decode()
        for file in files
        if file.is_file() and (match := path.search(file.read_bytes()))
    }
    assert found == {}
