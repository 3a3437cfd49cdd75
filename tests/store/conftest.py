"""A registry on an empty database, and tools to put in it.

The database is a SQLite file. With STORE_TEST_SERVER set to a PostgreSQL server's URL, for example
`postgresql+psycopg://postgres@localhost/postgres`, all tests but those of SQLite's own ways use new databases
there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from agent_specializer.specs import ToolSpec
from agent_specializer.store import Registry


def make_tool(name: str, description: str = "", **properties: str) -> ToolSpec:
    """A tool whose parameters are `properties`: name to JSON type."""
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return ToolSpec(name=name, description=description, parameters=schema)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/store.db"


@pytest.fixture
def url(sqlite_url: str) -> Iterator[str]:
    server = os.environ.get("STORE_TEST_SERVER")
    if not server:
        yield sqlite_url
        return
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


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
