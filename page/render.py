"""The page's own HTML, as strings: cards, header, transcript, counter, status line. Every text of a user or a model is escaped here."""

from html import escape
from urllib.parse import quote

from page.conversation import MAX_EXCHANGES, NAMELESS, Conversation, Exchange
from persona_bot.errors import UserError
from persona_bot.persona import MAX_SENTENCES, Persona, parse_persona, persona_text

STARTERS = (
    "Who are you?",
    "Where do you work?",
    "What do you do all day?",
    "Do you have a car?",
    "What can you not stand?",
)
TITLE = "<h1>Persona bot <span>describe someone, then talk to them</span></h1>"
ICON = (
    "<link rel='icon' href=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 100'>"
    "<text y='.9em' font-size='90'>🎭</text></svg>\">"
)
TO_PERSONA = '<button type="button" class="quiet" data-scroll="persona" aria-label="Edit persona">Edit</button>'
FOR_PROGRAMS = '<button type="button" class="for-programs" data-press="footer .show-api">Use this page from a program</button>'
PEN = (
    '<svg viewBox="0 0 24 24" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round" '
    'aria-hidden="true"><path d="M4 20l1-5L16.5 3.5l4 4L9 19z"/></svg>'
)


def cards(presets: dict[str, Persona], persona: Persona) -> str:
    """One button a preset, and one for a random persona; the one that is spoken to is pressed."""
    buttons = [
        _card(slug, p.face, p.name, (p.name, p.face) == (persona.name, persona.face))
        for slug, p in presets.items()
    ]
    return f'<div class="cards" role="group" aria-label="Presets">{"".join(buttons)}{_card("random", "🎲", "Someone new", False)}</div>'


def _card(who: str, face: str, name: str, pressed: bool) -> str:
    return (
        f'<button type="button" class="card" data-event="select" data-who="{escape(who)}" aria-pressed="{str(pressed).lower()}">'
        f'{_face(face)}<span class="name">{escape(name)}</span></button>'
    )


def _face(face: str) -> str:
    return f'<span class="face" aria-hidden="true">{escape(face or NAMELESS.face)}</span>'


def header(persona: Persona, presets: dict[str, Persona]) -> str:
    """Who is spoken to; `data-link` is the query that opens the page with this persona."""
    slug = next(
        (slug for slug, preset in presets.items() if preset.sentences == persona.sentences), None
    )
    title = "" if persona.name in ("", NAMELESS.name) else f"# {persona.face} {persona.name}\n"
    link = "?persona=" + quote(slug or title + persona_text(persona))
    about = persona.sentences[0] if persona.sentences else "no sentence about them yet"
    edited = slug is None and any(
        (p.name, p.face) == (persona.name, persona.face) for p in presets.values()
    )
    name = (persona.name or NAMELESS.name) + (", edited" if edited else "")
    return f'<div class="who" data-link="{escape(link)}">{_face(persona.face)}<div><h2>{escape(name)}</h2><p>{escape(about)}</p></div></div>'


def transcript(chat: Conversation) -> str:
    """All that was said, oldest first, with a line wherever the persona changed; an invitation when nothing was."""
    if not chat.exchanges:
        return _invitation(chat.persona) + _announcement("")
    lines, persona = [], chat.exchanges[0].persona
    for number, exchange in enumerate(chat.exchanges):
        if exchange.persona != persona:
            lines.append(_notice("The persona changed here."))
            persona = exchange.persona
        lines += [_yours(exchange, number, chat), _theirs(exchange, exchange is chat.pending)]
    if chat.persona != persona:
        lines.append(_notice("The persona changed. It counts from the next reply."))
    if len(chat.exchanges) >= MAX_EXCHANGES:
        lines.append(_notice("This chat is full. Start a new one."))
    said = "" if chat.pending else chat.exchanges[-1].reply
    return f'<ol class="talk" aria-label="Conversation">{"".join(lines)}</ol>' + _announcement(said)


def _invitation(persona: Persona) -> str:
    facts = "".join(f"<li>{escape(sentence)}</li>" for sentence in persona.sentences[:4])
    starters = "".join(
        f'<button type="button" class="starter" data-event="example_select" data-message="{text}">{text}</button>'
        for text in STARTERS
    )
    return (
        f'<div class="invitation">{_face(persona.face)}<h3>Say hello to {escape(_called(persona))}</h3>'
        f'<ul class="facts">{facts}</ul><div class="starters" role="group" aria-label="Conversation starters">{starters}</div></div>'
    )


def _called(persona: Persona) -> str:
    """`the soldier`, but `Maja, baker` and `your persona`."""
    name = persona.name or NAMELESS.name
    if name == NAMELESS.name:
        return "your persona"
    return name if "," in name else f"the {name[0].lower()}{name[1:]}"


def _yours(exchange: Exchange, number: int, chat: Conversation) -> str:
    edited = ' data-editing="true"' if chat.editing == number else ""
    name = f'aria-label="Edit message {number + 1}" title="Edit and ask again"'
    pen = f'<button type="button" class="pen" data-event="edit" data-number="{number}" {name}>{PEN}</button>'
    return f'<li class="you"{edited}>{"" if chat.pending else pen}<p dir="auto">{escape(exchange.message)}</p></li>'


def _theirs(exchange: Exchange, writing: bool) -> str:
    if writing and not exchange.reply:
        words = (
            '<p class="dots" role="img" aria-label="is about to answer"><i></i><i></i><i></i></p>'
        )
    else:
        words = f"<p dir='auto'{' data-writing' if writing else ''}>{escape(exchange.reply)}</p>"
    return f'<li class="them">{_face(exchange.persona.face)}{words}</li>'


def _notice(text: str) -> str:
    return f'<li class="notice"><span>{escape(text)}</span></li>'


def _announcement(text: str) -> str:
    """Read out by screen readers, once a reply is complete."""
    return f'<div class="unseen" aria-live="polite">{escape(text)}</div>'


def counter(text: str) -> str:
    """How many of the persona's lines are used, or which one is over the limit."""
    try:
        used = len(parse_persona(text).sentences)
    except UserError as error:
        return f'<p class="counter" data-over="true" aria-live="polite">{escape(str(error))}</p>'
    full = ' data-full="true"' if used == MAX_SENTENCES else ""
    return f'<p class="counter"{full} aria-live="polite"><b>{used}</b>/{MAX_SENTENCES} sentences, one a line</p>'


def model_line(name: str | None, device: str) -> str:
    """The model and where it runs, or that it is still loading (`name` None)."""
    if name is None:
        return '<p class="model" data-loading="true" role="status">The model is loading…</p>'
    return f'<p class="model" role="status"><span class="unseen">Model: </span><b>{escape(name)}</b> on {escape(device)}</p>'


def status(chat: Conversation, used: int, room: int) -> str:
    """Speed of the last reply, and how much of the model's memory the conversation leaves."""
    if not room:
        return '<p class="status"></p>'
    speed = f"<span>{chat.tokens_per_second:.0f} tokens/s</span>" if chat.tokens_per_second else ""
    left = max(0, 100 - round(100 * used / room))
    meter = f'<span class="room"><i style="width:{left}%"></i></span>'
    words = (
        f'{left} %<span class="long"> memory</span> left'
        if left
        else "the oldest messages are forgotten"
    )
    return f'<p class="status">{speed}<span title="{used} of {room} tokens of memory are used">{meter}{words}</span></p>'
