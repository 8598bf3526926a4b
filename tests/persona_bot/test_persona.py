"""The persona text box, the preset files and the random persona.

Run: `python -m pytest tests/persona_bot/test_persona.py`
"""

import re
import sys
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_bot.errors import UserError
from persona_bot.persona import (
    MAX_SENTENCE_CHARS,
    MAX_SENTENCES,
    MAX_TEXT_CHARS,
    PRESETS,
    Persona,
    find_persona,
    load_presets,
    parse_persona,
    persona_file,
    persona_text,
    random_persona,
    read_persona,
)
from persona_bot.pools import POOLS, pool


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("i like tea.\ni hate cars.", ("i like tea.", "i hate cars.")),
        ("\n\n  i like tea.  \n\t\n i   hate cars. \n", ("i like tea.", "i hate cars.")),
        (
            "- i like tea.\n* i hate cars.\n• i swim.\n+ i run.\n– i hop.",
            ("i like tea.", "i hate cars.", "i swim.", "i run.", "i hop."),
        ),
        (
            "1. i like tea.\n2) i hate cars.\n(3) i swim.",
            ("i like tea.", "i hate cars.", "i swim."),
        ),
        ("- 1. - i like tea.", ("i like tea.",)),
        (
            "i like tea. i hate cars! do i swim? yes",
            ("i like tea.", "i hate cars!", "do i swim?", "yes"),
        ),
        ("1. i like tea. 2. i hate cars.", ("i like tea.", "i hate cars.")),
        ('i say "hi." i say it twice.', ('i say "hi."', "i say it twice.")),
        (
            "dr. who and mrs. peel, e.g. on tv, are j. r. fans.",
            ("dr. who and mrs. peel, e.g. on tv, are j. r. fans.",),
        ),
        ("well... yes. i left the u.s. army.", ("well... yes.", "i left the u.s. army.")),
        (
            "-5 degrees is warm\n1.5 meters is me\n1990 was my year.",
            ("-5 degrees is warm", "1.5 meters is me", "1990 was my year."),
        ),
        ("i like tea .\ni 'm old .", ("i like tea .", "i 'm old .")),
        (
            "# a remark\ni like tea.\n## another\n#metoo is a hashtag",
            ("i like tea.", "#metoo is a hashtag"),
        ),
        ("---\n***\n-\n1.\n#", ()),
        ("", ()),
        ("i like tea.\r\ni hate cars.\u2028i swim.", ("i like tea.", "i hate cars.", "i swim.")),
    ],
)
def test_text_is_read_tolerantly(text, sentences):
    assert parse_persona(text).sentences == sentences


def test_what_no_one_sees_is_cleaned_away():
    text = "a\x00b\x1b[31m c\u200bd\u202ee\u2066f\ufeffg\ud800h\U000e0041i\x7f."
    assert parse_persona(text).sentences == ("ab[31m cdefghi.",)
    assert parse_persona("i am an 👩\u200d🚀 and wave 🏳️\u200d🌈.").sentences == (
        "i am an 👩\u200d🚀 and wave 🏳️\u200d🌈.",
    )


def test_the_title_line_gives_face_and_name():
    assert parse_persona("# 🌱 Environmentalist\ni like tea.") == Persona(
        "Environmentalist", ("i like tea.",), "🌱"
    )
    assert parse_persona("# Night nurse\ni like tea.") == Persona(
        "Night nurse", ("i like tea.",), ""
    )
    assert parse_persona("# 🌱 Environmentalist\ni like tea.", "Ada") == Persona(
        "Ada", ("i like tea.",), ""
    )
    assert parse_persona("# " + "x" * 500).name == "x" * 40


@pytest.mark.parametrize(
    ("title", "face", "name"),
    [
        ("==== Anna ====", "", "Anna"),
        ("~*~ 🌱 *Luna* ~*~", "🌱", "Luna"),
        ("★★★★★★★★★★★★★★★★ Starry", "★", "Starry"),
        ("★★★★★★★★★★★★★★★★★★★★Starry", "", "★★★★★★★★★★★★★★★★★★★★Starry"),
        ("🌱🌻 Willow", "🌱", "Willow"),
        ("🇫🇷🇩🇪 Camille", "🇫🇷", "Camille"),
        ("👩🏽‍🚀👩🏽‍🚀 Ruth", "👩🏽‍🚀", "Ruth"),
        ("🏴‍☠️ Bill", "🏴‍☠️", "Bill"),
        ("❤️❤️ Rose", "❤️", "Rose"),
        ("-----", "", ""),
    ],
)
def test_a_face_is_one_symbol_and_decoration_is_no_name(title, face, name):
    persona = parse_persona(f"# {title}\ni like tea.")
    assert (persona.face, persona.name) == (face, name)
    assert parse_persona(persona_file(persona)) == persona


def test_twelve_sentences_of_two_hundred_characters_fit_exactly():
    full = "\n".join(["x" * MAX_SENTENCE_CHARS] * MAX_SENTENCES)
    assert parse_persona(full).sentences == ("x" * 200,) * 12
    with pytest.raises(
        UserError, match=r"^Line 15 holds sentence 13 and a persona has at most 12; remove"
    ):
        parse_persona("# title\n\n" + full + "\none more")
    with pytest.raises(
        UserError,
        match=r"^Line 2 has a sentence of 201 characters and at most 200 fit; shorten or split it\.$",
    ):
        parse_persona("i like tea.\n" + "x" * 201)


def test_a_long_line_of_short_sentences_is_fine_and_one_too_many_is_not():
    assert len(parse_persona("i like green tea. " * 12).sentences) == 12
    with pytest.raises(UserError, match="^Line 1 holds sentence 13"):
        parse_persona("i like green tea. " * 13)


def test_absurdly_long_text_is_refused_before_it_is_looked_at(monkeypatch):
    monkeypatch.setattr(
        "persona_bot.persona.plain_lines", None
    )  # whoever touches the text now fails
    with pytest.raises(
        UserError, match="over 10,000 characters; shorten it to at most 12 sentences of 200"
    ):
        parse_persona("i like tea.\n" * 10**6)


BITS = [
    "i like tea.",
    "- ",
    "1. ",
    "# ",
    "dr. who ",
    "... ",
    "(2) ",
    "!",
    " . ",
    "\n",
    "•",
    "**",
    "{{char}} ",
    "{{",
    "}}",
    "Name: ",
    "。",
    "?",
    "؟",
    "猫",
    "\u200d",
    "अ",
    "ا",
    "## ",
    "is ",
    "'s ",
    "Likes: ",
    ", ",
    "é\u0301",
    "\x00",
    "\ud800",
    "\u202e",
]
LINES = st.lists(st.sampled_from(BITS)).map("".join)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.one_of(st.text(st.characters(), max_size=300), LINES))
def test_text_round_trips_and_is_clean(text):
    try:
        persona = parse_persona(text)
    except UserError:
        return
    assert parse_persona(persona_text(persona)).sentences == persona.sentences
    assert len(persona.sentences) <= MAX_SENTENCES
    for sentence in persona.sentences:
        assert 0 < len(sentence) <= MAX_SENTENCE_CHARS and sentence == " ".join(sentence.split())
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in sentence)
        sentence.encode("utf-8")


@pytest.mark.parametrize("bit", [".", "a. ", "1. ", "- ", "#", " ", "'", "(", "\n", "🏳\u200d"])
def test_no_text_takes_long(bit):
    text = bit * (MAX_TEXT_CHARS // len(bit))
    started = time.process_time()
    try:
        parse_persona(text)
    except UserError:
        pass
    assert time.process_time() - started < 0.5


# Presets


def test_the_presets_load_and_the_two_of_the_issue_come_first():
    presets = load_presets()
    assert list(presets)[:2] == ["environmentalist", "soldier"]
    assert list(presets)[2:] == sorted(list(presets)[2:]) and len(presets) >= 8
    assert any("greenpeace" in s for s in presets["environmentalist"].sentences)
    assert any("hate cars" in s for s in presets["environmentalist"].sentences)
    assert any("barracks" in s for s in presets["soldier"].sentences)


NEAR = {"single", "boyfriend", "girlfriend", "husband", "wife", "bride", "married", "divorced"}
NEAR |= {"family", "love"}


@pytest.mark.parametrize("slug, persona", load_presets().items())
def test_every_preset_is_in_the_style_that_the_model_learnt(slug, persona):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", slug)
    assert persona.name and persona.face and not any(c.isalnum() for c in persona.face)
    assert 6 <= len(persona.sentences) <= MAX_SENTENCES
    # asked by every visitor: name, and somebody close
    assert persona.called.lower() in persona.sentences[0].replace(",", "").split()
    assert any(word in NEAR for word in re.findall(r"\w+", " ".join(persona.sentences)))
    assert persona.greeting and len(set(persona.starters)) == 4
    for sentence in persona.sentences:
        assert_house_style(sentence)
    assert (PRESETS / f"{slug}.txt").read_text(encoding="utf-8") == persona_file(persona) + "\n"


def test_names_and_faces_of_presets_are_all_different():
    presets = load_presets().values()
    assert len({p.name for p in presets}) == len({p.face for p in presets}) == len(presets)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"i like tea.\n\xff\xfe", "is not UTF-8 text; save it as UTF-8."),
        (b"# only a title\n\n", "holds no sentence; write one a line"),
        (b"i like tea.\n" + b"x" * 201, "broken.txt: Line 2 has a sentence of 201 characters"),
        (b"x" * (MAX_TEXT_CHARS + 1), "broken.txt: The persona text has over 10,000 characters"),
    ],
)
def test_a_broken_preset_is_left_out_and_named_once(tmp_path, capsys, content, message):
    (tmp_path / "good.txt").write_text("i like tea.")
    (tmp_path / "._good.txt").write_bytes(b"\0\5\x16\7\xb0")  # macOS keeps a file's icon so
    (tmp_path / "broken.txt").write_bytes(content)
    assert [*load_presets(tmp_path)] == [*load_presets(tmp_path)] == ["good"]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "broken.txt") in line and message in line


def test_each_of_our_files_is_a_preset(capsys):
    assert len(load_presets()) == len([*PRESETS.glob("*.txt")]) and not capsys.readouterr().err


@pytest.mark.parametrize("files", [{}, {"a.txt": "# notes"}])
def test_a_folder_without_presets_is_named(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="holds no persona files that can be used; put one there"):
        load_presets(tmp_path)


def test_a_file_without_a_title_is_called_after_itself(tmp_path):
    (tmp_path / "night-nurse.txt").write_text("\ufeffi work at night.", encoding="utf-8")
    assert read_persona(tmp_path / "night-nurse.txt") == Persona(
        "Night nurse", ("i work at night.",), ""
    )


def test_a_persona_is_found_by_preset_file_or_random(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("# 🐙 Octopus\ni have eight arms.")
    assert find_persona("soldier", 0) == load_presets()["soldier"]
    assert find_persona("random", 7) == random_persona(7)
    octopus = Persona("Octopus", ("i have eight arms.",), "🐙")
    assert find_persona(str(tmp_path / "mine.txt"), 0) == octopus
    assert sys.platform == "win32" or find_persona("~/mine.txt", 0) == octopus
    with pytest.raises(
        UserError,
        match="There is no persona 'nobody'; name a file, random, or one of environmentalist, soldier, ",
    ):
        find_persona("nobody", 0)


# Random


def test_a_seed_gives_the_same_persona_everywhere():
    assert random_persona(1) == Persona(
        name="Diego, firefighter",
        sentences=(
            "my name is diego and i am 29.",
            "i am a firefighter in a busy station.",
            "i live with my grandmother, who cooks too much.",
            "i take photos of doors.",
            "i love hot soup on cold days.",
            "i am scared of dogs.",
            "i cannot sleep without a fan.",
            "my parents met at a bus stop, and i tell everybody.",
            "i use a lot of slang.",
        ),
        face="🚒",
        greeting="good to see you! my day was long. how was yours?",
        starters=(
            "What do you do for a living?",
            "Do you have a family?",
            "Who are you?",
            "Tell me something odd about you.",
        ),
    )
    assert random_persona(2**80) == random_persona(2**80) != random_persona(3)


def test_ten_thousand_seeds_give_ten_thousand_personas():
    assert len({random_persona(seed).sentences for seed in range(10_000)}) == 10_000


def test_no_random_persona_contradicts_itself():
    topics = {line: tags for name in POOLS for line, tags in pool(name)}
    topics |= {line.split(": ", 1)[1]: tags for line, tags in pool("jobs")}
    for seed in range(2_000):
        persona = random_persona(seed)
        assert len(persona.sentences) == 1 + len(POOLS)
        used = [tag for sentence in persona.sentences[1:] for tag in topics[sentence]]
        assert len(used) == len(set(used)), persona


def test_every_pool_line_can_be_drawn_and_none_leaves_the_next_pool_empty():
    drawn = {s for seed in range(4_000) for s in random_persona(seed).sentences[1:]}
    written = {line.split(": ", 1)[-1] for name in POOLS for line, _ in pool(name)}
    assert drawn == written


@pytest.mark.parametrize("name", POOLS)
def test_pool_lines_are_in_the_style_that_the_model_learnt(name):
    lines = [line for line, _ in pool(name)]
    assert len(lines) == len(set(lines)) >= 24
    for line in lines:
        if name == "jobs":
            assert re.fullmatch(r"\W+ [A-Z][\w ]+: .*", line)
            line = line.split(": ", 1)[1]
        assert_house_style(line)


def test_a_random_persona_reads_back_from_the_text_box():
    for seed in range(200):
        persona = random_persona(seed)
        assert parse_persona(persona_text(persona), persona.name).sentences == persona.sentences
        assert len(persona.name) <= 40 and persona.face


def assert_house_style(sentence: str) -> None:
    """Lower case, one short sentence in the first person or about what is mine, as in the data the model is tuned on."""
    assert (
        sentence == sentence.lower()
        and sentence.isascii()
        and sentence.endswith(".")
        and len(sentence) <= 80
    )
    assert re.search(r"\b(i|my|me)\b", sentence), sentence
