"""A generator on disk: ``generator.safetensors`` and ``generator.json``, written atomically, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.errors import CheckpointError
from agent_specializer.loragen.generator import Generator, GeneratorConfig
from agent_specializer.loragen.models import ModelShape, shape_of

WEIGHTS, CONFIG, FORMAT = "generator.safetensors", "generator.json", 1
EXACT = ("mean", "running_var", "bn_weight", "bn_bias")
"""Tensors that stay in float32, as all single numbers do; the rest is saved in bfloat16."""


def save_checkpoint(generator: Generator, folder: Path, *, card: dict[str, Any] | None = None) -> Path:
    """Write `generator` to `folder`; `card` (steps, seed, dev figures ...) goes into the JSON for the record."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        if name.endswith(EXACT) or not tensor.dim()
        else tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in generator.state_dict().items()
    }
    weights = folder / WEIGHTS
    try:
        save_file(tensors, _beside(weights))
        sha256 = hashlib.sha256(_beside(weights).read_bytes()).hexdigest()
        config = {"format": FORMAT, "sha256": sha256, **generator.config.to_dict(), "card": card or {}}
        _beside(folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        os.replace(_beside(weights), weights)
        os.replace(_beside(folder / CONFIG), folder / CONFIG)
    finally:
        _beside(weights).unlink(missing_ok=True)
        _beside(folder / CONFIG).unlink(missing_ok=True)
    return folder


def read_config(folder: Path) -> tuple[GeneratorConfig, dict[str, Any]]:
    """Configuration and raw JSON of the checkpoint in `folder`; CheckpointError when there is none or it is damaged."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"no generator checkpoint in {folder}",
            hint="train one with `agent-specializer train --data DIR --out DIR`",
        )
    try:
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")
        fields = {key: value for key, value in raw.items() if key not in {"format", "sha256", "card"}}
        if raw["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {raw['format']!r}, this version reads {FORMAT}",
                hint="use the version that wrote it, or train anew",
            )
        return GeneratorConfig.from_dict(fields), raw
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", hint="restore or retrain the checkpoint"
        ) from error


def load_checkpoint(
    folder: Path, *, cloud: nn.Module, edge: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> Generator:
    """The generator in `folder`, in eval mode and float32, on the cloud model's device.

    Raises:
        CheckpointError: nothing there, damaged, or trained for another cloud or edge model.
    """
    config, raw = read_config(folder)
    for role, model, expected in (("cloud", cloud, config.cloud), ("edge", edge, config.edge)):
        _check_model(role, shape_of(model), expected, folder)
    path = folder / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error}", hint="restore or retrain the checkpoint"
        ) from error
    if hashlib.sha256(data).hexdigest() != raw["sha256"]:
        raise CheckpointError(
            f"{path} does not have the SHA-256 that {CONFIG} names: it is damaged",
            hint="restore it (reinstall the package) or retrain",
        )
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        generator = Generator(config, cloud, tokenizer)
        _check_names(path, tensors.keys(), generator.state_dict().keys())
        generator.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit its configuration: {error}", hint="retrain the checkpoint"
        ) from error
    generator.to(next(cloud.parameters()).device).eval()
    return generator


def load_parts(generator: Generator, folder: Path, parts: Sequence[str]) -> None:
    """Put the `parts` (``pool``, ``router`` ...) of the checkpoint in `folder` into `generator`, to train on from there.

    Raises:
        CheckpointError: nothing there, or they have another shape.
    """
    read_config(folder)
    path = folder / WEIGHTS
    own = {name: tensor for name, tensor in generator.state_dict().items() if name.split(".")[0] in parts}
    try:
        found = {name: tensor.float() for name, tensor in load_file(path).items() if name in own}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", hint="restore or retrain it") from error
    wrong = sorted(name for name in own if name not in found or found[name].shape != own[name].shape)
    if wrong:
        raise CheckpointError(
            f"{path} lacks {', '.join(map(repr, wrong[:3]))} or has it in another shape",
            hint="start from a checkpoint of the same models, experts and rank, or from nothing",
        )
    generator.load_state_dict(found, strict=False)


def _check_names(path: Path, found: Collection[str], expected: Collection[str]) -> None:
    for what, names in (
        ("lacks", set(expected) - set(found)),
        ("holds what this version does not know:", set(found) - set(expected)),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{path} {what} {', '.join(map(repr, sorted(names)[:3]))}{more}: another version of the program "
                "wrote it",
                hint="train it anew, use it with the version that wrote it, or take the bundle's own checkpoint",
            )


def _check_model(role: str, actual: ModelShape, expected: ModelShape, folder: Path) -> None:
    if actual == expected:
        return
    differing = [
        f"{key} {getattr(expected, key)!r} (is {getattr(actual, key)!r})"
        for key in expected.to_dict()
        if getattr(expected, key) != getattr(actual, key)
    ]
    raise CheckpointError(
        f"the generator in {folder} was trained for another {role} model: it expects {', '.join(differing)}",
        hint=f"use the bundle that it belongs to, or train a generator for this {role} model",
    )


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")
