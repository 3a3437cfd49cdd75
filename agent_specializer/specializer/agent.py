"""A registered agent, as one thing to hold on to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from agent_specializer.adapters import OnStep, Specialization
from agent_specializer.messages import Message, Mode, Reply
from agent_specializer.specs import AgentSpec, Toolset

if TYPE_CHECKING:
    from agent_specializer.edge.events import Event
    from agent_specializer.edge.options import ReplyOptions
    from agent_specializer.refinement.refine import Refinement
    from agent_specializer.specializer.facade import Specializer
    from tool_specs import ExampleRequest


class Agent:
    """The agent called `name` of a Specializer; `spec` and `toolset` are always the current ones."""

    def __init__(self, specializer: Specializer, name: str) -> None:
        self._specializer, self.name = specializer, name

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"

    @property
    def spec(self) -> AgentSpec:
        return self._specializer.registry.agent(self.name)

    @property
    def toolset(self) -> Toolset:
        return self._specializer.registry.toolset(self.name)

    def specialize(self, *, force: bool = False, on_step: OnStep | None = None) -> Specialization:
        """See `Specializer.specialize`."""
        return self._specializer.specialize(self.name, force=force, on_step=on_step)

    def refine(
        self,
        *,
        examples: Sequence[ExampleRequest] = (),
        keep: bool = False,
        requests: int | None = None,
        seed: int = 0,
    ) -> tuple[Specialization, Refinement]:
        """See `Specializer.refine`."""
        return self._specializer.refine(self.name, examples=examples, keep=keep, requests=requests, seed=seed)

    def ask(
        self,
        messages: str | Sequence[Message],
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Reply:
        """See `Specializer.ask`."""
        return self._specializer.ask(self.name, messages, mode=mode, options=options)

    def stream(
        self,
        messages: str | Sequence[Message],
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Iterator[Event]:
        """See `Specializer.stream`."""
        return self._specializer.stream(self.name, messages, mode=mode, options=options)

    async def aask(
        self,
        messages: str | Sequence[Message],
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Reply:
        """See `Specializer.aask`."""
        return await self._specializer.aask(self.name, messages, mode=mode, options=options)

    def astream(
        self,
        messages: str | Sequence[Message],
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> AsyncIterator[Event]:
        """See `Specializer.astream`."""
        return self._specializer.astream(self.name, messages, mode=mode, options=options)
