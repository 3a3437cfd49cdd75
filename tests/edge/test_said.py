"""Whether a request says what a tool requires: which parameters, where their values begin, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from agent_specializer.edge import decode, said
from agent_specializer.edge.choose import Branches
from agent_specializer.edge.engine import EdgeEngine, Request
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.said import FLOOR, MAX_ASKED, UNSAID, asked_for, beginnings, copied, openings
from agent_specializer.loragen import Adapter, ChoiceHead
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXT = {"type": "string"}


def tool(properties: dict[str, Any], required: list[str] | None = None, name: str = "t") -> ToolSpec:
    names = list(properties) if required is None else required
    return ToolSpec(
        name=name,
        description="d",
        parameters={"type": "object", "properties": properties, "required": names},
    )


# Which parameters ---------------------------------------------------------------------------------------------------


def test_what_is_optional_or_known_or_picked_from_a_few_is_not_asked_for() -> None:
    properties = {
        "city": TEXT,
        "nights": {"type": "integer"},
        "guests": {"type": "array", "items": TEXT},
        "usual": TEXT | {"default": "x"},
        "room": TEXT | {"enum": ["hall", "kitchen"]},
        "pets": {"type": "boolean"},
        "note": TEXT,
    }
    assert asked_for(tool(properties, [*properties][:-1])) == ("city", "nights", "guests")
    assert asked_for(ToolSpec(name="t")) == ()
    assert len(asked_for(tool({f"p{i}": TEXT for i in range(20)}))) == MAX_ASKED


def test_an_opening_is_the_call_up_to_the_value_of_one_parameter(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    runs = openings(tiny_tokenizer, tool({"city": TEXT, "day": TEXT}, name="book"))
    assert list(map(tiny_tokenizer.decode, runs)) == [' book\n{"city": "', ' book\n{"day": "']
    assert openings(tiny_tokenizer, ToolSpec(name="t")) == []


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
    begins = beginnings(tiny_tokenizer, tiny_tokenizer('User: fly to oslo, "LIMA" now!').input_ids)
    assert begins.tolist() == sorted(set(begins.tolist()))
    for word in ("oslo", "Oslo", "LIMA", "lima", "now"):
        (_, first, *_) = tiny_tokenizer(f'"{word}', add_special_tokens=False).input_ids
        assert first in begins, word
    assert tiny_tokenizer.bos_token_id not in begins
    assert beginnings(tiny_tokenizer, []).tolist() == []
    far = tiny_tokenizer("zq " + "a " * said.RECENT).input_ids
    near = tiny_tokenizer("a " * said.RECENT, add_special_tokens=False).input_ids
    assert torch.equal(beginnings(tiny_tokenizer, far), beginnings(tiny_tokenizer, near)), "long ago"


@pytest.mark.parametrize("common", [4, 10_000])
def test_a_value_is_copied_as_far_as_its_first_token_is_likely_to_be_one_of_them(
    tiny_gemma: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, common: int
) -> None:
    monkeypatch.setattr(said, "WIDE", common)
    torch.manual_seed(0)
    states = torch.randn(3, 16)
    begins = torch.tensor([1, 7, 20])
    every = tiny_gemma.lm_head(states).float()
    kept = torch.unique(torch.cat([torch.arange(min(common, every.shape[1])), begins]))
    expected = every[:, begins].logsumexp(-1) - every[:, kept].logsumexp(-1)
    found = copied(tiny_gemma, states, begins)
    assert torch.allclose(found, expected.clamp_min(FLOOR), atol=1e-5)
    assert copied(tiny_gemma, states, torch.tensor([], dtype=torch.long)).tolist() == [FLOOR] * 3
    assert (copied(tiny_gemma, 100 * states, begins) >= FLOOR).all()


# Replies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(engine: EdgeEngine) -> EdgeEngine:
    """An engine whose head asks back."""
    head = ChoiceHead(16, 0).eval().requires_grad_(False)
    head.ask.fill_(2.0)
    with engine.exclusive() as model:
        return EdgeEngine(model, engine.tokenizer, pool=engine.pool, head=head)


def say(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """How far each parameter was found to be copied, request by request."""
    found: list[list[float]] = []

    def watched(*args: Any) -> torch.Tensor:
        out = copied(*args)
        found.append(out.tolist())
        return out

    monkeypatch.setattr(decode, "copied", watched)
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
    monkeypatch.setattr(decode, "copied", lambda *_: torch.tensor([UNSAID + 0.1, UNSAID - 0.1]))
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
