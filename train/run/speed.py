"""How much of a machine's own matrix rate a training step uses (MFU).

Counted are the matrix products that learning cannot do without: of every weight matrix 2 operations a token and weight
forward, 2 back to its input, and 2 more where the weight itself learns; the output layer's at supervised positions only.
Attention, and whatever is computed twice, is not counted. The rate is measured with matrices of a small model's size.
"""

import time
from typing import Any

import torch
from transformers import PreTrainedModel

ROWS, WIDTH = 512, 1024
SECONDS = 0.2  # of measuring


def step_flops(model: PreTrainedModel, tokens: int, supervised: int) -> float:
    """Floating-point operations of a forward and backward pass over so many ids, so many of them supervised."""
    output: Any = model.get_output_embeddings()
    head = output.weight
    total = 0.0
    for name, weight in model.named_parameters():
        if weight is head or weight.ndim != 2 or "embed" in name or "wte" in name or "wpe" in name:
            continue
        total += (6 if weight.requires_grad else 4) * weight.numel() * tokens
    return total + (6 if head.requires_grad else 4) * head.numel() * supervised


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of matrix products in this process."""
    left = torch.randn(ROWS, WIDTH, dtype=dtype, device=device)
    right = torch.randn(WIDTH, WIDTH, dtype=dtype, device=device)
    rates: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < SECONDS or len(rates) < 3:
        started = time.monotonic()
        for _ in range(4):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(8 * ROWS * WIDTH * WIDTH / (time.monotonic() - started))
    return max(rates)
