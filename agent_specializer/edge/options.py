"""How a reply is made: its budget, and which tools it may call."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReplyOptions(BaseModel):
    """Limits and wishes of one reply.

    `tool_choice`: "auto" leaves all choices open, "any" demands a call, "none" demands words, any other value is the
    name of the one tool that has to be called. A tool that is itself called "auto", "any" or "none" cannot be demanded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=256, ge=1)
    """Tokens of all arguments and words together; names are not counted."""
    max_calls: int = Field(default=4, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    """Of arguments and words, 0 being greedy; the tool is always the best-scored one."""
    seed: int = 0
    """Of the sampling, when the temperature is above 0."""
    stop: tuple[str, ...] = ()
    """Words end before the first of these."""
    tool_choice: str = "auto"
    caution: float = Field(default=0.0, ge=-100, le=100)
    """Nats that answering in words gains on the first call: above 0 it rather asks back or talks, below 0 it rather calls."""
    parallel_calls: bool = True
    """False: at most one call."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds, the wait in the engine's queue included."""
    keep_prefix: bool = False
    """With tools in the prompt: keep their keys and values for the next request of the same toolset."""


DEFAULTS = ReplyOptions()
