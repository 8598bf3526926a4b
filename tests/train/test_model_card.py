"""The model card: metadata as the Hub's own client reads it, and the text beside it.

Run: `python -m pytest tests/train/test_model_card.py`
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.layouts import find_layout, system_text
from persona_bot.persona import Persona, load_presets
from train.hub.model_card import card_text, model_card, rendered_example
from train.metrics.table import markdown_table, plain_table, rows
from train.model_card import main

FACTS = {
    "recipe": "sft",
    "layout": "chat",
    "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "data": ["personachat_train_1000.json", "synthetic_personachat_train.json:200"],
    "train_dialogues": 1200,
    "valid_dialogues": 50,
    "tokens": 270000,
    "steps": 135,
    "minutes": 41.5,
    "machine": "x86_64 CPU, 2 threads",
    "command": "python -m train.finetune --data personachat_train_1000.json --out outputs/mine",
    "settings": {"learning_rate": 0.0004, "lora_rank": 32},
}
REPORT = {
    "data": "personachat_valid.json",
    "dialogues": 50,
    "replies": 385,
    "generated": 300,
    "scores": {
        "nats_per_reply": 38.123,
        "hits_over_nothing": 0.8123,
        "word_f1": 18.25,
        "persona_f1": 24.96,
        "distinct_2": 0.31,
    },
}
PERSONA = Persona("Baker", ("i bake bread.", 'they call me "crumb".'))


def card(facts=(), report=REPORT, repo_id="someone/bot") -> str:
    return card_text(
        {**FACTS, **dict(facts)}, report, "EXAMPLE PROMPT", "SAMPLE REPLIES", repo_id, PERSONA
    )


def test_the_hubs_client_reads_the_metadata():
    data = ModelCard(card()).data
    assert data.license == "apache-2.0"
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.datasets == ["bavard/personachat_truecased", "google/Synthetic-Persona-Chat"]
    assert (data.library_name, data.pipeline_tag, data.language) == (
        "transformers",
        "text-generation",
        "en",
    )
    assert data.tags == ["conversational", "persona", "persona-chat", "chat-layout"]


def test_the_hubs_client_reads_the_scores():
    results = {result.metric_type: result for result in ModelCard(card()).data.eval_results}
    assert set(results) == {"nats_per_reply", "hits_over_nothing"}
    assert results["nats_per_reply"].metric_value == 38.123
    assert results["nats_per_reply"].dataset_name == "personachat_valid.json, 50 dialogues"
    assert ModelCard(card()).data.model_name == "bot"


def test_an_adapter_is_a_peft_model():
    data = ModelCard(card({"adapter_only": True})).data
    assert data.library_name == "peft" and "lora" in data.tags


@pytest.mark.parametrize(
    "base, licence",
    [
        ("gpt2", "mit"),
        ("openai-community/openai-gpt", "mit"),
        ("microsoft/DialoGPT-small", "mit"),
        ("HuggingFaceTB/SmolLM2-360M@main", "apache-2.0"),
        ("distilgpt2", "apache-2.0"),
        ("someone/unheard-of", "other"),
        ("someone/gpt2-noncommercial", "other"),
        ("acme/SmolLM2-proprietary", "other"),
        ("acme/gpt2", "other"),
    ],
)
def test_the_licence_is_that_of_the_base(base, licence):
    assert ModelCard(card({"base_model": base})).data.license == licence


def test_unknown_data_has_no_licence_made_up_for_it():
    text = card({"data": ["mine.json"]})
    assert "- mine.json: not known here" in text
    assert ModelCard(text).data.datasets is None


@pytest.mark.parametrize(
    "name",
    [
        *("synthetic_mine.json", "customer_questions.json", "questions.json", "everyday.json"),
        *("job_interviews.json", "everyday_sales.csv", "unranked.jsonl:40", "my_personachat.json"),
        *("me/my-personachat-de", "me/Synthetic-Persona-Chat", "notes/example_dialogues.json.gz"),
    ],
)
def test_somebodys_own_data_is_not_told_by_a_part_of_its_name(name):
    text = card({"data": [name]}, {**REPORT, "data": name}, repo_id=None)
    made = ModelCard(text).data
    assert f"- {name}: not known here" in text and "fine-tuned on own dialogues\n" in text
    assert (made.datasets, made.language) == (None, None) and "persona-chat" not in made.tags
    assert made.eval_results[0].dataset_type == "own"
    assert "CC BY 4.0" not in text and "as this project" not in text
    assert "paid strangers typed" not in text


def test_a_made_file_is_known_where_the_facts_say_what_made_it_and_above_them_it_is_not():
    below = {
        **FACTS,
        "data": ["questions.json:9"],
        "made_by": {"questions.json": "train.questions"},
    }
    made = (
        "- questions made from this project's own templates (train/questions.py): as this project"
    )
    assert made in card(below) and "questions.json:9: not known here" not in card(below)
    above = card({"data": ["questions.json"], "goes_on_from": below})
    assert made in above and "- questions.json: not known here" in above


def test_the_default_models_card_is_what_its_facts_make():
    folder = Path(__file__).parents[2] / "default_model"
    facts = json.loads((folder / "training.json").read_text())
    text = card_text({**facts, "adapter_only": True}, REPORT, "E", "S", None, PERSONA)
    written = (folder / "README.md").read_text()
    for section in ("## Licences", "## Limits and risks"):
        assert text.split(section)[1].split("##")[0] == written.split(section)[1].split("##")[0]
    known, kept = ModelCard(text).data, ModelCard(written).data
    for key in ("license", "language", "base_model", "datasets", "tags"):
        assert getattr(known, key) == getattr(kept, key)


def test_each_licence_is_named_once():
    text = card(
        {
            "data": [
                "personachat",
                "personachat_train_rcdg.json:50",
                "google/Synthetic-Persona-Chat",
                "example_dialogues.json",
            ]
        }
    )
    assert text.count("by way of ParlAI): CC BY 4.0 (attribution; MIT is") == 1
    assert text.count("Synthetic-Persona-Chat (Jandaghi et al. 2023, Google): CC BY 4.0") == 1
    assert "HuggingFaceTB/SmolLM2-135M-Instruct: apache-2.0" in text


def test_training_that_went_on_names_all_commands_and_data():
    text = card({"data": ["mine.json"], "goes_on_from": {**FACTS, "command": "the first one"}})
    assert (
        text.index(FACTS["command"]) < text.index("It goes on from:") < text.index("the first one")
    )
    assert "Synthetic-Persona-Chat (Jandaghi et al. 2023, Google): CC BY 4.0" in text


def test_the_card_holds_everything_in_order():
    text = card()
    parts = ["# bot", "from transformers import pipeline", "EXAMPLE PROMPT", FACTS["command"]]
    parts += [
        "1,200 dialogues, 270,000 tokens an epoch, 135 steps",
        "41.5 minutes on x86_64 CPU, 2 threads",
    ]
    parts += ["learning_rate 0.0004, lora_rank 32", "385 replies; 300 of them"]
    parts += [
        "| nats per reply | 38.12 | 42.00 |",
        "SAMPLE REPLIES",
        "## Limits and risks",
        "## Licences",
    ]
    assert [part for part in parts if part not in text] == []
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)


def test_the_three_lines_are_python_and_hold_the_system_turn_of_the_chat():
    code = card().split("```python\n")[1].split("```")[0]
    assert code.count("\n") == 3
    compile(code, "card", "exec")
    assert json.dumps(system_text(PERSONA)) in code and '"someone/bot"' in code


def test_a_convai_checkpoint_is_not_offered_to_pipelines():
    text = card({"layout": "convai", "recipe": "convai", "base_model": "gpt2"})
    assert "pipeline(" not in text and "python -m persona_bot --model someone/bot" in text
    assert "convai-layout" in ModelCard(text).data.tags


def test_a_card_without_scores_or_settings_says_so():
    bare = {
        key: value for key, value in FACTS.items() if key not in ("settings", "tokens", "steps")
    }
    text = card_text(bare, {}, "E", "S", None, PERSONA)
    assert (
        "Not scored yet" in text
        and "settings:" not in text
        and "python app.py --model FOLDER" in text
    )
    assert not ModelCard(text).data.eval_results


def test_score_rows_stand_beside_the_reference_and_human_replies():
    assert rows({"nats_per_reply": 38.126, "made_up": 1.0}) == [
        (
            "nats per reply",
            "38.13",
            "42.00",
            "",
            "-log likelihood of the gold reply and its end, whatever the tokenizer",
        )
    ]
    assert rows({"persona_f1": 24.96})[0][1:4] == ("25.0", "", "25.6")
    assert rows({"persona_f1": 24.96}, {"persona_f1": 30.0})[0][1:4] == ("25.0", "", "30.0")


def test_tables_have_one_line_a_score():
    scores = {"word_f1": 18.25, "nats_per_reply": 38.1}
    assert markdown_table(scores).splitlines()[2].startswith("| nats per reply | 38.10 | 42.00 |")
    lines = plain_table(scores).splitlines()
    assert len(lines) == 3 and lines[1].split()[:5] == ["nats", "per", "reply", "38.10", "42.00"]
    assert lines[1].index("38.10") + 5 == lines[2].index("18.2") + 4  # numbers end in one column


@pytest.fixture(scope="module")
def checkpoint(chat_model, chat_tokenizer) -> Checkpoint:
    return Checkpoint(
        chat_model, chat_tokenizer, find_layout(chat_tokenizer), "tiny", torch.device("cpu"), 512
    )


def test_the_example_is_a_prompt_up_to_the_reply(checkpoint):
    text = rendered_example(checkpoint, PERSONA)
    assert text.startswith("<|im_start|>system\n") and text.endswith(
        "where do you work?<|im_end|>\n<|im_start|>assistant"
    )
    assert "i bake bread.\n" in text and "hi, how are you?<|im_end|>" in text


def test_a_checkpoint_writes_its_own_samples(checkpoint):
    text = model_card(checkpoint, FACTS, REPORT)
    first = next(iter(load_presets().values()))
    assert first.sentences[0] in text and text.count("**You:** Who are you?") == 3
    assert "# SmolLM2-135M-Instruct, fine-tuned on Persona-Chat" in text


def test_the_command_writes_the_card_of_a_folder(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    (folder / "training.json").write_text(json.dumps(FACTS))
    (folder / "scores.json").write_text(json.dumps(REPORT))
    main([str(folder), "--name", "someone/bot"])
    text = (folder / "README.md").read_text()
    assert ModelCard(text).data.eval_results[0].metric_value == 38.123 and "# bot" in text


def test_a_card_of_settings_and_of_scores_without_a_file(chat_folder, tmp_path):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    # as train.finetune --config takes them; and as evaluate --only probes writes them
    (folder / "training.json").write_text('{"recipe": "sft", "settings": {"epochs": 2}}')
    scores = {"data": None, "dialogues": 0, "replies": 0, "scores": {"recall_probes": 0.5}}
    (folder / "scores.json").write_text(json.dumps(scores))
    main([str(folder)])
    text = (folder / "README.md").read_text()
    assert "- chat-layout\n" in text and "| recall probes | 0.500 |" in text
    assert "On this project's own questions. Made by" in text and "held-out" not in text


@pytest.mark.parametrize(
    "content, message", [(None, "holds no training.json"), ("{", "is not valid JSON")]
)
def test_a_folder_without_facts_is_one_line_and_exit_2(content, message, tmp_path, capsys):
    if content:
        (tmp_path / "training.json").write_text(content)
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path)])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and error.count("\n") == 1


# ---- cards claim what this run did, and no more


@pytest.mark.parametrize(
    "data, title, tags, language",
    [
        (["personachat"], "Persona-Chat", True, "en"),
        (["example_dialogues.json"], "this project's example dialogues", False, "en"),
        (["mine.json"], "own dialogues", False, None),
        (["mine.json", "personachat"], "own dialogues, Persona-Chat", True, None),
    ],
)
def test_title_tags_language_and_risks_follow_the_data(data, title, tags, language):
    text = card({"data": data}, repo_id=None)
    made = ModelCard(text).data
    assert f"# SmolLM2-135M-Instruct, fine-tuned on {title}\n" in text
    assert ("persona-chat" in made.tags) == tags == ("paid strangers typed" in text)
    assert made.language == language


def test_a_base_in_a_folder_is_no_claim_about_the_hubs():
    local = {"base_model": "gpt2", "base_is_folder": True}
    made = ModelCard(card(local)).data
    assert (made.base_model, made.license) == (None, "other")
    made = ModelCard(card({**local, "goes_on_from": FACTS})).data
    assert (made.base_model, made.license) == (FACTS["base_model"], "apache-2.0")


@pytest.mark.parametrize("replies, claimed", [(4, False), (99, False), (100, True)])
def test_a_handful_of_replies_is_no_claim(replies, claimed):
    assert bool(ModelCard(card(report={**REPORT, "replies": replies})).data.eval_results) == claimed


def test_one_of_a_thing_is_one():
    one = {"train_dialogues": 1, "tokens": 1, "steps": 1}
    text = card(one, {**REPORT, "dialogues": 1, "replies": 1})
    assert "1 dialogue, 1 token an epoch, 1 step\n" in text and "1 dialogue, 1 reply" in text
