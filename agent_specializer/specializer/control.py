"""A control to compare with: an agent asked through the adapter of another one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent_specializer.specializer.facade import Specializer
from agent_specializer.specializer.task import Conversation, grounded

if TYPE_CHECKING:
    from agent_specializer.edge.events import Event
    from agent_specializer.edge.options import ReplyOptions


def stream_with_other_adapter(
    service: Specializer,
    agent: str,
    messages: Conversation,
    other: str,
    *,
    options: ReplyOptions | None = None,
) -> Iterator[Event]:
    """As `Specializer.stream` for `agent`, but with the gates of the agent `other` and `agent`'s keys out of order,
    as `evaluation.controls` does for its control. It is no run of the agent: nothing is kept.

    Raises:
        NotFound: no such agent. AdapterError, DecodeError: as `Specializer.stream`.
    """
    from agent_specializer.edge.options import DEFAULTS
    from agent_specializer.evaluation.controls import wrong_adapter

    own, foreign = service.specialize(agent), service.specialize(other)
    wrong = wrong_adapter(own.adapter, foreign.adapter, random.Random(0))
    priors = service.engine.priors(own.toolset, adapter=wrong, tools_in_prompt=False)
    _, turns = grounded(own.toolset, messages)
    yield from service.engine.stream(
        turns, own.toolset, adapter=wrong.with_priors(priors), options=options or DEFAULTS
    )
