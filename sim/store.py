"""The store of finished tasks: a folder with one small JSON file per run of a simulation.

The key is made of everything a run depends on: its fully expanded settings, seed, replication and the version
of the model. So a killed sweep goes on where it stopped, and whatever was simulated before is free.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# What stands above the models: no run depends on it. A new file is of the model until it is named here.
_ABOVE = "claims cli experiment explain hunt picture plots replay report result store terminal verify words"
NOT_THE_MODEL = frozenset((*_ABOVE.split(), "__init__", "__main__", "_scenarios"))


def key(config: Mapping[str, Any], seed: int, replication: int) -> str:
    """The name under which a run is stored; `config` is its fully expanded settings, ready for JSON.

    The order of names in `config` counts: it decides between events of the same instant.
    """
    text = json.dumps([config, seed, replication, model_version()])
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@cache
def model_version() -> str:
    """A hash over the source of the model and the version of NumPy, with which random streams may change."""
    from numpy import __version__ as numpy_version

    digest = hashlib.blake2b(numpy_version.encode(), digest_size=16)
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if name.with_suffix("").parts[0] not in NOT_THE_MODEL:
            digest.update(f"\n{name.as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """Finished tasks in a folder. Several processes may use it at once."""

    folder: Path

    def get(self, key: str) -> Any:
        """What was stored under the key; None if there is nothing, or nothing whole."""
        try:
            entry = json.loads(self._file(key).read_text(encoding="utf-8"))
            return entry["outcome"] if entry["digest"] == _digest(entry["outcome"]) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, outcome: Any) -> None:
        """Store what JSON can hold, all or nothing. Raises OSError if the folder cannot be written."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps({"digest": _digest(outcome), "outcome": outcome}), encoding="utf-8")
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.json"


def _digest(outcome: Any) -> str:
    return hashlib.blake2b(json.dumps(outcome).encode(), digest_size=8).hexdigest()
