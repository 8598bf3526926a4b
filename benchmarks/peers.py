"""Other engines with the same weights, for benchmarks.chat: each function returns one from a question to an iterator with one
item a token; what that does at once is not timed.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_bot.checkpoints.load import Checkpoint

Answer = Callable[[str], Iterator[None]]

TOKENS = 20  # of a reply
PERSONA = [
    "i keep bees on my roof.",
    "i used to be a dancer.",
    "my sister is a judge.",
    "i am afraid of the dark.",
    "i cook with garlic.",
]
TURNS = ["hi there, how was your day?", "it was fine, i looked after my bees. how was yours?"]


def prompt_ids() -> "tuple[Checkpoint, Callable[[str], list[int]]]":
    """(the default checkpoint, ids of the prompt by question)."""
    from persona_bot.checkpoints.load import load_checkpoint
    from persona_bot.persona import Persona
    from persona_bot.prompt import build_prompt

    checkpoint = load_checkpoint(None, "cpu")
    return (
        checkpoint,
        lambda question: (
            build_prompt(
                checkpoint.layout, Persona("", tuple(PERSONA)), [*TURNS, question], 900
            ).ids
        ),
    )


def generate() -> Answer:
    import threading

    import torch
    from transformers import TextIteratorStreamer

    checkpoint, ids = prompt_ids()
    model: Any = checkpoint.model  # what generates is not in the class that all models have
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}

    class Tokens(TextIteratorStreamer):  # one item a token, not a word
        def put(self, value: Any) -> None:
            self.text_queue.put("")

    def stream(question: str) -> Iterator[None]:
        streamer = Tokens(checkpoint.tokenizer)
        inputs = torch.tensor([ids(question)])
        length = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
        options = {
            "attention_mask": torch.ones_like(inputs),
            "streamer": streamer,
            **length,
            **sampling,
        }
        thread = threading.Thread(target=model.generate, args=(inputs,), kwargs=options)
        thread.start()
        next(streamer)  # the prompt
        yield from (None for _, _ in zip(range(TOKENS), streamer, strict=False))
        thread.join()

    return stream


def ctranslate2() -> Answer:
    import ctranslate2 as ct2
    import torch

    checkpoint, ids = prompt_ids()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.model.save_pretrained(f"{folder}/model")
        checkpoint.tokenizer.save_pretrained(f"{folder}/model")
        ct2.converters.TransformersConverter(f"{folder}/model").convert(
            f"{folder}/ct2", quantization="int8"
        )
        engine = ct2.Generator(f"{folder}/ct2", intra_threads=torch.get_num_threads())

    def stream(question: str) -> Iterator[None]:
        tokens = checkpoint.tokenizer.convert_ids_to_tokens(ids(question))
        sampling = {
            "sampling_topk": 0,
            "sampling_topp": 0.9,
            "sampling_temperature": 0.7,
            "repetition_penalty": 1.1,
        }
        for _ in engine.generate_tokens(tokens, max_length=TOKENS, min_length=TOKENS, **sampling):
            yield None

    return stream


def llama_cpp() -> Answer:
    import torch
    from llama_cpp import Llama

    from persona_bot.checkpoints.files import BASE_MODEL
    from persona_bot.checkpoints.load import find_base

    _, ids = prompt_ids()
    file = next(find_base(BASE_MODEL).glob("*.gguf"))
    engine = Llama(str(file), n_ctx=1024, n_threads=torch.get_num_threads(), verbose=False)

    def reply(question: str) -> Iterator[None]:
        engine.reset()
        return (
            None
            for _, _ in zip(
                range(TOKENS), engine.generate(ids(question), temp=0.7, top_p=0.9), strict=False
            )
        )

    return reply


def stock() -> Answer:
    from benchmarks.training import EXAMPLE, SHAPES, prepare
    from benchmarks.training_runs import stock_model

    folder = tempfile.mkdtemp()
    prepare(Path(folder), EXAMPLE, 10, SHAPES["full"])
    os.chdir(folder)
    model = stock_model(
        {
            "max_length": 1,
            "min_length": 1,
            "do_sample": True,
            "top_k": 0,
            "top_p": 0.9,
            "temperature": 0.7,
            "fp16": False,
        }
    )
    model.model.eval()
    persona = [model.tokenizer.encode(sentence) for sentence in PERSONA]

    def stream(question: str) -> Iterator[None]:
        import torch

        history = [model.tokenizer.encode(turn) for turn in [*TURNS, question]]
        written: list[int] = []
        with torch.no_grad():
            # its own loop, one token a call, to see the first one come
            while len(written) < TOKENS:
                written = model.sample_sequence(
                    persona, history, model.tokenizer, model.model, model.args, written
                )
                yield None

    return stream
