"""The decoder layers of a Llama on a CPU, over the new tokens of many conversations; TorchScript compiles them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from persona_bot.engine.attention import PassInputs, attend
from persona_bot.engine.int8_linear import Int8Linear


class RMSNorm(nn.Module):
    """Its weights are not multiplied into the matrix that follows: int8 would then cost twice as much quality."""

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight.float(), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class Layer(nn.Module):
    """One decoder layer, the matrices with the same input joined."""

    def __init__(
        self,
        weight: Callable[[str], Tensor],
        linear: type[nn.Module],
        n_heads: int,
        kv_heads: int,
        head_dim: int,
        epsilon: float,
    ):
        """`weight` gives this layer's tensors by the names that Llama checkpoints have for them."""
        super().__init__()
        query, key = (in_pairs(weight(f"self_attn.{name}_proj"), head_dim) for name in "qk")
        self.n_heads, self.kv_heads, self.head_dim = n_heads, kv_heads, head_dim
        qkv = torch.cat([query, key, weight("self_attn.v_proj")])
        gate_up = torch.cat([weight("mlp.gate_proj"), weight("mlp.up_proj")])
        before, after = weight("input_layernorm"), weight("post_attention_layernorm")
        if linear is Int8Linear:
            (before, qkv), (after, gate_up) = balanced(before, qkv), balanced(after, gate_up)
        self.input_layernorm = RMSNorm(before, epsilon)
        self.post_attention_layernorm = RMSNorm(after, epsilon)
        self.qkv_proj, self.gate_up_proj = linear(qkv), linear(gate_up)
        self.o_proj = linear(weight("self_attn.o_proj"))
        self.down_proj = linear(weight("mlp.down_proj"))

    def forward(self, x: Tensor, freqs_cis: Tensor, number: int, inputs: PassInputs) -> Tensor:
        """x (N, hidden) -> (N, hidden); freqs_cis (N, n_heads + 2 * kv_heads, head_dim / 2) complex, 1 for values."""
        qkv = self.qkv_proj(self.input_layernorm(x)).view(x.shape[0], -1, self.head_dim // 2, 2)
        turned = torch.view_as_real(torch.view_as_complex(qkv) * freqs_cis).flatten(2)
        q, k, v = turned.split([self.n_heads, self.kv_heads, self.kv_heads], 1)
        seen = attend(q, k, v, number, inputs, self.head_dim**-0.5)
        x = x + self.o_proj(seen.float().flatten(1))
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x)).chunk(2, -1)
        return x + self.down_proj(F.silu(gate).mul_(up))


class Layers(nn.Module):
    """All of them, one after the other."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, freqs_cis: Tensor, inputs: PassInputs) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x, freqs_cis, number, inputs)
        return x


def balanced(norm: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """norm (inputs,) and weight (outputs, inputs) float32 with the same product, which loses less when rows are rounded to int8.

    The few large inputs, which set a row's scale, mostly meet small weights. So each is multiplied by the root of its weights'
    size, and they are divided by it (SmoothQuant, Xiao et al. 2023, without measured inputs). docs/speed.md has what it
    is worth; behind the last norm, before the vocabulary, it would cost.
    """
    weight = weight.to(torch.float32, copy=True)
    size = torch.linalg.vector_norm(weight, dim=0).clamp_(min=1e-12).sqrt_()
    return norm.float() * size, weight.div_(size)


def in_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a projection (heads * head_dim, inputs) so that numbers that rotate together stand side by side, as complex ones do.

    Llama pairs the first half of a head with its second; queries and keys in the same new order give the same products.
    """
    pairs = weight.view(-1, 2, head_dim // 2, weight.shape[-1]).transpose(1, 2)
    return pairs.reshape(weight.shape)
