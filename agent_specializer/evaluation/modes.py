"""The ways of asking that a benchmark compares, each as an engine, an adapter and what stands in the prompt.

============== =============== ================= ======================================================
mode           tools in prompt adapter           what it shows
============== =============== ================= ======================================================
base           no              none              what the names alone tell the model
prompted       yes             none              what people do today
specialized    no              the toolset's own ours
with_requests  no              the toolset's own the same with some requests of each tool in its key
refined        no              the toolset's own the same, fitted to requests that the model wrote
wrong_adapter  no              another toolset's the control: an adapter that knows other tools
wrong_gates    no              another's gates   what gates bring
wrong_keys     no              keys permuted     what keys bring
without_keys   no              gates alone       names alone tell tools apart, as in LoRA-Gen itself
without_priors no              the toolset's own what setting names against an empty request brings
shared_lora    no              one for all       the same training without any toolset
prompted_lora  yes             one for all       the same training with the tools in the prompt
============== =============== ================= ======================================================

`controls` has those in which something is in the wrong place or missing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from agent_specializer.errors import CheckpointError, ConfigError
from agent_specializer.evaluation.controls import (
    foreign_toolset,
    without_keys,
    without_priors,
    wrong_adapter,
    wrong_gates,
    wrong_keys,
)
from agent_specializer.evaluation.tasks import Group
from agent_specializer.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from agent_specializer.bundles import LoadedBundle
    from agent_specializer.edge.engine import EdgeEngine
    from agent_specializer.loragen import Adapter, Generator
    from agent_specializer.specs import Toolset

BenchMode = Literal[
    "base",
    "prompted",
    "specialized",
    "with_requests",
    "refined",
    "wrong_adapter",
    "wrong_gates",
    "wrong_keys",
    "without_keys",
    "without_priors",
    "shared_lora",
    "prompted_lora",
]
MODES: tuple[BenchMode, ...] = get_args(BenchMode)
WITH_TOOLS_IN_PROMPT = frozenset({"prompted", "prompted_lora"})
BARE = frozenset({"base", "prompted"})
"""Without any checkpoint."""
BASELINES = frozenset({"shared_lora", "prompted_lora"})


@dataclass(frozen=True)
class Seat:
    """How one group is asked in one mode."""

    engine: EdgeEngine
    adapter: Adapter | None
    tools_in_prompt: bool


def check_modes(modes: Sequence[str]) -> list[BenchMode]:
    """`modes` without repetitions; ConfigError when one is unknown or there is none."""
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise ConfigError(
            f"there is no mode {', '.join(map(repr, unknown)) or '(none was given)'}",
            hint=f"the modes are {', '.join(MODES)}",
        )
    return list(dict.fromkeys(mode for mode in MODES if mode in modes))


class Workbench:
    """One edge model and the generators that are compared on it. Every generator has an engine of its own
    over the same model object, and only one of them is in use at a time: each `seats` ends with the pristine
    base in place.

    Args:
        checkpoint: folder of the generator; None is the bundle's.
        baselines: folders of the baselines' checkpoints by mode; those not given lie beside the bundle's
            checkpoint, e.g. ``embedded-shared-lora``.
        merged_toolsets: how many toolsets' merged weights each engine keeps; with 0 the last one's is
            dropped when another comes.
    """

    def __init__(
        self,
        models: LoadedBundle,
        *,
        checkpoint: Path | None = None,
        baselines: dict[str, Path] | None = None,
        merged_toolsets: int = 0,
    ) -> None:
        self.models = models
        self._merged_bytes = merged_toolsets * _merged_bytes(models.edge)
        self.checkpoint = checkpoint or models.bundle.checkpoint
        self._baselines = baselines or {}
        self._generators: dict[Path, Generator] = {}
        self._engines: dict[Path | None, EdgeEngine] = {}
        self._adapters: dict[str, Adapter] = {}

    def check(self, modes: Sequence[str]) -> None:
        """CheckpointError, before anything slow starts, when a mode lacks its checkpoint."""
        from agent_specializer.loragen.checkpoint import read_config

        for mode in modes:
            if mode not in BARE:
                config, _ = read_config(self.folder(mode))
                if mode in BASELINES and (
                    config.routed or config.tools_in_prompt != (mode == "prompted_lora")
                ):
                    raise CheckpointError(
                        f"{self.folder(mode)} is no checkpoint for {mode!r}: routed {config.routed}, "
                        f"tools_in_prompt {config.tools_in_prompt}",
                        hint=f"train the baseline, or give the folder of its checkpoint for {mode!r}",
                    )

    def folder(self, mode: str) -> Path:
        """Where the checkpoint of `mode` lies; CheckpointError where the bundle has none."""
        named = self._baselines.get(mode)
        beside = self.models.bundle.checkpoint or self.checkpoint
        if mode in BASELINES and named is None and beside is not None:
            named = beside.with_name(f"{beside.name}-{mode.replace('_', '-')}")
        folder = named if mode in BASELINES else self.checkpoint
        if folder is None:
            raise CheckpointError(
                f"mode {mode!r} needs a generator checkpoint, bundle {self.models.bundle.name!r} has none",
                hint="train one with `agent-specializer train --data DIR --out DIR` and give its folder",
            )
        return folder

    def generator(self, mode: str = "specialized") -> Generator:
        """The generator of `mode`, loaded once. Raises CheckpointError."""
        from agent_specializer.loragen import load_checkpoint

        folder = self.folder(mode)
        if folder not in self._generators:
            with self.engine("base").exclusive():
                self._generators[folder] = load_checkpoint(
                    folder,
                    cloud=self.models.cloud,
                    edge=self.models.edge,
                    tokenizer=self.models.cloud_tokenizer,
                )
        return self._generators[folder]

    def engine(self, mode: str) -> EdgeEngine:
        """The engine of `mode`. Modes without an adapter run on the bare model: no trained head weighs their
        scores.
        """
        from agent_specializer.edge.engine import EdgeEngine

        bare = mode in BARE
        folder = None if bare else self.folder(mode)
        if folder not in self._engines:
            model, tokenizer = self.models.edge, self.models.edge_tokenizer
            if bare:
                self._engines[None] = EdgeEngine(model, tokenizer, merged_budget_bytes=0)
            else:
                generator = self.generator(mode)
                self._engines[folder] = EdgeEngine(
                    model,
                    tokenizer,
                    pool=generator.pool,
                    head=generator.head,
                    activated=generator.activated,
                )
        return self._engines[folder]

    def adapter(self, toolset: Toolset, mode: str = "specialized") -> Adapter:
        """The adapter of `toolset` with its priors, generated once per toolset and generator."""
        generator, engine = self.generator(mode), self.engine(mode)
        key = f"{toolset.fingerprint}/{generator.fingerprint}"
        if key not in self._adapters:
            with engine.exclusive():
                adapter = generator.generate(toolset)
            adapter = engine.with_requests(adapter, toolset)
            in_prompt = mode in WITH_TOOLS_IN_PROMPT
            priors = engine.priors(toolset, adapter=adapter, tools_in_prompt=in_prompt)
            self._adapters[key] = adapter.with_priors(priors)
        return self._adapters[key]

    def seats(
        self,
        mode: BenchMode,
        groups: Sequence[Group],
        *,
        spare: Toolset | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Iterator[Seat]:
        """One seat per group, in order. `spare` gives the wrong gates where there is no other toolset."""
        engine = self.engine(mode)
        in_prompt = mode in WITH_TOOLS_IN_PROMPT
        try:
            for place, group in enumerate(groups):
                if mode in BARE:
                    adapter = None
                elif mode in BASELINES:
                    adapter = self.adapter(group.toolset, mode)
                elif mode == "with_requests":
                    adapter = engine.with_requests(
                        self.adapter(group.toolset), group.knowing or group.toolset
                    )
                elif mode == "refined":
                    adapter = self._refined(group.toolset, seed=seed, progress=progress)
                else:
                    adapter = self._control(mode, groups, place, spare=spare, seed=seed)
                yield Seat(engine, adapter, in_prompt)
        finally:
            with engine.exclusive():
                pass  # leaves the pristine base for the next engine over the same model

    def _refined(self, toolset: Toolset, *, seed: int, progress: Progress) -> Adapter:
        """As `specialize --refine --keep` would leave it."""
        from agent_specializer.refinement.refine import refine

        adapter, _ = refine(
            self.adapter(toolset),
            toolset,
            engine=self.engine("refined"),
            writer=self.models.cloud,
            tokenizer=self.models.cloud_tokenizer,
            right=lambda _: 0,
            examples=0,
            seed=seed,
            progress=progress,
        )
        return adapter

    def _control(
        self, mode: BenchMode, groups: Sequence[Group], place: int, *, spare: Toolset | None, seed: int
    ) -> Adapter:
        """The adapter of the group at `place`, whole for the mode specialized, else with what `mode` names wrong or missing."""
        toolset = groups[place].toolset
        own = self.adapter(toolset)
        if mode == "specialized":
            return own
        if mode == "without_keys":
            return without_keys(own)
        if mode == "without_priors":
            return without_priors(own)
        foreign = self.adapter(foreign_toolset(groups, place, spare))
        if mode == "wrong_gates":
            wrong = wrong_gates(own, foreign)
        else:
            of = wrong_keys if mode == "wrong_keys" else wrong_adapter
            wrong = of(own, foreign, random.Random(f"{seed}/{place}"))
        priors = self.engine(mode).priors(toolset, adapter=wrong, tools_in_prompt=False)
        return wrong.with_priors(priors)


def _merged_bytes(model: nn.Module) -> int:
    """Bytes of one adapter's merged weights."""
    from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps

    mlps = gated_mlps(decoder(model))
    return sum(getattr(mlp, linear).weight.nbytes for mlp in mlps for linear in LINEARS)
