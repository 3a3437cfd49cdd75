"""Which sentences of a request are about another tool than the one that is called: nothing is copied from these.

Of "Order 12 pump wheels for the press. Then book a table at Luigi's at eight." a small model books for 12 people. The adapter's keys
tell which sentence is whose: one that is much more like another tool than like the chosen one is that tool's chore.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from agent_specializer.loragen.features import TINY, likeness

Range: TypeAlias = tuple[int, int]
"""First token of something in a prompt, and the one behind its last."""

AHEAD = 0.15
"""By how much a sentence is more like another tool. On requests of held-out families (docs/LOG.md) two of 132 right values stand in such sentences,
ten of 39 wrong ones."""
SHORTEST = 4
"""Tokens of a sentence; a shorter one is part of the one before."""
ENDS = re.compile(r"[.?!]['\")\]]*$")
SHORTENED = re.compile(r"\b[A-Z]\w{0,2}\.$")
"""Mr. and St. end no sentence."""
SPACES = ("\u2581", "\u0120")
"""How vocabularies write the space before a word."""


def sentences(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], first: int) -> list[Range]:
    """The sentences of the message that begins at token `first` of `prompt`, up to the line that marks what follows it."""
    pieces: list[str] = tokenizer.convert_ids_to_tokens(list(prompt))  # type: ignore[assignment]
    found: list[Range] = []
    start = first
    for at in range(first, len(pieces)):
        behind = pieces[at + 1] if at + 1 < len(pieces) else ""
        line = "\n" in pieces[at] or "\u010a" in pieces[at]
        text = "".join(pieces[max(start, at - 2) : at + 1])
        ends = behind.startswith(SPACES) and ENDS.search(text) and not SHORTENED.search(text)
        if line or ends or at + 1 == len(pieces):
            if found and at + 1 - start < SHORTEST:
                found[-1] = (found[-1][0], at + 1)
            else:
                found.append((start, at + 1))
            start = at + 1
        # Lines of a message are indented, those that mark a turn are not (`edge.transcript`).
        if line and not behind.startswith((*SPACES, " ")):
            break
    return found


def elsewhere(vectors: Tensor, keys: Tensor, back: Tensor, ranges: Sequence[Range], tool: int) -> list[Range]:
    """Those of `ranges` that are about another tool than `tool`; never the one that is most like it.

    Args:
        vectors: (tokens, key_dim), of a request's words as `WordByWord` gives them; `ranges` count from its first.
        keys: (tools, vectors, key_dim). back: as of `likeness`.
    """
    if len(ranges) < 2 or len(keys) < 2:
        return []
    parts = torch.zeros(len(ranges), *vectors.shape, device=vectors.device, dtype=vectors.dtype)
    for row, (start, end) in enumerate(ranges):
        parts[row, start:end] = vectors[start:end]
    weights = parts.norm(dim=-1).sum(1)[:, None, None]
    alike = likeness(parts / weights.clamp_min(TINY), keys, back)
    own = alike[:, tool]
    ahead = alike.amax(1) - own >= AHEAD
    ahead[own.argmax()] = False
    return [ranges[row] for row in ahead.nonzero().flatten().tolist()]
