"""What an engine is asked, and which weights, keys and priors of its adapter answer it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from agent_specializer.edge.options import DEFAULTS, ReplyOptions
from agent_specializer.errors import AdapterError
from agent_specializer.loragen.adapter import Adapter
from agent_specializer.messages import Message
from agent_specializer.specs import Toolset

Weights = Callable[[list[int]], AbstractContextManager[None]]
"""Puts the weights of some rows of a batch into the model, while its context is open."""


@dataclass(frozen=True)
class Request:
    """One item of a batch; see `EdgeEngine.reply`."""

    messages: Sequence[Message]
    toolset: Toolset
    adapter: Adapter | None = None
    tools_in_prompt: bool = False
    options: ReplyOptions = DEFAULTS
    description_tokens: int | None = None


def weights_key(adapter: Adapter | None) -> str:
    """Identity of an adapter's weights; empty for the base."""
    return "" if adapter is None else hashlib.sha256(adapter.gates.float().numpy().tobytes()).hexdigest()


def of_adapter(request: Request, part: str) -> Tensor | None:
    """The adapter's keys, lift or priors (`part`) in the order of the toolset's tools; None where it has none.

    Raises:
        AdapterError: it was made for other tools.
    """
    adapter = request.adapter
    values = None if adapter is None else getattr(adapter, part)
    if adapter is None or values is None or not values.numel():
        return None
    names = request.toolset.names
    if adapter.names == names:
        return values
    for_words = part == "priors"  # the last is that of answering in words
    if sorted(adapter.names) != sorted(names) or len(values) != len(names) + for_words:
        raise AdapterError(
            f"the adapter was made for the tools {', '.join(adapter.names)}, not for {', '.join(names)}",
            hint="specialise the agent again",
        )
    order = [adapter.names.index(name) for name in names]
    return values[[*order, -1] if for_words else order]
