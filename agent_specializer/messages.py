"""What goes into and comes out of a specialised model: messages, calls, replies. Values only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["specialized", "prompted", "base"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Value):
    """One call of a tool; `arguments` validates against the tool's schema."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Message(_Value):
    """One turn. `calls` belongs to assistant turns; `name` of a tool turn is the tool that answered."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    calls: tuple[Call, ...] = ()
    name: str | None = None


class Usage(_Value):
    """What a reply cost. Tokens are the edge model's; times are wall-clock seconds."""

    prompt_tokens: int = 0
    """Tokens of the prompt as sent: conversation plus, in prompted mode, tool definitions."""
    tool_prompt_tokens: int = 0
    """Tokens of tool definitions and instructions in the prompt: 0 in specialised mode."""
    saved_prompt_tokens: int = 0
    """Tokens that the tool definitions would have cost had they been sent."""
    completion_tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0


class Choice(_Value):
    """A candidate for the next step: a tool's name, or None for answering in words; `score` in nats."""

    name: str | None
    score: float
    probability: float


class Reply(_Value):
    """The model's reply: calls, or words when `calls` is empty."""

    calls: tuple[Call, ...] = ()
    content: str = ""
    usage: Usage = Usage()
    confidence: float = 0.0
    """Calibrated probability, 0 to 1, of the first choice that was made (a tool or answering in words)."""
    choices: tuple[Choice, ...] = ()
    """All candidates of the first choice, best first."""
    missing: tuple[str, ...] = ()
    """Where words were chosen: what the likeliest tool requires and the request does not seem to say."""
    adapter: str | None = None
    """Fingerprint of the adapter used; None in prompted and base mode."""
    cache: Literal["hit", "miss"] | None = None
