"""What each score is called, means, and was for the reference run and for human replies; scores as a table."""

from typing import NamedTuple

SELF_CHAT_TURNS = 8


class MetricInfo(NamedTuple):
    """One score. `reference`: the reference run, GPT with ConvAIModel, 5 epochs of the full Persona-Chat; `human`: the real replies."""

    title: str
    reference: float | None = None  # on all 7,801 validation replies
    human: float | None = None  # on 3,900 of them
    places: int = 3  # decimals shown
    note: str = ""


METRICS = {
    "nats_per_reply": MetricInfo(
        "nats per reply",
        42.0,
        None,
        2,
        "-log likelihood of the gold reply and its end, whatever the tokenizer",
    ),
    "nats_per_word": MetricInfo(
        "nats per word", 3.26, None, 2, "punctuation marks and the end are words"
    ),
    "bits_per_character": MetricInfo("bits per character", 1.16, None, 2),
    "nats_per_reply_served": MetricInfo(
        "nats per reply, as served", None, None, 2, "through the weights that chat: int8 on a CPU"
    ),
    "nats_per_reply_as_written": MetricInfo(
        "nats per reply, as written",
        42.0,
        None,
        2,
        "text with the file's blanks before punctuation",
    ),
    "nats_per_word_as_written": MetricInfo("nats per word, as written", 3.26, None, 2),
    "bits_per_character_as_written": MetricInfo("bits per character, as written", 1.16, None, 2),
    "persona_swap_gain": MetricInfo(
        "persona-swap gain", None, None, 2, "nats per reply; above 0: the persona is used"
    ),
    "hits_over_anything": MetricInfo(
        "hits@1, likelihood over anything",
        note="as the next line, half of what is taken off measured behind other chats",
    ),
    "hits_over_nothing": MetricInfo(
        "hits@1, likelihood over nothing",
        note="log p(reply given context) - log p(reply given nothing)",
    ),
    "hits_per_token": MetricInfo(
        "hits@1, likelihood per token", note="log p(reply given context) / tokens"
    ),
    "hits_ranking_head": MetricInfo("hits@1, ranking head", 0.787),
    "word_f1": MetricInfo("word F1", None, None, 1, "percent; one constant reply scores 17.7"),
    "distinct_2": MetricInfo(
        "distinct-2", note="falls as replies are added: compare equal numbers"
    ),
    "unique_replies": MetricInfo("unique replies", None, 0.996),
    "question_share": MetricInfo("replies with a question", None, 0.297),
    "words_per_reply": MetricInfo("words per reply", None, 11.9, 1, "punctuation marks are words"),
    "persona_f1": MetricInfo("persona F1", None, 25.6, 1, "percent; more is parroting"),
    "wrong_persona_f1": MetricInfo("persona F1, another's persona", None, 16.1, 1),
    "persona_cover": MetricInfo("persona cover", None, 2.38, 2),
    "wrong_persona_cover": MetricInfo("persona cover, another's persona", None, 1.23, 2),
    "repetition": MetricInfo(
        "repeats itself",
        None,
        0.042,
        3,
        f"share of replies; self-chats, {SELF_CHAT_TURNS} replies of each speaker",
    ),
    "repetition_first_half": MetricInfo(
        "repeats itself, first half",
        None,
        0.019,
        3,
        f"the first {SELF_CHAT_TURNS // 2} of each speaker",
    ),
    "recall_probes": MetricInfo(
        "recall probes", note="share of questions about the persona answered right"
    ),
    "recall_probes_told": MetricInfo(
        "recall probes, told before",
        note="the same, once each, after the persona has said all its sentences in the chat",
    ),
    "contradiction_questions": MetricInfo(
        "contradiction questions",
        note="share of 126 questions about the persona answered without contradicting it",
    ),
    **{
        f"contradiction_{kind}": MetricInfo(f"- {kind.replace('_', ' ')}", note="18 of them")
        for kind in ("yes_or_no", "number", "age", "name", "family", "job", "place")
    },
    "everyday_messages": MetricInfo(
        "everyday messages", note="share of 240 short messages answered in character or on topic"
    ),
    "asks_back": MetricInfo("ends by asking back", note="share of those answers"),
    "greeting_with_persona": MetricInfo(
        "greeting with something of the persona", note="share of 108 answers to hi and the like"
    ),
    "voice": MetricInfo(
        "voice",
        note="share of 96 greetings whose speaker, one of 8, a classifier over letters names",
    ),
    "language_model_loss": MetricInfo(
        "language_model_loss",
        3.1088,
        None,
        4,
        "as simpletransformers computes it: nats per its own token",
    ),
    "f1_score": MetricInfo(
        "f1_score",
        0.7871,
        None,
        4,
        "as simpletransformers computes it: the candidate chosen, no text F1",
    ),
}


def rows(scores: dict[str, float], human: dict[str, float] | None = None) -> list[tuple[str, ...]]:
    """(title, score, reference, human, note) as text, for every score that is known here; `human` overrides the known ones."""
    cells: list[tuple[str, ...]] = []
    for name, info in METRICS.items():
        if name in scores:
            numbers = scores[name], info.reference, (human or {}).get(name, info.human)
            shown = ["" if number is None else f"{number:.{info.places}f}" for number in numbers]
            cells.append((info.title, *shown, info.note))
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


def compared_table(scores: dict[str, float], other: dict[str, float]) -> str:
    """The scores of two models in columns, for a terminal; the difference is the first's less the other's."""
    lines: list[tuple[str, ...]] = [("", "score", "against", "difference")]
    for name, info in METRICS.items():
        if name in scores and name in other:
            numbers = scores[name], other[name], scores[name] - other[name]
            shown = [f"{number:.{info.places}f}" for number in numbers[:2]]
            lines.append((info.title, *shown, f"{numbers[2]:+.{info.places}f}"))
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    cells = [
        [line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in (1, 2, 3))] for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in cells)
