"""OpenAI's chat completions as values: what is asked, and how answers and errors are written."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Literal

from langchain_core.messages import AIMessage, AIMessageChunk
from pydantic import BaseModel, ConfigDict, Field


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. What a local model has no use for (`user`, `store` ...) is ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str
    """An agent's name, or the bundle's for a request that brings tools of its own, or none."""
    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    caution: float | None = Field(default=None, ge=-100, le=100)
    """No part of OpenAI's: `ReplyOptions.caution`."""
    n: Literal[1] | None = None

    def settings(self) -> dict[str, Any]:
        """The keywords of ChatSpecialized's call."""
        names = ("tools", "tool_choice", "response_format", "temperature", "seed", "caution")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        limit = self.max_completion_tokens or self.max_tokens
        if limit is not None:
            given["max_tokens"] = limit
        if not self.parallel_tool_calls:
            given["parallel_tool_calls"] = False
        return given

    @property
    def stops(self) -> list[str] | None:
        return [self.stop] if isinstance(self.stop, str) else self.stop


def new_head(model: str, kind: str) -> dict[str, Any]:
    """What an answer, or all pieces of one, have in common."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def completion(message: AIMessage, model: str) -> dict[str, Any]:
    """The whole answer. `specialized` holds adapter, cache, confidence, seconds and saved tokens."""
    said: dict[str, Any] = {"role": "assistant", "content": message.text or None, "refusal": None}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.dumps(call["args"], ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _reason(message)}
    return {
        **new_head(model, "chat.completion"),
        "choices": [choice],
        "usage": usage(message),
        "specialized": specialized(message),
    }


def delta(chunk: AIMessageChunk) -> dict[str, Any]:
    """The `delta` that a chunk adds."""
    out: dict[str, Any] = {}
    if chunk.text:
        out["content"] = chunk.text
    if chunk.tool_call_chunks:
        out["tool_calls"] = [_call_delta(dict(piece)) for piece in chunk.tool_call_chunks]
    return out


def _call_delta(piece: dict[str, Any]) -> dict[str, Any]:
    function = {"arguments": piece["args"] or ""}
    if not piece["name"]:
        return {"index": piece["index"], "function": function}
    named = {"name": piece["name"], **function}
    return {"index": piece["index"], "id": piece["id"], "type": "function", "function": named}


def piece(
    head: dict[str, Any], added: dict[str, Any], message: AIMessageChunk | None = None
) -> dict[str, Any]:
    """One event of a stream; `message` is the last chunk."""
    reason = _reason(message) if message is not None else None
    choice = {"index": 0, "delta": added, "logprobs": None, "finish_reason": reason}
    return {**head, "choices": [choice]} | ({"specialized": specialized(message)} if message else {})


def usage(message: AIMessage) -> dict[str, int]:
    counts = message.usage_metadata
    return {
        "prompt_tokens": counts["input_tokens"] if counts else 0,
        "completion_tokens": counts["output_tokens"] if counts else 0,
        "total_tokens": counts["total_tokens"] if counts else 0,
    }


def specialized(message: AIMessage) -> dict[str, Any]:
    names = ("adapter", "cache", "confidence", "missing", "seconds", "first_token_seconds", "saved_tokens")
    return {name: message.response_metadata.get(name) for name in names}


def error_body(message: str, *, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _reason(message: AIMessage) -> str:
    return str(message.response_metadata.get("finish_reason", "stop"))
