"""Requests that nobody made: from the descriptions of tools, with something left out that they require, or several in one."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
DONE = ("done", "ok", "success", '{"ok": true}', '{"status": "success"}', "Finished.")
"""What a tool may answer that has nothing to say."""


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
        text = _in_one([each.messages[0].content for each in some], rng)
        request = Message(role="user", content=text)
        messages: tuple[Message, ...] = (request,)
        for _ in range(len(calls) if rng.random() < 0.5 else rng.randrange(len(calls))):
            made = calls.pop(0)
            answer = Message(role="tool", content=rng.choice(DONE), name=made.name)
            messages = (*messages, Message(role="assistant", calls=(made,)), answer)
        found.append(replace(some[0], messages=messages, calls=tuple(calls), accepted=(), answer=""))
    return tuple(found)


def _in_one(parts: Sequence[str], rng: random.Random) -> str:
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
