"""Get an adapter or generate it, once per (toolset, generator), whoever asks at the same time.

Notable:
- Gates, tool keys and priors live in the store, some tens of kilobytes per toolset; merged weights are the edge
  engine's.
- Of all threads and processes that need one adapter, one generates it (`Registry.claim`); the others find it.
- A stored adapter that is damaged, or does not fit its toolset and generator, is generated anew, with a
  warning in the log: it can always be made again, so nobody has to repair it by hand.
- The generator reads with the cloud model, which may be the very object that the edge merges into: it only
  runs inside `exclusive()`, which gives it the pristine base.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from agent_specializer.describe import describe_toolset
from agent_specializer.errors import AdapterError
from agent_specializer.specs import Toolset
from agent_specializer.store import AdapterRow, Registry, adapter_fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from agent_specializer.loragen import Adapter, Generator

logger = logging.getLogger(__name__)

StepName = Literal["describe", "forward", "route", "tools", "merge", "requests", "priors", "store"]
STEPS: tuple[StepName, ...] = get_args(StepName)
"""In the order in which they are done: requests are read and priors measured on the merged edge. Without requests that step is left out."""


@dataclass(frozen=True)
class Step:
    """One step of making an adapter, and the seconds it took."""

    name: StepName
    seconds: float


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Specialization:
    """An adapter, and how it was come by.

    Attributes:
        fingerprint: of the adapter; cache: whether it was there ("hit") or had to be made ("miss").
        seconds: what this call took; description_tokens: the cloud LM's tokens of the task description.
        steps: what was done, in order; nothing for a hit, which is merged when it is first asked.
        refinement: what refining it came to; None where it is as the generator made it.
    """

    fingerprint: str
    cache: Literal["hit", "miss"]
    seconds: float
    description_tokens: int
    adapter: Adapter
    toolset: Toolset
    steps: tuple[Step, ...] = ()
    refinement: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Verification:
    """What came of generating an adapter again. `detail` says why, where it is not "same", and what was not compared."""

    fingerprint: str
    agent: str | None
    state: Literal["same", "different", "damaged", "other generator"]
    detail: str = ""


class Edge(Protocol):
    """What the cache needs of the edge engine."""

    def exclusive(self) -> AbstractContextManager[Any]:
        """No one else runs either model; the edge's base weights are pristine."""

    def priors(self, toolset: Toolset, *, adapter: Adapter | None, tools_in_prompt: bool) -> Tensor:
        """(tools + 1,), log-probability of each name after an empty request."""

    def with_requests(self, adapter: Adapter, toolset: Toolset) -> Adapter:
        """The adapter with the requests of its tools in their keys."""

    def merge(self, adapter: Adapter) -> bool:
        """Put the adapter's weights into the edge; whether they were merged already."""


class AdapterCache:
    """Adapters by toolset, for one generator and one edge model, kept in a Registry. Thread-safe."""

    def __init__(self, registry: Registry, generator: Generator, edge: Edge) -> None:
        self.registry, self.generator, self.edge = registry, generator, edge

    def fingerprint(self, toolset: Toolset) -> str:
        """The name that the adapter of `toolset` has or will have."""
        return adapter_fingerprint(toolset.fingerprint, self.generator.fingerprint)

    def get(
        self,
        toolset: Toolset,
        *,
        agent: str | None = None,
        force: bool = False,
        on_step: OnStep | None = None,
    ) -> Specialization:
        """The adapter of `toolset`, generated unless it is there.

        Args:
            agent: for whom, to be shown beside it; None for tools that came with a request.
            force: generate even if it is there.
            on_step: called with each step as soon as it is done.
        """
        began = time.perf_counter()
        generator_fp = self.generator.fingerprint
        if not force and (found := self._stored(toolset, began)):
            return found
        with self.registry.claim(toolset.fingerprint, generator_fp):
            if not force and (found := self._stored(toolset, began)):
                return found  # another thread or process was first
            adapter, tokens, steps = self._generate(toolset, on_step)
            stored = time.perf_counter()
            row = self.registry.put_adapter(
                toolset,
                generator_fp,
                adapter.to_bytes(),
                agent=agent,
                description_tokens=tokens,
                seconds=stored - began,
            )
            steps.done("store", time.perf_counter() - stored)
        return Specialization(
            fingerprint=row.fingerprint,
            cache="miss",
            seconds=time.perf_counter() - began,
            description_tokens=tokens,
            adapter=adapter,
            toolset=toolset,
            steps=tuple(steps.all),
        )

    def as_generated(self, made: Specialization) -> Adapter:
        """The adapter of `made` as the generator makes it: another one where it was refined."""
        return made.adapter if made.refinement is None else self._generate(made.toolset, None)[0]

    def put_refined(
        self, made: Specialization, was: AdapterRow, refined: Adapter, refinement: dict[str, Any]
    ) -> Specialization:
        """Keep `refined` in the place of the adapter that `was`, until that is generated anew or evicted.

        Raises:
            NotFound, StoreError: it was evicted, or made anew, meanwhile.
        """
        row = self.registry.refine_adapter(was, refined.to_bytes(), refinement)
        return replace(made, adapter=refined, refinement=row.refinement)

    def verify(self, row: AdapterRow) -> Verification:
        """Generate the adapter of `row` again, from the specs it was made from, and compare."""
        if row.generator_fp != self.generator.fingerprint:
            detail = f"made by generator {row.generator_fp[:12]}, in use is {self.generator.fingerprint[:12]}"
            return Verification(row.fingerprint, row.agent, "other generator", detail)
        toolset = self.registry.adapter_toolset(row.fingerprint)
        try:
            stored = self._decoded(toolset, self.registry.adapter_blob(row.id))
        except AdapterError as error:
            return Verification(row.fingerprint, row.agent, "damaged", error.message)
        fresh, _, _ = self._generate(toolset, None)
        if row.refinement is not None:
            # What was fitted is no work of the generator: only what it made is compared.
            stored = replace(stored, keys=fresh.keys, lift=fresh.lift)
        if not stored.same_as(fresh):
            difference = (stored.gates - fresh.gates).abs().max().item()
            detail = f"not what the generator makes now; its gates differ by up to {difference:.2g}"
            return Verification(row.fingerprint, row.agent, "different", detail)
        detail = "" if row.refinement is None else "all but its keys, which were refined"
        return Verification(row.fingerprint, row.agent, "same", detail)

    def _stored(self, toolset: Toolset, began: float) -> Specialization | None:
        row = self.registry.get_adapter(toolset.fingerprint, self.generator.fingerprint)
        if row is None or row.blob is None:
            return None
        try:
            adapter = self._decoded(toolset, row.blob)
        except AdapterError as error:
            logger.warning("adapter %s: %s; it is generated anew", row.fingerprint[:12], error.message)
            return None
        return Specialization(
            fingerprint=row.fingerprint,
            cache="hit",
            seconds=time.perf_counter() - began,
            description_tokens=row.description_tokens,
            adapter=adapter,
            toolset=toolset,
            refinement=row.refinement,
        )

    def _decoded(self, toolset: Toolset, blob: bytes) -> Adapter:
        """The adapter in `blob`, once it is certain that it is whole and of this toolset and generator."""
        adapter = _from_bytes(blob)
        self.generator.pool.check(adapter.gates)
        fits = (adapter.toolset, adapter.generator) == (toolset.fingerprint, self.generator.fingerprint)
        tools = len(toolset.tools)
        sound = (
            adapter.names == toolset.names
            and len(adapter.keys) in (0, tools)
            and adapter.priors is not None
            and tuple(adapter.priors.shape) == (tools + 1,)
            and bool(adapter.priors.isfinite().all() and adapter.keys.isfinite().all())
            and (
                adapter.lift is None
                or (adapter.lift.shape == (tools,) and bool(adapter.lift.isfinite().all()))
            )
            # NaN fails the comparison, too.
            and bool(((adapter.gates.sum(-1) - 1).abs() < 1e-2).all() and (adapter.gates >= 0).all())
        )
        if not fits or not sound:
            what = "belongs to another toolset or generator" if not fits else "is damaged"
            raise AdapterError(
                f"the stored adapter {what}", hint="evict it from the cache and specialise again"
            )
        return adapter

    def _generate(self, toolset: Toolset, on_step: OnStep | None) -> tuple[Adapter, int, _Steps]:
        """The adapter with its priors, and the length of its description in tokens."""
        steps = _Steps(on_step)
        generator = self.generator
        if generator.training:
            generator.eval()
        with self.edge.exclusive():
            # The text alone, in microseconds: the generator makes it again and reads it in its one pass.
            with steps.timed("describe"):
                describe_toolset(toolset)
            began = time.perf_counter()
            with _router_seconds(generator) as route:
                gates, tokens = generator.gates(toolset)
            steps.done("forward", time.perf_counter() - began - sum(route))
            steps.done("route", sum(route))
            with steps.timed("tools"):
                keys = generator.tool_keys(toolset)
            adapter = generator.assemble(toolset, gates, keys)
        with steps.timed("merge"):
            self.edge.merge(adapter)
        if any(tool.requests for tool in toolset.tools):
            with steps.timed("requests"):
                adapter = self.edge.with_requests(adapter, toolset)
        with steps.timed("priors"):
            priors = self.edge.priors(
                toolset, adapter=adapter, tools_in_prompt=generator.config.tools_in_prompt
            )
        return adapter.with_priors(priors), tokens, steps


class _Steps:
    """The steps so far; tells `on_step` of each."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.all: list[Step] = []
        self._on_step = on_step

    def done(self, name: StepName, seconds: float) -> None:
        step = Step(name, seconds)
        self.all.append(step)
        if self._on_step is not None:
            self._on_step(step)

    @contextmanager
    def timed(self, name: StepName) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.done(name, time.perf_counter() - began)


@contextmanager
def _router_seconds(generator: Generator) -> Iterator[list[float]]:
    """Seconds spent in the router while the block runs, which happens in the middle of `generator.gates`."""
    seconds: list[float] = []
    if not generator.config.routed:
        yield seconds
        return
    began: list[float] = []
    handles = (
        generator.router.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())),
        generator.router.register_forward_hook(
            lambda *_: seconds.append(time.perf_counter() - began.pop())  # type: ignore[func-returns-value]
        ),
    )
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


@lru_cache(maxsize=256)
def _from_bytes(blob: bytes) -> Adapter:
    from agent_specializer.loragen.adapter import Adapter  # on use: it brings torch

    return Adapter.from_bytes(blob)
