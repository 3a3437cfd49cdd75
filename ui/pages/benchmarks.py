"""Benchmarks: the reports that `agent-specializer bench` writes, as plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from agent_specializer.evaluation.report import (
    LATENCY_COLUMNS,
    accuracy_content,
    latency_rows,
    paired_rows,
    ratio_rows,
)
from agent_specializer.evaluation.report import title as title_of
from ui.charts import accuracies, latencies
from ui.service import specializer
from ui.show import empty, plain

MOST = 50


def kind_of(report: Any) -> str | None:
    """accuracy, latency, or None for what is no report, whatever it is."""
    if not isinstance(report, dict) or not isinstance(report.get("settings"), dict):
        return None
    try:
        if isinstance(report.get("modes"), dict) and accuracy_content(report)[1]:
            paired_rows(report), title_of(report)
            return "accuracy"
        if isinstance(report.get("rows"), list) and latency_rows(report):
            ratio_rows(report), title_of(report)
            return "latency"
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return None
    return None


def read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def collected(folder: Path) -> dict[str, dict[str, Any]]:
    """Reports in the home's folder and those uploaded in this session, by name."""
    files = (
        sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)[:MOST]
        if folder.is_dir()
        else []
    )
    found = {file.name: read(file.read_bytes()) for file in files}
    for upload in st.session_state.get("reports") or []:
        found[upload.name] = read(upload.getvalue())
        if kind_of(found[upload.name]) is None:
            st.error(f"{plain(upload.name)} is no report of `bench accuracy` or `bench latency`.")
    return {name: report for name, report in found.items() if kind_of(report)}


def show_accuracy(report: dict[str, Any]) -> None:
    st.caption(plain(title_of(report)))
    st.plotly_chart(accuracies(report["modes"]), key="accuracy", alt="Accuracy per mode with 95 % intervals")
    columns, rows = accuracy_content(report)
    st.dataframe(
        [dict(zip(columns, row, strict=True)) for row in rows],
        hide_index=True,
        alt="Accuracy, validity and tokens per mode",
    )
    if report.get("paired"):
        st.subheader("Differences on the same requests", anchor=False)
        st.dataframe(
            [{"difference": name, "points of right tool": points} for name, points in paired_rows(report)],
            hide_index=True,
            alt="Paired differences with 95 % intervals",
        )


def show_latency(reports: dict[str, dict[str, Any]], chosen: str) -> None:
    report = reports[chosen]
    st.caption(plain(title_of(report)))
    calls, size = report.get("calls_to_break_even"), report.get("bytes_per_toolset")
    with st.container(horizontal=True):
        st.metric("Calls to break even", "–" if calls is None else f"{calls:.1f}", border=True, width=220)
        st.metric("Bytes per toolset", "–" if size is None else f"{size:,}", border=True, width=220)
    field = st.segmented_control(
        "Time",
        ["first_token_seconds", "total_seconds"],
        default="first_token_seconds",
        required=True,
        format_func=lambda name: "First token" if name == "first_token_seconds" else "Whole reply",
        key="latency-field",
    )
    every = list(reports.values())
    st.plotly_chart(latencies(every, field), key="latency", alt="Seconds against the number of tools")
    if len({r["settings"].get("tools") for r in every}) == 1:
        st.caption("Reports with other numbers of tools make this a line.")
    st.dataframe(
        [dict(zip(LATENCY_COLUMNS, row, strict=True)) for row in latency_rows(report)],
        hide_index=True,
        alt="Latency per way of sending a request",
    )
    with st.expander("Ratios"):
        st.dataframe([{"ratio": name, "times": value} for name, value in ratio_rows(report)], hide_index=True)


st.title("Benchmarks", anchor=False)
folder = specializer().settings.home / "reports"
reports = collected(folder)
groups = {kind: {n: r for n, r in reports.items() if kind_of(r) == kind} for kind in ("accuracy", "latency")}
if not reports:
    with empty("No reports yet", "Measure on your own tools, and the figures are drawn here.", key="reports"):
        pass
    st.code(
        "agent-specializer bench accuracy --toolsets T.jsonl --examples E.jsonl \\\n"
        "    --modes specialized,prompted,base --tools 16 --out reports/accuracy.json\n"
        "agent-specializer bench latency --tools 16 --out reports/latency.json",
        language="bash",
        wrap_lines=True,
    )
    st.caption(
        "The folder `reports` in the home folder (AGENT_SPECIALIZER_HOME) is read; others can be opened below."
    )
else:
    shown = [kind for kind, of in groups.items() if of]
    for kind, tab in zip(shown, st.tabs([kind.capitalize() for kind in shown]), strict=True):
        with tab:
            name = st.selectbox("Report", list(groups[kind]), key=f"report-{kind}", width=420)
            if kind == "accuracy":
                show_accuracy(groups[kind][name])
            else:
                show_latency(groups[kind], name)
with st.expander("Open a report from elsewhere"):
    st.file_uploader("Reports", type=["json"], accept_multiple_files=True, key="reports")
