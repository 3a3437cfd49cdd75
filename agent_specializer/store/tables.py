"""The database's tables (SQLAlchemy 2, typed). migrations/ makes the same schema; a test compares the two.

Notable:
- `tool_versions` is a log of specs, never rewritten; `tools` names those registered now. So an adapter keeps
  the exact specs it was made from, whatever happens to a tool later.
- Adapter blobs live in a table of their own, so that listing adapters never reads them.
- JSON is kept as text: a schema's key order is the order in which arguments are decoded, and some databases
  sort the keys of JSON.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAME_LENGTH = 128
FINGERPRINT_LENGTH = 64

LongText = Text().with_variant(mysql.LONGTEXT(), "mysql")
LongBlob = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


def utc_now() -> datetime:
    """Now, timezone-aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware time in UTC, also on databases that store none (SQLite). Naive times are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no timezone; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON as text, key order kept; pure ASCII, so that it may hold what a text column may not."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Base(DeclarativeBase):
    """Constraints are named by rule, so that a migration can drop what another one made."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, bytes: LongBlob, float: Double()}  # noqa: RUF012


class ToolVersion(Base):
    """One spec that a tool has or had. `version` counts from 1 for each name; NULL: never registered."""

    __tablename__ = "tool_versions"
    __table_args__ = (UniqueConstraint("name", "version"), Index(None, "name", "fingerprint"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    version: Mapped[int | None]
    fingerprint: Mapped[str] = mapped_column(String(FINGERPRINT_LENGTH))
    description: Mapped[str] = mapped_column(LongText)
    parameters: Mapped[dict[str, Any]] = mapped_column(JsonText)
    requests: Mapped[list[str] | None] = mapped_column(JsonText)
    source: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class Tool(Base):
    """A registered tool, pointing at its current version."""

    __tablename__ = "tools"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("version_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    version_id: Mapped[int] = mapped_column(ForeignKey("tool_versions.id", ondelete="RESTRICT"))
    search: Mapped[str] = mapped_column(LongText)
    """Name and description, casefolded: LIKE ignores the case of ASCII letters only, or of none."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Agent(Base):
    """A named agent; its tools are in `agent_tools`."""

    __tablename__ = "agents"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    instructions: Mapped[str] = mapped_column(LongText)
    search: Mapped[str] = mapped_column(LongText)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AgentTool(Base):
    """A tool of an agent, at `position` in the order the agent was given."""

    __tablename__ = "agent_tools"

    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    tool_id: Mapped[int] = mapped_column(
        ForeignKey("tools.id", ondelete="RESTRICT"), primary_key=True, index=True
    )
    position: Mapped[int]


class Adapter(Base):
    """What a generator made for a toolset, without its blob."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("fingerprint"), UniqueConstraint("toolset_fp", "generator_fp"))

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(FINGERPRINT_LENGTH))
    toolset_fp: Mapped[str] = mapped_column(String(FINGERPRINT_LENGTH))
    generator_fp: Mapped[str] = mapped_column(String(FINGERPRINT_LENGTH))
    agent: Mapped[str | None] = mapped_column(String(NAME_LENGTH), index=True)
    """By name, no foreign key: removing an agent leaves its adapters in the cache."""
    instructions: Mapped[str] = mapped_column(LongText)
    bytes: Mapped[int]
    description_tokens: Mapped[int]
    seconds: Mapped[float]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime] = mapped_column(index=True)
    hits: Mapped[int]
    pinned: Mapped[bool] = mapped_column(server_default=false())
    refinement: Mapped[dict[str, Any] | None] = mapped_column(JsonText)
    """What refining it came to, before and after; NULL: it is as the generator made it."""


class AdapterBlob(Base):
    """The bytes of an adapter: gates, keys and priors."""

    __tablename__ = "adapter_blobs"

    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    blob: Mapped[bytes]


class AdapterTool(Base):
    """A tool version that an adapter was made from."""

    __tablename__ = "adapter_tools"

    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    tool_version_id: Mapped[int] = mapped_column(
        ForeignKey("tool_versions.id", ondelete="RESTRICT"), primary_key=True, index=True
    )


class Claim(Base):
    """A process is generating this adapter. The holder raises `beat` every few seconds while it lives."""

    __tablename__ = "claims"

    fingerprint: Mapped[str] = mapped_column(String(FINGERPRINT_LENGTH), primary_key=True)
    holder: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    beat: Mapped[int]


class Run(Base):
    """One request that was answered."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "time"), Index(None, "agent", "time"))

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    agent: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    adapter: Mapped[str | None] = mapped_column(String(FINGERPRINT_LENGTH))
    mode: Mapped[str] = mapped_column(String(32))
    request: Mapped[str | None] = mapped_column(LongText)
    calls: Mapped[list[dict[str, Any]]] = mapped_column(JsonText)
    prompt_tokens: Mapped[int]
    tool_prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    seconds: Mapped[float]
    first_token_seconds: Mapped[float]
    confidence: Mapped[float]
    decision: Mapped[str] = mapped_column(String(32), server_default=text("''"))
    reason: Mapped[str] = mapped_column(String(500), server_default=text("''"))
    cache: Mapped[str | None] = mapped_column(String(8))
    saved_prompt_tokens: Mapped[int] = mapped_column(server_default="0")
