"""Every setting of simpletransformers' ConvAIArgs: honoured, refused, or named as having no effect; nonsense is one sentence."""

import json
import shutil
from dataclasses import fields

import pytest

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from sklearn.metrics import accuracy_score  # noqa: E402  (simpletransformers needs it)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from persona_bot.checkpoints.load import load_checkpoint  # noqa: E402
from persona_bot.errors import UserError  # noqa: E402  (all of these after the skip)
from tests.convai_data import QUIET, entries, make_bases, write  # noqa: E402
from train.convai import ConvAIArgs, ConvAIModel  # noqa: E402
from train.data.dialogues import Dialogue, Utterance  # noqa: E402
from train.recipes.convai_base import check_encoding, folder_class  # noqa: E402
from train.recipes.convai_settings import (  # noqa: E402
    HONOURED,
    NO_EFFECT,
    REFUSED,
    as_dict,
    check_args,
    tell_without_effect,
)
from train.recipes.pipelines import read_settings  # noqa: E402

DEFAULTS = ConvAIArgs()
ALL = [field.name for field in fields(ConvAIArgs)]


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    return make_bases(tmp_path_factory.mktemp("bases"))


def test_every_setting_is_in_one_list():
    assert sorted([*HONOURED, *REFUSED, *NO_EFFECT]) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_its_default_is_taken_and_not_spoken_of(name, capsys):
    default = getattr(DEFAULTS, name)
    if name == "adafactor_relative_step" or default is None or not default:
        check_args({name: default})
    else:
        assert check_args({name: default}) == {name: default}
    tell_without_effect({name: default})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_honoured_is_refused(name):
    with pytest.raises(UserError, match=f"^The setting {name} is not supported here; leave it out"):
        check_args({name: "mine"})


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_what_has_no_effect_is_named(name, capsys):
    tell_without_effect(check_args({name: "mine"}))
    assert capsys.readouterr().err == f"Without effect here: {name} ({NO_EFFECT[name]}).\n"


@pytest.mark.parametrize("name", sorted(HONOURED - {"not_saved_args"}))
@pytest.mark.parametrize("nonsense", [object(), float("nan"), -3, 1e30, "abc", [], {}])
def test_nonsense_for_a_setting_that_counts_is_one_sentence_or_taken(name, nonsense):
    """Never another error; `abc` and an object are wrong for every setting but a name."""
    try:
        check_args({name: nonsense})
    except UserError as error:
        assert "\n" not in str(error) and name in str(error)
    else:
        assert nonsense not in ("abc",) or name == "output_dir"
        assert type(nonsense) is not object


@pytest.mark.parametrize(
    "name, value",
    [
        ("adam_betas", 5),
        ("adam_betas", (0.9, 1.0)),
        ("manual_seed", "abc"),
        ("top_p", 7),
        ("temperature", -3),
        ("adam_epsilon", -1),
        ("early_stopping_metric", "foo"),
        ("gradient_accumulation_steps", 1e9),
        ("fp16", "yes"),
    ],
)
def test_values_that_a_review_got_through(name, value):
    with pytest.raises(UserError, match=f"^The setting {name} must be .*; it is "):
        check_args({name: value})


def test_whole_numbers_may_be_written_with_a_point(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = {"train_batch_size": 2, "eval_batch_size": 3, "max_history": 1, "num_candidates": 2}
    whole |= {"personality_permutations": 2, "manual_seed": 5, "gradient_accumulation_steps": 2}
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args={**QUIET, **whole}, use_cuda=False)
    other = ConvAIModel(
        "gpt2",
        str(bases["gpt2"]),
        args={**QUIET, **{name: float(value) for name, value in whole.items()}},
        use_cuda=False,
    )
    file = str(write(tmp_path, entries(2)))
    assert other.train_model(file) == model.train_model(file)
    assert repr(other.args) == repr(model.args)
    assert read_settings(["train_batch_size=2.0"]) == {"train_batch_size": 2}


def test_metrics_are_computed_of_labels_and_predictions(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args=QUIET, use_cuda=False)
    file = str(write(tmp_path, entries(3)))
    asked = {"acc": accuracy_score, "gold": lambda labels, _: labels}
    model.args.eval_batch_size = 1
    scores = model.eval_model(file, **asked)
    assert scores["acc"] == scores["f1_score"] and scores["gold"] == [2] * 10
    assert f"acc = {scores['acc']}\n" in (tmp_path / "outputs" / "eval_results.txt").read_text()
    args = {"evaluate_during_training": True}
    _, (made,) = model.train_model(file, eval_file=file, args=args, **asked)
    assert made["gold"] == [2] * 10 and 0 <= made["acc"] <= 1
    told = "^acc is no argument here, and no metric, which is a function of labels and predictions;"
    for call in (model.eval_model, model.train_model):
        with pytest.raises(UserError, match=told):
            call(file, acc="accuracy")


def test_options_of_loading_are_refused_by_name(bases):
    with pytest.raises(UserError, match="^ConvAIModel takes no cache_dir, proxies here; leave it"):
        ConvAIModel("gpt2", str(bases["gpt2"]), cache_dir="x", proxies={})


def test_settings_as_an_object_are_settings_as_a_dict(bases):
    args = ConvAIArgs(num_train_epochs=3, max_history=1, manual_seed=7)
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args=args, use_cuda=False)
    assert (model.args.num_train_epochs, model.args.max_history, model.args.manual_seed) == (
        3,
        1,
        7,
    )
    with pytest.raises(UserError, match="^args must be a dict or a ConvAIArgs, not list.$"):
        as_dict([("num_train_epochs", 3)])
    with pytest.raises(UserError, match="num_train_epochs must be a whole number"):
        ConvAIModel("gpt2", str(bases["gpt2"]), args=ConvAIArgs(num_train_epochs=0))


def test_what_is_saved_trains_on_in_stock_without_a_validation_file(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = {**QUIET, "evaluate_during_training": True}
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args=args, use_cuda=False)
    model.save_model("out")
    saved = json.loads((tmp_path / "out" / "model_args.json").read_text())
    assert saved["evaluate_during_training"] is False and model.args.evaluate_during_training


def test_train_model_takes_an_object_and_one_dialogue(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args=QUIET, use_cuda=False)
    args = ConvAIArgs(**{**QUIET, "num_train_epochs": 2, "overwrite_output_dir": True})
    steps, _ = model.train_model(str(write(tmp_path, entries(1))), args=args)
    assert steps >= 2


def test_a_history_of_ids_goes_on_in_ids(bases):
    model = ConvAIModel("gpt2", str(bases["gpt2"]), args={**QUIET, "do_sample": False})
    text, history = model.interact_single("hello", ["hi", "you"], ["i sail."])
    encode = model.layout.encode
    ids = [encode("hi"), encode("you")]
    again, answered = model.interact_single("hello", ids, ["i sail."], encode_history=False)
    assert (again, history) == (text, ["hi", "you", "hello", text])
    assert answered == [*ids, encode("hello"), encode(text)]


def test_a_tokenizer_that_makes_nothing_of_the_language_is_refused():
    class Deaf:
        def encode(self, text):
            return []

    dialogue = Dialogue(("i sail.",), (Utterance(("hi",), ("我喜欢海。",)),))
    with pytest.raises(UserError, match="^The tokenizer of mine encodes '我喜欢海。' to nothing"):
        check_encoding(Deaf(), [dialogue], "mine")


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "TokenizersBackend", None])
def test_a_folder_s_own_way_of_splitting_is_kept(bases, tmp_path, named):
    """KoGPT2's kind: BPE that marks where words begin, of no GPT's class."""
    text, folder = "나는 벌을 키워요 and bees", tmp_path / "ko"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator([text] * 3, trainer)
    shutil.copytree(bases["gpt2"], folder, ignore=shutil.ignore_patterns("vocab*", "merges*"))
    tokenizer.save(str(folder / "tokenizer.json"))
    if named:
        write(folder, {"tokenizer_class": named}, "tokenizer_config.json")
    model = ConvAIModel("gpt2", str(folder), args=QUIET, use_cuda=False)
    model.save_model(tmp_path / "out")
    for layout in (model.layout, load_checkpoint(str(tmp_path / "out"), "cpu").layout):
        assert layout.encode(text) == tokenizer.encode(text).ids
        assert layout.decode(layout.encode(text)) == text


def test_the_folder_says_which_tokenizer(tmp_path):
    assert folder_class(str(tmp_path)) == "GPT2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert folder_class(str(tmp_path)) == "BertTokenizer"
