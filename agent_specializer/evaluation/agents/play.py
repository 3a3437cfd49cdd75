"""One scripted conversation through `langchain.agents.create_agent`, with tools that answer as the script says."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import StructuredTool, ToolException
from langgraph.errors import GraphRecursionError

from agent_specializer.errors import SpecializerError
from agent_specializer.evaluation.agents.conversations import (
    Conversation,
    ScriptedAgent,
    ScriptedCall,
    ScriptedTool,
    Turn,
)
from agent_specializer.evaluation.agents.judge import Held, Spoken, judge
from agent_specializer.messages import Call

MODEL_CALLS = 8
"""An agent that has not answered after so many calls of its model in one turn is in a loop."""


class Stage:
    """The tools of an agent. Each call of a tool gets the next scripted answer for it, then its plain `reply`."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self.tools = [self._tool(tool) for tool in agent.tools]
        self._coming: dict[str, deque[ScriptedCall]] = {}

    def begin(self, turn: Turn) -> None:
        """Forget the answers of the turn before."""
        self._coming = defaultdict(deque)
        for step in turn.steps:
            for call in step:
                self._coming[call.tool].append(call)

    def _tool(self, tool: ScriptedTool) -> StructuredTool:
        def answer(**_: Any) -> str:
            coming = self._coming.get(tool.name)
            if not coming:
                return tool.reply
            call = coming.popleft()
            if call.error is not None:
                raise ToolException(call.error)
            return str(call.result)

        return StructuredTool.from_function(
            answer,
            name=tool.name,
            description=tool.description,
            args_schema=tool.parameters,
            infer_schema=False,
            handle_tool_error=True,
        )


def play(
    conversation: Conversation,
    agent: ScriptedAgent,
    model: BaseChatModel,
    middleware: Sequence[AgentMiddleware[Any, Any, Any]] = (),
) -> Held:
    """Holds the conversation, turn by turn, until it has ended, an error comes, or a turn does not end."""
    stage = Stage(agent)
    graph: Any = create_agent(model, stage.tools, system_prompt=agent.instructions, middleware=middleware)
    messages: list[BaseMessage] = []
    spoken: list[Spoken] = []
    error = ""
    began = time.perf_counter()
    for turn in conversation.turns:
        stage.begin(turn)
        asked = [*messages, HumanMessage(turn.user)]
        messages = asked
        try:
            # A model call and its tools are one step each, so the last answer comes with an odd number.
            limit = {"recursion_limit": 2 * MODEL_CALLS}
            for state in graph.stream({"messages": asked}, limit, stream_mode="values"):
                messages = state["messages"]
        except GraphRecursionError:
            pass  # the calls that were made are in `messages`, and the last one is no answer
        except SpecializerError as failure:
            error = f"{type(failure).__name__}: {failure.message}"
        spoken.append(_spoken(messages[len(asked) :]))
        if error or not spoken[-1].ended:
            break
    answers = [message for message in messages if isinstance(message, AIMessage)]
    decisions = [message.response_metadata.get("specialized", {}).get("decision") for message in answers]
    return judge(
        conversation,
        spoken,
        fallbacks=decisions.count("fallback"),
        model_calls=len(answers),
        seconds=time.perf_counter() - began,
        error=error,
        said=[_said(message) for message in messages],
    )


def _spoken(messages: Sequence[BaseMessage]) -> Spoken:
    answers = [message for message in messages if isinstance(message, AIMessage)]
    ended = bool(messages) and isinstance(messages[-1], AIMessage) and not messages[-1].tool_calls
    return Spoken(
        messages=tuple(
            tuple(Call(name=call["name"], arguments=call["args"]) for call in message.tool_calls)
            for message in answers
        ),
        answer=answers[-1].text if ended else "",
        ended=ended,
    )


def _said(message: BaseMessage) -> dict[str, Any]:
    """A message as one can read it in the side file."""
    row: dict[str, Any] = {"type": message.type, "text": message.text}
    if isinstance(message, AIMessage):
        row["calls"] = [{"name": call["name"], "arguments": call["args"]} for call in message.tool_calls]
        row["confidence"] = message.response_metadata.get("confidence")
        if "specialized" in message.response_metadata:
            row["specialized"] = message.response_metadata["specialized"]
    return row
