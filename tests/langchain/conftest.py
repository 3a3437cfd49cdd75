"""A Specializer over one tiny random model, with two agents; and the real embedded one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from agent_specializer import Specializer, ToolSpec

LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["level"],
}
SECRET = "Dims the lamps of the zebra room."
TOOLS = (
    ToolSpec(name="set_light", description=SECRET, parameters=LEVEL),
    ToolSpec(name="get_weather", description="Tells the weather."),
)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, make_tiny_gemma, tiny_tokenizer) -> str:
    """The path of a bundle file: one tiny random model as cloud and edge, and a random generator for it."""
    from agent_specializer.loragen import Generator, GeneratorConfig, save_checkpoint, shape_of

    folder = tmp_path_factory.mktemp("tiny-langchain")
    model = make_tiny_gemma()
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = shape_of(model)
        config = GeneratorConfig(cloud=shape, edge=shape, experts=4, rank=2, key_dim=8, key_width=8)
        save_checkpoint(Generator(config, model, tiny_tokenizer), folder / "checkpoint")
    source = {"kind": "local", "name": "./model"}
    path = folder / "bundle.yaml"
    path.write_text(yaml.safe_dump({"cloud": source, "edge": source, "checkpoint": "./checkpoint"}))
    return str(path)


@pytest.fixture
def specializer(home: Path, tiny_bundle: str):
    """Two agents: "home" with both tools, "lamp" with one."""
    with Specializer(bundle=tiny_bundle) as made:
        made.register_tools(TOOLS)
        made.create_agent("home", ["set_light", "get_weather"], "You run a house.")
        made.create_agent("lamp", ["set_light"])
        yield made
