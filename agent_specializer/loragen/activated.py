"""Activated LoRAs on the edge's attention: active only where arguments are written, only behind a turn's first call, only in an answer in words.

Activated LoRAs (Greenewald et al., 2025, arXiv 2504.12397): what stands before is read without them. So they change neither how
a request is read nor which tool is chosen first, and the request's keys and values serve all. Experts say which toolset it is, in the
FFN; how values are taken from a request, what of it is done once calls were made, and what is said of a
result, is the same for all toolsets, and attention's work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agent_specializer.loragen.experts import LoraFactors
from agent_specializer.loragen.models import ATTENTION


@dataclass(frozen=True)
class ActivatedConfig:
    """`sizes`: (out, in) of each linear that carries the LoRA, the same in all layers."""

    rank: int
    alpha: float
    sizes: Mapping[str, tuple[int, int]]

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ActivatedConfig:
        sizes = {name: (int(out), int(inner)) for name, (out, inner) in data["sizes"].items()}
        if not sizes or not set(sizes) <= set(ATTENTION):
            raise ValueError(f"an activated LoRA is on {', '.join(ATTENTION)}, not on {', '.join(sizes)}")
        return ActivatedConfig(rank=int(data["rank"]), alpha=float(data["alpha"]), sizes=sizes)


class ActivatedLora(nn.Module):
    """Parameters: ``A[linear]`` (layers, rank, in), ``B[linear]`` (layers, out, rank). B starts at zero: nothing changes."""

    def __init__(self, config: ActivatedConfig, *, layers: int) -> None:
        super().__init__()
        self.config, self.layers, self.scale = config, layers, config.alpha / config.rank
        self.A = nn.ParameterDict(
            {name: torch.empty(layers, config.rank, inner) for name, (_, inner) in config.sizes.items()}
        )
        self.B = nn.ParameterDict(
            {name: torch.zeros(layers, out, config.rank) for name, (out, _) in config.sizes.items()}
        )
        for parameter in self.A.values():
            bound = math.sqrt(3 / parameter.shape[-1])
            nn.init.uniform_(parameter, -bound, bound)

    def factors(self, layer: int, linear: str) -> LoraFactors:
        """The LoRA of one linear in float32, the scale in B."""
        return LoraFactors(
            self.A[linear][layer].detach().float(), self.B[linear][layer].detach().float() * self.scale
        )

    def added(self, x: Tensor, layer: int, linear: str) -> Tensor:
        """``scale * B A x`` for `x` (batch, tokens, in), in its dtype; differentiable."""
        A, B = self.A[linear][layer].to(x.dtype), self.B[linear][layer].to(x.dtype)
        return (x @ A.T @ B.T) * self.scale
