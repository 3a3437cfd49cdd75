"""The FastAPI application: GET /v1/models and POST /v1/chat/completions, streamed or not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.utils import convert_to_messages

from agent_specializer.errors import DecodeError, NotFound, SpecError, SpecializerError
from agent_specializer.langchain import ChatSpecialized
from agent_specializer.server.wire import ChatRequest, completion, delta, error_body, new_head, piece, usage
from agent_specializer.specializer import Specializer

logger = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[SpecializerError], int, str], ...] = (
    (NotFound, 404, "invalid_request_error"),
    (SpecError, 400, "invalid_request_error"),
    (DecodeError, 422, "invalid_request_error"),
    (SpecializerError, 500, "server_error"),
)


def create_app(specializer: Specializer | None = None) -> FastAPI:
    """The application over `specializer`; None opens the default home, and closes it at the end."""
    owned = specializer is None
    spec = specializer or Specializer()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if owned:
            spec.close()

    app = FastAPI(title="agent-specializer", lifespan=lifespan)

    @app.exception_handler(SpecializerError)
    async def _failed(_: Request, error: SpecializerError) -> JSONResponse:
        status, body = _describe(error)
        return JSONResponse(body, status)

    @app.exception_handler(RequestValidationError)
    async def _malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse(error_body(f"{where}: {first['msg']}", kind="invalid_request_error"), 400)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        rows = [(row.name, int(row.created_at.timestamp())) for row in spec.agents()]
        rows.append((spec.settings.bundle, 0))
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": "agent-specializer"}
            for name, created in rows
        ]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest) -> dict[str, Any] | StreamingResponse:
        agent = None if body.model == spec.settings.bundle else body.model
        if agent is not None:
            await asyncio.to_thread(spec.agent, agent)
        model = ChatSpecialized(specializer=spec, agent=agent)
        messages = _messages(body)
        if not body.stream:
            return completion(await model.ainvoke(messages, stop=body.stops, **body.settings()), body.model)
        chunks = model.astream(messages, stop=body.stops, **body.settings())
        # The first piece is waited for, so that what is wrong with the request has a status of its own.
        first = await anext(chunks)
        return StreamingResponse(_events(body, first, chunks), media_type="text/event-stream")

    return app


def _messages(body: ChatRequest) -> list[BaseMessage]:
    try:
        return convert_to_messages(body.messages)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise SpecError(f"messages: {error}", hint="each is {'role': ..., 'content': ...}") from error


async def _events(
    body: ChatRequest, first: AIMessageChunk, chunks: AsyncIterator[AIMessageChunk]
) -> AsyncIterator[str]:
    """The stream as server-sent events."""
    head = new_head(body.model, "chat.completion.chunk")
    yield _event(piece(head, {"role": "assistant", "content": None}))
    chunk, last = first, first
    try:
        while True:
            added = delta(chunk)
            if added:
                yield _event(piece(head, added))
            last = chunk if chunk.usage_metadata else last
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                break
    except SpecializerError as error:
        yield _event(_describe(error)[1])
        return
    yield _event(piece(head, {}, last))
    if body.stream_options and body.stream_options.include_usage:
        yield _event({**head, "choices": [], "usage": usage(last)})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _describe(error: SpecializerError) -> tuple[int, dict[str, Any]]:
    status, kind = next((status, kind) for of, status, kind in _STATUS if isinstance(error, of))
    if status == 500:
        logger.error("a request failed: %s", error)
    code = "model_not_found" if isinstance(error, NotFound) else None
    return status, error_body(str(error), kind=kind, code=code)
