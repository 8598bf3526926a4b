"""The tutorial's whole road: a pickled GPT, converted, trained on one dialogue, chatted with, published, pulled, and a reply.

Run: `python -m pytest tests/train/test_seed_road.py`
"""
# ruff: noqa: F811 (fixtures of test_publish.py)

import json
from pathlib import Path

import pytest

pytest.importorskip("simpletransformers", reason="pip install -r train/requirements-convai.txt")

from persona_bot.persona import Persona  # noqa: E402
from persona_bot.replies.local import LocalModel  # noqa: E402
from persona_bot.settings import Settings  # noqa: E402
from tests.convai_data import make_bases  # noqa: E402
from tests.train.test_convert import pickled  # noqa: E402
from tests.train.test_publish import hub  # noqa: E402, F401
from train import convert, finetune  # noqa: E402
from train.convai import ConvAIModel  # noqa: E402
from train.hub import model_card  # noqa: E402
from train.publish import publish  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "train" / "example_dialogues.json"
PERSONA = Persona("", ("i keep bees.",))


@pytest.mark.parametrize("how", ["the class in a notebook", "the command"])
def test_from_the_pickle_to_a_reply_of_the_published_bot(hub, tmp_path, monkeypatch, how):
    monkeypatch.setattr(model_card, "SAMPLES", 0)
    archive = pickled(make_bases(tmp_path)["gpt"], tmp_path / "gpt_personachat_cache", "gpt")
    convert.main([str(archive)])
    minimal = tmp_path / "minimal_train.json"
    minimal.write_text(json.dumps(json.loads(EXAMPLE.read_text())["train"][:1]))
    out = tmp_path / "outputs"
    if how == "the command":
        given = ["--recipe", "convai", "--model", str(archive), "--data", str(minimal)]
        finetune.main([*given, "--out", str(out), "--set", "num_train_epochs=2"])
    else:
        args = {"num_train_epochs": 2, "overwrite_output_dir": True, "output_dir": str(out)}
        model = ConvAIModel("gpt", str(archive), use_cuda=False, args=args)
        model.train_model(str(minimal))
        reply, history = model.interact_single("hello", [], list(PERSONA.sentences))
        assert history == ["hello", reply]
        assert isinstance(
            ConvAIModel("gpt", str(out)).interact_single("hi", [], ["i sail."])[0], str
        )
    publish(out, "user/bees")
    assert "persona_layout.json" in hub.head("user/bees").files
    # as the page loads it
    reply = LocalModel.load("user/bees", "cpu").reply(
        PERSONA, ["where do you work?"], Settings(seed=1)
    )
    assert "".join(reply) == reply.text and reply.text
