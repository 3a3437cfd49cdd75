"""What counts as right, and that intervals cover what they claim to."""

from __future__ import annotations

import numpy as np
import pytest

from agent_specializer.errors import DecodeError
from agent_specializer.evaluation.metrics import failed, interval, judge, likeliest, paired, summary
from agent_specializer.evaluation.tasks import Item
from agent_specializer.messages import Call, Choice, Message, Reply, Usage
from agent_specializer.specs import Toolset, ToolSpec

LEVEL = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
TOOLS = Toolset(tools=(ToolSpec(name="dim", parameters=LEVEL), ToolSpec(name="lock")))


def item(*calls: Call, index: int = 0) -> Item:
    return Item(index, (Message(role="user", content="x"),), calls)


def reply(*calls: Call) -> Reply:
    return Reply(calls=calls, usage=Usage(prompt_tokens=10, tool_prompt_tokens=4))


DIM = Call(name="dim", arguments={"level": 20})
LOCK = Call(name="lock")


def test_a_single_call():
    right = judge(item(DIM), TOOLS, reply(DIM))
    assert right.tool_right
    assert right.exact
    other = judge(item(DIM), TOOLS, reply(Call(name="dim", arguments={"level": 21})))
    assert other.tool_right
    assert not other.exact
    assert not judge(item(DIM), TOOLS, reply(LOCK)).tool_right
    assert not judge(item(DIM), TOOLS, reply()).tool_right


def test_several_calls_need_the_same_set_of_tools():
    assert judge(item(DIM, LOCK), TOOLS, reply(LOCK, DIM)).exact
    assert not judge(item(DIM, LOCK), TOOLS, reply(DIM)).tool_right
    assert not judge(item(DIM), TOOLS, reply(DIM, LOCK)).tool_right
    twice = judge(item(DIM), TOOLS, reply(DIM, DIM))
    assert twice.tool_right
    assert not twice.exact


def test_no_call_is_right_only_where_none_is_made():
    assert judge(item(), TOOLS, reply()).tool_right
    assert not judge(item(), TOOLS, reply(LOCK)).tool_right
    assert not failed(item(), DecodeError("too long")).tool_right


def test_the_likeliest_tool_is_right_whether_or_not_it_is_called():
    scored = [
        Choice(name=None, score=0.0, probability=0.6),
        Choice(name="lock", score=-0.5, probability=0.3),
        Choice(name="dim", score=-1.0, probability=0.1),
    ]
    outcome = judge(item(LOCK, DIM), TOOLS, Reply(choices=tuple(scored)))
    assert (outcome.tool_right, outcome.likeliest_right) == (False, True)
    assert not judge(item(DIM), TOOLS, Reply(choices=tuple(scored))).likeliest_right
    assert summary([outcome, judge(item(), TOOLS, Reply(choices=tuple(scored)))])["likeliest_accuracy"] == 1.0
    assert likeliest([None]) is None
    pairs = paired({"a": [outcome], "b": [failed(item(LOCK, DIM), DecodeError("x"))]}, "a")
    assert (pairs["a-b"]["delta"], pairs["a-b"]["likeliest_delta"]) == (0.0, 1.0)


def test_validity_needs_a_known_tool_and_arguments_that_its_schema_accepts():
    made = reply(DIM, Call(name="dim", arguments={"level": "high"}), Call(name="open"))
    outcome = judge(item(DIM), TOOLS, made)
    assert (outcome.made, outcome.valid) == (3, 1)
    assert summary([outcome])["schema_valid"] == pytest.approx(1 / 3)


def test_a_summary_keeps_examples_with_and_without_calls_apart():
    outcomes = [
        judge(item(DIM, index=0), TOOLS, reply(DIM)),
        judge(item(DIM, index=1), TOOLS, reply()),
        judge(item(index=2), TOOLS, reply()),
        failed(item(LOCK, index=3), DecodeError("too long")),
    ]
    row = summary(outcomes)
    assert row["n"] == 4
    assert row["tool_accuracy"] == row["call_exact"] == pytest.approx(1 / 3)
    assert row["no_call_accuracy"] == 1.0
    assert row["prompt_tokens_mean"] == 10
    assert row["tool_prompt_tokens_mean"] == 4
    assert row["errors"] == 1
    low, high = row["tool_accuracy_ci95"]
    assert low <= row["tool_accuracy"] <= high


def test_what_no_example_speaks_of_is_none():
    row = summary([judge(item(), TOOLS, reply())])
    assert row["tool_accuracy"] is None
    assert row["tool_accuracy_ci95"] is None
    assert summary([judge(item(DIM), TOOLS, reply(DIM))])["no_call_accuracy"] is None
    without = summary([judge(item(DIM), TOOLS, reply(DIM))], arguments=False)
    assert without["call_exact"] is None
    assert without["schema_valid"] is None


def test_an_interval_is_seeded_and_as_wide_as_theory_says():
    x = np.array([1.0] * 60 + [0.0] * 40)
    low, high = interval(x, seed=5)
    assert [low, high] == interval(x, seed=5)
    half = 1.96 * np.sqrt(0.6 * 0.4 / 100)
    assert low == pytest.approx(0.6 - half, abs=0.02)
    assert high == pytest.approx(0.6 + half, abs=0.02)
    assert interval([1.0]) == [1.0, 1.0]
    assert interval([]) is None


def test_paired_differences_are_item_by_item():
    right = [judge(item(DIM, index=i), TOOLS, reply(DIM)) for i in range(50)]
    wrong_for_some = [judge(item(DIM, index=i), TOOLS, reply(LOCK if i < 10 else DIM)) for i in range(50)]
    rows = paired({"specialized": right, "base": wrong_for_some[::-1]}, "specialized")
    assert list(rows) == ["specialized-base"]
    row = rows["specialized-base"]
    assert row["delta"] == pytest.approx(0.2)
    assert row["call_exact_delta"] == pytest.approx(0.2)
    assert 0.05 < row["ci95"][0] < 0.2 < row["ci95"][1] < 0.35
    assert row["no_call_delta"] is None
    # Far tighter than the two single intervals would suggest, where both modes fail on the same items.
    assert paired({"specialized": wrong_for_some, "base": wrong_for_some}, "specialized")["specialized-base"][
        "ci95"
    ] == [0.0, 0.0]


def test_a_paired_comparison_refuses_other_items():
    a = [judge(item(DIM, index=0), TOOLS, reply(DIM))]
    b = [judge(item(DIM, index=1), TOOLS, reply(DIM))]
    with pytest.raises(ValueError, match="same items"):
        paired({"specialized": a, "base": b}, "specialized")
