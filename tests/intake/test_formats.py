"""The same tool in the formats of providers and frameworks is the same ToolSpec."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
from langchain_core.tools import InjectedToolArg, tool

from agent_specializer.errors import IntakeError, SchemaNotSupported
from agent_specializer.intake import detect_format, read_tools
from agent_specializer.specs import ToolSpec

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMED = {"name": "get_weather", "description": "Weather."}
TOOL = ToolSpec(**NAMED, parameters=SCHEMA)

FORMATS: dict[str, tuple[str, Any]] = {
    "openai": ("openai", {"type": "function", "function": {**NAMED, "parameters": SCHEMA, "strict": True}}),
    "openai without type": ("openai", {"function": {**NAMED, "parameters": SCHEMA}}),
    "responses": ("openai-responses", {"type": "function", **NAMED, "parameters": SCHEMA, "strict": False}),
    "anthropic": ("anthropic", {**NAMED, "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}),
    "mcp": ("mcp", {**NAMED, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}),
    "bedrock": ("bedrock", {"toolSpec": {**NAMED, "inputSchema": {"json": SCHEMA}}}),
    "plain": ("plain", {**NAMED, "parameters": SCHEMA}),
    "schema": ("schema", {"title": "get_weather", "description": "Weather.", **SCHEMA}),
    "spec": ("spec", TOOL),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_same_tool(name: str) -> None:
    kind, given = FORMATS[name]
    assert detect_format(given) == kind
    assert read_tools(given) == [TOOL]


def test_requests_come_along_with_a_definition() -> None:
    asked = {"requests": ["will it rain?", "weather in Oslo"]}
    tool = TOOL.changed(**asked)
    for given in (
        {**NAMED, **asked, "parameters": SCHEMA},
        {"type": "function", "function": {**NAMED, **asked, "parameters": SCHEMA}},
        {**NAMED, **asked, "inputSchema": SCHEMA},
        tool,
    ):
        assert read_tools(given) == [tool]


def test_a_langchain_tool_shows_only_what_the_model_fills_in() -> None:
    @tool
    def get_weather(city: str, user: Annotated[str, InjectedToolArg]) -> str:
        """Weather."""
        return city

    assert detect_format(get_weather) == "langchain"
    [spec] = read_tools(get_weather)
    assert (spec.name, spec.description) == ("get_weather", "Weather.")
    assert spec.parameters["properties"] == {"city": {"type": "string"}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"city": {"type": "str", "required": True}},
        [{"name": "city", "type": "string", "required": True}],
        {"type": "dict", "properties": {"city": {"type": "str"}}, "required": ["city"]},
        {"type": ["object", "null"], "properties": {"city": {"type": "string"}}, "required": ["city"]},
    ],
)
def test_short_and_foreign_parameters_are_spelled_out(parameters: Any) -> None:
    assert read_tools({**NAMED, "parameters": parameters}) == [TOOL]


def test_a_parameter_called_properties_or_type_is_not_taken_for_a_schema() -> None:
    [spec] = read_tools(
        {**NAMED, "parameters": {"type": {"type": "string"}, "required": {"type": "boolean"}}}
    )
    assert set(spec.parameters["properties"]) == {"type", "required"}


@pytest.mark.parametrize("given", [{**NAMED}, {**NAMED, "parameters": None}, {**NAMED, "parameters": {}}])
def test_a_tool_without_parameters(given: dict[str, Any]) -> None:
    assert read_tools(given) == [ToolSpec(**NAMED)]


def test_a_spec_that_needs_no_translation_keeps_its_identity() -> None:
    assert read_tools(TOOL)[0] is not None
    assert read_tools(TOOL)[0].fingerprint == TOOL.fingerprint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"foo": 1}, "no tool definitions: found the keys"),
        ({"name": "", "description": "d"}, "at least 1 character"),
        ({"name": 3, "description": "d"}, "name: Input should be a valid string"),
        ({"name": "t", "description": ["d"]}, "description"),
        ({"name": "t", "parameters": "city"}, "parameters must be a JSON Schema object, got str"),
        ({"name": "t", "parameters": {"type": "string"}}, 'must have "type": "object"'),
        (
            {"name": "t", "parameters": {"properties": {"a": {"default": object()}}}},
            "parameters are not JSON",
        ),
        ({"name": "t", "description": "", "requests": "rain?"}, "requests: Input should be a valid tuple"),
        (3, "no source of tools"),
        ([TOOL, {**NAMED, "description": "Other."}], "two different tools are called 'get_weather'"),
    ],
)
def test_malformed_definitions_say_what_is_wrong(given: Any, message: str) -> None:
    with pytest.raises(IntakeError, match=message):
        read_tools(given)


def test_an_unenforceable_schema_names_the_tool_and_the_place() -> None:
    with pytest.raises(SchemaNotSupported, match="'get_weather'") as caught:
        read_tools({**NAMED, "parameters": {"type": "object", "properties": {"a": {"not": {}}}}})
    assert caught.value.path == "/properties/a/not"


def test_the_same_tool_twice_is_one_tool() -> None:
    assert read_tools([TOOL, FORMATS["openai"][1]]) == [TOOL]


def test_intake_needs_neither_torch_nor_langchain_nor_the_grammar_to_be_imported() -> None:
    code = "import sys, agent_specializer.intake; print(sorted({'torch', 'langchain_core', 'mcp', 'yaml', 'llguidance'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
