"""The last stage: the argument LoRA (`loragen.activated`) is fitted on the values of calls, everything else frozen.

What stands before the arguments is read without it and so needs no gradients: a step costs little more than reading its requests.
Only values are supervised, and what ends them: names and braces are the grammar's. The experts stand in as those of an average toolset,
as they do for keys.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.choose import normaliser
from agent_specializer.edge.transcript import arguments_text, label, render, render_call
from agent_specializer.examples import Example
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.loragen.models import cached, decoder, logits
from agent_specializer.specs import Toolset
from agent_specializer.training.activated import ActivatedStage
from agent_specializer.training.data import Source
from agent_specializer.training.made_up import TODAY, joined, on_another_day
from agent_specializer.training.rows import IGNORE

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

MAX_PREFIX, MAX_ARGUMENTS = 512, 80
"""Tokens that a conversation and a call's arguments may have. Longer ones are left out, not cut: whose values are cut off teaches to make them up."""
BLOCK = 8
"""Steps whose requests are drawn together, so that each step's are of about one length."""
WARMUP = 20
DEV = 96
JOINED, MOVED = 0.3, 0.3
"""Shares of calls that are asked for beside others of their toolset, and, where it is known what day it is, on another one."""


@dataclass(frozen=True)
class Filled:
    """Tokens of a call and of what stands before it.

    Attributes:
        prefix: up to ``Call:``. name: the label of the tool. arguments: of the JSON text.
        values: which of `arguments` belong to a value, or end one.
    """

    prefix: tuple[int, ...]
    name: tuple[int, ...]
    arguments: tuple[int, ...]
    values: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.name) + len(self.arguments)


def filled(
    tokenizer: PreTrainedTokenizerBase, example: Example, toolset: Toolset, rng: random.Random
) -> Filled | None:
    """The first call of `example` mostly, else a later one; None where there is nothing to learn from it, or too much to read."""
    calls = example.calls
    at = 0 if rng.random() < 0.6 else rng.randrange(len(calls))
    call, schema = calls[at], toolset.tool(calls[at].name).parameters
    if not call.arguments:
        return None
    made = (render_call(one, toolset.tool(one.name).parameters) for one in calls[:at])
    said = render(example.messages) + "".join(made)
    prefix: list[int] = tokenizer(said).input_ids
    text = arguments_text(call.arguments, schema)
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [
        (start, end) for start, end in _values(text) if _can_be_told(text[start : end - 1], said.lower())
    ]
    if not spans or len(prefix) > MAX_PREFIX or len(read.input_ids) > MAX_ARGUMENTS:
        return None
    return Filled(
        prefix=tuple(prefix),
        name=tuple(tokenizer(label(call.name), add_special_tokens=False).input_ids),
        arguments=tuple(read.input_ids),
        values=tuple(any(a < end and b > start for start, end in spans) for a, b in read.offset_mapping),
    )


def _values(text: str) -> list[tuple[int, int]]:
    """Where the values of the outermost object stand in a JSON text, each with the character that ends it."""
    decode, at, found = json.JSONDecoder().raw_decode, 1, []
    while text[at] != "}":
        _, start = decode(text, at + (text[at] == ",") + (text[at : at + 2] == ", "))
        start += len(": ")
        _, at = decode(text, start)
        found.append((start, at + 1))
    return found


def _can_be_told(value: str, said: str) -> bool:
    """Whether `value`, a JSON text, follows from what was `said`: it stands there, or has digits, as dates that are worked out do, or is a flag."""
    parsed = json.loads(value)
    parts = parsed if isinstance(parsed, list) else [parsed]
    return all(
        not isinstance(part, str) or part.strip().lower() in said or any(map(str.isdigit, part))
        for part in parts
    )


def draw(
    sources: Sequence[Source], tokenizer: PreTrainedTokenizerBase, count: int, rng: random.Random
) -> list[Filled]:
    """`count` calls, between the sets as the joint steps draw."""
    asking = [
        (source, some)
        for source in sources
        if not source.choice_only
        and (some := [e for e in source.examples if any(call.arguments for call in e.calls)])
    ]
    found: list[Filled] = []
    while asking and len(found) < count:
        source, some = rng.choices(asking, [source.weight for source, _ in asking])[0]
        example = rng.choice(some)
        example = _varied(example, source, rng)
        one = filled(tokenizer, example, source.toolsets[example.toolset_id], rng) if example.calls else None
        if one is not None:
            found.append(one)
    return found


def _varied(example: Example, source: Source, rng: random.Random) -> Example:
    """Now and then `example`, or its like, beside others in one request, or on another day."""
    today = TODAY.search(source.toolsets[example.toolset_id].instructions)
    if today and rng.random() < MOVED:
        return on_another_day(example, date.fromisoformat(today[1]), rng)
    if rng.random() < JOINED:
        beside = [source.examples[i] for i in source.by_toolset[example.toolset_id]]
        return next(iter(joined([example, *rng.sample(beside, min(8, len(beside)))], rng, count=1)), example)
    return example


def value_loss(
    model: nn.Module, writing: Activated, rows: Sequence[Filled], *, named: bool, pad: int
) -> tuple[Tensor, int]:
    """Cross-entropy of the values of `rows`, summed, and of how many tokens; differentiable in the argument LoRA alone.

    Args:
        named: whether the tools' labels are read under the LoRA, too, as they are where a call needs no plan.
    """
    before = [row.prefix if named else row.prefix + row.name for row in rows]
    behind = [(row.name if named else ()) + row.arguments for row in rows]
    left, right = max(map(len, before)), max(map(len, behind))
    ids, seen = (
        torch.full((len(rows), left + right), pad),
        torch.zeros(len(rows), left + right, dtype=torch.long),
    )
    targets = torch.full((len(rows), left + right), IGNORE)
    for i, (row, old, new) in enumerate(zip(rows, before, behind, strict=True)):
        ids[i, left - len(old) : left + len(new)] = torch.tensor(old + new)
        seen[i, left - len(old) : left + len(new)] = 1
        first = left + len(new) - len(row.arguments)
        for at, (token, wanted) in enumerate(zip(row.arguments, row.values, strict=True), first):
            if wanted:
                targets[i, at - 1] = token
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    device = next(model.parameters()).device
    ids, seen, positions, targets = (each.to(device) for each in (ids, seen, positions, targets[:, left:]))
    body, cache = decoder(model), DynamicCache()
    with torch.no_grad():
        body(
            input_ids=ids[:, :left],
            attention_mask=seen[:, :left],
            position_ids=positions[:, :left],
            **cached(body, cache),
        )
    with writing.beside(torch.ones(1, dtype=torch.bool)):
        states = body(
            input_ids=ids[:, left:],
            attention_mask=seen,
            position_ids=positions[:, left:],
            **cached(body, cache),
        ).last_hidden_state
    supervised = targets != IGNORE
    tokens = targets[supervised]
    subset = normaliser(model.config.vocab_size, tokens).to(device)  # type: ignore[union-attr,arg-type]
    out = logits(model, states[supervised], subset)
    return nn.functional.cross_entropy(out, torch.searchsorted(subset, tokens), reduction="sum"), len(tokens)


class ArgumentStage(ActivatedStage):
    """The stage of one run."""

    def __init__(self, run: Trainer, lora: ActivatedLora) -> None:
        options = run.options
        super().__init__(run, lora, steps=options.argument_steps, lr=options.argument_lr, warmup=WARMUP)

    def rows(self) -> list[Filled]:
        """The calls of the coming step on this device; they depend on the seed and the step alone."""
        run, size = self.run, self.run.options.argument_batch
        block, place = divmod(self.step, BLOCK)
        rng = random.Random(f"{run.options.seed}/arguments/{block}/{run.accelerator.process_index}")
        some = sorted(draw(run.train_sources, run.tokenizer, BLOCK * size, rng), key=len)
        order = rng.sample(range(BLOCK), BLOCK)
        return some[order[place] * size : (order[place] + 1) * size]

    def train_step(self) -> dict[str, float]:
        """One optimiser step on the coming calls; the mean `loss` of their tokens."""
        run, options = self.run, self.run.options
        rows = self.rows()
        named = random.Random(f"{options.seed}/named/{self.step}").random() < 0.5
        with run.averaged():
            summed, count = value_loss(run.edge, self.activated, rows, named=named, pad=run.pad)
            loss = summed / max(1, count)
            loss.backward()
        self.update()
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def dev(self) -> dict[str, float | None]:
        """`held_out_loss`: mean loss of the tokens of held-out families' values, in nats; None where there are none."""
        run, size = self.run, self.run.options.argument_batch
        rng = random.Random(f"{run.options.seed}/arguments/dev")
        some = sorted(draw(run.dev_sources, run.tokenizer, DEV, rng), key=len)
        parts = (some[at : at + size] for at in range(0, len(some), size))
        with run.averaged():
            losses = [value_loss(run.edge, self.activated, part, named=False, pad=run.pad) for part in parts]
        mean = sum(float(x) for x, _ in losses) / sum(n for _, n in losses) if losses else None
        return {"held_out_loss": mean}
