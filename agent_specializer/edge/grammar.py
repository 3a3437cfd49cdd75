"""A tool's arguments as a grammar: compiled by llguidance from the JSON Schema, once per tool and tokenizer.

The text is JSON with ``", "`` and ``": "``, keys in the order of the schema, no other white space, and no properties
but the schema's, unless it asks for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.completion import ByteGrammar
from agent_specializer.edge.recent import Recent
from agent_specializer.errors import DecodeError, SchemaNotSupported
from agent_specializer.specs import ToolSpec

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

REMEMBERED = 4096
"""Grammars that are kept."""
SPACING: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # No \\u: an escaped letter in a key would slip past the schema of the property that it spells.
    "json_allowed_escapes": 'nrbtf\\"',
}


@dataclass(frozen=True)
class Vocabulary:
    """llguidance's view of a tokenizer, and ids (int64) of its tokens.

    Attributes:
        ends_string, ends_number: those with which a value can end.
        next_item, ends_array: those of both that lead to an array's next item, and those that close it.
        minus: those with which a number below 0 can begin.
    """

    tokens: LLTokenizer
    ends_string: np.ndarray
    ends_number: np.ndarray
    next_item: np.ndarray
    ends_array: np.ndarray
    minus: np.ndarray

    def text(self, ids: list[int]) -> bytes:
        """The bytes of some tokens, which may end within a letter."""
        return self.tokens.decode_bytes(ids)

    def is_special(self, token: int) -> bool:
        """Whether a token stands for no text: the end of the sequence, padding ..."""
        return self.tokens.is_special_token(token)

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, head_rows: int) -> Vocabulary:
        """Of a fast tokenizer (seconds for 262,144 tokens). `head_rows`, of the model, may be more than its tokens."""
        core = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
        tokens = LLTokenizer(
            core.to_str(), n_vocab=max(head_rows, len(tokenizer)), eos_token=tokenizer.eos_token_id
        )
        first = [tokens.decode_bytes([token])[:2] for token in range(head_rows)]

        def beginning(*texts: bytes) -> np.ndarray:
            found = [token for token, text in enumerate(first) if text.startswith(texts)]
            return np.array(found, dtype=np.int64)

        quotes, marks = beginning(b'"'), beginning(b",", b"}", b"]")
        return Vocabulary(
            tokens,
            ends_string=quotes,
            ends_number=marks,
            next_item=beginning(b",", b'",'),
            ends_array=beginning(b"]", b'"]'),
            minus=beginning(b"-", b" -"),
        )


class ToolGrammar:
    """The language of one tool's arguments."""

    def __init__(self, tool: ToolSpec, words: Vocabulary) -> None:
        self.tool, self.vocabulary = tool, words.tokens
        self.ends_string, self.ends_number = words.ends_string, words.ends_number
        self._values: dict[str, LLMatcher | None] = {}
        self._source = LLMatcher.grammar_from_json_schema(
            json.dumps(closed(tool.parameters)), overrides=SPACING
        )
        self._start = LLMatcher(self.vocabulary, self._source, log_level=0)
        if self._start.is_error():
            raise SchemaNotSupported(
                f"the parameters of tool {tool.name!r} cannot be decoded: {self._start.get_error()}",
                hint="register the tool again: registration says what to change",
            )
        self._validator = Draft202012Validator(
            tool.parameters, format_checker=Draft202012Validator.FORMAT_CHECKER
        )

    def matcher(self) -> LLMatcher:
        """A matcher at the start of the arguments."""
        return self._start.deep_copy()

    def value(self, name: str, opening: str) -> LLMatcher | None:
        """A matcher behind `opening`, the text of the arguments up to within the value of the parameter `name`, were it the only one.

        None where no arguments begin so. Others use it, too: not to be moved on.
        """
        if opening not in self._values:
            schema = self.tool.parameters
            alone = {**schema, "properties": {name: schema["properties"][name]}, "required": [name]}
            source = LLMatcher.grammar_from_json_schema(json.dumps(closed(alone)), overrides=SPACING)
            matcher = LLMatcher(self.vocabulary, source, log_level=0)
            fits = not matcher.is_error() and matcher.consume_tokens(self.vocabulary.tokenize_str(opening))
            self._values[opening] = matcher if fits else None
        return self._values[opening]

    @cached_property
    def bytes(self) -> ByteGrammar:
        """The same language byte by byte, for completing arguments when the budget ends."""
        return ByteGrammar(self._source)

    @cached_property
    def shortest(self) -> list[int] | None:
        """Tokens of (nearly) the shortest valid arguments; None where the search finds none."""
        text = self.bytes.complete(b"")
        return None if text is None else self.vocabulary.tokenize_bytes(text)

    def completion(self, tokens: list[int]) -> list[int] | None:
        """Tokens of a short completion of the arguments that begin with `tokens`; None where the search finds none."""
        rest = self.bytes.complete(self.vocabulary.decode_bytes(tokens))
        return None if rest is None else self.vocabulary.tokenize_bytes(rest)

    def parse(self, text: str) -> dict[str, Any]:
        """The arguments in `text`, validated against the schema, formats included; DecodeError when they are not."""
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
            text.encode()
        except (ValueError, RecursionError) as error:
            raise self._invalid(text, str(error)) from error
        problem = next(self._validator.iter_errors(value), None)
        if problem is not None:
            raise self._invalid(text, problem.message)
        arguments: dict[str, Any] = value
        return arguments

    def _invalid(self, text: str, why: str) -> DecodeError:
        return DecodeError(
            f"the arguments {text[:200]!r} of tool {self.tool.name!r} are not valid: {why}",
            hint="ask again in other words; a pattern or an enum in the schema helps the model more than a format",
        )


class Grammars:
    """The grammars of one tokenizer, each compiled at its first use; the very first reads the whole vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        self._tokenizer, self._size = tokenizer, vocabulary
        self._grammars: Recent[ToolGrammar] = Recent(REMEMBERED)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self._tokenizer, self._size)

    def of(self, tool: ToolSpec) -> ToolGrammar:
        """The grammar of `tool`; SchemaNotSupported where there is none."""
        known = self._grammars.get(tool.fingerprint)
        return known or self._grammars.put(tool.fingerprint, ToolGrammar(tool, self.vocabulary))


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` without room for properties that it does not list.

    An object that lists properties gets ``additionalProperties: false``, and so does the root. Objects whose properties
    come from several places (allOf, anyOf, oneOf, $ref) stay as they are, since closing one part would contradict the
    others, and so do objects that list none: those are free-form maps.
    """
    if _mixes(schema):
        return dict(schema)
    out = _closed(schema)
    if not _spread(out):
        out.setdefault("additionalProperties", False)
    return out


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(child) for child in node]
    if not isinstance(node, Mapping):
        return node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties", "$defs", "definitions"):
            out[key] = {name: _closed(child) for name, child in value.items()}
        elif key in ("items", "prefixItems", "additionalProperties") or (
            key in ("anyOf", "oneOf") and "properties" not in node
        ):
            out[key] = _closed(value)
        else:
            out[key] = value
    if "properties" in out and not _spread(out):
        out.setdefault("additionalProperties", False)
    return out


def _spread(node: Mapping[str, Any]) -> bool:
    return any(key in node for key in ("allOf", "anyOf", "oneOf", "$ref"))


def _mixes(node: Any) -> bool:
    """Whether some object's properties may come from several places, also through references."""
    if isinstance(node, list):
        return any(map(_mixes, node))
    if not isinstance(node, Mapping):
        return False
    if "allOf" in node or (
        "properties" in node and _spread(node) and isinstance(node["properties"], Mapping)
    ):
        return True
    return any(map(_mixes, node.values()))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a property occurs twice")
    return out


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
