"""`bench overall`: several reports of `bench accuracy` as one, each file of requests weighing the same.

Files differ in size and in how hard they are, so shares are means over files, not over all requests; intervals are percentile bootstraps that draw
the requests of each file anew (stratified), paired where two modes are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.metrics import interval_of_means, likeliest
from agent_specializer.evaluation.report_files import read_items, read_report

ALIKE = ("tools", "distractors", "names", "seed", "calls", "bundle")
"""Settings that reports must share to be told as one."""
FIRST = "specialized"
"""The mode that others are compared with."""
FIGURES = ("tool_accuracy", "likeliest_accuracy", "no_call_accuracy")
"""Shares, as of `metrics`: the first two of requests for a tool, the last of those for none."""


def run_overall(reports: Sequence[Path]) -> dict[str, Any]:
    """What `reports` say together, of the modes that all of them have.

    ``{"files", "settings", "modes", "paired"}``: a file is ``{"report", "examples", "calls", "no_calls", "modes": {mode: {figure: share}}}`` of
    `FIGURES`, a share None where it has no such requests; a mode or a pair (``"specialized-shared_lora"``) has each figure (of a pair the
    differences) with its ``_ci95`` and ``_files``, over how many files the mean is.

    Raises:
        ConfigError: fewer than two reports, two of one file of requests, no mode in common, or settings or generators that differ. NotFound,
            IntakeError: the files.
    """
    if len(reports) < 2:
        raise ConfigError("one report says by itself what it says", hint="name two or more of them")
    read = [read_report(path) for path in reports]
    settings = _shared_settings(reports, read)
    modes = [mode for mode in read[0]["modes"] if all(mode in report["modes"] for report in read)]
    if not modes:
        raise ConfigError("the reports have no mode in common", hint="run the same --modes on each file")
    right = [_right(path, modes) for path in reports]
    pairs = [mode for mode in modes if mode != FIRST] if FIRST in modes else []
    return {
        "files": [
            {
                "report": str(path),
                "examples": report["settings"]["examples"],
                "calls": len(each[modes[0]]["tool_accuracy"]),
                "no_calls": len(each[modes[0]]["no_call_accuracy"]),
                "modes": {mode: {figure: _mean(each[mode][figure]) for figure in FIGURES} for mode in modes},
            }
            for path, report, each in zip(reports, read, right, strict=True)
        ],
        "settings": settings,
        "modes": {mode: _over([each[mode] for each in right]) for mode in modes},
        "paired": {
            f"{FIRST}-{other}": _over(
                [{figure: each[FIRST][figure] - each[other][figure] for figure in FIGURES} for each in right]
            )
            for other in pairs
        },
    }


def _shared_settings(paths: Sequence[Path], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all reports share and must share."""
    for path, report in zip(paths, reports, strict=True):
        if not {"settings", "modes"} <= report.keys():
            raise ConfigError(
                f"{path} is no report of `bench accuracy`", hint="make it with `bench accuracy --out`"
            )
    first = reports[0]["settings"]
    for path, report in zip(paths[1:], reports[1:], strict=True):
        other = report["settings"]
        caution = [each.get("options", {}).get("caution", 0.0) for each in (first, other)]
        unlike = [name for name in ALIKE if other.get(name) != first.get(name)]
        unlike += ["caution"] if caution[0] != caution[1] else []
        unlike += [
            f"the generator of {mode}"
            for mode, found in other.get("generators", {}).items()
            if found != first.get("generators", {}).get(mode, found)
        ]
        if unlike:
            raise ConfigError(
                f"{path} and {paths[0]} differ in {', '.join(unlike)}",
                hint="run `bench accuracy` on each file with the same options and checkpoints",
            )
    examples = [report["settings"]["examples"] for report in reports]
    if twice := sorted({each for each in examples if examples.count(each) > 1}):
        raise ConfigError(f"two reports are of {', '.join(twice)}", hint="name one report a file")
    return {name: first.get(name) for name in ALIKE}


def _right(path: Path, modes: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """By mode and figure, who is right: (requests,) of 0 and 1, in the order of the file."""
    found: dict[str, dict[str, np.ndarray]] = {}
    rows = sorted(read_items(path), key=lambda row: row["index"])
    asked = None
    for mode in modes:
        own = [row for row in rows if row["mode"] == mode]
        if asked is None:
            asked = [row["index"] for row in own]
        if not own or [row["index"] for row in own] != asked:
            raise ConfigError(
                f"beside {path} lie other requests of {mode!r} than of {modes[0]!r}",
                hint="make the report anew with `bench accuracy --out`",
            )
        calls = [row for row in own if row["gold_names"]]
        words = [row for row in own if not row["gold_names"]]
        # By the scores, not by `likeliest_right`: reports of earlier versions have no such field.
        likely = [likeliest(name for name, _ in row["choices"]) in row["gold_names"] for row in calls]
        found[mode] = {
            "tool_accuracy": np.array([float(row["tool_right"]) for row in calls]),
            "likeliest_accuracy": np.array(likely, dtype=float),
            "no_call_accuracy": np.array([float(row["tool_right"]) for row in words]),
        }
    return found


def _over(files: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for figure in FIGURES:
        some = [each[figure] for each in files if len(each[figure])]
        told |= {
            figure: float(np.mean([each.mean() for each in some])) if some else None,
            f"{figure}_ci95": interval_of_means(some),
            f"{figure}_files": len(some),
        }
    return told


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
