"""Tool keys: one small vector per tool, made from its description, that what the edge made of the request is compared with.

An extension of LoRA-Gen. Gates steer how the edge model reads a request; they are too few to hold what each of dozens
of tools does. So every tool also gets a key from the frozen cloud LM's states over its own description, computed and
cached per tool: adding a tool to an agent costs that tool alone. Where a call's name would start, the edge's states over
the request make a query, and ``t * cos(query, key)`` is added to the name's calibrated log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.loragen.features import Projection, averages, join
from agent_specializer.loragen.models import decoder
from agent_specializer.specs import ToolSpec

MAX_TOKENS = 112
"""Tokens of a tool's key text that are read; the rest is cut before the closing cue."""
CUE = '\nA user who needs this tool says: "'
"""Makes the last state a prediction of the request, the thing that a key is compared with."""


def key_text(tool: ToolSpec) -> str:
    """What the key is made from: description, and the parameters' names and descriptions.

    Not the name: the edge scores it itself, so a key adds most by saying what the name does not, and works as well
    where names say nothing. Only a tool without a description has its name read.
    """
    parameters = [
        f"{name} ({sub.get('description', '')})" if isinstance(sub, dict) and sub.get("description") else name
        for name, sub in (tool.parameters.get("properties") or {}).items()
    ]
    text = f"Tool: {' '.join(tool.description.split()) or tool.name}"
    return f"{text}\nTakes: {', '.join(parameters)}" if parameters else text


@torch.no_grad()
def tool_features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, tools: Sequence[ToolSpec], *, batch: int = 1
) -> Tensor:
    """Features (tools, feature_size) in float32 of the frozen model `model`.

    `batch`: tools per pass. One by one, what a tool gets does not depend on its neighbours; more is for training, where
    the last bits do not matter.
    """
    device = next(model.parameters()).device
    cue = tokenizer(CUE, add_special_tokens=False).input_ids
    bodies = [tokenizer(key_text(tool)).input_ids[: MAX_TOKENS - len(cue)] for tool in tools]
    order = sorted(range(len(tools)), key=lambda index: len(bodies[index]))
    rows: dict[int, Tensor] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(bodies[i] + cue) for i in some], batch_first=True)
        spans = torch.tensor([[1, len(bodies[i])] for i in some])
        seen = (torch.arange(ids.shape[1]) < spans[:, 1:] + len(cue)).long()
        states = decoder(model)(
            input_ids=ids.to(device),
            attention_mask=seen.to(device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        last = states[-1][torch.arange(len(some)), seen.sum(1) - 1]
        rows |= dict(zip(some, join(last, averages(states, spans)), strict=True))
    return torch.stack([rows[index] for index in range(len(tools))]) if rows else torch.empty(0, 0)


class ToolKeys(nn.Module):
    """Features to unit keys: one network for tools, and one for answering in words, which sees the mean of all tools."""

    def __init__(self, features: int, *, width: int, key_dim: int) -> None:
        super().__init__()
        self.tool = Projection(features, width=width, size=key_dim)
        self.words = nn.Linear(key_dim, key_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(tools, features) to keys (tools + 1, key_dim) of length 1; the last is for answering in words."""
        keys = self.tool(features)
        return torch.cat([keys, self.words_key(keys.mean(0, keepdim=True))])

    def words_key(self, mean: Tensor) -> Tensor:
        """The unit key for answering in words, (..., key_dim), from the mean of the toolset's keys."""
        return nn.functional.normalize(self.words(mean), dim=-1)


class ChoiceHead(nn.Module):
    """How the scores of a choice add up: ``alpha * (log p - prior) + t * cos(q, k)``, plus a bias for words.

    q is what `query` makes of the request's features. Without keys (`key_dim` 0) the second term is absent: the plain
    calibrated score of every baseline.
    """

    def __init__(self, features: int, key_dim: int, *, width: int = 256) -> None:
        super().__init__()
        self.query = Projection(features, width=width, size=key_dim) if key_dim else None
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.log_t = nn.Parameter(torch.tensor(2.3))
        self.words_bias = nn.Parameter(torch.zeros(()))
        self.stop_bias = nn.Parameter(torch.zeros(()))
        """Stands for `words_bias` once a call was made: then "no tool" means that the calls are complete."""
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))
        """Divides the scores before the softmax that gives the confidence; fitted on a dev split."""

    def forward(
        self, calibrated: Tensor, request: Tensor | None, keys: Tensor, called: Tensor | bool = False
    ) -> Tensor:
        """Scores (batch, tools + 1) in nats.

        Args:
            calibrated: (batch, tools + 1), log-probability of each name minus its prior.
            request: (batch, features), what the edge made of the request; None where there are no keys.
            keys: (tools + 1, key_dim) or (batch, tools + 1, key_dim).
            called: (batch,) bool, whether this turn has made a call already.
        """
        scores = self.log_alpha.exp() * calibrated
        if self.query is not None and request is not None and keys.numel():
            scores = scores + self.key_scores(request, keys)
        return scores + self.bias(scores, called)

    def bias(self, scores: Tensor, called: Tensor | bool = False) -> Tensor:
        """What is added to `scores` (batch, choices): nothing but the bias of the last choice, no tool."""
        already = torch.as_tensor(called, device=scores.device).expand(scores.shape[:-1])
        last = torch.where(already, self.stop_bias, self.words_bias)
        return torch.cat([torch.zeros_like(scores[..., :-1]), last[..., None]], dim=-1)

    def key_scores(self, request: Tensor, keys: Tensor) -> Tensor:
        """``t * cos(q, k)``, (batch, tools + 1)."""
        q = self.queries(request)
        product = q @ keys.T if keys.dim() == 2 else torch.einsum("bd,bnd->bn", q, keys)
        return self.log_t.exp() * product

    def queries(self, request: Tensor) -> Tensor:
        """Unit queries (batch, key_dim) of the features of requests (batch, features)."""
        assert self.query is not None
        queries: Tensor = self.query(request)
        return queries
