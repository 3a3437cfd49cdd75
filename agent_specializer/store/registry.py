"""The Registry: the one place where tools, agents, adapters and runs are kept."""

from __future__ import annotations

from agent_specializer.store.adapters import Adapters
from agent_specializer.store.agents import Agents
from agent_specializer.store.claims import Claims
from agent_specializer.store.runs import Runs
from agent_specializer.store.tools import Tools


class Registry(Tools, Agents, Adapters, Claims, Runs):
    """Everything that is kept, on one database, which is made or brought up to date on opening.

    Thread-safe, and safe beside other processes on the same database: writers queue, readers see a whole
    state. A context manager; `close` gives the connections back.

    Args:
        url: a SQLAlchemy URL; `settings.load_settings().db_url` is the one of the home.
        keep_texts: whether runs keep the text of requests and the arguments of calls.

    Raises:
        StoreError: the database is a newer version's or another program's, damaged, locked or read-only.
    """

    def __init__(self, url: str, *, keep_texts: bool = True) -> None:
        super().__init__(url)
        self.keep_texts = keep_texts
