"""A toolset as text: what the cloud LM reads once, and what the prompted baseline resends on every call."""

from __future__ import annotations

import json
from typing import Any

from agent_specializer.specs import Toolset, ToolSpec

MANY = 32
"""Of the values of an enum, how many are said: beyond these it is a catalogue, which tells little more of what the tool does and
which the grammar knows anyway. 2,000 of them are some 15,000 tokens."""


def describe_tool(tool: ToolSpec) -> str:
    """One tool in one paragraph: ``name: description`` and its parameters with their JSON Schemas, compactly."""
    return f"{tool.name}: {_one_line(tool.description) or 'no description'}\n  parameters: {_parameters(tool.parameters)}"


def describe_toolset(toolset: Toolset) -> str:
    """The task description: role, tool definitions, output format (LoRA-Gen, section 3.1). Tools sorted by name."""
    tools = "\n".join(f"- {describe_tool(tool)}" for tool in toolset.tools)
    role = toolset.instructions.strip() or "You are an assistant that answers requests by calling tools."
    return (
        f"{role}\nTools:\n{tools}\n"
        "Reply with `Call: NAME` and the arguments as JSON on the next line, one call after another; "
        "then `Call: none` when no (further) tool is needed.\n"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _parameters(schema: dict[str, Any]) -> str:
    properties = schema.get("properties") or {}
    if not properties:
        return "none"
    required = set(schema.get("required") or ())
    shared = schema.get("$defs") or schema.get("definitions")
    where = f"; where {_compact(shared)}" if shared else ""
    listed = "; ".join(
        f"{name}{'' if name in required else '?'} {_type(sub if isinstance(sub, dict) else {})}"
        for name, sub in properties.items()
    )
    return listed + where


def _type(schema: dict[str, Any]) -> str:
    """`(type) description` for simple parameters; nested ones keep their whole schema."""
    text = _one_line(str(schema.get("description", "")))
    rest = {
        key: value
        for key, value in schema.items()
        if key not in {"description", "title", "default", "examples"}
    }
    if set(rest) <= {"type"} and isinstance(rest.get("type", "any"), str):
        kind = rest.get("type", "any")
    elif "enum" in rest and set(rest) <= {"type", "enum"}:
        kind = "one of " + ", ".join(map(_compact, _abridged(rest["enum"])))
    else:
        kind = _compact(rest)
    return f"({kind}) {text}".rstrip()


def _compact(schema: Any) -> str:
    return json.dumps(_shortened(schema), ensure_ascii=False, separators=(",", ":"))


def _shortened(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_shortened(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _abridged(value) if key == "enum" and isinstance(value, list) else _shortened(value)
        for key, value in schema.items()
    }


def _abridged(values: list[Any]) -> list[Any]:
    return values if len(values) <= MANY else [*values[:MANY], f"and {len(values) - MANY} more"]
