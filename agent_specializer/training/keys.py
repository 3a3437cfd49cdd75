"""The second stage: tool keys and needs fitted on a bank of requests that are read once.

With experts and router trained, what the edge makes of a request and the cloud of a tool are fixed vectors. They are computed
once; the small networks that compare them (`ToolKeys`, those of `ChoiceHead`) see every request against its own toolset and many
tools of others, for a few epochs, in a minute. Last, the few scalars that add names, keys and needs up are fitted on rows of held-out
families scored in full, and so is the temperature of the confidence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.loragen.features import start_alike
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys
from agent_specializer.training.bank import ABSENT, Bank, Read, chosen, key_scores, need_loss
from agent_specializer.training.data import Composition

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

FOREIGN = 96
"""Tools of other toolsets that each request is told apart from, besides its own toolset's."""
TAKEN_AWAY = 0.3
"""Of requests that need a tool, how many are shown without it: then answering in words is right."""
STRANGE = 0.1
"""Of requests, how many are asked of another request's toolset: there, too, answering in words is right."""
NEED_WEIGHT = 1.0


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
    """Fit keys, queries and needs on `bank`, listwise, with dropout on both sides' features against learning it by heart.

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
    parameters = [*keys.parameters(), *head.query.parameters(), head.log_t, head.need_t, head.need_bias]
    if head.found is not None:
        parameters += head.found.parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    size = 256
    steps = epochs * (len(bank) // size + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(bank), generator=generator).split(size):
            some = chosen(read, rows)
            loss = choice_loss(keys, head, bank, rows, some.features, generator, dropout=0.1)
            loss = loss + NEED_WEIGHT * need_loss(keys, head, bank, rows, some, dropout=0.1)
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


# Scalars ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A composition's rows, scored: calibrated names, cosines of keys (rows, choices), completeness and what was
    called already (rows, tools), and what is right. weight: (rows,)."""

    names: Tensor
    keys: Tensor | None
    complete: Tensor | None
    excluded: Tensor
    gold: Tensor
    called: Tensor
    made: Tensor
    weight: Tensor


def calibrate(trainer: Trainer, compositions: Sequence[Composition]) -> dict[str, float]:
    """Fit the scalars that add names, keys and needs up (alpha, t, ask, the biases of no tool) on rows scored in full.

    `compositions` must be of families that nothing was trained on: on those that were, keys are nearly always right,
    and the scalars would trust them too much. Requests that need a call and those that do not weigh alike; as many
    as there are of the former are shown once more without their tool.
    """
    head = trainer.generator.head
    parts = _balanced([_scored(trainer, each, number) for number, each in enumerate(compositions)])
    scalars = [head.log_alpha, head.words_bias, head.stop_bias, head.again]
    if head.query is not None:
        scalars += [head.log_t, *([head.ask] if head.found is not None else [])]
    for scalar in scalars:
        scalar.requires_grad_(True)
    optimizer = torch.optim.LBFGS(scalars, lr=0.5, max_iter=60, line_search_fn="strong_wolfe")
    total = sum(float(part.weight.sum()) for part in parts)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.zeros(())
        for part in parts:
            each = nn.functional.cross_entropy(_masked(head, part), part.gold, reduction="none")
            loss = loss + (each * part.weight).sum() / total
        # A weak pull to one keeps alpha sane where names say nothing.
        loss = loss + 0.01 * head.log_alpha.square() + 0.001 * (head.ask.square() + head.again.square())
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.ask.clamp_(min=0.0)
    return {
        "alpha": float(head.log_alpha.detach().exp()),
        "t": float(head.log_t.detach().exp()),
        "words_bias": float(head.words_bias.detach()),
        "stop_bias": float(head.stop_bias.detach()),
        "ask": float(head.ask.detach()),
        "again": float(head.again.detach()),
        **_rates(head, parts),
    }


@torch.no_grad()
def _rates(head: ChoiceHead, parts: Sequence[_Part]) -> dict[str, float]:
    """How often first choices are right, where a call is needed and where none is."""
    hits: dict[str, list[Tensor]] = {"call": [], "no_call": []}
    for part in parts:
        scores = _masked(head, part)
        right, words = scores.argmax(-1) == part.gold, part.gold == scores.shape[1] - 1
        first = ~part.called & (part.weight > 0)
        hits["call"].append(right[first & ~words])
        hits["no_call"].append(right[first & words])
    return {f"calibration_{k}_right": round(float(torch.cat(v).float().mean()), 4) for k, v in hits.items()}


@torch.no_grad()
def fit_confidence(trainer: Trainer, compositions: Sequence[Composition]) -> float:
    """Set the temperature under which the right choices of the dev split are most likely; returns it."""
    from scipy.optimize import minimize_scalar

    head = trainer.generator.head
    parts = [_scored(trainer, composition, number) for number, composition in enumerate(compositions)]
    scores = [(_masked(head, part), part.gold) for part in parts]

    def nll(log_temperature: float) -> float:
        t = float(torch.tensor(log_temperature).exp())
        return sum(float(nn.functional.cross_entropy(s / t, g, reduction="sum")) for s, g in scores)

    found = minimize_scalar(nll, bounds=(-3.0, 3.0), method="bounded")
    head.temperature.fill_(float(torch.tensor(found.x).exp()))
    return float(head.temperature)


@torch.no_grad()
def _scored(trainer: Trainer, composition: Composition, number: int) -> _Part:
    trainer.generator.eval()
    head = trainer.generator.head
    batch = trainer.batch(composition, random.Random(f"{trainer.options.seed}/calibrate/{number}"), limit=8)
    scores = trainer.scores(composition.toolset, batch, trainer.gates([composition.toolset])[0])
    keys = None if scores.keys is None else scores.keys / head.log_t.exp()
    gold = batch.gold[:-1]
    return _Part(
        scores.names,
        keys,
        scores.complete,
        batch.excluded[:-1],
        gold,
        batch.called[:-1],
        batch.made[:-1, :-1],
        torch.ones(len(gold), device=gold.device),
    )


def _balanced(parts: Sequence[_Part]) -> list[_Part]:
    """`parts`, and again those that can be shown without their tool; weights such that calls and no calls weigh alike."""
    every = []
    for part in parts:
        words = part.names.shape[1] - 1
        alone = (part.gold < words) & ~part.excluded.any(1) & ~part.called
        excluded = part.excluded | (alone[:, None] & nn.functional.one_hot(part.gold, words + 1).bool())
        gold = torch.where(alone, words, part.gold)
        without = replace(part, excluded=excluded, gold=gold, weight=alone.float())
        every += [part, without]
    calls = sum(float((p.weight * ((p.gold < p.names.shape[1] - 1) & ~p.called)).sum()) for p in every)
    none = sum(float((p.weight * ((p.gold == p.names.shape[1] - 1) & ~p.called)).sum()) for p in every)
    weighted = []
    for part in every:
        none_due = part.gold == part.names.shape[1] - 1
        factor = torch.where(none_due & ~part.called, calls / max(none, 1.0), 1.0)
        weighted.append(replace(part, weight=part.weight * factor))
    return weighted


def _masked(head: ChoiceHead, part: _Part) -> Tensor:
    scores = head.log_alpha.exp() * part.names
    if part.keys is not None:
        scores = scores + head.log_t.exp() * part.keys
    scores = head.less_again(scores, part.made).masked_fill(part.excluded, ABSENT)
    return scores + head.words(scores, part.called, part.complete)
