"""The edge engine: one model, one queue. Replies in merged mode (one adapter at full speed) or pooled (any mixture).

Thread-safe: whoever comes waits for their turn. asyncio users call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.decode import Outcome, decode_reply
from agent_specializer.edge.drive import drive
from agent_specializer.edge.events import Done, Event
from agent_specializer.edge.first_choice import FirstChoice
from agent_specializer.edge.grammar import Grammars
from agent_specializer.edge.job import Job, Scorer
from agent_specializer.edge.merge import MergedWeights
from agent_specializer.edge.options import DEFAULTS, ReplyOptions
from agent_specializer.edge.passes import Feed, KeysValues, Lanes
from agent_specializer.edge.pooled import pooled
from agent_specializer.edge.prompts import Prompt, Prompts, turns_of
from agent_specializer.edge.recent import Recent
from agent_specializer.edge.request import Request, Weights, of_adapter, weights_key
from agent_specializer.edge.transcript import EMPTY, behind_request, newest_turn, render
from agent_specializer.edge.turns import Deadline, FairLock
from agent_specializer.edge.unasked import Unasked
from agent_specializer.errors import AdapterError, DecodeError
from agent_specializer.loragen.activated import ActivatedLora
from agent_specializer.loragen.adapter import Adapter, rounded
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.models import head_weight
from agent_specializer.loragen.requests import ELSEWHERE, with_requests
from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.messages import Message, Reply, Usage
from agent_specializer.specs import Toolset

KEPT_PREFIXES = 4
"""Tool prompts whose keys and values are kept, where a request asks for it."""
READ_AT_ONCE = 16
"""Texts that are read side by side."""


class EdgeEngine:
    """Replies to conversations with calls of a toolset's tools, or in words.

    Args:
        model: a causal LM with gated MLPs; the engine puts merged weights into it and takes them out again.
        pool: the generator's expert pool; without it adapters are refused.
        head: how choices are scored; None: by the calibrated log-probability alone.
        activated: the generator's LoRAs that are active for a part of a reply alone, by name (`loragen.activated`).
        merged_budget_bytes: for the merged weights of recently used adapters; those of activated LoRAs, once for all adapters, come on top.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pool: ExpertPool | None = None,
        head: ChoiceHead | None = None,
        activated: Mapping[str, ActivatedLora] | None = None,
        merged_budget_bytes: int = 1_000_000_000,
    ) -> None:
        self.model, self.tokenizer, self.pool, self.head = model, tokenizer, pool, head
        self.merged = MergedWeights(model, pool, budget_bytes=merged_budget_bytes) if pool else None
        self.activated = {name: Activated(model, lora) for name, lora in (activated or {}).items()}
        self.grammars = Grammars(tokenizer, head_weight(model).shape[0])
        self._lock = FairLock()
        self._exclusive = 0
        self._prefixes: Recent[tuple[list[int], KeysValues]] = Recent(KEPT_PREFIXES)
        context = getattr(model.config, "max_position_embeddings", None)
        self.context = int(context) if isinstance(context, int) else 1 << 20
        """Tokens that the model reads at most, prompt and reply together."""
        self._prompts = Prompts(tokenizer, self.context)
        self._unasked = Unasked(model, self._prompts)

    # ------------------------------------------------------------------------------------------------ replies

    def reply(
        self,
        messages: Sequence[Message],
        toolset: Toolset,
        *,
        adapter: Adapter | None = None,
        tools_in_prompt: bool = False,
        options: ReplyOptions = DEFAULTS,
        description_tokens: int | None = None,
    ) -> Reply:
        """The reply to a conversation, in merged mode.

        Args:
            adapter: of this toolset; None runs the base model.
            tools_in_prompt: put the toolset's description in front of the conversation: the prompted mode.
            description_tokens: of the toolset's description, where they were counted when the adapter was made. The
                tokenizer then reads the conversation and the tools' names alone.

        Raises:
            DecodeError: nothing valid fits the budget of tokens, the time or the context.
            AdapterError: the adapter is of another generator or another toolset.
        """
        request = Request(messages, toolset, adapter, tools_in_prompt, options, description_tokens)
        return self._reply(request, emit=lambda event: None, deadline=Deadline(options.timeout))

    def stream(
        self,
        messages: Sequence[Message],
        toolset: Toolset,
        *,
        adapter: Adapter | None = None,
        tools_in_prompt: bool = False,
        options: ReplyOptions = DEFAULTS,
        description_tokens: int | None = None,
    ) -> Iterator[Event]:
        """As `reply`, event by event, ending in `Done`. Closing the iterator stops the model.

        A thread of its own decodes, so that a slow reader does not keep others from the model.
        """
        request = Request(messages, toolset, adapter, tools_in_prompt, options, description_tokens)
        deadline = Deadline(options.timeout)
        events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                events.put(Done(self._reply(request, emit=events.put, deadline=deadline)))
            except BaseException as error:  # handed to the reader, who raises it
                events.put(error)

        worker = threading.Thread(target=work, name="edge-stream", daemon=True)
        worker.start()
        try:
            while True:
                event = events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Done):
                    return
        finally:
            deadline.cancel()

    def reply_batch(self, requests: Sequence[Request]) -> list[Reply | DecodeError]:
        """The replies to `requests`, any mixture of adapters in one batch (pooled mode), in their order.

        A request that cannot be completed has its DecodeError as its item; the others are not affected.
        """
        if not requests:
            return []
        began = time.perf_counter()
        deadline = Deadline(min((r.options.timeout for r in requests if r.options.timeout), default=None))
        self._lock.acquire(deadline.left)
        try:
            with torch.inference_mode():
                self._pristine()
                return self._batch(requests, began, deadline)
        finally:
            self._lock.release()

    def priors(
        self, toolset: Toolset, *, adapter: Adapter | None = None, tools_in_prompt: bool = False
    ) -> Tensor:
        """Log-probability of each tool's name, and last of answering in words, after an empty request.

        Returns:
            (tools + 1,) float32, in nats, on the CPU. Measured once and remembered.
        """
        with self._lock, torch.inference_mode(), self._active(adapter):
            return self._unasked.priors([Request((), toolset, adapter, tools_in_prompt)], None)[0].clone()

    def first_choices(
        self, texts: Sequence[str], toolset: Toolset, *, adapter: Adapter | None = None
    ) -> list[FirstChoice]:
        """What is chosen first for each of `texts`, a user's request each; nothing is written.

        Raises:
            DecodeError: a request is longer than the model reads.
        """
        requests = [Request((Message(role="user", content=text),), toolset, adapter) for text in texts]
        found: list[FirstChoice] = []
        with self._lock, torch.inference_mode(), self._active(adapter):
            for start in range(0, len(requests), READ_AT_ONCE):
                jobs = []
                for request in requests[start : start + READ_AT_ONCE]:
                    priors, prompt = self._unasked.priors([request], None)[0], self._prompts.prompt(request)
                    jobs.append(self._job(request, prompt, priors, 0.0, lambda event: None, None))
                feeds = {lane: FirstChoice.feed(job) for lane, job in enumerate(jobs)}
                seen = Lanes(self.model, len(jobs)).run(feeds)
                found += [FirstChoice.of(job, seen[lane]) for lane, job in enumerate(jobs)]
        return found

    def merge(self, adapter: Adapter) -> bool:
        """Merge `adapter` ahead of its first request; whether it was merged already."""
        with self._lock, torch.inference_mode():
            self._pool()
            assert self.merged is not None
            return self.merged.activate(weights_key(adapter), adapter.gates)

    def with_requests(self, adapter: Adapter, toolset: Toolset) -> Adapter:
        """`adapter` with the requests of its tools in their keys (`loragen.requests`): read under it, as users' requests are.

        Itself where it has no keys, or no tool has any.
        """
        head = self.head
        asked = [toolset.tool(name).requests for name in adapter.names]
        if head is None or not adapter.keys.numel() or not any(asked):
            return adapter
        texts = [text for some in asked for text in some]
        with self._lock, torch.inference_mode(), self._active(adapter):
            words = self._words([*texts, *ELSEWHERE])
        each = iter(words[: len(texts)])
        own = [[next(each) for _ in some] for some in asked]
        keys, lift = with_requests(head, adapter.keys, own, words[len(texts) :])
        return replace(adapter, keys=rounded(keys), lift=lift)

    @contextmanager
    def exclusive(self) -> Iterator[nn.Module]:
        """No one else uses the model, whose weights are the pristine base's: for reading task descriptions."""
        with self._lock:
            self._pristine()
            self._exclusive += 1
            try:
                yield self.model
            finally:
                self._exclusive -= 1

    # ------------------------------------------------------------------------------------------------- inside

    def _reply(self, request: Request, *, emit: Callable[[Event], None], deadline: Deadline) -> Reply:
        began = time.perf_counter()
        self._lock.acquire(deadline.left)
        try:
            with torch.inference_mode(), self._active(request.adapter):
                priors = self._unasked.priors([request], None)[0]
                prompt = self._prompts.prompt(request)
                job = self._job(request, prompt, priors, began, emit, None)
                ids, prefix = self._prefix(request, prompt)
                lanes = Lanes(self.model, 1, prefix=prefix, activated=self.activated)
                outcome = drive(lanes, [decode_reply(replace(job, cached=len(ids)))], deadline)[0]
                if request.options.keep_prefix and request.tools_in_prompt:
                    self._keep_prefix(request, prompt, lanes)
        finally:
            self._lock.release()
        if isinstance(outcome, DecodeError):
            raise outcome
        return self._finished(prompt, outcome, began)

    def _batch(
        self, requests: Sequence[Request], began: float, deadline: Deadline
    ) -> list[Reply | DecodeError]:
        weights = self._pooled_weights(requests)
        priors = self._unasked.priors(requests, weights)

        def own(row: int) -> Weights | None:
            return weights and (lambda lanes: weights([row]))

        results: dict[int, Reply | DecodeError] = {}
        prompts: dict[int, Prompt] = {}
        for index, request in enumerate(requests):
            try:
                prompts[index] = self._prompts.prompt(request)
            except DecodeError as error:
                results[index] = error
        replies = [
            decode_reply(self._job(requests[row], prompt, priors[row], began, lambda event: None, own(row)))
            for row, prompt in prompts.items()
        ]
        order = list(prompts)
        lanes = Lanes(
            self.model,
            len(replies),
            weights=weights and (lambda rows: weights([order[row] for row in rows])),
            activated=self.activated,
        )
        for index, outcome in zip(order, drive(lanes, replies, deadline), strict=True):
            results[index] = (
                outcome
                if isinstance(outcome, DecodeError)
                else self._finished(prompts[index], outcome, began)
            )
        return [results[index] for index in range(len(requests))]

    def _pooled_weights(self, requests: Sequence[Request]) -> Weights | None:
        if not any(request.adapter for request in requests):
            return None
        pool = self._pool()
        for request in requests:
            if request.adapter:
                pool.check(request.adapter.gates)
        none = torch.zeros(pool.layers, pool.experts)
        gates = torch.stack([request.adapter.gates if request.adapter else none for request in requests])
        gates = gates.to(next(self.model.parameters()).device)
        return lambda rows: pooled(self.model, pool, gates[rows])

    @contextmanager
    def _active(self, adapter: Adapter | None) -> Iterator[None]:
        """The adapter's merged weights in the model; they stay there, unless someone holds the model exclusively."""
        if adapter is None:
            self._pristine()
        else:
            self._pool()
            assert self.merged is not None
            self.merged.activate(weights_key(adapter), adapter.gates)
        try:
            yield
        finally:
            if self._exclusive:
                self._pristine()

    def _pristine(self) -> None:
        if self.merged is not None:
            self.merged.deactivate()

    def _pool(self) -> ExpertPool:
        if self.pool is None:
            raise AdapterError(
                "this engine has no expert pool, so it cannot use an adapter",
                hint="load a generator checkpoint that fits the edge model",
            )
        return self.pool

    def _words(self, texts: Sequence[str]) -> list[Tensor]:
        """What the model makes of `texts` as users' requests: of each, (tokens, hidden) float32 on the CPU, a unit vector for each of
        its own tokens (`loragen.features.words_of`)."""
        before, behind = EMPTY.split("\n")
        skipped = len(self.tokenizer(before).input_ids)
        cut = len(self.tokenizer(f"\n{behind}", add_special_tokens=False).input_ids)
        found: list[Tensor] = []
        for start in range(0, len(texts), READ_AT_ONCE):
            runs = [
                self.tokenizer(render([Message(role="user", content=text)])).input_ids
                for text in texts[start : start + READ_AT_ONCE]
            ]
            feeds = {lane: Feed(ids, words=True) for lane, ids in enumerate(runs)}
            for seen in Lanes(self.model, len(feeds)).run(feeds).values():
                assert seen.words is not None
                found.append(seen.words[skipped : len(seen.words) - cut].cpu().clone())
        return found

    def _job(
        self,
        request: Request,
        prompt: Prompt,
        priors: Tensor,
        began: float,
        emit: Callable[[Event], None],
        weights: Weights | None,
    ) -> Job:
        """`weights`: of this request alone, in pooled mode."""
        wish = request.options.tool_choice
        if wish not in ("auto", "any", "none", *request.toolset.names):
            raise DecodeError(
                f"tool_choice {wish!r} is not a tool of this agent",
                hint=f"one of auto, any, none, {', '.join(request.toolset.names)}",
            )
        newest = turns_of(request.messages)[-1] if request.messages else []
        # Keys are compared with a request that stands alone, as it did in training.
        keys = None if request.tools_in_prompt else of_adapter(request, "keys")
        scorer = Scorer(
            self._prompts.tree(request.toolset),
            self.model,
            names=request.toolset.names,
            priors=priors,
            keys=torch.empty(0, 0, 0) if keys is None else keys,
            lift=None if keys is None else of_adapter(request, "lift"),
            newest=1 if keys is None else newest_turn(self.tokenizer, prompt.text),
            head=self.head
            if request.adapter
            else None,  # it was trained for adapters, not for the bare model
        )
        return Job(
            prompt=prompt.ids,
            toolset=request.toolset,
            scorer=scorer,
            grammars=self.grammars,
            tokenizer=self.tokenizer,
            options=request.options,
            head_rows=head_weight(self.model).shape[0],
            limit=self.context,
            began=began,
            emit=emit,
            naming=lambda tool: self._unasked.naming(request, tool, weights),
            unasked=lambda tool: self._unasked.openings(request, tool, weights),
            conversation=max(1, prompt.tool_tokens),
            made=tuple(call for message in newest for call in message.calls),
            under=frozenset(self.activated if request.adapter and not request.tools_in_prompt else ()),
            behind=behind_request(self.tokenizer, prompt.text) if newest else len(prompt.ids),
        )

    def _finished(self, prompt: Prompt, outcome: Outcome, began: float) -> Reply:
        usage = Usage(
            prompt_tokens=len(prompt.ids),
            tool_prompt_tokens=prompt.tool_tokens,
            saved_prompt_tokens=prompt.saved_tokens,
            completion_tokens=outcome.completion_tokens,
            seconds=time.perf_counter() - began,
            first_token_seconds=outcome.first_token_seconds,
        )
        return Reply(
            calls=tuple(outcome.calls),
            content=outcome.content,
            usage=usage,
            confidence=outcome.confidence,
            choices=outcome.choices,
            missing=outcome.missing,
        )

    def _prefix(self, request: Request, prompt: Prompt) -> tuple[list[int], KeysValues | None]:
        """What is kept of the tool prompt that `prompt` begins with."""
        kept = self._prefixes.get((request.toolset.fingerprint, weights_key(request.adapter)))
        if not (kept and request.options.keep_prefix and request.tools_in_prompt):
            return [], None
        ids, keys_values = kept
        return (ids, keys_values) if prompt.ids[: len(ids)] == ids else ([], None)

    def _keep_prefix(self, request: Request, prompt: Prompt, lanes: Lanes) -> None:
        key = (request.toolset.fingerprint, weights_key(request.adapter))
        if self._prefixes.get(key) is None:
            # One token less than the description: its last one may have merged with the conversation's first.
            count = prompt.tool_tokens
            kept = [(keys.clone(), values.clone()) for keys, values in lanes.keys_values(count)]
            self._prefixes.put(key, (prompt.ids[:count], kept))
