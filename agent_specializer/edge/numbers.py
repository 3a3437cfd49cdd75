"""The numbers of an answer: what is said of a tool's result has none but those of the conversation.

A small model that is to say "14:05" says a time of its own. So digits are locked to what was said, as arguments are to their schema; words
are not.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from agent_specializer.edge.grammar import Vocabulary

RUN = re.compile(r"[0-9]+")
LONGEST = 15
"""Digits of a number whose thousands may be set apart."""


class Numbers:
    """Follows an answer, each of whose runs of digits stands in `conversation`, leading zeros and marks between thousands aside."""

    def __init__(self, conversation: str, vocabulary: Vocabulary) -> None:
        known = set()
        for run in RUN.findall(conversation):
            known |= {run, run.lstrip("0") or "0"}
            if len(run) <= LONGEST:
                known |= set(f"{int(run):,}".split(","))
        one = "|".join(sorted(known, key=len, reverse=True))
        grammar = f"[^0-9]*((?:{one})[^0-9]+)*(?:{one})?" if known else "[^0-9]*"
        self._matcher = LLMatcher(vocabulary.tokens, LLMatcher.grammar_from_regex(grammar))

    def among(self, logits: Tensor) -> Tensor:
        """`logits` (vocabulary,) of the tokens that may come next; -inf for the others."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(mask, bitorder="little")[: len(logits)]).bool()
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    @property
    def within(self) -> bool:
        """Whether it stands within a number that has digits to come."""
        return not self._matcher.is_accepting()

    def follow(self, token: int) -> None:
        """`token`, one of those, came next."""
        self._matcher.consume_token(token)
