"""Forward passes of several conversations at once: each lane adds its tokens behind what it has in the cache.

Lanes advance at their own pace. What a lane does not add in a pass is padding, which nobody attends to; what it takes
back (the names of a tree once they are scored, a rejected call) becomes padding, and is cut off where it is at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.attention import PAD, segment_masks
from agent_specializer.edge.choose import Branches
from agent_specializer.loragen.features import words_of
from agent_specializer.loragen.models import cached, decoder, layers_dtype, logits

NONE: Mapping[str, Activated] = {}

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer, (1, kv heads, tokens, head_dim) each."""


@dataclass(frozen=True)
class Feed:
    """What a lane wants to read next.

    Attributes:
        tokens: ids to add, at least one.
        forget: how many of the tokens added last are taken back before.
        tree: what else to read behind the tokens, side by side; it leaves no trace in the cache.
        rows: ids of the tokens whose logits behind the last token are wanted; "all", or None for none.
        words: whether what the model makes of each of `tokens`, and of the tree's, is wanted.
        under: the activated LoRA under which they are read (`edge.activated`); empty: none.
    """

    tokens: list[int]
    forget: int = 0
    tree: Branches | None = None
    rows: Tensor | str | None = None
    words: bool = False
    under: str = ""


@dataclass(frozen=True)
class Seen:
    """What came of a feed.

    Attributes:
        states: (1 + tree tokens, hidden) behind its last token and in its tree.
        logits: (rows,), where asked for.
        words: (tokens, hidden) float32, a unit vector for each of its tokens, where asked for (`loragen.features`);
            branches: (tree tokens, hidden), the same for those of its tree.
    """

    states: Tensor
    logits: Tensor | None
    words: Tensor | None = None
    branches: Tensor | None = None


class Lanes:
    """The caches of `count` conversations on one model.

    Args:
        weights: makes a context in which the lanes given to it (a list of their numbers) run through their own
            weights: pooled mode. None: the model as it is.
        prefix: what all lanes have read already (`keys_values`).
        activated: the LoRAs that feeds may be `under`; one that is not there changes nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        count: int,
        *,
        weights: Callable[[list[int]], AbstractContextManager[None]] | None = None,
        prefix: KeysValues | None = None,
        activated: Mapping[str, Activated] = NONE,
    ) -> None:
        self.model, self.config = model, model.config
        self._decoder = decoder(model)
        self._device, self._dtype = next(model.parameters()).device, layers_dtype(model)
        self._weights = weights or (lambda lanes: nullcontext())
        self._activated = activated
        self._cache = DynamicCache()
        self._cached = cached(self._decoder, self._cache)
        self._lanes = list(range(count))
        """The lane of each row of the cache."""
        self._segments = torch.zeros(count, 0, dtype=torch.long)
        self._positions = torch.zeros(count, 0, dtype=torch.long)
        if prefix is not None:
            self._adopt(prefix)

    def keys_values(self, tokens: int) -> KeysValues:
        """Keys and values of the first `tokens` tokens of a single lane."""
        layers: Sequence[Any] = self._cache.layers
        return [(layer.keys[:, :, :tokens], layer.values[:, :, :tokens]) for layer in layers]

    def _adopt(self, prefix: KeysValues) -> None:
        count = len(self._lanes)
        for layer, (keys, values) in enumerate(prefix):
            self._cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), layer)
        length = prefix[0][0].shape[2]
        self._segments = torch.zeros(count, length, dtype=torch.long)
        self._positions = torch.arange(length).expand(count, -1)

    def run(self, feeds: dict[int, Feed]) -> dict[int, Seen]:
        """One forward pass over the feeds of some lanes. Lanes that are left out are closed for good."""
        self._keep_only(feeds)
        active = [feeds[lane] for lane in self._lanes]
        for row, feed in enumerate(active):
            self._forget(row, feed.forget)
        self._cut()
        ids, segments, positions = self._layout(active)
        width = ids.shape[1]
        self._segments = torch.cat([self._segments, segments], 1)
        self._positions = torch.cat([self._positions, positions], 1)
        with ExitStack() as weights:
            weights.enter_context(self._weights(self._lanes))
            for name, lora in self._activated.items():
                weights.enter_context(lora.rows([feed.under == name for feed in active]))
            out = self._decoder(
                input_ids=ids.to(self._device),
                position_ids=positions.to(self._device),
                attention_mask=self._mask(width),
                output_hidden_states=any(feed.words for feed in active),
                **self._cached,
            )
        # What stands in a tree is read and gone.
        self._segments[:, -width:][segments > 0] = PAD
        self._cut()
        return self._read(active, out.last_hidden_state, out.hidden_states)

    def _keep_only(self, feeds: dict[int, Feed]) -> None:
        keep = [row for row, lane in enumerate(self._lanes) if lane in feeds]
        if len(keep) == len(self._lanes):
            return
        self._lanes = [self._lanes[row] for row in keep]
        rows = torch.tensor(keep)
        self._segments, self._positions = self._segments[rows], self._positions[rows]
        self._cache.batch_select_indices(rows.to(self._device))

    def _forget(self, row: int, count: int) -> None:
        if count:
            kept = (self._segments[row] != PAD).nonzero().flatten()
            self._segments[row, kept[-count:]] = PAD

    def _cut(self) -> None:
        """Cut columns at the end that are padding in every lane."""
        used = (self._segments != PAD).any(0).nonzero().flatten()
        length = int(used[-1]) + 1 if len(used) else 0
        surplus = self._segments.shape[1] - length
        if surplus:
            self._segments, self._positions = self._segments[:, :length], self._positions[:, :length]
            self._cache.crop(-surplus)

    def _layout(self, feeds: Sequence[Feed]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, segments and positions of the new tokens, each (rows, width): tokens, then tree, then padding."""
        width = max(len(feed.tokens) + (len(feed.tree.tokens) if feed.tree else 0) for feed in feeds)
        ids = torch.zeros(len(feeds), width, dtype=torch.long)
        segments = torch.full((len(feeds), width), PAD)
        positions = torch.zeros(len(feeds), width, dtype=torch.long)
        lengths = (self._segments != PAD).sum(1).tolist()
        for row, (feed, length) in enumerate(zip(feeds, lengths, strict=True)):
            count = len(feed.tokens)
            ids[row, :count] = torch.tensor(feed.tokens)
            segments[row, :count] = 0
            positions[row, :count] = torch.arange(length, length + count)
            if feed.tree is not None and len(feed.tree.tokens):
                end = count + len(feed.tree.tokens)
                ids[row, count:end] = feed.tree.tokens
                segments[row, count:end] = feed.tree.segments
                positions[row, count:end] = feed.tree.depths + length + count
        return ids, segments, positions

    def _mask(self, width: int) -> Any:
        length = self._segments.shape[1]
        plain = len(self._lanes) == 1 and not self._segments.any()
        window = getattr(self.config, "sliding_window", None)
        if plain and width == length:
            return None  # causal from the start: the model's own masks
        if plain and width == 1 and (window is None or length <= window):
            # One token that sees all before it needs no mask. Named per kind of layer, or the model would make its own.
            kinds = set(getattr(self.config, "layer_types", None) or ())
            return dict.fromkeys(kinds) if kinds else None
        return segment_masks(
            self.config,
            self._segments.to(self._device),
            self._positions.to(self._device),
            queries=width,
            dtype=self._dtype,
        )

    def _read(self, feeds: Sequence[Feed], out: Tensor, deep: tuple[Tensor, ...] | None) -> dict[int, Seen]:
        last = torch.tensor([len(feed.tokens) - 1 for feed in feeds])
        states = [
            out[row, last[row] : last[row] + 1 + (len(feed.tree.tokens) if feed.tree else 0)]
            for row, feed in enumerate(feeds)
        ]
        whole = [row for row, feed in enumerate(feeds) if isinstance(feed.rows, str)]
        all_logits: dict[int, Tensor] = {}
        if whole:
            scored = logits(self.model, torch.stack([states[row][0] for row in whole]))
            all_logits = dict(zip(whole, scored, strict=True))
        words = words_of(deep) if deep else None
        seen = {}
        for row, (lane, feed) in enumerate(zip(self._lanes, feeds, strict=True)):
            found = all_logits.get(row)
            if isinstance(feed.rows, Tensor):
                found = logits(self.model, states[row][0], feed.rows.to(self._device))
            seen[lane] = Seen(states[row], found)
            if words is not None and feed.words:
                count, behind = len(feed.tokens), len(feed.tree.tokens) if feed.tree else 0
                own = words[row, : count + behind]
                seen[lane] = replace(seen[lane], words=own[:count], branches=own[count:])
        return seen
