"""Exports: an adapter written to a folder or file, whole or not at all.

An export is made under a temporary name beside its target and becomes visible by a rename, so what stands
under the target's name is always whole: after a full disk or a kill, the earlier export is still there, and a
later export removes what was left.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from agent_specializer.bundles import LoadedBundle
from agent_specializer.bundles.packages import PACKAGES, require_disk
from agent_specializer.errors import ConfigError, WeightsError
from agent_specializer.progress import Progress, silent, span
from agent_specializer.specs import Toolset

if TYPE_CHECKING:
    from agent_specializer.adapters.formats import Quantization
    from agent_specializer.loragen import Adapter, ExpertPool

Format = Literal["peft", "merged", "gguf"]
FORMATS: tuple[Format, ...] = get_args(Format)
CARD = "agent_specializer.json"
"""What an exported folder was made from: its presence marks the folder as ours to replace."""
_RESERVE = 10_000_000  # bytes for tokenizer, configuration and the file system's own


@dataclass(frozen=True)
class Export:
    """What was written: `path` is a folder (peft, merged) or a file (gguf); `bytes` all of it."""

    format: Format
    path: Path
    bytes: int
    fingerprint: str


def export_adapter(
    adapter: Adapter,
    toolset: Toolset,
    target: Path,
    *,
    format: Format,
    models: LoadedBundle,
    pool: ExpertPool,
    fingerprint: str,
    quantization: Quantization = "bf16",
    progress: Progress = silent,
) -> Export:
    """Write `adapter` to `target`. The edge model must be at its pristine base: call it inside `exclusive()`.

    An earlier export at `target` is replaced; anything else there is refused.

    Raises:
        ConfigError: no such format, something else stands at `target`, or the edge came from no GGUF file.
        WeightsError: the disk is full, or `target` cannot be written; nothing of it is kept.
    """
    from agent_specializer.adapters import formats  # on use: it brings torch

    if format not in FORMATS:
        raise ConfigError(f"there is no export format {format!r}", hint=f"there are {', '.join(FORMATS)}")
    target = target.expanduser().absolute()
    _check_target(target, format)
    source = models.bundle.edge
    if format == "gguf" and source.kind != "package":
        raise ConfigError(
            f"the edge model {source.key} is no GGUF file, so there is none to put the adapter into",
            hint="export with --format merged, and convert that with llama.cpp's convert_hf_to_gguf.py",
        )
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        require_disk(target.parent, _needed_bytes(models, format), f"the export to {target}")
        draft = Path(tempfile.mkdtemp(prefix=_leftover_prefix(target), dir=target.parent))
        try:
            result = draft / target.name
            progress(f"exporting {target.name}", 0.0)
            if format == "gguf":
                gguf = PACKAGES[source.name].assemble(draft, span(progress, 0.0, 0.2))
                formats.write_gguf(
                    result,
                    gguf,
                    models.edge,
                    pool,
                    adapter.gates,
                    quantization=quantization,
                    name=f"{source.name} specialised ({fingerprint[:8]})",
                    progress=span(progress, 0.2, 1.0),
                )
            else:
                result.mkdir()
                if format == "peft":
                    formats.write_peft(result, models.edge, pool, adapter.gates, base=source.name)
                else:
                    formats.write_merged(result, models.edge, models.edge_tokenizer, pool, adapter.gates)
                (result / CARD).write_text(
                    json.dumps(_card(adapter, toolset, fingerprint, source.key, format), indent=2) + "\n",
                    encoding="utf-8",
                )
            _swap(result, target, draft)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    progress(f"exported {target.name}", 1.0)
    return Export(format, target, _size(target), fingerprint)


def _card(adapter: Adapter, toolset: Toolset, fingerprint: str, edge: str, format: Format) -> dict[str, Any]:
    return {
        "format": format,
        "edge": edge,
        "adapter": fingerprint,
        "generator": adapter.generator,
        "instructions": toolset.instructions,
        "tools": [tool.model_dump() for tool in toolset.tools],
    }


def _check_target(target: Path, format: Format) -> None:
    if format == "gguf":
        refused = target.is_dir() or (target.exists() and target.suffix != ".gguf")
    else:
        refused = target.is_file() or (
            target.is_dir() and any(target.iterdir()) and not (target / CARD).is_file()
        )
    if refused:
        raise ConfigError(
            f"{target} already holds something that is not an export of this kind",
            hint="remove it, or choose another place with --out",
        )


def _needed_bytes(models: LoadedBundle, format: Format) -> int:
    if format == "peft":
        return _RESERVE + 40_000_000
    weights = sum(parameter.nbytes for parameter in models.edge.parameters())
    return _RESERVE + weights * (2 if format == "gguf" else 1)


def _swap(result: Path, target: Path, draft: Path) -> None:
    """Put `result` where `target` is. A folder cannot replace a folder, so the old one steps aside first."""
    if target.is_dir():
        os.replace(target, draft / "replaced")
        try:
            os.replace(result, target)
        except OSError:
            os.replace(draft / "replaced", target)
            raise
    else:
        os.replace(result, target)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _leftover_prefix(target: Path) -> str:
    return f".{target.name}~"  # not a dot: "x" must not sweep the drafts of "x.gguf"


def _remove_leftovers(target: Path) -> None:
    """Remove what killed exports left: drafts older than an hour, as a younger one may be at work."""
    for leftover in target.parent.glob(f"{_leftover_prefix(target)}*"):
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > 3600:
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turn what the disk refuses into a WeightsError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes from Rust and gives the system's error number as text.
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT) or f"os error {errno.ENOSPC}" in str(error):
            raise WeightsError(
                f"the disk of {target.parent} became full during the export; nothing of it was kept",
                hint="free some space, or choose a folder on another disk with --out",
            ) from error
        raise WeightsError(
            f"the export to {target} could not be written: {error}",
            hint="check that the folder can be written, or choose another one with --out",
        ) from error
