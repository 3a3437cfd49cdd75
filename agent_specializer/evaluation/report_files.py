"""Reports of `bench` on disk: ``R.json``, and beside it ``R.items.jsonl`` with a line per item and mode (`accuracy.item_row`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent_specializer.errors import IntakeError, NotFound


def items_of(report: Path) -> Path:
    """Where the lines of a report lie."""
    return report.with_suffix(".items.jsonl")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path`, whole or not at all."""
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON document per line to `path`, whole or not at all."""
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_items(report: Path) -> list[dict[str, Any]]:
    """The lines beside a report (`accuracy.item_row`). Raises NotFound, IntakeError."""
    path = items_of(report)
    try:
        # A request may hold what `splitlines` takes for the end of a line.
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except FileNotFoundError:
        raise NotFound(
            f"beside the report lies no {path.name!r}",
            hint="`bench accuracy --out` writes both: keep them together",
        ) from None
    except (OSError, ValueError) as error:
        raise IntakeError(f"no lines of a report: {error}", source=str(path)) from error


def read_report(path: Path) -> dict[str, Any]:
    """A report of `bench accuracy`. Raises NotFound, IntakeError."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"there is no report {str(path)!r}", hint="make it with `bench accuracy --out`"
        ) from None
    except (OSError, ValueError) as error:
        raise IntakeError(f"no report: {error}", source=str(path)) from error
    if not isinstance(report, dict):
        raise IntakeError("no report: it is no JSON object", source=str(path))
    return report


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
