"""Agents: made of registered tools, with warnings where a model would mix them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

LIGHT = ToolSpec(name="set_light", description="Dims or brightens the light in one room of the house")
TWIN = ToolSpec(name="change_lamp", description="Dims or brightens the light in one room of a house")
CLOCK = ToolSpec(name="get_time", description="Says what time it is")


def opened(app: AppTest, *tools: ToolSpec) -> AppTest:
    from ui.service import registry

    if tools:
        registry().add_tools(tools)
    app.switch_page("pages/agents.py").run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def test_without_tools_it_leads_to_the_tools(app: AppTest) -> None:
    opened(app)
    assert app.page_link[0].label == "Add tools first"


def test_nothing_is_shown_that_was_written_for_programmers(app: AppTest) -> None:
    opened(app, LIGHT)
    assert not [element.value for element in app.markdown]


def test_an_agent_is_made_and_its_description_shown(app: AppTest) -> None:
    from ui.service import registry

    press(opened(app, LIGHT, CLOCK), "Make an agent")
    assert next(b for b in app.button if b.label == "Save agent").disabled
    app.text_input(key="agent-name").set_value("home").run()
    app.multiselect(key="agent-tools").set_value(["set_light", "get_time"]).run()
    assert "- set_light: Dims" in app.code[0].value
    press(app, "Save agent")
    assert registry().agent("home").tools == ("set_light", "get_time")
    assert not app.warning


def test_a_taken_name_is_refused_for_a_new_agent(app: AppTest) -> None:
    from ui.service import registry

    opened(app, LIGHT, CLOCK)
    registry().save_agent(AgentSpec(name="home", tools=("get_time",)))
    press(app.run(), "Make an agent")
    app.text_input(key="agent-name").set_value("home").run()
    app.multiselect(key="agent-tools").set_value(["set_light"]).run()
    press(app, "Save agent")
    assert "already" in app.error[0].value
    assert registry().agent("home").tools == ("get_time",)


def test_near_duplicates_are_named(app: AppTest) -> None:
    press(opened(app, LIGHT, TWIN, CLOCK), "Make an agent")
    app.multiselect(key="agent-tools").set_value(["set_light", "change_lamp", "get_time"]).run()
    assert "descriptions" in app.warning[0].value
    assert "get" not in app.warning[0].value


def test_tokens_are_counted_with_the_cloud_models_tokenizer(app: AppTest) -> None:
    from agent_specializer.describe import describe_toolset
    from ui.service import registry, specializer

    opened(app, LIGHT)
    registry().save_agent(AgentSpec(name="home", tools=("set_light",)))
    app.run()
    app.button(key="open-home").click().run()
    press(app, "Count exactly")
    tokenizer = specializer().runtime.models.cloud_tokenizer
    tokens = len(tokenizer(describe_toolset(registry().toolset("home"))).input_ids)
    assert any(caption.value.startswith(f"{tokens:,} tokens") for caption in app.caption)


def test_an_agent_is_removed_and_its_tools_stay(app: AppTest) -> None:
    from ui.service import registry

    opened(app, LIGHT)
    registry().save_agent(AgentSpec(name="home", tools=("set_light",)))
    app.run()
    app.button(key="open-home").click().run()
    press(app, "Remove this agent")
    assert (registry().count_agents(), registry().count_tools()) == (0, 1)
