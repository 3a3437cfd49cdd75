"""A Specializer for a measurement: the home's weights, and an empty database that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent_specializer.progress import Progress
from agent_specializer.settings import Settings

if TYPE_CHECKING:
    from agent_specializer.specializer import Specializer


@contextmanager
def own_store(settings: Settings, checkpoint: Path | None, progress: Progress) -> Iterator[Specializer]:
    """The home's own store is not touched: no agent, adapter or run of the measurement stays in it."""
    from agent_specializer.specializer import Specializer

    with tempfile.TemporaryDirectory(prefix="agent-specializer-bench-") as folder:
        own = settings.model_copy(update={"database_url": f"sqlite:///{Path(folder) / 'bench.db'}"})
        with Specializer(settings=own, checkpoint=checkpoint, progress=progress) as specializer:
            yield specializer
