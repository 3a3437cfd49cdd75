"""Requests that want what another one's result says: "look up the weather and mail it to Anna".

The training sets hardly have any. So they are made of two requests for one call each: a value of the second is cut out of its words, a
reference put there, and the value into the first one's result. Nothing tells it before that result is there.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_specializer.edge.sharing import is_listed
from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import ToolSpec
from agent_specializer.training.made_up import in_one, place_of

FREE_TEXT = re.compile(
    r"(?:message|body|text|contents?|note|comment|memo|statement|reply|post|caption|description|summary|review)"
)
"""Last words of the names of parameters that take any text."""
TEXT_REFERENCES = (
    "it",
    "that",
    "this",
    "the result",
    "what it says",
    "what you find",
    "the answer",
    "what comes out",
)
REFERENCES = (
    "it",
    "that",
    "that {}",
    "this {}",
    "the {} you find",
    "the {} from the result",
    "its {}",
    "that one",
)
"""What stands for a value of a parameter."""
THINGS = re.findall(
    r"\w+",
    "north south harbour station garden bridge market library order invoice report shipment ticket room table tram battery sensor server "
    "queue team branch release concert recipe route valley tower window engine archive ferry",
)
STATES = re.findall(
    r"[\w-]+",
    "open closed ready late cold warm dry wet full empty busy free slow fast stable broken quiet crowded cheap expensive new old heavy light "
    "clear cloudy strong weak fresh sold-out on-time delayed",
)
UNITS = (
    "degrees",
    "km/h",
    "minutes",
    "euros",
    "percent",
    "kilos",
    "people",
    "pages",
    "metres",
    "pieces",
    "days",
)
STATEMENTS = (
    "{thing} is {state}, {number} {unit}",
    "{state}, {number} {unit}",
    "{state} and {other}, {number} {unit}",
    "the {thing} is {state}",
    "{number} {unit}, the {thing} is {other}",
    "{thing}: {state}, {second}: {other}",
    "{state} until {hour}, then {other}",
    "there are {number} {unit} left at the {thing}",
)
"""What a result may say."""
FIELDS = ("status", "id", "source", "updated", "count")


@dataclass(frozen=True)
class HandedOn:
    """Two requests, and what is to be done.

    Attributes:
        first, second: in words; the second refers to the result of the first.
        made: the first call, result: what came of it. wanted: the second call, with what is handed on.
    """

    toolset_id: str
    first: str
    second: str
    made: Call
    result: str
    wanted: Call

    def in_one(self, rng: random.Random) -> Message:
        return Message(role="user", content=in_one((self.first, self.second), rng))

    def later(self, rng: random.Random) -> tuple[Message, ...]:
        """The same in two turns."""
        answer = rng.choice((self.result if self.result[-1] not in "]}" else "Here you are.", "Done."))
        return (
            *self.behind(Message(role="user", content=self.first)),
            Message(role="assistant", content=answer),
            Message(role="user", content=self.second),
        )

    def behind(self, asked: Message) -> tuple[Message, ...]:
        """What was `asked`, the first call, and its result."""
        return (
            asked,
            Message(role="assistant", calls=(self.made,)),
            Message(role="tool", content=self.result, name=self.made.name),
        )

    def example(self, messages: tuple[Message, ...], *calls: Call) -> Example:
        return Example(toolset_id=self.toolset_id, messages=messages, calls=calls)


def handed_on(first: Example, second: Example, tool: ToolSpec, rng: random.Random) -> HandedOn | None:
    """Of two requests of one message and one call each, the second of `tool`; None where no value of that stands in its words once, or
    both want one tool."""
    made, call = first.calls[0], second.calls[0]
    text = second.messages[0].content
    properties: Mapping[str, Any] = tool.parameters.get("properties") or {}
    found = [
        (name, place)
        for name, value in call.arguments.items()
        if not is_listed(properties.get(name) or {}) and (place := place_of(text, value))
    ]
    if made.name == call.name or not found:
        return None
    name, (start, end) = rng.choice(found)
    free = takes_any_text(name)
    value = statement(rng) if free else call.arguments[name]
    words = _words(name)
    reference = rng.choice(TEXT_REFERENCES) if free else rng.choice(REFERENCES).format(words)
    return HandedOn(
        toolset_id=second.toolset_id,
        first=first.messages[0].content,
        second=text[:start] + reference + text[end:],
        made=made,
        result=_result(made, name, words, value, rng, free=free),
        wanted=call.model_copy(update={"arguments": {**call.arguments, name: value}}),
    )


def takes_any_text(parameter: str) -> bool:
    """Whether a value of `parameter` may be the whole of a result, as its name says."""
    return FREE_TEXT.fullmatch(_words(parameter).split()[-1]) is not None


def _words(name: str) -> str:
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)).lower() or name


def statement(rng: random.Random) -> str:
    """A short one, as results are."""
    thing, second = rng.sample(THINGS, 2)
    state, other = rng.sample(STATES, 2)
    text = rng.choice(STATEMENTS).format(
        thing=thing,
        second=second,
        state=state,
        other=other,
        number=rng.choice((rng.randint(2, 12), rng.randint(2, 300))),
        unit=rng.choice(UNITS),
        hour=rng.choice(("noon", "6 pm", "Monday", "10:30", "tomorrow")),
    )
    return text if rng.random() < 0.3 else text[0].upper() + text[1:]


def _result(made: Call, name: str, words: str, value: str | int, rng: random.Random, *, free: bool) -> str:
    """What the first tool may answer, from which `value` is handed on."""
    text = str(value)
    if free and rng.random() < 0.6:
        return text + rng.choice(("", "."))
    thing = _words(made.name).split()[-1]
    if not free and rng.random() < 0.4:
        return rng.choice(
            (
                f"{text}.",
                f"{words.capitalize()}: {text}.",
                f"{words.capitalize()} {text}: {statement(rng)}.",
                f"The {words} is {text}.",
                f"{text}, {statement(rng)}.",
                f"Found one: {text}.",
            )
        )
    key = (
        rng.choice(("result", "text", thing, "summary", name))
        if free
        else rng.choice((name, name, thing, "name", "id"))
    )
    item: dict[str, Any] = {k: v for k, v in made.arguments.items() if rng.random() < 0.4 and k != key}
    if rng.random() < 0.5:
        item[rng.choice(FIELDS)] = rng.choice((rng.randint(1, 400), *rng.sample(STATES, 2)))
    item[key] = value
    entries = list(item.items())
    rng.shuffle(entries)
    item = dict(entries)
    return json.dumps(rng.choice((item, item, [item], {"results": [item]})), ensure_ascii=False)
