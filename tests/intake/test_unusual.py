"""Unusual but legal definitions are registered as they are; what cannot be told apart or kept is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from agent_specializer.errors import IntakeError
from agent_specializer.intake import read_tools

NODE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
    "required": ["value"],
}


def tool(name: str = "t", **properties: Any) -> dict[str, Any]:
    return {"name": name, "description": "D.", "parameters": {"type": "object", "properties": properties}}


@pytest.mark.parametrize(
    ("parameters", "good", "bad"),
    [
        (
            {"type": "object", "properties": {"tree": {"$ref": "#/$defs/node"}}, "$defs": {"node": NODE}},
            '{"tree": {"value": 1, "kids": [{"value": 2, "kids": []}]}}',
            '{"tree": {"value": 1, "kids": [{"kids": []}]}}',
        ),
        ({"type": "object"}, "{}", "[]"),
        (tool(a={"type": ["string", "null"]})["parameters"], '{"a": null}', '{"a": 1}'),
        (tool(a={"type": "integer", "default": 5})["parameters"], "{}", '{"a": "5"}'),
        (tool(a={"type": "integer", "default": "no such value"})["parameters"], '{"a": 5}', '{"a": "x"}'),
        (
            {**tool(a={"type": "string"})["parameters"], "additionalProperties": {"type": "integer"}},
            '{"a": "x", "b": 1}',
            '{"b": "x"}',
        ),
        ({**tool(a={"type": "string"})["parameters"], "additionalProperties": False}, '{"a": "x"}', '{"b": 1}'),
        ({**tool()["parameters"], "required": ["unlisted"]}, '{"unlisted": 1}', "{}"),
        (tool(**{"ключ с пробелом": {"const": "да"}})["parameters"], '{"ключ с пробелом": "да"}', '{"ключ с пробелом": "нет"}'),
    ],
    ids=[
        "recursive",
        "no properties",
        "nullable",
        "default",
        "default of another type",
        "typed additional properties",
        "no additional properties",
        "requires what it does not list",
        "property with spaces and other letters",
    ],
)  # fmt: skip
def test_a_legal_schema_is_kept_as_it_is_and_enforced(
    parameters: dict[str, Any], good: str, bad: str, grammar: Any
) -> None:
    [spec] = read_tools({"name": "t", "description": "D.", "parameters": parameters})
    assert spec.parameters == parameters
    assert grammar.complaint(parameters) == ""
    assert grammar.accepts(parameters, good)
    assert not grammar.accepts(parameters, bad)


def test_an_enum_of_two_thousand_values_is_registered_in_a_moment(grammar: Any) -> None:
    values = [f"value {number}" for number in range(2000)]
    began = time.process_time()
    [spec] = read_tools(tool(a={"type": "string", "enum": values}))
    assert time.process_time() - began < 5
    assert grammar.accepts(spec.parameters, '{"a": "value 1999"}')
    assert not grammar.accepts(spec.parameters, '{"a": "value 2000"}')


def test_sixty_tools_at_once() -> None:
    given = [tool(f"tool_{number}", a={"type": "integer", "minimum": number}) for number in range(60)]
    assert [spec.name for spec in read_tools(given)] == [f"tool_{number}" for number in range(60)]


@pytest.mark.parametrize("name", ["dim the light", "lampe_löschen", "电灯", 'say "hi"', "a/b:c.d", "x" * 128])
def test_any_printable_name_is_a_name(name: str) -> None:
    assert read_tools(tool(name))[0].name == name


@pytest.mark.parametrize("name", ["", " light", "li\nght", "li\tght", "\x00", "x" * 129])
def test_a_name_that_a_line_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(IntakeError, match="name"):
        read_tools(tool(name))


def test_two_different_tools_of_one_name_are_refused_and_equal_ones_are_one() -> None:
    one, other = tool(a={"type": "string"}), tool(a={"type": "integer"})
    assert len(read_tools(json.dumps([one, one]))) == 1
    with pytest.raises(IntakeError, match="two different tools are called 't'") as refused:
        read_tools(json.dumps([one, other]))
    assert str(refused.value).startswith("the text: ")  # not the whole of it
