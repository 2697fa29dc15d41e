"""Build hook: a wheel carries scenarios/ and a fresh index of them as sim/_scenarios/.

An editable install carries neither: there `sim` finds the checkout's own folder.
"""

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ScenariosHook(BuildHookInterface):
    """Adds the scenarios to the wheel's files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        index = load_by_path(Path(self.root, "sim", "scenario", "index.py"))
        folder = Path(self.root, "scenarios")
        self.temporary = tempfile.TemporaryDirectory()
        fresh = Path(self.temporary.name, index.INDEX)
        fresh.write_text(index.index_text(folder), encoding="utf-8")
        included = {path: path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        included.pop(folder / index.INDEX, None)
        included[fresh] = Path(index.INDEX)
        for source, place in sorted(included.items()):
            build_data["force_include"][str(source)] = f"sim/_scenarios/{place.as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self.temporary.cleanup()


def load_by_path(path: Path) -> ModuleType:
    """Load a module without importing its package, whose dependencies need not be there while building."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
