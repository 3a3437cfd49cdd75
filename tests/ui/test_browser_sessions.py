"""Two people at once: nobody gets the other's answers or waits for more than the other's generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser import add_tools, button, content, go, make_agent, opened, sees

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]


def test_two_sessions_at_once_keep_their_answers_apart(browser: Browser, tiny_site: str) -> None:
    """Both specialise and chat at the same time, and nobody sees the other's words."""
    first = opened(browser, tiny_site)
    add_tools(first)
    pages = {"lamps": first, "clocks": opened(browser, tiny_site)}
    for agent, tool in (("lamps", "set_light"), ("clocks", "start_timer")):
        make_agent(pages[agent], agent, tool)
        go(pages[agent], "Specialise")
    for page in pages.values():  # both buttons before either has ended
        button(page, "Specialise").click()
    for page in pages.values():
        sees(page, "Specialised in")
    for agent, page in pages.items():
        go(page, "Playground")
        page.get_by_test_id("stChatInputTextArea").fill(f"a word to the {agent}")
    for page in pages.values():
        page.get_by_test_id("stChatInputTextArea").press("Enter")
    for agent, page in pages.items():
        sees(page, "tokens in", times=2)
        other = next(name for name in pages if name != agent)
        said = content(page).inner_text()
        assert f"a word to the {agent}" in said
        assert f"a word to the {other}" not in said
        page.close()
