"""A served page and a browser on it, for the tests that need both.

Every step waits for what it leads to, not for a time: after a click the page may rest for a while before its script
even starts, so that it rests says little.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "docs" / "screenshots"
PAGES = {
    "tools": "Tools",
    "agents": "Agents",
    "specialise": "Specialise",
    "playground": "Playground",
    "adapters": "Adapter cache",
    "benchmarks": "Benchmarks",
}
"""Paths and titles."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOOLS = """[
 {"name": "set_light", "description": "Dims or brightens the light in a room",
  "parameters": {"type": "object", "properties": {"room": {"type": "string"}, "level": {"type": "integer",
  "minimum": 0, "maximum": 100}}, "required": ["room", "level"]}},
 {"name": "get_weather", "description": "Says what the weather is like in a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
 {"name": "start_timer", "description": "Starts a kitchen timer",
  "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}}
]"""
PATIENCE = 240_000
"""Milliseconds for one step: a busy machine is slow, not wrong."""


def chromium() -> str | None:
    """The path of any Chromium of this machine."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def served(home: Path, bundle: str) -> Iterator[str]:
    """The app in a process of its own, as `agent-specializer ui` runs it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"AGENT_SPECIALIZER_HOME": str(home), "AGENT_SPECIALIZER_BUNDLE": bundle}
    env.pop("AGENT_SPECIALIZER_DATABASE_URL", None)
    log = (home / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-c", f"from ui.run import main; main({port})"],
        cwd=ROOT,
        env=env,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process, home / "server.log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the server did not come up")


def opened(browser: Browser, address: str, path: str = "", *, width: int = 1280, dark: bool = False) -> Page:
    """A new session on the page at `path`."""
    page = browser.new_page(
        viewport={"width": width, "height": 860},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}/{path}")
    page.locator("h1").first.wait_for()
    settled(page)
    return page


def settled(page: Page, *, seconds: float = PATIENCE / 1000) -> None:
    """Wait until the page runs no script and has drawn; it never shows a traceback.

    To be called after what was waited for is seen: by itself it may come before the script has started.
    """
    app = page.locator("[data-testid=stApp]")
    calm = 0
    end = time.monotonic() + seconds
    while calm < 3:
        if time.monotonic() > end:
            raise AssertionError("the page did not come to rest")
        page.wait_for_timeout(120)
        still = app.get_attribute("data-test-script-state") in ("notRunning", "stopped")
        drawn = page.locator("[data-testid=stSkeleton]").count() == 0
        calm = calm + 1 if still and drawn else 0
    assert page.locator("[data-testid=stException]").count() == 0, page.inner_text("body")[:2000]


def content(page: Page) -> Locator:
    """The page without its frame."""
    return page.get_by_test_id("stMainBlockContainer")


def sees(page: Page, text: str | re.Pattern[str], *, times: int = 1, known: Sequence[str] = ()) -> None:
    """Wait until a text is there `times` times, and the page at rest. An error that shows up meanwhile, other than
    those `known` before, ends the wait with its words.
    """
    shown = content(page).get_by_text(text).filter(visible=True)
    end = time.monotonic() + PATIENCE / 1000
    while shown.count() < times:
        new = [refusal for refusal in errors(page) if refusal not in known]
        assert not new, f"instead of {text!r}: {new[0]}"
        assert time.monotonic() < end, f"{text!r} does not come: {content(page).inner_text()[:1500]}"
        page.wait_for_timeout(50)
    settled(page)


def errors(page: Page) -> list[str]:
    """The errors that are shown, as one word each: how lines break differs while the page is drawn."""
    shown = page.get_by_test_id("stAlertContentError").filter(visible=True)
    return ["".join(text.split()) for text in shown.all_inner_texts()]


def button(page: Page, name: str) -> Locator:
    """A button of the page by its label, whatever icon stands before it."""
    label = re.escape(name).replace("/", r"\/")  # Playwright writes it between slashes
    return content(page).get_by_role("button", name=re.compile(rf"(^|\s){label}$")).first


def press(page: Page, name: str, leads_to: str | re.Pattern[str]) -> None:
    """Click a button and wait for what it leads to."""
    known = errors(page)
    button(page, name).click()
    sees(page, leads_to, known=known)


def go(page: Page, title: str, heading: str | None = None) -> None:
    """Walk to a page by the navigation, which keeps the session."""
    page.get_by_role("link", name=title, exact=True).first.click()
    page.get_by_role("heading", level=1, name=heading or title, exact=True).wait_for()
    settled(page)


def pick(page: Page, label: re.Pattern[str], *options: str) -> None:
    """Choose options of a field that takes several."""
    field = content(page).get_by_label(label).first
    for number, option in enumerate(options, start=1):
        field.click()
        page.get_by_role("option", name=option, exact=True).click()
        sees(page, f"({number} chosen)")
    page.keyboard.press("Escape")


def add_tools(page: Page, count: int = 3) -> None:
    """From the empty list: paste `TOOLS` and register them."""
    press(page, "Add tools", "Where from")
    page.get_by_label("Tool definitions").fill(TOOLS)
    press(page, "Check", "What will be registered")
    press(page, f"Register {count} tools", f"Registered: {count} new.")


def make_agent(page: Page, name: str, *tools: str, instructions: str = "") -> None:
    go(page, "Agents")
    press(page, "Make an agent", "A name and at least one tool are needed.")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Instructions").fill(instructions)
    pick(page, re.compile("^Tools"), *tools)
    press(page, "Save agent", f"The agent {name} is saved.")


def ask(page: Page, request: str, *, replies: int) -> None:
    """Send a request in the playground and wait for that many replies in all."""
    box = page.get_by_test_id("stChatInputTextArea")
    box.fill(request)
    box.press("Enter")
    sees(page, "tokens in", times=replies)


def shoot(page: Page, name: str) -> None:
    """A picture for the README."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=SHOTS / f"{name}.png")
