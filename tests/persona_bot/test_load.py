"""Local checkpoints: every kind that loads, everything that is refused. Run: python -m pytest tests/persona_bot/test_load.py"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from persona_bot import load_model
from persona_bot.checkpoints import files as module
from persona_bot.checkpoints import load as checkpoint_module
from persona_bot.checkpoints import prepared
from persona_bot.checkpoints.adapter import merge_adapter
from persona_bot.checkpoints.files import check_files, save_layout
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.device import pick_device
from persona_bot.engine.backend import BatchedBackend
from persona_bot.engine.int8_linear import has_fast_int8
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE, find_layout
from persona_bot.persona import find_persona, load_presets
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.children import program
from tests.full_disk import full_disk


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "prepared")
    monkeypatch.setattr(checkpoint_module, "best_dtype", lambda device: torch.float32)


@pytest.fixture
def adapter_folder(chat_folder, chat_tokenizer, tmp_path) -> Path:
    """A LoRA adapter on the tiny chat model whose weights are not zero."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(chat_folder)
    model = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.peft_config["default"].base_model_name_or_path = str(chat_folder)
    model.save_pretrained(tmp_path / "adapter")
    chat_tokenizer.save_pretrained(tmp_path / "adapter")
    save_layout(tmp_path / "adapter", find_layout(chat_tokenizer))
    return tmp_path / "adapter"


def test_a_chat_model_without_any_marker(chat_folder, environmentalist):
    checkpoint = load_checkpoint(str(chat_folder), "cpu")
    assert (checkpoint.layout.name, checkpoint.ranking_head, checkpoint.max_positions) == (
        "chat",
        False,
        512,
    )
    assert "".join(LocalModel.plain(checkpoint).reply(environmentalist, ["hi"], Settings(seed=0)))


def test_a_convai_model_without_any_marker(convai_folder, environmentalist):
    checkpoint = load_checkpoint(str(convai_folder), "cpu")
    assert (checkpoint.layout.name, checkpoint.layout.max_turns, checkpoint.max_positions) == (
        "convai",
        5,
        256,
    )
    assert "".join(LocalModel.plain(checkpoint).reply(environmentalist, ["hi"], Settings(seed=0)))


def test_the_ranking_head_on_request(convai_folder, convai_model):
    checkpoint = load_checkpoint(str(convai_folder), "cpu", double_heads=True)
    assert checkpoint.ranking_head
    head = checkpoint.model.multiple_choice_head.summary.weight
    assert torch.equal(head, convai_model.multiple_choice_head.summary.weight)


def test_stock_history_length_is_taken_over(convai_folder, tmp_path):
    folder = shutil.copytree(convai_folder, tmp_path / "stock")
    (folder / "model_args.json").write_text(json.dumps({"max_history": 4}))
    assert load_checkpoint(str(folder), "cpu").layout.max_turns == 9


def test_an_adapter_is_merged_into_its_base(adapter_folder, chat_folder):
    merged = load_checkpoint(str(adapter_folder), "cpu").model
    base = AutoModelForCausalLM.from_pretrained(chat_folder)
    weights = dict(merge_adapter(base, adapter_folder).named_parameters())
    plain = dict(AutoModelForCausalLM.from_pretrained(chat_folder).named_parameters())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(merged.get_parameter(name), weights[name].to(torch.bfloat16).float())
    assert not torch.allclose(merged.get_parameter(name), plain[name], atol=1e-2)


def test_the_second_start_reads_what_the_first_prepared(adapter_folder, monkeypatch):
    first = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    monkeypatch.setattr(prepared, "merge_adapter", None)  # a second merge would fail
    second = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_full_disk_costs_the_next_start_its_time_and_this_one_nothing(adapter_folder):
    with full_disk(1_000):
        first = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    assert [*prepared.PREPARED.iterdir()] == []
    second = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def say(model, persona) -> str:
    return "".join(model.reply(persona, ["hello, how are you?"], Settings(seed=3)))


@pytest.mark.parametrize("kind", ["adapter_folder", "chat_folder"])
def test_a_chat_starts_from_the_tensors_alone_and_says_the_same(
    kind, request, environmentalist, monkeypatch
):
    folder = str(request.getfixturevalue(kind))
    # an adapter is merged and kept
    first = say(load_model(folder, "cpu"), environmentalist)
    plain = LocalModel.plain(load_checkpoint(folder, "cpu"))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    second = load_model(folder, "cpu")
    assert first == say(second, environmentalist)
    assert type(second.backend) is BatchedBackend
    if not has_fast_int8():
        assert first == say(plain, environmentalist)


def test_a_second_start_does_not_wait_for_the_model_class(smollm2_tokenizer, monkeypatch):
    """Nor for its configuration's: 2 of 9 seconds."""
    monkeypatch.undo()  # the real cache
    load_checkpoint(None, "cpu")
    code = "import sys; from persona_bot import load_model; load_model(None, 'cpu'); "
    code += "print([name for name in sys.modules if name in ('transformers.models', 'torch._dynamo', 'peft')])"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert ended.stdout == "[]\n", ended.stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_chat_refuses_broken_files_in_one_sentence(chat_folder, tmp_path, name):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / name).write_text("{")
    with pytest.raises(
        UserError, match="(cannot be loaded as a checkpoint|is not valid JSON).*download or train"
    ) as caught:
        load_model(str(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_a_chat_whose_tensors_have_other_names_is_refused(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    save_file({"norm.weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="has no tensor model.embed_tokens.weight"):
        load_model(str(folder), "cpu")


def test_damaged_prepared_weights_are_made_anew(adapter_folder):
    first = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    (file,) = prepared.PREPARED.glob("*/model.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    second = load_checkpoint(str(adapter_folder), "cpu").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("hours, left", [(0, 5), (2, 3)])
def test_prepared_weights_that_another_process_may_read_stay(adapter_folder, hours, left):
    for number in range(4):
        (prepared.PREPARED / f"{number:016x}").mkdir(parents=True)
        used = time.time() - 3600 * hours - number
        os.utime(prepared.PREPARED / f"{number:016x}", (used, used))
    load_checkpoint(str(adapter_folder), "cpu")
    assert len(list(prepared.PREPARED.iterdir())) == left


@pytest.fixture
def merges_apart(tmp_path, monkeypatch):
    """A first start of this small model prepares as that of a large one does."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "persona-bot")
    monkeypatch.setattr(prepared, "LARGE", 0)


def test_a_first_start_merges_in_another_process(adapter_folder, merges_apart, monkeypatch):
    monkeypatch.setattr(prepared, "merge_adapter", lambda *_: pytest.fail("merged here"))
    load_model(str(adapter_folder), "cpu")
    (folder,) = prepared.PREPARED.iterdir()
    check_files(folder)


def test_where_no_process_can_be_started_the_adapter_is_merged_here(
    adapter_folder, merges_apart, monkeypatch
):
    monkeypatch.setattr(sys, "executable", "/nowhere")
    load_model(str(adapter_folder), "cpu")
    assert len(list(prepared.PREPARED.iterdir())) == 1


STARTS_A_CHILD = """
import sys
from pathlib import Path
from persona_bot.checkpoints import prepared
prepared.LARGE = 0
prepared.PREPARE = sys.argv[2]
prepared.prepare_apart(Path(sys.argv[1]), Path("nowhere"), Path("nowhere"))
"""
WORKS = """
try:
    open(sys.argv[1], "w").close()
    for _ in range(1200): time.sleep(0.1)
finally:
    os.unlink(sys.argv[1])
"""


@pytest.mark.parametrize("told", [signal.SIGKILL, signal.SIGTERM])
def test_who_prepares_ends_with_the_start_that_asked_for_it(tmp_path, told):
    sign = tmp_path / "at work"
    with program([sys.executable, "-c", STARTS_A_CHILD, str(sign), WORKS]) as parent:
        until(sign.exists)
        os.kill(parent.pid, told)
        until(lambda: not sign.exists())


def until(happens) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_checkouts_of_one_adapter_share_what_is_prepared(adapter_folder, chat_folder, tmp_path):
    copy = shutil.copytree(adapter_folder, tmp_path / "copy")
    os.utime(copy / "adapter_model.safetensors", (1, 1))
    mine, theirs = (prepared.prepared_folder(f, chat_folder) for f in (adapter_folder, copy))
    assert mine == theirs
    weights = copy / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert prepared.prepared_folder(copy, chat_folder) != mine


def test_a_start_says_that_its_prepared_weights_are_in_use(adapter_folder):
    load_checkpoint(str(adapter_folder), "cpu")
    (folder,) = prepared.PREPARED.iterdir()
    os.utime(folder, (1, 1))
    load_checkpoint(str(adapter_folder), "cpu")
    assert folder.stat().st_mtime > 1


def test_weights_that_are_prepared_again_while_they_are_read_stay_readable(
    adapter_folder, chat_tokenizer
):
    model = load_checkpoint(str(adapter_folder), "cpu").model
    (folder,) = prepared.PREPARED.iterdir()
    _, tensors = module.load_tensors(folder, torch.float32)
    names = iter(sorted(tensors))
    first = tensors[next(names)]
    prepared.keep(model, find_layout(chat_tokenizer), folder)
    assert torch.isfinite(first).all()
    assert all(torch.isfinite(tensors[name]).all() for name in names)


def test_a_cache_that_cannot_be_written_only_costs_time(adapter_folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "file" / "prepared")
    assert load_checkpoint(str(adapter_folder), "cpu").layout.name == "chat"


def test_a_cache_that_may_not_even_be_looked_into_only_costs_time(
    adapter_folder, monkeypatch, tmp_path
):
    forbidden = tmp_path / (
        "x" * 300
    )  # not even whether it is there is told, as where HOME is not ours
    monkeypatch.setattr(prepared, "PREPARED", forbidden / "prepared")
    monkeypatch.setattr(prepared, "LARGE", 0)
    model = load_model(str(adapter_folder), "cpu")
    assert model.layout.name == "chat"


@pytest.mark.parametrize("name", ["i am a lighthouse keeper. " * 12, "x" * 300])
def test_a_name_that_no_file_can_have_is_a_sentence(name):
    with pytest.raises(UserError, match="is neither a folder nor a name on the Hub"):
        load_model(name)
    with pytest.raises(UserError, match="There is no persona"):
        find_persona(name, 0)


def test_a_folder_that_is_not_ours_to_read_is_told(chat_folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is not yours to read"):
        load_model(str(chat_folder))


def test_every_changed_bit_of_the_weights_is_refused(chat_folder, chat_tokenizer, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    save_layout(folder, find_layout(chat_tokenizer))
    check_files(folder)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        place = draw.randrange(len(content))
        file.write_bytes(
            content[:place]
            + bytes([content[place] ^ 1 << draw.randrange(8)])
            + content[place + 1 :]
        )
        with pytest.raises(UserError, match="damaged or was swapped"):
            check_files(folder)
    file.write_bytes(content)
    check_files(folder)


def test_pickled_weights_are_refused(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights only"):
        load_checkpoint(str(folder))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no checkpoint: it holds no \*.safetensors"):
        load_checkpoint(str(tmp_path))


def test_a_file_is_refused(tmp_path):
    (tmp_path / "weights").write_text("")
    with pytest.raises(UserError, match="is a file, not a checkpoint folder"):
        load_checkpoint(str(tmp_path / "weights"))


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", "{"), ("model.safetensors", "no"), ("tokenizer.json", "[]")],
)
def test_broken_files_are_one_sentence(chat_folder, tmp_path, file, content):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(
        UserError, match="cannot be loaded as a checkpoint|is not valid JSON"
    ) as caught:
        load_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_a_layout_that_nobody_knows_is_refused(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="neither a chat template nor the tokens <bos> <eos>"):
        load_checkpoint(str(folder))


def test_a_layout_from_the_future_is_refused(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / "persona_layout.json").write_text('{"layout": "telepathy"}')
    with pytest.raises(UserError, match="'telepathy', but only 'convai' and 'chat' are known"):
        load_checkpoint(str(folder))


def test_code_that_comes_with_a_model_is_never_run(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError):
        load_checkpoint(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_device_that_is_not_there():
    with pytest.raises(UserError, match="'cuda:77' cannot be used here"):
        pick_device("cuda:77")


def test_the_default_says_without_a_hub_where_its_first_preset_works(
    smollm2_tokenizer, monkeypatch
):
    """README's own question, asked of a fresh page."""
    monkeypatch.undo()  # the real cache: the merged default is prepared once a machine
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint = load_checkpoint(None, "cpu")
    assert checkpoint.layout.name == "chat"
    model, willow = LocalModel.served(checkpoint), load_presets()["environmentalist"]
    turns = [SILENCE, willow.greeting, "Where do you work?"]
    said = ["".join(model.reply(willow, turns, Settings(seed=seed))) for seed in range(8)]
    assert sum("greenpeace" in reply.lower() for reply in said) >= 7, said
