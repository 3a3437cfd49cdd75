"""The stage in which the LoRA is fitted under which answers in words are written, everything else frozen.

The base model's own words ramble, or repeat the label. Learned are answers that people, or large models, gave: behind a tool's result, and
where no tool fits or something is to be asked. Results behind which an answer is known, but which are themselves not, are made of the
words of that answer; failures and plain confirmations are made up.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.transcript import ANSWER, label, render
from agent_specializer.examples import Example
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.messages import Call, Message
from agent_specializer.training.data import Source
from agent_specializer.training.made_up import DONE
from agent_specializer.training.written import Written, WrittenStage

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

ByKind: TypeAlias = dict[str, list[list[Example]]]
"""The examples that each kind can be made of, those of each set apart."""
KINDS = {"result": 0.27, "made": 0.3, "words": 0.28, "failed": 0.08, "done": 0.07}
"""How often each kind is drawn; one that a set has nothing for is drawn again."""
MAX_PREFIX, MAX_ANSWER = 512, 64
"""Tokens that a conversation and an answer may have: longer ones are left out."""
TRIES = 20
"""For each row that is wanted."""
LONGEST = 400
"""Characters of a result."""
SMALL = re.compile(
    r"a|an|the|is|are|was|were|be|been|being|am|has|have|had|will|would|can|could|should|may|do|does|did|to|of|at|in|on|for|and|or|but|so|if"
    r"|i|i'm|i've|i'll|it|it's|its|you|you're|your|he|she|his|her|they|their|we|our|us|my|me|there|here|this|that|these|those|with|from|by|as"
    r"|please|okay|ok|well|also|about|which|what|how|when|where|who|just",
    re.IGNORECASE,
)
"""Words that a tool's result does without."""
ERRORS = (
    "not found",
    "permission denied",
    "the service is unavailable",
    "timed out after 30 seconds",
    "invalid request",
    "no entry with that name",
    "the account is locked",
    "connection refused",
    "rate limit exceeded, try again later",
    "this field must not be empty",
    "the file is read-only",
    "already exists",
    "out of stock",
    "the device is offline",
)
FAILED = (
    "That did not work: {}.",
    "I could not do that: {}.",
    "Sorry, that failed: {}.",
    "Sorry, I couldn't do it: {}.",
    "It did not work, the answer was: {}.",
)
NUMBER = re.compile(r"(?<![\w.,:/+-])\d+(?:[.,]\d+)*(?![\w:/-]|[.,]\d)")
"""No part of a date, a time or an identifier."""
NAME = re.compile(r"(?<![.!?] )(?<!^)(?<!\w)[A-Z][a-z]{3,}\b")
"""A word with a capital that does not begin a sentence."""
NAMES = re.findall(
    r"\w+",
    "Alvarez Anders Ashby Basil Belmont Brno Cardona Celeste Corvo Dalton Dresden Eldora Elwood Fenwick Fiona Galway Gideon Halden Hester Imola "
    "Ingrid Jasper Jutta Kamari Kelso Larkin Lorca Malin Marlow Nadia Norwood Odense Orsini Paloma Perth Quentin Ravenna Rowan Selma Sterling "
    "Tamsin Tilbury Ursula Utrecht Verona Vickers Walden Wesley Yarrow Zelda",
)
OTHER = 0.7
"""Share of answers behind a result that tell other numbers and names, as their results then do: what a result says is to be believed."""
CONFIRMED = ("Done.", "That is done.", "OK, done.", "It's done.", "All done.")


def told(answer: str) -> str | None:
    """The one line that an answer in words may have: `answer`'s first; None where that is no whole sentence, as before a list."""
    line, *rest = answer.strip().split("\n")
    end = line.rstrip()[-1:]
    return line.strip() if end and (end in ".!?" or (not rest and end != ":")) else None


def _made(example: Example, rng: random.Random) -> Example:
    sentences = re.split(r"(?<=[.!?])\s+", told(example.answer) or "")
    stated = " ".join(each for each in sentences if not each.endswith("?")) or " ".join(sentences)
    results = [_result(stated, call, rng) for call in example.calls[:1]]
    return _behind(example, example.calls[:1], results, stated)


def _failed(example: Example, rng: random.Random) -> Example:
    error = rng.choice(ERRORS)
    forms = (
        error,
        f"Error: {error}",
        f"error: {error}",
        json.dumps({"error": error}),
        json.dumps({"status": "error", "message": error}),
        json.dumps({"success": False, "error": error}),
    )
    return _behind(example, example.calls[:1], [rng.choice(forms)], rng.choice(FAILED).format(error))


def _done(example: Example, rng: random.Random) -> Example:
    return _behind(example, example.calls, [rng.choice(DONE) for _ in example.calls], rng.choice(CONFIRMED))


def with_other_facts(example: Example, rng: random.Random) -> Example:
    """`example` with other numbers and names wherever its answer has one from a result of the newest turn."""
    at = max(place for place, message in enumerate(example.messages) if message.role == "user")
    results = " ".join(message.content for message in example.messages[at:] if message.role == "tool")
    swaps = {
        each: _other_number(each, rng)
        for each in {*NUMBER.findall(example.answer)} & {*NUMBER.findall(results)}
    }
    asked = example.messages[at].content
    names = (
        name for name in dict.fromkeys(NAME.findall(example.answer)) if name in results and name not in asked
    )
    swaps |= {name: rng.choice(NAMES) for name in names}
    if not swaps:
        return example
    either = "|".join(map(re.escape, sorted(swaps, key=len, reverse=True)))
    found = re.compile(rf"(?<![\w.,:/+-])(?:{either})(?![\w:/-]|[.,]\d)")

    def other(text: str) -> str:
        return found.sub(lambda match: swaps[match[0]], text)

    def message(old: Message) -> Message:
        calls = (
            call.model_copy(
                update={"arguments": json.loads(other(json.dumps(call.arguments, ensure_ascii=False)))}
            )
            for call in old.calls
        )
        return old.model_copy(update={"content": other(old.content), "calls": tuple(calls)})

    return replace(example, messages=tuple(map(message, example.messages)), answer=other(example.answer))


def _other_number(number: str, rng: random.Random) -> str:
    """One of as many digits in the same places."""
    digits = (str(rng.randint(not place, 9)) if one.isdigit() else one for place, one in enumerate(number))
    return number[0] + "".join(digits)[1:] if number[0] == "0" else "".join(digits)


def _behind(example: Example, calls: Sequence[Call], results: Sequence[str], answer: str) -> Example:
    """`example`, whose `calls` were made at once, and what then was answered."""
    made = (
        Message(role="tool", content=text, name=call.name) for call, text in zip(calls, results, strict=True)
    )
    messages = (*example.messages, Message(role="assistant", calls=tuple(calls)), *made)
    return replace(example, messages=messages, calls=(), accepted=(), answer=answer)


def _result(answer: str, call: Call, rng: random.Random) -> str:
    """What a tool may have told of which `answer` was made."""
    words = answer.split()
    core = " ".join(word for word in words if not SMALL.fullmatch(word.strip(".,!?'\""))).strip(" .,!?")
    values = [
        word.strip(".,!?")
        for place, word in enumerate(words)
        if any(map(str.isdigit, word)) or (place and word[:1].isupper())
    ]
    given: dict[str, Any] = {key: value for key, value in call.arguments.items() if rng.random() < 0.5}
    forms: list[Any] = [{"result": core}, {"status": "success", "message": core}, {**given, "result": core}]
    if values:
        forms += [{**given, "data": values}, {"results": [{**given, "details": core}]}]
    text = core if rng.random() < 0.4 else json.dumps(rng.choice(forms), ensure_ascii=False)
    return text[:LONGEST]


MAKERS: dict[str, Callable[[Example, random.Random], Example]] = {
    "result": lambda example, rng: example,
    "words": lambda example, rng: example,
    "made": _made,
    "failed": _failed,
    "done": _done,
}


def _kinds(example: Example) -> tuple[str, ...]:
    """Of what kinds an answer to `example` can be had."""
    answer, behind = told(example.answer), example.messages[-1].role == "tool"
    if example.calls:
        return ("failed", "done") if not answer else ("made", "failed", "done")
    return (("result" if behind else "words"),) if answer else ()


def _by_kind(sources: Sequence[Source]) -> ByKind:
    kinds: ByKind = {kind: [] for kind in KINDS}
    for source in sources:
        if source.choice_only:
            continue
        own: dict[str, list[Example]] = {kind: [] for kind in KINDS}
        for example in source.examples:
            for kind in _kinds(example):
                own[kind].append(example)
        for kind, examples in own.items():
            if examples:
                kinds[kind].append(examples)
    return kinds


def row(tokenizer: PreTrainedTokenizerBase, example: Example) -> Written | None:
    """What is written behind `example`; None where it is too long."""
    prefix = tokenizer(render(example.messages)).input_ids
    lead = [
        *tokenizer(label(None), add_special_tokens=False).input_ids,
        *tokenizer(ANSWER, add_special_tokens=False).input_ids,
    ]
    answer = tokenizer(f" {told(example.answer)}\n", add_special_tokens=False).input_ids
    if len(prefix) > MAX_PREFIX or len(answer) > MAX_ANSWER:
        return None
    return Written(
        prefix=tuple(prefix),
        label=tuple(lead),
        text=tuple(answer),
        supervised=(True,) * len(answer),
    )


class AnswerStage(WrittenStage):
    """The stage of one run."""

    name, labelled = "answers", 1.0
    rare = 8192
    """No grammar keeps an answer from tokens that a LoRA made likely unseen."""

    def __init__(self, run: Trainer, lora: ActivatedLora) -> None:
        options = run.options
        super().__init__(
            run, lora, steps=options.answer_steps, lr=options.answer_lr, batch=options.answer_batch
        )
        self._sorted: list[tuple[Sequence[Source], ByKind]] = []

    def draw(self, sources: Sequence[Source], count: int, rng: random.Random) -> list[Written]:
        """Kinds as `KINDS` says, of each its sets alike: the small ones have most of the answers that large models gave."""
        some = self._some(sources)
        kinds = [kind for kind in KINDS if some.get(kind)]
        found: list[Written] = []
        for _ in range(TRIES * count if kinds else 0):
            kind = rng.choices(kinds, [KINDS[kind] for kind in kinds])[0]
            example = MAKERS[kind](rng.choice(rng.choice(some[kind])), rng)
            if kind in ("result", "made") and rng.random() < OTHER:
                example = with_other_facts(example, rng)
            if one := row(self.run.tokenizer, example):
                found.append(one)
            if len(found) == count:
                break
        return found

    def _some(self, sources: Sequence[Source]) -> ByKind:
        for known, kinds in self._sorted:
            if known is sources:
                return kinds
        kinds = _by_kind(sources)
        self._sorted.append((sources, kinds))
        return kinds
