"""Merged edge: an adapter's LoRA reparameterised into the FFN weights, ``W + dW`` (LoRA-Gen, section 3.3).

Always computed from the pristine base, never by subtracting, so going from A to B to A and back to base is bit-exact.
Switching copies nothing: the linears' parameters are pointed at the other tensors.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from agent_specializer.errors import AdapterError
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps

Weights = list[Tensor]


class MergedWeights:
    """Merged FFN weights of the most recently used adapters, up to a budget of bytes.

    Not thread-safe: used by whoever holds the engine's lock.

    Args:
        model: the edge model; its parameters must not be changed by anyone else.
        pool: the expert pool that the adapters' gates refer to.
        budget_bytes: of all merged weights together, the active ones included. Where it is too small for a single
            adapter, that one is merged, used, and dropped when another one is activated.
    """

    def __init__(self, model: nn.Module, pool: ExpertPool, *, budget_bytes: int) -> None:
        self.pool, self.budget_bytes = pool, budget_bytes
        self._linears: list[tuple[int, str, nn.Linear]] = [
            (layer, name, getattr(mlp, name))
            for layer, mlp in enumerate(gated_mlps(decoder(model)))
            for name in LINEARS
        ]
        self._base: Weights = [linear.weight.data for _, _, linear in self._linears]
        self._merged: OrderedDict[str, Weights] = OrderedDict()
        self.active: str | None = None
        """Key of the adapter that is in the model now; None: the base."""

    @property
    def nbytes(self) -> int:
        """Bytes held in merged weights."""
        return len(self._merged) * self.adapter_bytes

    @property
    def adapter_bytes(self) -> int:
        """Bytes of one adapter's merged weights."""
        return sum(weight.nbytes for weight in self._base)

    def __contains__(self, key: str) -> bool:
        return key in self._merged

    def activate(self, key: str, gates: Tensor) -> bool:
        """Put the adapter `key` with `gates` (layers, experts) into the model; whether it had been merged before.

        Raises:
            AdapterError: the gates are of another pool, or merging gives infinite weights (nothing is changed then).
        """
        known = key in self._merged
        if not known:
            # Room first, so that two adapters are never held where the budget allows one.
            room = self._evict(keep=max(0, self.budget_bytes // self.adapter_bytes - 1))
            self._merged[key] = self.merge(gates, room=room)
        self._merged.move_to_end(key)
        if self.active != key:
            self._point(self._merged[key])
            self.active = key
        return known

    def deactivate(self) -> None:
        """Back to the pristine base."""
        if self.active is not None:
            self._point(self._base)
            self.active = None
        self._evict(keep=self.budget_bytes // self.adapter_bytes)

    def drop(self, key: str) -> None:
        """Forget the merged weights of `key`, where there are any."""
        if self.active == key:
            self.deactivate()
        self._merged.pop(key, None)

    def merge(self, gates: Tensor, *, room: Weights | None = None) -> Weights:
        """``W + dW`` of every linear: computed in float32, held in the model's dtype. `room`: weights to write over."""
        with torch.inference_mode(False), torch.no_grad():
            factors = self.pool.lora(gates.to(next(self.pool.parameters()).device))
            scratch: dict[torch.Size, Tensor] = {}
            merged = []
            for i, ((layer, name, _), base) in enumerate(zip(self._linears, self._base, strict=True)):
                if base.shape not in scratch:
                    scratch[base.shape] = torch.empty_like(base, dtype=torch.float32)
                try:
                    weight = factors[layer, name].merged_into(
                        base, out=room[i] if room else None, scratch=scratch[base.shape]
                    )
                except OverflowError:
                    raise AdapterError(
                        f"merging gives infinite weights in {name} of layer {layer}",
                        hint="the generator checkpoint or the adapter is damaged: specialise again",
                    ) from None
                merged.append(weight)
        return merged

    def _point(self, weights: Weights) -> None:
        for (_, _, linear), weight in zip(self._linears, weights, strict=True):
            linear.weight.data = weight

    def _evict(self, *, keep: int) -> Weights | None:
        """Forget the least recently used adapters until `keep` are left; the weights of the last one forgotten."""
        gone: Weights | None = None
        if len(self._merged) > keep and self.active is not None and keep == 0:
            self._point(self._base)
            self.active = None
        while len(self._merged) > keep:
            oldest = next(key for key in self._merged if key != self.active)
            gone = self._merged.pop(oldest)
        return gone
