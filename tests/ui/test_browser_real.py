"""A newcomer's way through the page in a real browser on the real model. The slowest test of all: it is started first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import PAGES, ask, go, opened, sees, served, settled, shoot
from journey import exported, journey

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.embedded, pytest.mark.timeout(2400)]

REPORTS = Path(__file__).parent / "reports"
"""Of `bench latency --tools 12` on an idle machine, and of `bench accuracy --no-calls --modes specialized,prompted,base` on the smart
home's catalogue, as they were written: they take minutes."""


def test_the_same_way_on_the_real_model(browser: Browser, tmp_path: Path) -> None:
    """From an empty home, and with reports that `bench` writes; its pictures are the README's, wide and light, narrow and dark."""
    shutil.copytree(REPORTS, tmp_path / "reports")
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
