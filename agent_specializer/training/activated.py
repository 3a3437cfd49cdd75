"""What the stages have in common that train an activated LoRA (`loragen.activated`), everything else frozen: optimiser, rate, state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agent_specializer.edge.activated import Activated
from agent_specializer.loragen.activated import ActivatedLora

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

LEAST = 0.05
"""The rate at the end, a share of that at the beginning."""


class ActivatedStage(ABC):
    """The stage of one run: its optimiser, and how far it is.

    Args:
        lora: of the run's generator; steps: of the whole stage; lr: the highest rate, reached after `warmup` steps.
    """

    def __init__(self, run: Trainer, lora: ActivatedLora, *, steps: int, lr: float, warmup: int) -> None:
        self.run, self.lora, self.step = run, lora, 0
        self.steps, self.lr, self.warmup = steps, lr, warmup
        self.activated = Activated(run.edge, lora)
        self.optimizer = torch.optim.AdamW(lora.parameters(), lr=lr, weight_decay=0.01)

    @abstractmethod
    def train_step(self) -> dict[str, float]:
        """One optimiser step; its figures."""

    @abstractmethod
    def dev(self) -> dict[str, float | None]:
        """Figures on held-out families; None where there are none."""

    @property
    def begun(self) -> bool:
        """Whether the LoRA changes anything yet."""
        return any(bool(parameter.any()) for parameter in self.lora.B.values())

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])

    def update(self) -> None:
        """Change the LoRA by the gradients that have come together: a warm-up, then a cosine."""
        run = self.run
        warm = min(1.0, (self.step + 1) / self.warmup)
        fall = LEAST + (1 - LEAST) * (1 + math.cos(math.pi * self.step / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * warm * fall
        if run.accelerator.num_processes > 1:
            for parameter in self.lora.parameters():
                parameter.grad = run.accelerator.reduce(parameter.grad, reduction="mean")
        nn.utils.clip_grad_norm_(self.lora.parameters(), run.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
