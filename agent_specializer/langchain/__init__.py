"""The specialised model in LangChain: a chat model, a plain LLM, and a middleware that falls back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_specializer.langchain.chat_model import ChatSpecialized
    from agent_specializer.langchain.connection import Unsure
    from agent_specializer.langchain.llm import SpecializedLLM
    from agent_specializer.langchain.middleware import SpecializedMiddleware

__all__ = ["ChatSpecialized", "SpecializedLLM", "SpecializedMiddleware", "Unsure"]

_HOME = {
    "ChatSpecialized": "chat_model",
    "SpecializedLLM": "llm",
    "SpecializedMiddleware": "middleware",
    "Unsure": "connection",
}


def __getattr__(name: str) -> object:
    # Lazy, so that the chat model works without the `langchain` package, which only the middleware needs.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
