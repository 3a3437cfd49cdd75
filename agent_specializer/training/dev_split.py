"""`bench dev-split`: the families that training leaves out, as example files of their own; and as many that it has seen.

Thresholds, temperatures and choices between two ways are made on the former, never on test files. The latter tell how much of what is
right was learned by heart.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_specializer.errors import ConfigError
from agent_specializer.examples import Example
from agent_specializer.specs import Toolset
from agent_specializer.training.data import Source, read_sources

TOOLSETS, EXAMPLES = "dev.toolsets.jsonl", "dev.examples.jsonl"
SEEN_TOOLSETS, SEEN_EXAMPLES = "seen.toolsets.jsonl", "seen.examples.jsonl"


def write_dev_split(
    data: Path, out: Path, *, per_file: int = 100, seed: int = 0, exclude: Sequence[str] = ()
) -> dict[str, int]:
    """Write the held-out toolsets of `data` and requests of them to `out`; the number of requests by file.

    Beside them, of the same files, as many toolsets that are trained on and up to as many requests.

    Args:
        per_file: requests of one file at most, drawn under `seed`.

    Raises:
        IntakeError: unusable data. ConfigError: nothing is held out, or `out` is no folder.
    """
    from agent_specializer.evaluation.report_files import write_lines

    train, dev = read_sources(data, exclude=exclude)
    if not dev:
        raise ConfigError(
            f"{data} has too few toolsets to hold any out", hint="add example files with more toolsets"
        )
    if not out.is_dir():
        raise ConfigError(f"there is no folder {str(out)!r}", hint="make it first")
    held_out, seen = _Files(), _Files()
    counts = {}
    for source in dev:
        rng = random.Random(f"{seed}/{source.name}")
        counts[source.name] = held_out.add(source, list(source.by_toolset), per_file, rng)
        for learned in train:
            if learned.name == source.name:
                names = list(learned.by_toolset)
                some = rng.sample(names, min(len(names), len(source.by_toolset)))
                seen.add(learned, some, counts[source.name], rng)
    for name, lines in (
        (TOOLSETS, held_out.toolsets),
        (EXAMPLES, held_out.examples),
        (SEEN_TOOLSETS, seen.toolsets),
        (SEEN_EXAMPLES, seen.examples),
    ):
        write_lines(out / name, lines)
    return counts


@dataclass
class _Files:
    """The lines of a pair of files."""

    toolsets: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, source: Source, names: Sequence[str], most: int, rng: random.Random) -> int:
        """The toolsets `names` of `source` and up to `most` requests of them; how many."""
        wanted = set(names)
        asked = [example for example in source.examples if example.toolset_id in wanted]
        chosen = rng.sample(asked, min(most, len(asked)))
        self.toolsets += [_toolset(name, source.toolsets[name]) for name in names]
        self.examples += map(_example, chosen)
        return len(chosen)


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
