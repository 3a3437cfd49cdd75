"""What a run leaves in its folder: the state from which it is resumed, and the generator's checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agent_specializer.errors import CheckpointError, ConfigError
from agent_specializer.loragen.checkpoint import load_parts, read_config, save_checkpoint
from agent_specializer.loragen.generator import Generator

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

STATE = "state.pt"


def start_from(generator: Generator, folder: Path) -> None:
    """Take experts, router and reader from another run's checkpoint."""
    parts = ("pool", "router", "reader") if generator.config.routed else ("pool",)
    load_parts(generator, folder, parts)


def take_finished(generator: Generator, folder: Path) -> dict[str, Any]:
    """Take all of a finished checkpoint whose argument LoRA is to be trained; that too, where it has one of the same size. Its card."""
    config, raw = read_config(folder)
    own = ("arguments",) if config.arguments == generator.config.arguments else ()
    load_parts(generator, folder, ("pool", "router", "reader", "keys", "head", *own))
    card: dict[str, Any] = raw.get("card") or {}
    if not own:
        card.pop("arguments", None)
    return card


def save_state(run: Trainer) -> None:
    """The run's state and the generator's checkpoint, each replaced atomically."""
    if not run.accelerator.is_main_process:
        return
    state = {
        "generator": run.generator.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "step": run.step,
        "finished": run.finished,
        "history": run.history,
        "mean_gates": run.mean_gates,
        "arguments": run.arguments.state_dict() if run.arguments else None,
        "options": asdict(run.options),
    }
    temporary = run.out / f"{STATE}.tmp"
    torch.save(state, temporary)
    os.replace(temporary, run.out / STATE)
    card = run.card or {"options": asdict(run.options), "steps_done": run.step, "sources": run.sources}
    card["dev"] = next((_dev_of(row) for row in reversed(run.history) if _dev_of(row)), card.get("dev", {}))
    if run.arguments:
        names = ("seed", *(name for name in asdict(run.options) if name.startswith("argument_")))
        card["arguments"] = {"steps_done": run.arguments.step, **{n: getattr(run.options, n) for n in names}}
        if run.arguments_before:
            card["arguments"]["before"] = run.arguments_before
    save_checkpoint(run.generator, run.out, card=card)
    (run.out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in run.history))


def load_state(run: Trainer) -> None:
    """Go on where the run in its folder stopped.

    Raises:
        CheckpointError: there is none. ConfigError: it has other options.
    """
    path = run.out / STATE
    if not path.exists():
        raise CheckpointError(f"no run to resume in {run.out}", hint="start one without --resume")
    state = torch.load(path, map_location=run.accelerator.device, weights_only=True)
    changed = {k for k, v in asdict(run.options).items() if state["options"].get(k) != v}
    if changed:
        raise ConfigError(
            f"the run in {run.out} has other {', '.join(sorted(changed))}",
            hint="resume with the same options",
        )
    run.generator.load_state_dict(state["generator"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.step, run.history, run.finished = state["step"], state["history"], state["finished"]
    run.mean_gates = state.get("mean_gates")
    if run.arguments:
        run.arguments.load_state_dict(state["arguments"])


def _dev_of(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith("dev_")}
