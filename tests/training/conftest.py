"""Example files in small, and runs on them with a tiny model that is cloud and edge."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from agent_specializer.loragen.checkpoint import save_checkpoint
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
    "following_steps": 2,
    "following_batch": 4,
}
VERBS = ("book", "cancel", "list", "find", "rate", "share")
NEEDY = ("book", "cancel", "rate")
"""Verbs whose tools require something."""
THINGS = ("hotel", "flight", "song", "alarm", "recipe")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets: one with requests (plain and gzip), one of tools alone. Read only."""
    folder = tmp_path_factory.mktemp("data")
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


@pytest.fixture(scope="session")
def make_trainer(data, make_tiny_gemma, tiny_tokenizer):
    def make(out: Path, start: Path | None = None, only: str = "", **options):
        model = make_tiny_gemma()
        return Trainer(
            cloud=model,
            edge=model,
            tokenizer=tiny_tokenizer,
            data=data,
            out=out,
            options=TrainOptions(**SMALL | options),
            start=start,
            only=only,
        )

    return make


@pytest.fixture(scope="session", autouse=True)
def two_catalogues():
    """Of the shipped catalogues two will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "shipped_catalogues", lambda: shipped_catalogues()[:2])
        yield


@pytest.fixture
def trainer(make_trainer, tmp_path):
    def make(out: str = "out", **options):
        return make_trainer(tmp_path / out, **options)

    return make


@pytest.fixture(scope="session")
def finished(make_trainer, tmp_path_factory):
    """A generator's run, on one thread, that has ended. Read only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = make_trainer(tmp_path_factory.mktemp("finished") / "out")
    run.run()
    torch.set_num_threads(before)
    return run


@pytest.fixture
def begun(trainer, tmp_path):
    """A finished checkpoint without activated LoRAs."""
    made = trainer(argument_steps=0, following_steps=0)
    return save_checkpoint(made.generator, tmp_path / "begun", card={"steps_done": 4})
