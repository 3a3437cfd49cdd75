"""Models, generator and engine, loaded when first needed, once, whichever thread comes first."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent_specializer.bundles import Bundle, LoadedBundle, bundle, models_of
from agent_specializer.errors import CheckpointError
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings

if TYPE_CHECKING:
    from agent_specializer.edge.engine import EdgeEngine
    from agent_specializer.loragen import Generator


class Runtime:
    """What is heavy: torch, the models of a bundle, its generator, and the engine over its edge model.

    Without a generator checkpoint the engine still serves the base and the prompted mode.

    Args:
        checkpoint: folder of another generator than the bundle's own.
    """

    def __init__(
        self, settings: Settings, *, checkpoint: Path | None = None, progress: Progress | None = None
    ) -> None:
        self.settings, self._checkpoint, self.progress = settings, checkpoint, progress or silent
        self._lock = threading.RLock()
        self._models: LoadedBundle | None = None
        self._generator: Generator | None = None
        self._engine: EdgeEngine | None = None

    @property
    def bundle(self) -> Bundle:
        """The bundle that the settings name; ConfigError where there is none."""
        return bundle(self.settings.bundle)

    @property
    def checkpoint(self) -> Path | None:
        """The generator checkpoint that was given, or the bundle's; None where neither is there."""
        if self._checkpoint is not None:
            return self._checkpoint
        shipped = self.bundle.checkpoint
        return shipped if shipped is not None and shipped.is_dir() else None

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""
        return self._engine is not None

    @property
    def models(self) -> LoadedBundle:
        """The models and tokenizers. Raises WeightsError, ConfigError."""
        with self._lock:
            if self._models is None:
                self._models = models_of(self.settings, self.progress)
            return self._models

    @property
    def generator(self) -> Generator:
        """The generator; CheckpointError where there is none, or it is damaged or another model's."""
        self.engine  # noqa: B018  # loads both: the engine needs the generator's pool
        if self._generator is None:
            raise CheckpointError(
                f"bundle {self.bundle.name!r} has no generator checkpoint, so it cannot specialise",
                hint="train one with `agent-specializer train --data DIR --out DIR` and give its folder as "
                "checkpoint, or use the mode 'prompted'",
            )
        return self._generator

    @property
    def engine(self) -> EdgeEngine:
        """The engine. Raises what `models` and `generator` raise."""
        with self._lock:
            if self._engine is None:
                checkpoint = self.checkpoint
                if checkpoint is not None:
                    from agent_specializer.loragen.checkpoint import read_config

                    read_config(checkpoint)  # before half a minute of conversion, if it is not there
                models = self.models
                from agent_specializer.edge.engine import EdgeEngine
                from agent_specializer.loragen import load_checkpoint

                if checkpoint is not None:
                    self.progress("loading the generator", None)
                    self._generator = load_checkpoint(
                        checkpoint, cloud=models.cloud, edge=models.edge, tokenizer=models.cloud_tokenizer
                    )
                engine = EdgeEngine(
                    models.edge,
                    models.edge_tokenizer,
                    pool=self._generator.pool if self._generator else None,
                    head=self._generator.head if self._generator else None,
                    activated=self._generator.activated if self._generator else None,
                    merged_budget_bytes=self.settings.merged_budget_bytes,
                )
                self.progress("reading the vocabulary", None)
                engine.grammars.vocabulary  # noqa: B018  # seconds, which the first request would wait for
                self._engine = engine
            return self._engine
