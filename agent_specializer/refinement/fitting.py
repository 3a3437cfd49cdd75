"""Keys fitted to requests of known tools: gradient descent on the adapter's own numbers, seconds.

What the edge makes of a request does not depend on keys, so it is read once; only the likeness to the keys is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent_specializer.edge.first_choice import FirstChoice
from agent_specializer.loragen.features import likeness
from agent_specializer.loragen.requests import rise
from agent_specializer.loragen.toolkeys import ChoiceHead

STEPS, BATCH, RATE = 20, 96, 1e-3
ANCHOR = 10.0
"""Holds keys where the generator put them: nats for the square of how far a tool's vectors are from there."""


@dataclass(frozen=True)
class Lessons:
    """Requests as the edge reads them, and the tools that they were written for.

    Attributes:
        asked: (requests, words, key_dim), what is compared with keys; rest: (requests, tools) nats, what else tells tools apart.
        tools: (requests,) index of the right tool. temperature: of the scores.
    """

    asked: Tensor
    rest: Tensor
    tools: Tensor
    temperature: float

    @staticmethod
    def of(choices: Sequence[FirstChoice], tools: Sequence[int], head: ChoiceHead, keys: Tensor) -> Lessons:
        """`choices` were made under `keys` (tools, vectors, key_dim)."""
        asked = padded(choices)
        scores = torch.stack([choice.scores[:-1] for choice in choices])
        return Lessons(asked, scores - _told(head, asked, keys), torch.tensor(tools), choices[0].temperature)

    def __len__(self) -> int:
        return len(self.tools)

    def some(self, rows: Tensor) -> Lessons:
        """Those of `rows`, indices."""
        return Lessons(self.asked[rows], self.rest[rows], self.tools[rows], self.temperature)

    def log_likely(self, head: ChoiceHead, keys: Tensor, lift: Tensor | float = 0.0) -> Tensor:
        """(requests, tools) log-probability that each is meant under `keys`; `lift`: taken off the likeness of each, beside what was."""
        scores = self.rest + _told(head, self.asked, keys) - head.log_t.detach().exp().cpu() * lift
        return (scores / self.temperature).log_softmax(-1)


def fit_keys(
    head: ChoiceHead, keys: Tensor, lessons: Lessons, elsewhere: Tensor, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Keys under which `lessons` come out better, and how much more they are like what has nothing to do with them.

    Args:
        keys: (tools, vectors, key_dim). elsewhere: (requests, words, key_dim), requests that no tool is meant by.

    Returns:
        (tools, vectors, key_dim) and (tools,), the latter to be taken off the likeness, float32.
    """
    there = (keys.norm(dim=-1, keepdim=True) > 0).float()
    moved = torch.zeros_like(keys, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=RATE)
    order = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        some = lessons.some(torch.randperm(len(lessons), generator=order)[:BATCH])
        now = keys + moved * there
        log_likely = some.log_likely(head, now, rise(head, elsewhere, keys, now))
        loss = nn.functional.nll_loss(log_likely, some.tools)
        loss = loss + ANCHOR * (moved * there).square().sum() / len(keys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = (keys + moved * there).detach()
    return after, rise(head, elsewhere, keys, after).detach()


def padded(choices: Sequence[FirstChoice]) -> Tensor:
    """(requests, words, key_dim), what of `choices` is compared with keys."""
    vectors = [choice.asked.vectors[0].cpu() for choice in choices if choice.asked is not None]
    return nn.utils.rnn.pad_sequence(vectors, batch_first=True)


def _told(head: ChoiceHead, asked: Tensor, keys: Tensor) -> Tensor:
    return head.log_t.detach().exp().cpu() * likeness(asked, keys, head.back.detach().cpu())
