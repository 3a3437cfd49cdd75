"""Words decoded over the whole vocabulary, up to the end of the line."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Sequence
from string import digits, whitespace

import torch

from agent_specializer.edge.arguments import Sampler, Tail
from agent_specializer.edge.grammar import Vocabulary
from agent_specializer.edge.numbers import Numbers
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.edge.written import loops

RUN, TIMES, LEAST = 24, 3, 16
"""An answer ends once a run of up to RUN tokens came TIMES times in a row, LEAST tokens in all: greedy decoding would never get out of it."""
HELD = f"{digits}{whitespace}"
"""What the end of a text may not be shown with yet."""
FIRST_CANDIDATES = 64
"""An answer starts with one of so many likeliest tokens that is not blank."""


def decode_words(
    tail: Tail,
    vocabulary: Vocabulary,
    sampler: Sampler,
    *,
    budget: int,
    under: str,
    numbers: Numbers | None,
    stop: Sequence[str],
    written: Callable[[str], None],
) -> Generator[Feed, Seen, tuple[str, int]]:
    """An answer of at most `budget` tokens behind the tokens of `tail`, `under` an activated LoRA, with no other `numbers`: its text, and how many
    tokens it has."""
    ends = ("\n", *stop)
    held = max(map(len, ends)) - 1
    letters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, sent, count = "", 0, 0
    while count < budget:
        seen = yield tail.feed(rows="all", under=under)
        assert seen.logits is not None
        logits = numbers.among(seen.logits) if numbers else seen.logits
        token = sampler.pick(logits if count else _without_blanks(logits, vocabulary))
        if vocabulary.is_special(token):
            break
        if numbers:
            numbers.follow(token)
        count += 1
        tail.tokens.append(token)
        if loops(tail.tokens[-count:], run=RUN, times=TIMES, least=LEAST):
            break
        # The blank behind "Answer:" is no part of the answer.
        text = (text + letters.decode(vocabulary.text([token]))).lstrip()
        found = [at for at in (text.find(end) for end in ends) if at >= 0]
        if found:
            text = text[: min(found)]
            break
        # What may still turn out to be the start of a stop sequence is held back, and so are blanks and numbers, for the same end.
        ready = len(text[: len(text) - held].rstrip(HELD))
        if ready > sent:
            written(text[sent:ready])
            sent = ready
    text = text.rstrip()
    if numbers and numbers.within:
        text = text.rstrip(HELD)  # the budget ended in a number, part of which would be another one
    if len(text) > sent:
        written(text[sent:])
    return text, count


def _without_blanks(logits: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """`logits` (vocabulary,) with only those of the likeliest tokens that have something to say, where there are any."""
    top = logits.topk(min(FIRST_CANDIDATES, len(logits))).indices.tolist()
    kept = [token for token in top if not vocabulary.is_special(token) and vocabulary.text([token]).strip()]
    if not kept:
        return logits
    out = torch.full_like(logits, float("-inf"))
    out[kept] = logits[kept]
    return out
