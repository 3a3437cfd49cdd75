"""How a request's first choice comes about, for whoever learns from it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from agent_specializer.edge.job import Job
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.loragen.toolkeys import Asked


@dataclass(frozen=True)
class FirstChoice:
    """What is weighed where nothing was called yet. That a request may not say what a tool requires is left out.

    Attributes:
        scores: (tools + 1,) float32 in nats, the last of answering in words.
        asked: what is compared with the adapter's keys, of one row; None where there are none.
        temperature: divides the scores before the softmax that gives the confidence.
    """

    scores: Tensor
    asked: Asked | None
    temperature: float

    @staticmethod
    def feed(job: Job) -> Feed:
        """What is to be read for it."""
        return Feed(job.prompt, tree=job.scorer.tree, words=bool(job.scorer.keys.numel()))

    @staticmethod
    def of(job: Job, seen: Seen) -> FirstChoice:
        """Of what the model made of `feed`."""
        scorer = job.scorer
        scores = scorer.scores(seen)
        scores[:-1] += job.evidence()
        asked = scorer.asked(seen.words) if scorer.keys.numel() else None
        return FirstChoice(scores.clone(), asked, scorer.temperature)
