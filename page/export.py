"""A chat as others read it: plain text, and the dialogue of Persona-Chat that `train.data.dialogues` reads.

    [{"personality": ["i am willow."], "utterances": [{"history": ["hi"], "candidates": ["hey.", "hello!"]}]}]

The reply that was chosen is the last candidate, the gold one; the alternatives that were left come before it.
"""

import json
from itertools import groupby

from page.conversation import Conversation
from persona_bot.errors import UserError
from persona_bot.layouts import SILENCE
from persona_bot.persona import Persona


def chat_as_text(chat: Conversation) -> str:
    """Who said what, a paragraph each, behind the persona's sentences."""
    paragraphs = ["\n".join([chat.persona.name, *chat.persona.sentences]).strip()]
    if chat.greeting:
        paragraphs.append(f"{_speaker(_first(chat))}: {chat.greeting}")
    for exchange in chat.exchanges:
        asked_by = _speaker(exchange.by) if exchange.by else "You"
        paragraphs.append(f"{asked_by}: {exchange.message}")
        if exchange.reply:
            paragraphs.append(f"{_speaker(exchange.persona)}: {exchange.reply}")
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def training_dialogue(chat: Conversation) -> str:
    """The chat as a file to train on, a dialogue for each persona in it; raises UserError while nobody has answered."""
    history = [SILENCE, chat.greeting] if chat.greeting else []
    dialogues = []
    for sentences, exchanges in groupby(chat.exchanges, lambda e: e.persona.sentences):
        utterances = []
        for exchange in exchanges:
            if not exchange.reply:
                continue
            history.append(exchange.message)
            left = [r for k, r in enumerate(exchange.replies) if k != exchange.shown]
            left = [reply for reply in dict.fromkeys(left) if reply != exchange.reply]
            utterances.append({"history": list(history), "candidates": [*left, exchange.reply]})
            history.append(exchange.reply)
        if utterances:
            dialogues.append({"personality": list(sentences), "utterances": utterances})
    if not dialogues:
        raise UserError("There is no reply to train on yet; write a message first.")
    return json.dumps(dialogues, ensure_ascii=False, indent=1)


def _first(chat: Conversation) -> Persona:
    return chat.exchanges[0].persona if chat.exchanges else chat.persona


def _speaker(persona: Persona) -> str:
    return persona.called or "Persona"
