"""Makes interviews: one persona, one beginning of a chat, and many questions that are each asked right there, not one after the other.

    persona      i work for a bank. i am afraid of dogs.
    beginning    hello there!    hi! i work for a bank.                  (or nothing, or one exchange more)
    asked then   where do you work?       for a bank.                    not: i am afraid of dogs.
                 would you like a puppy?  no, i am afraid of dogs.       not: yes, i have one.

Run: `python -m train.everyday --interviews --count 1000 --out interviews.json`, then
`python -m train.finetune --data interviews.json --first-difference 3 ..`

Training reads what the questions share once (train/data/branched.py). Facts with the opposite answer to the same question are in
the files of everyday_templates.FACTS; wrong candidates are their answers, and those of train/data/everyday_contradictions.py.
"""

from collections.abc import Sequence

from train.data.everyday import Maker, typed
from train.data.everyday_contradictions import agrees
from train.data.everyday_speaker import Known, Speaker
from train.data.everyday_templates import ASKS_BACK

QUESTIONS = 10  # of an interview at most, so that it fits into a row of 512 tokens
REPEATED = 20  # times that an answer may come, as for the answers of 3,000 dialogues


def make_interviews(
    count: int, seed: int = 0, personas: Sequence[Sequence[str]] = ()
) -> list[dict]:
    """`count` interviews in the layout of Persona-Chat; half of them of the `personas`, where there are some."""
    maker = Maker(seed, max(REPEATED, count // 20), personas)
    made = (interview(maker) for _ in iter(int, 1))
    asked = (entry for entry in made if len(entry["utterances"]) > 1)
    return [next(asked) for _ in range(count)]


def interview(maker: Maker) -> dict:
    """One interview, as an entry of Persona-Chat's layout."""
    speaker = maker.personas.speaker()
    speaker.voice = None  # what is learnt is the answer, not its sound
    turns = beginning(maker, speaker)
    blocks = [(known, k) for known in speaker.known for k in range(len(known.fact.blocks))]
    maker.draw.shuffle(blocks)
    asked: set[str] = set()
    utterances: list[dict] = []
    for known, k in blocks * 2:
        made = question(maker, speaker, known, k) if len(utterances) < QUESTIONS else None
        if made and made[0].lower() not in asked:
            text, answer, wrong = made
            asked.add(text.lower())
            utterances.append({"candidates": [*wrong, answer], "history": [*turns, text]})
    return {
        "personality": list(dict.fromkeys(k.line for k in speaker.known)),
        "utterances": utterances,
    }


def beginning(maker: Maker, speaker: Speaker) -> list[str]:
    """What was said before: nothing, a greeting that mostly tells one of the persona's sentences, or a question more."""
    draw = maker.draw
    if draw.random() < 0.4:
        return []
    made = maker.exchange(speaker, maker.messages["greeting"])
    turns = list(made[:2]) if made else []
    if turns and draw.random() < 0.4 and (more := maker.ask(speaker)):
        turns += more[:2]
    return turns


def question(
    maker: Maker, speaker: Speaker, known: Known, number: int
) -> tuple[str, str, list[str]] | None:
    """(a question of the fact's block `number` as typed, a right answer, wrong ones); None where each was given often enough."""
    draw, block = maker.draw, known.fact.blocks[number]
    asked = draw.choice(block.questions)
    free = [a for a in block.answers if maker.counts[known.fill(a)] < maker.often]
    if not free:
        return None
    answer = draw.choice(free)
    reply = known.fill(answer)
    maker.counts[reply] += 1
    right = [known.fill(text) for text in block.answers]
    wrong = maker.wrong_answers(speaker, known, asked, answer)
    fair = [text for text in dict.fromkeys(wrong) if text != reply and is_fair(text, reply, right)]
    if "?" not in reply and draw.random() < 0.15:
        reply += f" {draw.choice(ASKS_BACK)}"
    return typed(draw, known.fill(asked)), reply, fair


def is_fair(wrong: str, reply: str, right: Sequence[str]) -> bool:
    """Whether the place where `wrong` differs from the reply tells it from every right answer, too.

    "i live here." is no wrong candidate for "for a bank." where "i work for a bank." is right as well: "i" is not what is wrong about it.
    """
    shared = common(wrong, reply)
    if any(common(wrong, other) > shared for other in right):
        return False
    return shared > 0 or agrees(wrong) is None or agrees(wrong) not in map(agrees, right)


def common(one: str, other: str) -> int:
    """How many words the texts begin with in common."""
    pairs = list(zip(one.split(), other.split(), strict=False))
    return next((k for k, (a, b) in enumerate(pairs) if a != b), len(pairs))
