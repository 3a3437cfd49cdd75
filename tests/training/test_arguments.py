"""The stage in which the argument LoRA is fitted: on values alone, everything else as it was, resumable."""

from __future__ import annotations

import json
import random

import pytest
import torch

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.transcript import label
from agent_specializer.errors import ConfigError
from agent_specializer.examples import Example
from agent_specializer.loragen.checkpoint import load_checkpoint
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.arguments import filled
from agent_specializer.training.written import written_loss

TOOL = ToolSpec(
    name="set_light",
    description="d",
    parameters={
        "type": "object",
        "properties": {
            "room": {"type": "string"},
            "level": {"type": "integer"},
            "days": {"type": "array", "items": {"type": "string"}},
        },
    },
)
TOOLSET = Toolset(tools=(TOOL,))


def example(asked: str = "", **arguments: object) -> Example:
    """A call with `arguments`, all of whose values stand in the request, where nothing else is `asked`."""
    said = asked or " ".join(map(str, arguments.values()))
    return Example("x", (Message(role="user", content=said),), (Call(name="set_light", arguments=arguments),))


def test_values_and_what_ends_them_are_supervised(tiny_tokenizer):
    some = example(room='the "hall": {x}', level=20, days=["a", "b"])
    row = filled(tiny_tokenizer, some, TOOLSET, random.Random(0))
    told = [token for token, wanted in zip(row.text, row.supervised, strict=True) if wanted]
    left = [token for token, wanted in zip(row.text, row.supervised, strict=True) if not wanted]
    text = tiny_tokenizer.decode(told)
    for value in ('the \\"hall\\": {x}', "20,", '["a", "b"]}'):
        assert value in text
    assert "room" in tiny_tokenizer.decode(left)
    assert "level" not in text


def test_what_cannot_be_told_and_what_is_too_long_teach_nothing(tiny_tokenizer):
    def row(each):
        return filled(tiny_tokenizer, each, TOOLSET, random.Random(0))

    assert row(example()) is None
    assert row(example("dim what you find", room="$ref:API_call_0")) is None
    assert row(example("dim room 7", room="7")) is not None
    assert row(example(room="x" * 500)) is None
    assert row(example("hall " * 400, room="hall")) is None
    assert row(example("light please", room="hall")) is None
    # A date that is worked out, a number and what is said are learned beside it.
    both = row(example("light tomorrow, Mo", room="hall", level=20, days=["mo", "2019-03-02"]))
    told = [t for t, wanted in zip(both.text, both.supervised, strict=True) if wanted]
    assert tiny_tokenizer.decode(told) == '20,["mo", "2019-03-02"]}'


@pytest.mark.parametrize("named", [False, True])
def test_the_loss_is_that_of_each_row_by_itself(trainer, tiny_tokenizer, named):
    """Without padding, and where B is zero as under the plain model."""
    run = trainer()
    rows = [
        filled(tiny_tokenizer, each, TOOLSET, random.Random(0))
        for each in (example(room="hall"), example(room="kitchen", level=3), example(days=["mo", "tu"]))
    ]
    writing = Activated(run.edge, run.generator.arguments)
    summed, count = written_loss(run.edge, writing, rows, labels=named, pad=0)
    expected, tokens = 0.0, 0
    for row in rows:
        ids = [*row.prefix, *row.label, *row.text]
        logp = run.edge(torch.tensor([ids])).logits[0].detach().float().log_softmax(-1)
        first = len(ids) - len(row.text)
        for at, (token, wanted) in enumerate(zip(row.text, row.supervised, strict=True), first):
            expected -= float(logp[at - 1, token]) * wanted
            tokens += wanted
    assert count == tokens
    assert float(summed.detach()) == pytest.approx(expected, rel=1e-3)
    assert tiny_tokenizer.decode(rows[0].label) == label("set_light")


def test_the_argument_lora_learns_and_nothing_else_moves(trainer, begun):
    run = trainer(start=begun, only="arguments", argument_steps=30, argument_lr=0.02)
    run.run()
    losses = [row["loss"] for row in run.history if row.get("stage") == "arguments"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    again = trainer(out="again", start=run.out, only="arguments", argument_steps=3, seed=1)
    taken = {name: value.clone() for name, value in again.generator.state_dict().items()}
    assert all(torch.allclose(taken[name], before[name], atol=0.02, rtol=0.01) for name in before)
    again.run()
    after = again.generator.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, taken[name])}
    assert moved
    assert all(name.startswith("arguments.") for name in moved)
    card = json.loads((again.out / "generator.json").read_text())["card"]
    assert card["steps_done"] == 4, "the card is that of the checkpoint that it was fitted to"
    assert card["arguments"] == {
        "steps_done": 3,
        "seed": 1,
        "argument_rank": 16,
        "argument_steps": 3,
        "argument_batch": 16,
        "argument_lr": 1e-3,
        "before": {
            "steps_done": 30,
            "seed": 0,
            "argument_rank": 16,
            "argument_steps": 30,
            "argument_batch": 16,
            "argument_lr": 0.02,
        },
    }
    other = trainer(out="other", start=run.out, only="arguments", argument_rank=4)
    assert other.before is None, "one of another size begins anew"
    model = run.edge
    found = load_checkpoint(again.out, cloud=model, edge=model, tokenizer=run.tokenizer)
    assert found.arguments is not None


def test_there_must_be_a_checkpoint_to_fit_it_to(trainer):
    with pytest.raises(ConfigError, match="no checkpoint is given"):
        trainer(only="arguments")


def test_no_steps_no_lora_and_none_with_tools_in_the_prompt(trainer):
    assert trainer(argument_steps=0).generator.arguments is None
    assert trainer(kind="prompted_lora").generator.arguments is None
    assert trainer(kind="shared_lora").generator.arguments is not None
