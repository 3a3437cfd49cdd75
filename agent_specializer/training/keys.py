"""The second stage: tool keys fitted on cached features, by the thousand where the joint stage sees dozens.

With experts and router trained, the features of a request and of a tool are fixed vectors. They are computed once; the
small networks that compare them (`ToolKeys`, the query of `ChoiceHead`) start alike and then see every request against
its own toolset and many tools of others, for a few epochs, in a minute. Last, the few scalars that add names and keys up are fitted on rows
scored in full, and the temperature of the confidence on the dev split.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.pooled import pooled
from agent_specializer.loragen.features import averages, feature_size, join, start_alike
from agent_specializer.loragen.models import decoder
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys
from agent_specializer.specs import ToolSpec
from agent_specializer.training.data import Composition
from agent_specializer.training.rows import Row, example_row

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

FOREIGN = 96
"""Tools of other toolsets that each request is told apart from, besides its own toolset's."""
TAKEN_AWAY = 0.1
"""Of requests that need a tool, how many are shown without it: then answering in words is right."""
FIRST = 1_000_000
"""Compositions of the second stage are numbered from here: others than those of the first."""


@dataclass(frozen=True)
class Bank:
    """Requests against toolsets, as vectors.

    Attributes:
        requests: (requests, features) float32, what the edge makes of them (`loragen.features`).
        candidates: (requests, widest) index into `features` of the toolset's tools, -1 where there are fewer.
        gold: (requests,) index into the row of `candidates`, or `widest` for answering in words.
        excluded: (requests, widest) bool: right too.
        features: (tools, features) float32; bodies: for each tool, what identical tools share.
    """

    requests: Tensor
    candidates: Tensor
    gold: Tensor
    excluded: Tensor
    features: Tensor
    bodies: Tensor


@torch.no_grad()
def collect(
    trainer: Trainer,
    compositions: list[Composition],
    gates: Tensor,
    *,
    say: Callable[[str, float], None] = lambda message, share: None,
) -> Bank:
    """Features of all examples of `compositions` under `gates` (layers, experts), and of all their tools."""
    trainer.generator.eval()
    tools: dict[str, int] = {}
    specs: list[ToolSpec] = []
    rows: list[tuple[Row, list[int]]] = []
    for number, composition in enumerate(compositions):
        rng = random.Random(f"{trainer.options.seed}/keys/{number}")
        tree = NameTree.of(trainer.tokenizer, composition.toolset.names)
        indices = []
        for tool in composition.toolset.tools:
            if tool.fingerprint not in tools:
                tools[tool.fingerprint] = len(specs)
                specs.append(tool)
            indices.append(tools[tool.fingerprint])
        for example in composition.examples:
            row = example_row(trainer.tokenizer, example, composition.toolset, tree, rng, arguments=False)
            rows.append((row, indices))
    requests = torch.zeros(len(rows), feature_size(trainer.generator.config.edge.hidden))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0].prefix))
    device = trainer.accelerator.device
    for start in range(0, len(order), 16):
        batch = order[start : start + 16]
        prefixes = [torch.tensor(rows[i][0].prefix) for i in batch]
        ids = nn.utils.rnn.pad_sequence(prefixes, batch_first=True)
        last = torch.tensor([len(prefix) for prefix in prefixes]) - 1
        seen = (torch.arange(ids.shape[1]) <= last[:, None]).long()
        with pooled(trainer.edge, trainer.generator.pool, gates[None].expand(len(batch), -1, -1)):
            out = decoder(trainer.edge)(
                input_ids=ids.to(device),
                attention_mask=seen.to(device),
                use_cache=False,
                output_hidden_states=True,
            )
        averaged = averages(out.hidden_states, torch.tensor([rows[i][0].turn for i in batch]))
        state = out.last_hidden_state[torch.arange(len(batch)), last.to(device)]
        requests[batch] = join(state, averaged).cpu()
        say("requests", start / len(order))
    say("tools", 0.0)
    features = trainer.generator.features(specs, batch=16).cpu()
    widest = max(len(indices) for _, indices in rows)
    candidates = torch.full((len(rows), widest), -1)
    excluded = torch.zeros(len(rows), widest, dtype=torch.bool)
    gold = torch.zeros(len(rows), dtype=torch.long)
    for i, (row, indices) in enumerate(rows):
        candidates[i, : len(indices)] = torch.tensor(indices)
        excluded[i, list(row.excluded)] = True
        gold[i] = row.gold if row.gold < len(indices) else widest
    texts: dict[str, int] = {}
    bodies = torch.tensor(
        [texts.setdefault(" ".join(spec.description.casefold().split()), len(texts)) for spec in specs]
    )
    return Bank(requests, candidates, gold, excluded, features, bodies)


def key_scores(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    rows: Tensor,
    foreign: Tensor | None = None,
    *,
    excluded: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """``t * cos(q, k)``: (rows, widest + 1 [+ foreign]), own tools, words, then the tools `foreign`; -1e4 = absent.

    `excluded`: (rows, widest) stands for that of the bank. `dropout`: of features on both sides.
    """
    candidates = bank.candidates[rows]
    present = candidates >= 0
    wanted = candidates.clamp_min(0).flatten()
    if foreign is not None:
        wanted = torch.cat([wanted, foreign])
    some, place = torch.unique(wanted, return_inverse=True)
    unit = keys.tool(nn.functional.dropout(bank.features[some], dropout))[place]  # (wanted, key_dim)
    own = unit[: candidates.numel()].view(*candidates.shape, -1) * present[..., None]
    words = keys.words_key(own.sum(1) / present.sum(1, keepdim=True))
    q = head.queries(nn.functional.dropout(bank.requests[rows], dropout))
    absent = ~present | (bank.excluded[rows] if excluded is None else excluded)
    parts = [torch.einsum("bd,bnd->bn", q, own).masked_fill(absent, -1e4), (q * words).sum(-1, keepdim=True)]
    if foreign is not None:
        same = (bank.bodies[candidates.clamp_min(0)][..., None] == bank.bodies[foreign]) & present[..., None]
        parts.append((q @ unit[candidates.numel() :].T).masked_fill(same.any(1), -1e4))
    joined = torch.cat(parts, dim=1)
    return torch.where(joined > -1e3, joined * head.log_t.exp(), joined)


def fit(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    *,
    epochs: int,
    seed: int,
    alike: bool,
    lr: float = 1e-3,
) -> None:
    """Fit keys and queries on `bank`, listwise, with dropout on both sides' features against learning it by heart.

    `alike`: tools and requests were read by the same network, so that both projections can start as one map.
    """
    generator = torch.Generator().manual_seed(seed)
    assert head.query is not None
    if alike:
        start_alike(keys.tool, head.query, bank.features, bank.requests)
    parameters = [*keys.parameters(), *head.query.parameters(), head.log_t]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    size = 256
    steps = epochs * (len(bank.gold) // size + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    torch.manual_seed(seed)
    words = bank.candidates.shape[1]
    for _ in range(epochs):
        for rows in torch.randperm(len(bank.gold), generator=generator).split(size):
            foreign = torch.randint(len(bank.features), (FOREIGN,), generator=generator)
            gold, excluded = bank.gold[rows], bank.excluded[rows].clone()
            taken = (torch.rand(len(rows), generator=generator) < TAKEN_AWAY) & (gold < words)
            # Where other calls would be right too the request still has its tools.
            taken &= ~excluded.any(1)
            excluded[taken, gold[taken]] = True
            gold = torch.where(taken, words, gold)
            scores = key_scores(keys, head, bank, rows, foreign, excluded=excluded, dropout=0.1)
            # Words are not told apart from foreign tools: of those, many would fit the request.
            wide = torch.cat(
                [scores[:, : words + 1], scores[:, words + 1 :].masked_fill(gold[:, None] == words, -1e4)], 1
            )
            loss = nn.functional.cross_entropy(wide, gold)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def key_accuracy(keys: ToolKeys, head: ChoiceHead, bank: Bank) -> tuple[float, float]:
    """Share of requests whose best key is the right one: of those that need a tool (words aside), and of all."""
    scores = key_scores(keys, head, bank, torch.arange(len(bank.gold)))
    words = bank.candidates.shape[1]
    need = bank.gold != words
    tool = (scores[need, :words].argmax(-1) == bank.gold[need]).float().mean()
    return float(tool), float((scores.argmax(-1) == bank.gold).float().mean())


def calibrate(trainer: Trainer, compositions: list[Composition]) -> dict[str, float]:
    """Fit the scalars that add names and keys up (alpha, t, the biases of no tool) on rows scored in full.

    `compositions` must be of families that nothing was trained on: on those that were, keys are nearly always right,
    and the scalars would trust them too much.
    """
    head = trainer.generator.head
    parts = [_scored(trainer, composition, number) for number, composition in enumerate(compositions)]
    scalars = [head.log_alpha, head.words_bias, head.stop_bias] + (
        [head.log_t] if head.query is not None else []
    )
    for scalar in scalars:
        scalar.requires_grad_(True)
    optimizer = torch.optim.LBFGS(scalars, lr=0.5, max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum(
            (nn.functional.cross_entropy(_masked(head, part), part.gold, reduction="sum") for part in parts),
            torch.zeros(()),
        ) / sum(len(part.gold) for part in parts)
        # A weak pull to one keeps alpha sane where names say nothing.
        loss = loss + 0.01 * head.log_alpha.square()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return {
        "alpha": float(head.log_alpha.detach().exp()),
        "t": float(head.log_t.detach().exp()),
        "words_bias": float(head.words_bias.detach()),
        "stop_bias": float(head.stop_bias.detach()),
    }


@torch.no_grad()
def fit_confidence(trainer: Trainer, compositions: list[Composition]) -> float:
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


@dataclass(frozen=True)
class _Part:
    """A composition's rows, scored: calibrated names and cosines of keys (rows, choices), and what is right."""

    names: Tensor
    keys: Tensor | None
    excluded: Tensor
    gold: Tensor
    called: Tensor


@torch.no_grad()
def _scored(trainer: Trainer, composition: Composition, number: int) -> _Part:
    trainer.generator.eval()
    head = trainer.generator.head
    batch = trainer.batch(composition, random.Random(f"{trainer.options.seed}/calibrate/{number}"), limit=8)
    scores = trainer.scores(composition.toolset, batch, trainer.gates([composition.toolset])[0])
    keys = None if scores.keys is None else scores.keys / head.log_t.exp()
    return _Part(scores.names, keys, batch.excluded[:-1], batch.gold[:-1], batch.called[:-1])


def _masked(head: ChoiceHead, part: _Part) -> Tensor:
    scores = head.log_alpha.exp() * part.names
    if part.keys is not None:
        scores = scores + head.log_t.exp() * part.keys
    return (scores + head.bias(scores, part.called)).masked_fill(part.excluded, -1e4)
