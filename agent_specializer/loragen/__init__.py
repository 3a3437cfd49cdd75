"""LoRA-Gen (Xiao et al., ICML 2025): a task description becomes gates over a pool of LoRA experts in one forward pass."""

from agent_specializer.loragen.adapter import Adapter
from agent_specializer.loragen.checkpoint import load_checkpoint, save_checkpoint
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.generator import Generator, GeneratorConfig
from agent_specializer.loragen.models import ModelShape, shape_of
from agent_specializer.loragen.toolkeys import ChoiceHead

__all__ = [
    "Adapter",
    "ChoiceHead",
    "ExpertPool",
    "Generator",
    "GeneratorConfig",
    "ModelShape",
    "load_checkpoint",
    "save_checkpoint",
    "shape_of",
]
