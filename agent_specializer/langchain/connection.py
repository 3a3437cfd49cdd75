"""What the chat model and the LLM have in common: which Specializer they run on, and how a reply is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from langchain_core.load.serializable import Serializable
from pydantic import AliasChoices, ConfigDict, Field, model_validator
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from agent_specializer.errors import SpecializerError, StoreError
from agent_specializer.messages import Mode
from agent_specializer.settings import load_settings
from agent_specializer.specializer import Specializer

T = TypeVar("T")

_shared: dict[tuple[str, str | None], Specializer] = {}
_shared_lock = threading.Lock()


def shared_specializer(
    *, home: str | None, bundle: str | None, database_url: str | None, checkpoint: str | None
) -> Specializer:
    """The one Specializer of these settings in this process, so that its models are in memory once."""
    settings = load_settings(home=home, bundle=bundle, database_url=database_url)
    key = (settings.model_dump_json(), checkpoint)
    with _shared_lock:
        if key not in _shared:
            _shared[key] = Specializer(settings=settings, checkpoint=checkpoint)
        return _shared[key]


class Unsure(SpecializerError):
    """The first choice of a reply is less likely to be right than `min_confidence`; `confidence` says how likely."""

    def __init__(self, confidence: float, wanted: float) -> None:
        super().__init__(
            f"confidence {confidence:.3f} is under {wanted:g}",
            hint="ask another model, as SpecializedMiddleware does, or set a lower min_confidence",
        )
        self.confidence = confidence


class Connection(Serializable):
    """The fields that both models have.

    `specializer` is an open Specializer to run on. Without it the four fields after it say which one is meant, and all
    models with the same settings share it. Nothing is loaded before the first call.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    agent: str | None = Field(default=None, validation_alias=AliasChoices("agent", "model", "model_name"))
    """A registered agent, whose toolset and adapter are used. Per call: the keyword `model`."""
    specializer: Specializer | None = Field(default=None, exclude=True, repr=False)
    home: str | None = None
    bundle: str | None = None
    database_url: str | None = Field(default=None, repr=False)
    checkpoint: str | None = None
    mode: Mode = "specialized"
    """"prompted" sends the tool definitions with each request instead, "base" sends nothing: for comparison."""
    temperature: float | None = Field(default=None, ge=0)
    """Of arguments and words, None and 0 being greedy; which tool is called is never sampled."""
    max_tokens: int = Field(default=256, ge=1)
    """Tokens of arguments and words together."""
    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    """Words end before the first of these."""
    seed: int = 0
    timeout: float | None = Field(default=None, gt=0)
    """Seconds, the wait for others who use the model included; then a DecodeError."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call is repeated that failed on the store, e.g. on a locked database."""

    @model_validator(mode="after")
    def _named_by_its_settings(self) -> Self:
        # A serialised copy has no Specializer, so it must find the same home by these.
        if self.specializer is not None:
            settings = self.specializer.settings
            folder = self.specializer.runtime.checkpoint if self.checkpoint is None else self.checkpoint
            shipped = self.specializer.runtime.bundle.checkpoint
            self.home, self.bundle = str(settings.home), settings.bundle
            self.database_url = settings.database_url
            self.checkpoint = str(folder) if folder is not None and folder != shipped else None
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def opened(self) -> Specializer:
        """The Specializer that this model runs on."""
        if self.specializer is not None:
            return self.specializer
        return shared_specializer(
            home=self.home, bundle=self.bundle, database_url=self.database_url, checkpoint=self.checkpoint
        )

    def shown_name(self, model: str | None = None) -> str:
        """What traces call the model: the agent, or the bundle where there is none."""
        return model or self.agent or self.bundle or str(load_settings().bundle)

    def retrying(self, work: Callable[[], T]) -> T:
        """What `work` returns, tried again when the store was busy."""
        return Retrying(
            stop=stop_after_attempt(self.max_retries + 1),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            retry=retry_if_exception_type(StoreError),
            reraise=True,
        )(work)

    def identifying(self) -> dict[str, Any]:
        """What a reply depends on: the key of LangChain's caches."""
        fields = (
            "agent",
            "mode",
            "home",
            "bundle",
            "checkpoint",
            "temperature",
            "max_tokens",
            "stop",
            "seed",
        )
        return {"model_name": self.shown_name(), **{name: getattr(self, name) for name in fields}}
