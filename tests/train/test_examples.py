"""Training examples: ids, token types and targets worked out by hand, the chat's prompts as their beginnings, splitting, packing.

Run: `python -m pytest tests/train/test_examples.py`
"""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_bot.layouts import SILENCE, find_layout, system_text
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from train.data.dialogues import Dialogue, Utterance
from train.data.examples import (
    IGNORED,
    Example,
    conversation_example,
    dialogue_examples,
    pack,
    split_to_fit,
)
from train.examples import main

PERSONA = Persona("", ("i keep bees.", "i sail."))
TURNS = ["hello there.", "hi! how are you?", "fine, and you?", "i am a bit tired."]
TOKENIZERS = ["chat_tokenizer", "smollm2_tokenizer", "convai_tokenizer", "gpt_tokenizer"]
NOT = [IGNORED]


@pytest.fixture
def layout(request):
    return find_layout(request.getfixturevalue(request.param), max_turns=500)


every_layout = pytest.mark.parametrize("layout", TOKENIZERS, indirect=True)


def lines(layout, example: Example) -> list[str]:
    """`token -> target` for each position, for people and for comparing."""
    spell = layout.tokenizer.convert_ids_to_tokens
    return [
        spell(i) + ("" if t == IGNORED else f" -> {spell(t)}")
        for i, t in zip(example.ids, example.targets, strict=True)
    ]


def test_chat_targets_token_by_token(chat_tokenizer):
    layout = find_layout(chat_tokenizer)

    def e(text):
        return chat_tokenizer(text, add_special_tokens=False).input_ids

    start, end, line, a, user = (
        *e("<|im_start|>"),
        *e("<|im_end|>"),
        e("\n"),
        e("assistant\n"),
        e("user\n"),
    )
    hello, hi, fine, tired = (e(text) for text in TURNS)
    system = [start, *e("system\n"), *e(system_text(PERSONA)), end]
    example = conversation_example(layout, PERSONA, TURNS)
    asked = [*system, *line, start, *user, *hello, end, *line, start, *a]
    again = [*line, start, *user, *fine, end, *line, start, *a]
    assert example.ids == [*asked, *hi, end, *again, *tired, end, *line]
    assert example.targets == [
        *NOT * (len(asked) - 1),
        *hi,
        end,
        *NOT * len(again),
        *tired,
        end,
        # nothing is learnt at the end token, nor at the line end that the template writes after it
        *NOT * 2,
    ]
    assert example.token_types is None
    assert example.supervised == len(hi) + len(tired) + 2


def test_convai_targets_token_by_token(convai_tokenizer):
    layout = find_layout(convai_tokenizer, max_turns=500)
    bos, eos, one, two = convai_tokenizer.convert_tokens_to_ids(
        ["<bos>", "<eos>", "<speaker1>", "<speaker2>"]
    )
    bees, sail, hello, hi, fine, tired = (
        layout.encode(text) for text in [*PERSONA.sentences, *TURNS]
    )
    example = conversation_example(layout, PERSONA, TURNS)
    persona = [bos, *bees, *sail]
    assert example.ids == [*persona, two, *hello, one, *hi, two, *fine, one, *tired]
    assert example.targets == [
        *NOT * (len(persona) + 1 + len(hello)),
        *hi,  # the first word is predicted at <speaker1>
        eos,  # at the last word, although <speaker2> stands there in the ids
        *NOT * (1 + len(fine)),
        *tired,
        eos,
    ]
    assert example.token_types == [
        *[one] * len(persona),
        *[two] * (1 + len(hello)),
        *[one] * (1 + len(hi)),
        *[two] * (1 + len(fine)),
        *[one] * (1 + len(tired)),
    ]


def test_lines_of_a_small_example(gpt_tokenizer):
    """The whole example where a token is a letter: what the two tests above say, to be read."""
    layout = find_layout(gpt_tokenizer, max_turns=500)
    assert lines(layout, conversation_example(layout, Persona("", ("ab",)), ["c", "de"])) == [
        "<bos>",
        "a",
        "b</w>",
        "<speaker2>",
        "c</w>",
        "<speaker1> -> d",
        "d -> e</w>",
        "e</w> -> <eos>",
    ]


@every_layout
def test_every_reply_stands_behind_the_prompt_that_the_chat_sends(layout):
    example = conversation_example(layout, PERSONA, TURNS)
    for k in (1, 3):
        prompt = build_prompt(layout, PERSONA, TURNS[:k], 10**6)
        n = len(prompt.ids)
        assert prompt.dropped == 0
        assert example.ids[:n] == prompt.ids
        if prompt.token_types is not None:
            assert example.token_types[:n] == prompt.token_types
        reply = [*layout.encode(TURNS[k]), layout.end_id]
        assert example.targets[n - 1 : n - 1 + len(reply)] == reply
        assert example.ids[n : n + len(reply) - 1] == reply[:-1]
    assert example.supervised == sum(len(layout.encode(text)) + 1 for text in TURNS[1::2])


@every_layout
def test_both_sides_adds_the_partners_turns_and_nothing_else(layout):
    one, both = (
        conversation_example(layout, PERSONA, TURNS, both_sides=side) for side in (False, True)
    )
    assert both.ids == one.ids
    added = [t for t, mine in zip(both.targets, one.targets, strict=True) if t != mine]
    assert added == [i for text in TURNS[::2] for i in [*layout.encode(text), layout.end_id]]
    kept = [t for t in one.targets if t != IGNORED]
    assert [t for t, mine in zip(both.targets, one.targets, strict=True) if mine != IGNORED] == kept


@every_layout
@pytest.mark.parametrize("silent", ["", SILENCE])
def test_nobody_learns_to_say_silence(layout, silent):
    turns = [silent, "hi! how are you?", "fine.", "good."]
    one, both = (
        conversation_example(layout, PERSONA, turns, both_sides=side) for side in (False, True)
    )
    assert both.supervised - one.supervised == len(layout.encode("fine.")) + 1


@every_layout
def test_a_reply_of_control_tokens_only_is_its_end(layout):
    example = conversation_example(
        layout,
        PERSONA,
        ["hello", "<eos><|im_end|>" if layout.encode("<eos><|im_end|>") == [] else ""],
    )
    assert [t for t in example.targets if t != IGNORED] == [layout.end_id]


# split_to_fit


@pytest.mark.parametrize("layout", ["chat_tokenizer", "convai_tokenizer"], indirect=True)
@pytest.mark.parametrize("turns", [2, 4, 6, 10, 22])
def test_split_loses_and_doubles_no_turn(layout, turns):
    conversation = [f"turn number {k}." for k in range(turns)]
    whole = conversation_example(layout, PERSONA, conversation)
    longest = max(
        len(conversation_example(layout, PERSONA, conversation[k : k + 2]).ids)
        for k in range(0, turns, 2)
    )
    for length in [*range(longest, len(whole.ids), 7), len(whole.ids)]:
        parts = split_to_fit(layout, PERSONA, conversation, length)
        assert all(len(part.ids) <= length for part in parts)
        said = [text for part in parts for text in replies(layout, part)]
        assert said == conversation[1::2]
        assert [
            text for part in parts for text in heard(layout, part, conversation)
        ] == conversation[::2]
    assert parts == [whole]


def replies(layout, example: Example) -> list[str]:
    """What is learnt, as texts."""
    texts, ids = [], []
    for target in example.targets:
        if target == layout.end_id:
            texts.append(layout.decode(ids))
            ids = []
        elif target != IGNORED:
            ids.append(target)
    assert not ids, "each reply has its end"
    return texts


def heard(layout, example: Example, conversation: list[str]) -> list[str]:
    """The partner's turns that stand in an example, by their ids."""
    return [text for text in conversation[::2] if stands_in(layout.encode(text), example.ids)]


def stands_in(some: list[int], ids: list[int]) -> bool:
    return any(ids[k : k + len(some)] == some for k in range(len(ids)))


@pytest.mark.parametrize("layout", ["chat_tokenizer", "convai_tokenizer"], indirect=True)
def test_split_leaves_out_an_exchange_that_is_too_long_alone(layout):
    turns = ["hi.", "hello.", "tell me more.", "word " * 200, "thanks.", "bye."]
    parts = split_to_fit(
        layout, PERSONA, turns, len(conversation_example(layout, PERSONA, turns[2:4]).ids) - 1
    )
    assert [text for part in parts for text in replies(layout, part)] == ["hello.", "bye."]
    assert split_to_fit(layout, PERSONA, turns[2:4], 100) == []


def test_split_of_less_than_an_exchange(chat_tokenizer):
    layout = find_layout(chat_tokenizer)
    assert (
        split_to_fit(layout, PERSONA, [], 100) == split_to_fit(layout, PERSONA, ["hi."], 100) == []
    )


# dialogue_examples


def dialogue(*turns: str) -> Dialogue:
    return Dialogue(
        PERSONA.sentences,
        tuple(
            Utterance(tuple(turns[:k]), ("nonsense.", turns[k])) for k in range(1, len(turns), 2)
        ),
    )


def test_a_dialogue_is_one_example_whatever_its_candidates(chat_tokenizer):
    layout = find_layout(chat_tokenizer)
    assert (
        dialogue_examples(layout, [dialogue(*TURNS)] * 2, 500)
        == [conversation_example(layout, PERSONA, TURNS)] * 2
    )


def test_shuffled_personas_are_the_same_sentences_in_a_reproducible_order(convai_tokenizer):
    layout = find_layout(convai_tokenizer, max_turns=500)
    plain, first, again, other = (
        [
            e.ids
            for e in dialogue_examples(layout, [dialogue(*TURNS)] * 12, 500, shuffle_persona=draw)
        ]
        for draw in (None, random.Random(1), random.Random(1), random.Random(2))
    )
    turned = conversation_example(
        layout, PERSONA._replace(sentences=PERSONA.sentences[::-1]), TURNS
    ).ids
    assert first == again != other
    assert {tuple(ids) for ids in first} == {tuple(plain[0]), tuple(turned)}


# pack


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 60))
def test_pack_puts_each_example_into_one_row_of_at_most_length(lengths, length):
    examples = [Example([number] * n, None, NOT * n) for number, n in enumerate(lengths)]
    rows = pack(examples, length)
    assert sorted(e.ids[0] for row in rows for e in row) == list(range(len(lengths)))
    for row in rows:
        assert row and (len(row) == 1 or sum(len(e.ids) for e in row) <= length)
    halves = [sum(len(e.ids) for e in row) * 2 <= length for row in rows]
    assert sum(halves) <= 1, "two half empty rows would have been one"


def test_pack_fills_rows_to_the_brim():
    examples = [Example([0] * n, None, NOT * n) for n in (3, 5, 7, 5)]
    assert [[len(e.ids) for e in row] for row in pack(examples, 10)] == [[7, 3], [5, 5]]


# the command


def test_the_command_prints_an_example_token_by_token(
    chat_folder, chat_tokenizer, capsys, monkeypatch
):
    file = Path(__file__).parents[2] / "train" / "example_dialogues.json"
    monkeypatch.setattr("sys.argv", ["examples", str(file), "--model", str(chat_folder)])
    main()
    printed = capsys.readouterr().out.splitlines()
    start, end = chat_tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert printed[0] == f"{start:6d} '<|im_start|>'"
    assert printed.count(f"{end:6d} '<|im_end|>'") == 9  # the system's and eight turns'
    assert sum(line.endswith("  -> '<|im_end|>'") for line in printed) == 4
