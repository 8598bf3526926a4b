"""What went into a checkpoint, as far as its facts say: base model and data, each with its licence."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


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
SYNTHETIC = Source(
    "synthetic",
    "Synthetic-Persona-Chat (Jandaghi et al. 2023, Google)",
    "CC BY 4.0 (attribution)",
    "google/Synthetic-Persona-Chat",
)
PERSONA_CHAT = Source(
    "personachat",
    "Persona-Chat (with ConvAI2; Zhang et al. 2018, Facebook AI Research, by way of ParlAI)",
    "CC BY 4.0 (attribution; MIT is the licence of the code around it)",
    "bavard/personachat_truecased",
)
DATA = (  # the first that fits is it; all are English
    SYNTHETIC,
    PERSONA_CHAT,
    Source("persona-chat", *PERSONA_CHAT[1:]),
    Source("example_dialogues", "this project's example dialogues", "as this project"),
    Source(
        "questions",
        "questions made from this project's own templates (train/questions.py)",
        "as this project",
    ),
    Source("everyday", "everyday talk made by this project (train/everyday.py)", "as this project"),
    Source(
        "interviews",
        "personas with questions, made by this project (train/data/interviews.py)",
        "as this project",
    ),
    Source(
        "ranked",
        "the same, answered by the model itself and ranked by rules (train/sampled.py)",
        "as this project",
    ),
)


def find_source(sources: Sequence[Source], name: str) -> Source | None:
    return next((source for source in sources if source.part in name.lower()), None)


def all_data(facts: Mapping) -> list[str]:
    """The files of this training and of those it went on from."""
    earlier = facts.get("goes_on_from")
    return [*facts.get("data", []), *(all_data(earlier) if earlier else [])]


def known_data(facts: Mapping) -> list[Source | None]:
    """The source of each file; None for one that is not known here."""
    return [find_source(DATA, name) for name in all_data(facts)]


def hub_base(facts: Mapping) -> str | None:
    """The base model's name on the Hub; of a folder that was trained before, the name below it; None where no fact tells."""
    if facts.get("base_model") and not facts.get("base_is_folder"):
        return facts["base_model"]
    return hub_base(facts["goes_on_from"]) if facts.get("goes_on_from") else None


def base_source(facts: Mapping) -> Source | None:
    name = hub_base(facts)
    return find_source(BASES, name) if name else None


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
