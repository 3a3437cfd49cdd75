"""The stages of activated LoRAs under which text is written, behind a conversation that is read without: arguments, and answers in words.

What stands before needs no gradients, so a step costs little more than reading its conversations. The experts stand in as those of an
average toolset, as they do for keys.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.choose import normaliser
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.loragen.models import cached, decoder, logits
from agent_specializer.training.activated import ActivatedStage
from agent_specializer.training.data import Source
from agent_specializer.training.rows import IGNORE

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

BLOCK = 8
"""Steps whose rows are drawn together, so that each step's are of about one length."""
WARMUP = 20
DEV = 96
"""Rows of held-out families."""
NO_OTHERS = torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Written:
    """Tokens of what is written and of what stands before it.

    Attributes:
        prefix: up to ``Call:``. label: of what was chosen. text: what follows the label.
        supervised: which of `text` are learned.
    """

    prefix: tuple[int, ...]
    label: tuple[int, ...]
    text: tuple[int, ...]
    supervised: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.label) + len(self.text)


def written_loss(
    model: nn.Module,
    writing: Activated,
    rows: Sequence[Written],
    *,
    labels: bool,
    pad: int,
    others: Tensor = NO_OTHERS,
) -> tuple[Tensor, int]:
    """Cross-entropy of the supervised tokens of `rows`, summed, and how many they are; differentiable in the LoRA of `writing` alone.

    Args:
        labels: whether the labels are read under the LoRA, too.
        others: ids of tokens that are to be unlikely, beside the common ones.
    """
    before = [row.prefix if labels else row.prefix + row.label for row in rows]
    behind = [(row.label if labels else ()) + row.text for row in rows]
    left, right = max(map(len, before)), max(map(len, behind))
    ids, seen = (
        torch.full((len(rows), left + right), pad),
        torch.zeros(len(rows), left + right, dtype=torch.long),
    )
    targets = torch.full((len(rows), left + right), IGNORE)
    for i, (row, old, new) in enumerate(zip(rows, before, behind, strict=True)):
        ids[i, left - len(old) : left + len(new)] = torch.tensor(old + new)
        seen[i, left - len(old) : left + len(new)] = 1
        first = left + len(new) - len(row.text)
        for at, (token, wanted) in enumerate(zip(row.text, row.supervised, strict=True), first):
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
    subset = normaliser(model.config.vocab_size, tokens, others).to(device)  # type: ignore[union-attr,arg-type]
    out = logits(model, states[supervised], subset)
    return nn.functional.cross_entropy(out, torch.searchsorted(subset, tokens), reduction="sum"), len(tokens)


class WrittenStage(ActivatedStage):
    """The stage of one run, `batch` rows a step."""

    name: ClassVar[str]
    labelled: ClassVar[float] = 0.0
    """Share of steps in which labels are read under the LoRA, too."""
    rare: ClassVar[int] = 0
    """So many tokens of the whole vocabulary, drawn anew at each step, are learned to be unlikely, beside the common ones."""

    def __init__(self, run: Trainer, lora: ActivatedLora, *, steps: int, lr: float, batch: int) -> None:
        super().__init__(run, lora, steps=steps, lr=lr, warmup=WARMUP)
        self.batch = batch

    @abstractmethod
    def draw(self, sources: Sequence[Source], count: int, rng: random.Random) -> list[Written]:
        """`count` rows of `sources`; fewer where there are none to be had."""

    def rows(self) -> list[Written]:
        """Those of the coming step on this device; they depend on the seed and the step alone."""
        run, size = self.run, self.batch
        block, place = divmod(self.step, BLOCK)
        rng = random.Random(f"{run.options.seed}/{self.name}/{block}/{run.accelerator.process_index}")
        some = sorted(self.draw(run.train_sources, BLOCK * size, rng), key=len)
        order = rng.sample(range(BLOCK), BLOCK)
        return some[order[place] * size : (order[place] + 1) * size]

    def train_step(self) -> dict[str, float]:
        """One optimiser step on the coming rows; the mean `loss` of their supervised tokens, in nats."""
        run, rows = self.run, self.rows()
        labels = random.Random(f"{run.options.seed}/named/{self.step}").random() < self.labelled
        vocabulary: int = run.edge.config.vocab_size  # type: ignore[union-attr,assignment]
        drawn = torch.Generator().manual_seed(self.step)
        others = torch.randint(vocabulary, (self.rare,), generator=drawn)
        with run.averaged():
            summed, count = written_loss(
                run.edge, self.activated, rows, labels=labels, pad=run.pad, others=others
            )
            loss = summed / max(1, count)
            loss.backward()
        self.update()
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def dev(self) -> dict[str, float | None]:
        """`held_out_loss`: the same of held-out families; None where there are none."""
        run, size = self.run, self.batch
        some = sorted(
            self.draw(run.dev_sources, DEV, random.Random(f"{run.options.seed}/{self.name}/dev")), key=len
        )
        parts = (some[at : at + size] for at in range(0, len(some), size))
        with run.averaged():
            losses = [
                written_loss(run.edge, self.activated, part, labels=self.labelled == 1, pad=run.pad)
                for part in parts
            ]
        mean = sum(float(x) for x, _ in losses) / sum(n for _, n in losses) if losses else None
        return {"held_out_loss": mean}
