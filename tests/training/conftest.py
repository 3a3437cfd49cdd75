"""Example files in small, and runs on them with a tiny model that is cloud and edge."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from agent_specializer.training import stages
from agent_specializer.training.data import shipped_catalogues
from agent_specializer.training.trainer import Trainer, TrainOptions

SMALL = {
    "steps": 4,
    "pool_size": 3,
    "dev_every": 4,
    "dev_compositions": 2,
    "save_every": 2,
    "warmup": 1,
    "key_dim": 8,
    "rank": 2,
    "experts": 4,
    "examples": 4,
    "key_compositions": 3,
    "key_examples": 6,
    "key_epochs": 2,
    "key_tokens": 512,
    "key_foreign": 16,
    "calibration_compositions": 2,
    "required_compositions": 8,
    "argument_steps": 2,
}
VERBS = ("book", "cancel", "list", "find", "rate", "share")
NEEDY = ("book", "cancel", "rate")
"""Verbs whose tools require something."""
THINGS = ("hotel", "flight", "song", "alarm", "recipe")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sets: one with requests (plain and gzip), one of tools alone."""
    folder = tmp_path / "data"
    folder.mkdir()
    toolsets, examples = [], []
    for thing in THINGS:
        tools = [
            {
                "name": f"{verb}_{thing}",
                "description": f"{verb} a {thing} for the user",
                "parameters": {
                    "type": "object",
                    "properties": {"what": {"type": "string"}, "when": {"type": "string"}},
                    "required": ["what"] if verb in NEEDY else [],
                },
            }
            for verb in VERBS
        ]
        toolsets.append({"toolset_id": f"set/{thing}", "description": thing, "tools": tools})
        for verb in VERBS:
            examples.append(
                {
                    "toolset_id": f"set/{thing}",
                    "messages": [{"role": "user", "content": f"please {verb} my {thing}"}],
                    "calls": [{"name": f"{verb}_{thing}", "arguments": {"what": thing}}],
                }
            )
        examples.append(
            {
                "toolset_id": f"set/{thing}",
                "messages": [{"role": "user", "content": "hi"}],
                "calls": [],
                "answer": "Hi!",
            }
        )
    (folder / "set.toolsets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in toolsets))
    with gzip.open(folder / "set.train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in examples)
    (folder / "bare.toolsets.jsonl").write_text(json.dumps({**toolsets[0], "toolset_id": "bare/x"}) + "\n")
    (folder / "held.toolsets.jsonl").write_text(json.dumps({**toolsets[0], "toolset_id": "held/x"}) + "\n")
    (folder / "held.test.jsonl").write_text("this is never read\n")
    return folder


@pytest.fixture
def trainer(data, tmp_path, make_tiny_gemma, tiny_tokenizer, monkeypatch):
    # Of the shipped catalogues two will do.
    monkeypatch.setattr(stages, "shipped_catalogues", lambda: shipped_catalogues()[:2])

    def make(out: str = "out", start: Path | None = None, arguments_only: bool = False, **options):
        model = make_tiny_gemma()
        return Trainer(
            cloud=model,
            edge=model,
            tokenizer=tiny_tokenizer,
            data=data,
            out=tmp_path / out,
            options=TrainOptions(**SMALL | options),
            start=start,
            arguments_only=arguments_only,
        )

    return make
