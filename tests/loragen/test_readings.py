"""What the cloud reads of a tool, and which parameters only the user can give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from agent_specializer.loragen.features import words_of
from agent_specializer.loragen.toolkeys import LEAD, MAX_TOKENS, key_text, read_tools, required
from agent_specializer.specs import ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def tool(
    properties: dict[str, Any], required: list[str], name: str = "t", description: str = "d"
) -> ToolSpec:
    parameters = {"type": "object", "properties": properties, "required": required}
    return ToolSpec(name=name, description=description, parameters=parameters)


TEXT = {"type": "string"}
BOOK = tool(
    {"note": TEXT, "city": TEXT | {"description": "where to, in words"}, "nights": {"type": "integer"}},
    ["nights", "city"],
    "book",
    "Books a room.",
)
TOOLS = (
    BOOK,
    ToolSpec(name="stop", description="Stops all that is going on, at once and for good."),
    tool({"a": TEXT}, ["a"], "bare", ""),
    tool({"light": TEXT | {"description": "set the light"}}, [], "set", "Sets it " * 5),
)


# Texts --------------------------------------------------------------------------------------------------------------


def test_what_has_a_default_a_constant_or_one_value_is_not_asked_of_the_user() -> None:
    properties = {
        "told": TEXT,
        "usual": TEXT | {"default": "x"},
        "nothing": TEXT | {"default": None},
        "fixed": {"const": 1},
        "one": {"enum": ["a"]},
        "two": {"enum": ["a", "b"]},
        "any": True,
        "optional": TEXT,
    }
    names = [name for name in properties if name != "optional"]
    assert required(tool(properties, [*names, "undeclared", "told"])) == ("told", "two")
    assert required(ToolSpec(name="t")) == ()


def test_a_text_says_what_a_tool_does_and_takes_and_what_is_required_comes_first() -> None:
    assert key_text(BOOK) == "Tool: Books a room.\nTakes: nights, city (where to, in words), note"
    assert key_text(TOOLS[2]).startswith("Tool: bare\n"), "a name is read where there is no description"
    assert key_text(TOOLS[1]) == "Tool: Stops all that is going on, at once and for good."


# Readings -----------------------------------------------------------------------------------------------------------


def lead_of(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """How many tokens of a key text are its lead, the start token with it."""
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    return sum(end <= len(LEAD) for _, end in offsets)


def test_a_reading_is_the_words_behind_the_lead(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    text = key_text(BOOK)
    ids = tiny_tokenizer(text, return_tensors="pt").input_ids
    expected = words_of(tiny_gemma(ids, output_hidden_states=True).hidden_states)[0]
    (reading,) = read_tools(tiny_gemma, tiny_tokenizer, [BOOK])
    lead = lead_of(tiny_tokenizer, text)
    assert 1 < lead < ids.shape[1]
    assert reading.words.dtype == torch.bfloat16
    assert reading.words.shape == (ids.shape[1] - lead, 16)
    assert torch.allclose(reading.words.float(), expected[lead:], atol=4e-3)


def test_tools_are_read_together_as_one_by_one(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    alone = read_tools(tiny_gemma, tiny_tokenizer, TOOLS, batch=1)
    for one, other in zip(alone, read_tools(tiny_gemma, tiny_tokenizer, TOOLS, batch=16), strict=True):
        assert one.words.shape == other.words.shape
        assert torch.allclose(one.words.float(), other.words.float(), atol=1e-2)
    assert len({len(one.words) for one in alone}) == len(alone), "no padding: this test shows nothing"
    assert read_tools(tiny_gemma, tiny_tokenizer, []) == []


def test_what_stands_beyond_the_tokens_that_are_read_is_left_out(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    each = tool({name: TEXT | {"description": "word " * 9} for name in "abcdef"}, ["f", "b", "d"], "long")
    text = key_text(each)
    assert len(tiny_tokenizer(text).input_ids) > MAX_TOKENS, "this test shows nothing"
    (reading,) = read_tools(tiny_gemma, tiny_tokenizer, [each])
    assert len(reading.words) == MAX_TOKENS - lead_of(tiny_tokenizer, text)
