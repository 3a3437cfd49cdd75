"""Which of a tool's optional parameters are given?

A model that writes arguments token by token leaves them out: ``{}`` is nearly always the likeliest object, as some names are the
likeliest of all tools. So, as with tools, all are scored at once, in one pass behind the tool's name: a parameter is given
where its value would be copied from words of the conversation that are no other one's, and where the request makes its name likelier
than an empty request does. The grammar then holds those that are given, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.choose import common_logits
from agent_specializer.edge.said import Claims, kind, opening
from agent_specializer.specs import ToolSpec

NAMED, BIAS = 0.17, 0.42
"""What speaks for giving a parameter beside the log-probability that its value is copied: per nat that the request makes its name
likelier, and always. Fitted on requests of held-out families (docs/LOG.md)."""
SURE = -1.0
"""From here on the words of a required parameter are its own."""
FLOOR = -6.0
"""Log-probability below which all is the same."""
CLEARLY = 2.0
"""A flag, or whatever else has no words or numbers for a value, may be given if the request makes its name likelier by so many nats. In
ToolACE's training conversations the three that are given have 2.9 and more, the eight that are not have 1.6 and less (docs/LOG.md)."""
MAX_READ = 16
"""Parameters of a tool that are read, at most; on later ones the model decides as it writes."""
PLAIN = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "$defs", "$schema"}
)
"""Of an object's schema, what says nothing of how its parameters depend on each other."""


def read(tool: ToolSpec) -> tuple[str, ...]:
    """The parameters whose openings are read: whose values are words or numbers of the user, and others that are optional."""
    properties, required = tool.parameters.get("properties") or {}, tool.parameters.get("required") or ()
    names = (
        name
        for name, sub in properties.items()
        if isinstance(sub, dict) and (is_said(sub) or name not in required)
    )
    return tuple(names)[:MAX_READ]


def decides(tool: ToolSpec) -> bool:
    """Whether some of `read` are optional, and do not depend on each other."""
    schema = tool.parameters
    return schema.keys() <= PLAIN and not set(read(tool)) <= set(schema.get("required") or ())


def offers(tokenizer: PreTrainedTokenizerBase, tool: ToolSpec) -> list[list[int]]:
    """What stands behind the tool's label where the value of each of `read` would begin, were it the first; token ids."""
    properties = tool.parameters.get("properties") or {}
    texts = [opening(name, properties[name]) for name in read(tool)]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    return found


def named(model: nn.Module, states: Tensor, runs: Sequence[Sequence[int]]) -> Tensor:
    """Log-probability of the name in each of `offers`, (parameters,) float32 on the CPU, in nats.

    Args:
        states: (1 + tokens, hidden), of the model behind the label and behind each token of `runs`, read side by side.
    """
    places: list[int] = []
    owners: list[int] = []
    targets: list[int] = []
    start = 0
    for owner, run in enumerate(runs):
        # The brace before a name is the same for all, and what opens the value depends on its type.
        for place in range(1, len(run) - 1):
            places.append(start + place)
            owners.append(owner)
            targets.append(run[place])
        start += len(run)
    wanted = torch.tensor(targets)
    scored, subset = common_logits(model, states[places], wanted)
    columns = torch.searchsorted(subset, wanted.to(subset.device))
    chosen = torch.log_softmax(scored, -1).gather(1, columns[:, None])[:, 0].cpu()
    return torch.zeros(len(runs)).index_add(0, torch.tensor(owners), chosen)


def given(
    likely: Tensor, times: Tensor, named: Tensor, prior: Tensor, required: Sequence[bool]
) -> list[bool]:
    """Which parameters are given, were all of them optional: of those whose values are words or numbers (`is_said`).

    One after another, the surest first; the words with which its value begins are no other one's from then on.

    Args:
        likely, times: as of `said.Claims`; named, prior: of `named` behind the request and behind an
            empty one, (parameters,) in nats; required: for each, whether it is there in any case.
    """
    reasons = NAMED * (named - prior) + BIAS
    claims = Claims(likely, times)
    found = [False] * len(likely)

    def copied() -> Tensor:
        return claims.copied().clamp_min(1e-9).log().clamp_min(FLOOR)

    def take(parameter: int) -> None:
        claims.take(parameter)
        found[parameter] = True

    sure = (copied() > SURE).tolist()
    for parameter, needed in enumerate(required):
        if needed and sure[parameter]:
            take(parameter)
    taken = torch.tensor([needed or given for needed, given in zip(required, found, strict=True)])
    while not taken.all():
        scores = (copied() + reasons).masked_fill(taken, float("-inf"))
        best = int(scores.argmax())
        if scores[best] <= 0:
            break
        take(best)
        taken[best] = True
    return found


def narrowed(tool: ToolSpec, give: Mapping[str, bool]) -> ToolSpec:
    """`tool` with those of its optional parameters required that `give` says are given, and without those that are not."""
    schema = tool.parameters
    needed = list(schema.get("required") or ())
    kept = {n: sub for n, sub in schema["properties"].items() if n in needed or give.get(n, True)}
    needed += [name for name in kept if name not in needed and give.get(name)]
    parameters = {**schema, "properties": kept, "required": needed}
    return tool.changed(parameters=parameters)


def is_said(schema: Any) -> bool:
    """Whether the value of a parameter is words or numbers of the request's."""
    found = kind(schema)
    return found in ("string", "integer", "number") or (
        found == "array" and kind(schema.get("items")) == "string"
    )
