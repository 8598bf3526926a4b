"""Every reader of a stranger's text in no more than a second, whatever is repeated in it: one call must not stop the page.

Run: `python -m pytest tests/persona_bot/test_hostile_lengths.py`
"""

import json
import time
from itertools import product

import pytest

from page.browser_store import kept_from_json, persona_from_dict
from page.cards import read_card
from page.typed import renamed
from persona_bot.errors import UserError
from persona_bot.persona import MAX_SENTENCES, Persona, check_message, hint, parse_persona
from persona_bot.replies.attribution import words
from persona_bot.replies.visible_text import VisibleText
from persona_bot.sentences import in_first_person, sentences
from persona_bot.sheets import plain_lines
from persona_bot.text import asks, tidy, untidy_tail

LENGTH = 10_000
SECONDS = 1.0  # of this process: a busy machine takes none of them
NOBODY = Persona("", ())
PREFIXES = [
    "",
    "{{ ",
    "## ",
    "- ",
    "| ",
    "(",
    "<",
    "**a",
    'a("',
    '{"a":"',
    "1. ",
    "i, {{char}} ",
    " :",
]
BITS = [
    *(" ", "\t", "\n", "\u00a0", "`", "*", "#", "{", "}", "[", "(", "<", '"', "'", "|", "_", "-"),
    *(": ", "; ", ", ", ". ", ".", "a", "a ", "a: ", "12 ", "A b", "\u0301", "我", "。", "🏳\u200d"),
    *(
        "` ",
        "{{ ",
        "{{char}} ",
        "{{user}}'s ",
        "<char>",
        "<think>",
        "# ",
        "\n- ",
        "\n## a",
        'a("")',
    ),
    *('"+', "e.g.", "**a", "\n| a | b", " :-", "n't "),
]


def card(text: str) -> None:
    fields = dict.fromkeys(("name", "description", "personality", "first_mes"), text[:4000])
    read_card(json.dumps({"data": fields}))


def persona_of_a_browser(text: str) -> None:
    said = [text[: LENGTH // MAX_SENTENCES]] * MAX_SENTENCES
    persona_from_dict({"name": text[:40], "sentences": said, "greeting": text, "starters": said})


def chat_of_a_browser(text: str) -> None:
    exchange = {"message": text[:1000], "replies": [text[:4000]] * 20}
    chat = {"persona_bot": 1, "persona": {"sentences": [text]}, "exchanges": [exchange] * 3}
    kept_from_json(json.dumps({"text": text, "draft": text, "chat": json.dumps(chat)}))


def visible(text: str) -> None:
    shown = VisibleText()
    for start in range(0, len(text), 100):
        shown.add(text[start : start + 100])
    shown.end()


READERS = {
    **{f.__name__: f for f in (parse_persona, sentences, in_first_person, tidy, untidy_tail)},
    **{f.__name__: f for f in (asks, words, check_message, card, visible)},
    **{f.__name__: f for f in (persona_of_a_browser, chat_of_a_browser)},
    "plain_lines": lambda text: [*plain_lines(text)],
    "renamed": lambda text: renamed(NOBODY, text, text),
    "hint": lambda text: hint(Persona(text[:40], (text[:200],) * MAX_SENTENCES)),
}


@pytest.mark.parametrize("name", READERS)
def test_no_repeated_text_takes_long(name):
    for prefix, bit in product(PREFIXES, BITS):
        text = (prefix + bit * LENGTH)[: LENGTH - 1] + "x"
        started = time.process_time()
        try:
            READERS[name](text)
        except UserError:
            pass
        assert time.process_time() - started < SECONDS, (prefix, bit)
