"""Toolsets of a wished size: own tools united with distractors, names kept or opaque. Seeded, for training and tests."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec, canonical_json

Distractors = Literal["random", "similar"]
Names = Literal["kept", "opaque"]


@dataclass(frozen=True)
class Renaming:
    """Old tool names to new ones; names not in it stay."""

    names: dict[str, str]

    def call(self, call: Call) -> Call:
        return Call(name=self.names.get(call.name, call.name), arguments=call.arguments)

    def message(self, message: Message) -> Message:
        if not message.calls and message.name not in self.names:
            return message
        name = self.names.get(message.name, message.name) if message.name else message.name
        return message.model_copy(update={"calls": tuple(map(self.call, message.calls)), "name": name})


class Composer:
    """Draws distractors for toolsets from all tools of one file (or several)."""

    def __init__(self, toolsets: Iterable[Toolset]) -> None:
        unique = {tool.fingerprint: tool for toolset in toolsets for tool in toolset.tools}
        self.tools: tuple[ToolSpec, ...] = tuple(unique.values())

    @cached_property
    def _similarity(self):  # type: ignore[no-untyped-def]
        """TF-IDF rows of name and description, one per tool, L2-normalised, and the vectoriser."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            token_pattern=r"[A-Za-z][a-z]+|[A-Z]+|\d+|\w", lowercase=False, preprocessor=str
        )
        return vectorizer, vectorizer.fit_transform([_text(tool) for tool in self.tools])

    def compose(
        self,
        own: Sequence[ToolSpec],
        *,
        tools: int,
        distractors: Distractors,
        rng: random.Random,
        instructions: str = "",
        avoid: Collection[str] = (),
    ) -> Toolset:
        """`own` and distractors up to `tools` tools in all; never an identical tool, never a name twice.

        `avoid`: fingerprints of tools that must not be distractors, such as other wordings of the own ones.
        """
        chosen = list({tool.name: tool for tool in own}.values())
        taken = {tool.name for tool in chosen}
        bodies = {_body(tool) for tool in chosen}
        order = self._nearest(chosen, rng) if distractors == "similar" else self._shuffled(rng)
        for tool in order:
            if len(chosen) >= tools:
                break
            if tool.name not in taken and _body(tool) not in bodies and tool.fingerprint not in avoid:
                chosen.append(tool)
                taken.add(tool.name)
                bodies.add(_body(tool))
        return Toolset(tools=tuple(chosen), instructions=instructions)

    def _shuffled(self, rng: random.Random) -> Iterable[ToolSpec]:
        for index in rng.sample(range(len(self.tools)), len(self.tools)):
            yield self.tools[index]

    def _nearest(self, own: Sequence[ToolSpec], rng: random.Random) -> Iterable[ToolSpec]:
        vectorizer, rows = self._similarity
        scores = (rows @ vectorizer.transform([_text(tool) for tool in own]).T).max(axis=1).toarray().ravel()
        return (self.tools[index] for index in (-scores).argsort(kind="stable"))


def opaque(toolset: Toolset, rng: random.Random) -> tuple[Toolset, Renaming]:
    """`toolset` with its tools called ``tool_01``, ``tool_02``, ... in a new random order."""
    numbers = rng.sample(range(1, len(toolset.tools) + 1), len(toolset.tools))
    names = {tool.name: f"tool_{number:02d}" for tool, number in zip(toolset.tools, numbers, strict=True)}
    tools = tuple(tool.changed(name=names[tool.name]) for tool in toolset.tools)
    return Toolset(tools=tools, instructions=toolset.instructions), Renaming(names)


def _text(tool: ToolSpec) -> str:
    return f"{tool.name.replace('_', ' ')} {tool.description}"


def _body(tool: ToolSpec) -> str:
    """What makes two tools identical whatever they are called."""
    return f"{' '.join(tool.description.split()).casefold()} {canonical_json(tool.parameters)}"


def families(toolset_id: str) -> dict[str, frozenset[str]]:
    """Which services a toolset describes, and in which words: service to the exact parts of the id.

    ``sgdx/Media_1+Media_3+Music_2@v5`` gives ``{"Media": {"Media_1@v5", "Media_3@v5"}, "Music":
    {"Music_2@v5"}}``.
    """
    path, _, variant = toolset_id.partition("@")
    folder, _, last = path.rpartition("/")
    found: dict[str, set[str]] = {}
    for part in last.split("+"):
        found.setdefault(f"{folder}/{re.sub(r'_[0-9]+$', '', part)}", set()).add(f"{part}@{variant}")
    return {family: frozenset(parts) for family, parts in found.items()}
