"""Conversations that stand behind a call: what the LoRA for what follows one (`training.following`) learns from.

The training sets hardly have any in which a turn goes on once a result is there. So they are made of requests for one call: several in one
turn, or one for two things, some of whose calls were made; one that is done, or whose result is to be told; one for which something was
looked up first, so that it is still to be done; and one that wants what another's result says, so that this is to be there first
(`training.handed_on`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.data import Composition
from agent_specializer.training.handed_on import handed_on, takes_any_text
from agent_specializer.training.made_up import DONE, PARTS, in_one, of_two

KINDS = {
    "joined": 0.23,
    "of_two": 0.14,
    "several": 0.1,
    "done": 0.09,
    "looked_up": 0.08,
    "answered": 0.06,
    "handed_on": 0.22,
    "told": 0.08,
}
"""How often each kind is drawn; one that a composition has nothing for is drawn again."""
SAME_TOOL = 0.25
"""Share of joined requests that may want one tool several times."""
WITHOUT_RESULTS = 0.4
"""Share of turns whose calls have no results yet."""
AT_ONCE = 0.3
"""Of the others, the share whose calls were all made before there was a result."""
DONE_TOO = 0.4
"""Share of requests for which something was there first, and that were then done."""
WAITS = 0.25
"""Share of requests that want what a result says, while that is not there."""
LOOKED_UP = 0.8
"""Share of them whose result is that of a tool that looks something up, where there is one."""
ANY_TEXT = 0.6
"""Share of them that hand on a text, where a tool takes one."""
TELL_ME = (
    "tell me what it says",
    "summarise it",
    "summarize what you find",
    "give me the gist",
    "sum it up for me",
    "let me know",
    "tell me in short",
    "explain it to me",
    "give me a short answer",
)
"""What is wanted of a result and needs no tool."""
LOOKS_UP = re.compile(
    r"^(find|get|list|search|query|check|look|show|fetch|view|read|retrieve|browse)", re.IGNORECASE
)
"""Names of tools that tell something and change nothing."""
LONGEST = 400
"""Characters of a result."""
FIELDS = ("name", "title", "date", "time", "status", "price", "description", "rating")
WORDS = [
    "alpha",
    "amber",
    "blue",
    "cedar",
    "delta",
    "draft",
    "item",
    "lemon",
    "main",
    "maple",
    "north",
    "note",
    "order",
    "orbit",
    "plan",
    "river",
    "stone",
    "team",
]


def after_calls(composition: Composition, rng: random.Random, *, count: int) -> tuple[Example, ...]:
    """Up to `count` examples of `composition` in which this turn has made calls, or may have before the next one."""
    requests = _Requests.of(composition)
    kinds = [kind for kind in KINDS if requests.has(kind)]
    found: list[Example] = []
    for _ in range(count if kinds else 0):
        kind = rng.choices(kinds, [KINDS[kind] for kind in kinds])[0]
        if example := MAKERS[kind](requests, rng):
            found.append(example)
    return tuple(found)


@dataclass(frozen=True)
class _Requests:
    """What there is to make conversations of: requests for `one` call, the first messages among them, those for `several`, and those
    whose result was `answered` in words; and the tools that look something up."""

    toolset: Toolset
    one: Sequence[Example]
    first: Sequence[Example]
    several: Sequence[Example]
    answered: Sequence[Example]
    looking: Sequence[ToolSpec]

    @staticmethod
    def of(composition: Composition) -> _Requests:
        names = set(composition.toolset.names)
        asked = [
            each
            for each in composition.examples
            if each.calls
            and each.messages[-1].role == "user"
            and names.issuperset(call.name for call in each.calls)
        ]
        one = [each for each in asked if len(each.calls) == 1]
        return _Requests(
            toolset=composition.toolset,
            one=one,
            first=[each for each in one if len(each.messages) == 1],
            several=[each for each in asked if len(each.calls) > 1],
            answered=[e for e in composition.examples if e.messages[-1].role == "tool" and not e.calls],
            looking=[tool for tool in composition.toolset.tools if LOOKS_UP.match(tool.name)],
        )

    def has(self, kind: str) -> bool:
        return {
            "joined": len(self.first) > 1,
            "several": bool(self.several),
            "done": bool(self.one),
            "looked_up": bool(self.one and self.looking),
            "answered": bool(self.answered),
            "handed_on": len(self.first) > 1,
            "of_two": len(self.one) > 1,
            "told": bool(self.first),
        }[kind]

    def result(self, call: Call, rng: random.Random, *, told: bool = False) -> Message:
        return Message(role="tool", content=_result(call, rng, told=told), name=call.name)


def _joined(requests: _Requests, rng: random.Random) -> Example | None:
    some = rng.sample(requests.first, len(requests.first))
    if rng.random() >= SAME_TOOL:
        some = list({each.calls[0].name: each for each in some}.values())
    some = list({each.messages[0].content: each for each in some[: rng.choice(PARTS)]}.values())
    if len(some) < 2:
        return None
    text = in_one([each.messages[0].content for each in some], rng)
    whole = replace(
        some[0],
        messages=(Message(role="user", content=text),),
        calls=tuple(each.calls[0] for each in some),
    )
    return _partly(requests, whole, rng)


def _of_two(requests: _Requests, rng: random.Random) -> Example | None:
    some = rng.sample(requests.one, len(requests.one))
    whole = next(filter(None, (of_two(each, some, rng) for each in some)), None)
    return _partly(requests, whole, rng) if whole else None


def _several(requests: _Requests, rng: random.Random) -> Example:
    return _partly(requests, rng.choice(requests.several), rng)


def _done(requests: _Requests, rng: random.Random) -> Example:
    return _partly(requests, rng.choice(requests.one), rng)


def _told(requests: _Requests, rng: random.Random) -> Example:
    example = rng.choice(requests.first)
    request = Message(role="user", content=in_one((example.messages[0].content, rng.choice(TELL_ME)), rng))
    return _partly(requests, replace(example, messages=(request,)), rng)


def _answered(requests: _Requests, rng: random.Random) -> Example:
    return rng.choice(requests.answered)


def _looked_up(requests: _Requests, rng: random.Random) -> Example | None:
    wanted = rng.choice(requests.one)
    call, tool = wanted.calls[0], rng.choice(requests.looking)
    if LOOKS_UP.match(call.name):
        return None
    taken = set(tool.parameters.get("properties") or {})
    first = Call(
        name=tool.name, arguments={key: value for key, value in call.arguments.items() if key in taken}
    )
    messages = (
        *wanted.messages,
        Message(role="assistant", calls=(first,)),
        requests.result(first, rng, told=True),
    )
    if rng.random() >= DONE_TOO:
        return replace(wanted, messages=messages, accepted=(), answer="")
    messages = (*messages, Message(role="assistant", calls=(call,)), requests.result(call, rng))
    return replace(wanted, messages=messages, calls=(), accepted=(), answer="")


def _handed_on(requests: _Requests, rng: random.Random) -> Example | None:
    some = rng.sample(requests.first, len(requests.first))
    if rng.random() < LOOKED_UP:
        some.sort(key=lambda each: not LOOKS_UP.match(each.calls[0].name))
    seconds = rng.sample(some, len(some))
    if rng.random() < ANY_TEXT:
        seconds.sort(key=lambda each: not any(map(takes_any_text, each.calls[0].arguments)))
    found = (
        handed_on(first, second, requests.toolset.tool(second.calls[0].name), rng)
        for first in some
        for second in seconds
    )
    both = next(filter(None, found), None)
    if both is None:
        return None
    asked = both.in_one(rng)
    if rng.random() < WAITS:
        return both.example((asked,), both.made)
    told = both.behind(asked)
    if rng.random() >= DONE_TOO:
        return both.example(told, both.wanted)
    done = (
        Message(role="assistant", calls=(both.wanted,)),
        requests.result(both.wanted, rng),
    )
    return both.example((*told, *done))


def _partly(requests: _Requests, example: Example, rng: random.Random) -> Example:
    """`example`, some of whose calls were made and answered; or as it is, so that some may be made before it goes on."""
    if rng.random() < WITHOUT_RESULTS:
        return replace(example, accepted=(), answer="")
    calls = list(example.calls)
    made = calls[: rng.randint(1, len(calls))]
    groups = [made] if rng.random() < AT_ONCE else [[call] for call in made]
    messages = example.messages
    for group in groups:
        results = (requests.result(call, rng) for call in group)
        messages = (*messages, Message(role="assistant", calls=tuple(group)), *results)
    return replace(example, messages=messages, calls=tuple(calls[len(made) :]), accepted=(), answer="")


MAKERS: dict[str, Callable[[_Requests, random.Random], Example | None]] = {
    "joined": _joined,
    "several": _several,
    "done": _done,
    "looked_up": _looked_up,
    "answered": _answered,
    "handed_on": _handed_on,
    "of_two": _of_two,
    "told": _told,
}


def _result(call: Call, rng: random.Random, *, told: bool) -> str:
    """What a tool may answer; `told`: what was looked up."""
    thing = (re.findall(r"[A-Z]?[a-z]+|[A-Z]+", call.name) or ["item"])[-1].lower()
    drawn = rng.random()
    if told or drawn < 0.35:
        items = [_item(call, thing, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        forms: tuple[Any, ...] = (items, {f"{thing}s": items}, {"results": items}, items[0])
    elif drawn < 0.65:
        return rng.choice(DONE)
    else:
        forms = (
            {"status": "success"},
            {f"{thing}_id": _id(rng)},
            {"success": True, "id": _id(rng)},
            _item(call, thing, rng),
            {"result": rng.choice(WORDS)},
        )
    return json.dumps(rng.choice(forms), ensure_ascii=False)[:LONGEST]


def _item(call: Call, thing: str, rng: random.Random) -> dict[str, Any]:
    item = {rng.choice((f"{thing}_id", "id")): _id(rng)}
    item |= {key: value for key, value in call.arguments.items() if rng.random() < 0.7}
    values = (*WORDS, rng.randrange(200), f"2024-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}")
    return item | {key: rng.choice(values) for key in rng.sample(FIELDS, rng.randrange(3))}


def _id(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.getrandbits(32):08x}",
            f"{rng.getrandbits(16):04x}-{rng.getrandbits(16):04x}",
            str(rng.randrange(100, 99999)),
            f"{rng.choice('ABCKMT')}-{rng.randrange(1000, 9999)}",
        )
    )
