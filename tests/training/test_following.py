"""What follows a call: the conversations that are made for it, and the stage in which its LoRA is fitted."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
import torch

from agent_specializer.edge.transcript import CALL
from agent_specializer.errors import ConfigError
from agent_specializer.examples import Example
from agent_specializer.loragen.checkpoint import load_checkpoint
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training import following
from agent_specializer.training.after_calls import KINDS, TELL_ME, after_calls
from agent_specializer.training.data import Composition
from agent_specializer.training.following import behind_calls, behind_the_call
from agent_specializer.training.objective import calibrated_names


def tool(name: str, *needs: str) -> ToolSpec:
    properties = {need: {"type": "string"} for need in needs}
    return ToolSpec(name=name, description=name, parameters={"type": "object", "properties": properties})


TOOLS = Toolset(
    tools=(tool("book_table", "place", "time"), tool("find_places", "place"), tool("dim", "room"))
)


def asked(text: str, *calls: Call) -> Example:
    return Example("x", (Message(role="user", content=text),), calls, answer="Yes." if not calls else "")


REQUESTS = (
    asked(
        "a table at Rossi at seven", Call(name="book_table", arguments={"place": "Rossi", "time": "seven"})
    ),
    asked("dim the hall", Call(name="dim", arguments={"room": "hall"})),
    asked("dim the attic", Call(name="dim", arguments={"room": "attic"})),
    asked("where is Rossi?", Call(name="find_places", arguments={"place": "Rossi"})),
    asked("thanks"),
)


def made(*examples: Example, count: int = 300) -> tuple[Example, ...]:
    return after_calls(Composition(TOOLS, examples), random.Random(0), count=count)


def test_made_conversations_hold_what_was_asked_and_what_was_done(monkeypatch):
    for kind in ("handed_on", "of_two", "told"):  # below
        monkeypatch.delitem(KINDS, kind)
    some = made(*REQUESTS)
    assert len(some) > 250
    kinds: Counter[str] = Counter()
    for each in some:
        request = each.messages[0].content
        done = [call for message in each.messages for call in message.calls]
        results = [message for message in each.messages if message.role == "tool"]
        assert [message.name for message in results] == [call.name for call in done]
        assert len(each.messages) == 1 or each.messages[-1].role == "tool"
        assert request != "thanks"
        # Everything that was asked for is either done or still to be called, and nothing else is, unless it was looked up.
        wanted = [
            call
            for example in REQUESTS
            if example.request.lower().rstrip("?") in request.lower()
            for call in example.calls
        ]
        looked = [call for call in done if call.name == "find_places" and call not in wanted]
        rest = [call for call in done if call not in looked]
        assert sorted(map(str, [*rest, *each.calls])) == sorted(map(str, wanted))
        kinds["looked up" if looked else "joined" if len(wanted) > 1 else "one"] += 1
        kinds["done" if done and not each.calls else "open"] += 1
    assert min(kinds[kind] for kind in ("looked up", "joined", "one", "done", "open")) > 20
    assert some == made(*REQUESTS), "the same every time"
    assert made(asked("thanks")) == ()


def test_what_is_looked_up_takes_what_it_can_from_the_request():
    looked = [each for each in made(REQUESTS[0]) if any(m.name == "find_places" for m in each.messages)]
    assert looked
    for each in looked:
        first = each.messages[1].calls[0]
        assert first == Call(name="find_places", arguments={"place": "Rossi"})
        assert json.loads(each.messages[2].content) or len(each.messages[2].content) == 400
        assert [call.name for call in each.calls] in (["book_table"], [])


def test_two_things_are_called_for_one_by_one(monkeypatch):
    monkeypatch.setattr("agent_specializer.training.after_calls.KINDS", {"of_two": 1.0})
    some = made(*REQUESTS)
    assert len(some) > 250
    open_calls: Counter[int] = Counter()
    for each in some:
        done = [call for message in each.messages for call in message.calls]
        rooms = [call.arguments["room"] for call in (*done, *each.calls)]
        assert sorted(rooms) == ["attic", "hall"]
        assert all(room in each.messages[0].content for room in rooms)
        open_calls[len(each.calls)] += 1
    assert min(open_calls[n] for n in range(3)) > 20


def test_what_a_result_says_can_be_told_without_a_tool(monkeypatch):
    monkeypatch.setattr("agent_specializer.training.after_calls.KINDS", {"told": 1.0})
    some = made(*REQUESTS)
    assert len(some) == 300
    for each in some:
        request = each.messages[0].content.lower()
        (example,) = (one for one in REQUESTS if one.calls and one.request.lower().rstrip("?") in request)
        assert any(tail.lower() in request for tail in TELL_ME)
        done = [call for message in each.messages for call in message.calls]
        assert [*done, *each.calls] == list(example.calls), "nothing else is to be called"
    assert 60 < sum(not each.calls for each in some) < 240


def test_what_wants_a_result_waits_for_it(monkeypatch):
    monkeypatch.setattr("agent_specializer.training.after_calls.KINDS", {"handed_on": 1.0})
    some = made(REQUESTS[1], REQUESTS[3])
    places: Counter[int] = Counter()
    for each in some:
        done = [call for message in each.messages for call in message.calls]
        results = [message.content for message in each.messages if message.role == "tool"]
        places[len(done)] += 1
        if not done:
            # Only the first call can be told; then nothing, as long as there is no result.
            assert len(each.calls) == 1
            assert len(each.messages) == 1
        if len(done) == 1:
            (wanted,) = each.calls
            (value,) = wanted.arguments.values()
            assert value in results[0]
            assert value not in each.messages[0].content
            assert wanted.name != done[0].name
        if len(done) == 2:
            assert each.calls == ()
            assert len(results) == 2
    assert min(places[n] for n in range(3)) > 30
    assert made(REQUESTS[1], REQUESTS[2]) == (), "of one tool"


def test_one_tool_may_be_wanted_twice():
    twice = [e for e in made(*REQUESTS) if [c.name for c in e.calls].count("dim") == 2]
    assert twice
    assert len({call.arguments["room"] for call in twice[0].calls}) == 2


def test_rows_stand_behind_a_call_and_say_where_it_is(trainer, monkeypatch):
    monkeypatch.setattr(following, "LONGEST", 1000)  # the tiny tokenizer makes many tokens of a word
    run = trainer()
    batch = behind_calls(run, Composition(TOOLS, REQUESTS), random.Random(0), limit=12)
    assert batch.called[:-1].all()
    conversations = after_calls(Composition(TOOLS, REQUESTS), random.Random(0), count=12)
    assert len(batch.ids) == len(conversations) + 1, "each one, and the empty request"
    assert not batch.called[-1], "the row of the empty request"
    for row in range(len(batch.ids) - 1):
        before = run.tokenizer.decode(batch.ids[row, : batch.behind[row]])
        assert before.endswith(CALL)
        assert before.count(CALL) == 1
        assert batch.behind[row] <= batch.last[row]
    plain = [run.stages["following"].scores(batch, torch.empty(0, 0, 0)).names.detach()]
    for parameter in run.stages["following"].lora.B.values():
        torch.nn.init.normal_(parameter, std=0.5)
    changed = run.stages["following"].scores(batch, torch.empty(0, 0, 0)).names.detach()
    assert not torch.allclose(changed, plain[0], atol=1e-3)
    first = trainer(out="first").batch(Composition(TOOLS, REQUESTS[:1]), random.Random(1))
    if not first.called.any():
        with behind_the_call(run.stages["following"].activated, first):
            assert torch.equal(run.edge(first.ids).logits, run.edge(first.ids).logits)


def test_rows_behind_a_call_are_named_as_among_the_others(trainer):
    run = trainer()
    composition = Composition(TOOLS, REQUESTS)
    mixed = behind_calls(run, composition, random.Random(0), limit=6)
    mixed.called[:3] = False
    some = mixed.behind_a_call()
    assert len(some.ids) == int(mixed.called.sum()) + 1
    assert some.ids.shape[1] <= mixed.ids.shape[1]
    with torch.no_grad():
        expected = calibrated_names(run.edge, mixed)[mixed.called[:-1]]
        assert torch.allclose(calibrated_names(run.edge, some), expected, atol=1e-4)


def test_the_lora_learns_and_only_what_counts_behind_a_call_moves_with_it(trainer, begun):
    run = trainer(start=begun, only="following", following_steps=30, following_lr=0.02, following_batch=8)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    run.run()
    losses = [row["loss"] for row in run.history if row.get("stage") == "following"]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    after = run.generator.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    scalars = {"again", "later", "left", "stop_bias", "stop_name", "stop_answered", "stop_left"}
    assert any(name.startswith("following.") for name in moved)
    assert {name for name in moved if not name.startswith("following.")} <= {f"head.{s}" for s in scalars}
    assert "head.stop_bias" in moved
    card = json.loads((run.out / "generator.json").read_text())["card"]
    assert card["steps_done"] == 4
    assert card["following"]["steps_done"] == 30
    found = load_checkpoint(run.out, cloud=run.edge, edge=run.edge, tokenizer=run.tokenizer)
    assert found.following is not None
    assert found.arguments is None, "what the checkpoint lacked it lacks still"
    # The other LoRA is trained on beside it, which stays.
    other = trainer(out="other", start=run.out, only="arguments", argument_steps=2, argument_rank=4)
    other.run()
    kept = {n: v for n, v in other.generator.state_dict().items() if n.startswith("following.")}
    assert all(torch.allclose(value, after[name], atol=0.02, rtol=0.01) for name, value in kept.items())
    assert other.generator.arguments.config.rank == 4
    assert json.loads((other.out / "generator.json").read_text())["card"]["following"]["steps_done"] == 30


def test_it_must_be_a_lora_that_there_is(trainer, begun):
    with pytest.raises(ConfigError, match="no part 'following' to train"):
        trainer(only="following")
    with pytest.raises(ConfigError, match="experts, arguments, following and answers"):
        trainer(start=begun, only="keys")
