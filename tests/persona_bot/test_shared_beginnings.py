"""What many visitors' prompts begin with together is read once, whoever comes when, and every reply is the one it is alone.

Run: `python -m pytest tests/persona_bot/test_shared_beginnings.py`
"""

import pytest

from persona_bot.engine.batching import MAX_BATCH_TOKENS, Engine
from persona_bot.engine.request import Request
from persona_bot.engine.sampler import Sampler
from persona_bot.settings import Settings
from tests.models import batched_model

GREEDY = Settings(temperature=0, min_tokens=4, max_tokens=6, repetition_penalty=1)


@pytest.fixture
def model(chat_model, chat_tokenizer):
    return batched_model(chat_model, chat_tokenizer)


def request(model, ids: list[int]) -> Request:
    cache = model.backend.engine.model.new_cache()
    return Request(ids, 0, cache, Sampler(model.layout, GREEDY, []))


def run(engine: Engine, requests: list[Request]) -> int:
    """Writes all of them to their ends; returns how many ids were read for it."""
    engine._queue, count = list(requests), 0
    while engine._queue:
        batch = engine._schedule()
        count += sum(ids for _, ids in batch)
        engine._run(batch)
        engine._end_pass()
    return count


def alone(model, ids: list[int]) -> list[int]:
    one = request(model, ids)
    run(Engine(model.backend.engine.model), [one])
    return one.reply


def beginning(length: int, seed: int = 0) -> list[int]:
    return [50 + (seed + 7 * k) % 90 for k in range(length)]


@pytest.mark.parametrize("length", [40, MAX_BATCH_TOKENS + 60])
@pytest.mark.parametrize("in_slots", [False, True])
def test_sixteen_that_begin_alike_have_it_read_once(model, length, in_slots):
    prompts = [[*beginning(length), 60 + k, 61, 62] for k in range(16)]
    requests = [request(model, ids) for ids in prompts]
    for each in requests if in_slots else []:
        model.backend.engine.model.slots.allocate(each.cache, length + 20)
    count = run(Engine(model.backend.engine.model), requests)
    assert [each.reply for each in requests] == [alone(model, ids) for ids in prompts]
    assert count == length + 16 * 3 + sum(len(each.reply) - 1 for each in requests)


def test_who_begins_in_another_way_waits_for_nobody(model):
    requests = [request(model, beginning(40, seed)) for seed in range(4)]
    engine = Engine(model.backend.engine.model)
    engine._queue = list(requests)
    assert [ids for _, ids in engine._schedule()] == [40] * 4


def test_who_comes_later_takes_over_what_one_that_writes_has_read(model):
    first, second = [*beginning(40), 60], [*beginning(40), 70, 71]
    writing, late = request(model, first), request(model, second)
    engine = Engine(model.backend.engine.model)
    engine._queue = [writing]
    engine._run(engine._schedule())
    engine._end_pass()
    assert run(engine, [late, writing]) == 2 + len(writing.reply) - 1 + len(late.reply) - 1
    assert late.reply == alone(model, second)
    assert writing.reply == alone(model, first)


def test_one_prompt_that_begins_like_another_alone_but_for_its_end(model):
    """Its last id is read in any case: the reply is drawn behind it."""
    ids = beginning(40)
    requests = [request(model, ids), request(model, ids), request(model, [*ids, 60])]
    run(Engine(model.backend.engine.model), requests)
    assert [each.reply for each in requests] == [alone(model, [*ids, *r]) for r in ([], [], [60])]


def test_the_others_read_by_themselves_where_the_first_fails_or_nothing_can_be_taken_over(
    model, monkeypatch
):
    prompts = [[*beginning(40), 60 + k, 61] for k in range(4)]
    expected = [alone(model, ids) for ids in prompts]
    engine = Engine(model.backend.engine.model)
    requests = [request(model, ids) for ids in prompts]
    forward = engine.model.forward

    def broken_for_the_first(parts):
        if any(part.cache is requests[0].cache for part in parts):
            raise RuntimeError("broken")
        return forward(parts)

    monkeypatch.setattr(engine.model, "forward", broken_for_the_first)
    run(engine, requests)
    assert requests[0].error is not None and not requests[0].reply
    assert [each.reply for each in requests[1:]] == expected[1:]

    monkeypatch.undo()
    requests = [request(model, ids) for ids in prompts]
    for each in requests:
        monkeypatch.setattr(each.cache, "take_over", lambda other, until: [].pop())
    run(engine, requests)
    assert [each.reply for each in requests] == expected
