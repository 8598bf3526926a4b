"""Checkpoints as strangers make them: adapters with added tokens, quantized and encoder-decoder weights, folders in folders.

Run: `python -m pytest tests/persona_bot/test_strange_checkpoints.py`
"""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from persona_bot import Settings, load_model
from persona_bot.checkpoints import load as load_module
from persona_bot.checkpoints import prepared
from persona_bot.checkpoints.files import save_tokenizer
from persona_bot.checkpoints.load import load_checkpoint, max_positions
from persona_bot.engine.backend import BatchedBackend
from persona_bot.engine.gate import share
from persona_bot.errors import UserError
from tests.conftest import CHATML, save, train_bpe
from tests.tiny_models import REFUSED, build


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(load_module, "best_dtype", lambda device: torch.float32)


def plain_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(["<|endoftext|>"]), eos_token="<|endoftext|>"
    )


def llama(rows: int, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


WAYS = {  # of training what was added
    "whole embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings alone": {"modules_to_save": ["embed_tokens"]},
    "lora on them": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_with_added_tokens(way, tmp_path):
    tokenizer = plain_tokenizer()
    save(llama(len(tokenizer)), tokenizer, tmp_path / "base")
    chat = copy.deepcopy(tokenizer)
    chat.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chat.eos_token, chat.chat_template = "<|im_end|>", CHATML
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(len(chat))
    options = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **WAYS[way]}
    model = get_peft_model(model, LoraConfig(**options))
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    save(model, chat, tmp_path / "adapter")
    loaded = load_checkpoint(str(tmp_path / "adapter"), "cpu")
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(chat)
    assert loaded.layout.end_id == chat.convert_tokens_to_ids("<|im_end|>")


def adapt(folder: Path, base: Path, tokenizer, config) -> torch.nn.Module:
    """An adapter of this configuration with weights that show, saved; the adapted model."""
    torch.manual_seed(1)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config).eval()
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(0, 0.1)
    model.peft_config["default"].base_model_name_or_path = str(base)
    save(model, tokenizer, folder)
    return model


IDS = torch.tensor([[5, 60, 7, 99, 12, 300, 41]])


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_an_adapter_of_one_side_of_tied_embeddings(targets, together, chat_tokenizer, tmp_path):
    """What was trained for the embeddings alone does not change the head, and the other way round."""
    save(llama(len(chat_tokenizer), tied=True), chat_tokenizer, tmp_path / "base")
    config = LoraConfig(
        r=4, target_modules=targets, task_type="CAUSAL_LM", ensure_weight_tying=together
    )
    model = adapt(tmp_path / "adapter", tmp_path / "base", chat_tokenizer, config)
    expected = model(IDS).logits
    for _ in range(2):  # merged, then as it was kept in bfloat16
        found = load_checkpoint(str(tmp_path / "adapter"), "cpu").model(IDS).logits
        assert (found - expected).norm() / expected.norm() < 0.01


def test_an_adapters_changed_configuration_counts(chat_folder, chat_tokenizer, tmp_path):
    folder = tmp_path / "adapter"
    adapt(folder, chat_folder, chat_tokenizer, LoraConfig(r=4, target_modules=["q_proj"]))
    before = load_checkpoint(str(folder), "cpu").model(IDS).logits
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 0}))
    after = load_checkpoint(str(folder), "cpu").model(IDS).logits
    plain = load_checkpoint(str(chat_folder), "cpu").model(IDS).logits
    assert (after - plain).norm() < 0.01 * plain.norm() and not torch.equal(before, after)


def test_an_adapter_that_repeats_layers_loads_though_it_cannot_be_kept(
    chat_folder, chat_tokenizer, tmp_path
):
    config = LoraConfig(r=4, target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]])
    adapt(tmp_path / "adapter", chat_folder, chat_tokenizer, config)
    model = load_checkpoint(str(tmp_path / "adapter"), "cpu").model
    assert len(model.model.layers) == 3


def test_an_adapter_that_cannot_be_folded_in(chat_folder, chat_tokenizer, tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapt(tmp_path / "adapter", chat_folder, chat_tokenizer, config)
    with pytest.raises(UserError, match="is an adapter of the kind PROMPT_TUNING, .*; use a LoRA"):
        load_checkpoint(str(tmp_path / "adapter"), "cpu")


def test_an_encoder_decoder_is_refused(chat_tokenizer, tmp_path):
    config = BlenderbotConfig(
        vocab_size=len(chat_tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    save(BlenderbotForConditionalGeneration(config), chat_tokenizer, tmp_path / "model")
    with pytest.raises(UserError, match="is an encoder-decoder .blenderbot.*choose a model that"):
        load_checkpoint(str(tmp_path / "model"))


def test_quantized_weights_without_their_package_are_refused(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="quantized with bitsandbytes, for which the package"):
        load_checkpoint(str(folder))


def test_an_adapters_base_is_named_as_such(chat_folder, chat_tokenizer, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    base = {"base_model_name_or_path": "/content/drive/MyDrive/my-base", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(base))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    chat_tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="base model.*/content/drive/MyDrive/my-base") as caught:
        load_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_inside_the_folder_is_named(chat_folder, tmp_path):
    shutil.copytree(chat_folder, tmp_path / "run" / "checkpoint-500")
    with pytest.raises(UserError, match=r"holds no .*; name .*checkpoint-500\."):
        load_checkpoint(str(tmp_path / "run"))


def test_fewer_rows_than_tokens(chat_tokenizer, tmp_path):
    """The last tokens were added without rows: nothing reads or draws them; a template of such tokens is refused."""
    more = copy.deepcopy(chat_tokenizer)
    more.add_tokens(["Brumholm"])
    more.add_special_tokens({"additional_special_tokens": ["[PAD]"]})
    save(llama(len(chat_tokenizer)), more, tmp_path / "some")
    layout = load_checkpoint(str(tmp_path / "some")).layout
    assert max(layout.encode("i live in Brumholm [PAD]")) < len(chat_tokenizer)
    plain = plain_tokenizer()
    rows = len(plain)
    plain.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    plain.eos_token, plain.chat_template = "<|im_end|>", CHATML
    save(llama(rows), plain, tmp_path / "all")
    with pytest.raises(UserError, match="tokens for which the model has no"):
        load_checkpoint(str(tmp_path / "all"))


@pytest.mark.parametrize("window", [64, 512])
def test_a_model_that_also_sees(window, chat_tokenizer, environmentalist, tmp_path):
    """Its text's numbers are in a configuration of their own: positions, rows, and a window that cannot share passes."""
    more = copy.deepcopy(chat_tokenizer)
    more.add_tokens(["Brumholm"])
    text = {"vocab_size": len(chat_tokenizer), "max_position_embeddings": 256, "head_dim": 8}
    layers = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16}
    sizes = {**text, **layers, "sliding_window": window, "num_key_value_heads": 1}
    seen = {**layers, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=sizes, vision_config=seen, mm_tokens_per_image=4)
    folder = save(Gemma3ForConditionalGeneration(config), more, tmp_path / "model")
    model = load_model(str(folder), "cpu")
    assert model.context_length == 256
    assert isinstance(model.backend, BatchedBackend) == (window > 256)
    reply = model.reply(environmentalist, ["i live in Brumholm"], Settings(max_tokens=5, seed=1))
    assert "".join(reply) and reply.finish_reason == "length"


def test_a_window_that_no_configuration_tells():
    """What attention itself is told counts, too."""
    model = build(REFUSED["mistral window"])
    model.config.use_sliding_window = False
    assert share(model, 256) is None


@pytest.mark.parametrize("limit", [None, -1, "512"])
def test_positions_without_a_limit(limit):
    assert max_positions(SimpleNamespace(max_position_embeddings=limit)) == 1024


def test_what_is_saved_opens_in_transformers_4_too(convai_tokenizer, chat_tokenizer, tmp_path):
    for name, tokenizer in (("convai", convai_tokenizer), ("chat", chat_tokenizer)):
        folder = tmp_path / name
        save_tokenizer(tokenizer, folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert not isinstance(settings.get("extra_special_tokens"), list)
        again = AutoTokenizer.from_pretrained(folder)
        text = "hello, <speaker1> how are you?"
        assert again(text).input_ids == tokenizer(text).input_ids
        assert set(again.all_special_ids) == set(tokenizer.all_special_ids)
    settings = json.loads((tmp_path / "convai" / "tokenizer_config.json").read_text())
    assert {"<speaker1>", "<speaker2>"} <= set(settings["additional_special_tokens"])


def test_the_default_opens_in_transformers_4_too():
    folder = Path(__file__).parents[2] / "default_model"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize(
    "marker", [{"sha256": None}, {"sha256": ["x"]}, {"max_turns": "7"}, {"max_turns": -3}]
)
def test_a_layout_file_of_another_shape(marker, convai_folder, tmp_path):
    folder = shutil.copytree(convai_folder, tmp_path / "model")
    (folder / "persona_layout.json").write_text(json.dumps({"layout": "convai", **marker}))
    with pytest.raises(UserError, match="a max_turns or a sha256 that nothing writes; download"):
        load_checkpoint(str(folder))


def test_a_history_that_stock_cannot_mean(convai_folder, tmp_path):
    folder = shutil.copytree(convai_folder, tmp_path / "model")
    (folder / "model_args.json").write_text('{"max_history": -1}')
    assert load_checkpoint(str(folder)).layout.max_turns == 5


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(str(folder), "cpu")
    return str(error.value)


def reworded(folder: Path, **settings) -> Path:
    """The folder with other values in its config.json."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    return folder


@pytest.fixture
def plain(tmp_path) -> Path:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = CHATML
    llama(len(tokenizer)).save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_the_cure_fits_what_is_wrong(plain, tmp_path):
    """Where fetching the same again would not help, something else is named."""
    reworded(plain, model_type="fancynet")
    told = refusal(plain)
    assert "does not recognize this architecture); use a newer transformers" in told
    reworded(plain, auto_map={"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"})
    assert refusal(plain).endswith("is not run here, so use another one.")
    reworded(plain, model_type="llama", auto_map={})
    (plain / "tokenizer.json").unlink()
    (plain / "tokenizer_config.json").unlink()
    assert refusal(plain).endswith("; put its tokenizer's files beside the weights.")


def test_an_adapter_tells_which_base_it_lacks(plain, tmp_path):
    wide = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=llama(8).config.vocab_size,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    folder = tmp_path / "adapter"
    get_peft_model(wide, LoraConfig(task_type="CAUSAL_LM", r=4)).save_pretrained(folder)
    for base, told in (
        (None, "names no base model; write it as base_model_name_or_path"),
        (str(plain), "size mismatch"),
    ):
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert told in refusal(folder) and "base_model_name_or_path" in refusal(folder)
