"""A newcomer's way through the page, in a real browser, and what only a browser shows."""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser import chromium, served, settled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
PAGES = ("tools", "agents", "specialise", "playground", "adapters", "benchmarks")
TOOLS = """[
 {"name": "set_light", "description": "Dims or brightens the light in a room",
  "parameters": {"type": "object", "properties": {"room": {"type": "string"}, "level": {"type": "integer",
  "minimum": 0, "maximum": 100}}, "required": ["room", "level"]}},
 {"name": "get_weather", "description": "Says what the weather is like in a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
 {"name": "start_timer", "description": "Starts a kitchen timer",
  "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}}
]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        reason = "NO BROWSER TESTS: there is no Chromium on this machine (apt-get install chromium)"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield instance
        instance.close()


@pytest.fixture
def tiny_site(tmp_path: Path, tiny_bundle: Path) -> Iterator[str]:
    with served(tmp_path, str(tiny_bundle)) as address:
        yield address


def opened(browser: Browser, address: str, path: str = "", *, width: int = 1280, dark: bool = False) -> Page:
    page = browser.new_page(
        viewport={"width": width, "height": 860},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page.set_default_timeout(90_000)  # a busy machine is slow, not wrong
    page.goto(f"{address}/{path}")
    settled(page)
    return page


def press(page: Page, name: str, *, exact: bool = True) -> None:
    page.get_by_role("button", name=name, exact=exact).first.click()
    settled(page)


def sees(page: Page, text: str) -> None:
    """Wait for a text to be on the page: a click's answer comes a moment after the click."""
    page.get_by_text(text).first.wait_for(state="visible")


def go(page: Page, address: str, title: str) -> None:
    """Walk to a page by the navigation, which keeps the session; where it is folded up, unfold it."""
    page.get_by_role("link", name=title, exact=True).first.click()
    settled(page)


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=SHOTS / f"{name}.png")


def pick(page: Page, label: str, *options: str) -> None:
    page.get_by_label(label).first.click()
    for option in options:
        page.get_by_role("option", name=option, exact=True).click()
    page.keyboard.press("Escape")
    settled(page)


def journey(browser: Browser, address: str, tmp_path: Path, *, shots: bool) -> None:
    """Paste three tools, make an agent, specialise, ask, see the call; edit a tool, regenerate, export."""
    page = opened(browser, address)
    sees(page, "No tools yet")
    press(page, "Add tools", exact=False)
    page.get_by_label("Tool definitions").fill(TOOLS)
    press(page, "Check")
    if shots:
        shoot(page, "tools-add")
    press(page, "Register 3 tools")
    sees(page, "Registered: 3 new.")
    if shots:
        shoot(page, "tools")

    go(page, address, "Agents")
    press(page, "Make an agent", exact=False)
    page.get_by_label("Name", exact=True).fill("home")
    page.get_by_label("Instructions").fill("You run a smart home.")
    pick(page, re.compile("^Tools"), "set_light", "get_weather", "start_timer")  # type: ignore[arg-type]
    press(page, "Save agent")
    sees(page, "The agent home is saved.")
    if shots:
        shoot(page, "agents")

    go(page, address, "Specialise")
    page.get_by_test_id("stMainBlockContainer").get_by_role("button", name=re.compile("Specialise$")).click()
    settled(page, seconds=300)
    sees(page, "Specialised in")
    sees(page, "Ready")
    if shots:
        shoot(page, "specialise")

    go(page, address, "Playground")
    box = page.get_by_test_id("stChatInputTextArea")
    box.fill("dim the kitchen light to 20")
    box.press("Enter")
    settled(page, seconds=300)
    page.get_by_text("tokens in").nth(1).wait_for(state="visible")
    if shots:
        shoot(page, "playground")

    go(page, address, "Tools")
    press(page, "set_light")
    page.get_by_role("tab", name="Edit").click()
    page.get_by_label("Description").fill("Sets how bright the light in a room is, in percent")
    press(page, "Save as a new version")
    sees(page, "Version 2 is saved; 1 adapter outdated.")

    go(page, address, "Adapter cache")
    sees(page, "Outdated")
    if shots:
        shoot(page, "adapters")
    press(page, "home")
    sees(page, "changed since its version 1")
    page.get_by_role("button", name=re.compile("Regenerate")).click()
    settled(page, seconds=300)
    sees(page, "has a fresh adapter")
    page.get_by_role("tab", name="Export").click()
    page.get_by_role("button", name=re.compile("Export$")).click()
    settled(page, seconds=300)
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Download home")).click()
    file = tmp_path / "adapter.zip"
    download.value.save_as(file)
    names = zipfile.ZipFile(file).namelist()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(names)
    page.close()


def test_a_newcomers_way_from_pasting_to_exporting(browser: Browser, tiny_site: str, tmp_path: Path) -> None:
    journey(browser, tiny_site, tmp_path, shots=False)


@pytest.mark.embedded
def test_the_same_way_on_the_real_model(browser: Browser, tmp_path: Path) -> None:
    """From an empty home; its pictures are the README's."""
    with served(tmp_path, "embedded") as address:
        journey(browser, address, tmp_path, shots=True)


def test_two_sessions_at_once_keep_their_answers_apart(browser: Browser, tiny_site: str) -> None:
    """Both specialise and chat, neither waits for the other's person, and nobody sees the other's words."""
    first = opened(browser, tiny_site)
    press(first, "Add tools", exact=False)
    first.get_by_label("Tool definitions").fill(TOOLS)
    press(first, "Check")
    press(first, "Register 3 tools")
    pages = {"lamps": first, "clocks": opened(browser, tiny_site)}
    for agent, tool in (("lamps", "set_light"), ("clocks", "start_timer")):
        page = pages[agent]
        go(page, tiny_site, "Agents")
        press(page, "Make an agent", exact=False)
        page.get_by_label("Name", exact=True).fill(agent)
        pick(page, re.compile("^Tools"), tool)
        press(page, "Save agent")
        go(page, tiny_site, "Specialise")
        assert page.get_by_role("combobox", name="Agent").input_value() in (agent, "")
    for page in pages.values():  # both buttons before either has ended
        page.get_by_test_id("stMainBlockContainer").get_by_role(
            "button", name=re.compile("Specialise$")
        ).click()
    for page in pages.values():
        settled(page, seconds=300)
        sees(page, "Specialised in")
    for agent, page in pages.items():
        go(page, tiny_site, "Playground")
        page.get_by_test_id("stChatInputTextArea").fill(f"a word to the {agent}")
    for page in pages.values():
        page.get_by_test_id("stChatInputTextArea").press("Enter")
    for agent, page in pages.items():
        page.get_by_text("tokens in").nth(1).wait_for(state="visible")
        settled(page)
        other = next(name for name in pages if name != agent)
        said = page.inner_text("[data-testid=stMainBlockContainer]")
        assert f"a word to the {agent}" in said
        assert f"a word to the {other}" not in said
        page.close()


HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> **bold** [a](javascript:alert(1)) "
    "$x^2$ :red[red] # head \u202eright to left\u202c \u0645\u0631\u062d\u0628\u0627 \U0001f600 "
)


def test_hostile_text_is_shown_as_text_on_every_page(
    browser: Browser, tmp_path: Path, tiny_bundle: Path
) -> None:
    from agent_specializer.specs import AgentSpec, ToolSpec
    from agent_specializer.store import Registry

    name = "x_<b>**bold**</b>_:red[y]"
    text = (HOSTILE * 200)[:20_000]
    with Registry(f"sqlite:///{tmp_path}/agent_specializer.db") as registry:
        registry.add_tools([ToolSpec(name=name, description=text)], source="<i>it</i>")
        registry.add_tools([ToolSpec(name=f"{name}2", description=HOSTILE)])  # fits the tiny model's context
        registry.save_agent(AgentSpec(name=name, tools=(f"{name}2",), instructions=HOSTILE))
    with served(tmp_path, str(tiny_bundle)) as address:
        page = opened(browser, address)
        assert name in page.inner_text("[data-testid=stMainBlockContainer]")
        press(page, name)
        assert "<script>window.hacked = 1</script>" in page.inner_text("[data-testid=stMainBlockContainer]")
        assert name in page.inner_text("h1")
        go(page, address, "Agents")
        press(page, name)
        assert name in page.inner_text("h1")
        go(page, address, "Specialise")
        page.get_by_test_id("stMainBlockContainer").get_by_role(
            "button", name=re.compile("Specialise$")
        ).click()
        settled(page, seconds=300)
        go(page, address, "Playground")
        page.get_by_test_id("stChatInputTextArea").fill(HOSTILE)
        page.get_by_test_id("stChatInputTextArea").press("Enter")
        sees(page, "tokens in")
        assert "<script>window.hacked = 1</script>" in page.inner_text("[data-testid=stMainBlockContainer]")
        go(page, address, "Adapter cache")
        assert name in page.inner_text("[data-testid=stMainBlockContainer]")
        assert page.evaluate("window.hacked") is None
        assert (
            page.locator(
                "[data-testid=stMainBlockContainer] script, [data-testid=stMainBlockContainer] img[src=x]"
            ).count()
            == 0
        )
        width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0
        page.close()


def test_every_page_fits_both_widths_and_themes(browser: Browser, tmp_path: Path, tiny_bundle: Path) -> None:
    """No page is wider than its window, and each looks as the README shows it (docs/screenshots)."""
    import tool_specs
    from agent_specializer.store import Registry

    with Registry(f"sqlite:///{tmp_path}/agent_specializer.db") as registry:
        for path in tool_specs.catalogues()[:4]:
            shipped = tool_specs.load(path)
            registry.add_tools(shipped.tools, source=f"catalogue {shipped.title}")
            registry.save_agent(shipped.agent)
    with served(tmp_path, str(tiny_bundle)) as address:
        for width, dark in ((1280, False), (768, True)):
            page = opened(browser, address, width=width, dark=dark)
            for name in PAGES:
                page.goto(f"{address}/{'' if name == PAGES[0] else name}")  # the first page is the root
                settled(page)
                assert page.get_by_text("Page not found").count() == 0
                over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert over <= 0, f"{name} is {over} px wider than {width} px"
                shoot(page, f"{name}-{width}-{'dark' if dark else 'light'}")
            page.close()


def test_tools_are_registered_with_the_keyboard_alone(browser: Browser, tiny_site: str) -> None:
    page = opened(browser, tiny_site)

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = """(e => ["BUTTON", "TEXTAREA"].includes(e.tagName)
                ? e.innerText || e.getAttribute("aria-label") || "" : "")(document.activeElement)"""
            if name in page.evaluate(focused):
                return
        raise AssertionError(f"Tab does not reach {name!r}")

    tab_to("Add tools")
    page.keyboard.press("Enter")
    sees(page, "Where from")
    tab_to("Tool definitions")
    page.keyboard.insert_text(TOOLS)
    page.keyboard.press("Control+Enter")
    sees(page, "Register 3 tools")
    settled(page)
    tab_to("Register 3 tools")
    page.keyboard.press("Enter")
    sees(page, "Registered: 3 new.")
    page.close()
