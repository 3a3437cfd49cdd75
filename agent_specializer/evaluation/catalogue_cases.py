"""Toolsets of a wished size and requests to them, from the catalogues that ship with the product."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agent_specializer.errors import ConfigError
from agent_specializer.examples import Composer
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset
from tool_specs import Catalogue, catalogues, load


@dataclass(frozen=True)
class Case:
    """A toolset, requests that each need one call, and the tool that each needs."""

    toolset: Toolset
    requests: tuple[tuple[Message, ...], ...]
    gold: tuple[str, ...]


def catalogue_cases(*, tools: int, count: int, seed: int = 0) -> list[Case]:
    """`count` cases of `tools` tools each, each around another catalogue.

    A catalogue with more tools gives those that its requests need first; one with fewer is filled up with
    random tools of the others.

    Raises:
        ConfigError: the catalogues do not have so many tools.
    """
    all_catalogues = [load(path) for path in catalogues()]
    total = sum(len(catalogue.tools) for catalogue in all_catalogues)
    if not 1 <= tools <= total:
        raise ConfigError(
            f"--tools {tools}: the shipped catalogues have {total} tools", hint=f"give 1 to {total}"
        )
    composer = Composer(catalogue.toolset for catalogue in all_catalogues)
    rng = random.Random(seed)
    chosen = rng.sample(all_catalogues, min(count, len(all_catalogues)))
    return [_case(catalogue, composer, tools, rng) for catalogue in chosen]


def _case(catalogue: Catalogue, composer: Composer, tools: int, rng: random.Random) -> Case:
    single = [request for request in catalogue.requests if len(request.calls) == 1]
    needed = dict.fromkeys(request.calls[0].name for request in single)
    own = sorted(catalogue.tools, key=lambda tool: tool.name not in needed)[:tools]
    toolset = composer.compose(
        own, tools=tools, distractors="random", rng=rng, instructions=catalogue.agent.instructions
    )
    kept = [request for request in single if request.calls[0].name in toolset.names]
    return Case(
        toolset=toolset,
        requests=tuple((Message(role="user", content=request.request),) for request in kept),
        gold=tuple(request.calls[0].name for request in kept),
    )


def mixed(cases: Sequence[Case], count: int) -> list[tuple[int, int]]:
    """`count` requests that take turns among the cases, as (case, request) numbers."""
    return [(i % len(cases), (i // len(cases)) % len(cases[i % len(cases)].requests)) for i in range(count)]
