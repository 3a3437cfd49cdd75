"""What is counted, and how sure we are of it.

- ``tool_accuracy`` counts examples with calls: right when the set of the tools called is the gold set. An
  example with several gold calls needs all of their tools and no other; how often a tool is called does not
  matter here.
- ``likeliest_accuracy`` counts examples with calls, too: right when the best-scored tool is any of the gold
  calls', were answering in words no choice. It tells which tool apart from whether one.
- ``call_exact`` counts all examples with calls: the calls made and the gold ones pair off, name and
  arguments.
- ``no_call_accuracy`` counts examples without calls: right when nothing was called.
- ``schema_valid`` counts calls made: right when the tool exists and its schema accepts the arguments.

A reply that ended in an error is wrong in every respect. Intervals are percentile bootstraps over items, 95
%.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from agent_specializer.evaluation.tasks import Item
from agent_specializer.examples.compare import same_calls
from agent_specializer.messages import Call, Reply
from agent_specializer.specs import Toolset

RESAMPLES = 10_000


@dataclass(frozen=True)
class Outcome:
    """How one item went in one mode. `made` and `valid` count calls; `has_calls` is of the gold."""

    index: int
    has_calls: bool
    tool_right: bool
    likeliest_right: bool
    exact: bool
    made: int
    valid: int
    prompt_tokens: int = 0
    tool_prompt_tokens: int = 0
    seconds: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(item: Item, toolset: Toolset, reply: Reply, *, arguments: bool = True) -> Outcome:
    """The outcome of `reply`. For an example without calls, right means that none was made.

    Without `arguments` a reply holds its first tool only, which is right when it is any of the gold calls'.
    """
    names = {call.name for call in reply.calls}
    gold = {call.name for call in item.calls}
    return Outcome(
        index=item.index,
        has_calls=bool(item.calls),
        tool_right=names == gold if arguments or not names else names <= gold,
        likeliest_right=likeliest(choice.name for choice in reply.choices) in gold,
        exact=same_calls(reply.calls, item.calls, item.accepted),
        made=len(reply.calls),
        valid=sum(is_valid(call, toolset) for call in reply.calls),
        prompt_tokens=reply.usage.prompt_tokens,
        tool_prompt_tokens=reply.usage.tool_prompt_tokens,
        seconds=reply.usage.seconds,
    )


def likeliest(names: Iterable[str | None]) -> str | None:
    """The best tool of `names`, best first, None being answering in words; None where there is no tool."""
    return next((name for name in names if name is not None), None)


def failed(item: Item, error: Exception) -> Outcome:
    """The outcome of a reply that ended in `error`: wrong, with no call made."""
    return Outcome(
        index=item.index,
        has_calls=bool(item.calls),
        tool_right=False,
        likeliest_right=False,
        exact=False,
        made=0,
        valid=0,
        error=f"{type(error).__name__}: {error}",
    )


def is_valid(call: Call, toolset: Toolset) -> bool:
    """Whether `call` names a tool of `toolset` and its schema (draft 2020-12) accepts the arguments."""
    if call.name not in toolset.names:
        return False
    return bool(Draft202012Validator(toolset.tool(call.name).parameters).is_valid(call.arguments))


def summary(outcomes: Sequence[Outcome], *, arguments: bool = True, seed: int = 0) -> dict[str, Any]:
    """One mode's row of the report; a figure that no example speaks of is None.

    Args:
        arguments: whether arguments were decoded; if not, `call_exact` and `schema_valid` are None.
    """
    with_calls = [o for o in outcomes if o.has_calls]
    without = [o for o in outcomes if not o.has_calls]
    answered = [o for o in outcomes if not o.error]
    tool = np.array([o.tool_right for o in with_calls], dtype=float)
    likely = np.array([o.likeliest_right for o in with_calls], dtype=float)
    exact = np.array([o.exact for o in with_calls], dtype=float)
    made = sum(o.made for o in outcomes)
    return {
        "n": len(outcomes),
        "n_with_calls": len(with_calls),
        "tool_accuracy": mean(tool),
        "tool_accuracy_ci95": interval(tool, seed=seed),
        "likeliest_accuracy": mean(likely),
        "likeliest_accuracy_ci95": interval(likely, seed=seed),
        "call_exact": mean(exact) if arguments else None,
        "call_exact_ci95": interval(exact, seed=seed) if arguments else None,
        "no_call_accuracy": mean([o.tool_right for o in without]),
        "schema_valid": (sum(o.valid for o in outcomes) / made if made else 1.0) if arguments else None,
        "prompt_tokens_mean": mean([o.prompt_tokens for o in answered]),
        "tool_prompt_tokens_mean": mean([o.tool_prompt_tokens for o in answered]),
        "seconds_mean": mean([o.seconds for o in answered]),
        "errors": len(outcomes) - len(answered),
    }


def paired(
    modes: Mapping[str, Sequence[Outcome]], first: str, *, arguments: bool = True, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """`first` minus every other mode, over the same items: ``{"A-B": {"delta", "ci95", ...}}``.

    `delta` and `ci95` are of `tool_accuracy`; `likeliest_delta`, `call_exact_delta` and `no_call_delta` come with theirs.
    """
    rows: dict[str, dict[str, Any]] = {}
    for other in modes:
        if other == first or first not in modes:
            continue
        a, b = modes[first], modes[other]
        tool = difference(a, b, "tool_right", has_calls=True)
        words = difference(a, b, "tool_right", has_calls=False)
        likely = difference(a, b, "likeliest_right", has_calls=True)
        row = {"delta": mean(tool), "ci95": interval(tool, seed=seed)}
        row |= {"likeliest_delta": mean(likely), "likeliest_ci95": interval(likely, seed=seed)}
        if arguments:
            exact = difference(a, b, "exact", has_calls=True)
            row |= {"call_exact_delta": mean(exact), "call_exact_ci95": interval(exact, seed=seed)}
        row |= {"no_call_delta": mean(words), "no_call_ci95": interval(words, seed=seed)}
        rows[f"{first}-{other}"] = row
    return rows


def difference(a: Sequence[Outcome], b: Sequence[Outcome], field: str, *, has_calls: bool) -> np.ndarray:
    """`field` of `a` minus that of `b`, item by item, (items,), each -1, 0 or 1."""
    theirs = {o.index: float(getattr(o, field)) for o in b if o.has_calls == has_calls}
    mine = {o.index: float(getattr(o, field)) for o in a if o.has_calls == has_calls}
    if mine.keys() != theirs.keys():
        raise ValueError("a paired comparison needs the same items in both modes")
    return np.array([mine[index] - theirs[index] for index in mine])


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def interval(
    values: Sequence[float] | np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> list[float] | None:
    """95 % percentile bootstrap interval of the mean, [low, high]; of paired differences, the paired
    bootstrap.
    """
    return interval_of_means([values], seed=seed, resamples=resamples)


def interval_of_means(
    samples: Sequence[Sequence[float] | np.ndarray], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[float] | None:
    """The same of the mean of the means of `samples`, each of which is drawn anew by itself; empty ones are left out."""
    some = [x for sample in samples if len(x := np.asarray(sample, dtype=float))]
    if not some:
        return None
    # No resample of these could differ, and one value alone cannot be resampled.
    alike = [x for x in some if (x == x[0]).all()]
    others = [x for x in some if not (x == x[0]).all()]
    fixed = sum(float(x[0]) for x in alike)
    if not others:
        return [fixed / len(some)] * 2
    from scipy.stats import bootstrap

    # At most 32 MB of resampled values at a time.
    batch = max(1, min(resamples, 4_000_000 // max(map(len, others))))
    found = bootstrap(
        others,
        lambda *drawn, axis: (fixed + sum(x.mean(axis=axis) for x in drawn)) / len(some),
        n_resamples=resamples,
        batch=batch,
        confidence_level=0.95,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [float(found.low), float(found.high)]
