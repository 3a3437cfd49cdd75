"""The last stage: the few scalars that add names, keys and needs up, and the temperature of the confidence.

Which tool and whether one is called are fitted apart, each by a convex fit of a handful of numbers, on compositions scored in full.
These must be of families that nothing was trained on: on those that were, keys are nearly always right, and the scalars would
trust them too much.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.training.data import Composition

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

CALL_WEIGHT = 4.0
"""What the requests that need a call weigh together, beside those that need none."""
TAKEN_WEIGHT = 0.25
"""What a request that is shown once more without its tool weighs beside one that needs no tool of its own accord."""
VAGUE_WEIGHT = 0.1
"""What a made-up request that leaves something out weighs: with more, requests of real tools that require much go unanswered."""
PULL = 1e-3
"""Keeps scalars sane of which the rows say nothing."""


@dataclass(frozen=True)
class Part:
    """A composition's rows, scored.

    Attributes:
        names: calibrated names, (rows, choices).
        likenesses: of keys to the request; talk: (rows,), how it sounds; both None without keys.
        complete: None without needs; made, absent: bool, called already and left out; these and `likenesses` (rows, tools).
        gold: (rows,) the right choice; called: (rows,) bool; weight: (rows,).
    """

    names: Tensor
    likenesses: Tensor | None
    talk: Tensor | None
    complete: Tensor | None
    made: Tensor
    absent: Tensor
    gold: Tensor
    called: Tensor
    weight: Tensor

    @property
    def none(self) -> Tensor:
        """(rows,) bool, where no tool is right."""
        return self.gold == self.names.shape[1] - 1

    def scores(self, head: ChoiceHead) -> Tensor:
        told = None if self.likenesses is None else head.log_t.exp() * self.likenesses
        return head.combine(self.names, told, self.talk, self.called, self.complete, self.made, self.absent)


@torch.no_grad()
def scored(trainer: Trainer, composition: Composition, number: int, *, weight: float = 1.0) -> Part:
    """Up to 8 examples of `composition`, drawn by `number`, which weigh `weight` each."""
    trainer.generator.eval()
    head = trainer.generator.head
    batch = trainer.batch(composition, random.Random(f"{trainer.options.seed}/calibrate/{number}"), limit=8)
    scores = trainer.scores(composition.toolset, batch, trainer.gates([composition.toolset])[0])
    gold = batch.gold[:-1]
    return Part(
        names=scores.names,
        likenesses=None if scores.keys is None else scores.keys / head.log_t.exp(),
        talk=scores.talk,
        complete=scores.complete,
        made=batch.made[:-1, :-1],
        absent=batch.excluded[:-1, :-1],
        gold=gold,
        called=batch.called[:-1],
        weight=torch.full((len(gold),), weight, device=gold.device),
    )


def calibrate(head: ChoiceHead, parts: Sequence[Part]) -> dict[str, float]:
    """Fit the scalars of `head` on `parts`; what they are, and how often first choices are then right.

    Which tool: on the requests that need one. Whether: on these and those that need none, weighed as `CALL_WEIGHT` says;
    requests that need a tool count among the latter, too, a little, without it.
    """
    which = [head.log_alpha, head.again, *([head.log_t] if head.query is not None else [])]
    _minimise(which, lambda: _mean([(p, _which_loss(head, p), p.weight * ~p.none) for p in parts]))
    both = balanced(parts)
    whether = [head.words_bias, head.words_name, head.unsure, head.stop_bias, head.stop_name]
    if head.query is not None:
        whether += [head.words_talk, head.relevance, *([head.ask] if head.found is not None else [])]
    _minimise(whether, lambda: _mean([(p, _whether_loss(head, p), p.weight) for p in both]))
    with torch.no_grad():
        head.ask.clamp_(min=0.0)
    scalars = {name: float(value.detach()) for name, value in head.named_parameters() if not value.dim()}
    return scalars | rates(head, both)


def balanced(parts: Sequence[Part]) -> list[Part]:
    """`parts`, and again those that can be shown without their tool; weighed as `CALL_WEIGHT` says."""
    every = []
    for part in parts:
        tools = part.names.shape[1] - 1
        alone = ~part.none & ~part.absent.any(1) & ~part.called & (tools > 1)
        own = nn.functional.one_hot(part.gold, tools + 1)[:, :-1].bool()
        without = replace(
            part,
            absent=part.absent | (alone[:, None] & own),
            gold=torch.where(alone, tools, part.gold),
            weight=TAKEN_WEIGHT * part.weight * alone,
        )
        every += [part, without]

    def total(none: bool) -> float:
        return sum(float(p.weight[(p.none == none) & ~p.called].sum()) for p in every)

    factor = total(False) / max(CALL_WEIGHT * total(True), 1.0)
    return [replace(p, weight=torch.where(p.none & ~p.called, p.weight * factor, p.weight)) for p in every]


@torch.no_grad()
def rates(head: ChoiceHead, parts: Sequence[Part]) -> dict[str, float]:
    """How often first choices are right, where a call is needed and where none is."""
    hits: dict[str, list[Tensor]] = {"call": [], "no_call": []}
    for part in parts:
        right = part.scores(head).argmax(-1) == part.gold
        first = ~part.called & (part.weight > 0)
        hits["call"].append(right[first & ~part.none])
        hits["no_call"].append(right[first & part.none])
    found = {key: torch.cat(value).float() for key, value in hits.items() if value}
    return {f"{key}_right": round(float(value.mean()), 4) for key, value in found.items() if len(value)}


@torch.no_grad()
def fit_confidence(head: ChoiceHead, parts: Sequence[Part]) -> float:
    """Set the temperature under which the right choices of `parts` are most likely; returns it."""
    from scipy.optimize import minimize_scalar

    scores = [(part.scores(head), part.gold) for part in parts]

    def nll(log_temperature: float) -> float:
        t = float(torch.tensor(log_temperature).exp())
        return sum(float(nn.functional.cross_entropy(s / t, g, reduction="sum")) for s, g in scores)

    found = minimize_scalar(nll, bounds=(-3.0, 3.0), method="bounded")
    head.temperature.fill_(float(torch.tensor(found.x).exp()))
    return float(head.temperature)


def _which_loss(head: ChoiceHead, part: Part) -> Tensor:
    """(rows,), of the right tool among the tools; nothing where none is right."""
    tools = part.names.shape[1] - 1
    which = part.scores(head)[:, :-1]
    return nn.functional.cross_entropy(which, part.gold.clamp_max(tools - 1), reduction="none")


def _whether_loss(head: ChoiceHead, part: Part) -> Tensor:
    """(rows,), of whether no tool is right."""
    words = part.scores(head)[:, -1]
    return nn.functional.binary_cross_entropy_with_logits(words, part.none.float(), reduction="none")


def _mean(terms: Sequence[tuple[Part, Tensor, Tensor]]) -> Tensor:
    weight = sum(float(w.sum()) for _, _, w in terms)
    total = torch.stack([(loss * w).sum() for _, loss, w in terms]).sum()
    return total / max(weight, 1e-9)


def _minimise(scalars: list[nn.Parameter], loss: Callable[[], Tensor]) -> None:
    for scalar in scalars:
        scalar.requires_grad_(True)
    optimizer = torch.optim.LBFGS(scalars, lr=0.5, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss() + PULL * torch.stack([scalar.square() for scalar in scalars]).sum()
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
