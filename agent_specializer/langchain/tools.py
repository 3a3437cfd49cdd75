"""What LangChain binds to a model (tools, a choice among them, an output schema) in our words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from agent_specializer.errors import NotFound, SpecError
from agent_specializer.intake import detect_format, read_tools
from agent_specializer.specs import ToolSpec

_WORDS = {"auto": "auto", "any": "any", "required": "any", "none": "none"}
_LANGCHAIN_READS = {None, "openai", "langchain", "schema", "anthropic", "plain"}


def read_bound(tools: Sequence[Any]) -> tuple[ToolSpec, ...]:
    """The tools that `bind_tools` was given: whatever LangChain takes, and whatever the product takes.

    Raises:
        IntakeError, SchemaNotSupported: one is no tool, or has a schema that cannot be enforced.
    """
    specs: dict[str, ToolSpec] = {}
    for tool in tools:
        # LangChain's own reading of a function or class, so that a tool is the same here as in its other models.
        known = detect_format(tool) in _LANGCHAIN_READS
        for spec in read_tools(convert_to_openai_tool(tool) if known else tool):
            if _untitled(specs.setdefault(spec.name, spec).parameters) != _untitled(spec.parameters):
                raise SpecError(
                    f"two different tools are called {spec.name!r}", hint="give each tool a name of its own"
                )
    return tuple(specs.values())


def _untitled(schema: Any) -> Any:
    """`schema` without titles, which a class and the schema made of it do not share."""
    if isinstance(schema, Mapping):
        return {
            key: _untitled(value)
            for key, value in schema.items()
            if key != "title" or not isinstance(value, str)
        }
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def as_openai(tool: ToolSpec) -> dict[str, Any]:
    """A tool as plain JSON, the form in which it is bound, traced and serialised."""
    function: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    if tool.requests:
        function["requests"] = list(tool.requests)
    return {"type": "function", "function": function}


def read_choice(choice: Any, names: Sequence[str]) -> str:
    """`ReplyOptions.tool_choice` for LangChain's `tool_choice`: a word, a name, a boolean or a provider's dict.

    Raises:
        NotFound: it names none of the tools in `names`.
    """
    if choice is None or choice is False:
        return "auto"
    if choice is True:
        return "any"
    if isinstance(choice, Mapping):
        named = choice.get("function") or choice
        choice = named.get("name") or choice.get("type")
    if choice in names:
        return str(choice)
    if choice in _WORDS:
        return _WORDS[choice] if names or choice == "none" else "auto"
    raise NotFound(
        f"tool_choice {choice!r} is no tool of this call",
        hint=f"choose auto, any, none or one of {', '.join(names) or '(no tools are bound)'}",
    )


def read_response_format(wanted: Any) -> ToolSpec | None:
    """The tool whose arguments are the wanted JSON; None where plain text is wanted.

    Args:
        wanted: OpenAI's `response_format` ({"type": "json_schema" | "json_object" | "text", ...}) or a schema in any
            form that LangChain takes.
    """
    if wanted is None or (isinstance(wanted, Mapping) and wanted.get("type") == "text"):
        return None
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_object":
        return ToolSpec(name="answer", description="Answers the request as a JSON object.")
    named: dict[str, Any] = {}
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        named = dict(wanted.get("json_schema") or {})
        wanted = named.get("schema")
    if isinstance(wanted, Mapping) and wanted.get("type") == "object":
        schema = dict(wanted)  # one without a title is a schema, too, though not for LangChain
    else:
        schema = dict(convert_to_json_schema(wanted)) if wanted else {"type": "object"}
    name = str(named.get("name") or schema.pop("title", None) or "answer").replace(" ", "_")
    description = str(named.get("description") or schema.pop("description", None) or "Answers the request.")
    function = {"name": name, "description": description, "parameters": schema}
    return read_tools({"type": "function", "function": function})[0]
