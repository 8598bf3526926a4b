"""The model card: what a checkpoint is, how it was made, what it scores and says, as the README.md that the Hub shows.

Run: `python -m train.model_card FOLDER [--name USER/NAME]` writes FOLDER/README.md anew from its training.json and
scores.json, after `python -m train.evaluate --model FOLDER --data FILE --json FOLDER/scores.json`.

`card_text` is a pure function of facts, scores and two texts; `model_card` lets the checkpoint write those two.
"""

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.errors import UserError
from persona_bot.layouts import system_text
from persona_bot.persona import Persona, load_presets
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from train.data.sources import plural, split_count
from train.hub.sources import (
    DATA,
    PERSONA_CHAT,
    all_data,
    base_source,
    find_source,
    hub_base,
    known_data,
    licence_lines,
)
from train.metrics.table import METRICS, markdown_table
from train.metrics.transcripts import transcripts

SAMPLES = 3  # presets that are asked the six questions
IN_MODEL_INDEX: tuple[str, ...] = ("nats_per_reply", "bits_per_character", "recall_probes")
IN_MODEL_INDEX += ("hits_over_anything", "hits_over_nothing", "hits_per_token", "hits_ranking_head")
ENOUGH = 100  # replies, below which scores are no claim for the Hub's model-index


def model_card(
    checkpoint: Checkpoint, facts: Mapping, report: Mapping, repo_id: str | None = None
) -> str:
    """The card of a loaded checkpoint; `facts` as training.json and `report` as scores.json hold them (or {})."""
    facts = {**facts, "layout": checkpoint.layout.name}
    presets = list(load_presets().values())
    try:
        samples = transcripts(LocalModel.plain(checkpoint), presets[:SAMPLES], Settings(), 0)
    except UserError:  # a context in which no preset and its questions have room
        samples = (
            f"It reads {checkpoint.max_positions} tokens, too few for a preset and six questions."
        )
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
    title = repo_id.split("/")[-1] if repo_id else default_title(facts)
    name = repo_id or "FOLDER"
    sections = [
        f"# {title}",
        f"A small chatbot that speaks as whoever a few sentences describe{made_from(facts)}.",
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
        limits_section(facts),
        "## Licences",
        "\n".join(licence_lines(facts)),
    ]
    return (
        f"---\n{metadata(facts, report, title).to_yaml()}\n---\n\n"
        + "\n\n".join(part.strip("\n") for part in sections)
        + "\n"
    )


def default_title(facts: Mapping) -> str:
    """`SmolLM2-135M-Instruct, fine-tuned on Persona-Chat`, as far as the facts tell."""
    base = (hub_base(facts) or facts.get("base_model") or "A persona chatbot").split("/")[-1]
    known = known_data(facts)
    names = [source.title.split(" (")[0] if source else "own dialogues" for source in known]
    public = [source.title.split(" (")[0] for source in known if source and source.hub]
    if len(public) < len(names) and None not in known and public:
        names = [*public, "made dialogues"]
    return f"{base}, fine-tuned on {', '.join(dict.fromkeys(names))}" if names else base


def made_from(facts: Mapping) -> str:
    """How it came about, in half a sentence."""
    base = (hub_base(facts) or facts.get("base_model") or "").split("/")[-1]
    recipe = f"with the recipe `{facts['recipe']}`" if facts.get("recipe") else ""
    made = f"fine-tuned {recipe}".strip() if recipe or all_data(facts) else ""
    return f": {', '.join(filter(None, [base, made]))}" if base or made else ""


def metadata(facts: Mapping, report: Mapping, title: str) -> ModelCardData:
    """What the Hub reads; nothing that the facts do not say."""
    base, sources = base_source(facts), known_data(facts)
    adapter = bool(facts.get("adapter_only"))
    known = [source for source in sources if source]
    is_persona_chat = any(source.title == PERSONA_CHAT.title for source in known)
    return ModelCardData(
        model_name=title,
        license=base.licence if base else "other",
        license_name=None if base else "that-of-the-base-model",
        language="en" if sources and all(sources) else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=hub_base(facts),
        datasets=sorted({source.hub for source in known if source.hub}) or None,
        tags=[
            *("conversational", "persona"),
            *(["persona-chat"] if is_persona_chat else []),
            f"{facts['layout']}-layout",
            *(["lora"] if adapter else []),
        ],
        eval_results=model_index(report) or None,
    )


def model_index(report: Mapping) -> list[EvalResult]:
    """The main scores, as the Hub's model-index wants them; none from a handful of replies."""
    if report.get("replies", 0) < ENOUGH:
        return []
    data = report.get("data") or "own dialogues"
    source = find_source(DATA, split_count(data)[0])
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Persona-grounded dialogue",
            dataset_type=source.hub if source and source.hub else "own",
            dataset_name=f"{data}, {plural(report['dialogues'], 'dialogue')}",
            metric_type=name,
            metric_name=METRICS[name].title,
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
    if not facts.get("command"):
        return (
            "Not known here: the folder held weights and no record of their training. Whoever trained it may say so "
            "here: base model, data, time, settings."
        )
    earlier = facts.get("goes_on_from")
    data = ", ".join(f"`{name}`" for name in facts["data"])
    units = {"train_dialogues": "dialogue", "tokens": "token", "steps": "step"}
    counts = [plural(facts[key], unit) for key, unit in units.items() if key in facts]
    counts = [count + " an epoch" * ("token" in count) for count in counts]
    settings = ", ".join(f"{name} {value}" for name, value in facts.get("settings", {}).items())
    return "\n".join(
        [
            f"```\n{facts['command']}\n```",
            "",
            f"- data: {data}{'; ' * bool(counts)}{', '.join(counts)}",
            f"- time: {facts['minutes']:g} minutes on {facts['machine']}",
            *([f"- settings: {settings}"] if settings else []),
            *(["", "It goes on from:", "", training_section(earlier)] if earlier else []),
        ]
    )


def score_section(report: Mapping) -> str:
    """The scores beside the reference run's and the human ones."""
    if not report.get("scores"):
        return "Not scored yet; `python -m train.evaluate --model FOLDER --data FILE` does."
    about = "On this project's own questions"  # those that need no file
    if report.get("replies"):
        about = f"On `{report.get('data') or 'held-out dialogues'}`: "
        about += f"{plural(report['dialogues'], 'dialogue')}, {plural(report['replies'], 'reply')}"
    if "generated" in report:
        about += f"; {report['generated']:,} of them answered by sampling with the app's settings"
    return "\n\n".join(
        [
            f"{about}. Made by `python -m train.evaluate`.",
            markdown_table(report["scores"], report.get("baselines", {}).get("human")),
            "The reference run is GPT (117M) trained with simpletransformers for five epochs on the full Persona-Chat, scored on all "
            "7,801 validation replies; perplexities per token are left out because no two tokenizers' can be compared.",
        ]
    )


def rendered_example(checkpoint: Checkpoint, persona: Persona) -> str:
    """One prompt of the checkpoint's layout as text, control tokens shown, up to where the reply begins."""
    turns = ["hello!", "hi, how are you?", "where do you work?"]
    parts = checkpoint.layout.segments(
        persona._replace(sentences=persona.sentences[:3]), turns, add_generation_prompt=True
    )
    text: Any = checkpoint.tokenizer.decode(
        [i for part in parts for i in part.ids], clean_up_tokenization_spaces=False
    )
    return text.strip()


def limits_section(facts: Mapping) -> str:
    learnt = "It has the habits and prejudices of the text that it learnt from"
    if any(source and source.title == PERSONA_CHAT.title for source in known_data(facts)):
        learnt = "It learnt small talk from English that paid strangers typed, with their habits and prejudices"
    return LIMITS.format(learnt=learnt)


LIMITS = """
- It makes things up. What the persona does not say is invented anew each time, and what it says is sometimes contradicted.
- It knows next to nothing, reads a few hundred words at most, and its facts, dates and advice are worthless.
- {learnt}; it can say rude or hurtful things.
- Do not let it pass for a human being, and do not write a persona of a real person who has not agreed.
"""
