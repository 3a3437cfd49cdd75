"""Tool definitions as providers and frameworks write them: OpenAI, Anthropic, Gemini, MCP, LangChain, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent_specializer.errors import IntakeError, SpecError
from agent_specializer.intake.tool import Parsed, build_tool, check_tool
from agent_specializer.specs import ToolSpec

Format = Literal[
    "spec", "langchain", "openai", "openai-responses", "anthropic", "mcp", "bedrock", "plain", "schema"
]

_SCHEMA_KEYWORDS = {
    "properties",
    "required",
    "additionalProperties",
    "$defs",
    "$ref",
    "anyOf",
    "allOf",
    "oneOf",
}
_SHAPES = (
    'OpenAI {"type": "function", "function": {...}}, Anthropic {"name", "input_schema"}, '
    'MCP {"name", "inputSchema"} or {"name", "description", "parameters"}'
)


def detect_format(obj: Any) -> Format | None:
    """The format of one tool definition; None where `obj` is none."""
    if isinstance(obj, ToolSpec):
        return "spec"
    if is_langchain_tool(obj):
        return "langchain"
    if not isinstance(obj, Mapping):
        return None
    if isinstance(obj.get("function"), Mapping) and "name" in obj["function"]:
        return "openai"
    if isinstance(obj.get("toolSpec"), Mapping):
        return "bedrock"
    if "name" in obj:
        if "input_schema" in obj:
            return "anthropic"
        if "inputSchema" in obj:
            return "mcp"
        if obj.get("type") == "function":
            return "openai-responses"
        if obj.keys() & {"description", "parameters", "args", "arguments"} and "properties" not in obj:
            return "plain"
    if isinstance(obj.get("title"), str) and isinstance(obj.get("properties"), Mapping):
        return "schema"
    return None


def is_langchain_tool(obj: Any) -> bool:
    """Whether `obj` is a LangChain BaseTool, found out without importing LangChain."""
    return any(
        cls.__name__ == "BaseTool" and cls.__module__.startswith("langchain_core.tools")
        for cls in type(obj).__mro__
    )


def read_object(obj: Any, *, source: str = "", line: int | None = None) -> ToolSpec:
    """One tool definition in any format that `detect_format` knows.

    Raises:
        IntakeError: `obj` is no tool definition; SchemaNotSupported: its schema cannot be enforced.
    """
    kind = detect_format(obj)
    if kind == "spec":
        return check_tool(obj)
    if kind == "langchain":
        return build_tool(obj.name, obj.description, _langchain_schema(obj), source=source, line=line)
    if kind is None:
        given = (
            f"an object with the keys {sorted(map(str, obj))}" if isinstance(obj, Mapping) else repr(obj)[:80]
        )
        raise IntakeError(
            f"not a tool definition: {given}", source=source, line=line, hint=f"expected {_SHAPES}"
        )
    if kind == "openai":
        obj = obj["function"]
    if kind == "bedrock":
        obj = obj["toolSpec"]
    name, description = obj.get("name"), obj.get("description")
    # Of a "schema" all else are its keywords.
    requests = None if kind == "schema" else obj.get("requests")
    if kind == "schema":
        name = obj["title"]
        parameters: Any = {key: value for key, value in obj.items() if key not in ("title", "description")}
    else:
        keys = ("parameters", "input_schema", "inputSchema", "args", "arguments")
        parameters = next((obj[key] for key in keys if obj.get(key) is not None), {})
        if kind == "bedrock" and isinstance(parameters, Mapping) and "json" in parameters:
            parameters = parameters["json"]
        parameters = _spelled_out(parameters)
    return build_tool(name, description, parameters, requests=requests, source=source, line=line)


def read_objects(objects: list[Any], *, source: str = "") -> Parsed:
    """Every tool of a list; an item that is none becomes a problem that names its place, from 1."""
    tools: list[ToolSpec] = []
    problems: list[SpecError] = []
    formats: list[str] = []
    for index, obj in enumerate(_unpacked(objects), start=1):
        place = f"{source}: item {index}" if source else f"item {index}"
        try:
            tools.append(read_object(obj, source=place))
            formats.append(detect_format(obj) or "")
        except SpecError as error:
            problems.append(error)
    return Parsed(tuple(tools), formats[0] if formats else "", tuple(problems))


def _unpacked(objects: list[Any]) -> list[Any]:
    """Gemini wraps its definitions: {"functionDeclarations": [...]}."""
    found: list[Any] = []
    for obj in objects:
        inner = (
            obj.get("functionDeclarations", obj.get("function_declarations"))
            if isinstance(obj, Mapping)
            else None
        )
        found.extend(inner if isinstance(inner, list) else [obj])
    return found


def _spelled_out(parameters: Any) -> Any:
    """A JSON Schema object of the short forms {name: schema} and [{"name": ..., "type": ...}]."""
    if isinstance(parameters, list) and all(
        isinstance(item, Mapping) and "name" in item for item in parameters
    ):
        parameters = {
            item["name"]: {key: value for key, value in item.items() if key != "name"} for item in parameters
        }
        return {"type": "object", "properties": parameters}
    if not isinstance(parameters, Mapping) or not parameters:
        return parameters
    is_schema = isinstance(parameters.get("type"), str | list) or any(
        not isinstance(parameters[key], Mapping) or key == "properties"
        for key in parameters.keys() & _SCHEMA_KEYWORDS
    )
    if is_schema or not all(isinstance(value, Mapping | str) for value in parameters.values()):
        return parameters
    return {"type": "object", "properties": dict(parameters)}


def _langchain_schema(tool: Any) -> Any:
    """The arguments that the model sees: without those that LangChain injects."""
    from agent_specializer.intake.functions import model_schema

    schema = tool.tool_call_schema
    return model_schema(schema) if isinstance(schema, type) else schema
