"""The one way from a definition to a ToolSpec: translate the schema, check it, name the tool in errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import ValidationError

from agent_specializer.errors import IntakeError, SchemaNotSupported, SpecError
from agent_specializer.intake.schema import check_schema, normalize_schema
from agent_specializer.specs import ToolSpec

logger = logging.getLogger(__name__)


class Parsed(NamedTuple):
    """What was found in a source: the tools that can be registered, and one error for each that cannot."""

    tools: tuple[ToolSpec, ...]
    format: str
    """openai, openai-responses, anthropic, mcp, plain, python, openapi, ...; empty where nothing is."""
    problems: tuple[SpecError, ...] = ()


def build_tool(
    name: Any,
    description: Any,
    parameters: Any,
    *,
    requests: Any = None,
    source: str = "",
    line: int | None = None,
) -> ToolSpec:
    """A ToolSpec whose schema the grammar enforces. Translations of the schema are logged.

    `requests`: what users say when they want it, a list of texts; None: not known.

    Raises:
        SchemaNotSupported: the schema says something that cannot be enforced; the message names the tool.
        IntakeError: the name, the description, the requests or the shape of the parameters is wrong.
    """
    if parameters is None:
        parameters = {}
    try:
        parameters = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise IntakeError(
            f"tool {name!r}: parameters are not JSON: {error}", source=source, line=line
        ) from None
    if not isinstance(parameters, dict):
        raise IntakeError(
            f"tool {name!r}: parameters must be a JSON Schema object, got {type(parameters).__name__}",
            source=source,
            line=line,
            hint='write {"type": "object", "properties": {...}, "required": [...]}',
        )
    try:
        schema, changes = normalize_schema(parameters)
        for change in changes:
            logger.info("tool %r: %s", name, change)
        if schema:
            schema.setdefault("type", "object")
            if isinstance(schema["type"], list) and "object" in schema["type"]:
                schema["type"] = "object"  # arguments are always given as an object
        tool = ToolSpec(
            name=name,
            description=description or "",
            parameters=schema,
            **({} if requests is None else {"requests": requests}),
        )
        check_schema(tool.parameters)
    except SchemaNotSupported as error:
        reason = error.message.removeprefix(f"{error.path}: ")
        where = f" in {source}{f':{line}' if line else ''}" if source else ""
        raise SchemaNotSupported(
            f"{reason} (tool {name!r}{where})", path=error.path, hint=error.hint
        ) from None
    except ValidationError as error:
        raise IntakeError(
            f"tool {name!r}: {_reasons(error)}",
            source=source,
            line=line,
            hint="a tool has a name, a description and a JSON Schema object of its parameters",
        ) from None
    except (TypeError, ValueError) as error:  # what json.dumps cannot write
        raise IntakeError(
            f"tool {name!r}: parameters are not JSON: {error}", source=source, line=line
        ) from None
    return tool


def check_tool(tool: ToolSpec) -> ToolSpec:
    """`tool` itself where its schema is fine; its translation where that is needed."""
    said = tool.requests if tool.says_requests else None
    return build_tool(tool.name, tool.description, tool.parameters, requests=said)


def unique(tools: Iterable[ToolSpec], *, source: str = "") -> list[ToolSpec]:
    """`tools` without repetitions, in order.

    Raises:
        IntakeError: two different tools have the same name.
    """
    found: dict[str, ToolSpec] = {}
    for tool in tools:
        if found.setdefault(tool.name, tool).fingerprint != tool.fingerprint:
            raise IntakeError(
                f"two different tools are called {tool.name!r}",
                source=source,
                hint="rename one of them, or import them apart",
            )
    return list(found.values())


def raise_problems(parsed: Parsed, *, source: str = "") -> list[ToolSpec]:
    """The tools of `parsed`; its problems, where it has any, as one error."""
    if len(parsed.problems) == 1:
        raise parsed.problems[0]
    if parsed.problems:
        shown = "\n".join(f"- {problem.message}" for problem in parsed.problems[:10])
        more = f"\n- and {len(parsed.problems) - 10} more" if len(parsed.problems) > 10 else ""
        raise IntakeError(
            f"{len(parsed.problems)} tools cannot be registered:\n{shown}{more}",
            source=source,
            hint=parsed.problems[0].hint,
        )
    return unique(parsed.tools, source=source)


def _reasons(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False)
    )
