"""`bench accuracy` from files to report, on a tiny random model."""

from __future__ import annotations

import json

import pytest
import torch

from agent_specializer.errors import CheckpointError, ConfigError
from agent_specializer.evaluation import accuracy
from agent_specializer.evaluation.accuracy import run_accuracy
from agent_specializer.evaluation.modes import MODES
from agent_specializer.evaluation.report import accuracy_content, markdown, table

KEYS = {
    "n",
    "tool_accuracy",
    "tool_accuracy_ci95",
    "likeliest_accuracy",
    "likeliest_accuracy_ci95",
    "call_exact",
    "call_exact_ci95",
    "no_call_accuracy",
    "schema_valid",
    "prompt_tokens_mean",
    "tool_prompt_tokens_mean",
}


def run(bench, **changes):
    options = {"modes": list(MODES), "tools": 8, "limit": 10, "seed": 1} | changes
    return run_accuracy(toolsets=bench.toolsets, examples=bench.examples, models=bench.models, **options)


def weights(models) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in models.edge.state_dict().items()}


def test_all_modes_are_asked_the_same_and_reported_as_the_contract_says(tiny_bench, wordy, tmp_path):
    before = weights(tiny_bench.models)
    report = run(tiny_bench, out=tmp_path / "r.json")
    assert list(report["modes"]) == list(MODES)
    for row in report["modes"].values():
        assert row.keys() >= KEYS
        assert row["n"] == 10
        assert row["schema_valid"] == 1.0
    for mode, row in report["modes"].items():
        sends_tools = mode in ("prompted", "prompted_lora")
        assert (row["tool_prompt_tokens_mean"] > 0) == sends_tools
    assert set(report["paired"]) == {f"specialized-{mode}" for mode in MODES if mode != "specialized"}
    assert report["settings"]["tools_per_toolset"] == {"min": 8, "mean": 8.0, "max": 8}
    assert json.loads((tmp_path / "r.json").read_text()) == report
    rows = [json.loads(line) for line in (tmp_path / "r.items.jsonl").read_text().splitlines()]
    asked = {mode: [(r["index"], r["gold"]) for r in rows if r["mode"] == mode] for mode in MODES}
    assert all(items == asked["base"] for items in asked.values())
    assert all(len(row["choices"]) == 9 for row in rows)  # eight tools and words
    assert not list(tmp_path.glob(".*.tmp"))
    # The model that all modes shared is as it was, bit by bit.
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tiny_bench.models).items())


def test_a_run_repeats_itself_and_a_mode_does_not_depend_on_the_others(tiny_bench):
    def figures(report, mode):
        return {key: v for key, v in report["modes"][mode].items() if key != "seconds_mean"}

    compared = ["specialized", "wrong_adapter", "shared_lora"]
    together = run(tiny_bench, modes=compared, limit=4)
    for mode in compared:
        assert figures(together, mode) == figures(run(tiny_bench, modes=[mode], limit=4), mode)


def test_without_calls_only_the_first_tool_is_decided(tiny_bench):
    full = run(tiny_bench, modes=["specialized", "prompted"])
    quick = run(tiny_bench, modes=["specialized", "prompted"], calls=False)
    for mode in ("specialized", "prompted"):
        row = quick["modes"][mode]
        assert row["call_exact"] is None
        assert row["no_call_accuracy"] == full["modes"][mode]["no_call_accuracy"]
        assert row["tool_accuracy"] >= full["modes"][mode]["tool_accuracy"]
        for key in ("prompt_tokens_mean", "tool_prompt_tokens_mean"):
            assert row[key] == full["modes"][mode][key]


def test_opaque_names_and_similar_distractors(tiny_bench):
    report = run(tiny_bench, modes=["specialized"], names="opaque", distractors="similar")
    assert report["modes"]["specialized"]["n"] == 10
    assert report["settings"]["names"] == "opaque"


def test_an_interrupted_run_writes_nothing(tiny_bench, tmp_path, monkeypatch):
    out = tmp_path / "r.json"
    out.write_text("earlier")
    asked = accuracy._ask
    count = 0

    def interrupted(*args, **options):
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return asked(*args, **options)

    monkeypatch.setattr(accuracy, "_ask", interrupted)
    before = weights(tiny_bench.models)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_bench, modes=["specialized"], out=out)
    assert out.read_text() == "earlier"
    assert not (tmp_path / "r.items.jsonl").exists()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tiny_bench.models).items())


def test_a_missing_baseline_is_said_before_anything_runs(tiny_bench, tmp_path):
    with pytest.raises(CheckpointError, match="no generator checkpoint in"):
        run(tiny_bench, baselines={"shared_lora": tmp_path / "elsewhere"})
    routed = tiny_bench.models.bundle.checkpoint
    with pytest.raises(CheckpointError, match="is no checkpoint for 'shared_lora'"):
        run(tiny_bench, baselines={"shared_lora": routed})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ["specialised"]}, "no mode 'specialised'"),
        ({"modes": []}, "none was given"),
        ({"tools": 0}, "at least one tool"),
        ({"limit": 0}, "at least one example"),
        ({"caution": float("nan")}, "nan is not between"),
        ({"distractors": "far"}, "no 'far' distractors"),
        ({"names": "new"}, "cannot be 'new'"),
    ],
)
def test_wrong_wishes_are_named(tiny_bench, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(tiny_bench, **changes)


def test_a_folder_that_is_not_there_is_said_before_anything_runs(tiny_bench, tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        run(tiny_bench, out=tmp_path / "nowhere" / "r.json")


def test_a_report_becomes_tables(tiny_bench):
    report = run(tiny_bench, modes=["base", "specialized"])
    text = markdown(report)
    assert text.startswith("| mode | right tool |")
    assert "| specialized minus base |" in text
    assert table(report).row_count == 2
    # What is not measured has no column; what an earlier version did not report has none, either.
    columns, rows = accuracy_content(run(tiny_bench, modes=["base", "specialized"], calls=False))
    assert {"right tool", "likeliest tool right"} < set(columns)
    assert not {"exact call", "valid"} & set(columns)
    assert {len(row) for row in rows} == {len(columns)}
    for row in report["modes"].values():
        del row["likeliest_accuracy"]
    assert "likeliest tool right" not in accuracy_content(report)[0]
