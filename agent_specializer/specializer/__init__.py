"""The facade: agent -> adapter -> edge -> call. Everything that people meet stands on this."""

from agent_specializer.adapters import Export, Specialization, Step, Verification
from agent_specializer.specializer.agent import Agent
from agent_specializer.specializer.facade import Specializer

__all__ = ["Agent", "Export", "Specialization", "Specializer", "Step", "Verification"]
