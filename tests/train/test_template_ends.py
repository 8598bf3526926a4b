"""Where a reply ends in templates of many kinds: what stops it, what training supervises, what a score counts.

Run: `python -m pytest tests/train/test_template_ends.py`
"""

import copy

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from persona_bot.layouts import find_layout
from persona_bot.persona import Persona
from persona_bot.prompt import build_prompt, reply_ids
from persona_bot.settings import Settings
from tests.models import plain_model, say
from train.data.dialogues import Dialogue, Utterance
from train.data.examples import conversation_example, replies_of, wrong_replies

PERSONA = Persona("", ("i keep bees.", "i sail."))
TURNS = ["hello there.", "hi! how are you?", "fine, and you?", "i am a bit tired."]
HEAD = "{% for m in messages %}{{ m.role + ':' }}{{ m.content }}"
ANSWER = "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LAST = "{% if loop.last and not add_generation_prompt %}"
INNER = "{% if not loop.last or add_generation_prompt %}"
AFTER = {  # what stands after each text -> the token that ends a reply, further ones that stop it
    "<|im_end|>\n": ("<|im_end|>", []),
    " <|im_end|>": ("<|im_end|>", []),  # Llama 2
    "\n<|im_end|>\n": ("<|im_end|>", []),  # DeepSeek Coder
    "\n\n### End\n<|im_end|>\n": ("<|im_end|>", []),
    "\n" + INNER + "<|im_start|>{% endif %}": ("<|im_start|>", []),  # Nemotron
    INNER + "<|im_start|>{% endif %}": ("<|im_start|>", []),  # GLM 4
    LAST + "<|im_end|>{% else %} <|im_start|>{% endif %}": ("<|im_end|>", ["<|im_start|>"]),
    LAST + "<|im_end|>{% else %}\n\n{% endif %}": ("<|im_end|>", []),
    "###": ("#", []),
    "\n### ": ("Ċ", []),
    INNER + "{{ '\n' }}{% endif %}": ("Ċ", []),  # Falcon
    LAST + "#{% else %}# <|im_start|>{% endif %}": ("#", ["<|im_start|>"]),
}


@pytest.fixture(params=AFTER, ids=repr)
def after(request) -> str:
    return request.param


@pytest.fixture
def tokenizer(after, chat_tokenizer):
    other = copy.deepcopy(chat_tokenizer)
    other.eos_token, other.chat_template = "<|endoftext|>", HEAD + after + ANSWER
    return other


def test_what_ends_a_reply(after, tokenizer):
    layout = find_layout(tokenizer)
    end, others = AFTER[after]
    assert tokenizer.convert_ids_to_tokens(layout.end_id) == end
    stops = {end, *others, "<|endoftext|>"}
    assert set(tokenizer.convert_ids_to_tokens(sorted(layout.stop_ids))) == stops


def test_the_reply_and_its_end_are_learnt_and_scored_and_nothing_else(tokenizer):
    layout = find_layout(tokenizer)
    expected = [[*layout.encode(turn), layout.end_id] for turn in TURNS[1::2]]
    example = conversation_example(layout, PERSONA, TURNS)
    starts, learnt = replies_of(example)
    assert learnt == expected == [reply_ids(layout, turn) for turn in TURNS[1::2]]
    for start, k in zip(starts, (1, 3), strict=True):
        prompt = build_prompt(layout, PERSONA, TURNS[:k], 10**6).ids
        assert example.ids[:start] == prompt
    utterance = Utterance(TURNS[:1], ["never!", TURNS[1]])
    wrong = wrong_replies(layout, [Dialogue(list(PERSONA.sentences), [utterance])], 1)
    assert wrong == {tuple(expected[0]): [tuple(reply_ids(layout, "never!"))]}


def test_a_blank_ends_no_reply(chat_model, chat_tokenizer):
    """Llama 2's template has one before its end."""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = HEAD + " <|im_end|>" + ANSWER
    model = plain_model(copy.deepcopy(chat_model), tokenizer)
    blank = tokenizer(" ").input_ids[0]
    say(model, ["so", blank, "it is.", blank, model.layout.end_id])
    settings = Settings(temperature=0, guidance_scale=1, repetition_penalty=1, no_repeat_ngram=0)
    reply = model.reply(PERSONA, TURNS[:1], settings)
    assert "".join(reply) == "so it is." and reply.finish_reason == "stop"


def test_what_a_vocabulary_lacks_is_no_control_token():
    words = {"<unk>": 0, "</s>": 1, "###": 2, "user:": 3, "assistant:": 4, "hi": 5, "ho": 6}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>"
    )
    tokenizer.chat_template = HEAD.replace(":'", ": '") + " ### 🌱 " + ANSWER
    layout = find_layout(tokenizer)
    assert layout.end_id == 2 and layout.stop_ids == {1, 2}
