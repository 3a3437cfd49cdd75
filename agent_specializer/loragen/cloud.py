"""The cloud-side LM: reads a task description and, behind it, L meta tokens, in one forward pass (LoRA-Gen, 3.1).

The model itself stays frozen. Optionally a LoRA on the q and v projections acts at the meta tokens alone, which attend
to the description's untouched keys and values: training can then keep those from an earlier pass without gradients and
run backward through the meta tokens only, and a generation still is one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from agent_specializer.errors import AdapterError
from agent_specializer.loragen.models import ModelShape, cached, changed, decoder

CLOUD_LINEARS = ("q_proj", "v_proj")


class CloudReader(nn.Module):
    """The trained part of the cloud side: meta tokens (edge layers, cloud hidden) and the LoRA on q and v."""

    def __init__(self, cloud: ModelShape, model: nn.Module, *, meta_tokens: int, lora_rank: int) -> None:
        super().__init__()
        self.meta = nn.Parameter(torch.randn(meta_tokens, cloud.hidden))
        self.lora_rank = lora_rank
        self.A, self.B = nn.ParameterList(), nn.ParameterList()
        for linear in _projections(model) if lora_rank else []:
            self.A.append(torch.randn(lora_rank, linear.in_features) / math.sqrt(linear.in_features))
            self.B.append(torch.zeros(linear.out_features, lora_rank))

    def start_from(self, model: nn.Module, generator: torch.Generator) -> None:
        """Start the meta tokens from the embeddings of random tokens, so that the frozen model can read them."""
        embed = model.get_input_embeddings()  # type: ignore[operator]
        tokens = torch.randint(embed.weight.shape[0], (len(self.meta),), generator=generator)
        with torch.no_grad():
            self.meta.copy_(embed(tokens.to(embed.weight.device)).float())

    def states(self, model: nn.Module, ids: Tensor) -> Tensor:
        """Last hidden states at the meta tokens, (meta_tokens, hidden), of one description `ids` (tokens,): one pass."""
        self.check_length(model, len(ids))
        embeds = model.get_input_embeddings()(ids[None])  # type: ignore[operator]
        embeds = torch.cat([embeds, self.meta[None].to(embeds.dtype)], dim=1)
        with self._lora(model):
            out = decoder(model)(inputs_embeds=embeds, use_cache=False)
        states: Tensor = out.last_hidden_state[0, -len(self.meta) :]
        return states

    @staticmethod
    @torch.no_grad()
    def read(model: nn.Module, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a description, per layer (1, kv heads, tokens, head_dim): the part that needs no gradient."""
        cache = DynamicCache()
        decoder(model)(input_ids=ids[None], **cached(decoder(model), cache))
        layers: list[Any] = list(cache.layers)  # plain layers: keys and values of every token
        return [(layer.keys, layer.values) for layer in layers]

    def states_behind(self, model: nn.Module, description: list[tuple[Tensor, Tensor]]) -> Tensor:
        """As `states`, behind keys and values from `read`: what training differentiates."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(description):
            cache.update(keys, values, layer)
        with self._lora(model):
            out = decoder(model)(
                inputs_embeds=self.meta[None].to(description[0][0].dtype),
                **cached(decoder(model), cache),
            )
        states: Tensor = out.last_hidden_state[0]
        return states

    def check_length(self, model: nn.Module, tokens: int) -> None:
        """AdapterError when a description does not fit the cloud model's context."""
        limit = getattr(model.config, "max_position_embeddings", None) or tokens + len(self.meta)
        if tokens + len(self.meta) > limit:  # type: ignore[operator]
            raise AdapterError(
                f"the task description has {tokens} tokens, the cloud model reads at most {limit - len(self.meta)}",  # type: ignore[operator]
                hint="split the agent into several, or shorten its tool descriptions",
            )

    @contextmanager
    def _lora(self, model: nn.Module) -> Iterator[None]:
        """For one pass, adds the LoRA to q and v at the last `meta_tokens` positions."""
        count = len(self.meta)

        def change(A: Tensor, B: Tensor, x: Tensor, out: Tensor) -> Tensor:
            x = x[:, -count:]
            delta = (x @ A.to(x.dtype).T) @ B.to(x.dtype).T
            return torch.cat([out[:, :-count], out[:, -count:] + delta], dim=1)

        linears = _projections(model) if self.lora_rank else []
        with changed((linear, partial(change, self.A[i], self.B[i])) for i, linear in enumerate(linears)):
            yield


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str, device: torch.device | str = "cpu") -> Tensor:
    """Token ids (tokens,), int64, with the model's start token."""
    ids: Tensor = tokenizer(text, return_tensors="pt").input_ids[0].to(device)
    return ids


def _projections(model: nn.Module) -> list[nn.Linear]:
    return [
        module
        for name, module in decoder(model).named_modules()
        if name.rsplit(".", 1)[-1] in CLOUD_LINEARS and isinstance(module, nn.Linear)
    ]
