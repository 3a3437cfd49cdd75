"""Charts. Plotly reads its texts as HTML, so whatever a user wrote is escaped on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import streamlit as st

if TYPE_CHECKING:
    from agent_specializer.store import RunStats

TEAL, BLUE, ORANGE, GREY = "#1a8f7a", "#3a86c8", "#d9822b", "#7f8c8d"
LIGHT_TEXT, DARK_TEXT = "#3c4845", "#c6d1cd"
# From the page's own ground to teal would need the theme; a single-hue ramp reads on light and on dark.
RAMP = [[0.0, "rgba(26,143,122,0.06)"], [1.0, "rgba(26,143,122,1)"]]


def _laid_out(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    figure.update_layout(height=height, margin={"l": 8, "r": 8, "t": 8, "b": 8}, **layout)
    # Streamlit's own grey of charts is too faint to be read, 3.7:1.
    color = DARK_TEXT if st.context.theme.type == "dark" else LIGHT_TEXT
    font = {"tickfont": {"color": color}, "title": {"font": {"color": color}}}
    figure.update_layout(legend={"font": {"color": color}})
    return (
        figure.update_xaxes(**font)
        .update_yaxes(**font)
        .update_coloraxes(colorbar=font)
        .update_traces(colorbar=font, selector={"type": "heatmap"})
    )


def gates_map(gates: Sequence[Sequence[float]], *, signed: bool = False) -> go.Figure:
    """Gates (layers, experts) as a heat-map; `signed` for the difference of two."""
    experts = len(gates[0])
    limits = {"zmin": -1, "zmax": 1} if signed else {"zmin": 0, "zmax": 1}
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in gates],
            x=[f"{i + 1}" for i in range(experts)],
            y=[f"{i + 1}" for i in range(len(gates))],
            colorscale="RdBu" if signed else RAMP,
            xgap=2,
            ygap=2,
            hovertemplate="layer %{y}, expert %{x}: %{z:.2f}<extra></extra>",
            **limits,
        )
    )
    return _laid_out(
        figure,
        height=max(220, 20 * len(gates) + 70),
        xaxis={"title": "expert", "type": "category", "showgrid": False},
        yaxis={"title": "layer", "type": "category", "autorange": "reversed", "showgrid": False},
    )


def balance(shares: Sequence[float]) -> go.Figure:
    """The share of each expert over all layers, beside what each would have in a balanced adapter."""
    experts = len(shares)
    figure = go.Figure(
        go.Bar(
            x=[str(i + 1) for i in range(experts)],
            y=list(shares),
            marker_color=TEAL,
            hovertemplate="expert %{x}: %{y:.1%}<extra></extra>",
        )
    )
    figure.add_hline(y=1 / experts, line_dash="dot", line_color=GREY)
    return _laid_out(
        figure,
        height=220,
        xaxis={"title": "expert", "type": "category"},
        yaxis={"title": "share", "tickformat": ".0%"},
    )


def hit_rate(stats: Sequence[RunStats]) -> go.Figure:
    """Cache hits among the specialised runs of each stretch of time."""
    rows = [row for row in stats if row.mode == "specialized"]
    figure = go.Figure(
        go.Scatter(
            x=[row.start for row in rows],
            y=[row.cache_hits / row.runs for row in rows],
            customdata=[row.runs for row in rows],
            mode="lines+markers",
            line_color=TEAL,
            hovertemplate="%{x}: %{y:.0%} of %{customdata} runs<extra></extra>",
        )
    )
    return _laid_out(
        figure, height=220, yaxis={"title": "cache hits", "tickformat": ".0%", "range": [0, 1.05]}
    )


def accuracies(modes: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """The right tool and the exact call, with their 95 % intervals, per mode."""
    figure = go.Figure()
    for field, name, color in (("tool_accuracy", "right tool", TEAL), ("call_exact", "exact call", BLUE)):
        shown = {mode: row for mode, row in modes.items() if row.get(field) is not None}
        intervals = [row.get(f"{field}_ci95") or [row[field]] * 2 for row in shown.values()]
        values = [row[field] for row in shown.values()]
        if not shown:
            continue
        figure.add_bar(
            name=name,
            x=[escape(mode) for mode in shown],
            y=values,
            marker_color=color,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [high - value for (_, high), value in zip(intervals, values, strict=True)],
                "arrayminus": [value - low for (low, _), value in zip(intervals, values, strict=True)],
            },
            hovertemplate="%{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    return _laid_out(
        figure,
        height=340,
        barmode="group",
        yaxis={"tickformat": ".0%", "range": [0, 1]},
        legend={"orientation": "h"},
    )


def latencies(reports: Sequence[Mapping[str, Any]], field: str) -> go.Figure:
    """Seconds against the number of tools, a line per way of sending a request."""
    points: dict[str, list[tuple[int, float]]] = {}
    for report in reports:
        tools = int(report["settings"]["tools"])
        for row in report["rows"]:
            if row.get(field) is not None:
                points.setdefault(str(row["name"]), []).append((tools, float(row[field])))
    figure = go.Figure()
    for name, values in points.items():
        values.sort()
        figure.add_scatter(
            name=escape(name),
            x=[tools for tools, _ in values],
            y=[seconds for _, seconds in values],
            mode="lines+markers",
            hovertemplate="%{x} tools: %{y:.3f} s",
        )
    return _laid_out(
        figure,
        height=340,
        xaxis={"title": "tools"},
        yaxis={"title": "seconds", "rangemode": "tozero"},
        legend={"orientation": "h", "y": -0.25},
    )
