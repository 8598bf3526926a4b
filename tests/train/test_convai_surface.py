"""ConvAIModel as a notebook uses it: the reference run's calls, every fault of stock mended, settings checked."""

import json
import secrets

import pytest
import torch

from tests.convai_data import QUIET, entries, make_bases, write

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from persona_bot.errors import UserError  # noqa: E402  (all of these after the skip)
from train.data.dialogues import Dialogue, Utterance, read_dialogues  # noqa: E402
from train.recipes import convai  # noqa: E402
from train.recipes.convai import ConvAIModel, train_convai  # noqa: E402
from train.recipes.convai_examples import ConvaiExamples, collate  # noqa: E402

REFERENCE_RUN = {
    "num_train_epochs": 5,
    "save_model_every_epoch": True,
    "train_batch_size": 6,
    "eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "overwrite_output_dir": True,
    "reprocess_input_data": False,
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the default output folder is outputs/


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    return make_bases(tmp_path_factory.mktemp("bases"), dropout=0.5)


@pytest.fixture
def model(bases) -> ConvAIModel:
    return ConvAIModel("gpt2", str(bases["gpt2"]), args=QUIET, use_cuda=False)


def test_the_reference_run(bases, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        convai,
        "fetch_personachat",
        lambda: write(tmp_path, {"train": entries(3), "valid": entries(20, 1)}, "public.json"),
    )
    model = ConvAIModel("gpt", str(bases["gpt"]), use_cuda=False, args=REFERENCE_RUN)
    assert model.train_model()[0] == 10, "two steps an epoch"
    epochs = sorted(path.name for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert epochs == sorted(f"checkpoint-{2 * k}-epoch-{k}" for k in range(1, 6))
    scores = model.eval_model()
    assert 0 <= scores["f1_score"] <= 1 < scores["language_model_loss"] < 5
    again = ConvAIModel("gpt", "outputs", use_cuda=False)
    assert again.args.train_batch_size == 6 and again.eval_model() == scores
    typed = iter(["Hello!", "Who are you?", "Where do you work?", "Do you have a car?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    again.interact(personality=["i sail ."])
    assert len(capsys.readouterr().out.splitlines()) == 4
    again.train_model(str(write(tmp_path, entries(1), "own.json")), args={"num_train_epochs": 1})


def test_bug_1_validation_during_training_works(model, tmp_path):
    file = str(write(tmp_path, entries(2)))
    _, evaluations = model.train_model(
        file, eval_file=file, args={"evaluate_during_training": True}
    )
    assert [set(record) for record in evaluations] == [
        {"step", "epoch", "language_model_loss", "f1_score"}
    ]


def test_bug_2_another_file_is_another_score_and_nothing_is_cached(model, tmp_path):
    first, second = (str(write(tmp_path, entries(5, seed), f"{seed}.json")) for seed in (1, 2))
    assert model.eval_model(first) != model.eval_model(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.json", "2.json", "outputs"]
    model.train_model(first)
    assert {path.suffix for path in (tmp_path / "outputs").iterdir()} == {
        ".json",
        ".safetensors",
        ".txt",
    }


def test_bug_3_the_output_folder_is_obeyed(model, tmp_path):
    model.train_model(str(write(tmp_path, entries(2))), output_dir="mine")
    assert (tmp_path / "mine" / "model.safetensors").exists()
    assert not (tmp_path / "outputs").exists()
    model.save_model("copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        tmp_path / "mine" / "model.safetensors"
    ).read_bytes()


def test_bug_4_no_dropout_in_chat_and_one_layout(model, tmp_path):
    model.args.do_sample = False
    model.model.train()
    first = [model.interact_single("hello ?", ["hi .", "yes ."], ["i sail ."])[0] for _ in range(4)]
    assert len(set(first)) == 1
    spoken = []
    model.model.transformer.register_forward_pre_hook(
        lambda _, args, options: spoken.append(options["token_type_ids"]), with_kwargs=True
    )
    for turns in range(8):  # of even and of odd number
        spoken.clear()
        model.interact_single("hello ?", ["hi ."] * turns, ["i sail ."])
        assert spoken[-1][0, -1] == model.layout.speaker1, "the reply is the persona's"


def test_bug_5_a_long_chat_is_cut_to_what_fits(model):
    text, history = model.interact_single("hello " * 5, ["hi there " * 20] * 40, ["i sail ."])
    assert len(history) == 42 and history[-1] == text
    with pytest.raises(UserError, match="this model has room for"):
        model.interact_single("hello " * 500, [], ["i sail ."])


def test_bug_7_a_batch_is_padded_to_its_own_longest(model, tmp_path):
    examples = ConvaiExamples(model.layout, read_dialogues(write(tmp_path, entries(2))), 160)
    lengths = [max(map(len, examples.sequences(number, 0).ids)) for number in range(len(examples))]
    short = lengths.index(min(lengths))
    assert (
        min(lengths)
        < max(lengths)
        == collate([examples.sequences(k, 0) for k in range(10)], 0).ids.shape[1]
    )
    assert collate([examples.sequences(short, 0)], 0).ids.shape == (2, min(lengths))


def test_bug_8_a_missing_persona_downloads_nothing(model, monkeypatch):
    monkeypatch.setattr(convai, "fetch_personachat", lambda: pytest.fail("a download"))
    monkeypatch.setattr(secrets, "randbits", lambda bits: 1)  # the longest fill this small model
    text, history = model.interact_single("hello ?", [])
    assert history == ["hello ?", text]


# ---- examples: where they differ from stock on purpose


def dialogues(count: int, candidates: int) -> list[Dialogue]:
    others = [f"other {k}" for k in range(candidates - 1)]
    return [
        Dialogue(("p",), (Utterance((f"q {k}",), (*others, f"gold {k}")),)) for k in range(count)
    ]


def test_other_candidates_are_used_each_epoch(model):
    examples = ConvaiExamples(model.layout, dialogues(1, 20), 160, candidates=2)
    drawn = [tuple(examples.candidates_of(0, epoch)) for epoch in range(40)]
    assert {len(texts) for texts in drawn} == {2} and {texts[-1] for texts in drawn} == {"gold 0"}
    assert len({texts[0] for texts in drawn}) > 12
    assert drawn[3] == tuple(examples.candidates_of(0, 3)), "the same epoch draws the same"
    assert (
        len(ConvaiExamples(model.layout, dialogues(1, 20), 160, candidates=0).candidates_of(0, 0))
        == 20
    )


def test_missing_candidates_come_from_other_dialogues(model):
    examples = ConvaiExamples(model.layout, dialogues(5, 1), 160, candidates=3)
    drawn = [examples.candidates_of(2, epoch) for epoch in range(20)]
    assert {len(texts) for texts in drawn} == {3} and {texts[-1] for texts in drawn} == {"gold 2"}
    assert {text for texts in drawn for text in texts[:-1]} == {
        "gold 0",
        "gold 1",
        "gold 3",
        "gold 4",
    }
    assert ConvaiExamples(model.layout, dialogues(1, 1), 160).candidates_of(0, 0) == ["gold 0"], (
        "there is no other dialogue"
    )


@pytest.mark.parametrize("persona", [{}, {"personality": ""}, {"personality": [" "]}])
def test_dialogues_without_a_persona_are_trained_on(model, tmp_path, persona):
    file = write(tmp_path, [{"utterances": entries(2)[2]["utterances"], **persona}])
    assert model.train_model(str(file), args={"personality_permutations": 2})[0] == 1


def test_a_history_too_long_for_the_model_loses_its_oldest_turns(model):
    history = ("hello " * 30, "x", "hello " * 60, "y", "old ?")
    one = Dialogue(("i sail .",), (Utterance(history, ("no .", "yes ! " * 9)),))
    sequences = ConvaiExamples(model.layout, [one], 120).sequences(0, 0)
    assert max(map(len, sequences.ids)) <= 120
    short = Dialogue(("i sail .",), (Utterance(("old ?",), ("no .", "yes ! " * 9)),))
    assert sequences == ConvaiExamples(model.layout, [short], 120).sequences(0, 0)


# ---- settings


@pytest.mark.parametrize(
    "args, message",
    [
        (
            {"num_train_epoch": 1},
            "ConvAIModel has no setting 'num_train_epoch'; did you mean 'num_train_epochs'?",
        ),
        ({"zzz": 1}, "ConvAIModel has no setting 'zzz'; leave it out."),
        (
            {"train_batch_size": 0},
            "The setting train_batch_size must be a whole number of at least 1; it is 0.",
        ),
        (
            {"num_train_epochs": 1.5},
            "The setting num_train_epochs must be a whole number of at least 1; it is 1.5.",
        ),
        (
            {"num_train_epochs": True},
            "The setting num_train_epochs must be a whole number of at least 1; it is True.",
        ),
        (
            {"learning_rate": float("nan")},
            "The setting learning_rate must be a number of at least 0; it is nan.",
        ),
        (
            {"learning_rate": "4e-5"},
            "The setting learning_rate must be a number of at least 0; it is '4e-5'.",
        ),
        (
            {"optimizer": "SGD"},
            "The setting optimizer must be one of AdamW, Adafactor; it is 'SGD'.",
        ),
        (
            {"wandb_project": "mine"},
            "The setting wandb_project is not supported here; leave it out.",
        ),
        (
            {"n_gpu": 2},
            "The recipe convai trains on one GPU; leave n_gpu out, or use recipe sft with accelerate launch.",
        ),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(bases, args, message):
    with pytest.raises(UserError) as caught:
        ConvAIModel("gpt2", str(bases["gpt2"]), args=args, use_cuda=False)
    assert str(caught.value) == message


def test_adafactor_needs_its_own_rate_off(bases):
    with pytest.raises(UserError, match="adafactor_relative_step"):
        ConvAIModel("gpt2", str(bases["gpt2"]), args={"optimizer": "Adafactor"}, use_cuda=False)


def test_a_folder_with_settings_of_another_version_still_loads(model, tmp_path):
    model.save_model("mine")
    file = tmp_path / "mine" / "model_args.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "setting_of_old": 1}))
    assert (
        ConvAIModel("gpt2", "mine", use_cuda=False).train_model(
            str(write(tmp_path, entries(2))), args=QUIET
        )[0]
        == 2
    )


def test_a_full_output_folder_is_refused_unless_asked_for(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    file = str(write(tmp_path, entries(2)))
    with pytest.raises(UserError, match="mine is not empty; set overwrite_output_dir"):
        model.train_model(file, "mine", args={"overwrite_output_dir": False})
    model.train_model(file, "mine", args={"overwrite_output_dir": True})
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear"
    with pytest.raises(UserError, match="diary.txt is a file"):
        model.train_model(file, str(tmp_path / "mine" / "diary.txt"))


def test_models_that_cannot_be_used_are_one_sentence(bases, tmp_path, chat_folder, monkeypatch):
    for name in (str(chat_folder), str(tmp_path)):
        with pytest.raises(
            UserError, match="is no GPT or GPT-2 checkpoint, which recipe convai needs"
        ):
            train_convai(name, dialogues(2, 2), None, tmp_path / "out")
    with pytest.raises(UserError, match="trains gpt and gpt2 here, not blender"):
        ConvAIModel("blender", "blender")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA GPU"):
        ConvAIModel("gpt2", str(bases["gpt2"]), use_cuda=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="broken cannot be loaded as a gpt2 model"):
        train_convai(str(tmp_path / "broken"), dialogues(2, 2), None, tmp_path / "out")


def test_nothing_is_saved_where_that_is_asked_for(bases, tmp_path):
    progress = train_convai(
        str(bases["gpt2"]), dialogues(3, 1), None, tmp_path / "out", {**QUIET, "no_save": True}
    )
    assert progress.finished and [*(tmp_path / "out").iterdir()] == []


LONG = Dialogue(("my dog is old .",), (Utterance(("hello ?",), ("yes . " * 400,)),))


def test_a_reply_that_does_not_fit_ends_no_training(model, tmp_path, capsys):
    """One whose own candidates fit, and one that a stranger's reply would be too long for, are trained on."""
    spoken = Dialogue(("i sail .",), (Utterance(("hello ?",), ("yes . " * 70,)),))
    crowded = Dialogue(("i sail . " * 40,), (Utterance(("hello ?",), ("no .",)),))
    data = [LONG, spoken, crowded]
    assert model.fit(data, [LONG, *dialogues(2, 2)], tmp_path / "out").step == 1
    told = "1 reply left out, the first: 'yes . yes . yes . yes . yes . yes . yes ' needs "
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith(told) for line in lines)
    assert lines[0].endswith(" tokens with its persona and message, and the model has 320.")
    examples = ConvaiExamples(model.layout, data, 320, candidates=3)
    assert [max(map(len, examples[k].ids)) <= 320 for k in range(2)] == [True, True]
    assert len(examples) == 2 and len(examples[1].ids) == 2
    with pytest.raises(UserError, match="^Not one reply fits in the model's 320 tokens with its"):
        model.fit([LONG], None, tmp_path / "out")


def test_a_reply_that_does_not_fit_is_not_scored(model, tmp_path):
    file = write(tmp_path, entries(3))
    long = {"personality": [], "utterances": [{"history": ["a"], "candidates": ["yes . " * 300]}]}
    assert model.eval_model(write(tmp_path, [*entries(3), long], "long.json")) == model.eval_model(
        file
    )
    with pytest.raises(UserError, match="^Not one reply fits"):
        model.eval_model(write(tmp_path, [long], "only.json"))
