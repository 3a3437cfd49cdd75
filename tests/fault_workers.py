"""The main job in a process of its own, struck at a chosen place: killed, or its disk filled to the last byte."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

FILLER = "filler"
"""The file that fills the disk of a home; removing it is what a user does who frees some space."""


@dataclass(frozen=True)
class Place:
    """A function of the program; `after` strikes when it has done its work, else when it is about to begin."""

    module: str
    name: str
    after: bool = False


PLACES: dict[str, Place] = {
    "migrating": Place("alembic.command", "upgrade", after=True),  # in its transaction
    "joining the packages": Place("agent_specializer.bundles.packages", "GgufPackage.assemble", after=True),
    "converting": Place("agent_specializer.bundles.convert", "save_plain_tokenizer"),
    "finishing the conversion": Place("agent_specializer.bundles.convert", "write_manifest"),
    "registering tools": Place("agent_specializer.store.tools", "_register", after=True),
    "making an agent": Place("agent_specializer.store.agents", "_save", after=True),
    "describing": Place("agent_specializer.adapters.cache", "describe_toolset"),
    "reading": Place("agent_specializer.loragen.generator", "Generator.gates"),
    "routing": Place("agent_specializer.loragen.router", "Router.forward", after=True),
    "making keys": Place("agent_specializer.loragen.generator", "Generator.tool_keys", after=True),
    "merging": Place("agent_specializer.edge.merge", "MergedWeights._point"),
    "measuring priors": Place("agent_specializer.edge.engine", "EdgeEngine.priors"),
    "storing": Place("agent_specializer.store.adapters", "_version_ids", after=True),  # in its transaction
    "answering": Place("agent_specializer.edge.engine", "EdgeEngine.reply", after=True),
    "exporting": Place("agent_specializer.adapters.formats", "write_peft", after=True),
}


@dataclass(frozen=True)
class Job:
    """One command line on the packaged tiny model.

    Attributes:
        folder: where `bundle.yaml`, the packages' `site` and the model's `digest` lie.
        out: standard output goes into this file, and errors into the one with ".err" added.
        fault: what strikes, where PLACES says; at None nothing does.
    """

    arguments: tuple[str, ...]
    folder: Path
    home: Path
    out: Path
    fault: tuple[Literal["killed", "full disk"], str] | None = None


def run(job: Job) -> None:
    """Run the job; for a process that does nothing else."""
    for stream, path in ((1, job.out), (2, job.out.with_suffix(".err"))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w")
    os.environ |= {
        "AGENT_SPECIALIZER_HOME": str(job.home),
        "AGENT_SPECIALIZER_BUNDLE": str(job.folder / "bundle.yaml"),
    }
    os.environ.pop("AGENT_SPECIALIZER_DATABASE_URL", None)
    sys.path.insert(0, str(job.folder / "site"))
    from packaged_model import tiny_package_of

    from agent_specializer.bundles.packages import PACKAGES
    from agent_specializer.cli import main

    PACKAGES["tiny"] = tiny_package_of((job.folder / "digest").read_text())
    _shorten()
    if job.fault is not None:
        kind, place = job.fault
        _strike(PLACES[place], _kill if kind == "killed" else functools.partial(fill, job.home))
    main(list(job.arguments))


def fill(home: Path) -> None:
    """Leave no free byte on the disk of `home`."""
    with (home / FILLER).open("ab", buffering=0) as file, suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _shorten() -> None:
    """Two catalogues with three requests each are enough: the job is the same."""
    import tool_specs

    files, load = tool_specs.catalogues()[:2], tool_specs.load
    tool_specs.catalogues = lambda: files

    def three(path: str | Path) -> tool_specs.Catalogue:
        whole = load(path)
        return whole.model_copy(update={"requests": whole.requests[:3]})

    tool_specs.load = three


def _strike(place: Place, strike: Callable[[], None]) -> None:
    owner: Any = import_module(place.module)
    *path, name = place.name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    @functools.wraps(real)
    def struck(*arguments: Any, **options: Any) -> Any:
        if not place.after:
            strike()
        result = real(*arguments, **options)
        if place.after:
            strike()
        return result

    setattr(owner, name, struck)
