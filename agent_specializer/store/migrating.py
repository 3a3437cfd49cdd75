"""Migrations: what revision a database is at, whether it is ours, and bringing it up to date.

A migration is one transaction, also on SQLite: a process that dies in it leaves the old schema. Alembic is
imported only when there is something to do.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from agent_specializer.errors import StoreError
from agent_specializer.store.engines import BUSY_SECONDS, explained, open_engine, sqlite_file
from agent_specializer.store.tables import Base

HEAD = "0004"
"""The newest revision in migrations/: what the tables of this version need."""
_FIRST_TABLES = frozenset({"tools", "tool_versions", "agents", "adapters", "runs"})
_ATTEMPTS = 5
_upgrading = threading.Lock()  # Alembic's context is global to the process


def current_revision(url: str) -> str | None:
    """The revision of the database at `url`; None where there is none yet. Changes nothing.

    Raises:
        StoreError: it cannot be read.
    """
    parsed = make_url(url)
    path = sqlite_file(parsed)
    if path is not None and not path.exists():
        return None
    engine = open_engine(url)
    try:
        with explained(parsed), engine.connect() as connection:
            return _revision(connection, set(inspect(connection).get_table_names()))
    finally:
        engine.dispose()


def migrations_folder() -> Path:
    """migrations/, the neighbour of this package; never a folder of that name somewhere else on sys.path."""
    return Path(str(files("agent_specializer"))).parent / "migrations"


def _revision(connection: Connection, tables: set[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def checked_revision(connection: Connection) -> str | None:
    """The revision, once it is certain that the database is empty or ours, and not too new."""
    tables = set(inspect(connection).get_table_names())
    revision = _revision(connection, tables)
    ours = tables >= _FIRST_TABLES
    name = connection.engine.url.database
    if revision is None:
        # A server's database may hold other programs' tables beside ours; a SQLite file is one program's.
        taken = tables - {"alembic_version"}
        if connection.dialect.name != "sqlite":
            taken &= set(Base.metadata.tables)
        if not taken:
            return None
        foreign = True
    else:
        foreign = not ours
    if foreign:
        raise StoreError(
            f"database {name} belongs to another program: it has the tables {', '.join(sorted(tables)[:8])}",
            hint="name an empty database, or choose another AGENT_SPECIALIZER_HOME",
        )
    if revision != HEAD and revision not in _known_revisions():
        raise StoreError(
            f"database {name} is at revision {revision!r}, newer than this version's {HEAD!r}",
            hint="upgrade the program (pip install -U agent-specializer), or choose another home",
        )
    return revision


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}


def upgrade_engine(engine: Engine) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _upgrade_once(engine)
        except (IntegrityError, ProgrammingError, OperationalError):
            # Where DDL takes no lock, two processes may create the same table; the other one's work stands.
            if engine.dialect.name == "sqlite" or attempt == _ATTEMPTS:
                raise
            time.sleep(0.2 * attempt)


def _upgrade_once(engine: Engine) -> None:
    from alembic import command

    sqlite = engine.dialect.name == "sqlite"
    with _upgrading, engine.execution_options(writes=True).connect() as connection:
        driver: Any = connection.connection.driver_connection
        if sqlite:
            _switch_to_wal(driver)
            driver.execute("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
        try:
            with connection.begin():
                if checked_revision(connection) != HEAD:  # another process may have been first
                    config = _alembic_config()
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
                if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                    raise StoreError(
                        f"database {engine.url.database}: {broken[0]!r} refers to rows that do not exist",
                        hint="the upgrade was undone; move the file away to start anew",
                    )
        finally:
            if sqlite:
                driver.execute("PRAGMA foreign_keys = ON")


def _switch_to_wal(driver: Any) -> None:
    """WAL for good. Here SQLite does not wait when two processes open a new file at once, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not str(error.sqlite_errorname).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
