"""Adapters between generator and edge: get or generate, verify, and export to what other programs read."""

from agent_specializer.adapters.archive import archived
from agent_specializer.adapters.cache import (
    STEPS,
    AdapterCache,
    OnStep,
    Specialization,
    Step,
    StepName,
    Verification,
)
from agent_specializer.adapters.export import FORMATS, Export, Format, export_adapter
from agent_specializer.adapters.gates import Neighbour, expert_shares, gates_of, neighbours, shared_routing

__all__ = [
    "FORMATS",
    "STEPS",
    "AdapterCache",
    "Export",
    "Format",
    "Neighbour",
    "OnStep",
    "Specialization",
    "Step",
    "StepName",
    "Verification",
    "archived",
    "expert_shares",
    "export_adapter",
    "gates_of",
    "neighbours",
    "shared_routing",
]
