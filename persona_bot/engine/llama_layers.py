"""The decoder layers of a Llama on a CPU, over the tokens of many conversations; TorchScript compiles them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.Module):
    """RMSNorm. Its weights are not multiplied into the matrix that follows: int8 would then cost twice as much quality."""

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
        heads: int,
        kv_heads: int,
        size: int,
        epsilon: float,
    ):
        """`weight` gives this layer's tensors by the names that Llama checkpoints have for them."""
        super().__init__()
        query, key = (in_pairs(weight(f"self_attn.{name}_proj"), size) for name in "qk")
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.before_attention = Norm(weight("input_layernorm"), epsilon)
        self.before_mlp = Norm(weight("post_attention_layernorm"), epsilon)
        self.query_key_value = linear(torch.cat([query, key, weight("self_attn.v_proj")]))
        self.output = linear(weight("self_attn.o_proj"))
        self.gate_up = linear(torch.cat([weight("mlp.gate_proj"), weight("mlp.up_proj")]))
        self.down = linear(weight("mlp.down_proj"))

    def forward(
        self,
        x: Tensor,
        turns: Tensor,
        side_by_side: Tensor,
        seats: Tensor,
        places: Tensor,
        bias: Tensor,
        kept: list[Tensor],
        news: list[int],
        untils: list[int],
        masks: list[Tensor | None],
    ) -> Tensor:
        """x (N, hidden) -> (N, hidden); the first rows are those of `seats`, one each, then the new rows of each other conversation.

        Of this layer: `side_by_side`, what Seats hold, and `kept` of the others, with their length after this pass and who sees whom.
        """
        pairs = self.query_key_value(self.before_attention(x)).view(
            x.shape[0], -1, self.size // 2, 2
        )
        turned = (
            torch.view_as_real(torch.view_as_complex(pairs) * turns)
            .flatten(2)
            .to(side_by_side.dtype)
        )
        seen: list[Tensor] = []
        count = seats.shape[0]
        if count > 0:
            seen.append(self.attend_together(turned[:count], side_by_side, seats, places, bias))
        if count < x.shape[0]:
            for i, rows in enumerate(turned[count:].transpose(0, 1)[None].split(news, 2)):
                seen.append(self.attend(rows, kept[i], untils[i], masks[i])[0].transpose(0, 1))
        x = x + self.output(torch.cat(seen).float().flatten(1))
        gate, up = self.gate_up(self.before_mlp(x)).chunk(2, -1)
        return x + self.down(F.silu(gate).mul_(up))

    def attend(self, turned: Tensor, kept: Tensor, until: int, mask: Tensor | None) -> Tensor:
        """Writes the keys and values of n new positions behind the others, up to `until`; what they see, (1, heads, n, size)."""
        new = turned.shape[2]
        kept[:, :, until - new : until] = turned[:, self.heads :]
        known = kept[:, :, :until]
        keys, values = known[:, : self.kv_heads], known[:, self.kv_heads :]
        return F.scaled_dot_product_attention(
            turned[:, : self.heads],
            keys,
            values,
            mask,
            0.0,
            mask is None and new > 1,
            enable_gqa=True,
        )

    def attend_together(
        self, turned: Tensor, side_by_side: Tensor, seats: Tensor, places: Tensor, bias: Tensor
    ) -> Tensor:
        """The same for one new position of each of these seats: (seats, heads, size). In one go, because with 16 visitors
        `attend` would run 480 times a pass. `bias` (first seats, 1, 1, positions): 0 where a seat may look, else -inf.
        """
        rows = torch.arange(2 * self.kv_heads)
        side_by_side.index_put_(
            [seats[:, None], rows[None], places[:, None]], turned[:, self.heads :]
        )
        known = side_by_side[: bias.shape[0], :, : bias.shape[3]]
        queries = turned.new_zeros(bias.shape[0], self.heads, self.size).index_copy_(
            0, seats, turned[:, : self.heads]
        )
        keys, values = known[:, : self.kv_heads], known[:, self.kv_heads :]
        return F.scaled_dot_product_attention(
            queries[:, :, None], keys, values, bias, 0.0, False, enable_gqa=True
        )[seats, :, 0]


class Layers(nn.Module):
    """All of them, one after the other."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        x: Tensor,
        turns: Tensor,
        side_by_side: Tensor,
        seats: Tensor,
        places: Tensor,
        bias: Tensor,
        kept: list[Tensor],
        news: list[int],
        untils: list[int],
        masks: list[Tensor | None],
    ) -> Tensor:
        for number, layer in enumerate(self.layers):
            of_this = [of_all[number] for of_all in kept]
            x = layer(
                x, turns, side_by_side[number], seats, places, bias, of_this, news, untils, masks
            )
        return x


def in_pairs(weight: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of a projection (heads * size, inputs) so that numbers that rotate together stand side by side, as complex ones do.

    Llama pairs the first half of a head with its second; queries and keys in the same new order give the same products.
    """
    return weight.view(-1, 2, size // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
