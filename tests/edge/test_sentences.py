"""Which sentences of a request are another tool's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch

from agent_specializer.edge.copying import Source
from agent_specializer.edge.grammar import Grammars
from agent_specializer.edge.sentences import elsewhere, sentences
from agent_specializer.edge.transcript import newest_turn, render
from agent_specializer.messages import Call, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TWO = "set the light to 5. then get the weather of Rome please."


def split(tokenizer: PreTrainedTokenizerFast, *messages: Message) -> list[str]:
    text = render(messages)
    prompt = tokenizer(text).input_ids
    ranges = sentences(tokenizer, prompt, newest_turn(tokenizer, text))
    assert all(a[1] == b[0] for a, b in pairwise(ranges)), "nothing is left out"
    return [str(tokenizer.decode(prompt[start:end])).strip() for start, end in ranges]


def user(text: str) -> Message:
    return Message(role="user", content=text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TWO, ["User: set the light to 5.", "then get the weather of Rome please."]),
        ("is it warm? (and dry?) open the window", ["User: is it warm?", "(and dry?)", "open the window"]),
        ("ask Mr. Smith of St. Ives and Dr. No", ["User: ask Mr. Smith of St. Ives and Dr. No"]),
        ("it is 21.5 at 10.0.0.1 or a.b", ["User: it is 21.5 at 10.0.0.1 or a.b"]),
        ("light the hall\nget the weather", ["User: light the hall", "get the weather"]),
        ("light", ["User: light"]),
    ],
)
def test_sentences_and_lines(tiny_tokenizer, text, found) -> None:
    assert split(tiny_tokenizer, user(text)) == found


def test_a_short_one_is_part_of_the_one_before(tiny_tokenizer) -> None:
    assert split(tiny_tokenizer, user("set the light. a. get the weather")) == [
        "User: set the light. a.",
        "get the weather",
    ]


def test_of_a_conversation_the_newest_message_alone(tiny_tokenizer) -> None:
    before = (user("one is here. two is here."), Message(role="assistant", content="done. really."))
    after = (
        Message(role="assistant", calls=(Call(name="a"),)),
        Message(role="tool", name="a", content="one. two."),
    )
    expected = ["User: set the light to 5.", "then get the weather of Rome please."]
    assert split(tiny_tokenizer, *before, user(TWO)) == expected
    assert split(tiny_tokenizer, *before, user(TWO), *after) == expected


def test_a_sentence_that_is_much_more_like_another_tool_is_that_ones() -> None:
    near, far, both = torch.eye(3)
    keys = torch.stack([near[None], far[None]])
    words = torch.stack([near, near, far, far, (near + far) / 2**0.5, both]) / 6
    ranges = [(0, 2), (2, 4), (4, 6)]
    back = torch.tensor(0.5)
    assert elsewhere(words, keys, back, ranges, 0) == [(2, 4)]
    assert elsewhere(words, keys, back, ranges, 1) == [(0, 2)]
    assert elsewhere(words, keys, back, [(0, 6)], 0) == []
    assert elsewhere(words, keys[:1], back, ranges, 0) == []
    # The sentence that is most like a tool is its own, however much more another one resembles it.
    assert elsewhere(words[:4], keys, back, [(2, 3), (3, 4)], 0) == [(3, 4)]


def test_what_is_left_is_not_copied_unless_it_alone_fits(tiny_tokenizer, make_tiny_gemma) -> None:
    grammars = Grammars(tiny_tokenizer, make_tiny_gemma().config.vocab_size)
    text = render([user("set 5 or 7 for Rome. then Oslo 9 and 7")])
    source = Source(tiny_tokenizer, tiny_tokenizer(text).input_ids, grammars.vocabulary)
    spans = source.find([" then Oslo 9 and 7"])
    assert [source.text[start:end] for start, end in spans] == ["then Oslo 9 and 7"]
    assert source.find(["nowhere", "User: set 5"])[0][0] == source.text.index("set 5")
    left = source.leaving(spans)
    first = {tiny_tokenizer.decode([token]) for token in left.continuing(b"")}
    assert "R" in first
    assert "O" not in first
    assert "O" in {tiny_tokenizer.decode([token]) for token in source.continuing(b"")}
