"""Single measurements of a latency benchmark. Times are wall-clock seconds of this process, devices
synchronised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.transcript import render
from agent_specializer.loragen import Adapter, Generator
from agent_specializer.loragen.cloud import tokenize
from agent_specializer.loragen.models import decoder
from agent_specializer.messages import Message, Reply
from agent_specializer.specs import Toolset

Value = TypeVar("Value")


def timed(work: Callable[[], Value]) -> tuple[float, Value]:
    """Seconds that `work` takes, and what it returns."""
    synchronise()
    began = time.perf_counter()
    value = work()
    synchronise()
    return time.perf_counter() - began, value


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fresh(toolset: Toolset, mark: int) -> Toolset:
    """`toolset` with descriptions that nothing has been computed for yet, of nearly the same length."""
    tools = tuple(tool.changed(description=f"{tool.description} ({mark})") for tool in toolset.tools)
    return Toolset(tools=tools, instructions=toolset.instructions)


def generation(generator: Generator, engine: EdgeEngine, toolset: Toolset) -> dict[str, float]:
    """Seconds that make `toolset` ready to answer: `gates`, `keys`, `merge`, `priors`, and `seconds` in all.

    `prefill` is the reference: one pass of the cloud model over the same task description and nothing else.
    `description_tokens` counts its tokens.
    """
    with engine.exclusive(), torch.inference_mode():
        device = next(generator.cloud.parameters()).device
        ids = tokenize(generator.tokenizer, describe_toolset(toolset), device)
        reader = decoder(generator.cloud)
        prefill, _ = timed(lambda: reader(input_ids=ids[None], use_cache=False))
    with engine.exclusive():
        gates_seconds, (gates, tokens) = timed(lambda: generator.gates(toolset))
        keys_seconds, keys = timed(lambda: generator.tool_keys(toolset))
    adapter = generator.assemble(toolset, gates, keys)
    # Merging is timed by itself; the priors are then measured with the adapter in place.
    merge_seconds, _ = timed(lambda: merge(engine, adapter))
    activate(engine, adapter)
    priors_seconds, _ = timed(lambda: engine.priors(toolset, adapter=adapter, tools_in_prompt=False))
    return {
        "seconds": gates_seconds + keys_seconds + merge_seconds + priors_seconds,
        "gates": gates_seconds,
        "keys": keys_seconds,
        "merge": merge_seconds,
        "priors": priors_seconds,
        "prefill": prefill,
        "description_tokens": float(tokens),
    }


def merge(engine: EdgeEngine, adapter: Adapter) -> list[Tensor]:
    """The adapter's merged weights, computed anew and not put into the model."""
    assert engine.merged is not None
    with engine.exclusive():
        return engine.merged.merge(adapter.gates)


def activate(engine: EdgeEngine, adapter: Adapter) -> None:
    """Leave the weights of an adapter that has no priors yet in the model, as a reply with it would."""
    engine.priors(Toolset(), adapter=adapter, tools_in_prompt=False)


def swap(engine: EdgeEngine, adapter: Adapter) -> dict[str, float]:
    """`merge`: seconds to compute the weights of an adapter; `memcpy`: to copy as many bytes; `bytes`: how
    many.
    """
    merge_seconds, weights = timed(lambda: merge(engine, adapter))
    room = [torch.zeros_like(weight) for weight in weights]  # written once, so that no page is new

    def copy() -> None:
        for target, source in zip(room, weights, strict=True):
            target.copy_(source)

    memcpy, _ = timed(copy)
    return {"merge": merge_seconds, "memcpy": memcpy, "bytes": float(sum(w.nbytes for w in weights))}


def generate_rate(model: Any, tokenizer: Any, messages: Sequence[Message], *, tokens: int) -> float:
    """Tokens per second of transformers' greedy `generate` behind the same prompt, its prefill taken out."""
    ids = tokenizer(render(messages), return_tensors="pt").input_ids.to(next(model.parameters()).device)

    def run(count: int) -> None:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )

    with torch.inference_mode():
        first, _ = timed(lambda: run(1))
        all_, _ = timed(lambda: run(tokens + 1))
    return tokens / max(all_ - first, 1e-9)


def decode_rate(replies: Sequence[Reply]) -> float:
    """Tokens per second of the replies behind their first choice."""
    seconds = sum(reply.usage.seconds - reply.usage.first_token_seconds for reply in replies)
    return sum(reply.usage.completion_tokens for reply in replies) / max(seconds, 1e-9)


def held_bytes(generator: Generator, engine: EdgeEngine, adapter: Adapter, tokens: int) -> dict[str, int]:
    """What one toolset takes in the ways of serving it, in bytes.

    `adapter`: stored gates, keys and priors; `lora`: its LoRA's factors in bfloat16; `merged`: its merged
    weights; `prefix_cache`: keys and values of a tool prompt of `tokens` tokens in bfloat16.
    """
    assert engine.merged is not None
    config: Any = engine.model.config
    config = config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    lora = sum(f.A.numel() + f.B.numel() for f in generator.pool.lora(adapter.gates).values())
    return {
        "adapter": adapter.nbytes,
        "lora": 2 * lora,
        "merged": engine.merged.adapter_bytes,
        "prefix_cache": 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * tokens,
    }
