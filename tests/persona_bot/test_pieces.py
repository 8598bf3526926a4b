"""A growing reply loses nothing: pieces joined are the whole decode, whatever a tokenizer's clean-up rewrites.

Run: `python -m pytest tests/persona_bot/test_pieces.py`
"""

import random

import pytest

from persona_bot.layouts import find_layout
from persona_bot.replies.reply import Pieces
from persona_bot.text import tidy

EYES, NOSES, MOUTHS = ":;=", ("", "-"), ")(DP/|"
FACES = [f"{eye}{nose}{mouth}" for eye in EYES for nose in NOSES for mouth in MOUTHS]
FACES += ["<3", "^_^", "-_-", "xd", "(:", "):", "o.o", "^^", ":')", "> : (", ": :", "; ;"]
TEXTS = [
    "i am fine{}how are you ?",
    "{}",
    "hi{}",
    "{}hi , i 'm ok{}",
    "well .5 of it , or .net ! i do n't , you 'll see : it 's{}",
    "wait : no ; yes :{}",
]


def written(layout, ids: list[int]) -> list[str]:
    """The pieces that a reply of these ids is shown in."""
    pieces = Pieces()
    shown = [pieces.up_to(layout.decode_settled(ids[: k + 1])) for k in range(len(ids))]
    return [*shown, pieces.up_to(layout.decode(ids))]


@pytest.fixture(params=["gpt", "convai", "chat"])
def layout(request):
    return find_layout(request.getfixturevalue(f"{request.param}_tokenizer"))


@pytest.mark.parametrize("text", TEXTS)
def test_no_face_loses_the_rest_of_the_reply(layout, text):
    for face in FACES:
        for shown in (face, f" {' '.join(face)} "):
            ids = layout.encode(text.format(shown, shown))
            whole = layout.decode(ids)
            assert "".join(written(layout, ids)) == whole, (text, shown)


def test_what_was_lost_once(gpt_tokenizer):
    layout = find_layout(gpt_tokenizer)
    ids = layout.encode("i am fine : ) how are you ?")
    pieces = [piece for piece in written(layout, ids) if piece]
    assert "".join(pieces) == "i am fine :) how are you?"
    assert len(pieces) > 5  # and it streams


def test_any_sequence_of_ids_is_shown_whole(layout):
    draw = random.Random(0)
    known = [i for i in layout.tokenizer.get_vocab().values() if i not in layout.control_ids]
    marks = [i for mark in ": ; - ) ( ' n t s D P . , ! ? 5".split() for i in layout.encode(mark)]
    for _ in range(100):
        ids = [draw.choice(draw.choice([known, marks])) for _ in range(draw.randrange(1, 40))]
        pieces = written(layout, ids)
        whole = layout.decode(ids)
        assert "".join(pieces).rstrip() == whole.rstrip() or "\ufffd" in whole, ids


def test_a_decoder_that_takes_back_what_it_wrote_loses_nothing():
    pieces = Pieces()
    texts = ["i", "i am", "i am a", "i'm a b", "i'm a baker", "i'm a baker."]
    shown = "".join(pieces.up_to(text) for text in texts)
    assert shown.endswith("'m a baker.")


def test_tidy_is_idempotent():
    for text in TEXTS:
        for face in FACES:
            once = tidy(text.format(f" {' '.join(face)} ", face))
            assert tidy(once) == once
