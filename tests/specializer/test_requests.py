"""Requests that users are known to make of a tool: part of the spec, of the adapter, and of what is verified."""

from __future__ import annotations

import pytest

from agent_specializer import Specializer, ToolSpec
from agent_specializer.adapters import STEPS
from agent_specializer.errors import NotFound, SpecError


def test_they_make_another_adapter_which_is_kept_and_verified(two_agents: Specializer) -> None:
    plain = two_agents.specialize("home")
    assert plain.adapter.lift is None
    assert "requests" not in {step.name for step in plain.steps}
    light = two_agents.registry.tool("set_light")
    two_agents.register_tools([light.changed(requests=("it is too dark", "lights, please"))])
    made = two_agents.specialize("home")
    assert made.cache == "miss"
    assert made.fingerprint != plain.fingerprint
    assert tuple(step.name for step in made.steps) == STEPS
    assert made.adapter.keys.shape[1] > plain.adapter.keys.shape[1]
    found = two_agents.specialize("home")
    assert found.cache == "hit"
    assert found.adapter.lift is not None
    assert made.adapter.lift is not None
    assert found.adapter.lift.tolist() == made.adapter.lift.tolist()
    assert {each.state for each in two_agents.verify()} == {"same"}
    reply = two_agents.ask("home", "it is too dark")
    assert reply.choices
    # The agent without the tool is as it was.
    assert two_agents.specialize("clock").adapter.lift is None


def test_they_stay_where_the_tool_is_registered_again_by_who_knows_nothing_of_them(
    two_agents: Specializer,
) -> None:
    assert two_agents.add_requests("set_light", ["darker", "too bright"]).version == 2
    assert two_agents.add_requests("set_light", ["darker", "brighter"]).version == 3
    plain = ToolSpec(name="set_light", description="Dims it")
    two_agents.register_tools([{"name": "set_light", "description": "Dims it"}, plain])
    assert two_agents.registry.tool("set_light") == ToolSpec(
        name="set_light", description="Dims it", requests=("darker", "too bright", "brighter")
    )
    assert two_agents.register_tools([plain])[0].status == "same"
    two_agents.register_tools([{"name": "set_light", "description": "Dims it", "requests": []}])
    assert two_agents.registry.tool("set_light").requests == ()
    assert two_agents.add_requests("set_light", ["dim"], replace=True).version == 6
    assert two_agents.add_requests("set_light", ["dim"]).status == "same"


def test_too_many_too_long_or_for_no_tool_is_refused_and_changes_nothing(two_agents: Specializer) -> None:
    for wrong in ([str(number) for number in range(65)], ["a" * 2001], [""]):
        with pytest.raises(SpecError, match="'set_light'") as caught:
            two_agents.add_requests("set_light", wrong)
        assert "at most 64" in str(caught.value.hint)
    assert len(two_agents.registry.tool_versions("set_light")) == 1
    with pytest.raises(NotFound, match="get_light"):
        two_agents.add_requests("get_light", ["dim"])
