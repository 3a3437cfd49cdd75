"""Requests against toolsets by the thousand: what tool keys are learned from.

A joint step over whole compositions sees two dozen tools; here the cloud's readings of thousands of tools are computed once,
and a request, of which only the edge's states are needed, is told apart from its own toolset's tools and many others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.edge.choose import NameTree
from agent_specializer.loragen.features import likeness, words_of
from agent_specializer.loragen.models import decoder
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys, ToolReading, stacked
from agent_specializer.specs import ToolSpec
from agent_specializer.training.data import Composition
from agent_specializer.training.rows import Row, example_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ABSENT = -1e4


@dataclass(frozen=True)
class Read:
    """What the edge makes of some requests.

    Attributes:
        words: (rows, tokens, hidden), a unit vector per token of the conversation; inside: (rows, tokens) bool, which of them
        are no padding; newest: (rows, tokens) bool, which belong to the newest turn.
    """

    words: Tensor
    inside: Tensor
    newest: Tensor


@dataclass(frozen=True)
class Bank:
    """Requests, and the toolsets that they are asked of.

    Attributes:
        rows: the requests as the edge reads them.
        candidates: (requests, widest) index of the toolset's tools, -1 where there are fewer.
        gold: (requests,) index into the row of `candidates`, or `widest` for answering in words.
        excluded: (requests, widest) bool: right too.
        tools: (tools, tokens, hidden) bfloat16, their words; present: (tools, tokens) bool, which of them are there.
        bodies: (tools,) what tools of one description share; kin: (tools, families) bool, the services that they are of.
    """

    rows: tuple[Row, ...]
    candidates: Tensor
    gold: Tensor
    excluded: Tensor
    tools: Tensor
    present: Tensor
    bodies: Tensor
    kin: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, tokens: int, rng: random.Random) -> list[list[int]]:
        """All requests once, in batches of about `tokens` tokens of like length, in random order."""
        order = sorted(range(len(self)), key=lambda i: len(self.rows[i].prefix) * rng.uniform(0.9, 1.1))
        found: list[list[int]] = [[]]
        for index in order:
            longest = max(len(self.rows[i].prefix) for i in [*found[-1], index])
            if found[-1] and longest * (len(found[-1]) + 1) > tokens:
                found.append([])
            found[-1].append(index)
        rng.shuffle(found)
        return found


def fill(
    compositions: Sequence[Composition],
    tokenizer: PreTrainedTokenizerBase,
    read: Callable[[list[ToolSpec]], list[ToolReading]],
    kin: Callable[[ToolSpec], Sequence[int]],
    *,
    seed: int,
) -> Bank:
    """A bank of all examples of `compositions`; `read` reads tools, `kin` says which services a tool is of."""
    index: dict[str, int] = {}
    specs: list[ToolSpec] = []
    rows: list[tuple[Row, list[int]]] = []
    for number, composition in enumerate(compositions):
        rng = random.Random(f"{seed}/bank/{number}")
        tree = NameTree.of(tokenizer, composition.toolset.names)
        for tool in composition.toolset.tools:
            if index.setdefault(tool.fingerprint, len(specs)) == len(specs):
                specs.append(tool)
        places = [index[tool.fingerprint] for tool in composition.toolset.tools]
        for example in composition.examples:
            row = example_row(tokenizer, example, composition.toolset, tree, rng, arguments=False)
            rows.append((row, places))
    readings = read(specs)
    widest = max(len(places) for _, places in rows)
    candidates = torch.full((len(rows), widest), -1)
    excluded = torch.zeros(len(rows), widest, dtype=torch.bool)
    gold = torch.full((len(rows),), widest)
    for i, (row, places) in enumerate(rows):
        candidates[i, : len(places)] = torch.tensor(places)
        excluded[i, list(row.excluded)] = True
        if row.gold < len(places):
            gold[i] = row.gold
    texts: dict[str, int] = {}
    bodies = [texts.setdefault(" ".join(s.description.casefold().split()), len(texts)) for s in specs]
    families = [tuple(kin(spec)) for spec in specs]
    related = torch.zeros(
        len(specs), 1 + max((f for some in families for f in some), default=0), dtype=torch.bool
    )
    for place, some in enumerate(families):
        related[place, list(some)] = True
    words, present = stacked(readings)
    return Bank(
        rows=tuple(row for row, _ in rows),
        candidates=candidates,
        gold=gold,
        excluded=excluded,
        tools=words,
        present=present,
        bodies=torch.tensor(bodies),
        kin=related,
    )


def read_rows(edge: nn.Module, rows: Sequence[Row]) -> Read:
    """What `edge`, with an adapter in force, makes of `rows`: one pass, differentiable."""
    device = next(edge.parameters()).device
    prefixes = [torch.tensor(row.prefix) for row in rows]
    ids = nn.utils.rnn.pad_sequence(prefixes, batch_first=True)
    last = torch.tensor([len(prefix) for prefix in prefixes]) - 1
    place = torch.arange(ids.shape[1])
    out = decoder(edge)(
        input_ids=ids.to(device),
        attention_mask=(place <= last[:, None]).long().to(device),
        use_cache=False,
        output_hidden_states=True,
    )
    start, end = torch.tensor([row.turn for row in rows]).T[..., None]
    inside = (place >= 1) & (place < end)
    return Read(words_of(out.hidden_states), inside.to(device), (inside & (place >= start)).to(device))


@torch.no_grad()
def read_bank(
    edge: nn.Module, bank: Bank, *, say: Callable[[str, float], None] = lambda message, share: None
) -> Read:
    """As `read_rows` for all of `bank`, on the CPU; words in bfloat16."""
    width = max(len(row.prefix) for row in bank.rows)
    batches = bank.batches(2048, random.Random(0))
    found: Read | None = None
    for number, batch in enumerate(batches):
        say("requests", number / len(batches))
        read = read_rows(edge, [bank.rows[i] for i in batch])
        if found is None:
            shape, no = (len(bank), width), torch.bool
            hidden = read.words.shape[-1]
            found = Read(
                torch.zeros(*shape, hidden, dtype=torch.bfloat16),
                torch.zeros(shape, dtype=no),
                torch.zeros(shape, dtype=no),
            )
        for whole, part in zip(vars(found).values(), vars(read).values(), strict=True):
            whole[batch, : part.shape[1]] = part.to(whole)
    assert found is not None
    return found


def chosen(read: Read, rows: Tensor) -> Read:
    """Some rows, in float32, without the columns that are padding in all of them."""
    inside = read.inside[rows]
    width = int(inside.any(0).nonzero().max()) + 1
    return Read(read.words[rows][:, :width].float(), inside[:, :width], read.newest[rows][:, :width])


def key_scores(
    keys: ToolKeys,
    head: ChoiceHead,
    bank: Bank,
    rows: Tensor,
    read: Read,
    *,
    foreign: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """``t * likeness``: (rows, widest [+ foreign]), own tools, then the tools `foreign`; ABSENT = not there.

    Args:
        read: of `rows` alone. foreign: indices of tools. dropout: of what the models made of words, on both sides.
    """
    assert head.query is not None
    candidates = bank.candidates[rows]
    present, device = candidates >= 0, read.words.device
    wanted = candidates.clamp_min(0).flatten()
    if foreign is not None:
        wanted = torch.cat([wanted, foreign])
    some, place = torch.unique(wanted, return_inverse=True)
    words = nn.functional.dropout(bank.tools[some].to(device).float(), dropout)
    every = keys(words, bank.present[some].to(device))[place.to(device)]  # (wanted, vectors, key_dim)
    own = every[: candidates.numel()].unflatten(0, candidates.shape)
    q = head.query(nn.functional.dropout(read.words, dropout), read.newest)
    absent = ~present | bank.excluded[rows]
    t = head.log_t.exp()
    parts = [(t * likeness(q, own, head.back)).masked_fill(absent.to(device), ABSENT)]
    if foreign is not None:
        inside = candidates.clamp_min(0)
        same = ((bank.bodies[inside][..., None] == bank.bodies[foreign]) & present[..., None]).any(1)
        related = (bank.kin[inside] & present[..., None]).any(1).float() @ bank.kin[foreign].float().T > 0
        scores = t * likeness(q, every[candidates.numel() :], head.back)
        parts.append(scores.masked_fill((same | related).to(device), ABSENT))
    return torch.cat(parts, dim=1)


def some_of(bank: Bank, rows: Sequence[int]) -> Bank:
    """The bank of the requests `rows` alone, against the same tools."""
    at = torch.tensor(rows)
    return replace(
        bank,
        rows=tuple(bank.rows[i] for i in rows),
        candidates=bank.candidates[at],
        gold=bank.gold[at],
        excluded=bank.excluded[at],
    )
