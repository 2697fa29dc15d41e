"""Plant each mutant into a copy of the tree, and see whether the tests notice: `python tests/mutants/run.py`.

Nobody's working tree is touched. Two copies are at work at once. A mutant is killed when a test fails; each is shown
with the test that killed it. The exit status is 1 when one survives (or the tests fail without any).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this is a script, beside what it imports

from tests.mutants.mutant import Mutant  # noqa: E402
from tests.mutants.mutants import MUTANTS  # noqa: E402

PARTS = ("sim", "tests", "docs", "scenarios", "README.md", "pyproject.toml")  # what the tests below read
FAST = ("conformance", "unit", "properties/test_books.py")  # asked when the first tests do not notice
LEFT_OUT = "conformance/test_statistics.py"  # on long runs, and on pictures
PATIENCE = 300.0  # seconds of the computer, after which a mutant that hangs counts as noticed
WORKERS = 2
PASSED, FAILED = 0, 1  # exit statuses of pytest


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "killed", "survived", or "broken" (the tests could not even be run)."""

    mutant: Mutant
    kind: str
    by: str


def main() -> int:
    """The command; returns its exit status."""
    options = _options()
    chosen = [m for m in MUTANTS if not options.only or m.name in options.only]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:38} {mutant.file:28} {mutant.why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="msgsim-mutants-") as folder:
        sound = _copy_tree(ROOT, Path(folder) / "0")
        status, output = _pytest(sound, FAST, writes_bytecode=True)
        if status != PASSED:
            print(f"without any mutant the tests must pass; they say:\n{output}")
            return 1
        copies = [_copy_tree(sound, Path(folder) / str(i)) for i in range(1, WORKERS)]
        return _report(_try_all(chosen, [sound, *copies]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="See whether the tests notice each planted mistake.")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant only; may be repeated")
    options = parser.parse_args()
    names = [mutant.name for mutant in MUTANTS]
    for name in options.only or ():
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see --list"
            parser.error(f"expected the name of a mutant, found {name!r}; {hint}")
    return options


def _report(verdicts: Iterator[Verdict]) -> int:
    kinds = []
    for verdict in verdicts:
        kinds.append(verdict.kind)
        print(f"{verdict.kind:9}{verdict.mutant.name:38} {verdict.by}", flush=True)
    killed = kinds.count("killed")
    print(f"{killed} of {len(kinds)} mutants killed")
    return 0 if killed == len(kinds) else 1


# -- one mutant ----------------------------------------------------------------------------------------------------


def _try_all(mutants: list[Mutant], trees: list[Path]) -> Iterator[Verdict]:
    """Verdicts in the order of the mutants; each takes whichever copy of the tree is free."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def attempt(mutant: Mutant) -> Verdict:
        tree = free.get()
        try:
            with planted(mutant, tree):
                return _judge(mutant, tree)
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        yield from pool.map(attempt, mutants)


def _judge(mutant: Mutant, tree: Path) -> Verdict:
    for tests in (mutant.first, FAST):
        try:
            status, output = _pytest(tree, tests)
        except subprocess.TimeoutExpired:
            return Verdict(mutant, "killed", f"nothing within {PATIENCE:.0f} s")
        if status == FAILED:
            found = re.search(r"^FAILED (\S+)|^ERROR (\S+)", output, re.MULTILINE)
            return Verdict(mutant, "killed", found.group(1) or found.group(2) if found else "a test")
        if status != PASSED:
            return Verdict(mutant, "broken", output.strip().splitlines()[-1])
    return Verdict(mutant, "survived", mutant.why)


@contextmanager
def planted(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The mutant in a tree, for a while. Raises ValueError where its place does not exist exactly once."""
    path = tree / "sim" / mutant.file
    sound = path.read_text()
    if sound.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: expected its text once in sim/{mutant.file}, found it {sound.count(mutant.old)} times"
        )
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        path.write_text(sound)


# -- the copy ------------------------------------------------------------------------------------------------------


def _copy_tree(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in PARTS:
        if (source / name).is_dir():
            # The byte code of `sound` counts in its copies as well: modification times are copied, too.
            ignored = shutil.ignore_patterns("__pycache__") if source == ROOT else None
            shutil.copytree(source / name, target / name, ignore=ignored)
        else:
            shutil.copy2(source / name, target)
    return target


def _pytest(tree: Path, tests: tuple[str, ...], writes_bytecode: bool = False) -> tuple[int, str]:
    """Run tests of a tree up to the first failure; returns the exit status and the output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # loading them takes longer than most of the tests
        # A mutant leaves none: two of one file and size within a second would pass for the same source.
        "PYTHONDONTWRITEBYTECODE": "" if writes_bytecode else "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["--ignore", f"tests/{LEFT_OUT}", *(f"tests/{test}" for test in tests)]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
