"""Where a model runs, in which precision, and when its memory is full."""

import ctypes
import os
import sys

import torch

from persona_bot.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3)


def pick_device(name: str | None = None) -> torch.device:
    """The named device, else CUDA, then Apple's MPS, then the CPU."""
    if name is None:
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        torch.zeros(1, device=name).item()  # `meta` makes tensors that hold nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"The device {name!r} cannot be used here; try --device cpu.") from error
    return torch.device(name)


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (Ampere or newer, AVX512-BF16, AMX), float16 on other GPUs, else float32."""
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "mps":
        return torch.float16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if has_bf16() else torch.float32


def use_half_the_cores() -> None:
    """Leaves the other half to the page, unless OMP_NUM_THREADS says otherwise.

    A token's products are small: on 2 cores a second thread made them a fifth faster for twice the CPU time, and on a busy
    machine, where threads wait for each other, half as fast for three times.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))


def give_memory_back(from_bytes: int = 8 << 20) -> None:
    """Blocks of so many bytes return to the system as soon as they are freed, where the C library is glibc.

    Left alone it keeps blocks of up to 32 MB for each thread that had some: 0.35 GB after 64 visitors. Below 8 MB, the
    blocks of a pass: to get them anew, page by page, took more than half of the time in which a prompt is read.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, from_bytes)
        libc.mallopt(M_TRIM_THRESHOLD, 16 << 20)
        libc.mallopt(M_ARENA_MAX, 2)  # small blocks: else a heap for each of forty threads


def trim_memory() -> None:
    """Free blocks of any size return to the system, where the C library is glibc; some milliseconds."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it; the CPU allocator of torch only says so."""
    said = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in said
        or "not enough memory" in said
    )
