"""Linear layers of a CPU chat: int8 weights, or the weights as they are for CPUs without fast int8 products.

A row of the input is quantized by its own largest number, so its output does not depend on the other rows.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """x (.., inputs) float32 -> (.., outputs) float32, with int8 weights (a scale an output) and uint8 rows (a scale a row).

    fbgemm's kernel, which holds the weights once. Up to 32 rows it took two thirds of oneDNN's time (AMD with VNNI), and
    as much for 100; only with AMX a prompt of 100 ids would be 13 ms faster by oneDNN, for another copy of the weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        """`weight` (outputs, inputs), which stays as it is."""
        super().__init__()
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        scale = torch.empty(len(weight), dtype=torch.double)
        for start in range(0, len(weight), 128):  # so few rows stay in the CPU's cache
            some = weight.detach()[start : start + 128].to(torch.float32, copy=True)
            largest = some.abs().amax(1).clamp_(min=1e-12).div_(127)
            scale[start : start + 128] = largest
            rounded[start : start + 128] = some.div_(largest[:, None]).round_()
        zero = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(rounded, scale, zero, 0)
        self.packed = torch.ops.quantized.linear_prepack(quantized, None)
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12)
        # 128 of 0 to 255 stands for 0
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1 / 127, 128, self.packed
        )
        if self.bias is None:
            return y.mul_(largest)
        return torch.addcmul(self.bias, y, largest)


class FloatLinear(nn.Module):
    """The same with the weights as they are."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight.clone()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight).float()


@cache
def has_fast_int8() -> bool:
    """Whether this CPU multiplies int8 in one instruction (AVX512-VNNI, AVX-VNNI or AMX), and torch has the kernel for it."""
    if not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        return False
    try:
        weight, x = torch.eye(64), torch.linspace(-1, 1, 128).view(2, 64)
        return torch.allclose(Int8Linear(weight)(x), x, atol=0.02)
    except Exception:  # a torch that has moved it on
        return False
