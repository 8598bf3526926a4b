"""Keys and values of recent conversations, so that a turn computes only what is new in it.

Entries are found by their ids alone: the longest common beginning counts. A changed persona, an edited message or dropped
turns thus invalidate exactly what follows the change, and no conversation has to be told apart from another.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from persona_bot.engine.kv_cache import KVCache

# of all entries together; SmolLM2-135M in bfloat16 takes 23 KB a token
MAX_BYTES, GPU_BYTES = 96 << 20, 1 << 30
LEAST = 1 / 3  # of them, that others never take
WORTH = 8  # tokens; a shorter common beginning is computed anew


class PrefixCache:
    """A few recent caches, least recently used first. Safe for threads: what is here is only read, a taker gets a copy."""

    def __init__(self, max_bytes: int = MAX_BYTES, spare: Callable[[], int] | None = None):
        """Keeps up to `max_bytes`, and of these no more than the `spare` bytes of the memory that it shares, but LEAST of them."""
        self.max_bytes, self._spare = max_bytes, spare
        self._entries: list[tuple[list[int], KVCache]] = []
        self._returned: deque[tuple[list[int], KVCache]] = deque()  # not among them yet
        self._lock = threading.Lock()

    def take(self, ids: Sequence[int], empty: Callable[[], KVCache]) -> tuple[KVCache, int]:
        """(a cache of the first n ids, n), with n below len(ids) so that there is something left to compute."""
        with self._lock:
            self._file_returned()
            lengths = [common_length(cached, ids) for cached, _ in self._entries]
            best = max(range(len(lengths)), key=lengths.__getitem__, default=None)
            if best is None or lengths[best] < WORTH:
                return empty(), 0
            self._entries.append(self._entries.pop(best))
            cache = self._entries[-1][1]
            cache.used_at = time.monotonic()
        count = min(lengths[best], len(ids) - 1)
        return cache.copy(count), count

    def drop_unused(self, seconds: float) -> None:
        """Lets go of what nobody took or gave back for so long."""
        with self._lock:
            self._file_returned()
            since = time.monotonic() - seconds
            self._entries = [entry for entry in self._entries if entry[1].used_at > since]

    def clear(self) -> None:
        with self._lock:
            self._returned.clear()
            self._entries.clear()

    def entries(self) -> list[tuple[list[int], KVCache]]:
        with self._lock:
            self._file_returned()
            return list(self._entries)

    def give_back(self, ids: Sequence[int], cache: KVCache) -> None:
        """Keeps a cache of exactly these ids, instead of those of a beginning of them; its giver no longer writes to it.

        Takes no lock, because the garbage collector may be who
        ends a reply, in a thread that holds it; whoever takes next files it."""
        if ids and cache.length == len(ids):
            self._returned.append((list(ids), cache))

    def _file_returned(self) -> None:
        while self._returned:
            ids, cache = self._returned.popleft()
            cache.used_at = time.monotonic()
            self._entries = [
                entry for entry in self._entries if common_length(entry[0], ids) < len(entry[0])
            ]
            self._entries.append((ids, cache))
        limit = self._limit()
        while sum(cache.nbytes for _, cache in self._entries) > limit:
            del self._entries[0]

    def _limit(self) -> int:
        if self._spare is None:
            return self.max_bytes
        return min(self.max_bytes, max(self._spare(), int(self.max_bytes * LEAST)))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    for k, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return k
    return min(len(first), len(second))
