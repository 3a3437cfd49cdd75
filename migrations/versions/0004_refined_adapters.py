"""An adapter may have been refined; then it is kept what that came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def upgrade() -> None:
    op.add_column("adapters", sa.Column("refinement", LONG_TEXT))


def downgrade() -> None:
    op.drop_column("adapters", "refinement")
