"""Adapters between generator and edge: get or generate, verify, and export to what other programs read."""

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

__all__ = [
    "FORMATS",
    "STEPS",
    "AdapterCache",
    "Export",
    "Format",
    "OnStep",
    "Specialization",
    "Step",
    "StepName",
    "Verification",
    "export_adapter",
]
