"""Tools may have requests that users are known to make of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    op.add_column("tool_versions", sa.Column("requests", LONG_TEXT))


def downgrade() -> None:
    op.drop_column("tool_versions", "requests")
