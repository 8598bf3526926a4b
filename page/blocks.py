"""The page's components, top to bottom, what each of them starts, and how it opens."""

from functools import partial
from pathlib import Path

import gradio as gr

from page import api, events, middleware, render
from page.conversation import Conversation
from page.events import FIRST, PRESETS
from persona_bot.errors import UserError
from persona_bot.persona import persona_text
from persona_bot.replies.reply import LIMITS, Settings

# replies that are written at the same time, in shared passes; further ones wait in the queue
AT_ONCE = 16
STATIC = Path(__file__).parent / "static"
# of the fonts that Gradio brings, few hold the Latin letters in both weights; this one does
THEME = gr.themes.Base(
    font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)


html = partial(gr.HTML, apply_default_css=False)
quiet_button = partial(gr.Button, size="sm", elem_classes="quiet")


def setting(name: str, label: str, step: float, info: str) -> gr.Slider:
    low, high = LIMITS[name]
    return gr.Slider(low, high, getattr(Settings(), name), step=step, label=label, info=info)


with gr.Blocks(title="Persona bot", fill_width=True, analytics_enabled=False) as demo:
    chat = gr.State(Conversation(FIRST))
    with gr.Row(elem_id="top"):
        html(render.TITLE, elem_id="title")
        model_line = html(render.model_line(None, ""), elem_id="model")
    cards = html(
        render.cards(PRESETS, FIRST),
        elem_id="cards",
        js_on_load="personaPage.clicks(element, trigger)",
    )
    with gr.Row(elem_id="stage"):
        with gr.Column(elem_id="talk"):
            with gr.Row(elem_id="talk-head"):
                header = html(render.header(FIRST, PRESETS), elem_id="header")
                html(render.TO_PERSONA, elem_id="to-persona")
                new_chat = quiet_button("New chat")
            transcript = html(
                render.transcript(Conversation(FIRST)),
                elem_id="transcript",
                js_on_load="personaPage.clicks(element, trigger); personaPage.follow(element)",
            )
            with gr.Row(elem_id="editing", visible=False) as editing:
                html("<p>Your next message replaces the marked one and all that follows.</p>")
                keep = quiet_button("Cancel")
            with gr.Row(elem_id="composer"):
                message = gr.Textbox(
                    label="Message",
                    placeholder="Write a message",
                    show_label=False,
                    container=False,
                    max_lines=5,
                )
                send_button = gr.Button("Send", variant="primary", elem_id="send")
                stop_button = gr.Button("Stop", elem_id="stop", visible=False)
            with gr.Row(elem_id="after"):
                retry_button = quiet_button("Retry", interactive=False)
                undo_button = quiet_button("Undo", interactive=False)
                status = html(render.status(Conversation(FIRST), 0, 0), elem_id="status")
        with gr.Column(elem_id="persona"):
            persona = gr.Textbox(
                persona_text(FIRST), label="Who they are", lines=8, max_lines=16, elem_id="persona-text",
                info="One sentence a line, as they would say it. A change counts from the next reply.",
                placeholder="i keep a lighthouse.\ni talk to the seagulls.\ni cannot swim.",
            )  # fmt: skip
            with gr.Row(elem_id="below"):
                counter = html(render.counter(persona_text(FIRST)), elem_id="counter")
                copy_link = quiet_button("Copy link")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                settings = [
                    setting(
                        "temperature",
                        "Temperature",
                        0.05,
                        "Higher is more surprising; 0 always takes the likeliest word.",
                    ),
                    setting(
                        "top_p",
                        "Top-p",
                        0.01,
                        "Draw from the likeliest words that together have this share.",
                    ),
                    setting("top_k", "Top-k", 1, "Draw from so many words at most; 0 is off."),
                    setting("min_tokens", "Shortest reply", 1, "In tokens; a word has one or two."),
                    setting(
                        "max_tokens",
                        "Longest reply",
                        1,
                        "In tokens; it ends with a sentence if it can.",
                    ),
                    setting(
                        "repetition_penalty",
                        "Repetition penalty",
                        0.01,
                        "Above 1 avoids words that the reply has already.",
                    ),
                    setting(
                        "no_repeat_ngram",
                        "No run of words twice",
                        1,
                        "Of so many tokens, in the whole chat; 0 is off.",
                    ),
                    setting(
                        "best_of",
                        "Best of",
                        1,
                        "Writes so many replies and shows the one that fits best; above 1 nothing streams.",
                    ),
                    gr.Number(
                        None,
                        label="Seed",
                        info="A whole number makes the reply repeatable; empty is random.",
                        precision=0,
                    ),
                ]

            html(render.FOR_PROGRAMS)

    SHOWN = [
        cards,
        header,
        transcript,
        status,
        send_button,
        stop_button,
        retry_button,
        undo_button,
        editing,
    ]
    SHOWN_WITH_PERSONA = [persona, counter, *SHOWN]
    unseen = {"show_progress": "hidden", "api_visibility": "private"}
    at_once = {"queue": False, **unseen}
    # through the queue, since only there a toast reaches the page
    soon = {"concurrency_limit": None, **unseen}

    demo.load(events.opened, chat, [model_line, *SHOWN_WITH_PERSONA], **soon)
    demo.load(None, js="personaPage.start")
    cards.select(events.pick, chat, SHOWN_WITH_PERSONA, **at_once)
    persona.change(
        events.rewrite, [persona, chat], [counter, *SHOWN], trigger_mode="always_last", **at_once
    )
    new_chat.click(events.fresh, chat, SHOWN, **at_once)
    undo_button.click(events.undo, [message, chat], [message, *SHOWN_WITH_PERSONA], **at_once)
    transcript.edit(events.edit, chat, [message, *SHOWN], **at_once).then(
        None, js="personaPage.focusMessage"
    )
    keep.click(events.stop_editing, chat, [message, *SHOWN], **at_once)
    stop_button.click(events.halt, [message, chat], [message, *SHOWN], **at_once)
    copy_link.click(events.link_copied, js="personaPage.copyLink", **soon)
    for asked in (
        gr.on(
            [message.submit, send_button.click],
            events.send,
            [message, persona, chat],
            [message, *SHOWN],
            **soon,
        ),
        transcript.example_select(events.send_starter, [persona, chat], SHOWN, **soon),
        retry_button.click(events.retry, [persona, chat], SHOWN, **soon),
    ):
        writing = asked.success(
            events.reply, [chat, *settings], transcript,
            concurrency_limit=AT_ONCE, concurrency_id="model", show_progress="minimal", show_progress_on=status, api_visibility="private",
        )  # fmt: skip
        # no room in the queue
        writing.failure(events.halt, [message, chat], [message, *SHOWN], **at_once)
        writing.success(events.settle, [message, chat], [message, *SHOWN], **at_once)
    gr.api(api.answer, api_name="chat", concurrency_limit=AT_ONCE, concurrency_id="model")


def launch(
    host: str | None = None, port: int | None = None, share: bool = False, waiting: int = 128
) -> list[str]:
    """Opens the page without blocking and returns its addresses, the public one last; `waiting` bounds the queue."""
    demo.queue(max_size=waiting)
    try:
        _, local, public = demo.launch(
            server_name=host,
            server_port=port,
            share=share,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            footer_links=["api"],  # hidden; our own button presses it
            state_session_capacity=1000,
            theme=THEME,
            css_paths=sorted(STATIC.glob("*.css")),
            head=f"<script>{(STATIC / 'page.js').read_text(encoding='utf-8')}</script>{render.ICON}",
            app_kwargs={"middleware": middleware.middleware, "routes": middleware.routes},
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The page cannot listen at {host or 'this machine'}, port {port or 'any'}; try another --host or --port."
        ) from error
    return [local, public] if public else [local]
