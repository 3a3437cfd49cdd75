"""The grammar itself as a witness: compiles schemas with llguidance and samples values from their grammars."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer


class Grammar:
    """What llguidance makes of a schema, over an alphabet of single bytes."""

    def __init__(self) -> None:
        self.tokenizer = LLTokenizer("byte")

    def complaint(self, schema: Any) -> str:
        """Its first error or warning; empty where it has none."""
        _, messages = LLMatcher.validate_grammar_with_warnings(self._compiled(schema))
        return messages[0] if messages else ""

    def accepts(self, schema: Any, text: str) -> bool:
        matcher = LLMatcher(self.tokenizer, self._compiled(schema))
        data = list(text.encode())
        return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()

    def sample(self, schema: Any, rng: random.Random, *, limit: int = 400) -> Any:
        """A random value that the grammar accepts, as JSON; None where it grew beyond `limit` bytes."""
        matcher = LLMatcher(self.tokenizer, self._compiled(schema))
        assert not matcher.is_error(), matcher.get_error()
        text: list[int] = []
        while len(text) < limit:
            allowed = self._allowed(matcher)
            if self.tokenizer.eos_token in allowed and (len(allowed) == 1 or rng.random() < 0.4):
                return ("value", json.loads(bytes(text)))
            allowed = [byte for byte in allowed if byte != self.tokenizer.eos_token]
            closing = [byte for byte in allowed if byte in b'"}]']
            plain = [byte for byte in allowed if chr(byte).isalnum()]
            dice = rng.random()
            choices = closing if closing and dice < 0.4 else plain if plain and dice < 0.8 else allowed
            byte = rng.choice(choices)
            assert matcher.consume_token(byte), matcher.get_error()
            text.append(byte)
        return None

    def _allowed(self, matcher: LLMatcher) -> list[int]:
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        return [byte for byte in range(self.tokenizer.vocab_size) if mask >> byte & 1]

    @staticmethod
    def _compiled(schema: Any) -> str:
        strict = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
        return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=strict)


@pytest.fixture(scope="session")
def grammar() -> Grammar:
    return Grammar()
