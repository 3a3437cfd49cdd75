"""The tools of a Model Context Protocol server: a command to start, or a streamable HTTP address."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

from agent_specializer.errors import IntakeError
from agent_specializer.intake.formats import read_objects
from agent_specializer.intake.tool import Parsed


def read_mcp(server: str, *, timeout: float = 60.0) -> Parsed:
    """The tools that an MCP server lists. Works with and without a running event loop.

    Args:
        server: an http(s) address, or a command line that starts the server on its standard input and output.
        timeout: seconds for starting and listing together.

    Raises:
        IntakeError: the `mcp` package is missing, or the server does not start, answer or finish in time.
    """
    try:
        import mcp  # noqa: F401  (the optional dependency)
    except ImportError:
        raise IntakeError(
            "MCP servers need the package `mcp`", source=server, hint="pip install 'agent-specializer[mcp]'"
        ) from None
    return read_objects(_run(_listed(server, timeout)), source=server)


async def _listed(server: str, timeout: float) -> list[dict[str, Any]]:
    import httpx
    from mcp.shared.exceptions import McpError

    try:
        async with asyncio.timeout(timeout):
            return await _list_tools(server)
    except TimeoutError:
        raise IntakeError(
            f"no list of tools within {timeout:g} s", source=server, hint="is it an MCP server?"
        ) from None
    except (OSError, ValueError, RuntimeError, McpError, httpx.HTTPError, ExceptionGroup) as error:
        raise IntakeError(
            f"the MCP server failed: {_cause(error)}",
            source=server,
            hint="start it by hand to see its own messages",
        ) from error


async def _list_tools(server: str) -> list[dict[str, Any]]:
    from mcp import ClientSession
    from mcp.types import PaginatedRequestParams

    async with AsyncExitStack() as stack:
        read, write = await _connect(server, stack)
        session = await stack.enter_async_context(ClientSession(read, write))
        await session.initialize()
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            found += [tool.model_dump(include={"name", "description", "inputSchema"}) for tool in page.tools]
            cursor = page.nextCursor
            if not cursor:
                return found


async def _connect(server: str, stack: AsyncExitStack) -> tuple[Any, Any]:
    """The two streams of a session."""
    if server.startswith(("http://", "https://")):
        from mcp.client.streamable_http import streamable_http_client

        read, write, _ = await stack.enter_async_context(streamable_http_client(server))
        return read, write
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client

    command, *arguments = shlex.split(server) or [""]
    parameters = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    log = stack.enter_context(open(os.devnull, "w"))  # noqa: SIM115  (the stack closes it)
    return await stack.enter_async_context(stdio_client(parameters, errlog=log))


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def _run(coroutine: Coroutine[Any, Any, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(
        max_workers=1
    ) as pool:  # a notebook's or a server's loop is running in this thread
        return pool.submit(asyncio.run, coroutine).result()
