"""Tools of an MCP server that the page starts: only where nobody else can ask it to."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import streamlit as st

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

# The protocol by hand, so that the test depends on no version of a server library.
SERVER = """
import json, sys

TOOL = {"name": "set_light", "description": "Dims <b>a</b> light",
        "inputSchema": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "lamps", "version": "1"}}
    else:
        result = {"tools": [TOOL]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@pytest.fixture
def address() -> Iterator[None]:
    before = st.get_option("server.address")
    yield
    st.config.set_option("server.address", before)


@pytest.fixture
def command(tmp_path: Path) -> str:
    path = tmp_path / "lamps.py"
    path.write_text(SERVER)
    return shlex.join([sys.executable, str(path)])


def read(app: AppTest, listens: str | None, where: str) -> AppTest:
    st.config.set_option("server.address", listens)
    next(button for button in app.button if button.label == "Add tools").click().run()
    app.segmented_control(key="way").set_value("MCP server").run()
    app.text_input(key="url-MCP server").set_value(where)
    next(button for button in app.button if button.label == "Read tools").click().run(timeout=90)
    assert not app.exception
    return app


@pytest.mark.parametrize("listens", ["127.0.0.1", "localhost", "::1"])
def test_a_command_is_started_its_tools_are_seen_and_then_saved(
    app: AppTest, address: None, command: str, listens: str
) -> None:
    pytest.importorskip("mcp")
    from ui.service import registry

    read(app, listens, command)
    assert not app.error
    assert list(app.dataframe[0].value["tool"]) == ["set_light"]
    assert registry().count_tools() == 0
    app.button(key="register").click().run()
    assert not app.exception
    assert registry().tool("set_light").parameters["required"] == ["room"]
    assert registry().tool_versions("set_light")[0].source == command


@pytest.mark.parametrize("listens", [None, "0.0.0.0", "192.168.1.7", "::", "some.host"])
def test_a_page_that_others_can_reach_starts_nothing(
    app: AppTest, address: None, tmp_path: Path, listens: str | None
) -> None:
    trace = tmp_path / "started"
    read(app, listens, f"touch {trace}")
    assert "no http" in app.error[0].value
    assert not trace.exists()
    assert any("starts no programs" in caption.value for caption in app.caption)


def test_a_command_that_fails_is_explained(app: AppTest, address: None) -> None:
    pytest.importorskip("mcp")
    read(app, "127.0.0.1", "no-such-command-anywhere")
    assert "MCP server failed" in app.error[0].value
