"""The database's history (Alembic). Beside the package `agent_specializer`, in a checkout and in a wheel."""
