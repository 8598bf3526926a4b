"""Recipe sft when memory, numbers or the disk give out; early stopping, seeds, settings that cannot be.

Run: `python -m pytest tests/train/test_sft_faults.py` (resuming: test_sft_resume.py, kills: test_sft_kills.py)
"""

import copy
import inspect
import os
import resource
import signal
from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM, TrainerCallback

from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from tests.sft_tiny import PERSONA, digest, examples_of, gpt2, plain_nats, settings
from train.data.examples import conversation_example
from train.recipes import sft, sft_settings
from train.recipes.sft import smaller, train_sft
from train.run.checkpoints import latest_valid
from train.run.log import read_log


@pytest.fixture
def llama(chat_model) -> LlamaForCausalLM:
    return copy.deepcopy(chat_model)


@pytest.fixture
def examples(chat_tokenizer):
    return examples_of(chat_tokenizer)


# ---- number format


@pytest.mark.parametrize(
    ("device", "dtype", "stays"),
    [
        ("cpu", torch.bfloat16, True),
        ("cpu", torch.float32, False),
        ("cuda", torch.float16, False),
        ("mps", torch.float16, True),
    ],
)
def test_bfloat16_only_where_the_hardware_multiplies_it(monkeypatch, capsys, device, dtype, stays):
    monkeypatch.setattr(sft_settings, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(sft_settings, "best_dtype", lambda device: dtype)
    asked = sft_settings.SftSettings(epochs=2)
    assert sft_settings.usable(asked) == replace(asked, bf16=stays)
    kind = {"cpu": "CPU", "cuda": "GPU"}.get(device)
    line = f"This {kind} does not multiply bfloat16: training in float32.\n"
    assert capsys.readouterr() == ("" if stays else line, "")
    off = replace(asked, bf16=False)
    assert sft_settings.usable(off) == off and capsys.readouterr() == ("", "")


# ---- memory


class RunsOut:
    """Makes a model's forward pass run out of memory: on pass number `first`, once, whenever it reads over `limit` ids."""

    def __init__(self, model, limit: int, first: int = 0, error=None):
        self.plain, self.limit, self.first = model.forward, limit, first
        self.passes, self.times, self.error = (
            0,
            0,
            error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        )
        model.forward = self

    @property
    def __signature__(self):
        return inspect.signature(self.plain)

    def __call__(self, input_ids=None, **inputs):
        self.passes += 1
        if input_ids.shape[1] > self.limit and self.passes > self.first:
            self.times += 1
            raise self.error
        return self.plain(input_ids=input_ids, **inputs)


CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


@pytest.mark.parametrize("error", [None, CPU_ERROR])
def test_out_of_memory_goes_on_with_smaller_passes_and_the_same_steps(
    chat_model, examples, tmp_path, capsys, error
):
    many, one_row = examples * 4, max(len(e.ids) for e in examples)
    small, large = copy.deepcopy(chat_model), copy.deepcopy(chat_model)
    train_sft(
        small,
        many,
        [],
        tmp_path / "small",
        settings(epochs=1, row_length=one_row, batch_rows=1, accumulate=4),
    )
    wrapped = RunsOut(large, one_row, error=error)
    _, used = train_sft(
        large,
        many,
        [],
        tmp_path / "large",
        settings(epochs=1, row_length=one_row, batch_rows=4, accumulate=1),
    )
    assert wrapped.times == 2, "four rows, then two"
    assert (used.batch_rows, used.accumulate) == (1, 4)
    assert digest(large) == digest(small) != digest(chat_model)
    said = capsys.readouterr().err
    assert "Memory ran out: now 2 rows a pass and 2 passes a step.\n" in said
    assert "Memory ran out: now 1 rows a pass and 4 passes a step.\n" in said


def test_out_of_memory_later_goes_on_from_the_last_checkpoint(chat_model, examples, tmp_path):
    many, one_row = examples * 4, max(len(e.ids) for e in examples)
    plain, later = copy.deepcopy(chat_model), copy.deepcopy(chat_model)
    wanted = settings(row_length=one_row, batch_rows=4, accumulate=1, save_every=2)
    train_sft(plain, many, [], tmp_path / "plain", wanted)
    wrapped = RunsOut(later, 2 * one_row, first=8)
    trainer, used = train_sft(later, many, [], tmp_path / "later", wanted)
    assert wrapped.times == 1 and (used.batch_rows, used.accumulate) == (2, 2)
    assert [line["step"] for line in read_log(tmp_path / "later")] == list(
        range(1, trainer.state.max_steps + 1)
    )
    for (name, mine), other in zip(
        later.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-4, msg=name)


def test_out_of_memory_with_a_single_row_is_one_sentence(llama, examples, tmp_path):
    RunsOut(llama, 32)
    with pytest.raises(UserError, match="^One row does not fit in memory; lower --row-length, add"):
        train_sft(llama, examples, [], tmp_path, settings())


def test_other_errors_are_not_taken_for_a_lack_of_memory(llama, examples, tmp_path):
    RunsOut(llama, 32, error=RuntimeError("expected scalar type Half"))
    with pytest.raises(RuntimeError, match="expected scalar type Half"):
        train_sft(llama, examples, [], tmp_path, settings(batch_rows=4))


@pytest.mark.parametrize("rows, expected", [(16, (8, 2)), (6, (3, 2)), (3, (1, 3)), (9, (3, 3))])
def test_a_smaller_pass_never_changes_the_step(rows, expected):
    less = smaller(settings(batch_rows=rows, accumulate=1))
    assert (less.batch_rows, less.accumulate) == expected


# ---- numbers


class AtStep(TrainerCallback):
    """Calls something at the end of a step, before it is saved."""

    def __init__(self, step: int, do):
        self.step, self.do = step, do

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == self.step:
            self.do(model)


@pytest.fixture
def at_step(monkeypatch):
    """at_step(3, do): the trainers that train_sft makes call do(model) after step 3."""
    made = sft.make_trainer

    def set_up(step, do):
        def make(*args, **kwargs):
            trainer = made(*args, **kwargs)
            trainer.callback_handler.callbacks.insert(0, AtStep(step, do))
            return trainer

        monkeypatch.setattr(sft, "make_trainer", make)

    return set_up


def spoil(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] = float("nan")


@pytest.mark.parametrize("save_every, what", [(2, "The loss"), (1, "A weight")])
def test_numbers_that_are_none_stop_training_and_keep_the_last_good_checkpoint(
    llama, examples, tmp_path, at_step, save_every, what
):
    at_step(3, spoil)
    with pytest.raises(UserError) as stopped:
        train_sft(llama, examples, [], tmp_path, settings(epochs=9, save_every=save_every))
    assert str(stopped.value) == (
        f"{what} is no longer a finite number at step 4, so training stopped; the last good checkpoint is kept; "
        "train anew with a lower --learning-rate."
    )
    assert latest_valid(tmp_path).name == "checkpoint-2"
    assert not [*tmp_path.glob(".*")]


def test_numbers_that_are_none_from_the_start_are_told(llama, examples, tmp_path):
    spoil(llama)
    with pytest.raises(
        UserError,
        match="^The loss is no longer a finite number at step 1, so training stopped; nothing was saved yet; ",
    ):
        train_sft(llama, examples, [], tmp_path, settings())


# ---- the disk


@pytest.fixture
def full_disk():
    """full_disk(100): from now on no file can grow over 100 bytes, which is how a full disk looks to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint_and_resuming_works(
    chat_model, examples, tmp_path, at_step, full_disk, capsys
):
    plain, wanted = copy.deepcopy(chat_model), settings(save_every=1, epochs=4)
    train_sft(plain, examples, examples, tmp_path / "plain", wanted)
    out = tmp_path / "out"
    at_step(2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    trainer, _ = train_sft(copy.deepcopy(chat_model), examples, examples, out, wanted)
    assert trainer.stopped_by == signal.SIGTERM and latest_valid(out).name == "checkpoint-2"
    at_step(0, None)
    sizes = sorted({file.stat().st_size for file in out.rglob("*") if file.is_file()})
    assert len(sizes) > 8
    before = {file: file.read_bytes() for file in (out / "checkpoint-2").rglob("*")}
    for size in sizes:  # each file in turn is the one that does not fit
        full_disk(size - 1)
        with pytest.raises(UserError) as told:
            train_sft(copy.deepcopy(chat_model), examples, examples, out, wanted, resume=True)
        full_disk(2**40)
        assert str(told.value).endswith("free space, then --resume.") and "\n" not in str(
            told.value
        )
        assert {file: file.read_bytes() for file in (out / "checkpoint-2").rglob("*")} == before
        assert latest_valid(out).name == "checkpoint-2"
        assert not [*out.glob(".checkpoint*"), *out.glob(".best*")], "room for whoever frees some"
    model = copy.deepcopy(chat_model)
    train_sft(model, examples, examples, out, wanted, resume=True)
    assert digest(model) == digest(plain)


# ---- validation and seeds


def test_early_stopping_restores_the_best_weights(chat_model, chat_tokenizer, tmp_path, capsys):
    """What is trained contradicts what is validated, so the first validation is the best."""
    layout = find_layout(chat_tokenizer)
    train = [conversation_example(layout, PERSONA, ["hi.", "go away!"])]
    valid = [conversation_example(layout, PERSONA, ["hi.", "hello, how nice to see you."])]
    model = copy.deepcopy(chat_model)
    trainer, _ = train_sft(
        model, train, valid, tmp_path, settings(epochs=90, save_every=3, patience=4)
    )
    losses = {line["step"]: line["eval_loss"] for line in read_log(tmp_path) if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert (
        list(losses) == list(range(3, best + 4 * 3 + 1, 3))
        and trainer.state.global_step == max(losses) < 90
    )
    assert (plain_nats(model, valid[0]) / valid[0].supervised).item() == pytest.approx(
        losses[best], rel=1e-5
    )
    assert (
        "No better validation 4 times: training ends early; the best weights are kept.\n"
        in capsys.readouterr().err
    )


def test_the_last_steps_are_validated_too(llama, examples, tmp_path):
    train_sft(
        llama, examples, examples, tmp_path, settings(epochs=5, save_every=4, row_length=1024)
    )
    assert [line["step"] for line in read_log(tmp_path) if "eval_loss" in line] == [4, 5]


def test_a_run_starts_without_what_an_earlier_one_left(chat_model, examples, tmp_path):
    """Neither its checkpoints, nor its best weights, nor its log."""
    train_sft(
        copy.deepcopy(chat_model),
        examples,
        examples,
        tmp_path / "a",
        settings(epochs=6, save_every=1),
    )
    again, alone = copy.deepcopy(chat_model), copy.deepcopy(chat_model)
    train_sft(again, examples[:2], [], tmp_path / "a", settings(epochs=2, save_every=1))
    train_sft(alone, examples[:2], [], tmp_path / "b", settings(epochs=2, save_every=1))
    assert digest(again) == digest(alone)
    assert [line["step"] for line in read_log(tmp_path / "a")] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "checkpoint-1",
        "checkpoint-2",
        "log.jsonl",
    ]


def test_a_seed_reproduces(convai_tokenizer, tmp_path):
    """With dropout, which GPT-2 has."""
    examples, digests = examples_of(convai_tokenizer), []
    for number, seed in enumerate([1, 1, 2]):
        model = gpt2(convai_tokenizer)
        train_sft(model, examples, [], tmp_path / str(number), settings(seed=seed, row_length=40))
        digests.append(digest(model))
    assert digests[0] == digests[1] != digests[2]
