"""What train.finetune refuses, in one sentence and with status 2; how it reads its data and settings; GPT-2 with recipe sft.

Run: `python -m pytest tests/train/test_finetune_inputs.py`
"""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.convai_data import make_bases
from tests.hub_server import Hub, use
from train import finetune
from train.data.dialogues import read_dialogues
from train.data.sources import split_count
from train.finetune import parse, read_data
from train.recipes.pipelines import duration, read_settings

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "train" / "example_dialogues.json")


def refusal(arguments: list[str], capsys) -> str:
    """What a command says that must end with status 2 and one line on stderr."""
    capsys.readouterr()  # what a fixture has said that is made for this test
    with pytest.raises(SystemExit) as ended:
        finetune.main(arguments)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    return err.strip()


def test_recipe_convai_without_simpletransformers(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "simpletransformers", None)
    told = refusal(
        ["--recipe", "convai", "--data", EXAMPLE, "--out", str(tmp_path / "out")], capsys
    )
    assert told.startswith("Recipe convai needs simpletransformers; run `pip install ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (
            ["--limit", "0"],
            "--limit must be at least 1, not 0; leave it out to train on everything.",
        ),
        (["--score-dialogues", "-1"], "--score-dialogues must be at least 0, not -1."),
        (
            ["--epochs", "-1"],
            "--epochs must be from 0.001 to 1000, not -1.0; leave it out for the default.",
        ),
        (
            ["--learning-rate", "nan"],
            "--learning-rate must be from 1e-09 to 1, not nan; leave it out for the default.",
        ),
        (
            ["--space", "user/space"],
            "--space needs --publish USER/NAME, the model that it chats with.",
        ),
        (
            ["--set", "fp16=False"],
            "--set fp16=False belongs to recipe convai; recipe sft has flags, see --help.",
        ),
        (
            ["--recipe", "convai", "--row-length", "9"],
            "--row-length belongs to recipe sft; for convai give simpletransformers' own, like --set num_train_epochs=5.",
        ),
        (
            ["--data", "nowhere.json"],
            "nowhere.json cannot be read (No such file or directory); name a file of dialogues.",
        ),
        (
            ["--valid", "nowhere.json"],
            "nowhere.json cannot be read (No such file or directory); name a file of dialogues.",
        ),
    ],
)
def test_a_command_line_that_cannot_work_is_one_sentence(tmp_path, capsys, arguments, told):
    assert refusal(["--data", EXAMPLE, "--out", str(tmp_path / "new"), *arguments], capsys) == told
    assert not list((tmp_path / "new").glob("*"))


@pytest.mark.parametrize(
    "setting, told",
    [
        (
            "num_train_epochs",
            "--set num_train_epochs has no value; write it like --set num_train_epochs=5.",
        ),
        (
            "num_train_epochs=0",
            "The setting num_train_epochs must be a whole number of at least 1; it is 0.",
        ),
        ("num_train_epochs=five", "--set num_train_epochs must be a number, not 'five'."),
        ("fp16=yes", "--set fp16 must be True or False, not 'yes'."),
        (
            "num_epochs=5",
            "ConvAIModel has no setting 'num_epochs'; did you mean 'num_train_epochs'?",
        ),
        ("wandb_project=mine", "The setting wandb_project is not supported here; leave it out."),
    ],
)
def test_a_setting_of_convai_that_cannot_be_is_one_sentence(tmp_path, capsys, setting, told):
    arguments = [
        "--data",
        EXAMPLE,
        "--out",
        str(tmp_path / "new"),
        "--recipe",
        "convai",
        "--set",
        setting,
    ]
    assert refusal(arguments, capsys) == told


def test_settings_of_convai_have_their_types():
    given = [
        "num_train_epochs=5",
        "learning_rate=1",
        "fp16=false",
        "scheduler=constant_schedule",
        "adam_betas=[0.5, 0.9]",
        "manual_seed=3",
    ]
    assert read_settings([*given, "early_stopping_metric=f1_score"]) == {
        "num_train_epochs": 5,
        "learning_rate": 1,
        "fp16": False,
        "scheduler": "constant_schedule",
        "adam_betas": (0.5, 0.9),
        "manual_seed": 3,
        "early_stopping_metric": "f1_score",
    }


def test_a_bad_entry_is_named(tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(
        '[{"personality": ["i sail."], "utterances": [{"history": ["hi"], "candidates": [7]}]}]'
    )
    assert refusal(["--data", str(file), "--out", str(tmp_path / "new")], capsys).startswith(
        f"{file}: entry 1, utterance 1"
    )


def test_out_must_be_a_new_or_empty_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    def told(out):
        return refusal(["--data", EXAMPLE, "--out", str(tmp_path / out)], capsys)

    assert told("file") == f"{tmp_path}/file is a file; name a folder for --out."
    assert (
        told("file/new")
        == f"{tmp_path}/file/new cannot be made (Not a directory); name another folder for --out."
    )
    assert (
        told("full")
        == f"{tmp_path}/full is not empty; --resume goes on with the training in it, --overwrite trains anew over it."
    )
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_bases_that_cannot_be_trained(tmp_path, capsys, chat_folder, monkeypatch):
    def told(model, *more):
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        return refusal(
            ["--data", EXAMPLE, "--out", str(tmp_path / "new"), "--model", str(model), *more],
            capsys,
        )

    broken = shutil.copytree(chat_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\xff" * 99)
    assert told(broken).startswith(f"{broken} cannot be loaded as a base model (")
    adapter = shutil.copytree(chat_folder, tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    assert told(adapter) == (
        f"{adapter}/adapter_config.json does not name the adapter's base model; train it again, or start from a base model."
    )
    assert told(tmp_path).startswith(
        f"{tmp_path} is no checkpoint: it holds no *.safetensors or *.gguf file; "
    )
    gpt = shutil.copytree(chat_folder, tmp_path / "gpt")
    size = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 1}
    OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=400, **size)).save_pretrained(gpt)
    assert (
        told(gpt)
        == "openai-gpt cannot be trained on packed rows; use --recipe convai for it, or gpt2 here."
    )
    assert told(chat_folder, "--recipe", "convai").startswith(
        f"{chat_folder} is no GPT or GPT-2 checkpoint, which recipe convai needs; "
    )
    assert told(chat_folder, "--row-length", "40") == (
        "Not one exchange fits into 40 tokens with its persona; raise --row-length, or shorten the personas."
    )
    with Hub() as hub:
        use(hub, monkeypatch, tmp_path / "home")
        assert "nobody/nothing" in told("nobody/nothing")


def test_publishing_is_checked_before_anything_else(tmp_path, capsys, monkeypatch):
    with Hub() as hub:
        use(hub, monkeypatch, tmp_path / "home")
        told = refusal(
            ["--data", "nowhere.json", "--out", str(tmp_path / "new"), "--publish", "user/bees"],
            capsys,
        )
    assert (
        told
        == f"No token for {hub.url} is set; run `hf auth login`, or set HF_TOKEN to a token that may write."
    )


def test_ctrl_c_outside_of_the_steps_is_one_line(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "train_with_sft", interrupted)
    with pytest.raises(SystemExit) as ended:
        finetune.main(["--data", EXAMPLE, "--out", str(tmp_path / "new")])
    assert ended.value.code == 130
    assert (
        capsys.readouterr().err
        == "Interrupted; the same command with --resume goes on from the last checkpoint, if there is one.\n"
    )


# ---- data


def options(*arguments: str):
    return parse(["--out", "new", *arguments])


def test_a_file_with_parts_is_trained_and_validated_on_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, valid = read_data(options("--data", EXAMPLE))
    assert sorted(train) == sorted(read_dialogues(EXAMPLE, "train"))
    assert valid == read_dialogues(EXAMPLE, "valid")


def test_without_a_validation_part_some_dialogues_are_held_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = json.loads(Path(EXAMPLE).read_text(encoding="utf-8"))["train"][:8] * 5
    for number, entry in enumerate(entries):
        entries[number] = {**entry, "personality": [f"i am number {number}."]}
    (tmp_path / "list.json").write_text(json.dumps(entries))
    train, valid = read_data(options("--data", "list.json"))
    assert (len(train), len(valid)) == (38, 2)
    assert sorted([*train, *valid]) == sorted(read_dialogues("list.json"))
    assert read_data(options("--data", "list.json")) == (train, valid), (
        "the same ones again, also after --resume"
    )
    some, valid = read_data(
        options(
            "--data", "list.json:10", "--data", f"{EXAMPLE}:3", "--valid", EXAMPLE, "--limit", "12"
        )
    )
    assert (len(some), valid) == (12, read_dialogues(EXAMPLE, "valid"))


def test_held_out_copies_of_training_dialogues_are_told(tmp_path, capsys):
    entries = json.loads(write_dialogues(tmp_path, 20).read_text()) * 2
    (tmp_path / "twice.json").write_text(json.dumps(entries))
    read_data(options("--data", str(tmp_path / "twice.json")))
    told = "2 of 2 held-out dialogues stand in the training data too: scores on these are better"
    assert told in capsys.readouterr().out


def test_a_first_difference_needs_wrong_candidates(tmp_path, capsys):
    entries = json.loads(write_dialogues(tmp_path, 2).read_text())
    for utterance in [u for entry in entries for u in entry["utterances"]]:
        utterance["candidates"] = utterance["candidates"][-1:]
    (tmp_path / "bare.json").write_text(json.dumps(entries))
    base, out = make_bases(tmp_path)["gpt2"], tmp_path / "out"
    given = ["--model", str(base), "--data", str(tmp_path / "bare.json"), "--out", str(out)]
    told = "--first-difference learns from wrong candidates, and no reply of the data has some; leave it out."
    assert refusal([*given, "--no-bf16", "--first-difference", "3"], capsys) == told


def write_dialogues(folder: Path, count: int, name: str = "some.json") -> Path:
    """A list of `count` different dialogues."""
    entries = json.loads(Path(EXAMPLE).read_text(encoding="utf-8"))["train"] * 3
    made = [{**entry, "personality": [f"i am {k}."]} for k, entry in enumerate(entries[:count])]
    (folder / name).write_text(json.dumps(made))
    return folder / name


@pytest.mark.parametrize("count, held_out", [(1, 0), (2, 0), (19, 0), (20, 1), (24, 1)])
def test_a_handful_of_dialogues_is_trained_on_whole(tmp_path, capsys, count, held_out):
    file = str(write_dialogues(tmp_path, count))
    train, valid = read_data(options("--data", file))
    assert (len(train), len(valid)) == (count - held_out, held_out)
    said = capsys.readouterr().out
    assert ("Nothing is held out of " in said) == (held_out == 0)
    assert ("of 1 dialogue:" in said) == (count == 1)


@pytest.mark.parametrize("recipe", ["sft", "convai"])
def test_the_tutorials_one_dialogue_trains(tmp_path, capsys, recipe):
    """What train.dialogues calls fine, train.finetune trains on."""
    file, out = write_dialogues(tmp_path, 1), tmp_path / "out"
    base = make_bases(tmp_path)["gpt2"]
    more = ["--epochs", "2"] if recipe == "sft" else ["--set", "num_train_epochs=2"]
    given = ["--recipe", recipe, "--model", str(base), "--data", str(file), "--out", str(out)]
    finetune.main([*given, *more])
    said = capsys.readouterr().out
    assert "Nothing is held out of 1 dialogue: " in said
    assert load_checkpoint(str(out), "cpu").layout.name == "convai"
    facts = json.loads((out / "training.json").read_text())
    assert (facts["train_dialogues"], facts["valid_dialogues"]) == (1, 0)


def test_only_the_public_file_may_hold_bad_entries(tmp_path, monkeypatch, capsys):
    good = json.loads(Path(EXAMPLE).read_text(encoding="utf-8"))["train"][:8]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"train": [*good, 7], "valid": [*good[:2], 7]}))
    monkeypatch.setattr("train.data.personachat.fetch_personachat", lambda: bad)
    for name, count in [("personachat", 8), ("personachat:5", 5), ("personachat:400", 8)]:
        train, valid = read_data(options("--data", name))
        assert (len(train), len(valid)) == (count, 2)
        # beside it one's own file must be clean
        with pytest.raises(UserError, match="entry 9 .*: is not an object"):
            read_data(options("--data", name, "--data", str(bad)))
    assert len(read_data(options("--data", EXAMPLE, "--valid", "personachat:1"))[1]) == 1


@pytest.mark.parametrize("valid", [{}, {"valid": []}, {"comment": 1}])
def test_a_file_with_a_train_part_only_gets_the_usual_hold_out(tmp_path, valid):
    entries = json.loads(write_dialogues(tmp_path, 21).read_text())
    (tmp_path / "parts.json").write_text(json.dumps({"train": entries, **valid}))
    train, held_out = read_data(options("--data", str(tmp_path / "parts.json")))
    assert (len(train), len(held_out)) == (20, 1)


def test_a_bad_validation_part_is_named_and_not_passed_over(tmp_path):
    entries = json.loads(write_dialogues(tmp_path, 21).read_text())
    (tmp_path / "parts.json").write_text(json.dumps({"train": entries, "valid": [7]}))
    with pytest.raises(UserError, match="entry 1 .*: is not an object"):
        read_data(options("--data", str(tmp_path / "parts.json")))


@pytest.mark.parametrize("name", ["a.json:0", "personachat:00"])
def test_no_dialogue_at_all_is_one_sentence(tmp_path, capsys, name):
    told = refusal(["--data", name, "--out", str(tmp_path / "out")], capsys)
    stem = name.split(":")[0]
    assert told == f"{name} takes no dialogue; write at least {stem}:1, or leave the count out."


def test_small_things():
    assert split_count("a.json:²") == ("a.json:²", None)
    assert [
        split_count(name) for name in ("a.json", "a.json:40", "c:/a.json", "personachat:9")
    ] == [("a.json", None), ("a.json", 40), ("c:/a.json", None), ("personachat", 9)]
    assert [duration(seconds) for seconds in (3, 130, 27_000)] == [
        "3 seconds",
        "2 minutes",
        "7.5 hours",
    ]


# ---- recipe sft on a GPT-2


def test_gpt2_gets_the_convai_layout_and_its_history_in_full(tmp_path, capsys):
    base = make_bases(tmp_path)["gpt2"]
    arguments = [
        "--model",
        str(base),
        "--epochs",
        "2",
        "--accumulate",
        "1",
        "--no-bf16",
        "--limit",
        "4",
        "--score-dialogues",
        "0",
    ]
    finetune.main(["--data", EXAMPLE, "--out", str(tmp_path / "out"), *arguments])
    said = capsys.readouterr().out
    assert f"sft, base {base}, layout convai\n" in said
    assert "lora_rank 0" in said and "learning_rate 5e-05" in said
    loaded = load_checkpoint(str(tmp_path / "out"), "cpu")
    assert (loaded.layout.name, loaded.layout.max_turns) == ("convai", 500)
    assert "".join(
        LocalModel.plain(loaded).reply(Persona("", ("i sail.",)), ["hello"], Settings(seed=1))
    )
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (facts["base_model"], facts["layout"], facts["settings"]["lora_rank"]) == (
        "gpt2",
        "convai",
        0,
    )
    assert (
        str(tmp_path)
        not in (tmp_path / "out" / "training.json").read_text()
        + (tmp_path / "out" / "README.md").read_text()
    )
    with pytest.raises(SystemExit):
        finetune.main(["--data", EXAMPLE, "--out", str(tmp_path / "out"), *arguments])
    finetune.main(["--data", EXAMPLE, "--out", str(tmp_path / "out"), "--overwrite", *arguments])


def test_a_full_disk_after_training_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        UserError,
        match="^new cannot be written .No space left on device.; free space, then --resume.$",
    ):
        finetune.score_and_describe(options("--data", EXAMPLE), [], {})


def test_negatives_need_replies_to_draw_from_and_a_chat_template(
    tmp_path, capsys, chat_folder, convai_folder
):
    def told(model, *more):
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        return refusal(
            ["--data", EXAMPLE, "--out", str(tmp_path / "new"), "--model", str(model), *more],
            capsys,
        )

    assert told(chat_folder, "--negatives", "90", "--limit", "3") == (
        "--negatives 90 needs more different replies than these dialogues have; lower it, or add dialogues."
    )
    for flag in ("--negatives", "--first-difference"):
        assert told(convai_folder, flag, "2") == (
            "--negatives and --first-difference need a base with a chat template; recipe convai has a ranking head for the same end."
        )


# ---- settings from a file


def test_the_training_json_of_a_run_is_a_settings_file(tmp_path):
    from dataclasses import asdict

    from train.recipes.sft_settings import SftSettings, field_types

    made = SftSettings(epochs=7, lora_rank=0, bf16=False, negatives=2)
    file = tmp_path / "training.json"
    file.write_text(json.dumps({"recipe": "sft", "data": ["x"], "settings": asdict(made)}))
    taken = options("--data", EXAMPLE, "--config", str(file), "--negatives", "3")
    given = {name: getattr(taken, name) for name in field_types() if hasattr(taken, name)}
    assert SftSettings(**given) == SftSettings(**{**asdict(made), "negatives": 3})
    file.write_text(
        json.dumps({"recipe": "convai", "settings": {"num_train_epochs": 2, "fp16": False}})
    )
    taken = options("--data", EXAMPLE, "--config", str(file), "--set", "num_train_epochs=3")
    assert taken.recipe == "convai"
    assert read_settings(taken.set) == {"num_train_epochs": 3, "fp16": False}
    file.write_text(json.dumps({"epochs": 5}))
    assert options("--data", EXAMPLE, "--config", str(file)).epochs == 5


@pytest.mark.parametrize(
    "content, told",
    [
        ('{"settings": {"epoch": 5}}', "--config: recipe sft has no setting 'epoch'; did you mean 'epochs'?"),
        ('{"settings": {"epochs": "5"}}', "--config: 'epochs' must be of type float, not '5'."),
        ('{"settings": {"bf16": 1}}', "--config: 'bf16' must be of type bool, not 1."),
        ('{"settings": {"seed": 1.5}}', "--config: 'seed' must be of type int, not 1.5."),
        ('{"settings": {"seed": 1e999}}', "--config: 'seed' must be of type int, not inf."),
        ('{"settings": {"seed": NaN}}', "--config: 'seed' must be of type int, not nan."),
        ('{"settings": {"epochs": -1}}', "--epochs must be from 0.001 to 1000, not -1.0; leave it out for the default."),
        ('{"settings": [1]}', "'settings' must be an object"),
        ("[1]", "is not valid JSON"),
        ("{", "is not valid JSON"),
        (None, "is not there, or empty; name the training.json of a run."),
    ],
)  # fmt: skip
def test_a_settings_file_that_cannot_be_is_one_sentence(tmp_path, capsys, content, told):
    file = tmp_path / "training.json"
    if content:
        file.write_text(content)
    given = ["--data", EXAMPLE, "--out", str(tmp_path / "new"), "--config", str(file)]
    assert told in refusal(given, capsys)


def test_every_flag_says_what_it_does_with_its_range_and_default(capsys):
    from dataclasses import fields

    from train.recipes.sft_settings import SftSettings

    with pytest.raises(SystemExit):
        parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for field in fields(SftSettings):
        assert f"--{field.name.replace('_', '-')}" in said
        assert " ".join(field.metadata["help"].split()) in said
    assert "4e-4 for LoRA, 5e-5 with --lora-rank 0. (1e-09 to 1)" in said
    assert "(0.001 to 1000; default: 3)" in said and "(32 to 1,000,000; default: 512)" in said
    assert "None" not in said and "rival" not in said


@pytest.mark.parametrize("old, new", [("rivals", "negatives"), ("rival_weight", "negative_weight")])
def test_what_earlier_runs_called_otherwise_is_still_taken(tmp_path, old, new):
    """As a flag, in training.json, and in a checkpoint that is resumed."""
    from train.recipes.trainer import find_checkpoint
    from train.run.checkpoints import write_folder_atomically

    file = tmp_path / "training.json"
    file.write_text(json.dumps({"recipe": "sft", "settings": {old: 3}}))
    for given in (["--config", str(file)], [f"--{old.replace('_', '-')}", "3"]):
        taken = options("--data", EXAMPLE, *given)
        assert getattr(taken, new) == 3 and not hasattr(taken, old)

    def write(folder):
        (folder / "settings.json").write_text(json.dumps({old: 3}))

    write_folder_atomically(tmp_path / "checkpoint-4", write)
    run = SimpleNamespace(out=tmp_path, prefix="checkpoint")
    run.identity = {new: 3}
    assert find_checkpoint(run) == str(tmp_path / "checkpoint-4")
    run.identity = {new: 2}
    with pytest.raises(UserError, match=f"was trained with {new} 3, now it is 2; resume"):
        find_checkpoint(run)
