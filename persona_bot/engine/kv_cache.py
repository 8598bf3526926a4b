"""The KV cache: keys and values of what a conversation has read, its own or side by side with others' in slots."""

import math
import mmap
import os
import threading

import torch

GROWTH = 64  # positions by which a cache grows
MAX_SLOTS = 32  # more rows than a pass of a CPU gains from
CPU_POSITIONS = 512  # of a slot on a CPU; longer conversations are computed alone
CPU_BYTES = 384 << 20  # of all slots on a CPU, taken as they are written
GPU_SHARE = 0.3  # of the memory that is free after the weights


class KVCache:
    """One conversation's: `kv` (layers, 2 * kv_heads, capacity, head_dim), of which `length` positions count."""

    def __init__(self, kv: torch.Tensor, length: int = 0):
        self.kv, self.length = kv, length
        self.used_at = 0.0  # of time.monotonic, while it is kept between turns
        self.slot: int | None = None  # then `kv` is a part of KVSlots.kv

    @property
    def nbytes(self) -> int:
        return self.kv.numel() * self.kv.element_size()

    def reserve(self, count: int) -> None:
        """Room for `count` more positions."""
        if self.length + count > self.kv.shape[2]:
            self.kv = self.copy(self.length, count + GROWTH).kv

    def take_over(self, other: "KVCache", until: int) -> None:
        """What `other` has read of the first `until` positions, after those that are here already."""
        self.reserve(until - self.length)
        self.kv[:, :, self.length : until] = other.kv[:, :, self.length : until]
        self.length = until

    def copy(self, count: int, more: int = GROWTH) -> "KVCache":
        """The first `count` positions, with room for some more."""
        layers, rows, _, head_dim = self.kv.shape
        new = KVCache(self.kv.new_empty(layers, rows, count + more, head_dim), count)
        new.kv[:, :, :count] = self.kv[:, :, :count]
        return new


class KVSlots:
    """Room for conversations that are answered at the same time: `kv` (slots, layers, 2 * kv_heads, positions, head_dim).

    A reply is given a slot when it begins and releases it at its end; one that finds none, or is too long, is computed alone.
    On a CPU a slot costs what is written to it, and nothing from its release on.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        max_positions: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        on_cpu = device.type == "cpu"
        self.positions = min(max_positions, CPU_POSITIONS) if on_cpu else max_positions
        shape = (layers, 2 * kv_heads, self.positions, head_dim)
        of_one = math.prod(shape) * dtype.itemsize
        count = max(1, min(MAX_SLOTS if on_cpu else 256, budget(device) // of_one))
        # zeros: what is not written yet is attended to with weight 0
        self._pages, self.kv = zeros((count, *shape), dtype, device)
        self._free = set(range(count))
        self._taken: dict[int, KVCache] = {}
        self._lock = threading.Lock()

    def new_cache(self) -> KVCache:
        _, layers, rows, _, head_dim = self.kv.shape
        return KVCache(self.kv.new_empty(layers, rows, 0, head_dim))

    def allocate(self, cache: KVCache, positions: int) -> None:
        """Moves a conversation of up to so many positions to the first free slot, if there is one."""
        with self._lock:
            if positions > self.positions or not self._free:
                return
            slot = min(self._free)
            self._free.remove(slot)
            self._taken[slot] = cache
        self.kv[slot, :, :, : cache.length] = cache.kv[:, :, : cache.length]
        cache.kv, cache.slot = self.kv[slot], slot

    def release(self, cache: KVCache) -> None:
        """Moves it out again, into memory of its own."""
        if cache.slot is not None:
            cache.kv, slot, cache.slot = cache.copy(cache.length, 0).kv, cache.slot, None
            self._give_pages_back(slot)
            with self._lock:
                del self._taken[slot]
                self._free.add(slot)

    @property
    def bytes_written(self) -> int:
        """Of all slots together, by the conversations that they hold now."""
        with self._lock:
            written = sum(cache.length for cache in self._taken.values())
        return written * self.kv[0].nbytes // self.positions

    def _give_pages_back(self, slot: int) -> None:
        """What was written there is zeros again, and no memory."""
        if self._pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            size = self.kv[slot].nbytes
            start = -(-slot * size // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (slot + 1) * size // mmap.PAGESIZE * mmap.PAGESIZE
            if end > start:
                self._pages.madvise(mmap.MADV_DONTNEED, start, end - start)


def budget(device: torch.device) -> int:
    """Bytes for all slots."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_SHARE)
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, int(free * GPU_SHARE))
    return CPU_BYTES


def zeros(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[mmap.mmap | None, torch.Tensor]:
    """(their pages, zeros); on a CPU the system gives each page when it is written to, and small ones: torch and NumPy would
    write or take whole megabytes."""
    if device.type != "cpu":
        return None, torch.zeros(shape, dtype=dtype, device=device)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, **private)
    return pages, torch.frombuffer(pages, dtype=dtype).view(shape)
