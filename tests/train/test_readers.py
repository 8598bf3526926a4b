"""Other people's files and data sets: the same dialogues from every layout, and one sentence for what is none.

Run: `python -m pytest tests/train/test_readers.py`
"""

import contextlib
import csv
import gc
import gzip
import io
import json
import tarfile
import warnings
from pathlib import Path

import pytest

from persona_bot.errors import UserError
from persona_bot.layouts import system_text
from persona_bot.persona import Persona
from train.data.dialogues import as_entries, conversations, read_dialogues
from train.data.sources import held_out_part
from train.dialogues import main

PERSONA = ["i keep bees.", "i am afraid of heights."]
TURNS = ["hello! any hobbies?", "yes, i keep bees.", "on a roof?", "never, too high!"]
ENTRY = {
    "personality": PERSONA,
    "utterances": [{"history": TURNS[:k], "candidates": [TURNS[k]]} for k in (1, 3)],
}
ROLES = ["user", "assistant"]
MESSAGES = {
    "messages": [
        {"role": "system", "content": system_text(Persona("", tuple(PERSONA)))},
        *({"role": ROLES[k % 2], "content": turn} for k, turn in enumerate(TURNS)),
    ]
}
SHAREGPT = {
    "id": "7",
    "conversations": [
        {"from": "system", "value": "\n".join(PERSONA)},
        *({"from": ["human", "gpt"][k % 2], "value": turn} for k, turn in enumerate(TURNS)),
    ],
}
FLAT = [
    {"personality": PERSONA, "history": TURNS[:k], "candidates": [TURNS[k]], "conv_id": 0}
    for k in (1, 3)
]
PARLAI = "\n".join(
    [
        *(f"{k} your persona: {sentence}" for k, sentence in enumerate(PERSONA, 1)),
        f"3 {TURNS[0]}\t{TURNS[1]}",
        f"4 {TURNS[2]}\t{TURNS[3]}",
    ]
)
PARLAI_NAMED = "\n".join(
    [
        "text:"
        + "\\n".join(f"your persona: {s}" for s in PERSONA)
        + f"\\n{TURNS[0]}\tlabels:{TURNS[1]}\tepisode_done:False",
        f"text:{TURNS[2]}\tlabels:{TURNS[3]}\tepisode_done:True",
    ]
)


def lines(*rows: dict) -> str:
    return "\n".join(map(json.dumps, rows))


def table(rows: list[dict], delimiter: str = ",", **how) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter, **how)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


PANDAS = [{k: str(v) for k, v in row.items()} for row in FLAT]
CELLS = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in FLAT]
LAYOUTS = {
    "persona-chat": json.dumps([ENTRY]),
    "parts": json.dumps({"train": [ENTRY], "valid": [ENTRY]}),
    "persona-chat lines": lines(ENTRY),
    "messages": json.dumps([MESSAGES]),
    "messages lines": lines(MESSAGES),
    "messages and a persona column": lines(
        {"persona": " ".join(PERSONA), "messages": MESSAGES["messages"][1:]}
    ),
    "messages, the system turn by its newer name": lines(
        {"messages": [{**MESSAGES["messages"][0], "role": "developer"}, *MESSAGES["messages"][1:]]}
    ),
    "messages of parts": lines(
        {
            "personas": PERSONA,
            "messages": [
                {"role": m["role"], "content": [{"type": "text", "text": m["content"]}]}
                for m in MESSAGES["messages"][1:]
            ],
        }
    ),
    "prompt and completion of messages": lines(
        {"prompt": MESSAGES["messages"][:2], "completion": MESSAGES["messages"][2:]}
    ),
    "sharegpt": json.dumps([SHAREGPT], indent=2),
    "sharegpt lines": lines(SHAREGPT),
    "texts without roles": lines({"persona": PERSONA, "dialog": TURNS}),
    "a turn a line, csv": table([{"Persona": " ".join(PERSONA), "chat": "\n".join([*TURNS, ""])}]),
    "a turn a line, who speaks before it": lines(
        {
            "personas": PERSONA,
            "Dialogue": f"User: {TURNS[0]}\nBOT : {TURNS[1]}\n\nuser: {TURNS[2]}\nbot: {TURNS[3]}",
        }
    ),
    "texts with who speaks": lines(
        {
            "system": " ".join(PERSONA),
            "turns": [f"{ROLES[k % 2]}: {turn}" for k, turn in enumerate(TURNS)],
        }
    ),
    "a reply a row": json.dumps(FLAT),
    "a reply a row, without numbers": lines(
        *({k: v for k, v in row.items() if k != "conv_id"} for row in FLAT)
    ),
    "csv": table(CELLS),
    "csv of pandas": table(PANDAS),
    "csv of pandas, messages": table([{k: str(v) for k, v in MESSAGES.items()}]),
    "one entry over lines": json.dumps(ENTRY, indent=2),
    "one conversation over lines": "\n" + json.dumps(SHAREGPT, indent=1),
    "csv, every name and cell in quotes": table(CELLS, quoting=csv.QUOTE_ALL),
    "csv, blanks behind commas": table(CELLS, quoting=csv.QUOTE_ALL).replace('","', '", "'),
    "semicolons": table(CELLS, ";"),
    "tabs": table(CELLS, "\t"),
    "parlai": PARLAI,
    "parlai, counted from 0": "\n".join(
        f"{int(line[0]) - 1}{line[1:]}" for line in PARLAI.split("\n")
    ),
    "parlai named": PARLAI_NAMED,
}


def tar_of(content: bytes) -> bytes:
    packed, entry = io.BytesIO(), tarfile.TarInfo("chats.json")
    entry.size = len(content)
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def write(tmp_path, content: str | bytes, name: str = "chats") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_dialogues(path)
    told = str(caught.value)
    assert "\n" not in told and told.endswith(".")
    return told.removeprefix(str(path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_dialogue(tmp_path, layout):
    assert as_entries(read_dialogues(write(tmp_path, LAYOUTS[layout]))) == [ENTRY]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pack", ["mark", "utf-16", "gzip", "utf-16 in gzip", "crlf"])
def test_and_however_it_is_packed(tmp_path, layout, pack):
    text = LAYOUTS[layout]
    content = text.encode(
        "utf-16" if "utf-16" in pack else "utf-8-sig" if pack == "mark" else "utf-8"
    )
    content = gzip.compress(content) if "gzip" in pack else content
    content = content.replace(b"\n", b"\r\n") if pack == "crlf" and "\r" not in text else content
    assert as_entries(read_dialogues(write(tmp_path, content))) == [ENTRY]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(FLAT), tmp_path / "chats")
    assert as_entries(read_dialogues(tmp_path / "chats")) == [ENTRY]
    (tmp_path / "chats").write_bytes(b"PAR1 and then nothing")
    assert refusal(tmp_path / "chats") == " is a damaged Parquet table; get it again."


def test_synthetic_persona_chat_is_read_from_both_sides(tmp_path):
    text = "User 1: Hi!\nUser 2: hello\nthere\nUser 1: I row.\nUser 2: I sail."
    row = {
        "user 1 personas": "I row.\nI sing.",
        "user 2 personas": "I sail.",
        "Best Generated Conversation": text,
    }
    second, first = read_dialogues(write(tmp_path, table([row])))
    assert (second.personality, first.personality) == (("I sail.",), ("I row.", "I sing."))
    assert conversations(second) == [["Hi!", "hello\nthere", "I row.", "I sail."]]
    assert conversations(first) == [["", "Hi!", "hello\nthere", "I row."]]


def test_who_speaks_twice_running(tmp_path):
    said = [
        ("user", "hi"),
        ("user", "you?"),
        ("assistant", "one"),
        ("assistant", "two"),
        ("user", "bye"),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in said]}
    (dialogue,) = read_dialogues(write(tmp_path, lines(row)))
    assert dialogue.personality == ()
    assert conversations(dialogue) == [["hi\nyou?", "one", "", "two"]]


def test_parlai_conversations_candidates_and_partners_personas(tmp_path):
    text = "\n".join(
        [
            "1 partner's persona: i row.",
            "2 your persona: i sail.",
            "3 hi\tahoy !\t\tno .|ahoy !|yes .",
            "1 your persona: i bake.",
            "2 __SILENCE__\tbread ?",
        ]
    )
    first, second = read_dialogues(write(tmp_path, text))
    assert first.utterances[0].candidates == ("no .", "yes .", "ahoy !")
    assert (first.personality, second.personality) == (("i sail.",), ("i bake.",))
    assert second.utterances[0].history == ("__SILENCE__",)


def test_a_parlai_number_that_is_not_higher_begins_a_conversation(tmp_path):
    text = "0 your persona: i sail.\n1 hi\tahoy !\n0 your persona: i bake.\n1 hi\tbread ?"
    first, second = read_dialogues(write(tmp_path, text))
    assert (first.personality, second.personality) == (("i sail.",), ("i bake.",))


def test_a_parlai_line_without_a_reply_is_no_lost_turn(tmp_path):
    (dialogue,) = read_dialogues(write(tmp_path, "1 hi\tahoy !\n2 and you?\n3 bye\tciao"))
    assert conversations(dialogue) == [["hi", "ahoy !", "and you?\nbye", "ciao"]]


def test_a_reply_that_is_named_beside_candidates_is_the_gold_one(tmp_path):
    row = {"history": ["hi"], "candidates": ["ahoy", "no", "yes"], "reply": "ahoy"}
    (dialogue,) = read_dialogues(write(tmp_path, lines(row)))
    assert dialogue.utterances[0].candidates == ("no", "yes", "ahoy")


@pytest.mark.parametrize(
    "row, asked",
    [
        ({"prompt": "hi!", "completion": "hello."}, "hi!"),
        ({"Prompt": "hi!", "response": "hello."}, "hi!"),
        ({"instruction": "greet.", "input": "hi!", "output": "hello."}, "greet.\nhi!"),
        ({"instruction": "greet.", "input": "", "output": "hello."}, "greet."),
        ({"question": "hi!", "answer": "hello.", "id": 3}, "hi!"),
        ({"input": "hi!", "output": "hello."}, "hi!"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "csv"])
def test_a_pair_a_row_is_one_exchange(tmp_path, row, asked, form):
    rows = [{**row, "persona": "i keep bees. i am tall."}] * 2
    path = write(tmp_path, lines(*rows) if form == "lines" else table(rows))
    utterance = {"history": [asked], "candidates": ["hello."]}
    expected = {"personality": ["i keep bees.", "i am tall."], "utterances": [utterance]}
    assert as_entries(read_dialogues(path)) == [expected] * 2


def test_of_a_prompt_of_several_turns_the_completion_is_learnt(tmp_path):
    turns = MESSAGES["messages"]
    path = write(tmp_path, lines({"prompt": turns[:4], "completion": turns[4:]}))
    assert as_entries(read_dialogues(path)) == [{**ENTRY, "utterances": ENTRY["utterances"][1:]}]


@pytest.mark.parametrize("completion", [None, "", [], 7, [{"role": "user", "content": "hi"}]])
def test_a_pair_without_an_answer_is_told(tmp_path, completion):
    told = refusal(write(tmp_path, lines({"prompt": "hi!", "completion": completion})))
    assert told.startswith(": line 1")


def test_a_turn_over_lines_is_one_where_speakers_are_named(tmp_path):
    path = write(tmp_path, lines({"chat": "User: hi!\n1: you?\nBot: hello.\nand: bye."}))
    utterance = {"history": ["hi!\n1: you?"], "candidates": ["hello.\nand: bye."]}
    assert as_entries(read_dialogues(path)) == [{"personality": [], "utterances": [utterance]}]


@pytest.mark.parametrize("chat", ["Ann: hi!\nBen: hello.", ["Ann: hi!", "Ben: hello."]])
def test_names_that_are_no_roles_are_told_and_not_learnt(tmp_path, chat):
    told = refusal(write(tmp_path, lines({"chat": chat})))
    assert told == (
        ": line 1, message 1: the role 'ann' is not known; use one system turn, then user and assistant."
    )


@pytest.mark.parametrize("chat", ["", "\n", [], None, 7])
def test_a_chat_without_a_turn_is_told(tmp_path, chat):
    told = refusal(write(tmp_path, lines({"chat": chat})))
    assert told == ": line 1: has an empty conversation, or none."


def test_half_a_character_is_read_as_a_question_mark(tmp_path, capsys):
    """Programs cut emojis in two; no tokenizer, and no terminal, takes a half."""
    row = {
        "personality": ["i like \ud83d"],
        "history": ["hi \ud83d\ude00 \ude00"],
        "reply": "\ud83d",
    }
    main([str(write(tmp_path, lines(row)))])
    assert (
        "persona: i like ?\n  partner: hi \U0001f600 ?\n      bot: ?\n" in capsys.readouterr().out
    )


def test_a_reply_with_weight_0_is_learnt_and_that_is_said(tmp_path, capsys):
    said = [USER, {"role": "assistant", "content": "ahoy", "weight": 0}]
    path = write(tmp_path, lines({"persona": "i sail.", "messages": [*said, *said]}))
    assert len(read_dialogues(path)[0].utterances) == 2
    assert (
        capsys.readouterr().err == f"note: {path}: 2 replies with weight 0 learnt like any other.\n"
    )


@pytest.mark.parametrize("odd", "\u2028\u2029\u0085")
def test_a_text_may_hold_what_splitlines_takes_for_the_end_of_a_line(tmp_path, odd):
    said = [{**USER, "content": f"hi{odd}there"}, {"role": "assistant", "content": "ahoy"}]
    text = json.dumps({"messages": said}, ensure_ascii=False)
    one, two = read_dialogues(write(tmp_path, f"{text}\n{text}\n"))
    assert one == two and one.utterances[0].history == (f"hi{odd}there",)


def test_one_entry_over_lines_is_no_file_of_parts_and_its_faults_are_told(tmp_path):
    path = write(tmp_path, json.dumps(ENTRY, indent=2))
    assert held_out_part(str(path)) == []
    path = write(tmp_path, json.dumps({"messages": [USER]}, indent=2))
    assert refusal(path) == ": entry 1: holds no reply of the assistant."


@pytest.mark.parametrize(
    "cell", ["['hi' 'there']", "['hi', there]", "['hi', '\\d']", "['" + "a" * 100_000 + "']"]
)
def test_a_cell_that_python_did_not_write_so_is_no_list(tmp_path, cell):
    rows = table([{"history": cell, "reply": "ahoy"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "'history' must be a list" in refusal(write(tmp_path, rows))


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "content, told",
    [
        (lines(ENTRY, {"text": "x"}), ": line 2: has 'text'; expected 'personality' with"),
        (lines(ENTRY) + "\n{\"a\": \n", ": line 2: is not valid JSON (Expecting value, column 1"),
        (lines({"messages": []}), ": line 1: has an empty conversation, or none."),
        (lines({"messages": [USER]}), ": line 1: holds no reply of the assistant."),
        (lines({"messages": [{"role": "user"}]}), ": line 1, message 1: has no 'role' and 'content'"),
        (lines({"messages": [USER, {"role": "tool", "content": "x"}]}), ": line 1, message 2: the role 'tool' is not known;"),
        (lines({"messages": [USER, {"role": "system", "content": "x"}]}), ": line 1, message 2: the role 'system' stands behind"),
        (json.dumps([MESSAGES, {"messages": [USER, 7]}], indent=0), ": entry 2, message 2 (line 32, column 1): has no 'role'"),
        (json.dumps({"train": [{"text": "x"}]}), ": entry 1 (line 1, column 12): has 'text'; expected"),
        (b"PK\x03\x04rest", " is a ZIP archive"),
        (b"\x80\x04pickle", " is a pickle, which can run code when opened"),
        (b"<!DOCTYPE html>", " is a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", " is a pointer of Git LFS"),
        (b"SQLite format 3\x00", " is an SQLite database"),
        (b"%PDF-1.7", " is a PDF"),
        ("[{}]".encode("utf-16-le"), " is not text in UTF-8; save it as UTF-8"),
        (b"hello, this is a letter.", " is none of JSON, JSON lines, ParlAI's text, CSV or Parquet"),
        (b"name,age\nbob,7\n", " is none of JSON"),
        (b"subject,body\nhi,hello\n", " is none of JSON, JSON lines, ParlAI's text, CSV or Parquet with dialogues in it; "
            "a table needs a first line that names 'personality' with"),
        (b"<|im_start|>user\nhi<|im_end|>\n", " is ChatML as a chat template writes it; write its turns as JSON"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", " is an old office document; save its table as CSV"),
        (b"ARROW1\x00\x00", " is an Arrow table; save it as Parquet"),
        (b"\xff\xff\xff\xff\x10\x00", " is an Arrow table; save it as Parquet"),
        (tar_of(b"[]"), " is a tar archive; unpack it, and give the file of dialogues in it."),
        (gzip.compress(tar_of(b"[]")), " is a tar archive; unpack it"),
        (b'history,reply\n"[""hi""]",ahoy\n"[""hi""]","ahoy\n"[""x""]",y\n', " is no CSV table after line 2 (',' expected"),
        (b'history,reply\n"' + b"[" * 5000 + b'",ahoy\n', ": line 2, utterance 1: 'history' must be a list"),
        (b"1 your persona: i sail.\n2 hi   ahoy\n", ": line 1: no line of the file has a reply; it stands behind a tab"),
        (b"1" * 5000 + b" hi\tahoy\n", ": line 1: is neither"),
        (lines({"dialog": [[0, "hi"], [1, "ahoy"]]}, ENTRY), ": line 1, message 1: has no 'role'"),
        (json.dumps([{"dialog": [USER, [1, "ahoy"]]}]), ": entry 1, message 2 (line 1, column 49): has no 'role'"),
        (gzip.compress(lines(ENTRY).encode())[:-9], " is a damaged gzip file"),
        (b"\xff\xfe\x00\xd8", " is damaged UTF-16"),
        (PARLAI.encode() + b"\n5 caf\xe9\tx", " is not text in UTF-8"),
        (lines(ENTRY).encode() + b"\n{\"a\": \"\xe9\"}", ": line 2: is not valid JSON (bytes that are no UTF-8 text)"),
        (PARLAI + "\nhello", ": line 5: is neither"),
    ],
)  # fmt: skip
def test_what_holds_no_dialogues_is_one_sentence(tmp_path, content, told):
    assert refusal(write(tmp_path, content)).startswith(told)


def test_the_command_converts(tmp_path, capsys):
    path = write(tmp_path, lines(SHAREGPT, MESSAGES))
    main([str(path), "--to", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == [ENTRY, ENTRY]
    told = capsys.readouterr().out
    assert f"\n{path}: 2 dialogues, 4 replies, no problems.\nThe first" in told
    with pytest.raises(SystemExit) as ended:
        main([str(path), "--to", str(tmp_path)])
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == f"{tmp_path} cannot be written (Is a directory); write somewhere else.\n"
    )


PACKED = {
    "plain": LAYOUTS["csv"],
    "utf-16": LAYOUTS["csv"].encode("utf-16"),
    "gzip": gzip.compress(LAYOUTS["csv"].encode()),
    "utf-16 in gzip": gzip.compress(LAYOUTS["csv"].encode("utf-16")),
    "nothing known": "what is this?",
    "a pickle": b"\x80\x04",
    "half a gzip": gzip.compress(LAYOUTS["csv"].encode() * 99)[:60],
    "no gzip": b"\x1f\x8b no gzip at all",
    "half a UTF-16": b"\xff\xfea\x00b\x00\xd8",
}


@pytest.mark.parametrize("content", PACKED.values(), ids=PACKED)
def test_a_file_is_closed_whatever_it_holds(tmp_path, content):
    path = write(tmp_path, content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with contextlib.suppress(UserError):
            read_dialogues(path)
        gc.collect()
    assert not [str(one.message) for one in told if str(path) in str(one.message)]
