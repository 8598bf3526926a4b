"""What went into a checkpoint, as far as its facts say: base model and data, each with its licence."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from train.data.sources import split_count


class Source(NamedTuple):
    """Something that went into a checkpoint, and on what terms."""

    title: str
    licence: str
    names: tuple[
        str, ...
    ]  # whole, and in lower case: somebody's own file may hold any part of them
    hub: str | None = None  # where the Hub has it, or the nearest to it


BASES = (
    Source(
        "SmolLM2",
        "apache-2.0",
        tuple(
            f"huggingfacetb/smollm2-{size}{kind}"
            for size in ("135m", "360m", "1.7b")
            for kind in ("", "-instruct")
        ),
    ),
    Source("GPT", "mit", ("openai-gpt", "openai-community/openai-gpt")),
    Source(
        "GPT-2",
        "mit",
        tuple(
            f"{user}gpt2{size}"
            for user in ("", "openai-community/")
            for size in ("", "-medium", "-large", "-xl")
        ),
    ),
    Source("DistilGPT2", "apache-2.0", ("distilgpt2", "distilbert/distilgpt2")),
    Source(
        "DialoGPT",
        "mit",
        tuple(f"microsoft/dialogpt-{size}" for size in ("small", "medium", "large")),
    ),
)
SYNTHETIC = Source(
    "Synthetic-Persona-Chat (Jandaghi et al. 2023, Google)",
    "CC BY 4.0 (attribution)",
    ("google/synthetic-persona-chat", "synthetic_personachat_train.json"),
    "google/Synthetic-Persona-Chat",
)
PERSONA_CHAT = Source(
    "Persona-Chat (with ConvAI2; Zhang et al. 2018, Facebook AI Research, by way of ParlAI)",
    "CC BY 4.0 (attribution; MIT is the licence of the code around it)",
    (
        "personachat",
        "personachat_self_original.json",
        "bavard/personachat_truecased",
        # what the default model has read and is scored on
        "personachat_train_1000.json",
        "personachat_train_rcdg.json",
        "personachat_train_sapt.json",
        "personachat_valid_500.json",
    ),
    "bavard/personachat_truecased",
)
DATA = (  # all are English
    SYNTHETIC,
    PERSONA_CHAT,
    Source("this project's example dialogues", "as this project", ("example_dialogues.json",)),
    Source(
        "questions made from this project's own templates (train/questions.py)",
        "as this project",
        ("train.questions",),
    ),
    Source(
        "everyday talk made by this project (train/everyday.py)",
        "as this project",
        ("train.everyday",),
    ),
)


def find_source(sources: Sequence[Source], name: str) -> Source | None:
    return next((source for source in sources if name.lower() in source.names), None)


def all_data(facts: Mapping) -> list[str]:
    """The files of this training and of those it went on from."""
    earlier = facts.get("goes_on_from")
    return [*facts.get("data", []), *(all_data(earlier) if earlier else [])]


def known_data(facts: Mapping, made_by: Mapping | None = None) -> list[Source | None]:
    """The source of each file; None for one that is not known here.

    The fact `made_by`, {file: command}, holds for its own training and those below; nothing but that says of a file that
    a command of this project made it, since its name is anybody's choice.
    """
    made_by = {**(made_by or {}), **facts.get("made_by", {})}
    names = [split_count(name)[0] for name in facts.get("data", [])]
    earlier = facts.get("goes_on_from")
    found = [find_source(DATA, made_by.get(name, name)) for name in names]
    return [*found, *(known_data(earlier, made_by) if earlier else [])]


def hub_base(facts: Mapping) -> str | None:
    """The base model's name on the Hub; of a folder that was trained before, the name below it; None where no fact tells."""
    if facts.get("base_model") and not facts.get("base_is_folder"):
        return facts["base_model"]
    return hub_base(facts["goes_on_from"]) if facts.get("goes_on_from") else None


def base_source(facts: Mapping) -> Source | None:
    name = hub_base(facts)
    return find_source(BASES, name.partition("@")[0]) if name else None


def licence_lines(facts: Mapping) -> list[str]:
    """A line for the base and for each kind of data."""
    name, base = hub_base(facts) or facts.get("base_model"), base_source(facts)
    terms = base.licence if base else "see its own card; the same terms bind this checkpoint"
    lines = [f"- {name}: {terms}"] if name else ["- the base model: not known here"]
    for name, source in zip(all_data(facts), known_data(facts), strict=True):
        line = (
            f"- {source.title}: {source.licence}"
            if source
            else f"- {name}: not known here; ask whoever published this checkpoint"
        )
        lines += [line] if line not in lines else []
    return lines if all_data(facts) else [*lines, "- the dialogues it learnt from: not known here"]
