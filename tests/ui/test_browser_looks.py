"""What only a browser shows: contrast, widths, and that foreign text stays text, on every page and in every view."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import ask, button, content, go, opened, press, sees, served, settled
from test_benchmarks_page import ACCURACY, LATENCY, MODE

import tool_specs
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(2400)]

TWIN = ToolSpec(name="set_lights", description="Sets how bright the lamps of one room are")
ADDED = json.dumps([{"name": "new_tool", "description": "Does it"}, {"name": "broken", "parameters": 3}])


@pytest.fixture(scope="module")
def full_site(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[str]:
    """The page with something of everything: used and outdated tools, agents, adapters, runs, reports."""
    from agent_specializer import Specializer

    home = tmp_path_factory.mktemp("full")
    shipped = [tool_specs.load(path) for path in tool_specs.catalogues()[:3]]
    with Specializer(home=home, bundle=str(tiny_bundle)) as service:
        for each in shipped:
            service.register_tools(each.tools)
            service.registry.save_agent(each.agent)
            service.specialize(each.agent.name)
        tool = shipped[0].tools[0]
        service.register_tools(
            [ToolSpec(name=tool.name, description="Another text", parameters=tool.parameters)]
        )
        service.registry.pin_adapter(service.registry.adapters(limit=1)[0].fingerprint)
        for mode in ("specialized", "prompted"):
            service.ask(shipped[1].agent.name, "hello", mode=mode)
    (home / "reports").mkdir()
    for name, report in (("accuracy", ACCURACY), ("latency", LATENCY)):
        (home / "reports" / f"{name}.json").write_text(json.dumps(report))
    with served(home, str(tiny_bundle)) as address:
        yield address


def views(page: Page, address: str) -> Iterator[str]:
    """Walk through every page and its views; yields the name of each."""
    yield "the list of tools"
    press(page, "Add tools", "Where from")
    page.get_by_label("Tool definitions").fill(ADDED)
    check(page)
    yield "adding tools"
    press(page, "All tools", re.compile(r"\d+ to \d+ of|\d+ tools"))
    first = content(page).get_by_role("button", name=re.compile("^[a-z]+_[a-z_]+$")).first
    first.click()
    sees(page, "Version")
    for tab in ("Overview", "Edit", "History", "Remove"):
        page.get_by_role("tab", name=tab).click()
        settled(page)
        yield f"a tool: {tab}"
    go(page, "Agents")
    yield "the list of agents"
    content(page).get_by_role("button").nth(1).click()
    sees(page, "What the cloud model will read")
    yield "an agent"
    go(page, "Specialise")
    yield "specialise"
    go(page, "Playground")
    ask(page, "please do what you can", replies=2)
    yield "the playground"
    content(page).get_by_text("Example requests").click()
    sees(page, "Run them all")
    press(page, "Run them all", "exact")
    yield "examples"
    go(page, "Adapter cache")
    yield "the list of adapters"
    content(page).get_by_role("button", name=re.compile("^[a-z-]+$")).first.click()
    sees(page, "All adapters")
    for tab in ("Gates", "Export", "Made from"):
        page.get_by_role("tab", name=tab).click()
        settled(page)
        yield f"an adapter: {tab}"
    go(page, "Benchmarks")
    yield "accuracy"
    page.get_by_role("tab", name="Latency").click()
    settled(page)
    yield "latency"


def check(page: Page) -> None:
    """See what would be registered of definitions that are not all right."""
    button(page, "Check").click()
    content(page).get_by_text("What will be registered").wait_for()
    settled(page)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (768, True)], ids=["1280-light", "768-dark"])
def test_every_view_fits_its_window_and_its_text_has_contrast(
    browser: Browser, full_site: str, width: int, dark: bool
) -> None:
    """WCAG 2 AA by axe-core: 4.5:1, or 3:1 for large text; and charts, whose SVG text axe leaves out."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    page = opened(browser, full_site, width=width, dark=dark)
    faint: list[str] = []
    for view in views(page, full_site):
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0, f"{view} is {over} px wider than {width} px"
        found = axe.run(page, options={"runOnly": ["color-contrast"], "resultTypes": ["violations"]})
        for violation in found.response["violations"]:
            faint += [
                f"{view}: {node['any'][0]['message']} {node['html'][:160]}" for node in violation["nodes"]
            ]
        faint += [f"{view}: {text}" for text in page.evaluate(FAINT_CHART_TEXT)]
    page.close()
    assert not faint, "\n".join(faint)


FAINT_CHART_TEXT = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => {
    const [r, g, b] = rgb(text).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor);
  return [...document.querySelectorAll(".js-plotly-plot svg text")].filter(e => e.textContent.trim() && e.checkVisibility())
    .map(e => {
      const tone = light(getComputedStyle(e).fill);
      return [e.textContent, (Math.max(tone, ground) + 0.05) / (Math.min(tone, ground) + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5).map(([text, ratio]) => `chart text ${text} has ${ratio.toFixed(2)}:1`);
}"""


HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> **bold** [a](javascript:alert(1)) "
    "$x^2$ :red[red] # head \u202eright to left\u202c \u0645\u0631\u062d\u0628\u0627 \U0001f600 "
)
LONG = (HOSTILE * 200)[:20_000]
NAME = "x_<b>**bold**</b>_:red[y]"
SCRIPT = "<script>window.hacked = 1</script>"


@pytest.fixture
def hostile_site(tmp_path: Path, tiny_bundle: Path) -> Iterator[str]:
    """Names, descriptions, instructions and reports that would all like to be run."""
    from torch import full, zeros

    from agent_specializer.loragen.adapter import Adapter
    from agent_specializer.store import Registry

    long = ToolSpec(name=NAME, description=LONG)
    with Registry(f"sqlite:///{tmp_path}/agent_specializer.db") as registry:
        registry.add_tools([long], source="<i>it</i>")
        registry.add_tools([ToolSpec(name=f"{NAME}2", description=HOSTILE)])  # fits the tiny model's context
        registry.add_tools([ToolSpec(name=f"{NAME}3", description=HOSTILE + "!")])
        registry.save_agent(AgentSpec(name=NAME, tools=(f"{NAME}2", f"{NAME}3"), instructions=HOSTILE))
        registry.save_agent(AgentSpec(name="long", tools=(NAME,), instructions=LONG))
        toolset = Toolset(tools=(long,), instructions="before")
        blob = Adapter(full((3, 4), 0.25), (), zeros(0, 0), "t", "g").to_bytes()
        registry.put_adapter(toolset, "g" * 64, blob, agent="long")
    (tmp_path / "reports").mkdir()
    report = ACCURACY | {"modes": {HOSTILE: MODE}, "paired": {HOSTILE: {"delta": 0.1, "ci95": [0, 0.2]}}}
    report["settings"] = report["settings"] | {"examples": HOSTILE}
    (tmp_path / "reports" / "<img src=x>.json").write_text(json.dumps(report))
    with served(tmp_path, str(tiny_bundle)) as address:
        yield address


def test_hostile_text_is_shown_as_text_in_every_view(browser: Browser, hostile_site: str) -> None:
    page = opened(browser, hostile_site)

    def shows(*texts: str) -> None:
        sees(page, re.compile(re.escape(texts[0])))
        said = content(page).inner_text()
        for text in texts:
            assert text in said
        assert page.evaluate("window.hacked") is None
        inside = "[data-testid=stMainBlockContainer]"
        assert (
            page.locator(f"{inside} script, {inside} img[src=x], {inside} b b, {inside} .katex").count() == 0
        )
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0

    shows(NAME, SCRIPT)
    press(page, "Add tools", "Where from")
    page.get_by_label("Tool definitions").fill(
        json.dumps([{"name": f"{NAME}4", "description": LONG}, {"name": LONG}])
    )
    check(page)
    shows("What will be registered")
    press(page, "All tools", re.compile(r"\d+ tools"))
    press(page, NAME, "Version 1")
    shows(SCRIPT, "<i>it</i>")
    for tab in ("Edit", "History", "Remove"):
        page.get_by_role("tab", name=tab).click()
        settled(page)
        shows("Version 1")
    go(page, "Agents")
    shows(NAME, SCRIPT)
    press(page, NAME, "hard to tell apart")
    shows(SCRIPT, f"{NAME}2 and {NAME}3")
    press(page, "All agents", NAME)
    press(page, "long", "What the cloud model will read")
    shows(SCRIPT)
    go(page, "Specialise")
    shows("Outdated")
    choose(page, "long", NAME)
    press(page, "Specialise", "Specialised in")
    shows("Specialised in")
    go(page, "Playground")
    ask(page, HOSTILE, replies=2)
    shows(SCRIPT)
    go(page, "Adapter cache")
    shows(NAME)
    press(page, "long", "All adapters")
    page.get_by_role("tab", name="Made from").click()
    shows("All adapters")
    go(page, "Benchmarks")
    shows(SCRIPT)
    page.close()


def choose(page: Page, old: str, new: str) -> None:
    """Another agent in the field that says which."""
    content(page).get_by_role("combobox").first.click()
    page.get_by_role("option", name=new, exact=True).click()
    settled(page)
