"""From example files to benchmark items: which request is asked of which toolset. Depends on the seed alone.

1. The examples are shuffled under the seed; `limit` takes the first ones.
2. Examples of one own toolset and one context form groups of up to eight, in that order: a group shares
   one toolset, so that it is specialised, merged and described once. Groups that stay small (files in which
   nearly every example has its own tools) are put together as long as their own tools fit into N and do not
   contradict each other.
3. A group's own tools are united with distractors up to N. Toolsets with more than N tools of their own
   stay whole.
4. With opaque names the tools are called ``tool_01``, ``tool_02``, ... before anything sees them.
5. Requests that users are known to make of a tool are drawn from the examples that `limit` leaves out: first messages that ask
   for this tool alone, and that nobody says in a conversation of the benchmark.

Distractors never do the own tools' work under another name: ids of the form
``set/Service_1+Service_2@variant`` tell which toolsets describe the same service, and those are neither
distractors of each other nor put together.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_specializer.errors import IntakeError
from agent_specializer.examples import Composer, Example, families, opaque, read_examples, read_toolsets
from agent_specializer.examples.compose import Distractors, Names
from agent_specializer.messages import Call, Message
from agent_specializer.specs import REQUEST_LENGTH, Toolset, ToolSpec, canonical_json

GROUP = 8
"""Examples that share one toolset, at most."""


@dataclass(frozen=True)
class Item:
    """One request of a benchmark. `index` is its place in the file, `accepted` as in example files."""

    index: int
    messages: tuple[Message, ...]
    calls: tuple[Call, ...]
    accepted: tuple[Mapping[str, Any], ...] = ()
    category: str = ""


@dataclass(frozen=True)
class Group:
    """Items that are asked of one toolset. `own`: ids of the toolsets that it was composed around; `knowing`: the same tools with some
    requests that are known."""

    toolset: Toolset
    items: tuple[Item, ...]
    own: tuple[str, ...]
    knowing: Toolset | None = None


def load_groups(
    toolsets: Path,
    examples: Path,
    *,
    tools: int,
    distractors: Distractors = "random",
    names: Names = "kept",
    limit: int | None = None,
    seed: int = 0,
    requests: int = 0,
) -> list[Group]:
    """The benchmark that two files make. `requests`: of each tool at most, in `Group.knowing`.

    Raises:
        IntakeError: a file cannot be read, or an example names a toolset or tool that is not there.
    """
    known = read_toolsets(toolsets)
    asked = read_examples(examples)
    if not asked:
        raise IntakeError("there are no examples", source=str(examples), hint="one JSON object a line")
    for number, example in enumerate(asked, 1):
        _check(example, known, number, toolsets, examples)
    return compose_groups(
        known,
        asked,
        tools=tools,
        distractors=distractors,
        names=names,
        limit=limit,
        seed=seed,
        requests=requests,
    )


def compose_groups(
    toolsets: Mapping[str, Toolset],
    examples: Sequence[Example],
    *,
    tools: int,
    distractors: Distractors = "random",
    names: Names = "kept",
    limit: int | None = None,
    seed: int = 0,
    requests: int = 0,
) -> list[Group]:
    """As `load_groups`, of toolsets by id and examples that have been read. `tools` is N."""
    order = random.Random(seed).sample(range(len(examples)), len(examples))[:limit]
    plain = Composer(toolsets.values())
    said = _said(toolsets, examples, set(order), requests, seed) if requests else {}
    groups = []
    for number, part in enumerate(_parts(order, examples, toolsets, tools)):
        rng = random.Random(f"{seed}/{number}")
        related = set().union(*(families(own) for own in part.own))
        others = [t for own, t in toolsets.items() if not related & families(own).keys()]
        composer = plain if len(others) == len(toolsets) - len(part.own) else Composer(others)
        toolset = composer.compose(
            part.tools,
            tools=tools,
            distractors=distractors,
            rng=rng,
            instructions=part.instructions(toolsets),
        )
        items = [_item(index, examples[index]) for index in part.indices]
        known = {tool.name: said.get(tool.fingerprint, ()) for tool in toolset.tools}
        if names == "opaque":
            toolset, renaming = opaque(toolset, rng)
            items = [_renamed(item, renaming.names) for item in items]
            known = {renaming.names[name]: texts for name, texts in known.items()}
        knowing = None
        if requests:
            wiser = (tool.changed(requests=known[tool.name]) for tool in toolset.tools)
            knowing = Toolset(tools=tuple(wiser), instructions=toolset.instructions)
        groups.append(Group(toolset, tuple(items), tuple(part.own), knowing))
    return groups


def _said(
    toolsets: Mapping[str, Toolset], examples: Sequence[Example], asked: set[int], count: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """At most `count` requests of each tool, by its fingerprint, of examples that are not `asked`."""
    tested = {_plain(m.content) for index in asked for m in examples[index].messages if m.role == "user"}
    found: dict[str, dict[str, str]] = {}
    for index, example in enumerate(examples):
        if index in asked or len(example.messages) != 1 or len(example.calls) != 1:
            continue
        text = example.messages[0].content
        if 0 < len(text) <= REQUEST_LENGTH and _plain(text) not in tested:
            tool = toolsets[example.toolset_id].tool(example.calls[0].name)
            found.setdefault(tool.fingerprint, {}).setdefault(_plain(text), text)
    rng = random.Random(f"{seed}/requests")
    return {
        tool: tuple(rng.sample(list(texts.values()), min(count, len(texts)))) for tool, texts in found.items()
    }


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass
class _Part:
    """A group in the making."""

    own: list[str]
    context: str
    indices: list[int]
    tools: list[ToolSpec]

    def takes(self, other: _Part, limit: int) -> bool:
        """Whether `other` can join without a tool too many, and without tools that contradict each other."""
        if self.context != other.context or len(self.indices) + len(other.indices) > GROUP:
            return False
        mine, theirs = _merged(self.own), _merged(other.own)
        if any(mine[family] != theirs[family] for family in mine.keys() & theirs.keys()):
            return False
        united = {tool.fingerprint: tool for tool in (*self.tools, *other.tools)}
        # One name for two tools, or two names for one: a request could not tell which is meant.
        names = {tool.name for tool in united.values()}
        bodies = {(tool.description, canonical_json(tool.parameters)) for tool in united.values()}
        return len(united) <= limit and len(names) == len(united) == len(bodies)

    def join(self, other: _Part) -> None:
        known = {tool.fingerprint for tool in self.tools}
        self.own += [own for own in other.own if own not in self.own]
        self.indices += other.indices
        self.tools += [tool for tool in other.tools if tool.fingerprint not in known]

    def instructions(self, toolsets: Mapping[str, Toolset]) -> str:
        texts = [*(toolsets[own].instructions for own in self.own), self.context]
        return "\n".join(dict.fromkeys(text for text in texts if text))


def _parts(
    order: Iterable[int], examples: Sequence[Example], toolsets: Mapping[str, Toolset], limit: int
) -> list[_Part]:
    full: list[_Part] = []
    filling: dict[tuple[str, str], _Part] = {}
    for index in order:
        example = examples[index]
        key = (example.toolset_id, example.context)
        if key not in filling:
            own = toolsets[example.toolset_id]
            filling[key] = _Part([example.toolset_id], example.context, [], list(own.tools))
        filling[key].indices.append(index)
        if len(filling[key].indices) == GROUP:
            full.append(filling.pop(key))
    open_parts: list[_Part] = []
    for small in filling.values():
        host = next((part for part in open_parts if part.takes(small, limit)), None)
        if host is None:
            open_parts.append(small)
        else:
            host.join(small)
    return full + open_parts


def _merged(own: Iterable[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for toolset_id in own:
        for family, parts in families(toolset_id).items():
            found[family] = found.get(family, frozenset()) | parts
    return found


def _item(index: int, example: Example) -> Item:
    return Item(index, example.messages, example.calls, example.accepted, example.category)


def _renamed(item: Item, names: Mapping[str, str]) -> Item:
    from agent_specializer.examples import Renaming

    renaming = Renaming(dict(names))
    return Item(
        index=item.index,
        messages=tuple(map(renaming.message, item.messages)),
        calls=tuple(map(renaming.call, item.calls)),
        accepted=tuple({names.get(name, name): values for name, values in a.items()} for a in item.accepted),
        category=item.category,
    )


def _check(
    example: Example, known: Mapping[str, Toolset], number: int, toolsets: Path, examples: Path
) -> None:
    """IntakeError unless the example's toolset is there and has the tools that the example calls."""
    if example.toolset_id not in known:
        raise IntakeError(
            f"example {number} is of toolset {example.toolset_id!r}, which is not in {toolsets}",
            source=str(examples),
            hint="give the toolsets file that belongs to the examples file",
        )
    unknown = {call.name for call in example.calls} - set(known[example.toolset_id].names)
    if unknown:
        raise IntakeError(
            f"example {number} calls {sorted(unknown)}, which toolset {example.toolset_id!r} does not have",
            source=str(examples),
            hint="correct the example, or add the tool to its toolset",
        )
