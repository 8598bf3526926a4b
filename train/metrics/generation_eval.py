"""Lets a model talk, exactly as the app does: replies to the turns of a file, self-chats, recall probes.

Run: `python -m train.evaluate --model M --data FILE --only replies,selfchat,probes`.

Every reply comes from `Model.reply` and has a seed of its own, so a run can be repeated reply by reply.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from persona_bot.persona import Persona
from persona_bot.replies.reply import Model
from persona_bot.settings import Settings
from train.data.dialogues import Dialogue
from train.metrics.text import probe_passes

PROBES = Path(__file__).parent / "recall_probes.json"
# seconds a reply may take; the app's own deadline would make scores depend on the machine
NO_HURRY = 600.0
# what a persona answers with its sentences, one after the other
TELL = ("hi", "tell me about you", "tell me more", "what else?", "go on")
Progress = Callable[[Iterable], Iterable]


class Reply(NamedTuple):
    """A generated reply beside the one that was really given."""

    dialogue: int  # its number in the list
    history: tuple[str, ...]
    gold: str
    text: str


class Probe(NamedTuple):
    """A question that one sentence of the persona answers. See recall_probes.json."""

    persona: tuple[str, ...]
    question: str
    accept: tuple[str, ...]  # a right answer holds one of these words or phrases
    refuse: tuple[str, ...]  # and none of these


class Answer(NamedTuple):
    probe: Probe
    text: str
    right: bool


def say(model: Model, persona: Persona, turns: Sequence[str], settings: Settings, seed: int) -> str:
    """One reply, whole. Any whole number is a seed: what is counted on from one may leave the settings' range."""
    settings = replace(settings, seed=seed % 2**32, deadline=NO_HURRY)
    return "".join(model.reply(persona, turns, settings))


def together(model: Model, function: Callable, items: Iterable, progress: Progress) -> list:
    """The function's results in the order of the items; several at once where that is worth it."""
    with ThreadPoolExecutor(model.at_once) as pool:
        try:
            futures = [pool.submit(function, item) for item in items]
            return [future.result() for future in progress(futures)]
        finally:  # who is interrupted does not wait for hundreds of replies more
            pool.shutdown(wait=False, cancel_futures=True)


def reply_to_file(
    model: Model,
    dialogues: Sequence[Dialogue],
    count: int,
    settings: Settings,
    seed: int,
    progress: Progress = iter,
) -> list[Reply]:
    """Replies to `count` histories drawn evenly from all (to every one, if there are no more)."""
    places = [
        (number, utterance)
        for number, dialogue in enumerate(dialogues)
        for utterance in dialogue.utterances
    ]
    chosen = sorted(random.Random(seed).sample(range(len(places)), min(count, len(places))))

    def reply(k: int) -> Reply:
        number, (history, candidates) = places[k]
        persona = Persona("", dialogues[number].personality)
        return Reply(
            number, history, candidates[-1], say(model, persona, history, settings, seed + k)
        )

    return together(model, reply, chosen, progress)


def self_chats(
    model: Model,
    dialogues: Sequence[Dialogue],
    count: int,
    turns: int,
    settings: Settings,
    seed: int,
    progress: Progress = iter,
) -> list[list[str]]:
    """The replies of each speaker, in order, in `count` chats of two personas; each speaker replies `turns` times.

    A chat begins with the first turn of a dialogue; its persona answers, and the next dialogue's persona is the partner.
    """

    def chat(number: int) -> list[str]:
        first, second = dialogues[number], dialogues[(number + 1) % len(dialogues)]
        return self_chat(model, first, second, turns, settings, seed + 1000 * number)

    chats = together(model, chat, range(min(count, len(dialogues))), progress)
    return [speaker for chat in chats for speaker in (chat[1::2], chat[2::2])]


def self_chat(
    model: Model, first: Dialogue, second: Dialogue, turns: int, settings: Settings, seed: int
) -> list[str]:
    """The opening turn and 2 * `turns` replies, alternately by the two dialogues' personas."""
    personas = Persona("", first.personality), Persona("", second.personality)
    chat = [first.utterances[0].history[0]]
    for k in range(2 * turns):
        # the second persona spoke first: to its ears, after a silent partner
        heard = chat if k % 2 == 0 else ["", *chat]
        chat.append(say(model, personas[k % 2], heard, settings, seed + k))
    return chat


def read_probes(path: Path = PROBES) -> list[Probe]:
    """The recall probes of a file like recall_probes.json."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [
        Probe(tuple(e["persona"]), e["question"], tuple(e["accept"]), tuple(e.get("refuse", ())))
        for e in entries
    ]


def ask_probes(
    model: Model,
    probes: Sequence[Probe],
    times: int,
    settings: Settings,
    seed: int,
    progress: Progress = iter,
    told: bool = False,
) -> list[Answer]:
    """The answers to every probe, each asked `times` times with another seed; `told`: behind a chat in which the
    persona has said each of its sentences."""

    def answer(k: int) -> Answer:
        probe = probes[k % len(probes)]
        before = [turn for pair in zip(TELL, probe.persona, strict=False) for turn in pair]
        turns = [*(before if told else ()), probe.question]
        text = say(model, Persona("", probe.persona), turns, settings, seed + k)
        return Answer(probe, text, probe_passes(text, probe.accept, probe.refuse))

    return together(model, answer, range(times * len(probes)), progress)
