"""msgsim: a discrete-event simulator that teaches messaging systems.

The names below are the public interface. Each is imported when first used, so that `import sim` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.claims import ClaimError as ClaimError
    from sim.claims import Verdict as Verdict
    from sim.config import Config as Config
    from sim.experiment import run as run
    from sim.kernel import World as World
    from sim.ledger import UnbalancedBooks as UnbalancedBooks
    from sim.metrics import Outcome as Outcome
    from sim.metrics import measure as measure
    from sim.result import Result as Result
    from sim.scenario import Scenario as Scenario
    from sim.scenario import ScenarioError as ScenarioError
    from sim.scenario import load as load
    from sim.simulation import simulate as simulate
    from sim.store import Store as Store

_HOMES = {
    "load": "sim.scenario",
    "run": "sim.experiment",
    "Scenario": "sim.scenario",
    "Result": "sim.result",
    "Verdict": "sim.claims",
    "Store": "sim.store",
    "simulate": "sim.simulation",
    "measure": "sim.metrics",
    "Outcome": "sim.metrics",
    "Config": "sim.config",
    "World": "sim.kernel",
    "ScenarioError": "sim.scenario",
    "ClaimError": "sim.claims",
    "UnbalancedBooks": "sim.ledger",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("msgsim")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
