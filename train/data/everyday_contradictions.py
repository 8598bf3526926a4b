"""Wrong answers to a question about a persona, which contradict it: what training learns to refuse beside the right one."""

import random
import re
from collections.abc import Sequence

from train.data.everyday_speaker import Known

AGREES = [
    "yes, i do.",
    "yes, a lot.",
    "yes, i am.",
    "sure, i love it.",
    "yes, all the time.",
    "yes!",
]
AGREES += ["of course i do.", "yes, i have one.", "yes, and you?", "yes, very much."]
DENIES = [
    "no, i don't.",
    "no, never.",
    "not at all.",
    "no, i am not.",
    "no, not me.",
    "no, i hate it.",
]
DENIES += ["no, i don't have one.", "not really.", "no, and you?", "no, i can't."]


# asked of everybody, so that any sentence of the persona may answer
ANY_SENTENCE = re.compile(
    r"(tell me|who are you|what about you|what (do you|don't you) (like|enjoy|love|hate|do for fun)|"
    r"what makes you happy|what annoys you|any |what are your)"
)


def agrees(text: str) -> bool | None:
    """Whether a reply says yes or no; None where it says neither."""
    if re.match(
        r"(oh |well |um )?(yes|yeah|yep|yup|sure|of course|i do\b(?! not)|indeed|aye)\b", text
    ):
        return True
    if re.match(r"(oh |well |um )?(no|nope|nah|nay|not|never|none|i don't|i do not)\b", text):
        return False
    return None


def contradictions(
    draw: random.Random,
    known: Known,
    asked: str,
    answer: str,
    other_answers: Sequence[str],
    others: Sequence[str] = (),
) -> list[str]:
    """Up to four: "yes" to a value that is not the persona's or the opposite, the same words with another value,
    another fact's answer, and one of the persona's `others`, its sentences that speak of something else: true, and beside the point.

    `asked` and `answer` still have their {slots}; `other_answers` are those of other facts to the same question.
    """
    wrong = []
    if other := re.search(r"{(other_\w+)}", asked):
        value = known.values[other[1]]
        wrong.append(draw.choice([f"yes, {value}.", f"{value}, yes.", f"yes. {value}."]))
    elif re.match(r"(no|nope|not|never|none)\b", answer):
        wrong.append(draw.choice(AGREES))
    elif re.match(r"(yes|sure|i do|i am)\b", answer):
        wrong.append(draw.choice(DENIES))
    if re.search(r"{(?!other)\w+}", answer):
        swapped = {k.removeprefix("other_"): v for k, v in known.values.items() if "_" in k}
        wrong.append(answer.format(**(known.values | swapped)))
    wrong += draw.sample(other_answers, min(1, len(other_answers)))
    if others and not ANY_SENTENCE.match(asked):
        beside = draw.choice(others)
        if match := re.match(r"(yes|no)\b", answer):
            beside = f"{'yes' if match[1] == 'no' else 'no'}, {beside}"
        wrong.append(beside)
        draw.shuffle(wrong)  # training reads the first ones
    return wrong
