"""Tools: every way to register shows what will be saved, and says where what is wrong is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

OPENAI = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Dims the light",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}},
    },
}


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def adding(app: AppTest, way: str = "Paste") -> AppTest:
    press(app, "Add tools")
    app.segmented_control(key="way").set_value(way).run()
    assert not app.exception
    return app


def pasted(app: AppTest, text: str) -> AppTest:
    app.text_area(key="paste").set_value(text).run()
    assert not app.exception
    return app


def count() -> int:
    from ui.service import registry

    return registry().count_tools()


def test_an_empty_store_invites_to_add_tools(app: AppTest) -> None:
    assert [s.value for s in app.subheader] == ["No tools yet"]
    assert [b.label for b in app.button] == ["Add tools"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OPENAI),
        json.dumps(
            [{"name": "set_light", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
        ),
        'def set_light(room: str) -> None:\n    """Dims the light."""\n    open("/tmp/never", "w")',
        "name: set_light\ndescription: Dims the light\nparameters: {type: object, properties: {}}",
    ],
)
def test_pasted_tools_are_shown_before_they_are_saved(app: AppTest, text: str) -> None:
    pasted(adding(app), text)
    assert list(app.dataframe[0].value["tool"]) == ["set_light"]
    assert count() == 0
    app.button(key="register").click().run()
    assert count() == 1
    assert "1 new" in app.success[0].value


def test_a_mistake_is_shown_with_its_line_and_nothing_is_offered(app: AppTest) -> None:
    pasted(adding(app), '{"name": "a",\n "description": "b",,}')
    assert "2" in app.error[0].value
    assert not [b for b in app.button if b.key == "register"]


def test_what_the_grammar_cannot_enforce_is_refused_at_its_place(app: AppTest) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    pasted(adding(app), json.dumps({"name": "t", "description": "", "parameters": schema}))
    assert "properties" in app.error[0].value
    assert "not" in app.error[0].value


def test_the_form_builds_a_tool(app: AppTest) -> None:
    adding(app, "Form")
    app.text_input(key="form-name").set_value("get_time").run()
    app.button(key="register").click().run()
    assert not app.exception
    assert count() == 1


def test_form_lines_become_a_schema() -> None:
    from ui.register import form_schema

    rows = [
        {
            "name": "room",
            "type": "string",
            "description": "which",
            "required": True,
            "choices": "hall, attic",
        },
        {"name": "level", "type": "integer", "description": None, "required": False, "choices": None},
        {"name": " ", "type": None, "description": "no name", "required": True, "choices": ""},
    ]
    assert form_schema(rows) == {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "which", "enum": ["hall", "attic"]},
            "level": {"type": "integer"},
        },
        "required": ["room"],
    }


def test_an_uploaded_file_is_read_and_a_broken_one_explained(app: AppTest) -> None:
    adding(app, "Upload")
    app.file_uploader(key="upload").upload(
        "tools.json", json.dumps([OPENAI]).encode(), "application/json"
    ).run()
    assert list(app.dataframe[0].value["tool"]) == ["set_light"]
    app.file_uploader(key="upload").upload("tools.json", b"\xff\xfe\x00", "application/json").run()
    assert "UTF" in app.error[0].value


def test_a_catalogue_brings_its_agent(app: AppTest) -> None:
    from ui.service import registry

    adding(app, "Catalogue")
    app.selectbox(key="catalogue").select_index(0).run()
    app.button(key="register").click().run()
    assert not app.exception
    assert count() > 3
    assert registry().count_agents() == 1


def test_an_address_that_does_not_answer_is_explained(app: AppTest) -> None:
    adding(app, "OpenAPI")
    app.text_input(key="url-OpenAPI").set_value("http://127.0.0.1:9/openapi.json")
    press(app, "Read tools")
    assert app.error
    app.text_input(key="url-OpenAPI").set_value("file:///etc/passwd")
    press(app, "Read tools")
    assert "http" in app.error[0].value


def test_editing_makes_a_version_and_says_what_it_outdates(app: AppTest) -> None:
    from ui.service import registry, specializer

    registry().add_tools([ToolSpec(name="set_light", description="Dims")])
    registry().save_agent(AgentSpec(name="home", tools=("set_light",)))
    specializer().specialize("home")
    app.run()
    app.button(key="open-set_light").click().run()
    assert any("outdates 1 adapter" in caption.value for caption in app.caption)
    next(area for area in app.text_area if area.label == "Description").set_value("Brightens")
    press(app, "Save as a new version")
    assert registry().tool("set_light").description == "Brightens"
    next(area for area in app.text_area if "users say" in area.label).set_value("darker\n\nit's too bright")
    press(app, "Save as a new version")
    assert registry().tool("set_light") == ToolSpec(
        name="set_light", description="Brightens", requests=("darker", "it's too bright")
    )
    assert "Version 3" in app.success[0].value


def test_a_used_tool_cannot_be_removed_and_its_users_are_named(app: AppTest) -> None:
    from ui.service import registry

    registry().add_tools([ToolSpec(name="set_light")])
    registry().save_agent(AgentSpec(name="home", tools=("set_light",)))
    app.run()
    app.button(key="open-set_light").click().run()
    assert "used by home" in app.info[0].value
    assert next(b for b in app.button if b.label == "Remove this tool").disabled
    registry().remove_agent("home")
    app.run()
    press(app, "Remove this tool")
    assert count() == 0


def test_search_and_the_filter_by_agent_narrow_the_list(app: AppTest) -> None:
    from ui.service import registry

    registry().add_tools(
        [ToolSpec(name=f"tool_{n}", description="odd" if n % 2 else "even") for n in range(6)]
    )
    registry().save_agent(AgentSpec(name="home", tools=("tool_1", "tool_2")))
    app.run()
    app.text_input(key="tools-search").set_value("odd").run()
    assert sum(str(b.key).startswith("open-") for b in app.button) == 3
    app.selectbox(key="tools-agent").select("home").run()
    assert [b.key for b in app.button if str(b.key).startswith("open-")] == ["open-tool_1"]
    app.text_input(key="tools-search").set_value("nothing has this").run()
    assert "Nothing found" in [s.value for s in app.subheader]


def test_what_was_done_is_said_until_one_goes_on(app: AppTest) -> None:
    """However many reruns come between; another view does not repeat it, nor does another page (the browser's test)."""

    def removed() -> AppTest:
        from ui.service import registry

        registry().add_tools([ToolSpec(name="a"), ToolSpec(name="b")])
        app.run()
        app.button(key="open-a").click().run()
        return press(app, "Remove this tool")

    for _ in range(3):
        assert [note.value for note in (removed() if not app.success else app.run()).success] == [
            "a is removed."
        ]
    app.button(key="open-b").click().run()
    assert not app.success
    press(app, "All tools")
