"""Adapters can be pinned; runs say what was decided, why, from which cache, and what it saved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Added with a default, not by copying the table: adapters are referred to, and a copy would cascade.
    op.add_column("adapters", sa.Column("pinned", sa.Boolean, server_default=sa.false(), nullable=False))
    op.add_column("runs", sa.Column("decision", sa.String(32), server_default=sa.text("''"), nullable=False))
    op.add_column("runs", sa.Column("reason", sa.String(500), server_default=sa.text("''"), nullable=False))
    op.add_column("runs", sa.Column("cache", sa.String(8)))
    op.add_column("runs", sa.Column("saved_prompt_tokens", sa.Integer, server_default="0", nullable=False))
    # Before decisions there were no fallbacks: what was asked for is what was done.
    runs = sa.table("runs", sa.column("mode", sa.String), sa.column("decision", sa.String))
    op.execute(runs.update().values(decision=runs.c.mode))


def downgrade() -> None:
    for column in ("saved_prompt_tokens", "cache", "reason", "decision"):
        op.drop_column("runs", column)
    op.drop_column("adapters", "pinned")
