"""The control column: another agent's adapter answers, and nobody's runs know of it."""

from __future__ import annotations

import pytest

from agent_specializer import Specializer
from agent_specializer.edge.events import Done
from agent_specializer.errors import NotFound
from agent_specializer.specializer.control import stream_with_other_adapter


def test_the_engine_gets_the_others_gates_with_the_agents_own_tools(
    two_agents: Specializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = two_agents.engine
    used = []
    stream = engine.stream

    def spy(messages, toolset, **options):  # type: ignore[no-untyped-def]
        used.append((toolset.names, options["adapter"]))
        return stream(messages, toolset, **options)

    monkeypatch.setattr(engine, "stream", spy)
    *_, last = stream_with_other_adapter(two_agents, "home", "hello", "clock")
    assert isinstance(last, Done)
    [(names, adapter)] = used
    assert names == two_agents.registry.toolset("home").names
    assert adapter.gates.equal(two_agents.specialize("clock").adapter.gates)
    assert two_agents.registry.count_runs() == 0


def test_an_unknown_other_agent_is_an_error(two_agents: Specializer) -> None:
    with pytest.raises(NotFound):
        list(stream_with_other_adapter(two_agents, "home", "hello", "nobody"))
