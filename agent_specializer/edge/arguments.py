"""Arguments decoded under a tool's grammar: forced runs cost no pass of their own, and the budget is never overrun.

From time to time, and at every token when the budget nears its end, the shortest completion of what is there is worked
out. As soon as a token leads to where the rest no longer fits, it is taken back and that completion written instead.
A token that would name a property of an object twice is not taken: a grammar cannot say so.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from agent_specializer.edge.copying import Copies, Favoured
from agent_specializer.edge.grammar import ToolGrammar
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.edge.sharing import is_listed
from agent_specializer.edge.written import Written
from agent_specializer.errors import DecodeError

FEW = 2048
"""Up to so many allowed tokens, only their rows of the head are multiplied."""
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
        self.again(length)

    def again(self, length: int) -> None:
        """Have all tokens but the first `length` read once more."""
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
    copies: Copies | None = None,
    own_weights: bool = False,
) -> Generator[Feed, Seen, dict[str, Any]]:
    """Arguments behind the tokens of `tail`, to which their tokens are added; they validate against the schema.

    Args:
        budget: tokens that the arguments may have.
        head_rows: rows of the model's head; tokens beyond them cannot be predicted.
        written: called with each piece of the text that is final.
        copies: what of the conversation is rather copied than made up.
        own_weights: whether there are weights for writing (`edge.activated`).

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
    value = Written(grammar)
    # What is picked from a list is judged as a tool is, not copied.
    properties = grammar.tool.parameters.get("properties") or {}
    picked = {name for name, sub in properties.items() if is_listed(sub)}
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
            seen = yield tail.feed(
                rows=rows, under="arguments" if own_weights and value.parameter not in picked else ""
            )
            token = _pick(
                seen,
                rows,
                matcher,
                sampler,
                head_rows,
                value,
                copies.favoured(value, matcher) if copies else [],
            )
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


def _pick(
    seen: Seen,
    rows: Tensor | str,
    matcher: LLMatcher,
    sampler: Sampler,
    head_rows: int,
    value: Written,
    favoured: Favoured,
) -> int | None:
    """The next token; None where every one that the grammar allows would name a property twice."""
    assert seen.logits is not None
    logits = seen.logits
    for tokens, nats in favoured:
        if not len(tokens):
            continue
        places = torch.as_tensor(tokens, device=logits.device)
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
