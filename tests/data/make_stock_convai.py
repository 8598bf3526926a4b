"""Trains a tiny GPT-2 with STOCK simpletransformers and records what it makes of a few dialogues: the truth for test_prompt.py.

Run: `python tests/data/make_stock_convai.py`, in an environment with simpletransformers==0.70.8 (`train/requirements-convai.txt`);
needed again only when the words below change. Writes `tests/data/stock_convai/`: the checkpoint as ConvAIModel saves it,
and `cases.json`: per candidate `input_ids`, `token_type_ids`, `mc_token_ids` and `labels` of build_input_from_segments, the
logits of the ranking head, and the greedy reply to the first history. The library is stock but for the two methods it needs to run at all.
"""

import json
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2DoubleHeadsModel

OUT = Path(__file__).parent / "stock_convai"
KEPT = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model_args.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
DIALOGUES = [
    {
        "personality": ["i work for greenpeace .", "i hate cars ."],
        "utterances": [
            {
                "history": ["hello , where do you work ?"],
                "candidates": ["i like cake .", "at greenpeace , and you ?"],
            },
            {
                "history": [
                    "hello , where do you work ?",
                    "at greenpeace , and you ?",
                    "i sell cars .",
                ],
                "candidates": ["my dog is old .", "oh no , i hate cars !"],
            },
            {
                "history": [
                    "hello , where do you work ?",
                    "at greenpeace , and you ?",
                    "i sell cars .",
                    "oh no , i hate cars !",
                    "really ?",
                    "yes , i ride a bike .",
                    "that is good .",
                ],
                "candidates": ["hello !", "thank you ."],
            },
        ],
    },
    {
        "personality": ["i am a soldier .", "i live in the barracks .", "i have a dog ."],
        "utterances": [
            {"history": ["__SILENCE__"], "candidates": ["i hate cake .", "hi , i am a soldier ."]},
            {
                "history": [
                    "__SILENCE__",
                    "hi , i am a soldier .",
                    "it 's cold today , is n't it ?",
                    "not in here .",
                    "ok .",
                ],
                "candidates": ["i ride a bike .", "do you have a dog ?"],
            },
        ],
    },
]


def main() -> None:
    work = Path(tempfile.mkdtemp())
    # stock writes runs/, cache_dir/ and outputs/ beside itself, and its paths into model_args.json
    os.chdir(work)
    Path("data.json").write_text(json.dumps(DIALOGUES), encoding="utf-8")
    make_base(Path("base"))
    model = import_stock()("gpt2", "base", use_cuda=False, args=settings())
    model.train_model("data.json")
    recorded = []
    build = model.build_input_from_segments
    model.build_input_from_segments = lambda *inputs: (
        recorded.append(build(*inputs)) or recorded[-1]
    )
    model.load_and_cache_examples("data.json", evaluate=True, no_cache=True)
    del model.build_input_from_segments  # the class's own again
    for case in recorded:
        case["mc_logit"] = ranking_logit(model, case)
    reply, _ = model.interact_single(
        DIALOGUES[0]["utterances"][0]["history"][0], [], DIALOGUES[0]["personality"]
    )
    OUT.mkdir(exist_ok=True)
    for name in KEPT:
        shutil.copy(work / "outputs" / name, OUT / name)
    lines = ",\n".join(json.dumps(case) for case in recorded)
    head = f'"dialogues": {json.dumps(DIALOGUES, indent=1)},\n"greedy_reply": {json.dumps(reply)}'
    (OUT / "cases.json").write_text(f'{{{head},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


def settings() -> dict:
    return {
        "manual_seed": 1,
        "num_train_epochs": 200,
        "learning_rate": 5e-3,
        "train_batch_size": 2,
        "max_length": 12,
        "min_length": 1,
        "do_sample": False,
        "no_cache": True,
        "process_count": 1,
        "use_multiprocessing": False,
        "overwrite_output_dir": True,
        "save_model_every_epoch": False,
        "save_steps": -1,
    }


def make_base(folder: Path) -> None:
    """An untrained GPT-2 of one layer and its byte-level BPE, in the files that GPT2Tokenizer reads."""
    folder.mkdir()
    texts = [
        t
        for d in DIALOGUES
        for u in d["utterances"]
        for t in d["personality"] + u["history"] + u["candidates"]
    ]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts,
        vocab_size=320,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.save_model(str(folder))
    torch.manual_seed(1)
    size = tokenizer.get_vocab_size()
    config = GPT2Config(
        vocab_size=size,
        n_positions=128,
        n_embd=16,
        n_layer=1,
        n_head=2,
        num_labels=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2DoubleHeadsModel(config).save_pretrained(folder)


def import_stock():
    """ConvAIModel with a get_dataset that needs no `cached_path` and an add_special_tokens_ that needs no `encoder`."""
    utils = types.ModuleType("simpletransformers.conv_ai.conv_ai_utils")
    utils.get_dataset = get_dataset
    sys.modules[utils.__name__] = utils
    from simpletransformers.conv_ai import ConvAIModel
    from simpletransformers.conv_ai.conv_ai_model import ATTR_TO_SPECIAL_TOKEN

    class RunningConvAIModel(ConvAIModel):
        def add_special_tokens_(self, model, tokenizer):
            tokenizer.add_special_tokens(ATTR_TO_SPECIAL_TOKEN)
            if model.get_input_embeddings().num_embeddings < len(tokenizer):
                model.resize_token_embeddings(len(tokenizer))

    return RunningConvAIModel


def get_dataset(tokenizer, path, *_, **__):
    def tokenize(value):
        if isinstance(value, str):
            return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(value))
        if isinstance(value, dict):
            return {key: tokenize(inner) for key, inner in value.items()}
        return [tokenize(inner) for inner in value]

    return tokenize(json.loads(Path(path).read_text(encoding="utf-8")))


@torch.no_grad()
def ranking_logit(model, case: dict) -> float:
    model.model.eval()
    inputs = {
        name: torch.tensor([[case[name]]])
        for name in ("input_ids", "token_type_ids", "mc_token_ids")
    }
    return round(float(model.model(**inputs).mc_logits.squeeze()), 5)


if __name__ == "__main__":
    main()
