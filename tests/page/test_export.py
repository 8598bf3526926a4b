"""What a visitor takes along: the text of a chat, and a dialogue that training reads.

Run: `python -m pytest tests/page/test_export.py`
"""

import pytest

from page.conversation import Conversation, Exchange
from page.export import chat_as_text, training_dialogue
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona
from train.data.dialogues import read_dialogues

WILLOW = Persona("Willow, gardener", ("i am willow.", "i hate cars."), "🌱")
FRIENDLY = WILLOW._replace(greeting="hi there!")


def chat_with(persona: Persona, *exchanges: Exchange) -> Conversation:
    return Conversation(persona, list(exchanges))


def test_a_chat_as_text_says_who_speaks():
    chat = chat_with(FRIENDLY, Exchange("hi <b>you</b>", FRIENDLY, ["hey.", "hello!"], 1))
    assert chat_as_text(chat) == (
        "Willow, gardener\ni am willow.\ni hate cars.\n\nWillow: hi there!\n\nYou: hi <b>you</b>\n\nWillow: hello!\n"
    )
    assert chat_as_text(chat_with(Persona("", ()), Exchange("hi", Persona("", ()), ["yo"]))) == (
        "You: hi\n\nPersona: yo\n"
    )


def test_training_reads_the_chosen_reply_as_gold_and_the_others_as_candidates(tmp_path):
    exchanges = [
        Exchange("hi", FRIENDLY, ["hey.", "hello!", "hey.", "yo"], 1),
        Exchange("a car?", FRIENDLY, ["never."], 0),
    ]
    (tmp_path / "chat.json").write_text(
        training_dialogue(chat_with(FRIENDLY, *exchanges)), encoding="utf-8"
    )
    (dialogue,) = read_dialogues(tmp_path / "chat.json")
    assert dialogue.personality == WILLOW.sentences
    first, second = dialogue.utterances
    assert first.history == (SILENCE, "hi there!", "hi")
    assert first.candidates == ("hey.", "yo", "hello!")
    assert second.history == (SILENCE, "hi there!", "hi", "hello!", "a car?")
    assert second.candidates == ("never.",)


def test_each_persona_of_a_chat_is_a_dialogue_of_its_own(tmp_path):
    soldier = Persona("Sam", ("i am sam.",))
    chat = chat_with(
        soldier, Exchange("hi", WILLOW, ["hey."]), Exchange("and now?", soldier, ["yes sir."])
    )
    (tmp_path / "chat.json").write_text(training_dialogue(chat), encoding="utf-8")
    one, other = read_dialogues(tmp_path / "chat.json")
    assert (one.personality, other.personality) == (WILLOW.sentences, soldier.sentences)
    assert other.utterances[0].history == ("hi", "hey.", "and now?")


@pytest.mark.parametrize("exchanges", [[], [Exchange("hi", WILLOW)]])
def test_without_a_reply_there_is_nothing_to_train_on(exchanges):
    with pytest.raises(
        UserError, match="^There is no reply to train on yet; write a message first"
    ):
        training_dialogue(chat_with(WILLOW, *exchanges))
