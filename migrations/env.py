"""Runs migrations on the connection that agent_specializer.store gives, or on the settings' database."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from agent_specializer.settings import load_settings
from agent_specializer.store.tables import Base


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:  # the alembic command line
    with create_engine(load_settings().db_url).begin() as connection:
        run(connection)
