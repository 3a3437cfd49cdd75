"""Requests that nobody made: the cloud model, prompted with what a tool does, writes what its users may say.

A base model goes on with what it reads, so it is shown some tools with what is said to get them, then the tool, and
begins a list. A small one's requests are of mixed use: about half of those of Gemma 3 270M ask for a neighbour of the tool,
or for nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agent_specializer.edge.passes import Feed, KeysValues, Lanes
from agent_specializer.loragen.models import logits
from agent_specializer.specs import ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Switches a fan on or off, or sets how fast it turns. Takes: fan (which one), speed (1 to 5)",
        (
            "fan in the attic to three",
            "can you stop the ceiling fan?",
            "I'm melting, put the big fan on full speed",
        ),
    ),
    (
        "Books a table at a restaurant. Takes: restaurant (its name), guests (how many), time (when)",
        ("table for four at Luigi's tonight at 8", "dinner for two at the Golden Dragon on Friday, please"),
    ),
    (
        "Removes an entry from the user's diary. Takes: entry_id (which entry)",
        ("throw away entry 42", "I don't want number 7 in my diary any more", "please get rid of entry 1093"),
    ),
    (
        "Get how much of one currency another one buys. Takes: source (code of a currency), target (code of a currency)",
        ("how many euros do I get for a dollar?", "pound to yen right now", "what's CHF worth in SEK"),
    ),
    (
        "Searches the user's photographs. Takes: query (what is on them), year (when they were taken)",
        ("show me pictures of our trip to Norway", "where are the beach pics from two years ago?"),
    ),
)
"""Tools with what users say to get them, written for this."""
ASKS = "What users say when they want it:"
LONGEST = 40
"""Tokens of a request that is written."""
DESCRIPTION, PARAMETERS, VALUES = 400, 8, 6
"""Of a tool, how many letters of its description are read, how many parameters, and how many values of each."""
LIKELIEST = 50
"""Each token is drawn from so many."""
TEMPERATURE = 0.6
WORDS = range(2, 41)
"""How many words a request has."""


@torch.inference_mode()
def write_requests(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tools: Sequence[ToolSpec],
    *,
    count: int,
    seed: int,
    on_tool: Callable[[int], bool | None] = lambda done: None,
) -> list[tuple[str, ...]]:
    """What `model`, with its own weights, thinks that users of each of `tools` say: up to `count` requests each, no two alike.

    Args:
        on_tool: told how many tools are done, after each.
    """
    before = "\n\n".join(_shown(about, said) for about, said in SHOWN)
    prefix = _read(model, tokenizer(f"{before}\n\n").input_ids, None)
    found = []
    for number, tool in enumerate(tools, 1):
        ids = tokenizer(f"Tool: {about(tool)}\n{ASKS}\n", add_special_tokens=False).input_ids
        rng = torch.Generator().manual_seed(random.Random(f"{seed}/{tool.fingerprint}").randrange(2**31))
        begin = tokenizer("-", add_special_tokens=False).input_ids
        runs = _lists(model, tokenizer, _read(model, ids, prefix), begin, count, rng)
        found.append(_requests(runs))
        on_tool(number)
    return found


def about(tool: ToolSpec) -> str:
    """One line of what a tool does and takes."""
    text = " ".join(tool.description.split())[:DESCRIPTION] or tool.name
    said = []
    for name, schema in list((tool.parameters.get("properties") or {}).items())[:PARAMETERS]:
        schema = schema if isinstance(schema, dict) else {}
        values = ", ".join(map(str, (schema.get("enum") or ())[:VALUES]))
        what = "; ".join(filter(None, (" ".join(str(schema.get("description") or "").split())[:120], values)))
        said.append(f"{name} ({what})" if what else name)
    return f"{text} Takes: {', '.join(said)}" if said else text


def _shown(about: str, said: Sequence[str]) -> str:
    return "\n".join([f"Tool: {about}", ASKS, *(f"- {text}" for text in said)])


def _read(model: nn.Module, ids: list[int], behind: KeysValues | None) -> KeysValues:
    """Keys and values of all tokens `behind` and `ids`."""
    lanes = Lanes(model, 1, prefix=behind)
    lanes.run({0: Feed(ids)})
    return lanes.keys_values(len(ids) + (behind[0][0].shape[2] if behind else 0))


def _lists(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prefix: KeysValues,
    begin: list[int],
    count: int,
    rng: torch.Generator,
) -> list[str]:
    """`count` lines behind `prefix` and `begin`, drawn side by side."""
    lanes = Lanes(model, count, prefix=prefix)
    lines: list[list[int]] = [[] for _ in range(count)]
    special = set(tokenizer.all_special_ids)
    feeds = {lane: Feed(begin) for lane in range(count)}
    while feeds:
        seen = lanes.run(feeds)
        drawn = _drawn(model, torch.stack([seen[lane].states[0] for lane in seen]), rng)
        feeds = {}
        for lane, token in zip(seen, drawn, strict=True):
            if token in special or "\n" in str(tokenizer.decode([token])):
                continue
            lines[lane].append(token)
            if len(lines[lane]) < LONGEST:
                feeds[lane] = Feed([token])
            else:
                lines[lane] = []  # it did not come to an end
    return [str(tokenizer.decode(line)) for line in lines]


def _drawn(model: nn.Module, states: Tensor, rng: torch.Generator) -> list[int]:
    """A token behind each of `states` (lanes, hidden)."""
    scored = logits(model, states).cpu()
    likely, tokens = scored.topk(min(LIKELIEST, scored.shape[-1]))
    places = torch.multinomial((likely / TEMPERATURE).softmax(-1), 1, generator=rng)
    return tokens.gather(1, places)[:, 0].tolist()


def _requests(lines: Sequence[str]) -> tuple[str, ...]:
    texts = (line.strip().strip('"“”').strip() for line in lines)
    kept = {text.casefold(): text for text in texts if "�" not in text and len(text.split()) in WORDS}
    return tuple(kept.values())
