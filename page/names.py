"""The names that Python, HTML and JavaScript must agree on.

`gr.HTML` passes on events of fixed names only, so each of ours borrows one: the markup carries it as `data-event`, the
script triggers it, and `blocks.py` listens to it.
"""

from persona_bot.settings import SLIDERS

PICK = "select"  # a card: a preset, or somebody random
EDIT = "edit"  # the pen at a message
STARTER = "example_select"  # a conversation starter
SHOW = "like"  # ‹ and › at a reply with alternatives
FACE = "option_select"  # a face for the persona
OPEN_CHAT = "upload"  # a conversation that the browser kept
OPEN_PERSONA = "apply"  # a persona that the browser kept
PACK = "submit"  # an entry of the menu that passes a chat on
OPEN_FILE = "input"  # what a visitor's file holds
TALK = "play"  # a second persona to talk with
NEXT_LINE = "tick"  # of two personas that talk
EVENTS = {
    "openChat": OPEN_CHAT,
    "openPersona": OPEN_PERSONA,
    "openFile": OPEN_FILE,
    "talk": TALK,
    "nextLine": NEXT_LINE,
}  # that the script triggers by itself; the others stand in the markup

SETTINGS = (*SLIDERS, "seed")  # in the order in which the page shows them
