"""The groups of scores that `train.evaluate --only` names: what each asks of a model, and the scores it gives.

nats            how likely the gold replies are; the one loss that compares models with different tokenizers
served          the same through the weights that chat (int8 on a CPU)
swap            the same with another dialogue's persona, less the first: what knowing the persona is worth
hits            hits@1 of the file's candidates by likelihood and, where there is one, by the ranking head
replies         what sampled replies are like beside the gold ones
selfchat        how often a speaker repeats itself when two personas of the file talk
probes          questions that the persona answers (recall_probes.json), at once and after it has told everything
contradictions  questions that are easily answered against the persona (contradiction_questions.json)
everyday        what visitors type most (everyday_messages.json), and how often an answer ends by asking back
greetings       whether a greeting tells of the persona, and whether one can tell who said it
convai          simpletransformers' own two numbers, for checkpoints with a ranking head
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from persona_bot.checkpoints.load import Checkpoint
from persona_bot.errors import UserError
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from train.data.dialogues import Dialogue
from train.data.fitting import fits_as
from train.metrics import character_eval, generation_eval, likelihood, ranking_eval, text
from train.metrics.convai import convai_scores
from train.metrics.table import SELF_CHAT_TURNS


@dataclass(frozen=True)
class EvalConfig:
    """What is scored and how much of it. SmolLM2-135M takes about an hour of one CPU core for 500 dialogues, half of it for `hits`."""

    groups: Sequence[str] = (
        *("nats", "served", "swap", "hits", "replies", "selfchat", "probes"),
        *("contradictions", "everyday", "greetings", "convai"),
    )
    limit: int | None = None  # the first so many dialogues
    as_written: bool = False
    baselines: bool = False
    replies: int = 300  # turns of the file that are answered
    self_chats: int = 20  # chats, each of twice SELF_CHAT_TURNS replies
    probe_times: int = 4  # how often each recall probe is asked
    settings: Settings = Settings()
    seed: int = 0


class Work(NamedTuple):
    """What a group scores: the checkpoint for likelihoods, the model that chats, and the scores there are already."""

    checkpoint: Checkpoint
    model: LocalModel
    dialogues: Sequence[Dialogue]
    config: EvalConfig
    known: dict[str, float]


class Scored(NamedTuple):
    """Scores by name, what else the report holds by name, and texts to be read."""

    scores: dict[str, float]
    facts: dict[str, object] = {}  # noqa: RUF012
    readable: str = ""


def nats(work: Work) -> Scored:
    golds = text.gold_replies(work.dialogues)
    personas = text.own_personas(work.dialogues)
    values = likelihood.gold_nats(work.checkpoint, work.dialogues, personas, bar("nats"))
    scores = text.likelihood_scores(values, golds)
    if work.config.as_written:
        raw = likelihood.as_written(work.checkpoint)
        values = likelihood.gold_nats(raw, work.dialogues, personas, bar("nats as written"))
        written = text.likelihood_scores(values, golds)
        scores |= {f"{name}_as_written": value for name, value in written.items()}
    return Scored(scores)


def quantized(work: Work) -> Scored:
    """Nats of the weights as they chat: beside `nats`, what int8 costs."""
    values = likelihood.served_nats(work.model, work.dialogues, bar("nats, as served"))
    return Scored({"nats_per_reply_served": text.mean(values)})


def swap(work: Work) -> Scored:
    known = work.known if "nats_per_reply" in work.known else nats(work).scores
    layout, positions = work.checkpoint.layout, work.checkpoint.max_positions
    # where a longer persona leaves no room, the own one stays
    others = [
        persona if fits_as(persona, dialogue, layout, positions) else dialogue.personality
        for persona, dialogue in zip(
            text.other_personas(work.dialogues), work.dialogues, strict=True
        )
    ]
    values = likelihood.gold_nats(
        work.checkpoint, work.dialogues, others, bar("nats, persona swapped")
    )
    return Scored(known | {"persona_swap_gain": text.mean(values) - known["nats_per_reply"]})


def hits(work: Work) -> Scored:
    if text.max_candidates(work.dialogues) < 2:
        if list(work.config.groups) != ["hits"]:
            tqdm.write("no hits@1: the file has a single candidate for each reply", sys.stderr)
            return Scored({})
        raise UserError(
            "The file has a single candidate for each reply, so nothing can be ranked; leave hits out of --only."
        )
    found = ranking_eval.candidate_hits(
        work.checkpoint, work.model.backend, work.dialogues, bar("hits@1")
    )
    return Scored({f"hits_{name}": value for name, value in found.items()})


def replies(work: Work) -> Scored:
    config = work.config
    said = generation_eval.reply_to_file(
        work.model, work.dialogues, config.replies, config.settings, config.seed, bar("replies")
    )
    scores = text.text_scores(work.dialogues, [(r.dialogue, r.text, r.gold) for r in said])
    human = text.text_scores(work.dialogues, [(r.dialogue, r.gold, r.gold) for r in said])
    lines = "\n".join(readable(r, work.dialogues[r.dialogue]) for r in said)
    return Scored(scores, {"generated": len(said), "human_on_the_same_turns": human}, lines)


def selfchat(work: Work) -> Scored:
    config = work.config
    chats = generation_eval.self_chats(
        work.model,
        work.dialogues,
        config.self_chats,
        SELF_CHAT_TURNS,
        config.settings,
        config.seed,
        bar("self-chats"),
    )
    half = [chat[: SELF_CHAT_TURNS // 2] for chat in chats]
    return Scored(
        {"repetition": text.repetition(chats), "repetition_first_half": text.repetition(half)}
    )


def probes(work: Work) -> Scored:
    config, asked = work.config, generation_eval.read_probes()
    ask = partial(generation_eval.ask_probes, work.model, asked)
    answers = ask(config.probe_times, config.settings, config.seed, bar("recall probes"))
    again = ask(1, config.settings, config.seed, bar("recall probes, told before"), told=True)
    wrong = [
        {"persona": " ".join(a.probe.persona), "question": a.probe.question, "answer": a.text}
        for a in answers
        if not a.right
    ]
    scores = {
        "recall_probes": text.mean(answer.right for answer in answers),
        "recall_probes_told": text.mean(answer.right for answer in again),
    }
    return Scored(scores, {"wrong_answers": wrong})


def contradictions(work: Work) -> Scored:
    said = character_eval.ask_contradictions(
        work.model, work.config.settings, work.config.seed, bar("contradiction questions")
    )
    scores = character_eval.contradiction_scores(said)
    return Scored(scores, {"contradictions": [fault(a) for a in said if not a.right]})


def everyday(work: Work) -> Scored:
    said = character_eval.send_everyday(
        work.model, work.config.settings, work.config.seed, bar("everyday messages")
    )
    scores = character_eval.everyday_scores(said)
    return Scored(scores, {"out_of_character": [fault(a) for a in said if not a.right]})


def greetings(work: Work) -> Scored:
    said = character_eval.greet(
        work.model, work.config.settings, work.config.seed, bar("greetings")
    )
    return Scored(character_eval.greeting_scores(said))


def convai(work: Work) -> Scored:
    if not work.checkpoint.ranking_head and list(work.config.groups) != ["convai"]:
        return Scored({})
    return Scored(convai_scores(work.checkpoint, work.dialogues, bar("as ConvAIModel")))


GROUPS = {
    "nats": nats,
    "served": quantized,
    "swap": swap,
    "hits": hits,
    "replies": replies,
    "selfchat": selfchat,
    "probes": probes,
    "contradictions": contradictions,
    "everyday": everyday,
    "greetings": greetings,
    "convai": convai,
}
NEED_NO_FILE = ("probes", "contradictions", "everyday", "greetings")
AS_SERVED = ("served", "hits", "replies", "selfchat", *NEED_NO_FILE)  # as the app does it


def fault(said: character_eval.Said) -> dict[str, str]:
    return {"persona": " ".join(said.persona), "question": said.heard, "answer": said.text}


def readable(reply: generation_eval.Reply, dialogue: Dialogue) -> str:
    """A generated reply for reading: the persona, what was said (<), the reply (>) and the real one (=)."""
    return f"{' '.join(dialogue.personality)}\n  < {reply.history[-1]}\n  > {reply.text}\n  = {reply.gold}\n"


def bar(name: str) -> generation_eval.Progress:
    """A progress bar with the time left, on stderr."""
    return lambda items: tqdm(items, desc=name, leave=False, dynamic_ncols=True)
