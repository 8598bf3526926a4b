"""The page's components, top to bottom, and what each of them starts."""

from dataclasses import Field, fields
from functools import partial
from typing import Any

import gradio as gr

from page import api, cast, duet, duet_view, events, faces, names, opening, passing_on, render, why
from page.conversation import Conversation
from page.events import FIRST, PRESETS, Shown, ShownPersona
from page.serving import Page
from persona_bot.persona import MAX_NAME_CHARS, persona_text
from persona_bot.settings import Settings

# replies that are written at the same time, in shared passes; further ones wait in the queue
AT_ONCE = 16

html = partial(gr.HTML, apply_default_css=False)
buttons = partial(html, js_on_load="personaPage.clicks(element, trigger)")  # HTML with buttons
quiet_button = partial(gr.Button, size="sm", elem_classes="quiet")


def slider(field: Field) -> gr.Slider:
    """A setting as a slider, with all that stands beside its field."""
    low, high = field.metadata["slider"]
    facts: dict[str, Any] = {name: field.metadata[name] for name in ("step", "label")}
    facts |= {"value": field.default, "info": field.metadata["help"]}
    return gr.Slider(low, high, **facts)


def number(field: Field) -> gr.Number:
    """A whole number that may be left out. Gradio draws None as 0 and sends that, unless an event has set it: `opened` does."""
    facts: dict[str, Any] = {"value": field.default, "label": field.metadata["label"]}
    return gr.Number(**facts, info=field.metadata["help"], precision=0)


with Page(title="Persona bot", fill_width=True, analytics_enabled=False) as demo:
    start = Conversation(FIRST)
    chat = gr.State(start)
    kept = gr.Textbox(visible=False)  # what the browser brings when the page opens
    parcel = gr.Textbox(visible=False)  # what it takes to the clipboard or the disk
    told = gr.Textbox(visible=False)  # the name that a rewritten persona has
    pressed = gr.Textbox(visible=False)  # the card that was pressed last
    html(render.SKIP, elem_id="skip")
    html(faces.SYMBOLS, elem_id="symbols")
    with gr.Row(elem_id="top"):
        html(render.TITLE, elem_id="title")
        model_line = html(render.model_line(None, ""), elem_id="model")
    with gr.Row(elem_id="cast"):
        random_card = buttons(cast.random_card(), elem_id="random")
        own_cards = html("", elem_id="own-cards", js_on_load="personaStore.cards(element, trigger)")
        cards = buttons(cast.cards(PRESETS, FIRST), elem_id="cards")
    with gr.Row(elem_id="stage"):
        with gr.Column(elem_id="talk"):
            with gr.Row(elem_id="talk-head"):
                header = html(render.header(FIRST, PRESETS), elem_id="header")
                html(render.TO_PERSONA, elem_id="to-persona")
                chats = html(
                    render.CHATS,
                    elem_id="chats",
                    js_on_load="personaStore.earlier(element, trigger)",
                )
                menu = html(
                    passing_on.menu(),
                    elem_id="sharing",
                    js_on_load="personaShare.menu(element, trigger)",
                )
                new_chat = quiet_button("New chat")
            with gr.Column(elem_id="scroll"):
                transcript = buttons(render.transcript(start), elem_id="transcript")
                html("", elem_id="just-sent")
                growing = html("", elem_id="growing", js_on_load="personaPage.follow(element)")
                because = html("", elem_id="why", js_on_load="personaWhy.watch(element)")
            talking = html(
                duet_view.state(start),
                elem_id="talking",
                js_on_load="personaDuet.watch(element, trigger)",
            )
            # hidden by its style, as Stop is: what Gradio mounts when it is needed comes after the first Escape
            with gr.Row(elem_id="editing"):
                html("<p>Your next message replaces the marked one and all that follows.</p>")
                keep = quiet_button("Cancel", elem_id="keep")
            with gr.Row(elem_id="composer"):
                message = gr.Textbox(
                    label="Message",
                    placeholder="Write a message",
                    show_label=False,
                    container=False,
                    max_lines=5,
                )
                send_button = gr.Button("Send", variant="primary", elem_id="send")
                stop_button = gr.Button("Stop", elem_id="stop")  # in Send's place while one writes
            with gr.Row(elem_id="after"):
                retry_button = quiet_button("Retry", interactive=False)
                undo_button = quiet_button("Undo", interactive=False)
                duet_menu = html(
                    duet_view.menu(PRESETS),
                    elem_id="duet-menu",
                    js_on_load="personaDuet.menu(element, trigger)",
                )
                status = html(render.status(start, 0, 0), elem_id="status")
        with gr.Column(elem_id="persona"):
            html(render.TO_CHAT, elem_id="to-chat")
            with gr.Row(elem_id="who"):
                own_face = html(cast.own_face(FIRST), elem_id="own-face")
                face_choice = buttons(cast.face_choice(), elem_id="face-choice")
                name = gr.Textbox(
                    FIRST.name, label="Name", max_length=MAX_NAME_CHARS, elem_id="persona-name",
                    placeholder="Willow, gardener",
                )  # fmt: skip
            persona = gr.Textbox(
                persona_text(FIRST), label="Who they are", lines=8, max_lines=16, elem_id="persona-text",
                info="One sentence a line, as they would say it. A change counts from the next reply.",
                placeholder="i keep a lighthouse.\ni talk to the seagulls.\ni cannot swim.",
            )  # fmt: skip
            with gr.Row(elem_id="below"):
                counter = html(render.counter(persona_text(FIRST)), elem_id="counter")
                copy_link = quiet_button("Copy link")
            html(render.SETTINGS, elem_id="settings-head")
            # no Accordion: Gradio mounts what it hides only when it is opened, and a frame later writes the values of
            # the start over what a quick hand, or a hand at a slow machine, has chosen meanwhile
            with gr.Column(elem_id="settings"):
                settings: list[gr.Slider | gr.Number] = [
                    *(slider(field) for field in fields(Settings) if field.metadata["slider"]),
                    number(Settings.__dataclass_fields__["seed"]),
                ]

            html(render.FOR_PROGRAMS)
    record = html(render.record(""), elem_id="record", js_on_load="personaStore.keep(element)")
    html('<div class="unseen" aria-live="polite"></div>', elem_id="announcer")

    SHOWN = list(
        Shown(
            cards=cards, header=header, transcript=transcript, growing=growing, status=status,
            retry=retry_button, undo=undo_button, own_face=own_face, record=record, duet=talking,
            why=because,
        )
    )  # fmt: skip
    PERSONA = list(ShownPersona(name=name, text=persona, counter=counter))
    unseen: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    at_once: dict[str, Any] = {"queue": False, **unseen}
    # through the queue, since only there a toast reaches the page
    soon: dict[str, Any] = {"concurrency_limit": None, **unseen}
    to_message: dict[str, Any] = {"fn": None, "js": "personaPage.focusMessage", **unseen}

    visit = demo.load(
        opening.opened, [kept, chat], [message, *PERSONA, *SHOWN, *settings], js="personaStore.brought", **soon,
    )  # fmt: skip
    visit.then(None, settings, js="personaStore.arrived", **unseen)
    visit.then(opening.model_arrives, chat, [model_line, status], **soon)
    demo.load(None, js="personaPage.start", **unseen)
    # while one is answered, the last of what is done meanwhile waits; Gradio forgets with what, the script does not
    last: dict[str, Any] = {"trigger_mode": "always_last"}
    gr.on(
        [getattr(card, names.PICK) for card in (cards, random_card)], events.pick, [pressed, persona, chat],
        [*PERSONA, *SHOWN], js="personaPage.lastPressed", **last, **at_once,
    )  # fmt: skip
    getattr(own_cards, names.OPEN_PERSONA)(
        events.open_persona, [persona, chat], [*PERSONA, *SHOWN], **soon
    )
    getattr(menu, names.PACK)(passing_on.packed, chat, parcel, **soon).success(
        passing_on.copied, parcel, js="personaShare.deliver", **soon
    ).then(None, js="personaPage.focusMessage", **unseen)
    another: dict[str, Any] = {
        "inputs": [message, persona, chat], "outputs": [message, *PERSONA, *SHOWN], "js": "personaPage.leaveEdit", **soon,
    }  # fmt: skip
    for opened in (
        getattr(chats, names.OPEN_CHAT)(events.open_chat, **another),
        getattr(menu, names.OPEN_FILE)(passing_on.opened_file, **another),
    ):
        opened.then(**to_message)
        opened.failure(events.stop_editing, chat, SHOWN, **at_once)  # it was left all the same
    # not `input`: Gradio leaves it out for the first character after an event has set the box
    persona.change(
        events.rewrite, [persona, chat], [told, counter, *SHOWN], js="personaPage.textTyped", **last, **at_once
    ).then(None, [name, told], name, js="personaPage.nameTold", **unseen).then(
        events.rename, [name, chat], SHOWN, js="personaPage.nameTyped", **at_once
    )  # fmt: skip
    name.change(events.rename, [name, chat], SHOWN, js="personaPage.nameTyped", **last, **at_once)
    getattr(face_choice, names.FACE)(events.choose_face, chat, SHOWN, **at_once)
    new_chat.click(events.fresh, [persona, chat], SHOWN, **at_once).then(**to_message)
    undo_button.click(
        events.undo,
        [message, persona, chat],
        [message, *PERSONA, *SHOWN],
        js="personaPage.leaveEdit",
        **at_once,
    ).then(**to_message)
    getattr(transcript, names.EDIT)(
        events.edit, chat, [message, *SHOWN], js="personaPage.beforeEdit", **at_once
    ).then(**to_message)
    keep.click(events.stop_editing, chat, SHOWN, js="personaPage.cancelled", **at_once).then(
        **to_message
    )
    stop_button.click(events.halt, [message, chat], [message, *SHOWN], **at_once).then(**to_message)
    copy_link.click(passing_on.copied, parcel, js="personaPage.copyLink", **soon)
    gr.on([s.change for s in settings], None, settings, js="personaStore.keepSettings", **unseen)

    sending = gr.on(
        [message.submit, send_button.click], events.send, [message, persona, chat], SHOWN,
        js="personaPage.sent", **soon,
    )  # fmt: skip
    sending.success(None, js="personaPage.taken", **unseen)
    sending.failure(None, js="personaPage.refused", **unseen)
    getattr(duet_menu, names.TALK)(duet.begin, chat, SHOWN, **soon).success(**to_message)
    writer: dict[str, Any] = {
        "concurrency_limit": AT_ONCE, "concurrency_id": "model", "show_progress": "minimal",
        "show_progress_on": status, "api_visibility": "private",
    }  # fmt: skip
    speaking = getattr(talking, names.NEXT_LINE)(
        duet.listen, chat, SHOWN, trigger_mode="multiple", **at_once
    ).success(duet.speak, [chat, *settings], growing, **writer)
    speaking.failure(events.halt, [message, chat], [message, *SHOWN], **at_once)
    # after a reply is shown; few at a time, since replies come first
    because_of: dict[str, Any] = {**unseen, "concurrency_limit": 2, "concurrency_id": "why"}
    getattr(transcript, names.SHOW)(events.show, chat, SHOWN, **soon).success(
        why.found, chat, because, **because_of
    )
    for asked in (
        sending,
        speaking.success(duet.answer, chat, SHOWN, **soon),
        getattr(transcript, names.STARTER)(events.send_starter, [persona, chat], SHOWN, **soon),
        retry_button.click(events.retry, [persona, chat], SHOWN, **soon),
    ):
        asked.success(**to_message)
        writing = asked.success(
            events.reply, [chat, *settings], growing,
            concurrency_limit=AT_ONCE, concurrency_id="model", show_progress="minimal", show_progress_on=status, api_visibility="private",
        )  # fmt: skip
        # no room in the queue
        writing.failure(events.halt, [message, chat], [message, *SHOWN], **at_once)
        settled = writing.success(events.settle, [message, chat], [message, *SHOWN], **at_once)
        settled.success(why.found, chat, because, **because_of)
    gr.api(api.answer, api_name="chat", concurrency_limit=AT_ONCE, concurrency_id="model")
