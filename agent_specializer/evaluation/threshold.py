"""`bench threshold`: from the report of `bench accuracy`, from which confidence on a reply can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.metrics import interval, mean
from agent_specializer.evaluation.report_files import items_of, read_items, read_report


def run_threshold(report: Path, *, accuracy: float = 0.9, mode: str = "specialized") -> dict[str, Any]:
    """What the confidence of `mode` is worth, and the threshold that reaches `accuracy`.

    ``{"n", "ece", "temperature", "ece_at_temperature", "accuracy", "chosen", "coverage", "toolsets"}``: `chosen` is the
    point of `coverage` that keeps most requests while those kept are right as often as wanted, None where none does.
    `toolsets` says whether a confidence means the same everywhere: for each toolset its mean confidence minus its
    accuracy, `spread` being the standard deviation of these gaps and `noise` the one that chance alone would give.

    Raises:
        ConfigError: `accuracy` is no share, or the report has no such mode. NotFound, IntakeError: the files.
    """
    if not 0 < accuracy <= 1:
        raise ConfigError(f"--accuracy {accuracy:g} is no share", hint="give a number above 0, up to 1")
    found = read_report(report).get("calibration", {}).get(mode)
    if not found:
        raise ConfigError(
            f"{report} says nothing of the confidence of {mode!r}",
            hint="make it with `agent-specializer bench accuracy --modes specialized --out REPORT`",
        )
    return {
        **found,
        "mode": mode,
        "accuracy": accuracy,
        "chosen": choose(found["coverage"], accuracy),
        "toolsets": _toolsets(report, mode),
    }


def choose(coverage: Sequence[dict[str, float]], accuracy: float) -> dict[str, float] | None:
    """The point of the greatest coverage that is right at least so often."""
    enough = [point for point in coverage if point["accuracy"] >= accuracy]
    return max(enough, key=lambda point: point["coverage"], default=None)


def gaps(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By toolset (`group` of the rows), mean confidence minus accuracy; and how much these differ."""
    groups: dict[Any, list[tuple[float, bool]]] = {}
    for row in rows:
        if row["choices"]:
            right = row["choices"][0][0] in (row["gold_names"] or [None])
            groups.setdefault(row["group"], []).append((float(row["confidence"]), right))
    found = [float(np.mean([p - right for p, right in some])) for some in groups.values()]
    # A group of n requests at confidence p is right p times n on average, with a variance of p (1 - p) / n.
    chance = [sum(p * (1 - p) for p, _ in some) / len(some) ** 2 for some in groups.values()]
    return {
        "n": len(found),
        "gap_mean": mean(found),
        "gap_mean_ci95": interval(found),
        "spread": float(np.std(found)) if found else None,
        "noise": float(np.sqrt(np.mean(chance))) if chance else None,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The findings for people."""
    told = [
        f"{found['n']} requests; expected calibration error {found['ece']:.3f}, "
        f"{found['ece_at_temperature']:.3f} at the temperature {found['temperature']:.2f} that would fit them best",
        "",
        "threshold   kept, %   right of them, %",
        *(
            f"{point['confidence']:9.3f}   {100 * point['coverage']:7.0f}   {100 * point['accuracy']:16.1f}"
            for point in found["coverage"]
        ),
        "",
    ]
    chosen = found["chosen"]
    told.append(
        f"right {100 * found['accuracy']:g} % of the time: threshold {chosen['confidence']:.3f}, which keeps "
        f"{100 * chosen['coverage']:.0f} % of the requests"
        if chosen
        else f"no threshold reaches {100 * found['accuracy']:g} %: everything would fall back"
    )
    toolsets = found["toolsets"]
    if toolsets and toolsets["n"] > 1:
        told.append(
            f"over {toolsets['n']} toolsets, confidence minus accuracy is {toolsets['gap_mean']:+.3f} on average and "
            f"differs by {toolsets['spread']:.3f} from one to another; chance alone would make it {toolsets['noise']:.3f}"
        )
    return told


def _toolsets(report: Path, mode: str) -> dict[str, Any] | None:
    if not items_of(report).is_file():
        return None
    return gaps([row for row in read_items(report) if row["mode"] == mode])
