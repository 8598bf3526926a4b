"""Which sentences a reply used: the stretches that are hidden, and what hiding them does.

Run: `python -m pytest tests/persona_bot/test_attribution.py`
"""

from types import SimpleNamespace

import pytest

from persona_bot.errors import UserError
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from persona_bot.replies import attribution
from persona_bot.replies.attribution import sentence_losses, span, used_sentences
from persona_bot.replies.local import LocalModel
from tests.models import batched_model

ANN = Persona("Ann", ("i work at sea.", "i hate cars.", "i am ann."))
TURNS = ["hi", "hello!", "do you have a car?"]


@pytest.fixture(scope="module")
def model(chat_model, chat_tokenizer) -> LocalModel:
    return batched_model(chat_model, chat_tokenizer)


def test_a_span_holds_one_sentence_and_nothing_else(model):
    prompt = build_prompt(model.layout, ANN, TURNS, 400)
    for number, sentence in enumerate(ANN.sentences):
        start, end = span(model.layout, ANN, number, TURNS)
        left = model.layout.decode(prompt.ids[:start] + prompt.ids[end:])
        others = [s for s in ANN.sentences if s != sentence]
        assert sentence not in left and all(other in left for other in others)


def test_what_is_hidden_cannot_matter(model):
    """A branch from which the whole prompt but its last id is hidden does not know what stands there."""
    ids = reply_ids(model.layout, "no, i hate cars.")
    scores = []
    for persona in (ANN, ANN._replace(sentences=("i do like cats", *ANN.sentences[1:]))):
        prompt = build_prompt(model.layout, persona, TURNS, 400)
        last = len(prompt.ids) - 1
        whole, blind = model.backend.score_hiding(prompt, ids, [(0, last)])
        assert whole == pytest.approx(model.backend.score(prompt, [ids])[0], abs=0.05)
        scores.append((len(prompt.ids), whole, blind))
    if scores[0][0] == scores[1][0]:  # the same positions
        assert scores[0][2] == pytest.approx(scores[1][2], abs=1e-4)
    assert scores[0][1] != scores[1][1]


def test_both_backends_say_how_much_a_reply_loses(model, chat_model, chat_tokenizer):
    from persona_bot.engine.serial import SerialBackend

    losses = sentence_losses(model, ANN, TURNS, "no, i hate cars.")
    assert len(losses) == 3 and all(abs(loss) < 50 for loss in losses)
    plain = LocalModel(
        model.name, model.layout, model.device, model.context_length, SerialBackend(chat_model)
    )
    prompt = build_prompt(model.layout, ANN, TURNS, 400)
    ids = reply_ids(model.layout, "no, i hate cars.")
    a, b = span(model.layout, ANN, 1, TURNS)
    without = prompt._replace(ids=prompt.ids[:a] + prompt.ids[b:])
    expected = plain.backend.score(prompt, [ids])[0] - plain.backend.score(without, [ids])[0]
    assert sentence_losses(plain, ANN, TURNS, "no, i hate cars.")[1] == pytest.approx(expected)


def test_a_shared_word_needs_less_and_the_most_important_comes_first(monkeypatch):
    monkeypatch.setattr(attribution, "sentence_losses", lambda *_: [3.9, 0.6, 0.4])
    assert used_sentences(None, ANN, TURNS, "no, i hate cars.") == [(1, 0.6)]
    monkeypatch.setattr(attribution, "sentence_losses", lambda *_: [4.1, 0.6, 7.0])
    assert used_sentences(None, ANN, TURNS, "no, i hate it.") == [(2, 7.0), (0, 4.1), (1, 0.6)]
    assert used_sentences(None, ANN, TURNS, "i do.") == [(2, 7.0), (0, 4.1)]  # no word that counts


@pytest.mark.parametrize(("shared", "most"), [(True, 8), (False, 2)])
def test_of_a_long_persona_only_so_many_sentences_are_looked_at(model, monkeypatch, shared, most):
    """Those that share words with the reply first, then those that share words with the message."""
    sentences = tuple(f"i have {k} boats." for k in range(10))
    persona = Persona("", (*sentences, "no car for me.", "i hate rain."))
    asked = []

    def score_hiding(prompt, ids, hidden):
        asked.extend(hidden)
        return [0.0, *(-float(k) for k in range(1, len(hidden) + 1))]

    backend = SimpleNamespace(is_shared=shared, score_hiding=score_hiding)
    blind = LocalModel(model.name, model.layout, model.device, model.context_length, backend)
    losses = sentence_losses(blind, persona, TURNS, "i hate it.")
    assert len(asked) == most and len(losses) == 12 and losses.count(0.0) == 12 - most
    assert (losses[11], losses[10]) == (1.0, 2.0)


def test_nothing_to_look_for_and_nowhere_to_look(model):
    assert sentence_losses(model, Persona("", ()), TURNS, "no.") == []
    assert sentence_losses(model, ANN, TURNS, "") == []
    with pytest.raises(UserError, match="^Which sentences a reply used cannot be told where the"):
        used_sentences(SimpleNamespace(), ANN, TURNS, "no.")
