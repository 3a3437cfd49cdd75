"""The second stage: tool keys and needs fitted on a bank of requests that are read once.

With experts and router trained, what the edge makes of a request and the cloud of a tool are fixed vectors. They are computed
once; the small networks that compare them (`ToolKeys`, those of `ChoiceHead`) see every request against its own toolset and many
tools of others, for a few epochs, in a minute. What then adds them up is fitted in `training.calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.loragen.features import start_alike
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys
from agent_specializer.training.bank import ABSENT, Bank, Read, chosen, key_scores, need_loss

if TYPE_CHECKING:
    pass

FOREIGN = 96
"""Tools of other toolsets that each request is told apart from, besides its own toolset's."""
TAKEN_AWAY = 0.3
"""Of requests that need a tool, how many are shown without it: then answering in words is right."""
STRANGE = 0.1
"""Of requests, how many are asked of another request's toolset: there, too, answering in words is right."""
NEED_WEIGHT = 1.0
BATCH = 256
MIN_CYCLE = 20
"""Steps below which the one-cycle schedule has no place for its phases."""


def fit(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    read: Read,
    *,
    epochs: int,
    seed: int,
    alike: bool,
    start: bool,
    lr: float = 1e-3,
) -> None:
    """Fit keys and queries on `bank`, listwise, then needs; with dropout on both sides' features against learning by heart.

    Needs get half the epochs and half the rate: with more they know the training tools' parameters by heart.

    Args:
        start: begin with projections made from the features; otherwise with those that are there.
        alike: tools and requests were read by the same network, so that both projections can start as one map.
    """
    generator = torch.Generator().manual_seed(seed)
    assert head.query is not None
    if start:
        if alike:
            start_alike(keys.tool, head.query, bank.tools, read.features)
        _start_needs(keys, head, bank, read)

    def choosing(rows: Tensor) -> Tensor:
        return choice_loss(keys, head, bank, rows, read.features[rows], generator, dropout=0.1)

    def needing(rows: Tensor) -> Tensor:
        return need_loss(keys, head, bank, rows, chosen(read, rows), dropout=0.1)

    torch.manual_seed(seed)
    parameters = [*keys.tool.parameters(), *keys.words.parameters(), *head.query.parameters(), head.log_t]
    _descend(choosing, parameters, torch.arange(len(bank)), epochs=epochs, lr=lr, generator=generator)
    if head.found is not None:
        parameters = [*keys.need.parameters(), *head.found.parameters(), head.need_t, head.need_bias]
        known = (bank.asked >= 0).any(1).nonzero().flatten()
        _descend(needing, parameters, known, epochs=max(1, epochs // 2), lr=lr / 2, generator=generator)


def _descend(
    loss_of: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    rows: Tensor,
    *,
    epochs: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """AdamW on `loss_of` batches of `rows`, each once an epoch, the rate rising and falling once."""
    if not len(rows):
        return
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(steps, MIN_CYCLE), pct_start=0.1
    )
    for _ in range(epochs):
        for some in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            loss = loss_of(some)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()


def choice_loss(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    rows: Tensor,
    requests: Tensor,
    generator: torch.Generator,
    *,
    foreign: int = FOREIGN,
    dropout: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of the right choices of `rows`, of features `requests`, some of them without their tool."""
    words = bank.candidates.shape[1]
    others = torch.randint(len(bank.tools), (foreign,), generator=generator)
    gold, excluded, candidates = bank.gold[rows], bank.excluded[rows].clone(), bank.candidates[rows].clone()
    fate = torch.rand(len(rows), generator=generator)
    # Where other calls would be right too the request still has its tools.
    alone = (gold < words) & ~excluded.any(1)
    taken = alone & (fate < TAKEN_AWAY)
    excluded[taken, gold[taken]] = True
    neighbour = torch.randperm(len(rows), generator=generator)
    related = (_kin(bank, candidates) & _kin(bank, candidates[neighbour])).any(1)
    strange = (fate > 1 - STRANGE) & ~related & ~_share(candidates, candidates[neighbour])
    candidates = torch.where(strange[:, None], candidates[neighbour], candidates)
    excluded &= ~strange[:, None]
    gold = torch.where(taken | strange, words, gold)
    scores = key_scores(
        keys,
        head,
        bank,
        rows,
        requests,
        foreign=others,
        excluded=excluded,
        candidates=candidates,
        dropout=dropout,
    )
    gold = gold.to(scores.device)
    # Words are not told apart from foreign tools: of those, many would fit the request.
    beyond = scores[:, words + 1 :].masked_fill(gold[:, None] == words, ABSENT)
    return nn.functional.cross_entropy(torch.cat([scores[:, : words + 1], beyond], 1), gold)


def _kin(bank: Bank, candidates: Tensor) -> Tensor:
    """(rows, families), which services the toolsets are of."""
    return (bank.kin[candidates.clamp_min(0)] & (candidates >= 0)[..., None]).any(1)


def _share(one: Tensor, other: Tensor) -> Tensor:
    """(rows,), whether two rows of candidates have a tool in common."""
    return ((one[:, :, None] == other[:, None, :]) & (one >= 0)[:, :, None]).any((1, 2))


@torch.no_grad()
def _start_needs(keys: ToolKeys, head: ChoiceHead, bank: Bank, read: Read) -> None:
    if head.found is None:
        return
    keys.need.mean.copy_(bank.parameters.mean(0))
    some = chosen(read, torch.arange(0, len(bank), max(1, len(bank) // 2000)))
    head.found.mean.copy_(some.words[some.inside].mean(0))


@torch.no_grad()
def key_accuracy(keys: ToolKeys, head: ChoiceHead, bank: Bank, read: Read) -> dict[str, float]:
    """Of the requests that need a tool, the share whose best key is the right one (words aside); of all, with words; and how
    well needs are told: the share of right answers, those that are there and those that are not counting alike."""
    rows = torch.arange(len(bank))
    scores = torch.cat([key_scores(keys, head, bank, r, read.features[r]) for r in rows.split(512)])
    words = bank.candidates.shape[1]
    need = bank.gold != words
    found = {
        "tool": float((scores[need, :words].argmax(-1) == bank.gold[need]).float().mean()),
        "choice": float((scores.argmax(-1) == bank.gold).float().mean()),
    }
    if head.found is not None:
        hits: list[list[Tensor]] = [[], []]
        for r in rows.split(256):
            some, asked = chosen(read, r), bank.asked[r]
            logits = head.evidence(some.words, some.inside, keys.need(bank.parameters[asked.clamp_min(0)]))
            for label in (0, 1):
                mine = (asked >= 0) & (bank.filled[r] == label)
                hits[label].append((logits[mine] > 0) == bool(label))
        shares = [float(torch.cat(h).float().mean()) for h in hits if sum(map(len, h))]
        found["needs"] = sum(shares) / max(1, len(shares))
    return found
