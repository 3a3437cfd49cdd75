"""What a run leaves in its folder: the state from which it is resumed, and the generator's checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agent_specializer.errors import CheckpointError, ConfigError
from agent_specializer.loragen.checkpoint import load_parts, read_config, save_checkpoint
from agent_specializer.loragen.generator import ACTIVATED, Generator, GeneratorConfig

if TYPE_CHECKING:
    from agent_specializer.training.activated import ActivatedStage
    from agent_specializer.training.trainer import Trainer

STATE = "state.pt"
EXPERTS = "experts"
"""What a run trains on by joint steps of a finished checkpoint: experts, router, meta tokens and keys."""
STEPS = {"arguments": "argument_steps", "following": "following_steps", "answers": "answer_steps"}
"""The option that says how long an activated LoRA is trained."""


def start_from(generator: Generator, folder: Path) -> None:
    """Take experts, router and reader from another run's checkpoint."""
    parts = ("pool", "router", "reader") if generator.config.routed else ("pool",)
    load_parts(generator, folder, parts)


def as_started(config: GeneratorConfig, folder: Path, only: str) -> GeneratorConfig:
    """`config` of a run that trains the activated LoRA `only` of the finished checkpoint in `folder`: the others are as they are there."""
    found, _ = read_config(folder)
    return replace(config, **{name: getattr(found, name) for name in ACTIVATED if name != only})


def take_finished(generator: Generator, folder: Path) -> dict[str, Any]:
    """Take all of a finished checkpoint one part of which is to be trained; activated LoRAs where it has them in the same size. Its card."""
    config, raw = read_config(folder)
    own = {name for name in ACTIVATED if getattr(config, name) == getattr(generator.config, name)}
    load_parts(generator, folder, ("pool", "router", "reader", "keys", "head", *own))
    card: dict[str, Any] = raw.get("card") or {}
    return {key: value for key, value in card.items() if key not in ACTIVATED or key in own}


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
        **{name: stage.state_dict() for name, stage in _stages(run).items()},
        "options": asdict(run.options),
    }
    temporary = run.out / f"{STATE}.tmp"
    torch.save(state, temporary)
    os.replace(temporary, run.out / STATE)
    card = run.card or {"options": asdict(run.options), "steps_done": run.step, "sources": run.sources}
    if run.only == EXPERTS:
        card = {
            **card,
            "options": asdict(run.options),
            "steps_done": run.step,
            "before": {key: run.card[key] for key in ("options", "steps_done", "before") if key in run.card},
        }
    card["dev"] = next((_dev_of(row) for row in reversed(run.history) if _dev_of(row)), card.get("dev", {}))
    for name, stage in _stages(run).items():
        prefix = STEPS[name].removesuffix("steps")
        own = {n: v for n, v in asdict(run.options).items() if n.startswith(prefix) or n == "seed"}
        card[name] = {"steps_done": stage.step, **own}
        if run.before:
            card[name]["before"] = run.before
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
    for name, stage in _stages(run).items():
        stage.load_state_dict(state[name])


def _stages(run: Trainer) -> dict[str, ActivatedStage]:
    """The stages in which this run trains activated LoRAs, by name."""
    return {name: stage for name, stage in run.stages.items() if run.only in ("", name)}


def _dev_of(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith("dev_")}
