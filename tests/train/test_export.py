"""GGUF files: the same model when it is read back, by transformers and by llama.cpp itself; what cannot be written is said.

Run: `python -m pytest tests/train/test_export.py`; llama.cpp comes as the wheel xllamacpp (tests/requirements.txt)
"""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from persona_bot.checkpoints import prepared
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import system_text
from persona_bot.persona import load_presets
from tests.full_disk import full_disk
from train.export import main, modelfile

LLAMA_CPP = """
import json, sys, urllib.request
import xllamacpp
wanted = json.loads(sys.stdin.read())
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = wanted["file"], 512, 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(params)
def ask(path, **content):
    body = json.dumps(content).encode()
    request = urllib.request.Request(server.listening_address + path, body)
    return json.load(urllib.request.urlopen(request, timeout=60))
for turns in wanted["chats"]:
    prompt = ask("/apply-template", messages=turns)["prompt"]
    ids = ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    said = ask("/completion", prompt=ids, temperature=0, n_predict=12, return_tokens=True)
    print("IDS", json.dumps([ids, said["tokens"]]), flush=True)
"""
IDS = torch.tensor([[5, 60, 7, 99, 12, 300, 41]])


@pytest.fixture(scope="module")
def exported(chat_folder, tmp_path_factory):
    """The tiny Llama of the tests, which tokenizes as GPT-2 does, in float32."""
    folder = tmp_path_factory.mktemp("gguf")
    main([str(chat_folder), "--gguf", str(folder / "tiny.gguf"), "--type", "f32"])
    return folder


def test_transformers_reads_the_same_model_back(exported, chat_folder, chat_tokenizer):
    loaded = AutoModelForCausalLM.from_pretrained(
        exported,
        gguf_file="tiny.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).eval()
    ours = load_checkpoint(str(chat_folder), "cpu").model.float()
    with torch.no_grad():
        assert torch.allclose(loaded(IDS).logits, ours(IDS).logits, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(exported, gguf_file="tiny.gguf")
    text = "hello, where do you work? café 🌻 <|im_end|>"
    assert tokenizer(text).input_ids == chat_tokenizer(text).input_ids
    assert tokenizer.chat_template == chat_tokenizer.chat_template


@pytest.mark.parametrize("beside", [["config.json"], ["config.json", "tokenizer*", "chat*"]])
def test_what_lies_beside_a_gguf_does_not_matter(
    beside, exported, chat_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "prepared")
    folder = shutil.copytree(exported, tmp_path / "model")
    for file in (file for name in beside for file in chat_folder.glob(name)):
        shutil.copy(file, folder)
    (folder / "mmproj-f16.gguf").write_bytes(b"eyes")
    ours = load_checkpoint(str(folder), "cpu").model.float()
    expected = load_checkpoint(str(chat_folder), "cpu").model.float()
    assert torch.equal(ours(IDS).logits.argmax(-1), expected(IDS).logits.argmax(-1))


def test_the_file_itself_is_no_checkpoint(exported):
    with pytest.raises(UserError, match="the folder that holds the weights and no other GGUF file"):
        load_checkpoint(str(exported / "tiny.gguf"), "cpu")


def test_llama_cpp_itself_says_the_same(exported, chat_folder):
    checkpoint = load_checkpoint(str(chat_folder), "cpu")
    model, layout = checkpoint.model.float(), checkpoint.layout
    personas = list(load_presets().values())[:3]
    asked = ["hello, where do you work?", "café 🌻 ?  <|im_end|>", "Tell me more about 1,234!"]
    chats = [
        [{"role": "system", "content": system_text(who)}, {"role": "user", "content": text}]
        for who, text in zip(personas, asked, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", LLAMA_CPP],
        input=json.dumps({"file": str(exported / "tiny.gguf"), "chats": chats}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line[4:] for line in done.stdout.splitlines() if line.startswith("IDS ")]
    assert len(lines) == len(chats), done.stderr[-2_000:]
    for who, text, line in zip(personas, asked, lines, strict=True):
        ids, said = json.loads(line)
        if "<|" not in text:  # llama.cpp takes it for the control token; the page never does
            parts = layout.segments(who, [text], add_generation_prompt=True)
            assert ids == [i for part in parts for i in part.ids]
        with torch.no_grad():
            ours = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)
        assert said == ours[0, len(ids) :].tolist()


def test_the_modelfile_holds_the_persona_and_the_template(exported, chat_folder):
    text = (exported / "tiny.Modelfile").read_text(encoding="utf-8")
    persona = next(iter(load_presets().values()))
    assert text.startswith("FROM ./tiny.gguf\nTEMPLATE ")
    assert f'SYSTEM """{system_text(persona)}"""' in text and "PARAMETER num_ctx 512\n" in text
    assert "PARAMETER repeat_penalty 1.0\n" in text  # 1.1 is Ollama's own default


def test_a_persona_cannot_end_its_quotes(chat_folder, tmp_path):
    persona = next(iter(load_presets().values()))._replace(sentences=('i say """ a lot.',))
    text = modelfile(load_checkpoint(str(chat_folder), "cpu"), tmp_path / "x.gguf", persona)
    assert text.count('"""') == 4


@pytest.mark.parametrize("kind", ["q8_0", "f16", "bf16"])
def test_smaller_types_are_near(chat_model, chat_tokenizer, tmp_path, kind):
    """Untied, with as many key heads as query heads, and rows that fill whole blocks."""
    config = copy.deepcopy(chat_model.config)
    config.update({"hidden_size": 64, "tie_word_embeddings": False, "num_key_value_heads": 4})
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(config.to_dict() | {"head_dim": 16})).eval()
    model.save_pretrained(tmp_path / "model")
    chat_tokenizer.save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), "--gguf", str(tmp_path / "x.gguf"), "--type", kind])
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="x.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).eval()
    with torch.no_grad():
        assert (loaded(IDS).logits - model(IDS).logits).abs().max() < 0.02


def refusal(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    return told


@pytest.mark.parametrize("lost", [1, 40, 1_000])  # bytes: of the last tensor, which is small
def test_a_full_disk_leaves_no_shorter_file(exported, chat_folder, tmp_path, capsys, lost):
    whole = (exported / "tiny.gguf").stat().st_size
    path = tmp_path / "x.gguf"
    path.write_text("from before")
    with full_disk(whole - lost):
        told = refusal([str(chat_folder), "--gguf", str(path), "--type", "f32"], capsys)
    assert told.startswith(f"{path} cannot be written (File too large); free space, or name")
    assert path.read_text() == "from before" and [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_written_is_said(
    chat_folder, convai_folder, tmp_path, capsys, chat_tokenizer
):
    out = ["--gguf", str(tmp_path / "x.gguf")]
    assert "has ConvAI's layout with token types" in refusal([str(convai_folder), *out], capsys)
    from tests.sft_tiny import gpt2

    gpt2(chat_tokenizer).save_pretrained(tmp_path / "gpt2")
    chat_tokenizer.save_pretrained(tmp_path / "gpt2")
    assert "is a gpt2, which is not written here; llama.cpp's convert_hf_to_gguf.py" in refusal(
        [str(tmp_path / "gpt2"), *out], capsys
    )
    strange = shutil.copytree(chat_folder, tmp_path / "strange")
    tokenizer = json.loads((strange / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    (strange / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "has a tokenizer that is not written here" in refusal([str(strange), *out], capsys)
    assert "There is no persona 'nobody'" in refusal(
        [str(chat_folder), *out, "--persona", "nobody"], capsys
    )
    nowhere = ["--gguf", str(tmp_path / "none" / "x.gguf")]
    assert "does not exist; make it first" in refusal([str(chat_folder), *nowhere], capsys)
    assert not [*tmp_path.glob("*.gguf"), *tmp_path.glob(".*.new")]
