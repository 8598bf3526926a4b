"""Recipe sft on tiny models: the packed loss, LoRA, one sum over packed passes, learning by heart.

Run: `python -m pytest tests/train/test_sft.py` (faults: test_sft_faults.py; resuming: test_sft_resume.py, kills: test_sft_kills.py)
"""

import copy
import json

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM, TrainerCallback

from persona_bot.checkpoints import prepared
from persona_bot.checkpoints.load import Checkpoint, load_checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.sft_tiny import digest, examples_of, gpt2, plain_nats, settings
from train.data.examples import conversation_example, pack
from train.recipes.base_model import save_trained
from train.recipes.collate import collate
from train.recipes.packed_trainer import check_model, summed_loss
from train.recipes.sft import add_lora, estimate, make_trainer, train_sft
from train.recipes.sft_settings import SftSettings
from train.run.log import StopSignals, draw_curve, read_log


@pytest.fixture
def llama(chat_model) -> LlamaForCausalLM:
    return copy.deepcopy(chat_model)


@pytest.fixture(params=["llama", "gpt2"])
def both(request, chat_tokenizer, convai_tokenizer):
    """(model, layout, examples) for a model without token types and one with."""
    tokenizer = chat_tokenizer if request.param == "llama" else convai_tokenizer
    model = request.getfixturevalue("llama") if request.param == "llama" else gpt2(tokenizer)
    return model, find_layout(tokenizer, max_turns=500), examples_of(tokenizer)


@pytest.fixture
def examples(chat_tokenizer):
    return examples_of(chat_tokenizer)


# ---- the loss


def test_a_packed_row_has_the_loss_and_gradients_of_separate_runs(both):
    model, _, examples = both
    sum(plain_nats(model, example) for example in examples).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total, count = summed_loss(model, collate([examples[:3], examples[3:]]))
    total.backward()
    assert count == sum(e.supervised for e in examples)
    torch.testing.assert_close(total, sum(plain_nats(model, example) for example in examples))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_logits_are_computed_at_supervised_positions_only(both):
    model, _, examples = both
    shapes = []
    model.lm_head.register_forward_hook(
        lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape))
    )
    summed_loss(model, collate([examples]))
    learnt, vocabulary = sum(e.supervised for e in examples), model.config.vocab_size
    assert shapes == [((1, learnt, 32), (1, learnt, vocabulary))]


def test_collate_restarts_positions(examples):
    batch = collate([examples[:1], examples[1:2]])
    a, b = len(examples[0].ids), len(examples[1].ids)
    assert batch["position_ids"].tolist() == [[*range(a), *range(b)]]
    assert batch["input_ids"].tolist() == [examples[0].ids + examples[1].ids]
    assert batch["labels"].tolist() == [examples[0].targets + examples[1].targets]
    assert "token_type_ids" not in batch


class Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


@pytest.mark.parametrize("rows, passes", [(1, 4), (2, 2), (4, 1), (3, 2)])
def test_every_supervised_token_of_a_step_weighs_the_same(llama, examples, tmp_path, rows, passes):
    """However the step is cut into passes, and although one row has seven times as much to learn as another."""
    supervised = [e.supervised for e in examples]
    assert max(supervised) > 7 * min(supervised)
    (sum(plain_nats(llama, example) for example in examples) / sum(supervised)).backward()
    expected = {name: p.grad.clone() for name, p in llama.named_parameters()}
    cut = settings(epochs=1, row_length=32, batch_rows=rows, accumulate=passes)
    trainer = make_trainer(llama, examples, [], tmp_path, cut, StopSignals())
    trainer.args.max_grad_norm = 0
    trainer.add_callback(seen := Gradients())
    llama.zero_grad()
    trainer.train()
    assert len(seen.steps) == 1
    for name, gradient in seen.steps[0].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_logged_losses_are_nats_per_supervised_token(llama, examples, tmp_path):
    tokens = sum(e.supervised for e in examples)
    before = sum(plain_nats(llama, e) for e in examples).item() / tokens
    model, _ = train_sft(
        llama, examples, examples, tmp_path, settings(epochs=1, row_length=2048, batch_rows=4)
    )
    after = sum(plain_nats(llama, e) for e in examples).item() / tokens
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [1, 1]
    assert lines[0]["loss"] == pytest.approx(before, rel=1e-5)
    assert lines[1]["eval_loss"] == pytest.approx(after, rel=1e-5)
    assert after < before
    draw_curve(tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_an_architecture_that_mixes_conversations_is_refused(llama, examples):
    plain = llama.forward

    def without_positions(input_ids, logits_to_keep=0, **_):
        return plain(input_ids, logits_to_keep=logits_to_keep)

    llama.forward = without_positions
    with pytest.raises(
        UserError,
        match="^llama models mix the conversations of a packed row; choose another base model.$",
    ):
        check_model(llama, examples[0])


# ---- LoRA and saving


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(prepared, "PREPARED", tmp_path / "prepared")


@pytest.mark.parametrize("bf16", [False, True])
def test_lora_leaves_the_base_alone_and_merges_to_what_was_trained(
    chat_folder, chat_tokenizer, llama, examples, tmp_path, no_cache, bf16
):
    before = {name: p.clone() for name, p in llama.state_dict().items()}
    base_type = torch.bfloat16 if bf16 else torch.float32
    rank_4 = settings(lora_rank=4, lora_alpha=8, bf16=bf16)
    model = add_lora(llama, rank_4)
    train_sft(model, examples, [], tmp_path / "out", rank_4)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    # two matrices on seven layers in two blocks
    assert all("lora_" in name for name in trained) and len(trained) == 2 * 7 * 2
    for name, p in model.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(p, before[name.replace(".base_layer", "")].to(base_type)), name
    assert max(p.abs().max() for name, p in trained.items() if "lora_B" in name) > 1e-3, (
        "it has learnt"
    )
    ids = torch.tensor([examples[1].ids])
    with torch.no_grad():
        expected, untrained = (
            model.eval()(ids).logits.float(),
            llama_logits(before, llama.config, ids),
        )
    save_trained(
        model, chat_tokenizer, find_layout(chat_tokenizer), str(chat_folder), tmp_path / "out"
    )
    assert (expected - untrained).abs().max() > 0.1
    for folder in (tmp_path / "out", tmp_path / "out" / "adapter"):
        loaded = load_checkpoint(str(folder), "cpu")
        with torch.no_grad():
            found = loaded.model(ids).logits.float()
        assert (found - expected).norm() < 0.03 * (
            expected - untrained
        ).norm() + 0.02 * expected.norm()
    assert json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(chat_folder)


def llama_logits(weights, config, ids) -> torch.Tensor:
    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    return model.eval()(ids).logits


# ---- learning by heart


def test_ten_dialogues_are_learnt_by_heart_and_said(both, tmp_path):
    model, layout, _ = both
    jobs = "bake drive sing paint swim teach sail dance cook write".split()
    chats = [
        [f"do you {job}?", f"yes, i {job} a lot.", f"{job}? since when?", f"since year {k}."]
        for k, job in enumerate(jobs)
    ]
    personas = [Persona("", (f"i {job}.",)) for job in jobs]
    examples = [conversation_example(layout, *pair) for pair in zip(personas, chats, strict=True)]
    model = grown(model)
    train_sft(
        model,
        examples,
        [],
        tmp_path,
        settings(epochs=40, learning_rate=6e-3, row_length=512, warmup=0.1, save_every=1000),
    )
    checkpoint = Checkpoint(
        model.eval(), layout.tokenizer, layout, "tiny", torch.device("cpu"), 256
    )
    greedy = Settings(
        temperature=0, guidance_scale=1, repetition_penalty=1, no_repeat_ngram=0, min_tokens=0
    )
    pairs = zip(personas, chats, strict=True)
    replies = [
        ["".join(LocalModel.plain(checkpoint).reply(persona, turns[:k], greedy)) for k in (1, 3)]
        for persona, turns in pairs
    ]
    assert replies == [turns[1::2] for turns in chats]


def grown(model):
    """A wider one of the same kind, without dropout, and with weights large enough to learn fast."""
    torch.manual_seed(0)
    config = copy.deepcopy(model.config)
    config.initializer_range = 0.1
    if isinstance(model, GPT2LMHeadModel):
        config.n_embd, config.attn_pdrop, config.embd_pdrop, config.resid_pdrop = 64, 0, 0, 0
    else:
        config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    return type(model)(config)


# ---- memory and settings


def test_gradient_checkpointing_changes_no_weight(both, tmp_path):
    """Less memory, the same training; GPT-2's dropout included."""
    model, _, examples = both
    digests = []
    for flag in (False, True):
        trained = copy.deepcopy(model)
        train_sft(
            trained,
            examples,
            [],
            tmp_path / str(flag),
            settings(epochs=2, gradient_checkpointing=flag),
        )
        assert trained.is_activation_checkpointing == flag
        digests.append(digest(trained))
    assert digests[0] == digests[1] != digest(model)


def test_the_estimate_leaves_the_model_as_it_is(llama, examples):
    before = digest(llama)
    rows = pack(examples, 256)
    cost = estimate(llama, rows, settings(epochs=5), torch.device("cpu"))
    assert 0 < cost.seconds < 60 and 0.01 < cost.gigabytes < 100
    assert cost.mfu > 0 and cost.tokens_per_s > 0
    assert digest(llama) == before and all(p.grad is None for p in llama.parameters())
    llama.forward = out_of_memory
    assert estimate(llama, rows, settings(), torch.device("cpu")) is None


def out_of_memory(*_, logits_to_keep=0, **__):
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    "field, value",
    [
        *[
            ("epochs", 0),
            ("epochs", float("nan")),
            ("learning_rate", -1e-4),
            ("learning_rate", float("inf")),
            ("row_length", 8),
        ],
        *[
            ("batch_rows", 0),
            ("accumulate", 0),
            ("warmup", 1.5),
            ("lora_rank", -1),
            ("lora_dropout", 1.0),
            ("save_every", 0),
            ("seed", -1),
        ],
    ],
)
def test_impossible_settings_are_one_sentence(field, value):
    flag = field.replace("_", "-")
    with pytest.raises(
        UserError,
        match=f"^--{flag} must be from .* to .*, not {value}; leave it out for the default.$",
    ):
        SftSettings(**{field: value})


def test_the_learning_rate_fits_what_is_trained():
    assert (SftSettings().learning_rate, SftSettings(lora_rank=0).learning_rate) == (4e-4, 5e-5)
