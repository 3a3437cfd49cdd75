"""What LoRA-Gen needs to know of a Hugging Face causal LM: its gated MLPs, its shape, its identity."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agent_specializer.errors import CheckpointError

LINEARS = ("gate_proj", "up_proj", "down_proj")
"""The linears of a gated MLP that carry experts (LoRA-Gen, section 3.2)."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The linears of an attention that carry activated LoRAs."""
HEAD_BLOCK = 1 << 12
"""Rows of a head that are widened together: so few that memory is used again, where more were asked of the system each time."""


@dataclass(frozen=True)
class ModelShape:
    """Which model a part of the generator was trained for.

    `digest` samples every parameter, so that two models of one architecture with other weights differ.
    """

    architecture: str
    layers: int
    hidden: int
    ffn: int
    vocabulary: int
    digest: str

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)


def decoder(model: nn.Module) -> nn.Module:
    """The stack of layers below the head, whose output is the last hidden state after the final norm."""
    inner = getattr(model, "model", None)
    if inner is None or not gated_mlps(inner):
        raise CheckpointError(
            f"{type(model).__name__} is not a causal LM with gated MLPs",
            hint=f"use a model whose layers have an mlp with {', '.join(LINEARS)} (Gemma, Llama, Qwen, Mistral ...)",
        )
    return inner


def cached(model: nn.Module, cache: Any) -> dict[str, Any]:
    """`cache` as the keyword argument of the forward pass of `model`: transformers 5.24 renamed it."""
    renamed = "cache" in inspect.signature(model.forward).parameters
    return {"cache" if renamed else "past_key_values": cache, "use_cache": True}


def gated_mlps(model: nn.Module) -> list[nn.Module]:
    """The gated MLPs of `model`, in the order of its layers."""
    return [
        module
        for module in model.modules()
        if all(isinstance(getattr(module, n, None), nn.Linear) for n in LINEARS)
    ]


def attentions(model: nn.Module) -> list[dict[str, nn.Linear]]:
    """The linears `ATTENTION` of each layer of `model`; an empty list where it has others."""
    found = [
        {name: getattr(module, name) for name in ATTENTION}
        for module in model.modules()
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ATTENTION)
    ]
    return found if len(found) == len(gated_mlps(model)) else []


@contextmanager
def changed(linears: Iterable[tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]]) -> Iterator[None]:
    """While open, each of `linears` gives what its function makes of its input and its output."""
    handles = []
    for linear, change in linears:

        def hook(
            _: nn.Module, inputs: tuple[Any, ...], out: Tensor, change: Callable[..., Tensor] = change
        ) -> Tensor:
            return change(inputs[0], out)

        handles.append(linear.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_dtype(model: nn.Module) -> torch.dtype:
    """What the layers of `model` calculate in; its embeddings may be narrower."""
    return gated_mlps(model)[0].get_parameter("up_proj.weight").dtype


def head_weight(model: nn.Module) -> Tensor:
    """The output embeddings, (vocabulary, hidden)."""
    weight: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
    return weight


def logits(model: nn.Module, states: Tensor, tokens: Tensor | slice | None = None) -> Tensor:
    """Logits in float32 of `states` (..., hidden) for the rows `tokens` of the head, or for all of them."""
    weight = head_weight(model)
    if states.dtype == weight.dtype or states.shape[:-1].numel() == 1:
        rows = weight if tokens is None else weight[tokens]
        out = nn.functional.linear(states.to(weight.dtype), rows).float()
    else:  # A head narrower than the layers (`bundles.precision`) is read as it is for one row, widened for more.
        blocks = (
            (weight[some] for some in tokens.split(HEAD_BLOCK))
            if isinstance(tokens, Tensor)
            else (weight if tokens is None else weight[tokens]).split(HEAD_BLOCK)
        )
        out = torch.cat([nn.functional.linear(states, block.to(states.dtype)) for block in blocks], -1)
    cap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2
    return torch.tanh(out / cap) * cap if cap else out


def shape_of(model: nn.Module) -> ModelShape:
    """Shape and identity of `model`; reads 16 numbers of every parameter (milliseconds)."""
    mlps = gated_mlps(decoder(model))
    first: nn.Linear = mlps[0].gate_proj  # type: ignore[assignment]
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 16)
        digest.update(name.encode())
        digest.update(
            json.dumps([round(x, 5) for x in flat[::step][:16].to(torch.bfloat16).float().tolist()]).encode()
        )
    return ModelShape(
        architecture=type(model).__name__,
        layers=len(mlps),
        hidden=first.in_features,
        ffn=first.out_features,
        vocabulary=head_weight(model).shape[0],
        digest=digest.hexdigest()[:16],
    )
