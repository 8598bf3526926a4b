"""The client of endpoints against a real server, `transformers serve`, and what the local checkpoint says.

Run: `python -m pytest tests/persona_bot/test_transformers_serve.py`
"""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.replies.local import LocalModel
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.children import program
from tests.conftest import save
from tests.endpoint_peer import BAKER, failure_of


@pytest.fixture(scope="module")
def talker(chat_model, chat_tokenizer, tmp_path_factory) -> Path:
    """A folder with a tiny chat model whose likeliest tokens are plain letters, so that it never ends by itself."""
    torch.manual_seed(0)
    talker = LlamaForCausalLM(
        LlamaConfig(**{**chat_model.config.to_dict(), "tie_word_embeddings": False})
    ).eval()
    letters = torch.tensor(
        [
            chat_tokenizer.decode([i]).isalpha() and chat_tokenizer.decode([i]).isascii()
            for i in range(len(chat_tokenizer))
        ]
    )
    talker.lm_head.weight.data[~letters] = 0  # their logit; that of the likeliest letter is above
    return save(talker, chat_tokenizer, tmp_path_factory.mktemp("talker"))


@pytest.fixture(scope="module")
def served(talker, tmp_path_factory):
    """The address of `transformers serve` with that model."""
    pytest.importorskip("openai", reason="transformers serve needs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).parent / "transformers",
        "serve",
        talker,
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    log = tmp_path_factory.mktemp("serve") / "log"
    with (
        log.open("w") as output,
        program(command, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        until = time.monotonic() + 120
        while not listens(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2_000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def test_transformers_serve_says_what_the_local_checkpoint_says(served, talker, environmentalist):
    turns = [
        "",
        "hello, how are you today?",
        "i am fine, thank you !",
        "i love the sea.",
        "what do you do for a living?",
    ]
    greedy = Settings(
        temperature=0,
        guidance_scale=1,
        min_tokens=0,
        repetition_penalty=1,
        no_repeat_ngram=0,
        max_tokens=60,
    )
    local = LocalModel.plain(load_checkpoint(str(talker), "cpu")).reply(
        environmentalist, turns, greedy
    )
    while local.num_tokens < 40:  # later the local one is drawn to the end of its sentence
        next(iter(local))
    remote = Endpoint(served, str(talker)).reply(environmentalist, turns, greedy)
    pieces = list(remote)
    assert len(local.text) > 40 and remote.text.startswith(local.text)
    assert (remote.finish_reason, remote.num_tokens, remote.prompt_tokens) == (
        "length",
        60,
        local.prompt_tokens,
    )
    assert len(pieces) > 10 and remote.first_text_seconds < remote.seconds


def test_transformers_serve_stops_where_the_reader_does(served, talker):
    endpoint, stop = Endpoint(served, str(talker)), threading.Event()
    reply = endpoint.reply(BAKER, ["hi"], Settings(max_tokens=200), stop)
    next(filter(None, reply))
    stop.set()
    assert ([p for p in reply if p], reply.finish_reason, 0 < reply.num_tokens < 200) == (
        [],
        "cancelled",
        True,
    )
    assert (endpoint.shape.fields, endpoint.problem) == ("basic", None)
    assert "does not accept the request (400)" in failure_of(
        Endpoint(served, "no/such").reply(BAKER, ["hi"])
    )
