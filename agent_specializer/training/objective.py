"""The loss: listwise over all choices, next-token on arguments and words, and LoRA-Gen's balance.

``L = CE(scores) + key_weight * CE(keys) + name_weight * CE(calibrated names) + L_LM(reply) + a * (std(G) / mean(G))^2``

A next-token loss alone teaches the generator next to nothing about a toolset: the contrast between the tools does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from agent_specializer.edge.attention import segment_masks
from agent_specializer.edge.choose import normaliser
from agent_specializer.loragen.features import left_over, words_of
from agent_specializer.loragen.models import cached, decoder, layers_dtype, logits
from agent_specializer.loragen.toolkeys import ABSENT, ChoiceHead
from agent_specializer.training.rows import IGNORE, Batch

KEY_WEIGHT, NAME_WEIGHT, BALANCE_WEIGHT = 0.5, 0.5, 0.01


@dataclass(frozen=True)
class Scores:
    """What one composition's rows came to; the row of the empty request, the last, is taken off.

    total, names: (rows, choices) float32; keys, left: (rows, tools), talk: (rows,), None without keys; reply_nll: mean over supervised tokens.
    """

    total: Tensor
    keys: Tensor | None
    left: Tensor | None
    talk: Tensor | None
    names: Tensor
    reply_nll: Tensor

    def renamed(self, head: ChoiceHead, batch: Batch, names: Tensor) -> Scores:
        """With `names` (rows that stand behind a call, choices) in these rows of `batch`."""
        called = batch.called[:-1]
        names = self.names.index_put((called,), names)
        total = head.combine(
            names,
            self.keys,
            self.talk,
            called,
            batch.made[:-1, :-1],
            left=self.left,
            answered=batch.answered[:-1],
        )
        return replace(self, names=names, total=total)


def score(
    model: nn.Module,
    head: ChoiceHead,
    batch: Batch,
    keys: Tensor,
) -> Scores:
    """Runs `batch` (the empty request being its last row) and scores every choice of every row.

    The adapter must be in force (`edge.pooled`), the same for all rows. `keys` (tools, vectors, key_dim), or
    empty.
    """
    device = batch.ids.device
    read = _read(model, batch, deep=bool(keys.numel()))
    calibrated, reply_out, targets = _scored(model, batch, read.last_hidden_state)
    asked = None
    if keys.numel() and head.query is not None:
        words = words_of(read.hidden_states)[:-1]
        place, (start, end) = torch.arange(batch.ids.shape[1], device=device), batch.turns[:-1].T[..., None]
        asked = head.read(words, (place >= start) & (place < end))
    nll = nn.functional.cross_entropy(reply_out, targets) if len(targets) else calibrated.sum() * 0
    return Scores(
        total=head(calibrated, asked, keys, batch.called[:-1], batch.made[:-1, :-1], batch.answered[:-1]),
        keys=None if asked is None else head.key_scores(asked, keys),
        left=None
        if asked is None
        else head.log_t.exp() * left_over(asked.vectors, keys, batch.made[:-1, :-1]),
        talk=None if asked is None else asked.talk,
        names=calibrated,
        reply_nll=nll,
    )


def calibrated_names(model: nn.Module, batch: Batch) -> Tensor:
    """`Scores.names` alone, (rows, choices), differentiable."""
    return _scored(model, batch, _read(model, batch, deep=False).last_hidden_state)[0]


def _scored(model: nn.Module, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of `states` (rows + 1, tokens, hidden): calibrated names; logits of what is supervised, and which of them are right."""
    device = states.device
    rows = torch.arange(len(batch.ids), device=device)
    fed = len(batch.tree.tokens)
    # Behind the prefix's last token, and behind each fed token of the tree: (rows, 1 + fed, hidden).
    at = batch.last[:, None] + torch.arange(fed + 1, device=device)
    tree_states = states[rows[:, None], at]
    row, column = (batch.targets != IGNORE).nonzero(as_tuple=True)
    targets = batch.targets[row, column]
    subset = normaliser(model.config.vocab_size, batch.tree.targets, targets).to(device)  # type: ignore[union-attr,arg-type]
    out = logits(model, torch.cat([tree_states.flatten(0, 1), states[row, column]]), subset)
    names_out, reply_out = out[: len(rows) * (fed + 1)], out[len(rows) * (fed + 1) :]
    per_row = names_out.view(len(rows), fed + 1, -1)
    logp = torch.stack([batch.tree.log_probabilities(one, subset) for one in per_row])
    return logp[:-1] - logp[-1:], reply_out, torch.searchsorted(subset, targets)


def _read(model: nn.Module, batch: Batch, *, deep: bool) -> Any:
    """What the body of `model` makes of the rows; `deep`: with the hidden states of all layers.

    A context is read once, and every row sees its keys and values. They have gradients: the adapter changes them, too.
    """
    body, rows, shared = decoder(model), len(batch.ids), len(batch.context)
    segments, positions = batch.segments, batch.positions
    keep: dict[str, Any] = {"use_cache": False}
    if shared:
        cache = DynamicCache()
        keep = cached(body, cache)
        body(input_ids=batch.context[None], **keep)
        cache.batch_repeat_interleave(rows)
        place = torch.arange(shared, device=segments.device).expand(rows, -1)
        segments = torch.cat([torch.zeros_like(place), segments], 1)
        positions = torch.cat([place, positions], 1)
    masks = segment_masks(
        model.config,
        segments,
        positions,
        queries=batch.ids.shape[1],
        dtype=layers_dtype(model),
    )
    return body(
        input_ids=batch.ids,
        attention_mask=masks,
        position_ids=batch.positions,
        output_hidden_states=deep,
        **keep,
    )


def listwise(scores: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of the right choices among all that are not excluded."""
    return nn.functional.cross_entropy(scores.masked_fill(batch.excluded[:-1], ABSENT), batch.gold[:-1])


def loss(scores: Scores, batch: Batch, *, opaque: bool = False) -> Tensor:
    """The loss of one composition without the balance term, which needs the gates of the whole step.

    `opaque` names say nothing: to score them would only teach the model to learn them by heart. There keys alone
    are told apart.
    """
    total = scores.reply_nll
    if scores.keys is not None:
        some = batch.gold[:-1] < scores.keys.shape[1]
        told = scores.keys.masked_fill(batch.excluded[:-1, :-1], ABSENT)
        of_tools = nn.functional.cross_entropy(told[some], batch.gold[:-1][some], reduction="sum")
        total = total + (1 + KEY_WEIGHT if opaque else KEY_WEIGHT) * of_tools / max(1, int(some.sum()))
    if not opaque:
        total = total + listwise(scores.total, batch) + NAME_WEIGHT * listwise(scores.names, batch)
    return total
