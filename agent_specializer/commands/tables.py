"""Reports as tables for people, on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_specializer.messages import Call

if TYPE_CHECKING:
    from agent_specializer.quickstart import Answer, QuickstartReport


def quickstart_table(report: QuickstartReport) -> None:
    """Each request with what both ways of asking made of it, and the sums."""
    table = Table(show_lines=True, header_style="bold")
    for column in ("request", "specialised: call"):
        table.add_column(column, ratio=3)
    for column in ("tokens", "s"):
        table.add_column(column, justify="right")
    table.add_column("tools in the prompt: call", ratio=3)
    for column in ("tokens", "s"):
        table.add_column(column, justify="right")
    for row in report.requests:
        table.add_row(Text(row.request), *_cells(row.specialized), *_cells(row.prompted))
    console = Console()
    console.print(table)
    for line in _sums(report):
        console.print(line, markup=False, highlight=False)


def _cells(answer: Answer | None) -> tuple[Text, str, str]:
    if answer is None:
        return Text("not asked", style="dim"), "", ""
    mark = Text("right  ", style="green") if answer.right else Text("wrong  ", style="red")
    said = answer.error or _calls(answer.calls) or "answers in words"
    return mark + Text(said, style=""), str(answer.prompt_tokens), f"{answer.seconds:.2f}"


def _calls(calls: Sequence[Call]) -> str:
    return "\n".join(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in calls)


def _sums(report: QuickstartReport) -> list[str]:
    summary = report.summary
    lines = [f"specialised: {summary['specialized_right']} of {summary['requests']} requests right."]
    if summary["compared"]:
        ours, theirs = summary["specialized"], summary["prompted"]
        lines.append(
            f"over the {summary['compared']} requests asked both ways: specialised {ours['right']} right, "
            f"{ours['prompt_tokens_mean']:.0f} tokens and {ours['seconds_mean']:.2f} s each; with tools in the "
            f"prompt {theirs['right']} right, {theirs['prompt_tokens_mean']:.0f} tokens and "
            f"{theirs['seconds_mean']:.2f} s each: {summary['compression']} times fewer tokens sent."
        )
    if report.again is not None:
        hits = sum(line.cache == "hit" for line in report.agents)
        lines.append(
            f"adapters from the cache: {hits} of {len(report.agents)} in this run; {report.again.name} once more: "
            f"{report.again.cache} in {report.again.seconds * 1000:.0f} ms. {report.seconds:.0f} s in all."
        )
    return lines
