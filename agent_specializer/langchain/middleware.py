"""`SpecializedMiddleware`: an agent's model calls go to its specialised model, and back when it is not sure enough."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage

from agent_specializer.errors import SpecializerError, StoreError
from agent_specializer.langchain.chat_model import ChatSpecialized
from agent_specializer.langchain.connection import Unsure
from agent_specializer.langchain.tools import read_bound
from agent_specializer.messages import Call, Usage
from agent_specializer.specs import Toolset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """Which model answered and why; `confidence` is the specialised model's, None where it gave no answer."""

    by: str
    reason: str = ""
    confidence: float | None = None


class SpecializedMiddleware(AgentMiddleware[Any, Any, Any]):
    """Sends the model calls of a LangChain agent to its specialised model.

    System prompt and tool definitions are taken out of the request: they make the adapter. The agent's own model, or
    `fallback`, gets the unchanged request where the specialised one

    - is less confident of its first choice than `threshold`: then it stops there, and nothing of its reply is streamed,
    - cannot be specialised to the tools (a schema that cannot be enforced, tools on the provider's side), or
    - fails (no valid call within its budget, a damaged store ...).

    The answer's `response_metadata["specialized"]` says how it was decided: {"decision": "specialized" | "fallback",
    "reason", "confidence", "threshold"}. A fallback is also a run in the store, with its reason.

    Args:
        agent: a registered agent; its toolset is used where it has the same tools as the request.
        model: the specialised model; None is `ChatSpecialized(agent=agent)`.
        threshold: confidence, 0 to 1; 0 never falls back for lack of it.
        fallback: another model to fall back to than the agent's own.
    """

    def __init__(
        self,
        agent: str | None = None,
        *,
        model: ChatSpecialized | None = None,
        threshold: float = 0.0,
        fallback: BaseChatModel | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability from 0 to 1, got {threshold}")
        self.model = model or ChatSpecialized(agent=agent)
        if agent is not None and agent != self.model.agent:
            self.model = self.model.model_copy(update={"agent": agent})
        self.threshold, self.fallback = threshold, fallback

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """The specialised model's answer, or the fallback's."""
        other = self._other(request)
        try:
            response = handler(self._asked(request, other))
        except SpecializerError as error:
            if other is None:
                raise
            decision = _failed(error)
        else:
            decision = self._judge(response)
        if decision.by == "fallback" and other is not None:
            response = handler(other)
            self._keep(request, response, decision)
        return self._marked(response, decision)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`; neither the model nor the store blocks the event loop."""
        other = self._other(request)
        try:
            response = await handler(await asyncio.to_thread(self._asked, request, other))
        except SpecializerError as error:
            if other is None:
                raise
            decision = _failed(error)
        else:
            decision = self._judge(response)
        if decision.by == "fallback" and other is not None:
            response = await handler(other)
            await asyncio.to_thread(self._keep, request, response, decision)
        return self._marked(response, decision)

    def specialized(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """The request as the specialised model gets it: without system prompt and without tool definitions.

        Raises:
            SpecError: the toolset cannot be specialised.
        """
        if request.response_format is not None:
            # LangChain adds the schema of the answer to the tools, so they have to be known to it until the end.
            return request.override(model=self.model)
        settings = dict(request.model_settings)
        if request.tool_choice is not None:
            settings["tool_choice"] = request.tool_choice
        model = self.model.model_copy(update=self._toolset(request))
        return request.override(
            model=model, system_message=None, tools=[], tool_choice=None, model_settings=settings
        )

    def _toolset(self, request: ModelRequest[Any]) -> dict[str, Any]:
        """The fields that give the model its toolset: the registered agent's, where nothing differs from it."""
        prompt = request.system_prompt or ""
        tools = read_bound(request.tools)
        if self.model.agent is None:
            return {"toolset": Toolset(tools=tools, instructions=prompt)}
        own = self.model.opened().registry.toolset(self.model.agent)
        if {tool.name for tool in tools} == set(own.names):
            tools = own.tools  # as registered: an agent's functions may be described in other words there
        toolset = Toolset(tools=tools, instructions=prompt.strip() or own.instructions)
        return {"toolset": None if toolset.fingerprint == own.fingerprint else toolset}

    def _other(self, request: ModelRequest[Any]) -> ModelRequest[Any] | None:
        """The request to fall back on; None where the agent has no other model."""
        if self.fallback is not None:
            return request.override(model=self.fallback)
        return None if isinstance(request.model, ChatSpecialized) else request

    def _asked(self, request: ModelRequest[Any], other: ModelRequest[Any] | None) -> ModelRequest[Any]:
        """The request to the specialised model, which stops where it is unsure and there is another to ask."""
        asked = self.specialized(request)
        if other is None:
            return asked
        return asked.override(model=asked.model.model_copy(update={"min_confidence": self.threshold}))

    def _judge(self, response: ModelResponse[Any]) -> Decision:
        """What is said of an answer that stands."""
        message = _answer(response)
        confidence = message.response_metadata.get("confidence") if message else None
        if confidence is None or confidence >= self.threshold:
            return Decision("specialized", confidence=confidence)
        reason = f"confidence {confidence:.3f} is under {self.threshold:g}, but there is no other model"
        return Decision("specialized", reason, confidence)

    def _marked(self, response: ModelResponse[Any], decision: Decision) -> ModelResponse[Any]:
        message = _answer(response)
        if message is None:
            return response
        said = {
            "decision": decision.by,
            "reason": decision.reason,
            "confidence": decision.confidence,
            "threshold": self.threshold,
        }
        marked = message.model_copy(
            update={"response_metadata": {**message.response_metadata, "specialized": said}}
        )
        result = [marked if item is message else item for item in response.result]
        return ModelResponse(result=result, structured_response=response.structured_response)

    def _keep(self, request: ModelRequest[Any], response: ModelResponse[Any], decision: Decision) -> None:
        """The fallback's answer as a run."""
        message = _answer(response)
        calls = message.tool_calls if message else []
        usage = message.usage_metadata if message else None
        words = [m.text for m in request.messages if isinstance(m, HumanMessage)]
        try:
            self.model.opened().registry.add_run(
                mode="fallback",
                agent=self.model.agent,
                request=words[-1] if words else None,
                calls=[Call(name=call["name"], arguments=call["args"]) for call in calls],
                usage=Usage(
                    prompt_tokens=usage["input_tokens"] if usage else 0,
                    completion_tokens=usage["output_tokens"] if usage else 0,
                ),
                confidence=decision.confidence or 0.0,
                decision="fallback",
                reason=decision.reason,
            )
        except StoreError as error:  # the answer is there; a full disk must not cost it
            logger.warning("the fallback was not kept: %s", error.message)


def _failed(error: SpecializerError) -> Decision:
    """Why the other model has to answer."""
    if isinstance(error, Unsure):
        return Decision("fallback", error.message, error.confidence)
    return Decision("fallback", f"{type(error).__name__}: {error.message}")


def _answer(response: ModelResponse[Any]) -> AIMessage | None:
    return next((message for message in response.result if isinstance(message, AIMessage)), None)
