"""One training run: what a step draws, computes and changes; dev score; the whole run, step after step.

What is drawn at a step depends on the seed and the step alone, so a run that was cut and resumed sees what an unbroken
one would have. Several devices share a step through Accelerate: each takes compositions of its own, gradients are averaged.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, get_cosine_schedule_with_warmup

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.merge import MergedWeights
from agent_specializer.edge.pooled import pooled
from agent_specializer.errors import ConfigError
from agent_specializer.loragen.cloud import tokenize
from agent_specializer.loragen.generator import ACTIVATED, Generator
from agent_specializer.loragen.router import balance_loss
from agent_specializer.specs import Toolset
from agent_specializer.training.answers import AnswerStage
from agent_specializer.training.arguments import ArgumentStage
from agent_specializer.training.bank import Bank
from agent_specializer.training.data import Composition, Compositions, read_sources
from agent_specializer.training.following import FollowingStage, behind_the_call
from agent_specializer.training.objective import BALANCE_WEIGHT, Scores, calibrated_names, loss, score
from agent_specializer.training.options import TrainOptions, generator_config
from agent_specializer.training.rows import Batch, collate, empty_row, example_row
from agent_specializer.training.stages import (
    finish,
    fit_activated,
    prepare,
    refit_following,
    wide_loss,
)
from agent_specializer.training.state import (
    EXPERTS,
    STATE,
    as_started,
    load_state,
    save_state,
    start_from,
    take_finished,
)

__all__ = ["TrainOptions", "Trainer", "accuracy"]

STAGES: dict[str, type[ArgumentStage | FollowingStage | AnswerStage]] = {
    "arguments": ArgumentStage,
    "following": FollowingStage,
    "answers": AnswerStage,
}
"""Of the activated LoRAs."""
MERGED = 1 << 34
"""Bytes of merged weights that may be kept: those of one adapter are needed again at every step."""


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
        only: str = "",
        log: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.options, self.out, self.log, self.tokenizer = options, out, log, tokenizer
        device = self.accelerator.device
        self.edge = edge.requires_grad_(False).to(device)
        cloud.requires_grad_(False).to(device)
        sources, dev = read_sources(data, exclude=exclude)
        self.train_sources, self.dev_sources = sources, dev or sources
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
        config = generator_config(options, cloud, edge)
        if only and start is not None:
            if only != EXPERTS:
                self.options = options = replace(options, steps=0)
            config = as_started(config, start, only)
        self.generator = Generator(config, cloud, cloud_tokenizer or tokenizer).to(device)
        if self.generator.config.routed:
            self.generator.reader.start_from(cloud, torch.Generator().manual_seed(options.seed))
        self.optimizer = torch.optim.AdamW(
            _groups(self.generator, options.weight_decay), lr=options.lr, betas=(0.9, 0.999)
        )
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, options.warmup, options.steps)
        self.step = 0
        self.only = only
        """The part that alone is trained, all others being those of a finished checkpoint: an activated LoRA, or `EXPERTS`; empty: it is a whole run."""
        self.finished = only not in ("", EXPERTS)
        self.card: dict[str, Any] = {}
        """Of that checkpoint."""
        if only:
            lacks = only != EXPERTS and (only not in ACTIVATED or getattr(self.generator, only) is None)
            if start is None or lacks:
                raise ConfigError(
                    f"there is no part {only!r} to train: no checkpoint is given, or it has none",
                    hint=f"name one with --start, of kind generator or shared_lora for a LoRA; parts are {EXPERTS}, {', '.join(ACTIVATED[:-1])} and {ACTIVATED[-1]}",
                )
            self.card = take_finished(self.generator, start)
            if only == EXPERTS:
                for lora in self.generator.activated.values():
                    lora.requires_grad_(False)
        elif start is not None:
            start_from(self.generator, start)
        self.before: dict[str, Any] | None = self.card.pop(only, None)
        """Of its card: how the LoRA was trained that this run goes on from."""
        self.stages = {name: STAGES[name](self, lora) for name, lora in self.generator.activated.items()}
        """Those of the activated LoRAs that the generator has."""
        self.bank: Bank | None = None
        self.dev_bank: Bank | None = None
        self.mean_gates: Tensor | None = None
        self.history: list[dict[str, Any]] = []
        self._merged = MergedWeights(self.edge, self.generator.pool, budget_bytes=MERGED)
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
        batches, tokens = [], 0
        for number in self.compositions(self.step):
            composition = self.train_set[number]
            rng = random.Random(f"{self.options.seed}/step/{self.step}/{number}")
            torch.manual_seed(rng.getrandbits(32))  # dropout
            batches.append((composition, self.batch(composition, rng)))
        self.optimizer.zero_grad(set_to_none=True)
        stacked = self.gates([c.toolset for c, _ in batches])
        # What a composition's pass holds is freed before the next one: the gates' gradients come together here.
        gates = stacked.detach().requires_grad_(stacked.requires_grad)
        total = choice = 0.0
        for (composition, batch), row in zip(batches, gates, strict=True):
            scores = self.scores(composition.toolset, batch, row)
            part = loss(scores, batch, opaque=composition.opaque) / len(batches)
            part.backward()
            total += float(part.detach())
            tokens += batch.tokens
            choice += accuracy(scores.total, batch) / len(batches)
        if self.bank is not None:
            wide, read_tokens = wide_loss(self, self.bank)
            wide.backward()
            total, tokens = total + float(wide.detach()), tokens + read_tokens
        balance = balance_loss(stacked)
        total += BALANCE_WEIGHT * float(balance.detach())
        if gates.grad is not None:
            torch.autograd.backward([stacked, BALANCE_WEIGHT * balance], [gates.grad, None])
        parameters = [p for p in self.generator.parameters() if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return {
            "loss": total,
            "balance": float(balance.detach()),
            "choice_accuracy": choice,
            "gradient_norm": float(norm),
            "tokens": tokens,
        }

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
        return self.placed(collate([*rows, empty_row(self.tokenizer, context)], tree, self.pad))

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def placed(self, batch: Batch) -> Batch:
        """`batch` on the device."""
        device = self.accelerator.device
        moved = {k: v.to(device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
        return Batch(**moved, tree=batch.tree)

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

    def keys(self, toolset: Toolset) -> Tensor:
        """Keys (tools, vectors, key_dim) of `toolset`, differentiable; (0, 0, 0) where there are none."""
        config = self.generator.config
        has = config.routed and config.key_dim
        return self.generator.keys_of(toolset.tools) if has else torch.empty(0, 0, 0)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While open, the edge is that of an average toolset (`mean_gates`). What is differentiated must be so before it closes."""
        assert self.mean_gates is not None
        self._merged.activate("mean", self.mean_gates)
        try:
            yield
        finally:
            self._merged.deactivate()

    def scores(self, toolset: Toolset, batch: Batch, gates: Tensor) -> Scores:
        """Scores of a batch under `gates` (layers, experts); names behind a call are those of the LoRA for what follows one, once there is any."""
        generator, keys = self.generator, self.keys(toolset)
        with pooled(self.edge, generator.pool, gates[None]):  # the same for every row
            scores = score(self.edge, generator.head, batch, keys)
            stage = self.stages.get("following")
            if stage is None or not stage.begun or not batch.called.any():
                return scores
            some = batch.behind_a_call()
            with behind_the_call(stage.activated, some):
                names = calibrated_names(self.edge, some)
        return scores.renamed(generator.head, batch, names)

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
                    assert scores.left is not None
                    for key, names_told, by in (
                        ("keys_only", torch.zeros_like(scores.names), 0),
                        ("wrong_keys", scores.names, 1),
                    ):
                        total = self.generator.head.combine(
                            names_told,
                            scores.keys.roll(by, dims=1),
                            scores.talk,
                            batch.called[:-1],
                            batch.made[:-1, :-1],
                            left=scores.left.roll(by, dims=1),
                            answered=batch.answered[:-1],
                        )
                        sums[key] += accuracy(total, batch)
            out |= {f"dev_{names}_{key}": round(value / len(compositions), 4) for key, value in sums.items()}
        return out

    # Whole run ----------------------------------------------------------------------------------------------------

    def run(self, *, resume: bool = False, stop_after: float | None = None) -> Path:
        """Train to the end (or for `stop_after` seconds); writes the checkpoint and the run's state as it goes."""
        self.out.mkdir(parents=True, exist_ok=True)
        if resume:
            load_state(self)
        elif (self.out / STATE).exists():
            raise ConfigError(
                f"{self.out} holds a run already", hint="go on with --resume, or give another --out"
            )
        if self.has_keys and not self.finished:
            prepare(self, fresh=self.only != EXPERTS)
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
                save_state(self)
            if cut:
                return self.out
        until = None if stop_after is None else started + stop_after
        wanted = {name: stage for name, stage in self.stages.items() if self.only in ("", name)}
        if following := wanted.pop("following", None):
            fit_activated(self, "following", following, until)
            if following.step < following.steps:
                return self.out
        if not self.finished:
            finish(self)
        elif self.only == "following":
            refit_following(self)
        for name, stage in wanted.items():
            fit_activated(self, name, stage, until)
        return self.out

    @property
    def has_keys(self) -> bool:
        config = self.generator.config
        return bool(config.routed and config.key_dim)


def accuracy(scores: Tensor, batch: Batch) -> float:
    """Share of rows whose best choice that is not excluded is the right one."""
    best = scores.masked_fill(batch.excluded[:-1], float("-inf")).argmax(-1)
    return float((best == batch.gold[:-1]).float().mean())


def _groups(generator: Generator, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: not for biases, norms and the scalars of the choice head. Activated LoRAs have stages of their own."""
    own = [p for name, p in generator.named_parameters() if name.split(".")[0] not in ACTIVATED]
    matrices = [p for p in own if p.dim() >= 2]
    rest = [p for p in own if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _bytes(description: list[tuple[Tensor, Tensor]]) -> int:
    return sum(k.nbytes + v.nbytes for k, v in description)
