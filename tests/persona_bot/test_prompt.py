"""The two prompt layouts: exact ids, trimming, how they are found (text that tries to be more: test_typed_text.py).

Run: `python -m pytest tests/persona_bot/test_prompt.py`

The truth for `convai` is what stock simpletransformers made (data/make_stock_convai.py), for `chat` the tokenizer's own
`apply_chat_template`.
"""

import copy
import json
from pathlib import Path

import pytest
import torch

from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import INSTRUCTION, SILENCE, find_layout, system_text
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from persona_bot.text import tidy

STOCK = Path(__file__).parents[1] / "data" / "stock_convai"
RECORDED = json.loads((STOCK / "cases.json").read_text(encoding="utf-8"))
TURNS = [
    "hello there.",
    "hi! how are you?",
    "fine, and you?",
    "i am a bit tired.",
    "oh, why is that?",
]


def joined(parts) -> list[int]:
    return [i for part in parts for i in part.ids]


# convai: exactly what simpletransformers makes


def stock_candidates():
    """(persona, history, candidate, whether it is the gold one, recorded arrays) in the recorded order."""
    texts = [
        (
            Persona("", tuple(d["personality"])),
            u["history"],
            candidate,
            candidate is u["candidates"][-1],
        )
        for d in RECORDED["dialogues"]
        for u in d["utterances"]
        for candidate in u["candidates"]
    ]
    return [(*text, case) for text, case in zip(texts, RECORDED["cases"], strict=True)]


@pytest.mark.parametrize("persona, history, candidate, is_gold, case", stock_candidates())
def test_convai_ids_types_and_labels_are_stocks(
    stock_tokenizer, persona, history, candidate, is_gold, case
):
    layout = find_layout(stock_tokenizer)
    parts = layout.segments(persona, [*history[-5:], candidate], add_generation_prompt=False)
    assert joined(parts) + [layout.end_id] == case["input_ids"]
    assert layout.token_types(parts) + [layout.speaker1] == case["token_type_ids"]
    assert case["mc_token_ids"] == len(joined(parts))
    reply = parts[-1]
    assert reply.is_reply
    supervised = [*reply.ids, layout.end_id] if is_gold else [-100] * (len(reply.ids) + 1)
    assert [-100] * len(joined(parts[:-1])) + supervised == case["labels"]


@pytest.mark.parametrize("persona, history, candidate, is_gold, case", stock_candidates())
def test_convai_prompt_is_how_stocks_training_example_begins(
    stock_tokenizer, persona, history, candidate, is_gold, case
):
    layout = find_layout(stock_tokenizer)
    prompt = build_prompt(layout, persona, history, 128)
    assert prompt.ids == case["input_ids"][: len(prompt.ids)]
    assert prompt.token_types == case["token_type_ids"][: len(prompt.ids)]
    assert case["input_ids"][len(prompt.ids) :] == [*layout.encode(candidate), layout.end_id]
    assert prompt.dropped == max(0, len(history) - 5)


def test_convai_persona_who_speaks_first_answers_the_silence_of_training(stock_tokenizer):
    layout = find_layout(stock_tokenizer)
    persona = Persona("", tuple(RECORDED["dialogues"][1]["personality"]))
    assert build_prompt(layout, persona, [""], 128) == build_prompt(layout, persona, [SILENCE], 128)


def test_a_stock_checkpoint_loads_ranks_and_replies_as_in_stock():
    checkpoint = load_checkpoint(str(STOCK), device="cpu", double_heads=True)
    for *_, case in stock_candidates():
        inputs = {
            name: torch.tensor([[case[name]]])
            for name in ("input_ids", "token_type_ids", "mc_token_ids")
        }
        logit = checkpoint.model.float()(**inputs).mc_logits.item()
        assert logit == pytest.approx(case["mc_logit"], abs=2e-2 + 2e-2 * abs(case["mc_logit"]))
    persona = Persona("", tuple(RECORDED["dialogues"][0]["personality"]))
    greedy = Settings(temperature=0, min_tokens=0, repetition_penalty=1, no_repeat_ngram=0)
    reply = LocalModel.plain(checkpoint).reply(
        persona, RECORDED["dialogues"][0]["utterances"][0]["history"], greedy
    )
    assert "".join(reply) == RECORDED["greedy_reply"]


# chat: exactly what the tokenizer's own template makes


def messages_of(persona: Persona, turns: list[str]) -> list[dict]:
    roles = ["user" if k % 2 == 0 else "assistant" for k in range(len(turns))]
    said = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
    return [{"role": "system", "content": system_text(persona)}, *said]


@pytest.mark.parametrize("layout", ["chat_tokenizer", "smollm2_tokenizer"], indirect=True)
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("first", ["hello there.", "", "  ...", "été 🌱 ŝ 你好", "x " * 50 + "y"])
def test_chat_ids_are_the_templates(layout, environmentalist, first, count):
    turns = [tidy(first), *TURNS[1:count]]
    expected = layout.tokenizer.apply_chat_template(
        messages_of(environmentalist, turns), add_generation_prompt=True
    )
    prompt = build_prompt(layout, environmentalist, turns, 10_000)
    assert prompt.ids == expected["input_ids"]
    assert prompt.token_types is None and prompt.dropped == 0


@pytest.mark.parametrize("layout", ["chat_tokenizer", "smollm2_tokenizer"], indirect=True)
def test_chat_closed_conversation_is_the_templates(layout, environmentalist):
    parts = layout.segments(environmentalist, TURNS[:4], add_generation_prompt=False)
    assert (
        joined(parts)
        == layout.tokenizer.apply_chat_template(messages_of(environmentalist, TURNS[:4]))[
            "input_ids"
        ]
    )
    replies = [layout.tokenizer.decode(part.ids) for part in parts if part.is_reply]
    assert replies == [f"{turn}<|im_end|>" for turn in TURNS[1:4:2]]


def test_chat_system_turn_holds_the_persona_a_line_each():
    assert (
        system_text(Persona("", ("i like tea .", "i hate  cars.")))
        == f"{INSTRUCTION}\nYour persona:\ni like tea.\ni hate cars."
    )
    assert system_text(Persona("", ())) == INSTRUCTION


def with_template(tokenizer, template: str):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


@pytest.mark.parametrize(
    "system_rule",
    ["{{ raise_exception('no system turn') }}", ""],
    ids=["template refuses a system turn", "template skips it"],
)
def test_without_a_system_turn_the_persona_opens_the_partners_first(
    chat_tokenizer, environmentalist, system_rule
):
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        + system_rule
        + "{% else %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] | trim }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    layout = find_layout(with_template(chat_tokenizer, template))
    text = layout.tokenizer.decode(
        build_prompt(layout, environmentalist, ["hi.", "ho.", "hu."], 10_000).ids
    )
    assert text == (
        f"<|im_start|>user\n{system_text(environmentalist)}\n\nhi.<|im_end|>\n<|im_start|>assistant\nho.<|im_end|>\n"
        "<|im_start|>user\nhu.<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("place", ["loop.last", "m == last"])
def test_a_system_turn_that_a_reply_drops_or_moves_is_not_used(
    place, chat_tokenizer, environmentalist
):
    """Mistral 7B 0.3 and Nemo write it before the last message alone, if that is the user's."""
    template = (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "{% set last = (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ system if PLACE }}"
        "{{ m.content }}<|im_start|>{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    ).replace("PLACE", place)
    layout = find_layout(with_template(chat_tokenizer, template))
    ids = build_prompt(layout, environmentalist, ["hi.", "ho.", "hu."], 10_000).ids
    said = f"{system_text(environmentalist)}\n\nhi.<|im_start|>ho.<|im_end|>"
    assert layout.tokenizer.decode(ids) == f"<|im_start|>{said}<|im_start|>hu.<|im_start|>"


BEGINS = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
ENDS = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def test_a_template_that_wants_texts_as_lists_of_parts_gets_them(chat_tokenizer, environmentalist):
    parts = "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    layouts = [
        find_layout(with_template(chat_tokenizer, BEGINS + content + ENDS))
        for content in ("{{ m.content }}", parts)
    ]
    prompts = [build_prompt(layout, environmentalist, TURNS[:3], 400) for layout in layouts]
    assert prompts[0] == prompts[1]


def test_a_system_turn_that_a_longer_chat_loses_is_not_used(chat_tokenizer, environmentalist):
    short_only = "{% if m.role != 'system' or messages | length < 3 %}{{ m.content }}{% endif %}"
    layout = find_layout(with_template(chat_tokenizer, BEGINS + short_only + ENDS))
    for count in (1, 3, 5):
        ids = build_prompt(layout, environmentalist, TURNS[:count], 10_000).ids
        text = layout.tokenizer.decode(ids)
        assert f"user\n{system_text(environmentalist)}\n\n" in text


@pytest.mark.parametrize(
    "template, cause",
    [
        (BEGINS + "{{ m.content }", "cannot write a chat (unexpected '}')"),
        (BEGINS + "{{ bos_token + m.content }}" + ENDS, "cannot write a chat ('bos_token' is"),
        ("{{ raise_exception('Tools needed. Call me') }}", "cannot write a chat (Tools needed)"),
        (
            "{% if messages | length > 3 %}{{ raise_exception('one turn') }}{% endif %}"
            + (BEGINS + "{{ m.content }}" + ENDS),
            "cannot write a chat (one turn)",
        ),
        ({"rag": "x", "tool_use": "x"}, "cannot write a chat (This model has multiple chat templ"),
        ("{{ messages[-1].content }}<|im_end|>", "leaves out a part of the chat"),
    ],
)
def test_a_template_that_cannot_write_a_chat_is_refused(chat_tokenizer, template, cause):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.bos_token, tokenizer.chat_template = None, template
    with pytest.raises(UserError) as caught:
        find_layout(tokenizer)
    assert str(caught.value).startswith(f"This model's chat template {cause}")
    assert str(caught.value).endswith("; use another model, or mend its chat_template.jinja.")


def test_a_template_that_refuses_a_long_chat_says_so_in_the_chat(chat_tokenizer, environmentalist):
    late = "{% if messages | length > 8 %}{{ raise_exception('too long') }}{% endif %}"
    layout = find_layout(with_template(chat_tokenizer, late + BEGINS + "{{ m.content }}" + ENDS))
    build_prompt(layout, environmentalist, ["hi"] * 7, 10_000)
    with pytest.raises(UserError, match="cannot write a chat .too long.; use another model"):
        build_prompt(layout, environmentalist, ["hi"] * 9, 10_000)


# both layouts


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_training_example_begins_with_the_chats_prompt(layout, environmentalist, count):
    prompt = build_prompt(layout, environmentalist, TURNS[:count], 10_000)
    whole = layout.segments(
        environmentalist, [*TURNS[:count], "because of you."], add_generation_prompt=False
    )
    assert joined(whole)[: len(prompt.ids)] == prompt.ids
    assert joined(whole)[len(prompt.ids) :][
        : len(layout.encode("because of you."))
    ] == layout.encode("because of you.")


def test_the_oldest_pairs_go_when_the_room_is_short_and_the_persona_stays(layout, environmentalist):
    whole = build_prompt(layout, environmentalist, TURNS, 10_000)
    assert build_prompt(layout, environmentalist, TURNS, len(whole.ids)) == whole
    shorter = build_prompt(layout, environmentalist, TURNS[2:], 10_000)
    assert build_prompt(layout, environmentalist, TURNS, len(whole.ids) - 1) == shorter._replace(
        dropped=2
    )
    last = build_prompt(layout, environmentalist, TURNS[4:], 10_000)
    for room in range(len(last.ids), len(shorter.ids)):
        assert build_prompt(layout, environmentalist, TURNS, room) == last._replace(dropped=4)
    persona_ids = joined(layout.segments(environmentalist, TURNS, add_generation_prompt=True)[:2])[
        : len(layout.encode("i hate cars."))
    ]
    assert whole.ids[: len(persona_ids)] == last.ids[: len(persona_ids)] == persona_ids


def test_a_persona_and_message_that_do_not_fit_are_refused_with_both_numbers(
    layout, environmentalist
):
    needed = len(build_prompt(layout, environmentalist, TURNS[-1:], 10_000).ids)
    with pytest.raises(
        UserError,
        match=rf"take {needed} tokens and this model has room for {needed - 1}; shorten one of them",
    ):
        build_prompt(layout, environmentalist, TURNS, needed - 1)


def test_convai_keeps_the_turns_it_was_trained_on(convai_tokenizer, environmentalist):
    layout = find_layout(convai_tokenizer, max_turns=3)
    for count, dropped in [(1, 0), (3, 0), (5, 2), (7, 4)]:
        turns = (TURNS + ["hm.", "yes?"])[:count]
        prompt = build_prompt(layout, environmentalist, turns, 10_000)
        assert prompt == build_prompt(layout, environmentalist, turns[dropped:], 10_000)._replace(
            dropped=dropped
        )


def test_a_layout_is_found_by_name_or_by_tokens_else_refused(chat_tokenizer, convai_tokenizer):
    assert find_layout(chat_tokenizer).name == find_layout(chat_tokenizer, "chat").name == "chat"
    assert (
        find_layout(convai_tokenizer).name
        == find_layout(convai_tokenizer, "convai").name
        == "convai"
    )
    assert find_layout(convai_tokenizer).max_turns == 5
    both = with_template(convai_tokenizer, chat_tokenizer.chat_template)
    assert (find_layout(both).name, find_layout(both, "chat").name) == ("convai", "chat")
    with pytest.raises(
        UserError,
        match="neither a chat template nor the tokens <bos> <eos> <speaker1> <speaker2> <pad>; use a chat model",
    ):
        find_layout(with_template(chat_tokenizer, None))
    with pytest.raises(UserError, match="names the layout 'convai', but its tokenizer lacks"):
        find_layout(chat_tokenizer, "convai")
    with pytest.raises(
        UserError, match="names the prompt layout 'alpaca', but only 'convai' and 'chat' are known"
    ):
        find_layout(chat_tokenizer, "alpaca")
    with pytest.raises(UserError, match="writes nothing after a reply"):
        find_layout(
            with_template(chat_tokenizer, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
        )


def test_a_long_chat_is_encoded_once(chat_tokenizer, environmentalist):
    """Not once for each number of turns that might be dropped: 199 turns of 1,000 characters took 21 s that way."""
    layout = find_layout(chat_tokenizer)
    encoded = []
    original = layout.encode
    layout.encode = lambda text: (encoded.append(len(text)), original(text))[1]
    prompt = build_prompt(layout, environmentalist, ["so and so and " * 10] * 199, 400)
    assert 0 < prompt.dropped < 199 and len(prompt.ids) <= 400
    assert sum(encoded) < 140 * 40


@pytest.mark.parametrize(
    "opened", ["<think>\n", "<think>", "<thinking>\n\n", "<reasoning>\n", "<seed:think>", "[THINK]"]
)
def test_a_template_that_opens_a_thought_is_answered_at_once(
    chat_tokenizer, environmentalist, opened
):
    tokenizer = copy.deepcopy(chat_tokenizer)
    plain = find_layout(tokenizer)
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = tokenizer.chat_template.replace(
        "<|im_start|>assistant\n{% endif %}", f"<|im_start|>assistant\n{opened}{{% endif %}}"
    )
    assert thinking.chat_template != tokenizer.chat_template
    prompts = [
        build_prompt(layout, environmentalist, TURNS[:3], 400).ids
        for layout in (plain, find_layout(thinking))
    ]
    assert prompts[0] == prompts[1]
