"""Quantities with units at the edge, plain SI floats and ints inside.

`Seconds`, `Bytes`, `PerSecond`, `BytesPerSecond` and `Fraction` annotate the fields of settings. Inside a model they
are plain numbers; where a scenario is read, "200 ms", "1 KiB", "300/s", "10 MB/s" and "2%" are accepted for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, eq=False)
class Quantity:
    """What a number measures: its dimension, and the factor of every unit it may be written in."""

    dimension: str
    units: dict[str, float]
    example: str


TIME = Quantity(
    "a time",
    {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    "200 ms",
)
SIZE = Quantity(
    "a size",
    {
        "B": 1,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
    },
    "1 KiB",
)
RATE = Quantity("a rate", {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86400}, "300/s")
BANDWIDTH = Quantity(
    "a bandwidth",
    {"B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "KiB/s": 2**10, "MiB/s": 2**20, "GiB/s": 2**30}
    | {"bit/s": 1 / 8, "kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6},
    "10 MB/s",
)
SHARE = Quantity("a share from 0 to 1", {"%": 0.01}, "2%")

Seconds = Annotated[float, TIME]
Bytes = Annotated[int, SIZE]
PerSecond = Annotated[float, RATE]
BytesPerSecond = Annotated[float, BANDWIDTH]
Fraction = Annotated[float, SHARE]
