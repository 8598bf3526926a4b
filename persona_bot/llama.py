"""The Llama architecture (SmolLM2 among it) for a CPU: int8 weights, and one pass over the tokens of many conversations.

Run: nothing by itself; engine.py drives it, `python -m benchmarks.chat` measures it.

    tokens of a pass      | visitor 1: one new | visitor 2: a prompt of 90 | visitor 3: one new |     (N, hidden): no padding
    linear layers         all N rows at once: on a CPU 16 rows cost about what one costs, since the weights are read once
    attention             visitor by visitor, each with its own keys and values

A row is quantized by its own largest number, so what a token gets never depends on who else is in the pass, nor on how
much of a prompt was computed earlier.
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F

GROWTH = 64  # positions by which the room for keys and values grows


class KeysValues:
    """Keys and values of one conversation: `kept` (layers, 2, heads, room, head size), of which `length` positions count."""

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


class Int8Linear:
    """x (N, inputs) float32 -> (N, outputs) float32, with int8 weights (a scale an output) and uint8 rows (a scale a row).

    For many rows oneDNN's kernel, the one that torch.compile uses for quantized models and that needs no compiler; for one
    row fbgemm's, which takes two thirds of the time. Both hold the weights in an order of their own.
    """

    def __init__(self, weight: torch.Tensor):
        rounded = torch.empty(weight.shape, dtype=torch.int8)
        self.scale = torch.empty(len(weight))
        for start in range(0, len(weight), 2048):  # bit by bit: the vocabulary's weights are large
            some = weight[start : start + 2048].float()
            scale = some.abs().amax(1).clamp_(min=1e-12).div_(127)
            self.scale[start : start + 2048] = scale
            rounded[start : start + 2048] = (some / scale[:, None]).round_()
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.for_many = torch.ops.onednn.qlinear_prepack(rounded, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch plans to move quantized tensors elsewhere; the pinned release has them
            quantized = torch._make_per_channel_quantized_tensor(rounded, self.scale.double(), self.zero, 0)
        self.for_one = torch.ops.quantized.linear_prepack(quantized, None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 1:
            return torch.ops.quantized.linear_dynamic(x, self.for_one, False)
        largest = x.abs().amax(1, keepdim=True).clamp_(min=1e-12)
        rows = (x * (127 / largest)).add_(128.5).to(torch.uint8)  # 128 stands for 0
        y = torch.ops.onednn.qlinear_pointwise(
            rows, 1 / 127, 128, self.for_many, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y.mul_(largest)


class FloatLinear:
    """The same with the weights as they are, for CPUs without fast int8 products."""

    def __init__(self, weight: torch.Tensor):
        self.weight = weight.clone()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight).float()


class Layer:
    """The weights of one decoder layer, those with the same input joined."""

    def __init__(self, layer, linear, size: int):
        attention, mlp = layer.self_attn, layer.mlp
        query, key = (in_pairs(projection.weight, size) for projection in (attention.q_proj, attention.k_proj))
        self.before_attention, self.before_mlp = layer.input_layernorm.weight.float(), layer.post_attention_layernorm.weight.float()
        self.query_key_value = linear(torch.cat([query, key, attention.v_proj.weight]))
        self.output = linear(attention.o_proj.weight)
        self.gate_up = linear(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        self.down = linear(mlp.down_proj.weight)


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
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        self.embedding = inner.embed_tokens.weight.clone()  # a view would keep the whole file in memory
        with ThreadPoolExecutor(2) as packers:  # packing runs outside of Python's lock
            head = packers.submit(lambda: linear(model.lm_head.weight))
            self.layers = list(packers.map(lambda layer: Layer(layer, linear, self.size), inner.layers))
            self.head = head.result()
        cos, sin = inner.rotary_emb(torch.zeros(1), torch.arange(max_positions)[None])
        self.norm = inner.norm.weight.float()
        half = self.size // 2
        turn = torch.complex(cos[0, :, None, :half].float(), sin[0, :, None, :half].float())  # (positions, 1, half)
        turned = turn.expand(-1, self.heads + self.kv_heads, -1)
        self.turns = torch.cat([turned, torch.ones_like(turn).expand(-1, self.kv_heads, -1)], dim=1)  # values do not turn
        self.kv_dtype = self.embedding.dtype

    def new_cache(self) -> KeysValues:
        return KeysValues(torch.empty(len(self.layers), 2, self.kv_heads, 0, self.size, dtype=self.kv_dtype))

    @torch.inference_mode()
    def forward(self, parts: Sequence[tuple[Sequence[int], KeysValues]], all_positions: bool = False) -> torch.Tensor:
        """Logits (len(parts), vocabulary) float32 after the last new id of each conversation; its keys and values are extended.

        With `all_positions` the logits after every new id, (N, vocabulary). If it raises, no conversation has changed.
        """
        spans, total = [], 0
        for ids, cache in parts:
            cache.make_room(len(ids))
            mask = None if len(ids) == 1 or not cache.length else causal(cache.length, len(ids))
            spans.append((total, total := total + len(ids), cache, cache.length + len(ids), mask))
        places = [place for ids, cache in parts for place in range(cache.length, cache.length + len(ids))]
        turns = self.turns[places]  # (N, heads + 2 kv_heads, half)
        x = self.embedding[[i for ids, _ in parts for i in ids]].float()  # (N, hidden)
        for number, layer in enumerate(self.layers):
            pairs = layer.query_key_value(self._normed(x, layer.before_attention)).view(total, -1, self.size // 2, 2)
            turned = torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(2).to(self.kv_dtype)
            seen = [self._attend(turned[start:end], cache.kept[number], until, mask) for start, end, cache, until, mask in spans]
            x = x + layer.output((seen[0] if len(seen) == 1 else torch.cat(seen)).float())
            gate, up = layer.gate_up(self._normed(x, layer.before_mlp)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        logits = self.head(self._normed(x if all_positions else x[[end - 1 for _, end, *_ in spans]], self.norm))
        for ids, cache in parts:
            cache.length += len(ids)
        return logits

    def _attend(self, turned: torch.Tensor, kept: torch.Tensor, until: int, mask: torch.Tensor | None) -> torch.Tensor:
        """Writes the keys and values of n new positions behind the others, up to `until`; what they see, (n, heads * size)."""
        new = len(turned)
        kept[:, :, until - new : until] = turned[:, self.heads :].unflatten(1, (2, self.kv_heads)).permute(1, 2, 0, 3)
        keys, values = kept[:, None, :, :until]
        query = turned[:, : self.heads].transpose(0, 1)[None]
        alone = mask is None and new > 1  # a prompt with nothing before it
        out = F.scaled_dot_product_attention(query, keys, values, mask, is_causal=alone, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm. Its weights are not multiplied into the matrix that follows: int8 would then cost twice as much quality."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * weight


def causal(known: int, new: int) -> torch.Tensor:
    """(new, known + new), True where a new position may look: everything known, and new ones up to itself."""
    return torch.ones(new, known + new, dtype=torch.bool).tril(known)
