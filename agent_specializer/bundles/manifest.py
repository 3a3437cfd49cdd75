"""A manifest beside converted weights: what they were made from; SHA-256, size and time of each file."""

from __future__ import annotations

import contextlib
import json
import os
from hashlib import file_digest
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent_specializer.progress import Progress, silent

NAME = "manifest.json"
FORMAT = 1


class FileEntry(BaseModel):
    """One file: size in bytes, time of last change in nanoseconds."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int
    mtime_ns: int


class Manifest(BaseModel):
    """Attributes: source_sha256: of the GGUF that was converted; dtype: of the converted weights."""

    model_config = ConfigDict(frozen=True)

    format: int
    source: str
    source_sha256: str
    dtype: str
    files: dict[str, FileEntry]


class Damaged(Exception):
    """The files are not what the manifest says; the text names the file and the difference."""


def write_manifest(folder: Path, *, source: str, source_sha256: str, dtype: str) -> Manifest:
    """Hash all files of `folder`, flush them to the disk, and write the manifest there."""
    files = {path.name: _entry(path) for path in sorted(folder.iterdir()) if path.name != NAME}
    manifest = Manifest(format=FORMAT, source=source, source_sha256=source_sha256, dtype=dtype, files=files)
    _write(folder, manifest)
    return manifest


def check_quickly(folder: Path) -> Manifest:
    """Compare sizes and times; a file whose time alone differs (a copied home) is hashed, and its time noted.

    Raises:
        Damaged: something is missing or differs.
    """
    manifest = _read(folder)
    noted = dict(manifest.files)
    for name, entry in manifest.files.items():
        found = _stat(folder / name)
        if found.st_size != entry.size:
            raise Damaged(f"{name} has {found.st_size:,} bytes, expected {entry.size:,}")
        if found.st_mtime_ns != entry.mtime_ns:
            _compare(folder / name, entry)
            noted[name] = entry.model_copy(update={"mtime_ns": found.st_mtime_ns})
    if noted != manifest.files:
        # A home that cannot be written is only slower, each time, by this hash.
        with contextlib.suppress(OSError):
            _write(folder, manifest.model_copy(update={"files": noted}))
    return manifest


def check_fully(folder: Path, progress: Progress = silent) -> Manifest:
    """Hash every file and compare.

    Raises:
        Damaged: something is missing or differs.
    """
    manifest = _read(folder)
    whole, done = sum(entry.size for entry in manifest.files.values()) or 1, 0
    for name, entry in manifest.files.items():
        progress(f"verifying {name}", done / whole)
        _stat(folder / name)
        _compare(folder / name, entry)
        done += entry.size
    progress("verified", 1.0)
    return manifest


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a later rename never reveals half of it."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entry(path: Path) -> FileEntry:
    flush(path)
    found = path.stat()
    return FileEntry(sha256=_sha256(path), size=found.st_size, mtime_ns=found.st_mtime_ns)


def _write(folder: Path, manifest: Manifest) -> None:
    draft = folder / f".{NAME}.{os.getpid()}"
    draft.write_text(json.dumps(manifest.model_dump(), indent=1) + "\n", "utf-8")
    flush(draft)
    os.replace(draft, folder / NAME)


def _read(folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{NAME} is missing") from None
    except ValidationError as error:
        raise Damaged(f"{NAME} is malformed") from error
    if manifest.format != FORMAT:
        raise Damaged(f"{NAME} has format {manifest.format}, expected {FORMAT}")
    return manifest


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None


def _compare(path: Path, entry: FileEntry) -> None:
    found = _sha256(path)
    if found != entry.sha256:
        raise Damaged(f"{path.name} has SHA-256 {found[:16]}..., expected {entry.sha256[:16]}...")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
