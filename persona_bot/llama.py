"""The Llama architecture (SmolLM2 among it) for a CPU: int8 weights, and one pass over the tokens of many conversations.

Run: nothing by itself; engine.py drives it, `python -m benchmarks.chat` measures it.

    tokens of a pass      | visitor 1: one new | visitor 2: a prompt of 90 | visitor 3: one new |     (N, hidden): no padding
    linear layers         all N rows at once: on a CPU 16 rows cost about what one costs, since the weights are read once
    attention             visitor by visitor, each with its own keys and values

A row is quantized by its own largest number, so what a token gets never depends on who else is in the pass, nor on how
much of a prompt was computed earlier.

The layers are compiled by torch.jit.script, which needs no C++ compiler: a pass of some 1,500 small operations then runs
outside of Python, a third faster for one visitor, and without its lock, which the page's own threads want meanwhile.
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROWTH = 64  # positions by which the room for keys and values grows


class KeysValues:
    """Keys and values of one conversation: `kept` (layers, 1, 2 * heads, room, head size), of which `length` positions count."""

    def __init__(self, kept: torch.Tensor, length: int = 0):
        self.kept, self.length = kept, length

    def make_room(self, count: int) -> None:
        """Room for `count` more positions."""
        room = self.kept.shape[3]
        if self.length + count > room:
            grown = self.kept.new_empty(*self.kept.shape[:3], self.length + count + GROWTH, self.kept.shape[4])
            grown[:, :, :, : self.length] = self.kept[:, :, :, : self.length]
            self.kept = grown

    def copy(self, count: int) -> "KeysValues":
        """The first `count` positions, with room for a reply."""
        new = KeysValues(self.kept.new_empty(*self.kept.shape[:3], count + GROWTH, self.kept.shape[4]), count)
        new.kept[:, :, :, :count] = self.kept[:, :, :, :count]
        return new


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch plans to move quantized tensors elsewhere; the pinned release has them
            quantized = torch._make_per_channel_quantized_tensor(rounded, self.scale.double(), self.zero, 0)
        self.for_one = torch.ops.quantized.linear_prepack(quantized, None)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return torch.ops.quantized.linear_dynamic(x, self.for_one, False)
        largest = x.abs().amax(1, keepdim=True).clamp_(min=1e-12)
        rows = (x * (127 / largest)).add_(128.5).to(torch.uint8)  # 128 stands for 0
        y = torch.ops.onednn.qlinear_pointwise(
            rows, 1 / 127, 128, self.for_many, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y.mul_(largest)


class FloatLinear(nn.Module):
    """The same with the weights as they are, for CPUs without fast int8 products."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight.clone()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight).float()


class Norm(nn.Module):
    """RMSNorm. Its weights are not multiplied into the matrix that follows: int8 would then cost twice as much quality."""

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight.float(), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class Layer(nn.Module):
    """One decoder layer, the matrices with the same input joined."""

    def __init__(self, layer, linear: type[nn.Module], heads: int, kv_heads: int, size: int, epsilon: float):
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        query, key = (in_pairs(projection.weight, size) for projection in (attention.q_proj, attention.k_proj))
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.before_attention = Norm(layer.input_layernorm.weight, epsilon)
        self.before_mlp = Norm(layer.post_attention_layernorm.weight, epsilon)
        self.query_key_value = linear(torch.cat([query, key, attention.v_proj.weight]))
        self.output = linear(attention.o_proj.weight)
        self.gate_up = linear(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        self.down = linear(mlp.down_proj.weight)

    def forward(
        self, x: Tensor, turns: Tensor, kept: list[Tensor], news: list[int], untils: list[int], masks: list[Tensor | None]
    ) -> Tensor:
        """x (N, hidden) -> (N, hidden). Of conversation i: `kept` of this layer, its new rows, its length with them, who sees whom."""
        pairs = self.query_key_value(self.before_attention(x)).view(x.shape[0], -1, self.size // 2, 2)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(2).to(kept[0].dtype)
        seen: list[Tensor] = []
        for i, rows in enumerate(turned.transpose(0, 1)[None].split(news, 2)):
            seen.append(self.attend(rows, kept[i], untils[i], masks[i]))
        x = x + self.output(torch.cat(seen, 2)[0].transpose(0, 1).float().flatten(1))
        gate, up = self.gate_up(self.before_mlp(x)).chunk(2, -1)
        return x + self.down(F.silu(gate).mul_(up))

    def attend(self, turned: Tensor, kept: Tensor, until: int, mask: Tensor | None) -> Tensor:
        """Writes the keys and values of n new positions behind the others, up to `until`; what they see, (1, heads, n, size).

        As few operations as can be: with 16 visitors this runs 480 times a pass.
        """
        new = turned.shape[2]
        kept[:, :, until - new : until] = turned[:, self.heads :]
        known = kept[:, :, :until]
        alone = mask is None and new > 1  # a prompt with nothing before it
        keys, values = known[:, : self.kv_heads], known[:, self.kv_heads :]
        return F.scaled_dot_product_attention(turned[:, : self.heads], keys, values, mask, 0.0, alone, enable_gqa=True)


class Layers(nn.Module):
    """All of them, one after the other."""

    def __init__(self, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, turns: Tensor, kept: list[Tensor], news: list[int], untils: list[int], masks: list[Tensor | None]
    ) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x, turns, [of_all_layers[number] for of_all_layers in kept], news, untils, masks)
        return x


def in_pairs(weight: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of a projection (heads * size, inputs) so that numbers that rotate together stand side by side, as complex ones do.

    Llama pairs the first half of a head with its second; queries and keys in the same new order give the same products.
    """
    return weight.view(-1, 2, size // 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def can_run(model) -> bool:
    """Whether `model` is a plain Llama on a CPU: what this file computes, and nothing else."""
    config = model.config
    plain = config.model_type == "llama" and config.hidden_act == "silu" and not (config.attention_bias or config.mlp_bias)
    return plain and next(model.parameters()).device.type == "cpu"


def has_fast_int8() -> bool:
    """Whether this CPU multiplies int8 in one instruction (AVX512-VNNI, AVX-VNNI or AMX)."""
    return getattr(torch.cpu, "_is_vnni_supported", lambda: False)() and hasattr(torch.ops.onednn, "qlinear_pointwise")


class FastLlama:
    """A Llama's weights, taken out of a transformers model, and the pass over them."""

    def __init__(self, model, max_positions: int, int8: bool):
        linear = Int8Linear if int8 else FloatLinear
        config, inner = model.config, model.model
        heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.embedding = inner.embed_tokens.weight.clone()  # a view would keep the whole file in memory
        shape = (heads, self.kv_heads, self.size, config.rms_norm_eps)
        with ThreadPoolExecutor(2) as packers:  # packing runs outside of Python's lock
            head = packers.submit(lambda: linear(model.lm_head.weight))
            layers = list(packers.map(lambda layer: Layer(layer, linear, *shape), inner.layers))
            self.head = head.result()
        self.norm = Norm(inner.norm.weight, config.rms_norm_eps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit gets no new features; what is there suffices
            self.layers = torch.jit.script(Layers(layers))
        cos, sin = inner.rotary_emb(torch.zeros(1), torch.arange(max_positions)[None])
        half = self.size // 2
        turn = torch.complex(cos[0, :, None, :half].float(), sin[0, :, None, :half].float())  # (positions, 1, half)
        turned = turn.expand(-1, heads + self.kv_heads, -1)
        self.turns = torch.cat([turned, torch.ones_like(turn).expand(-1, self.kv_heads, -1)], dim=1)  # values do not turn
        self.kv_dtype = self.embedding.dtype
        self.depth = len(layers)

    def new_cache(self) -> KeysValues:
        return KeysValues(torch.empty(self.depth, 1, 2 * self.kv_heads, 0, self.size, dtype=self.kv_dtype))

    @torch.inference_mode()
    def forward(self, parts: Sequence[tuple[Sequence[int], KeysValues]], all_positions: bool = False) -> torch.Tensor:
        """Logits (len(parts), vocabulary) float32 after the last new id of each conversation; its keys and values are extended.

        With `all_positions` the logits after every new id, (N, vocabulary). If it raises, no conversation has changed.
        """
        for ids, cache in parts:
            cache.make_room(len(ids))
        news = [len(ids) for ids, _ in parts]
        untils = [cache.length + len(ids) for ids, cache in parts]
        masks = [None if new == 1 or new == until else causal(until - new, new) for new, until in zip(news, untils, strict=True)]
        places = [place for new, until in zip(news, untils, strict=True) for place in range(until - new, until)]
        x = self._layers([i for ids, _ in parts for i in ids], places, [cache.kept for _, cache in parts], news, untils, masks)
        logits = self.head(self.norm(x if all_positions else x[[end - 1 for end in accumulate(news)]]))
        for ids, cache in parts:
            cache.length += len(ids)
        return logits

    @torch.inference_mode()
    def forward_branches(self, branches: Sequence[Sequence[int]], cache: KeysValues) -> torch.Tensor:
        """Logits (N, vocabulary) after every id of several branches, each behind what the cache holds and forgets them again."""
        ids = [i for branch in branches for i in branch]
        cache.make_room(len(ids))
        places = [cache.length + k for branch in branches for k in range(len(branch))]
        owner = torch.tensor([number for number, branch in enumerate(branches) for _ in branch])
        mask = causal(cache.length, len(ids))
        mask[:, cache.length :] &= owner[:, None] == owner[None]
        return self.head(self.norm(self._layers(ids, places, [cache.kept], [len(ids)], [cache.length + len(ids)], [mask])))

    def _layers(self, ids: list[int], places: list[int], kept: list[Tensor], news: list[int], untils: list[int], masks: list) -> Tensor:
        """What `Layers` makes of these ids at these positions, (N, hidden)."""
        x = self.embedding[ids].float()
        with torch.jit.optimized_execution(False):  # its first calls would compile for the shapes they happen to see
            return self.layers(x, self.turns[places], kept, news, untils, masks)


def causal(known: int, new: int) -> torch.Tensor:
    """(new, known + new), True where a new position may look: everything known, and new ones up to itself."""
    return torch.ones(new, known + new, dtype=torch.bool).tril(known)
