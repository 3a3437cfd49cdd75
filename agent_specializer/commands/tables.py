"""The report of `quickstart` for people, on stdout: readable from 80 columns on, and in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from agent_specializer.messages import Call

if TYPE_CHECKING:
    from agent_specializer.quickstart import Answer, QuickstartReport, Row

HEADS = (Text("tokens", style="dim"), Text("s", style="dim"))
SHOWN_CALLS = 2
"""Of one answer; a model that rambles makes more, which --json shows in full."""


def quickstart_table(report: QuickstartReport) -> None:
    """Each request with what both ways of asking made of it, the sums, and what the cache gave."""
    console = Console(highlight=False)
    heads = _grid()
    heads.add_row("", "", Text("specialised: message only; prompted: + tools", style="dim"), *HEADS)
    for agent, rows in groupby(report.requests, key=lambda row: row.agent):
        console.print(Rule(Text(agent, style="bold"), align="left", style="dim"))
        console.print(heads)
        for row in rows:
            console.print()
            console.print(Text(row.request, style="bold"))
            console.print(_answers(row))
    console.print()
    if report.requests:
        console.print(Rule(style="dim"))
        console.print(_sums(report.summary))
    for line in _remarks(report):
        console.print(line, markup=False)


def _grid() -> Table:
    """Way of asking, verdict, calls, tokens, seconds: of fixed widths, so that they stand under each other."""
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(width=13)
    table.add_column(width=5)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(width=6, justify="right")
    table.add_column(width=6, justify="right")
    return table


def _answers(row: Row) -> Table:
    table = _grid()
    table.add_row(*_answer("  specialised", row.specialized))
    if row.prompted is not None:
        table.add_row(*_answer("  prompted", row.prompted))
    if not row.specialized.right:
        table.add_row("", Text("want", style="dim"), Text(_said(row.expected), style="dim"), "", "")
    return table


def _answer(way: str, answer: Answer) -> Iterable[Text]:
    verdict = Text("right", style="green") if answer.right else Text("wrong", style="red")
    said = answer.error or _said(answer.calls)
    return (
        Text(way),
        verdict,
        Text(said),
        Text(f"{answer.prompt_tokens:,}"),
        Text(f"{answer.seconds:.2f}"),
    )


def _said(calls: Sequence[Call]) -> str:
    lines = [
        f"{call.name}({', '.join(f'{key}={_json(value)}' for key, value in call.arguments.items())})"
        for call in calls[:SHOWN_CALLS]
    ]
    if len(calls) > SHOWN_CALLS:
        lines.append(f"and {len(calls) - SHOWN_CALLS} more")
    return "\n".join(lines) or "no call: an answer in words"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sums(summary: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column(f"of the {summary['compared']} asked both ways" if summary["compared"] else "")
    for column in ("right", "tokens sent", "of them tools", "seconds"):
        table.add_column(column, justify="right")
    if not summary["compared"]:
        table.add_row("specialised", f"{summary['specialized_right']} of {summary['requests']}", "", "", "")
        return table
    for way, key in (("specialised", "specialized"), ("tools in the prompt", "prompted")):
        figures = summary[key]
        table.add_row(
            way,
            f"{figures['right']} of {summary['compared']}",
            f"{figures['prompt_tokens_mean']:,.0f}",
            f"{figures['tool_prompt_tokens_mean']:,.0f}",
            f"{figures['seconds_mean']:.2f}",
        )
    return table


def _remarks(report: QuickstartReport) -> Iterable[str]:
    summary = report.summary
    if summary["compared"]:
        yield f"{summary['compression']:.0f} times fewer tokens sent (means of one request)."
    if left := summary["requests"] - summary["compared"]:
        yield (
            f"Specialised, {summary['specialized_right']} of all {summary['requests']} requests are right; {left} of "
            "them were not asked with the tools in the prompt, to save time (--prompted-seconds gives it more)."
        )
    if report.again is not None:
        hits = sum(line.cache == "hit" for line in report.agents)
        yield (
            f"{hits} of {len(report.agents)} adapters came from the cache; {report.again.name} once more: "
            f"{report.again.cache} in {report.again.seconds * 1000:.0f} ms. {report.seconds:.0f} s in all."
        )
