"""Tools with their versions, agents, adapters, claims and runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

NAME = sa.String(128)
FINGERPRINT = sa.String(64)
TIME = sa.DateTime(timezone=True)
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
LONG_BLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


def upgrade() -> None:
    op.create_table(
        "tool_versions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("fingerprint", FINGERPRINT, nullable=False),
        sa.Column("description", LONG_TEXT, nullable=False),
        sa.Column("parameters", LONG_TEXT, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tool_versions"),
        sa.UniqueConstraint("name", "version", name="uq_tool_versions_name_version"),
    )
    op.create_index("ix_tool_versions_name_fingerprint", "tool_versions", ["name", "fingerprint"])
    op.create_table(
        "tools",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("version_id", sa.Integer, nullable=False),
        sa.Column("search", LONG_TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tools"),
        sa.UniqueConstraint("name", name="uq_tools_name"),
        sa.UniqueConstraint("version_id", name="uq_tools_version_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["tool_versions.id"], name="fk_tools_version_id", ondelete="RESTRICT"
        ),
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("instructions", LONG_TEXT, nullable=False),
        sa.Column("search", LONG_TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
        sa.UniqueConstraint("name", name="uq_agents_name"),
    )
    op.create_table(
        "agent_tools",
        sa.Column("agent_id", sa.Integer, nullable=False),
        sa.Column("tool_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "tool_id", name="pk_agent_tools"),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name="fk_agent_tools_agent_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tool_id"], ["tools.id"], name="fk_agent_tools_tool_id", ondelete="RESTRICT"
        ),
    )
    op.create_index("ix_agent_tools_tool_id", "agent_tools", ["tool_id"])
    op.create_table(
        "adapters",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("fingerprint", FINGERPRINT, nullable=False),
        sa.Column("toolset_fp", FINGERPRINT, nullable=False),
        sa.Column("generator_fp", FINGERPRINT, nullable=False),
        sa.Column("agent", NAME),
        sa.Column("instructions", LONG_TEXT, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("description_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=False),
        sa.Column("hits", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("fingerprint", name="uq_adapters_fingerprint"),
        sa.UniqueConstraint("toolset_fp", "generator_fp", name="uq_adapters_toolset_fp_generator_fp"),
    )
    op.create_index("ix_adapters_agent", "adapters", ["agent"])
    op.create_index("ix_adapters_last_used_at", "adapters", ["last_used_at"])
    op.create_table(
        "adapter_blobs",
        sa.Column("adapter_id", sa.Integer, nullable=False),
        sa.Column("blob", LONG_BLOB, nullable=False),
        sa.PrimaryKeyConstraint("adapter_id", name="pk_adapter_blobs"),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name="fk_adapter_blobs_adapter_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "adapter_tools",
        sa.Column("adapter_id", sa.Integer, nullable=False),
        sa.Column("tool_version_id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("adapter_id", "tool_version_id", name="pk_adapter_tools"),
        sa.ForeignKeyConstraint(
            ["adapter_id"], ["adapters.id"], name="fk_adapter_tools_adapter_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tool_version_id"],
            ["tool_versions.id"],
            name="fk_adapter_tools_tool_version_id",
            ondelete="RESTRICT",
        ),
    )
    op.create_index("ix_adapter_tools_tool_version_id", "adapter_tools", ["tool_version_id"])
    op.create_table(
        "claims",
        sa.Column("fingerprint", FINGERPRINT, nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_claims"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("agent", NAME),
        sa.Column("adapter", FINGERPRINT),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("request", LONG_TEXT),
        sa.Column("calls", LONG_TEXT, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("tool_prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("first_token_seconds", sa.Double, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_time", "runs", ["time"])
    op.create_index("ix_runs_agent_time", "runs", ["agent", "time"])


def downgrade() -> None:
    for table in (
        "runs",
        "claims",
        "adapter_tools",
        "adapter_blobs",
        "adapters",
        "agent_tools",
        "agents",
        "tools",
        "tool_versions",
    ):
        op.drop_table(table)
