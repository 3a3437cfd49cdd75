"""The README's Python example does what it says, on the real model with the shipped checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.embedded
def test_the_python_example_calls_the_right_tool(embedded_home, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENT_SPECIALIZER_HOME", str(embedded_home))
    monkeypatch.setenv("AGENT_SPECIALIZER_DATABASE_URL", f"sqlite:///{tmp_path / 'readme.db'}")
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    (call,) = names["reply"].calls
    assert (call.name, call.arguments) == ("set_light", {"room": "kitchen", "level": 20})
    assert names["reply"].usage.tool_prompt_tokens == 0
