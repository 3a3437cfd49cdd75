"""A tiny bundle with a generator and both baselines, and example files for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agent_specializer.bundles import LoadedBundle

VERBS = ("open", "close", "start", "stop", "lock", "find")
THINGS = ("door", "window", "car", "shop")


@dataclass(frozen=True)
class TinyBench:
    """What `run_accuracy` needs."""

    models: LoadedBundle
    toolsets: Path
    examples: Path


@pytest.fixture
def wordy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights write no words, so what is written for refining is given: the same for each tool, so that some makes the round trip."""
    texts = tuple(f"{verb} the {thing}" for verb in VERBS for thing in THINGS)
    monkeypatch.setattr(
        "agent_specializer.refinement.refine.write_requests",
        lambda model, tokenizer, tools, **wish: [texts[: wish["count"]] for _ in tools],
    )


@pytest.fixture
def tiny_models(make_tiny_gemma: Callable, tiny_tokenizer: object, tmp_path: Path) -> LoadedBundle:
    """One tiny model as cloud and edge, with the checkpoints of a generator and of the two baselines."""
    import torch

    from agent_specializer.bundles import Bundle, LoadedBundle, ModelSource
    from agent_specializer.loragen import Generator, GeneratorConfig, save_checkpoint, shape_of

    model = make_tiny_gemma(seed=4)
    shape = shape_of(model)
    small = {"rank": 2, "router_width": 4, "cloud_lora_rank": 0, "key_dim": 4}
    kinds = {
        "tiny": {},
        "tiny-shared-lora": {"routed": False, "experts": 1, "top_k": 1},
        "tiny-prompted-lora": {"routed": False, "experts": 1, "top_k": 1, "tools_in_prompt": True},
    }
    for name, changes in kinds.items():
        torch.manual_seed(len(name))
        generator = Generator(
            GeneratorConfig(cloud=shape, edge=shape, **small | changes), model, tiny_tokenizer
        )
        for factors in generator.pool.B.values():
            torch.nn.init.normal_(factors, std=0.3)
        save_checkpoint(generator.eval(), tmp_path / "checkpoints" / name)
    source = ModelSource(kind="local", name=str(tmp_path))
    bundle = Bundle(name="tiny", cloud=source, edge=source, checkpoint=tmp_path / "checkpoints" / "tiny")
    return LoadedBundle(bundle, model, model, tiny_tokenizer, tiny_tokenizer)


@pytest.fixture
def tiny_bench(tiny_models: LoadedBundle, tmp_path: Path) -> TinyBench:
    """Four toolsets of six tools, and two requests for each tool; every seventh needs none."""
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}}
    sets, asked = [], []
    for thing in THINGS:
        tools = [
            {"name": f"{verb}_{thing}", "description": f"{verb} the {thing}", "parameters": parameters}
            for verb in VERBS
        ]
        sets.append({"toolset_id": f"tiny/{thing}", "description": f"The {thing}.", "tools": tools})
        for number, verb in enumerate(VERBS * 2):
            calls = [] if number % 7 == 6 else [{"name": f"{verb}_{thing}", "arguments": {}}]
            text = f"{verb} the {thing}"
            asked.append(
                {
                    "toolset_id": f"tiny/{thing}",
                    "messages": [{"role": "user", "content": text}],
                    "calls": calls,
                }
            )
    toolsets, examples = tmp_path / "toolsets.jsonl", tmp_path / "examples.jsonl"
    toolsets.write_text("".join(json.dumps(row) + "\n" for row in sets))
    examples.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return TinyBench(tiny_models, toolsets, examples)
