"""Words decoded over the whole vocabulary, up to the end of the line."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.arguments import Sampler, Tail
from agent_specializer.edge.passes import Feed, Seen

FIRST_CANDIDATES = 64
"""An answer starts with one of so many likeliest tokens that is not empty; without one it stays empty."""

HALF = "\N{REPLACEMENT CHARACTER}"
"""What an unfinished letter decodes to."""


def decode_words(
    tail: Tail,
    tokenizer: PreTrainedTokenizerBase,
    sampler: Sampler,
    *,
    budget: int,
    stop: Sequence[str],
    written: Callable[[str], None],
) -> Generator[Feed, Seen, tuple[str, int]]:
    """An answer of at most `budget` tokens behind the tokens of `tail`: its text, and how many tokens it has."""
    ends = ("\n", *stop)
    special = set(tokenizer.all_special_ids)
    held = max(map(len, ends)) - 1
    ids: list[int] = []
    text, sent = "", 0
    while len(ids) < budget:
        seen = yield tail.feed(rows="all")
        assert seen.logits is not None
        logits = seen.logits
        if not ids:
            logits = _without_blanks(logits, tokenizer, special)
        token = sampler.pick(logits)
        if token in special or (not ids and not bool(torch.isfinite(logits[token]))):
            break
        ids.append(token)
        tail.tokens.append(token)
        text = str(tokenizer.decode(ids))
        found = [at for at in (text.find(end) for end in ends) if at >= 0]
        if found:
            text = text[: min(found)]
            break
        # What may still turn out to be the start of a stop sequence, or half a letter, is held back.
        ready = len(text[: len(text.rstrip(HALF)) - held].rstrip())
        if ready > sent:
            piece = text[sent:ready].lstrip() if not text[:sent].strip() else text[sent:ready]
            sent = ready
            if piece:
                written(piece)
    text = text.rstrip(HALF)
    rest = text[sent:].rstrip() if text[:sent].strip() else text.strip()
    if rest:
        written(rest)
    return text.strip(), len(ids)


def _without_blanks(
    logits: torch.Tensor, tokenizer: PreTrainedTokenizerBase, special: set[int]
) -> torch.Tensor:
    """`logits` (vocabulary,) with only those of the likeliest tokens that have something to say."""
    top = logits.topk(min(FIRST_CANDIDATES, len(logits))).indices.tolist()
    kept = [
        token for token in top if token not in special and str(tokenizer.decode([token])).strip(" \n\r\t")
    ]
    out = torch.full_like(logits, float("-inf"))
    out[kept] = logits[kept]
    return out
