"""A big store answers while a person watches: every page of 10,000 tools and 1,000 adapters in under 2 s."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import PAGES as titles
from browser import go, opened, served, settled

from agent_specializer.specs import AgentSpec, Toolset, ToolSpec

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECONDS = 2.0
PAGES = tuple(titles)


@pytest.fixture(scope="module")
def big_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torch import full, zeros

    from agent_specializer.loragen.adapter import Adapter
    from agent_specializer.store import Registry

    home = tmp_path_factory.mktemp("big")
    tools = [
        ToolSpec(name=f"tool_{n}", description=f"Handles the order number {n}. " * 5) for n in range(10_000)
    ]
    blob = Adapter(full((18, 8), 1 / 8), (), zeros(0, 0), "t", "g").to_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "agent_specializer.store.tools._check", lambda spec: None
        )  # its speed is another's promise
        with Registry(f"sqlite:///{home}/agent_specializer.db") as registry:
            registry.add_tools(tools)
            for n in range(300):
                names = tuple(tool.name for tool in tools[n * 20 : n * 20 + 20])
                registry.save_agent(AgentSpec(name=f"agent_{n}", tools=names))
            for n in range(1000):
                toolset = Toolset(tools=tuple(tools[n * 5 : n * 5 + 10]))
                registry.put_adapter(toolset, "g" * 64, blob, agent=f"agent_{n % 300}")
    return home


VIEWS: dict[str, tuple[str, dict[str, object]]] = {
    **{page: (page, {}) for page in PAGES},
    "tools found": ("tools", {"tools-search": "order 77"}),
    "tools of an agent": ("tools", {"tools-agent": "agent_7"}),
    "adding tools": (
        "tools",
        {"tools-view": "add", "paste": '{"name": "tool_5", "description": "Another text"}'},
    ),
    "a tool": ("tools", {"tools-view": "tool", "tools-open": "tool_77"}),
    "a new agent": ("agents", {"agents-view": "new", "agent-tools": [f"tool_{n}" for n in range(60)]}),
    "an agent": ("agents", {"agents-view": "edit", "agents-open": "agent_7"}),
    "examples": ("playground", {"view": "Example requests"}),
    "adapters found": ("adapters", {"adapters-search": "agent_7"}),
}


@pytest.fixture
def big(big_home: Path, page_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENT_SPECIALIZER_HOME", str(big_home))
    return big_home


@pytest.mark.parametrize("view", [*VIEWS, "an adapter"])
def test_a_view_answers_in_two_seconds(view: str, big: Path, another: Callable) -> None:
    from ui.service import registry

    app = another()
    if view == "an adapter":
        page, state = "adapters", {"adapters-open": registry().adapters(limit=1)[0].fingerprint}
    else:
        page, state = VIEWS[view]
    for key, value in state.items():
        app.session_state[key] = value
    app.switch_page(f"pages/{page}.py")
    best = float("inf")
    for _ in range(6):  # the best of some: a busy machine slows a few of them, not all
        before = time.perf_counter()
        app.run()
        best = min(best, time.perf_counter() - before)
        assert not app.exception
        if best < SECONDS:
            return
    pytest.fail(f"{view}: {best:.1f} s at best")


@pytest.mark.browser
@pytest.mark.timeout(1200)
def test_every_page_is_drawn_in_the_browser_in_two_seconds(
    browser: Browser, big_home: Path, tiny_bundle: Path
) -> None:
    """From the click on its name until all of it is drawn; what the machine does beside costs tries, not truth."""
    with served(big_home, str(tiny_bundle)) as address:
        page = opened(browser, address)
        best = {name: float("inf") for name in titles}
        for _ in range(6):
            for name, title in titles.items():
                if best[name] < SECONDS:
                    continue
                away = "Tools" if title != "Tools" else "Benchmarks"
                go(page, away)
                began = time.perf_counter()
                page.get_by_role("link", name=title, exact=True).first.click()
                page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
                page.wait_for_function(DRAWN)
                best[name] = min(best[name], time.perf_counter() - began)
                settled(page)
        page.close()
    slow = {name: round(seconds, 2) for name, seconds in best.items() if seconds >= SECONDS}
    assert not slow, slow


DRAWN = """() => document.querySelector("[data-testid=stApp]").dataset.testScriptState === "notRunning"
    && !document.querySelector("[data-testid=stSkeleton]")"""
