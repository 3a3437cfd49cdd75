"""Whether a request says what a tool requires: which parameters, where their values begin, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from agent_specializer.edge import said
from agent_specializer.edge.choose import Branches
from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.job import Scorer
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.request import Request
from agent_specializer.edge.said import (
    MAX_ASKED,
    Beginnings,
    asked_for,
    beginning,
    beginnings,
    copied,
    opening,
    openings,
    picked,
)
from agent_specializer.loragen import Adapter, ChoiceHead
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXT = {"type": "string"}
FREE = torch.zeros(3, dtype=torch.bool)
"""Of three parameters none is picked from a few values."""


def tool(properties: dict[str, Any], required: list[str] | None = None, name: str = "t") -> ToolSpec:
    names = list(properties) if required is None else required
    return ToolSpec(
        name=name,
        description="d",
        parameters={"type": "object", "properties": properties, "required": names},
    )


# Which parameters ---------------------------------------------------------------------------------------------------


def test_what_is_optional_or_known_or_has_parts_is_not_asked_for() -> None:
    properties = {
        "city": TEXT,
        "nights": {"type": "integer"},
        "guests": {"type": "array", "items": TEXT},
        "legs": {"type": "array", "items": {"type": "object"}},
        "usual": TEXT | {"default": "x"},
        "room": TEXT | {"enum": ["hall", "kitchen"]},
        "unit": TEXT | {"enum": ["metre"]},
        "pets": {"type": "boolean"},
        "note": TEXT,
    }
    some = tool(properties, [*properties][:-1])
    assert asked_for(some) == ("city", "nights", "guests", "room")
    assert picked(some).tolist() == [False, False, False, True]
    assert picked(ToolSpec(name="t")).tolist() == []
    assert asked_for(ToolSpec(name="t")) == ()
    assert len(asked_for(tool({f"p{i}": TEXT for i in range(20)}))) == MAX_ASKED


def test_an_opening_is_the_call_up_to_the_value_of_one_parameter(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    runs = openings(tiny_tokenizer, tool({"city": TEXT, "day": TEXT}, name="book"))
    assert list(map(tiny_tokenizer.decode, runs)) == [' book\n{"city": "', ' book\n{"day": "']
    assert openings(tiny_tokenizer, ToolSpec(name="t")) == []


@pytest.mark.parametrize(
    ("schema", "begins"),
    [
        (TEXT, '"'),
        ({"type": ["null", "string"]}, '"'),
        ({"type": "number"}, ""),
        ({"type": "array", "items": TEXT}, '["'),
        ({"type": "array", "items": {"type": "integer"}}, "["),
        ({"type": "array"}, "["),
        ({}, '"'),
        (True, '"'),
    ],
)
def test_a_value_begins_as_its_type_does(schema: Any, begins: str) -> None:
    assert opening("größe", schema) == f'{{"größe": {begins}'


def test_branches_end_where_their_runs_do() -> None:
    branches = Branches.of_tokens([[5], [6, 7, 8], [9, 9]])
    assert branches.tokens.tolist() == [5, 6, 7, 8, 9, 9]
    assert branches.segments.tolist() == [1, 2, 2, 2, 3, 3]
    assert branches.depths.tolist() == [0, 0, 1, 2, 0, 1]
    assert branches.ends.tolist() == [0, 3, 5]


def test_a_branch_reads_as_if_it_stood_alone_behind_the_prefix_and_leaves_no_trace(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    prefix = tiny_tokenizer("User: to Oslo\nCall:").input_ids
    runs = openings(tiny_tokenizer, tool({"city": TEXT, "day": TEXT}, name="book"))
    branches = Branches.of_tokens(runs)
    lanes = Lanes(tiny_gemma, 1)
    lanes.run({0: Feed(prefix)})
    seen = lanes.run({0: Feed(prefix[-1:], forget=1, tree=branches)})[0]
    for run, end in zip(runs, branches.ends.tolist(), strict=True):
        out = tiny_gemma(torch.tensor([[*prefix, *run]]), output_hidden_states=True)
        assert torch.allclose(seen.states[1 + end], out.hidden_states[-1][0, -1], atol=1e-4)
    after = lanes.run({0: Feed([7], rows="all")})[0].logits
    assert after is not None
    assert torch.allclose(after, tiny_gemma(torch.tensor([[*prefix, 7]])).logits[0, -1].float(), atol=1e-4)


# Values -------------------------------------------------------------------------------------------------------------


def test_values_begin_as_the_words_of_the_conversation_do_in_any_capitals(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    begins = beginnings(tiny_tokenizer, tiny_tokenizer('User: fly to oslo, "LIMA" now!').input_ids).tokens
    assert begins.tolist() == sorted(set(begins.tolist()))
    for word in ("oslo", "Oslo", "LIMA", "lima", "now"):
        (_, first, *_) = tiny_tokenizer(f'"{word}', add_special_tokens=False).input_ids
        assert first in begins, word
    assert tiny_tokenizer.bos_token_id not in begins
    assert beginnings(tiny_tokenizer, []).tokens.tolist() == []
    far = tiny_tokenizer("zq " + "a " * said.RECENT).input_ids
    near = tiny_tokenizer("a " * said.RECENT, add_special_tokens=False).input_ids
    recent = [beginnings(tiny_tokenizer, ids).tokens for ids in (far, near)]
    assert torch.equal(*recent), "long ago"


def test_words_that_begin_alike_are_as_many_values(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    found = beginnings(tiny_tokenizer, tiny_tokenizer("to Oslo (oslo!) and Lima").input_ids)
    times = dict(zip(found.tokens.tolist(), found.times.tolist(), strict=True))

    def often(word: str) -> int:
        return times[tiny_tokenizer(f'"{word}', add_special_tokens=False).input_ids[1]]

    assert (often("oslo"), often("Oslo"), often("Lima")) == (2, 2, 1)


@pytest.mark.parametrize("common", [4, 10_000])
def test_how_likely_a_value_is_to_begin_as_each_word_of_the_conversation(
    tiny_gemma: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    common: int,
) -> None:
    monkeypatch.setattr(said, "WIDE", common)
    torch.manual_seed(0)
    states = torch.randn(3, 16)
    begins = Beginnings(torch.tensor([1, 7, 20]), torch.ones(3))
    every = tiny_gemma.lm_head(states).float()
    kept = torch.unique(torch.cat([torch.arange(min(common, every.shape[1])), begins.tokens]))
    expected = (every[:, begins.tokens] - every[:, kept].logsumexp(-1, keepdim=True)).exp()
    found = beginning(tiny_gemma, states, begins, tiny_tokenizer, tool({"x": TEXT}))
    assert torch.allclose(found, expected, atol=1e-5)
    none = Beginnings(begins.tokens[:0], begins.times[:0])
    nothing = beginning(tiny_gemma, states, none, tiny_tokenizer, tool({"x": TEXT}))
    assert nothing.shape == (3, 0)
    assert copied(nothing, none.times, FREE).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["create_or_add", "createItem", "Create"])
def test_words_of_the_tools_name_are_no_values(
    tiny_gemma: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Pieces:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [["create", "\u2581Creates", "creative", "milk", "CREATE"][at] for at in ids]

    found = beginning(
        tiny_gemma,
        torch.randn(1, 16),
        Beginnings(torch.arange(5), torch.ones(5)),
        Pieces(),  # type: ignore[arg-type]
        ToolSpec(name=name),
    )
    assert (found == 0).tolist() == [[True, True, False, False, True]]


def test_a_word_is_copied_into_one_parameter_alone_that_which_is_surest_of_it() -> None:
    likely = torch.tensor([[0.5, 0.3, 0.0], [0.9, 0.05, 0.0], [0.1, 0.1, 0.2]])
    assert copied(likely, torch.ones(3), FREE).tolist() == pytest.approx([0.3, 0.95, 0.3])
    assert copied(likely, torch.tensor([2, 1, 1]), FREE).tolist() == pytest.approx([0.8, 0.95, 0.2])
    assert copied(likely[:1], torch.ones(3), FREE[:1]).tolist() == pytest.approx([0.8])
    assert copied(likely[:0], torch.ones(3), FREE[:0]).tolist() == []


def test_that_words_of_what_is_picked_are_not_there_says_nothing() -> None:
    likely = torch.tensor([[0.5, 0.3, 0.0], [0.9, 0.05, 0.0], [0.1, 0.1, 0.2]])
    assert copied(likely, torch.ones(3), ~FREE).tolist() == pytest.approx([0.5, 0.95, 0.5])


# Replies ------------------------------------------------------------------------------------------------------------


def test_what_copying_says_and_what_changes_add_up() -> None:
    head = ChoiceHead(4, 0)
    head.requires_grad_(False)
    sure, unsure = head.gives(torch.zeros(2, 4), torch.tensor([0.999, 0.1]))
    assert sure > 2 > 0 > unsure
    assert head.gives(torch.zeros(2, 4), torch.tensor([0.0, 1.0])).isfinite().all()
    torch.nn.init.ones_(head.given.weight)
    assert head.gives(torch.ones(1, 4), torch.tensor([0.5])).tolist() == [8.0]


@pytest.fixture
def asking(engine: EdgeEngine) -> EdgeEngine:
    """An engine whose head asks back."""
    head = ChoiceHead(16, 0).eval().requires_grad_(False)
    head.ask.fill_(2.0)
    torch.manual_seed(0)
    torch.nn.init.normal_(head.given.weight)
    with engine.exclusive() as model:
        return EdgeEngine(model, engine.tokenizer, pool=engine.pool, head=head)


def say(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """How far each parameter was found to be given, request by request."""
    found: list[list[float]] = []
    gives = Scorer.gives

    def watched(*args: Any) -> torch.Tensor:
        out = gives(*args)
        found.append(out.tolist())
        return out

    monkeypatch.setattr(Scorer, "gives", watched)
    return found


HOME = Toolset(tools=(tool({"city": TEXT, "day": TEXT}, name="book"), tool({"x": TEXT}, name="cancel")))


def test_what_is_not_said_speaks_for_words_and_for_nothing_else(
    asking: EdgeEngine, make_adapter: Callable[..., Adapter], values: list[list[float]]
) -> None:
    adapter = make_adapter(asking.pool, HOME)
    asked = asking.reply(say("a trip"), HOME, adapter=adapter)
    assert len(values) == 1
    asking.head.ask.fill_(0.0)
    plain = asking.reply(say("a trip"), HOME, adapter=adapter)
    assert len(values) == 1, "where it does not count nothing is read"
    before, after = ({choice.name: choice.score for choice in reply.choices} for reply in (plain, asked))
    likeliest = max(("book", "cancel"), key=before.__getitem__)
    assert len(values[0]) == len(asked_for(HOME.tool(likeliest)))
    reason = float(asking.head.ask_bias) - 2.0 * min(values[0])
    assert after[None] == pytest.approx(float(np.logaddexp(before[None], reason)), abs=1e-4)
    assert {name: after[name] for name in HOME.names} == pytest.approx({n: before[n] for n in HOME.names})
    assert plain.missing == ()


def test_a_reply_in_words_names_what_is_missing(
    asking: EdgeEngine, make_adapter: Callable[..., Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = Toolset(tools=HOME.tools[:1])
    adapter = make_adapter(asking.pool, only)
    monkeypatch.setattr(Scorer, "gives", lambda *_: torch.tensor([0.1, -0.1]))
    asking.head.words_bias.fill_(100.0)
    assert asking.reply(say("a trip"), only, adapter=adapter).missing == ("day",)
    asking.head.words_bias.fill_(-100.0)
    asking.head.ask_bias.fill_(-100.0)
    reply = asking.reply(say("a trip"), only, adapter=adapter)
    assert (reply.missing, [call.name for call in reply.calls][:1]) == ((), ["book"])


def test_only_a_first_choice_that_is_free_asks_back(
    asking: EdgeEngine, make_adapter: Callable[..., Adapter], values: list[list[float]]
) -> None:
    adapter = make_adapter(asking.pool, HOME)
    after = [
        *say("a trip"),
        Message(role="assistant", calls=(Call(name="book", arguments={"city": "a", "day": "b"}),)),
        Message(role="tool", name="book", content="done"),
    ]
    asking.reply(after, HOME, adapter=adapter)
    for wish in ("any", "none", "book"):
        asking.reply(say("a trip"), HOME, adapter=adapter, options=ReplyOptions(tool_choice=wish))
    asking.reply(say("a trip"), HOME)  # without an adapter
    free = Toolset(tools=(ToolSpec(name="stop"),))
    asking.reply(say("a trip"), free, adapter=make_adapter(asking.pool, free))
    assert values == []


def test_requests_ask_back_together_as_one_by_one(
    asking: EdgeEngine, make_adapter: Callable[..., Adapter], values: list[list[float]]
) -> None:
    requests = [
        Request(say(text), HOME, make_adapter(asking.pool, HOME, seed=seed))
        for seed, text in enumerate(("a trip to Oslo on monday", "cancel", "book " * 9))
    ]
    together = asking.reply_batch(requests)
    found, values[:] = sorted(values), []
    alone = [asking.reply_batch([request])[0] for request in requests]
    assert len(found) == 3
    for one, other in zip(found, sorted(values), strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert [reply.calls for reply in together] == [reply.calls for reply in alone]
