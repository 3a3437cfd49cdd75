"""A tiny generator with a pool that does something, and a toolset."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_specializer.specs import Toolset, ToolSpec


@pytest.fixture(scope="session")
def toolset() -> Toolset:
    light = {
        "type": "object",
        "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["level"],
    }
    return Toolset(
        tools=(
            ToolSpec(name="set_light", description="Dims the lamps.", parameters=light),
            ToolSpec(name="get_weather", description="Tells the weather."),
        ),
        instructions="You run a house.",
    )


@pytest.fixture(scope="session")
def make_generator(tiny_tokenizer) -> Callable:
    """A factory of random generators for a model that is cloud and edge, whose experts change the logits."""
    import torch

    from agent_specializer.loragen import Generator, GeneratorConfig, shape_of

    def make(model, seed: int = 0, **changes):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            shape = shape_of(model)
            options = {"experts": 4, "rank": 2, "key_dim": 8, "router_width": 8} | changes
            generator = Generator(GeneratorConfig(cloud=shape, edge=shape, **options), model, tiny_tokenizer)
            for B in generator.pool.B.values():
                torch.nn.init.normal_(B, std=0.5)
        return generator.eval().requires_grad_(False)

    return make
