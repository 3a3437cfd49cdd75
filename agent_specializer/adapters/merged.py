"""Materialised adapters: the weights of an edge model with one LoRA reparameterised in, `W <- W + dW`."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from agent_specializer.loragen import ExpertPool
from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps


def linear_names(model: nn.Module) -> dict[tuple[int, str], str]:
    """The module path in `model` of each (layer, linear) that carries experts."""
    paths = {module: path for path, module in model.named_modules()}
    return {
        (layer, linear): f"{paths[mlp]}.{linear}"
        for layer, mlp in enumerate(gated_mlps(decoder(model)))
        for linear in LINEARS
    }


def merged_weights(
    model: nn.Module, pool: ExpertPool, gates: Tensor
) -> Iterator[tuple[tuple[int, str], Tensor]]:
    """New weights ``W + dW`` (out, in) by (layer, linear), one at a time; `model` stays as it is.

    The same weights as the edge engine's, to the bit.
    """
    modules = dict(model.named_modules())
    names = linear_names(model)
    for key, factors in pool.lora(gates.to(next(pool.parameters()).device)).items():
        linear = modules[names[key]]
        assert isinstance(linear, nn.Linear)
        yield key, factors.merged_into(linear.weight)
