"""Tool keys: one small vector per tool, made from its description, that the edge's state is compared with.

An extension of LoRA-Gen. Gates steer how the edge model reads a request; they are too few to hold what each of dozens
of tools does. So every tool also gets a key from the frozen cloud LM's states over its own description, computed and
cached per tool: adding a tool to an agent costs that tool alone. At the place where a call's name would start, the edge's
last hidden state h is compared with all keys at once: ``t * cos(P h, k_i)`` is added to the name's calibrated
log-probability. As ``P^T k_i`` is a row of width `hidden`, a key is an added row of the edge's head: it merges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.loragen.models import ModelShape, decoder
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


def feature_layers(layers: int) -> tuple[int, ...]:
    """Depths whose mean states join the last one: the middle layers hold most of a text's meaning."""
    return (layers // 2, 3 * layers // 4, layers)


def feature_size(cloud: ModelShape) -> int:
    return cloud.hidden * (1 + len(feature_layers(cloud.layers)))


@torch.no_grad()
def tool_features(model: nn.Module, tokenizer: PreTrainedTokenizerBase, tools: list[ToolSpec]) -> Tensor:
    """Features (tools, feature_size) in float32 of the frozen model `model`, each tool in a pass of its own.

    One by one, so that a tool's features do not depend on what it is batched with.
    """
    device = next(model.parameters()).device
    cue = tokenizer(CUE, add_special_tokens=False).input_ids
    rows = []
    for tool in tools:
        body = tokenizer(key_text(tool)).input_ids[: MAX_TOKENS - len(cue)]
        ids = torch.tensor([body + cue], device=device)
        states = decoder(model)(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        parts = [states[-1][0, -1]] + [
            states[depth][0, 1 : len(body)].mean(0) for depth in feature_layers(len(states) - 1)
        ]
        rows.append(torch.cat([nn.functional.normalize(part.float(), dim=-1) for part in parts]))
    return torch.stack(rows) if rows else torch.empty(0, 0)


class ToolKeys(nn.Module):
    """Features to unit keys: a small MLP for tools, and one for answering in words, which sees the mean of all tools."""

    def __init__(self, features: int, *, width: int, key_dim: int) -> None:
        super().__init__()
        self.tool = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, key_dim))
        self.words = nn.Linear(key_dim, key_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(tools, features) to keys (tools + 1, key_dim) of length 1; the last is for answering in words."""
        keys = self.tool_keys(features)
        return torch.cat([keys, self.words_key(keys.mean(0, keepdim=True))])

    def tool_keys(self, features: Tensor) -> Tensor:
        """(..., features) to unit keys (..., key_dim), each tool by itself."""
        scale = features.shape[-1] ** 0.5 / 2  # four unit vectors side by side: about unit variance
        return nn.functional.normalize(self.tool(features * scale), dim=-1)

    def words_key(self, mean: Tensor) -> Tensor:
        """The unit key for answering in words, (..., key_dim), from the mean of the toolset's keys."""
        return nn.functional.normalize(self.words(mean), dim=-1)


class ChoiceHead(nn.Module):
    """How the scores of a choice add up: ``alpha * (log p - prior) + t * cos(P h, k)``, plus a bias for words.

    Without keys (`key_dim` 0) the second term is absent: the plain calibrated score of every baseline.
    """

    def __init__(self, hidden: int, key_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, key_dim, bias=False) if key_dim else None
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.log_t = nn.Parameter(torch.tensor(2.3))
        self.words_bias = nn.Parameter(torch.zeros(()))
        self.stop_bias = nn.Parameter(torch.zeros(()))
        """Stands for `words_bias` once a call was made: then "no tool" means that the calls are complete."""
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))
        """Divides the scores before the softmax that gives the confidence; fitted on a dev split."""

    def forward(
        self, calibrated: Tensor, state: Tensor, keys: Tensor, called: Tensor | bool = False
    ) -> Tensor:
        """Scores (batch, tools + 1) in nats.

        Args:
            calibrated: (batch, tools + 1), log-probability of each name minus its prior.
            state: (batch, hidden), the edge's last hidden state where the name would start.
            keys: (tools + 1, key_dim) or (batch, tools + 1, key_dim).
            called: (batch,) bool, whether this turn has made a call already.
        """
        scores = self.log_alpha.exp() * calibrated
        if self.query is not None and keys.numel():
            scores = scores + self.key_scores(state, keys)
        return scores + self.bias(scores, called)

    def bias(self, scores: Tensor, called: Tensor | bool = False) -> Tensor:
        """What is added to `scores` (batch, choices): nothing but the bias of the last choice, no tool."""
        already = torch.as_tensor(called, device=scores.device).expand(scores.shape[:-1])
        last = torch.where(already, self.stop_bias, self.words_bias)
        return torch.cat([torch.zeros_like(scores[..., :-1]), last[..., None]], dim=-1)

    def key_scores(self, state: Tensor, keys: Tensor) -> Tensor:
        """``t * cos(P h, k)``, (batch, tools + 1)."""
        q = self.queries(state)
        product = q @ keys.T if keys.dim() == 2 else torch.einsum("bd,bnd->bn", q, keys)
        return self.log_t.exp() * product

    def queries(self, state: Tensor) -> Tensor:
        """Unit queries (batch, key_dim) of states (batch, hidden)."""
        assert self.query is not None
        return nn.functional.normalize(self.query(state.float()), dim=-1)
