"""train/convai*.py against stock simpletransformers: ids, token types, labels, losses, steps, scores; folders go both ways.

Stock is the installed package, made to run by two patches only: a reader of files instead of the one that transformers
dropped, and a working `add_special_tokens_`. Its training loop, loss, evaluation and saving are its own.
"""

import pytest
import torch

from tests.convai_data import QUIET, STOCK, entries, make_bases, stock_dataset, write

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from persona_bot.checkpoints.load import load_checkpoint  # noqa: E402  (all of these after the skip)
from persona_bot.errors import UserError  # noqa: E402
from persona_bot.persona import Persona  # noqa: E402
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from train.data.dialogues import read_dialogues  # noqa: E402
from train.metrics.convai import convai_scores, macro_f1  # noqa: E402
from train.recipes import convai_base, convai_times  # noqa: E402
from train.recipes.convai import ConvAIModel  # noqa: E402
from train.recipes.convai_examples import ConvaiExamples, collate, losses  # noqa: E402


class Stock(convai_base.StockConvAIModel):
    add_special_tokens_ = ConvAIModel.add_special_tokens_


@pytest.fixture(autouse=True)
def stock_runs(monkeypatch, tmp_path):
    from simpletransformers.conv_ai import conv_ai_model

    monkeypatch.setattr(conv_ai_model, "get_dataset", stock_dataset)
    monkeypatch.chdir(tmp_path)  # stock leaves runs/, cache_dir/ and outputs/ where it stands


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(params=["gpt2", "gpt"])
def kind(request):
    return request.param


def both(kind: str, bases, **args):
    """Stock and ours from one base, with equal weights."""
    stock = Stock(kind, str(bases[kind]), args={**STOCK, **args}, use_cuda=False)
    ours = ConvAIModel(kind, str(bases[kind]), args={**QUIET, **args}, use_cuda=False)
    ours.model.load_state_dict(stock.model.state_dict())
    return stock, ours


# ---- examples and losses


@pytest.mark.parametrize("candidates", [2, 5])
def test_ids_types_labels_and_choices_are_stocks(kind, bases, tmp_path, candidates):
    file = write(tmp_path, entries(candidates))
    stock, ours = both(kind, bases)
    loader, _ = stock.load_and_cache_examples(str(file), evaluate=True, silent=True)
    examples = ConvaiExamples(ours.layout, read_dialogues(file), 160, candidates)
    assert len(examples) == len(loader.dataset) == 10
    for number, (ids, mc_ids, labels, mc_label, types) in enumerate(loader.dataset):
        mine = examples.sequences(number, epoch=0)
        assert mc_label == len(mine.ids) - 1 == candidates - 1
        for k in range(candidates):
            length = len(mine.ids[k])
            padding = ids.shape[-1] - length
            assert mine.ids[k] + [ours.layout.pad] * padding == ids[k].tolist()
            assert mine.token_types[k] + [ours.layout.pad] * padding == types[k].tolist()
            assert mc_ids[k] == length - 1
            learnt = [-100] * mine.start + mine.ids[k][mine.start :] + [-100] * padding
            assert labels[k].tolist() == (learnt if k == candidates - 1 else [-100] * len(learnt))


def test_both_losses_and_all_gradients_are_stocks(kind, bases, tmp_path):
    file = write(tmp_path, entries(2))
    stock, ours = both(kind, bases)
    loader, _ = stock.load_and_cache_examples(str(file), evaluate=True, silent=True)
    examples = ConvaiExamples(ours.layout, read_dialogues(file), 160)
    for model in (stock.model, ours.model):
        model.train().zero_grad()
    ids, mc_ids, labels, mc_labels, types = (
        torch.stack(column) for column in zip(*(loader.dataset[k] for k in range(6)), strict=True)
    )
    theirs = stock.model(
        ids, token_type_ids=types, mc_token_ids=mc_ids, labels=labels, mc_labels=mc_labels
    )
    batch = collate([examples.sequences(k, 0) for k in range(6)], ours.layout.pad)
    word, choice = losses(ours.model, batch)
    torch.testing.assert_close(word / len(batch.targets), theirs.loss)
    torch.testing.assert_close(choice / 6, theirs.mc_loss)
    (2 * theirs.loss + theirs.mc_loss).backward()
    (2 * word / len(batch.targets) + choice / 6).backward()
    for (name, mine), (_, other) in zip(
        ours.model.named_parameters(), stock.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


# epsilons well above rounding: some gradients are zero but for it, and both optimizers blow those
# up
SETTINGS = {
    "default": {},
    "accumulation": {"train_batch_size": 3, "gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
    "coefficients": {
        "lm_coef": 0.5,
        "mc_coef": 3.0,
        "max_history": 0,
        "weight_decay": 0.1,
        "personality_permutations": 2,
    },
    "cosine": {
        "scheduler": "cosine_schedule_with_warmup",
        "warmup_steps": 2,
        "adam_betas": [0.5, 0.9],
    },
    "adafactor": {
        "optimizer": "Adafactor",
        "adafactor_relative_step": False,
        "adafactor_warmup_init": False,
    },
}
SETTINGS["adafactor"] |= {"adafactor_eps": [1e-6, 1e-3]}


@pytest.mark.parametrize("name", SETTINGS)
def test_trained_weights_are_stocks(bases, tmp_path, monkeypatch, name):
    """Whole runs of both over the same data in the order of the file."""
    from simpletransformers.conv_ai import conv_ai_model

    monkeypatch.setattr(conv_ai_model, "RandomSampler", torch.utils.data.SequentialSampler)
    monkeypatch.setattr(convai_times, "epoch_order", lambda count, *_: list(range(count)))
    file = write(tmp_path, entries(2))
    args = {
        "train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
        "adam_epsilon": 1e-4,
        **SETTINGS[name],
    }
    stock, ours = both("gpt2", bases, **args)
    before = ours.model.lm_head.weight.clone()
    stock.train_model(str(file), output_dir=str(tmp_path / "stock"))
    steps, _ = ours.train_model(str(file), output_dir=str(tmp_path / "ours"))
    assert steps == {"accumulation": 6, "coefficients": 15}.get(name, 9)
    assert (ours.model.lm_head.weight - before).abs().max() > 1e-3
    for (name, mine), (_, other) in zip(
        ours.model.named_parameters(), stock.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-5, msg=name)


# ---- scores


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_scores_are_stocks(kind, bases, tmp_path, batch):
    file = write(tmp_path, entries(5, seed=2))
    stock, ours = both(kind, bases, eval_batch_size=batch)
    theirs = stock.eval_model(str(file), str(tmp_path / "scores"), verbose=False, silent=True)
    mine = ours.eval_model(str(file), str(tmp_path / "scores2"))
    assert mine == pytest.approx(theirs, abs=1e-5)
    assert 0 < theirs["f1_score"] < 1, "a score at the edge would show nothing"
    lines = (tmp_path / "scores2" / "eval_results.txt").read_text().splitlines()
    assert lines == [
        f"f1_score = {mine['f1_score']}",
        f"language_model_loss = {mine['language_model_loss']}",
    ]


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    for chosen in ([0], [3], [0, 0, 0], [0, 1, 0, 2, 2], [5, 4], [0, 0, 7, 0, 7, 1, 0, 0]):
        assert macro_f1(chosen) == pytest.approx(
            f1_score([0] * len(chosen), chosen, average="macro")
        )


def test_scores_need_a_ranking_head(convai_folder, tmp_path):
    checkpoint = load_checkpoint(str(convai_folder), "cpu")
    with pytest.raises(UserError, match="has no ranking head"):
        convai_scores(checkpoint, read_dialogues(write(tmp_path, entries(2))))


# ---- folders go both ways


def same(text: str, other: str) -> bool:
    """Equal but for blanks, as far as the shorter goes."""
    text, other = "".join(text.split()), "".join(other.split())
    return text[: len(other)] == other[: len(text)]


GREEDY = {
    "do_sample": False,
    "max_length": 12,
    "num_train_epochs": 60,
    "learning_rate": 1e-2,
    "train_batch_size": 10,
}
SPOKEN = entries(2)[3]  # a dialogue of four replies, all of them trained on


def answers(model) -> list[str]:
    """Greedy replies to the first three histories of SPOKEN: of one, three and five turns."""
    histories = [utterance["history"] for utterance in SPOKEN["utterances"][:3]]
    return [
        model.interact_single(history[-1], history[:-1], ["My dog is old ."])[0]
        for history in histories
    ]


def test_a_folder_of_stock_loads_here_and_answers_the_same(kind, bases, tmp_path):
    stock, _ = both(kind, bases, **GREEDY)
    stock.args.output_dir = str(tmp_path / "stock")
    stock.train_model(str(write(tmp_path, entries(2))))
    stock.model.eval()
    checkpoint = load_checkpoint(str(tmp_path / "stock"), "cpu", double_heads=True)
    assert (checkpoint.layout.name, checkpoint.layout.max_turns, checkpoint.ranking_head) == (
        "convai",
        5,
        True,
    )
    settings = Settings(
        temperature=0,
        guidance_scale=1,
        min_tokens=1,
        max_tokens=28,
        repetition_penalty=1,
        no_repeat_ngram=0,
    )
    page = "".join(
        LocalModel.plain(checkpoint).reply(
            Persona("", ("my dog is old .",)), SPOKEN["utterances"][0]["history"], settings
        )
    )
    ours = ConvAIModel(kind, str(tmp_path / "stock"), use_cuda=False)
    assert ours.args.num_train_epochs == 60, "a folder keeps its settings"
    theirs = answers(stock)
    assert len(set(theirs)) == 3 and all(theirs)
    assert same(page, theirs[0])
    assert all(map(same, answers(ours), theirs))


def test_a_folder_of_ours_loads_in_stock_and_answers_the_same(kind, bases, tmp_path):
    _, ours = both(kind, bases, **GREEDY)
    ours.train_model(str(write(tmp_path, entries(2))), output_dir=str(tmp_path / "ours"))
    stock = Stock(kind, str(tmp_path / "ours"), use_cuda=False)
    stock.model.eval()
    assert (stock.args.num_train_epochs, stock.args.manual_seed) == (60, 3)
    theirs = answers(stock)
    assert len(set(theirs)) == 3 and all(theirs)
    assert all(map(same, answers(ours), theirs))
    layout = load_checkpoint(str(tmp_path / "ours"), "cpu", double_heads=True).layout
    assert (layout.name, layout.max_turns) == ("convai", 5)
