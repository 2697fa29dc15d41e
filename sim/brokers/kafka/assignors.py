"""Assignors: which member of a group reads which partitions (K-05, K-34)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """A member, by whose name ties are decided."""

    @property
    def name(self) -> str:
        """Unique in its group."""


M = TypeVar("M", bound=Named)
P = TypeVar("P")
Assignment = dict[M, list[P]]


def in_order(members: Sequence[M]) -> list[M]:
    """Members by name."""
    return sorted(members, key=lambda m: m.name)


def range_(members: Sequence[M], partitions: Sequence[P]) -> Assignment[M, P]:
    """Range: consecutive partitions, to the first members one more where they do not come out even."""
    share, more = divmod(len(partitions), len(members)) if members else (0, 0)
    result: Assignment[M, P] = {}
    start = 0
    for i, member in enumerate(in_order(members)):
        count = share + (i < more)
        result[member] = list(partitions[start : start + count])
        start += count
    return result


def sticky(members: Sequence[M], partitions: Sequence[P], owned: Mapping[M, Sequence[P]]) -> Assignment[M, P]:
    """Everybody keeps what he owns, as far as the shares are equal; what is left goes to those who have least."""
    if not members:
        return {}
    share, more = divmod(len(partitions), len(members))
    result: Assignment[M, P] = {m: [] for m in in_order(members)}
    taken: dict[P, None] = {}
    for member in sorted(members, key=lambda m: (-len(owned.get(m, ())), m.name)):
        keep = [p for p in owned.get(member, ()) if p not in taken]
        limit = share
        if len(keep) > share and more > 0:
            limit, more = share + 1, more - 1
        result[member] = keep[:limit]
        taken.update(dict.fromkeys(result[member]))
    for partition in partitions:
        if partition not in taken:
            poorest = min(result, key=lambda m: len(result[m]))
            result[poorest].append(partition)
    return result


def cooperative_sticky(
    members: Sequence[M], partitions: Sequence[P], owned: Mapping[M, Sequence[P]]
) -> Assignment[M, P]:
    """Sticky, but what must change hands is given to nobody yet: its owner revokes it first (KIP-429)."""
    target = sticky(members, partitions, owned)
    owner = {partition: m for m in members for partition in owned.get(m, ())}
    return {m: [p for p in target[m] if owner.get(p, m) is m] for m in target}


def shared(members: Sequence[M], partitions: Sequence[P]) -> Assignment[M, P]:
    """Of a share group: every partition and every member in turn, so that nobody is idle (K-50)."""
    result: Assignment[M, P] = {m: [] for m in in_order(members)}
    ordered = list(result)
    for i in range(max(len(ordered), len(partitions)) if ordered else 0):
        result[ordered[i % len(ordered)]].append(partitions[i % len(partitions)])
    return result
