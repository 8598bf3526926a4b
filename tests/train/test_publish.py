"""Publishing: the real client uploads to a real server on 127.0.0.1, then the page pulls what is there.

Run: python -m pytest tests/train/test_publish.py; what goes wrong is in test_publish_faults.py
"""

import copy
import json
import logging
import re
import shutil
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import snapshot_download
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from persona_bot.checkpoints.files import save_layout
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from tests.hub_server import Hub, use
from train import publish as publishing
from train.hub import access, space
from train.publish import publish

TOKEN = "hf_canaryCanaryCanary"
CARD = "---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n# Mine\n"
UPLOADED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
UPLOADED |= {"chat_template.jinja", "persona_layout.json", "README.md", "scores.json"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub() as hub:
        use(hub, monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(access, "PAUSES", (0.01, 0.01))
        monkeypatch.setattr(access, "TIMEOUT", httpx2.Timeout(0.4))
        hub.users[TOKEN] = {
            "name": "user",
            "role": "write",
            "orgs": {"lab": "write", "club": "read"},
        }
        yield hub


@pytest.fixture
def trained(chat_folder, tmp_path) -> Path:
    return finish(shutil.copytree(chat_folder, tmp_path / "mine"))


def finish(folder: Path) -> Path:
    """Adds what train.finetune adds to saved weights."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    save_layout(folder, find_layout(tokenizer, None, None))
    (folder / "README.md").write_text(CARD)
    (folder / "scores.json").write_text("{}")
    return folder


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    sentence = str(error.value)
    assert (
        sentence.endswith(".")
        and ";" in sentence
        and "\n" not in sentence
        and TOKEN not in sentence
    )
    return sentence


def commits(hub, name="user/mine", kind="model") -> list[str]:
    return [commit.title for commit in hub.repos[kind, name].commits]


# -- the whole way


def test_publish_then_pull(hub, trained, chat_model):
    assert publish(trained, "user/mine") == f"{hub.url}/user/mine"
    assert set(hub.head("user/mine").files) == UPLOADED | {".gitattributes"}
    assert commits(hub) == ["initial commit", "Publish mine"]
    checkpoint = load_checkpoint("user/mine", device="cpu")
    loaded = checkpoint.model.state_dict()
    assert all(
        loaded[name].equal(weights.to(checkpoint.model.dtype))
        for name, weights in chat_model.state_dict().items()
    )


def test_plain_transformers_loads_it_too(hub, trained, tmp_path):
    publish(trained, "user/mine")
    pulled = snapshot_download("user/mine", cache_dir=tmp_path / "plain")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(pulled),
        AutoTokenizer.from_pretrained(pulled),
    )
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert (
        model.generate(**ids, max_new_tokens=3, do_sample=False).shape[1]
        > ids["input_ids"].shape[1]
    )


def test_a_convai_checkpoint(hub, convai_folder, tmp_path):
    publish(finish(shutil.copytree(convai_folder, tmp_path / "mine")), "user/mine")
    checkpoint = load_checkpoint("user/mine", device="cpu", double_heads=True)
    assert checkpoint.layout.name == "convai" and checkpoint.ranking_head


def test_an_adapter(hub, trained, chat_model, tmp_path):
    publish(trained, "user/base")
    folder = adapter(chat_model, trained, tmp_path / "adapter", base="user/base")
    publish(folder, "user/mine")
    assert {"adapter_config.json", "adapter_model.safetensors"} < set(hub.head("user/mine").files)
    assert "model.safetensors" not in hub.head("user/mine").files
    assert load_checkpoint("user/mine", device="cpu").layout.name == "chat"


def adapter(chat_model, trained: Path, folder: Path, base: str) -> Path:
    adapted = get_peft_model(copy.deepcopy(chat_model), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    config = folder / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base})
    )
    for file in [*trained.glob("token*"), trained / "chat_template.jinja"]:
        shutil.copy(file, folder)
    return finish(folder)


def test_again_makes_no_commit_and_a_change_makes_one(hub, trained):
    publish(trained, "user/mine")
    publish(trained, "user/mine")
    assert len(commits(hub)) == 2
    (trained / "README.md").write_text(CARD + "More.\n")
    publish(trained, "user/mine")
    assert len(commits(hub)) == 3
    assert hub.head("user/mine").files["README.md"].data.endswith(b"More.\n")


def test_what_an_earlier_upload_left_goes_and_what_others_added_stays(hub, trained):
    old = {
        "adapter_config.json": b"{}",
        "old.safetensors": b"x",
        "q4.gguf": b"x",
        "notes.txt": b"x",
        "sub/config.json": b"{}",
    }
    hub.put("user/mine", old)
    publish(trained, "user/mine")
    assert set(hub.head("user/mine").files) == UPLOADED | {
        "q4.gguf",
        "notes.txt",
        "sub/config.json",
    }


def test_private(hub, trained):
    publish(trained, "user/mine", private=True)
    assert hub.repos["model", "user/mine"].private
    publish(trained, "user/open")
    assert not hub.repos["model", "user/open"].private


def test_private_never_goes_into_a_public_repository(hub, trained):
    hub.put("user/mine", {"README.md": b"hello"})
    assert "user/mine exists and is public" in refusal(publish, trained, "user/mine", True)
    assert set(hub.head("user/mine").files) == {"README.md"}


def test_an_organisation(hub, trained):
    publish(trained, "lab/mine")
    assert ("model", "lab/mine") in hub.repos


# -- the Space


@pytest.fixture
def clone(monkeypatch, tmp_path):
    """A folder like this repository, but small; not a git clone."""
    for name in (
        "app.py",
        "requirements.txt",
        "persona_bot/persona.py",
        "persona_bot/__pycache__/x.pyc",
        "tests/test_x.py",
        "train/x.py",
    ):
        file = tmp_path / "clone" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "clone" / "README.md").write_text(
        "---\ntitle: Persona\nsdk: gradio\nmodels:\n- some/default\n---\n# Long text\n"
    )
    monkeypatch.setattr(space, "ROOT", tmp_path / "clone")
    return tmp_path / "clone"


def test_a_space_holds_the_app_and_names_the_model(hub, trained, clone):
    assert publish(trained, "user/mine", space="user/chat") == f"{hub.url}/spaces/user/chat"
    repo, files = hub.repos["space", "user/chat"], hub.head("user/chat", "space").files
    assert (repo.sdk, repo.variables, repo.private) == ("gradio", {"MODEL_ID": "user/mine"}, False)
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "app.py",
        "requirements.txt",
        "persona_bot/persona.py",
    }
    card = files["README.md"].data.decode()
    assert card.startswith(
        "---\ntitle: Persona\nsdk: gradio\nmodels:\n- user/mine\npreload_from_hub:\n- user/mine\n---\n"
    )
    assert "Long text" not in card and f"{hub.url}/user/mine" in card


def test_a_space_is_updated_in_one_commit(hub, trained, clone):
    publish(trained, "user/mine", space="user/chat")
    publish(trained, "user/mine", space="user/chat")
    assert commits(hub, "user/chat", "space") == ["initial commit", "Chat with user/mine"]
    (clone / "persona_bot/persona.py").rename(clone / "persona_bot/renamed.py")
    publish(trained, "user/other", space="user/chat")
    assert len(commits(hub, "user/chat", "space")) == 3
    assert hub.repos["space", "user/chat"].variables == {"MODEL_ID": "user/other"}
    assert (
        "persona_bot/renamed.py" in (files := hub.head("user/chat", "space").files)
        and "persona_bot/persona.py" not in files
    )


def test_a_private_space_asks_for_a_secret(hub, trained, clone, capsys):
    publish(trained, "user/mine", private=True, space="user/chat")
    assert hub.repos["space", "user/chat"].private
    assert "preload_from_hub" not in hub.head("user/chat", "space").files["README.md"].data.decode()
    assert "Add a secret HF_TOKEN that may read user/mine" in capsys.readouterr().out
    # a variable is public: no token in it
    assert hub.repos["space", "user/chat"].variables == {"MODEL_ID": "user/mine"}


def test_access_to_the_space_is_checked_before_anything_is_uploaded(hub, trained, clone):
    assert "may not publish as somebody" in refusal(
        publish, trained, "user/mine", False, "somebody/chat"
    )
    assert hub.repos == {}


def test_the_real_app_is_tracked_and_complete():
    files = set(space.app_files())
    assert {
        "app.py",
        "requirements.txt",
        "persona_bot/checkpoints/load.py",
        "persona_presets/soldier.txt",
    } <= files
    assert [name for name in files if re.match(r"page/static/.*\.css", name)]
    assert not {name for name in files if re.match(r"tests/|train/|default_model/|.*\.pyc", name)}
    source = "\n".join(
        (space.ROOT / name).read_text(encoding="utf-8") for name in files if name.endswith(".py")
    )
    ours = set(
        re.findall(
            r"^\s*(?:from|import) (page|persona_bot|train|tests|benchmarks)\b", source, re.MULTILINE
        )
    )
    assert ours == {"page", "persona_bot"}
    assert "title:" in (card := space.space_card("user/mine", False)) and "- user/mine" in card


# -- the token, and the command


def test_the_token_stays_between_us_and_the_hub(hub, trained, clone, capfd, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    hub.verify_at = hub.cdn  # a Hub that asks to confirm uploads elsewhere
    hub.fault("POST .*/commit/", cut="after")
    publish(trained, "user/mine", private=True, space="user/chat")
    for step in ("GET /api/whoami", "POST .*/commit/"):
        (trained / "scores.json").write_text(step)
        hub.fault(step, status=403, body=b'{"error": "no"}')
        refusal(publish, trained, "user/mine")
    elsewhere = [request for request in hub.requests if not request.host.startswith("127.0.0.1")]
    assert {request.path.split("/")[1] for request in elsewhere} == {"lfs", "lfs-verify"}
    assert TOKEN not in str(elsewhere) and TOKEN in str(hub.requests)
    assert TOKEN not in "".join(capfd.readouterr()) + caplog.text
    stored = [
        blob.data
        for repo in hub.repos.values()
        for commit in repo.commits
        for blob in commit.files.values()
    ]
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(TOKEN.encode() in data for data in [*stored, *written])


def test_the_command(hub, trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["publish", str(trained), "user/mine"])
    publishing.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"Published: {hub.url}/user/mine"


def test_the_command_prints_one_line_and_exits_2(hub, trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["publish", str(trained), "somebody/mine"])
    with pytest.raises(SystemExit) as exit:
        publishing.main()
    assert exit.value.code == 2
    assert (
        capsys.readouterr().err
        == "user may not publish as somebody; publish to user/mine, or ask somebody for write access.\n"
    )
