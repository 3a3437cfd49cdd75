"""Arguments decoded under a tool's grammar: forced runs cost no pass of their own, and the budget is never overrun.

From time to time, and at every token when the budget nears its end, the shortest completion of what is there is worked
out. As soon as a token leads to where the rest no longer fits, it is taken back and that completion written instead.
A token that would name a property of an object twice is not taken: a grammar cannot say so.
"""

from __future__ import annotations

import codecs
import copy
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from agent_specializer.edge.copying import COPY, FITS, Source
from agent_specializer.edge.grammar import ToolGrammar
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.errors import DecodeError

FEW = 2048
"""Up to so many allowed tokens, only their rows of the head are multiplied."""
MAX_DIGITS = 24
"""Characters of a number, after which it ends where the grammar lets it: no float64 needs more."""
LOOP, REPEATS = 8, 4
"""A string ends where the grammar lets it once a run of up to LOOP tokens came REPEATS times in a row."""
QUOTE, BACKSLASH = b'"\\'
CHECK_EVERY = 8
"""Tokens between two looks for a way out while the budget is far from spent."""


@dataclass
class Tail:
    """The tokens of one lane, and how many of them the model has read.

    Attributes:
        tokens: the whole text of the lane. read: how many of them are in the cache.
    """

    tokens: list[int]
    read: int = 0
    _unread: int = field(default=0, repr=False)

    def feed(self, **wanted: Any) -> Feed:
        """All tokens that the model has not read; the last one once more where it has read them all."""
        start = min(self.read, len(self.tokens) - 1)
        feed = Feed(self.tokens[start:], forget=self._unread + self.read - start, **wanted)
        self.read, self._unread = len(self.tokens), 0
        return feed

    def cut(self, length: int) -> None:
        """Take back all tokens but the first `length`."""
        del self.tokens[length:]
        self._unread += max(0, self.read - length)
        self.read = min(self.read, length)


class Sampler:
    """Picks a token: the likeliest at temperature 0, else drawn with a seed."""

    def __init__(self, temperature: float, seed: int) -> None:
        self.temperature = temperature
        self._random = torch.Generator().manual_seed(seed)

    def pick(self, logits: Tensor) -> int:
        """Index of a token, `logits` (tokens,) float32; -inf excludes one."""
        if not self.temperature:
            return int(logits.argmax())
        # Gumbel-max: the same draw as from the softmax, and no token of probability 0 can come out of rounding.
        noise = torch.rand(logits.shape, generator=self._random).clamp_min(1e-20)
        return int((logits.cpu() / self.temperature - noise.log().neg().log()).argmax())


def decode_arguments(
    tail: Tail,
    grammar: ToolGrammar,
    sampler: Sampler,
    *,
    budget: int,
    head_rows: int,
    written: Callable[[str], None],
    source: Source | None = None,
) -> Generator[Feed, Seen, dict[str, Any]]:
    """Arguments behind the tokens of `tail`, to which their tokens are added; they validate against the schema.

    Args:
        budget: tokens that the arguments may have.
        head_rows: rows of the model's head; tokens beyond them cannot be predicted.
        written: called with each piece of the text that is final.
        source: the conversation, from which the words of a string are rather copied than made up.

    Raises:
        DecodeError: no valid arguments fit the budget, or what was decoded violates what the grammar cannot express.
    """
    start = len(tail.tokens)
    text = _Text(grammar, written)
    safe = _first_way_out(grammar, budget)
    matcher = grammar.matcher()
    out: list[int] = []
    watched = 2 * len(safe[1]) + 24
    checked = 0
    value = _Value(grammar)
    copies = _Copies(source, grammar)
    while True:
        forced = matcher.compute_ff_tokens()
        if forced:
            matcher.consume_tokens(forced)
            out += forced
            value.follow(forced)
        if len(out) > budget or value.repeats:
            return _finish(tail, start, out, safe, grammar, text)
        if matcher.is_stopped():
            break
        left = budget - len(out)
        if left <= watched or len(out) - checked >= CHECK_EVERY:
            rest, checked = grammar.completion(out), len(out)
            if rest is not None and value.then(rest).repeats:
                rest = None
            if rest is not None and len(rest) <= left:
                safe = (len(out), rest)
                text.upto(out)
            elif left <= watched or rest is not None:
                return _finish(tail, start, out, safe, grammar, text)
        rows, only = _allowed(matcher, head_rows, value.ends if value.runs_away(out) else None)
        token = only
        if only is None:
            tail.tokens += out[len(tail.tokens) - start :]
            seen = yield tail.feed(rows=rows)
            token = _pick(seen, rows, matcher, sampler, head_rows, value, copies.favoured(value, matcher))
        if token is None or value.then([token]).repeats:
            return _finish(tail, start, out, safe, grammar, text)
        matcher.consume_token(token)
        out.append(token)
        value.follow([token])
    if not matcher.is_accepting():
        raise DecodeError(
            f"the grammar of tool {grammar.tool.name!r} is too complex to decode: {matcher.get_error()}",
            hint="simplify the tool's parameters",
        )
    tail.tokens += out[len(tail.tokens) - start :]
    return text.end(out)


def _first_way_out(grammar: ToolGrammar, budget: int) -> tuple[int, list[int]]:
    shortest = grammar.shortest
    if shortest is None or len(shortest) > budget:
        need = f"need at least {len(shortest)}" if shortest else "need more"
        raise DecodeError(
            f"the arguments of tool {grammar.tool.name!r} {need} tokens, {budget} are left of the budget",
            hint="raise max_tokens",
        )
    return 0, shortest


def _finish(
    tail: Tail, start: int, out: list[int], safe: tuple[int, list[int]], grammar: ToolGrammar, text: _Text
) -> dict[str, Any]:
    """Back to the last safe place, and out from there."""
    whole = out[: safe[0]] + safe[1]
    tail.cut(min(len(tail.tokens), start + safe[0]))
    tail.tokens += whole[len(tail.tokens) - start :]
    return text.end(whole)


def _allowed(
    matcher: LLMatcher, head_rows: int, wanted: np.ndarray | None
) -> tuple[Tensor | str, int | None]:
    """Rows of the head to compute for the next token ("all" where many are allowed), and the token if only one is.

    `wanted`, ids, narrows the choice where that leaves any.
    """
    mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    if wanted is not None:
        ids = wanted[(mask[wanted >> 3] >> (wanted & 7) & 1).astype(bool)]
        if len(ids):
            return torch.from_numpy(ids), int(ids[0]) if len(ids) == 1 else None
    if int(np.bitwise_count(mask).sum(dtype=np.int64)) > FEW:
        return "all", None
    ids = np.unpackbits(mask, bitorder="little").nonzero()[0]
    ids = ids[ids < head_rows]
    if not len(ids):
        raise DecodeError(
            f"no token can follow here: {matcher.get_error() or 'the vocabulary lacks it'}",
            hint="simplify the tool's parameters",
        )
    return torch.from_numpy(ids), int(ids[0]) if len(ids) == 1 else None


class _Value:
    """Watches what is being written: greedy decoding can get stuck in a number or in a loop of words, and no grammar says that
    an object has each of its properties once.

    Attributes:
        repeats: whether the tokens followed last named a property that its object has already.
        opened: how many strings and names have begun.
    """

    def __init__(self, grammar: ToolGrammar) -> None:
        self._grammar = grammar
        self.repeats = False
        self._in_string = self._escaped = False
        self._digits = 0
        # All immutable, so that a shallow copy can go its own way. The names in each open object; None for an array.
        self._open: tuple[frozenset[bytes] | None, ...] = ()
        self._name: bytes | None = None
        """Of a property, as far as it is written."""
        self._text = b""
        """Of a string that is no name, the same."""
        self.opened = 0
        self._named = False

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
                self._digits = self._digits + 1 if 45 <= byte <= 57 else 0
                self._structure(byte)

    def then(self, tokens: list[int]) -> _Value:
        """What is watched once `tokens` were written, too."""
        ahead = copy.copy(self)
        ahead.follow(tokens)
        return ahead

    def _quote(self) -> None:
        self._in_string, self._digits, self._text = not self._in_string, 0, b""
        self.opened += self._in_string
        names = self._open[-1] if self._open else None
        if names is None or self._named:
            return
        if self._in_string:
            self._name = b""
        elif self._name is not None:
            self.repeats |= self._name in names
            self._open = (*self._open[:-1], names | {self._name})
            self._name, self._named = None, True

    def _structure(self, byte: int) -> None:
        if byte in b"{[":
            self._open, self._named = (*self._open, frozenset() if byte in b"{" else None), False
        elif byte in b"}]":
            # What was closed is a value: behind it another name can come only after a comma.
            self._open, self._named = self._open[:-1], True
        elif byte in b",":
            self._named = False

    def runs_away(self, out: list[int]) -> bool:
        """Whether the value should end now: a number longer than float64 tells apart, or a string that repeats itself."""
        if not self._in_string:
            return self._digits >= MAX_DIGITS
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
    def ends(self) -> np.ndarray:
        """Ids of the tokens that end the value."""
        return self._grammar.ends_string if self._in_string else self._grammar.ends_number


class _Copies:
    """Which tokens are favoured in a string, and by how much."""

    def __init__(self, source: Source | None, grammar: ToolGrammar) -> None:
        self._source, self._vocabulary = source, grammar.vocabulary
        self._string = 0
        self._fitting: tuple[str, ...] | None = None

    def favoured(self, value: _Value, matcher: LLMatcher) -> tuple[list[int], float]:
        """Ids of tokens, and nats; `matcher` stands where `value` does."""
        written = value.text
        if self._source is None or written is None:
            return [], 0.0
        if value.opened != self._string:
            self._string = value.opened
            # Not in an array: a second "sunday" would fit as well as the first.
            self._fitting = (
                None
                if value.in_array
                else self._source.fitting(written, lambda text: self._allows(matcher, text))
            )
        if self._fitting and (towards := self._source.towards(written, self._fitting)):
            return towards, FITS
        return self._source.continuing(written), COPY

    def _allows(self, matcher: LLMatcher, text: str) -> bool:
        tokens = self._vocabulary.tokenize_str(json.dumps(text, ensure_ascii=False)[1:])
        return int(matcher.validate_tokens(tokens)) == len(tokens)


def loops(tokens: list[int], *, run: int, times: int, least: int = 0) -> bool:
    """Whether `tokens` end in a run of up to `run` tokens that came `times` times in a row, `least` tokens in all."""
    for size in range(1, run + 1):
        count = max(times, -(-least // size))
        if len(tokens) >= size * count and tokens[-size * count :] == tokens[-size:] * count:
            return True
    return False


def _pick(
    seen: Seen,
    rows: Tensor | str,
    matcher: LLMatcher,
    sampler: Sampler,
    head_rows: int,
    value: _Value,
    favoured: tuple[list[int], float],
) -> int | None:
    """The next token; None where every one that the grammar allows would name a property twice."""
    assert seen.logits is not None
    logits = seen.logits
    tokens, nats = favoured
    if tokens:
        places = torch.tensor(tokens, device=logits.device)
        if isinstance(rows, Tensor):
            places = torch.isin(rows.to(logits.device), places).nonzero()[:, 0]
        places = places[places < len(logits)]  # a tokenizer may have more tokens than the head has rows
        logits = logits.index_add(0, places, logits.new_full((len(places),), nats))
    if not isinstance(rows, Tensor):
        best = int(logits.argmax())
        # The likeliest of all is nearly always allowed: no mask needed.
        if not sampler.temperature and matcher.validate_tokens([best]) and not value.then([best]).repeats:
            return best
        mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(mask, bitorder="little")[:head_rows]).bool()
        logits = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
    while bool(logits.isfinite().any()):
        place = sampler.pick(logits)
        token = int(rows[place]) if isinstance(rows, Tensor) else place
        if not value.then([token]).repeats:
            return token
        logits = logits.index_fill(0, torch.tensor([place], device=logits.device), float("-inf"))
    return None


class _Text:
    """The text of the tokens that are final, handed on piece by piece."""

    def __init__(self, grammar: ToolGrammar, written: Callable[[str], None]) -> None:
        self._grammar, self._written = grammar, written
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._count = 0

    def upto(self, tokens: list[int]) -> None:
        piece = self._bytes.decode(self._grammar.vocabulary.decode_bytes(tokens[self._count :]))
        self._count = len(tokens)
        if piece:
            self._written(piece)

    def end(self, tokens: list[int]) -> dict[str, Any]:
        """The arguments, validated before the last piece is handed on."""
        arguments = self._grammar.parse(self._grammar.vocabulary.decode_bytes(tokens).decode())
        self.upto(tokens)
        return arguments
