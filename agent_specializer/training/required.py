"""Which of what a tool requires does a request give: read off the edge model, and the fit of `ChoiceHead.given`.

What is given is known: a request that was called for gives all the arguments of its call, and one of whose values was cut out
gives all but that one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.edge.choose import Branches
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.pooled import pooled
from agent_specializer.edge.said import asked_for, beginning, beginnings, copied, openings, picked
from agent_specializer.edge.transcript import EMPTY, render
from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.specs import ToolSpec
from agent_specializer.training.data import Composition, Source
from agent_specializer.training.made_up import withheld
from agent_specializer.training.rows import MAX_PREFIX

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

RIDGE = 0.005
"""Chosen on held-out families, as is what weighs what (docs/LOG.md)."""


@dataclass(frozen=True)
class Openings:
    """What a conversation makes of the openings of what a tool requires: (parameters, hidden) and (parameters,), as
    `ChoiceHead.gives` takes them."""

    changes: Tensor
    copied: Tensor


@dataclass(frozen=True)
class Known:
    """`openings` of which is known what is `given`, (parameters,) bool. `source`: the data set."""

    openings: Openings
    given: Tensor
    source: str


@torch.no_grad()
def read(
    trainer: Trainer, gates: Tensor, asked: Sequence[tuple[Sequence[int], Sequence[ToolSpec]]]
) -> list[list[Openings]]:
    """What each conversation (token ids) makes of each of its tools, all of which require something, under `gates` (layers, experts)."""
    if not asked:
        return []
    tokenizer, edge = trainer.tokenizer, trainer.edge
    every = list({tool.fingerprint: tool for _, tools in asked for tool in tools}.values())

    def behind(tokens: Sequence[int], tools: Sequence[ToolSpec]) -> Feed:
        runs = [run for tool in tools for run in openings(tokenizer, tool)]
        return Feed([*tokens], tree=Branches.of_tokens(runs), words=True)

    feeds = {lane: behind(tokens, tools) for lane, (tokens, tools) in enumerate(asked)}
    feeds[len(asked)] = behind(tokenizer(EMPTY).input_ids, every)
    with pooled(edge, trainer.generator.pool, gates[None]):
        seen = Lanes(edge, len(feeds)).run(feeds)

    def of_tools(lane: int, tools: Sequence[ToolSpec]) -> list[tuple[Tensor, Tensor]]:
        tree, branches = feeds[lane].tree, seen[lane].branches
        assert tree is not None
        assert branches is not None
        counts = [len(asked_for(tool)) for tool in tools]
        states = seen[lane].states[1 + tree.ends].split(counts)
        return list(zip(branches[tree.ends].split(counts), states, strict=True))

    nothing = {
        tool.fingerprint: words for tool, (words, _) in zip(every, of_tools(len(asked), every), strict=True)
    }
    found = []
    for lane, (tokens, tools) in enumerate(asked):
        begins = beginnings(tokenizer, tokens)
        found.append(
            [
                Openings(
                    words - nothing[tool.fingerprint],
                    copied(beginning(edge, states, begins, tokenizer, tool), begins.times, picked(tool)).to(
                        words.device
                    ),
                )
                for tool, (words, states) in zip(tools, of_tools(lane, tools), strict=True)
            ]
        )
    return found


def requiring(sources: Sequence[Source]) -> list[Source]:
    """`sources` with those requests alone whose first call's tool requires something of the user, who spoke last."""
    kept = []
    for source in sources:
        some = [
            each
            for each in source.examples
            if each.calls
            and each.messages[-1].role == "user"
            and asked_for(source.toolsets[each.toolset_id].tool(each.calls[0].name))
        ]
        if some and not source.choice_only:
            kept.append(Source(source.name, source.toolsets, some))
    return kept


@torch.no_grad()
def known(trainer: Trainer, composition: Composition, number: int) -> list[Known]:
    """Requests of `composition`, each as it is and once more with a value cut out; what is drawn depends on `number`."""
    trainer.generator.eval()
    rng = random.Random(f"{trainer.options.seed}/required/{number}")
    asked: list[tuple[list[int], list[ToolSpec]]] = []
    given: list[tuple[Tensor, str]] = []
    for example in composition.examples:
        tool = composition.toolset.tool(example.calls[0].name)
        names = asked_for(tool)
        if not names:
            continue  # a distractor of the same name took its place
        cut = withheld(example, tool, rng)
        for messages, lacks in [(example.messages, ""), *([(cut[0].messages, cut[1])] if cut else [])]:
            ids = trainer.tokenizer(render(messages)).input_ids
            asked.append((ids if len(ids) <= MAX_PREFIX else [ids[0], *ids[1 - MAX_PREFIX :]], [tool]))
            there = [name in example.calls[0].arguments and name != lacks for name in names]
            given.append((torch.tensor(there), example.toolset_id.split("/")[0]))
    gates = trainer.gates([composition.toolset])[0]
    return [
        Known(openings, there, source)
        for [openings], (there, source) in zip(read(trainer, gates, asked), given, strict=True)
    ]


def fit_given(head: ChoiceHead, some: Sequence[Known]) -> None:
    """Fit `head.given` on `some`, by logistic regression. Data sets, and what is given and what is not in them, weigh as the roots of
    their sizes do."""
    device = head.given.weight.device
    sources = [one.source for one in some for _ in one.given]
    changes = torch.cat([one.openings.changes for one in some]).to(device)
    given = torch.cat([one.given for one in some]).float().to(device)
    count = Counter(zip(sources, given.tolist(), strict=True))
    weight = torch.tensor(
        [count[pair] ** -0.5 for pair in zip(sources, given.tolist(), strict=True)], device=device
    )
    linear = head.given.requires_grad_(True)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    # Without what copying says: the model copies surer where it was trained, and would be trusted too much.
    nowhere = torch.full((len(changes),), 0.5, device=device)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = nn.functional.binary_cross_entropy_with_logits(
            head.gives(changes, nowhere), given, reduction="none"
        )
        loss = (losses * weight).sum() / weight.sum() + RIDGE * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]


@torch.no_grad()
def given_rates(head: ChoiceHead, some: Sequence[Known]) -> dict[str, float]:
    """How often is seen that a value is given, and that one is not."""
    told = torch.cat([head.gives(one.openings.changes, one.openings.copied) > 0 for one in some]).cpu()
    given = torch.cat([one.given for one in some])
    return {
        name: round(float((told == given)[which].float().mean()), 4)
        for name, which in (("given_right", given), ("missing_right", ~given))
        if which.any()
    }
