"""Strings that are copied: which tokens go on with words of the conversation.

A small model says "5 am" where "five am" stands and ends an identifier with zeros of its own. What it would write is weighed against what
stands there: tokens that go on with a copy count `COPY` nats more, at the end of a word the closing quote does, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

COPY = 4.0
"""Nats. Chosen on requests of held-out families (docs/LOG.md): from 2.5 to 9 hardly anything changes."""
AHEAD = 32
"""Characters of the conversation that are looked at for the next token."""
WORDS = re.compile(r"^(?:User|Call|Result|Answer):|(?P<word>\w+)", re.MULTILINE)
"""Words of a conversation, and what marks its turns (`edge.transcript`)."""
RECENT = 2048
"""Tokens of the conversation, from its end, that are copied from."""


class Source:
    """A conversation from which values are copied.

    Args:
        conversation: its token ids; ends: ids of the tokens that close a string.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, conversation: Sequence[int], ends: np.ndarray
    ) -> None:
        self._tokenizer, self._ends = tokenizer, ends.tolist()
        self._text = str(tokenizer.decode(list(conversation[-RECENT:]), skip_special_tokens=True))
        self._folded = _folded(self._text)
        self._starts = [match.start() for match in WORDS.finditer(self._text) if match["word"]]
        self._known: dict[bytes, list[int]] = {}

    def continuing(self, written: bytes) -> list[int]:
        """Ids of the tokens that go on with a copy of which `written` is there: a string from a word's beginning on."""
        if written not in self._known:
            self._known[written] = self._continuing(written)
        return self._known[written]

    def _continuing(self, written: bytes) -> list[int]:
        try:
            text = written.decode()
        except UnicodeDecodeError:
            return []  # within a letter
        folded = _folded(text)
        behind = [at + len(text) for at in self._starts if self._folded.startswith(folded, at)]
        rest = sorted({self._text[at : at + AHEAD] for at in behind} - {""})
        runs = self._tokenizer(rest, add_special_tokens=False).input_ids if rest else []
        found = {run[0] for run in runs if run}
        if text and any(at == len(self._text) or not self._text[at].isalnum() for at in behind):
            found |= set(self._ends)
        return sorted(found)


def _folded(text: str) -> str:
    """`text` without capitals, letter by letter, so that places are the same in both."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
