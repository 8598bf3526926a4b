"""A server whose answers begin within a thought, whose end alone it marks (vLLM without a reasoning parser): what is shown of them.

Run: `python -m pytest tests/persona_bot/test_remote_thoughts.py`
"""

import itertools

import pytest

from persona_bot.replies.openai_protocol import THOUGHT_TOKENS
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.endpoint_peer import BAKER, DONE, event, outcome

LONG = 100  # tokens of a thought, more than a reply has


def written(words: list[str]):
    """A server that writes these as far as it was asked to."""

    def answer(body: dict):
        most = body["max_tokens"]
        end = event("", "stop" if len(words) <= most else "length")
        return [*map(event, words[:most]), end, DONE]

    return answer


THINKER = written([*(f"Okay {k}. " for k in range(LONG)), "</think>", "\n\n", "i ", "bake."])
OWN_FIELD = b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n'


def replies(peer, server, model: str, count: int) -> list[str]:
    peer.script = [server] * 2 * count
    endpoint = Endpoint(peer.url, model)
    return [outcome(endpoint.reply(BAKER, ["hi there"], Settings())) for _ in range(count)]


def test_a_thought_that_is_longer_than_a_reply_is_shown_once_at_most(peer):
    first, *others = replies(peer, THINKER, "mine", 3)
    assert first.startswith("Okay 0.") and others == ["i bake."] * 2
    limits = [body["max_tokens"] for _, body in peer.bodies]
    assert limits == [60, 60, 60 + THOUGHT_TOKENS, 60 + THOUGHT_TOKENS]


@pytest.mark.parametrize(
    "model", ["DeepSeek-R1-Distill", "QwQ-32B", "Qwen3-4B-Thinking-2507", "Phi-4-reasoning"]
)
def test_a_model_that_is_named_for_its_thoughts_shows_none(peer, model):
    assert replies(peer, THINKER, model, 2) == ["i bake."] * 2


@pytest.mark.parametrize("length", [70, 5_000])
def test_a_model_that_says_much_is_asked_once_whether_it_thinks(peer, length):
    told = replies(peer, written([f" w{k}" for k in range(length)]), "mine", 4)
    assert told == [" ".join(f"w{k}" for k in range(60)) + "…"] * 4
    assert len(peer.bodies) == 5


def test_an_answer_that_was_withheld_does_not_tell_whether_a_model_thinks(peer):
    peer.script = [[event(None, "content_filter"), DONE], *[THINKER] * 3]
    endpoint = Endpoint(peer.url, "deepseek-r1")
    told = [outcome(endpoint.reply(BAKER, ["hi there"])) for _ in range(2)]
    assert "withholds" in told[0] and told[1] == "i bake."


@pytest.mark.parametrize("thought", [[], [OWN_FIELD]])
def test_a_model_whose_thoughts_are_not_in_its_text_streams(peer, thought):
    endless = [*thought, event("i"), *[event(" bake"), 0.02] * 1_500]
    peer.script = [[*thought, event("i bake."), event("", "stop"), DONE], endless]
    endpoint = Endpoint(peer.url, "deepseek-r1")
    assert outcome(endpoint.reply(BAKER, ["hi there"])) == "i bake."
    reply = endpoint.reply(BAKER, ["hi there"])
    assert list(itertools.islice(filter(None, reply), 2)) == ["i", " bake"]
    reply.close()


def test_a_thought_that_is_counted_with_each_piece_does_not_shorten_the_answer(peer):
    words = ["i bake.", " and", " i", " eat."]
    pieces = [event(w, usage={"completion_tokens": 300 + k}) for k, w in enumerate(words)]
    peer.script = [[*pieces, event("", "stop", usage={"completion_tokens": 304}), DONE]]
    reply = Endpoint(peer.url).reply(BAKER, ["hi there"])
    assert (outcome(reply), reply.num_tokens) == ("i bake. and i eat.", 304)
