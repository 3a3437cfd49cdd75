"""Adapters in the Registry: a cache keyed by (toolset fingerprint, generator fingerprint)."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from agent_specializer.errors import NotFound, StoreError
from agent_specializer.specs import Toolset
from agent_specializer.store.agents import current_toolset
from agent_specializer.store.database import Database
from agent_specializer.store.queries import not_found, paged, storable
from agent_specializer.store.rows import AdapterRow, AdapterStatus, ToolVersionRow
from agent_specializer.store.tables import Adapter, AdapterBlob, AdapterTool, ToolVersion, utc_now
from agent_specializer.store.tools import forget_unused_versions, version_of, version_rows

logger = logging.getLogger(__name__)


def adapter_fingerprint(toolset_fp: str, generator_fp: str) -> str:
    """The name of the adapter that this generator makes for this toolset: SHA-256 of both, 64 hex digits."""
    return hashlib.sha256((toolset_fp + generator_fp).encode()).hexdigest()


class Adapters(Database):
    """The part of the Registry that keeps adapters."""

    def get_adapter(self, toolset_fp: str, generator_fp: str, *, touch: bool = True) -> AdapterRow | None:
        """The cached adapter with its blob; None where it has not been made.

        Args:
            touch: count this as a use: one more hit, last used now. Where nothing can be written, as on a
                full disk, the adapter is there all the same, and the log says that it was not counted.
        """
        with self._reading() as session:
            row = _row(session, adapter_fingerprint(toolset_fp, generator_fp), blob=True)
        if row is None or not touch:
            return row
        now = utc_now()
        used = update(Adapter).where(Adapter.id == row.id).values(hits=Adapter.hits + 1, last_used_at=now)
        try:
            self._writing(lambda session: session.execute(used))
        except StoreError as error:
            logger.warning("a use of adapter %s was not counted: %s", row.fingerprint[:12], error.message)
            return row
        return replace(row, hits=row.hits + 1, last_used_at=now)

    def put_adapter(
        self,
        toolset: Toolset,
        generator_fp: str,
        blob: bytes,
        *,
        agent: str | None = None,
        description_tokens: int = 0,
        seconds: float = 0.0,
    ) -> AdapterRow:
        """Keeps what a generator made for `toolset`, with links to the exact specs.

        One of the same key is replaced; its hits and pin stay.

        Args:
            agent: the agent it was made for; None for tools that came with a request.
            description_tokens: length of the task description, in the cloud LM's tokens.
            seconds: what generating it took.
        """
        fingerprint = adapter_fingerprint(toolset.fingerprint, generator_fp)
        storable(toolset.instructions, "the toolset's instructions")

        def work(session: Session) -> AdapterRow:
            now = utc_now()
            row = session.scalar(select(Adapter).where(Adapter.fingerprint == fingerprint))
            if row is None:
                row = Adapter(
                    fingerprint=fingerprint,
                    toolset_fp=toolset.fingerprint,
                    generator_fp=generator_fp,
                    instructions=toolset.instructions,
                    hits=0,
                    pinned=False,
                )
                session.add(row)
            row.agent = agent or row.agent
            row.bytes, row.description_tokens, row.seconds = len(blob), description_tokens, seconds
            row.created_at = row.last_used_at = now
            row.refinement = None
            session.flush()
            session.merge(AdapterBlob(adapter_id=row.id, blob=blob))
            session.execute(delete(AdapterTool).where(AdapterTool.adapter_id == row.id))
            session.add_all(
                AdapterTool(adapter_id=row.id, tool_version_id=version_id)
                for version_id in _version_ids(session, toolset)
            )
            return _value(row)

        return self._writing(work)

    def refine_adapter(self, was: AdapterRow, blob: bytes, refinement: dict[str, Any]) -> AdapterRow:
        """Gives the adapter that `was` the refined `blob`, with what refining it came to.

        Raises:
            NotFound: it was evicted meanwhile. StoreError: it was made anew or refined meanwhile.
        """

        def work(session: Session) -> AdapterRow:
            row = _find(session, was.fingerprint)
            if (row.created_at, row.refinement) != (was.created_at, was.refinement):
                raise StoreError(
                    f"adapter {was.fingerprint[:12]} was made anew, or refined, while it was refined here",
                    hint="look at it with `agent-specializer cache show`, and refine it again if need be",
                )
            row.bytes, row.refinement = len(blob), refinement
            session.merge(AdapterBlob(adapter_id=row.id, blob=blob))
            return _value(row)

        return self._writing(work)

    def adapter(self, fingerprint: str) -> AdapterRow:
        """An adapter by its fingerprint or the beginning of it, without its blob.

        Raises:
            NotFound: none begins so, or several do.
        """
        with self._reading() as session:
            return _value(_find(session, fingerprint))

    def adapter_blob(self, adapter_id: int) -> bytes:
        """The bytes of the adapter with this id; NotFound where there is none."""
        with self._reading() as session:
            blob = session.scalar(select(AdapterBlob.blob).where(AdapterBlob.adapter_id == adapter_id))
            if blob is None:
                raise NotFound(f"there is no adapter with id {adapter_id}", hint="it may have been evicted")
            return blob

    def adapters(
        self, search: str = "", limit: int | None = None, offset: int = 0, *, agent: str | None = None
    ) -> list[AdapterRow]:
        """Adapters, the last used first, without blobs.

        Args:
            search: part of the agent's name, or the beginning of a fingerprint.
            agent: only those made for this agent.
        """
        statement = select(Adapter).where(*_filters(search, agent))
        statement = statement.order_by(Adapter.last_used_at.desc(), Adapter.id.desc())
        with self._reading() as session:
            return [_value(row) for row in session.scalars(paged(statement, limit, offset))]

    def count_adapters(self, search: str = "", *, agent: str | None = None) -> int:
        with self._reading() as session:
            return session.scalar(select(func.count(Adapter.id)).where(*_filters(search, agent))) or 0

    def adapter_bytes(self) -> int:
        """The size of all blobs together, in bytes."""
        with self._reading() as session:
            return int(session.scalar(select(func.sum(Adapter.bytes))) or 0)

    def adapter_tools(self, fingerprint: str) -> list[ToolVersionRow]:
        """The exact specs that an adapter was made from, by name; NotFound as in `adapter`."""
        with self._reading() as session:
            links = select(AdapterTool.tool_version_id)
            links = links.where(AdapterTool.adapter_id == _find(session, fingerprint).id)
            return version_rows(session, ToolVersion.id.in_(links))

    def adapter_toolset(self, fingerprint: str) -> Toolset:
        """The toolset that an adapter was made from, whatever its tools are now; NotFound as in `adapter`."""
        row = self.adapter(fingerprint)
        specs = tuple(version.spec for version in self.adapter_tools(row.fingerprint))
        return Toolset(tools=specs, instructions=row.instructions)

    def adapter_status(self, row: AdapterRow, *, generator_fp: str | None = None) -> AdapterStatus:
        """Whether the adapter still fits its agent, and every difference if not.

        An adapter without an agent is its own measure, so it is always fresh.

        Args:
            generator_fp: the generator in use; an adapter of another one is outdated.
        """
        why: list[str] = []
        if row.agent is not None:
            with self._reading() as session:
                try:
                    now = current_toolset(session, row.agent)
                except NotFound:
                    why.append(f"agent {row.agent!r} was removed")
                else:
                    if now.fingerprint != row.toolset_fp:
                        unseen = ["fingerprints are computed in another way now"]
                        why += _differences(session, row, now) or unseen
        if generator_fp is not None and generator_fp != row.generator_fp:
            why.append("another generator made it")
        return AdapterStatus("outdated" if why else "fresh", tuple(why))

    def pin_adapter(self, fingerprint: str, pinned: bool = True) -> None:
        """Keeps an adapter from being pruned, or lets it go again; NotFound as in `adapter`."""

        def work(session: Session) -> None:
            _find(session, fingerprint).pinned = pinned

        self._writing(work)

    def evict_adapter(self, fingerprint: str) -> AdapterRow:
        """Removes one adapter, pinned or not, and answers what it was; NotFound as in `adapter`."""

        def work(session: Session) -> AdapterRow:
            row = _value(_find(session, fingerprint))
            _evict(session, [row.id])
            return row

        return self._writing(work)

    def prune_adapters(
        self, max_bytes: int | None = None, *, unused_for: timedelta | None = None
    ) -> list[AdapterRow]:
        """Removes adapters that are not pinned, the least recently used first, and answers what was removed.

        Args:
            max_bytes: until all adapters together, pinned ones too, take at most so much.
            unused_for: and all that nobody used for so long.
        """

        def work(session: Session) -> list[AdapterRow]:
            total = int(session.scalar(select(func.sum(Adapter.bytes))) or 0)
            oldest = (
                select(Adapter).where(Adapter.pinned.is_(False)).order_by(Adapter.last_used_at, Adapter.id)
            )
            removed: list[AdapterRow] = []
            limit = utc_now() - unused_for if unused_for is not None else None
            for row in session.scalars(oldest):
                too_old = limit is not None and row.last_used_at < limit
                if not too_old and (max_bytes is None or total <= max_bytes):
                    break
                total -= row.bytes
                removed.append(_value(row))
            _evict(session, [row.id for row in removed])
            return removed

        return self._writing(work)


def _value(row: Adapter, blob: bytes | None = None) -> AdapterRow:
    return AdapterRow(
        id=row.id,
        fingerprint=row.fingerprint,
        toolset_fp=row.toolset_fp,
        generator_fp=row.generator_fp,
        agent=row.agent,
        instructions=row.instructions,
        bytes=row.bytes,
        description_tokens=row.description_tokens,
        seconds=row.seconds,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        hits=row.hits,
        pinned=row.pinned,
        refinement=row.refinement,
        blob=blob,
    )


def _row(session: Session, fingerprint: str, *, blob: bool) -> AdapterRow | None:
    statement = select(Adapter, AdapterBlob.blob).join(AdapterBlob).where(Adapter.fingerprint == fingerprint)
    found = session.execute(statement).first()
    return None if found is None else _value(*found)


def _find(session: Session, fingerprint: str) -> Adapter:
    fingerprint = fingerprint.lower()
    begins = Adapter.fingerprint.startswith(fingerprint, autoescape=True)
    rows = session.scalars(select(Adapter).where(begins).limit(2)).all() if fingerprint else []
    if len(rows) > 1:
        raise NotFound(f"several adapters begin with {fingerprint!r}", hint="give more of the fingerprint")
    if not rows:
        raise not_found(
            "adapter", [fingerprint], [], hint="`agent-specializer cache list` shows the adapters"
        )
    return rows[0]


def _filters(search: str, agent: str | None) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if search:
        prints = (Adapter.fingerprint, Adapter.toolset_fp, Adapter.generator_fp)
        begins = [column.startswith(search.lower(), autoescape=True) for column in prints]
        filters.append(or_(Adapter.agent.icontains(search, autoescape=True), *begins))
    if agent is not None:
        filters.append(Adapter.agent == agent)
    return filters


def _version_ids(session: Session, toolset: Toolset) -> list[int]:
    """The rows of the toolset's specs; specs that were never registered get one without a version number."""
    known: dict[tuple[str, str], ToolVersion] = {}
    statement = select(ToolVersion).where(ToolVersion.name.in_(toolset.names)).order_by(ToolVersion.version)
    for version in session.scalars(statement):
        known[version.name, version.fingerprint] = version
    versions = [
        known.get((spec.name, spec.fingerprint)) or version_of(spec, None, "") for spec in toolset.tools
    ]
    session.add_all(versions)
    session.flush()
    return [version.id for version in versions]


def _differences(session: Session, row: AdapterRow, now: Toolset) -> list[str]:
    statement = select(ToolVersion).join(AdapterTool, AdapterTool.tool_version_id == ToolVersion.id)
    then = {
        version.name: version
        for version in session.scalars(statement.where(AdapterTool.adapter_id == row.id))
    }
    differences = ["the instructions changed"] if now.instructions != row.instructions else []
    for name in sorted({*then, *now.names}):
        if name not in then:
            differences.append(f"tool {name!r} was added")
        elif name not in now.names:
            differences.append(f"tool {name!r} was taken away")
        elif then[name].fingerprint != now.tool(name).fingerprint:
            differences.append(f"tool {name!r} changed since its version {then[name].version}")
    return differences


def _evict(session: Session, adapter_ids: list[int]) -> None:
    if adapter_ids:
        for adapter_id in adapter_ids:
            session.execute(delete(Adapter).where(Adapter.id == adapter_id))
        forget_unused_versions(session)
