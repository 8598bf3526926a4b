"""Personas as people paste them: any script's sentence marks, character sheets, macros, and the hint to write "i am".

Run: `python -m pytest tests/persona_bot/test_sheets.py`
"""

import json

import pytest

from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_SENTENCES,
    MAX_TEXT_CHARS,
    Persona,
    hint,
    load_presets,
    parse_persona,
    persona_file,
    random_persona,
)
from persona_bot.sentences import in_first_person


@pytest.mark.parametrize(
    "sentence",
    [
        "我喜欢猫。",
        "我怕打雷！",
        "私は猫が好き？",
        "मुझे चाय पसंद है।",
        "أنا طبيب؟",
        "میں ڈاکٹر ہوں۔",
        "나는 의사다.",
        "ကျွန်တော်။",
        "ខ្ញុំ។",
    ],
)
@pytest.mark.parametrize("blank", ["", " "])
def test_a_line_of_eleven_sentences_is_eleven_in_every_script(sentence, blank):
    assert parse_persona(blank.join([sentence] * 11)).sentences == (sentence,) * 11


@pytest.mark.parametrize(
    "text, expected",
    [
        ("他说：“你好。”然后走了。", ("他说：“你好。”", "然后走了。")),
        ("真的吗？！是的……也许。", ("真的吗？！", "是的……也许。")),
        ("私は猫が好き!雨は嫌い?うん", ("私は猫が好き!", "雨は嫌い?", "うん")),
        ("i have 3.5 cats and node.js skills.", ("i have 3.5 cats and node.js skills.",)),
    ],
)
def test_marks_that_end_no_sentence_stay_inside(text, expected):
    assert parse_persona(text).sentences == expected


MARKDOWN = """# Anna
## Appearance
- **Hair:** red
- **Eyes**: green, tired
## Personality
- kind
- stubborn
## Story
- She was born in Oslo and moved away.
| Job | nurse |
|-----|-------|
__Likes:__ tea; long walks
"""
WPP = """[Character("Anna")
{
Age("24")
Personality("kind" + "stubborn")
Description("{{char}} is a baker" + "i never sleep")
Likes("tea")
}]"""
SHEET = {
    "name": "Anna",
    "age": 24,
    "likes": ["tea", "rain"],
    "home": {"town": "Oslo", "pets": [{"dog": "Moss"}]},
    "married": True,
    "children": None,
    "description": "i bake bread. i never sleep.",
    "名前": "アンナ",
}


def test_sheets_become_sentences_in_the_first_person():
    assert parse_persona(MARKDOWN) == Persona(
        "Anna",
        (
            "my hair is red.",
            "my eyes are green and tired.",
            "i am kind and stubborn.",
            "She was born in Oslo and moved away.",
            "i work as a nurse.",
            "i like tea and long walks.",
        ),
    )
    assert parse_persona(WPP) == Persona(
        "Anna",
        (
            "my name is Anna.",
            "i am 24 years old.",
            "i am kind and stubborn.",
            "i am a baker",
            "i never sleep",
            "i like tea.",
        ),
    )
    assert parse_persona(json.dumps(SHEET)) == Persona(
        "Anna",
        (
            "my name is Anna.",
            "i am 24 years old.",
            "i like tea and rain.",
            "my town is Oslo.",
            "my dog is Moss.",
            "i am married.",
            "i bake bread.",
            "i never sleep.",
            "名前: アンナ",
        ),
    )
    assert parse_persona("Name: Anna\nOccupation: artist\n*Hobbies:* chess").sentences[:2] == (
        "my name is Anna.",
        "i work as an artist.",
    )


@pytest.mark.parametrize("sheet", [MARKDOWN, WPP, json.dumps(SHEET)])
def test_a_sheet_reads_back_as_what_it_became(sheet):
    once = parse_persona(sheet)
    assert parse_persona("\n".join(once.sentences), once.name).sentences == once.sentences


def test_a_long_list_of_likes_is_several_sentences():
    sentences = parse_persona(json.dumps({"likes": ["green tea with honey"] * 20})).sentences
    assert len(sentences) == 3 and all(s.startswith("i like green tea") for s in sentences)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 9_000,
        '{"a":' * 1_500,
        "{" * 9_000,
        '{"a": ' + "9" * 5_000 + "}",
        "{}",
        "[]",
        "[null]",
        "{{}}",
        "[[]]",
        "```",
        "| | |",
    ],
)
def test_json_and_brackets_without_words_are_an_empty_persona_or_a_sentence_of_refusal(text):
    try:
        assert parse_persona(text).sentences in ((), ("i am a.",))
    except UserError as error:
        assert "characters" in str(error) or "sentence" in str(error)


def test_too_much_gets_one_sentence_that_names_the_line():
    with pytest.raises(UserError, match="^Line 1 holds sentence 13 and a persona has at most 12;"):
        parse_persona("我喜欢猫。" * (MAX_SENTENCES + 1))
    with pytest.raises(UserError, match="^Line 2 has a sentence of 5000 characters and at most"):
        parse_persona('[Likes("tea")\nDescription("' + "x" * 5_000 + '")]')
    with pytest.raises(
        UserError, match=f"^The persona text has over {MAX_TEXT_CHARS:,} characters"
    ):
        parse_persona(json.dumps({"description": "x" * MAX_TEXT_CHARS}))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{char}} is a beekeeper.", "i am a beekeeper."),
        ("{{char}} has known {{user}} since school.", "i have known you since school."),
        (
            "{{char}}'s wife loves {{char}}, and {{user}} knows {{char}}.",
            "my wife loves me, and you know me.",
        ),
        (
            "{{char}}'s a baker who never met {{user}}'s mother.",
            "i am a baker who never met your mother.",
        ),
        (
            "{{Char}} often watches birds but {{ char }} was tired.",
            "i often watch birds but i was tired.",
        ),
        ("<BOT> carries {{user}}. {{user}} is glad.", "i carry you. you are glad."),
        ("{{char}} misses the bus{{random::a::b}}.", "i miss the bus."),
        ("{{{{char}}}} {{x}} }} {{", "i "),
    ],
)
def test_macros_are_resolved(text, expected):
    assert in_first_person(text).rstrip() == expected.rstrip()
    assert "{{" not in in_first_person(text)


def test_a_name_can_stand_for_the_macro():
    assert (
        in_first_person("Anna is a baker. People like Anna.", "Anna")
        == "i am a baker. People like me."
    )
    assert in_first_person("Annabel is here.", "Anna") == "Annabel is here."


@pytest.mark.parametrize(
    "text, hinted",
    [
        ("You are Sherlock Holmes.", "You are"),
        ("i like tea.\nyou're a wizard", "you're a"),
        ("Anna is 40.", "Anna is"),
        ("Anna works at night.", "Anna works"),
        ("# 🌱 anna, gardener\nanna has two dogs", "anna has"),
        ("She is a nurse.", "She is"),
        ("my horse is thunder.\nshe is very slow.", None),
        ("Coffee is my favorite.", None),
        ("i am anna.\nI'm 40.\nMy dog is a bulldog.", None),
        ("", None),
    ],
)
def test_who_writes_about_another_gets_the_hint_to_write_i_am(text, hinted):
    expected = (
        hinted and f'Write it as they would say it, like "i am ..", instead of "{hinted} ..".'
    )
    assert hint(parse_persona(text)) == expected


def test_no_persona_of_ours_gets_the_hint():
    ours = [*load_presets().values(), *(random_persona(seed) for seed in range(200))]
    assert [persona for persona in ours if hint(persona)] == []


@pytest.mark.parametrize("word", ["می\u200cخواهم", "क्\u200dष", "ශ්\u200dරී", "নী\u200cল"])
def test_joiners_stay_between_letters_of_scripts_that_join(word):
    assert parse_persona(f"{word} {word}\u200c").sentences == (f"{word} {word}",)
    assert parse_persona("a\u200db \u200cc\u200d").sentences == ("ab c",)


def test_a_file_holds_face_name_greeting_and_starters():
    persona = Persona(
        "Willow, environmentalist",
        ("i am willow.",),
        "🌱",
        "hi there!",
        ("Who are you?", "Any pets?"),
    )
    text = "# 🌱 Willow, environmentalist\n# greeting: hi there!\n# starter: Who are you?\n# starter: Any pets?\ni am willow."
    assert parse_persona(text) == persona and persona_file(persona) == text
    assert persona.called == "Willow"
    assert len(parse_persona("# greeting: " + "x" * 999 + "\n# starter: hi" * 9).greeting) == 300
    assert persona_file(Persona("", ("i am x.",))) == "i am x."
