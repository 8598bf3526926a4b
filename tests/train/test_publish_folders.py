"""Publishing what people have: any folder that the chat loads, on a branch, under a tag, in a Space of one's own.

Run: `python -m pytest tests/train/test_publish_folders.py`
"""
# ruff: noqa: F811 (fixtures of test_publish.py)

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from huggingface_hub import snapshot_download

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.persona import load_presets
from tests.train.test_model_card import card
from tests.train.test_publish import adapter, clone, commits, hub, refusal, trained  # noqa: F401
from train.hub import model_card, space
from train.hub.space import SpaceSettings
from train.publish import main, parse, publish

STOCK = Path(__file__).parents[1] / "data" / "stock_convai"


@pytest.fixture(autouse=True)
def one_sample(monkeypatch):
    monkeypatch.setattr(model_card, "SAMPLES", 1)  # sampled replies take a CPU long


def front_matter(hub, name: str, kind: str = "model") -> dict:
    return yaml.safe_load(hub.head(name, kind).files["README.md"].data.decode().split("---\n")[1])


def test_a_folder_that_stock_simpletransformers_left(hub, tmp_path):
    folder = shutil.copytree(STOCK, tmp_path / "outputs")
    (folder / "training_args.bin").write_bytes(b"pickle")
    publish(folder, "user/mine")
    files = hub.head("user/mine").files
    assert {"model.safetensors", "config.json", "persona_layout.json", "README.md"} <= set(files)
    assert "training_args.bin" not in files and "model_args.json" not in files
    card = files["README.md"].data.decode()
    assert card.lower().count("not known here") == 3  # training, base, data
    data = front_matter(hub, "user/mine")
    assert data["tags"] == ["conversational", "persona", "convai-layout"]
    assert not {"base_model", "language", "model-index", "datasets"} & data.keys()
    assert load_checkpoint("user/mine", "cpu", double_heads=True).layout.name == "convai"
    publish(folder, "user/mine")
    assert len(commits(hub)) == 2


def test_a_card_of_ones_own_stays(hub, trained):
    (trained / "persona_layout.json").unlink()
    (trained / "README.md").write_text("---\nlicense: mit\n---\n# Mine alone\n")
    publish(trained, "user/mine")
    assert hub.head("user/mine").files["README.md"].data.endswith(b"# Mine alone\n")
    assert (trained / "persona_layout.json").exists()


def test_the_adapter_alone_with_the_facts_of_the_folder_around_it(
    hub, trained, chat_model, tmp_path
):
    hub.put("user/base", {f.name: f.read_bytes() for f in trained.iterdir()})
    folder = adapter(chat_model, trained, trained / "adapter", base="user/base")
    (folder / "README.md").unlink()
    facts = {"base_model": "user/base", "layout": "chat", "recipe": "sft", "data": ["mine.json"]}
    facts |= {
        "command": "python -m train.finetune --data /home/alice/mine.json",
        "minutes": 1,
        "machine": "x",
    }
    (trained / "training.json").write_text(json.dumps(facts))
    publish(trained, "user/mine", adapter=True)
    assert "adapter_model.safetensors" in (files := hub.head("user/mine").files)
    assert "model.safetensors" not in files
    data = front_matter(hub, "user/mine")
    assert (data["base_model"], data["library_name"]) == ("user/base", "peft")
    assert (
        b"--data mine.json" in files["README.md"].data and b"alice" not in files["README.md"].data
    )
    shutil.rmtree(folder)
    assert "has no adapter/" in refusal(lambda: publish(trained, "user/mine", adapter=True))


def test_the_adapter_travels_beside_the_model(hub, trained, chat_model, tmp_path):
    hub.put("user/base", {f.name: f.read_bytes() for f in trained.iterdir()})
    folder = adapter(chat_model, trained, trained / "adapter", base="user/base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"some_path": "/home/alice/mine"})
    )
    publish(trained, "user/mine")
    files = hub.head("user/mine").files
    assert {"model.safetensors", "adapter/adapter_config.json"} <= set(files)
    assert b"alice" not in files["adapter/adapter_config.json"].data
    # what `hf download --include "adapter/*"` leaves is an adapter that loads, as vLLM wants it
    pulled = snapshot_download("user/mine", allow_patterns="adapter/*", local_dir=tmp_path / "mine")
    assert load_checkpoint(f"{pulled}/adapter", "cpu").layout.name == "chat"
    assert load_checkpoint("user/mine", "cpu").layout.name == "chat"  # the merged model, as before
    publish(trained, "user/mine")
    assert len(commits(hub)) == 2
    shutil.rmtree(folder)  # the next model was trained whole: the adapter of the last one goes
    publish(trained, "user/mine")
    assert not [name for name in hub.head("user/mine").files if name.startswith("adapter/")]


def test_an_adapter_on_a_base_of_this_machine_stays_here(hub, trained, chat_model, capsys):
    adapter(chat_model, trained, trained / "adapter", base=str(trained))
    publish(trained, "user/mine")
    assert not [name for name in hub.head("user/mine").files if name.startswith("adapter/")]
    assert "adapter stays here: it names a base that exists on this" in capsys.readouterr().out


def test_a_folder_that_does_not_load_is_refused_before_anything_is_made(hub, trained):
    (trained / "README.md").unlink()
    (trained / "config.json").write_text("{}")
    assert "cannot be loaded as a checkpoint" in refusal(publish, trained, "user/mine")
    assert hub.repos == {}


@pytest.mark.parametrize("path", ["/home/alice/base", "C:\\Users\\alice\\base", "../alice/base"])
def test_no_private_path_is_uploaded(hub, trained, path):
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        content = json.loads((trained / name).read_text())
        (trained / name).write_text(
            json.dumps(content | {"_name_or_path": path, "vocab_file": path})
        )
    facts = {"base_model": path, "command": f"x --model={path}", "settings": {"cache_dir": path}}
    (trained / "training.json").write_text(json.dumps(facts | {"goes_on_from": facts}))
    (trained / "scores.json").write_text(json.dumps({"data": path, "scores": {}}))
    publish(trained, "user/mine")
    files = hub.head("user/mine").files
    assert {"training.json", "scores.json", "tokenizer_config.json"} <= set(files)
    texts = [blob.data for name, blob in files.items() if not name.endswith(".safetensors")]
    assert not [text for text in texts if b"alice" in text]
    assert load_checkpoint("user/mine", "cpu").layout.name == "chat"


def test_a_base_in_a_folder_that_looks_like_a_name_is_refused(
    hub, trained, chat_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "outputs" / "base")
    folder = adapter(chat_model, trained, tmp_path / "adapter", base="outputs/base")
    assert "names a base that exists on this machine only" in refusal(publish, folder, "user/mine")


def test_a_branch_a_tag_and_a_message(hub, trained):
    publish(trained, "user/mine")
    (trained / "scores.json").write_text('{"new": 1}')
    for _ in range(2):  # again: no second commit, the same tag
        publish(trained, "user/mine", revision="try", tag="v1", message="Longer rows")
    repo = hub.repos["model", "user/mine"]
    assert [commit.title for commit in repo.commits] == ["initial commit", "Publish mine"]
    assert [commit.title for commit in repo.branches["try"]][2:] == ["Longer rows"]
    assert repo.tags["v1"] == repo.branches["try"][-1]
    assert load_checkpoint("user/mine@v1", "cpu").layout.name == "chat"


def test_a_tag_that_names_other_files_is_refused_before_anything_is_uploaded(hub, trained):
    publish(trained, "user/mine", tag="v1")
    (trained / "scores.json").write_text('{"new": 1}')
    repo = hub.repos["model", "user/mine"]
    for revision in (None, "try"):
        told = refusal(lambda at=revision: publish(trained, "user/mine", revision=at, tag="v1"))
        assert told.startswith("user/mine has the tag v1 already")
    assert len(repo.commits) == 2 and not repo.branches
    publish(trained, "user/mine", tag="v2")
    assert repo.tags["v2"] == repo.commits[-1] != repo.tags["v1"]


def test_a_card_from_before_the_model_had_a_name_names_the_repository(hub, trained):
    written = card(repo_id=None) + "\nmy FOLDER\n"
    (trained / "README.md").write_text(written)
    for name in ("user/mine", "user/other"):
        publish(trained, name)
        told = hub.head(name).files["README.md"].data.decode()
        assert told.count(f"python app.py --model {name}\n") == 1
        assert f'pipeline("text-generation", "{name}")' in told
        assert told.count("FOLDER") == 1 and told.replace(name, "FOLDER") == written
        assert (trained / "README.md").read_text() == written


# -- a Space of one's own


def test_ones_own_persona_comes_first_and_names_the_space(hub, trained, clone, tmp_path):
    mine = tmp_path / "captain.txt"
    mine.write_text("# ⛵ Captain\ni sail.\n")
    settings = SpaceSettings(mine, "Ahoy")
    publish(trained, "user/mine", space="user/chat", settings=settings)
    files = hub.head("user/chat", "space").files
    assert files["persona_presets/0-captain.txt"].data == mine.read_bytes()
    assert front_matter(hub, "user/chat", "space")["title"] == "Ahoy"
    cast = shutil.copytree(Path(space.__file__).parents[2] / "persona_presets", tmp_path / "cast")
    (cast / "0-captain.txt").write_bytes(files["persona_presets/0-captain.txt"].data)
    assert list(load_presets(cast))[:2] == ["0-captain", "environmentalist"]


def test_a_persona_that_is_none_is_refused_before_anything_is_sent(hub, trained, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    settings = SpaceSettings(tmp_path / "empty.txt")
    assert "holds no sentence" in refusal(
        lambda: publish(trained, "user/mine", space="user/chat", settings=settings)
    )
    assert hub.requests == []


def test_presets_that_git_does_not_track_travel_too(clone):
    (clone / "persona_presets").mkdir()
    for name in ("old.txt", "mine.txt", "secret.txt"):
        (clone / "persona_presets" / name).write_text("i sail.")
    (clone / ".gitignore").write_text("secret.txt\n")
    git = ["git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True, timeout=60)
    subprocess.run([*git, "add", "app.py", "persona_presets/old.txt"], check=True, timeout=60)
    assert set(space.app_files()) == {
        "app.py",
        "persona_presets/old.txt",
        "persona_presets/mine.txt",
    }


@pytest.mark.parametrize(
    "gpu, first", [(False, f"--extra-index-url {space.CPU_TORCH}\n"), (True, "")]
)
def test_a_space_installs_the_torch_of_its_hardware(hub, trained, clone, gpu, first):
    publish(trained, "user/mine", space="user/chat", settings=SpaceSettings(gpu=gpu))
    text = hub.head("user/chat", "space").files["requirements.txt"].data.decode()
    assert text == f"{first}requirements.txt"


def test_the_command_hands_everything_on(hub, trained, clone, tmp_path, capsys):
    (tmp_path / "me.txt").write_text("i sail.")
    given = [str(trained), "user/mine", "--tag", "v1", "--revision", "try", "--message", "Hi"]
    main([*given, "--space", "user/chat", "--persona", str(tmp_path / "me.txt"), "--title", "Me"])
    assert capsys.readouterr().out.endswith(f"Published: {hub.url}/spaces/user/chat\n")
    assert hub.repos["model", "user/mine"].tags["v1"].title == "Hi"
    assert b"whl/cpu" in hub.head("user/chat", "space").files["requirements.txt"].data
    assert "persona_presets/0-me.txt" in hub.head("user/chat", "space").files
    with pytest.raises(UserError, match="^--title needs --space USER/NAME"):
        parse([str(trained), "user/mine", "--title", "Me"])
