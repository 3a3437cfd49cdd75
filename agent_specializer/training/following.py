"""The LoRA for what follows a call (`loragen.activated`), fitted on conversations that stand behind one (`training.after_calls`).

What the experts learned of it came from requests for several calls, which are few: names behind a call said next to nothing of what was
still to be done. Supervised are all choices at once, by names alone and as they are scored beside keys: the former lest keys, which are
nearly always right of families that they were fitted on, leave nothing to learn. The experts stand in as those of an average toolset, as
they do for keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.choose import NameTree
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.loragen.toolkeys import ABSENT
from agent_specializer.training.activated import ActivatedStage
from agent_specializer.training.after_calls import after_calls
from agent_specializer.training.data import Composition, Compositions, Source
from agent_specializer.training.objective import Scores, listwise, score
from agent_specializer.training.passing_on import SHARE, with_passing_on
from agent_specializer.training.rows import Batch, collate, empty_row, example_row

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

WARMUP = 12
EXAMPLES = 16
"""Requests of a composition of which conversations are made."""
TOKENS = 4000
"""Of a composition, padding and names included: larger ones are left out."""
LONGEST = 360
"""Tokens of a conversation: longer ones are left out, for what is cut off may be what was asked."""
FIRST, APART = 7_000_000, 100
"""Compositions of the first step are numbered from here, each step's so far from the one's before; others than those of the joint steps."""
DEV = 12
"""Compositions of held-out families."""


class FollowingStage(ActivatedStage):
    """The stage of one run."""

    def __init__(self, run: Trainer, lora: ActivatedLora) -> None:
        options = run.options
        super().__init__(run, lora, steps=options.following_steps, lr=options.following_lr, warmup=WARMUP)
        self._supply = _supply(run.train_sources, options.seed)

    def train_step(self) -> dict[str, float]:
        """One optimiser step on the coming conversations: their mean loss, and how many are right."""
        run, options = self.run, self.run.options
        place = self.step * run.accelerator.num_processes + run.accelerator.process_index
        rng = random.Random(f"{options.seed}/following/{place}")
        summed, right, rows = 0.0, 0, 0
        for batch, keys in self._batches(self._supply, rng, FIRST + place * APART):
            with run.averaged():
                scores = self.scores(batch, keys)
                loss = len(batch.gold[:-1]) * (listwise(scores.total, batch) + listwise(scores.names, batch))
                (loss / options.following_batch).backward()
            summed, rows = summed + float(loss.detach()), rows + len(scores.total)
            right += int(_right(scores, batch).sum())
            if rows >= options.following_batch:
                break
        self.update()
        return {"loss": summed / max(1, rows), "right": right / max(1, rows)}

    @torch.no_grad()
    def dev(self) -> dict[str, float | None]:
        """`held_out_right`: how many conversations of held-out families go on rightly; None where there are none."""
        hits: list[Tensor] = []
        rng = random.Random(f"{self.run.options.seed}/following/dev")
        batches = self._batches(_supply(self.run.dev_sources, self.run.options.seed), rng, FIRST)
        for _, (batch, keys) in zip(range(DEV), batches, strict=False):
            with self.run.averaged():
                hits.append(_right(self.scores(batch, keys), batch))
        return {"held_out_right": float(torch.cat(hits).float().mean()) if hits else None}

    def scores(self, batch: Batch, keys: Tensor) -> Scores:
        """Of what may follow; `keys` of the batch's tools, or empty."""
        with behind_the_call(self.activated, batch):
            return score(self.run.edge, self.run.generator.head, batch, keys)

    def _batches(
        self, supply: Compositions, rng: random.Random, number: int
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Batches of one composition each, and the keys of its tools, from that of the `number` on; endlessly, as long as there are any
        to be made."""
        run, barren = self.run, 0
        while barren < APART:
            composition = supply[number]
            if rng.random() < SHARE:
                composition = with_passing_on(composition, rng)
            batch = behind_calls(run, composition, rng, limit=run.options.following_batch)
            number, barren = number + 1, barren + 1
            if batch is not None and batch.ids.numel() <= TOKENS:
                barren = 0
                yield batch, run.keys(composition.toolset).detach()


@contextmanager
def behind_the_call(activated: Activated, batch: Batch) -> Iterator[None]:
    """While open, what stands behind a call of the newest turn in `batch` is read under the LoRA."""
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    with activated.beside(batch.called[:, None] & (place >= batch.behind[:, None])):
        yield


def _supply(sources: Sequence[Source], seed: int) -> Compositions:
    telling = [source for source in sources if not source.choice_only]
    return Compositions(telling or list(sources), seed=seed, examples=EXAMPLES, opaque_share=0.0)


def _right(scores: Scores, batch: Batch) -> Tensor:
    """Which rows, (rows,) bool."""
    return scores.total.masked_fill(batch.excluded[:-1], ABSENT).argmax(-1) == batch.gold[:-1]


def behind_calls(run: Trainer, composition: Composition, rng: random.Random, *, limit: int) -> Batch | None:
    """Rows that stand behind a call, of conversations made of `composition`, and of the empty request; None where there are none."""
    toolset = composition.toolset
    tree = NameTree.of(run.tokenizer, toolset.names)
    rows = []
    for example in after_calls(composition, rng, count=limit):
        row = example_row(
            run.tokenizer, example, toolset, tree, rng, arguments=False, longest=LONGEST, behind_a_call=True
        )
        if row.called and len(row.prefix) < LONGEST:
            rows.append(row)
    return run.placed(collate([*rows, empty_row(run.tokenizer)], tree, run.pad)) if rows else None
