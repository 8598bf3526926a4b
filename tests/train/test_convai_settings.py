"""Every setting of simpletransformers' ConvAIArgs: honoured, refused, or named as having no effect; nonsense is one sentence."""

import json
from dataclasses import fields

import pytest

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

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


def test_the_folder_says_which_tokenizer(tmp_path):
    assert folder_class(str(tmp_path)) == "GPT2Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert folder_class(str(tmp_path)) == "BertTokenizer"
