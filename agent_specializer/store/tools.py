"""Tools in the Registry: registered by name, versioned, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session, aliased

from agent_specializer.errors import InUse, SchemaNotSupported, SpecError
from agent_specializer.specs import ToolSpec
from agent_specializer.store.database import Database
from agent_specializer.store.queries import batches, matches, not_found, paged, searchable, storable
from agent_specializer.store.rows import ToolChange, ToolRow, ToolVersionRow
from agent_specializer.store.tables import AdapterTool, Agent, AgentTool, Tool, ToolVersion, utc_now


class Tools(Database):
    """The part of the Registry that keeps tools."""

    def add_tools(self, tools: Iterable[ToolSpec], *, source: str = "") -> list[ToolChange]:
        """Registers `tools`, in one transaction: all of them or none. A changed tool gets a new version.

        A definition that does not say what is requested of its tool (`ToolSpec.says_requests`) leaves the registered one's requests.

        Args:
            source: where they come from, for people to read (a file, a URL, a server).

        Raises:
            SchemaNotSupported: a schema says what the decoding grammar cannot enforce.
            SpecError: two different tools have one name.
        """
        specs = _by_name(tools)
        with self._reading() as session:
            specs = _with_their_requests(session, specs)
            known = {name: version.fingerprint for name, (_, version) in _current(session, specs).items()}
        for name, spec in specs.items():
            if known.get(name) != spec.fingerprint:
                _check(spec)
        return self._writing(lambda session: _register(session, _with_their_requests(session, specs), source))

    def tool(self, name: str) -> ToolSpec:
        """The tool called `name`, as it is now; NotFound where there is none."""
        with self._reading() as session:
            version = session.scalar(
                select(ToolVersion).join(Tool, Tool.version_id == ToolVersion.id).where(Tool.name == name)
            )
            if version is None:
                raise unknown_tools(session, [name])
            return spec_of(version)

    def tools(self, search: str = "", limit: int | None = None, offset: int = 0) -> list[ToolRow]:
        """Registered tools by name, whose name or description holds every word of `search`."""
        users = select(func.count()).where(AgentTool.tool_id == Tool.id).scalar_subquery()
        columns = (
            Tool.name,
            ToolVersion.description,
            ToolVersion.fingerprint,
            ToolVersion.version,
            ToolVersion.source,
            users,
            Tool.created_at,
            Tool.updated_at,
        )
        statement = select(*columns).join(ToolVersion, Tool.version_id == ToolVersion.id)
        statement = statement.where(matches(Tool.search, search)).order_by(Tool.name)
        with self._reading() as session:
            return [ToolRow(*row) for row in session.execute(paged(statement, limit, offset))]

    def count_tools(self, search: str = "") -> int:
        with self._reading() as session:
            return session.scalar(select(func.count(Tool.id)).where(matches(Tool.search, search))) or 0

    def tool_versions(self, name: str) -> list[ToolVersionRow]:
        """Every version of a tool that is still kept, oldest first; NotFound where there is none.

        All of a registered tool's versions are kept; of a removed tool, those that an adapter was made from.
        """
        with self._reading() as session:
            rows = version_rows(session, (ToolVersion.name == name) & ToolVersion.version.is_not(None))
            if not rows:
                raise unknown_tools(session, [name])
            return rows

    def agents_using(self, name: str) -> list[str]:
        """Names of the agents that have the tool; NotFound where there is no such tool."""
        with self._reading() as session:
            return _users(session, _tool_id(session, name))

    def remove_tool(self, name: str) -> None:
        """Unregisters a tool. The specs that adapters were made from stay.

        Raises:
            NotFound: there is no such tool. InUse: agents have it; the message names them.
        """

        def work(session: Session) -> None:
            tool_id = _tool_id(session, name)
            if users := _users(session, tool_id):
                raise InUse(
                    f"tool {name!r} is used by agent{'s' * (len(users) > 1)} {', '.join(map(repr, users))}",
                    hint="take it from those agents, or remove them, first",
                )
            session.execute(delete(Tool).where(Tool.id == tool_id))
            forget_unused_versions(session)

        self._writing(work)


def spec_of(version: ToolVersion) -> ToolSpec:
    return ToolSpec(
        name=version.name,
        description=version.description,
        parameters=version.parameters,
        requests=tuple(version.requests or ()),
    )


def version_of(spec: ToolSpec, version: int | None, source: str) -> ToolVersion:
    """A new row for `spec`; SpecError where its description or requests cannot be kept."""
    return ToolVersion(
        name=storable(spec.name, "a tool's name"),
        version=version,
        fingerprint=spec.fingerprint,
        description=storable(spec.description, f"tool {spec.name!r}: the description"),
        parameters=spec.parameters,
        requests=[storable(each, f"tool {spec.name!r}: a request") for each in spec.requests] or None,
        source=source,
        created_at=utc_now(),
    )


def version_rows(session: Session, condition: ColumnElement[bool]) -> list[ToolVersionRow]:
    """The versions that meet `condition`, by name and number."""
    link = aliased(AdapterTool)
    adapters = select(func.count()).where(link.tool_version_id == ToolVersion.id).scalar_subquery()
    statement = select(ToolVersion, adapters).where(condition)
    return [
        ToolVersionRow(spec_of(version), version.version, version.source, version.created_at, made or 0)
        for version, made in session.execute(statement.order_by(ToolVersion.name, ToolVersion.version))
    ]


def unknown_tools(session: Session, names: list[str]) -> Exception:
    hint = "`agent-specializer tools list` shows what is registered, `tools import` registers more"
    return not_found("tool", names, session.scalars(select(Tool.name)), hint=hint)


def forget_unused_versions(session: Session) -> None:
    """Deletes the specs that no adapter was made from and that are not in a registered tool's history."""
    linked = select(AdapterTool.tool_version_id)
    registered = select(Tool.name)
    session.execute(
        delete(ToolVersion).where(
            ToolVersion.id.not_in(linked),
            ToolVersion.version.is_(None) | ToolVersion.name.not_in(registered),
        )
    )


def _by_name(tools: Iterable[ToolSpec]) -> dict[str, ToolSpec]:
    specs: dict[str, ToolSpec] = {}
    for spec in tools:
        if specs.setdefault(spec.name, spec).fingerprint != spec.fingerprint:
            raise SpecError(
                f"two different tools are called {spec.name!r}",
                hint="rename one, or register the right one alone",
            )
    return specs


def _with_their_requests(session: Session, specs: dict[str, ToolSpec]) -> dict[str, ToolSpec]:
    """`specs`, those that say nothing of requests with those of the tool that is registered."""
    silent = [name for name, spec in specs.items() if not spec.says_requests]
    known = _current(session, silent).items()
    return specs | {name: specs[name].knowing(version.requests or ()) for name, (_, version) in known}


def _check(spec: ToolSpec) -> None:
    from agent_specializer.intake.schema import check_schema  # on use: it brings the JSON Schema library

    try:
        check_schema(spec.parameters)
    except SchemaNotSupported as error:
        error.message = f"tool {spec.name!r}: {error.message}"
        error.args = (error.message,)
        raise


def _current(session: Session, names: Iterable[str]) -> dict[str, tuple[Tool, ToolVersion]]:
    """The tools of these names that are registered, with their current versions."""
    statement = select(Tool, ToolVersion).join(ToolVersion, Tool.version_id == ToolVersion.id)
    return {
        tool.name: (tool, version)
        for batch in batches(names)
        for tool, version in session.execute(statement.where(Tool.name.in_(batch)))
    }


def _register(session: Session, specs: dict[str, ToolSpec], source: str) -> list[ToolChange]:
    current = _current(session, specs)
    different = [
        name
        for name, spec in specs.items()
        if name not in current or current[name][1].fingerprint != spec.fingerprint
    ]
    versions = _new_versions(session, [specs[name] for name in different], source)
    session.flush()  # gives the versions their ids
    now = utc_now()
    for name in different:
        search = searchable(name, specs[name].description)
        if name in current:
            tool = current[name][0]
            tool.version_id, tool.search, tool.updated_at = versions[name].id, search, now
        else:
            session.add(
                Tool(name=name, version_id=versions[name].id, search=search, created_at=now, updated_at=now)
            )
    changes = []
    for name in specs:
        if name not in versions:
            changes.append(ToolChange(name, "same", current[name][1].version or 1))
        else:
            status = "changed" if name in current else "new"
            changes.append(ToolChange(name, status, versions[name].version or 1))  # type: ignore[arg-type]
    return changes


def _new_versions(session: Session, specs: list[ToolSpec], source: str) -> dict[str, ToolVersion]:
    """The next version of each tool. A spec that an adapter used before it was registered keeps its row."""
    highest: dict[str, int] = {}
    unregistered: dict[tuple[str, str], ToolVersion] = {}
    for batch in batches(spec.name for spec in specs):
        numbered = (
            select(ToolVersion.name, func.max(ToolVersion.version))
            .where(ToolVersion.name.in_(batch), ToolVersion.version.is_not(None))
            .group_by(ToolVersion.name)
        )
        highest.update((name, number or 0) for name, number in session.execute(numbered))
        for version in session.scalars(
            select(ToolVersion).where(ToolVersion.name.in_(batch), ToolVersion.version.is_(None))
        ):
            unregistered[version.name, version.fingerprint] = version
    versions: dict[str, ToolVersion] = {}
    for spec in specs:
        number = highest.get(spec.name, 0) + 1
        version = unregistered.get((spec.name, spec.fingerprint)) or version_of(spec, number, source)
        version.version, version.source = number, source
        session.add(version)
        versions[spec.name] = version
    return versions


def _tool_id(session: Session, name: str) -> int:
    tool_id = session.scalar(select(Tool.id).where(Tool.name == name))
    if tool_id is None:
        raise unknown_tools(session, [name])
    return tool_id


def _users(session: Session, tool_id: int) -> list[str]:
    statement = select(Agent.name).join(AgentTool, AgentTool.agent_id == Agent.id)
    return list(session.scalars(statement.where(AgentTool.tool_id == tool_id).order_by(Agent.name)))
