"""What a browser keeps comes back whole, and nothing that a stranger could write instead does harm.

Run: `python -m pytest tests/page/test_browser_store.py`
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from page.browser_store import (
    MAX_JSON_CHARS,
    chat_from_json,
    chat_to_json,
    kept_from_json,
    persona_from_dict,
    persona_to_dict,
)
from page.conversation import MAX_EXCHANGES, Conversation, Exchange
from page.middleware import MAX_BODY_BYTES
from persona_bot.errors import UserError
from persona_bot.persona import Persona, load_presets

MAJA = Persona("Maja, baker", ("i bake.", "my name is maja."), "🍞", "bread?", ("What do you do?",))


def a_chat() -> Conversation:
    first = Exchange("hi", MAJA, ["hello <b>", "hey"], shown=1)
    second = Exchange("and?", MAJA._replace(face="🌱"), ["fine"])
    return Conversation(MAJA, [first, second], own=True)


def record(**changes) -> str:
    return json.dumps({**json.loads(chat_to_json(a_chat())), **changes})


def test_a_chat_comes_back_as_it_was():
    chat = a_chat()
    assert chat_from_json(chat_to_json(chat)) == chat


@pytest.mark.parametrize("persona", [*load_presets().values(), MAJA, Persona("Tom", ())])
def test_a_persona_comes_back_as_it_was(persona):
    assert persona_from_dict(persona_to_dict(persona)) == persona


def test_a_face_that_a_browser_kept_is_one_symbol():
    assert persona_from_dict({**persona_to_dict(MAJA), "face": "★" * 16}).face == "★"


def test_a_message_that_was_never_answered_comes_back_as_unsent():
    chat = a_chat()
    chat.exchanges.append(Exchange("still there?", MAJA))
    back = chat_from_json(chat_to_json(chat))
    assert back.unsent == "still there?" and back.exchanges == a_chat().exchanges


@pytest.mark.parametrize(("letter", "kept"), [("a", MAX_EXCHANGES), ("語", 120), ("🌱", 90)])
def test_the_longest_chat_fits_a_request_and_loses_alternatives_first(letter, kept):
    chat = Conversation(MAJA)
    for _ in range(MAX_EXCHANGES):
        replies = [letter * 899 + end for end in "abcd"]
        chat.exchanges.append(Exchange(letter * 1000, MAJA, replies, shown=1))
    text = chat_to_json(chat)
    assert len(json.dumps({"data": [text]}, ensure_ascii=False).encode()) < MAX_BODY_BYTES
    back = chat_from_json(text)
    assert len(back.exchanges) >= kept
    assert {tuple(e.replies) for e in back.exchanges} == {(letter * 899 + "b",)}


BAD = [
    None, 7, [], "", "{", "[]", "null", '"x"', "{}", "[" * 100_000, "x" * (MAX_JSON_CHARS + 1),
    record(persona_bot=2),
    record(persona="soldier"),
    record(persona={"name": 7, "sentences": []}),
    record(persona={"sentences": ["x" * 201]}),
    record(persona={"sentences": ["x."] * 13}),
    record(persona={"sentences": {"0": "x"}}),
    record(persona={"sentences": [["x"]]}),
    record(persona={"sentences": [], "face": "🌱" * 17}),
    record(exchanges={}),
    record(exchanges=[7]),
    record(exchanges=[{"message": "hi", "replies": ["a"]}] * (MAX_EXCHANGES + 1)),
    record(exchanges=[{"message": "m" * 1001, "replies": ["a"]}]),
    record(exchanges=[{"message": " ", "replies": ["a"]}]),
    record(exchanges=[{"message": "hi", "replies": ["a" * 5000]}]),
    record(exchanges=[{"message": "hi", "replies": ["a"] * 21}]),
    record(exchanges=[{"message": "hi", "replies": ["a"], "shown": 1}]),
    record(exchanges=[{"message": "hi", "replies": ["a"], "shown": -1}]),
    record(exchanges=[{"message": "hi", "replies": ["a"], "shown": "0"}]),
    record(exchanges=[{"message": "hi", "replies": ["a"], "persona": 7}]),
    record(exchanges=[{"message": "hi", "replies": [None]}]),
    record(exchanges=[{"message": "hi", "replies": []}, {"message": "hi", "replies": ["a"]}]),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_chat_gets_one_sentence(text):
    with pytest.raises(UserError) as caught:
        chat_from_json(text)
    assert len(str(caught.value).splitlines()) == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["persona_bot", "persona", "exchanges", "message", "replies"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_chat_or_one_sentence(value):
    if isinstance(value, dict):
        value = {**value, "persona_bot": 1}
    try:
        chat = chat_from_json(json.dumps(value))
    except UserError:
        return
    assert all(exchange.reply for exchange in chat.exchanges)


def test_an_id_of_another_shape_is_replaced():
    for identity in (None, 7, "", "x", "../" * 10, "A" * 32):
        assert len(chat_from_json(record(id=identity)).id) == 32


def test_half_characters_and_nul_are_no_harm():
    chat = chat_from_json(record(exchanges=[{"message": "a\ud83d", "replies": ["b\ud83d\0"]}]))
    assert (chat.exchanges[0].message, chat.exchanges[0].reply) == ("a?", "b?")


def test_a_visit_brings_what_can_be_used_of_it():
    text = chat_to_json(a_chat())
    kept = kept_from_json(json.dumps({"chat": text, "text": "i am", "draft": "so", "settings": {}}))
    assert (kept.chat, kept.text, kept.draft, kept.problem) == (a_chat_like(text), "i am", "so", "")
    broken = kept_from_json(json.dumps({"chat": "{", "draft": "so", "text": 7, "settings": [1]}))
    assert (broken.chat, broken.text, broken.draft, broken.settings) == (None, None, "so", {})
    assert broken.problem.startswith("The chat that this browser kept cannot be used")
    for nothing in (None, "", "{}"):
        assert kept_from_json(nothing) == (None, None, "", {}, "", None)
    assert kept_from_json("[").problem


def a_chat_like(text: str) -> Conversation:
    return chat_from_json(text)
