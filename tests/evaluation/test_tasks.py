"""Benchmark items: how they depend on the seed, what a group shares, and what is never a distractor."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from agent_specializer.errors import IntakeError
from agent_specializer.evaluation.tasks import GROUP, compose_groups, families, load_groups
from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec


def tool(name: str) -> ToolSpec:
    return ToolSpec(name=name, description=f"Does {name}.")


def toolset(toolset_id: str, tools: int = 3) -> Toolset:
    name = toolset_id.replace("/", "_")
    return Toolset(
        tools=tuple(tool(f"{name}_{i}") for i in range(tools)), instructions=f"About {toolset_id}."
    )


def example(toolset_id: str, which: int | None = 0, text: str = "please", context: str = "") -> Example:
    calls = () if which is None else (Call(name=f"{toolset_id.replace('/', '_')}_{which}"),)
    accepted = tuple({call.name: {"x": [1]}} for call in calls)
    return Example(
        toolset_id, (Message(role="user", content=text),), calls, accepted=accepted, context=context
    )


@pytest.fixture
def sets() -> dict[str, Toolset]:
    return {f"s/{letter}": toolset(f"s/{letter}") for letter in "abcdefgh"}


def test_the_same_seed_gives_the_same_items_and_another_seed_others(sets):
    asked = [example(f"s/{'abc'[i % 3]}", i % 3, text=str(i)) for i in range(60)]
    first = compose_groups(sets, asked, tools=6, limit=40, seed=1)
    assert first == compose_groups(sets, asked, tools=6, limit=40, seed=1)
    assert first != compose_groups(sets, asked, tools=6, limit=40, seed=2)
    assert sum(len(group.items) for group in first) == 40


def test_a_limit_takes_a_prefix_of_the_shuffle(sets):
    asked = [example("s/a", text=str(i)) for i in range(50)]

    def indices(limit):
        groups = compose_groups(sets, asked, tools=6, limit=limit, seed=3)
        return [item.index for group in groups for item in group.items]

    assert indices(10) == indices(30)[:10]


def test_eight_examples_share_a_toolset_of_the_wished_size_with_their_own_tools(sets):
    asked = [example("s/a", i % 3) for i in range(20)]
    groups = compose_groups(sets, asked, tools=7)
    assert [len(group.items) for group in groups] == [GROUP, GROUP, 4]
    for group in groups:
        assert len(group.toolset.tools) == 7
        assert set(sets["s/a"].names) <= set(group.toolset.names)
        assert group.toolset.instructions == "About s/a."


def test_small_groups_are_put_together_as_far_as_their_tools_fit(sets):
    asked = [example(f"s/{letter}") for letter in "abcdefgh"]
    groups = compose_groups(sets, asked, tools=6)
    assert [len(group.items) for group in groups] == [2, 2, 2, 2]  # three tools of each, six in all
    for group in groups:
        assert len(group.toolset.tools) == 6
        assert set(group.toolset.instructions.split("\n")) == {f"About {own}." for own in group.own}
        assert {call.name for item in group.items for call in item.calls} <= set(group.toolset.names)


def test_examples_with_different_contexts_never_share_a_toolset(sets):
    asked = [example("s/a", context="Seattle"), example("s/a", context="Paris")]
    groups = compose_groups(sets, asked, tools=6)
    assert sorted(g.toolset.instructions for g in groups) == ["About s/a.\nParis", "About s/a.\nSeattle"]


def test_a_toolset_that_is_larger_than_wished_stays_whole(sets):
    (group,) = compose_groups(sets, [example("s/a")], tools=2)
    assert group.toolset.names == sets["s/a"].names


def test_ids_tell_services_and_their_variants():
    assert families("x/Media_1+Media_3+Music_2@v5") == {
        "x/Media": {"Media_1@v5", "Media_3@v5"},
        "x/Music": {"Music_2@v5"},
    }
    assert families("s/a") == {"s/a": {"a@"}}


@pytest.mark.parametrize("distractors", ["random", "similar"])
def test_another_wording_of_the_same_service_is_no_distractor(distractors):
    ids = ["s/Media_1@v1", "s/Media_2@v1", "s/Media_1@v2", "s/Cars_1@v1", "s/Cars_1+Media_1@v2"]
    sets = {each: toolset(each, 2) for each in ids}
    (group,) = compose_groups(sets, [example("s/Media_1@v1")], tools=50, distractors=distractors)
    assert group.toolset.names == tuple(sorted(sets["s/Media_1@v1"].names + sets["s/Cars_1@v1"].names))
    asked = [example("s/Media_1@v1"), example("s/Media_1@v2")]
    assert len(compose_groups(sets, asked, tools=50)) == 2


def test_opaque_names_reach_tools_calls_and_accepted_values(sets):
    kept = compose_groups(sets, [example("s/a", i % 3) for i in range(8)], tools=5)[0]
    opaque = compose_groups(sets, [example("s/a", i % 3) for i in range(8)], tools=5, names="opaque")[0]
    assert opaque.toolset.names == ("tool_01", "tool_02", "tool_03", "tool_04", "tool_05")
    described = {t.description: t.name for t in opaque.toolset.tools}
    for before, after in zip(kept.items, opaque.items, strict=True):
        (call,) = after.calls
        assert call.name == described[kept.toolset.tool(before.calls[0].name).description]
        assert list(after.accepted[0]) == [call.name]


def test_the_order_of_opaque_names_differs_from_group_to_group(sets):
    groups = compose_groups(sets, [example("s/a") for _ in range(32)], tools=3, names="opaque")
    assert len({group.items[0].calls[0].name for group in groups}) > 1


def write(path: Path, rows: list[dict]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_known_requests_are_of_the_tool_and_nobody_is_asked_them(sets):
    # Some texts are said twice: they must not be known where they are asked.
    examples = [
        example(f"s/{letter}", which, text=f"{letter} {which} {number % 9}")
        for letter in "abcd"
        for which in (0, 1, 2, None)
        for number in range(12)
    ]
    toolsets = sets
    for names in ("kept", "opaque"):
        groups = compose_groups(toolsets, examples, tools=6, limit=20, seed=3, names=names, requests=2)
        asked = {message.content for group in groups for item in group.items for message in item.messages}
        right = {
            each.messages[0].content: toolsets[each.toolset_id].tool(each.calls[0].name)
            for each in examples
            if each.calls
        }
        known = 0
        for group in groups:
            assert group.knowing.names == group.toolset.names
            assert not any(tool.requests for tool in group.toolset.tools)
            for tool in group.knowing.tools:
                assert len(tool.requests) <= 2
                assert not asked & set(tool.requests)
                assert all(right[text].description == tool.description for text in tool.requests)
                known += len(tool.requests)
        assert known > 0
    without = compose_groups(toolsets, examples, tools=6, limit=20, seed=3)
    assert [group.items for group in without] == [
        group.items for group in compose_groups(toolsets, examples, tools=6, limit=20, seed=3, requests=2)
    ]
    assert all(group.knowing is None for group in without)


def test_files_are_read_plain_or_gzipped_and_wrong_references_are_named(tmp_path):
    sets = [{"toolset_id": "s/a", "description": "", "tools": [{"name": "x", "description": "X."}]}]
    tools = write(tmp_path / "t.jsonl.gz", sets)
    row = {"toolset_id": "s/a", "messages": [{"role": "user", "content": "hi"}], "calls": [{"name": "x"}]}
    good = write(tmp_path / "good.jsonl", [row])
    assert load_groups(tools, good, tools=3)[0].items[0].calls == (Call(name="x"),)
    bad = write(tmp_path / "bad.jsonl", [row, row | {"toolset_id": "s/b"}])
    with pytest.raises(IntakeError, match="example 2 is of toolset 's/b'"):
        load_groups(tools, bad, tools=3)
    bad = write(tmp_path / "bad.jsonl", [row | {"calls": [{"name": "y"}]}])
    with pytest.raises(IntakeError, match=r"example 1 calls \['y'\]"):
        load_groups(tools, bad, tools=3)
    with pytest.raises(IntakeError, match="no examples"):
        load_groups(tools, write(tmp_path / "empty.jsonl", []), tools=3)
