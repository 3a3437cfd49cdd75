"""Strings that are copied: which tokens go on with words of the conversation.

A small model says "5 am" where "five am" stands and ends an identifier with zeros of its own. What it would write is weighed against what
stands there: tokens that go on with a copy count `COPY` nats more, at the end of a word the closing quote does, too. Where the schema allows
but some strings (a pattern, a format, a few values to pick from), words of the conversation that it allows count `FITS` more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

COPY = 4.0
"""Nats. Chosen on requests of held-out families (docs/LOG.md): from 2.5 to 9 hardly anything changes."""
FITS = 8.0
"""Nats. Chosen on the shipped catalogues' requests (docs/LOG.md): from 4 to 12 hardly anything changes."""
AHEAD = 32
"""Characters of the conversation that are looked at for the next token."""
MARKS = re.compile(r"^(?:User|Call|Result|Answer):", re.MULTILINE)
"""What marks a conversation's turns (`edge.transcript`): nobody's words."""
RECENT = 2048
"""Tokens of the conversation, from its end, that are copied from."""
CHUNKS, LONGEST = 120, 4
"""Pieces between white space, from the conversation's end, among which what the schema allows is looked for; and of how many at most."""
AROUND = "'\".,;:!?()[]{}<>"
"""Is left off around them."""
ANYTHING = "Qx 7, zu?"
"""A string that the schema allows where it allows nearly all."""


class Source:
    """A conversation from which values are copied.

    Args:
        conversation: its token ids; ends: ids of the tokens that close a string.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, conversation: Sequence[int], ends: np.ndarray
    ) -> None:
        self._tokenizer, self._ends = tokenizer, ends.tolist()
        text = str(tokenizer.decode(list(conversation[-RECENT:]), skip_special_tokens=True))
        self._text = MARKS.sub(lambda mark: " " * len(mark[0]), text)
        self._folded = _folded(self._text)
        self._starts = [match.start() for match in re.finditer(r"\w+", self._text)]
        self._chunks = [match.span() for match in re.finditer(r"\S+", self._text)][-CHUNKS:]
        self._known: dict[bytes, list[int]] = {}

    def fitting(self, written: bytes, allows: Callable[[str], bool]) -> tuple[str, ...] | None:
        """What stands in the conversation that a string may be of which `written` is there; None where it may be nearly anything.

        Args:
            allows: whether the string may go on with a text and end there.
        """
        try:
            begun = written.decode()
        except UnicodeDecodeError:
            return None
        if allows(ANYTHING):
            return None
        found: dict[str, None] = {}
        for first, (start, _) in enumerate(self._chunks):
            for _, end in self._chunks[first : first + LONGEST]:
                text = self._text[start:end].strip(AROUND)
                for form in dict.fromkeys((text, text.lower(), text.title(), text.upper())):
                    if form and form not in found and form.startswith(begun) and allows(form[len(begun) :]):
                        found[form] = None
        return tuple(found)

    def towards(self, written: bytes, fitting: Sequence[str]) -> list[int]:
        """Ids of the tokens that go on with one of `fitting`, of which `written` is there, or end it."""
        try:
            text = written.decode()
        except UnicodeDecodeError:
            return []  # within a letter
        rest = {form[len(text) :] for form in fitting if form.startswith(text)}
        return sorted(self._first(rest) | (set(self._ends) if "" in rest else set()))

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
        found = self._first({self._text[at : at + AHEAD] for at in behind})
        if text and any(at == len(self._text) or not self._text[at].isalnum() for at in behind):
            found |= set(self._ends)
        return sorted(found)

    def _first(self, texts: set[str]) -> set[int]:
        """The first token of each of `texts` that is not empty."""
        some = sorted(texts - {""})
        runs = self._tokenizer(some, add_special_tokens=False).input_ids if some else []
        return {run[0] for run in runs if run}


def _folded(text: str) -> str:
    """`text` without capitals, letter by letter, so that places are the same in both."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
