"""What these tests share: the prompt layouts by tokenizer, and a server that streams what it is told to."""

from pathlib import Path

import pytest

from tests.endpoint_peer import Peer

STOCK = Path(__file__).parents[1] / "data" / "stock_convai"
TOKENIZERS = ("chat", "smollm2", "convai", "stock", "gpt")


@pytest.fixture(scope="module")
def stock_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(STOCK)


@pytest.fixture(params=[f"{name}_tokenizer" for name in TOKENIZERS])
def layout(request):
    from persona_bot.layouts import find_layout

    return find_layout(request.getfixturevalue(request.param))


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.shutdown()
    peer.server_close()


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("persona_bot.replies.request.PAUSES", (0.0, 0.0))
