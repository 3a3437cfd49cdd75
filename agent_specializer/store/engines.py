"""Engines: how a database is connected to, and what went wrong in the user's words.

Notable: SQLite runs in WAL mode, so readers never wait for a writer; writers begin with BEGIN IMMEDIATE and
queue up, instead of failing when a reader turns into a writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import QueuePool

from agent_specializer.errors import StoreError

BUSY_SECONDS = 30.0
"""How long a writer waits for the writers before it."""


def open_engine(url: str) -> Engine:
    """An engine for any SQLAlchemy URL, its SQLite connections set up. The folder of a SQLite file is made.

    Raises:
        StoreError: no URL, no driver for it, or the folder cannot be made.
    """
    try:
        parsed = make_url(url)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False}}
            if _in_memory(parsed):  # all threads share the one connection that holds the data, one at a time
                options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
            else:
                options |= {"max_overflow": -1}
                if path := sqlite_file(parsed):
                    path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, **options)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            f"{url!r} is not a database URL", hint="for example sqlite:////home/me/agents.db"
        ) from error
    except ModuleNotFoundError as error:
        raise StoreError(
            f"no driver for {parsed.drivername!r}: module {error.name!r} is missing",
            hint=f"pip install {error.name}",
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot make the folder of {parsed.database}: {error.strerror}",
            hint="choose another home with AGENT_SPECIALIZER_HOME",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    return engine


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turns what a database says into a StoreError that says what to do."""
    try:
        yield
    except (ProgrammingError, IntegrityError):
        raise  # a mistake in this program, not in the user's database
    except (DBAPIError, sqlite3.Error) as error:
        raise _store_error(error, url) from error


def _store_error(error: DBAPIError | sqlite3.Error, url: URL) -> StoreError:
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    code = str(getattr(original, "sqlite_errorname", "") or getattr(original, "sqlstate", "") or "")
    where = f"database {url.database if url.get_backend_name() == 'sqlite' else url.render_as_string()}"
    reasons = {
        ("SQLITE_FULL", "53100"): (
            "the disk is full; nothing of this change was kept",
            "free some space (`agent-specializer cache list` shows the adapters' sizes) and run it again",
        ),
        ("SQLITE_READONLY", "25006"): (
            "is read-only",
            "allow writing, or choose another AGENT_SPECIALIZER_HOME",
        ),
        ("SQLITE_CORRUPT", "SQLITE_NOTADB"): (
            "is damaged or not a SQLite database",
            "move the file away to start anew, or rescue it with `sqlite3 FILE .recover`",
        ),
        ("SQLITE_CANTOPEN",): ("cannot be opened", "check that its folder exists and may be written"),
        ("SQLITE_BUSY", "SQLITE_LOCKED"): (
            f"another process has been writing for over {BUSY_SECONDS:.0f} s",
            "end that process and try again",
        ),
        ("SQLITE_IOERR",): ("the disk could not be read or written", "check the disk and its free space"),
    }
    for codes, (what, hint) in reasons.items():
        if code.startswith(codes):
            return StoreError(f"{where}: {what} ({original})", hint=hint)
    return StoreError(f"{where}: {original}", hint="check that AGENT_SPECIALIZER_DATABASE_URL is right")


def is_conflict(error: DBAPIError) -> bool:
    """Whether another transaction won, so that doing it again may succeed (duplicate, deadlock)."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in {"40001", "40P01"}


def _in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:") or "memory" in (url.query.get("mode"), url.database)


def sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or _in_memory(url) or str(url.database).startswith("file:"):
        return None
    return Path(str(url.database))


def _on_sqlite_connect(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin in _on_sqlite_begin, not when the driver sees fit
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "PRAGMA synchronous = NORMAL"
    )  # with WAL: safe when the process dies, and no sync per commit


def _on_sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
