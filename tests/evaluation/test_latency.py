"""`bench latency` on a tiny random model: what is reported, and that the ways are what they are called."""

from __future__ import annotations

import json

import pytest
import torch

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.catalogue_cases import catalogue_cases, mixed
from agent_specializer.evaluation.latency import BATCH, run_latency
from agent_specializer.evaluation.report import markdown, table

RATIOS = {
    "first_token_vs_prompted_cold",
    "total_vs_prompted_cold",
    "total_vs_prompted_hot",
    "decode_vs_transformers_generate",
    "generation_vs_prefill",
    "swap_vs_memcpy",
    "pooled_vs_merged_throughput",
}


def test_the_report_is_what_the_contract_says(tiny_models, tmp_path):
    before = {name: tensor.clone() for name, tensor in tiny_models.edge.state_dict().items()}
    out = tmp_path / "r.json"
    report = run_latency(tools=2, repetitions=1, requests=1, models=tiny_models, out=out)
    assert json.loads(out.read_text()) == report
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["prompted_cold", "prompted_hot", "specialized_merged", "specialized_pooled"]
    for name, row in rows.items():
        assert (row["tool_prompt_tokens"] > 0) == name.startswith("prompted")
        assert 0 < row["first_token_seconds"] <= row["total_seconds"]
    assert rows["specialized_pooled"]["measured"] == BATCH
    assert report["ratios"].keys() >= RATIOS
    assert all(ratio > 0 for ratio in report["ratios"].values())
    held = report["bytes_held"]
    assert report["bytes_per_toolset"] == held["adapter"]
    assert held["adapter"] < held["merged"]
    parts = report["generation"]
    assert parts["seconds"] > parts["gates"] > 0
    after = tiny_models.edge.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert "| prompted_cold |" in markdown(report)
    assert table(report).row_count == 4


@pytest.mark.parametrize("tools", [1, 4, 12, 40])
def test_cases_have_the_wished_size_and_requests_for_their_tools(tools):
    cases = catalogue_cases(tools=tools, count=4, seed=2)
    assert len({case.toolset.fingerprint for case in cases}) == 4
    for case in cases:
        assert len(case.toolset.tools) == tools
        assert set(case.gold) <= set(case.toolset.names)
        assert len(case.requests) == len(case.gold) >= 1
    assert catalogue_cases(tools=tools, count=4, seed=2) == cases


def test_a_batch_takes_turns_among_toolsets():
    cases = catalogue_cases(tools=12, count=3)
    assert mixed(cases, 4) == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_more_tools_than_the_catalogues_have_are_refused():
    with pytest.raises(ConfigError, match="10000: the shipped catalogues have"):
        catalogue_cases(tools=10_000, count=1)
