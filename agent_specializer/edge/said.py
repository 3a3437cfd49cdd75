"""Does the request say what a tool requires?

Behind the opening of a parameter the model either copies a value that the conversation gives, or makes one up. Two things tell: how
likely its first token is one of those words of the conversation that are no other parameter's, and what the conversation changes in the
model's state there, beside the same call after an empty request (`ChoiceHead.gives`). One more pass over a few tokens.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.choose import common_logits
from agent_specializer.edge.transcript import label
from agent_specializer.loragen.toolkeys import required
from agent_specializer.specs import ToolSpec

WIDE = 65536
"""Tokens that always belong to the normaliser: values are rarer words than names are."""
TAKES = 0.35
"""From this probability on the words that a parameter's value would begin with are its own."""
UNTOLD = 0.5
"""The probability that says nothing."""
MAX_ASKED = 6
"""Parameters of a tool that are looked for, at most."""
RECENT = 512
"""Tokens of the conversation, from its end, among which values are looked for."""
BEGINS = {"string": '"', "integer": "", "number": "", "boolean": "", "object": "{"}
"""What opens a value, by its type."""


def asked_for(tool: ToolSpec) -> tuple[str, ...]:
    """The required parameters whose values are words of the user or stand for some: nothing with parts, and not yes or no."""
    properties = tool.parameters.get("properties") or {}
    said = (name for name in required(tool) if not {"boolean", "object"} & _kinds(properties[name]))
    return tuple(said)[:MAX_ASKED]


def picked(tool: ToolSpec) -> Tensor:
    """Which of `asked_for` are picked from a few values, (parameters,) bool."""
    properties = tool.parameters.get("properties") or {}
    return torch.tensor(["enum" in properties[name] for name in asked_for(tool)], dtype=torch.bool)


def openings(tokenizer: PreTrainedTokenizerBase, tool: ToolSpec) -> list[list[int]]:
    """What stands behind ``Call:`` where the value of each of `asked_for` would begin, were it the first; token ids."""
    properties = tool.parameters.get("properties") or {}
    texts = [f"{label(tool.name)}{opening(name, properties[name])}" for name in asked_for(tool)]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    return found


def opening(name: str, schema: Any) -> str:
    """The text of a tool's arguments up to the value of its parameter `name`, were it the first."""
    begins = BEGINS.get(kind(schema), '"')
    if kind(schema) == "array":
        begins = f"[{BEGINS.get(kind(schema.get('items')), '')}"
    return f"{{{json.dumps(name, ensure_ascii=False)}: {begins}"


def kind(schema: Any) -> Any:
    """The (first) type that a value of `schema` has where it is not null; None where that is not said."""
    if not isinstance(schema, dict):
        return None
    found = schema.get("type")
    types = found if isinstance(found, list) else [found or _implied(schema)]
    return next((each for each in types if each != "null"), None)


def _implied(schema: dict[str, Any]) -> Any:
    """The type of a schema that names none: that of its alternatives, or of the values it lists."""
    kinds = map(kind, schema.get("anyOf") or schema.get("oneOf") or ())
    listed = schema.get("enum") or ()
    return next(
        (each for each in kinds if each not in (None, "null")),
        "string" if listed and all(isinstance(value, str) for value in listed) else None,
    )


def _kinds(schema: Any) -> set[Any]:
    """The types of a value of `schema`, and of its items."""
    return {kind(schema), kind(schema.get("items")) if isinstance(schema, dict) else None}


@dataclass(frozen=True)
class Beginnings:
    """The tokens with which a value can begin that stands in a conversation.

    Attributes:
        tokens: (begins,) ids, sorted. times: (begins,) how many words begin so, at least 1: "2" for two years.
    """

    tokens: Tensor
    times: Tensor


def beginnings(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[int]) -> Beginnings:
    """Of `conversation` (token ids), in any capitals."""
    special = set(tokenizer.all_special_ids)
    recent = [token for token in conversation[-RECENT:] if token not in special]
    # What the tokens are without the space before them; and words whose beginning is cut in another way without it.
    tokens: list[str] = tokenizer.convert_ids_to_tokens(recent)  # type: ignore[assignment]
    spaceless = [token.replace("\u2581", "").replace("\u0120", "") for token in tokens]
    pieces = {form for piece in spaceless if any(map(str.isalnum, piece)) for form in _capitals(piece)}
    unknown = tokenizer.unk_token_id
    known: list[int | None] = tokenizer.convert_tokens_to_ids(sorted(pieces))  # type: ignore[assignment]
    times = Counter({token for token in known if token is not None and token != unknown})
    stripped = (word.strip("'\".,;:!?()") for word in str(tokenizer.decode(recent)).split())
    forms = [form for word in stripped for form in sorted(_capitals(word))]
    if forms:
        quoted = tokenizer([f'"{form}' for form in forms], add_special_tokens=False).input_ids
        times |= Counter(ids[1] for ids in quoted if len(ids) > 1)
    found = sorted(times)
    return Beginnings(torch.tensor(found, dtype=torch.long), torch.tensor([times[token] for token in found]))


def begun(tokenizer: PreTrainedTokenizerBase, begins: Beginnings) -> list[str]:
    """The word, or the part of one, that each of `begins` stands for, in small letters."""
    pieces: list[str] = tokenizer.convert_ids_to_tokens(begins.tokens.tolist())  # type: ignore[assignment]
    return [piece.strip('\u2581\u0120"').lower() for piece in pieces]


def _capitals(word: str) -> set[str]:
    return {word, word.lower(), word.capitalize()} - {""}


def beginning(
    model: nn.Module,
    states: Tensor,
    begins: Beginnings,
    tokenizer: PreTrainedTokenizerBase,
    tool: ToolSpec,
) -> Tensor:
    """Probability of each of `begins` where the value of each parameter of `tool` begins, (parameters, begins) float32 on the CPU.

    Zero for words of the tool's own name: they ask for the tool, and are no values.

    Args:
        states: (parameters, hidden), of the model behind the opening of each.
    """
    scored, subset = common_logits(model, states, begins.tokens, WIDE)
    kept = torch.searchsorted(subset, begins.tokens.to(subset.device))
    likely = torch.softmax(scored, -1)[:, kept].cpu()
    likely[:, _of_its_name(tokenizer, tool, begins.tokens)] = 0.0
    return likely


def _of_its_name(tokenizer: PreTrainedTokenizerBase, tool: ToolSpec, begins: Tensor) -> Tensor:
    """Which of `begins` (begins,) are words of the tool's own name, (begins,) bool."""
    pieces: list[str] = tokenizer.convert_ids_to_tokens(begins.tolist())  # type: ignore[assignment]
    words = {_stem(word) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", tool.name)}
    return torch.tensor([_stem(piece.strip("\u2581\u0120")) in words for piece in pieces], dtype=torch.bool)


def _stem(word: str) -> str:
    return word.lower().rstrip("s")


class Claims:
    """Whose the words of the conversation are: those with which one parameter's value begins are no other one's.

    Args:
        likely: (parameters, begins), of `beginning`. times: of `Beginnings`.
    """

    def __init__(self, likely: Tensor, times: Tensor) -> None:
        self.likely, self._left = likely, times.clone()

    def copied(self) -> Tensor:
        """Probability that each parameter's value begins with a word that is still free, (parameters,)."""
        return (self.likely * (self._left > 0)).sum(-1)

    def take(self, parameter: int) -> None:
        """A word of those that are likeliest for `parameter` is its own from now on."""
        own = self.likely[parameter]
        self._left[own >= own.amax() / 2] -= 1


def copied(likely: Tensor, times: Tensor, picked: Tensor) -> Tensor:
    """Probability that each parameter's value is copied from words that are no surer one's, (parameters,).

    What is `picked`, (parameters,) bool, may be meant in other words: that its own do not stand there says nothing.

    Args:
        likely, times: as of `Claims`.
    """
    claims = Claims(likely, times)
    found = torch.zeros(len(likely))
    waiting = torch.ones(len(likely), dtype=torch.bool)
    while waiting.any():
        free = claims.copied()
        best = int(free.masked_fill(~waiting, -1.0).argmax())
        found[best], waiting[best] = free[best], False
        if free[best] > TAKES:
            claims.take(best)
    return torch.where(picked, found.clamp_min(UNTOLD), found)
