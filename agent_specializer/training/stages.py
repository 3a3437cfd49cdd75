"""What stands beside and behind the joint steps of a run: its bank of requests, and the fits of keys and scalars."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agent_specializer.edge.pooled import pooled
from agent_specializer.loragen.toolkeys import ToolReading
from agent_specializer.specs import ToolSpec
from agent_specializer.training.activated import ActivatedStage
from agent_specializer.training.after_calls import after_calls
from agent_specializer.training.bank import Bank, fill, read_bank, read_rows, some_of
from agent_specializer.training.calibrate import (
    Part,
    calibrate,
    calibrate_behind_calls,
    fit_confidence,
    scored,
)
from agent_specializer.training.data import (
    Composition,
    Compositions,
    Kinships,
    Source,
    shipped_catalogues,
)
from agent_specializer.training.keys import choice_loss, fit, key_accuracy, talk_loss
from agent_specializer.training.made_up import vague, withheld
from agent_specializer.training.passing_on import SHARE, with_passing_on
from agent_specializer.training.required import Known, fit_given, given_rates, known, requiring
from agent_specializer.training.state import save_state

if TYPE_CHECKING:
    from agent_specializer.training.trainer import Trainer

READINGS = "readings.pt"
"""What the cloud makes of the tools, kept beside the run: it never changes."""
FIRST = 1_000_000
"""Compositions that fill the bank of requests are numbered from here: others than those of the joint steps."""
REFRESH = 25
"""Steps for which the mean gates are kept."""
DRAWS = 2
"""Times that conversations are made to fit what counts behind a call on: of one draw some scalars come out otherwise than of another."""


def prepare(run: Trainer, *, fresh: bool) -> None:
    """Fill the bank; before the first step, where keys are `fresh`, fit them on what the untrained edge makes of some of it."""
    options, read = run.options, partial(_readings, run)
    supply = Compositions(
        run.train_sources, seed=options.seed, examples=options.key_examples, opaque_share=0.0
    )
    kin = Kinships(run.train_sources)
    compositions = [supply[FIRST + i] for i in range(options.key_compositions)]
    run.bank = fill(compositions, run.tokenizer, read, kin, seed=options.seed)
    held_out = Compositions(
        run.dev_sources, seed=options.seed, examples=options.key_examples, opaque_share=0.0
    )
    count = max(1, options.key_compositions // 30)
    run.dev_bank = fill(
        [held_out[FIRST + i] for i in range(count)],
        run.tokenizer,
        read,
        kin,
        seed=options.seed,
    )
    if run.step == 0:
        row: dict[str, Any] = {
            "step": 0,
            "stage": "bank",
            "requests": len(run.bank),
            "tools": len(run.bank.tools),
        }
        run.log(row | (_fit(run, start=True, epochs=options.key_epochs) if fresh else {}))
        save_state(run)


def _fit(run: Trainer, *, start: bool, epochs: int) -> dict[str, float]:
    """Fit keys on what the edge makes of part of the bank under the mean gates."""
    assert run.bank is not None
    assert run.dev_bank is not None
    options, config = run.options, run.generator.config
    run.generator.eval()
    gates = mean_gates(run)
    rng = random.Random(f"{options.seed}/fit")
    part = some_of(run.bank, rng.sample(range(len(run.bank)), min(options.fit_requests, len(run.bank))))
    with pooled(run.edge, run.generator.pool, gates[None]):
        read, read_dev = read_bank(run.edge, part), read_bank(run.edge, run.dev_bank)
    keys, head = run.generator.keys, run.generator.head
    if start:
        run.generator.restart_keys(options.seed)
    keys.cpu(), head.cpu()
    fit(
        keys,
        head,
        part,
        read,
        epochs=epochs,
        lr=options.key_lr,
        seed=options.seed,
        alike=config.cloud == config.edge,
        start=start,
    )
    found = {"train": key_accuracy(keys, head, part, read)}
    found["dev"] = key_accuracy(keys, head, run.dev_bank, read_dev)
    keys.to(run.accelerator.device), head.to(run.accelerator.device)
    return {f"keys_{split}_{k}": round(v, 4) for split, some in found.items() for k, v in some.items()}


def wide_loss(run: Trainer, bank: Bank) -> tuple[Tensor, int]:
    """Loss of this step's requests of the bank, under the mean gates: keys against many tools, and how requests sound."""
    options, world = run.options, run.accelerator.num_processes
    count = len(bank.batches(options.key_tokens, random.Random(f"{options.seed}/wide/0")))
    epoch, place = divmod(run.step * world + run.accelerator.process_index, count)
    order = bank.batches(options.key_tokens, random.Random(f"{options.seed}/wide/{epoch}"))
    some = order[place % len(order)]
    rows = [bank.rows[i] for i in some]
    if run.mean_gates is None or run.step % REFRESH == 0:
        run.mean_gates = mean_gates(run)
    with pooled(run.edge, run.generator.pool, run.mean_gates[None]):
        read = read_rows(run.edge, rows)
    generator = torch.Generator().manual_seed(
        random.Random(f"{options.seed}/wide/{run.step}").getrandbits(32)
    )
    at = torch.tensor(some)
    keys, head = run.generator.keys, run.generator.head
    choice = choice_loss(keys, head, bank, at, read, generator, foreign=options.key_foreign, dropout=0.05)
    talk = talk_loss(head, bank, at, read)
    return choice + talk, sum(len(row.prefix) for row in rows)


@torch.no_grad()
def mean_gates(run: Trainer) -> Tensor:
    """Gates (layers, experts) that stand for any toolset's, where requests of many are read together."""
    shown = [run.train_set[i].toolset for i in range(min(6, run.options.pool_size))]
    training = run.generator.training
    run.generator.eval()
    mean = run.gates(shown).mean(0)
    run.generator.train(training)
    return mean


def _readings(run: Trainer, tools: list[ToolSpec]) -> list[ToolReading]:
    """What the cloud makes of `tools`, from the run's folder where they were read before."""
    path, generator = run.out / READINGS, run.generator
    if path.exists():
        kept = torch.load(path, weights_only=True)
        generator.remember({key: ToolReading(words) for key, words in kept.items()})
    readings = generator.readings(tools, batch=16)
    if run.accelerator.is_main_process:
        kept = {key: reading.words for key, reading in generator.remembered.items()}
        torch.save(kept, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)
    return readings


def _several(run: Trainer, draw: int = 0) -> list[Composition]:
    """Held-out requests for several calls, each at some of its steps: the others hardly tell when one call is not enough."""
    asking = [
        Source(source.name, source.toolsets, some)
        for source in run.dev_sources
        if (some := [example for example in source.examples if len(example.calls) > 1])
    ]
    return [replace(each, examples=3 * each.examples) for each in _drawn(run, asking, 3 * FIRST, draw)]


def _in_words(run: Trainer) -> list[Composition]:
    """Held-out requests to answer in words: among the others they are too few."""
    told = [
        Source(source.name, source.toolsets, some)
        for source in run.dev_sources
        if (some := [example for example in source.examples if not example.calls])
    ]
    return _drawn(run, told, 4 * FIRST)


def _scored_in_words(run: Trainer) -> list[Part]:
    return [scored(run, each, number) for number, each in enumerate(_in_words(run))]


def _drawn(run: Trainer, sources: list[Source], first: int, draw: int = 0) -> list[Composition]:
    if not sources:
        return []
    supply = Compositions(sources, seed=run.options.seed, examples=8, opaque_share=0.25)
    count = run.options.calibration_compositions // 2
    return [supply[first + draw * count + i] for i in range(count)]


def _behind_calls(run: Trainer) -> list[Part]:
    """Conversations that stand behind a call, of held-out families, of the shipped catalogues and of held-out requests for several calls;
    of the latter some rows are first choices, which do not count."""
    parts = []
    for draw in range(DRAWS):
        some = _several(run, draw)
        for number, each in enumerate(_shown(run, draw)):
            rng = random.Random(f"after/{draw}/{number}")
            composition = with_passing_on(each, rng) if rng.random() < SHARE else each
            some.append(replace(composition, examples=after_calls(composition, rng, count=8)))
        parts += [scored(run, each, number) for number, each in enumerate(some) if each.examples]
    return [_after_a_call(part) for part in parts]


def _after_a_call(part: Part) -> Part:
    """`part`, of which first choices do not count."""
    return replace(part, weight=part.weight * part.called)


def _withheld(composition: Composition, number: int) -> Composition:
    """`composition` with its requests once more, with a value cut out that is required."""
    rng = random.Random(f"withheld/{number}")
    asked = (each for each in composition.examples if each.calls and each.messages[-1].role == "user")
    cuts = (withheld(each, composition.toolset.tool(each.calls[0].name), rng) for each in asked)
    return replace(composition, examples=tuple(cut[0] for cut in cuts if cut))


def _fit_given(run: Trainer) -> dict[str, float]:
    """Fit how it is told which of what a tool requires a request gives; how often that is then right, on held-out families."""
    options = run.options
    if run.generator.config.tools_in_prompt:
        return {}
    some: dict[str, list[Known]] = {"train": [], "dev": []}
    for split, sources, count in (
        ("train", run.train_sources, options.required_compositions),
        ("dev", run.dev_sources, options.required_compositions // 8),
    ):
        if asking := requiring(sources):
            supply = Compositions(asking, seed=options.seed, examples=8, opaque_share=0.15)
            for number in range(count):
                some[split] += known(run, supply[5 * FIRST + number], number)
    if not some["train"]:
        return {}
    fit_given(run.generator.head, some["train"])
    return given_rates(run.generator.head, some["dev"]) if some["dev"] else {}


def _shown(run: Trainer, draw: int = 0) -> list[Composition]:
    """What scalars are fitted on: held-out families, and the shipped catalogues."""
    supply = Compositions(run.dev_sources, seed=run.options.seed, examples=8, opaque_share=0.25)
    count = run.options.calibration_compositions
    return [supply[2 * FIRST + draw * count + i] for i in range(count)] + shipped_catalogues()


def finish(run: Trainer) -> None:
    """The second stage: keys fitted anew, then the scalars and the confidence (`training.keys`, `calibrate`)."""
    row: dict[str, Any] = {"step": run.step, "stage": "keys"}
    if run.has_keys and run.step:
        row |= _fit(run, start=False, epochs=run.options.key_epochs)
    shown = _shown(run)
    head = run.generator.head
    row |= _fit_given(run)
    asked = [scored(run, each, number) for number, each in enumerate(shown)]
    told = _scored_in_words(run)
    unsaid = [replace(each, examples=vague(each.toolset)) for each in shown[::2]]
    unsaid += [_withheld(each, number) for number, each in enumerate(shown)]
    asked_back = [scored(run, each, number) for number, each in enumerate(unsaid) if each.examples]
    row |= calibrate(head, [*asked, *told, *_behind_calls(run)], asked_back)
    # The confidence is that of requests as they come, not of a balance of calls and words.
    row["temperature"] = fit_confidence(head, asked)
    row |= run.dev_score()
    run.history.append(row)
    run.log(row)
    run.finished = True
    save_state(run)


def refit_following(run: Trainer) -> None:
    """The scalars that count behind a call alone, of a finished checkpoint whose LoRA for what follows one was trained."""
    run.generator.eval()
    told = [_after_a_call(part) for part in _scored_in_words(run)]
    row: dict[str, Any] = {"step": run.step, "stage": "after calls"}
    row |= calibrate_behind_calls(run.generator.head, [*told, *_behind_calls(run)])
    run.history.append(row)
    run.log(row)
    save_state(run)


def fit_activated(run: Trainer, name: str, stage: ActivatedStage, until: float | None) -> None:
    """The stage of an activated LoRA (`training.following`, `training.arguments`), from where it was left to its end, or `until`
    (`time.monotonic`)."""
    options = run.options
    if run.mean_gates is None:
        run.mean_gates = mean_gates(run)
    run.generator.train()
    try:
        while stage.step < stage.steps and (until is None or time.monotonic() < until):
            began = time.monotonic()
            row: dict[str, Any] = {"stage": name}
            row |= {key: round(value, 4) for key, value in stage.train_step().items()}
            row |= {"step": stage.step, "seconds": round(time.monotonic() - began, 2)}
            ended = stage.step == stage.steps
            if ended or stage.step % options.dev_every == 0:
                row |= stage.dev()
            run.history.append(row)
            run.log(row)
            if ended or stage.step % options.save_every == 0:
                save_state(run)
    finally:
        run.generator.eval()
    save_state(run)
