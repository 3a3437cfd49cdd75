"""The second stage: tool keys fitted on a bank of requests that are read once.

With experts and router trained, what the edge makes of a request's words and the cloud of a tool's are fixed vectors. They are
computed once; the linear maps that compare them (`ToolKeys`, those of `ChoiceHead`) see every request against its own toolset and
tools of others, for an epoch or two: they start from what is alike already, and with more they only
learn the tools by heart. What then adds them up is fitted in `training.calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agent_specializer.loragen.features import start_alike
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys
from agent_specializer.training.bank import Bank, Read, chosen, key_scores

FOREIGN = 48
"""Tools of other toolsets that each request is told apart from, besides its own toolset's."""
SOFT = 0.2
"""How surely a request for a tool is taken to sound like one to answer in words."""
RIDGE = 1e-2
"""Keeps how a request sounds from being learned by heart."""
BATCH = 128
FAST = 10.0
"""How much faster the maps that start from nothing, and the scalars, learn than those that start from what is alike."""
MIN_CYCLE = 20
"""Steps below which the one-cycle schedule has no place for its phases."""


def fit(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    read: Read,
    *,
    epochs: int,
    lr: float,
    seed: int,
    alike: bool,
    start: bool,
) -> None:
    """Fit keys and queries on `bank`, listwise, then how requests sound; with dropout on both sides against learning by heart.

    Args:
        start: begin with projections made from the features; otherwise with those that are there.
        alike: tools and requests were read by the same network, so that both projections can start as one map.
    """
    generator = torch.Generator().manual_seed(seed)
    assert head.query is not None
    if start:
        _start(keys, head, bank, read, alike=alike)

    def choosing(rows: Tensor) -> Tensor:
        return choice_loss(keys, head, bank, rows, chosen(read, rows), generator, dropout=0.1)

    torch.manual_seed(seed)
    slow = [*keys.tool.unit.parameters(), *head.query.unit.parameters()]
    fast = [*keys.tool.weight.parameters(), *head.query.weight.parameters(), head.log_t, head.back]
    _descend(choosing, slow, fast, torch.arange(len(bank)), epochs=epochs, lr=lr, generator=generator)
    _fit_talk(head, bank, read)


def _descend(
    loss_of: Callable[[Tensor], Tensor],
    slow: list[nn.Parameter],
    fast: list[nn.Parameter],
    rows: Tensor,
    *,
    epochs: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Adam on `loss_of` batches of `rows`, each once an epoch, the rate (`fast`: `FAST` times `lr`) rising and falling once."""
    if not len(rows):
        return
    parameters = [*slow, *fast]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rates = [(some, rate) for some, rate in ((slow, lr), (fast, FAST * lr)) if some]
    optimizer = torch.optim.Adam([{"params": some, "lr": rate} for some, rate in rates])
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [rate for _, rate in rates], total_steps=max(steps, MIN_CYCLE), pct_start=0.15
    )
    for _ in range(epochs):
        for some in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
            loss = loss_of(some)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()


def _fit_talk(head: ChoiceHead, bank: Bank, read: Read) -> None:
    """A convex fit: from any start the same."""
    assert head.talk is not None
    none = bank.gold == bank.candidates.shape[1]
    weight = _both_alike(none, torch.tensor([not row.called for row in bank.rows]))
    with torch.no_grad():
        parts = [chosen(read, some) for some in torch.arange(len(bank)).split(256)]
        tone = torch.cat([head.tone(part.words, part.newest) for part in parts])
        spread = tone.std(0) + 1e-6
    parameters = list(head.talk.parameters())
    optimizer = torch.optim.LBFGS(parameters, max_iter=150, line_search_fn="strong_wolfe")
    for parameter in parameters:
        parameter.requires_grad_(True)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _talk_loss(head, tone, none, weight) + RIDGE * (parameters[0] * spread).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def choice_loss(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    rows: Tensor,
    read: Read,
    generator: torch.Generator,
    *,
    foreign: int = FOREIGN,
    dropout: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of the right tools of `rows`, of which `read` is, among their own and `foreign` others."""
    need = (bank.gold[rows] < bank.candidates.shape[1]).nonzero().flatten()
    if not len(need):
        return read.words.sum() * 0
    others = torch.randint(len(bank.tools), (foreign,), generator=generator)
    rows, read = rows[need], chosen(read, need)
    scores = key_scores(keys, head, bank, rows, read, foreign=others, dropout=dropout)
    return nn.functional.cross_entropy(scores, bank.gold[rows].to(scores.device))


def talk_loss(head: ChoiceHead, bank: Bank, rows: Tensor, read: Read) -> Tensor:
    """Mean cross-entropy of whether the first choice of each of `rows` is to answer in words; of all the bank's requests
    both kinds count alike."""
    none = bank.gold == bank.candidates.shape[1]
    weight = _both_alike(none, torch.tensor([not row.called for row in bank.rows]))
    tone = head.tone(read.words, read.newest)
    return _talk_loss(head, tone, none[rows].to(tone.device), weight[rows].to(tone.device))


def _talk_loss(head: ChoiceHead, tone: Tensor, none: Tensor, weight: Tensor) -> Tensor:
    assert head.talk is not None
    # Without its tool a request for one would be answered in words, too: it says less than the others.
    target = torch.where(none, 1.0, SOFT)
    wrong = nn.functional.binary_cross_entropy_with_logits(head.talk(tone)[:, 0], target, reduction="none")
    loss: Tensor = (wrong * weight).mean()
    return loss


def _both_alike(none: Tensor, first: Tensor) -> Tensor:
    """(requests,) weights of mean 1 under which the `first` choices that are `none` count as much as the others."""
    kinds = torch.stack([first & none, first & ~none]).float()
    weight = (kinds / kinds.sum(1, keepdim=True).clamp_min(1)).sum(0)
    return weight * len(none) / weight.sum().clamp_min(1e-9)


@torch.no_grad()
def _start(keys: ToolKeys, head: ChoiceHead, bank: Bank, read: Read, *, alike: bool) -> None:
    """The means of what is compared, of some of it; and, where the same network reads both, the map that is alike."""
    assert head.query is not None
    few = torch.arange(0, len(bank), max(1, len(bank) // 2000))
    of_tools = bank.tools[::3][bank.present[::3]].float()
    requests = read.words[few][read.newest[few]].float()
    if alike:
        start_alike(keys.tool.unit, head.query.unit, of_tools, requests)
    else:
        keys.tool.unit.mean.copy_(of_tools.mean(0))
        head.query.unit.mean.copy_(requests.mean(0))


@torch.no_grad()
def key_accuracy(keys: ToolKeys, head: ChoiceHead, bank: Bank, read: Read) -> dict[str, float]:
    """Of the requests that need a tool, the share whose best key is the right one."""
    words, hits = bank.candidates.shape[1], []
    for rows in torch.arange(len(bank)).split(128):
        some, gold = chosen(read, rows), bank.gold[rows]
        best = key_scores(keys, head, bank, rows, some).argmax(-1)
        hits.append((best == gold)[gold < words])
    return {"tool": float(torch.cat(hits).float().mean())}
