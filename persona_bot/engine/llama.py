"""The Llama architecture (SmolLM2 among it) for a CPU: int8 weights, and one pass over the tokens of many conversations.

    tokens of a pass      | visitor 1: one new | visitor 2: a prompt of 90 | visitor 3: one new |     (N, hidden): no padding
    linear layers         all N rows at once: on a CPU 16 rows cost about what one costs, since the weights are read once
    attention             once for all who add one token and have a seat, whose keys and values lie side by side;
                          for every other visitor alone

What a token gets does not depend on who else is in the pass, but for rounding: a row is quantized by itself, and one
row takes other kernels than many.

The layers are compiled by torch.jit.script, which needs no C++ compiler: a pass of some 1,500 small operations then runs
outside of Python, a third faster for one visitor, and without its lock, which the page's own threads want meanwhile.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from persona_bot.engine.int8_linear import FloatLinear, Int8Linear
from persona_bot.engine.kv_cache import KeysValues, Seats
from persona_bot.engine.llama_layers import Layer, Layers, Norm

STEADY = ("linear", "llama3", "yarn")  # scaled rotations that do not change while a text grows


Part = tuple[Sequence[int], KeysValues]  # new ids and what their conversation's cache holds


def can_run(config) -> bool:
    """Whether this is the configuration of a plain Llama: what this file computes, and nothing else."""
    if (
        config.model_type != "llama"
        or config.hidden_act != "silu"
        or config.attention_bias
        or config.mlp_bias
    ):
        return False
    return (
        config.rope_parameters["rope_type"] in ("default", *STEADY)
        and getattr(config, "quantization_config", None) is None
    )


def needed_tensors(config) -> list[str]:
    """The names that `FastLlama` asks for."""
    of_a_layer = [f"self_attn.{name}_proj" for name in "qkvo"] + [
        f"mlp.{name}_proj" for name in ("gate", "up", "down")
    ]
    of_a_layer += ["input_layernorm", "post_attention_layernorm"]
    outside = ["model.embed_tokens", "model.norm"] + (
        [] if config.tie_word_embeddings else ["lm_head"]
    )
    layers = [
        f"model.layers.{number}.{name}"
        for number in range(config.num_hidden_layers)
        for name in of_a_layer
    ]
    return [f"{name}.weight" for name in outside + layers]


class FastLlama:
    """A Llama's weights and the pass over them."""

    def __init__(self, config, tensors: Mapping[str, Tensor], max_positions: int, int8: bool):
        """`config` is transformers', and `tensors` have the names of its LlamaForCausalLM; they are copied, not kept."""
        linear = Int8Linear if int8 else FloatLinear
        heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // heads
        shape = (heads, self.kv_heads, self.size, config.rms_norm_eps)
        # a view would keep the whole file in memory
        self.embedding = tensors["model.embed_tokens.weight"].clone()
        head = self.embedding if config.tie_word_embeddings else tensors["lm_head.weight"]

        def layer(number: int) -> Layer:
            return Layer(
                lambda name: tensors[f"model.layers.{number}.{name}.weight"], linear, *shape
            )

        with ThreadPoolExecutor(2) as packers:  # packing runs outside of Python's lock
            packed = packers.submit(linear, head)
            layers = list(packers.map(layer, range(config.num_hidden_layers)))
            self.head = packed.result()
        self.norm = Norm(tensors["model.norm.weight"], config.rms_norm_eps)
        self.layers = torch.jit.script(Layers(layers))
        turn = rotations(config, self.size, max_positions)[:, None]  # (positions, 1, half)
        turned = turn.expand(-1, heads + self.kv_heads, -1)
        # values do not turn
        self.turns = torch.cat([turned, torch.ones_like(turn).expand(-1, self.kv_heads, -1)], dim=1)
        self.seats = Seats(len(layers), self.kv_heads, self.size, self.embedding.dtype)

    def new_cache(self) -> KeysValues:
        return KeysValues(
            self.seats.kept.new_empty(len(self.seats.kept), 1, 2 * self.kv_heads, 0, self.size)
        )

    @torch.inference_mode()
    def forward(self, parts: Sequence[Part], all_positions: bool = False) -> torch.Tensor:
        """Logits (len(parts), vocabulary) float32 after the last new id of each conversation; its keys and values are extended.

        With `all_positions` the logits after every new id, (N, vocabulary). If it raises, no conversation has changed.
        """
        for ids, cache in parts:
            cache.make_room(len(ids))
        seated = [
            k for k, (ids, cache) in enumerate(parts) if len(ids) == 1 and cache.seat is not None
        ]
        seated = seated if len(seated) > 1 else []  # one alone is faster alone
        alone = [k for k in range(len(parts)) if k not in seated]
        x = self._layers([parts[k] for k in seated], [parts[k] for k in alone])
        counts = [len(parts[k][0]) for k in seated + alone]
        ends = dict(zip(seated + alone, accumulate(counts), strict=True))
        rows = [
            row
            for k, (ids, _) in enumerate(parts)
            for row in range(ends[k] - (len(ids) if all_positions else 1), ends[k])
        ]
        logits = self.head(self.norm(x[rows]))
        for ids, cache in parts:
            cache.length += len(ids)
        return logits

    @torch.inference_mode()
    def forward_branches(
        self, branches: Sequence[Sequence[int]], cache: KeysValues
    ) -> torch.Tensor:
        """Logits (N, vocabulary) after every id of several branches, each behind what the cache holds and forgets them again."""
        ids = [i for branch in branches for i in branch]
        cache.make_room(len(ids))
        owner = torch.tensor([number for number, branch in enumerate(branches) for _ in branch])
        mask = torch.ones(len(ids), cache.length + len(ids), dtype=torch.bool).tril(cache.length)
        mask[:, cache.length :] &= owner[:, None] == owner[None]
        places = [cache.length + k for branch in branches for k in range(len(branch))]
        return self.head(self.norm(self._layers([], [(ids, cache)], mask, places)))

    def _layers(
        self,
        seated: Sequence[Part],
        alone: Sequence[Part],
        mask: Tensor | None = None,
        places: Sequence[int] | None = None,
    ) -> Tensor:
        """What `Layers` makes of the new ids, (N, hidden); with a mask and positions of their own if there are any."""
        parts = [*seated, *alone]
        masks = [
            mask if mask is not None else causal(cache.length, len(new)) for new, cache in alone
        ]
        ids = [i for new, _ in parts for i in new]
        places = places or [
            place for new, cache in parts for place in range(cache.length, cache.length + len(new))
        ]
        seats, untils = (
            torch.tensor([cache.seat for _, cache in seated], dtype=torch.long),
            torch.tensor(places[: len(seated)]),
        )
        # its first calls would compile for the shapes they happen to see
        with torch.jit.optimized_execution(False):
            return self.layers(
                self.embedding[ids].float(),
                self.turns[places],
                self.seats.kept,
                seats,
                untils,
                self._bias(seats, untils + 1),
                [cache.kept for _, cache in alone],
                [len(new) for new, _ in alone],
                [cache.length + len(new) for new, cache in alone],
                masks,
            )

    def _bias(self, seats: Tensor, untils: Tensor) -> Tensor:
        """(seats from the first on, 1, 1, positions): 0 for the first `untils` positions of these seats, else -inf."""
        if not len(seats):
            return self.seats.kept.new_zeros(0, 1, 1, 0)
        known = torch.ones(int(seats.max()) + 1, dtype=torch.long).index_copy_(0, seats, untils)
        hidden = torch.arange(int(untils.max())) >= known[:, None]
        return self.seats.kept.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[
            :, None, None
        ]


def rotations(config, size: int, positions: int) -> torch.Tensor:
    """(positions, size / 2) complex numbers that turn the pairs of a head at each position (RoPE, Su et al. 2021)."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        frequencies, scale = (
            config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2) / size),
            1.0,
        )
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    angles = torch.arange(positions).float()[:, None] * frequencies.float()
    return torch.polar(torch.full_like(angles, scale), angles)


def causal(known: int, new: int) -> torch.Tensor | None:
    """(new, known + new), True where a new position may look: everything known, and new ones up to itself. None where that is
    plain: a single new position, or nothing known before."""
    return (
        None
        if new == 1 or not known
        else torch.ones(new, known + new, dtype=torch.bool).tril(known)
    )
