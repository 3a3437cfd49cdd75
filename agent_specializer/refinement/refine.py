"""Refinement: what the model, prompted with a tool's definition, thinks that its users say goes into an adapter's keys.

Optional, and apart from LoRA-Gen: a generator makes an adapter in one pass, this takes minutes for one toolset. The cloud model writes requests
for each tool (`writing`), the edge reads them as users' requests, and the adapter's keys are fitted to those that make the round trip
(`fitting`): that the adapter itself takes for the tool they were written for. A quarter of the requests is held out, to say whether
more was learned than the others. Whether people are served better, only their requests can tell, and on average they are not
(docs/measured.md): so an adapter is only replaced where examples say so, or where that is wished for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agent_specializer.errors import AdapterError
from agent_specializer.loragen.adapter import Adapter, rounded
from agent_specializer.loragen.requests import ELSEWHERE
from agent_specializer.progress import Progress, span
from agent_specializer.refinement.fitting import Lessons, fit_keys, padded
from agent_specializer.refinement.writing import write_requests
from agent_specializer.specs import Toolset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from agent_specializer.edge.engine import EdgeEngine

REQUESTS = 16
"""Written for each tool."""
HELD_OUT = 4
"""One in so many requests is held out."""
FEWEST = 4
"""Requests below which nothing can be learned."""


@dataclass(frozen=True)
class Held:
    """An adapter on the requests that are held out.

    Attributes:
        right: for how many it likes that tool best for which they were written; loss: mean negative log-probability of it, nats.
    """

    right: int
    loss: float


@dataclass(frozen=True)
class Refinement:
    """What refining an adapter came to.

    Attributes:
        written: requests; fitted: of them; held_out: of them. before, after: on those held out, whether they make the round trip or not.
        examples: requests of people; right_before, right_after: for how many of them the right tools were called.
        kept: whether the refined adapter took the place of the other one.
        seconds: of all; date: ISO 8601, UTC.
    """

    written: int
    fitted: int
    held_out: int
    before: Held
    after: Held
    examples: int
    right_before: int
    right_after: int
    kept: bool
    seconds: float
    date: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def refine(
    adapter: Adapter,
    toolset: Toolset,
    *,
    engine: EdgeEngine,
    writer: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    right: Callable[[Adapter], int],
    examples: int,
    keep: bool = False,
    requests: int = REQUESTS,
    seed: int = 0,
    progress: Progress,
) -> tuple[Adapter, Refinement]:
    """`adapter`, of `toolset`, with refined keys, and what that came to; the model is busy meanwhile, for minutes.

    Args:
        writer: writes the requests, `tokenizer` is its own; perhaps the engine's model.
        right: for how many of `examples` requests an adapter calls the right tools. keep: the refined one, whatever they say.
        requests: written for each tool; seed: of what is drawn.

    Raises:
        AdapterError: there is nothing to refine: no keys, one tool, or too few requests.
    """
    began = time.perf_counter()
    head, count = engine.head, len(toolset.tools)
    if head is None or not adapter.keys.numel() or count < 2:
        raise AdapterError(
            "this adapter has nothing to refine: it has no keys, or no two tools to tell apart",
            hint="use it as it is",
        )
    writing = span(progress, 0.0, 0.6)
    with engine.exclusive():
        by_tool = write_requests(
            writer,
            tokenizer,
            toolset.tools,
            count=requests,
            seed=seed,
            on_tool=lambda done: writing(f"requests of {done}/{count} tools", done / count),
        )
    texts = [text for some in by_tool for text in some]
    progress("reading the requests", 0.6)
    if not texts:
        raise AdapterError("the model wrote no requests", hint="ask for more, or describe what the tools do")
    choices = engine.first_choices([*texts, *ELSEWHERE], toolset, adapter=adapter)
    order = torch.tensor([adapter.names.index(name) for name in toolset.names])
    keys, elsewhere = adapter.keys[order], padded(choices[len(texts) :])
    own = [place for place, some in enumerate(by_tool) for _ in some]
    lessons = Lessons.of(choices[: len(texts)], own, head, keys)
    every = torch.arange(len(texts))
    held = lessons.some(every[every % HELD_OUT == HELD_OUT - 1])
    learned = lessons.some(every[every % HELD_OUT != HELD_OUT - 1])
    learned = learned.some((learned.log_likely(head, keys).argmax(-1) == learned.tools).nonzero()[:, 0])
    if len(learned) < FEWEST or not len(held):
        raise AdapterError(
            f"of {len(texts)} requests that the model wrote for {count} tools, {len(learned)} can be learned from: too few",
            hint="ask for more requests of each tool, or describe what the tools do",
        )
    progress("fitting the keys", 0.8)
    fitted, lift = fit_keys(head, keys, learned, elsewhere, seed=seed)
    fitted = rounded(fitted)
    before, after = _held(held, held.log_likely(head, keys)), _held(held, held.log_likely(head, fitted, lift))
    back = order.argsort()
    raised = lift[back] if adapter.lift is None else adapter.lift + lift[back]
    refined = replace(adapter, keys=fitted[back], lift=raised)
    progress("asking the examples", 0.9)
    right_before, right_after = (right(adapter), right(refined)) if examples else (0, 0)
    return refined, Refinement(
        written=len(texts),
        fitted=len(learned),
        held_out=len(held),
        before=before,
        after=after,
        examples=examples,
        right_before=right_before,
        right_after=right_after,
        kept=keep or right_after > right_before,
        seconds=time.perf_counter() - began,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _held(lessons: Lessons, log_likely: torch.Tensor) -> Held:
    right = (log_likely.argmax(-1) == lessons.tools).sum()
    return Held(int(right), float(nn.functional.nll_loss(log_likely, lessons.tools).detach()))
