"""What the arguments of a call are to be: which of the optional parameters are given, and whose words are whose.

All is read off one pass over the openings of the parameters' values, side by side behind the tool's name, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agent_specializer.edge.choose import Branches
from agent_specializer.edge.copying import Copies
from agent_specializer.edge.given import CLEARLY, decides, given, is_said, named, narrowed, offers, read
from agent_specializer.edge.grammar import ToolGrammar
from agent_specializer.edge.job import Job, Said
from agent_specializer.edge.passes import Feed, Seen
from agent_specializer.edge.said import beginning, begun, kind
from agent_specializer.edge.sharing import share, told
from agent_specializer.specs import ToolSpec


@dataclass(frozen=True)
class Plan:
    """Of a call's arguments: `grammar`, with those optional parameters that are given; `copies`, what of the conversation goes where."""

    grammar: ToolGrammar
    copies: Copies


def plan(
    job: Job, feed: Callable[..., Feed], tool: ToolSpec, budget: int, words: Tensor | None
) -> Generator[Feed, Seen, Plan]:
    """Plans a call of `tool`.

    Args:
        feed: what the model has not read yet, up to the tool's label, and what else is wanted (`Tail.feed`).
        words: as of `Job.said`.
        budget: tokens that the arguments may have. Where those that are given do not fit, all optional ones are left to the model.
    """
    whole = job.grammars.of(tool)
    said = job.said(tool, words)
    fits = said.fits.places
    names = read(tool)
    if not decides(tool) and len(names) < 2:
        return _planned(job, said, whole, (), None)
    runs = offers(job.tokenizer, tool)
    branches = Branches.of_tokens(runs)
    seen = yield feed(tree=branches)
    likely = beginning(job.scorer.model, seen.states[1 + branches.ends], said.begins, job.tokenizer, tool)
    grammar = whole
    if decides(tool):
        properties, required = tool.parameters["properties"], set(tool.parameters.get("required") or ())
        asks, prior = named(job.scorer.model, seen.states, runs), job.naming(tool)
        rows = [row for row, name in enumerate(names) if is_said(properties[name])]
        found = given(
            likely[rows],
            said.begins.times,
            asks[rows],
            prior[rows],
            [names[row] in required for row in rows],
        )
        give = {names[row]: own for row, own in zip(rows, found, strict=True)}
        unclear = (asks - prior <= CLEARLY).tolist()
        give |= {name: False for name, no in zip(names, unclear, strict=True) if no and name not in give}
        give |= dict.fromkeys(told(tool, fits, said.source.request), True)
        few = job.grammars.of(narrowed(tool, give))
        if few.shortest is not None and len(few.shortest) <= budget:
            grammar = few
    return _planned(job, said, grammar, names, likely)


def _planned(job: Job, said: Said, grammar: ToolGrammar, names: Sequence[str], likely: Tensor | None) -> Plan:
    properties = grammar.tool.parameters.get("properties") or {}
    fits = {name: places for name, places in said.fits.places.items() if name in properties}
    single = ("string", "integer", "number")
    rows = [row for row, name in enumerate(names) if kind(properties.get(name)) in single]
    shares = share(
        [names[row] for row in rows],
        torch.zeros(0, len(said.begins.tokens)) if likely is None else likely[rows],
        said.begins,
        begun(job.tokenizer, said.begins),
        fits,
    )
    return Plan(grammar, Copies(said.source.without(shares.taken), job.grammars.vocabulary, shares.others))
