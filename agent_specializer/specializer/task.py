"""One request on its way to the edge: whom it is for, what the edge may read, and with which adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from agent_specializer.messages import Message, Mode
from agent_specializer.specs import Toolset

if TYPE_CHECKING:
    from agent_specializer.adapters import Specialization
    from agent_specializer.edge.options import ReplyOptions
    from agent_specializer.loragen import Adapter

Conversation = str | Sequence[Message]


class How(TypedDict):
    """What the engine is told beside messages and toolset."""

    adapter: Adapter | None
    tools_in_prompt: bool
    options: ReplyOptions
    description_tokens: int | None


@dataclass(frozen=True)
class Task:
    """`agent` is the registered agent's name, None for a bare toolset. `messages` holds no system message."""

    agent: str | None
    toolset: Toolset
    messages: tuple[Message, ...]
    mode: Mode
    options: ReplyOptions
    specialization: Specialization | None = None
    description_tokens: int | None = None
    """In the edge's tokens, where they are known without reading it."""

    @property
    def how(self) -> How:
        return {
            "adapter": self.specialization.adapter if self.specialization else None,
            "tools_in_prompt": self.mode == "prompted",
            "options": self.options,
            "description_tokens": self.description_tokens,
        }

    @property
    def fingerprint(self) -> str | None:
        """Of the adapter."""
        return self.specialization.fingerprint if self.specialization else None

    @property
    def cache(self) -> Literal["hit", "miss"] | None:
        return self.specialization.cache if self.specialization else None

    @property
    def request(self) -> str:
        """The last thing that the user said."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


def grounded(toolset: Toolset, messages: Conversation) -> tuple[Toolset, tuple[Message, ...]]:
    """The toolset with the conversation's system messages in its instructions, and the other messages."""
    if isinstance(messages, str):
        return toolset, (Message(role="user", content=messages),)
    system = [m.content for m in messages if m.role == "system" and m.content.strip()]
    if system:
        instructions = "\n".join(text for text in [toolset.instructions, *system] if text.strip())
        toolset = Toolset(tools=toolset.tools, instructions=instructions)
    return toolset, tuple(message for message in messages if message.role != "system")
