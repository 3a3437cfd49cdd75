"""A registry on an empty SQLite file, and tools to put in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_specializer.specs import ToolSpec
from agent_specializer.store import Registry


def make_tool(name: str, description: str = "", **properties: str) -> ToolSpec:
    """A tool whose parameters are `properties`: name to JSON type."""
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return ToolSpec(name=name, description=description, parameters=schema)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/store.db"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with Registry(url) as opened:
        yield opened


@pytest.fixture
def light() -> ToolSpec:
    return make_tool("set_light", "Dims a lamp.", room="string", level="integer")


@pytest.fixture
def weather() -> ToolSpec:
    return make_tool("get_weather", "Says the weather in a city.", city="string")
