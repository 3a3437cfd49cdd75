"""Segment attention: several continuations of one shared prefix in one forward pass (tree attention).

A sequence holds a prefix (segment 0) and continuations (segments 1, 2, ...) side by side. A token sees the prefix and
the earlier tokens of its own segment, and carries the position it would have if its continuation stood alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAD = -1
"""The segment of padding."""


def segment_masks(
    config: Any, segments: Tensor, positions: Tensor, *, queries: int, dtype: torch.dtype
) -> Any:
    """What to pass as `attention_mask` so that the last `queries` tokens attend by segment.

    Args:
        config: of the Hugging Face model; models with sliding-window layers get one mask per kind of layer.
        segments: (batch, tokens) int64, of cached and new tokens together; PAD for padding.
        positions: (batch, tokens) int64, each token's position.
        queries: how many tokens at the end are new.

    Returns:
        (batch, 1, queries, tokens) in `dtype`, 0 where attention is allowed, or a dict of two such masks.
    """
    tokens = segments.shape[1]
    index = torch.arange(tokens, device=segments.device)
    query = index[-queries:]
    causal = index[None, :] <= query[:, None]  # (queries, tokens)
    own = segments[:, None, :] == segments[:, -queries:, None]  # (batch, queries, tokens)
    seen = causal & (own | (segments[:, None, :] == 0))
    seen |= index[None, :] == query[:, None]  # padding sees itself, or softmax has nothing to sum
    full = _additive(seen, dtype)
    kinds = set(getattr(config, "layer_types", None) or ())
    if "sliding_attention" not in kinds:
        return full
    near = positions[:, -queries:, None] - positions[:, None, :] < config.sliding_window
    return {"full_attention": full, "sliding_attention": _additive(seen & near, dtype)}


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )[:, None]
