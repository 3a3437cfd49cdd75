"""A Specializer over one tiny random model, with two agents; and the real embedded one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_specializer import Specializer, ToolSpec

LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["level"],
}
SECRET = "Dims the lamps of the zebra room."
TOOLS = (
    ToolSpec(name="set_light", description=SECRET, parameters=LEVEL),
    ToolSpec(name="get_weather", description="Tells the weather."),
)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path) -> str:
    """The path of a bundle file: one tiny random model as cloud and edge, and a random generator for it."""
    return str(tiny_folder / "bundle.yaml")


@pytest.fixture
def specializer(home: Path, tiny_bundle: str):
    """Two agents: "home" with both tools, "lamp" with one."""
    with Specializer(bundle=tiny_bundle) as made:
        made.register_tools(TOOLS)
        made.create_agent("home", ["set_light", "get_weather"], "You run a house.")
        made.create_agent("lamp", ["set_light"])
        yield made
