"""The terminal chat, with the real generator on a tiny model: what is typed, what is printed, and how it ends.

Run: `python -m pytest tests/persona_bot/test_terminal.py`
"""

import io
import os
import signal
import subprocess
import sys

import pytest

from persona_bot import load_model
from persona_bot.__main__ import Chat, main, read_arguments
from persona_bot.checkpoints.load import load_checkpoint
from persona_bot.persona import load_presets, random_persona
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.children import program

SOLDIER = load_presets()["soldier"]


@pytest.fixture
def type_in(monkeypatch):
    """Makes the given lines, bytes or text, what stands on stdin."""

    def feed(*lines):
        content = b"".join(
            (line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines
        )
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return feed


@pytest.fixture
def chat(chat_folder):
    return Chat(
        LocalModel.plain(load_checkpoint(str(chat_folder), "cpu")),
        Settings(seed=5),
        SOLDIER,
        seed=5,
    )


def printed(text: str) -> str:
    return f"🪖 {''.join(c for c in text if c.isprintable() or c == chr(10))}\n"


def test_replies_are_the_generators_and_each_has_its_seed(chat_folder, type_in, capsys):
    model = load_model(str(chat_folder), "cpu")
    first = "".join(model.reply(SOLDIER, ["hello"], Settings(seed=5)))
    second = "".join(model.reply(SOLDIER, ["hello", first, "and you?"], Settings(seed=6)))
    type_in("hello", "", "and you?")
    assert (
        main(
            ["--model", str(chat_folder), "--device", "cpu", "--persona", "soldier", "--seed", "5"]
        )
        == 0
    )
    output = capsys.readouterr()
    assert output.out == printed(first) + printed(second)
    assert "\n".join(SOLDIER.sentences) in output.err and "on CPU, seed 5." in output.err


def test_flags_reach_the_sampler(chat_folder, type_in, capsys):
    model = load_model(str(chat_folder), "cpu")
    settings = Settings(
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_tokens=1,
        max_tokens=5,
        repetition_penalty=1.5,
        seed=1,
    )
    expected = "".join(model.reply(random_persona(1), ["hello"], settings))
    type_in("hello")
    flags = "--temperature 0 --top-p 0.5 --top-k 3 --min-tokens 1 --max-tokens 5 --repetition-penalty 1.5 --seed 1 --persona random"
    assert main(["--model", str(chat_folder), "--device", "cpu", *flags.split()]) == 0
    assert capsys.readouterr().out == printed(expected).replace("🪖", random_persona(1).face)


def test_model_and_endpoint_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("MODEL_ID", "user/mine")
    monkeypatch.setenv("MODEL_ENDPOINT", "http://127.0.0.1:9")
    options = read_arguments([])
    assert (options.model, options.endpoint) == ("user/mine", "http://127.0.0.1:9")
    assert read_arguments(["--model", "other"]).model == "other"


def test_bytes_that_are_no_text_and_overlong_messages_do_not_end_the_chat(
    chat_folder, type_in, capsys
):
    type_in(b"\xff\xfe\x00 hi", "x" * 1_001, "hello")
    assert (
        main(
            ["--model", str(chat_folder), "--device", "cpu", "--persona", "soldier", "--seed", "5"]
        )
        == 0
    )
    output = capsys.readouterr()
    assert output.out.count("🪖") == 2
    assert "The message has 1,001 characters and at most 1,000 fit; shorten it." in output.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--persona", "nobody"],
            "There is no persona 'nobody'; name a file, random, or one of environmentalist, soldier",
        ),
        (["--temperature", "9"], "The setting temperature must be a number from 0 to 2"),
        (["--model", "EMPTY"], "is no checkpoint: it holds no *.safetensors or *.gguf file"),
        (["--device", "abacus"], "The device 'abacus' cannot be used here; try --device cpu."),
        (["--device", "meta"], "The device 'meta' cannot be used here; try --device cpu."),
    ],
)
def test_a_users_error_is_one_line_and_exit_2(
    arguments, message, chat_folder, type_in, tmp_path, capsys
):
    type_in("hello")
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(chat_folder)]
    assert main([a.replace("EMPTY", str(tmp_path)) for a in arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1 and output.out == ""


def test_help_and_a_mistyped_persona_answer_before_torch_is_imported():
    script = (
        "import sys\nfrom persona_bot.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    print('help', end.code)\n"
        "print('mistyped', main(['--persona', 'nobody']))\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-3:] == ["help 0", "mistyped 2", "False False"]


def chatted(folder, output) -> tuple[int, str]:
    """Exit status and stderr after a message, of a program whose replies go to `output`."""
    options = ["--model", str(folder), "--device", "cpu", "--persona", "soldier"]
    done = subprocess.run(
        [sys.executable, "-m", "persona_bot", *options],
        input="hi\nhi\n", stdout=output, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_it_ends_quietly_when_nobody_reads_on(chat_folder):
    reader, writer = os.pipe()
    os.close(reader)
    status, told = chatted(chat_folder, writer)
    os.close(writer)
    assert status == 0 and told.endswith(SOLDIER.sentences[-1] + "\n\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_is_full_is_told_in_one_line(chat_folder):
    with open("/dev/full", "w") as full:
        status, told = chatted(chat_folder, full)
    why = "The chat cannot go on (No space left on device); look at where it is written to.\n"
    assert status == 2 and told.endswith(SOLDIER.sentences[-1] + "\n\n" + why)


def test_ctrl_c_stops_the_reply_and_not_the_program(chat, type_in, capsys):
    calls = []

    def interrupt_the_twelfth_token(*_):
        calls.append(1)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)

    chat.settings = Settings(seed=5, min_tokens=40)  # long enough to be stopped
    whole = "".join(chat.model.reply(SOLDIER, ["hello"], chat.settings))
    chat.model.backend.model.register_forward_pre_hook(interrupt_the_twelfth_token)
    type_in("hello", "still there?")
    chat.run()
    stopped, after = chat.turns[1], chat.turns[3]
    assert chat.turns[::2] == ["hello", "still there?"]
    assert stopped and whole.startswith(stopped) and len(stopped) < len(whole) and after
    assert capsys.readouterr().out == printed(stopped) + printed(after)
    assert len(calls) > 12 + 40  # the second reply ran in full


def test_ctrl_c_at_the_prompt_leaves(chat, monkeypatch, capsys):
    class Keyboard(io.StringIO):
        def readline(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Keyboard())
    chat.run()
    assert chat.turns == [] and capsys.readouterr().out == ""


def test_commands(chat, type_in, capsys):
    type_in("/retry", "hello", "/quit", "never read")
    chat.run()
    first = list(chat.turns)
    assert "There is no reply to try again yet" in capsys.readouterr().err and len(first) == 2
    type_in("/retry")
    chat.run()
    assert chat.turns[0] == "hello" and len(chat.turns) == 2 and chat.turns[1] != first[1]
    type_in("again", "/retry")
    chat.run()
    assert len(chat.turns) == 4
    type_in("/new")
    chat.run()
    assert chat.turns == [] and chat.persona == SOLDIER
    type_in("hello", "/persona vampire")
    chat.run()
    assert chat.turns == [] and chat.persona == load_presets()["vampire"]
    capsys.readouterr()
    type_in("/persona random", "/persona", "/persona nobody", "/dance")
    chat.run()
    assert chat.persona == random_persona(6 + 1)  # 6 named the vampire
    errors = capsys.readouterr().err
    assert "There is no persona 'nobody'" in errors and "/retry            another reply" in errors
    assert errors.count(chat.persona.sentences[0]) == 2


def test_a_reply_cannot_steer_the_terminal(chat, type_in, capsys, monkeypatch):
    class Reply:
        text = "a\x1b[2Jb\u202ec\x07\nd"

        def __iter__(self):
            return iter(self.text)

    monkeypatch.setattr(LocalModel, "reply", lambda *_: Reply())
    type_in("hello")
    chat.run()
    assert capsys.readouterr().out == "🪖 a[2Jbc\nd\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_the_whole_program_in_a_real_terminal(chat_folder):
    import pty

    parent, child = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "persona_bot",
        "--model",
        str(chat_folder),
        "--device",
        "cpu",
        "--seed",
        "1",
    ]
    with program(command, stdin=child, stdout=child, stderr=child) as running:
        os.close(child)
        assert "i work at greenpeace." in read_until(parent, "you: ")
        os.write(parent, b"hello\n")
        assert "🌱" in read_until(parent, "you: ")
        os.write(parent, b"\x04")  # Ctrl-D
        assert running.wait(timeout=120) == 0
    os.close(parent)


def read_until(terminal: int, end: str) -> str:
    text = b""
    while not text.decode("utf-8", "ignore").endswith(end):
        text += os.read(terminal, 1_000)
    return text.decode("utf-8")
