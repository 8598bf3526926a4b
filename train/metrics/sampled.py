"""Lets a model answer made dialogues itself and ranks what it says: right replies are learnt, wrong ones kept as candidates.

Run: `python -m train.sampled --model M --data everyday.json --limit 250 --out ranked.json`, then
`python -m train.finetune --model M --data ranked.json --negatives 3 ..`

A reply is ranked by rules against the made answer and the made contradictions of the same turn:

    opposite    it says yes where the answer is no, or no where it is yes
    mixed up    it holds a word by which a contradicting answer differs from the right one (another name, age, trade)
    right       it holds a word by which the right answer differs, or agrees, or tells of the persona where nothing was asked
"""

import random
from collections.abc import Callable, Sequence

from train.data.dialogues import Dialogue, Utterance
from train.data.everyday_contradictions import agrees
from train.metrics.character import asks_back, content_words, tells_of
from train.metrics.text import words

KEPT_WRONG = 2  # sampled replies that stay as candidates of a turn
LEARNT = 0.4  # how often a right sampled reply takes the made one's place
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


def telling(text: str) -> set[str]:
    """What a reply tells: its content words, ages and numbers."""
    return content_words(text) | {w for w in words(text) if w.isdigit() or w in NUMBERS}


def rank(reply: str, persona: Sequence[str], turn: Utterance) -> int:
    """1 for a right reply, -1 for one that contradicts, 0 where the rules cannot tell."""
    *wrong, gold = turn.candidates
    heard = telling(turn.history[-1])
    said, right = telling(reply) - heard, telling(gold) - heard
    false = {word for text in wrong[:2] for word in telling(text)} - right - heard
    false -= telling(" ".join(persona))
    if agrees(gold) is not None and agrees(reply) == (not agrees(gold)):
        return -1
    if said & false:
        return -1
    if agrees(gold) is not None and agrees(reply) == agrees(gold):
        return 1
    keys = right - {word for text in wrong for word in telling(text)}
    return 1 if said & keys or tells_of(reply, persona) else 0


def rank_dialogue(
    dialogue: Dialogue, sample: Callable[[Sequence[str]], Sequence[str]], draw: random.Random
) -> dict:
    """The dialogue in the layout of Persona-Chat, its candidates ranked; `sample` answers a history a few times."""
    turns: list[str] = []
    utterances = []
    for turn in dialogue.utterances:
        turns.append(turn.history[-1])
        *wrong, gold = turn.candidates
        ranked = {reply: rank(reply, dialogue.personality, turn) for reply in sample(turns)}
        bad = [reply for reply, value in ranked.items() if value < 0]
        dull = [reply for reply, value in ranked.items() if value == 0]
        good = [reply for reply, value in ranked.items() if value > 0 and usable(reply)]
        if good and draw.random() < LEARNT:
            gold = draw.choice(good)
        candidates = [*(bad + dull)[:KEPT_WRONG], *wrong]
        utterances.append(
            {
                "candidates": [*(text for text in candidates if text != gold), gold],
                "history": list(turns),
            }
        )
        turns.append(gold)
    return {"personality": list(dialogue.personality), "utterances": utterances}


def usable(reply: str) -> bool:
    """Whether a sampled reply is well formed enough to be learnt."""
    ends = reply[-1:] in (".", "!", "?")
    return ends and 3 <= len(words(reply)) <= 20 and not asks_back(reply) and "??" not in reply
