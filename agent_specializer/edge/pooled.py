"""Pooled edge: one model serves many adapters in one batch, each row by its own gates (no per-adapter weights)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from agent_specializer.errors import AdapterError
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.models import LINEARS, changed, decoder, gated_mlps


@contextmanager
def pooled(model: nn.Module, pool: ExpertPool, gates: Tensor) -> Iterator[None]:
    """While open, each row b of a batch runs through ``W + (alpha / r) * sum_j gates[b, layer, j] * B_j A_j``.

    `gates` (batch, layers, experts), one adapter per row, or a batch of one for all rows; differentiable. The model's
    weights are not touched.
    """
    if tuple(gates.shape[1:]) != (pool.layers, pool.experts):
        raise AdapterError(
            f"gates are {tuple(gates.shape)}, expected (batch, {pool.layers}, {pool.experts})",
            hint="the adapters were made by another generator: specialise the agents again",
        )

    def change(layer: int, name: str, x: Tensor, out: Tensor) -> Tensor:
        return out + pool.apply_gated(x, layer, name, gates[:, layer])

    with changed(
        (getattr(mlp, name), partial(change, layer, name))
        for layer, mlp in enumerate(gated_mlps(decoder(model)))
        for name in LINEARS
    ):
        yield
