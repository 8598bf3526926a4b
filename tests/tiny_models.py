"""Tiny random models of many architectures, by name: what shares passes, what is refused by the gate, and what keeps a state."""

from collections.abc import Callable

import torch
import transformers as hf

VOCABULARY, POSITIONS = 320, 256
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 2}
SSM = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
LINEAR = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
OPT = {"ffn_dim": 64, "num_attention_heads": 2, "word_embed_proj_dim": 32}
STATES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}


def modern(kind: str, **others) -> Callable:
    return lambda: getattr(hf, f"{kind}Config")(**{**COMMON, **others})


def old(kind: str, **others) -> Callable:
    return lambda: getattr(hf, f"{kind}Config")(**OLD, **others)


SHARED = {
    "llama": modern("Llama"),
    "gpt2": old("GPT2"),
    "gpt": old("OpenAIGPT"),
    "qwen2": modern("Qwen2"),
    "qwen3": modern("Qwen3", head_dim=8),
    "gemma": modern("Gemma", head_dim=8),
    "mistral": modern("Mistral", head_dim=8, sliding_window=POSITIONS),
    "phi": modern("Phi"),
    "phi3": modern("Phi3"),
    "opt": modern("OPT", **OPT),
    "neox": modern("GPTNeoX"),
    "bigcode": old("GPTBigCode"),
    "smollm3": modern("SmolLM3"),
    "olmo2": modern("Olmo2"),
    "cohere": modern("Cohere"),
    "granite": modern("Granite"),
    "stablelm": modern("StableLm"),
    "gemma3": modern("Gemma3Text", head_dim=8, sliding_window=POSITIONS),
    "starcoder2": modern("Starcoder2"),
    "mixtral": modern("Mixtral", num_local_experts=4),
}
REFUSED = {  # all of these would be wrong without a word, or raise, if they shared passes
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2),
    "falcon": modern("Falcon"),
    "gptj": old("GPTJ", rotary_dim=8),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=POSITIONS,
        window_size=16,
    ),
    "codegen": lambda: hf.CodeGenConfig(**{**OLD, "n_head": 4}, rotary_dim=4),
    "gemma2 softcap": modern("Gemma2", head_dim=8, sliding_window=POSITIONS),
    "gpt_oss sinks": modern("GptOss", head_dim=8, num_local_experts=4, sliding_window=POSITIONS),
    "mistral window": modern("Mistral", head_dim=8, sliding_window=24),
    "gemma3 window": modern("Gemma3Text", head_dim=8, sliding_window=24),
    "phi3 window": modern("Phi3", sliding_window=24),
}
STATEFUL = {
    "lfm2": modern(
        "Lfm2",
        layer_types=["conv", "full_attention"],
        block_ff_dim=96,
        block_auto_adjust_ff_dim=False,
    ),
    "mamba": lambda: hf.MambaConfig(**STATES),
    "mamba2": lambda: hf.Mamba2Config(
        **STATES, num_heads=8, head_dim=16, n_groups=1, chunk_size=16
    ),
    "falcon_mamba": lambda: hf.FalconMambaConfig(**STATES),
    "qwen3.5": lambda: hf.Qwen3_5TextConfig(**{**COMMON, **LINEAR}),
    "bamba": modern("Bamba", attn_layer_indices=[1], **SSM),
    "falcon_h1": modern("FalconH1", head_dim=8, mamba_d_ssm=64, **SSM),
    "minimax": modern(
        "MiniMax",
        layer_types=["linear_attention", "full_attention"],
        head_dim=8,
        num_local_experts=2,
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaConfig(
        **{**COMMON, "num_hidden_layers": 3}, attention_window_size=24, lru_width=32
    ),
}


def build(config: Callable) -> torch.nn.Module:
    """Random weights that are large enough for a fault to show."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config()).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.normal_(0, 0.15)
    return model
