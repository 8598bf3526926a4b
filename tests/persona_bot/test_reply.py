"""The stream of a reply: exact text, limits, stop, deadline, errors, seeds. Run: python -m pytest tests/persona_bot/test_reply.py"""

import copy
import random
import threading
import time
from dataclasses import fields
from itertools import count, islice
from types import SimpleNamespace

import pytest
import torch
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from persona_bot.engine.sampler import NgramIndex, Sampler, penalized
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from persona_bot.replies import local
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import plain_model, say

TURNS = ["hello, how are you?"]


@pytest.fixture
def chat(chat_model, chat_tokenizer) -> LocalModel:
    return plain_model(copy.deepcopy(chat_model), chat_tokenizer, 512)


@pytest.fixture
def convai(convai_model, convai_tokenizer) -> LocalModel:
    return plain_model(copy.deepcopy(convai_model), convai_tokenizer, 256)


def greedy_reference(
    model: LocalModel, persona: Persona, turns: list[str], count: int
) -> list[int]:
    """The likeliest ids by whole forward passes without any cache."""
    prompt = build_prompt(model.layout, persona, turns, 200)
    ids: list[int] = []
    for _ in range(count):
        inputs = {"input_ids": torch.tensor([prompt.ids + ids])}
        if prompt.token_types:
            inputs["token_type_ids"] = torch.tensor(
                [prompt.token_types + [model.layout.speaker1] * len(ids)]
            )
        with torch.no_grad():
            logits = model.backend.model(**inputs).logits[0, -1].float()
        logits[sorted(model.layout.control_ids)] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids


@pytest.mark.parametrize("kind", ["chat", "convai"])
def test_the_cache_changes_nothing(kind, request, environmentalist):
    model = request.getfixturevalue(kind)
    prompt = build_prompt(model.layout, environmentalist, TURNS, 200)
    sampler = Sampler(
        model.layout,
        Settings(temperature=0, min_tokens=59, repetition_penalty=1, no_repeat_ngram=0),
        [],
    )
    assert list(islice(model.backend.generate(prompt, sampler), 12)) == greedy_reference(
        model, environmentalist, TURNS, 12
    )


@pytest.mark.parametrize("kind", ["chat", "convai"])
def test_pieces_joined_are_the_reply(kind, request, environmentalist):
    model = request.getfixturevalue(kind)
    for seed in range(8):
        reply = model.reply(environmentalist, TURNS, Settings(temperature=1.5, top_p=1, seed=seed))
        pieces = list(reply)
        assert "".join(pieces) == reply.text
        assert all(pieces)
        assert not any(token in reply.text for token in model.layout.tokenizer.all_special_tokens)


def test_characters_of_several_bytes_are_never_cut(chat, environmentalist):
    say(chat, ["é 🙂 日本 ok", chat.layout.end_id])
    settings = Settings(temperature=0, guidance_scale=1, repetition_penalty=1, no_repeat_ngram=0)
    reply = chat.reply(environmentalist, TURNS, settings)
    pieces = list(reply)
    assert "".join(pieces) == reply.text == "é 🙂 日本 ok"
    assert "\ufffd" not in "".join(pieces)
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    "text", ["<think> hm. so. </think> i bake <3", "i bake <3[THINK]so[/THINK]"]
)
def test_a_thought_in_ordinary_tokens_is_not_shown(chat, environmentalist, text):
    say(chat, [text, chat.layout.end_id])
    settings = Settings(temperature=0, guidance_scale=1, repetition_penalty=1, no_repeat_ngram=0)
    reply = chat.reply(environmentalist, TURNS, settings)
    assert ("".join(reply), reply.text, reply.finish_reason) == ("i bake <3",) * 2 + ("stop",)


def test_nothing_but_a_thought_is_one_sentence(chat, environmentalist):
    say(chat, ["<think>", *chat.layout.encode("so.")[:2] * 30])
    settings = Settings(
        temperature=0, guidance_scale=1, max_tokens=40, repetition_penalty=1, no_repeat_ngram=0
    )
    with pytest.raises(UserError, match="only thought"):
        list(chat.reply(environmentalist, TURNS, settings))


def test_the_same_seed_says_the_same(chat, environmentalist):
    texts = [
        "".join(chat.reply(environmentalist, TURNS, Settings(seed=seed))) for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_no_end_before_the_minimum(chat, environmentalist):
    say(chat, [chat.layout.end_id] * 60)
    reply = chat.reply(
        environmentalist, TURNS, Settings(temperature=0, min_tokens=9, max_tokens=40)
    )
    list(reply)
    assert (reply.num_tokens, reply.finish_reason) == (9, "stop")


def test_near_the_limit_a_reply_ends_with_its_sentence(chat, environmentalist):
    words = chat.layout.encode("so and so")[0:1] * 30
    dot = chat.layout.encode(".")[0]
    say(chat, [*words, dot, *words])
    settings = Settings(
        temperature=0, guidance_scale=1, max_tokens=40, repetition_penalty=1, no_repeat_ngram=0
    )
    reply = chat.reply(environmentalist, TURNS, settings)
    assert list(reply)[-1] == "."
    assert (reply.num_tokens, reply.finish_reason) == (31, "length")


def test_a_sentence_without_end_is_cut_with_an_ellipsis(chat, environmentalist):
    say(chat, chat.layout.encode("so")[0:1] * 50)
    settings = Settings(
        temperature=0, guidance_scale=1, max_tokens=24, repetition_penalty=1, no_repeat_ngram=0
    )
    reply = chat.reply(environmentalist, TURNS, settings)
    assert "".join(reply) == reply.text and reply.text.endswith("…")
    assert (reply.num_tokens, reply.finish_reason) == (24, "length")


def test_no_run_of_tokens_twice(chat, environmentalist):
    """Neither within the reply nor from an earlier reply."""
    prompt = build_prompt(chat.layout, environmentalist, TURNS, 200)
    earlier = chat.layout.encode("i am fine, thank you!")
    for seed in range(5):
        sampler = Sampler(
            chat.layout,
            Settings(temperature=0.3, no_repeat_ngram=2, seed=seed, min_tokens=40),
            earlier,
        )
        ids = list(islice(chat.backend.generate(prompt, sampler), 40))
        pairs = list(zip(earlier + ids, (earlier + ids)[1:], strict=False))
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    "turn, again",
    [
        ("so how are you today?", True),
        ("how are you doing", True),
        ("Where do you live ?", True),
        ("really?", False),
        ("and you?", False),
        ("i feel well today", False),
        ("somehow i am fine.", False),
    ],
)
def test_a_question_may_be_answered_as_before(chat, environmentalist, turn, again):
    """Else "in a small wooden cabin" would become "in a small wooden cave"."""
    told = "i am fine, thank you!"
    say(chat, [told, chat.layout.end_id])
    plain = Settings(temperature=0, guidance_scale=1, repetition_penalty=1)
    reply = chat.reply(environmentalist, ["hello", told, turn], plain)
    assert ("".join(reply) == told) is again


def test_stop_ends_it_at_the_next_token(chat, environmentalist):
    stop = threading.Event()
    reply = chat.reply(environmentalist, TURNS, Settings(min_tokens=50, seed=0), stop)
    pieces = []
    for piece in reply:
        pieces.append(piece)
        if len(pieces) == 3:
            stop.set()
            told = reply.num_tokens
    assert len(pieces) == 3
    assert (reply.num_tokens, reply.finish_reason) == (told, "cancelled")


def test_after_a_stop_from_another_thread_at_most_one_more_token_is_computed(
    chat, environmentalist
):
    original, stop, passes = chat.backend.model.forward, threading.Event(), []

    def slowed(**inputs):
        passes.append(stop.is_set())
        time.sleep(0.02)
        return original(**inputs)

    chat.backend.model.forward = slowed
    reply = chat.reply(environmentalist, TURNS, Settings(min_tokens=60, max_tokens=200), stop)
    threading.Timer(0.3, stop.set).start()
    list(reply)
    assert reply.finish_reason == "cancelled"
    assert passes and sum(passes) <= 1


def test_close_ends_it_and_keeps_the_text(chat, environmentalist):
    reply = chat.reply(environmentalist, TURNS, Settings(min_tokens=50, seed=0))
    first = next(iter(reply))
    reply.close()
    assert list(reply) == []
    assert reply.text == first


def test_the_deadline_ends_it_with_what_it_has(chat, environmentalist, monkeypatch):
    looks = count(step=0.05)  # at the clock: one a token
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    reply = chat.reply(
        environmentalist, TURNS, Settings(min_tokens=60, max_tokens=200, deadline=0.32)
    )
    text = "".join(reply)
    assert reply.finish_reason == "deadline"
    assert text == reply.text != ""
    assert reply.num_tokens == 6


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("mat1 and mat2"), "failed during the reply"),
    ],
)
def test_an_error_in_the_model_is_one_sentence_and_the_next_reply_works(
    chat, environmentalist, error, says
):
    original = chat.backend.model.forward

    def broken(**inputs):
        raise error

    chat.backend.model.forward = broken
    with pytest.raises(UserError, match=says):
        list(chat.reply(environmentalist, TURNS))
    chat.backend.model.forward = original
    assert "".join(chat.reply(environmentalist, TURNS, Settings(seed=0)))


def test_numbers_that_are_none_are_an_error(chat, environmentalist):
    with torch.no_grad():
        chat.backend.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no valid number"):
        list(chat.reply(environmentalist, TURNS))


def test_two_streams_at_once_do_not_mix(chat, environmentalist):
    other = Persona("", ("i have two cats.",))
    alone = ["".join(chat.reply(p, TURNS, Settings(seed=3))) for p in (environmentalist, other)]
    streams = [iter(chat.reply(p, TURNS, Settings(seed=3))) for p in (environmentalist, other)]
    texts = ["", ""]
    running = {0, 1}
    while running:
        for k in sorted(running):
            piece = next(streams[k], None)
            if piece is None:
                running.discard(k)
            else:
                texts[k] += piece
    assert texts == alone


def test_the_oldest_turns_make_room(chat, environmentalist):
    turns = ["hello, how are you today? i am fine, thank you! what do you do?"] * 61
    settings = Settings(seed=0)
    reply = chat.reply(environmentalist, turns, settings)
    list(reply)
    used, limit = chat.context_usage(environmentalist, turns, settings)
    assert used == limit == 512 - settings.max_tokens
    assert reply.dropped_turns > 0 and reply.dropped_turns % 2 == 0
    assert reply.prompt_tokens <= limit


@pytest.mark.parametrize("name", sorted(field.name for field in fields(Settings)))
@pytest.mark.parametrize("value", [-1, 1e308, float("nan"), float("inf"), "1", None, True, [1]])
def test_settings_out_of_range_are_refused(name, value):
    if name == "seed" and value is None:
        assert Settings(seed=None).seed is None
        return
    with pytest.raises(UserError, match=f"The setting {name} must be"):
        Settings(**{name: value})


def test_the_shortest_must_be_below_the_longest():
    with pytest.raises(UserError, match="shortest reply"):
        Settings(min_tokens=30, max_tokens=30)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 0.9), (1.0, 5, 1.0), (2.0, 0, 0.99), (0.5, 40, 0.6), (1.3, 0, 1.0)],
)
def test_what_is_drawn_from_is_what_transformers_draws_from(chat, temperature, top_k, top_p):
    scores = torch.randn(5_000, generator=torch.Generator().manual_seed(1)) * 2
    sampler = Sampler(chat.layout, Settings(temperature=temperature, top_k=top_k, top_p=top_p), [])
    weights, tokens = map(torch.from_numpy, sampler.choices(scores.numpy()))
    warped = TemperatureLogitsWarper(temperature)(None, scores[None])
    warped = TopKLogitsWarper(top_k)(None, warped) if top_k else warped
    expected = (
        TopPLogitsWarper(top_p)(None, warped).softmax(-1)[0] if top_p < 1 else warped.softmax(-1)[0]
    )
    found = torch.zeros(5_000)
    found[tokens] = weights / weights.sum()
    assert torch.allclose(found, expected, atol=1e-6)
    assert (found > 0).sum() == (expected > 0).sum()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_what_would_repeat_is_what_transformers_finds(size):
    from transformers import NoRepeatNGramLogitsProcessor

    draw = random.Random(size)
    for length in (1, 2, 7, 60):
        ids = [draw.randrange(4) for _ in range(length)]
        theirs = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), torch.zeros(1, 4))[0]
        assert set(NgramIndex(size, []).repeating(ids)) == set(
            theirs.isinf().nonzero()[:, 0].tolist()
        )


def test_repeats_are_found_as_a_reply_grows():
    """Token by token, behind earlier replies, with a first token that is another one inside a text."""
    index, reply = NgramIndex(3, [1, 2, 3, 9, 7, 5, 6]), []
    found = []
    for token in [70, 5, 6, 1, 2]:
        start = [7] if len(reply) == 1 else []
        found.append(index.repeating(reply, start))
        reply.append(token)
    assert [*found, index.repeating(reply)] == [[], [], [6], [7], [], [3]]


def test_the_penalty_is_that_of_transformers():
    from transformers import RepetitionPenaltyLogitsProcessor

    scores, ids = torch.linspace(-3, 3, 9), [0, 3, 3, 8]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([ids]), scores[None].clone())[0]
    said = list(set(ids))
    scores[said] = torch.from_numpy(penalized(scores[said].numpy(), 1.3))
    assert torch.equal(scores, theirs)


class Spelled:
    """A layout whose tokens are these texts; the first is the end."""

    texts = ("", " i", " am", " ", "5", "1", " old", "er", ".", " tired")
    stop_ids, control_ids, num_ids = {0}, set(), len(texts)

    def encode(self, text: str) -> list[int]:
        return [self.texts.index(text)] if text in self.texts else []

    def decode(self, ids) -> str:
        return "".join(self.texts[i] for i in ids)


@pytest.mark.parametrize(
    "earlier, said, allowed",
    [
        ([1, 2, 3, 4, 5, 8], [1, 2], {3}),  # i am 51. - the space before a number
        ([1, 2, 3, 4, 5, 8], [1, 2, 3, 4], {5}),  # its digits
        ([1, 2, 6, 7, 8], [2, 6], {7}),  # old er: the rest of a word
        ([1, 2, 6, 8, 0], [6, 8], {0}),  # the end
        ([1, 2, 9, 8], [1, 2], set()),  # i am tired: a new word is not said again
    ],
)
def test_only_words_are_not_said_again(earlier, said, allowed):
    sampler = Sampler(Spelled(), Settings(no_repeat_ngram=3, min_tokens=0), earlier)
    banned = set(sampler.forbidden(said))
    assert not banned & allowed
    assert bool(banned) is not bool(allowed)


@pytest.mark.parametrize(
    "said, shortest, penalty, likelier_by, drawn",
    [
        ([9, 8], 0, 2, 1.9, " tired"),  # "tired." is whole: no sentence of the persona follows
        ([9, 8], 1, 2, 1.9, " tired"),
        ([9, 8], 2, 2, 0.1, " i"),  # one that is too short is not whole
        ([9, 8], 0, 2, 2.1, " i"),
        ([9, 8], 0, 0, 0.1, " i"),
        ([9], 0, 2, 0.1, " i"),  # in the midst of one
        ([], 0, 2, 0.1, " i"),
    ],
)
def test_another_sentence_of_the_persona_is_seldom_added(
    said, shortest, penalty, likelier_by, drawn
):
    settings = Settings(
        temperature=0,
        min_tokens=shortest,
        repetition_penalty=1,
        no_repeat_ngram=0,
        afterthought_penalty=penalty,
    )
    logits = torch.full((10,), -9.0)
    logits[Spelled.texts.index(" tired")] = 1.0
    logits[Spelled.texts.index(" i")] = 1.0 + likelier_by
    sampler = Sampler(Spelled(), settings, [], ["i"])
    sampler.penalize_afterthoughts(logits, said)
    assert Spelled.texts[sampler.sample(logits, said)] == drawn


def test_what_begins_a_sentence_of_the_persona_is_known_in_both_cases(chat_tokenizer):
    layout = find_layout(chat_tokenizer)
    sampler = Sampler(layout, Settings(), [], ["i love nature.", "My dog is lazy.", "i am 27."])
    expected = [layout.encode(word)[0] for word in (" i", " I", " my", " My")]
    assert sampler.openers == sorted(set(expected))
    assert Sampler(layout, Settings(), []).openers == []


@pytest.mark.parametrize("best_of", [1, 2])
def test_the_persona_of_a_reply_is_what_is_seldom_added(
    chat, environmentalist, best_of, monkeypatch
):
    made = []
    monkeypatch.setattr(local, "Sampler", lambda *args: made.append(Sampler(*args)) or made[-1])
    list(chat.reply(environmentalist, TURNS, Settings(best_of=best_of, max_tokens=5)))
    expected = Sampler(chat.layout, Settings(), [], environmentalist.sentences).openers
    assert expected and [sampler.openers for sampler in made] == [expected] * best_of
