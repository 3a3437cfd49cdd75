"""``agent-specializer train``: loads a bundle, runs a `Trainer`, shows how it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agent_specializer.bundles import models_of
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings
from agent_specializer.training.state import STEPS
from agent_specializer.training.trainer import Trainer, TrainOptions


def train(
    data: Path,
    out: Path,
    *,
    settings: Settings,
    resume: bool = False,
    options: TrainOptions | None = None,
    exclude: tuple[str, ...] = (),
    start: Path | None = None,
    only: str = "",
    stop_after: float | None = None,
    progress: Progress = silent,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a generator (or a baseline) on the example files in `data`; the checkpoint is written to `out`.

    Args:
        settings: name the bundle, where its weights are, and their dtype.
        options: what to train and how; the defaults are those of the shipped checkpoint.
        exclude: names of files (``X`` of ``X.train.jsonl``) to leave out.
        start: folder of a checkpoint whose experts (and router) the run begins with.
        only: of the checkpoint in `start` train this part alone, on from what it is: "experts" (with router, meta tokens and keys, by joint steps, behind
            which keys and scalars are fitted anew), or an activated LoRA, "arguments", "following" or "answers". All other parts stay, but for the scalars that count behind a call where it is
            "following".
        stop_after: seconds after which the run saves its state and stops, to be resumed later.
        log: called with each step's figures (loss, balance, tokens per second, dev score where measured).

    Raises:
        IntakeError: unusable data. ConfigError: `out` holds another run. CheckpointError: nothing to resume.
    """
    options = options or TrainOptions()
    if settings.dtype == "auto" and torch.cuda.is_available():
        # They are trained there: what this CPU is slow in does not matter.
        settings = settings.model_copy(update={"dtype": "bfloat16"})
    models = models_of(settings, progress)

    def report(row: dict[str, Any]) -> None:
        of = getattr(options, STEPS.get(row.get("stage", ""), "steps"))
        progress(summary(row, of), row["step"] / max(1, of))
        if log:
            log(row)

    trainer = Trainer(
        cloud=models.cloud,
        edge=models.edge,
        tokenizer=models.edge_tokenizer,
        cloud_tokenizer=models.cloud_tokenizer,
        data=data,
        out=out,
        options=options,
        exclude=exclude,
        start=start,
        only=only,
        log=report,
    )
    return trainer.run(resume=resume, stop_after=stop_after)


def summary(row: dict[str, Any], steps: int) -> str:
    """One line of progress."""
    if row.get("stage") == "bank":
        return f"{row['requests']} requests against {row['tools']} tools are read"
    if row.get("stage") == "keys":
        return f"keys and confidence fitted: dev {row['dev_kept_accuracy']:.1%}, opaque {row['dev_opaque_accuracy']:.1%}"
    if row.get("stage") in ("arguments", "answers"):
        text = f"{row['stage']} {row['step']}/{steps}  loss {row['loss']:.3f}"
        return text if row.get("held_out_loss") is None else f"{text}  held out {row['held_out_loss']:.3f}"
    if row.get("stage") == "following":
        text = f"what follows a call {row['step']}/{steps}  loss {row['loss']:.3f}  right {row['right']:.0%}"
        return text if row.get("held_out_right") is None else f"{text}  held out {row['held_out_right']:.0%}"
    if row.get("stage") == "after calls":
        return f"what counts behind a call is fitted: another one {row['more_right']:.1%} right, none {row['stop_right']:.1%}"
    text = (
        f"step {row['step']}/{steps}  loss {row['loss']:.3f}  balance {row['balance']:.2f}  "
        f"right {row['choice_accuracy']:.0%}  {row['tokens_per_second']} tokens/s"
    )
    if "dev_kept_accuracy" in row:
        text += f"  dev {row['dev_kept_accuracy']:.1%}, opaque {row['dev_opaque_accuracy']:.1%}"
    return text
