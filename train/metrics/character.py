"""Whether replies are in character, as plain functions of text; what a model has to say first is in character_eval.py.

Run: `python -m train.evaluate --model M --only contradictions,everyday,greetings` computes all of them.

    contradiction questions  share of questions about the persona (126, in seven kinds) whose answer holds a word of a right
                             answer and none of a wrong one
    everyday messages        share of answers to short messages that hold a content word of the persona, of the persona's own
                             turn before, or of the message's topic
    ends by asking back      share of all those answers whose last sentence is a question
    greeting                 share of answers to "hi" and the like that hold a content word of the persona
    voice                    how often a classifier over letters tells which persona a greeting is from (chance: 1 in 8)
"""

import re
from collections.abc import Sequence

from train.metrics.text import mean, words

# words that say nothing about a persona
COMMON = frozenset(
    """a about after again all also always am an and any are as at be because been before but by can can't cannot come could
    day days did do does doing don't else ever every for from get go going good got great had has have haven't he her here him
    his how i i'd i'll i'm i've if in into is it it's its just know let like little lot love made make many me mine more most
    much my myself never new no nor not nothing now of off often old on once one only or other our out over own people please
    really say see she should so some something still such take talk than that that's the their them then there these they
    thing things think this those time to today tonight too two under until up us very want was we well were what when where
    which while who whom why will with would year years yes you you're your""".split()
)


def stem(word: str) -> str:
    """`bakes`, `baking`, `baked` and `baker` count as one word; so do a few that are not."""
    word = word.removesuffix("'s")
    for ending in ("ing", "ers", "er", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_words(text: str) -> set[str]:
    """The stems of the words that say something."""
    return {stem(w) for w in words(text) if w[0].isalnum() and w not in COMMON}


def tells_of(reply: str, texts: Sequence[str]) -> bool:
    """Whether the reply shares a content word with any of the texts."""
    return bool(content_words(reply) & content_words(" ".join(texts)))


def asks_back(reply: str) -> bool:
    """Whether the last sentence is a question."""
    return bool(re.search(r"\?[\"')\]]*\s*$", reply))


def voice_accuracy(greetings: Sequence[Sequence[str]]) -> float:
    """How often a classifier tells who said a greeting; `greetings`: those of each persona, equally many.

    Naive Bayes over runs of two to four letters within words, each greeting guessed from all the others.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    texts = [text for said in greetings for text in said]
    speakers = [number for number, said in enumerate(greetings) for _ in said]
    letters = CountVectorizer(analyzer="char_wb", ngram_range=(2, 4), binary=True)
    guesses = cross_val_predict(
        make_pipeline(letters, MultinomialNB()), texts, speakers, cv=LeaveOneOut()
    )
    return mean(guess == speaker for guess, speaker in zip(guesses, speakers, strict=True))
