"""One training run: what a step draws, computes and changes; dev score; resumable state.

What is drawn at a step depends on the seed and the step alone, so a run that was cut and resumed sees what an unbroken
one would have. Several devices share a step through Accelerate: each takes compositions of its own, gradients are averaged.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, get_cosine_schedule_with_warmup

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.pooled import pooled
from agent_specializer.errors import CheckpointError, ConfigError
from agent_specializer.loragen.checkpoint import load_parts, save_checkpoint
from agent_specializer.loragen.cloud import tokenize
from agent_specializer.loragen.generator import Generator, GeneratorConfig
from agent_specializer.loragen.models import shape_of
from agent_specializer.loragen.router import balance_loss
from agent_specializer.loragen.toolkeys import ToolReading
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.bank import Bank, fill, need_loss, read_bank, read_rows, some_of
from agent_specializer.training.data import Composition, Compositions, Kinships, read_sources, vague
from agent_specializer.training.keys import (
    NEED_WEIGHT,
    calibrate,
    choice_loss,
    fit,
    fit_confidence,
    key_accuracy,
)
from agent_specializer.training.objective import BALANCE_WEIGHT, Scores, loss, score
from agent_specializer.training.rows import Batch, collate, empty_row, example_row

STATE = "state.pt"
READINGS = "readings.pt"
"""What the cloud makes of the tools, kept beside the run: it never changes."""
FIRST = 1_000_000
"""Compositions that fill the bank of requests are numbered from here: others than those of the joint steps."""
REFRESH = 25
"""Steps for which the mean gates are kept."""


@dataclass(frozen=True)
class TrainOptions:
    """`kind`: the generator, or a baseline trained on the same data: one LoRA for all toolsets, with or without tools
    in its prompt. `pool_size`: how many compositions the run draws from; their descriptions' keys and values are kept
    up to `cache_bytes`. `per_step`: compositions of `examples` requests per step and device; beside them stand requests of
    `key_tokens` tokens from a bank of `key_compositions` compositions of `key_examples`, told apart from `key_foreign` tools.
    `fit_requests`: of the bank, how many are read for the second stage."""

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
    key_dim: int = 256
    dropout: float = 0.0
    key_tokens: int = 2048
    key_foreign: int = 256
    key_compositions: int = 1500
    key_examples: int = 24
    key_epochs: int = 8
    fit_requests: int = 8000
    calibration_compositions: int = 48


class Trainer:
    """One run: the generator, its optimiser, and what is needed to draw and score a step."""

    def __init__(
        self,
        *,
        cloud: nn.Module,
        edge: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        cloud_tokenizer: PreTrainedTokenizerBase | None = None,
        data: Path,
        out: Path,
        options: TrainOptions,
        exclude: tuple[str, ...] = (),
        start: Path | None = None,
        log: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.options, self.out, self.log, self.tokenizer = options, out, log, tokenizer
        device = self.accelerator.device
        self.edge = edge.requires_grad_(False).to(device)
        cloud.requires_grad_(False).to(device)
        sources, dev = read_sources(data, exclude=exclude)
        self._train_sources, self._dev_sources = sources, dev or sources
        self.sources = {s.name: len(s.examples) for s in sources}
        self.choice_only = {id_ for s in sources if s.choice_only for id_ in s.by_toolset}
        self.train_set = Compositions(sources, seed=options.seed, examples=options.examples)
        dev_set = Compositions(dev or sources, seed=options.seed + 1_000_003, opaque_share=0.0)
        opaque_set = Compositions(dev or sources, seed=options.seed + 1_000_003, opaque_share=1.0)
        half = max(1, options.dev_compositions // 2)
        self.dev = {
            "kept": [dev_set[i] for i in range(options.dev_compositions)],
            "opaque": [opaque_set[i] for i in range(half)],
        }
        torch.manual_seed(options.seed)
        config = _config(options, cloud, edge)
        self.generator = Generator(config, cloud, cloud_tokenizer or tokenizer).to(device)
        if self.generator.config.routed:
            self.generator.reader.start_from(cloud, torch.Generator().manual_seed(options.seed))
        self.optimizer = torch.optim.AdamW(
            _groups(self.generator, options.weight_decay), lr=options.lr, betas=(0.9, 0.999)
        )
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, options.warmup, options.steps)
        if start is not None:
            self._start_from(start)
        self.step = 0
        self.finished = False
        self.bank: Bank | None = None
        self.mean_gates: Tensor | None = None
        self.history: list[dict[str, Any]] = []
        self._descriptions: OrderedDict[str, list[tuple[Tensor, Tensor]]] = OrderedDict()

    # One step -----------------------------------------------------------------------------------------------------

    def compositions(self, step: int) -> list[int]:
        """Numbers of the compositions of `step` on this device: epochs over the pool, each in an order of its own."""
        world, rank, per = (
            self.accelerator.num_processes,
            self.accelerator.process_index,
            self.options.per_step,
        )
        numbers = []
        for i in range(per):
            index = (step * world + rank) * per + i
            epoch, place = divmod(index, self.options.pool_size)
            order = random.Random(f"{self.options.seed}/epoch/{epoch}").sample(
                range(self.options.pool_size), self.options.pool_size
            )
            numbers.append(order[place])
        return numbers

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns loss, balance, gradient norm, tokens."""
        self.generator.train()
        batches, gates, tokens = [], [], 0
        for number in self.compositions(self.step):
            composition = self.train_set[number]
            rng = random.Random(f"{self.options.seed}/step/{self.step}/{number}")
            torch.manual_seed(rng.getrandbits(32))  # dropout
            batches.append((composition, self.batch(composition, rng)))
        stacked = self.gates([c.toolset for c, _ in batches])
        total = torch.zeros((), device=stacked.device)
        choice = 0.0
        for (composition, batch), row in zip(batches, stacked, strict=True):
            scores = self.scores(composition.toolset, batch, row)
            part = loss(scores, batch, opaque=composition.opaque) / len(batches)
            total = total + part
            gates.append(row)
            tokens += batch.tokens
            choice += accuracy(scores.total, batch) / len(batches)
        if self.bank is not None:
            wide, read_tokens = self.wide_loss(self.bank)
            total, tokens = total + wide, tokens + read_tokens
        balance = balance_loss(torch.stack(gates))
        total = total + BALANCE_WEIGHT * balance
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        parameters = [p for p in self.generator.parameters() if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return {
            "loss": float(total.detach()),
            "balance": float(balance.detach()),
            "choice_accuracy": choice,
            "gradient_norm": float(norm),
            "tokens": tokens,
        }

    def wide_loss(self, bank: Bank) -> tuple[Tensor, int]:
        """Loss of this step's requests of the bank, under the mean gates: keys against many tools, and needs."""
        options, world = self.options, self.accelerator.num_processes
        count = len(bank.batches(options.key_tokens, random.Random(f"{options.seed}/wide/0")))
        epoch, place = divmod(self.step * world + self.accelerator.process_index, count)
        order = bank.batches(options.key_tokens, random.Random(f"{options.seed}/wide/{epoch}"))
        some = order[place % len(order)]
        rows = [bank.rows[i] for i in some]
        if self.mean_gates is None or self.step % REFRESH == 0:
            self.mean_gates = self._mean_gates()
        with pooled(self.edge, self.generator.pool, self.mean_gates[None]):
            read = read_rows(self.edge, rows)
        generator = torch.Generator().manual_seed(
            random.Random(f"{options.seed}/wide/{self.step}").getrandbits(32)
        )
        at = torch.tensor(some)
        keys, head = self.generator.keys, self.generator.head
        choice = choice_loss(
            keys, head, bank, at, read.features, generator, foreign=options.key_foreign, dropout=0.05
        )
        need = need_loss(keys, head, bank, at, read)
        return choice + NEED_WEIGHT * need, sum(len(row.prefix) for row in rows)

    def batch(self, composition: Composition, rng: random.Random, limit: int | None = None) -> Batch:
        """The rows of a composition's examples and of the empty request, on the device."""
        toolset = composition.toolset
        tree = NameTree.of(self.tokenizer, toolset.names)
        context = describe_toolset(toolset) if self.generator.config.tools_in_prompt else ""
        examples = rng.sample(
            composition.examples, min(limit or self.options.examples, len(composition.examples))
        )
        rows = [
            example_row(
                self.tokenizer,
                example,
                toolset,
                tree,
                rng,
                arguments=example.toolset_id not in self.choice_only,
                context=context,
            )
            for example in examples
        ]
        batch = collate([*rows, empty_row(self.tokenizer, context)], tree, self.tokenizer.pad_token_id or 0)
        device = self.accelerator.device
        moved = {k: v.to(device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
        return Batch(**moved, tree=tree)

    def gates(self, toolsets: list[Toolset]) -> Tensor:
        """Gates (toolsets, layers, experts), differentiable through router, meta tokens and the cloud's LoRA."""
        generator = self.generator
        if not generator.config.routed:
            config = generator.config
            return torch.full(
                (len(toolsets), config.edge.layers, config.experts),
                1 / config.experts,
                device=self.accelerator.device,
            )
        states = [generator.reader.states_behind(generator.cloud, self.description(t)) for t in toolsets]
        gates: Tensor = generator.router(torch.stack(states))
        return gates

    def description(self, toolset: Toolset) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the toolset's description; the least recently used are dropped above `cache_bytes`."""
        cache = self._descriptions
        if toolset.fingerprint in cache:
            cache.move_to_end(toolset.fingerprint)
        else:
            ids = tokenize(self.generator.tokenizer, describe_toolset(toolset), self.accelerator.device)
            cache[toolset.fingerprint] = self.generator.reader.read(self.generator.cloud, ids)
            while len(cache) > 1 and sum(map(_bytes, cache.values())) > self.options.cache_bytes:
                cache.popitem(last=False)
        return cache[toolset.fingerprint]

    def scores(self, toolset: Toolset, batch: Batch, gates: Tensor) -> Scores:
        """Scores of a batch under `gates` (layers, experts)."""
        generator = self.generator
        keys, needs = torch.empty(0, 0), None
        if generator.config.routed and generator.config.key_dim:
            keys = generator.keys(generator.features(toolset.tools).to(self.accelerator.device))
            found = generator.needs(toolset)
            if found.of:
                of = torch.tensor([toolset.names.index(tool) for tool, _ in found.of])
                needs = (found.vectors.to(self.accelerator.device), of)
        with pooled(self.edge, generator.pool, gates[None]):  # the same for every row
            return score(self.edge, generator.head, batch, keys, needs)

    # Dev score ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def dev_score(self) -> dict[str, float]:
        """Choice accuracy on toolsets of families never trained on, names kept and opaque; with keys in wrong places."""
        self.generator.eval()
        out: dict[str, float] = {}
        for names, compositions in self.dev.items():
            sums = {"accuracy": 0.0, "names_only": 0.0, "keys_only": 0.0, "wrong_keys": 0.0, "reply_nll": 0.0}
            for number, composition in enumerate(compositions):
                batch = self.batch(composition, random.Random(f"dev/{number}"), limit=8)
                scores = self.scores(composition.toolset, batch, self.gates([composition.toolset])[0])
                sums["accuracy"] += accuracy(scores.total, batch)
                sums["names_only"] += accuracy(scores.names, batch)
                sums["reply_nll"] += float(scores.reply_nll)
                if scores.keys is not None:
                    sums["keys_only"] += accuracy(scores.keys, batch)
                    wrong = torch.cat([scores.keys[:, :-1].roll(1, dims=1), scores.keys[:, -1:]], dim=1)
                    sums["wrong_keys"] += accuracy(scores.total - scores.keys + wrong, batch)
            out |= {f"dev_{names}_{key}": round(value / len(compositions), 4) for key, value in sums.items()}
        return out

    # Whole run ----------------------------------------------------------------------------------------------------

    def run(self, *, resume: bool = False, stop_after: float | None = None) -> Path:
        """Train to the end (or for `stop_after` seconds); writes the checkpoint and the run's state as it goes."""
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            self.load_state()
        elif (self.out / STATE).exists():
            raise ConfigError(
                f"{self.out} holds a run already", hint="go on with --resume, or give another --out"
            )
        if self._has_keys and not self.finished:
            self.prepare()
        started = last = time.monotonic()
        tokens = 0
        while self.step < self.options.steps:
            row: dict[str, Any] = self.train_step()
            tokens += int(row["tokens"])
            now = time.monotonic()
            row |= {
                "step": self.step,
                "seconds": round(now - last, 2),
                "tokens_per_second": round(tokens / (now - started)),
            }
            last = now
            if self.step % self.options.dev_every == 0 or self.step == self.options.steps:
                row |= self.dev_score()
            self.history.append(row)
            self.log(row)
            cut = stop_after is not None and now - started > stop_after
            if self.step % self.options.save_every == 0 or self.step == self.options.steps or cut:
                self.save_state()
            if cut:
                return self.out
        if not self.finished:
            self.finish()
        return self.out

    @property
    def _has_keys(self) -> bool:
        config = self.generator.config
        return bool(config.routed and config.key_dim)

    def prepare(self) -> None:
        """Fill the bank; before the first step fit keys and needs on what the untrained edge makes of some of it."""
        options = self.options
        supply = Compositions(
            self._train_sources, seed=options.seed, examples=options.key_examples, opaque_share=0.0
        )
        kin = Kinships(self._train_sources)
        compositions = [supply[FIRST + i] for i in range(options.key_compositions)]
        self.bank = fill(compositions, self.tokenizer, self._readings, kin, seed=options.seed)
        held_out = Compositions(
            self._dev_sources, seed=options.seed, examples=options.key_examples, opaque_share=0.0
        )
        count = max(1, options.key_compositions // 30)
        self._dev_bank = fill(
            [held_out[FIRST + i] for i in range(count)],
            self.tokenizer,
            self._readings,
            kin,
            seed=options.seed,
        )
        if self.step == 0:
            row: dict[str, Any] = {
                "step": 0,
                "stage": "bank",
                "requests": len(self.bank),
                "tools": len(self.bank.tools),
            }
            self.log(row | self._fit(start=True, epochs=options.key_epochs))
            self.save_state()

    def _fit(self, *, start: bool, epochs: int, lr: float = 1e-3) -> dict[str, float]:
        """Fit keys and needs on what the edge makes of part of the bank under the mean gates."""
        assert self.bank is not None
        options, config = self.options, self.generator.config
        self.generator.eval()
        gates = self._mean_gates()
        rng = random.Random(f"{options.seed}/fit")
        part = some_of(
            self.bank, rng.sample(range(len(self.bank)), min(options.fit_requests, len(self.bank)))
        )
        with pooled(self.edge, self.generator.pool, gates[None]):
            read, read_dev = read_bank(self.edge, part), read_bank(self.edge, self._dev_bank)
        keys, head = self.generator.keys, self.generator.head
        if start:
            self.generator.restart_keys(options.seed)
        keys.cpu(), head.cpu()
        fit(
            keys,
            head,
            part,
            read,
            epochs=epochs,
            seed=options.seed,
            alike=config.cloud == config.edge,
            start=start,
            lr=lr,
        )
        found = {"train": key_accuracy(keys, head, part, read)}
        found["dev"] = key_accuracy(keys, head, self._dev_bank, read_dev)
        keys.to(self.accelerator.device), head.to(self.accelerator.device)
        return {f"keys_{split}_{k}": round(v, 4) for split, some in found.items() for k, v in some.items()}

    @torch.no_grad()
    def _mean_gates(self) -> Tensor:
        """Gates (layers, experts) that stand for any toolset's, where requests of many are read together."""
        shown = [self.train_set[i].toolset for i in range(min(6, self.options.pool_size))]
        training = self.generator.training
        self.generator.eval()
        mean = self.gates(shown).mean(0)
        self.generator.train(training)
        return mean

    def _readings(self, tools: list[ToolSpec]) -> list[ToolReading]:
        """What the cloud makes of `tools`, from the run's folder where they were read before."""
        path, generator = self.out / READINGS, self.generator
        if path.exists():
            kept = torch.load(path, weights_only=True)
            generator.remember({key: ToolReading(*value) for key, value in kept.items()})
        readings = generator.readings(tools, batch=16)
        if self.accelerator.is_main_process:
            kept = {key: (reading.tool, reading.parameters) for key, reading in generator.remembered.items()}
            torch.save(kept, path.with_suffix(".tmp"))
            os.replace(path.with_suffix(".tmp"), path)
        return readings

    def _start_from(self, folder: Path) -> None:
        """Take experts, router and reader from another run's checkpoint."""
        parts = ("pool", "router", "reader") if self.generator.config.routed else ("pool", "head")
        load_parts(self.generator, folder, parts)

    def finish(self) -> None:
        """The second stage: keys and needs fitted anew, then the scalars and the confidence (`training.keys`)."""
        options, seed = self.options, self.options.seed
        row: dict[str, Any] = {"step": self.step, "stage": "keys"}
        if self._has_keys:
            row |= self._fit(start=False, epochs=options.key_epochs // 2, lr=5e-4)
        supply = Compositions(self._dev_sources, seed=seed, examples=8, opaque_share=0.25)
        shown = [supply[2 * FIRST + i] for i in range(options.calibration_compositions)]
        row |= calibrate(self, [*shown, *map(vague, shown[::2])])
        row["temperature"] = fit_confidence(self, self.dev["kept"])
        row |= self.dev_score()
        self.history.append(row)
        self.log(row)
        self.finished = True
        self.save_state()

    def save_state(self) -> None:
        """The run's state and the generator's checkpoint, each replaced atomically."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "finished": self.finished,
            "history": self.history,
            "mean_gates": self.mean_gates,
            "options": asdict(self.options),
        }
        temporary = self.out / f"{STATE}.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.out / STATE)
        card = {"options": asdict(self.options), "steps_done": self.step, "sources": self.sources}
        card["dev"] = next((_dev_of(row) for row in reversed(self.history) if _dev_of(row)), {})
        save_checkpoint(self.generator, self.out, card=card)
        (self.out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.history))

    def load_state(self) -> None:
        path = self.out / STATE
        if not path.exists():
            raise CheckpointError(f"no run to resume in {self.out}", hint="start one without --resume")
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        changed = {k for k, v in asdict(self.options).items() if state["options"].get(k) != v}
        if changed:
            raise ConfigError(
                f"the run in {self.out} has other {', '.join(sorted(changed))}",
                hint="resume with the same options",
            )
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.history, self.finished = state["step"], state["history"], state["finished"]
        self.mean_gates = state.get("mean_gates")


def accuracy(scores: Tensor, batch: Batch) -> float:
    """Share of rows whose best choice that is not excluded is the right one."""
    best = scores.masked_fill(batch.excluded[:-1], float("-inf")).argmax(-1)
    return float((best == batch.gold[:-1]).float().mean())


def _config(options: TrainOptions, cloud: nn.Module, edge: nn.Module) -> GeneratorConfig:
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
        )
    if options.kind in ("shared_lora", "prompted_lora"):
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
        )
    raise ConfigError(f"unknown kind {options.kind!r}", hint="generator, shared_lora or prompted_lora")


def _groups(generator: Generator, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for biases, norms and the scalars of the choice head."""
    matrices = [p for p in generator.parameters() if p.dim() >= 2]
    rest = [p for p in generator.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _bytes(description: list[tuple[Tensor, Tensor]]) -> int:
    return sum(k.nbytes + v.nbytes for k, v in description)


def _dev_of(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith("dev_")}
