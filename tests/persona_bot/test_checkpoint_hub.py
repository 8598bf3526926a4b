"""Loading from the Hub: every answer it can give, from a real server on 127.0.0.1 to the real client, becomes a model or one sentence.

Run: python -m pytest tests/persona_bot/test_checkpoint_hub.py; servers that fail are in test_checkpoint_hub_faults.py
"""

import copy
import json
import os
import random
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model

from persona_bot.__main__ import main
from persona_bot.checkpoints import hub as download
from persona_bot.checkpoints.hub import fetch
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from tests.hub_server import Hub, use

TINY = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"weights " * 5000}
PATIENT = 1.2  # seconds, instead of the 60 that users get


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub() as hub:
        use(hub, monkeypatch, tmp_path)
        monkeypatch.setattr(download, "PATIENCE", PATIENT)
        monkeypatch.setattr(download, "TIMEOUT", 0.3)
        monkeypatch.setattr(download, "PAUSES", (0.01, 0.01))
        yield hub


def refusal(name: str) -> str:
    """The sentence with which `name` is refused, in time."""
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        fetch(name)
    sentence = str(error.value)
    assert time.monotonic() - started < PATIENT + 2
    assert sentence.endswith(".") and ";" in sentence and "\n" not in sentence  # a cause; a cure
    return sentence


# -- what works


def test_a_published_model_loads_and_keeps_its_weights(hub, chat_folder, chat_model):
    hub.put("user/chat", files_of(chat_folder))
    checkpoint = load_checkpoint("user/chat", device="cpu")
    assert checkpoint.name == "user/chat" and checkpoint.layout.name == "chat"
    loaded = checkpoint.model.state_dict()
    assert all(
        loaded[name].equal(weights.to(checkpoint.model.dtype))
        for name, weights in chat_model.state_dict().items()
    )


def test_an_adapter_loads_with_its_base_from_the_hub(hub, chat_folder, chat_model, tmp_path):
    adapted = get_peft_model(copy.deepcopy(chat_model), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "user/base"})
    )
    hub.put("user/base", files_of(chat_folder))
    hub.put("user/adapter", files_of(tmp_path / "adapter"))
    assert load_checkpoint("user/adapter", device="cpu").layout.name == "chat"


def test_a_revision_is_what_was_asked_for(hub):
    first = hub.put("user/model", TINY)
    hub.put("user/model", {**TINY, "config.json": b'{"model_type": "newer"}'})
    assert b"tiny" in (fetch(f"user/model@{first.oid}") / "config.json").read_bytes()
    assert b"newer" in (fetch("user/model") / "config.json").read_bytes()


def test_only_what_a_checkpoint_needs_is_downloaded(hub):
    useful = {*TINY, "vocab.json", "merges.txt", "spm.model", "chat_template.jinja"}
    extra = {
        "pytorch_model.bin",
        "optimizer.pt",
        "code.py",
        "sub/model.safetensors",
        "q4.gguf",
        "consolidated.safetensors",
        "README.md",
    }
    hub.put("user/model", dict.fromkeys(useful | extra, b"{}"))
    assert set(os.listdir(fetch("user/model"))) == useful
    assert {
        request.path.split("/")[-1] for request in hub.requests if "/resolve/" in request.path
    } == useful


def test_one_of_several_gguf_files_is_downloaded(hub):
    hub.put("user/model", {f"m-{kind}.gguf": kind.encode() for kind in ("IQ2", "Q4_K_M", "Q8_0")})
    assert os.listdir(fetch("user/model")) == ["m-Q8_0.gguf"]


def test_a_gguf_of_what_lies_beside_a_model_is_not_taken_for_it(hub):
    names = ["mmproj-m-Q8_0.gguf", "imatrix_q8_0.gguf", "m.imatrix.gguf", "m-Q4_K_M.gguf"]
    hub.put("user/model", dict.fromkeys([*names, "config.json"], b"{}"))
    assert set(os.listdir(fetch("user/model"))) == {"m-Q4_K_M.gguf", "config.json"}


def test_a_gguf_in_parts_is_refused_unless_there_is_a_whole_one(hub):
    parts = [f"m-Q8_0-0000{k}-of-00002.gguf" for k in (1, 2)]
    hub.put("user/model", dict.fromkeys(parts, b"part"))
    assert "user/model holds a GGUF in several parts" in refusal("user/model")
    hub.put("user/both", dict.fromkeys([*parts, "m-Q4_0-00001-of-00001.gguf"], b"part"))
    assert os.listdir(fetch("user/both")) == ["m-Q4_0-00001-of-00001.gguf"]


def test_the_second_start_asks_the_hub_once(hub):
    hub.put("user/model", TINY)
    fetch("user/model")
    hub.requests.clear()
    fetch("user/model")
    assert [request.path for request in hub.requests] == ["/api/models/user/model/revision/main"]


# -- who may read


def test_unknown_name(hub):
    sentence = refusal("user/nothing")
    assert (
        sentence
        == f"{hub.url} has no model user/nothing, or it is private (401); check the spelling, or set HF_TOKEN to your token."
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no/such/folder",
        "../up",
        "a b",
        "user/na?me",
        "./here",
        "user/model/",
        "x" * 200,
        "@main",
        "ü/ä",
    ],
)
def test_what_cannot_be_a_name(hub, name):
    assert "neither a folder nor a name on the Hub" in refusal(name)
    assert hub.requests == []


def test_unknown_revision(hub):
    hub.put("user/model", TINY)
    fetch("user/model")
    # and the cached other revision does not stand in
    assert "has no revision 'v9'" in refusal("user/model@v9")


def test_private_without_and_with_a_token(hub, monkeypatch):
    hub.put("user/secret", TINY, private=True)
    assert "or it is private (401)" in refusal("user/secret")
    monkeypatch.setenv("HF_TOKEN", "token-reader")
    assert (fetch("user/secret") / "config.json").read_bytes() == TINY["config.json"]


def test_private_of_somebody_else(hub, monkeypatch):
    hub.put("other/secret", TINY, private=True)
    monkeypatch.setenv("HF_TOKEN", "token-reader")
    assert "has no model other/secret, or it is private (404)" in refusal("other/secret")


def test_gated(hub, monkeypatch):
    hub.put("other/gated", TINY, gated=True)
    assert f"is gated; ask for access at {hub.url}/other/gated" in refusal("other/gated")
    monkeypatch.setenv("HF_TOKEN", "token-reader")
    assert "is gated; ask for access" in refusal("other/gated")


def test_a_bad_token_is_told_and_never_shown(hub, monkeypatch):
    hub.put("user/model", TINY)
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    sentence = refusal("user/model")
    assert "does not know the token (401)" in sentence and "canary" not in sentence


def test_the_token_goes_to_the_hub_only(hub, monkeypatch):
    hub.put("user/secret", TINY, private=True)
    monkeypatch.setenv("HF_TOKEN", "token-reader")
    folder = fetch("user/secret")
    by_host = {
        host: [r for r in hub.requests if r.host.startswith(host)]
        for host in ("127.0.0.1", "localhost")
    }
    assert len(by_host["localhost"]) == 1  # the weights came from the other host
    assert all("token-reader" in r.headers["authorization"] for r in by_host["127.0.0.1"])
    assert "token-reader" not in str(by_host["localhost"])
    assert not any(
        b"token-reader" in file.read_bytes()
        for file in folder.parents[2].rglob("*")
        if file.is_file()
    )


# -- no network


def test_no_hub_at_all(hub, monkeypatch):
    hub.put("user/model", TINY)
    folder = fetch("user/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch("user/model") == folder
    assert "http://127.0.0.1:9 cannot be reached; check the network" in refusal("user/other")


def test_offline(hub, monkeypatch):
    commit = hub.put("user/model", TINY)
    folder = fetch("user/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert (
        fetch("user/model")
        == fetch("user/model@main")
        == fetch(f"user/model@{commit.oid}")
        == folder
    )
    assert "user/other is not in the cache and HF_HUB_OFFLINE is set" in refusal("user/other")
    assert "HF_HUB_OFFLINE" in refusal("user/model@v2")
    assert hub.requests == []


def test_an_update_that_broke_off_leaves_the_old_copy_for_offline(hub, monkeypatch):
    hub.put("user/model", TINY)
    folder = fetch("user/model")
    hub.put(
        "user/model", {**TINY, "config.json": b'{"new": 1}', "model.safetensors": b"better " * 5000}
    )
    hub.fault("GET /lfs/", times=99, status=500)
    fetch("user/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("user/model") == folder


# -- damage


def test_a_flipped_byte_in_the_cache_is_repaired_online_and_refused_offline(hub, monkeypatch):
    hub.put("user/model", TINY)
    for file in TINY:
        path = fetch("user/model") / file
        for position in (0, 7, -1):
            flip(path.resolve(), position)
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert f"{file} of user/model is damaged in the cache" in refusal("user/model")
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            assert (fetch("user/model") / file).read_bytes() == TINY[file]


def test_a_thousand_flips_in_the_cache(hub, monkeypatch):
    hub.put("user/model", TINY)
    weights = (fetch("user/model") / "model.safetensors").resolve()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    positions = random.Random(0)
    for _ in range(1000):
        position, bit = (
            positions.randrange(len(TINY["model.safetensors"])),
            1 << positions.randrange(8),
        )
        flip(weights, position, bit)
        refusal("user/model")
        flip(weights, position, bit)
    assert fetch("user/model")


def test_damage_is_repaired_only_from_the_hub(hub):
    hub.put("user/model", TINY)
    flip((fetch("user/model") / "model.safetensors").resolve(), 3)
    hub.fault("/resolve/", times=99, status=503)
    with pytest.raises(UserError):
        fetch("user/model")


def test_a_hub_that_tells_no_hashes_is_refused(hub):
    hub.put("user/model", TINY)
    body = json.dumps(
        {"id": "user/model", "sha": "0" * 40, "siblings": [{"rfilename": "model.safetensors"}]}
    ).encode()
    hub.fault("GET /api/models/", status=200, body=body)
    assert "tells no hashes for user/model" in refusal("user/model")


def test_pickled_weights_are_refused_before_any_download(hub):
    hub.put("user/old", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."})
    assert "user/old has pickled weights only, which can run code when opened" in refusal(
        "user/old"
    )
    assert len(hub.requests) == 1


def test_no_weights_at_all(hub):
    hub.put("user/data", {"train.json": b"[]"})
    assert "user/data is no checkpoint" in refusal("user/data")


def test_a_full_disk(hub, monkeypatch):
    hub.put("user/model", TINY)
    cache = Path(constants.HF_HUB_CACHE)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "makedirs", full)  # where the client begins to write
    assert f"The disk is full: user/model does not fit into {cache}" in refusal("user/model")


# -- remote code and the command


def test_remote_code_is_refused(hub, chat_folder):
    files = files_of(chat_folder)
    config = json.loads(files["config.json"])
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    marker = chat_folder.parent / "evil-ran"
    files |= {
        "config.json": json.dumps(config).encode(),
        "evil.py": f"open({str(marker)!r}, 'w')".encode(),
    }
    hub.put("user/evil", files)
    with pytest.raises(UserError):
        load_checkpoint("user/evil", device="cpu")
    assert not marker.exists() and not any("evil.py" in request.path for request in hub.requests)


def test_commands_print_one_line_and_exit_2(hub, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    assert main(["--model", "user/nothing"]) == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and "does not know the token (401)" in said.err
    assert "canary" not in said.out + said.err


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def flip(path: Path, position: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.chmod(0o644)
    path.write_bytes(data)
