"""What is kept in the database: tools, agents, adapters, runs."""

from agent_specializer.store.adapters import adapter_fingerprint
from agent_specializer.store.database import upgrade
from agent_specializer.store.migrating import current_revision
from agent_specializer.store.registry import Registry
from agent_specializer.store.rows import (
    AdapterRow,
    AdapterStatus,
    AgentRow,
    RunRow,
    RunStats,
    ToolChange,
    ToolRow,
    ToolVersionRow,
)

__all__ = [
    "AdapterRow",
    "AdapterStatus",
    "AgentRow",
    "Registry",
    "RunRow",
    "RunStats",
    "ToolChange",
    "ToolRow",
    "ToolVersionRow",
    "adapter_fingerprint",
    "current_revision",
    "upgrade",
]
