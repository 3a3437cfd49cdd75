"""What is being written: the state of a JSON text, token by token."""

from __future__ import annotations

import copy
import json

import numpy as np

from agent_specializer.edge.grammar import ToolGrammar

MAX_DIGITS = 24
"""Characters of a number, after which it ends where the grammar lets it: no float64 needs more."""
LOOP, REPEATS = 8, 4
"""A string ends where the grammar lets it once a run of up to LOOP tokens came REPEATS times in a row."""
QUOTE, BACKSLASH = b'"\\'


class Written:
    """Watches what is being written: greedy decoding can get stuck in a number or in a loop of words, and no grammar says that
    an object has each of its properties once.

    Attributes:
        repeats: whether the tokens followed last named a property that its object has already.
        opened: how many strings and names have begun.
        parameter: the property of the outermost object that was named last.
        number: what is written of the number that is being written; numbers: all that are complete.
        items: the strings, in small letters, that the array that was opened last has so far.
        ends_item: whether such a string has just ended.
    """

    def __init__(self, grammar: ToolGrammar) -> None:
        self._grammar = grammar
        self.repeats = False
        self._in_string = self._escaped = False
        # All immutable, so that a shallow copy can go its own way. The names in each open object; None for an array.
        self._open: tuple[frozenset[bytes] | None, ...] = ()
        self._name: bytes | None = None
        """Of a property, as far as it is written."""
        self._text = b""
        """Of a string that is no name, the same."""
        self.opened = 0
        self._named = False
        self.parameter = ""
        self.number = b""
        self.numbers: tuple[str, ...] = ()
        self.items: frozenset[str] = frozenset()
        self.ends_item = False

    def follow(self, tokens: list[int]) -> None:
        self.repeats = False
        for byte in self._grammar.vocabulary.decode_bytes(tokens):
            if byte == QUOTE and not self._escaped:
                self._quote()
            elif self._in_string:
                self._escaped = byte == BACKSLASH and not self._escaped
                if self._name is not None:
                    self._name += bytes([byte])
                else:
                    self._text += bytes([byte])
            else:
                self._digit(byte)
                self._structure(byte)

    def then(self, tokens: list[int]) -> Written:
        """What is watched once `tokens` were written, too."""
        ahead = copy.copy(self)
        ahead.follow(tokens)
        return ahead

    def _quote(self) -> None:
        if self._in_string and self._name is None and self.in_array:
            self.items |= {self._text.decode(errors="replace").lower()}
            self.ends_item = True
        else:
            self.ends_item = False
        self._in_string, self.number, self._text = not self._in_string, b"", b""
        self.opened += self._in_string
        names = self._open[-1] if self._open else None
        if names is None or self._named:
            return
        if self._in_string:
            self._name = b""
        elif self._name is not None:
            self.repeats |= self._name in names
            self._open = (*self._open[:-1], names | {self._name})
            if len(self._open) == 1:
                self.parameter = str(json.loads(b'"%b"' % self._name))
            self._name, self._named = None, True

    def _digit(self, byte: int) -> None:
        if 45 <= byte <= 57 or (self.number and byte in b"eE+"):
            self.number += bytes([byte])
        elif self.number:
            self.numbers, self.number = (*self.numbers, self.number.decode()), b""

    def _structure(self, byte: int) -> None:
        self.ends_item = False
        if byte in b"{[":
            self._open, self._named = (*self._open, frozenset() if byte in b"{" else None), False
            self.items = frozenset()
        elif byte in b"}]":
            # What was closed is a value: behind it another name can come only after a comma.
            self._open, self._named = self._open[:-1], True
        elif byte in b",":
            self._named = False

    def runs_away(self, out: list[int]) -> bool:
        """Whether the value should end now: a number longer than float64 tells apart, or a string that repeats itself."""
        if not self._in_string:
            return len(self.number) >= MAX_DIGITS
        return loops(out, run=LOOP, times=REPEATS)

    @property
    def text(self) -> bytes | None:
        """What is written of the string that is being written, where it is a value."""
        return self._text if self._in_string and self._name is None else None

    @property
    def in_array(self) -> bool:
        """Whether what is being written is an item of an array."""
        return bool(self._open) and self._open[-1] is None

    @property
    def outermost(self) -> bool:
        """Whether what is being written is a value of the outermost object itself."""
        return len(self._open) == 1

    @property
    def ends(self) -> np.ndarray:
        """Ids of the tokens that end the value."""
        return self._grammar.ends_string if self._in_string else self._grammar.ends_number


def loops(tokens: list[int], *, run: int, times: int, least: int = 0) -> bool:
    """Whether `tokens` end in a run of up to `run` tokens that came `times` times in a row, `least` tokens in all."""
    for size in range(1, run + 1):
        count = max(times, -(-least // size))
        if len(tokens) >= size * count and tokens[-size * count :] == tokens[-size:] * count:
            return True
    return False
