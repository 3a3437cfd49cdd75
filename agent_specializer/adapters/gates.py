"""Stored adapters' gates, to be looked at and compared: balance, shared routing, nearest agents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from agent_specializer.errors import AdapterError, NotFound
from agent_specializer.store import AdapterRow, Registry

Gates = tuple[tuple[float, ...], ...]
"""(layers, experts); each layer's gates sum to 1."""
AMONG = 200
"""Adapters, the last used first, among which neighbours are looked for."""


class Neighbour(NamedTuple):
    """Another agent's adapter, and the share of its routing that is the same, 0 to 1."""

    row: AdapterRow
    shared: float


def gates_of(registry: Registry, row: AdapterRow) -> Gates:
    """Gates (layers, experts) of a stored adapter.

    Raises:
        AdapterError: it is damaged. NotFound: it was evicted meanwhile.
    """
    return _decoded(registry.adapter_blob(row.id))


@lru_cache(maxsize=1000)
def _decoded(blob: bytes) -> Gates:
    from agent_specializer.loragen.adapter import Adapter  # on use: it brings torch

    return tuple(map(tuple, Adapter.from_bytes(blob).gates.tolist()))


def expert_shares(gates: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The share of each expert over all layers (experts,): equal shares are a balanced adapter."""
    return tuple(sum(column) / len(gates) for column in zip(*gates, strict=True))


def shared_routing(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """The mean over layers of what both route to the same experts, 0 to 1; 0 where the shapes differ."""
    if len(a) != len(b) or len(a[0]) != len(b[0]):
        return 0.0
    both = [sum(map(min, row, other)) for row, other in zip(a, b, strict=True)]
    return sum(both) / len(both)


def neighbours(registry: Registry, row: AdapterRow, *, limit: int = 5) -> list[Neighbour]:
    """The agents whose adapters, made by the same generator, route most alike; the nearest first.

    Raises:
        AdapterError, NotFound: as `gates_of`, for `row` itself; other adapters that are damaged are no neighbours.
    """
    own = gates_of(registry, row)
    found = []
    for other in registry.adapters(limit=AMONG):
        if other.agent in (None, row.agent) or other.generator_fp != row.generator_fp:
            continue
        try:
            found.append(Neighbour(other, shared_routing(own, gates_of(registry, other))))
        except (AdapterError, NotFound):
            continue  # its own row says what is wrong with it
    nearest: dict[str | None, Neighbour] = {}
    for each in sorted(found, key=lambda each: -each.shared):
        nearest.setdefault(each.row.agent, each)
    return list(nearest.values())[:limit]
