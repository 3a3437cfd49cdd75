"""Reports for people: the same figures as a table in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "mode",
    "right tool",
    "likeliest tool right",
    "exact call",
    "no call",
    "valid",
    "prompt tokens",
    "of them tools",
)
LATENCY_COLUMNS = ("way", "requests", "prompt tokens", "first token s", "total s", "tokens")


NOTHING = "–"


def accuracy_content(report: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns, and a row per mode: percentages with their 95 % intervals, mean tokens. What was measured of no mode has no column."""
    rows = _accuracy_rows(report)
    kept = [place for place in range(len(COLUMNS)) if any(row[place] != NOTHING for row in rows)]
    return tuple(COLUMNS[place] for place in kept), [tuple(row[place] for place in kept) for row in rows]


def _accuracy_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            mode,
            _percent(row["tool_accuracy"], row["tool_accuracy_ci95"]),
            # Reports of earlier versions lack it.
            _percent(row.get("likeliest_accuracy"), row.get("likeliest_accuracy_ci95")),
            _percent(row["call_exact"], row["call_exact_ci95"]),
            _percent(row["no_call_accuracy"]),
            _percent(row["schema_valid"]),
            _count(row["prompt_tokens_mean"]),
            _count(row["tool_prompt_tokens_mean"]),
        )
        for mode, row in report["modes"].items()
    ]


def paired_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """One row per comparison: the difference in points of tool accuracy, with its interval."""
    return [
        (name.replace("-", " minus ", 1), _points(row["delta"], row["ci95"]))
        for name, row in report["paired"].items()
    ]


def latency_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per way of sending a request: medians over repetitions."""
    return [
        (
            row["name"],
            str(row["requests"]),
            _count(row["prompt_tokens"]),
            f"{row['first_token_seconds']:.3f}",
            f"{row['total_seconds']:.3f}",
            _count(row["completion_tokens"]),
        )
        for row in report["rows"]
    ]


def table(report: dict[str, Any]) -> Table:
    """`report`, of `bench accuracy` or `bench latency`, as a rich table."""
    from rich.table import Table

    columns, rows = _content(report)
    made = Table(title=title(report))
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        made.add_row(*row)
    if "modes" in report:
        made.caption = "\n".join(f"{name}: {points}" for name, points in paired_rows(report))
    else:
        made.caption = "\n".join(f"{name}: {text}" for name, text in ratio_rows(report))
    return made


def overall_tables(found: dict[str, Any]) -> list[Table]:
    """What `bench overall` found, as rich tables: the files one by one, then all of them, then the differences."""
    from rich.table import Table

    from agent_specializer.evaluation.overall import FIGURES

    modes = list(found["modes"])
    of_files = Table(title="right tool / right to call nothing, %")
    for place, column in enumerate(("file", "calls", "none", *modes)):
        of_files.add_column(column, justify="left" if place == 0 else "right")
    for file in found["files"]:
        shares = [file["modes"][mode] for mode in modes]
        of_files.add_row(
            file["examples"].rsplit("/", 1)[-1],
            str(file["calls"]),
            str(file["no_calls"]),
            *(f"{_percent(s['tool_accuracy'])} / {_percent(s['no_call_accuracy'])}" for s in shares),
        )
    tables = [of_files]
    for title, kind, write in (
        ("mean over files, %", "modes", _percent),
        ("difference, points", "paired", _points),
    ):
        if not found[kind]:
            continue
        made = Table(
            "",
            "right tool",
            "files",
            "likeliest tool right",
            "files",
            "right to call nothing",
            "files",
            title=title,
        )
        for name, row in found[kind].items():
            cells = []
            for of in FIGURES:
                cells += [write(row[of], row[f"{of}_ci95"]), str(row[f"{of}_files"])]
            made.add_row(name.replace("-", " minus ", 1), *cells)
        tables.append(made)
    return tables


def markdown(report: dict[str, Any]) -> str:
    """`report` as Markdown tables, as docs/measured.md has them."""
    columns, rows = _content(report)
    parts = [_markdown_table(columns, rows)]
    if report.get("paired"):
        parts.append(_markdown_table(("difference", "points of right tool"), paired_rows(report)))
    if report.get("ratios"):
        parts.append(_markdown_table(("ratio", "times"), ratio_rows(report)))
    return "\n\n".join(parts) + "\n"


def ratio_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The ratios of a latency report, what an adapter takes, and when it has paid for itself."""
    rows = [
        (name.replace("_", " "), NOTHING if ratio is None else f"{ratio:.2f}")
        for name, ratio in report["ratios"].items()
    ]
    calls = report["calls_to_break_even"]
    return [
        *rows,
        ("bytes per toolset", f"{report['bytes_per_toolset']:,}"),
        ("calls to break even", NOTHING if calls is None else f"{calls:.1f}"),
    ]


def title(report: dict[str, Any]) -> str:
    """What was measured, in a line."""
    settings = report["settings"]
    if "modes" not in report:
        return f"{settings['tools']} tools, medians of {settings['repetitions']} repetitions"
    n = next(iter(report["modes"].values()))["n"]
    return (
        f"{settings['examples'].rsplit('/', 1)[-1]}: {n} requests, {settings['tools']} tools, "
        f"{settings['distractors']} distractors, names {settings['names']}"
    )


def _content(report: dict[str, Any]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    if "modes" in report:
        return accuracy_content(report)
    return LATENCY_COLUMNS, latency_rows(report)


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":--"] + ["--:"] * (len(columns) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def _percent(value: float | None, ci: Sequence[float] | None = None) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.1f}" + (f" [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]" if ci else "")


def _points(value: float | None, ci: Sequence[float] | None) -> str:
    return (
        NOTHING
        if value is None or ci is None
        else f"{100 * value:+.1f} [{100 * ci[0]:+.1f}, {100 * ci[1]:+.1f}]"
    )


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"
