"""An endpoint is a stranger: what it may send is bounded, what it refuses is asked for in other ways, thoughts are not shown.

Run: `python -m pytest tests/persona_bot/test_remote_strangers.py`
"""

import asyncio
import gzip
import itertools
import json
import types

import pytest

import persona_bot.replies.remote
import persona_bot.replies.request
from persona_bot.layouts import SILENCE
from persona_bot.replies.openai_protocol import THOUGHT_TOKENS
from persona_bot.replies.remote import Endpoint
from persona_bot.replies.visible_text import VisibleText
from persona_bot.settings import Settings
from tests.endpoint_peer import BAKER, DONE, event, outcome

STOP = event("", "stop")


@pytest.fixture(autouse=True)
def quick(no_pauses):
    pass


def ask(peer, **settings):
    return Endpoint(peer.url).reply(BAKER, ["hi there"], Settings(**settings))


# What it sends


def test_tokens_without_end_stop_where_we_asked(peer):
    peer.script = [(event(" bread") for _ in itertools.count())]
    reply = ask(peer, max_tokens=20)
    assert outcome(reply) == " ".join(["bread"] * 20) + "…"
    assert (reply.finish_reason, reply.num_tokens) == ("length", 20)
    assert peer.left.wait(30)


@pytest.mark.parametrize(
    "parts",
    [
        lambda: (b"data: " + b"x" * 60_000 for _ in itertools.count()),  # a line without end
        lambda: (b": still here\n\n" * 4_000 for _ in itertools.count()),  # comments
        lambda: (event(" ") * 1_000 for _ in itertools.count()),  # blanks
        lambda: (event(None) * 1_000 for _ in itertools.count()),  # nothing
        lambda: (event("bread" * 10_000) for _ in itertools.count()),  # long tokens
        lambda: iter([b'data: {"choices": ' + b"[" * 60_000 + b"\n\n"]),  # nested
        lambda: iter([b"data: " + b"9" * 60_000 + b"\n\n"]),
        lambda: iter([b'data: {"choices": [{"delta": 7, "finish_reason": {}}]}\n\n']),
        lambda: iter([b"\xff\xfe\x00data: \x80\n\n"]),
    ],
)
def test_an_answer_that_is_none_ends_in_one_sentence(peer, parts):
    peer.script = [lambda body: parts()] * 3
    told = outcome(ask(peer, max_tokens=20))
    assert "broke off" in told


def test_a_packed_answer_is_not_unpacked(peer):
    bomb = gzip.compress(event("bread" * 1_000_000))
    peer.script = [(200, {"Content-Encoding": "gzip"}, [bomb])] * 3
    assert "broke off" in outcome(ask(peer))


def test_usage_that_is_none_is_not_counted(peer):
    usage = {"prompt_tokens": -3, "completion_tokens": 10**30, "other": "x"}
    peer.script = [[event("bread"), event("", "stop", usage=usage), DONE]]
    reply = ask(peer)
    assert (outcome(reply), reply.num_tokens, reply.prompt_tokens) == ("bread", 1, 0)


@pytest.mark.parametrize(
    "models",
    [
        [b"[" * 100_000],
        [b'{"data": [' + b" " * (5 << 20)],
        [b'{"data": [{"id": "a"', 30.0],
        [part for _ in range(3_000) for part in (b" ", 0.01)],
    ],
)
def test_a_list_of_models_that_is_none_does_not_hold_up_the_start(peer, monkeypatch, models):
    monkeypatch.setattr(persona_bot.replies.remote, "LISTING", 0.5)
    peer.models = models
    endpoint = Endpoint(peer.url)
    assert "--model" in endpoint.problem or "did not answer in time" in endpoint.problem
    assert Endpoint(peer.url, "mine").problem is None


def test_who_leaves_is_noticed_while_the_server_is_silent(peer):
    peer.script = [[event("i"), *[0.01, b": x\n\n"] * 3_000]]
    reply = ask(peer)
    pieces = iter(reply)
    assert [next(filter(None, pieces)), next(pieces), next(pieces)] == ["i", "", ""]
    reply.close()
    assert peer.left.wait(30) and (reply.text, reply.finish_reason) == ("i", "cancelled")


def test_a_pause_that_the_server_asks_for_is_kept_within_the_deadline(peer, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    own = types.SimpleNamespace(
        **{**vars(asyncio), "sleep": sleep}
    )  # other endpoints' loops sleep on
    monkeypatch.setattr(persona_bot.replies.request, "asyncio", own)
    busy = (429, {"Retry-After": "7"}, [])
    peer.script = [busy, busy, [event("bread"), STOP, DONE]]
    endpoint = Endpoint(peer.url)
    assert "".join(endpoint.reply(BAKER, ["hi"], Settings())) == "bread"
    assert slept == [7.0, 7.0]
    peer.script = [(503, {"Retry-After": "3600"}, [])]
    assert "failed (503)" in outcome(endpoint.reply(BAKER, ["hi"], Settings()))
    assert peer.script == [] and slept == [7.0, 7.0]


# What it refuses


def refusing(*names: str, system: bool = True):
    """A server that knows neither these fields nor, if so told, the system turn."""

    def answer(body: dict):
        if body.keys() & set(names):
            said = "Unsupported parameter: use 'max_completion_tokens' instead."
            return (400, {}, [json.dumps({"error": said}).encode()])
        if not system and body["messages"][0]["role"] == "system":
            return (400, {}, [b'{"error": "no such role"}'])
        return [event("bread"), STOP, DONE]

    return answer


@pytest.mark.parametrize(
    "server, first, asked",
    [
        (refusing("max_tokens"), "system", 2),
        (refusing("max_tokens", "temperature", "top_p", "top_k"), "system", 2),
        (refusing("max_tokens", system=False), "user", 4),
        (refusing(system=False), "user", 4),
        (refusing("top_k", "min_tokens", "chat_template_kwargs"), "system", 3),
    ],
)
def test_what_is_refused_is_asked_for_in_another_way(peer, server, first, asked):
    peer.script = [server] * 9
    endpoint = Endpoint(peer.url)
    for _ in range(2):
        assert outcome(endpoint.reply(BAKER, ["hi there"])) == "bread"
    bodies = [body for _, body in peer.bodies]
    assert len(bodies) <= asked + 2  # and the second time at once
    last = bodies[-1]["messages"]
    assert last[0]["role"] == first and "i am a baker." in last[0]["content"]
    assert last[-1]["content"].endswith("hi there")


def test_a_server_that_knows_no_seed_is_asked_without_one(peer):
    forbidden = {"seed", "top_k", "min_tokens", "chat_template_kwargs"}

    def answer(body: dict):
        details = [{"loc": ["body", name]} for name in sorted(forbidden & body.keys())]
        if details:
            return (422, {}, [json.dumps({"detail": details}).encode()])
        return [event("bread"), STOP, DONE]

    peer.script = [answer] * 9
    endpoint = Endpoint(peer.url)
    for _ in range(2):
        assert outcome(endpoint.reply(BAKER, ["hi there"], Settings(seed=7))) == "bread"
    assert ["seed" in body for _, body in peer.bodies] == [True, False, False, False]


def test_a_greeting_costs_no_turns_where_a_message_without_words_is_refused(peer):
    def answer(body: dict):
        empty = any(not message["content"] for message in body["messages"])
        return 400 if empty else [event("bread"), STOP, DONE]

    peer.script = [answer] * 9
    endpoint = Endpoint(peer.url)
    assert outcome(endpoint.reply(BAKER, ["hi there"])) == "bread"
    turns = [SILENCE, *(f"turn {k}" for k in range(8))]
    for asked in (3, 4):
        reply = endpoint.reply(BAKER, turns)
        assert (outcome(reply), reply.dropped_turns, len(peer.bodies)) == ("bread", 0, asked)
    assert [m["content"] for m in peer.bodies[-1][1]["messages"][1:]] == turns[1:]


# What it thinks


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_only_a_thought_is_asked_again_with_room_for_an_answer(peer, field):
    thought = b'data: {"choices": [{"delta": {"' + field.encode() + b'": "the user says"}}]}\n\n'
    peer.script = [
        [thought, event(None, "length"), DONE],
        [thought, event("i bake."), STOP, DONE],
        [thought, event("bread."), STOP, DONE],
    ]
    endpoint = Endpoint(peer.url)
    assert outcome(endpoint.reply(BAKER, ["hi there"], Settings(max_tokens=50))) == "i bake."
    assert outcome(endpoint.reply(BAKER, ["hi there"], Settings(max_tokens=50))) == "bread."
    limits = [body["max_tokens"] for _, body in peer.bodies]
    assert limits == [50, 50 + THOUGHT_TOKENS, 50 + THOUGHT_TOKENS]
    peer.script = [[thought, event(None, "length"), DONE]]
    assert "only thought" in outcome(endpoint.reply(BAKER, ["hi there"]))


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
def test_thoughts_in_the_text_are_not_shown(peer, size):
    text = "<think>\nthe user says <b>hi</b>, 3 < 4.\n</think>\n\ni <3 bees. <thinking>hm</thinking>a < b <"
    parts = [event(text[k : k + size]) for k in range(0, len(text), size)]
    peer.script = [[*parts, STOP, DONE]]
    reply = ask(peer, max_tokens=200)
    assert outcome(reply) == reply.text == "i <3 bees. a < b <"


def test_a_thought_in_the_text_that_never_ends_is_one_sentence(peer):
    peer.script = [[event("<think>hm"), event("", "length"), DONE]] * 2
    assert "only thought" in outcome(ask(peer)) and peer.script == []


@pytest.mark.parametrize("size", [1, 2, 5])
def test_no_half_character_and_no_last_blank_is_shown(size):
    text, shown = VisibleText(), []
    whole = " \n i <3 naïve 🌱 bread \ufffd  "
    halves = whole.encode("utf-16-le")
    units = [
        halves[k : k + 2].decode("utf-16-le", "surrogatepass") for k in range(0, len(halves), 2)
    ]
    for k in range(0, len(units), size):
        shown.append(text.add("".join(units[k : k + size])))
    assert "".join([*shown, text.end()]) == "i <3 naïve 🌱 bread"
