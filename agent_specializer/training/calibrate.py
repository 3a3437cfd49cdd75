"""The stage in which the few scalars are fitted that add up what speaks for each choice, and the temperature of the confidence.

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

from agent_specializer.edge.said import asked_for
from agent_specializer.loragen.toolkeys import GIVEN, ChoiceHead
from agent_specializer.specs import Toolset
from agent_specializer.training.data import Composition
from agent_specializer.training.required import read
from agent_specializer.training.rows import Batch

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

CALL_WEIGHT = 4.0
"""What the requests that need a call weigh together, beside those that need none: of what an agent is asked, most needs a tool."""
ASK_WEIGHT = 3.0
"""The same, where it is told when to ask back. Held-out families alone would have it less; on requests of another style, as those of the
shipped catalogues, too many calls are then answered by a question (docs/LOG.md)."""
TAKEN_WEIGHT = 0.05
"""What a request that is shown once more without its tool weighs beside one that needs no tool of its own accord."""
STOP_WEIGHT = 4.0
"""What the turns whose calls are complete weigh together, beside those that lack one: a call too many does more harm than one
that is missing."""
CANDIDATES = 2
"""Likeliest tools of which is worked out whether a request says what they require; beside the right one."""
ROUNDS = 3
"""In which the two reasons for words are fitted, each beside the other as it then is."""
PULL = 1e-5
"""Keeps scalars sane of which the rows say nothing."""


@dataclass(frozen=True)
class Part:
    """A composition's rows, scored.

    Attributes:
        names: calibrated names, (rows, choices).
        likenesses: of keys to the request; talk: (rows,), how it sounds; both None without keys.
        said: how far the request gives what each tool requires (`ChoiceHead.gives`); None where that is not asked.
        made, absent: bool, called already and left out; these and `likenesses` (rows, tools).
        gold: (rows,) the right choice; called, answered: (rows,) bool; weight: (rows,).
    """

    names: Tensor
    likenesses: Tensor | None
    left: Tensor | None
    talk: Tensor | None
    said: Tensor | None
    made: Tensor
    absent: Tensor
    gold: Tensor
    called: Tensor
    answered: Tensor
    weight: Tensor

    @property
    def none(self) -> Tensor:
        """(rows,) bool, where no tool is right."""
        return self.gold == self.names.shape[1] - 1

    def scores(self, head: ChoiceHead) -> Tensor:
        t = head.log_t.exp()
        told, left = (None if x is None else t * x for x in (self.likenesses, self.left))
        return head.combine(
            self.names, told, self.talk, self.called, self.made, self.absent, left, self.said, self.answered
        )


@torch.no_grad()
def _said(trainer: Trainer, toolset: Toolset, batch: Batch, scores: Tensor, gates: Tensor) -> Tensor | None:
    """`Part.said` of `batch`, in which `scores` (rows, choices) says which tools are likely under `gates`."""
    # With the tools in the prompt a value may also be a word of theirs: nothing is told by copying it.
    if len(batch.context):
        return None
    head, tools = trainer.generator.head, scores.shape[1] - 1
    said = torch.full((len(scores), tools), GIVEN, device=scores.device)
    asking = {at for at, tool in enumerate(toolset.tools) if asked_for(tool)}
    wanted: dict[int, list[int]] = {}
    for row in (~batch.called[:-1]).nonzero().flatten().tolist():
        likely = scores[row, :-1].topk(min(CANDIDATES, tools)).indices.tolist()
        if some := sorted({*likely, int(batch.gold[row])} & asking):
            wanted[row] = some
    conversations = [batch.ids[row, : int(batch.last[row]) + 1].tolist() for row in wanted]
    asked = zip(conversations, ([toolset.tools[at] for at in some] for some in wanted.values()), strict=True)
    for (row, some), found in zip(wanted.items(), read(trainer, gates, list(asked)), strict=True):
        for at, openings in zip(some, found, strict=True):
            said[row, at] = head.gives(openings.changes, openings.copied).min()
    return said


@torch.no_grad()
def scored(trainer: Trainer, composition: Composition, number: int) -> Part:
    """Up to 8 examples of `composition`, drawn by `number`."""
    trainer.generator.eval()
    head = trainer.generator.head
    batch = trainer.batch(composition, random.Random(f"{trainer.options.seed}/calibrate/{number}"), limit=8)
    gates = trainer.gates([composition.toolset])[0]
    scores = trainer.scores(composition.toolset, batch, gates)
    gold = batch.gold[:-1]
    return Part(
        names=scores.names,
        likenesses=None if scores.keys is None else scores.keys / head.log_t.exp(),
        left=None if scores.left is None else scores.left / head.log_t.exp(),
        talk=scores.talk,
        said=_said(trainer, composition.toolset, batch, scores.total, gates),
        made=batch.made[:-1, :-1],
        absent=batch.excluded[:-1, :-1],
        gold=gold,
        called=batch.called[:-1],
        answered=batch.answered[:-1],
        weight=torch.ones(len(gold), device=gold.device),
    )


def calibrate(head: ChoiceHead, parts: Sequence[Part], lacking: Sequence[Part] = ()) -> dict[str, float]:
    """Fit the scalars of `head` on `parts`; what they are, and how often first choices are then right.

    Which tool: on the requests that need one. Whether: on these and those that need none, weighed as `CALL_WEIGHT` says;
    requests that need a tool count among the latter, too, a little, without it. When to ask back: also on `lacking` requests, which
    lack what is required. They resemble a tool as the others do: what else speaks for words is not fitted on them, for all they
    would teach is that likeness means nothing.
    """
    which = [
        head.log_alpha,
        head.again,
        head.later,
        *([head.log_t, head.left] if head.query is not None else []),
    ]
    _minimise(which, lambda: _mean([(p, _which_loss(head, p), p.weight * ~p.none) for p in parts]))
    both, every = balanced(parts), balanced([*parts, *lacking], calls=ASK_WEIGHT)
    whether = [head.words_bias, head.words_name, head.unsure]
    whether += [head.stop_bias, head.stop_name, head.stop_answered]
    if head.query is not None:
        whether += [head.words_talk, head.relevance, head.stop_left]
    asks = all(part.said is not None for part in every)
    with torch.no_grad():
        head.ask.fill_(float(asks))
        head.ask_bias.fill_(-3.0)
    for _ in range(ROUNDS if asks else 1):
        _minimise(whether, lambda: _mean([(p, _whether_loss(head, p), p.weight) for p in both]))
        if asks:
            _minimise(
                [head.ask, head.ask_bias],
                lambda: _mean([(p, _whether_loss(head, p), p.weight) for p in every]),
            )
    with torch.no_grad():
        head.ask.clamp_(min=0.0)
    scalars = {name: float(value.detach()) for name, value in head.named_parameters() if not value.dim()}
    return scalars | rates(head, every)


def calibrate_behind_calls(head: ChoiceHead, parts: Sequence[Part]) -> dict[str, float]:
    """Fit those scalars of `head` alone that count once a call was made, as `calibrate` does, on `parts` in which nothing else has a weight."""
    which = [head.again, head.later, *([head.left] if head.query is not None else [])]
    _minimise(which, lambda: _mean([(p, _which_loss(head, p), p.weight * ~p.none) for p in parts]))
    every = balanced(parts)
    stop = [head.stop_bias, head.stop_name, head.stop_answered]
    stop += [head.stop_left] if head.query is not None else []
    _minimise(stop, lambda: _mean([(p, _whether_loss(head, p), p.weight) for p in every]))
    return {
        name: float(value.detach()) for name, value in head.named_parameters() if not value.dim()
    } | rates(head, every)


def balanced(parts: Sequence[Part], *, calls: float = CALL_WEIGHT) -> list[Part]:
    """`parts`, and again those that can be shown without their tool; weighed as `calls` and `STOP_WEIGHT` say."""
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

    def total(*, none: bool, called: bool) -> float:
        return sum(float(p.weight[(p.none == none) & (p.called == called)].sum()) for p in every)

    words = total(none=False, called=False) / max(calls * total(none=True, called=False), 1.0)
    more = total(none=True, called=True) / max(STOP_WEIGHT * total(none=False, called=True), 1.0)
    return [
        replace(
            p,
            weight=p.weight
            * torch.where(p.none & ~p.called, words, 1.0)
            * torch.where(~p.none & p.called, more, 1.0),
        )
        for p in every
    ]


@torch.no_grad()
def rates(head: ChoiceHead, parts: Sequence[Part]) -> dict[str, float]:
    """How often first choices are right, where a call is needed and where none is, and those after a call, where one more is
    needed and where none is."""
    hits: dict[str, list[Tensor]] = {"call": [], "no_call": [], "more": [], "stop": []}
    for part in parts:
        right = part.scores(head).argmax(-1) == part.gold
        for (yes, no), which in ((("call", "no_call"), ~part.called), (("more", "stop"), part.called)):
            counts = which & (part.weight > 0)
            hits[yes].append(right[counts & ~part.none])
            hits[no].append(right[counts & part.none])
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
