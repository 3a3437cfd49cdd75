"""The tools of an MCP server, through LangChain's adapter, on the specialised model."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_mcp_adapters.client import MultiServerMCPClient

from agent_specializer.langchain import ChatSpecialized

SERVER = Path(__file__).with_name("mcp_server.py")


async def ask(request: str, model: BaseChatModel | None = None) -> AIMessage:
    """The reply to `request` with the server's tools at hand."""
    command = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER)]}
    tools = await MultiServerMCPClient({"house": command}).get_tools()  # type: ignore[dict-item]
    return await (model or ChatSpecialized()).bind_tools(tools, tool_choice="any").ainvoke(request)


if __name__ == "__main__":
    print(asyncio.run(ask("dim the kitchen light to 20 %")).tool_calls)
