"""Writes a chat checkpoint as a GGUF file, and a Modelfile with a persona, for llama.cpp and Ollama.

Run: `python -m train.export outputs/mine --gguf mine.gguf [--persona soldier] [--type q8_0]`, then

    llama-server -m mine.gguf                              # and: python app.py --endpoint http://127.0.0.1:8080
    ollama create mine -f mine.Modelfile && ollama run mine

Llama-type models with a byte-level BPE tokenizer (SmolLM2 and its kin) are written here. For others the message names
llama.cpp's own converter, which knows every architecture.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from persona_bot.checkpoints.load import Checkpoint, load_checkpoint
from persona_bot.errors import UserError, exit_on_error
from persona_bot.layouts import system_text
from persona_bot.persona import Persona, find_persona
from persona_bot.settings import Settings
from train.run.command import check_outputs, write

TYPES = {
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f32": gguf.GGMLQuantizationType.F32,
}
FILE_TYPES = {"q8_0": "MOSTLY_Q8_0", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "f32": "ALL_F32"}
ELSEWHERE = "llama.cpp's convert_hf_to_gguf.py converts it"
CHATML = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
OLLAMA_CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n"
    "{{ end }}<|im_start|>assistant\n"
)


def export_gguf(checkpoint: Checkpoint, path: Path, kind: str = "q8_0") -> None:
    """Writes weights, tokenizer and chat template. Raises UserError for what llama.cpp cannot be given from here."""
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    if checkpoint.layout.name != "chat":
        raise UserError(
            f"{checkpoint.name} has ConvAI's layout with token types, which neither llama.cpp nor Ollama knows; "
            "serve it with this project's page, or train a chat model with recipe sft."
        )
    if config.model_type != "llama":
        raise UserError(
            f"{checkpoint.name} is a {config.model_type}, which is not written here; {ELSEWHERE}."
        )
    temporary = path.with_name(f".{path.name}.new")
    writer = gguf.GGUFWriter(temporary, "llama")
    try:
        _write_settings(writer, checkpoint, kind)
        _write_tokenizer(writer, tokenizer, config, checkpoint.name)
        _write_tensors(writer, checkpoint.model, TYPES[kind])
        _write_file(writer)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); free space, or name another file for --gguf."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def modelfile(checkpoint: Checkpoint, path: Path, persona: Persona) -> str:
    """What `ollama create` reads: the file beside it, the persona as the system turn, the chat's own settings."""
    settings, tokenizer = Settings(), checkpoint.tokenizer
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    lines = [f"FROM ./{path.name}"]
    if rendered == CHATML:  # others Ollama recognises by the template in the GGUF
        lines += [f'TEMPLATE """{OLLAMA_CHATML}"""', 'PARAMETER stop "<|im_end|>"']
    numbers = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        # theirs counts the prompt too, and a persona could no longer name itself
        "repeat_penalty": 1.0,
        "num_predict": settings.max_tokens,
        "num_ctx": checkpoint.max_positions,
    }
    lines += [f"PARAMETER {name} {value}" for name, value in numbers.items()]
    said = system_text(persona).replace('"""', "'''")
    return "\n".join([*lines, f'SYSTEM """{said}"""', ""])


def _write_settings(writer: gguf.GGUFWriter, checkpoint: Checkpoint, kind: str) -> None:
    config = checkpoint.model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(checkpoint.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope_base(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])


def _rope_base(config: PreTrainedConfig) -> float:
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"Its rotary embedding is of type {rope['rope_type']}; {ELSEWHERE}.")
    base: Any = rope.get("rope_theta") or getattr(config, "rope_theta", 10_000.0)
    return float(base)


def _write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str
) -> None:
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    if whole["model"]["type"] != "BPE" or not (how := _pre_tokenizer(whole["pre_tokenizer"])):
        raise UserError(f"{name} has a tokenizer that is not written here; {ELSEWHERE}.")
    added = tokenizer.added_tokens_decoder
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for number in range(config.vocab_size):
        word = words.get(number)
        tokens.append(word if word is not None else f"[PAD{number}]")
        kind = gguf.TokenType.NORMAL if word is not None else gguf.TokenType.UNUSED
        if number in added:
            special = added[number].special
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        types.append(kind)
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(how)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)  # the chat template writes what stands first
    writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(parts: dict | None) -> str | None:
    """llama.cpp's name for a way of cutting text into words; None for one that is not known here."""
    steps = parts.get("pretokenizers", [parts]) if parts else []
    kinds = [step["type"] for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    return "smollm" if kinds[0] == "Digits" and steps[0]["individual_digits"] else None


def _write_tensors(
    writer: gguf.GGUFWriter, model: PreTrainedModel, kind: gguf.GGMLQuantizationType
) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        numbers = tensor.to(torch.float32).cpu().numpy()
        for part, count in heads.items():
            if f"{part}." in name:
                numbers = _interleave(numbers, count)
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise UserError(f"The tensor {name} has no place in a Llama's GGUF; {ELSEWHERE}.")
        # rows that do not divide into blocks of 32 stay half precision
        fits = numbers.ndim > 1 and numbers.shape[-1] % 32 == 0
        half = gguf.GGMLQuantizationType.F16 if numbers.ndim > 1 else gguf.GGMLQuantizationType.F32
        stored = kind if fits or (numbers.ndim > 1 and kind != TYPES["q8_0"]) else half
        writer.add_tensor(place, gguf.quants.quantize(numbers, stored), raw_dtype=stored)


def _write_file(writer: gguf.GGUFWriter) -> None:
    """What the writer was given. Its own write_tensors_to_file hands small ones to numpy, which forgets that a disk is full."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None  # open
    (file,), (tensors,) = writer.fout, writer.tensors
    writer.write_padding(file, file.tell())
    for info in tensors.values():
        assert info.tensor is not None  # only once it is written
        file.write(info.tensor.tobytes())
        writer.write_padding(file, info.nbytes)
    writer.close()


def _interleave(rows: numpy.ndarray, heads: int) -> numpy.ndarray:
    """A query or key projection with the two halves of each head's rows alternating, as llama.cpp turns them."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.export", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", help="a folder, or a name on the Hub")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="what to write")
    parser.add_argument(
        "--type", choices=list(TYPES), default="q8_0", help="of the weights (default: q8_0)"
    )
    parser.add_argument(
        "--persona",
        default="environmentalist",
        help="of the Modelfile: a preset or a file (default: environmentalist)",
    )
    options = parser.parse_args(arguments)
    with exit_on_error():
        ollama = options.gguf.with_suffix(".Modelfile")
        check_outputs(options.gguf, ollama)
        persona = find_persona(options.persona, seed=0)
        checkpoint = load_checkpoint(options.model, device="cpu")
        export_gguf(checkpoint, options.gguf, options.type)
        write(ollama, modelfile(checkpoint, options.gguf, persona))
    print(f"written: {options.gguf} and {ollama}")
    print(f"chat: ollama create NAME -f {ollama}, or llama-server -m {options.gguf}")


if __name__ == "__main__":
    main()
