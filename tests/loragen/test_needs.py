"""Needs: what only the user can say, where it stands in a tool's text, and what it costs to leave it out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from agent_specializer.errors import AdapterError
from agent_specializer.loragen import (
    Adapter,
    ChoiceHead,
    Generator,
    GeneratorConfig,
    Needs,
    shape_of,
)
from agent_specializer.loragen.features import words_of
from agent_specializer.loragen.toolkeys import LEAD, MAX_TOKENS, Asked, key_text, read_tools, required
from agent_specializer.specs import Toolset, ToolSpec

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


def test_the_spans_of_a_text_are_the_words_of_each_parameter_and_what_is_required_comes_first() -> None:
    text, spans = key_text(BOOK)
    said = {name: text[start:end] for name, (start, end) in spans.items()}
    assert said == {"nights": "nights", "city": "city (where to, in words)", "note": "note"}
    assert list(spans) == ["nights", "city", "note"]
    assert text == f"Tool: Books a room.\nTakes: {', '.join(said.values())}"
    assert key_text(TOOLS[2])[0].startswith("Tool: bare\n"), "a name is read where there is no description"
    assert key_text(TOOLS[1]) == ("Tool: Stops all that is going on, at once and for good.", {})


# Readings -----------------------------------------------------------------------------------------------------------


def lead_of(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """How many tokens of a key text are its lead, the start token with it."""
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    return sum(end <= len(LEAD) for _, end in offsets)


def test_a_parameters_reading_is_of_the_tokens_of_its_own_words(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    for each in TOOLS:
        text, spans = key_text(each)
        ids = tiny_tokenizer(text).input_ids[lead_of(tiny_tokenizer, text) :]
        (reading,) = read_tools(tiny_gemma, tiny_tokenizer, [each])
        said = {name: tiny_tokenizer.decode(ids[a:b]).strip() for name, (a, b) in reading.parameters.items()}
        assert said == {name: text[start:end] for name, (start, end) in spans.items()}
        ends = [tiny_tokenizer.decode(ids[at]) for a, b in reading.parameters.values() for at in (a, b - 1)]
        assert all(map(str.strip, ends)), "a space before or behind is no word of it"


def test_a_reading_is_the_words_behind_the_lead_and_a_parameter_the_mean_of_its_own(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    text, spans = key_text(BOOK)
    ids = tiny_tokenizer(text, return_tensors="pt").input_ids
    expected = words_of(tiny_gemma(ids, output_hidden_states=True).hidden_states)[0]
    (reading,) = read_tools(tiny_gemma, tiny_tokenizer, [BOOK])
    lead = lead_of(tiny_tokenizer, text)
    assert 1 < lead < ids.shape[1]
    assert reading.words.dtype == torch.bfloat16
    assert reading.words.shape == (ids.shape[1] - lead, 16)
    assert torch.allclose(reading.words.float(), expected[lead:], atol=4e-3)
    assert reading.parameters.keys() == spans.keys()
    for name, (start, end) in reading.parameters.items():
        mean = reading.words[start:end].float().mean(0)
        assert torch.allclose(reading.parameter(name), mean / mean.norm(), atol=1e-6)
        assert reading.parameter(name).dtype == torch.float32


def test_tools_are_read_together_as_one_by_one(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    alone = read_tools(tiny_gemma, tiny_tokenizer, TOOLS, batch=1)
    for one, other in zip(alone, read_tools(tiny_gemma, tiny_tokenizer, TOOLS, batch=16), strict=True):
        assert one.words.shape == other.words.shape
        assert torch.allclose(one.words.float(), other.words.float(), atol=1e-2)
        assert one.parameters == other.parameters
    assert len({len(one.words) for one in alone}) == len(alone), "no padding: this test shows nothing"
    assert not torch.allclose(alone[0].parameter("city"), alone[0].parameter("nights"), atol=0.1)
    assert read_tools(tiny_gemma, tiny_tokenizer, []) == []


def test_what_stands_beyond_the_tokens_that_are_read_has_no_vector(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    long = {name: TEXT | {"description": "word " * 9} for name in "abcdef"}
    each = tool(long, ["f", "b", "d"], "long")
    text, spans = key_text(each)
    offsets = tiny_tokenizer(text, return_offsets_mapping=True).offset_mapping[:MAX_TOKENS]
    read = [name for name, (start, _) in spans.items() if start < offsets[-1][1]]
    assert 1 < len(read) < 3, "this test shows nothing"
    (reading,) = read_tools(tiny_gemma, tiny_tokenizer, [each])
    assert list(reading.parameters) == read
    assert len(reading.words) == MAX_TOKENS - lead_of(tiny_tokenizer, text)
    assert max(end for _, end in reading.parameters.values()) == len(reading.words), "the last is cut"
    of = generator_of(tiny_gemma, tiny_tokenizer).needs(Toolset(tools=(each,))).of
    assert of == tuple(("long", name) for name in ("f", "b", "d") if name in read)


def generator_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Generator:
    sizes = {
        "experts": 3,
        "rank": 2,
        "router_width": 4,
        "key_dim": 8,
        "need_dim": 6,
    } | changes
    shape = shape_of(model)
    return Generator(GeneratorConfig(cloud=shape, edge=shape, **sizes), model, tokenizer).eval()


def test_a_toolset_has_a_unit_vector_for_what_each_tool_requires_whoever_stands_beside_it(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    generator = generator_of(tiny_gemma, tiny_tokenizer)
    needs = generator.generate(Toolset(tools=TOOLS)).needs
    assert needs.of == (("bare", "a"), ("book", "nights"), ("book", "city"))
    assert torch.allclose(needs.vectors.norm(dim=-1), torch.ones(3))
    alone = generator.needs(Toolset(tools=(BOOK,)))
    assert alone.of == needs.of[1:]
    assert torch.equal(alone.vectors, needs.vectors[1:])
    for nothing in (
        generator.needs(Toolset(tools=TOOLS[1:2])),
        generator.needs(Toolset()),
        generator_of(tiny_gemma, tiny_tokenizer, need_dim=0).needs(Toolset(tools=TOOLS)),
        generator_of(tiny_gemma, tiny_tokenizer, key_dim=0).needs(Toolset(tools=TOOLS)),
    ):
        assert (nothing.of, nothing.vectors.numel()) == ((), 0)


# Scores -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def head() -> ChoiceHead:
    """A head that compares tokens with needs as they are."""
    torch.manual_seed(0)
    made = ChoiceHead(4, 8, 4).requires_grad_(False)
    assert made.found is not None
    made.found.linear.weight.copy_(torch.eye(4))
    made.words_bias.fill_(0.3)
    made.stop_bias.fill_(-0.4)
    return made


WORDS = torch.eye(4)[None, [0, 1, 3]]
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_a_token_that_equals_a_need_is_evidence_and_one_outside_the_conversation_is_none(
    head: ChoiceHead,
) -> None:
    needs = torch.eye(4)
    said = head.evidence(WORDS, ALL, needs)
    assert (said[0] > 0).tolist() == [True, True, False, True]
    assert torch.allclose(said[0, 0], head.need_t + head.need_bias)
    without = head.evidence(WORDS, torch.tensor([[True, True, False]]), needs)
    assert torch.equal(without[0, :3], said[0, :3])
    assert without[0, 3] < 0
    assert torch.equal(head.evidence(WORDS, ALL, needs[None]), said), "needs of a row's own"


def test_a_tool_is_as_complete_as_all_its_needs_together_and_one_without_needs_surely_is(
    head: ChoiceHead,
) -> None:
    evidence = torch.tensor([[2.0, -1.0, 0.5]])
    complete = head.complete(evidence, torch.tensor([2, 0, 2]), tools=4)
    log = torch.nn.functional.logsigmoid(evidence[0])
    assert torch.allclose(complete, torch.stack([log[1], log[0] * 0, log[0] + log[2], log[0] * 0])[None])


def test_ask_moves_the_score_of_words_alone_by_what_the_likely_tools_miss(head: ChoiceHead) -> None:
    names = torch.tensor([[3.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    request = Asked(torch.randn(2, 5, 8), torch.randn(2))
    keys = torch.nn.functional.normalize(torch.randn(2, 2, 8), dim=-1)
    head.log_t.fill_(-9.0)
    missing = torch.tensor([[-4.0, 0.0], [-4.0, 0.0]])  # the first tool misses something

    def scores(ask: float, complete: Tensor | None = missing, called: Tensor | bool = False) -> Tensor:
        head.ask.fill_(ask)
        return head(names, request, keys, called, complete)

    plain = scores(1.0, None)
    assert torch.equal(scores(0.0), plain)
    assert torch.equal(scores(2.0, torch.zeros(2, 2)), plain), "all is said"
    asked = scores(2.0)
    assert torch.equal(asked[:, :2], plain[:, :2])
    gain = asked[:, 2] - plain[:, 2]
    assert torch.allclose(gain, 2.0 * 4.0 * plain[:, :2].softmax(-1)[:, 0])
    assert gain[0] > 7 > 1 > gain[1] > 0
    after = torch.tensor([True, False])
    moved = scores(2.0, called=after) - scores(2.0, None, called=after)
    assert not moved[0].any(), "a call was made: nothing is asked back"
    assert torch.equal(moved[1, 2], gain[1])


# Storage ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter() -> Adapter:
    vectors = torch.nn.functional.normalize(torch.randn(2, 6), dim=-1)
    return Adapter(
        gates=torch.full((3, 4), 0.25),
        names=("größe", "b"),
        keys=torch.eye(2, 8)[:, None],
        needs=Needs(vectors, (("größe", "wert"), ("b", "x"))),
        toolset="t",
        generator="g",
    )


def test_needs_survive_the_bytes_of_an_adapter(adapter: Adapter) -> None:
    back = Adapter.from_bytes(adapter.to_bytes())
    assert back.needs.of == adapter.needs.of
    assert back.needs.vectors.dtype == torch.float32
    assert torch.allclose(back.needs.vectors, adapter.needs.vectors, atol=1e-3)
    assert back.same_as(adapter)
    assert Adapter.from_bytes(replace(adapter, needs=Needs()).to_bytes()).needs.of == ()


def test_an_adapter_with_other_needs_is_another_one(adapter: Adapter) -> None:
    vectors, of = adapter.needs.vectors, adapter.needs.of
    for other in (
        Needs(),
        Needs(vectors.flip(0), of),
        Needs(vectors, of[::-1]),
        Needs(vectors[:1], of),
        Needs(vectors[:, :5], of),
    ):
        assert not adapter.same_as(replace(adapter, needs=other))


@pytest.mark.parametrize("said", ["null", "3", "[1]", '[["b"]]', '[["b", "x", "y"]]', "{", None])
def test_needs_that_say_nothing_sensible_are_damage(adapter: Adapter, said: str | None) -> None:
    data = adapter.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    changed = {**header, "needs": said} if said else {k: v for k, v in header.items() if k != "needs"}
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.from_bytes(save(load(data), metadata=changed))
    vectorless = {name: tensor for name, tensor in load(data).items() if name != "needs"}
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.from_bytes(save(vectorless, metadata=header))
