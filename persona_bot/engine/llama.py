"""The Llama architecture (SmolLM2 among it) for a CPU: int8 weights, and one pass over the tokens of many conversations.

    tokens of a pass      | visitor 1: one new | visitor 2: a prompt of 90 | visitor 3: one new |     (N, hidden): no padding
    linear layers         all N rows at once: on a CPU 16 rows cost about what one costs, since the weights are read once
    attention             see attention.py

What a token gets does not depend on who else is in the pass, but for rounding in attention.

The layers are compiled by torch.jit.script, which needs no C++ compiler: a pass of some 1,500 small operations then runs
outside of Python, a third faster for one visitor, and without its lock, which the page's own threads want meanwhile.
Python 3.14 has no TorchScript; there they run as they are.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from persona_bot.engine.int8_linear import FloatLinear, Int8Linear
from persona_bot.engine.kv_cache import KVSlots
from persona_bot.engine.llama_layers import Layer, Layers, RMSNorm
from persona_bot.engine.passes import Passes, PassPlan

STEADY = ("linear", "llama3", "yarn")  # scaled rotations that do not change while a text grows
CPU = torch.device("cpu")


def can_run(config: Any) -> bool:
    """Whether this is the configuration of a plain Llama: what this file computes, and nothing else."""
    if config.model_type != "llama" or config.hidden_act != "silu":
        return False
    if config.attention_bias or config.mlp_bias or getattr(config, "quantization_config", None):
        return False
    return config.rope_parameters["rope_type"] in ("default", *STEADY)


def needed_tensors(config: Any) -> list[str]:
    """The names that `FastLlama` asks for."""
    of_a_layer = [f"self_attn.{name}_proj" for name in "qkvo"]
    of_a_layer += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    of_a_layer += ["input_layernorm", "post_attention_layernorm"]
    outside = ["model.embed_tokens", "model.norm"]
    if not config.tie_word_embeddings:
        outside.append("lm_head")
    layers = [
        f"model.layers.{number}.{name}"
        for number in range(config.num_hidden_layers)
        for name in of_a_layer
    ]
    return [f"{name}.weight" for name in outside + layers]


class FastLlama(Passes):
    """A Llama's weights and the pass over them."""

    def __init__(self, config: Any, tensors: Mapping[str, Tensor], max_positions: int, int8: bool):
        """`config` is transformers', and `tensors` have the names of its LlamaForCausalLM; they are copied, not kept."""
        linear = Int8Linear if int8 else FloatLinear
        n_heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // n_heads
        shape = (n_heads, kv_heads, head_dim, config.rms_norm_eps)
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
        self.norm = RMSNorm(tensors["model.norm.weight"], config.rms_norm_eps)
        self.layers = compiled(Layers(layers))
        turn = rope_freqs_cis(config, head_dim, max_positions)[:, None]  # (positions, 1, half)
        self.freqs_cis = torch.cat(  # values do not turn
            [
                turn.expand(-1, n_heads + kv_heads, -1),
                torch.ones_like(turn).expand(-1, kv_heads, -1),
            ],
            dim=1,
        )
        self.slots = KVSlots(
            len(layers), kv_heads, head_dim, max_positions, self.embedding.dtype, CPU
        )

    def _run(self, plan: PassPlan) -> Tensor:
        x = self.embedding[plan.ids].float()  # (N, hidden)
        # its first calls would compile for the shapes they happen to see
        with torch.jit.optimized_execution(False):
            x = self.layers(x, self.freqs_cis[plan.positions], plan.inputs)
        return self.head(self.norm(x[plan.wanted]))


def compiled(module: nn.Module) -> nn.Module:
    """By TorchScript, where there is one."""
    return module if sys.version_info >= (3, 14) else torch.jit.script(module)


def rope_freqs_cis(config: Any, head_dim: int, positions: int) -> Tensor:
    """(positions, head_dim / 2) complex numbers that turn the pairs of a head at each position (RoPE, Su et al. 2021)."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        frequencies = config.rope_parameters["rope_theta"] ** -(
            torch.arange(0, head_dim, 2) / head_dim
        )
        scale = 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, CPU)
    angles = torch.arange(positions).float()[:, None] * frequencies.float()
    return torch.polar(torch.full_like(angles, scale), angles)
