"""train/convai*.py against stock simpletransformers: ids, token types, labels, losses, steps, scores; folders go both ways.

Stock is the installed package, made to run by two patches only: a reader of files instead of the one that transformers
dropped, and a working `add_special_tokens_`. Its training loop, loss, evaluation and saving are its own.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2DoubleHeadsModel, OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements.txt")

from persona_bot.checkpoint import load_checkpoint  # noqa: E402  (all of these after the skip)
from persona_bot.errors import UserError  # noqa: E402
from persona_bot.generation import Settings, stream_reply  # noqa: E402
from persona_bot.persona import Persona  # noqa: E402
from persona_bot.prompt import CONVAI_TOKENS  # noqa: E402
from train import convai, convai_loop  # noqa: E402
from train.convai import ConvAIModel, train_convai  # noqa: E402
from train.convai_examples import ConvaiExamples, collate, losses  # noqa: E402
from train.convai_loop import Hooks  # noqa: E402
from train.dialogues import read_dialogues  # noqa: E402
from train.scores_convai import convai_scores, macro_f1  # noqa: E402

PERSONAS = [("i keep bees .", "i am afraid of heights ."), ("i sail .",), ("i cook .", "i hate rain .", "i am ten ."), ("my dog is old .",)]
WORDS = "hello you are me dog bee sea rain cook like hate old what do where yes no ? . ! the a".split()
QUIET = {"silent": True, "overwrite_output_dir": True, "num_train_epochs": 1, "save_model_every_epoch": False, "manual_seed": 3}
STOCK = {**QUIET, "no_cache": True, "process_count": 1, "use_multiprocessing": False, "save_steps": -1}


def entries(candidates: int, seed: int = 0) -> list[dict]:
    """Four dialogues of one to four replies; the second begins with the persona."""
    rng = torch.Generator().manual_seed(seed)

    def say() -> str:
        length = int(torch.randint(2, 9, (), generator=rng))
        return " ".join(WORDS[k] for k in torch.randint(len(WORDS), (length,), generator=rng))

    result = []
    for number, persona in enumerate(PERSONAS):
        turns, utterances = ["__SILENCE__" if number == 1 else say()], []
        for _ in range(number + 1):
            gold = say()
            utterances.append({"history": list(turns), "candidates": [*(say() for _ in range(candidates - 1)), gold]})
            turns += [gold, say()]
        result.append({"personality": list(persona), "utterances": utterances})
    return result


def write(folder: Path, content, name: str = "data.json") -> Path:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


def stock_dataset(tokenizer, path, *_, **__):
    """What stock's own get_dataset returns for a local file: every text as ids."""

    def tokenize(value):
        if isinstance(value, str):
            return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
        return {k: tokenize(v) for k, v in value.items()} if isinstance(value, dict) else [tokenize(v) for v in value]

    return tokenize(json.loads(Path(path).read_text(encoding="utf-8")))


class Stock(convai.StockConvAIModel):
    add_special_tokens_ = ConvAIModel.add_special_tokens_


@pytest.fixture(autouse=True)
def stock_runs(monkeypatch, tmp_path):
    from simpletransformers.conv_ai import conv_ai_model

    monkeypatch.setattr(conv_ai_model, "get_dataset", stock_dataset)
    monkeypatch.chdir(tmp_path)  # stock leaves runs/, cache_dir/ and outputs/ where it stands


@pytest.fixture(scope="session")
def bases(tmp_path_factory, gpt_tokenizer) -> dict[str, Path]:
    """An untrained GPT and an untrained GPT-2 without the five tokens, without dropout, as folders."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "gpt2").mkdir()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save_model(str(folder / "gpt2"))
    torch.manual_seed(1)
    size = {"n_positions": 160, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 1}
    size |= {"attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0, "summary_first_dropout": 0}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    GPT2DoubleHeadsModel(GPT2Config(vocab_size=tokenizer.get_vocab_size(), **ids, **size)).save_pretrained(folder / "gpt2")
    OpenAIGPTDoubleHeadsModel(OpenAIGPTConfig(vocab_size=len(gpt_tokenizer) - 5, **size)).save_pretrained(folder / "gpt")
    words = {token: k for token, k in gpt_tokenizer.get_vocab().items() if token not in CONVAI_TOKENS}
    type(gpt_tokenizer)(vocab=words, merges=[]).save_pretrained(folder / "gpt")
    return {"gpt": folder / "gpt", "gpt2": folder / "gpt2"}


@pytest.fixture(params=["gpt2", "gpt"])
def kind(request) -> str:
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
    ids, mc_ids, labels, mc_labels, types = (torch.stack(column) for column in zip(*(loader.dataset[k] for k in range(6)), strict=True))
    theirs = stock.model(ids, token_type_ids=types, mc_token_ids=mc_ids, labels=labels, mc_labels=mc_labels)
    batch = collate([examples.sequences(k, 0) for k in range(6)], ours.layout.pad)
    word, choice = losses(ours.model, batch)
    torch.testing.assert_close(word / len(batch.targets), theirs.loss)
    torch.testing.assert_close(choice / 6, theirs.mc_loss)
    (2 * theirs.loss + theirs.mc_loss).backward()
    (2 * word / len(batch.targets) + choice / 6).backward()
    for (name, mine), (_, other) in zip(ours.model.named_parameters(), stock.model.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


SETTINGS = {  # epsilons well above rounding: some gradients are zero but for it, and both optimizers blow those up
    "default": {},
    "accumulation": {"train_batch_size": 3, "gradient_accumulation_steps": 2, "max_grad_norm": 0.1},
    "coefficients": {"lm_coef": 0.5, "mc_coef": 3.0, "max_history": 0, "weight_decay": 0.1, "personality_permutations": 2},
    "cosine": {"scheduler": "cosine_schedule_with_warmup", "warmup_steps": 2, "adam_betas": [0.5, 0.9]},
    "adafactor": {"optimizer": "Adafactor", "adafactor_relative_step": False, "adafactor_warmup_init": False, "adafactor_eps": [1e-6, 1e-3]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_trained_weights_are_stocks(bases, tmp_path, monkeypatch, name):
    """Whole runs of both over the same data in the order of the file."""
    from simpletransformers.conv_ai import conv_ai_model

    monkeypatch.setattr(conv_ai_model, "RandomSampler", torch.utils.data.SequentialSampler)
    monkeypatch.setattr(convai_loop, "epoch_batches", lambda n, size, *_: [list(range(k, min(k + size, n))) for k in range(0, n, size)])
    file = write(tmp_path, entries(2))
    args = {"train_batch_size": 4, "num_train_epochs": 3, "learning_rate": 1e-2, "adam_epsilon": 1e-4, **SETTINGS[name]}
    stock, ours = both("gpt2", bases, **args)
    before = ours.model.lm_head.weight.clone()
    stock.train_model(str(file), output_dir=str(tmp_path / "stock"))
    steps, _ = ours.train_model(str(file), output_dir=str(tmp_path / "ours"))
    assert steps == {"accumulation": 6, "coefficients": 15}.get(name, 9)
    assert (ours.model.lm_head.weight - before).abs().max() > 1e-3
    for (name, mine), (_, other) in zip(ours.model.named_parameters(), stock.model.named_parameters(), strict=True):
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
    assert lines == [f"f1_score = {mine['f1_score']}", f"language_model_loss = {mine['language_model_loss']}"]


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    for chosen in ([0], [3], [0, 0, 0], [0, 1, 0, 2, 2], [5, 4], [0, 0, 7, 0, 7, 1, 0, 0]):
        assert macro_f1(chosen) == pytest.approx(f1_score([0] * len(chosen), chosen, average="macro"))


def test_scores_need_a_ranking_head(convai_folder, tmp_path):
    checkpoint = load_checkpoint(str(convai_folder), "cpu")
    with pytest.raises(UserError, match="has no ranking head"):
        convai_scores(checkpoint, read_dialogues(write(tmp_path, entries(2))))
