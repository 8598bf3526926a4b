"""ParlAI's two text formats -> entries.

1 your persona: i sail.                        a number a line, 1 begins a new conversation
2 hello there<TAB>ahoy !<TAB><TAB>no .|ahoy !  the partner's turn, the reply, a reward, candidates

text:hello there<TAB>labels:ahoy !<TAB>label_candidates:no .|ahoy !<TAB>episode_done:False
"""

import re
from collections.abc import Iterable, Iterator

from persona_bot.layouts import SILENCE
from train.data.entry import Findings

OWN, PARTNERS = "your persona:", "partner's persona:"


def read_parlai(lines: Iterable[str], findings: Findings) -> Iterator[tuple[str, dict]]:
    """(place, entry) of each conversation in which somebody replies."""
    entry, where = _new(), "line 1"
    turns: list[str] = []
    is_over = False
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
        text, reply, candidates, begins, ends = fields
        if begins or is_over:
            if entry["utterances"]:
                yield where, entry
            entry, where, turns = _new(), f"line {number}", []
        is_over = ends
        partner = []
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
    if entry["utterances"]:
        yield where, entry


def _new() -> dict:
    return {"personality": [], "utterances": []}


def _fields(line: str) -> tuple[str, str, list[str], bool, bool] | None:
    """(text, reply, candidates, whether a conversation begins here, whether it ends here); None for another line."""
    if line.startswith("text:"):
        named = dict(part.split(":", 1) for part in line.split("\t") if ":" in part)
        reply = named.get("labels", named.get("eval_labels", "")).split("|")[0]
        candidates = named.get("label_candidates", "").split("|")
        return named["text"], reply, candidates, False, named.get("episode_done") == "True"
    match = re.match(r"(\d+) (.*)", line)
    if not match:
        return None
    text, reply, _, candidates = (*match[2].split("\t"), "", "", "")[:4]
    return text, reply.split("|")[0], candidates.split("|"), match[1] == "1", False
