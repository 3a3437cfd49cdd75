"""One reply, step by step: choose, write arguments, choose again, or answer in words.

A reply is a generator: it yields what it wants the model to read next (`Feed`) and is sent what came of it (`Seen`). It
does not know whether it runs alone or in a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from agent_specializer.edge.arguments import Sampler, Tail, decode_arguments
from agent_specializer.edge.choose import Branches
from agent_specializer.edge.events import CallDelta, ChoiceMade, Event, TextDelta
from agent_specializer.edge.job import Job
from agent_specializer.edge.numbers import Numbers
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.edge.planning import plan
from agent_specializer.edge.said import (
    asked_for,
    beginning,
    copied,
    openings,
    picked,
)
from agent_specializer.edge.transcript import ANSWER, CALL, arguments_text, label
from agent_specializer.edge.words import decode_words
from agent_specializer.errors import DecodeError
from agent_specializer.messages import Call, Choice


@dataclass
class Outcome:
    """What was decided and written so far."""

    calls: list[Call] = field(default_factory=list)
    content: str = ""
    confidence: float = 0.0
    choices: tuple[Choice, ...] = ()
    missing: tuple[str, ...] = ()
    completion_tokens: int = 0
    first_token_seconds: float = 0.0


def decode_reply(job: Job) -> Generator[Feed, Seen, Outcome]:
    """The reply to `job`; DecodeError when nothing valid fits its budget."""
    outcome = Outcome()
    tail = Tail(list(job.prompt), read=job.cached)
    sampler = Sampler(job.options.temperature, job.options.seed)
    wish = job.options.tool_choice
    budget = min(job.options.max_tokens, job.limit - len(job.prompt))
    if wish == "none" or not job.toolset.tools:
        outcome.confidence = 1.0
        outcome.first_token_seconds = time.perf_counter() - job.began
        yield from _words(job, outcome, tail, sampler, budget)
        return outcome
    names: tuple[str | None, ...] = (*job.toolset.names, None)
    closed: set[str | None] = set()
    if wish not in ("auto", "any"):
        closed |= set(job.toolset.names) - {wish}
    words: Tensor | None = None
    asks = bool(job.scorer.keys.numel())
    while True:
        barred = closed | ({None} if wish != "auto" and not outcome.calls else set())
        made = [call.name for call in (*job.made, *outcome.calls)]
        follows = bool(made) and "following" in job.under
        if not follows or tail.read < job.behind:
            seen = yield tail.feed(tree=None if follows else job.scorer.tree, words=asks and words is None)
            # What the user wants is read once, before the calls.
            words = seen.words if words is None else words
        if follows:
            tail.again(job.behind)
            seen = yield tail.feed(tree=job.scorer.tree, under="following")
            tail.again(job.behind)  # arguments and words are written as if there were no such LoRA
        seen = replace(seen, words=words)
        scores = job.scorer.scores(seen, made=made, answered=bool(job.made) and not outcome.calls)
        if not made:
            scores[:-1] += job.evidence()
        unsaid: tuple[str, ...] = ()
        if not made and None not in barred:
            unsaid = yield from _asking(job, tail, scores)
            scores[-1] += job.options.caution
        ranking = _ranking(scores, job.scorer.temperature, names, barred)
        if not outcome.calls:
            outcome.choices, outcome.confidence = ranking, ranking[0].probability
            outcome.first_token_seconds = time.perf_counter() - job.began
            if ranking[0].name is None:
                outcome.missing = unsaid
        spent = yield from _call(job, outcome, tail, sampler, budget, ranking, closed, words)
        if spent is None:
            break
        budget -= spent
        if not job.options.parallel_calls or len(outcome.calls) == job.options.max_calls:
            return outcome
        if len(closed) == len(names) - 1 or len(tail.tokens) + budget > job.limit:
            return outcome
        tail.tokens += job.tokenizer(f"\n{CALL}", add_special_tokens=False).input_ids
    if not outcome.calls:
        yield from _words(job, outcome, tail, sampler, budget)
    return outcome


def _asking(job: Job, tail: Tail, scores: Tensor) -> Generator[Feed, Seen, tuple[str, ...]]:
    """Adds to `scores` what speaks for asking back before the likeliest tool is called; the parameters that are not given."""
    if not job.scorer.asks:
        return ()
    tool = job.toolset.tools[int(scores[:-1].argmax())]
    parameters = asked_for(tool)
    if not parameters:
        return ()
    branches = Branches.of_tokens(openings(job.tokenizer, tool))
    seen = yield tail.feed(tree=branches, words=True)
    assert seen.branches is not None
    begins = job.begins
    likely = beginning(job.scorer.model, seen.states[1 + branches.ends], begins, job.tokenizer, tool)
    changes = seen.branches[branches.ends] - job.unasked(tool)
    given = job.scorer.gives(changes, copied(likely, begins.times, picked(tool)))
    scores[-1] = torch.logaddexp(scores[-1], job.scorer.asking(given))
    return tuple(name for name, known in zip(parameters, given.tolist(), strict=True) if known < 0)


def _ranking(
    scores: Tensor, temperature: float, names: tuple[str | None, ...], barred: set[str | None]
) -> tuple[Choice, ...]:
    """The open choices, best first."""
    kept = [index for index, name in enumerate(names) if name not in barred]
    shares = torch.softmax(scores[kept] / temperature, -1).tolist()
    choices = [
        Choice(name=names[index], score=score, probability=min(1.0, share))
        for index, score, share in zip(kept, scores[kept].tolist(), shares, strict=True)
    ]
    return tuple(sorted(choices, key=lambda choice: -choice.score))


def _call(
    job: Job,
    outcome: Outcome,
    tail: Tail,
    sampler: Sampler,
    budget: int,
    ranking: tuple[Choice, ...],
    closed: set[str | None],
    words: Tensor | None,
) -> Generator[Feed, Seen, int | None]:
    """Makes the best-ranked call that has not been made yet; tokens of its arguments, or None where none is to follow.

    A tool that would repeat a call exactly is put into `closed`, and the next best choice taken.
    """
    start, index = len(tail.tokens), len(outcome.calls)
    # A model that is free to stop would call again what it has the result of, over and over.
    known = [*(job.made if job.options.tool_choice == "auto" else ()), *outcome.calls]
    for choice in ranking:
        chosen = job.scorer.tree.labels[_index(job, choice.name)]
        if choice.name is None:
            job.emit(ChoiceMade(index, None, choice.probability, ranking))
            outcome.completion_tokens += len(chosen)
            return None
        name = choice.name
        # A turn's first call is shown as it is written; a later one when it is known to fit, and to be another one.
        pieces: list[Event] = []
        show = pieces.append if known else job.emit
        show(ChoiceMade(index, name, choice.probability, ranking))

        def written(text: str, name: str = name, show: Callable[[Event], None] = show) -> None:
            show(CallDelta(index, name, text))

        tail.tokens += chosen
        planned = yield from plan(job, tail.feed, job.toolset.tool(name), budget, words)
        try:
            arguments = yield from decode_arguments(
                tail,
                planned.grammar,
                sampler,
                budget=budget,
                head_rows=job.head_rows,
                written=written,
                copies=planned.copies,
                own_weights="arguments" in job.under,
            )
        except DecodeError:
            if not outcome.calls:
                raise
            return None  # the budget ends between calls: those that are complete stand
        if "arguments" in job.under:
            tail.again(start + len(chosen))  # later choices are made as if others had written it
        call = Call(name=name, arguments=arguments)
        if not _repeats(call, known):
            for event in pieces:
                job.emit(event)
            outcome.calls.append(call)
            outcome.completion_tokens += len(tail.tokens) - start
            if not job.toolset.tool(name).parameters.get("properties"):
                closed.add(name)  # without parameters it could only repeat itself
            return len(tail.tokens) - start - len(chosen)
        closed.add(name)
        tail.cut(start)
    return None


def _words(
    job: Job, outcome: Outcome, tail: Tail, sampler: Sampler, budget: int
) -> Generator[Feed, Seen, None]:
    """An answer in words."""
    under = "answers" if "answers" in job.under else ""
    if under and tail.read < len(tail.tokens):
        yield tail.feed()  # the conversation is read as if there were no such LoRA
    tail.tokens += [
        *job.tokenizer(label(None), add_special_tokens=False).input_ids,
        *job.tokenizer(ANSWER, add_special_tokens=False).input_ids,
    ]
    outcome.content, count = yield from decode_words(
        tail,
        job.grammars.vocabulary,
        sampler,
        budget=budget,
        under=under,
        numbers=Numbers(job.source.text, job.grammars.vocabulary) if job.made else None,
        stop=job.options.stop,
        written=lambda text: job.emit(TextDelta(text)),
    )
    outcome.completion_tokens += count


def _index(job: Job, name: str | None) -> int:
    return job.scorer.tree.choices - 1 if name is None else job.toolset.names.index(name)


def _repeats(call: Call, calls: Sequence[Call]) -> bool:
    text = arguments_text(call.arguments)
    return any(text == arguments_text(other.arguments) and call.name == other.name for other in calls)
