"""What the Registry answers with: frozen values, free of the session they came from. Times are UTC."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from agent_specializer.messages import Call
from agent_specializer.specs import ToolSpec


@dataclass(frozen=True)
class ToolChange:
    """What registering a tool did, and the version that is current now."""

    name: str
    status: Literal["new", "changed", "same"]
    version: int


@dataclass(frozen=True)
class ToolRow:
    """A registered tool at its current version; `agents` counts those that use it."""

    name: str
    description: str
    fingerprint: str
    version: int
    source: str
    agents: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class ToolVersionRow:
    """One spec that a tool has or had. `version` is None for one that an adapter used unregistered."""

    spec: ToolSpec
    version: int | None
    source: str
    created_at: datetime
    adapters: int
    """How many adapters were made from it."""


@dataclass(frozen=True)
class AgentRow:
    name: str
    instructions: str
    tools: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class AdapterRow:
    """An adapter. `bytes`: size of its blob; `seconds`: to generate it; `blob`: from `get_adapter` only; `refinement`: what
    refining it came to, None where it is as it was generated."""

    id: int
    fingerprint: str
    toolset_fp: str
    generator_fp: str
    agent: str | None
    instructions: str
    bytes: int
    description_tokens: int
    seconds: float
    created_at: datetime
    last_used_at: datetime
    hits: int
    pinned: bool
    refinement: dict[str, Any] | None = None
    blob: builtins.bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AdapterStatus:
    """`outdated` when the agent is no longer what the adapter was made from; `why` names every difference."""

    state: Literal["fresh", "outdated"]
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRow:
    """One request that was answered. `decision` is what was done (a mode, or "fallback") and `reason` why.

    `request` is None and calls have no arguments where texts are not kept.
    """

    id: int
    time: datetime
    agent: str | None
    adapter: str | None
    mode: str
    request: str | None
    calls: tuple[Call, ...]
    prompt_tokens: int
    tool_prompt_tokens: int
    saved_prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_seconds: float
    confidence: float
    decision: str
    reason: str
    cache: Literal["hit", "miss"] | None


@dataclass(frozen=True)
class RunStats:
    """The runs of one mode in one stretch of time that starts at `start`. Tokens are sums, seconds means."""

    start: datetime
    mode: str
    runs: int
    prompt_tokens: int
    tool_prompt_tokens: int
    saved_prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_seconds: float
    confidence: float
    cache_hits: int
    fallbacks: int
