"""Tiny models of four architectures, toolsets, pools and adapters with weights that matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.loragen import Adapter, ExpertPool, shape_of
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = ("gemma3", "gemma2", "llama", "qwen2")

TOOLS = (
    ToolSpec(
        name="set_light",
        description="Set a light.",
        parameters={
            "type": "object",
            "properties": {
                "room": {"type": "string", "enum": ["kitchen", "hall"]},
                "level": {"type": "integer", "minimum": 0, "maximum": 100},
            },
            "required": ["room", "level"],
        },
    ),
    ToolSpec(
        name="get_weather",
        description="Weather of a city.",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "day": {"type": "string", "format": "date"}},
            "required": ["city"],
        },
    ),
    ToolSpec(name="lights_off", description="All lights off."),
)


@pytest.fixture(scope="session")
def toolset() -> Toolset:
    return Toolset(tools=TOOLS, instructions="You run a home.")


@pytest.fixture(scope="session")
def make_tiny(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """A factory of random models by architecture (see ARCHITECTURES), fp32 and in eval mode."""
    import transformers

    def make(architecture: str, seed: int = 0, **changes: object) -> PreTrainedModel:
        settings: dict[str, Any] = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "initializer_range": 0.2,
        }
        if architecture.startswith("gemma"):
            # A window shorter than the prompts, so that sliding layers really slide.
            settings |= {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
            settings["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"]
        config, model = {
            "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
            "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        }[architecture]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = model(config(**settings | changes))
        return made.float().eval().requires_grad_(False)

    return make


@pytest.fixture(params=ARCHITECTURES)
def tiny(request: pytest.FixtureRequest, make_tiny: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    """One tiny model of each architecture."""
    return make_tiny(request.param)


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., ExpertPool]:
    """A pool of random experts whose B is not zero, so that gates change what the model says."""

    def make(model: PreTrainedModel, *, experts: int = 4, rank: int = 2, spread: float = 0.3) -> ExpertPool:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            pool = ExpertPool(shape_of(model), experts=experts, rank=rank, alpha=2.0 * rank)
            for parameter in pool.B.values():
                torch.nn.init.normal_(parameter, std=spread)
        return pool.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., Adapter]:
    """An adapter with random gates, two of them not zero in each layer, and no keys."""

    def make(pool: ExpertPool, toolset: Toolset, seed: int = 0, **parts: Any) -> Adapter:
        random = torch.Generator().manual_seed(seed)
        raw = torch.rand(pool.layers, pool.experts, generator=random)
        top, index = raw.topk(2, dim=-1)
        gates = torch.zeros_like(raw).scatter(-1, index, top / top.sum(-1, keepdim=True))
        return Adapter(
            gates=gates,
            names=toolset.names,
            keys=parts.pop("keys", torch.empty(0, 0, 0)),
            toolset=toolset.fingerprint,
            generator=f"generator-{seed}",
            **parts,
        )

    return make


@pytest.fixture
def engine(
    tiny: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, make_pool: Callable[..., ExpertPool]
) -> EdgeEngine:
    """An engine on a tiny model of each architecture."""
    return EdgeEngine(tiny, tiny_tokenizer, pool=make_pool(tiny))
