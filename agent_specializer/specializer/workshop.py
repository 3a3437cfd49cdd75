"""Registering tools, and making, checking and exporting adapters: all that precedes asking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from agent_specializer.adapters import (
    AdapterCache,
    Export,
    Format,
    OnStep,
    Specialization,
    Verification,
    export_adapter,
)
from agent_specializer.bundles import verify_weights
from agent_specializer.errors import (
    AdapterError,
    ConfigError,
    DecodeError,
    IntakeError,
    NotFound,
    SpecError,
)
from agent_specializer.intake import read_tools
from agent_specializer.messages import Message
from agent_specializer.progress import Progress
from agent_specializer.settings import Settings, load_settings
from agent_specializer.specializer.runtime import Runtime
from agent_specializer.specs import MAX_REQUESTS, REQUEST_LENGTH, Toolset
from agent_specializer.store import Registry, ToolChange

if TYPE_CHECKING:
    from agent_specializer.adapters.formats import Quantization
    from agent_specializer.edge.engine import EdgeEngine
    from agent_specializer.loragen import Adapter, Generator
    from agent_specializer.refinement.refine import Refinement
    from tool_specs import ExampleRequest

MOST_REQUESTS = 64
"""That are written for a tool."""
Who = str | Toolset
"""A registered agent by name, or any toolset."""


class Workshop:
    """Registry, runtime and adapter cache of one home; `Specializer` adds the asking."""

    def __init__(
        self,
        *,
        home: str | Path | None = None,
        bundle: str | None = None,
        database_url: str | None = None,
        settings: Settings | None = None,
        checkpoint: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        given = settings.model_dump() if settings else {}
        named = {"home": home, "bundle": bundle, "database_url": database_url}
        self.settings = load_settings(**given | {key: value for key, value in named.items() if value})
        self.runtime = Runtime(
            self.settings, checkpoint=Path(checkpoint) if checkpoint else None, progress=progress
        )
        self._lock = threading.RLock()
        self._registry: Registry | None = None
        self._cache: AdapterCache | None = None

    @property
    def registry(self) -> Registry:
        """Tools, agents, adapters and runs; made or brought up to date when first used. Raises StoreError."""
        with self._lock:
            if self._registry is None:
                self._registry = Registry(self.settings.db_url, keep_texts=self.settings.keep_texts)
            return self._registry

    @property
    def engine(self) -> EdgeEngine:
        """The edge model's engine; loads the models on first use. Raises WeightsError, CheckpointError."""
        return self.runtime.engine

    @property
    def generator(self) -> Generator:
        """What makes adapters; loads the models on first use. Raises WeightsError, CheckpointError."""
        return self.runtime.generator

    @property
    def cache(self) -> AdapterCache:
        """Adapters of this generator; loads the models on first use."""
        generator = self.generator
        with self._lock:
            if self._cache is None:
                self._cache = AdapterCache(self.registry, generator, self.engine)
            return self._cache

    def close(self) -> None:
        """Give the database's connections back."""
        with self._lock:
            if self._registry is not None:
                self._registry.close()
                self._registry = None
                self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Tools ------------------------------------------------------------------------------------------------

    def register_tools(self, sources: Sequence[Any], *, source: str = "") -> list[ToolChange]:
        """Register tools: functions, LangChain tools, pydantic models, dicts in any usual format, ToolSpecs,
        and paths of files. All of them or none.

        Raises:
            IntakeError: something is no tool definition; SchemaNotSupported: its schema cannot be enforced.
        """
        return self.registry.add_tools(read_tools(list(sources)), source=source)

    def add_requests(self, tool: str, requests: Sequence[str], *, replace: bool = False) -> ToolChange:
        """Tell what users say when they want `tool`: some real requests, of each kind one or two.

        Its agents' next adapters look for what a request is like in them, too. Who registers the tool again without requests leaves these.

        Args:
            replace: instead of those that are known, not beside them.

        Raises:
            NotFound: no such tool. SpecError: more than `specs.MAX_REQUESTS`, or one that is too long.
        """
        known = self.registry.tool(tool)
        kept = () if replace else known.requests
        try:
            changed = known.changed(requests=(*kept, *requests))
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            raise SpecError(
                f"tool {tool!r}: requests: {first}",
                hint=f"at most {MAX_REQUESTS} requests, each of 1 to {REQUEST_LENGTH} characters",
            ) from None
        return self.registry.add_tools([changed], source="requests added")[0]

    # Specialising -----------------------------------------------------------------------------------------

    def specialize(self, agent: Who, *, force: bool = False, on_step: OnStep | None = None) -> Specialization:
        """The adapter of an agent or toolset: from the cache, or made in one forward pass.

        Args:
            force: make it even if it is in the cache.
            on_step: told of each step as soon as it is done.

        Raises:
            NotFound: no such agent. CheckpointError: there is no generator for these models.
            AdapterError: the task description is too long for the cloud model.
        """
        name, toolset = self._toolset(agent)
        return self.cache.get(toolset, agent=name, force=force, on_step=on_step)

    def refine(
        self,
        agent: Who,
        *,
        examples: Sequence[ExampleRequest] = (),
        keep: bool = False,
        requests: int | None = None,
        seed: int = 0,
    ) -> tuple[Specialization, Refinement]:
        """Distil what the cloud model, prompted with a tool's definition, thinks that its users say into the agent's adapter (`refinement`).
        Minutes, in which no one else is answered.

        It begins with what the generator makes, whatever was refined before, and compares with that. The refined adapter is put in use where
        the right tools are called for more of the examples, or with `keep`; `specialize` with `force` makes the generator's again.

        Args:
            examples: requests of people with the calls they should lead to: the only measure that is worth something.
            keep: put the refined adapter in use in any case.
            requests: written for each tool, at most; None is `refinement.refine.REQUESTS`. seed: of what is drawn.

        Returns:
            The adapter in use from now on, and what was measured.

        Raises:
            NotFound: no such agent. CheckpointError, AdapterError: as in `specialize`, or there is nothing to refine.
            ConfigError: `requests` is no number to work with. IntakeError: an example calls a tool that the agent does not have.
        """
        from agent_specializer.refinement.refine import REQUESTS, refine

        requests = REQUESTS if requests is None else requests
        if not 2 <= requests <= MOST_REQUESTS:
            raise ConfigError(
                f"{requests} requests for each tool: it takes 2 to {MOST_REQUESTS}",
                hint=f"{REQUESTS} is usual",
            )
        name, toolset = self._toolset(agent)
        _check_examples(examples, toolset)
        made = self.cache.get(toolset, agent=name)
        was = self.registry.adapter(made.fingerprint)
        refined, report = refine(
            self.cache.as_generated(made),
            toolset,
            engine=self.engine,
            writer=self.runtime.models.cloud,
            tokenizer=self.runtime.models.cloud_tokenizer,
            right=lambda adapter: self._right(adapter, toolset, examples),
            examples=len(examples),
            keep=keep,
            requests=requests,
            seed=seed,
            progress=self.runtime.progress,
        )
        if not report.kept:
            return made, report
        return self.cache.put_refined(made, was, refined, report.to_dict()), report

    def verify(
        self, adapter: str | None = None, *, on_done: Callable[[Verification], None] | None = None
    ) -> list[Verification]:
        """Hash the converted weights, make cached adapters again from them, and compare.

        Args:
            adapter: fingerprint, or its beginning; None verifies all.
            on_done: told of each as soon as it is compared.

        Raises:
            NotFound: no such adapter. WeightsError: the weights are damaged; the next run converts them anew.
        """
        rows = self.registry.adapters() if adapter is None else [self.registry.adapter(adapter)]
        verify_weights(self.runtime.bundle, self.settings.home, self.runtime.progress)
        results = []
        for row in rows:
            results.append(self.cache.verify(row))
            if on_done is not None:
                on_done(results[-1])
        return results

    def export(
        self,
        adapter: str,
        *,
        format: Format,
        out: str | Path | None = None,
        quantization: Quantization = "bf16",
        progress: Progress | None = None,
    ) -> Export:
        """Write an adapter for other programs: a PEFT folder, a merged safetensors folder, or a GGUF file.

        Args:
            adapter: an agent's name (specialised if need be), or the beginning of an adapter's fingerprint.
            out: folder or file; None is in the home's `exports`.
            quantization: of the merged weights in a GGUF file.

        Raises:
            NotFound: no such agent or adapter. ConfigError: the format or `out` cannot be.
            AdapterError: the adapter was made by another generator. WeightsError: the disk is full.
        """
        name, specialization = self._adapter(adapter)
        suffix = ".gguf" if format == "gguf" else ""
        file = f"{_file_name(name or 'toolset')}-{specialization.fingerprint[:8]}-{format}{suffix}"
        target = Path(out) if out else self.settings.home / "exports" / file
        with self.engine.exclusive():
            return export_adapter(
                specialization.adapter,
                specialization.toolset,
                target,
                format=format,
                models=self.runtime.models,
                pool=self.generator.pool,
                fingerprint=specialization.fingerprint,
                quantization=quantization,
                progress=progress or self.runtime.progress,
            )

    # Inside -----------------------------------------------------------------------------------------------

    def _right(self, adapter: Adapter, toolset: Toolset, examples: Sequence[ExampleRequest]) -> int:
        """For how many of `examples` the right tools are called under `adapter`."""
        right = 0
        for example in examples:
            asked = (Message(role="user", content=example.request),)
            try:
                reply = self.engine.reply(asked, toolset, adapter=adapter)
            except DecodeError:
                continue
            right += sorted(call.name for call in reply.calls) == sorted(call.name for call in example.calls)
        return right

    def _toolset(self, agent: Who) -> tuple[str | None, Toolset]:
        return (None, agent) if isinstance(agent, Toolset) else (agent, self.registry.toolset(agent))

    def _adapter(self, adapter: str) -> tuple[str | None, Specialization]:
        """The adapter of an agent, or the one whose fingerprint begins so."""
        try:
            self.registry.agent(adapter)
        except NotFound as no_agent:
            try:
                row = self.registry.adapter(adapter)
            except NotFound as no_adapter:
                fingerprint = len(adapter) >= 4 and all(c in "0123456789abcdef" for c in adapter.lower())
                raise (no_adapter if fingerprint else no_agent) from None
        else:
            return adapter, self.specialize(adapter)
        if row.generator_fp != self.generator.fingerprint:
            raise AdapterError(
                f"adapter {row.fingerprint[:12]} was made by another generator ({row.generator_fp[:12]})",
                hint="specialise the agent again, or name the checkpoint that made it",
            )
        toolset = self.registry.adapter_toolset(row.fingerprint)
        return row.agent, self.cache.get(toolset, agent=row.agent)


def _check_examples(examples: Sequence[ExampleRequest], toolset: Toolset) -> None:
    for example in examples:
        unknown = {call.name for call in example.calls} - set(toolset.names)
        if unknown:
            raise IntakeError(
                f"the example {example.request[:60]!r} calls {', '.join(sorted(unknown))}, which this agent does not have",
                hint=f"its tools are {', '.join(toolset.names)}",
            )


def _file_name(text: str) -> str:
    """`text` with what file systems dislike replaced."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in text)[:60]
