"""What people register: tools, agents, and the toolset that an adapter is made for.

Values only: immutable, comparable, no I/O. Identity is a fingerprint, the SHA-256 of a canonical JSON form in which
neither the order of tools nor the order of JSON keys shows, so that equal specs are equal on every machine and in
every version. The canonical form is pinned by test vectors: changing it invalidates every cached adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys, no spaces and no escapes for non-ASCII letters."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def _name(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise ValueError("a name has no control characters and no spaces at its ends")
    return value


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))


Name = Annotated[str, Field(min_length=1, max_length=128)]


RESERVED = frozenset({"none", "auto", "any"})
"""What `tool_choice` and the edge's own text say instead of a tool's name."""


MAX_REQUESTS, REQUEST_LENGTH = 64, 2000
"""Of a tool, and characters of each."""


class ToolSpec(_Value):
    """A tool: its name, what it does, and the JSON Schema (draft 2020-12) of its arguments, an object.

    `requests` are things that users say when they want it, as far as they are known: the adapter looks for what a request is like in
    them, too (`loragen.requests`).
    """

    name: Name
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: dict(NO_PARAMETERS))
    requests: tuple[Annotated[str, Field(min_length=1, max_length=REQUEST_LENGTH)], ...] = Field(
        default=(), max_length=MAX_REQUESTS
    )

    _check_name = field_validator("name")(_name)

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"{value!r} cannot name a tool: it means a choice of its own; rename the tool")
        return value

    @field_validator("parameters", mode="before")
    @classmethod
    def _object_schema(cls, value: Any) -> Any:
        if value is None or value == {}:
            return dict(NO_PARAMETERS)
        if not isinstance(value, Mapping):
            raise ValueError(f"parameters must be a JSON Schema object, got {type(value).__name__}")
        schema = json.loads(json.dumps(value, allow_nan=False))  # a private copy, and proof that it is JSON
        schema.setdefault("type", "object")
        if schema["type"] != "object":
            raise ValueError(f'parameters must have "type": "object", got {schema["type"]!r}')
        return schema

    @field_validator("requests")
    @classmethod
    def _said_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text.strip() for text in value if text.strip()))

    @cached_property
    def fingerprint(self) -> str:
        parts = {"name": self.name, "description": self.description, "parameters": self.parameters}
        # Absent where there are none, so that a spec without them is what it was before there could be any.
        return fingerprint(parts | ({"requests": list(self.requests)} if self.requests else {}))

    @property
    def says_requests(self) -> bool:
        """Whether the definition names requests, be it none; most sources of tools know nothing of them."""
        return "requests" in self.model_fields_set

    def knowing(self, requests: Sequence[str]) -> ToolSpec:
        """The tool with `requests`, where its definition does not say which there are."""
        return self if self.says_requests or not requests else self.changed(requests=requests)

    def changed(self, **parts: Any) -> ToolSpec:
        """The same tool with other `parts`. `model_copy` would keep the fingerprint, and check nothing."""
        return ToolSpec(**self.model_dump(exclude_unset=True) | parts)

    def __hash__(self) -> int:
        return hash(self.fingerprint)


class Toolset(_Value):
    """A set of tools and the agent's instructions: what an adapter is generated from. Kept sorted by name."""

    tools: tuple[ToolSpec, ...] = ()
    instructions: str = ""

    @field_validator("tools")
    @classmethod
    def _sorted_and_unique(cls, tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
        ordered = tuple(sorted(tools, key=lambda tool: tool.name))
        twice = sorted({a.name for a, b in pairwise(ordered) if a.name == b.name})
        if twice:
            raise ValueError(
                f"two tools are called {', '.join(map(repr, twice))}: names in a toolset are unique"
            )
        return ordered

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool.name for tool in self.tools)

    def tool(self, name: str) -> ToolSpec:
        """The tool called `name`; KeyError where there is none."""
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise KeyError(name)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            {"tools": [tool.fingerprint for tool in self.tools], "instructions": self.instructions}
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)


class AgentSpec(_Value):
    """A named agent: instructions and the names of its tools."""

    name: Name
    instructions: str = ""
    tools: tuple[str, ...] = ()

    _check_name = field_validator("name")(_name)

    @model_validator(mode="after")
    def _unique_tools(self) -> AgentSpec:
        twice = sorted({name for name in self.tools if self.tools.count(name) > 1})
        if twice:
            raise ValueError(f"tool {', '.join(map(repr, twice))} is listed more than once")
        return self

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            {"name": self.name, "instructions": self.instructions, "tools": sorted(self.tools)}
        )
