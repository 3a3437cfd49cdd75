"""`Specializer`: register tools, make agents, specialise the small model to them, and ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from agent_specializer.errors import ConfigError, SpecError, StoreError
from agent_specializer.intake import read_tools
from agent_specializer.messages import Mode, Reply
from agent_specializer.specializer.agent import Agent
from agent_specializer.specializer.task import Conversation, Task, grounded
from agent_specializer.specializer.threads import iterate_in_thread
from agent_specializer.specializer.workshop import Who, Workshop
from agent_specializer.specs import AgentSpec, ToolSpec
from agent_specializer.store import AgentRow

if TYPE_CHECKING:
    from agent_specializer.adapters import Specialization
    from agent_specializer.edge.events import Event
    from agent_specializer.edge.options import ReplyOptions
    from agent_specializer.errors import DecodeError

logger = logging.getLogger(__name__)


class Specializer(Workshop):
    """The product in one object. Cheap to make: models load on first use, once. Thread-safe.

    Args:
        home: folder of database, weights and exports; None is the settings'.
        bundle: name of a model bundle, or the path of a YAML file; None is the settings'.
        settings: all settings; the arguments before go over them.
        checkpoint: folder of another generator than the bundle's own.
        progress: told what slow work is doing.

    Raises:
        ConfigError: a setting makes no sense.
    """

    # Agents -----------------------------------------------------------------------------------------------

    def create_agent(self, name: str, tools: Sequence[Any], instructions: str = "") -> Agent:
        """Make the agent `name`, or make the one of that name so.

        Args:
            tools: names of registered tools; anything else is registered first, as `register_tools` does.

        Raises:
            NotFound: a named tool is not registered. SpecError: the name is none, or a tool is listed twice.
        """
        names: list[str] = []
        specs: list[ToolSpec] = []
        for tool in tools:
            if isinstance(tool, str):
                names.append(tool)
            else:
                found = read_tools(tool)
                specs += found
                names += [spec.name for spec in found]
        spec = _spec(name, names, instructions)
        if specs:
            self.registry.add_tools(specs)
        self.registry.save_agent(spec)
        return Agent(self, name)

    def agent(self, name: str) -> Agent:
        """The agent called `name`; NotFound where there is none."""
        self.registry.agent(name)
        return Agent(self, name)

    def agents(self) -> list[AgentRow]:
        """All agents, by name."""
        return self.registry.agents()

    # Asking -----------------------------------------------------------------------------------------------

    def ask(
        self,
        agent: Who,
        messages: Conversation,
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Reply:
        """The reply to a request or conversation; the first one in specialised mode makes the adapter.

        A system message becomes part of the instructions, and so of the adapter: the edge never reads it.

        Args:
            mode: "specialized"; "prompted", with the tool definitions in the prompt and no adapter; or
                "base", with neither.

        Raises:
            NotFound: no such agent. DecodeError: nothing valid fits the budget.
        """
        task = self._task(agent, messages, mode, options)
        return self._finished(task, self.engine.reply(task.messages, task.toolset, **task.how))

    def stream(
        self,
        agent: Who,
        messages: Conversation,
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Iterator[Event]:
        """As `ask`, event by event, ending in `Done` with the whole reply. Closing it stops the model."""
        from agent_specializer.edge.events import Done

        task = self._task(agent, messages, mode, options)
        for event in self.engine.stream(task.messages, task.toolset, **task.how):
            yield Done(self._finished(task, event.reply)) if isinstance(event, Done) else event

    async def aask(
        self,
        agent: Who,
        messages: Conversation,
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> Reply:
        """As `ask`, for asyncio: the event loop is never blocked."""
        return await asyncio.to_thread(self.ask, agent, messages, mode=mode, options=options)

    def astream(
        self,
        agent: Who,
        messages: Conversation,
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> AsyncIterator[Event]:
        """As `stream`, for asyncio: the event loop is never blocked."""
        return iterate_in_thread(lambda: self.stream(agent, messages, mode=mode, options=options))

    def ask_many(
        self,
        requests: Sequence[tuple[Who, Conversation]],
        *,
        mode: Mode = "specialized",
        options: ReplyOptions | None = None,
    ) -> list[Reply | DecodeError]:
        """The replies to (agent, messages) pairs in their order, any mixture of agents in one batch.

        A request that cannot be completed has its DecodeError as its item; the others are not affected.
        """
        from agent_specializer.edge.request import Request

        tasks = [self._task(agent, messages, mode, options) for agent, messages in requests]
        replies = self.engine.reply_batch(
            [Request(task.messages, task.toolset, **task.how) for task in tasks]
        )
        return [
            self._finished(task, reply) if isinstance(reply, Reply) else reply
            for task, reply in zip(tasks, replies, strict=True)
        ]

    # Inside -----------------------------------------------------------------------------------------------

    def _task(self, agent: Who, messages: Conversation, mode: Mode, options: ReplyOptions | None) -> Task:
        from agent_specializer.edge.options import ReplyOptions

        if mode not in get_args(Mode):
            raise ConfigError(f"there is no mode {mode!r}", hint=f"the modes are {', '.join(get_args(Mode))}")
        name, toolset = self._toolset(agent)
        toolset, turns = grounded(toolset, messages)
        made = self.cache.get(toolset, agent=name) if mode == "specialized" else None
        return Task(name, toolset, turns, mode, options or ReplyOptions(), made, self._counted(made))

    def _counted(self, made: Specialization | None) -> int | None:
        """The edge's tokens of the description that was read for `made`, if the edge counts as the cloud does."""
        models = self.runtime.models
        if made is None or models.cloud_tokenizer is not models.edge_tokenizer:
            return None
        return made.description_tokens - models.cloud_tokenizer.num_special_tokens_to_add()

    def _finished(self, task: Task, reply: Reply) -> Reply:
        """The reply with its adapter named, and kept in the runs."""
        reply = reply.model_copy(update={"adapter": task.fingerprint, "cache": task.cache})
        try:
            self.registry.add_run(
                mode=task.mode,
                agent=task.agent,
                adapter=task.fingerprint,
                request=task.request,
                calls=reply.calls,
                usage=reply.usage,
                confidence=reply.confidence,
                cache=task.cache,
            )
        except StoreError as error:  # a full disk must not cost the reply that is there
            logger.warning("the run was not kept: %s", error.message)
        return reply


def _spec(name: str, tools: Sequence[str], instructions: str) -> AgentSpec:
    try:
        return AgentSpec(name=name, tools=tuple(tools), instructions=instructions)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SpecError(
            f"agent {name!r}: {first['msg'].removeprefix('Value error, ')}",
            hint="give it a name of 1 to 128 letters, and each tool once",
        ) from None
