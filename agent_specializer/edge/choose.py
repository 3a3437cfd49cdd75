"""Which tool: all names are scored at once behind the shared request, calibrated by their prior.

Greedy decoding of a name picks whatever starts with a likely token. Here every choice (each tool's name, and `none` for
answering in words) is one continuation of the request in a single pass with segment attention. Its score is its
log-probability minus that of the same name after an empty request, plus what the adapter's keys say (`ChoiceHead`).

Log-probabilities are normalised over the `COMMON` most frequent tokens of the vocabulary and the tokens of the names:
a softmax over all 262,144 rows of Gemma's head costs more than the model's body and moves each score by nearly the
same amount with and without the request, so that the calibrated difference hardly changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.transcript import label
from agent_specializer.loragen.models import head_weight, logits

COMMON = 16384
"""Tokens that always belong to the normaliser. Byte-pair vocabularies number their tokens by frequency."""


@dataclass(frozen=True)
class Branches:
    """Several continuations of one prefix as one flat run of tokens, a segment each: none sees another.

    Attributes:
        tokens: (fed,) ids; segments: (fed,) from 1; depths: (fed,) from 0, the distance from the prefix.
    """

    tokens: Tensor
    segments: Tensor
    depths: Tensor

    @staticmethod
    def of_tokens(runs: Sequence[Sequence[int]]) -> Branches:
        """A branch of each of `runs`, none of which is empty."""
        return Branches(
            tokens=torch.tensor([token for run in runs for token in run]),
            segments=torch.tensor([branch for branch, run in enumerate(runs, 1) for _ in run]),
            depths=torch.tensor([depth for run in runs for depth in range(len(run))]),
        )

    @property
    def ends(self) -> Tensor:
        """(branches,) index of the last token of each."""
        return (self.segments.diff(append=torch.tensor([0])) != 0).nonzero().flatten()


@dataclass(frozen=True)
class NameTree(Branches):
    """The labels of all choices.

    A label's last token is scored but not fed: nothing follows it here.

    Attributes:
        labels: token ids of each choice's label, the last choice being `none`.
        sources: (scored,) which state predicts a token: 0 is the prefix's last, i + 1 the i-th fed token's.
        targets: (scored,) the tokens predicted; owners: (scored,) the choice each belongs to.
    """

    labels: tuple[tuple[int, ...], ...]
    sources: Tensor
    targets: Tensor
    owners: Tensor

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> NameTree:
        """The tree of the tools `names` and `none`."""
        labels = [tokenizer(label(name), add_special_tokens=False).input_ids for name in (*names, None)]
        tokens: list[int] = []
        segments: list[int] = []
        depths: list[int] = []
        sources: list[int] = []
        owners: list[int] = []
        for choice, ids in enumerate(labels):
            sources += [0] + [len(tokens) + i + 1 for i in range(len(ids) - 1)]
            owners += [choice] * len(ids)
            tokens += ids[:-1]
            segments += [choice + 1] * (len(ids) - 1)
            depths += range(len(ids) - 1)
        as_tensor = torch.tensor
        return NameTree(
            labels=tuple(map(tuple, labels)),
            tokens=as_tensor(tokens),
            segments=as_tensor(segments),
            depths=as_tensor(depths),
            sources=as_tensor(sources),
            targets=as_tensor([token for ids in labels for token in ids]),
            owners=as_tensor(owners),
        )

    @property
    def choices(self) -> int:
        return len(self.labels)

    def log_probabilities(self, logits: Tensor, subset: Tensor) -> Tensor:
        """Log-probability of each choice, (choices,), in nats.

        Args:
            logits: (1 + fed, subset) float32: behind the prefix's last token, then behind each fed token.
            subset: (subset,) sorted token ids that the logits stand for; holds all `targets`.
        """
        columns = torch.searchsorted(subset, self.targets.to(subset.device))
        scored = torch.log_softmax(logits, dim=-1)[self.sources.to(logits.device), columns]
        return torch.zeros(self.choices, device=logits.device).index_add(
            0, self.owners.to(logits.device), scored
        )


def common_logits(
    model: nn.Module, states: Tensor, wanted: Tensor, common: int = COMMON
) -> tuple[Tensor, Tensor]:
    """Logits of `states` (states, hidden) for the `common` most frequent tokens and those in `wanted`, (states, subset) float32;
    and which tokens they are, (subset,) sorted."""
    # The common tokens are the first rows of the head: a view. Only the others' rows are gathered.
    common = min(common, head_weight(model).shape[0])
    rare = torch.unique(wanted[wanted >= common]).to(states.device)
    scored = logits(model, states, slice(0, common))
    if len(rare):
        scored = torch.cat([scored, logits(model, states, rare)], -1)
    return scored, torch.cat([torch.arange(common, device=states.device), rare])


def normaliser(vocabulary: int, *needed: Tensor) -> Tensor:
    """Sorted ids of the tokens over which probabilities are normalised: the common ones and all in `needed`."""
    common = torch.arange(min(COMMON, vocabulary))
    return torch.unique(torch.cat([common, *(ids.reshape(-1).cpu() for ids in needed)]))
