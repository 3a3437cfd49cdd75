"""LangChain's messages as ours, and our replies as LangChain's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk

from agent_specializer.edge.events import CallDelta, ChoiceMade, Event, TextDelta
from agent_specializer.edge.transcript import arguments_text
from agent_specializer.errors import SpecError
from agent_specializer.messages import Call, Message, Reply, Usage

PROVIDER = "agent-specializer"
_IGNORED_BLOCKS = {"tool_use", "tool_call", "thinking", "reasoning", "redacted_thinking", "non_standard"}
"""Blocks of earlier answers that hold no words for the user; calls are read from `tool_calls`."""
_ROLES = {"user": "user", "human": "user", "system": "system", "developer": "system"}


def from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation in our words.

    Raises:
        SpecError: a message holds an image, audio or a file, or has a role that is none.
    """
    names = {call["id"]: call["name"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    return [_from_message(message, names) for message in messages]


def _from_message(message: BaseMessage, names: dict[str | None, str]) -> Message:
    text = _text(message)
    if isinstance(message, SystemMessage):
        return Message(role="system", content=text)
    if isinstance(message, HumanMessage):
        return Message(role="user", content=text)
    if isinstance(message, AIMessage):
        calls = tuple(Call(name=call["name"], arguments=call["args"]) for call in message.tool_calls)
        return Message(role="assistant", content=text, calls=calls)
    if isinstance(message, ToolMessage):
        failed = message.status == "error" and not text.lower().startswith("error")
        name = message.name or names.get(message.tool_call_id)
        return Message(role="tool", content=f"Error: {text}" if failed else text, name=name)
    if isinstance(message, FunctionMessage):
        return Message(role="tool", content=text, name=message.name)
    role = message.role if isinstance(message, ChatMessage) else message.type
    if role == "assistant":
        return Message(role="assistant", content=text)
    if role in _ROLES:
        return Message(role=_ROLES[role], content=text)  # type: ignore[arg-type]
    raise SpecError(f"a message has the role {role!r}", hint="the roles are system, user, assistant and tool")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts: list[str] = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") == "json" or "json" in block:
            parts.append(json.dumps(block.get("json"), ensure_ascii=False))
        elif block.get("type") not in _IGNORED_BLOCKS:
            raise SpecError(
                f"a {message.type} message has a block of type {block.get('type')!r}",
                hint="the model reads text; describe the content in words",
            )
    return "\n".join(part for part in parts if part)


def new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def usage_metadata(usage: Usage) -> UsageMetadata:
    """LangChain's counts. `input_token_details["saved"]` is what the tool definitions would have added."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(saved=usage.saved_prompt_tokens),  # type: ignore[typeddict-unknown-key]
    )


def response_metadata(reply: Reply, *, name: str, agent: str | None, mode: str) -> dict[str, Any]:
    """What is said of a reply besides its content: with which adapter it was made, how sure, how fast."""
    return {
        "model_name": name,
        "model_provider": PROVIDER,
        "finish_reason": "tool_calls" if reply.calls else "stop",
        "agent": agent,
        "mode": mode,
        "adapter": reply.adapter,
        "cache": reply.cache,
        "confidence": reply.confidence,
        "missing": list(reply.missing),
        "seconds": reply.usage.seconds,
        "first_token_seconds": reply.usage.first_token_seconds,
        "saved_tokens": reply.usage.saved_prompt_tokens,
    }


def to_message(reply: Reply, metadata: dict[str, Any], *, as_json: bool = False) -> AIMessage:
    """The reply as a message; `as_json` writes the arguments of its call as the content."""
    content: str
    calls: tuple[Call, ...]
    if as_json and reply.calls:
        content, calls = arguments_text(reply.calls[0].arguments), ()
        metadata = metadata | {"finish_reason": "stop"}
    else:
        content, calls = reply.content, reply.calls
    return AIMessage(
        content=content,
        tool_calls=[tool_call(name=call.name, args=call.arguments, id=new_call_id()) for call in calls],
        usage_metadata=usage_metadata(reply.usage),
        response_metadata=metadata,
    )


def to_chunk(event: Event, *, as_json: bool = False) -> AIMessageChunk | None:
    """The piece of the answer that an event adds; None where it adds none."""
    if isinstance(event, TextDelta):
        return AIMessageChunk(content=event.text)
    if isinstance(event, CallDelta):
        if as_json:
            return AIMessageChunk(content=event.arguments_text)
        piece = tool_call_chunk(args=event.arguments_text, index=event.index)
        return AIMessageChunk(content="", tool_call_chunks=[piece])
    if isinstance(event, ChoiceMade) and event.name is not None and not as_json:
        piece = tool_call_chunk(name=event.name, args="", id=new_call_id(), index=event.index)
        return AIMessageChunk(content="", tool_call_chunks=[piece])
    return None


def last_chunk(reply: Reply, metadata: dict[str, Any], *, as_json: bool = False) -> AIMessageChunk:
    """The end of a stream: counts and metadata, no content."""
    if as_json:
        metadata = metadata | {"finish_reason": "stop"}
    return AIMessageChunk(
        content="",
        usage_metadata=usage_metadata(reply.usage),
        response_metadata=metadata,
        chunk_position="last",
    )
