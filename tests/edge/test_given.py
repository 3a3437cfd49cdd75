"""Which optional parameters are given: which are decided on, what speaks for them, and what becomes of the grammar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from agent_specializer.edge import planning
from agent_specializer.edge.choose import Branches
from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.given import MAX_READ, decides, given, named, narrowed, offers, read
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.request import Request
from agent_specializer.edge.transcript import EMPTY, label
from agent_specializer.loragen import Adapter
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXT = {"type": "string"}
PROPERTIES = {"city": TEXT, "day": TEXT, "seats": {"type": "integer"}}


def tool(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> ToolSpec:
    parameters = {"type": "object", "properties": properties, "required": list(required), **more}
    return ToolSpec(name="book", description="d", parameters=parameters)


# Which parameters ---------------------------------------------------------------------------------------------------


def test_words_and_numbers_are_read_and_what_else_is_optional() -> None:
    properties = PROPERTIES | {
        "pets": {"type": "boolean"},
        "tags": {"type": "array", "items": TEXT},
        "sizes": {"type": "array", "items": {"type": "object"}},
        "note": {"type": ["null", "string"]},
        "any": {},
        "all": True,
        "free": {"type": "array", "items": True},
    }
    some = tool(properties, ("city", "pets"))
    assert read(some) == ("city", "day", "seats", "tags", "sizes", "note", "any", "free")
    assert decides(some)
    assert read(tool(PROPERTIES, tuple(PROPERTIES))) == tuple(PROPERTIES)
    assert not decides(tool(PROPERTIES, tuple(PROPERTIES)))
    assert read(ToolSpec(name="t")) == ()
    assert not decides(ToolSpec(name="t"))
    assert len(read(tool({f"p{i}": TEXT for i in range(20)}))) == MAX_READ


@pytest.mark.parametrize(
    "more",
    [{"minProperties": 1}, {"anyOf": [{"required": ["day"]}]}, {"dependentRequired": {"day": ["city"]}}],
)
def test_parameters_that_depend_on_each_other_are_left_to_the_grammar(more: dict[str, Any]) -> None:
    assert not decides(tool(PROPERTIES, **more))


def test_what_is_offered_is_the_object_up_to_the_value(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    runs = offers(tiny_tokenizer, tool(PROPERTIES | {"tags": {"type": "array", "items": TEXT}}))
    expected = ['{"city": "', '{"day": "', '{"seats": ', '{"tags": ["']
    assert list(map(tiny_tokenizer.decode, runs)) == expected


# What speaks for them -----------------------------------------------------------------------------------------------


def test_names_are_scored_as_one_by_one(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    prefix = tiny_tokenizer("User: to Oslo\nCall: book\n").input_ids
    runs = offers(tiny_tokenizer, tool(PROPERTIES))
    seen = Lanes(tiny_gemma, 1).run({0: Feed(prefix, tree=Branches.of_tokens(runs))})[0]
    expected = []
    for run in runs:
        out = tiny_gemma(torch.tensor([[*prefix, *run]])).logits[0].float().log_softmax(-1)
        places = range(1, len(run) - 1)
        expected.append(sum(float(out[len(prefix) + place - 1, run[place]]) for place in places))
    assert named(tiny_gemma, seen.states, runs).tolist() == pytest.approx(expected, abs=1e-3)


def chosen(
    likely: list[list[float]], *, named: list[float] | None = None, required: tuple[int, ...] = ()
) -> list[bool]:
    count = len(likely)
    told = torch.tensor(named or [0.0] * count)
    return given(
        torch.tensor(likely),
        torch.ones(len(likely[0])),
        told,
        torch.zeros(count),
        [at in required for at in range(count)],
    )


def test_what_is_copied_is_given_and_a_name_that_the_request_calls_for_helps() -> None:
    assert chosen([[0.9, 0.0], [0.0, 0.3]]) == [True, False]
    assert chosen([[0.9, 0.0], [0.0, 0.3]], named=[0.0, 9.0]) == [True, True]
    assert chosen([[0.9, 0.0], [0.0, 0.3]], named=[-9.0, 0.0]) == [False, False]
    assert chosen([[0.0, 0.0]]) == [False]


def test_a_word_is_given_once_to_the_parameter_that_is_surest_of_it() -> None:
    assert chosen([[0.8, 0.05], [0.9, 0.05]]) == [False, True]
    assert chosen([[0.8, 0.05], [0.9, 0.05]], named=[6.0, 0.0]) == [True, False]
    assert chosen([[0.8, 0.05], [0.3, 0.65]]) == [True, True], "the words that are left are enough"


def test_what_is_required_keeps_its_words_where_the_request_says_them() -> None:
    assert chosen([[0.9, 0.0], [0.9, 0.05]], required=(0,)) == [True, False]
    assert chosen([[0.1, 0.0], [0.9, 0.05]], required=(0,)) == [False, True]


# The grammar --------------------------------------------------------------------------------------------------------


def test_a_narrowed_tool_takes_what_is_given_and_what_is_required() -> None:
    some = tool(PROPERTIES | {"pets": {"type": "boolean"}}, ("city",))
    narrow = narrowed(some, {"city": False, "day": True, "seats": False})
    assert list(narrow.parameters["properties"]) == ["city", "day", "pets"]
    assert narrow.parameters["required"] == ["city", "day"]
    assert some.parameters["required"] == ["city"]
    assert narrow.fingerprint != some.fingerprint


@pytest.fixture
def toolset() -> Toolset:
    return Toolset(tools=(tool(PROPERTIES),))


def say(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


@pytest.mark.parametrize("choice", [[], ["day"], ["city", "seats"], list(PROPERTIES)])
def test_calls_have_the_parameters_that_are_given(
    engine: EdgeEngine,
    make_adapter: Callable[..., Adapter],
    toolset: Toolset,
    monkeypatch: pytest.MonkeyPatch,
    choice: list[str],
) -> None:
    monkeypatch.setattr(planning, "given", lambda *_: [name in choice for name in PROPERTIES])
    adapter = make_adapter(engine.pool, toolset)
    options = ReplyOptions(tool_choice="book", parallel_calls=False)
    reply = engine.reply(say("two seats to Oslo"), toolset, adapter=adapter, options=options)
    assert list(reply.calls[0].arguments) == choice


def test_what_does_not_fit_the_budget_is_left_to_the_model(
    engine: EdgeEngine,
    make_adapter: Callable[..., Adapter],
    toolset: Toolset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "given", lambda *_: [True] * 3)
    options = ReplyOptions(tool_choice="book", parallel_calls=False, max_tokens=6)
    reply = engine.reply(say("a"), toolset, adapter=make_adapter(engine.pool, toolset), options=options)
    assert reply.calls[0].name == "book"
    assert len(reply.calls[0].arguments) < 3


def test_priors_are_those_of_the_empty_request_under_the_own_adapter_and_measured_once(
    engine: EdgeEngine,
    make_adapter: Callable[..., Adapter],
    toolset: Toolset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[torch.Tensor] = []

    def watched(*args: Any) -> list[bool]:
        found.append(args[3])
        return given(*args)

    monkeypatch.setattr(planning, "given", watched)
    options = ReplyOptions(tool_choice="book", parallel_calls=False)
    requests = [
        Request(say("a b"), toolset, make_adapter(engine.pool, toolset, seed=seed), options=options)
        for seed in (0, 1)
    ]
    engine.reply_batch(requests)
    pooled_priors, found[:] = list(found), []
    assert not torch.equal(*pooled_priors)
    for request, prior in zip(requests, pooled_priors, strict=True):
        fresh = EdgeEngine(engine.model, engine.tokenizer, pool=engine.pool, head=engine.head)
        engine._pristine()
        fresh.reply(request.messages, toolset, adapter=request.adapter, options=options)
        assert torch.allclose(found.pop(), prior, atol=1e-3)
        ids = (
            engine.tokenizer(EMPTY).input_ids
            + engine.tokenizer(label("book"), add_special_tokens=False).input_ids
        )
        runs = offers(engine.tokenizer, toolset.tools[0])
        with fresh._active(request.adapter), torch.inference_mode():
            seen = Lanes(fresh.model, 1).run({0: Feed(ids, tree=Branches.of_tokens(runs))})[0]
            assert torch.allclose(named(fresh.model, seen.states, runs), prior, atol=1e-3)
        fresh._pristine()
    before = len(found)
    monkeypatch.setattr("agent_specializer.edge.unasked.named", lambda *_: pytest.fail("measured again"))
    engine.reply_batch(requests)
    assert len(found) == before + 2
