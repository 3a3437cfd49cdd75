"""The shortest way out: completes a piece of JSON under its grammar, byte by byte, when the token budget ends.

A search over 256 bytes instead of 262,144 tokens, so that a step costs microseconds. The first path closes whatever can
be closed; where that leads nowhere (a pattern that demands more, a number that must be a multiple) paths with one, two,
... deviations from it are tried (limited discrepancy search).
"""

from __future__ import annotations

from functools import cache

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

MAX_BYTES = 2048
"""Longest completion that is looked for."""
MAX_STEPS = 6000
"""Bytes tried until the search gives up, about 50 ms."""

# In a string: close it; else what divides dates, addresses and URLs; then the letters that formats ask for, and digits.
_INSIDE = b'"@:/.-ZDPT10aA2 '
# Elsewhere: close, take null, an empty string, the next item, a digit, a literal, an empty list or object.
_OUTSIDE = b'}]n",10ft[{-'
_RUN = 4
"""After so many bytes of one kind another kind is preferred: a way out of ``[0-9]+x``."""


class _Bytes:
    """A vocabulary of the 256 bytes, as llguidance wants it."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257, eos_token=256, slices=[])


class ByteGrammar:
    """A grammar over bytes; `source` is llguidance's."""

    def __init__(self, source: str) -> None:
        self._start = LLMatcher(_vocabulary(), source, log_level=0)

    def complete(self, prefix: bytes) -> bytes | None:
        """A short text that makes `prefix` a complete member of the language; None where none is found."""
        matcher = self._start.deep_copy()
        if prefix and not matcher.consume_tokens(list(prefix)):
            return None
        search = _Search(_in_string(prefix))
        for deviations in range(4):
            found = search.run(matcher, deviations)
            if found is not None or search.steps >= MAX_STEPS:
                return found
        return None


class _Search:
    def __init__(self, in_string: bool) -> None:
        self.steps = 0
        self._in_string = in_string

    def run(self, start: LLMatcher, deviations: int) -> bytes | None:
        """Depth first, with at most `deviations` choices other than the preferred one."""
        # Each entry: a state, the bytes so far, whether they end inside a string, deviations left.
        waiting: list[tuple[LLMatcher, bytes, bool, int]] = [
            (start.deep_copy(), b"", self._in_string, deviations)
        ]
        while waiting and self.steps < MAX_STEPS:
            matcher, text, in_string, left = waiting.pop()
            while self.steps < MAX_STEPS and len(text) < MAX_BYTES:
                forced = matcher.compute_ff_bytes()
                if forced:
                    matcher.consume_tokens(list(forced))
                    text += forced
                    in_string = _in_string(forced, in_string)
                    self.steps += len(forced)
                if matcher.is_stopped():
                    if matcher.is_accepting():
                        return text
                    break
                options = _ordered(_allowed(matcher), in_string, text)
                if not options:
                    break
                # Later deviations are tried first: they leave more of the preferred path as it is.
                for byte in reversed(options[1:]) if left else ():
                    other = matcher.deep_copy()
                    self.steps += 1
                    if other.consume_token(byte):
                        waiting.append(
                            (other, text + bytes([byte]), _in_string(bytes([byte]), in_string), left - 1)
                        )
                if not matcher.consume_token(options[0]):
                    break
                self.steps += 1
                text += bytes(options[:1])
                in_string = _in_string(bytes(options[:1]), in_string)
        return None


def _allowed(matcher: LLMatcher) -> list[int]:
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    return [byte for byte in range(256) if mask >> byte & 1]


def _ordered(allowed: list[int], in_string: bool, text: bytes) -> list[int]:
    """The bytes worth trying, best first: escapes and control bytes are never on a shortest way."""
    preferred = _INSIDE if in_string else _OUTSIDE
    usable = [byte for byte in allowed if byte >= 32 and byte != 92] or allowed
    last = {_kind(byte) for byte in text[-_RUN:]}
    stuck = last.pop() if in_string and len(text) >= _RUN and len(last) == 1 else ""

    def rank(byte: int) -> tuple[bool, int]:
        place = preferred.find(byte)
        return _kind(byte) == stuck, place if place >= 0 else len(preferred) + byte

    return sorted(usable, key=rank)


def _kind(byte: int) -> str:
    letter = chr(byte)
    if letter.isdigit():
        return "digit"
    return ("upper" if letter.isupper() else "lower") if letter.isalpha() else "mark"


def _in_string(text: bytes, inside: bool = False) -> bool:
    """Whether a piece of JSON ends inside a string. Escapes count within `text` alone."""
    escaped = False
    for byte in text:
        if escaped:
            escaped = False
        elif inside and byte == 92:
            escaped = True
        elif byte == 34:
            inside = not inside
    return inside
