"""Benchmarks: nothing there, both kinds of report, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

MODE = {
    "n": 40,
    "tool_accuracy": 0.5,
    "tool_accuracy_ci95": [0.4, 0.6],
    "call_exact": None,
    "call_exact_ci95": None,
    "no_call_accuracy": None,
    "schema_valid": 1.0,
    "prompt_tokens_mean": 20.0,
    "tool_prompt_tokens_mean": 0.0,
}
ACCURACY = {
    "modes": {"specialized": MODE, "prompted": MODE | {"call_exact": 0.2, "call_exact_ci95": [0.1, 0.3]}},
    "paired": {"specialized-prompted": {"delta": 0.1, "ci95": [0.0, 0.2]}},
    "settings": {"examples": "e.jsonl", "tools": 16, "distractors": "random", "names": "kept"},
}
ROW = {
    "name": "specialized",
    "requests": 3,
    "prompt_tokens": 20,
    "first_token_seconds": 0.1,
    "total_seconds": 0.5,
    "completion_tokens": 9,
}
LATENCY = {
    "rows": [ROW],
    "ratios": {"first_token_vs_prompted_cold": 5.0, "swap_vs_memcpy": None},
    "bytes_per_toolset": 9000,
    "calls_to_break_even": 1.5,
    "settings": {"tools": 16, "repetitions": 3},
}


def opened(app: AppTest, home: Path, **reports: object) -> AppTest:
    (home / "reports").mkdir(exist_ok=True)
    for name, report in reports.items():
        text = report if isinstance(report, str) else json.dumps(report)
        (home / "reports" / f"{name}.json").write_text(text)
    app.switch_page("pages/benchmarks.py").run()
    assert not app.exception
    return app


def test_without_reports_the_commands_that_write_them_are_shown(app: AppTest) -> None:
    app.switch_page("pages/benchmarks.py").run()
    assert not app.exception
    assert "bench accuracy" in app.code[0].value


def test_both_kinds_are_drawn(app: AppTest, page_home: Path) -> None:
    opened(app, page_home, accuracy=ACCURACY, latency=LATENCY)
    assert [tab.label for tab in app.tabs] == ["Accuracy", "Latency"]
    assert {metric.label: metric.value for metric in app.metric}["Calls to break even"] == "1.5"
    assert "50.0 [40.0, 60.0]" in app.dataframe[0].value.to_string()


def test_what_is_no_report_is_left_out(app: AppTest, page_home: Path) -> None:
    bad = ACCURACY | {"modes": {"specialized": {"n": 4}}}
    opened(app, page_home, good=ACCURACY, torn='{"modes": {', other={"a": 1}, half=bad, list=[1, 2])
    assert app.selectbox(key="report-accuracy").options == ["good.json"]
