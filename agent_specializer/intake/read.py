"""One function for every source of tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent_specializer.errors import IntakeError
from agent_specializer.intake.documents import fetch, parse_document
from agent_specializer.intake.files import read_path, read_text, read_value
from agent_specializer.intake.formats import detect_format, is_langchain_tool, read_object
from agent_specializer.intake.functions import read_class, read_function
from agent_specializer.intake.mcp import read_mcp
from agent_specializer.intake.tool import Parsed, check_tool, raise_problems, unique
from agent_specializer.specs import Toolset, ToolSpec


def read_tools(source: Any) -> list[ToolSpec]:
    """The tools of `source`, each with a schema that the decoding grammar enforces.

    Args:
        source: a function or method; a pydantic model, dataclass or TypedDict; a LangChain tool; a ToolSpec or
            Toolset; a dict in the format of OpenAI, Anthropic, MCP and others, or a whole OpenAPI document; a
            path (or its string) of a JSON, JSON Lines, YAML or Python file or of a directory; an http(s) address
            of an OpenAPI document or tool file; ``mcp:`` and the command or the address of an MCP server; JSON,
            YAML or Python text; or an iterable of these.

    Raises:
        IntakeError: the source cannot be read, or holds no tools, or two different ones of the same name.
        SchemaNotSupported: a tool's schema cannot be enforced.
    """
    if isinstance(source, ToolSpec):
        return [check_tool(source)]
    if isinstance(source, Toolset):
        return [check_tool(tool) for tool in source.tools]
    if is_langchain_tool(source):
        return [read_object(source)]
    if isinstance(source, Mapping):
        return [read_object(source)] if detect_format(source) else raise_problems(read_value(source))
    if isinstance(source, Path):
        return _some(read_path(source), str(source))
    if isinstance(source, str):
        return _some(_read_string(source), "the text" if _is_text(source) else source)
    if isinstance(source, type):
        return [read_class(source)]
    if callable(source):
        return [read_function(source)]
    if isinstance(source, Iterable):
        return unique(tool for item in source for tool in read_tools(item))
    raise IntakeError(
        f"{type(source).__name__} is no source of tools: {source!r:.80}",
        hint="pass a function, a tool of a framework, a dict, a path or an address",
    )


def _read_string(source: str) -> Parsed:
    if source.startswith("mcp:"):
        return read_mcp(source.removeprefix("mcp:").strip())
    if source.startswith(("http://", "https://")):
        return read_value(parse_document(fetch(source), source=source), source=source)
    if _is_text(source):
        return read_text(source)
    return read_path(Path(source).expanduser())


def _is_text(source: str) -> bool:
    """Whether it is the definitions themselves, not where they are."""
    return "\n" in source or source.lstrip()[:1] in ("{", "[")


def _some(parsed: Parsed, source: str) -> list[ToolSpec]:
    tools = raise_problems(parsed, source=source)
    if not tools:
        raise IntakeError("no tools in it", source=source, hint="add at least one tool definition")
    return tools
