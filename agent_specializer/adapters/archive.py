"""An export as one file, for whoever can only carry one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path


def archived(path: Path) -> Path:
    """`path` itself where it is a file; else a zip of the folder, beside it, made anew.

    Nothing is compressed: weights hardly shrink, and packing half a gigabyte would take a minute.
    """
    if not path.is_dir():
        return path
    target = path.with_name(f"{path.name}.zip")
    half = target.with_name(f".{target.name}.part")
    with zipfile.ZipFile(half, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(path))
    os.replace(half, target)
    return target
