"""Linear layers of a CPU chat: int8 weights, or the weights as they are for CPUs without fast int8 products.

A row of the input is quantized by its own largest number, so its output does not depend on the other rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """x (N, inputs) float32 -> (N, outputs) float32, with int8 weights (a scale an output) and uint8 rows (a scale a row).

    For many rows oneDNN's kernel, the one that torch.compile uses for quantized models and that needs no compiler; for one
    row fbgemm's, which takes two thirds of the time. Both hold the weights in an order of their own.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        self.scale = torch.empty(len(weight))
        for start in range(0, len(weight), 256):  # so few rows stay in the CPU's cache
            some = weight.detach()[start : start + 256].to(torch.float32, copy=True)
            scale = some.abs().amax(1).clamp_(min=1e-12).div_(127)
            self.scale[start : start + 256] = scale
            rounded[start : start + 256] = some.div_(scale[:, None]).round_()
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.for_many = torch.ops.onednn.qlinear_prepack(rounded, None)
        quantized = torch._make_per_channel_quantized_tensor(
            rounded, self.scale.double(), self.zero, 0
        )
        self.for_one = torch.ops.quantized.linear_prepack(quantized, None)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return torch.ops.quantized.linear_dynamic(x, self.for_one, False)
        largest = x.abs().amax(1, keepdim=True).clamp_(min=1e-12)
        rows = (x * (127 / largest)).add_(128.5).to(torch.uint8)  # 128 stands for 0
        y = torch.ops.onednn.qlinear_pointwise(
            rows,
            1 / 127,
            128,
            self.for_many,
            self.scale,
            self.zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return y.mul_(largest)


class FloatLinear(nn.Module):
    """The same with the weights as they are."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight.clone()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight).float()


def has_fast_int8() -> bool:
    """Whether this CPU multiplies int8 in one instruction (AVX512-VNNI, AVX-VNNI or AMX)."""
    return getattr(torch.cpu, "_is_vnni_supported", lambda: False)() and hasattr(
        torch.ops.onednn, "qlinear_pointwise"
    )
