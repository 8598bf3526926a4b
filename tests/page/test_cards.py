"""Character cards: what becomes of their fields, what does not fit, and that ours read back whole.

Run: `python -m pytest tests/page/test_cards.py`
"""

import json

import pytest

from page.cards import MAX_CARD_CHARS, NO_CARD, read_card, write_card
from persona_bot.errors import UserError
from persona_bot.persona import Persona, load_presets, random_persona

CARD = {
    "name": "Anna",
    "description": "{{char}} is a baker in Oslo.\nAnna loves {{user}}'s cat. She sings.",
    "personality": "kind, stubborn",
    "first_mes": "*waves* hi {{user}}! {{char}} is glad to see you.",
    "scenario": "a bakery",
    "mes_example": "",
    "character_book": {"entries": [{}]},
}


def card(version: int, **changes) -> str:
    return json.dumps(
        {"spec": f"chara_card_v{version}", "spec_version": f"{version}.0", "data": CARD | changes}
    )


@pytest.mark.parametrize("text", [card(2), card(3), json.dumps(CARD)])
def test_a_card_becomes_a_persona(text):
    persona, note = read_card(text)
    assert persona == Persona(
        "Anna",
        (
            "my name is Anna.",
            "i am kind and stubborn.",
            "i am a baker in Oslo.",
            "i love your cat.",
            "She sings.",
        ),
        "",
        "waves hi you! i am glad to see you.",
    )
    assert note == "Left out of this card: the scenario, the lorebook."


def test_a_card_with_a_sheet_in_it_becomes_sentences():
    sheet = '[Character("Anna")\n{\nAge("24")\nLikes("tea" + "rain")\n}]\n{{char}} never sleeps.'
    persona, _ = read_card(card(2, description=sheet, personality=""))
    assert persona.sentences == (
        "my name is Anna.",
        "i am 24 years old.",
        "i like tea and rain.",
        "i never sleep.",
    )


def test_what_does_not_fit_is_named():
    description = (
        "I bake bread. " * 3 + "".join(f"I know {k} songs. " for k in range(300)) + "x" * 201
    )
    assert len(description) > 5_000
    persona, note = read_card(
        card(
            2,
            description=description,
            first_mes="hello there. " * 50,
            scenario="",
            character_book=None,
        )
    )
    assert len(persona.sentences) == 12 and persona.sentences[2] == "I bake bread."
    assert len(persona.greeting) <= 300 and persona.greeting.endswith("hello there.")
    assert note == "Left out of this card: 292 of 304 sentences, the end of the greeting."


@pytest.mark.parametrize("persona", [*load_presets().values(), random_persona(1)])
@pytest.mark.parametrize("version", [2, 3])
def test_a_card_of_ours_reads_back_whole(persona, version):
    whole = persona._replace(greeting="hi there!", starters=("Who are you?",))
    assert read_card(write_card(whole, version)) == (whole, "")
    written = json.loads(write_card(whole, version))
    assert (written["spec"], written["spec_version"]) == (f"chara_card_v{version}", f"{version}.0")


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"data": 3}', '{"data": {"name": "Anna"}}', "{", "[" * 50_000, '{"a": ' + "9" * 9_000 + "}",
     '{"description": 3}', '{"spec": "chara_card_v2"}', None, 7, "\x00", "\ud800"],
)  # fmt: skip
def test_what_is_no_card_gets_one_sentence(text):
    with pytest.raises(UserError) as error:
        read_card(text)
    assert str(error.value) == NO_CARD


def test_a_card_that_is_too_large_or_says_nothing_gets_one_sentence():
    with pytest.raises(
        UserError,
        match="^This card has over 100,000 characters; shorten it, its lorebook above all",
    ):
        read_card(card(2, description="x" * (MAX_CARD_CHARS - 200)).ljust(MAX_CARD_CHARS + 1))
    with pytest.raises(
        UserError, match="^This card says nothing about its character; choose another"
    ):
        read_card(json.dumps({"description": "\x00 {{random:a}} ", "extensions": []}))


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"description": "i\x00 am \u202eodd\ud800."}, "i am odd."),
        ({"description": "أنا طبيب. أحب القهوة."}, "أنا طبيب."),
        ({"description": "<script>alert(1)</script> & <b>i am</b> bold."}, "<script>alert(1)</script> & <b>i am</b> bold."),
        ({"extensions": {"persona_bot": []}}, "i am a baker in Oslo."),
        ({"extensions": {"persona_bot": {"face": "<b>★", "starters": [3, "hi"], "name": 3}}}, "Anna loves {{user}}'s cat. She sings."),
    ],
)  # fmt: skip
def test_odd_content_is_cleaned_and_stays_text(changes, expected):
    persona, _ = read_card(card(2, **changes))
    assert expected in persona.sentences and persona.face == ""
    json.dumps(persona, ensure_ascii=False).encode("utf-8")


def test_thousands_of_macros_are_one_long_sentence():
    persona, note = read_card(card(2, description="{{char}} sees {{user}} and " * 3_500))
    assert len(persona.sentences) == 2
    assert note.startswith("Left out of this card: 1 of 3 sentences, the scenario")
