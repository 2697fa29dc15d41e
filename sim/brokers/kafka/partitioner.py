"""Which partition a record goes to (K-02, K-03)."""

from __future__ import annotations

from collections.abc import Sequence


def murmur2(data: bytes) -> int:
    """The 32-bit hash of a key that Kafka's producers use (Appleby's MurmurHash2, with Kafka's seed)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key: str, partitions: int) -> int:
    """K-02: murmur2(key) mod P, made positive."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def next_partition(queued: Sequence[int | None], chance: float) -> int:
    """K-03: where records without a key go next, by a draw from [0, 1).

    `queued` are the batches that wait for each partition, None where nobody leads. With q waiting and at most m
    anywhere, a partition's weight is m + 1 - q: who is slow gets less (KIP-794). With equal queues all have equal
    shares; partitions without a leader are taken only if there are no others.
    """
    longest = max((n for n in queued if n is not None), default=0)
    weights = [0 if n is None else longest + 1 - n for n in queued]
    if not any(weights):
        weights = [1] * len(queued)
    at = int(chance * sum(weights))
    for number, weight in enumerate(weights):
        at -= weight
        if at < 0:
            return number
    raise ValueError(f"{chance} is not in [0, 1)")
