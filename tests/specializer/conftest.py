"""A Specializer over the tiny bundle, with two agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_specializer import Specializer, ToolSpec

LIGHT = ToolSpec(
    name="set_light",
    description="Dims the light in a room",
    parameters={"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
)
CLOCK = ToolSpec(name="get_time", description="Says what time it is")


@pytest.fixture
def two_agents(home: Path, tiny_folder: Path) -> Iterator[Specializer]:
    """The agents `home` (set_light, get_time) and `clock` (get_time)."""
    with Specializer(bundle=str(tiny_folder / "bundle.yaml")) as service:
        service.register_tools([LIGHT, CLOCK])
        service.create_agent("home", ["set_light", "get_time"], "You run a home.")
        service.create_agent("clock", ["get_time"])
        yield service
