"""What the generator is trained on: compositions of tools, and requests that are asked of them.

A composition is one toolset: the own tools of a few examples, united with distractors (random or similar) and
sometimes renamed to ``tool_01`` ... so that only descriptions tell tools apart. Every draw depends on the seed and a number
alone, never on what was drawn before: a resumed run sees exactly what an unbroken one would have seen.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from agent_specializer.errors import IntakeError
from agent_specializer.examples import (
    Composer,
    Example,
    Renaming,
    families,
    opaque,
    read_examples,
    read_toolsets,
)
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.made_up import from_descriptions
from tool_specs import catalogues, load

DEV_SHARE = 12
"""One in so many families of toolsets is held out of training for the dev score."""
OPAQUE_SHARE = 0.3
SIMILAR_SHARE = 0.35
FOREIGN_SHARE = 0.25
"""Of compositions, how many draw their distractors from all files instead of their own."""
MAX_TOOLS = 12
MIN_TOOLS = 4


@dataclass(frozen=True)
class Composition:
    """A toolset and the examples that may be asked of it. `opaque`: tools were renamed, in the examples too."""

    toolset: Toolset
    examples: tuple[Example, ...]
    opaque: bool = False


@dataclass
class Source:
    """One example file with its toolsets. `choice_only`: the requests are made up, they say nothing of arguments."""

    name: str
    toolsets: dict[str, Toolset]
    examples: list[Example]
    choice_only: bool = False
    by_toolset: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._of_family: dict[str, set[str]] = defaultdict(set)
        for name, toolset in self.toolsets.items():
            for family in families(name):
                self._of_family[family] |= {tool.fingerprint for tool in toolset.tools}
        groups: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(self.examples):
            groups[example.toolset_id].append(index)
        self.by_toolset = dict(groups)
        self.composer = Composer([self.toolsets[name] for name in groups])
        # Between as many as there are and as varied as they are; made-up requests teach less than real ones.
        self.weight = (len(self.examples) * len(self.composer.tools)) ** 0.25 * (
            0.3 if self.choice_only else 1.0
        )

    def services_in_several_words(self) -> list[set[str]]:
        """Fingerprints of the tools of each service that more than one toolset describes."""
        count = Counter(family for name in self.toolsets for family in families(name))
        return [tools for family, tools in self._of_family.items() if count[family] > 1]

    def other_wordings(self, toolset_ids: set[str]) -> set[str]:
        """Fingerprints of tools that describe the services of `toolset_ids` in other words: no fair distractors."""
        all_wordings = {
            f for name in toolset_ids for family in families(name) for f in self._of_family[family]
        }
        return all_wordings - {tool.fingerprint for name in toolset_ids for tool in self.toolsets[name].tools}


def read_sources(data: Path, *, exclude: Sequence[str] = ()) -> tuple[list[Source], list[Source]]:
    """Training and dev sources of the folder `data`: ``X.toolsets.jsonl[.gz]`` with ``X.train.jsonl[.gz]``.

    Toolset files with neither train nor test examples give made-up requests. Test files are never opened.

    Raises:
        IntakeError: no usable files, or a damaged one.
    """
    train: list[Source] = []
    dev: list[Source] = []
    for path in sorted([*data.glob("*.toolsets.jsonl"), *data.glob("*.toolsets.jsonl.gz")]):
        name = path.name.split(".toolsets.")[0]
        examples = next(
            (p for p in (data / f"{name}.train.jsonl", data / f"{name}.train.jsonl.gz") if p.exists()), None
        )
        if name in exclude or (examples is None and any(data.glob(f"{name}.test.jsonl*"))):
            continue
        toolsets = read_toolsets(path)
        rows = read_examples(examples) if examples else from_descriptions(toolsets)
        rows += [answer for example in rows for answer in answers_to_results(example)]
        rows = [
            e
            for e in rows
            if e.toolset_id in toolsets and {c.name for c in e.calls} <= set(toolsets[e.toolset_id].names)
        ]
        held_out = {toolset_id for toolset_id in toolsets if examples and _is_dev(toolset_id)}
        choice_only = examples is None
        train.append(Source(name, toolsets, [e for e in rows if e.toolset_id not in held_out], choice_only))
        if held_out:
            dev.append(Source(name, toolsets, [e for e in rows if e.toolset_id in held_out], choice_only))
    if not any(source.examples for source in train):
        raise IntakeError(
            "no training examples here",
            source=str(data),
            hint="expected X.toolsets.jsonl and X.train.jsonl (or .gz)",
        )
    return [s for s in train if s.examples], [s for s in dev if s.examples]


class Compositions:
    """An endless, numbered supply of compositions."""

    def __init__(
        self, sources: list[Source], *, seed: int, examples: int = 8, opaque_share: float = OPAQUE_SHARE
    ) -> None:
        self.sources, self.seed, self.examples, self.opaque_share = sources, seed, examples, opaque_share
        self.everything = Composer(
            [ts for s in sources for ts in (s.toolsets[name] for name in s.by_toolset)]
        )

    def __getitem__(self, number: int) -> Composition:
        rng = random.Random(f"{self.seed}/composition/{number}")
        source = rng.choices(self.sources, [s.weight for s in self.sources])[0]
        own, indices = self._own(source, rng)
        examples = tuple(source.examples[i] for i in indices)
        composer = self.everything if rng.random() < FOREIGN_SHARE else source.composer
        toolset = composer.compose(
            own,
            tools=rng.randint(max(MIN_TOOLS, len(own)), max(MAX_TOOLS, len(own))),
            distractors="similar" if rng.random() < SIMILAR_SHARE else "random",
            rng=rng,
            instructions=source.toolsets[examples[0].toolset_id].instructions,
            avoid=source.other_wordings({example.toolset_id for example in examples}),
        )
        renamed = rng.random() < self.opaque_share
        if renamed:
            toolset, renaming = opaque(toolset, rng)
            examples = tuple(_renamed(example, renaming) for example in examples)
        return Composition(toolset, examples, renamed)

    def _own(self, source: Source, rng: random.Random) -> tuple[list[ToolSpec], list[int]]:
        """Own tools and example numbers: toolsets are added until there are enough examples or tools."""
        own: dict[str, ToolSpec] = {}
        indices: list[int] = []
        services: dict[str, frozenset[str]] = {}
        for _ in range(self.examples):
            example = rng.randrange(len(source.examples))
            toolset_id = source.examples[example].toolset_id
            new = {tool.name: tool for tool in source.toolsets[toolset_id].tools}
            worded = families(toolset_id)
            if any(services.get(family, parts) != parts for family, parts in worded.items()):
                continue  # one service in two wordings: a request could mean either
            if own and (len(own | new) > MAX_TOOLS or any(own.get(n, t) != t for n, t in new.items())):
                break
            if len(new) > MAX_TOOLS:  # a large toolset: some of its examples' tools and some of the others
                wanted = [
                    example,
                    *rng.sample(source.by_toolset[toolset_id], min(12, len(source.by_toolset[toolset_id]))),
                ]
                names: dict[str, None] = {}
                for i in wanted:
                    if len(names) < MAX_TOOLS - 3:
                        names |= dict.fromkeys(call.name for call in source.examples[i].calls)
                own = {name: new[name] for name in names}
                indices = [i for i in wanted if {c.name for c in source.examples[i].calls} <= set(names)]
                return list(own.values()), indices
            own |= new
            services |= worded
            group = source.by_toolset[toolset_id]
            indices += rng.sample(group, min(self.examples, len(group)))
            if len(indices) >= self.examples:
                break
        return list(own.values()), indices


def shipped_catalogues() -> list[Composition]:
    """The product's own catalogues with their requests, which nothing is trained on: they are of another style than the
    training sets, so what is fitted on these alone leans to answering in words."""
    found = []
    for catalogue in map(load, catalogues()):
        name = catalogue.agent.name
        toolset = Toolset(tools=tuple(catalogue.tools), instructions=catalogue.agent.instructions)
        asked = [
            Example(name, (Message(role="user", content=each.request),), tuple(each.calls))
            for each in catalogue.requests
        ]
        # Eight at a time, as requests come in the other compositions.
        found += [Composition(toolset, tuple(asked[at : at + 8])) for at in range(0, len(asked), 8)]
    return found


class Kinships:
    """Which services a tool is of, where several toolsets describe one service in words of their own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._of: dict[str, list[int]] = defaultdict(list)
        shared = [tools for source in sources for tools in source.services_in_several_words()]
        for number, tools in enumerate(shared):
            for fingerprint in tools:
                self._of[fingerprint].append(number)

    def __call__(self, tool: ToolSpec) -> Sequence[int]:
        return self._of.get(tool.fingerprint, ())


def _renamed(example: Example, renaming: Renaming) -> Example:
    return Example(
        toolset_id=example.toolset_id,
        messages=tuple(map(renaming.message, example.messages)),
        calls=tuple(map(renaming.call, example.calls)),
        answer=example.answer,
        category=example.category,
    )


def _is_dev(toolset_id: str) -> bool:
    """Whether one of the toolset's families is held out: ``set/Alarm_1+Media_3@v5`` belongs to Alarm and Media."""
    return any(
        int(hashlib.sha256(family.encode()).hexdigest(), 16) % DEV_SHARE == 0
        for family in families(toolset_id)
    )


def answers_to_results(example: Example) -> list[Example]:
    """The places in the conversation of `example` where a tool's result was answered in words, an example each."""
    found = []
    for at, (before, after) in enumerate(pairwise(example.messages), 1):
        if before.role == "tool" and after.role == "assistant" and after.content and not after.calls:
            found.append(
                replace(example, messages=example.messages[:at], calls=(), accepted=(), answer=after.content)
            )
    return found
