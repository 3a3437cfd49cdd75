"""A newcomer's way through the page in a real browser: on a tiny model, and without a mouse."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import TOOLS, opened, sees, settled
from journey import exported, journey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(2400)]


def test_a_newcomers_way_from_pasting_to_exporting(browser: Browser, tiny_site: str, tmp_path: Path) -> None:
    page = opened(browser, tiny_site)
    journey(page, tmp_path, shots=False)
    names = zipfile.ZipFile(exported(page, "Merged", tmp_path)).namelist()
    assert {"config.json", "tokenizer.json"} <= set(names)
    assert any(name.endswith(".safetensors") for name in names)
    page.close()


def test_the_whole_way_with_the_keyboard_alone(browser: Browser, tiny_site: str) -> None:
    """Register, make an agent, specialise, ask: by Tab, Enter and typing; what has the focus looks it."""
    page = opened(browser, tiny_site)

    def enter(name: str, leads_to: str) -> None:
        tab_to(page, name)
        page.keyboard.press("Enter")
        sees(page, leads_to)

    enter("Add tools", "Where from")
    tab_to(page, "Tool definitions")
    page.keyboard.insert_text(TOOLS)
    page.keyboard.press("Control+Enter")
    sees(page, "What will be registered")
    enter("Register 3 tools", "Registered: 3 new.")

    enter_link(page, "Agents")
    enter("Make an agent", "A name and at least one tool are needed.")
    tab_to(page, "Name")
    page.keyboard.insert_text("home")
    tab_to(page, "Tools (0 chosen)")
    for number, tool in enumerate(("set_light", "start_timer"), start=1):
        page.keyboard.insert_text(tool)
        page.get_by_role("option", name=tool, exact=True).wait_for()
        page.keyboard.press("Enter")
        sees(page, f"({number} chosen)")
    page.keyboard.press("Escape")
    enter("Save agent", "The agent home is saved.")

    enter_link(page, "Specialise")
    enter("Specialise", "Specialised in")

    enter_link(page, "Playground")
    tab_to(page, "Message")
    page.keyboard.insert_text("start a timer of five minutes")
    page.keyboard.press("Enter")
    sees(page, "tokens in", times=2)
    page.close()


FOCUSED = """() => {
  const e = document.activeElement;
  if (!["A", "BUTTON", "INPUT", "TEXTAREA"].includes(e.tagName)) return [];
  const label = e.id ? document.querySelector(`label[for="${e.id}"]`)?.innerText : "";
  return [e.getAttribute("aria-label"), label, e.innerText, e.placeholder].map(t => (t || "").trim());
}"""


def tab_to(page: Page, name: str) -> Locator:
    """Press Tab until the element called `name` has the focus, which must be seen."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if any(text == name or text.endswith(f"\n{name}") for text in page.evaluate(FOCUSED)):
            break
    else:
        raise AssertionError(f"Tab does not reach {name!r}")
    element = page.locator(":focus")
    with_focus = around(page, element)
    handle = element.element_handle()
    handle.evaluate("e => e.blur()")
    without = around(page, handle)
    handle.evaluate("e => e.focus()")
    assert differs(with_focus, without), f"nobody sees that {name!r} has the focus"
    return element


def enter_link(page: Page, title: str) -> None:
    """Walk to a page by Tab and Enter."""
    tab_to(page, title)
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
    settled(page)


def around(page: Page, element) -> bytes:  # type: ignore[no-untyped-def]
    page.wait_for_timeout(250)  # colours fade in
    box = element.bounding_box()
    clip = {
        "x": max(0, box["x"] - 24),
        "y": max(0, box["y"] - 24),
        "width": box["width"] + 48,
        "height": box["height"] + 48,
    }
    return page.screenshot(clip=clip, caret="hide")


def differs(a: bytes, b: bytes) -> bool:
    """Whether at least a ring's worth of pixels changed clearly."""
    from PIL import Image, ImageChops

    first, second = (Image.open(BytesIO(data)).convert("L") for data in (a, b))
    if first.size != second.size:
        return True
    changed = sum(ImageChops.difference(first, second).histogram()[24:])
    return changed >= 40
