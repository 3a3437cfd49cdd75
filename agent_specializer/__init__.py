"""agent_specializer: a small language model, specialised to a set of tools in seconds, with no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_specializer.messages import Call, Message, Reply, Usage
    from agent_specializer.specializer import Agent, Specializer
    from agent_specializer.specs import AgentSpec, Toolset, ToolSpec

__all__ = ["Agent", "AgentSpec", "Call", "Message", "Reply", "Specializer", "ToolSpec", "Toolset", "Usage"]

_HOME = {
    "Agent": "specializer",
    "Specializer": "specializer",
    "AgentSpec": "specs",
    "ToolSpec": "specs",
    "Toolset": "specs",
    "Call": "messages",
    "Message": "messages",
    "Reply": "messages",
    "Usage": "messages",
}


def __getattr__(name: str) -> object:
    # Lazy, so that `agent-specializer --help` and the specs do not pay for torch.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
