"""train/dialogues.py: what reads, what is refused and in which words; no mutated file may end in anything but a UserError."""

import copy
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from persona_bot.errors import UserError
from train.data.dialogues import Dialogue, Utterance, conversations, read_dialogues
from train.data.entry import MAX_CHARS

EXAMPLE = Path(__file__).parents[2] / "train" / "example_dialogues.json"
GOOD = {
    "personality": ["i sail."],
    "utterances": [{"history": ["hi"], "candidates": ["no !", "ahoy !"]}],
}


def write(tmp_path, content) -> Path:
    path = tmp_path / "chats.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refusal(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_dialogues(path, **options)
    return str(caught.value)


def one(personality=("p",), *utterances) -> Dialogue:
    return Dialogue(personality, tuple(Utterance(*u) for u in utterances))


# ---- what reads


def test_a_list_and_the_parts_of_an_object(tmp_path):
    other = {**GOOD, "personality": ["i bake."]}
    sailor = Dialogue(("i sail.",), (Utterance(("hi",), ("no !", "ahoy !")),))
    baker = sailor._replace(personality=("i bake.",))
    assert read_dialogues(write(tmp_path, [GOOD, other])) == [sailor, baker]
    assert read_dialogues(write(tmp_path, [GOOD]), "valid") == [sailor], "a list has no parts"
    parts = write(tmp_path, {"comment": ["x", {"y": []}], "valid": [other], "train": [GOOD]})
    assert (read_dialogues(parts), read_dialogues(parts, "valid")) == ([sailor], [baker])


def test_the_mark_of_windows_editors_is_skipped(tmp_path):
    assert len(read_dialogues(write(tmp_path, b"\xef\xbb\xbf" + json.dumps([GOOD]).encode()))) == 1


def test_the_gold_reply_alone_is_enough_and_empty_distractors_are_dropped(tmp_path):
    utterances = [
        {"history": ["hi"], "candidates": ["gold"]},
        {"history": ["yo"], "candidates": ["", "gold"]},
    ]
    (dialogue,) = read_dialogues(
        write(tmp_path, [{"personality": ["p"], "utterances": utterances}])
    )
    assert [u.candidates for u in dialogue.utterances] == [("gold",), ("gold",)]


@pytest.mark.parametrize("silence", ["__SILENCE__", "__ SILENCE __", "", "  "])
def test_every_way_to_write_silence_is_one(tmp_path, silence):
    entry = {"personality": ["p"], "utterances": [{"history": [silence], "candidates": ["hello"]}]}
    (dialogue,) = read_dialogues(write(tmp_path, [entry]))
    assert dialogue.utterances[0].history == ("__SILENCE__",)
    assert conversations(dialogue) == [["", "hello"]]


def test_equal_strings_are_one_object(tmp_path):
    first, second = read_dialogues(write(tmp_path, [GOOD, GOOD]))
    assert first.utterances[0].candidates[0] is second.utterances[0].candidates[0]


def test_two_own_turns_running_get_a_silence_between_them(tmp_path):
    # "two" and "three" are both the persona's
    turns = ["hi", "one", "ok", "two", "three", "what ?", "four"]
    utterances = [{"history": turns[:k], "candidates": [turns[k]]} for k in (1, 3, 4, 6)]
    (dialogue,) = read_dialogues(
        write(tmp_path, [{"personality": ["p"], "utterances": utterances}])
    )
    assert [u.history for u in dialogue.utterances][2:] == [
        ("hi", "one", "ok", "two", "__SILENCE__"),
        ("hi", "one", "ok", "two", "__SILENCE__", "three", "what ?"),
    ]
    assert conversations(dialogue) == [["hi", "one", "ok", "two", "", "three", "what ?", "four"]]


@pytest.mark.parametrize(
    "missing",
    [{}, {"personality": []}, {"personality": [""]}, {"personality": None}, {"personality": ""}],
)
def test_no_persona_is_a_persona_without_sentences_and_said(tmp_path, capsys, missing):
    entry = {"utterances": GOOD["utterances"], **missing}
    path = write(tmp_path, [entry, GOOD, entry])
    assert [dialogue.personality for dialogue in read_dialogues(path)] == [(), ("i sail.",), ()]
    note = f"note: {path}: 2 dialogues without a persona: no sentences steer these replies.\n"
    assert capsys.readouterr().err == note


def test_sentences_without_a_word_are_left_out_and_said(tmp_path, capsys):
    personas = [["i sail.", ""], ["", " "], ["   "]]
    path = write(tmp_path, [{**GOOD, "personality": persona} for persona in personas])
    assert [dialogue.personality for dialogue in read_dialogues(path)] == [("i sail.",), (), ()]
    assert capsys.readouterr().err.splitlines() == [
        f"note: {path}: 2 dialogues without a persona: no sentences steer these replies.",
        f"note: {path}: 4 sentences without a word left out of a persona.",
    ]


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("i sail.", ("i sail.",)),
        ("i sail. i bake! do i?\ni row", ("i sail.", "i bake!", "do i?", "i row")),
        ("我养蜂。我怕高。", ("我养蜂。", "我怕高。")),
        ("मैं तैरता हूँ। मैं गाता हूँ।", ("मैं तैरता हूँ।", "मैं गाता हूँ।")),
    ],
)
def test_a_persona_as_one_text_is_split_into_sentences(tmp_path, text, sentences):
    (dialogue,) = read_dialogues(write(tmp_path, [{**GOOD, "personality": text}]))
    assert dialogue.personality == sentences
    (named,) = read_dialogues(
        write(tmp_path, [{"persona": text, "utterances": GOOD["utterances"]}])
    )
    assert named.personality == sentences


def test_a_history_of_an_even_length_is_counted_back_from_the_reply(tmp_path, capsys):
    utterances = [
        {"history": ["welcome", "thanks"], "candidates": ["sit"]},
        {"history": ["welcome", "thanks", "sit", "i will"], "candidates": ["good"]},
        {"history": ["other", "words", "than", "before"], "candidates": ["yes"]},
        {"history": [], "candidates": ["first"]},
        {"history": [], "candidates": []},
    ]
    path = write(tmp_path, [{"personality": ["p"], "utterances": utterances}])
    (dialogue,) = read_dialogues(path)
    assert [u.history for u in dialogue.utterances] == [
        ("__SILENCE__", "welcome", "thanks"),
        ("__SILENCE__", "welcome", "thanks", "sit", "i will"),
        ("__SILENCE__", "other", "words", "than", "before"),
        ("__SILENCE__",),
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"note: {path}: 3 histories with an even number of turns: counted back from the reply, "
        "so the persona speaks first there.",
        f"note: {path}: 1 utterance without history and reply left out.",
    ]


# ---- whole conversations


def test_histories_that_go_on_share_one_conversation():
    dialogue = one(("p",), (("a",), ("x", "b")), (("a", "b", "c"), ("y", "d")))
    assert conversations(dialogue) == [["a", "b", "c", "d"]]


def test_histories_that_do_not_go_on_start_another():
    dialogue = one(("p",), (("a",), ("b",)), (("a", "other", "c"), ("d",)), (("e",), ("f",)))
    assert conversations(dialogue) == [["a", "b"], ["a", "other", "c", "d"], ["e", "f"]]


def test_histories_cut_to_their_newest_turns_go_on():
    turns = list("abcdefgh")
    dialogue = one(("p",), *((tuple(turns[max(0, k - 3) : k]), (turns[k],)) for k in (1, 3, 5, 7)))
    assert conversations(dialogue) == [turns]


def test_a_left_out_reply_stays_in_the_conversation():
    dialogue = one(("p",), (("a",), ("b",)), (("a", "b", "c", "d", "e"), ("f",)))
    assert conversations(dialogue) == [["a", "b", "c", "d", "e", "f"]]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_example_file_loses_and_doubles_no_reply(split):
    for dialogue in read_dialogues(EXAMPLE, split):
        (turns,) = conversations(dialogue)
        assert Counter(turns[1::2]) == Counter(u.candidates[-1] for u in dialogue.utterances)
        assert all(len(u.candidates) == 3 for u in dialogue.utterances)


# ---- what is refused

BAD_ENTRIES = [
    (7, "entry 2: is not an object with 'personality' and 'utterances'."),
    ({**GOOD, "personality": 7}, "entry 2: 'personality' must be a list with at least one string."),
    ({**GOOD, "personality": ["x", None]}, "entry 2: 'personality' must hold strings only."),
    (
        {**GOOD, "personality": ["x"] * 51},
        "entry 2: 'personality' has 51 strings; at most 50 are allowed.",
    ),
    (
        {**GOOD, "utterances": {}},
        "entry 2: 'utterances' must be a list with at least one utterance.",
    ),
    (
        {**GOOD, "utterances": []},
        "entry 2: 'utterances' must be a list with at least one utterance.",
    ),
]
BAD_UTTERANCES = [
    ("text", "is not an object with 'history' and 'candidates'."),
    ({"candidates": ["x"]}, "'history' must be a list with at least one string."),
    ({"history": "hi", "candidates": ["x"]}, "'history' must be a list with at least one string."),
    ({"history": [["hi"]], "candidates": ["x"]}, "'history' must hold strings only."),
    (
        {"history": ["hi"] * 501, "candidates": ["x"]},
        "'history' has 501 strings; at most 500 are allowed.",
    ),
    (
        {"history": ["x" * 2001], "candidates": ["x"]},
        f"'history' has a string of 2,001 characters; at most {MAX_CHARS:,} are allowed.",
    ),
    (
        {"history": ["a", " ", "b"], "candidates": ["x"]},
        "an empty turn of the persona in 'history'.",
    ),
    ({"history": ["hi"]}, "'candidates' must be a list with at least one string."),
    (
        {"history": ["hi"], "candidates": []},
        "'candidates' must be a list with at least one string.",
    ),
    (
        {"history": ["hi"], "candidates": ["x", ""]},
        "the gold reply (the last of 'candidates') is empty.",
    ),
    (
        {"history": ["hi"], "candidates": ["x", "__SILENCE__"]},
        "the gold reply (the last of 'candidates') is empty.",
    ),
    ({"history": ["hi"], "candidates": [1.5]}, "'candidates' must hold strings only."),
    (
        {"history": ["hi"], "candidates": ["x"] * 201},
        "'candidates' has 201 strings; at most 200 are allowed.",
    ),
]


@pytest.mark.parametrize("entry, message", BAD_ENTRIES)
def test_a_bad_entry_is_named(tmp_path, entry, message):
    path = write(tmp_path, [GOOD, entry])
    column = len(json.dumps([GOOD])) + 2  # behind the comma and a blank
    where, what = message.split(": ", 1)
    assert refusal(path) == f"{path}: {where} (line 1, column {column}): {what}"


@pytest.mark.parametrize("utterance, message", BAD_UTTERANCES)
def test_a_bad_utterance_is_named(tmp_path, utterance, message):
    content = {"train": [GOOD, {**GOOD, "utterances": [*GOOD["utterances"], utterance]}]}
    path = tmp_path / "chats.json"
    path.write_text(json.dumps(content, indent=1))
    place = "(line 33, column 5)"  # as `indent=1` lays these two entries out
    assert refusal(path) == f"{path}: entry 2, utterance 2 {place}: {message}"


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "entry 1 (line 1, column 1): is not valid JSON (parse error: premature EOF)"),
        (
            b'{"train": [\n {"utterances": [{"history": ["hi"], "candidates": ["yo"]}]},\n {"a" 1}]}',
            "after entry 1 (line 3, column 7): is not valid JSON ("
            "parse error: object key and value must be separated by a colon (':'))",
        ),
        (
            b'[{"a": 1, "a": 2}]',
            "entry 1 (line 1, column 2): is not valid JSON (the key 'a' twice in one object)",
        ),
        (
            b"[NaN]",
            "entry 1 (line 1, column 2): is not valid JSON (lexical error: invalid char in json text)",
        ),
        (
            json.dumps([GOOD]).encode()[:-1],
            "after entry 1 (line 1, column 101): is not valid JSON (parse error: premature EOF)",
        ),
        (
            json.dumps([GOOD]).encode() + b"]",
            "after entry 1 (line 1, column 102): is not valid JSON (parse error: trailing garbage)",
        ),
        (
            b'["\xff\xfe"]',
            "entry 1: is not valid JSON (lexical error: invalid bytes in UTF8 string)",
        ),
        (
            b"[" * 100_000,
            "entry 1 (line 1, column 2): is not valid JSON (brackets nested deeper than 8)",
        ),
        (
            b"[" + b"1" * 6000 + b"]",
            "entry 1 (line 1, column 2): is not valid JSON (parse error: integer overflow)",
        ),
    ],
)
def test_broken_json_is_named(tmp_path, content, reason):
    path = write(tmp_path, content)
    assert refusal(path) == f"{path}: {reason}; mend the file there."


@pytest.mark.parametrize(
    "content", [[], {}, 3, "text", {"valid": [GOOD]}, {"train": []}, {"train": None}]
)
def test_a_file_without_dialogues_is_refused(tmp_path, content):
    path = write(tmp_path, content)
    assert (
        refusal(path)
        == f'{path} holds no dialogues for train; expected a list of entries, or {{"train": [entries]}}.'
    )


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    missing = tmp_path / "none.json"
    assert (
        refusal(missing)
        == f"{missing} cannot be read (No such file or directory); name a file of dialogues."
    )
    assert (
        refusal(tmp_path)
        == f"{tmp_path} cannot be read (Is a directory); name a file of dialogues."
    )


def test_all_problems_are_counted_and_ten_shown(tmp_path):
    path = write(tmp_path, [GOOD, *range(1234)])
    lines = refusal(path).splitlines()
    assert lines[0] == f"{path} has 1,234 problems; the first 10 of them:"
    column = len(json.dumps([GOOD])) + 2
    assert lines[1:] == [
        f"{path}: entry {k} (line 1, column {column + 3 * (k - 2)}): is not an object with 'personality' and 'utterances'."
        for k in range(2, 12)
    ]


def test_a_few_bad_entries_are_left_out_where_that_is_asked_for(tmp_path, capsys):
    path = write(tmp_path, [GOOD, 1, GOOD, 2])
    assert len(read_dialogues(path, tolerate=2)) == 2
    assert (
        capsys.readouterr().err.splitlines()[1]
        == f"left out: {path}: entry 4 (line 1, column {2 * len(json.dumps([GOOD])) + 5}): is not an object with 'personality' and 'utterances'."
    )
    assert "2 problems" in refusal(path, tolerate=1)
    cut = write(tmp_path, json.dumps([GOOD, 1, GOOD]).encode()[:-1])
    assert "premature EOF" in refusal(cut, tolerate=9), "a cut file is never tolerated"


def test_the_command_prints_one_line_a_problem_and_exits_2(tmp_path):
    good = subprocess.run(
        [sys.executable, "-m", "train.dialogues", EXAMPLE],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = good.stdout.splitlines()
    assert (good.returncode, said[0]) == (0, f"{EXAMPLE}: 14 dialogues, 46 replies, no problems.")
    assert said[2].startswith("  persona: I keep bees on the roof of my house. | I am afraid ")
    assert said[3] == "  partner: Hello! What are you up to today?"
    assert said[4] == "      bot: I am filling honey jars for the market." and len(said) == 11
    path = write(tmp_path, [1])
    bad = subprocess.run(
        [sys.executable, "-m", "train.dialogues", path], capture_output=True, text=True, timeout=120
    )
    assert (bad.returncode, bad.stdout) == (2, "")
    assert (
        bad.stderr
        == f"{path}: entry 1 (line 1, column 2): is not an object with 'personality' and 'utterances'.\n"
    )


# ---- 5,000 mutated files

VALUES = [
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    "",
    " ",
    "x",
    "__SILENCE__",
    "\x00",
    "\ud800",
    "ü" * 2001,
]
VALUES += [[], {}, [[]], [""], ["a", "b"], [1], {"history": ["x"]}]
BYTES = [
    b"NaN",
    b"Infinity",
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"1e999",
    b"9" * 400,
]
BYTES += [b"[" * 50, b"{", b"]", b'"', b",", b":", b"-", b"//"]


def mutate_value(rng, node):
    """Replaces, drops or doubles one thing somewhere inside `node`."""
    if not isinstance(node, (dict, list)) or not node or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    action = rng.random()
    if action < 0.15:
        del node[key]
    elif action < 0.25 and isinstance(node, list):
        node.insert(key, copy.deepcopy(rng.choice([*node, *VALUES])))
    else:
        node[key] = mutate_value(rng, node[key])
    return node


def mutate_bytes(rng, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    end = at + rng.choice([0, 0, 1, 1, 5, len(raw)])
    return raw[:at] + rng.choice([b"", bytes([rng.randrange(256)]), rng.choice(BYTES)]) + raw[end:]


def test_5000_mutated_files_read_or_are_refused(tmp_path):
    rng = random.Random(0)
    turns = [f"turn {k} é" for k in range(6)]
    entry = {
        "personality": ["one", "two"],
        "utterances": [{"history": turns[:k], "candidates": ["no", turns[k]]} for k in (1, 3, 5)],
    }
    raw = json.dumps([entry, entry], ensure_ascii=False)
    results = Counter()
    path = write(tmp_path, b"")
    for number in range(5000):
        data = json.loads(raw) if number % 4 else {"train": json.loads(raw)}
        for _ in range(rng.choice([1, 1, 2, 4])):
            data = mutate_value(rng, data) if number % 2 else data
        content = json.dumps(data, ensure_ascii=bool(number % 3)).encode("utf-8", "surrogatepass")
        # emptying a file and writing it again, as "wb" does, waits for the disk each time
        with open(path, "r+b") as file:
            file.truncate(file.write(content if number % 2 else mutate_bytes(rng, content)))
        try:
            dialogues = read_dialogues(path)
            for dialogue in dialogues:
                lists = conversations(dialogue)
                assert all(len(turns) % 2 == 0 and all(turns[1::2]) for turns in lists)
                assert {turns[-1] for turns in lists} <= {
                    u.candidates[-1] for u in dialogue.utterances
                }
            results["read"] += 1
        except UserError as error:
            assert str(path) in str(error)
            results["refused"] += 1
    assert results["read"] > 500 and results["refused"] > 2000, results
