"""A served page and a browser on it, for the tests that need both."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
    end = time.monotonic() + 90
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the server did not come up")


def settled(page: Page, *, seconds: float = 120) -> None:
    """Wait until the page has been drawn and runs no script."""
    app = page.locator("[data-testid=stApp]")
    app.wait_for(timeout=30_000)
    calm = 0
    end = time.monotonic() + seconds
    while calm < 3:
        if time.monotonic() > end:
            raise AssertionError("the page did not come to rest")
        page.wait_for_timeout(120)
        still = app.get_attribute("data-test-script-state") in ("notRunning", "stopped")
        drawn = page.locator("[data-testid=stSkeleton]").count() == 0
        titled = page.locator("h1").count() > 0
        calm = calm + 1 if still and drawn and titled else 0
    assert page.locator("[data-testid=stException]").count() == 0, page.inner_text("body")[:2000]
