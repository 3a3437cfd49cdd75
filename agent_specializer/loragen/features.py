"""What a text says, word by word: a unit vector per token, and how much each counts.

Tools (read by the cloud LM) and requests (read by the edge) are described in the same way. Where both are one network the
two are alike before anything is trained: comparing them word by word (late interaction, as in ColBERT, Khattab and Zaharia
2020) finds more of the unseen tools than comparing one averaged vector of each does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def words_of(hidden_states: Sequence[Tensor]) -> Tensor:
    """What a model makes of each token, (..., tokens, hidden) in float32, of length 1.

    Its state at eight ninths of the depth: above, it turns into a guess at the next token.
    """
    layers = len(hidden_states) - 1
    return nn.functional.normalize(hidden_states[8 * layers // 9].float(), dim=-1)


class Projection(nn.Module):
    """What a model makes of a token to a unit vector of another width: a linear map."""

    mean: Tensor

    def __init__(self, hidden: int, *, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden))
        self.linear = nn.Linear(hidden, size, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        """(..., hidden) of `words_of` to (..., size), of length 1."""
        return nn.functional.normalize(self.linear(self.centred(words)), dim=-1)

    def centred(self, words: Tensor) -> Tensor:
        """`words` without their mean, of about unit variance."""
        return (words - self.mean) * self.mean.shape[0] ** 0.5


class WordByWord(nn.Module):
    """What a model makes of a text to its vectors, one per token. A vector's length is what its token weighs in the text: a
    text's weights sum to 1, and a token that is not there is zero."""

    def __init__(self, hidden: int, *, size: int) -> None:
        super().__init__()
        self.unit = Projection(hidden, size=size)
        self.weight = nn.Linear(hidden, 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    def forward(self, words: Tensor, inside: Tensor) -> Tensor:
        """(..., tokens, hidden) of `words_of` to (..., tokens, size); `inside` (..., tokens) bool says which are there."""
        weights = nn.functional.softplus(self.weight(self.unit.centred(words))[..., 0]) * inside
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(TINY)
        vectors: Tensor = self.unit(words) * weights[..., None]
        return vectors


TINY = 1e-9


def likeness(request: Tensor, tools: Tensor, back: Tensor) -> Tensor:
    """How alike a request and each tool are, word by word, (rows, tools), from -1 to 1.

    Each word of the request is compared with the tool's word that is most like it, and the other way round; of the two sums
    the latter weighs `back` as much.

    Args:
        request: (rows, words, size), tools: (tools, words, size) or (rows, tools, words, size), as `WordByWord` gives them.
    """
    asked, own = request.norm(dim=-1), tools.norm(dim=-1)
    alike = _alike(request, tools)
    to_tool = alike.amax(-1)  # (rows, words, tools)
    to_request = alike.masked_fill(~(asked > 0)[:, :, None, None], -1.0).amax(1)  # (rows, tools, words)
    forth = torch.einsum("bq,bqt->bt", asked, to_tool)
    return (forth + back * (own * to_request).sum(-1)) / (1 + back)


def left_over(request: Tensor, tools: Tensor, made: Tensor) -> Tensor:
    """What the tools `made` leave of a request to each other tool, (rows, tools), from 0 to 2.

    Of every word of the request, how much more like it a tool's best word is than the best of all tools that were called. Only
    words that are there count; of a request that nothing was called for, nothing is left over.

    Args:
        request, tools: as in `likeness`. made: (rows, tools) bool, which were called.
    """
    to_tool = _alike(request, tools).amax(-1)
    explained = to_tool.masked_fill(~made[:, None], -1.0).amax(-1, keepdim=True)
    left = torch.einsum("bq,bqt->bt", request.norm(dim=-1), (to_tool - explained).clamp_min(0))
    return left * (made.any(1, keepdim=True) & ~made)


def _alike(request: Tensor, tools: Tensor) -> Tensor:
    """Cosines of each word of a request and each of a tool, (rows, words, tools, tool's words); -1 where the tool has none."""
    asked, own = request.norm(dim=-1), tools.norm(dim=-1)
    x, y = request / asked.clamp_min(TINY)[..., None], tools / own.clamp_min(TINY)[..., None]
    form = "bqd,tkd->bqtk" if tools.dim() == 3 else "bqd,btkd->bqtk"
    there = (own > 0)[None, None] if tools.dim() == 3 else (own > 0)[:, None]
    return torch.einsum(form, x, y).masked_fill(~there, -1.0)


@torch.no_grad()
def start_alike(tools: Projection, requests: Projection, of_tools: Tensor, of_requests: Tensor) -> None:
    """Start both projections as the same map: the half-whitened principal directions of the tokens.

    Args:
        of_tools, of_requests: (tokens, hidden) of training tools and requests, of models of one width.
    """
    for projection, words in ((tools, of_tools), (requests, of_requests)):
        projection.mean.copy_(words.mean(0))
    centred = torch.cat([of_tools - of_tools.mean(0), of_requests - of_requests.mean(0)]).float()
    values, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    size = min(tools.linear.out_features, centred.shape[1])
    values, directions = values.flip(0)[:size], directions.flip(1)[:, :size]
    start = (directions * (values + 0.1 * values.mean()).pow(-0.25)).T
    start = start / start.norm() * size**0.5
    for projection in (tools, requests):
        projection.linear.weight.zero_()
        projection.linear.weight[:size] = start
