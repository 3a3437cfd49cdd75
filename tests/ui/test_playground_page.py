"""Playground: side by side, in turns, with results, scored, and never another session's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

LIGHT = ToolSpec(
    name="set_light",
    description="Dims the light",
    parameters={"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
)
CLOCK = ToolSpec(name="get_time", description="Says the time")


@pytest.fixture
def agents(app: AppTest) -> AppTest:
    from ui.service import registry

    registry().add_tools([LIGHT, CLOCK])
    registry().save_agent(AgentSpec(name="home", tools=("set_light", "get_time")))
    registry().save_agent(AgentSpec(name="clock", tools=("get_time",)))
    return app


def opened(app: AppTest, agent: str) -> AppTest:
    app.switch_page("pages/playground.py").run()
    app.selectbox(key="playground-agent").select(agent).run()
    assert not app.exception
    return app


def turns(app: AppTest, agent: str) -> list:
    return app.session_state["chats"][agent]


def forced(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    """A random model answers as it likes: here it has to call `tool`."""
    from agent_specializer.edge.options import ReplyOptions
    from agent_specializer.specializer import Specializer

    stream = Specializer.stream
    options = ReplyOptions(tool_choice=tool, parallel_calls=False)
    monkeypatch.setattr(
        Specializer,
        "stream",
        lambda self, agent, messages, mode="specialized", **_: stream(
            self, agent, messages, mode=mode, options=options
        ),
    )


def test_without_agents_it_says_what_to_do_first(app: AppTest) -> None:
    app.switch_page("pages/playground.py").run()
    assert not app.exception
    assert [s.value for s in app.subheader] == ["No agents yet"]
    assert not app.chat_input


def test_all_ways_answer_side_by_side_with_what_they_cost(agents: AppTest) -> None:
    app = opened(agents, "home")
    app.pills(key="columns").set_value(["specialized", "prompted", "base", "control"]).run()
    app.chat_input[0].set_value("dim the light").run()
    assert not app.exception
    assert not app.error
    outcomes = turns(app, "home")[0].outcomes
    assert list(outcomes) == ["specialized", "prompted", "base", "control"]
    assert (
        outcomes["specialized"].usage.tool_prompt_tokens == 0 < outcomes["prompted"].usage.tool_prompt_tokens
    )
    assert sum("tokens in" in caption.value for caption in app.caption) == 4
    assert "dim the light" in [text.value for text in app.text]


def test_caution_moves_all_columns(agents: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_specializer.edge.engine import EdgeEngine

    seen: list[float] = []
    stream = EdgeEngine.stream

    def spying(self, *arguments, options, **others):
        seen.append(options.caution)
        return stream(self, *arguments, options=options, **others)

    monkeypatch.setattr(EdgeEngine, "stream", spying)
    app = opened(agents, "home")
    app.pills(key="columns").set_value(["specialized", "prompted", "control"]).run()
    app.slider(key="caution").set_value(2.5).run()
    app.chat_input[0].set_value("dim the light").run()
    assert not app.exception
    assert seen == [2.5, 2.5, 2.5]


def test_a_call_waits_for_its_result_and_the_conversation_goes_on(
    agents: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced(monkeypatch, "set_light")
    app = opened(agents, "home")
    app.chat_input[0].set_value("dim the light").run()
    assert any("set\\_light" in element.value for element in app.markdown)
    assert any(element.value for element in app.markdown if "Valid" in element.value)
    app.text_input(key="result-1-0").set_value('{"ok": true}')
    next(button for button in app.button if button.label == "Send results").click().run()
    assert not app.exception
    told = turns(app, "home")[1].said[0]
    assert (told.role, told.name, told.content) == ("tool", "set_light", '{"ok": true}')
    next(button for button in app.button if button.label == "Answer with a mock").click().run()
    assert '"ok": true' in turns(app, "home")[2].said[0].content


def test_a_reply_that_fails_is_an_error_in_its_column_only(
    agents: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent_specializer.errors import DecodeError
    from agent_specializer.specializer import Specializer

    stream = Specializer.stream

    def failing(self, agent, messages, mode="specialized", **others):  # type: ignore[no-untyped-def]
        if mode == "prompted":
            raise DecodeError("the budget of 256 tokens is spent", hint="raise max_tokens")
        return stream(self, agent, messages, mode=mode, **others)

    monkeypatch.setattr(Specializer, "stream", failing)
    app = opened(agents, "home")
    app.chat_input[0].set_value("dim the light").run()
    assert not app.exception
    assert "budget" in app.error[0].value
    assert sum("tokens in" in caption.value for caption in app.caption) == 1


def test_two_sessions_have_conversations_of_their_own(
    agents: AppTest, another: Callable[[], AppTest]
) -> None:
    first, second = opened(agents, "home"), opened(another(), "home")
    first.chat_input[0].set_value("a word of the first").run()
    second.chat_input[0].set_value("a word of the second").run()
    first.run()
    assert [turn.said[0].content for turn in turns(first, "home")] == ["a word of the first"]
    assert [turn.said[0].content for turn in turns(second, "home")] == ["a word of the second"]
    assert "a word of the second" not in [text.value for text in first.text]


def test_example_requests_are_asked_and_scored(agents: AppTest) -> None:
    app = opened(agents, "home")
    app.segmented_control(key="view").set_value("Example requests").run()
    app.text_area(key="examples-text").set_value(
        '{"request": "what time is it?", "calls": [{"name": "get_time"}]}\n{"request": "thanks"}'
    ).run()
    app.slider(key="examples-caution").set_value(-1.5).run()
    next(button for button in app.button if button.label == "Run them all").click().run()
    assert not app.exception
    assert [metric.value.endswith("of 2") for metric in app.metric] == [True, True]
    assert len(app.dataframe[0].value) == 4


def test_a_wrong_line_of_examples_is_named(agents: AppTest) -> None:
    app = opened(agents, "home")
    app.segmented_control(key="view").set_value("Example requests").run()
    app.text_area(key="examples-text").set_value('{"request": "a"}\nnot json').run()
    assert "line:2" in app.error[0].value.replace("\\", "")
