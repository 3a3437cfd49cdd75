"""Agents are what was saved, and their toolset is made of the tools as they are now."""

from __future__ import annotations

import pytest

from agent_specializer.errors import NotFound, SpecError
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec
from agent_specializer.store import Registry


@pytest.fixture(autouse=True)
def _tools(registry: Registry, light: ToolSpec, weather: ToolSpec) -> None:
    registry.add_tools([light, weather])


def test_an_agent_comes_back_equal_with_its_tools_in_order(registry: Registry) -> None:
    agent = AgentSpec(name="home", instructions="Be „kind“.\n", tools=("set_light", "get_weather"))
    registry.save_agent(agent)
    assert registry.agent("home") == agent
    turned = AgentSpec(name="home", instructions="Short.", tools=("get_weather", "set_light"))
    registry.save_agent(turned)
    assert registry.agent("home") == turned
    registry.save_agent(AgentSpec(name="home"))
    assert registry.agent("home") == AgentSpec(name="home")


def test_the_toolset_follows_its_tools(registry: Registry, light: ToolSpec, weather: ToolSpec) -> None:
    registry.save_agent(AgentSpec(name="home", instructions="i", tools=("set_light", "get_weather")))
    assert registry.toolset("home") == Toolset(tools=(light, weather), instructions="i")
    changed = ToolSpec(name="set_light", description="changed")
    registry.add_tools([changed])
    assert registry.toolset("home") == Toolset(tools=(changed, weather), instructions="i")


def test_an_agent_with_unknown_tools_is_not_saved(registry: Registry) -> None:
    registry.save_agent(AgentSpec(name="home", tools=("set_light",)))
    with pytest.raises(NotFound, match=r"no tools 'set_lihgt', 'x'") as unknown:
        registry.save_agent(AgentSpec(name="home", tools=("get_weather", "set_lihgt", "x")))
    assert "'set_light'" in unknown.value.hint
    assert registry.agent("home").tools == ("set_light",)


def test_saving_what_is_saved_changes_no_time(registry: Registry) -> None:
    agent = AgentSpec(name="home", tools=("set_light",))
    registry.save_agent(agent)
    (before,) = registry.agents()
    registry.save_agent(agent)
    assert registry.agents() == [before]
    registry.save_agent(AgentSpec(name="home", instructions="new", tools=("set_light",)))
    (after,) = registry.agents()
    assert after.updated_at > before.updated_at
    assert after.created_at == before.created_at


def test_agents_are_listed_searched_and_paged(registry: Registry) -> None:
    for name, instructions in (("b", "Für zu Hause"), ("a", "office"), ("c", "HAUSE")):
        registry.save_agent(AgentSpec(name=name, instructions=instructions, tools=("set_light",)))
    assert [row.name for row in registry.agents()] == ["a", "b", "c"]
    assert [row.name for row in registry.agents("hause")] == ["b", "c"]
    assert [row.name for row in registry.agents(limit=1, offset=1)] == ["b"]
    assert registry.count_agents("FÜR") == 1
    assert registry.agents("a")[0].tools == ("set_light",)


def test_removing_an_agent_keeps_its_tools_and_adapters(registry: Registry) -> None:
    registry.save_agent(AgentSpec(name="home", tools=("set_light",)))
    toolset = registry.toolset("home")
    registry.put_adapter(toolset, "generator", b"gates", agent="home")
    registry.remove_agent("home")
    assert registry.count_agents() == 0
    assert registry.count_tools() == 2
    assert registry.get_adapter(toolset.fingerprint, "generator") is not None
    registry.remove_tool("set_light")  # in nobody's way any more


def test_unknown_agents_are_errors(registry: Registry) -> None:
    registry.save_agent(AgentSpec(name="kitchen"))
    for call in (registry.agent, registry.toolset, registry.remove_agent):
        with pytest.raises(NotFound, match="no agent 'kitchn'") as unknown:
            call("kitchn")
        assert "did you mean 'kitchen'" in unknown.value.hint


def test_instructions_that_are_not_text_are_refused(registry: Registry) -> None:
    with pytest.raises(SpecError, match="agent 'odd': the instructions"):
        registry.save_agent(AgentSpec(name="odd", instructions="\ud800"))
