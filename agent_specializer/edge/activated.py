"""The weights for a part of a reply, its arguments for one: the model's own with a LoRA in its attention.

They are merged once, whatever adapters come and go, since those change the FFN alone; taking them up and putting them down points
the linears at other tensors. Where only some rows of a batch write, the LoRA runs beside the weights instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from agent_specializer.errors import AdapterError
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.loragen.models import attentions, changed, decoder


class Activated:
    """Puts an activated LoRA into the attention of a model, for a while.

    Not thread-safe: used by whoever holds the engine's lock.

    Args:
        model: the edge model; the weights of its attention must not be changed by anyone else.
        lora: one of the generator's.
    """

    def __init__(self, model: nn.Module, lora: ActivatedLora) -> None:
        self.lora = lora
        self._linears: list[tuple[int, str, nn.Linear]] = [
            (layer, name, linears[name])
            for layer, linears in enumerate(attentions(decoder(model)))
            for name in lora.config.sizes
        ]
        self._merged: list[Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the merged weights, once they are there."""
        return sum(weight.nbytes for weight in self._merged or ())

    @contextmanager
    def rows(self, some: Sequence[bool]) -> Iterator[None]:
        """While open, those rows of a batch that are set run through the LoRA, too."""
        if not any(some):
            yield
            return
        with self._pointed() if all(some) else self.beside(torch.tensor(some)[:, None]):
            yield

    @contextmanager
    def _pointed(self) -> Iterator[None]:
        if self._merged is None:
            self._merged = [
                self._sum(layer, name, linear.weight.data) for layer, name, linear in self._linears
            ]
        own = [linear.weight.data for _, _, linear in self._linears]
        self._point(self._merged)
        try:
            yield
        finally:
            self._point(own)

    @contextmanager
    def beside(self, tokens: Tensor) -> Iterator[None]:
        """The same without merging, for those of `tokens` that are set, (batch, tokens) or (batch, 1) bool; differentiable."""
        chosen = tokens[..., None]

        def change(layer: int, name: str, x: Tensor, out: Tensor) -> Tensor:
            return out + self.lora.added(x, layer, name) * chosen.to(out)

        with changed((linear, partial(change, layer, name)) for layer, name, linear in self._linears):
            yield

    def _sum(self, layer: int, name: str, weight: Tensor) -> Tensor:
        try:
            with torch.inference_mode(False), torch.no_grad():
                return self.lora.factors(layer, name).merged_into(weight)
        except OverflowError:
            raise AdapterError(
                f"an activated LoRA gives infinite weights in {name} of layer {layer}",
                hint="the generator checkpoint is damaged: restore or retrain it",
            ) from None

    def _point(self, weights: Sequence[Tensor]) -> None:
        for (_, _, linear), weight in zip(self._linears, weights, strict=True):
            linear.weight.data = weight
