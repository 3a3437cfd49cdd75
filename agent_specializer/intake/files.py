"""Files of tool definitions: JSON, JSON Lines, YAML and Python, plain or gzipped, and directories of them.

A file holds a list of tools, a toolset `{"tools": [...]}`, an OpenAPI document, one tool, or an agent
catalogue `{"agent": {"name", "instructions"}, "tools": [...], "requests": [...]}`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from agent_specializer.errors import IntakeError, SpecError
from agent_specializer.intake.documents import parse_document, parse_json, parse_yaml, read_file_text
from agent_specializer.intake.formats import detect_format, read_objects
from agent_specializer.intake.openapi import is_openapi, read_openapi
from agent_specializer.intake.source import read_source
from agent_specializer.intake.tool import Parsed, raise_problems
from agent_specializer.messages import Call
from agent_specializer.specs import AgentSpec, ToolSpec

SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")
"""What is read in a directory; each may also end in .gz. Python files are read where they are named."""

_HINT = 'expected a tool, a list of tools, {"tools": [...]} or an OpenAPI document'
_PYTHON = ("def ", "async def ", "class ", "import ", "from ", "@")


class ExampleRequest(NamedTuple):
    """A request of a catalogue and the calls that answer it; no calls where it is answered in words."""

    request: str
    calls: tuple[Call, ...]


class Catalogue(NamedTuple):
    """An agent with its tools and example requests, as one file describes them."""

    agent: AgentSpec
    tools: tuple[ToolSpec, ...]
    requests: tuple[ExampleRequest, ...]
    title: str


def read_path(path: Path) -> Parsed:
    """The tools of a file, or of all files in a directory and below it.

    Raises:
        IntakeError: missing, unreadable, or not what its suffix says, with the line.
    """
    if not path.is_dir():
        return _read_file(path)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _suffix(file) in SUFFIXES]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise IntakeError(
            "no files of tools in this directory", source=str(path), hint=f"they end in {', '.join(SUFFIXES)}"
        )
    parsed = [_tolerant(file) for file in files]
    return _joined(parsed)


def read_catalogue(path: Path) -> Catalogue:
    """One agent catalogue.

    Raises:
        IntakeError: no catalogue, or one whose requests call tools that it does not have.
    """
    value = parse_document(read_file_text(path), source=str(path))
    if not isinstance(value, Mapping) or not isinstance(value.get("agent"), Mapping):
        raise IntakeError(
            "not an agent catalogue",
            source=str(path),
            hint='expected {"agent": {"name", "instructions"}, "tools": [...]}',
        )
    tools = raise_problems(read_value(value, source=str(path)), source=str(path))
    names = tuple(tool.name for tool in tools)
    try:
        agent = AgentSpec(
            name=value["agent"].get("name", path.stem),
            instructions=value["agent"].get("instructions", ""),
            tools=names,
        )
        requests = tuple(
            ExampleRequest(
                item["request"], tuple(Call.model_validate(call) for call in item.get("calls", ()))
            )
            for item in value.get("requests", ())
        )
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise IntakeError(f"agent or requests are malformed: {error}", source=str(path)) from None
    for number, example in enumerate(requests, start=1):
        for call in example.calls:
            if call.name not in names:
                raise IntakeError(
                    f"request {number} calls {call.name!r}, which is no tool here", source=str(path)
                )
    return Catalogue(agent, tuple(tools), requests, str(value["agent"].get("title") or agent.name))


def read_value(value: Any, *, source: str = "") -> Parsed:
    """The tools in a value that was JSON or YAML; for the shapes see the module.

    Raises:
        IntakeError: `value` has none of the shapes.
    """
    if isinstance(value, list):
        parts = [item for item in value if isinstance(item, Mapping) and isinstance(item.get("tools"), list)]
        if parts and len(parts) == len(value):
            return _joined([read_value(part, source=source) for part in parts])
        return read_objects(value, source=source)
    if is_openapi(value):
        return read_openapi(value, source=source)
    if isinstance(value, Mapping):
        for key in ("tools", "functions", "functionDeclarations", "function_declarations"):
            if isinstance(value.get(key), list):
                return read_objects(value[key], source=source)
        if detect_format(value):
            return read_objects([value], source=source)
        if value and all(isinstance(item, Mapping) and "description" in item for item in value.values()):
            return read_objects([{"name": name, **item} for name, item in value.items()], source=source)
    given = f"the keys {sorted(map(str, value))[:8]}" if isinstance(value, Mapping) else f"{value!r:.60}"
    raise IntakeError(f"no tool definitions: found {given}", source=source, hint=_HINT)


def read_lines(text: str, *, source: str = "") -> Parsed:
    """JSON Lines: a tool or a toolset on each line; any other line becomes a problem with its number."""
    parsed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                value = parse_json(line, source=source, first_line=number)
                parsed.append(read_value(value, source=f"{source or 'line'}:{number}"))
            except SpecError as error:
                parsed.append(Parsed((), "", (error,)))
    return _joined(parsed)


def read_text(text: str) -> Parsed:
    """The tools in pasted text: JSON, JSON Lines, YAML, an OpenAPI document or Python, whichever it is.

    Never raises for what is in the text: what is wrong with it is among the problems.
    """
    stripped = text.strip()
    if not stripped:
        return Parsed((), "", (IntakeError("the text is empty", hint=_HINT),))
    try:
        if stripped[0] in "{[":
            return _read_braces(text)
        if any(line.startswith(_PYTHON) for line in stripped.splitlines()):
            return _or_nothing(read_source(text), "no public function in this Python text")
        return read_value(parse_yaml(text))
    except SpecError as error:
        return Parsed((), "", (error,))


def _read_braces(text: str) -> Parsed:
    """JSON; or else what people paste in its place: JSON Lines, a Python literal, YAML in braces."""
    try:
        value = parse_json(text)
    except IntakeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.strip()[0] == "{" and line.strip()[-1] == "}" for line in lines):
            return read_lines(text)
        value = _literal(text)
        if value is None:
            raise error
    return read_value(value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        return parse_yaml(text)
    except IntakeError:
        return None


def _read_file(path: Path) -> Parsed:
    text = read_file_text(path)
    kind = _suffix(path)
    if kind == ".jsonl":
        return _or_nothing(read_lines(text, source=str(path)), "the file is empty", str(path))
    if kind == ".py":
        return _or_nothing(read_source(text, source=str(path)), "no public function in this file", str(path))
    parse = {".json": parse_json, ".yaml": parse_yaml, ".yml": parse_yaml}.get(kind, parse_document)
    return read_value(parse(text, source=str(path)), source=str(path))


def _tolerant(path: Path) -> Parsed:
    try:
        return _read_file(path)
    except SpecError as error:
        return Parsed((), "", (error,))


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _or_nothing(parsed: Parsed, message: str, source: str = "") -> Parsed:
    if not parsed.tools and not parsed.problems:
        raise IntakeError(message, source=source, hint=_HINT)
    return parsed


def _joined(parts: list[Parsed]) -> Parsed:
    formats = [part.format for part in parts if part.format]
    return Parsed(
        tuple(tool for part in parts for tool in part.tools),
        formats[0] if formats else "",
        tuple(problem for part in parts for problem in part.problems),
    )
