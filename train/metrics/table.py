"""What each score is called, means, and was for the reference run and for human replies; scores as a table."""

from typing import NamedTuple

SELF_CHAT_TURNS = 8


class Meaning(NamedTuple):
    """One score. `reference`: the reference run, GPT with ConvAIModel, 5 epochs of the full Persona-Chat; `human`: the real replies."""

    title: str
    reference: float | None = None  # on all 7,801 validation replies
    human: float | None = None  # on 3,900 of them
    places: int = 3  # decimals shown
    note: str = ""


MEANINGS = {
    "nats_per_reply": Meaning(
        "nats per reply",
        42.0,
        None,
        2,
        "-log likelihood of the gold reply and its end, whatever the tokenizer",
    ),
    "nats_per_word": Meaning(
        "nats per word", 3.26, None, 2, "punctuation marks and the end are words"
    ),
    "bits_per_character": Meaning("bits per character", 1.16, None, 2),
    "nats_per_reply_served": Meaning(
        "nats per reply, as served", None, None, 2, "through the weights that chat: int8 on a CPU"
    ),
    "nats_per_reply_as_written": Meaning(
        "nats per reply, as written",
        42.0,
        None,
        2,
        "text with the file's blanks before punctuation",
    ),
    "nats_per_word_as_written": Meaning("nats per word, as written", 3.26, None, 2),
    "bits_per_character_as_written": Meaning("bits per character, as written", 1.16, None, 2),
    "persona_swap_gain": Meaning(
        "persona-swap gain", None, None, 2, "nats per reply; above 0: the persona is used"
    ),
    "hits_over_anything": Meaning(
        "hits@1, likelihood over anything",
        note="as the next line, half of what is taken off measured behind other chats",
    ),
    "hits_over_nothing": Meaning(
        "hits@1, likelihood over nothing",
        note="log p(reply given context) - log p(reply given nothing)",
    ),
    "hits_per_token": Meaning(
        "hits@1, likelihood per token", note="log p(reply given context) / tokens"
    ),
    "hits_ranking_head": Meaning("hits@1, ranking head", 0.787),
    "word_f1": Meaning("word F1", None, None, 1, "percent; one constant reply scores 17.7"),
    "distinct_2": Meaning("distinct-2", note="falls as replies are added: compare equal numbers"),
    "unique_replies": Meaning("unique replies", None, 0.996),
    "question_share": Meaning("replies with a question", None, 0.297),
    "words_per_reply": Meaning("words per reply", None, 11.9, 1, "punctuation marks are words"),
    "persona_f1": Meaning("persona F1", None, 25.6, 1, "percent; more is parroting"),
    "wrong_persona_f1": Meaning("persona F1, another's persona", None, 16.1, 1),
    "persona_cover": Meaning("persona cover", None, 2.38, 2),
    "wrong_persona_cover": Meaning("persona cover, another's persona", None, 1.23, 2),
    "repetition": Meaning(
        "repeats itself",
        None,
        0.042,
        3,
        f"share of replies; self-chats, {SELF_CHAT_TURNS} replies of each speaker",
    ),
    "repetition_first_half": Meaning(
        "repeats itself, first half",
        None,
        0.019,
        3,
        f"the first {SELF_CHAT_TURNS // 2} of each speaker",
    ),
    "recall_probes": Meaning(
        "recall probes", note="share of questions about the persona answered right"
    ),
    "language_model_loss": Meaning(
        "language_model_loss",
        3.1088,
        None,
        4,
        "as simpletransformers computes it: nats per its own token",
    ),
    "f1_score": Meaning(
        "f1_score",
        0.7871,
        None,
        4,
        "as simpletransformers computes it: the candidate chosen, no text F1",
    ),
}


def rows(
    scores: dict[str, float], human: dict[str, float] | None = None
) -> list[tuple[str, str, str, str, str]]:
    """(title, score, reference, human, note) as text, for every score that has a meaning; `human` overrides the known ones."""
    cells = []
    for name, meaning in MEANINGS.items():
        if name in scores:
            numbers = scores[name], meaning.reference, (human or {}).get(name, meaning.human)
            shown = ["" if number is None else f"{number:.{meaning.places}f}" for number in numbers]
            cells.append((meaning.title, *shown, meaning.note))
    return cells


def plain_table(scores: dict[str, float], human: dict[str, float] | None = None) -> str:
    """The scores in columns, for a terminal."""
    lines = [("", "score", "reference", "human", ""), *rows(scores, human)]
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    cells = [
        [line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in (1, 2, 3)), line[4]]
        for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in cells)


def markdown_table(scores: dict[str, float], human: dict[str, float] | None = None) -> str:
    """The scores as a markdown table."""
    lines = ["| score | this model | reference run | human replies | |", "|---|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows(scores, human)])
