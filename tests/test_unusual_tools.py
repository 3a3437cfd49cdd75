"""Tools that strain names, schemas and numbers, all the way: registered, specialised, asked, called validly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent_specializer import Specializer, ToolSpec
from agent_specializer.edge.options import ReplyOptions

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["value"],
}


def tool(name: str, **schema: Any) -> ToolSpec:
    return ToolSpec(name=name, description=f"Does {name}.", parameters={"type": "object", **schema})


UNUSUAL = [
    tool("dim the light"),
    tool("dim the lights"),  # the one before is its beginning
    tool("电灯 🙂", properties={"комната": {"enum": ["кухня", "ванная"]}}, required=["комната"]),
    tool('say "hi" {x}'),
    tool(
        "tree", properties={"root": {"$ref": "#/$defs/node"}}, required=["root"], **{"$defs": {"node": NODE}}
    ),
    tool(
        "pick",
        properties={"one": {"type": "string", "enum": [f"value {number}" for number in range(2000)]}},
        required=["one"],
    ),
    tool("maybe", properties={"text": {"type": ["string", "null"], "maxLength": 8}}, required=["text"]),
    tool("flags", additionalProperties={"type": "boolean"}),
    tool("nothing", properties={}, additionalProperties=False),
]
OPTIONS = {"max_tokens": 64, "max_calls": 1}


@pytest.fixture
def specializer(home: Path, tiny_folder: Path):
    with Specializer(bundle=str(tiny_folder / "bundle.yaml")) as made:
        yield made


def test_each_unusual_tool_can_be_called_and_only_validly(specializer: Specializer) -> None:
    agent = specializer.create_agent("strange", UNUSUAL, "You are strange.")
    for spec in UNUSUAL:
        reply = agent.ask("do it", options=ReplyOptions(tool_choice=spec.name, **OPTIONS))
        (call,) = reply.calls
        assert call.name == spec.name
        Draft202012Validator(spec.parameters).validate(call.arguments)
    names = {choice.name for choice in agent.ask("do it", options=ReplyOptions(**OPTIONS)).choices}
    assert names == {None, *(spec.name for spec in UNUSUAL)}


def test_sixty_tools_are_one_adapter_of_kilobytes(specializer: Specializer) -> None:
    many = [tool(f"tool_{n:02}", properties={"n": {"const": n}}, required=["n"]) for n in range(60)]
    made = specializer.create_agent("many", many).specialize()
    assert made.adapter.names == tuple(spec.name for spec in many)
    assert made.adapter.nbytes < 60_000
    reply = specializer.ask("many", "do 41", options=ReplyOptions(tool_choice="tool_41", **OPTIONS))
    assert [(call.name, call.arguments) for call in reply.calls] == [("tool_41", {"n": 41})]
