"""ParlAI's two text formats -> entries.

1 your persona: i sail.                        a number a line, one that is not higher begins a new conversation
2 hello there<TAB>ahoy !<TAB><TAB>no .|ahoy !  the partner's turn, the reply, a reward, candidates

text:hello there<TAB>labels:ahoy !<TAB>label_candidates:no .|ahoy !<TAB>episode_done:False
"""

import re
from collections.abc import Iterable, Iterator

from persona_bot.layouts import SILENCE
from train.data.entry import Findings

OWN, PARTNERS = "your persona:", "partner's persona:"


def read_parlai(lines: Iterable[str], findings: Findings) -> Iterator[tuple[str, dict]]:
    """(place, entry) of each conversation in which somebody replies; a file without any reply is among the findings."""
    entry, where = _new(), "line 1"
    turns: list[str] = []
    partner: list[str] = []  # what the partner has said since the last reply
    last, is_over, found = 0, False, False
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        fields = _fields(line)
        if fields is None:
            findings.add(
                f"line {number}", "is neither '1 text<TAB>reply' nor 'text:..<TAB>labels:..'."
            )
            continue
        at, text, reply, candidates, ends = fields
        if is_over or (at is not None and at <= last):
            if entry["utterances"]:
                yield where, entry
            entry, where, turns, partner = _new(), f"line {number}", [], []
        last, is_over = at or 0, ends
        for part in text.split("\\n"):
            if part.lower().startswith(OWN):
                entry["personality"].append(part[len(OWN) :].strip())
            elif part.strip() and not part.lower().startswith(PARTNERS):
                partner.append(part.strip())
        if reply:
            turns.append("\n".join(partner) or SILENCE)
            others = [text for text in candidates if text and text != reply]
            entry["utterances"].append({"history": list(turns), "candidates": [*others, reply]})
            turns.append(reply)
            partner, found = [], True
    if entry["utterances"]:
        yield where, entry
    if not found and not findings.count:
        findings.add(
            "line 1", "no line of the file has a reply; it stands behind a tab, '1 text<TAB>reply'."
        )


def _new() -> dict:
    return {"personality": [], "utterances": []}


def _fields(line: str) -> tuple[int | None, str, str, list[str], bool] | None:
    """(number, if it has one, text, reply, candidates, whether a conversation ends here); None for another line."""
    if line.startswith("text:"):
        named = dict(part.split(":", 1) for part in line.split("\t") if ":" in part)
        reply = named.get("labels", named.get("eval_labels", "")).split("|")[0]
        candidates = named.get("label_candidates", "").split("|")
        return None, named["text"], reply, candidates, named.get("episode_done") == "True"
    match = re.match(r"(\d{1,9}) (.*)", line)
    if not match:
        return None
    text, reply, _, candidates = (*match[2].split("\t"), "", "", "")[:4]
    return int(match[1]), text, reply.split("|")[0], candidates.split("|"), False
