"""The stage in which the argument LoRA (`loragen.activated`) is fitted on the values of calls, everything else frozen.

Only values are supervised, and what ends them: names and braces are the grammar's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.transcript import arguments_text, label, render, render_call
from agent_specializer.examples import Example
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.specs import Toolset
from agent_specializer.training.data import Source
from agent_specializer.training.handed_on import handed_on, statement
from agent_specializer.training.made_up import TODAY, joined, of_two, on_another_day
from agent_specializer.training.passing_on import TOOLS
from agent_specializer.training.written import Written, WrittenStage

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

MAX_PREFIX, MAX_ARGUMENTS = 512, 80
"""Tokens that a conversation and a call's arguments may have. Longer ones are left out, not cut: whose values are cut off teaches to make them up."""
REFERENCE = "$ref:"
"""Begins what Seal-Tools gives where a value is another call's result."""
OF_TWO, JOINED, HANDED_ON, MOVED = 0.05, 0.2, 0.15, 0.3
"""Shares of calls that are asked for twice in one request; beside others of their toolset; that want what another one's result says; and,
where it is known what day it is, on another one."""
ANY_TEXT, LATER = 0.6, 0.4
"""Of those that want what a result says, the shares that pass a text on, and that come a turn later."""


def filled(
    tokenizer: PreTrainedTokenizerBase, example: Example, toolset: Toolset, rng: random.Random
) -> Written | None:
    """The first call of `example` mostly, else a later one; None where there is nothing to learn from it, or too much to read."""
    calls = example.calls
    at = 0 if rng.random() < 0.6 else rng.randrange(len(calls))
    call, schema = calls[at], toolset.tool(calls[at].name).parameters
    if not call.arguments:
        return None
    made = (render_call(one, toolset.tool(one.name).parameters) for one in calls[:at])
    said = render(example.messages) + "".join(made)
    prefix: list[int] = tokenizer(said).input_ids
    text = arguments_text(call.arguments, schema)
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [
        (start, end) for start, end in _values(text) if _can_be_told(text[start : end - 1], said.lower())
    ]
    if not spans or len(prefix) > MAX_PREFIX or len(read.input_ids) > MAX_ARGUMENTS:
        return None
    return Written(
        prefix=tuple(prefix),
        label=tuple(tokenizer(label(call.name), add_special_tokens=False).input_ids),
        text=tuple(read.input_ids),
        # With the space before it: were that left out, a number's sign, which has it in one token, would be learned and no digit beside it.
        supervised=tuple(
            any((a < end and b > start) or (a, b) == (start - 1, start) for start, end in spans)
            for a, b in read.offset_mapping
        ),
    )


def _values(text: str) -> list[tuple[int, int]]:
    """Where the values of the outermost object stand in a JSON text, each with the character that ends it."""
    decode, at, found = json.JSONDecoder().raw_decode, 1, []
    while text[at] != "}":
        _, start = decode(text, at + (text[at] == ",") + (text[at : at + 2] == ", "))
        start += len(": ")
        _, at = decode(text, start)
        found.append((start, at + 1))
    return found


def _can_be_told(value: str, said: str) -> bool:
    """Whether `value`, a JSON text, follows from what was `said`: it stands there, or has digits, as dates that are worked out do, or is a flag.
    References to results that are not there yet do not."""
    parsed = json.loads(value)
    parts = parsed if isinstance(parsed, list) else [parsed]
    return all(
        not isinstance(part, str)
        or part.strip().lower() in said
        or (any(map(str.isdigit, part)) and not part.startswith(REFERENCE))
        for part in parts
    )


def draw(
    sources: Sequence[Source], tokenizer: PreTrainedTokenizerBase, count: int, rng: random.Random
) -> list[Written]:
    """`count` calls, between the sets as the joint steps draw."""
    asking = [
        (source, some)
        for source in sources
        if not source.choice_only
        and (some := [e for e in source.examples if any(call.arguments for call in e.calls)])
    ]
    found: list[Written] = []
    while asking and len(found) < count:
        source, some = rng.choices(asking, [source.weight for source, _ in asking])[0]
        example, toolset = _varied(rng.choice(some), source, rng)
        one = filled(tokenizer, example, toolset, rng) if example.calls else None
        if one is not None:
            found.append(one)
    return found


def _varied(example: Example, source: Source, rng: random.Random) -> tuple[Example, Toolset]:
    """Now and then `example`, or its like, beside others in one request, behind a result that it wants something of, or on another day;
    and the toolset that it is asked of."""
    toolset = source.toolsets[example.toolset_id]
    today = TODAY.search(toolset.instructions)
    if today and rng.random() < MOVED:
        return on_another_day(example, date.fromisoformat(today[1]), rng), toolset
    drawn = rng.random()
    beside = [source.examples[i] for i in source.by_toolset[example.toolset_id]]
    some = [example, *rng.sample(beside, min(8, len(beside)))]
    if drawn < OF_TWO:
        return (of_two(example, some, rng) if len(example.calls) == 1 else None) or example, toolset
    drawn -= OF_TWO
    if drawn < JOINED:
        return next(iter(joined(some, rng, count=1)), example), toolset
    if drawn < JOINED + HANDED_ON:
        return _handed_on(some, toolset, rng) or (example, toolset)
    return example, toolset


def _handed_on(
    examples: Sequence[Example], toolset: Toolset, rng: random.Random
) -> tuple[Example, Toolset] | None:
    """One of `examples`, or a request that a text be passed on, behind the result of another one; None where nothing can be handed on."""
    asked = [each for each in examples if len(each.messages) == 1 and len(each.calls) == 1]
    if rng.random() < ANY_TEXT:
        passing = rng.choice(TOOLS)
        seconds = [passing.request(statement(rng), rng)]
        toolset = Toolset(tools=(passing.tool,))
    else:
        seconds = asked
    found = (
        handed_on(first, second, toolset.tool(second.calls[0].name), rng)
        for second in seconds
        for first in rng.sample(asked, len(asked))
    )
    both = next(filter(None, found), None)
    if both is None:
        return None
    messages = both.later(rng) if rng.random() < LATER else both.behind(both.in_one(rng))
    return both.example(messages, both.wanted), toolset


class ArgumentStage(WrittenStage):
    """The stage of one run. Names are written under the LoRA, too, where a call needs no plan."""

    name, labelled = "arguments", 0.5

    def __init__(self, run: Trainer, lora: ActivatedLora) -> None:
        options = run.options
        super().__init__(
            run,
            lora,
            steps=options.argument_steps,
            lr=options.argument_lr,
            batch=options.argument_batch,
        )

    def draw(self, sources: Sequence[Source], count: int, rng: random.Random) -> list[Written]:
        return draw(sources, self.run.tokenizer, count, rng)
