"""The Llama architecture (SmolLM2 among it) for a CPU: int8 weights, and one pass over the tokens of many conversations.

Run: nothing by itself; engine.py drives it, `python -m benchmarks.chat` measures it.

    tokens of a pass      | visitor 1: one new | visitor 2: a prompt of 90 | visitor 3: one new |     (N, hidden): no padding
    linear layers         all N rows at once: on a CPU 16 rows cost about what one costs, since the weights are read once
    attention             visitor by visitor, each with its own keys and values

What a token gets never depends on who else is in the pass, nor on how much of a prompt was computed earlier.

The layers are compiled by torch.jit.script, which needs no C++ compiler: a pass of some 1,500 small operations then runs
outside of Python, a third faster for one visitor, and without its lock, which the page's own threads want meanwhile.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from persona_bot.linear import FloatLinear, Int8Linear

STEADY = ("linear", "llama3", "yarn")  # scaled rotations that do not change while a text grows
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


class Norm(nn.Module):
    """RMSNorm. Its weights are not multiplied into the matrix that follows: int8 would then cost twice as much quality."""

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight.float(), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


class Layer(nn.Module):
    """One decoder layer, the matrices with the same input joined."""

    def __init__(self, weight: Callable[[str], Tensor], linear: type[nn.Module], heads: int, kv_heads: int, size: int, epsilon: float):
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


def can_run(config) -> bool:
    """Whether this is the configuration of a plain Llama: what this file computes, and nothing else."""
    if config.model_type != "llama" or config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        return False
    return config.rope_parameters["rope_type"] in ("default", *STEADY) and getattr(config, "quantization_config", None) is None


def needed_tensors(config) -> list[str]:
    """The names that `FastLlama` asks for."""
    of_a_layer = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    of_a_layer += ["input_layernorm", "post_attention_layernorm"]
    outside = ["model.embed_tokens", "model.norm"] + ([] if config.tie_word_embeddings else ["lm_head"])
    layers = [f"model.layers.{number}.{name}" for number in range(config.num_hidden_layers) for name in of_a_layer]
    return [f"{name}.weight" for name in outside + layers]


class FastLlama:
    """A Llama's weights and the pass over them."""

    def __init__(self, config, tensors: Mapping[str, Tensor], max_positions: int, int8: bool):
        """`config` is transformers', and `tensors` have the names of its LlamaForCausalLM; they are copied, not kept."""
        linear = Int8Linear if int8 else FloatLinear
        heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // heads
        shape = (heads, self.kv_heads, self.size, config.rms_norm_eps)
        self.embedding = tensors["model.embed_tokens.weight"].clone()  # a view would keep the whole file in memory
        head = self.embedding if config.tie_word_embeddings else tensors["lm_head.weight"]

        def layer(number: int) -> Layer:
            return Layer(lambda name: tensors[f"model.layers.{number}.{name}.weight"], linear, *shape)

        with ThreadPoolExecutor(2) as packers:  # packing runs outside of Python's lock
            packed = packers.submit(linear, head)
            layers = list(packers.map(layer, range(config.num_hidden_layers)))
            self.head = packed.result()
        self.norm = Norm(tensors["model.norm.weight"], config.rms_norm_eps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit gets no new features; what is there suffices
            self.layers = torch.jit.script(Layers(layers))
        turn = rotations(config, self.size, max_positions)[:, None]  # (positions, 1, half)
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


def rotations(config, size: int, positions: int) -> torch.Tensor:
    """(positions, size / 2) complex numbers that turn the pairs of a head at each position (RoPE, Su et al. 2021)."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        frequencies, scale = config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2) / size), 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    angles = torch.arange(positions).float()[:, None] * frequencies.float()
    return torch.polar(torch.full_like(angles, scale), angles)


def causal(known: int, new: int) -> torch.Tensor:
    """(new, known + new), True where a new position may look: everything known, and new ones up to itself."""
    return torch.ones(new, known + new, dtype=torch.bool).tril(known)
