"""What a text says, as a vector: a model's states averaged over the text at a few depths, and its last state.

Tools (read by the cloud LM) and requests (read by the edge) are described in the same way. Where both are one network
the two are alike before anything is trained: the cosine of the averages at the second depth, means taken off, finds
the right one of 12 unseen tools for two requests in three.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def depths(layers: int) -> tuple[int, int, int]:
    """Numbers of the hidden states that are averaged, of a model of `layers` layers; the upper ones hold the meaning."""
    return (7 * layers // 9, 8 * layers // 9, layers)


MAIN = 1
"""Which of the averages means most by itself: that at the second of the `depths`."""


def feature_size(hidden: int) -> int:
    """Width of the features that a model of width `hidden` gives."""
    return 4 * hidden


def span_size(hidden: int) -> int:
    """Width of the averages over a span, one behind the other."""
    return 3 * hidden


def words_of(hidden_states: Sequence[Tensor]) -> Tensor:
    """What a model makes of each token, (..., tokens, hidden) in float32, of length 1: its state at the second depth."""
    chosen = depths(len(hidden_states) - 1)[MAIN]
    return nn.functional.normalize(hidden_states[chosen].float(), dim=-1)


def averages(hidden_states: Sequence[Tensor], spans: Tensor) -> Tensor:
    """States averaged over a span of tokens, (rows, 3, hidden) in float32.

    Args:
        hidden_states: of the embedding and each layer, (rows, tokens, hidden) each.
        spans: (rows, 2), first token and the one behind the last.
    """
    chosen = depths(len(hidden_states) - 1)
    place = torch.arange(hidden_states[0].shape[1], device=hidden_states[0].device)
    spans = spans.to(place.device)
    inside = ((place >= spans[:, :1]) & (place < spans[:, 1:])).float()  # (rows, tokens)
    inside = inside / inside.sum(1, keepdim=True).clamp_min(1)
    return torch.stack([torch.einsum("bt,bth->bh", inside, hidden_states[d].float()) for d in chosen], 1)


def join(last: Tensor, averaged: Tensor) -> Tensor:
    """Features (..., feature_size) of the `last` states (..., hidden) and the averages (..., 3, hidden)."""
    parts = torch.cat([last.float()[..., None, :], averaged], dim=-2)
    return nn.functional.normalize(parts, dim=-1).flatten(-2)


class Projection(nn.Module):
    """Features to unit vectors: a linear map that can start from principal directions, and an MLP that starts at zero."""

    mean: Tensor

    def __init__(self, features: int, *, width: int, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.linear = nn.Linear(features, size, bias=False)
        self.hidden = nn.Linear(features, width)
        self.out = nn.Linear(width, size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., features) to (..., size), of length 1."""
        x = (features - self.mean) * SCALE
        return nn.functional.normalize(self.linear(x) + self.out(nn.functional.gelu(self.hidden(x))), dim=-1)


SCALE = 15.0
"""Brings what is left of four unit vectors without their mean to about unit variance."""


@torch.no_grad()
def start_alike(tools: Projection, requests: Projection, of_tools: Tensor, of_requests: Tensor) -> None:
    """Start both projections as the same map: the half-whitened principal directions of the main averages.

    Args:
        of_tools, of_requests: features (n, features) of training tools and requests, of models of one width.
    """
    hidden = of_tools.shape[1] // 4
    main = slice((1 + MAIN) * hidden, (2 + MAIN) * hidden)
    for projection, features in ((tools, of_tools), (requests, of_requests)):
        projection.mean.copy_(features.mean(0))
    centred = torch.cat([of_tools - of_tools.mean(0), of_requests - of_requests.mean(0)])[:, main].float()
    values, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    size = min(tools.linear.out_features, hidden)
    values, directions = values.flip(0)[:size], directions.flip(1)[:, :size]
    start = (directions * (values + 0.1 * values.mean()).pow(-0.25)).T
    start = start / start.norm() * size**0.5
    for projection in (tools, requests):
        projection.linear.weight.zero_()
        projection.linear.weight[:size, main] = start
