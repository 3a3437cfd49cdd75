"""An OpenAI-compatible server: any client that speaks chat completions can use a specialised agent."""

from __future__ import annotations

from agent_specializer.server.run import serve

__all__ = ["serve"]
