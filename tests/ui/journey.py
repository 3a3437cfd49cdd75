"""A newcomer's way through the page in a real browser, on whatever model is served."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from browser import TOOLS, ask, content, go, make_agent, press, sees, settled, shoot

if TYPE_CHECKING:
    from playwright.sync_api import Page


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
