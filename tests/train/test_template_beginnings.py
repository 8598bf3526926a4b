"""Where a reply begins: the prompt that the chat sends, what training reads before a reply, and the template's own ids.

Run: `python -m pytest tests/train/test_template_beginnings.py`

Byte-level tokenizers keep a blank with the word behind it; Llama's kind puts one before whatever it is given.
"""

import copy
import string

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from persona_bot.layouts import find_layout, system_text
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from train.data.dialogues import Dialogue, Utterance
from train.data.examples import conversation_example, replies_of, wrong_replies

PERSONA = Persona("", ("i keep bees.", "i sail."))
TURNS = ["hello there.", "hi! how are you?", "fine, and you?", "i am a bit tired."]
CASES = {  # what stands before each text, before a reply, where one is asked for; what the prompt then has besides
    "vicuna": ("{{ m.role }}: ", "ASSISTANT: ", "ASSISTANT:", ""),
    "blank asked for": ("{{ m.role }}: ", "ASSISTANT: ", "ASSISTANT: ", ""),
    "llama 2": ("[INST] ", " ", "", ""),
    "nothing before": ("{{ 'USER: ' if m.role == 'user' }}", "ASSISTANT: ", "ASSISTANT:", ""),
    "nothing asked for": ("<s>{{ m.role }}\n", "<s>assistant\n", "", "<s>assistant\n"),
    "deepseek coder": ("### {{ m.role }}:\n", "### Response:\n", "### Response:", "\n"),
    "gpt-oss": ("<s>us\n", "<s>bot<mark>final\n", "<s>bot", "<mark>final\n"),
    "danube": ("<mark>", "<s>bot<mark>", "<s>bot<mark>", ""),
    "zephyr": ("<|{{ m.role }}|>\n", "<|bot|>\n", "<|bot|>\n", ""),
}


def llamas_kind(anew: bool = True) -> PreTrainedTokenizerFast:
    """Metaspace and bytes, as Llama 2, Mistral, TinyLlama and Phi-3 have them; their "legacy" begins anew behind a control token."""
    letters = string.ascii_letters + string.punctuation
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    words += [f"▁{letter}" for letter in letters]
    vocabulary = {word: k for k, word in enumerate(words)}
    merges = [("▁", letter) for letter in letters]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    scheme = "always" if anew else "first"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


@pytest.fixture(params=CASES)
def case(request) -> tuple[str, str, str, str]:
    return CASES[request.param]


@pytest.fixture(params=["byte-level", "legacy", "first"])
def tokenizer(request, case, chat_tokenizer):
    other = (
        copy.deepcopy(chat_tokenizer)
        if request.param == "byte-level"
        else llamas_kind(request.param == "legacy")
    )
    other.add_special_tokens(
        {"eos_token": "</s>", "additional_special_tokens": ["<s>", "<mark>", "</s>"]}
    )
    text, reply, asked, _ = case
    other.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '" + reply + "' + m.content }}"
        "</s>{% else %}" + text + "{{ m.content + ' .' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + asked + "' }}{% endif %}"
    )
    return other


def template_ids(tokenizer, turns: list[str], ending: str = "", asks: bool = False) -> list[int]:
    roles = ["system", *["user", "assistant"] * len(turns)]
    said = zip(roles, [system_text(PERSONA), *turns], strict=False)
    messages = [{"role": role, "content": text} for role, text in said]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
    return tokenizer(text.rstrip(" ") + ending, add_special_tokens=False).input_ids


def test_the_ids_are_the_templates(case, tokenizer):
    layout = find_layout(tokenizer)
    for count in (1, 3):
        prompt = build_prompt(layout, PERSONA, TURNS[:count], 10**6).ids
        assert prompt == template_ids(tokenizer, TURNS[:count], case[3], asks=True)
    example = conversation_example(layout, PERSONA, TURNS)
    assert example.ids == template_ids(tokenizer, TURNS)


def test_what_is_learnt_stands_behind_the_chats_prompt(tokenizer):
    layout = find_layout(tokenizer)
    example = conversation_example(layout, PERSONA, TURNS)
    starts, learnt = replies_of(example)
    assert learnt == [reply_ids(layout, turn) for turn in TURNS[1::2]]
    for start, reply, k in zip(starts, learnt, (1, 3), strict=True):
        prompt = build_prompt(layout, PERSONA, TURNS[:k], 10**6).ids
        assert example.ids[: start + len(reply)] == prompt + reply
        assert layout.decode(reply) == TURNS[k] and reply[-1] == layout.end_id
    utterance = Utterance(TURNS[:1], ["never!", TURNS[1]])
    wrong = wrong_replies(layout, [Dialogue(list(PERSONA.sentences), [utterance])], 1)
    assert wrong == {tuple(learnt[0]): [tuple(reply_ids(layout, "never!"))]}


def test_the_persona_may_speak_first(tokenizer):
    layout = find_layout(tokenizer)
    prompt = build_prompt(layout, PERSONA, [""], 10**6).ids
    assert "i keep bees." in tokenizer.decode(prompt)
    example = conversation_example(layout, PERSONA, ["", TURNS[1]])
    assert example.ids == prompt + reply_ids(layout, TURNS[1])


def test_an_end_in_plain_text_is_what_the_model_writes():
    """And not the blank that the tokenizer puts before a text of its own."""
    tokenizer = llamas_kind()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content }}###{% endfor %}"
    )
    layout = find_layout(tokenizer)
    assert layout.end_id == tokenizer.convert_tokens_to_ids("#")
    assert reply_ids(layout, "a b") == tokenizer.convert_tokens_to_ids(["▁a", "▁b", "#"])
