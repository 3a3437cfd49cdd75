"""An open database: brought up to date on opening, then read and written in transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from agent_specializer.store.engines import explained, is_conflict, open_engine
from agent_specializer.store.migrating import HEAD, checked_revision, upgrade_engine

T = TypeVar("T")

_ATTEMPTS = 5


class Database:
    """An open database at the newest revision, for many threads and processes; a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_engine(url)
        try:
            with explained(self._engine.url):
                with self._engine.connect() as connection:
                    revision = checked_revision(connection)
                if revision != HEAD:
                    upgrade_engine(self._engine)
        except BaseException:
            self._engine.dispose()
            raise
        self._writer = self._engine.execution_options(writes=True)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """A session on one snapshot."""
        with explained(self._engine.url), Session(self._engine) as session:
            yield session

    def _writing(self, work: Callable[[Session], T]) -> T:
        """`work` in one transaction: all of it or nothing.

        Done again when another process came in between, which happens where writers run side by side.
        """
        with explained(self._engine.url):
            attempt = 1
            while True:
                try:
                    with Session(self._writer) as session, session.begin():
                        return work(session)
                except (IntegrityError, OperationalError) as error:
                    if attempt == _ATTEMPTS or not is_conflict(error):
                        raise
                    attempt += 1


def upgrade(url: str) -> str:
    """Makes the database at `url` or brings it to the newest revision, whose name is returned.

    Raises:
        StoreError: it is a newer version's or another program's, damaged, read-only, or the disk is full.
    """
    with Database(url):
        return HEAD
