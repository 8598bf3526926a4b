"""Reuse between turns gives what a cold run gives, and computes only what is new. Run: python -m pytest tests/persona_bot/test_prefix_cache.py"""

import copy
from dataclasses import replace

import pytest
import torch

from persona_bot.engine.backend import BatchedBackend
from persona_bot.engine.gate import share
from persona_bot.engine.kv_cache import KVCache
from persona_bot.engine.prefix_cache import PrefixCache, common_length
from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import checkpoint_of

GREEDY = Settings(temperature=0, max_tokens=12)
QUESTIONS = [
    "hello, how are you?",
    "what do you do for a living?",
    "do you have any pets?",
    "how are you?",
]


@pytest.fixture(params=["chat", "convai"])
def model(request) -> LocalModel:
    tokenizer = request.getfixturevalue(f"{request.param}_tokenizer")
    model = copy.deepcopy(request.getfixturevalue(f"{request.param}_model"))
    backend = BatchedBackend(share(model, 256))
    return LocalModel.with_backend(checkpoint_of(model, tokenizer, 256), backend)


def passes(model: LocalModel) -> list[int]:
    """Records how many positions each forward pass computes."""
    counts: list[int] = []
    original = model.backend.model.forward

    def forward(parts):
        counts.extend(len(part.ids) for part in parts)
        return original(parts)

    model.backend.model.forward = forward
    return counts


def cold(model: LocalModel) -> LocalModel:
    return replace(model, backend=BatchedBackend(model.backend.model))


def converse(model: LocalModel, persona: Persona, questions: list[str], warm: bool) -> list[str]:
    turns: list[str] = []
    for question in questions:
        turns.append(question)
        reply = (model if warm else cold(model)).reply(persona, turns, GREEDY)
        turns.append("".join(reply))
    return turns


def test_a_conversation_is_the_same_warm_and_cold(model, environmentalist):
    warm = converse(model, environmentalist, QUESTIONS, warm=True)
    assert warm == converse(model, environmentalist, QUESTIONS, warm=False)


def test_the_second_turn_computes_only_what_is_new(model, environmentalist):
    first = model.reply(environmentalist, QUESTIONS[:1], GREEDY)
    text = "".join(first)
    counts = passes(model)
    second = model.reply(environmentalist, [QUESTIONS[0], text, QUESTIONS[1]], GREEDY)
    list(second)
    assert counts[0] < second.prompt_tokens - first.prompt_tokens + 2
    assert set(counts[1:]) == {1}


def test_a_changed_persona_is_computed_anew_from_the_change_on(model, environmentalist):
    list(model.reply(environmentalist, QUESTIONS[:1], GREEDY))
    other = environmentalist._replace(
        sentences=("i have two cats.", *environmentalist.sentences[1:])
    )
    warm = "".join(model.reply(other, QUESTIONS[:1], GREEDY))
    assert warm == "".join(cold(model).reply(other, QUESTIONS[:1], GREEDY))


def test_an_edited_message_is_computed_anew_from_the_edit_on(model, environmentalist):
    turns = converse(model, environmentalist, QUESTIONS, warm=True)
    edited = [*turns[:2], "tell me a joke, please!"]
    warm = "".join(model.reply(environmentalist, edited, GREEDY))
    assert warm == "".join(cold(model).reply(environmentalist, edited, GREEDY))


def test_two_visitors_of_one_persona_do_not_disturb_each_other(model, environmentalist):
    alone = [
        converse(model, environmentalist, list(q), warm=False)
        for q in (QUESTIONS, reversed(QUESTIONS))
    ]
    chats: list[list[str]] = [[], []]
    for pair in zip(QUESTIONS, reversed(QUESTIONS), strict=True):
        for chat, question in zip(chats, pair, strict=True):
            chat.append(question)
            chat.append("".join(model.reply(environmentalist, chat, GREEDY)))
    assert chats == alone


def test_streams_that_run_at_once_never_share_a_cache(model, environmentalist):
    list(model.reply(environmentalist, QUESTIONS[:1], GREEDY))
    expected = "".join(cold(model).reply(environmentalist, QUESTIONS[:1], GREEDY))
    streams = [model.reply(environmentalist, QUESTIONS[:1], GREEDY) for _ in range(3)]
    running = [iter(stream) for stream in streams]
    while running:
        running = [pieces for pieces in running if next(pieces, None) is not None]
    assert [stream.text for stream in streams] == [expected] * 3


def test_what_many_visitors_begin_with_is_computed_once(model, environmentalist):
    list(model.reply(environmentalist, QUESTIONS[:1], GREEDY))
    counts = passes(model)
    running = [iter(model.reply(environmentalist, QUESTIONS[:1], GREEDY)) for _ in range(2)]
    # both begin before the first gives anything back
    assert all([next(pieces, None) for pieces in running])
    assert set(counts) == {1}


def test_a_conversation_that_goes_on_takes_one_place(model, environmentalist):
    converse(model, environmentalist, QUESTIONS[:1], warm=True)
    model.backend.engine.reap_finished()
    places = len(model.backend.prefixes.entries())
    converse(model, environmentalist, QUESTIONS[:1], warm=True)
    model.backend.engine.reap_finished()
    # the conversation, and what every reply is held against
    assert places == len(model.backend.prefixes.entries()) == 2


def test_a_failed_pass_leaves_nothing_behind(model, environmentalist):
    original = model.backend.model.forward

    def broken(parts):
        original(parts)  # fills the cache
        raise RuntimeError("broken")

    model.backend.model.forward = broken
    with pytest.raises(UserError):
        list(model.reply(environmentalist, QUESTIONS[:1], GREEDY))
    assert model.backend.prefixes.entries() == []


def test_memory_is_bounded(model, environmentalist):
    model.backend.prefixes.max_bytes = 4_000_000
    for number in range(60):
        persona = Persona("", (f"{number} is my lucky number.",) * 4)
        list(model.reply(persona, ["hello!"], Settings(max_tokens=4, min_tokens=0)))
    held = sum(cache.nbytes for _, cache in model.backend.prefixes.entries())
    assert 2_000_000 < held <= 4_000_000


def test_common_length():
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([], [1]) == 0
    assert PrefixCache().take([1, 2, 3], list)[1] == 0


def test_what_others_take_of_the_memory_it_gives_up_but_for_a_third():
    def cache() -> KVCache:
        return KVCache(torch.zeros(1, 1, 10, 25), 10)  # 1,000 bytes

    spare = 10_000
    prefixes = PrefixCache(6_000, lambda: spare)
    for k in range(9):
        prefixes.give_back([k] * 10, cache())
    assert len(prefixes.entries()) == 6
    spare = 4_500
    assert [ids[0] for ids, _ in prefixes.entries()] == [5, 6, 7, 8]
    spare = -1_000
    assert [ids[0] for ids, _ in prefixes.entries()] == [7, 8]


def test_a_conversation_that_does_not_go_on_is_let_go(model, environmentalist):
    converse(model, environmentalist, QUESTIONS[:2], warm=True)
    model.backend.tidy()
    assert model.backend.prefixes.entries(), "it may go on"
    assert model.backend.model.slots.bytes_written == 0, "a finished reply has moved out"
    model.backend.prefixes.drop_unused(0)
    assert not model.backend.prefixes.entries()
