"""How models mark what they think before they answer: the one list that templates, servers and this machine's models go by."""

import re

NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
# what begins a thought -> what ends it
TAGS = {
    **{f"<{name}>": f"</{name}>" for name in NAMES},
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
    "<|channel|>analysis": "<|channel|>final<|message|>",
    "<|channel|>commentary": "<|channel|>final<|message|>",
}
TAG = re.compile("|".join(re.escape(tag) for pair in TAGS.items() for tag in pair), re.IGNORECASE)
# every beginning of a tag that is not yet one
HALVES = frozenset(tag[:k] for pair in TAGS.items() for tag in pair for k in range(1, len(tag)))
LONGEST_HALF = max(map(len, HALVES))
OPEN_THOUGHT = re.compile(f"(?:{'|'.join(map(re.escape, TAGS))})\\s*$", re.IGNORECASE)
# its tags also stand where nothing was thought before
CHANNEL = "<|channel|>"
# names of models that think: DeepSeek-R1, QwQ, Qwen3-4B-Thinking, Phi-4-reasoning
THINKERS = re.compile(r"\br1\b|qwq|think|reason", re.IGNORECASE)
