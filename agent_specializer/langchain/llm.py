"""`SpecializedLLM`: the specialised model in chains of plain text, prompt in and words out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LLM
from langchain_core.outputs import GenerationChunk

from agent_specializer.edge.events import Done, TextDelta
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.langchain.connection import Connection
from agent_specializer.langchain.messages import PROVIDER
from agent_specializer.specializer.threads import iterate_in_thread
from agent_specializer.specs import Toolset


class SpecializedLLM(Connection, LLM):
    """Answers a prompt in words. With `agent`, by the model that is specialised to this agent; calls no tools."""

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        return ["agent_specializer", "langchain", "llm"]

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.identifying()

    def get_token_ids(self, text: str) -> list[int]:
        """The edge model's tokens of `text`."""
        ids: list[int] = self.opened().runtime.models.edge_tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        options = self._options(stop, kwargs)
        who = kwargs.get("model") or self.agent or Toolset()
        return self.retrying(lambda: self.opened().ask(who, prompt, mode=self.mode, options=options).content)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with closing(self._chunks(prompt, stop, kwargs)) as chunks:
            for chunk in chunks:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async for chunk in iterate_in_thread(lambda: self._chunks(prompt, stop, kwargs)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _chunks(self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]) -> Any:
        who = kwargs.get("model") or self.agent or Toolset()
        events: Any = self.opened().stream(who, prompt, mode=self.mode, options=self._options(stop, kwargs))
        with closing(events):
            for event in events:
                if isinstance(event, TextDelta):
                    yield GenerationChunk(text=event.text)
                elif isinstance(event, Done):
                    info = {"adapter": event.reply.adapter, "cache": event.reply.cache}
                    yield GenerationChunk(text="", generation_info=info)

    def _options(self, stop: list[str] | None, kwargs: dict[str, Any]) -> ReplyOptions:
        temperature = kwargs.get("temperature", self.temperature)
        return ReplyOptions(
            max_tokens=kwargs.get("max_tokens") or self.max_tokens,
            temperature=temperature or 0.0,
            seed=kwargs.get("seed", self.seed),
            stop=tuple(text for text in (stop or self.stop or ()) if text),
            timeout=kwargs.get("timeout") or self.timeout,
            tool_choice="none",
        )
