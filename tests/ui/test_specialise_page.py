"""Specialise: empty, working, ready, outdated and failing, as a person sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

LIGHT = ToolSpec(
    name="set_light",
    description="Dims the light in a room",
    parameters={"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
)
WEATHER = ToolSpec(name="get_weather", description="Says what the weather is in a city")


def with_agents(*names: str) -> None:
    from ui.service import registry

    registry().add_tools([LIGHT, WEATHER])
    for number, name in enumerate(names):
        tools = ("set_light", "get_weather") if number % 2 == 0 else ("set_light",)
        registry().save_agent(AgentSpec(name=name, tools=tools, instructions=f"You are {name}."))


def opened(app: AppTest) -> AppTest:
    return app.switch_page("pages/specialise.py").run()


def test_without_agents_it_says_what_to_do_first(app: AppTest) -> None:
    opened(app)
    assert not app.exception
    assert [s.value for s in app.subheader] == ["No agents yet"]
    assert not app.selectbox


def test_one_button_makes_the_adapter_and_shows_every_step_with_its_time(app: AppTest) -> None:
    with_agents("home")
    opened(app)
    app.button(key="specialise").click().run()
    assert not app.exception
    assert not app.error
    written = " ".join(m.value for m in app.markdown)
    for step in ("task description", "one pass", "router", "Merged", "cache"):
        assert step in written
    assert app.status[0].state == "complete"
    assert app.status[0].label.startswith("Specialised in ")
    assert {m.label for m in app.metric} >= {"Tokens saved per call", "The adapter takes"}
    opened(app)
    assert app.button(key="specialise").label == "Specialise again"


def test_gates_balance_and_savings_are_the_adapters_own(app: AppTest) -> None:
    from agent_specializer.specializer.inspection import current_adapter, saved_per_call
    from ui.service import registry, specializer
    from ui.show import seconds, size

    with_agents("home")
    gates = specializer().specialize("home").adapter.gates
    for mode in ("specialized", "prompted"):
        specializer().ask("home", "hello", mode=mode)
    opened(app)
    heat, bars = (json.loads(chart.proto.spec)["data"][0] for chart in app.get("plotly_chart"))
    assert (heat["type"], len(heat["z"]), len(heat["z"][0])) == ("heatmap", *gates.shape)
    assert heat["z"] == gates.tolist()
    assert bars["type"] == "bar"
    assert bars["y"] == pytest.approx(gates.mean(0).tolist())
    row, _ = current_adapter(specializer(), "home")
    saved = saved_per_call(registry(), "home", row)
    shown = {metric.label: metric.value for metric in app.metric}
    faster = saved.first_token_seconds
    assert shown == {
        "Tokens saved per call": f"{saved.prompt_tokens:,}",
        "First token sooner by": seconds(faster) if faster > 0 else "–",
        "Text not sent per call": size(saved.text_bytes),
        "The adapter takes": size(row.bytes),
    }


def test_it_says_why_an_adapter_is_outdated(app: AppTest) -> None:
    from ui.service import registry, specializer

    with_agents("home")
    specializer().specialize("home")
    registry().add_tools([ToolSpec(name="get_weather", description="Another text")])
    opened(app)
    assert any("get" in c.value and "changed" in c.value for c in app.caption)
    assert app.button(key="specialise").label == "Specialise"


def test_the_nearest_agents_are_named(app: AppTest) -> None:
    from ui.service import specializer

    with_agents("home", "office")
    specializer().specialize("office")
    specializer().specialize("home")
    opened(app)
    app.selectbox(key="specialise-agent").select("home").run()
    assert "office" in [t.value for t in app.text]


def test_a_missing_generator_is_explained(
    app: AppTest, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import streamlit as st

    bare = tiny_bundle.with_name("bare.yaml")
    bare.write_text("cloud: {kind: local, name: ./model}\nedge: {kind: local, name: ./model}\n")
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", str(bare))
    st.cache_resource.clear()
    with_agents("home")
    opened(app)
    app.button(key="specialise").click().run()
    assert not app.exception
    assert app.status[0].state == "error"
    assert "checkpoint" in app.error[0].value
