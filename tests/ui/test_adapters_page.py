"""The cache page: empty, fresh, outdated, damaged, and every action."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent_specializer.specs import AgentSpec, ToolSpec

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

TOOL = ToolSpec(name="set_light", description="Dims the light")


@pytest.fixture
def adapter(app: AppTest) -> str:
    """Fingerprint of the adapter of the agent `home`."""
    from ui.service import registry, specializer

    registry().add_tools([TOOL, ToolSpec(name="get_time", description="Says the time")])
    registry().save_agent(AgentSpec(name="home", tools=("set_light", "get_time")))
    return specializer().specialize("home").fingerprint


def opened(app: AppTest, fingerprint: str = "") -> AppTest:
    app.switch_page("pages/adapters.py").run()
    assert not app.exception
    if fingerprint:
        app.button(key=f"open-{fingerprint}").click().run()
        assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception
    return app


def badges(app: AppTest) -> str:
    return " ".join(element.value for element in app.markdown)


def test_an_empty_cache_says_how_to_fill_it(app: AppTest) -> None:
    opened(app)
    assert [s.value for s in app.subheader] == ["Nothing in the cache"]


def test_a_fresh_adapter_is_listed_with_totals(app: AppTest, adapter: str) -> None:
    opened(app)
    assert app.metric[0].value == "1"
    assert "Fresh" in badges(app)
    assert "Outdated" not in badges(app)


def test_what_is_resident_is_told_of_each_adapter(app: AppTest, adapter: str) -> None:
    from ui.service import specializer
    from ui.show import size

    merged = specializer().engine.merged
    opened(app)
    assert any(f"{size(merged.adapter_bytes)} merged in memory" in caption.value for caption in app.caption)
    app.button(key=f"open-{adapter}").click().run()
    assert f"{merged.adapter_bytes:,} bytes in memory" in [text.value for text in app.text]
    merged._evict(keep=0)
    app.run()
    assert "not in memory" in [text.value for text in app.text]


def test_the_hit_rate_over_time_is_drawn(app: AppTest, adapter: str) -> None:
    import json

    from ui.service import specializer

    specializer().ask("home", "hello")
    opened(app)
    [chart] = app.get("plotly_chart")
    assert json.loads(chart.proto.spec)["data"][0]["y"] == [1.0]
    assert next(metric.value for metric in app.metric if metric.label == "Hit rate") == "100%"


def test_a_merged_export_is_one_file_to_download(app: AppTest, adapter: str) -> None:
    opened(app, adapter)
    app.radio(key="adapters-format").set_value("merged").run()
    press(app, "Export")
    assert not app.error
    assert ".zip" in app.download_button[0].label


def test_an_edited_tool_outdates_it_and_regenerating_makes_a_fresh_one(app: AppTest, adapter: str) -> None:
    from ui.service import registry

    registry().add_tools([ToolSpec(name="set_light", description="Now brighter")])
    opened(app, adapter)
    assert "Outdated" in badges(app)
    assert any("changed" in caption.value for caption in app.caption)
    press(app, "Regenerate")
    assert "Fresh" in badges(app)
    assert "Outdated" not in badges(app)
    assert registry().count_adapters() == 2


def test_verify_tells_same_from_damaged(app: AppTest, adapter: str) -> None:
    from agent_specializer.store.tables import AdapterBlob
    from ui.service import registry

    press(opened(app, adapter), "Verify")
    assert "Verified" in app.success[0].value
    with registry()._reading() as session:
        session.query(AdapterBlob).update({"blob": b"no adapter at all"})
        session.commit()
    press(app, "Verify")
    assert "damaged" in " ".join(error.value for error in app.error)


def test_a_refined_one_says_so_and_what_it_came_to(app: AppTest, adapter: str) -> None:
    from ui.service import registry

    store = registry()
    was = store.adapter(adapter)
    report = {
        "written": 96,
        "fitted": 50,
        "held_out": 24,
        "before": {"right": 15, "loss": 1.0},
        "after": {"right": 18, "loss": 0.7},
        "examples": 10,
        "right_before": 6,
        "right_after": 7,
        "date": "2026-11-28T12:00:00+00:00",
    }
    store.refine_adapter(was, store.adapter_blob(was.id), report)
    opened(app)
    assert "Refined" in badges(app)
    app.button(key=f"open-{adapter}").click().run()
    told = "2026-11-28, on 50 written requests; 15 of 24 held out right before, 18 after"
    assert any(
        text.value.startswith(told) and "6 of 10 examples before, 7 after" in text.value for text in app.text
    )
    press(app, "Verify")
    assert "all but its keys, which were refined" in app.success[0].value
    press(app, "Regenerate")
    assert store.adapter(adapter).refinement is None
    assert "Refined" not in badges(app)


def test_pinning_and_evicting(app: AppTest, adapter: str) -> None:
    from ui.service import registry

    press(opened(app, adapter), "Pin")
    assert registry().adapter(adapter).pinned
    press(app, "Unpin")
    assert not registry().adapter(adapter).pinned
    press(app, "Evict this adapter")
    assert registry().count_adapters() == 0
    assert "evicted" in app.success[0].value


def test_a_peft_export_is_offered_as_a_download(app: AppTest, adapter: str) -> None:
    press(opened(app, adapter), "Export")
    assert not app.error
    assert app.download_button[0].label.startswith("Download home")


def test_an_export_that_cannot_be_is_explained(app: AppTest, adapter: str) -> None:
    opened(app, adapter)
    app.radio(key="adapters-format").set_value("gguf").run()
    press(app, "Export")
    assert "GGUF" in app.error[0].value
    assert not app.download_button


def test_two_adapters_are_compared(app: AppTest, adapter: str) -> None:
    from ui.service import registry, specializer

    registry().save_agent(AgentSpec(name="office", tools=("get_time",)))
    other = specializer().specialize("office").fingerprint
    opened(app, adapter)
    app.selectbox(key="adapters-compare").select(other).run()
    assert not app.exception
    assert any("of the routing is shared" in caption.value for caption in app.caption)
