"""Adapters' gates as the pages show and compare them."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from agent_specializer.errors import SpecializerError
from agent_specializer.store import AdapterRow
from ui.service import registry

Gates = list[list[float]]
NEIGHBOURS = 200
"""Adapters, the last used first, among which neighbours are looked for."""


class Neighbour(NamedTuple):
    """Another adapter, and the share of its routing that is the same, 0 to 1."""

    row: AdapterRow
    shared: float


@st.cache_data(max_entries=1000, show_spinner=False)
def _decoded(adapter_id: int, made: str) -> Gates:
    from agent_specializer.loragen.adapter import Adapter

    gates: Gates = Adapter.from_bytes(registry().adapter_blob(adapter_id)).gates.tolist()
    return gates


def gates_of(row: AdapterRow) -> Gates:
    """Gates (layers, experts) of a stored adapter. Raises AdapterError, NotFound."""
    return _decoded(row.id, f"{row.fingerprint}{row.created_at.isoformat()}")


def shared_routing(a: Gates, b: Gates) -> float:
    """The mean over layers of what both route to the same experts, 0 to 1; 0 where the shapes differ."""
    if len(a) != len(b) or len(a[0]) != len(b[0]):
        return 0.0
    both = [sum(map(min, row, other)) for row, other in zip(a, b, strict=True)]
    return sum(both) / len(both)


def neighbours(row: AdapterRow, *, limit: int = 5) -> list[Neighbour]:
    """The adapters of other agents, by the same generator, that route most alike."""
    own = gates_of(row)
    found = []
    for other in registry().adapters(limit=NEIGHBOURS):
        if other.agent in (None, row.agent) or other.generator_fp != row.generator_fp:
            continue
        try:
            found.append(Neighbour(other, shared_routing(own, gates_of(other))))
        except SpecializerError:
            continue  # damaged, or evicted meanwhile: it is no neighbour, and its own row says what is wrong
    nearest: dict[str | None, Neighbour] = {}
    for each in sorted(found, key=lambda each: -each.shared):
        nearest.setdefault(each.row.agent, each)
    return list(nearest.values())[:limit]
