"""Chat with a persona in the terminal.

Run: `python -m persona_bot --persona soldier`, or with any file of sentences, or `--persona random --seed 7`. Type a message and
press Enter; Ctrl-C stops a reply, and leaves at the prompt. Piped messages work too: `echo "hi, who are you?" | python -m persona_bot`.
"""

import os
import signal

if (
    __name__ == "__main__"
):  # until all is imported; an exception would leave the imports with a traceback
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import io
import random
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

# torch takes seconds to import: not for --help or a mistyped persona, so the front door imports it late
from persona_bot import load_model
from persona_bot.errors import UserError
from persona_bot.persona import Persona, check_message, find_persona, load_presets, persona_text
from persona_bot.settings import FLAGS, Settings, add_flags, given

if TYPE_CHECKING:
    from persona_bot.replies.reply import Model, Reply

HELP = """/retry            another reply to your last message
/new              forget the conversation, keep the persona
/persona [NAME]   show the persona, or talk to another: a preset, a file, or random
/quit             leave (also Ctrl-C or Ctrl-D)"""


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 2 after an error that a user can cause, told in one line on stderr. Nobody reads on: 0, too."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed by who started this program
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # bytes that are no text, or a face that the terminal lacks, must not end the chat
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        options = read_arguments(arguments)
        persona = find_persona(options.persona, options.seed)
        model, settings = load(options)
        print(
            f"{model.name} on {model.device_label}, seed {options.seed}. /help shows what you can type.",
            file=sys.stderr,
        )
        Chat(model, settings, persona, options.seed).run()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while loading
        return 130
    except OSError as error:
        gone = isinstance(error, BrokenPipeError)
        if not gone:
            print(
                f"The chat cannot go on ({error.strerror}); look at where it is written to.",
                file=sys.stderr,
            )
        # Python writes out what is left when it ends, and would fail again
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        return 0 if gone else 2
    return 0


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m persona_bot", description="Chat with a persona in the terminal."
    )
    presets = ", ".join(load_presets())
    parser.add_argument(
        "--persona", default="environmentalist", help=f"{presets}, a file of sentences, or random"
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID"),
        help="Hub repository (USER/NAME or USER/NAME@REVISION) or folder; default: the one that comes along",
    )
    parser.add_argument(
        "--endpoint",
        default=os.environ.get("MODEL_ENDPOINT"),
        help="an OpenAI-compatible server that runs it instead",
    )
    parser.add_argument("--device", help="cuda, mps or cpu; default: the best there is")
    parser.add_argument(
        "--seed", type=int, help="makes a random persona and the replies come out the same again"
    )
    sampling = parser.add_argument_group("how a reply is sampled (the defaults are good)")
    add_flags(sampling, Settings, FLAGS)
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    return options


def load(options: argparse.Namespace) -> tuple["Model", Settings]:
    """The model and the settings, which are checked first."""
    settings = Settings(**given(options, Settings))
    if sys.stderr.isatty() and not options.endpoint:
        print("Loading the model ...", file=sys.stderr)
    model = load_model(options.model, options.device, options.endpoint)
    if model.problem:
        raise UserError(model.problem)
    return model, settings


class Chat:
    """The conversation at the terminal; replies go to stdout, everything else to stderr."""

    def __init__(self, model: "Model", settings: Settings, persona: Persona, seed: int):
        self.model = model
        self.settings = settings
        self.seed = seed  # of the next random persona; each reply gets its own from the settings'
        self.persona = persona
        self.turns: list[str] = []  # alternating, the partner's first
        self.replies = 0

    def run(self) -> None:
        """Reads messages until /quit, Ctrl-C at the prompt, or the end of the input."""
        self.show_persona()
        while (line := read_line()) is not None and line != "/quit":
            try:
                self.obey(line) if line.startswith("/") else self.say(line)
            except UserError as error:
                print(error, file=sys.stderr)

    def obey(self, line: str) -> None:
        command, _, name = line.partition(" ")
        if command == "/new":
            self.turns = []
        elif command == "/retry" and self.turns:
            self.say(self.turns[-2], self.turns[:-2])
        elif command == "/retry":
            raise UserError("There is no reply to try again yet; type a message first.")
        elif command == "/persona":
            if name:
                self.seed += 1
                self.persona, self.turns = find_persona(name.strip(), self.seed), []
            self.show_persona()
        else:
            print(HELP, file=sys.stderr)

    def show_persona(self) -> None:
        print(
            f"\n{self.persona.face} {self.persona.name}\n{persona_text(self.persona)}\n".lstrip(
                " "
            ),
            file=sys.stderr,
        )

    def say(self, message: str, before: list[str] | None = None) -> None:
        """Streams the reply to `message` and remembers both, also what came before an error; without any text nothing changes."""
        if not message:
            return
        message = check_message(message)
        before = self.turns if before is None else before
        turns = [*before, message]
        # a retry must differ, and a second run must not
        seed = ((self.settings.seed or 0) + self.replies) % 2**32
        self.replies += 1
        reply = self.model.reply(self.persona, turns, replace(self.settings, seed=seed))
        try:
            self.print_reply(reply)
        finally:
            if reply.text:
                self.turns = [*turns, reply.text]

    def print_reply(self, reply: "Reply") -> None:
        """Prints what comes until its end, or Ctrl-C."""
        print(f"{self.persona.face} ".lstrip(), end="", flush=True)
        try:
            for piece in reply:
                # no escape codes
                print("".join(c for c in piece if c.isprintable() or c == "\n"), end="", flush=True)
        except KeyboardInterrupt:
            reply.close()
        finally:
            print(flush=True)


def read_line() -> str | None:
    """What was typed, or None at the end of the input and on Ctrl-C."""
    prompt = "you: " if sys.stdin.isatty() else ""
    if not sys.stdout.isatty():  # which holds nothing but replies then
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    try:
        return input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return None


if __name__ == "__main__":
    try:
        import readline  # noqa: F401  (arrow keys at the prompt; Windows has its own)
    except ImportError:
        pass
    signal.signal(signal.SIGINT, before)
    sys.exit(main())
