"""The report of `bench agents` as rows, a table and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "way",
    "kind",
    "n",
    "ended",
    "right tools",
    "right calls",
    "in steps",
    "answer in words",
    "that fits",
    "calls",
    "fell back",
    "s",
)


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each way and kind: percentages, those of all kinds with 95 % intervals."""
    made = []
    for way, figures in report["ways"].items():
        for kind, row in [*figures["kinds"].items(), ("all", figures["all"])]:
            shares = [
                _share(row, name, with_interval=kind == "all")
                for name in ("ended", "right_tools", "right_calls", "in_steps", "answered", "answer_fits")
            ]
            fell_back = row["fallback_share_of_model_calls"]
            made.append(
                (
                    way.replace("_", " "),
                    kind.replace("_", " "),
                    str(row["n"]),
                    *shares,
                    f"{row['calls_mean']:.1f}",
                    "–" if fell_back is None else f"{100 * fell_back:.0f}",
                    f"{row['seconds_median']:.1f}",
                )
            )
    return made


def paired_lines(report: dict[str, Any]) -> list[str]:
    """The differences between the ways, in points, with their 95 % intervals."""
    return [
        f"{pair.replace('-', ' minus ').replace('_', ' ')}, {figure.replace('_', ' ')}: "
        f"{100 * row['delta']:+.1f} [{100 * row['ci95'][0]:+.1f}, {100 * row['ci95'][1]:+.1f}] points"
        for pair, figures in report["paired"].items()
        for figure, row in figures.items()
        if figure in ("ended", "right_tools", "right_calls") and row["delta"] is not None
    ]


def table(report: dict[str, Any]) -> Table:
    """The report as a rich table."""
    from rich.table import Table

    made = Table(title="Scripted conversations through create_agent; % of conversations, medians of seconds")
    for place, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if place < 2 else "right")
    for row in rows(report):
        made.add_row(*row, end_section=row[1] == "all")
    made.caption = "\n".join(paired_lines(report))
    return made


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table and lines."""
    rule = [":--", ":--"] + ["--:"] * (len(COLUMNS) - 2)
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, rule, *rows(report))]
    return "\n".join([*lines, "", *(f"- {line}" for line in paired_lines(report))]) + "\n"


def _share(row: dict[str, Any], name: str, *, with_interval: bool) -> str:
    value, ci = row[name], row[f"{name}_ci95"]
    if value is None:
        return "–"
    text = f"{100 * value:.0f}"
    return f"{text} {_range(ci)}" if with_interval and ci else text


def _range(ci: Sequence[float]) -> str:
    return f"[{100 * ci[0]:.0f}, {100 * ci[1]:.0f}]"


LATENCY_COLUMNS = ("chat model", "n", "prompt tokens", "first chunk s", "call s", "tokens")


def latency_table(report: dict[str, Any]) -> Table:
    """The report of `bench langchain-latency` as a rich table."""
    from rich.table import Table

    settings = report["settings"]
    made = Table(title=f"One streamed model call of an agent with {settings['tools']} tools; medians")
    for place, column in enumerate(LATENCY_COLUMNS):
        made.add_column(column, justify="left" if place == 0 else "right")
    for row in report["rows"]:
        made.add_row(
            row["name"].replace("_", " "),
            str(row["measured"]),
            f"{row['prompt_tokens']:,.0f}",
            f"{row['first_chunk_seconds']:.3f}",
            f"{row['total_seconds']:.3f}",
            f"{row['completion_tokens']:.0f}",
        )
    made.caption = "\n".join(
        f"{name.replace('_', ' ')}: {ratio['median']:.2f} times "
        f"(quartiles {ratio['quartiles'][0]:.2f} to {ratio['quartiles'][1]:.2f}, n = {ratio['n']})"
        for name, ratio in report["ratios"].items()
    )
    return made
