"""What `train.evaluate` says before any work, and how it ends: nothing that was asked for is passed over, nothing is lost.

Run: `python -m pytest tests/train/test_evaluate_options.py`
"""

import threading
from types import SimpleNamespace

import pytest

from persona_bot.errors import UserError, exit_on_error
from persona_bot.persona import Persona
from persona_bot.settings import Settings
from tests.models import checkpoint_of
from train.data.dialogues import Dialogue, Utterance
from train.evaluate import EvalConfig, evaluate, main
from train.metrics import generation_eval
from train.metrics.evaluate_options import parse
from train.metrics.groups import GROUPS, NEED_NO_FILE, bar

CHATS = ["--transcripts", "t.md"]
FILE = ["--data", "d.json"]


@pytest.mark.parametrize(
    "arguments, flag",
    [
        ([*CHATS, "--json", "s.json"], "--json"),
        ([*CHATS, "--baselines"], "--baselines"),
        (["--only", "probes", "--baselines"], "--baselines"),
        ([*FILE, "--only", "hits", "--as-written"], "--as-written"),
        ([*FILE, "--only", "nats", "--replies-out", "r.txt"], "--replies-out"),
        ([*CHATS, "--replies-out", "r.txt"], "--replies-out"),
        ([*FILE, "--persona", "soldier"], "--persona"),
        ([*FILE, "--visits"], "--visits"),
        ([*FILE, "--everyday"], "--everyday"),
        ([*CHATS, "--visits", "--everyday"], "--everyday"),
    ],
)
def test_an_option_that_would_do_nothing_is_told(arguments, flag):
    with pytest.raises(
        UserError, match=f"^{flag} does nothing here: it needs .*; add it, or leave"
    ):
        parse(arguments, GROUPS, NEED_NO_FILE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "probes", "--json", "s.json"],
        [*FILE, "--only", "swap", "--as-written", "--baselines"],
        [*FILE, "--replies-out", "r.txt", *CHATS, "--everyday", "--persona", "soldier"],
        ["--side-by-side", "x.md", "--against", "m", "--persona", "soldier"],
    ],
)
def test_an_option_that_does_something_is_taken(arguments):
    parse(arguments, GROUPS, NEED_NO_FILE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "FILE", "--only", "nats", "--json", "FILE"],
        ["--data", "FILE:1", "--only", "nats", "--json", "LINK"],
        ["--transcripts", "FILE", "--persona", "FILE"],
        ["--data", "FILE", "--only", "nats", "--json", "NEW", *CHATS[:1], "NEW"],
    ],
)
def test_a_file_that_is_read_or_written_already_is_not_written_over(arguments, tmp_path, capsys):
    file, link, new = (tmp_path / name for name in ("own.json", "link.json", "new"))
    dialogue = (
        '[{"personality": ["i sing."], "utterances": [{"history": ["hi"], "candidates": ["ho"]}]}]'
    )
    file.write_text(dialogue)
    link.symlink_to(file)
    names = {"FILE": str(file), "LINK": str(link), "NEW": str(new)}
    with pytest.raises(SystemExit):
        main([*(swapped(argument, names) for argument in arguments), "--model", "nobody/nothing"])
    assert "would hold two things; what is read" in capsys.readouterr().err
    assert file.read_text() == dialogue and not new.exists()


def swapped(argument: str, names: dict[str, str]) -> str:
    for word, name in names.items():
        argument = argument.replace(word, name)
    return argument


def test_what_cannot_be_ranked_costs_the_other_scores_nothing(chat_model, chat_tokenizer, capsys):
    chat = checkpoint_of(chat_model, chat_tokenizer)
    alone = Dialogue(("i sing .",), (Utterance(("hi",), ("hello",)),))
    scores = evaluate(chat, [alone], EvalConfig(groups=["nats", "hits"]))["scores"]
    assert scores["nats_per_reply"] > 0 and not any("hits" in name for name in scores)
    assert "no hits@1: the file has a single candidate for each reply\n" in capsys.readouterr().err


@pytest.mark.parametrize("seed, drawn", [(-1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (2**32, 0)])
def test_any_whole_number_is_a_seed(seed, drawn):
    seeds = []
    model = SimpleNamespace(
        reply=lambda persona, turns, settings: seeds.append(settings.seed) or "hi"
    )
    assert generation_eval.say(model, Persona("", ("i sing.",)), ["hi"], Settings(), seed) == "hi"
    assert seeds == [drawn]


@pytest.mark.parametrize("fault, code", [(KeyboardInterrupt(), 130), (UserError("No."), 2)])
def test_who_is_interrupted_waits_for_no_more_replies_and_a_sentence_has_its_line(
    fault, code, capsys
):
    begun, never = [], threading.Event()

    def answer(k: int) -> None:
        begun.append(k)
        if k == 0:
            raise fault
        never.wait(0.02)

    with pytest.raises(SystemExit) as ended, exit_on_error():
        generation_eval.together(SimpleNamespace(at_once=1), answer, range(200), bar("replies"))
    assert ended.value.code == code and len(begun) < 100
    drawn, _, told = capsys.readouterr().err.rpartition("\r")
    assert drawn and told == ("No.\n" if code == 2 else "")
