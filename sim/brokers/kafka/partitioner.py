"""Which partition a record goes to (K-02, K-03)."""

from __future__ import annotations


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
