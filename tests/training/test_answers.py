"""The stage in which the LoRA for answers is fitted: what it learns from, and that nothing else moves."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from agent_specializer.edge.transcript import ANSWER
from agent_specializer.examples import Example
from agent_specializer.loragen.checkpoint import load_checkpoint
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset
from agent_specializer.training import answers
from agent_specializer.training.answers import KINDS, MAKERS, row, told
from agent_specializer.training.data import Source

CALL = Call(name="get_fare", arguments={"to": "Rome"})
ASKED = (Message(role="user", content="What is the fare to Rome?"),)
RESULT = (
    *ASKED,
    Message(role="assistant", calls=(CALL,)),
    Message(role="tool", name="get_fare", content="{}"),
)
TOLD = "The fare to Rome is 80 euros. Shall I book it?"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("It rains.", "It rains."),
        ("  89 South Street ", "89 South Street"),
        ("It rains.\n\nAnd so on", "It rains."),
        ("Here they are:\n1. one", None),
        ("Here they are\n1. one", None),
        ("These:", None),
        ("", None),
        (" \n", None),
    ],
)
def test_an_answer_is_a_line_that_stands_by_itself(answer, line):
    assert told(answer) == line


def test_a_result_of_which_an_answer_was_made_says_what_the_answer_does():
    seen = set()
    for seed in range(40):
        made = MAKERS["made"](Example("x", ASKED, (CALL,), answer=TOLD), random.Random(seed))
        assert made.answer == "The fare to Rome is 80 euros."
        assert not made.calls
        assert made.messages[1].calls == (CALL,)
        assert made.messages[-1].role == "tool"
        assert "80" in made.messages[-1].content
        seen.add(made.messages[-1].content)
    assert len(seen) > 5
    assert "fare Rome 80 euros" in seen


def test_a_failure_is_told_and_a_call_without_a_result_confirmed():
    example = Example("x", ASKED, (CALL, CALL))
    for seed in range(20):
        failed = MAKERS["failed"](example, random.Random(seed))
        assert any(
            error in failed.messages[-1].content and error in failed.answer for error in answers.ERRORS
        )
        done = MAKERS["done"](example, random.Random(seed))
        assert done.answer in answers.CONFIRMED
        assert [message.role for message in done.messages] == ["user", "assistant", "tool", "tool"]


def test_other_facts_are_those_of_the_result(tiny_tokenizer):
    call = Call(name="get_fare", arguments={"to": "Rome", "seats": 2})
    said = '{"fare": 80.5, "seats": 2, "agent": "Marlene", "leaves": "2024-03-02 09:15"}'
    example = Example(
        "x",
        (
            *ASKED,
            Message(role="assistant", calls=(call,)),
            Message(role="tool", name="get_fare", content=said),
        ),
        (),
        answer="Two seats (2) to Rome cost 80.5; ask Marlene. It leaves at 09:15.",
    )
    seen = set()
    for seed in range(10):
        other = answers.with_other_facts(example, random.Random(seed))
        result = json.loads(other.messages[-1].content)
        number = str(result["fare"]).removesuffix("0")
        assert number in other.answer
        assert result["agent"] in answers.NAMES
        assert result["agent"] in other.answer
        assert result["leaves"] == "2024-03-02 09:15"
        assert other.messages[1].calls[0].arguments == {"to": "Rome", "seats": result["seats"]}
        assert "Rome" in other.answer
        seen.add(number)
    assert len(seen) > 5
    plain = replace(example, answer="Done.")
    assert answers.with_other_facts(plain, random.Random(0)) is plain


def test_kinds_are_drawn_as_told_and_sets_alike(trainer, tiny_tokenizer):
    large = [Example("x", ASKED, (CALL,), answer=TOLD)] * 300 + [
        Example("x", ASKED, (), answer="Large.")
    ] * 300
    small = [Example("x", ASKED, (), answer="Small."), Example("x", RESULT, (), answer="It is 9 euros.")]
    empty = {"x": Toolset(tools=())}
    sources = [Source(name, empty, some) for name, some in (("large", large), ("small", small))]
    rows = trainer().stages["answers"].draw(sources, 400, random.Random(0))
    assert len(rows) == 400
    texts = Counter(tiny_tokenizer.decode(each.text) for each in rows)
    assert 0.6 < texts[" Small.\n"] / texts[" Large.\n"] < 1.6
    assert abs(texts[" It is 9 euros.\n"] / 400 - KINDS["result"]) < 0.08
    one = rows[0]
    assert tiny_tokenizer.decode(one.label).endswith(ANSWER)
    assert all(one.supervised)
    assert trainer().stages["answers"].draw([], 4, random.Random(0)) == []


def test_what_is_too_long_is_left_out(tiny_tokenizer):
    assert row(tiny_tokenizer, Example("x", ASKED, (), answer="x" * 400 + ".")) is None
    long = (Message(role="user", content="word " * 900),)
    assert row(tiny_tokenizer, Example("x", long, (), answer="Yes.")) is None


def test_the_lora_learns_and_nothing_else_moves(trainer, begun):
    run = trainer(start=begun, only="answers", answer_steps=30, answer_lr=0.02)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    run.run()
    losses = [row["loss"] for row in run.history if row.get("stage") == "answers"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    after = run.generator.state_dict()
    moved = {name for name, value in after.items() if not (value == before[name]).all()}
    assert moved
    assert all(name.startswith("answers.") for name in moved)
    card = json.loads((run.out / "generator.json").read_text())["card"]
    assert card["answers"]["answer_lr"] == 0.02
    found = load_checkpoint(run.out, cloud=run.edge, edge=run.edge, tokenizer=run.tokenizer)
    assert found.answers is not None
    assert set(found.activated) == {"answers"}
