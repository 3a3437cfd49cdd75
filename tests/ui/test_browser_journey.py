"""A newcomer's way through the page in a real browser: on a tiny model, on the real one, and without a mouse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import (
    PAGES,
    TOOLS,
    ask,
    content,
    go,
    make_agent,
    opened,
    press,
    sees,
    served,
    settled,
    shoot,
)

import tool_specs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(2400)]


def journey(page: Page, folder: Path, *, shots: bool) -> None:
    """Paste three tools, make an agent, specialise, ask, see the call; edit a tool, regenerate, export."""

    def picture(name: str) -> None:
        if shots:
            shoot(page, name)

    sees(page, "No tools yet")
    press(page, "Add tools", "Where from")
    page.get_by_label("Tool definitions").fill(TOOLS)
    press(page, "Check", "What will be registered")
    picture("tools-add")
    press(page, "Register 3 tools", "Registered: 3 new.")
    picture("tools")

    make_agent(page, "home", "set_light", "get_weather", "start_timer", instructions="You run a smart home.")
    picture("agents")

    go(page, "Specialise")
    press(page, "Specialise", "Specialised in")
    sees(page, "Ready")
    picture("specialise")

    go(page, "Playground")
    ask(page, "dim the kitchen light to 20", replies=2)
    assert content(page).get_by_text(re.compile(r"\d+ % sure|\d+% sure")).count() == 2
    picture("playground")

    go(page, "Tools")
    press(page, "set_light", "Version 1")
    page.get_by_role("tab", name="Edit").click()
    page.get_by_label("Description").fill("Sets how bright the light in a room is, in percent")
    press(page, "Save as a new version", "Version 2 is saved; 1 adapter outdated.")

    go(page, "Adapter cache")
    sees(page, "Outdated")
    assert content(page).get_by_text("is saved").count() == 0, "a note does not come along to another page"
    picture("adapters")
    press(page, "home", "changed since its version 1")
    press(page, "Regenerate", "has a fresh adapter")
    sees(page, "Fresh")
    page.get_by_role("tab", name="Export").click()
    names = zipfile.ZipFile(exported(page, "PEFT", folder)).namelist()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(names)
    names = zipfile.ZipFile(exported(page, "Merged", folder)).namelist()
    assert {"config.json", "tokenizer.json"} <= set(names)
    assert any(name.endswith(".safetensors") for name in names)


def exported(page: Page, format: str, folder: Path) -> Path:
    """The file that the browser downloads after an export."""
    content(page).get_by_text(re.compile(f"^{format}:")).click()
    settled(page)
    press(page, "Export", re.compile("^Download home"))
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("Download home")).click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def test_a_newcomers_way_from_pasting_to_exporting(browser: Browser, tiny_site: str, tmp_path: Path) -> None:
    page = opened(browser, tiny_site)
    journey(page, tmp_path, shots=False)
    page.close()


@pytest.mark.embedded
def test_the_same_way_on_the_real_model(browser: Browser, tmp_path: Path) -> None:
    """From an empty home, and with reports that `bench` writes; its pictures are the README's, wide and light, narrow and dark."""
    measured(tmp_path)
    with served(tmp_path, "embedded") as address:
        page = opened(browser, address)
        journey(page, tmp_path, shots=True)
        with exported(page, "GGUF", tmp_path).open("rb") as file:
            assert file.read(4) == b"GGUF"
        go(page, "Benchmarks")
        sees(page, "12 tools")
        shoot(page, "benchmarks")
        page.close()
        page = opened(browser, address, width=768, dark=True)
        for path in PAGES:
            page.goto(f"{address}/{'' if path == 'tools' else path}")
            page.get_by_role("heading", level=1, name=PAGES[path], exact=True).wait_for()
            settled(page)
            if path == "playground":
                ask(page, "start a timer of ten minutes", replies=2)
            shoot(page, f"{path}-768-dark")
        page.close()


def measured(home: Path) -> None:
    """Small reports of the real model: a catalogue's requests in three ways, and two numbers of tools."""
    shipped = tool_specs.load(next(path for path in tool_specs.catalogues() if "smart_home" in str(path)))
    toolset = {
        "toolset_id": "home",
        "description": shipped.agent.instructions,
        "tools": [tool.model_dump() for tool in shipped.tools],
    }
    examples = [
        {
            "toolset_id": "home",
            "messages": [{"role": "user", "content": each.request}],
            "calls": [call.model_dump() for call in each.calls],
        }
        for each in shipped.requests
    ]
    for name, rows in (("toolsets", [toolset]), ("examples", examples)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reports = home / "reports"
    reports.mkdir()
    accuracy = f"accuracy --toolsets {home}/toolsets.jsonl --examples {home}/examples.jsonl --no-calls"
    for command in (
        f"{accuracy} --modes specialized,prompted,base --limit 3 --out {reports}/accuracy.json",
        f"latency --tools 6 --repetitions 1 --requests 1 --out {reports}/latency-6.json",
        f"latency --tools 12 --repetitions 1 --requests 1 --out {reports}/latency-12.json",
    ):
        subprocess.run(
            [sys.executable, "-m", "agent_specializer", "bench", *command.split()],
            env=os.environ | {"AGENT_SPECIALIZER_HOME": str(home), "AGENT_SPECIALIZER_BUNDLE": "embedded"},
            check=True,
            capture_output=True,
        )


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
