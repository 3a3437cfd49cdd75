"""One training row: a conversation, the tree of all names behind it, and the arguments or words that should follow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.attention import PAD
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.transcript import (
    ANSWER,
    EMPTY,
    arguments_text,
    behind_request,
    newest_turn,
    render,
    render_call,
)
from agent_specializer.examples import Example
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset

MAX_PREFIX = 128
MAX_WITH_RESULTS = 256
"""Where the newest turn holds results of tools."""
MAX_REPLY = 64
IGNORE = -100
ACROSS = ("ids", "segments", "positions", "targets")
"""Of a batch: (rows, tokens)."""


@dataclass(frozen=True)
class Row:
    """Tokens of one row: the prefix, the fed tokens of the tree, then the continuation of the right choice.

    Attributes:
        prefix: token ids up to and including ``Call:``.
        context: how many of them are the context's, which the rows of a composition have in common.
        gold: index of the right choice; IGNORE for the row of the empty request.
        excluded: choices that are right too (later calls of the same turn) and so neither gold nor wrong.
        reply: what follows the right choice's label, all of it supervised.
        lead: tokens before `reply` that are fed but not supervised (the label's last token, ``Answer:``).
    """

    prefix: tuple[int, ...]
    gold: int
    excluded: tuple[int, ...] = ()
    lead: tuple[int, ...] = ()
    reply: tuple[int, ...] = ()
    called: bool = False
    """Whether calls of this turn stand in the prefix already."""
    answered: bool = False
    """Whether the prefix ends in the result of one."""
    made: tuple[int, ...] = ()
    """The choices that they were."""
    turn: tuple[int, int] = (0, 1)
    """First token of the prefix that belongs to the newest turn, and the one behind the last: that of the first ``Call:``."""
    behind: int = MAX_PREFIX + MAX_WITH_RESULTS
    """First token behind the newest turn's first ``Call:``; no token of the prefix where nothing was called."""
    context: int = 0


def empty_row(tokenizer: PreTrainedTokenizerBase, context: str = "") -> Row:
    """The row that measures the priors."""
    ids, shared = tokens_behind(tokenizer, context, EMPTY)
    return Row(prefix=tuple(ids), gold=IGNORE, context=shared)


def example_row(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    toolset: Toolset,
    tree: NameTree,
    rng: random.Random,
    *,
    arguments: bool = True,
    context: str = "",
    longest: int | None = None,
    behind_a_call: bool = False,
) -> Row:
    """The row of one step of `example`: its first call mostly, else a later one, or that nothing more is to be called.

    `behind_a_call`: one behind a call of its newest turn, where it has any. `context`: a text that stands in front of the conversation,
    which is cut to `longest` tokens without it (None: `MAX_PREFIX`, or `MAX_WITH_RESULTS` where results are to be answered).
    """
    names = toolset.names
    calls = list(example.calls)
    before = [call.name for message in _newest(example.messages) for call in message.calls]
    if behind_a_call:
        step = 0 if before or not calls else rng.randint(1, len(calls))
    else:
        step = 0 if not calls or rng.random() < 0.6 else rng.randint(1, len(calls))
    text = render(example.messages)
    turn = (newest_turn(tokenizer, text), len(tokenizer(text).input_ids))
    behind = behind_request(tokenizer, text)
    for call in calls[:step]:
        text += render_call(call, toolset.tool(call.name).parameters)
    prefix, shared = tokens_behind(tokenizer, context, text)
    if context:
        moved = len(prefix) - len(tokenizer(text).input_ids)
        turn, behind = (turn[0] + moved, turn[1] + moved), behind + moved
    front = shared or 1  # the start token stays, too
    longest = longest or (MAX_PREFIX if example.messages[-1].role == "user" else MAX_WITH_RESULTS)
    cut = len(prefix) - front - (longest - 1)
    if cut > 0:
        prefix = prefix[:front] + prefix[front + cut :]
        turn = (max(front, turn[0] - cut), max(front + 1, turn[1] - cut))
        behind = max(front, behind - cut)
    remaining = calls[step:]
    lead: list[int] = []
    reply: list[int] = []
    if remaining:
        gold = names.index(remaining[0].name)
        excluded = {names.index(call.name) for call in remaining[1:]} - {gold}
        schema = toolset.tools[gold].parameters
        if arguments:
            reply = tokenizer(
                arguments_text(remaining[0].arguments, schema), add_special_tokens=False
            ).input_ids
    else:
        gold, excluded = len(names), set()
        if step == 0 and example.answer:
            lead = tokenizer(ANSWER, add_special_tokens=False).input_ids
            answer = " ".join(example.answer.split())
            reply = tokenizer(f" {answer}\n", add_special_tokens=False).input_ids
    if len(reply) > MAX_REPLY:
        reply = reply[:MAX_REPLY]
    lead = [tree.labels[gold][-1], *lead] if reply else []
    return Row(
        tuple(prefix),
        gold,
        tuple(excluded),
        tuple(lead),
        tuple(reply),
        called=bool(before or step),
        answered=bool(before and not step),
        made=tuple(names.index(n) for n in {*before, *(call.name for call in calls[:step])} if n in names),
        turn=turn,
        behind=behind,
        context=shared,
    )


def _newest(messages: Sequence[Message]) -> Sequence[Message]:
    """The newest user message and what came of it so far."""
    start = max((at for at, message in enumerate(messages) if message.role == "user"), default=0)
    return messages[start:]


def tokens_behind(tokenizer: PreTrainedTokenizerBase, context: str, text: str) -> tuple[list[int], int]:
    """Tokens of `text` behind `context`, and how many of them are the context's alone.

    Both are tokenised as one, as the engine does: where they meet, a token may belong to both.
    """
    ids: list[int] = tokenizer(context + text).input_ids
    if not context:
        return ids, 0
    alone = tokenizer(context).input_ids
    pairs = enumerate(zip(alone, ids, strict=False))
    return ids, next((place for place, (a, b) in pairs if a != b), min(len(alone), len(ids) - 1))


@dataclass(frozen=True)
class Batch:
    """Rows of one composition, padded on the right. All tensors (rows, tokens) unless said otherwise.

    Attributes:
        ids, segments, positions: what the model reads; segments as in `edge.attention`.
        context: (context,) ids of what stands in front of every row and is read once; no part of `ids`, but counted
            by `positions`. Empty where rows stand alone.
        last: (rows,) index of the prefix's last token.
        gold: (rows,) right choice or IGNORE.
        excluded: (rows, choices) bool.
        targets: supervised next token at each position, or IGNORE.
        called, answered: (rows,) bool, made: (rows, choices) bool, turns: (rows, 2), behind: (rows,), as in `Row`.
        tree: the choices; its fed tokens start right behind each prefix.
    """

    ids: Tensor
    segments: Tensor
    positions: Tensor
    context: Tensor
    last: Tensor
    gold: Tensor
    excluded: Tensor
    targets: Tensor
    called: Tensor
    answered: Tensor
    made: Tensor
    turns: Tensor
    behind: Tensor
    tree: NameTree

    @property
    def tokens(self) -> int:
        """Tokens that the model reads, padding left out."""
        return len(self.context) + int((self.segments != PAD).sum())

    def behind_a_call(self) -> Batch:
        """The rows that stand behind a call alone, and the last, that of the empty request; without columns that are padding in all."""
        some = self.called.clone()
        some[-1] = True
        width = int((self.segments[some] != PAD).any(0).nonzero().max()) + 1
        found = {
            key: value[some][:, :width] if key in ACROSS else value if key == "context" else value[some]
            for key, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return Batch(**found, tree=self.tree)


def collate(rows: list[Row], tree: NameTree, pad: int, *, share: bool = True) -> Batch:
    """Rows that share `tree` as one batch. `share`: their context is read once for all; otherwise each repeats it."""
    shared = min(row.context for row in rows) if share else 0
    context = rows[0].prefix[:shared]
    assert all(row.prefix[:shared] == context for row in rows)
    fed, fed_segments, depths = tree.tokens.tolist(), tree.segments.tolist(), tree.depths.tolist()
    width = max(len(r.prefix) - shared + len(fed) + len(r.lead) + len(r.reply) for r in rows)
    shape = (len(rows), width)
    ids = torch.full(shape, pad)
    segments = torch.full(shape, PAD)
    positions = torch.zeros(shape, dtype=torch.long)
    targets = torch.full(shape, IGNORE)
    excluded, made = torch.zeros(2, len(rows), tree.choices, dtype=torch.bool)
    for i, row in enumerate(rows):
        own = row.prefix[shared:]
        start = len(own)
        tail = [*row.lead, *row.reply]
        end = start + len(fed) + len(tail)
        ids[i, :end] = torch.tensor([*own, *fed, *tail])
        segments[i, :end] = torch.tensor([0] * start + fed_segments + [row.gold + 1] * len(tail))
        # The tail stands behind its label's fed tokens, as if the other names were not there.
        tail_from = start + (len(tree.labels[row.gold]) - 1 if tail else 0)
        places = [*range(start), *(start + d for d in depths), *range(tail_from, tail_from + len(tail))]
        positions[i, :end] = shared + torch.tensor(places)
        supervised = len(row.reply)
        if supervised:
            targets[i, end - supervised - 1 : end - 1] = torch.tensor(row.reply)
        excluded[i, list(row.excluded)] = True
        made[i, list(row.made)] = True
    return Batch(
        ids=ids,
        segments=segments,
        positions=positions,
        context=torch.tensor(context, dtype=torch.long),
        last=torch.tensor([len(r.prefix) - shared - 1 for r in rows]),
        gold=torch.tensor([r.gold for r in rows]),
        excluded=excluded,
        targets=targets,
        called=torch.tensor([r.called for r in rows]),
        answered=torch.tensor([r.answered for r in rows]),
        made=made,
        turns=torch.tensor([r.turn for r in rows]).sub(shared).clamp_min(0),
        behind=torch.tensor([r.behind for r in rows]).sub(shared).clamp_min(0),
        tree=tree,
    )
