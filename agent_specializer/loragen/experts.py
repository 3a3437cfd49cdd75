"""The expert pool: per edge layer, n LoRA experts on the FFN's gate, up and down linears (LoRA-Gen, section 3.2).

Products are mixed, not factors: ``dW = (alpha / r) * sum_j G_j B_j A_j``. That is linear in the gates and exactly of
rank K * r, so a toolset's LoRA is the experts' A and B concatenated, with B scaled by the gates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent_specializer.loragen.models import LINEARS, ModelShape


@dataclass(frozen=True)
class LoraFactors:
    """A LoRA of one linear: ``dW = B @ A``; A (rank, in), B (out, rank), the scale already in B."""

    A: Tensor
    B: Tensor

    @property
    def delta(self) -> Tensor:
        """dW, (out, in), in the factors' dtype."""
        return self.B @ self.A

    def merged_into(
        self, weight: Tensor, *, out: Tensor | None = None, scratch: Tensor | None = None
    ) -> Tensor:
        """``W + dW`` in the dtype of `weight` (out, in), which stays as it is: summed in float32, rounded once.

        Args:
            out: like `weight`, to write the result to. scratch: (out, in) float32, to sum in: memory that was written
                before is twice as fast as new pages.

        Raises:
            OverflowError: a sum is not finite in that dtype.
        """
        A, B = self.A.detach().to(weight.device), self.B.detach().to(weight.device)
        total = torch.empty_like(weight, dtype=torch.float32) if scratch is None else scratch
        total.copy_(weight.detach()).addmm_(B, A)
        low, high = total.aminmax()
        limit = torch.finfo(weight.dtype).max
        if not (-limit <= low and high <= limit):  # false for NaN, too
            raise OverflowError("W + dW is not finite")
        return (torch.empty_like(weight) if out is None else out).copy_(total)


class ExpertPool(nn.Module):
    """n experts per layer. Parameters: ``A[linear]`` (layers, n, rank, in), ``B[linear]`` (layers, n, out, rank).

    B starts at zero, so a fresh pool leaves the edge model as it is.
    """

    def __init__(
        self, edge: ModelShape, *, experts: int, rank: int, alpha: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers, self.experts, self.rank, self.scale, self.dropout = (
            edge.layers,
            experts,
            rank,
            alpha / rank,
            dropout,
        )
        sizes = {
            name: (edge.ffn, edge.hidden) if name != "down_proj" else (edge.hidden, edge.ffn)
            for name in LINEARS
        }
        self.A = nn.ParameterDict(
            {name: torch.empty(edge.layers, experts, rank, size_in) for name, (_, size_in) in sizes.items()}
        )
        self.B = nn.ParameterDict(
            {name: torch.zeros(edge.layers, experts, size_out, rank) for name, (size_out, _) in sizes.items()}
        )
        for parameter in self.A.values():
            nn.init.uniform_(
                parameter, -math.sqrt(3 / parameter.shape[-1]), math.sqrt(3 / parameter.shape[-1])
            )

    def stacked(self, layer: int, linear: str) -> tuple[Tensor, Tensor]:
        """All experts of one linear side by side: A (n * rank, in), B (out, n * rank), unscaled."""
        B = self.B[linear][layer]  # (n, out, rank)
        return self.A[linear][layer].flatten(0, 1), B.permute(1, 0, 2).flatten(1)

    def lora(self, gates: Tensor) -> dict[tuple[int, str], LoraFactors]:
        """The LoRA of `gates` (layers, n): for each (layer, linear) the factors of the experts with a gate above 0."""
        self.check(gates)
        factors: dict[tuple[int, str], LoraFactors] = {}
        for layer in range(self.layers):
            chosen = gates[layer].nonzero().flatten()
            weight = gates[layer, chosen] * self.scale  # (k,)
            for linear in LINEARS:
                A = self.A[linear][layer, chosen].float()  # (k, rank, in)
                B = self.B[linear][layer, chosen].float() * weight[:, None, None]  # (k, out, rank)
                factors[layer, linear] = LoraFactors(A.flatten(0, 1), B.permute(1, 0, 2).flatten(1))
        return factors

    def apply_gated(self, x: Tensor, layer: int, linear: str, gates: Tensor) -> Tensor:
        """``B_pool (g_row * (A_pool x))`` for `x` (batch, tokens, in) and each row's own `gates` (batch, n)."""
        A, B = self.stacked(layer, linear)
        if self.dropout and self.training:
            x = nn.functional.dropout(x, self.dropout)
        g = (gates * self.scale).repeat_interleave(self.rank, dim=-1).to(x.dtype)  # (batch, n * rank)
        return ((x @ A.to(x.dtype).T) * g[:, None, :]) @ B.to(x.dtype).T

    def check(self, gates: Tensor) -> None:
        """AdapterError unless `gates` is (layers, experts)."""
        from agent_specializer.errors import AdapterError

        if tuple(gates.shape) != (self.layers, self.experts):
            raise AdapterError(
                f"these gates are {tuple(gates.shape)}, the expert pool is (layers, experts) = {(self.layers, self.experts)}",
                hint="the adapter was made by another generator: specialise the agent again",
            )
