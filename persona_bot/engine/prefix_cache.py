"""Keys and values of recent conversations, so that a turn computes only what is new in it.

Entries are found by their ids alone: the longest common beginning counts. A changed persona, an edited message or dropped
turns thus invalidate exactly what follows the change, and no conversation has to be told apart from another.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from transformers.cache_utils import DynamicCache

from persona_bot.engine.kv_cache import KVCache

Cache = DynamicCache | KVCache

MAX_BYTES = 96 << 20  # of all entries together; SmolLM2-135M in bfloat16 takes 23 KB a token
WORTH = 8  # tokens; a shorter common beginning is computed anew


class PrefixCache:
    """A few recent caches, least recently used first. Safe for threads: what is here is only read, a taker gets a copy."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes = max_bytes
        self._entries: list[tuple[list[int], Cache]] = []
        self._returned: deque[tuple[list[int], Cache]] = deque()  # not among them yet
        self._lock = threading.Lock()

    def take(self, ids: Sequence[int], empty: Callable[[], Cache]) -> tuple[Cache, int]:
        """(a cache of the first n ids, n), with n below len(ids) so that there is something left to compute."""
        with self._lock:
            self._file_returned()
            lengths = [common_length(known, ids) for known, _ in self._entries]
            best = max(range(len(lengths)), key=lengths.__getitem__, default=None)
            if best is None or lengths[best] < WORTH:
                return empty(), 0
            self._entries.append(self._entries.pop(best))
            cache = self._entries[-1][1]
        count = min(lengths[best], len(ids) - 1)
        return first_positions(cache, count, empty), count

    def clear(self) -> None:
        with self._lock:
            self._returned.clear()
            self._entries.clear()

    def entries(self) -> list[tuple[list[int], Cache]]:
        with self._lock:
            self._file_returned()
            return list(self._entries)

    def give_back(self, ids: Sequence[int], cache: Cache) -> None:
        """Keeps a cache of exactly these ids, instead of those of a beginning of them; its giver no longer writes to it.

        Not where its layers hold something else (a sliding window). Takes no lock, because the garbage collector may be who
        ends a reply, in a thread that holds it; whoever takes next files it."""
        if ids and cached_lengths(cache) == {len(ids)}:
            self._returned.append((list(ids), cache))

    def _file_returned(self) -> None:
        while self._returned:
            ids, cache = self._returned.popleft()
            self._entries = [
                entry for entry in self._entries if common_length(entry[0], ids) < len(entry[0])
            ]
            self._entries.append((ids, cache))
        while sum(num_bytes(cache) for _, cache in self._entries) > self.max_bytes:
            del self._entries[0]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    for k, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return k
    return min(len(first), len(second))


def cached_lengths(cache: Cache) -> set[int]:
    """How many positions its layers hold."""
    if isinstance(cache, KVCache):
        return {cache.length}
    keys = [getattr(layer, "keys", None) for layer in cache.layers]
    return {0 if key is None else key.shape[-2] for key in keys}


def num_bytes(cache: Cache) -> int:
    if isinstance(cache, KVCache):
        return cache.nbytes
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def first_positions(cache: Cache, count: int, empty: Callable[[], Cache]) -> Cache:
    """A copy of the first `count` positions; a DynamicCache's keys and values are (1, heads, positions, head size)."""
    if isinstance(cache, KVCache):
        return cache.copy(count)
    copy = empty()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys[:, :, :count].clone(), layer.values[:, :, :count].clone(), number)
    return copy
