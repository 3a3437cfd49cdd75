"""Tools are registered all or nothing, versioned, searchable, and never lost while something needs them."""

from __future__ import annotations

import pytest

from agent_specializer.errors import InUse, NotFound, SchemaNotSupported, SpecError
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec
from agent_specializer.store import Registry, ToolChange


def test_a_tool_comes_back_equal_with_its_keys_in_order(registry: Registry) -> None:
    schema = {
        "type": "object",
        "properties": {"zeta": {"type": "string"}, "alpha": {"enum": ["ü", "日本", 1.5, None]}},
        "required": ["zeta"],
    }
    tool = ToolSpec(
        name="größe", description="Sagt „wie groß“.", parameters=schema, requests=("wie groß?", "日本")
    )
    registry.add_tools([tool])
    kept = registry.tool("größe")
    assert kept == tool
    assert kept.fingerprint == tool.fingerprint
    assert list(kept.parameters["properties"]) == ["zeta", "alpha"]


def test_registering_says_what_is_new_changed_or_the_same(
    registry: Registry, light: ToolSpec, weather: ToolSpec
) -> None:
    assert registry.add_tools([light, weather], source="home.json") == [
        ToolChange("set_light", "new", 1),
        ToolChange("get_weather", "new", 1),
    ]
    brighter = ToolSpec(name="set_light", description="Other.", parameters=light.parameters)
    assert registry.add_tools([weather, brighter]) == [
        ToolChange("get_weather", "same", 1),
        ToolChange("set_light", "changed", 2),
    ]
    assert registry.tool("set_light") == brighter


def test_every_version_is_kept_also_when_a_tool_goes_back(registry: Registry, light: ToolSpec) -> None:
    other = ToolSpec(name="set_light", description="Other.")
    for source, tool in (("one", light), ("two", other), ("three", light)):
        registry.add_tools([tool], source=source)
    versions = registry.tool_versions("set_light")
    assert [(row.version, row.spec, row.source) for row in versions] == [
        (1, light, "one"),
        (2, other, "two"),
        (3, light, "three"),
    ]
    assert all(row.created_at.utcoffset() is not None for row in versions)


def test_the_order_of_json_keys_makes_no_new_version(registry: Registry, light: ToolSpec) -> None:
    registry.add_tools([light])
    turned = dict(reversed(light.parameters.items()))
    again = ToolSpec(name=light.name, description=light.description, parameters=turned)
    assert registry.add_tools([again]) == [ToolChange("set_light", "same", 1)]


def test_one_refused_schema_keeps_all_tools_out_and_is_named(registry: Registry, light: ToolSpec) -> None:
    bad = ToolSpec(
        name="bad", parameters={"type": "object", "properties": {"x": {"not": {"type": "string"}}}}
    )
    with pytest.raises(SchemaNotSupported, match=r"tool 'bad'.*/properties/x") as refused:
        registry.add_tools([light, bad])
    assert refused.value.path.startswith("/properties/x")
    assert registry.count_tools() == 0


def test_a_schema_that_is_registered_is_not_checked_again(
    registry: Registry, light: ToolSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add_tools([light])
    checked: list[dict[str, object]] = []
    monkeypatch.setattr("agent_specializer.intake.schema.check_schema", checked.append)
    registry.add_tools([light])
    assert checked == []
    registry.add_tools([ToolSpec(name="fresh")])
    assert len(checked) == 1


def test_two_different_tools_of_one_name_are_refused(registry: Registry, light: ToolSpec) -> None:
    with pytest.raises(SpecError, match="two different tools are called 'set_light'"):
        registry.add_tools([light, ToolSpec(name="set_light", description="another")])
    assert registry.add_tools([light, light]) == [ToolChange("set_light", "new", 1)]


@pytest.mark.parametrize("letter", ["\ud800", "\0"])
def test_text_that_no_database_keeps_is_refused(registry: Registry, light: ToolSpec, letter: str) -> None:
    with pytest.raises(SpecError, match=r"'odd'.*not text"):
        registry.add_tools([light, ToolSpec(name="odd", description=f"a{letter}b")])
    assert registry.count_tools() == 0


def test_search_ignores_case_in_every_script_and_takes_percent_literally(registry: Registry) -> None:
    registry.add_tools(
        [
            ToolSpec(name="a", description="Öffnet die STRAẞE"),
            ToolSpec(name="b", description="dims to 50 % of light"),
            ToolSpec(name="c_d", description="light"),
        ]
    )

    def names(search: str) -> list[str]:
        return [row.name for row in registry.tools(search)]

    assert names("öffnet strasse") == ["a"]
    assert names("%") == ["b"]
    assert names("_") == ["c_d"]
    assert names("LIGHT") == ["b", "c_d"]
    assert names("light dims") == ["b"]
    assert names("nothing") == []
    assert registry.count_tools("light") == 2


def test_pages_cover_every_tool_once(registry: Registry) -> None:
    registry.add_tools([ToolSpec(name=f"tool_{number:02}") for number in range(25)])
    pages = [registry.tools(limit=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [row.name for page in pages for row in page] == [f"tool_{number:02}" for number in range(25)]
    assert [row.name for row in registry.tools(offset=23)] == ["tool_23", "tool_24"]
    with pytest.raises(ValueError, match="negative"):
        registry.tools(limit=-1)


def test_a_search_on_an_old_description_finds_nothing(registry: Registry, light: ToolSpec) -> None:
    registry.add_tools([light])
    registry.add_tools([ToolSpec(name="set_light", description="Turns a lamp.")])
    assert registry.tools("dims") == []
    assert [row.version for row in registry.tools("turns")] == [2]


def test_a_tool_that_agents_use_stays_and_the_error_names_them(registry: Registry, light: ToolSpec) -> None:
    registry.add_tools([light])
    for name in ("zoe", "anna"):
        registry.save_agent(AgentSpec(name=name, tools=("set_light",)))
    assert registry.agents_using("set_light") == ["anna", "zoe"]
    assert registry.tools()[0].agents == 2
    with pytest.raises(InUse, match="agents 'anna', 'zoe'"):
        registry.remove_tool("set_light")
    assert registry.tool("set_light") == light


def test_a_removed_tool_leaves_only_what_adapters_were_made_from(
    registry: Registry, light: ToolSpec, weather: ToolSpec
) -> None:
    registry.add_tools([light, weather])
    adapter = registry.put_adapter(Toolset(tools=(light,)), "generator", b"gates")
    registry.remove_tool("set_light")
    registry.remove_tool("get_weather")
    assert registry.count_tools() == 0
    with pytest.raises(NotFound):
        registry.tool("set_light")
    with pytest.raises(NotFound):
        registry.tool_versions("get_weather")
    assert [row.spec for row in registry.tool_versions("set_light")] == [light]
    registry.add_tools([ToolSpec(name="set_light", description="reborn")])
    assert [row.version for row in registry.tool_versions("set_light")] == [1, 2]
    registry.evict_adapter(adapter.fingerprint)
    assert registry.tool("set_light").description == "reborn"


def test_an_unknown_tool_is_an_error_that_suggests_the_nearest(registry: Registry, light: ToolSpec) -> None:
    registry.add_tools([light])
    with pytest.raises(NotFound, match="no tool 'set_ligth'") as unknown:
        registry.tool("set_ligth")
    assert "did you mean 'set_light'" in unknown.value.hint
    for call in (registry.remove_tool, registry.agents_using, registry.tool_versions):
        with pytest.raises(NotFound):
            call("nothing")


def test_hundreds_of_tools_at_once(registry: Registry) -> None:
    many = [ToolSpec(name=f"tool_{number}") for number in range(1203)]  # more than one IN (...) holds
    registry.add_tools(many)
    assert {change.status for change in registry.add_tools(many)} == {"same"}
    registry.save_agent(AgentSpec(name="all", tools=tuple(tool.name for tool in many)))
    assert len(registry.toolset("all").tools) == 1203
