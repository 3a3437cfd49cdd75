"""One model call of an agent, streamed and timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import BaseTool, StructuredTool

from agent_specializer.specs import ToolSpec


class With(AgentMiddleware[Any, Any, Any]):
    """Gives each model call of an agent these settings, `tool_choice` among them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = {name: value for name, value in settings.items() if name != "tool_choice"}
        self.choice = settings.get("tool_choice")

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(request.override(tool_choice=self.choice, model_settings=self.settings))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        return await handler(request.override(tool_choice=self.choice, model_settings=self.settings))


def stream_one_call(
    model: BaseChatModel,
    tools: Sequence[BaseTool],
    system_prompt: str,
    text: str,
    settings: dict[str, Any],
) -> tuple[tuple[float, float], AIMessage]:
    """Seconds to the first chunk and to the end of an agent's first model call, and its message. No tool is run."""
    graph: Any = create_agent(
        model,
        list(tools),
        system_prompt=system_prompt,
        middleware=[With(settings)],
        interrupt_before=["tools"],
    )
    first: float | None = None
    message: AIMessageChunk | None = None
    began = time.perf_counter()
    for chunk, _ in graph.stream({"messages": [("user", text)]}, stream_mode="messages"):
        if isinstance(chunk, AIMessageChunk):
            first = first or time.perf_counter() - began
            message = chunk if message is None else message + chunk
    total = time.perf_counter() - began
    if message is None or first is None:
        raise RuntimeError(f"{type(model).__name__} streamed nothing")
    return (first, total), message


def silent_tools(tools: Sequence[ToolSpec]) -> list[BaseTool]:
    """Tools of these specs that do nothing."""
    return [
        StructuredTool.from_function(
            lambda **_: "",
            name=tool.name,
            description=tool.description,
            args_schema=tool.parameters,
            infer_schema=False,
        )
        for tool in tools
    ]
