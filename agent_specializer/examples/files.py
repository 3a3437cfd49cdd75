"""Example files: JSON Lines, plain or gzip, of toolsets and of requests with the calls they should lead to.

Toolsets: ``{"toolset_id", "description", "tools": [{"name", "description", "parameters", "requests"?}]}``. Examples:
``{"toolset_id", "messages": [{"role", "content"}], "calls": [{"name", "arguments"}], "calls_accepted"?, "answer"?}``;
an empty `calls` means that no tool should be called.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent_specializer.errors import IntakeError
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec


@dataclass(frozen=True)
class Example:
    """A request, the tools it is asked of, and what should come of it.

    `accepted`, where given, holds for each call the values that are right for each argument. `context` is the
    conversation's system message: part of the instructions, never of the request.
    """

    toolset_id: str
    messages: tuple[Message, ...]
    calls: tuple[Call, ...]
    accepted: tuple[dict[str, Any], ...] = ()
    answer: str = ""
    context: str = ""
    category: str = ""

    @property
    def request(self) -> str:
        """The last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


def read_toolsets(path: Path) -> dict[str, Toolset]:
    """Toolsets of `path` by their ids. Raises IntakeError with file and line."""
    toolsets = {}
    for line, row in _rows(path):
        try:
            tools = {
                tool["name"]: ToolSpec(
                    **{k: tool.get(k) for k in ("name", "parameters")},
                    description=tool.get("description") or "",
                    requests=tool.get("requests") or (),
                )
                for tool in row["tools"]
            }
            toolsets[row["toolset_id"]] = Toolset(
                tools=tuple(tools.values()), instructions=row.get("description") or ""
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise IntakeError(
                f"not a toolset: {error}", source=str(path), line=line, hint=__doc__.splitlines()[2]
            ) from error  # type: ignore[union-attr]
    return toolsets


def read_examples(path: Path) -> list[Example]:
    """Examples of `path`, in order. Raises IntakeError with file and line."""
    examples = []
    for line, row in _rows(path):
        try:
            messages = tuple(_message(m) for m in row["messages"])
            examples.append(
                Example(
                    toolset_id=row["toolset_id"],
                    messages=tuple(m for m in messages if m.role != "system"),
                    calls=tuple(
                        Call(name=c["name"], arguments=c.get("arguments") or {}) for c in row["calls"]
                    ),
                    accepted=tuple(row.get("calls_accepted") or ()),
                    answer=row.get("answer") or "",
                    context="\n".join(m.content for m in messages if m.role == "system"),
                    category=row.get("category") or "",
                )
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise IntakeError(
                f"not an example: {error}", source=str(path), line=line, hint=__doc__.splitlines()[3]
            ) from error  # type: ignore[union-attr]
    return examples


def _message(raw: dict[str, Any]) -> Message:
    """A message; an assistant's content that is the JSON of one or more calls becomes calls."""
    content = raw.get("content") or ""
    if raw["role"] == "assistant" and content.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(content)
            calls = value if isinstance(value, list) else [value]
            if calls and all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
                made = tuple(Call(name=c["name"], arguments=c.get("arguments") or {}) for c in calls)
                return Message(role="assistant", calls=made)
        except (ValueError, ValidationError):
            pass  # words that merely look like JSON stay words
    return Message(role=raw["role"], content=content, name=raw.get("name"))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        opened = (
            gzip.open(path, "rt", encoding="utf-8")  # noqa: SIM115 (closed by the `with` below)
            if path.suffix == ".gz"
            else path.open(encoding="utf-8")
        )
        with opened as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise IntakeError("a line is one JSON object", source=str(path), line=number)
                yield number, row
    except json.JSONDecodeError as error:
        raise IntakeError(
            f"not JSON: {error}", source=str(path), line=number, hint="JSON Lines: one object a line"
        ) from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise IntakeError(
            f"cannot be read: {error}", source=str(path), hint="a .jsonl or .jsonl.gz file"
        ) from error
