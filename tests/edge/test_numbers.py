"""Numbers of answers: behind a result only those that were said, in whatever pieces the tokenizer has them."""

from __future__ import annotations

import pytest
import torch

from agent_specializer.edge.grammar import Vocabulary
from agent_specializer.edge.numbers import Numbers

SAID = 'User: card 4471\nResult: {"leaves": "14:05", "day": "2026-12-08", "total": 57411000000, "fee": 4.50}'


@pytest.fixture(scope="session")
def vocabulary(tiny_tokenizer):
    return Vocabulary.of(tiny_tokenizer, len(tiny_tokenizer))


@pytest.fixture
def refused(tiny_tokenizer, vocabulary):
    """What of a text may not be said, from the first token on that may not come; empty where all may."""

    def of(text: str, conversation: str = SAID, *, over: bool = True) -> str:
        numbers = Numbers(conversation, vocabulary)
        ids = tiny_tokenizer(text, add_special_tokens=False).input_ids
        for at, token in enumerate(ids):
            if numbers.among(torch.zeros(len(tiny_tokenizer)))[token] != 0:
                return tiny_tokenizer.decode(ids[at:])
            numbers.follow(token)
        ends = numbers.among(torch.zeros(len(tiny_tokenizer)))[tiny_tokenizer.eos_token_id] == 0
        return "" if ends else "its end"

    return of


@pytest.mark.parametrize(
    "text",
    [
        " It leaves at 14:05.\n",
        " On December 8, 2026 (08.12.), for $57,411,000,000.",
        " 4.50 for card 4471",
        " No number, a line,\n and é.",
        "",
    ],
)
def test_what_was_said_may_be_said(refused, text):
    assert refused(text) == ""


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (" at 14:10.", "0."),
        (" card 44712", "2"),
        (" card 447", "its end"),
        (" card 447.", "."),
        (" 3 buses", "3 buses"),
    ],
)
def test_what_was_not_said_may_not(refused, text, rest):
    assert refused(text).strip() == rest


def test_without_numbers_there_are_none_and_long_ones_are_no_trouble(refused):
    assert refused(" None at all.", "User: hello") == ""
    assert refused(" 7", "User: hello").strip() == "7"
    long = "9" * 5000
    assert refused(f" {long}", f"Result: {long}") == ""
