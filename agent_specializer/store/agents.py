"""Agents in the Registry, and the toolset that an agent has now."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from agent_specializer.errors import NotFound
from agent_specializer.specs import AgentSpec, Toolset
from agent_specializer.store.database import Database
from agent_specializer.store.queries import batches, matches, not_found, paged, searchable, storable
from agent_specializer.store.rows import AgentRow
from agent_specializer.store.tables import Agent, AgentTool, Tool, ToolVersion, utc_now
from agent_specializer.store.tools import spec_of, unknown_tools


class Agents(Database):
    """The part of the Registry that keeps agents."""

    def save_agent(self, agent: AgentSpec) -> None:
        """Makes the agent, or makes the one of that name equal to `agent`.

        Raises:
            NotFound: a tool is not registered; nothing is saved.
        """
        storable(agent.name, "an agent's name")
        storable(agent.instructions, f"agent {agent.name!r}: the instructions")
        self._writing(lambda session: _save(session, agent))

    def agent(self, name: str) -> AgentSpec:
        """The agent called `name`, its tools in the order they were given; NotFound where there is none."""
        with self._reading() as session:
            row = _agent(session, name)
            tools = _tool_names(session, [row.id]).get(row.id, ())
            return AgentSpec(name=row.name, instructions=row.instructions, tools=tools)

    def agents(self, search: str = "", limit: int | None = None, offset: int = 0) -> list[AgentRow]:
        """Agents by name, whose name or instructions hold every word of `search`."""
        statement = select(Agent).where(matches(Agent.search, search)).order_by(Agent.name)
        with self._reading() as session:
            rows = session.scalars(paged(statement, limit, offset)).all()
            tools = _tool_names(session, [row.id for row in rows])
            return [
                AgentRow(row.name, row.instructions, tools.get(row.id, ()), row.created_at, row.updated_at)
                for row in rows
            ]

    def count_agents(self, search: str = "") -> int:
        with self._reading() as session:
            return session.scalar(select(func.count(Agent.id)).where(matches(Agent.search, search))) or 0

    def remove_agent(self, name: str) -> None:
        """Removes an agent; its tools, adapters and runs stay. NotFound where there is none."""

        def work(session: Session) -> None:
            session.execute(delete(Agent).where(Agent.id == _agent(session, name).id))

        self._writing(work)

    def toolset(self, agent_name: str) -> Toolset:
        """The agent's instructions and its tools as they are now; NotFound where there is no such agent."""
        with self._reading() as session:
            return current_toolset(session, agent_name)


def current_toolset(session: Session, agent_name: str) -> Toolset:
    """The agent's toolset at the versions that are current; NotFound where there is no such agent."""
    agent = _agent(session, agent_name)
    statement = (
        select(ToolVersion)
        .join(Tool, Tool.version_id == ToolVersion.id)
        .join(AgentTool, AgentTool.tool_id == Tool.id)
        .where(AgentTool.agent_id == agent.id)
    )
    specs = tuple(spec_of(version) for version in session.scalars(statement))
    return Toolset(tools=specs, instructions=agent.instructions)


def _agent(session: Session, name: str) -> Agent:
    agent = session.scalar(select(Agent).where(Agent.name == name))
    if agent is None:
        raise unknown_agent(session, name)
    return agent


def unknown_agent(session: Session, name: str) -> NotFound:
    hint = "`agent-specializer agents list` shows the agents, `agents create` makes one"
    return not_found("agent", [name], session.scalars(select(Agent.name)), hint=hint)


def _tool_names(session: Session, agent_ids: list[int]) -> dict[int, tuple[str, ...]]:
    names: dict[int, tuple[str, ...]] = {}
    statement = select(AgentTool.agent_id, Tool.name).join(Tool, Tool.id == AgentTool.tool_id)
    for batch in batches(agent_ids):
        rows = statement.where(AgentTool.agent_id.in_(batch)).order_by(AgentTool.agent_id, AgentTool.position)
        for agent_id, name in session.execute(rows):
            names[agent_id] = (*names.get(agent_id, ()), name)
    return names


def _save(session: Session, agent: AgentSpec) -> None:
    ids: dict[str, int] = {}
    for batch in batches(agent.tools):
        rows = session.execute(select(Tool.name, Tool.id).where(Tool.name.in_(batch)))
        ids.update((name, tool_id) for name, tool_id in rows)
    if missing := [name for name in agent.tools if name not in ids]:
        raise unknown_tools(session, missing)
    now = utc_now()
    row = session.scalar(select(Agent).where(Agent.name == agent.name))
    if row is None:
        row = Agent(name=agent.name, created_at=now)
        session.add(row)
    elif (row.instructions, _tool_names(session, [row.id]).get(row.id, ())) == (
        agent.instructions,
        agent.tools,
    ):
        return
    row.instructions, row.updated_at = agent.instructions, now
    row.search = searchable(agent.name, agent.instructions)
    session.flush()
    session.execute(delete(AgentTool).where(AgentTool.agent_id == row.id))
    session.add_all(
        AgentTool(agent_id=row.id, tool_id=ids[name], position=position)
        for position, name in enumerate(agent.tools)
    )
