"""`bench accuracy` on the real embedded model and a shipped catalogue, with a generator that has not been trained."""

from __future__ import annotations

import json

import pytest

from agent_specializer.evaluation import accuracy
from agent_specializer.evaluation.accuracy import run_accuracy
from agent_specializer.loragen import Generator, GeneratorConfig, save_checkpoint, shape_of
from tool_specs import catalogues, load


@pytest.mark.embedded
def test_two_requests_in_two_modes(embedded_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "MAX_TOKENS", 48)  # a model that was not trained says as much as it may
    shape = shape_of(embedded_bundle.edge)
    config = GeneratorConfig(cloud=shape, edge=shape, experts=2, rank=2)
    generator = Generator(config, embedded_bundle.cloud, embedded_bundle.cloud_tokenizer)
    save_checkpoint(generator.eval(), tmp_path / "checkpoint")
    chosen = [load(path) for path in catalogues()[:2]]
    sets = [
        {
            "toolset_id": c.agent.name,
            "description": c.agent.instructions,
            "tools": [t.model_dump() for t in c.tools],
        }
        for c in chosen
    ]
    asked = [
        {
            "toolset_id": c.agent.name,
            "messages": [{"role": "user", "content": r.request}],
            "calls": [call.model_dump() for call in r.calls],
            "calls_accepted": list(r.accepted or ()),
        }
        for c in chosen
        for r in c.requests
    ]
    for name, rows in (("toolsets", sets), ("examples", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = embedded_bundle.edge.model.layers[0].mlp.down_proj.weight.clone()
    report = run_accuracy(
        toolsets=tmp_path / "toolsets.jsonl",
        examples=tmp_path / "examples.jsonl",
        modes=["prompted", "specialized"],
        tools=3,
        limit=2,
        models=embedded_bundle,
        checkpoint=tmp_path / "checkpoint",
    )
    for mode, row in report["modes"].items():
        assert row["n"] == 2
        assert row["errors"] == 0
        assert row["schema_valid"] == 1.0
        assert (row["tool_prompt_tokens_mean"] > 100) == (mode == "prompted")
    assert embedded_bundle.edge.model.layers[0].mlp.down_proj.weight.equal(before)
