"""Gates compared: what is shared, what is balanced, and who is near."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import tensor, zeros

from agent_specializer.adapters import expert_shares, gates_of, neighbours, shared_routing
from agent_specializer.errors import AdapterError
from agent_specializer.loragen.adapter import Adapter
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.store import AdapterRow, Registry

LEFT, MIXED, RIGHT = ((1.0, 0.0),) * 2, ((0.5, 0.5),) * 2, ((0.0, 1.0),) * 2


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    with Registry(f"sqlite:///{tmp_path}/store.db") as registry:
        yield registry


def put(
    store: Registry, agent: str, gates: tuple[tuple[float, ...], ...] | None, generator: str = "g" * 64
) -> AdapterRow:
    """An adapter of a toolset of its own; `gates` None is a damaged one."""
    count = store.count_adapters()
    toolset = Toolset(tools=(ToolSpec(name=f"tool_{count}"),))
    blob = (
        b"no adapter"
        if gates is None
        else Adapter(tensor(gates), (), zeros(0, 0), toolset.fingerprint, generator).to_bytes()
    )
    return store.put_adapter(toolset, generator, blob, agent=agent)


def test_stored_gates_come_back_and_damaged_ones_are_an_error(store: Registry) -> None:
    assert gates_of(store, put(store, "a", MIXED)) == MIXED
    with pytest.raises(AdapterError):
        gates_of(store, put(store, "b", None))


def test_shared_routing_is_one_for_the_same_none_for_the_opposite_and_symmetric() -> None:
    assert shared_routing(LEFT, LEFT) == 1
    assert shared_routing(LEFT, RIGHT) == 0
    assert shared_routing(LEFT, MIXED) == shared_routing(MIXED, LEFT) == 0.5
    assert shared_routing(LEFT, ((1.0, 0.0),)) == 0, "another model's gates"


def test_shares_are_means_over_layers_and_sum_to_one() -> None:
    assert expert_shares(((1.0, 0.0), (0.5, 0.5))) == (0.75, 0.25)


def test_the_nearest_agents_come_first_each_once_and_none_that_cannot_be_compared(store: Registry) -> None:
    own = put(store, "own", LEFT)
    put(store, "own", LEFT)  # another adapter of the same agent is no other agent
    put(store, "far", RIGHT)
    put(store, "near", RIGHT)
    put(store, "near", MIXED)
    put(store, "foreign", LEFT, generator="h" * 64)
    put(store, "damaged", None)
    assert [(each.row.agent, each.shared) for each in neighbours(store, own)] == [("near", 0.5), ("far", 0.0)]
    assert [each.row.agent for each in neighbours(store, own, limit=1)] == ["near"]
