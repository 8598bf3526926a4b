"""Chats to be read: the same messages to several personas, and the replies of two models side by side, as markdown."""

from collections.abc import Mapping, Sequence

from persona_bot.persona import Persona
from persona_bot.replies.reply import Model
from persona_bot.settings import Settings
from train.metrics.generation_eval import Progress, say

QUESTIONS = (  # what the reference run asked its personas
    "Hello!",
    "Who are you?",
    "Where do you work?",
    "Do you like working there?",
    "Do you have a car?",
    "What do you think about nature?",
)
EVERYDAY: tuple[str, ...] = (
    "hi",
    "what's your name?",
    "how old are you?",
    "what about your family?",
)
EVERYDAY += ("lol", "why?", "are you a bot?", "bye")
VISITS = (  # five visitors, eight messages each
    "hi|what do you do?|really?|why?|do you like it?|do you have kids?|what about your family?|bye",
    "hey, who are you?|tell me more|lol|how old are you?|where do you live?|do you have any pets?|"
    "what is it called?|nice, see you",
    "hello!|how are you?|i had a long day at work|what did you do today?|sounds fun|"
    "what do you do for fun?|can i join you?|thanks, good night",
    "are you a bot?|prove it|what's your name?|are you married?|what do you hate?|do you drive?|"
    "i don't believe you|ok bye",
    "good morning|i love dogs, and you?|what's your favorite food?|can you cook?|i am 25, and you?|"
    "are you happy?|what is your dream?|good luck!",
)


def transcript(
    model: Model,
    persona: Persona,
    settings: Settings,
    seed: int,
    messages: Sequence[str] = QUESTIONS,
) -> list[tuple[str, str]]:
    """(message, reply) for each of the messages, sent one after the other in one chat."""
    turns: list[str] = []
    for k, message in enumerate(messages):
        turns.append(message)
        turns.append(say(model, persona, turns, settings, seed + k))
    return list(zip(turns[::2], turns[1::2], strict=True))


def transcripts(
    model: Model,
    personas: Sequence[Persona],
    settings: Settings,
    seed: int,
    progress: Progress = iter,
    scripts: Sequence[Sequence[str]] = (QUESTIONS,),
) -> str:
    """The replies of every persona to every script, a chat each, as markdown."""
    number = " and ".join(str(len(script)) for script in scripts)
    asked = f"The same {number} messages to {len(personas)} personas, seed {seed}; nothing is edited or chosen."
    chats = [
        transcript_markdown(
            persona, [transcript(model, persona, settings, seed, script) for script in scripts]
        )
        for persona in progress(personas)
    ]
    return "\n".join([f"{asked}\n", *chats])


def transcript_markdown(persona: Persona, chats: Sequence[Sequence[tuple[str, str]]]) -> str:
    """The chats of a persona as markdown: its sentences as a quote, then the turns; a line between two chats."""
    lines = [
        f"### {f'{persona.face} {persona.name}'.strip()}",
        "",
        *(f"> {sentence}  " for sentence in persona.sentences),
        "",
    ]
    for number, pairs in enumerate(chats):
        lines += ["---", ""] if number else []
        for message, reply in pairs:
            lines += [f"**You:** {message}  ", f"**Persona:** {reply}", ""]
    return "\n".join(lines)


def side_by_side(
    models: Mapping[str, Model],
    personas: Sequence[Persona],
    settings: Settings,
    seed: int,
    progress: Progress = iter,
) -> str:
    """Two chats of every persona with each model, the same messages and seeds, as tables with a column a model."""
    names = list(models)
    lines = [f"# {' and '.join(names)} side by side", ""]
    lines += [f"The same messages, personas and seed ({seed}); nothing is edited or chosen.", ""]
    for persona in progress(personas):
        lines += [f"## {persona.name}", "", f"> {' '.join(persona.sentences)}", ""]
        lines += [f"| you | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        for script in (QUESTIONS, EVERYDAY):
            chats = [transcript(m, persona, settings, seed, script) for m in models.values()]
            for message, *said in zip(script, *chats, strict=True):
                replies = " | ".join(reply.replace("|", "\\|") for _, reply in said)
                lines.append(f"| {message} | {replies} |")
        lines.append("")
    return "\n".join(lines)
