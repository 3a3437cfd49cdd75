"""Requests that nobody made: from the descriptions of tools, with something left out that they require, several in one, or on another day."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from agent_specializer.edge.said import asked_for
from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec

MADE_UP = "made_up"
"""Category of examples that say nothing of arguments."""
WISHES = (
    "{}",
    "I need to {}",
    "Can you {}?",
    "please {}",
    "I'd like to {}",
    "Help me {}",
    "{}, please.",
    "I want you to {} for me",
)
JOINTS = (
    "{} and {}",
    "{}, and {}",
    "{} and then {}",
    "{}, then {}",
    "{} and also {}",
    "{}; {}",
    "{}. {}",
    "{}. Also {}",
    "{}. Then {}",
    "{}. After that, {}",
)
FIRST_JOINTS = ("First {}, then {}", "First, {}. Then {}")
"""Between the first two requests alone."""
LAST_JOINTS = ("{}, and finally {}", "{}. Finally, {}")
"""Before the last of more than two."""
PARTS = (2, 2, 3, 4)
"""How many requests are joined to one."""
LEADING = "in|at|on|for|to|from|of|with|by|about|named|called|titled|the|a|an|is|as|near|around"
"""Words that go with the value that follows them."""
ARTICLE = r"\b(?:the|a|an|my|our|this|that)\s+"
SHORTEST = 3
"""Characters of a value that is looked for among a request's words: shorter ones stand there by chance."""
ONE_FOR_ALL = re.compile(
    r"message|body|text|content|note|description|query|keyword|search|title|topic|subject|question|item|list|ingredient|expression|condition",
    re.IGNORECASE,
)
"""Parameters of which one value may hold two things."""
BOTH = (
    "{0} and {1}",
    "{0} and {1}",
    "both {0} and {1}",
    "{0}, {1}",
    "{0} as well as {1}",
    "{0} and also {1}",
)
DONE = ("done", "ok", "success", '{"ok": true}', '{"status": "success"}', "Finished.")
"""What a tool may answer that has nothing to say."""
DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
TODAY = re.compile(rf"\btoday is (?:\w+,? )?({DATE.pattern})", re.IGNORECASE)
"""As instructions say it."""
OF_A_MONTH = re.compile(
    r"\b\d{1,2}(?:st|nd|rd|th)\b|\d/\d|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b",
    re.IGNORECASE,
)
OF_A_WEEK = re.compile(r"\bweek|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b", re.IGNORECASE)
DAYS = (
    "Today is {0:%A}, {0:%B} {0.day}, {0.year}. ",
    "Today is {0}. ",
    "(Today: {0:%A} {0}) ",
    "It is {0:%A}, {0.day} {0:%B} {0.year}. ",
    "Today's date is {0}. ",
)
"""How a request says what day it is."""


def from_descriptions(toolsets: Mapping[str, Toolset]) -> list[Example]:
    """A request per tool from the first sentence of its description: teaches which words go with which description."""
    examples = []
    for toolset_id, toolset in toolsets.items():
        for tool in toolset.tools:
            sentence = re.split(r"(?<=[.!?])\s|\n", tool.description.strip())[0].rstrip(".")
            if not 3 <= len(sentence.split()) <= 30:
                continue
            rng = random.Random(tool.fingerprint)
            wish = sentence[0].lower() + sentence[1:]
            request = rng.choice(WISHES).format(wish)
            examples.append(
                Example(
                    toolset_id=toolset_id,
                    messages=(Message(role="user", content=request),),
                    calls=(Call(name=tool.name),),
                    category=MADE_UP,
                )
            )
    return examples


def vague(toolset: Toolset) -> tuple[Example, ...]:
    """`toolset` asked for each of its tools in words that say nothing of what the tool requires: something is to be asked
    back. Tools that require nothing are called."""
    asked = []
    for example in from_descriptions({"": toolset}):
        wanted = asked_for(toolset.tool(example.calls[0].name))
        asked.append(replace(example, calls=() if wanted else example.calls))
    return tuple(asked)


def withheld(example: Example, tool: ToolSpec, rng: random.Random) -> tuple[Example, str] | None:
    """`example`, which calls `tool`, with one value that the tool requires cut out of its newest message: it is to be asked back. And
    whose value that is; None where no value stands in the conversation once, word for word."""
    newest = example.messages[-1]
    whole = "\n".join(message.content for message in example.messages)
    cuts = []
    for name in asked_for(tool):
        value = example.calls[0].arguments.get(name)
        text = _without(newest.content, whole, str(value)) if isinstance(value, str | int | float) else None
        if text:
            cuts.append((name, text))
    if not cuts:
        return None
    name, text = rng.choice(cuts)
    messages = (*example.messages[:-1], newest.model_copy(update={"content": text}))
    return replace(example, messages=messages, calls=(), accepted=(), answer=""), name


def _without(text: str, whole: str, value: str) -> str | None:
    """`text` without `value` and the words that lead to it; None unless it stands there alone in `whole`, or too little is left."""
    own = rf"(?<!\w){re.escape(value.strip())}(?!\w)"
    if not value.strip() or len(re.findall(own, whole, re.IGNORECASE)) != 1:
        return None
    lead = rf"(?:,?\s*\b(?:{LEADING})\b)*\s*"
    left, count = re.subn(rf"{lead}['\"(]?{own}(?:'s|['\")])?", "", text, count=1, flags=re.IGNORECASE)
    left = re.sub(r"\s+([,.?!;])", r"\1", re.sub(r"\s{2,}", " ", left)).strip(" ,;")
    return left if count and len(left.split()) >= 2 else None


def place_of(text: str, value: object) -> tuple[int, int] | None:
    """Where `value` stands in `text`, with its article and quotes; None unless it does so once, and is a string or a number."""
    if not isinstance(value, str | int) or isinstance(value, bool) or len(str(value)) < SHORTEST:
        return None
    own = rf"(?<!\w){re.escape(str(value).strip())}(?!\w)"
    if len(re.findall(own, text, re.IGNORECASE)) != 1:
        return None
    found = re.search(rf"(?:{ARTICLE})?['\"$€£#]*{own}['\"]?", text, re.IGNORECASE)
    return found.span() if found else None


def of_two(example: Example, others: Sequence[Example], rng: random.Random) -> Example | None:
    """`example`, which calls a tool once, with a second value beside one of its own, so that it wants two calls: "dim the hall and the attic".
    The value is of one of `others`; None where there is none."""
    call, text = example.calls[0], example.messages[-1].content
    found = []
    like_it = [one for other in others for one in other.calls if one.name == call.name]
    for other in like_it:
        for name, value in call.arguments.items():
            second = other.arguments.get(name)
            if (
                isinstance(value, str)
                and isinstance(second, str)
                and second.lower() not in text.lower()
                and not ONE_FOR_ALL.search(name)
                and (place := place_of(text, value))
            ):
                found.append((name, second, place))
    if not found:
        return None
    name, second, (start, end) = rng.choice(found)
    own = text[start:end]
    article = re.match(ARTICLE, own, re.IGNORECASE)
    both = rng.choice(BOTH).format(own, f"{article[0] if article else ''}{second}")
    newest = example.messages[-1].model_copy(update={"content": text[:start] + both + text[end:]})
    like = call.model_copy(update={"arguments": {**call.arguments, name: second}})
    return replace(
        example, messages=(*example.messages[:-1], newest), calls=(call, like), accepted=(), answer=""
    )


def joined(examples: Sequence[Example], rng: random.Random, *, count: int) -> tuple[Example, ...]:
    """Up to `count` requests that join two to four of `examples` which ask for different tools, in one turn, each for one call.

    Of half of them all calls were made and answered already, for most turns are complete once there are results; of the others as
    many as is drawn, and the rest is still to be made.
    """
    single = [each for each in examples if len(each.messages) == 1 and len(each.calls) == 1]
    found: list[Example] = []
    for _ in range(count):
        apart = {each.calls[0].name: each for each in rng.sample(single, len(single))}
        some = list(apart.values())[: rng.choice(PARTS)]
        if len(some) < 2:
            break
        calls = [call for each in some for call in each.calls]
        text = in_one([each.messages[0].content for each in some], rng)
        request = Message(role="user", content=text)
        messages: tuple[Message, ...] = (request,)
        for _ in range(len(calls) if rng.random() < 0.5 else rng.randrange(len(calls))):
            made = calls.pop(0)
            answer = Message(role="tool", content=rng.choice(DONE), name=made.name)
            messages = (*messages, Message(role="assistant", calls=(made,)), answer)
        found.append(replace(some[0], messages=messages, calls=tuple(calls), accepted=(), answer=""))
    return tuple(found)


def on_another_day(example: Example, today: date, rng: random.Random) -> Example:
    """`example`, which takes place on `today`, on another day, which its first message says: its dates are as far from that as they were.

    A day of a month stays one, in another year, and a day of the week stays one.
    """
    said = "\n".join(message.content for message in example.messages)
    weekly = OF_A_WEEK.search(said) is not None
    if OF_A_MONTH.search(said):
        years = range(today.year - 8, today.year + 25)
        same = [year for year in years if not weekly or today.replace(year=year).weekday() == today.weekday()]
        later = rng.choice(same) - today.year

        def moved(day: date) -> date:
            return day.replace(year=day.year + later)
    else:
        days = timedelta(rng.randrange(-3000, 9000) // 7 * 7 + (0 if weekly else rng.randrange(7)))

        def moved(day: date) -> date:
            return day + days

    def there(match: re.Match[str]) -> str:
        try:
            return moved(date.fromisoformat(match[0])).isoformat()
        except ValueError:  # no date, or one that the other year does not have
            return match[0]

    def call(made: Call) -> Call:
        return made.model_copy(update={"arguments": json.loads(DATE.sub(there, json.dumps(made.arguments)))})

    def message(old: Message) -> Message:
        return old.model_copy(
            update={"content": DATE.sub(there, old.content), "calls": tuple(map(call, old.calls))}
        )

    first, *others = map(message, example.messages)
    told = rng.choice(DAYS).format(moved(today)) + first.content
    return replace(
        example,
        messages=(first.model_copy(update={"content": told}), *others),
        calls=tuple(map(call, example.calls)),
        accepted=(),
    )


def in_one(parts: Sequence[str], rng: random.Random) -> str:
    text = parts[0].strip()
    for place, part in enumerate(parts[1:], 1):
        first, last = place == 1, place == len(parts) - 1
        joint = rng.choice(
            [*JOINTS, *(FIRST_JOINTS if first else ()), *(LAST_JOINTS if last and not first else ())]
        )
        text = text.rstrip(".!?")
        new = joint.endswith(". {}")
        text = joint.format(
            _lowered(text) if joint.startswith("First") else text,
            part.strip() if new else _lowered(part.strip()),
        )
    return text


def _lowered(text: str) -> str:
    """Without the capital of a sentence, but with that of a name or of I."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    kept = word in ("I", "I'm", "I'd", "I've", "I'll") or word[:2].isupper()
    return text if kept else text[:1].lower() + text[1:]
