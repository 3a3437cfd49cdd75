"""`bench overall`: several reports as one, each file of requests weighing the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent_specializer.cli import app
from agent_specializer.errors import ConfigError, NotFound
from agent_specializer.evaluation.metrics import interval, interval_of_means
from agent_specializer.evaluation.overall import run_overall
from agent_specializer.evaluation.report_files import write_lines

SCORES = {
    "1": [["a", -0.1], [None, -2.0], ["b", -3.0]],
    "0": [["b", -0.1], ["a", -2.0], [None, -3.0]],
    "w": [[None, -0.1], ["a", -2.0], ["b", -3.0]],
}


@pytest.fixture
def report(tmp_path: Path):
    def write(name: str, right: dict[str, str], *, gold: str | None = None, **settings: Any) -> Path:
        """`right`: a digit a request by mode, w where words are chosen and the likeliest tool is right; `gold`: "c" for a call, "n" for none."""
        gold = gold or "c" * len(next(iter(right.values())))
        rows = [
            {
                "mode": mode,
                "index": i,
                "gold_names": ["a"] if gold[i] == "c" else [],
                "tool_right": digit == "1",
                "choices": SCORES[digit],
            }
            for mode, digits in right.items()
            for i, digit in enumerate(digits)
        ]
        path = tmp_path / f"{name}.json"
        shared = {
            "tools": 12,
            "distractors": "random",
            "names": "kept",
            "seed": 0,
            "calls": False,
            "bundle": "embedded",
        }
        path.write_text(
            json.dumps(
                {
                    "modes": {mode: {} for mode in right},
                    "settings": shared | {"examples": f"/d/{name}"} | settings,
                }
            )
        )
        write_lines(path.with_suffix(".items.jsonl"), rows)
        return path

    return write


def test_files_weigh_the_same_whatever_their_size(report) -> None:
    small = report("small", {"specialized": "11", "shared_lora": "00"})
    large = report("large", {"specialized": "10" * 50, "shared_lora": "10" * 50})
    found = run_overall([small, large])
    assert found["modes"]["specialized"]["tool_accuracy"] == 0.75
    assert found["modes"]["shared_lora"]["tool_accuracy"] == 0.25
    pair = found["paired"]["specialized-shared_lora"]
    assert pair["tool_accuracy"] == 0.5
    assert pair["tool_accuracy_ci95"] == [0.5, 0.5]  # paired: no request of either file tells otherwise
    assert pair["tool_accuracy_files"] == 2
    assert (pair["no_call_accuracy"], pair["no_call_accuracy_ci95"], pair["no_call_accuracy_files"]) == (
        None,
        None,
        0,
    )


def test_what_needs_no_call_is_told_of_the_files_that_have_any(report) -> None:
    found = run_overall(
        [
            report("a", {"specialized": "1101"}, gold="ccnn"),
            report("b", {"specialized": "01"}),
        ]
    )
    row = found["modes"]["specialized"]
    assert (row["tool_accuracy"], row["tool_accuracy_files"]) == (0.75, 2)
    assert (row["no_call_accuracy"], row["no_call_accuracy_files"]) == (0.5, 1)
    assert [each["no_calls"] for each in found["files"]] == [2, 0]
    assert found["files"][1]["modes"]["specialized"]["no_call_accuracy"] is None
    assert found["paired"] == {}


def test_which_tool_is_told_apart_from_whether_one(report) -> None:
    found = run_overall(
        [
            report("a", {"specialized": "1w0w", "shared_lora": "w000"}, gold="cccn"),
            report("b", {"specialized": "w", "shared_lora": "0"}),
        ]
    )
    row = found["modes"]["specialized"]
    assert (row["tool_accuracy"], row["likeliest_accuracy"]) == pytest.approx((1 / 6, 5 / 6))
    assert row["likeliest_accuracy_files"] == 2
    assert found["files"][0]["modes"]["shared_lora"]["likeliest_accuracy"] == pytest.approx(1 / 3)
    assert found["paired"]["specialized-shared_lora"]["likeliest_accuracy"] == pytest.approx(2 / 3)


def test_the_interval_draws_each_file_by_itself() -> None:
    few, many = [0.0, 1.0] * 4, [0.0, 1.0] * 400
    low, high = interval_of_means([few, many])
    own_low, own_high = interval(few)
    assert (high - low) == pytest.approx((own_high - own_low) / 2, abs=0.03)
    low, high = interval_of_means([few, [1.0] * 5, []])
    assert 0.5 <= low < 0.75 < high <= 1.0


def test_only_modes_of_all_reports_count(report) -> None:
    found = run_overall(
        [report("a", {"specialized": "10", "base": "00"}), report("b", {"specialized": "11"})]
    )
    assert list(found["modes"]) == ["specialized"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": 4}, "tools"),
        ({"distractors": "similar"}, "distractors"),
        ({"options": {"caution": 1.0}}, "caution"),
        ({"generators": {"specialized": "other"}}, "the generator of specialized"),
        ({"examples": "/d/a"}, "/d/a"),
    ],
)
def test_reports_that_do_not_belong_together_are_refused(report, change: dict[str, Any], said: str) -> None:
    first = report("a", {"specialized": "10"}, generators={"specialized": "this"})
    with pytest.raises(ConfigError, match=said):
        run_overall([first, report("b", {"specialized": "10"}, **change)])


def test_bad_input_is_told(report, tmp_path: Path) -> None:
    path = report("a", {"specialized": "10"})
    with pytest.raises(ConfigError, match="one report"):
        run_overall([path])
    with pytest.raises(NotFound):
        run_overall([path, tmp_path / "none.json"])
    with pytest.raises(ConfigError, match="no mode in common"):
        run_overall([path, report("b", {"base": "10"})])
    latency = tmp_path / "latency.json"
    latency.write_text('{"rows": [], "settings": {}}')
    with pytest.raises(ConfigError, match="no report of `bench accuracy`"):
        run_overall([path, latency])
    cut = report("c", {"specialized": "10", "base": "10"})
    lines = cut.with_suffix(".items.jsonl")
    lines.write_text("\n".join(lines.read_text().splitlines()[:-1]))
    with pytest.raises(ConfigError, match="other requests of 'base'"):
        run_overall([cut, report("d", {"specialized": "10", "base": "10"})])


def test_on_the_command_line(report) -> None:
    paths = [
        str(report("a.test.jsonl", {"specialized": "1101", "shared_lora": "0111"}, gold="cccn")),
        str(report("b.test.jsonl", {"specialized": "10", "shared_lora": "10"})),
    ]
    told = CliRunner().invoke(app, ["bench", "overall", *paths], env={"COLUMNS": "160"})
    assert told.exit_code == 0, told.output
    for text in ("a.test.jsonl", "specialized minus shared_lora", "mean over files"):
        assert text in told.output
    found = json.loads(CliRunner().invoke(app, ["bench", "overall", "--json", *paths]).stdout)
    assert found["modes"]["specialized"]["tool_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
