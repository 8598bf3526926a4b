"""The options of `python app.py`, and a model that loads on a CPU while Gradio is still being imported."""

import argparse
import importlib.util
import os
import re
import threading
from concurrent.futures import Future
from functools import partial
from typing import NoReturn

from persona_bot.errors import exit_on_error
from persona_bot.persona import load_presets

# a site as a content security policy names it
SITE = re.compile(
    r"(https?://)?(\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[\da-fA-F:.]+\])(:(\d+|\*))?/?", re.ASCII
)
# Gradio reads them while it is imported, and fails there
NUMBERS = ("GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS", "GRADIO_NODE_NUM_PORTS")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}; --help lists the options.\n")


def number(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def site(text: str) -> str:
    if not SITE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no site like https://example.org")
    return text


def parse_options() -> argparse.Namespace:
    """The options as they were given and found good; else the program ends with status 2 and one line on stderr."""
    parser = Parser(description="Opens a page to chat with a persona.")
    chosen = parser.add_argument_group("the model")
    chosen.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID"),
        help="Hub repository[@revision] or folder; else the default model",
    )
    chosen.add_argument("--device", help="cuda, mps or cpu; else the best there is")
    chosen.add_argument(
        "--endpoint",
        default=os.environ.get("MODEL_ENDPOINT"),
        help="address of an OpenAI-compatible server that runs the model instead",
    )
    door = parser.add_argument_group("the page")
    door.add_argument("--host", help="address to listen on; 0.0.0.0 lets other machines in")
    door.add_argument("--port", type=int, help="else the first free one from 7860 on")
    door.add_argument("--share", action="store_true", help="also open a public link, for a week")
    door.add_argument(
        "--waiting",
        type=partial(number, least=1),
        default=128,
        help="how many replies may wait in the queue",
    )
    door.add_argument(
        "--proxies",
        type=partial(number, least=0),
        default=1 if os.environ.get("SPACE_ID") else 0,
        help="how many trusted proxies stand in front of the page; X-Forwarded-* is believed from them only",
    )
    door.add_argument(
        "--public",
        action="append",
        metavar="NAME",
        help="a name under which the page is reached, like https://chat.example.org; addresses and names of the local network "
        "need none; may be repeated",
    )
    door.add_argument(
        "--unlimited",
        action="store_true",
        help="no limits for each client's address: calls, chats, waiting replies",
    )
    door.add_argument(
        "--embed",
        action="append",
        type=site,
        metavar="ORIGIN",
        help="a site that may show the page in a frame; may be repeated",
    )
    door.add_argument(
        "--metrics",
        action="store_true",
        help="figures at /metrics for Prometheus; needs prometheus_client",
    )
    options = parser.parse_args()
    with exit_on_error():  # told before anything loads: a page has at least one persona
        load_presets()
    for name in NUMBERS:
        if not os.environ.get(name, "1").isdecimal():
            parser.error(f"{name} is {os.environ[name]!r}, which is no number")
    return options


def begin_to_load(options: argparse.Namespace) -> Future | None:
    """The checkpoint to come, from a thread of its own; None where it must not be loaded yet.

    Not on an accelerator, where it is loaded before the page; not on ZeroGPU, whose package comes before torch; and not
    where a server has the model. Torch and transformers are imported first: two threads that import the same may fail.
    """
    if options.endpoint or importlib.util.find_spec("spaces"):
        return None
    from persona_bot import load_model
    from persona_bot.device import pick_device
    from persona_bot.errors import UserError
    from persona_bot.replies import local  # noqa: F401

    try:
        if pick_device(options.device).type != "cpu":
            return None
    except UserError:  # told by who loads
        return None
    loading: Future = Future()

    def load() -> None:
        try:
            loading.set_result(load_model(options.model, options.device))
        except BaseException as error:
            loading.set_exception(error)

    # a daemon: Ctrl-C does not wait for a download
    threading.Thread(target=load, daemon=True).start()
    return loading
