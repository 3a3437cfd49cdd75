"""`bench caution`: from the report of `bench accuracy`, what another `ReplyOptions.caution` would have changed.

Caution is added to the score of answering in words when the first tool is chosen, and to nothing else: so the scores of a
report tell exactly what each value of it would have led to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.metrics import mean
from agent_specializer.evaluation.report_files import read_items, read_report

STEPS = tuple(step / 2 for step in range(-8, 9))
"""Cautions that are looked at, in nats from that of the report."""


def run_caution(report: Path, *, mode: str = "specialized") -> dict[str, Any]:
    """Shares of right first choices of `mode`, by caution.

    ``{"mode", "caution", "calls", "no_calls", "points", "balanced"}``: `caution` is the one that was measured under, `calls` and
    `no_calls` count requests; a point is ``{"caution", "tool_accuracy", "no_call_accuracy"}``, a share None where there are no
    such requests; `balanced` is the point at which the mean of both is highest, the one nearest to 0 of several, or None.
    Requests whose turn has made a call already are left out: there caution does not count.

    Raises:
        ConfigError: the report has no first choices of this mode. NotFound, IntakeError: the files.
    """
    measured = float(read_report(report).get("settings", {}).get("options", {}).get("caution", 0.0))
    rows = [
        row
        for row in read_items(report)
        if row["mode"] == mode and row["choices"] and not row.get("after_a_call")
    ]
    if not rows:
        raise ConfigError(
            f"{report} has no first choices of {mode!r}",
            hint="make it with `agent-specializer bench accuracy --modes specialized --no-calls --out REPORT`",
        )
    points = [_point(rows, measured + step, measured) for step in STEPS]
    return {
        "mode": mode,
        "caution": measured,
        "calls": sum(bool(row["gold_names"]) for row in rows),
        "no_calls": sum(not row["gold_names"] for row in rows),
        "points": points,
        "balanced": _balanced(points),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The findings for people."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.0f}"

    told = [
        f"{found['calls']} requests for a tool, {found['no_calls']} for none",
        "",
        "caution   right tool, %   right to call nothing, %",
        *(
            f"{point['caution']:+7.1f}   {percent(point['tool_accuracy']):>13}   {percent(point['no_call_accuracy']):>24}"
            for point in found["points"]
        ),
    ]
    best = found["balanced"]
    return [*told, "", f"both weighing alike: {best['caution']:+.1f}"] if best else told


def _balanced(points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    both = [point for point in points if None not in point.values()]
    return max(
        both,
        key=lambda point: (point["tool_accuracy"] + point["no_call_accuracy"], -abs(point["caution"])),
        default=None,
    )


def _point(rows: Sequence[dict[str, Any]], caution: float, measured: float) -> dict[str, float | None]:
    calls: list[bool] = []
    nothing: list[bool] = []
    for row in rows:
        name, _ = max(
            row["choices"],
            key=lambda choice: choice[1] + (caution - measured if choice[0] is None else 0.0),
        )
        if row["gold_names"]:
            calls.append(name in row["gold_names"])
        else:
            nothing.append(name is None)
    return {
        "caution": caution,
        "tool_accuracy": mean(calls),
        "no_call_accuracy": mean(nothing),
    }
