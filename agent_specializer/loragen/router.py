"""The router, per edge layer: ``R_i = BN(f2(SiLU(f1(T_i))))``, softmax, TOP-K, renormalise (LoRA-Gen, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SMALL_BATCH = 16
"""Below this many task descriptions a batch's own statistics say nothing: training, too, uses the running ones."""


class Router(nn.Module):
    """Meta states (batch, layers, hidden) to gates (batch, layers, experts); deterministic, no noise."""

    def __init__(self, *, layers: int, hidden: int, width: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.f1 = nn.Parameter(torch.randn(layers, hidden, width) / math.sqrt(hidden))
        self.b1 = nn.Parameter(torch.zeros(layers, width))
        self.f2 = nn.Parameter(torch.randn(layers, width, experts) / math.sqrt(width))
        self.bn_weight = nn.Parameter(torch.ones(layers, experts))
        self.bn_bias = nn.Parameter(torch.zeros(layers, experts))
        self.momentum = 0.05
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(layers, experts))
        self.register_buffer("running_var", torch.ones(layers, experts))

    def probabilities(self, states: Tensor) -> Tensor:
        """softmax(R_i), (batch, layers, experts), float32."""
        states = nn.functional.normalize(states.float(), dim=-1) * math.sqrt(states.shape[-1])
        x = torch.einsum("blh,lhw->blw", states, self.f1) + self.b1
        x = torch.einsum("blw,lwn->bln", nn.functional.silu(x), self.f2)
        return torch.softmax(self._batch_norm(x), dim=-1)

    def forward(self, states: Tensor) -> Tensor:
        """Gates: the TOP-K of the probabilities divided by their sum, all others zero."""
        p = self.probabilities(states)
        top, index = p.topk(self.top_k, dim=-1)
        return torch.zeros_like(p).scatter(-1, index, top / top.sum(-1, keepdim=True))

    def _batch_norm(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            batch_mean, batch_var = x.mean(0), x.var(0, unbiased=False)
            with torch.no_grad():
                # The spread around the running mean, so that batches of one or two still teach the variance.
                spread = (x - self.running_mean).square().mean(0) if len(x) < SMALL_BATCH else batch_var
                self.running_mean.lerp_(batch_mean.detach(), self.momentum)
                self.running_var.lerp_(spread.detach(), self.momentum)
            if len(x) >= SMALL_BATCH:
                mean, var = batch_mean, batch_var
            else:
                mean, var = self.running_mean.clone(), self.running_var.clone()
        return (x - mean) * torch.rsqrt(var + 1e-5) * self.bn_weight + self.bn_bias


def balance_loss(gates: Tensor) -> Tensor:
    """``(std / mean)^2`` of the gate mass that each expert receives in a batch (LoRA-Gen, section 3.4).

    `gates` (batch, layers, experts); averaged over layers.
    """
    mass = gates.sum(0)  # (layers, experts)
    return (mass.var(-1, unbiased=False) / mass.mean(-1).square().clamp_min(1e-12)).mean()
