"""The KV cache: keys and values of what a conversation has read, its own or side by side with others' in slots."""

import threading

import numpy as np
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
        self.slot: int | None = None  # then `kv` is a part of KVSlots.kv

    @property
    def nbytes(self) -> int:
        return self.kv.numel() * self.kv.element_size()

    def reserve(self, count: int) -> None:
        """Room for `count` more positions."""
        if self.length + count > self.kv.shape[2]:
            self.kv = self.copy(self.length, count + GROWTH).kv

    def copy(self, count: int, more: int = GROWTH) -> "KVCache":
        """The first `count` positions, with room for some more."""
        layers, rows, _, head_dim = self.kv.shape
        new = KVCache(self.kv.new_empty(layers, rows, count + more, head_dim), count)
        new.kv[:, :, :count] = self.kv[:, :, :count]
        return new


class KVSlots:
    """Room for conversations that are answered at the same time: `kv` (slots, layers, 2 * kv_heads, positions, head_dim).

    A reply is given a slot when it begins and releases it at its end; one that finds none, or is too long, is computed alone.
    On a CPU a slot costs nothing until it is written to.
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
        of_one = int(np.prod(shape)) * dtype.itemsize
        count = max(1, min(MAX_SLOTS if on_cpu else 256, budget(device) // of_one))
        # zeros: what is not written yet is attended to with weight 0
        self.kv = lazy_zeros((count, *shape), dtype, device)
        self._free = set(range(count))
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
        self.kv[slot, :, :, : cache.length] = cache.kv[:, :, : cache.length]
        cache.kv, cache.slot = self.kv[slot], slot

    def release(self, cache: KVCache) -> None:
        """Moves it out again, into memory of its own."""
        if cache.slot is not None:
            cache.kv, slot, cache.slot = cache.copy(cache.length, 0).kv, cache.slot, None
            with self._lock:
                self._free.add(slot)


def budget(device: torch.device) -> int:
    """Bytes for all slots."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_SHARE)
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, int(free * GPU_SHARE))
    return CPU_BYTES


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU from pages that the system gives when they are written to (torch.zeros writes them all)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kinds = {2: np.int16, 4: np.int32}
    return torch.from_numpy(np.zeros(shape, kinds[dtype.itemsize])).view(dtype)
