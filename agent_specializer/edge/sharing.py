"""Whose words are whose: what the conversation says is shared out among a call's parameters, all at once.

A model that writes one value after another takes for the first what only the last can use: "production" for the *service*, since it does not
know yet that the *environment* is to come. Here each parameter's likeliest beginnings, read side by side in one pass, are assigned so that the
whole call is likeliest and no word is used twice. Where a schema allows but some values, only words with one of them count for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from agent_specializer.edge.said import Beginnings, kind, opening
from agent_specializer.loragen.toolkeys import required

if TYPE_CHECKING:
    from agent_specializer.edge.copying import Source, Span
    from agent_specializer.edge.grammar import ToolGrammar
    from agent_specializer.specs import ToolSpec

SHORTEST = 3
"""Letters of a word that asks for a parameter, at least: "on" may mean anything."""
FOUND, MISSED = 1.5, 1.0
"""Nats for a tool and against it: each value of the request that has the pattern or format of a parameter, each that is required and stands nowhere.
Chosen on the shipped catalogues' requests (docs/LOG.md): from 1 to 2 nats little changes."""
MOST = 3
"""So many of either count, at most."""
UNFIT, LEAST = -50.0, -6.0
"""Log-probability of what a schema does not allow, and the least of what it does."""
FLOOR = 1e-9
"""The least probability."""

Places: TypeAlias = "dict[str, Span]"
"""Values that stand in a conversation, and where."""


@dataclass(frozen=True)
class Shares:
    """Who has what.

    Attributes:
        others: of each parameter, the tokens with which the values of others begin.
        taken: where values stand that are some parameter's whose schema allows but some values.
    """

    others: Mapping[str, frozenset[int]]
    taken: tuple[Span, ...]


@dataclass(frozen=True)
class Fits:
    """Of a tool's parameters whose schemas allow but some values: numbers, or strings of a pattern, a format or an enum.

    Attributes:
        places: what stands in the conversation for each of them. missing: those for which nothing stands there, whatever its capitals.
    """

    places: Mapping[str, Places]
    missing: frozenset[str] = frozenset()


def fitting(source: Source, grammar: ToolGrammar) -> Fits:
    """What stands in a conversation for the parameters of a tool."""
    found: dict[str, Places] = {}
    missing: set[str] = set()
    for name, schema in (grammar.tool.parameters.get("properties") or {}).items():
        inner = _inner(schema)
        if inner not in ("string", "integer", "number"):
            continue
        matcher = grammar.value(name, opening(name, schema))
        if matcher is None:
            continue
        is_text = inner == "string"
        places = source.fitting(matcher) if is_text else source.numbers(matcher)
        if places is not None:
            found[name] = places
            if not places and not (is_text and source.fitting(matcher, loosely=True)):
                missing.add(name)
    return Fits(found, frozenset(missing))


def evidence(tool: ToolSpec, fits: Fits, request: Span) -> float:
    """What the values in a request say of whether `tool` is meant, in nats: an order's number is there for a tool that takes one.

    Only patterns and formats tell (docs/LOG.md).

    Args:
        fits: of `fitting`; request: where the user's newest message stands.
    """
    properties = tool.parameters.get("properties") or {}
    # A number, or one of a few words, stands in many a request.
    telling = [
        name
        for name in fits.places
        if _inner(properties[name]) == "string" and not is_listed(properties[name])
    ]
    found = [_asked_for(properties[name], fits.places[name], request) for name in telling]
    # One date is not two parameters', however many would take it.
    count = min(sum(map(bool, found)), len(set().union(*found)))
    missed = sum(name in telling and name in fits.missing for name in required(tool))
    return FOUND * min(count, MOST) - MISSED * min(missed, MOST)


def told(tool: ToolSpec, fits: Mapping[str, Places], request: Span) -> set[str]:
    """The optional parameters for which words stand in the request that no required one could have.

    Args:
        fits: of `fitting`; request: where the user's newest message stands.
    """
    needed = tool.parameters.get("required") or ()
    claimed = {span[0] for name in needed for span in fits.get(name, {}).values()}
    properties = tool.parameters["properties"]
    return {
        name
        for name, places in fits.items()
        if name not in needed
        and _inner(properties[name]) == "string"
        and _asked_for(properties[name], places, request) - claimed
    }


def share(
    names: Sequence[str], likely: Tensor, begins: Beginnings, words: Sequence[str], fits: Mapping[str, Places]
) -> Shares:
    """Shares out words among parameters.

    Args:
        names: of the parameters; likely: (parameters, begins) the probability that the value of each begins so.
        words: what each of `begins` begins, (begins,), in small letters.
        fits: of `fitting`, for all parameters that are given. What fits one that is not among `names`, an array, is its own.
    """
    columns, column_of = np.unique(np.array(words, dtype=str), return_inverse=True)
    mass = np.zeros((len(names), len(columns)))
    np.add.at(mass.T, column_of, likely.double().numpy().T)
    times = np.ones(len(columns), dtype=int)
    np.maximum.at(times, column_of, begins.times.numpy())
    scores = np.log(mass.clip(FLOOR))
    for row, name in enumerate(names):
        texts = [text.lower() for text in fits.get(name, ())]
        allowed = np.array([any(text.startswith(word) for text in texts) for word in columns], dtype=bool)
        if allowed.any():
            scores[row] = np.where(allowed, scores[row].clip(LEAST), UNFIT)
    # What fits nowhere in the conversation has to be worked out: no word is its own.
    rows = np.array([row for row, name in enumerate(names) if fits.get(name) != {}], dtype=int)
    spread = np.repeat(np.arange(len(columns)), times)
    assigned = linear_sum_assignment(-scores[np.ix_(rows, spread)])
    own = {names[rows[row]]: int(spread[place]) for row, place in zip(*assigned, strict=True)}
    tokens = {
        name: frozenset(begins.tokens[torch.from_numpy(column_of == column)].tolist())
        for name, column in own.items()
    }
    others = {
        name: frozenset().union(*(tokens[other] for other in own if other != name))
        - tokens.get(name, frozenset())
        for name in names
    }
    taken = (
        span
        for name, places in fits.items()
        for text, span in places.items()
        if name not in names or (name in own and text.lower().startswith(columns[own[name]]))
    )
    return Shares(others, tuple(taken))


def _asked_for(schema: Any, places: Places, request: Span) -> set[int]:
    """Where values begin that the request has for a parameter."""
    least = SHORTEST if _inner(schema) == "string" else 1
    return {
        span[0] for text, span in places.items() if len(text) >= least and request[0] <= span[0] < request[1]
    }


def is_listed(schema: Any) -> bool:
    """Whether a parameter's value, or its items, are picked from a few."""
    if kind(schema) == "array" and "items" in schema:
        return is_listed(schema["items"])
    return "enum" in schema or any(map(is_listed, schema.get("anyOf") or schema.get("oneOf") or ()))


def _inner(schema: Any) -> Any:
    """The type of a parameter's value, or of its items."""
    return kind(schema.get("items")) if kind(schema) == "array" else kind(schema)
