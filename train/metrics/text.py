"""Scores of replies as plain functions of text; what a model has to compute first is in likelihood.py and generation_eval.py.

Run: `python -m train.evaluate --model M --data FILE` computes all of them.

Two ways to cut a text into words, so that `hi , i'm ok !` and `Hi, I'm ok!` count alike whatever tokenizer a model has:

    words(text)       lower case, every punctuation mark a word of its own: hi , i'm ok !     (counts, distinct-2)
    content(text)     ParlAI's: lower case, punctuation and a/an/the dropped: hi i m ok       (word F1, persona F1 and cover)
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from train.data.dialogues import Dialogue
from train.metrics.table import SELF_CHAT_TURNS

# says nothing, and shares a word with almost every reply
CONSTANT_REPLY = "i like it. what do you do?"
_PUNCTUATION = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\]\\^`{|}~_']""")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def words(text: str) -> list[str]:
    """`Hi, I'm ok!` -> hi , i'm ok !"""
    return re.findall(r"[\w']+|[^\w\s]", text.lower())


def content(text: str) -> list[str]:
    """`Hi, I'm a cook!` -> hi i m cook"""
    return _ARTICLES.sub(" ", _PUNCTUATION.sub(" ", text.lower())).split()


def mean(numbers: Iterable[float]) -> float:
    """0.0 for nothing."""
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else 0.0


def likelihood_scores(nats: Sequence[float], golds: Sequence[str]) -> dict[str, float]:
    """Mean negative log likelihood of the gold replies with their end tokens, in units that no tokenizer changes.

    `nats`: one sum per reply. Words and characters are those of the file's own text, and the end counts as one of each
    (as Persona-Chat writes it, with blanks before punctuation: 12.9 words and 52.5 characters a reply).
    """
    total = sum(nats)
    return {
        "nats_per_reply": total / len(golds),
        "nats_per_word": total / sum(len(words(gold)) + 1 for gold in golds),
        "bits_per_character": total / math.log(2) / sum(len(gold) + 1 for gold in golds),
    }


def is_hit(scores: Sequence[float], candidates: Sequence[str]) -> bool:
    """Whether the last candidate, the gold one, beats all others. A tie is lost, but a copy of the gold is no negative."""
    return all(
        scores[-1] > score
        for score, text in zip(scores[:-1], candidates[:-1], strict=True)
        if text != candidates[-1]
    )


def word_f1(reply: str, gold: str) -> float:
    """ParlAI's unigram F1 of two texts, 0 to 1; a word counts as often as both have it."""
    return _f1(content(reply), content(gold))


def _f1(a: Sequence[str], b: Sequence[str]) -> float:
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def persona_f1(reply: str, sentences: Sequence[str]) -> float:
    """Word F1 with the persona's sentence that the reply resembles most, 0 to 1.

    Human replies on Persona-Chat's validation dialogues: 0.256 with their own persona, 0.164 with another's.
    """
    said = content(reply)
    return max((_f1(said, content(sentence)) for sentence in sentences), default=0.0)


def word_weights(personas: Iterable[Sequence[str]]) -> dict[str, float]:
    """ln(sentences / sentences with the word) for every word of the personas of a file: `i` little, `greenpeace` much."""
    sentences = [set(content(sentence)) for persona in personas for sentence in persona]
    counts = Counter(word for sentence in sentences for word in sentence)
    return {word: math.log(len(sentences) / count) for word, count in counts.items()}


def persona_cover(reply: str, sentences: Sequence[str], weights: dict[str, float]) -> float:
    """Mean weight of the words shared with a sentence, for the sentence where that is highest; 0 where none is shared.

    Human replies on Persona-Chat's validation dialogues: 2.38 with their own persona, 1.24 with another's.
    """
    said = set(content(reply))
    shared = (said & set(content(sentence)) for sentence in sentences)
    return max(
        (mean(weights.get(word, 0.0) for word in both) for both in shared if both), default=0.0
    )


def distinct_2(replies: Sequence[str]) -> float:
    """Different word pairs over all word pairs of all replies. It falls as replies are added: compare equal numbers."""
    pairs = [
        pair for reply in replies for w in [words(reply)] for pair in zip(w, w[1:], strict=False)
    ]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def reply_scores(
    replies: Sequence[str],
    golds: Sequence[str],
    personas: Sequence[Sequence[str]],
    wrong_personas: Sequence[Sequence[str]],
    weights: dict[str, float],
) -> dict[str, float]:
    """What generated (or human) replies are like; all lists have one entry per reply. F1 in percent."""
    own, other = (
        list(zip(replies, personas, strict=True)),
        list(zip(replies, wrong_personas, strict=True)),
    )
    return {
        "word_f1": 100
        * mean(word_f1(reply, gold) for reply, gold in zip(replies, golds, strict=True)),
        "distinct_2": distinct_2(replies),
        "unique_replies": len({" ".join(words(reply)) for reply in replies}) / len(replies),
        "question_share": mean("?" in reply for reply in replies),
        "words_per_reply": mean(len(words(reply)) for reply in replies),
        "persona_f1": 100 * mean(persona_f1(reply, persona) for reply, persona in own),
        "persona_cover": mean(persona_cover(reply, persona, weights) for reply, persona in own),
        "wrong_persona_f1": 100 * mean(persona_f1(reply, persona) for reply, persona in other),
        "wrong_persona_cover": mean(
            persona_cover(reply, persona, weights) for reply, persona in other
        ),
    }


def repeats(reply: str, earlier: Sequence[str]) -> bool:
    """Whether a reply is an earlier one, or has three words in a row from one (punctuation and case aside)."""
    said = _plain(reply)
    trigrams = set(zip(said, said[1:], said[2:], strict=False))
    before = [_plain(text) for text in earlier]
    return any(
        said == old or trigrams & set(zip(old, old[1:], old[2:], strict=False)) for old in before
    )


def repetition(chats: Sequence[Sequence[str]]) -> float:
    """Share of replies that repeat an earlier one of the same speaker; `chats`: one speaker's replies in order, each."""
    return mean(repeats(reply, chat[:k]) for chat in chats for k, reply in enumerate(chat))


def _plain(text: str) -> list[str]:
    return [word for word in words(text) if word[0].isalnum()]


def probe_passes(reply: str, accept: Sequence[str], refuse: Sequence[str] = ()) -> bool:
    """Whether a reply holds one of the words (or phrases) of a right answer and none of a wrong one."""
    said = f" {' '.join(_plain(reply))} "
    has = [
        any(f" {' '.join(_plain(phrase))} " in said for phrase in phrases)
        for phrases in (accept, refuse)
    ]
    return has[0] and not has[1]


def constant_f1(golds: Sequence[str]) -> float:
    """Word F1, in percent, of saying CONSTANT_REPLY to everything: why F1 alone proves nothing."""
    return 100 * mean(word_f1(CONSTANT_REPLY, gold) for gold in golds)


def text_scores(
    dialogues: Sequence[Dialogue], replies: Sequence[tuple[int, str, str]]
) -> dict[str, float]:
    """reply_scores of (number of the dialogue, reply, gold) triples."""
    numbers, texts, golds = zip(*replies, strict=True)
    own, other = own_personas(dialogues), other_personas(dialogues)
    return reply_scores(
        texts, golds, [own[k] for k in numbers], [other[k] for k in numbers], word_weights(own)
    )


def baselines(dialogues: Sequence[Dialogue]) -> dict:
    """The file's own replies scored as if a model had said them, and one reply said to everything."""
    human = text_scores(
        dialogues,
        [
            (k, gold, gold)
            for k, dialogue in enumerate(dialogues)
            for gold in gold_replies([dialogue])
        ],
    )
    del human["word_f1"]  # of a text with itself
    chats = [gold_replies([dialogue])[:SELF_CHAT_TURNS] for dialogue in dialogues]
    human["repetition"] = repetition(chats)
    human["repetition_first_half"] = repetition([chat[: SELF_CHAT_TURNS // 2] for chat in chats])
    return {
        "human": human,
        "constant": {"reply": CONSTANT_REPLY, "word_f1": constant_f1(gold_replies(dialogues))},
    }


def gold_replies(dialogues: Sequence[Dialogue]) -> list[str]:
    return [utterance.candidates[-1] for dialogue in dialogues for utterance in dialogue.utterances]


def own_personas(dialogues: Sequence[Dialogue]) -> list[tuple[str, ...]]:
    return [dialogue.personality for dialogue in dialogues]


def other_personas(dialogues: Sequence[Dialogue]) -> list[tuple[str, ...]]:
    """For each dialogue the persona of the next one that has another; its own where all are the same."""
    own = own_personas(dialogues)
    return [
        next((p for p in own[k + 1 :] + own[:k] if p != mine), mine) for k, mine in enumerate(own)
    ]


def max_candidates(dialogues: Sequence[Dialogue]) -> int:
    return max(
        len(utterance.candidates) for dialogue in dialogues for utterance in dialogue.utterances
    )
