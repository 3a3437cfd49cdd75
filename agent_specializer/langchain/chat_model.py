"""`ChatSpecialized`: an agent's specialised model as a LangChain chat model. It never sends a tool definition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import Field

from agent_specializer.edge.events import ChoiceMade, Done, Event
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.errors import ConfigError
from agent_specializer.langchain.connection import Connection, Unsure
from agent_specializer.langchain.messages import (
    PROVIDER,
    from_langchain,
    last_chunk,
    response_metadata,
    to_chunk,
    to_message,
)
from agent_specializer.langchain.structured import Method, structured_output
from agent_specializer.langchain.tools import as_openai, read_bound, read_choice, read_response_format
from agent_specializer.messages import Message, Reply
from agent_specializer.specializer import Specializer
from agent_specializer.specializer.threads import iterate_in_thread
from agent_specializer.specs import Toolset


@dataclass(frozen=True)
class _Request:
    """One call: whose adapter (`who`), what it reads, how it replies; `as_json`: with a call's arguments as text."""

    specializer: Specializer
    who: str | Toolset
    agent: str | None
    messages: list[Message]
    options: ReplyOptions
    as_json: bool


class ChatSpecialized(Connection, BaseChatModel):
    """A small local model, specialised to the tools of an agent or to those that are bound.

    With `agent` the tools are the registered agent's. `bind_tools` makes a toolset of the tools that it is given, for
    which an adapter is generated once and kept. A system message becomes part of the toolset's instructions, and so
    of the adapter. The model itself only ever reads the user's and the assistant's messages and the tools' results.

    Example:
        >>> model = ChatSpecialized().bind_tools([get_weather])
        >>> model.invoke("Will it rain in Oslo?").tool_calls

    Raises (on a call):
        NotFound: no such agent, or `tool_choice` names no tool. SpecError: a message holds more than text, or a tool
        has a schema that cannot be enforced. DecodeError: nothing valid fits `max_tokens` or `timeout`.
        Unsure: the first choice is under `min_confidence`.
    """

    toolset: Toolset | None = None
    """Tools and instructions to use instead of a registered agent's."""
    caution: float = Field(default=0.0, ge=-100, le=100)
    """Above 0 it rather answers in words, below 0 it rather calls; in nats (`ReplyOptions.caution`). Per call: the keyword of that name."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """Under it a call raises `Unsure` as soon as its first choice is made: nothing is written or streamed before."""

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["agent_specializer", "langchain", "chat_model"]

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        toolset = self.toolset.fingerprint if self.toolset else None
        return self.identifying() | {"toolset": toolset, "caution": self.caution}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = self.shown_name(kwargs.get("model"))
        return params

    def get_token_ids(self, text: str) -> list[int]:
        """The edge model's tokens of `text`."""
        ids: list[int] = self.opened().runtime.models.edge_tokenizer(text, add_special_tokens=False).input_ids
        return ids

    # Binding ----------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools: calls always validate against their schemas, `strict` or not.

        Args:
            tool_choice: "auto" (None, the default), "any" ("required", True), "none", or the name of the tool to call.
            parallel_tool_calls: False: at most one call per reply.

        Raises:
            IntakeError, SchemaNotSupported: one is no tool. NotFound: `tool_choice` is none of them.
        """
        specs = read_bound(tools)
        if tool_choice is not None:
            kwargs["tool_choice"] = read_choice(tool_choice, [spec.name for spec in specs])
        if not parallel_tool_calls:
            kwargs["parallel_tool_calls"] = False
        return self.bind(tools=[as_openai(spec) for spec in specs], **kwargs)

    def with_structured_output(  # type: ignore[override]
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with answers of `schema`, enforced while decoding by every method, `strict` or not.

        Args:
            schema: a pydantic class, a TypedDict, a JSON Schema or an OpenAI tool; None, with "json_mode": any object.
            method: "function_calling" has the raw answer as a tool call, the others as JSON text.
            include_raw: return {"raw", "parsed", "parsing_error"}.
        """
        return structured_output(self, schema, method=method, include_raw=include_raw)

    # Replying ---------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        def work() -> ChatResult:
            request = self._request(messages, stop, kwargs)
            reply = self._reply(request)
            message = to_message(reply, self._metadata(request, reply), as_json=request.as_json)
            return ChatResult(generations=[ChatGeneration(message=message)])

        return self.retrying(work)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with closing(self._chunks(messages, stop, kwargs)) as chunks:  # closing it stops the model
            for chunk in chunks:
                generation = ChatGenerationChunk(message=chunk)
                if run_manager:
                    run_manager.on_llm_new_token(generation.text, chunk=generation)
                yield generation

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await asyncio.to_thread(self._generate, messages, stop, None, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in iterate_in_thread(lambda: self._chunks(messages, stop, kwargs)):
            generation = ChatGenerationChunk(message=chunk)
            if run_manager:
                await run_manager.on_llm_new_token(generation.text, chunk=generation)
            yield generation

    # Inside -----------------------------------------------------------------------------------------------

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Any:  # a generator, which has to be closed
        def begin() -> tuple[_Request, Any, Event]:
            request = self._request(messages, stop, kwargs)
            events = request.specializer.stream(
                request.who, request.messages, mode=self.mode, options=request.options
            )
            # What fails before the first piece can be tried again.
            return request, events, self._sure(events, next(events))

        request, events, event = self.retrying(begin)
        with closing(events):
            while not isinstance(event, Done):
                chunk = to_chunk(event, as_json=request.as_json)
                if chunk is not None:
                    yield chunk
                event = next(events)
            metadata = self._metadata(request, event.reply)
            yield last_chunk(event.reply, metadata, as_json=request.as_json)

    def _reply(self, request: _Request) -> Reply:
        if not self.min_confidence:
            ask = request.specializer.ask
            return ask(request.who, request.messages, mode=self.mode, options=request.options)
        stream = request.specializer.stream
        events: Any = stream(request.who, request.messages, mode=self.mode, options=request.options)
        with closing(events):
            event = self._sure(events, next(events))
            while not isinstance(event, Done):
                event = next(events)
        return event.reply

    def _sure(self, events: Any, first: Event) -> Event:
        """`first`, if it is no choice of too little confidence; else the model is stopped."""
        if isinstance(first, ChoiceMade) and first.confidence < self.min_confidence:
            events.close()
            raise Unsure(first.confidence, self.min_confidence)
        return first

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> _Request:
        specializer = self.opened()
        agent = kwargs.get("model") or self.agent
        wanted = read_response_format(kwargs.get("response_format"))
        tools = read_bound(kwargs["tools"]) if kwargs.get("tools") else None
        who = self._who(specializer, agent, Toolset(tools=tools) if tools else None)
        toolset = who if isinstance(who, Toolset) else specializer.registry.toolset(who)
        choice = read_choice(kwargs.get("tool_choice"), toolset.names)
        as_json = wanted is not None and (not toolset.tools or choice == "none")
        if wanted is not None and as_json:
            who, choice = Toolset(tools=(wanted,), instructions=toolset.instructions), wanted.name
        options = self._options(stop, kwargs).model_copy(update={"tool_choice": choice})
        if as_json:
            options = options.model_copy(update={"parallel_calls": False})
        registered = who if isinstance(who, str) else None
        return _Request(specializer, who, registered, from_langchain(messages), options, as_json)

    def _who(self, specializer: Specializer, agent: str | None, bound: Toolset | None) -> str | Toolset:
        """The registered agent, where the tools are its own; else a toolset that is only used by this call.

        What LangChain binds says nothing of requests: those that are known of the agent's tools stay.
        """
        own = self.toolset
        if own is None and agent is not None:
            own = specializer.registry.toolset(agent)
        if bound is not None and own is not None:
            known = {tool.name: tool.requests for tool in own.tools}
            bound = Toolset(tools=tuple(tool.knowing(known.get(tool.name, ())) for tool in bound.tools))
        if bound is None or (own is not None and own.tools == bound.tools):
            return agent if self.toolset is None and agent is not None else own or Toolset()
        return Toolset(tools=bound.tools, instructions=own.instructions if own else "")

    def _options(self, stop: list[str] | None, kwargs: dict[str, Any]) -> ReplyOptions:
        def given(name: str, *other: str) -> Any:
            return next((kwargs[key] for key in (name, *other) if kwargs.get(key) is not None), None)

        if (given("n") or 1) != 1:
            raise ConfigError(f"n = {given('n')}: one reply is made per call", hint="use batch() for more")
        temperature = given("temperature")
        return ReplyOptions(
            max_tokens=given("max_tokens", "max_completion_tokens") or self.max_tokens,
            temperature=(self.temperature or 0.0) if temperature is None else temperature,
            seed=self.seed if given("seed") is None else given("seed"),
            stop=tuple(text for text in (stop or self.stop or ()) if text),
            timeout=given("timeout") or self.timeout,
            caution=self.caution if given("caution") is None else given("caution"),
            parallel_calls=kwargs.get("parallel_tool_calls") is not False,
        )

    def _metadata(self, request: _Request, reply: Reply) -> dict[str, Any]:
        name = request.agent or self.bundle or request.specializer.settings.bundle
        return response_metadata(reply, name=name, agent=request.agent, mode=self.mode)
