"""Tools of a real MCP server, started as a process."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from agent_specializer.errors import IntakeError
from agent_specializer.intake import read_tools
from agent_specializer.intake.mcp import read_mcp

SERVER = '''
from mcp.server.fastmcp import FastMCP

server = FastMCP("lamps")

@server.tool()
def set_light(room: str, level: int = 50) -> str:
    """Dims a light."""
    return room

server.run()
'''


def command(tmp_path: Path, text: str) -> str:
    path = tmp_path / "server.py"
    path.write_text(text)
    return shlex.join([sys.executable, str(path)])


def test_the_tools_of_a_server_process(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    [tool] = read_tools(f"mcp:{command(tmp_path, SERVER)}")
    assert (tool.name, tool.description) == ("set_light", "Dims a light.")
    assert tool.parameters["required"] == ["room"]


async def test_it_works_inside_a_running_event_loop(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    assert [tool.name for tool in read_mcp(command(tmp_path, SERVER)).tools] == ["set_light"]


def test_a_command_that_does_not_exist_or_speak_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    with pytest.raises(IntakeError, match="the MCP server failed"):
        read_mcp("no-such-command-anywhere")
    with pytest.raises(IntakeError):
        read_mcp(command(tmp_path, "raise SystemExit(1)"), timeout=20)
    with pytest.raises(IntakeError, match="within"):
        read_mcp(command(tmp_path, "import time; time.sleep(60)"), timeout=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(IntakeError, match="need the package `mcp`") as caught:
        read_tools("mcp:anything")
    assert "pip install" in caught.value.hint
