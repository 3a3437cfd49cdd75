"""What a run trains, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from agent_specializer.errors import ConfigError
from agent_specializer.loragen.activated import ActivatedConfig
from agent_specializer.loragen.generator import GeneratorConfig
from agent_specializer.loragen.models import ATTENTION, attentions, decoder, shape_of


@dataclass(frozen=True)
class TrainOptions:
    """`kind`: the generator, or a baseline trained on the same data: one LoRA for all toolsets, with or without tools
    in its prompt. `pool_size`: how many compositions the run draws from; their descriptions' keys and values are kept
    up to `cache_bytes`. `per_step`: compositions of `examples` requests per step and device; beside them stand requests of
    `key_tokens` tokens from a bank of `key_compositions` compositions of `key_examples`, told apart from `key_foreign` tools.
    `fit_requests`: of the bank, how many are read for the second stage, `key_epochs` long at the rate `key_lr`. `required_compositions`: on whose requests is fitted
    how it is told which of what a tool requires is given. `argument_steps` of `argument_batch` calls at the rate `argument_lr` fit the LoRA of rank
    `argument_rank` under which arguments are written; `following_steps` of `following_batch` conversations at the rate `following_lr` one of that
    rank under which it is told what follows a call; `answer_steps` of `answer_batch` answers at the rate `answer_lr` one under which these are
    written. With 0 steps there is none, and none with tools in the prompt."""

    kind: str = "generator"
    steps: int = 600
    seed: int = 0
    lr: float = 1e-3
    warmup: int = 30
    weight_decay: float = 0.1
    per_step: int = 2
    examples: int = 8
    pool_size: int = 300
    cache_bytes: int = 4_000_000_000
    dev_every: int = 100
    dev_compositions: int = 12
    save_every: int = 25
    clip: float = 1.0
    experts: int = 8
    top_k: int = 2
    rank: int = 8
    cloud_lora_rank: int = 8
    key_dim: int = 128
    dropout: float = 0.0
    key_tokens: int = 2048
    key_foreign: int = 64
    key_compositions: int = 1500
    key_examples: int = 24
    key_epochs: int = 2
    key_lr: float = 2e-4
    fit_requests: int = 8000
    calibration_compositions: int = 48
    required_compositions: int = 200
    argument_rank: int = 16
    argument_steps: int = 400
    argument_batch: int = 16
    argument_lr: float = 1e-3
    following_steps: int = 150
    following_batch: int = 12
    following_lr: float = 6e-4
    answer_steps: int = 200
    answer_batch: int = 16
    answer_lr: float = 6e-4


def generator_config(options: TrainOptions, cloud: nn.Module, edge: nn.Module) -> GeneratorConfig:
    """What `options` make of the two models; ConfigError for an unknown kind."""
    shapes: dict[str, Any] = {"cloud": shape_of(cloud), "edge": shape_of(edge)}
    if options.kind == "generator":
        return GeneratorConfig(
            **shapes,
            experts=options.experts,
            top_k=options.top_k,
            rank=options.rank,
            cloud_lora_rank=options.cloud_lora_rank,
            key_dim=options.key_dim,
            dropout=options.dropout,
            arguments=_activated(options, edge, options.argument_steps),
            following=_activated(options, edge, options.following_steps),
            answers=_activated(options, edge, options.answer_steps),
        )
    if options.kind in ("shared_lora", "prompted_lora"):
        activated = options.kind == "shared_lora"
        # One expert of the rank that the generator's adapters have: K * r.
        return GeneratorConfig(
            **shapes,
            experts=1,
            top_k=1,
            rank=options.top_k * options.rank,
            dropout=options.dropout,
            cloud_lora_rank=0,
            key_dim=0,
            routed=False,
            tools_in_prompt=options.kind == "prompted_lora",
            arguments=_activated(options, edge, options.argument_steps if activated else 0),
            following=_activated(options, edge, options.following_steps if activated else 0),
            answers=_activated(options, edge, options.answer_steps if activated else 0),
        )
    raise ConfigError(f"unknown kind {options.kind!r}", hint="generator, shared_lora or prompted_lora")


def _activated(options: TrainOptions, edge: nn.Module, steps: int) -> ActivatedConfig | None:
    if not steps:
        return None
    sizes = [
        {name: (linear.out_features, linear.in_features) for name, linear in layer.items()}
        for layer in attentions(decoder(edge))
    ]
    if not sizes or any(each != sizes[0] for each in sizes):
        raise ConfigError(
            f"{type(edge).__name__} has no attention with {', '.join(ATTENTION)} of one size in all layers",
            hint="train with argument_steps, following_steps and answer_steps of 0: there are then no activated LoRAs",
        )
    return ActivatedConfig(rank=options.argument_rank, alpha=2.0 * options.argument_rank, sizes=sizes[0])
