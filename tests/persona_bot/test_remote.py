"""A model behind HTTP: how a reply streams from a server of the test's own, which says what it is told to.

Run: `python -m pytest tests/persona_bot/test_remote.py`
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from persona_bot.persona import Persona
from persona_bot.replies.openai_protocol import messages
from persona_bot.replies.remote import Endpoint
from persona_bot.settings import Settings
from tests.endpoint_peer import BAKER, DONE, event, failure_of

REFUSED_FIELDS = {
    "stream_options",
    "chat_template_kwargs",
    "top_k",
    "min_tokens",
    "repetition_penalty",
    "repeat_penalty",
}


def ask(peer, turns=("hi there",), **settings):
    return Endpoint(peer.url).reply(BAKER, turns, Settings(**settings))


def test_a_reply_arrives_in_pieces_with_the_counters_of_the_local_one(peer):
    usage = {"prompt_tokens": 30, "completion_tokens": 9}
    last = b'data: {"choices": [], "usage": ' + json.dumps(usage).encode() + b"}\n\n"
    peer.script = [
        [event(" i"), 0.05, event(" bake "), event("bread."), event(None, "stop"), last, DONE]
    ]
    reply = ask(
        peer,
        ("hi !", "hello .", "who are you ?"),
        temperature=0.5,
        top_p=1,
        top_k=7,
        max_tokens=50,
        seed=3,
    )
    assert [piece for piece in reply if piece] == ["i", " bake", " bread."]
    assert (
        reply.text,
        reply.finish_reason,
        reply.num_tokens,
        reply.prompt_tokens,
        reply.dropped_turns,
    ) == ("i bake bread.", "stop", 9, 30, 0)
    assert 0 < reply.first_text_seconds < reply.seconds
    (path, body), *others = peer.bodies
    assert (path, others) == ("/v1/chat/completions", [])
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert (
        body["messages"][0]["content"].endswith("Your persona:\ni am a baker.")
        and body["messages"][1]["content"] == "hi!"
    )
    expected = {
        "model": "tiny/baker",
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.999,
        "top_k": 7,
        "max_tokens": 50,
        "seed": 3,
    }
    assert expected.items() <= body.items() and body["min_tokens"] == 3


def test_odd_chunks_of_a_stream(peer):
    whole = event("na\u2028ïve 🌱") + event("", "stop")
    role = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\r\n\r\n'
    odd = [
        b": keep-alive\n\n",
        b"event: message\nid: 1\n",
        role,
        event(""),
        event(None),
        b'data:{"choices":[]}\n\n',
    ]
    halves = [
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00!"}}]}\n\n',
    ]
    bytewise = [part for byte in whole for part in (bytes([byte]), 0.001)]
    peer.script = [[*odd, *halves, *bytewise, DONE]]
    reply = ask(peer)
    pieces = [piece for piece in reply if piece]
    assert ("".join(pieces), reply.text, pieces[0], reply.finish_reason) == (
        "😀!na\u2028ïve 🌱",
        "😀!na\u2028ïve 🌱",
        "😀!",
        "stop",
    )


def test_a_reply_ends_although_the_server_keeps_the_line_open(peer):
    peer.script = [[event("bread"), event("", "stop"), 3.0]]
    reply = ask(peer)
    assert ([p for p in reply if p], reply.finish_reason, reply.seconds < 2) == (
        ["bread"],
        "stop",
        True,
    )


@pytest.mark.parametrize(
    "text, shown",
    [("i bake", "i bake…"), ("i bake.", "i bake."), ('he said "no!"', 'he said "no!"')],
)
def test_a_reply_that_is_too_long_ends_with_dots_in_mid_sentence(peer, text, shown):
    peer.script = [[event(text), event("", "length"), DONE]]
    reply = ask(peer)
    assert ("".join(reply), reply.text, reply.finish_reason) == (shown, shown, "length")


def test_near_its_end_a_long_reply_stops_with_a_sentence(peer):
    peer.script = [
        [*(event(" a") for _ in range(10)), event("."), event(" b"), event("", "stop"), DONE]
    ]
    reply = ask(peer, max_tokens=20)
    assert ("".join(reply), reply.finish_reason) == ("a" + " a" * 9 + ".", "length")


def test_a_stop_ends_the_reply_and_closes_the_stream(peer):
    peer.script = [[event("i"), *[event(" bake"), 0.02] * 1500, DONE]]
    stop = threading.Event()
    reply = Endpoint(peer.url).reply(BAKER, ["hi"], Settings(), stop)
    assert next(filter(None, reply)) == "i"
    stop.set()
    assert ([p for p in reply if p], reply.finish_reason, reply.text) == ([], "cancelled", "i")
    assert peer.left.wait(10), "the stream of 30 seconds was read to its end"


def test_a_stop_is_seen_while_the_server_says_nothing(peer):
    peer.script = [[30.0]]
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    reply = Endpoint(peer.url).reply(BAKER, ["hi"], Settings(), stop)
    assert not any(reply) and (reply.finish_reason, reply.text) == ("cancelled", "")


def test_closing_a_reply_closes_the_stream(peer):
    peer.script = [[event("i"), *[event(" bake"), 0.02] * 1500, DONE]]
    reply = ask(peer)
    assert next(filter(None, reply)) == "i"
    reply.close()
    assert ([p for p in reply if p], peer.left.wait(2)) == ([], True)


def test_visitors_are_answered_at_the_same_time(peer):
    all_here = threading.Barrier(16, timeout=10)
    peer.script = [
        lambda body: (
            all_here.wait(30)
            and None
            or [event(body["messages"][1]["content"]), event("", "stop"), DONE]
        )
    ] * 16
    endpoint = Endpoint(peer.url)
    with ThreadPoolExecutor(16) as pool:
        texts = list(
            pool.map(lambda k: "".join(endpoint.reply(BAKER, [f"visitor {k}"])), range(16))
        )
    assert texts == [f"visitor {k}" for k in range(16)]


def test_the_deadline_keeps_what_there_is(peer):
    peer.script = [[event("i bake"), 30.0], [30.0]]
    reply = ask(peer, deadline=3.0)
    assert ("".join(reply), reply.finish_reason) == ("i bake", "deadline")
    assert "did not answer in time" in failure_of(ask(peer, deadline=0.3))


def test_the_busy_are_asked_again_until_text_came(peer, no_pauses):
    peer.script = [503, 429, [event("bread"), event("", "stop"), DONE]]
    assert "".join(ask(peer)) == "bread"
    assert len(peer.bodies) == 3
    peer.script = [
        [event(None)],
        [event("bre"), b"data: {no json\n\n"],
        [event("never asked"), DONE],
    ]
    reply = ask(peer)
    assert "broke off" in failure_of(reply)
    assert (reply.text, len(peer.script)) == ("bre", 1)


@pytest.mark.parametrize(
    "ending",
    [
        b"",
        b"data: {no json\n\n",
        b'data: {"error": {"message": "hi there"}}\n\n',
        b'data: {"choices": 3}\n\n',
        b"data: 1\n\n",
    ],
)
def test_a_stream_that_breaks_in_the_middle_keeps_what_arrived(peer, no_pauses, ending):
    peer.script = [[event("i bake"), ending]]
    reply = ask(peer)
    assert "broke off" in failure_of(reply)
    assert (reply.text, len(peer.bodies)) == ("i bake", 1)


@pytest.mark.parametrize(
    "status, asked, words",
    [
        (401, 1, "MODEL_ENDPOINT_TOKEN"),
        (403, 1, "MODEL_ENDPOINT_TOKEN"),
        (404, 1, "does not know tiny/baker"),
        (400, 5, "does not accept the request (400)"),
        (500, 1, "failed (500)"),
        (307, 1, "elsewhere (307)"),
        (502, 3, "failed (502)"),
        (429, 3, "busy"),
    ],
)
def test_each_refusal_is_one_sentence_with_its_cure(peer, no_pauses, status, asked, words):
    peer.script = [status] * 5
    told = failure_of(ask(peer))
    assert words in told and told.count(".") == 1 and told.endswith(".")
    assert len(peer.bodies) == asked


def test_a_server_that_knows_openais_fields_only_is_asked_with_those(peer):
    strict = [
        lambda body: (
            422 if body.keys() & REFUSED_FIELDS else [event("bread"), event("", "stop"), DONE]
        )
    ] * 3
    peer.script = strict
    endpoint = Endpoint(peer.url)
    for _ in range(2):
        assert "".join(endpoint.reply(BAKER, ["hi"])) == "bread"
    assert [bool(body.keys() & REFUSED_FIELDS) for _, body in peer.bodies] == [True, False, False]


def test_turns_that_the_model_has_no_room_for_are_dropped(peer):
    peer.script = [
        lambda body: 400 if len(body["messages"]) > 5 else [event("bread"), event("", "stop"), DONE]
    ] * 9
    turns = [f"turn {k}" for k in range(11)]
    reply = ask(peer, turns)
    assert ("".join(reply), reply.dropped_turns) == ("bread", 8)
    sent = peer.bodies[-1][1]["messages"]
    assert [m["content"] for m in sent[1:]] == turns[8:] and sent[1]["role"] == "user"


def test_nothing_typed_becomes_a_control_token():
    sent = messages(
        Persona("", ("i am <|im_end|>.",)),
        ["<|im_start|>system [INST] </s> <3 \ud83d", "a < b [ok]", ""],
    )
    assert not any(token in m["content"] for m in sent for token in ("<|", "</s>", "[INST]"))
    assert (
        sent[1]["content"].endswith(" <3 ?")
        and sent[2]["content"] == "a < b [ok]"
        and sent[3]["content"] == ""
    )
