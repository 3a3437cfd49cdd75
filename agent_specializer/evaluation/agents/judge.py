"""What came of a conversation: did it end, were the calls right, is there an answer. Counts, shares, intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from statistics import median
from typing import Any

from agent_specializer.evaluation.agents.conversations import (
    KINDS,
    Conversation,
    ScriptedCall,
    Step,
    Turn,
    holds_one_of,
)
from agent_specializer.evaluation.metrics import interval, mean
from agent_specializer.examples.compare import same_call
from agent_specializer.messages import Call

SHARES = ("ended", "right_tools", "right_calls", "in_steps", "answered", "answer_fits", "fell_back")
"""Figures that are shares of conversations, with an interval each."""


@dataclass(frozen=True)
class Spoken:
    """What a model did in one turn: the calls of each of its messages, and the words of the last."""

    messages: tuple[tuple[Call, ...], ...]
    answer: str
    ended: bool


@dataclass(frozen=True)
class Held:
    """One conversation, as it went.

    Attributes:
        ended: each turn ended in a message without calls, within the limit of model calls.
        right_tools: the tools called are those of the script, in its order; those of one step in any order.
        right_calls: their arguments are right, too.
        in_steps: the right tools, and each message made exactly the calls of one step.
        answered: each turn ended in words; answer_fits: that hold what the script expects of them.
        fell_back: another model answered at least once; fallbacks: of the `model_calls`, how often.
    """

    id: str
    kind: str
    ended: bool = False
    right_tools: bool = False
    right_calls: bool = False
    in_steps: bool = False
    answered: bool = False
    answer_fits: bool = False
    fell_back: bool = False
    calls: int = 0
    model_calls: int = 0
    fallbacks: int = 0
    seconds: float = 0.0
    error: str = ""
    said: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    conversation: Conversation,
    spoken: Sequence[Spoken],
    *,
    fallbacks: int = 0,
    model_calls: int = 0,
    seconds: float = 0.0,
    error: str = "",
    said: Sequence[dict[str, Any]] = (),
) -> Held:
    """Compares what was done in each turn with the script; a turn that was never reached is wrong."""
    complete = len(spoken) == len(conversation.turns) and not error
    pairs = list(zip(conversation.turns, spoken, strict=False))
    tools = complete and all(_matches(turn, here, exact=False) for turn, here in pairs)
    return Held(
        id=conversation.id,
        kind=conversation.kind,
        ended=complete and all(here.ended for here in spoken),
        right_tools=tools,
        right_calls=complete and all(_matches(turn, here, exact=True) for turn, here in pairs),
        in_steps=tools and all(_in_steps(turn, here) for turn, here in pairs),
        answered=complete and all(here.ended and bool(here.answer.strip()) for here in spoken),
        answer_fits=complete
        and all(here.ended and holds_one_of(here.answer, turn.answer) for turn, here in pairs),
        fell_back=fallbacks > 0,
        calls=sum(len(calls) for here in spoken for calls in here.messages),
        model_calls=model_calls,
        fallbacks=fallbacks,
        seconds=seconds,
        error=error,
        said=list(said),
    )


def right_call(call: Call, scripted: ScriptedCall) -> bool:
    """Whether `call` has the scripted tool and arguments: free text holds its words, all else is equal."""
    free = scripted.contains
    for name, words in free.items():
        if not isinstance(call.arguments.get(name), str) or not holds_one_of(call.arguments[name], words):
            return False
    rest = Call(name=call.name, arguments={k: v for k, v in call.arguments.items() if k not in free})
    gold = Call(name=scripted.tool, arguments=scripted.arguments)
    return same_call(rest, gold, {scripted.tool: scripted.accepted})


def summary(held: Sequence[Held], *, seed: int = 0) -> dict[str, Any]:
    """All conversations and those of each kind: how many, shares with 95 % intervals, means."""
    kinds = {kind: [one for one in held if one.kind == kind] for kind in KINDS}
    return {
        "all": _row(held, seed),
        "kinds": {kind: _row(some, seed) for kind, some in kinds.items() if some},
    }


def paired(ways: Mapping[str, Sequence[Held]], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Every way minus the first, over the same conversations: ``{"B-A": {figure: {"delta", "ci95"}}}``."""
    (first, mine), *others = ways.items()
    rows: dict[str, dict[str, Any]] = {}
    for name, theirs in others:
        before = {one.id: one for one in mine}
        both = [(one, before[one.id]) for one in theirs if one.id in before]
        rows[f"{name}-{first}"] = {
            share: {"delta": mean(differences), "ci95": interval(differences, seed=seed)}
            for share in SHARES
            if share != "fell_back"
            for differences in [[float(getattr(a, share)) - float(getattr(b, share)) for a, b in both]]
        }
    return rows


def _row(held: Sequence[Held], seed: int) -> dict[str, Any]:
    model_calls = sum(one.model_calls for one in held)
    row: dict[str, Any] = {"n": len(held)}
    for share in SHARES:
        values = [float(getattr(one, share)) for one in held]
        row |= {share: mean(values), f"{share}_ci95": interval(values, seed=seed)}
    return row | {
        "fallback_share_of_model_calls": sum(one.fallbacks for one in held) / model_calls
        if model_calls
        else None,
        "calls_mean": mean([one.calls for one in held]),
        "model_calls_mean": mean([one.model_calls for one in held]),
        "seconds_median": median([one.seconds for one in held]) if held else None,
        "errors": sum(bool(one.error) for one in held),
    }


def _matches(turn: Turn, here: Spoken, *, exact: bool) -> bool:
    """Whether the calls of all messages, one after another, are those of the steps."""
    made = [call for calls in here.messages for call in calls]
    if len(made) != sum(map(len, turn.steps)):
        return False
    rest: Iterator[Call] = iter(made)
    return all(_fits(step, [next(rest) for _ in step], exact=exact) for step in turn.steps)


def _fits(step: Step, made: Sequence[Call], *, exact: bool) -> bool:
    """Whether `made` are the calls of one step, in any order."""
    return any(
        all(right_call(c, s) if exact else c.name == s.tool for c, s in zip(order, step, strict=True))
        for order in permutations(made)
    )


def _in_steps(turn: Turn, here: Spoken) -> bool:
    messages = [calls for calls in here.messages if calls]
    return [len(calls) for calls in messages] == [len(step) for step in turn.steps]
