"""The page's own HTML, as strings: header, transcript, counter, status line. Every text of a user or a model is escaped here."""

from html import escape
from urllib.parse import quote

from page import faces, names
from page.browser_store import MAX_KEPT
from page.conversation import MAX_EXCHANGES, Conversation, Exchange
from page.typed import NAMELESS
from persona_bot.errors import UserError
from persona_bot.persona import MAX_SENTENCES, Persona, hint, parse_persona, persona_file

STARTERS = (
    "Who are you?",
    "Where do you work?",
    "What do you do all day?",
    "What can you not stand?",
)
PEN = (
    '<svg viewBox="0 0 24 24" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round" '
    'aria-hidden="true"><path d="M4 20l1-5L16.5 3.5l4 4L9 19z"/></svg>'
)
COPY = (
    '<button type="button" class="copy" data-copy aria-label="Copy" title="Copy"><svg viewBox="0 0 24 24" width="16" height="16" '
    'fill="none" stroke="currentColor" stroke-width="1.8" aria-hidden="true"><path d="M9 9h11v11H9zM5 15H4V4h11v1"/></svg></button>'
)
SKIP = '<button type="button" class="skip" data-focus="#composer textarea">Skip to the message box</button>'
TITLE = "<h1>Persona bot <span>describe someone, then talk to them</span></h1>"
TO_PERSONA = '<button type="button" class="quiet" data-scroll="persona" data-focus="#persona-name textarea" aria-label="Edit persona">Edit</button>'
TO_CHAT = '<button type="button" class="quiet" data-scroll="talk" data-focus="#composer textarea">Back to the chat</button>'
SETTINGS = '<button type="button" aria-expanded="false" aria-controls="settings">Settings</button>'
FOR_PROGRAMS = '<button type="button" class="for-programs" data-press="footer .show-api">Use this page from a program</button>'
CHATS = (
    '<button type="button" class="quiet" popovertarget="earlier">Chats</button>'
    '<div id="earlier" popover role="dialog" aria-label="Earlier chats"><h3>Earlier chats</h3><ul></ul>'
    f"<p>Kept in this browser only: the last {MAX_KEPT} chats, your personas and settings. The server keeps nothing.</p>"
    '<button type="button" class="quiet forget">Forget everything</button></div>'
)
IN_TURN = '<span title="This kind of model cannot write for several visitors in the same pass, which is slower.">, one reply at a time</span>'
MEMORY_MATTERS = 30  # per cent left, from which on the page speaks of it


def event(name: str, **data: object) -> str:
    """The attributes of a button that triggers one of names.py's events."""
    values = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    return f'type="button" data-event="{name}"{values}'


def header(persona: Persona, presets: dict[str, Persona]) -> str:
    """Who is spoken to; `data-link` is the query that opens the page with this persona."""
    slug = next((slug for slug, preset in presets.items() if preset == persona), None)
    shared = persona if persona.name != NAMELESS.name else persona._replace(name="", face="")
    link = "?persona=" + quote(slug or persona_file(shared))
    about = persona.sentences[0] if persona.sentences else "no sentence about them yet"
    edited = slug is None and any(preset.name == persona.name for preset in presets.values())
    name = (persona.name or NAMELESS.name) + (", edited" if edited else "")
    return (
        f'<div class="who" data-link="{escape(link)}">{faces.face(persona.face or NAMELESS.face)}'
        f"<div><h2>{escape(name)}</h2><p>{escape(about)}</p></div></div>"
    )


def transcript(chat: Conversation) -> str:
    """All that was said, oldest first, with a line wherever the persona changed; an invitation when nothing was."""
    lines = [_greeting(chat)] if chat.greeting else []
    if not chat.exchanges:
        return _invitation(chat.persona, lines)
    persona = chat.exchanges[0].persona
    for number, exchange in enumerate(chat.exchanges):
        if _differ(exchange.persona, persona):
            lines.append(_notice("The persona changed here."))
            persona = exchange.persona
        lines.append(_yours(exchange, number, chat))
        if exchange is not chat.pending:
            lines.append(_theirs(exchange, number, exchange is chat.exchanges[-1]))
    if _differ(chat.persona, persona):
        lines.append(_notice("The persona changed. It counts from the next reply."))
    if len(chat.exchanges) >= MAX_EXCHANGES:
        lines.append(_notice("This chat is full. Start a new one."))
    return _talk("".join(lines))


def growing(chat: Conversation) -> str:
    """The reply that is being written, alone, or nothing: what a frame carries."""
    if chat.line is not None and chat.partner:
        return _talk(_partners(chat.partner, _growing(chat.line)))
    if chat.pending is None:
        return ""
    words = _growing(chat.pending.growing)
    return _talk(_bubble(chat.pending.persona, words, len(chat.exchanges) - 1))


def _growing(text: str) -> str:
    if text:
        return f'<p dir="auto" data-writing>{escape(text)}</p>'
    return '<p class="dots" role="img" aria-label="is about to answer"><i></i><i></i><i></i></p>'


def _partners(partner: Persona, words: str) -> str:
    """What a second persona says in a visitor's place."""
    face = faces.face(partner.face or NAMELESS.face)
    return f'<li class="you"><div class="said">{_by(partner)}{words}</div>{face}</li>'


def _talk(items: str) -> str:
    return f'<ol class="talk">{items}</ol>'


def _differ(one: Persona, other: Persona) -> bool:
    return one[:3] != other[:3]  # a starter or a greeting changes nothing that is said


def _invitation(persona: Persona, opening: list[str]) -> str:
    starters = "".join(
        f'<button class="starter" {event(names.STARTER, message=text)}>{escape(text)}</button>'
        for text in persona.starters or STARTERS
    )
    facts = "".join(f"<li>{escape(sentence)}</li>" for sentence in persona.sentences[:4])
    return (
        f'<div class="invitation">{faces.face(persona.face or NAMELESS.face)}<h3>Say hello to {escape(_called(persona))}</h3>'
        f'<ul class="facts">{facts}</ul></div>{_talk("".join(opening)) if opening else ""}'
        f'<div class="starters" role="group" aria-label="Conversation starters">{starters}</div>'
    )


def _called(persona: Persona) -> str:
    """`Willow`, but `the soldier` who has no name, and `your persona`."""
    if persona.name in ("", NAMELESS.name):
        return "your persona"
    return persona.called or persona.name


def _by(persona: Persona) -> str:
    name = persona.called if persona.name not in ("", NAMELESS.name) else NAMELESS.name
    return f'<span class="by">{escape(name)}</span>'


def _bubble(persona: Persona, words: str, number: int, below: str = "") -> str:
    return (
        f'<li class="them" data-number="{number}">{faces.face(persona.face or NAMELESS.face)}'
        f'<div class="said">{_by(persona)}{words}{below}</div></li>'
    )


def _greeting(chat: Conversation) -> str:
    persona = chat.exchanges[0].persona if chat.exchanges else chat.persona
    return _bubble(persona, f'<p dir="auto">{escape(persona.greeting)}</p>', -1)


def _yours(exchange: Exchange, number: int, chat: Conversation) -> str:
    if exchange.by:
        return _partners(exchange.by, f'<p dir="auto">{escape(exchange.message)}</p>')
    edited = ' data-editing="true"' if chat.editing == number else ""
    pen = (
        f'<button class="pen" {event(names.EDIT, number=number)} aria-label="Edit message {number + 1}" '
        f'title="Edit and ask again">{PEN}</button>'
    )
    return (
        f'<li class="you"{edited}>{"" if chat.writing else pen}<div class="said"><span class="by">You</span>'
        f'<p dir="auto">{escape(exchange.message)}</p></div></li>'
    )


def _theirs(exchange: Exchange, number: int, last: bool) -> str:
    words = f'<p dir="auto">{escape(exchange.reply)}</p>'
    below = _alternatives(exchange, number) if last and len(exchange.replies) > 1 else ""
    return _bubble(exchange.persona, words + COPY, number, below)


def _alternatives(exchange: Exchange, number: int) -> str:
    """`‹ 2/3 ›`: the reply that is shown, and the ways to the others."""
    former, later = (
        f'<button {event(names.SHOW, number=number, step=step)} aria-label="{label}">{sign}</button>'
        for step, label, sign in ((-1, "Former reply", "‹"), (1, "Next reply", "›"))
    )
    place = f"{exchange.shown + 1}/{len(exchange.replies)}"
    return f'<div class="alternatives" role="group" aria-label="Other replies">{former}<span>{place}</span>{later}</div>'


def _notice(text: str) -> str:
    return f'<li class="notice"><span>{escape(text)}</span></li>'


def counter(text: str) -> str:
    """How many of the persona's lines are used, which one is over the limit, or how to write one better."""
    try:
        persona = parse_persona(text)
    except UserError as error:
        return f'<p class="counter" data-over="true" aria-live="polite">{escape(str(error))}</p>'
    used, advice = len(persona.sentences), hint(persona)
    if advice:
        return f'<p class="counter" aria-live="polite">{escape(advice)}</p>'
    full = ' data-full="true"' if used == MAX_SENTENCES else ""
    return f'<p class="counter"{full} aria-live="polite"><b>{used}</b>/{MAX_SENTENCES} sentences, one a line</p>'


def model_line(name: str | None, device: str, in_turn: bool = False) -> str:
    """The model and where it runs, or that it is still loading (`name` None); `in_turn`: it writes one reply after the other."""
    if name is None:
        return '<p class="model" data-loading="true" role="status">The model is loading…</p>'
    return f'<p class="model" role="status"><span class="unseen">Model: </span><b>{escape(name)}</b> on {escape(device)}{IN_TURN if in_turn else ""}</p>'


def no_model_line(why: str) -> str:
    return f'<p class="model" role="status">{escape(why)}</p>'


def status(chat: Conversation, used: int, limit: int) -> str:
    """How much of the model's memory is left, once little is; the last reply's speed, which shows while Settings are open."""
    speed = (
        f'<span class="speed">{chat.tokens_per_second:.0f} tokens/s</span>'
        if chat.tokens_per_second
        else ""
    )
    left = max(0, 100 - round(100 * used / limit)) if limit else 100
    memory = (
        ""
        if left > MEMORY_MATTERS
        else f'<span title="{used} of {limit} tokens are used">{_memory(left)}</span>'
    )
    return f'<p class="status">{speed}<span role="status">{memory}</span></p>'


def _memory(left: int) -> str:
    return f"{left} % of its memory left" if left else "it forgets the oldest messages"


def record(text: str) -> str:
    """What the visitor's browser is to keep of the chat, as JSON, for the script to take."""
    return f'<data hidden value="{escape(text)}"></data>'
