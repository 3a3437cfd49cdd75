"""What a person sees while the models are loaded, while they work, and while they work for somebody else.

A script that stops in the middle of its work leaves the page as it is at that moment: so a busy page is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest
import streamlit as st

from agent_specializer.edge.events import CallDelta, ChoiceMade
from agent_specializer.specializer import Specializer, Step
from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

PAGES = ("tools", "agents", "specialise", "playground", "adapters", "benchmarks")


@pytest.fixture
def agents(app: AppTest) -> AppTest:
    from ui.service import registry

    registry().add_tools([ToolSpec(name="set_light", description="Dims"), ToolSpec(name="get_time")])
    registry().save_agent(AgentSpec(name="home", tools=("set_light", "get_time")))
    registry().save_agent(AgentSpec(name="clock", tools=("get_time",)))
    return app


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def specialise(app: AppTest) -> AppTest:
    return press(app.switch_page("pages/specialise.py").run(), "Specialise")


def ask(app: AppTest) -> AppTest:
    app.switch_page("pages/playground.py").run()
    app.chat_input[0].set_value("dim the light").run()
    return app


def run_examples(app: AppTest) -> AppTest:
    app.switch_page("pages/playground.py").run()
    app.segmented_control(key="view").set_value("Example requests").run()
    lines = '{"request": "dim it", "calls": [{"name": "set_light"}]}\n{"request": "thanks"}'
    app.text_area(key="examples-text").set_value(lines).run()
    return press(app, "Run them all")


def count_tokens(app: AppTest) -> AppTest:
    app.switch_page("pages/agents.py").run()
    app.button(key="open-home").click().run()
    return press(app, "Count exactly")


@pytest.mark.parametrize("work", [specialise, ask, run_examples, count_tokens])
def test_while_the_models_are_loaded_every_page_that_needs_them_shows_how_far_it_is(
    agents: AppTest, work: Callable[[AppTest], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ui import service

    service.loading().tell("converting the weights", 0.4)
    monkeypatch.setattr(service.Loading, "start", lambda self, specializer: Future())
    monkeypatch.setattr("ui.service.time.sleep", lambda seconds: st.stop())
    work(agents)
    assert [(bar.value, bar.proto.text) for bar in agents.get("progress")] == [
        (40, "Converting the weights …")
    ]


def test_each_step_is_there_as_soon_as_it_is_done(agents: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_way(self, agent, *, force=False, on_step):  # type: ignore[no-untyped-def]
        on_step(Step("describe", 0.01))
        on_step(Step("forward", 1.5))
        st.stop()

    monkeypatch.setattr(Specializer, "specialize", half_way)
    specialise(agents)
    written = [element.value for element in agents.markdown]
    assert any("task description" in text and "10 ms" in text for text in written)
    assert any("in one pass" in text and "1.5 s" in text for text in written)
    assert not any("router" in text for text in written)


def test_a_call_grows_on_the_page_while_it_is_decoded(
    agents: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(self, agent, messages, mode="specialized", **_):  # type: ignore[no-untyped-def]
        yield ChoiceMade(0, "set_light", 0.9, ())
        yield CallDelta(0, "set_light", '{"on"')
        yield CallDelta(0, "set_light", ": tr")
        st.stop()

    monkeypatch.setattr(Specializer, "stream", half_way)
    ask(agents)
    assert [code.value for code in agents.code] == ['set_light {"on": tr']
    assert "dim the light" in [text.value for text in agents.text]


def test_a_run_of_examples_says_how_many_are_done(agents: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = Specializer.ask

    def stops_at_the_third(self, *args, **options):  # type: ignore[no-untyped-def]
        asked.append(args)
        if len(asked) == 3:
            st.stop()
        return real(self, *args, **options)

    monkeypatch.setattr(Specializer, "ask", stops_at_the_third)
    run_examples(agents)
    assert [(bar.value, bar.proto.text) for bar in agents.get("progress")] == [(50, "2 of 4")]


def test_while_the_model_works_for_somebody_else_every_page_opens_and_the_next_one_waits_its_turn(
    agents: AppTest, another: Callable[[], AppTest]
) -> None:
    """Nobody waits for more than the generations before their own: here one that ends when it is told to."""
    from ui.service import registry, specializer

    specializer().specialize("home")
    held, release = threading.Event(), threading.Event()

    def generation() -> None:
        with specializer().engine.exclusive():
            held.set()
            release.wait(60)

    person = threading.Thread(target=generation)
    person.start()
    try:
        assert held.wait(10)
        visitor = another()
        for page in PAGES:  # were one to wait for the model, this would run into AppTest's time limit
            visitor.switch_page(f"pages/{page}.py").run(timeout=20)
            assert not visitor.exception
        assert not release.is_set()
        asking = ask_in_thread(agents)
        asking.join(1.0)
        assert asking.is_alive(), "the model is taken"
        assert registry().count_runs(agent="home") == 0
    finally:
        release.set()
        person.join(10)
    asking.join(60)
    assert not asking.is_alive()
    assert registry().count_runs(agent="home") == 2


def ask_in_thread(app: AppTest) -> threading.Thread:
    app.switch_page("pages/playground.py").run()
    app.selectbox(key="playground-agent").select("home").run()
    thread = threading.Thread(target=lambda: app.chat_input[0].set_value("dim the light").run(timeout=60))
    thread.start()
    return thread
