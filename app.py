"""The page: pick or write a persona and chat with it. This file is what a Hugging Face Space runs.

Run: `python app.py`, or `python app.py --help` for its options; MODEL_ID and MODEL_ENDPOINT are like --model and --endpoint.
"""

import os
import signal
import threading

# `gradio app.py` runs this file again, in a thread of its own, at its start and whenever a file changes
RELOADING = threading.current_thread() is not threading.main_thread()
AS_PROGRAM = __name__ == "__main__" and not RELOADING
if AS_PROGRAM:  # until `main` has its own; an exception would leave the imports with a traceback
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: os._exit(0))

import argparse
import gc
import sys
from concurrent.futures import Future

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if AS_PROGRAM:
    # imports make a million objects for good; to look through them again and again takes a sixth of
    # the time
    gc.disable()

from persona_bot.errors import UserError, exit_on_error

with exit_on_error():  # a proxy with which no client can be made, nor Gradio imported
    from page.options import begin_to_load, parse_options

former = globals().get("backend")

# the model loads while Gradio is imported, which takes as long
if AS_PROGRAM:
    options = parse_options()
    loading = begin_to_load(options)

from page import backend, faults, hosts, metrics, middleware, output
from page.blocks import demo
from page.serving import launch
from persona_bot.device import trim_memory

if former not in (None, backend) and former.model is not None:
    backend.use(former.model)


def main(options: argparse.Namespace, loading: Future | None) -> None:
    """Serves the page until it is told to stop; `loading` is the model on its way, if it is on its way already."""
    output.outlive_readers()
    # not KeyboardInterrupt: raised in a destructor it would be lost
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, middleware.close)
    try:
        let_in(options)
        if loading is None:
            backend.load(options.model, options.device, options.endpoint)
        addresses = launch(demo, options.host, options.port, options.share, options.waiting)
        middleware.access.add_names(addresses)
        print(*addresses, sep="\n", flush=True)
        if loading:
            backend.use(loading.result())
        settle()
        model = backend.loaded()
        print(f"Ready: {model.name} on {model.device_label}.", flush=True)
        if backend.state() == "unreachable":
            print(model.problem, file=sys.stderr, flush=True)
        middleware.wait_for_the_end()
    except UserError as error:
        print(error, file=sys.stderr)
        leave(loading)


def let_in(options: argparse.Namespace) -> None:
    """Sets who may do how much, and what can be watched."""
    names = hosts.names_of(options.public, options.proxies)
    middleware.access = middleware.Access(options.proxies, not options.unlimited, names=names)
    if options.embed:
        middleware.access.embed = tuple(options.embed)
    if options.metrics:
        metrics.enable(
            waiting=lambda: len(demo._queue.event_ids_to_events),
            sessions=lambda: len(demo.app.state_holder.session_data),
            faults=lambda: sum(faults.counts.values()),
        )


def settle() -> None:
    """Ends what the start was spared; what loading left behind in circles would else be frozen for good, 0.3 GB at times."""
    gc.collect()
    trim_memory()
    gc.freeze()
    gc.enable()


def leave(loading: Future | None) -> None:
    """Ends with status 2; at once while the model still loads, because torch aborts when Python goes before its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    if loading and not loading.done():
        os._exit(2)
    sys.exit(2)


if AS_PROGRAM:
    main(options, loading)
