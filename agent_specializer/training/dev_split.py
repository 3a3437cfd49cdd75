"""`bench dev-split`: the families that training leaves out, as example files of their own.

Thresholds, temperatures and choices between two ways are made on these, never on test files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_specializer.errors import ConfigError
from agent_specializer.examples import Example
from agent_specializer.specs import Toolset
from agent_specializer.training.data import read_sources

TOOLSETS, EXAMPLES = "dev.toolsets.jsonl", "dev.examples.jsonl"


def write_dev_split(
    data: Path, out: Path, *, per_file: int = 100, seed: int = 0, exclude: Sequence[str] = ()
) -> dict[str, int]:
    """Write the held-out toolsets of `data` and requests of them to `out`; the number of requests by file.

    Args:
        per_file: requests of one file at most, drawn under `seed`.

    Raises:
        IntakeError: unusable data. ConfigError: nothing is held out, or `out` is no folder.
    """
    from agent_specializer.evaluation.accuracy import write_lines

    _, dev = read_sources(data, exclude=exclude)
    if not dev:
        raise ConfigError(
            f"{data} has too few toolsets to hold any out", hint="add example files with more toolsets"
        )
    if not out.is_dir():
        raise ConfigError(f"there is no folder {str(out)!r}", hint="make it first")
    toolsets: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    counts = {}
    for source in dev:
        rng = random.Random(f"{seed}/{source.name}")
        chosen = rng.sample(source.examples, min(per_file, len(source.examples)))
        toolsets += [_toolset(name, source.toolsets[name]) for name in source.by_toolset]
        examples += map(_example, chosen)
        counts[source.name] = len(chosen)
    write_lines(out / TOOLSETS, toolsets)
    write_lines(out / EXAMPLES, examples)
    return counts


def _toolset(name: str, toolset: Toolset) -> dict[str, Any]:
    return {
        "toolset_id": name,
        "description": toolset.instructions,
        "tools": [tool.model_dump() for tool in toolset.tools],
    }


def _example(example: Example) -> dict[str, Any]:
    """As `examples.files` reads it; an assistant's calls are the JSON that stands for them."""
    messages = [
        message.model_dump(exclude={"calls"}, exclude_none=True)
        if not message.calls
        else {"role": message.role, "content": _calls_text(message.calls)}
        for message in example.messages
    ]
    row: dict[str, Any] = {
        "toolset_id": example.toolset_id,
        "messages": messages,
        "calls": [call.model_dump() for call in example.calls],
    }
    if example.accepted:
        row["calls_accepted"] = list(example.accepted)
    return row | {key: value for key in ("answer", "category") if (value := getattr(example, key))}


def _calls_text(calls: Sequence[Any]) -> str:
    return json.dumps([call.model_dump() for call in calls], ensure_ascii=False)
