"""The model card: what a checkpoint is, how it was made, what it scores and says, as the README.md that the Hub shows.

Run: `python -m train.model_card FOLDER [--name USER/NAME]` writes FOLDER/README.md anew from its training.json and
scores.json, after `python -m train.evaluate --model FOLDER --data FILE --json FOLDER/scores.json`.

`card_text` is a pure function of facts, scores and two texts; `model_card` lets the checkpoint write those two.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.errors import UserError
from persona_bot.persona import Persona, load_presets
from persona_bot.prompt import system_text
from persona_bot.replies.reply import Settings
from train.metrics.generation_eval import transcripts
from train.metrics.table import MEANINGS, markdown_table

SAMPLES = 3  # presets that are asked the six questions
IN_MODEL_INDEX = ("nats_per_reply", "bits_per_character", "recall_probes")
IN_MODEL_INDEX += ("hits_over_anything", "hits_over_nothing", "hits_per_token", "hits_ranking_head")


class Source(NamedTuple):
    """Something that went into a checkpoint, and on what terms."""

    part: str  # of the name it is recognised by, lower case
    title: str
    licence: str
    hub: str | None = None  # where the Hub has it, or the nearest to it


BASES = (
    Source("smollm2", "SmolLM2", "apache-2.0"),
    Source("openai-gpt", "GPT", "mit"),
    Source("gpt2", "GPT-2", "mit"),
    Source("dialogpt", "DialoGPT", "mit"),
)
DATA = (  # the first that fits is it
    Source(
        "synthetic", "Synthetic-Persona-Chat (Google)", "CC-BY 4.0", "google/Synthetic-Persona-Chat"
    ),
    Source(
        "personachat",
        "Persona-Chat (ParlAI; XPersona's English part)",
        "MIT",
        "bavard/personachat_truecased",
    ),
    Source("example_dialogues", "this project's example dialogues", "as this project"),
    Source(
        "questions",
        "questions made from this project's own templates (train/questions.py)",
        "as this project",
    ),
)


def model_card(
    checkpoint: Checkpoint, facts: Mapping, report: Mapping, repo_id: str | None = None
) -> str:
    """The card of a loaded checkpoint; `facts` as training.json and `report` as scores.json hold them (or {})."""
    presets = list(load_presets().values())
    samples = transcripts(checkpoint, SAMPLES, Settings(), 0)
    return card_text(
        facts, report, rendered_example(checkpoint, presets[0]), samples, repo_id, presets[0]
    )


def card_text(
    facts: Mapping,
    report: Mapping,
    example: str,
    samples: str,
    repo_id: str | None,
    persona: Persona,
) -> str:
    """The whole README.md: metadata between dashes, then the text. `persona` appears in the example of use."""
    base = facts["base_model"].rstrip("/").split("/")[-1]
    title = repo_id.split("/")[-1] if repo_id else f"{base}, fine-tuned on Persona-Chat"
    name = repo_id or "FOLDER"
    sections = [
        f"# {title}",
        f"A small chatbot that speaks as whoever a few sentences describe: {base}, fine-tuned with the recipe `{facts['recipe']}`.",
        "## Chat",
        chat_section(facts, name, persona),
        "## What it reads",
        layout_section(facts["layout"], example),
        "## How it was trained",
        training_section(facts),
        "## Scores",
        score_section(report),
        "## What it says",
        samples,
        "## Limits and risks",
        LIMITS,
        "## Licences",
        licence_section(facts),
    ]
    return (
        f"---\n{metadata(facts, report, title).to_yaml()}\n---\n\n"
        + "\n\n".join(part.strip("\n") for part in sections)
        + "\n"
    )


def metadata(facts: Mapping, report: Mapping, title: str) -> ModelCardData:
    """What the Hub reads."""
    base = find_source(BASES, facts["base_model"])
    sources = [find_source(DATA, name) for name in all_data(facts)]
    adapter = bool(facts.get("adapter_only"))
    return ModelCardData(
        model_name=title,
        license=base.licence if base else "other",
        license_name=None if base else "that-of-the-base-model",
        language="en",
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=facts["base_model"],
        datasets=sorted({source.hub for source in sources if source and source.hub}) or None,
        tags=[
            "conversational",
            "persona",
            "persona-chat",
            f"{facts['layout']}-layout",
            *(["lora"] if adapter else []),
        ],
        eval_results=model_index(report) or None,
    )


def model_index(report: Mapping) -> list[EvalResult]:
    """The main scores, as the Hub's model-index wants them."""
    data = report.get("data") or "own dialogues"
    source = find_source(DATA, data)
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Persona-grounded dialogue",
            dataset_type=source.hub if source and source.hub else "own",
            dataset_name=f"{data}, {report['dialogues']:,} dialogues",
            metric_type=name,
            metric_name=MEANINGS[name].title,
            metric_value=round(report["scores"][name], 4),
        )
        for name in IN_MODEL_INDEX
        if name in report.get("scores", {})
    ]


def chat_section(facts: Mapping, name: str, persona: Persona) -> str:
    """How to talk with it: the page, the terminal, and for the chat layout three lines of transformers."""
    commands = f"```\npython app.py --model {name}\npython -m persona_bot --model {name}\n```"
    ours = f"The page and the terminal of the project that made it:\n\n{commands}"
    if facts["layout"] != "chat":
        return f"{ours}\n\nThe prompt has token types, so plain text generation pipelines do not build it."
    short = persona._replace(sentences=persona.sentences[:3])
    turns = f'[{{"role": "system", "content": {json.dumps(system_text(short))}}}, {{"role": "user", "content": "where do you work?"}}]'
    lines = [
        "from transformers import pipeline",
        f'chat = pipeline("text-generation", "{name}")',
        f'print(chat({turns}, max_new_tokens=60)[0]["generated_text"][-1]["content"])',
    ]
    return "\n".join(["```python", *lines, "```", "", ours])


def layout_section(layout: str, example: str) -> str:
    """Which prompt layout, and one prompt as the model sees it."""
    means = {
        "chat": "The model's own chat template; the persona stands in the system turn, a sentence a line.",
        "convai": "The layout of simpletransformers' ConvAIModel: persona, then turns behind speaker tokens, with token types.",
    }
    return f"{means[layout]} A reply follows:\n\n```\n{example}\n```"


def training_section(facts: Mapping) -> str:
    """Command, time, machine, data and settings; then the same of the training that it goes on from, if any."""
    earlier = facts.get("goes_on_from")
    data = ", ".join(f"`{name}`" for name in facts["data"])
    units = {"train_dialogues": "dialogues", "tokens": "tokens an epoch", "steps": "steps"}
    counts = [f"{facts[key]:,} {unit}" for key, unit in units.items() if key in facts]
    settings = ", ".join(f"{name} {value}" for name, value in facts.get("settings", {}).items())
    return "\n".join(
        [
            f"```\n{facts['command']}\n```",
            "",
            f"- data: {data}; {', '.join(counts)}",
            f"- time: {facts['minutes']:g} minutes on {facts['machine']}",
            *([f"- settings: {settings}"] if settings else []),
            *(["", "It goes on from:", "", training_section(earlier)] if earlier else []),
        ]
    )


def score_section(report: Mapping) -> str:
    """The scores beside the reference run's and the human ones."""
    if not report.get("scores"):
        return "Not scored yet; `python -m train.evaluate --model FOLDER --data FILE` does."
    about = [
        f"On `{report.get('data') or 'held-out dialogues'}`: {report['dialogues']:,} dialogues, {report['replies']:,} replies"
    ]
    about += (
        [f"{report['generated']:,} of them answered by sampling with the app's settings"]
        if "generated" in report
        else []
    )
    return "\n\n".join(
        [
            f"{'; '.join(about)}. Made by `python -m train.evaluate`.",
            markdown_table(report["scores"], report.get("baselines", {}).get("human")),
            "The reference run is GPT (117M) trained with simpletransformers for five epochs on the full Persona-Chat, scored on all "
            "7,801 validation replies; perplexities per token are left out because no two tokenizers' can be compared.",
        ]
    )


def licence_section(facts: Mapping) -> str:
    """One line for the base and for each kind of data."""
    base = find_source(BASES, facts["base_model"])
    lines = [
        f"- {facts['base_model']}: {base.licence if base else 'see its own card; the same terms bind this checkpoint'}"
    ]
    for name in all_data(facts):
        source = find_source(DATA, name)
        line = (
            f"- {source.title}: {source.licence}"
            if source
            else f"- {name}: not known here; ask whoever published this checkpoint"
        )
        lines += [line] if line not in lines else []
    return "\n".join(lines)


def all_data(facts: Mapping) -> list[str]:
    """The files of this training and of those it went on from."""
    earlier = facts.get("goes_on_from")
    return [*facts["data"], *(all_data(earlier) if earlier else [])]


def find_source(sources: Sequence[Source], name: str) -> Source | None:
    return next((source for source in sources if source.part in name.lower()), None)


def rendered_example(checkpoint: Checkpoint, persona: Persona) -> str:
    """One prompt of the checkpoint's layout as text, control tokens shown, up to where the reply begins."""
    turns = ["hello!", "hi, how are you?", "where do you work?"]
    parts = checkpoint.layout.segments(
        persona._replace(sentences=persona.sentences[:3]), turns, open_reply=True
    )
    return checkpoint.tokenizer.decode(
        [i for part in parts for i in part.ids], clean_up_tokenization_spaces=False
    ).strip()


LIMITS = """
- It makes things up. What the persona does not say is invented anew each time, and what it says is sometimes contradicted.
- It knows next to nothing, reads a few hundred words at most, and its facts, dates and advice are worthless.
- It learnt small talk from English that paid strangers typed, with their habits and prejudices; it can say rude or hurtful things.
- Do not let it pass for a human being, and do not write a persona of a real person who has not agreed.
"""


def read_json(path: Path) -> dict:
    """The file's object, {} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON; make it again with train.finetune or train.evaluate."
        ) from error
